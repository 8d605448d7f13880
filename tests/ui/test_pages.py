"""What holds for every page of the site: it answers, with few queries."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver, reverse

from tests.pages import NO_PAGES, PAGES, Page, Scene, url_names
from tests.scenes import more_of
from tests.scenes import scene as make_scene

pytestmark = pytest.mark.django_db

MAX_QUERIES = {"webhooks:status": 20}


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
    """Say whether an address takes POST only."""
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


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_page_answers_with_few_queries_however_many_rows_it_shows(
    page: Page, browser: Client, scene: Scene
) -> None:
    client = Client() if page.name == "login" else browser

    def queries() -> int:
        with CaptureQueriesContext(connection) as made:
            answer = client.get(page.address(scene), headers=page.headers)
        assert answer.status_code == 200, answer.headers.get("Location")
        return len(made)

    queries()  # The first one fills caches of the process.
    few_rows = queries()
    for _ in range(3):
        more_of(scene)
    assert queries() <= few_rows <= MAX_QUERIES.get(page.name, 15)
