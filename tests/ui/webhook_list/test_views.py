"""The list of webhooks, the page of a webhook, and the actions on both."""

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from webhooks.models import (
    CREDENTIAL_SECRETS,
    Credential,
    Delivery,
    OAuthToken,
    PauseReason,
    Status,
    TokenState,
    Webhook,
    WebhookState,
)

pytestmark = pytest.mark.django_db

LIST = "/integrations/webhooks/"
SECRETS = {
    "basic_password": "pass-word-of-basic",
    "client_secret": "secret-of-the-client",
    "client_key": "key-of-the-client",
    "client_certificate": "certificate-of-the-client",
    "token_headers": "X-Key: of-the-token-requests",
    "headers_json": '[{"name": "X-Api-Key", "value": "key-in-a-header", "secret": true}]',
}


def url(name: str, webhook: Webhook) -> str:
    return reverse(f"webhooks:{name}", args=[webhook.pk])


def names(page: Any) -> list[str]:
    return [row["webhook"].name for row in page.context["rows"]]


def token_for(webhook: Webhook, state: str = TokenState.VALID) -> OAuthToken:
    return OAuthToken.objects.create(
        credential=webhook.credential,
        state=state,
        access_token="access-token-text",
        refresh_token="refresh-token-text",
        obtained_at=timezone.now(),
    )


def test_an_empty_list_says_what_to_do_first(browser: Client) -> None:
    page = browser.get(LIST)
    assert "Create a webhook" in page.text
    button = f'<a class="btn is-primary" href="{reverse("webhooks:create")}">'
    assert page.text.count(button) == page.text.count("is-primary") == 1


def test_an_empty_list_offers_nothing_to_who_may_not_create() -> None:
    page = logged_in("view_webhook").get(LIST)
    assert reverse("webhooks:create") not in page.text


@pytest.mark.parametrize(
    ("fields", "permission", "button"),
    [
        ({}, "test_webhook", "Send test"),
        ({"authorization_type": "oauth2"}, "authorize_webhook", "Get new access token"),
    ],
)
def test_the_next_step_leads_to_a_page_that_its_reader_may_open(
    fields: dict[str, Any], permission: str, button: str
) -> None:
    webhook = make_webhook(**fields)
    client = logged_in("view_webhook", permission)
    [step] = [one for one in client.get(LIST).context["first_steps"] if one["is_next"]]
    assert button in client.get(step["url"]).text
    editor = logged_in("view_webhook", "change_webhook", permission, name="editor")
    [step] = [one for one in editor.get(LIST).context["first_steps"] if one["is_next"]]
    assert step["url"].startswith(reverse("webhooks:edit", args=[webhook.pk]))


def test_the_sandbox_hint_shows_only_beside_a_sandbox(browser: Client, settings: Any) -> None:
    assert "Open the receiver" not in browser.get(LIST).text
    settings.WEBHOOKS_SANDBOX_URL = "http://127.0.0.1:8001"
    assert 'href="http://127.0.0.1:8001"' in browser.get(LIST).text


def test_a_row_shows_events_authorization_status_and_the_last_delivery(browser: Client) -> None:
    webhook = make_webhook(name="CRM", authorization_type="oauth2")
    token_for(webhook, TokenState.NEEDS_REAUTHORIZATION)
    delivery = make_delivery(webhook)
    Delivery.objects.filter(pk=delivery.pk).update(
        status=Status.FAILED, next_attempt_at=None, status_code=503, finished_at=timezone.now()
    )
    page = browser.get(LIST)
    for text in ("CRM", webhook.url, "call.*", "OAuth 2.0", "Needs re-authorization", "On hold"):
        assert text in page.text
    assert page.context["rows"][0]["last"] == Delivery.objects.get()
    assert "Failed" in page.text
    assert "503" in page.text


def test_the_last_delivery_is_found_through_its_index(browser: Client) -> None:
    from django.db import connection

    from webhooks.ui.webhook_list.context import newest_delivery

    newest = newest_delivery(Webhook(pk=1).pk)
    plan = newest.explain()
    if connection.vendor == "sqlite":
        assert "delivery_by_webhook" in plan


def test_a_long_list_is_paged(browser: Client) -> None:
    for number in range(52):
        make_webhook(name=f"Hook {number:02}")
    assert len(names(browser.get(LIST))) == 50
    assert names(browser.get(LIST, {"page": 2})) == ["Hook 50", "Hook 51"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"q": "crm"}, ["CRM", "Old"]),
        ({"q": "CRM.EXAMPLE"}, ["CRM", "Old"]),
        ({"q": "nothing\0"}, []),
        ({"status": "active"}, ["CRM", "Sick", "Basic", "Grant"]),
        ({"status": "paused"}, ["Gone", "Old"]),
        ({"status": "attention"}, ["CRM", "Gone", "Sick"]),
        ({"authorization": "oauth2"}, ["CRM", "Grant"]),
        ({"authorization": "basic", "q": "bas"}, ["Basic"]),
        ({"authorization": "unknown", "status": "unknown"}, ["Basic", "CRM", "Gone", "Grant"]),
    ],
)
def test_the_list_is_searched_and_filtered(
    browser: Client, query: dict[str, str], found: list[str]
) -> None:
    make_webhook(name="CRM", url="https://crm.example.com/x", authorization_type="oauth2")
    make_webhook(name="Basic", authorization_type="basic", basic_password="x")
    make_webhook(name="Grant", authorization_type="oauth2", grant_type="client_credentials")
    paused = {"is_active": False, "paused_at": timezone.now()}
    make_webhook(name="Old", url="https://crm.example.com/y", pause_reason="person", **paused)
    make_webhook(name="Gone", pause_reason=PauseReason.GONE, **paused)
    sick = make_webhook(name="Sick")
    long_ago = timezone.now() - dt.timedelta(hours=1)
    WebhookState.objects.create(webhook=sick, failing_since_at=long_ago)
    make_webhook(name="CRM deleted", deleted_at=timezone.now())
    page = browser.get(LIST, query)
    assert set(found) <= set(names(page)) if "unknown" in query.values() else names(page) == found
    assert ("No webhook matches" in page.text) == (not found)


def test_no_secret_is_on_any_page(browser: Client) -> None:
    webhook = make_webhook(authorization_type="oauth2", **SECRETS)
    token_for(webhook)
    for address in (LIST, url("detail", webhook), url("delete", webhook)):
        text = browser.get(address).text
        secrets = [*SECRETS.values(), "key-in-a-header", "-token-text", webhook.signing_secret]
        assert not [secret for secret in secrets if secret in text]


def test_a_long_url_shows_its_host_and_its_end(browser: Client) -> None:
    webhook = make_webhook(url="https://crm.example.com/hooks/" + "0123456789" * 20 + "?to=sales")
    page = browser.get(LIST).text
    shown = page.partition('<span class="webhook-url-start">')[2].partition("</span></span>")[0]
    assert shown.startswith("https://crm.example.com/hooks/0")
    assert shown.endswith("…</span><span>789?to=sales")
    assert f'title="POST {webhook.url}"' in page


def test_names_and_urls_are_escaped(browser: Client) -> None:
    webhook = make_webhook(name="<script>x</script>", url='http://127.0.0.1/"><b>')
    for address in (LIST, url("detail", webhook), url("delete", webhook)):
        text = browser.get(address).text
        assert "<script>x" not in text
        assert '"><b>' not in text


def test_the_page_of_a_webhook_shows_counts_token_and_recent_deliveries(browser: Client) -> None:
    webhook = make_webhook(name="CRM", authorization_type="oauth2", **SECRETS)
    token_for(webhook)
    for _ in range(22):
        make_delivery(webhook)
    held = Delivery.objects.order_by("id")[:3].values("pk")
    Delivery.objects.filter(pk__in=list(held.values_list("pk", flat=True))).update(
        status=Status.HELD, next_attempt_at=None, hold_reason="no_token"
    )
    page = browser.get(url("detail", webhook))
    assert (page.context["waiting"], page.context["held"]) == ("19", "3")
    assert len(page.context["deliveries"]) == 15
    assert "Events are sent as they happen." in page.text
    assert "Manage authorization" in page.text


def test_counting_stops_at_a_thousand(browser: Client) -> None:
    webhook = make_webhook()
    first = make_delivery(webhook)
    Delivery.objects.bulk_create(
        Delivery(event_id=first.event_id, webhook=webhook, next_attempt_at=timezone.now())
        for _ in range(1001)
    )
    assert browser.get(url("detail", webhook)).context["waiting"] == "1,000+"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"is_active": False, "pause_reason": "person"}, "Nothing is sent."),
        ({"is_active": False, "pause_reason": "gone"}, "410 Gone"),
        ({"is_active": False, "pause_reason": "failing"}, "no delivery succeeded"),
        ({"authorization_type": "oauth2"}, "until you get a new access token"),
        ({"authorization_type": "oauth2", "grant_type": "client_credentials"}, "as they happen"),
    ],
)
def test_a_sentence_says_how_a_webhook_is_doing(
    browser: Client, fields: dict[str, Any], sentence: str
) -> None:
    webhook = make_webhook(**fields)
    assert sentence in browser.get(url("detail", webhook)).context["status"]["sentence"]


@pytest.mark.parametrize("state", [TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED])
def test_a_dead_token_says_what_to_change(browser: Client, state: str) -> None:
    webhook = make_webhook(authorization_type="oauth2")
    token = token_for(webhook, state)
    token.last_error = "The provider answered invalid_grant."
    token.save(update_fields=["last_error"])
    page = browser.get(url("detail", webhook))
    assert "invalid_grant" in page.context["status"]["full_sentence"]
    # The button itself, and no mention of an expiry that no longer matters.
    assert f'action="{reverse("webhooks:authorize", args=[webhook.credential_id])}"' in page.text
    assert "Expires" not in page.text


def test_a_working_token_is_not_asked_for_again(browser: Client) -> None:
    webhook = make_webhook(authorization_type="oauth2")
    token_for(webhook)
    page = browser.get(url("detail", webhook))
    assert "Get new access token" not in page.text
    assert "Expires" in page.text


def test_a_failing_receiver_is_named(browser: Client) -> None:
    webhook = make_webhook()
    WebhookState.objects.create(
        webhook=webhook, failing_since_at=timezone.now(), last_error="It answered 503."
    )
    assert "It answered 503." in browser.get(url("detail", webhook)).text


def test_pausing_holds_and_resuming_releases(browser: Client) -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    browser.post(url("pause", webhook))
    webhook.refresh_from_db()
    delivery.refresh_from_db()
    assert (webhook.is_active, delivery.status) == (False, Status.HELD)
    answer = browser.post(url("resume", webhook), {"held": "send"}, follow=True)
    webhook.refresh_from_db()
    delivery.refresh_from_db()
    assert (webhook.is_active, delivery.status) == (True, Status.PENDING)
    assert "1 delivery on hold is sent now" in answer.text


def test_an_action_returns_to_its_own_page_and_to_no_other_site(browser: Client) -> None:
    webhook = make_webhook()
    back = LIST + "?q=CRM"
    assert browser.post(url("pause", webhook), {"next": back})["Location"] == back
    for foreign in ("https://evil.example/", "//evil.example", "javascript:alert(1)", ""):
        answer = browser.post(url("resume", webhook), {"next": foreign})
        assert answer["Location"] == url("detail", webhook)


def test_a_copy_has_the_settings_and_secrets_but_no_token(browser: Client) -> None:
    webhook = make_webhook(
        name="N" * 100, authorization_type="oauth2", scope="a b", filter={}, **SECRETS
    )
    token_for(webhook)
    answer = browser.post(url("duplicate", webhook), follow=True)
    copy = Webhook.objects.latest("pk")
    assert copy.pk != webhook.pk
    assert copy.name.endswith(" (copy)")
    assert len(copy.name) <= 100
    assert (copy.url, copy.credential.scope, copy.event_types) == (webhook.url, "a b", ["call.*"])
    assert copy.headers_json == SECRETS["headers_json"]
    for name in CREDENTIAL_SECRETS:
        assert getattr(copy.credential, name) == SECRETS.get(name, "")
    assert copy.signing_secret
    assert copy.signing_secret != webhook.signing_secret
    assert not copy.is_active
    assert copy.uid != webhook.uid
    assert not OAuthToken.objects.filter(credential=copy.credential).exists()
    assert copy.created_by == get_user_model().objects.get()
    assert "no access token" in answer.text
    assert copy.signing_secret in answer.text


def test_a_copy_keeps_to_the_limit_of_an_event_type(browser: Client, settings: Any) -> None:
    settings.WEBHOOKS_MAX_PER_EVENT_TYPE = 2
    webhook = make_webhook(event_types=["form.submitted"])
    browser.post(url("duplicate", webhook))
    page = browser.post(url("duplicate", webhook), {"next": LIST}, follow=True)
    assert "Not copied:" in page.text
    assert "already has 2 webhooks, the limit for one event type." in page.text
    assert Webhook.objects.count() == 2


def test_a_copy_seals_its_secrets_for_its_own_row(browser: Client) -> None:
    webhook = make_webhook(**SECRETS)
    browser.post(url("duplicate", webhook))
    sealed = Credential.objects.order_by("pk").values_list("basic_password", flat=True)
    assert sealed[0] != sealed[1]


def test_deleting_says_what_is_lost_and_loses_it(browser: Client) -> None:
    webhook = make_webhook(name="CRM", authorization_type="oauth2", **SECRETS)
    token_for(webhook)
    make_delivery(webhook)
    make_delivery(webhook)
    page = browser.get(url("delete", webhook))
    assert "2 deliveries that are waiting or on hold will be cancelled" in page.text
    assert "access token" in page.text
    assert "30 days" in page.text
    answer = browser.post(url("delete", webhook), follow=True)
    assert "“CRM” is deleted." in answer.text
    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.CANCELLED}
    assert 'name="undo" value="restore:' in answer.text


def test_a_row_has_no_button_that_its_reader_may_not_press() -> None:
    webhook = make_webhook()
    page = logged_in("view_webhook").get(LIST).text
    for name in ("pause", "resume", "delete", "duplicate"):
        assert url(name, webhook) not in page


def test_pages_ask_for_login_and_for_the_permission_to_see() -> None:
    webhook = make_webhook()
    for address in (LIST, url("detail", webhook)):
        assert Client().get(address)["Location"] == f"/login/?next={address}"
    browser = logged_in()
    assert browser.get(LIST).status_code == 403
    assert "has no permission" in browser.get(url("detail", webhook)).text


def test_forged_posts_are_refused_with_a_page_that_says_what_to_do() -> None:
    webhook = make_webhook()
    client = Client(enforce_csrf_checks=True)
    client.force_login(get_user_model().objects.create_superuser("root", password="p"))
    answer = client.post(url("pause", webhook))
    assert answer.status_code == 403
    assert "The form has expired" in answer.text
    webhook.refresh_from_db()
    assert webhook.is_active


@pytest.mark.parametrize("template", ["404.html", "403.html", "400.html", "500.html", "503.html"])
def test_error_pages_need_no_context(template: str) -> None:
    from django.template.loader import render_to_string

    assert "Go to Webhooks 2.0" in render_to_string(template)


def test_times_are_shown_as_ages_with_the_exact_time_on_hover() -> None:
    from webhooks.templatetags.interface import ago, next_attempt

    now = timezone.now()
    assert ">just now<" in ago(now)
    assert "5\xa0minutes ago" in ago(now - dt.timedelta(minutes=5, seconds=1))
    assert "in 2\xa0hours" in ago(now + dt.timedelta(hours=2, seconds=5))
    assert 'data-ago="due">in a moment<' in next_attempt(now + dt.timedelta(seconds=5))
    assert now.strftime('title="%Y-%m-%d %H:%M') in ago(now)
    assert ago(None) == ""


def test_logging_in_shows_mistakes_and_keeps_the_name() -> None:
    get_user_model().objects.create_superuser("root", password="right-password")
    client = Client()
    page = client.post("/login/", {"username": "root", "password": "wrong"})
    assert 'value="root"' in page.text
    assert "Wrong login or password." in page.text
    answer = client.post("/login/", {"username": "root", "password": "right-password"})
    assert answer["Location"] == "/"
