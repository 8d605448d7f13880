"""Secrets that others can read: sent over plain HTTP, and inside URLs."""

from typing import Any

import pytest

from tests.people import logged_in
from tests.ui.transfer.test_views import look
from tests.ui.webhook_form.test_forms import BASIC, bound, error, header_fields, saved
from webhooks import network
from webhooks.models import Credential, Webhook
from webhooks.security.drafts import Draft
from webhooks.ui.connections.forms import ConnectionForm

pytestmark = [pytest.mark.django_db, pytest.mark.once]

PLAIN = "http://crm.example.com/hook"
HEADER = header_fields({"name": "X-Key", "value": "typed", "is_secret": "on"})


@pytest.fixture(autouse=True)
def _every_name_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "check_url", lambda url, **_: network.parse_url(url))


@pytest.mark.parametrize("secret", [BASIC, HEADER])
def test_secrets_over_plain_http_need_a_tick(secret: dict[str, Any]) -> None:
    form = bound(url=PLAIN, **secret)
    assert "not encrypted" in error("accepts_plain_http", url=PLAIN, **secret)
    assert form.asks_plain_http
    assert saved(url=PLAIN, accepts_plain_http="on", **secret).accepts_plain_http


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("https://crm.example.com/hook", BASIC),
        ("http://127.0.0.1:9/hook", BASIC),
        ("http://localhost:9/hook", BASIC),
        (PLAIN, {}),
    ],
)
def test_nothing_is_asked_where_no_one_else_can_read_a_secret(
    url: str, secret: dict[str, Any]
) -> None:
    assert not error("accepts_plain_http", url=url, **secret)


def test_the_box_stays_ticked_and_goes_with_https() -> None:
    webhook = saved(url=PLAIN, accepts_plain_http="on", **BASIC)
    assert 'name="accepts_plain_http"' in page_of(webhook)
    webhook = saved(webhook, **{**BASIC, "url": "https://crm.example.com/hook"})
    assert not webhook.accepts_plain_http
    assert 'name="accepts_plain_http"' not in page_of(webhook)


def page_of(webhook: Webhook) -> str:
    browser = logged_in(is_superuser=True, name=f"of {webhook.version}")
    text: str = browser.get(f"/integrations/webhooks/{webhook.pk}/edit/").text
    return text


@pytest.mark.parametrize(
    ("host", "is_asked"), [("http://crm.example.com", True), ("a.example", False)]
)
def test_a_connection_over_plain_http_needs_a_tick(host: str, is_asked: bool) -> None:
    data = {"name": "CRM", "allowed_hosts": host, **BASIC}
    for ticked in (False, True):
        given = {**data, "accepts_plain_http": "on"} if ticked else data
        form = ConnectionForm(given, instance=Credential(name="CRM"), draft=Draft({}))
        form.is_valid()
        assert bool(form.errors.get("accepts_plain_http")) is (is_asked and not ticked)


def test_a_file_says_it_too() -> None:
    entry = {"name": "CRM", "url": PLAIN, "event_types": ["form.submitted"],
             "authorization_type": "basic", "basic_login": "crm"}  # fmt: skip
    browser = logged_in(is_superuser=True)
    (refused,) = look(browser, entry).context["plan"].items
    assert "plain http" in " ".join(refused.errors)
    (planned,) = look(browser, {**entry, "accepts_plain_http": True}).context["plan"].items
    assert planned.errors == []


# ---- Secrets inside URLs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    ["access_token=a1b2", "x=1&token=a", "api_key=a", "X-Api-Key=a", "key=a", "userPassword=a",
     "sig=a", "client_secret=a", "auth=a", "session_id=a", "hub.secret=a", "passwd=a", "jwt=a",
     "hapikey=a", "zapikey=a", "XApiKey=a", "sharedAccessKey=a", "user_key=a", "webhookToken=a",
     "verificationtoken=a", "passphrase=a", "PHPSESSID=a", "jsessionid=a", "bearer=a", "pw=a",
     "hmac_sha256=a", "license_key=a", "X-Amz-Signature=a", "X-Amz-Security-Token=a", "httpauth=a",
     "code=" + "aZ0_" * 14],
)  # fmt: skip
def test_a_new_url_with_a_secret_in_it_is_refused_with_advice(query: str) -> None:
    url = f"https://crm.example.com/hook?{query}"
    form = bound(url=url)
    sentence = error("accepts_secret_in_url", url=url)
    assert "looks like a secret" in sentence
    assert "secret header" in sentence
    assert form.asks_secret_in_url
    assert saved(url=url, accepts_secret_in_url="on").url == url


@pytest.mark.parametrize(
    "query",
    ["", "sort_key=a", "keyword=a", "author=me", "tokens_left=", "token=", "monkey=1", "id=5",
     "project=crm&version=2", "authority=a", "passenger=2", "signal=x", "primary_key=a",
     "partitionKey=a", "public_key=a", "idempotency_key=a", "turkey=a", "compass=a", "assign=a",
     "bypass=a", "code=UA-2026", "sessions=3", "signature_version=2", "secretary=a", "pin=1",
     "order_key=a", "nextPageToken=a", "sync_token=a"],
)  # fmt: skip
def test_an_ordinary_query_is_not(query: str) -> None:
    url = f"https://crm.example.com/hook?{query}"
    assert not bound(url=url).errors
    assert not saved(url=url).accepts_secret_in_url


def test_the_box_for_a_secret_in_the_url_stays_ticked_and_goes_with_it() -> None:
    """Google Chat, Power Automate and DingTalk take their key only in the URL."""
    url = "https://chat.example.com/v1/spaces/A/messages?key=abc&token=def"
    webhook = saved(url=url, accepts_secret_in_url="on")
    assert 'name="accepts_secret_in_url"' in page_of(webhook)
    webhook = saved(webhook, url="https://chat.example.com/v1/spaces/A/messages")
    assert not webhook.accepts_secret_in_url
    assert 'name="accepts_secret_in_url"' not in page_of(webhook)


def test_a_file_may_have_a_secret_in_a_url() -> None:
    entry = {
        "name": "Chat",
        "url": "https://chat.example.com/?token=abc",
        "event_types": ["form.submitted"],
    }
    browser = logged_in(is_superuser=True)
    (refused,) = look(browser, entry).context["plan"].items
    assert "looks like a secret" in " ".join(refused.errors)
    (planned,) = look(browser, {**entry, "accepts_secret_in_url": True}).context["plan"].items
    assert planned.errors == []


def test_a_login_inside_a_url_is_refused() -> None:
    assert error("url", url="https://crm:secret@crm.example.com/hook")
