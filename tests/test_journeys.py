"""The product's modules that each of seven journeys uses, compared with the documentation.

docs/architecture.md lists them; a change that adds a module to a journey changes the page too.
"""

import gc
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import deliver_all, make_delivery, make_webhook
from tests.people import logged_in
from tests.sandbox import Provider, Receiver, answer_consent
from tests.ui.webhook_form.test_forms import posted
from tests.ui.webhook_form.test_token_views import authorize_url, start_authorization
from tests.ui.webhook_form.test_views import CREATE, edit_url
from webhooks.models import ApiKey, Attempt, Delivery, OAuthToken, TokenState, Webhook

pytestmark = pytest.mark.django_db

PAGE = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
_IMPORTED = ("<module>", "<lambda>")


@contextmanager
def watched() -> Iterator[set[str]]:
    """Collect the product's modules whose functions run, in this thread and in new ones."""
    modules: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            name = frame.f_globals.get("__name__", "")
            if name.startswith("webhooks.") and frame.f_code.co_name not in _IMPORTED:
                modules.add(name.removeprefix("webhooks."))

    # A generator that an earlier test left in a cycle runs once more when it is collected.
    gc.collect()
    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield modules
    finally:
        sys.setprofile(before)
        threading.setprofile(None)


def listed(journey: str) -> set[str]:
    """Return the modules that the document lists below a journey's heading."""
    text = PAGE.read_text()
    section = re.search(rf"^### {re.escape(journey)}\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert section, f"docs/architecture.md has no journey called {journey}"
    rows = re.findall(r"^- (.*)$", section[1], re.M)
    return {name for row in rows for name in re.findall(r"`([a-z_.]+)`", row.split(":")[0])}


def compare(journey: str, modules: set[str]) -> None:
    assert modules, "the hook saw nothing"
    print(f"{journey}: {len(modules)}\n" + "\n".join(f"- `{name}`" for name in sorted(modules)))
    missing, stale = modules - listed(journey), listed(journey) - modules
    assert not missing, f"docs/architecture.md, {journey}: add {sorted(missing)}"
    assert not stale, f"docs/architecture.md, {journey}: remove {sorted(stale)}"


@pytest.fixture
def browser() -> Client:
    return logged_in(name="ann", is_superuser=True)


@pytest.mark.database("sqlite")
def test_publish_over_http_to_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a slow machine the key would be looked up again, which uses one more module.
    monkeypatch.setattr("webhooks.api.events.KEY_SECONDS", 3600.0)
    make_webhook()
    _, key = ApiKey.objects.issue("CRM")
    body = json.dumps({"type": "call.incoming.after", "payload": {"call_id": "call-1"}})
    client = Client()

    def send() -> Any:
        return client.post(
            "/api/v1/events",
            body,
            content_type="application/json",
            headers={"Authorization": f"Bearer {key}"},
        )

    send()
    with watched() as modules:
        answer = send()

    assert answer.status_code == 202
    assert Delivery.objects.count() == 2
    compare("Publish over HTTP to rows", modules)


@pytest.mark.database("sqlite")
@pytest.mark.django_db(transaction=True)
def test_one_delivery_from_claim_to_attempt_row(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    make_delivery(webhook)

    with watched() as modules:
        deliver_all()

    assert Attempt.objects.get().outcome == "succeeded"
    compare("One delivery, from claim to attempt row", modules)


@pytest.mark.once
def test_get_new_access_token_to_redirect(browser: Client, provider: Provider) -> None:
    start_authorization(browser, provider)
    url = authorize_url(Webhook.objects.get())
    browser.post(url)

    with watched() as modules:
        answer = browser.post(url)

    assert answer["Location"].startswith(provider.auth_url)
    compare("Get new access token to redirect", modules)


@pytest.mark.database("sqlite")
def test_callback_to_stored_token(browser: Client, provider: Provider) -> None:
    back = urlsplit(answer_consent(start_authorization(browser, provider)))

    with watched() as modules:
        answer = browser.get(f"{back.path}?{back.query}")

    assert answer.status_code == 303
    assert OAuthToken.objects.get().state == TokenState.VALID
    compare("Callback to stored token", modules)


@pytest.mark.once
def test_showing_the_form(browser: Client) -> None:
    browser.get(CREATE)

    with watched() as modules:
        answer = browser.get(CREATE)

    assert answer.status_code == 200
    compare("Showing the form", modules)


@pytest.mark.once
def test_saving_the_form(browser: Client) -> None:
    browser.post(CREATE, posted(name="Before"))
    webhook = Webhook.objects.get()

    with watched() as modules:
        answer = browser.post(edit_url(webhook), posted(name="After"))

    assert answer.status_code in (302, 303), answer.context["form"].errors
    assert Webhook.objects.get().name == "After"
    compare("Saving the form", modules)


@pytest.mark.database("sqlite")
@pytest.mark.django_db(transaction=True)
def test_a_deliverys_page(browser: Client, receiver: Receiver) -> None:
    delivery = make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
    deliver_all()
    url = reverse("webhooks:delivery", args=[delivery.pk])
    browser.get(url)

    with watched() as modules:
        answer = browser.get(url)

    assert answer.status_code == 200
    compare("A delivery's page", modules)
