"""Rules for every page of the site: it responds, with few queries, and weighs little."""

import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver, reverse
from django.utils import timezone

from tests.pages import NO_PAGES, PAGES, Scene, SitePage, url_names
from tests.scenes import more_of
from tests.scenes import scene as make_scene
from webhooks.models import Delivery, Status, Webhook

pytestmark = pytest.mark.django_db

# 15, and one more while deliveries are late: whether an ordered webhook keeps them waiting.
MAX_QUERIES = 16
_OF_STATUS = 21
BUDGET_BYTES = 110_000
_OWN = [Path(folder) for folder in settings.STATICFILES_DIRS]


@pytest.fixture
def scene() -> Scene:
    return make_scene()


@pytest.fixture
def browser() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin", password="p"))
    return client


def test_every_address_is_a_page_or_none_for_a_reason(browser: Client, scene: Scene) -> None:
    listed = {page.name for page in PAGES} | set(NO_PAGES)
    posts = {name for name in set(url_names()) - listed if refuses_get(name, browser)}
    assert set(url_names()) - listed - posts == set(), "list these in tests/pages.py"
    assert listed - set(url_names()) == set(), "these are gone"


def refuses_get(name: str, browser: Client) -> bool:
    """Return whether a URL accepts POST only."""
    [(_template, names), *_] = _reversals(name)
    values = {"pk": "1", "delivery_id": "dlv_1", "object_id": "1", "id": "1"}
    address = reverse(name, kwargs={key: values[key] for key in names})
    return browser.get(address).status_code == 405


def _reversals(name: str) -> list[tuple[str, list[str]]]:
    namespace, _, plain = name.rpartition(":")
    resolver = get_resolver()
    if namespace:
        resolver = resolver.namespace_dict[namespace][1]
    [first, *_] = resolver.reverse_dict.getlist(plain)
    return list(first[0])


def get(page: SitePage, browser: Client, scene: Scene) -> Any:
    """Return the response of a page; the login page is requested without a login."""
    client = Client() if page.name == "login" else browser
    return client.get(page.address(scene), headers=page.headers)


def _most(page: SitePage) -> int:
    return _OF_STATUS if page.name == "webhooks:status" else MAX_QUERIES


@pytest.mark.slow
def test_every_page_answers_with_few_queries_however_many_rows_it_shows(
    browser: Client, scene: Scene
) -> None:
    def queries(page: SitePage) -> int:
        with CaptureQueriesContext(connection) as made:
            answer = get(page, browser, scene)
        assert answer.status_code == 200, (page, answer.headers.get("Location"))
        return len(made)

    # Otherwise, on a slow machine, they would become late between the two measurements.
    late = Delivery.objects.filter(status=Status.PENDING)
    late.update(next_attempt_at=timezone.now() - timedelta(hours=1))
    # As after an edit: the audit trail is read only for changes saved since an event.
    Webhook.objects.get(pk=scene.webhook).save()
    for page in PAGES:
        queries(page)  # The first request fills the caches of the process.
    few = {page: queries(page) for page in PAGES}
    for _ in range(3):
        more_of(scene)
    many = {page: queries(page) for page in PAGES}
    wrong = [
        f"{page}: {few[page]}, then {many[page]}"
        for page in PAGES
        if not many[page] <= few[page] <= _most(page)
    ]
    assert wrong == []


@pytest.mark.once
@pytest.mark.slow
def test_a_page_links_what_its_classes_need_and_less_than_110_kb_of_our_css_and_scripts(
    browser: Client, scene: Scene
) -> None:
    everything = {
        name for folder in _OWN for path in folder.rglob("*.css") for name in styled(path)
    }
    missing, heavy = {}, {}
    for page in PAGES:
        if page.is_part:
            continue
        html = get(page, browser, scene).text
        files = own_files(html)
        assert "ui/tokens.css" in files, page
        if sum(files.values()) >= BUDGET_BYTES:
            heavy[str(page)] = sum(files.values())
        linked = {folder / name for name in files for folder in _OWN}
        there = {name for path in linked if path.suffix == ".css" for name in styled(path)}
        used = {name for names in re.findall(r'class="([^"]*)"', html) for name in names.split()}
        # A state, such as `is-head`, has a style with some blocks only.
        if lost := {name for name in used & everything - there if not name.startswith("is-")}:
            missing[str(page)] = sorted(lost)
    assert (missing, heavy) == ({}, {})


@cache
def styled(path: Path) -> set[str]:
    """Return the classes that a style sheet names, including those it imports."""
    if not path.exists():
        return set()
    text = path.read_text()
    imported = [path.parent / name for name in re.findall(r'@import url\("([^"]+)"\)', text)]
    return set(re.findall(r"\.([a-z][\w-]*)", text)).union(*map(styled, imported))


def own_files(html: str) -> dict[str, int]:
    """Return our own style sheets and scripts of a page, with their sizes in bytes."""
    linked = re.findall(r'<(?:link|script)\b[^>]*\b(?:href|src)="([^"]+\.(?:css|js))"', html)
    names = {address.removeprefix("/" + settings.STATIC_URL.strip("/") + "/") for address in linked}
    found = {name: folder / name for name in names for folder in _OWN if (folder / name).exists()}
    return {name: path.stat().st_size for name, path in found.items()}
