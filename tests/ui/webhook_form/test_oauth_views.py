"""Discovery, checks, the other client authentication and the exchange log over HTTP."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from tests.factories import make_delivery
from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply
from tests.oauth_rows import make_machine_webhook, make_token, make_webhook
from tests.sandbox import MACHINE_CLIENT, Provider
from tests.ui.webhook_form.test_forms import OAUTH, posted
from tests.ui.webhook_form.test_token_views import authorized, oauth_fields, start_authorization
from tests.ui.webhook_form.test_views import CREATE, draft_of, edit_url, logged_in
from webhooks import oauth
from webhooks.models import (
    Credential,
    Delivery,
    HoldReason,
    OAuthExchange,
    OAuthToken,
    Status,
    TokenState,
    Webhook,
    messages,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]

HTMX = {"HX-Request": "true"}
FIND = "/integrations/webhooks/oauth/endpoints/"


def tool(name: str, webhook: Webhook) -> str:
    return reverse(f"webhooks:{name}", args=[webhook.credential_id])


def takes_only_the_body(asked: ReceivedRequest) -> Reply:
    if "authorization" in asked.headers:
        return Reply(status=401, body={"error": "invalid_client"})
    return Reply(status=400, body={"error": "invalid_grant"})


def failed_exchange(credential: Credential, **fields: Any) -> OAuthExchange:
    values = {
        "kind": "token",
        "started_at": timezone.now(),
        "duration_ms": 12.0,
        "url": credential.token_url,
        "status_code": 401,
        "result": "misconfigured",
        "request": "POST …\n\nredirect_uri=http://sent.example/callback",
        "response": 'HTTP 401\n\n{"error": "invalid_client"}',
        "message": messages.dump("invalid_client", said="invalid_client"),
        **fields,
    }
    return OAuthExchange.objects.create(credential=credential, **values)


# ---- Discovery -------------------------------------------------------------------------------


def test_an_issuer_shows_what_it_found_before_anything_is_used(
    browser: Client, provider: Provider
) -> None:
    answer = browser.post(
        FIND,
        {"issuer": provider.issuer, "auth_url": "http://127.0.0.1:9/old"},
        headers=HTMX,
    )
    assert "<html" not in answer.text
    assert provider.auth_url in answer.text
    assert "http://127.0.0.1:9/old" in answer.text
    assert "Use these" in answer.text
    assert Webhook.objects.count() == 0


def test_what_is_there_already_needs_no_button(browser: Client, provider: Provider) -> None:
    data = {
        "issuer": provider.issuer,
        "auth_url": provider.auth_url,
        "token_url": provider.token_url,
        "revocation_url": provider.revocation_url,
        "client_authentication": "basic_header",
        "uses_pkce": "True",
        "requires_issuer": "True",
    }
    answer = browser.post(FIND, data, headers=HTMX)
    assert "No changes." in answer.text
    assert "Use these" not in answer.text


@pytest.mark.parametrize(
    ("issuer", "words"),
    [
        ("", "Enter the issuer"),
        ("http://provider.example", "https://"),
        ("https://10.0.0.1", "10.0.0.1"),
        ("no address", "Issuer"),
    ],
)
def test_an_issuer_that_cannot_be_asked_is_reported(
    browser: Client, issuer: str, words: str
) -> None:
    assert words in browser.post(FIND, {"issuer": issuer}, headers=HTMX).text


def test_another_issuer_in_the_document_is_refused_and_escaped(
    browser: Client, fake: FakeProvider
) -> None:
    fake.reply(Reply(body={"issuer": "<script>alert(1)</script>"}))
    answer = browser.post(FIND, {"issuer": fake.url}, headers=HTMX)
    assert "calls itself" in answer.text
    assert "<script>" not in answer.text


def test_without_a_script_the_form_finds_and_uses_endpoints_by_round_trips(
    browser: Client, provider: Provider
) -> None:
    typed = oauth_fields(provider, auth_url="", token_url="", issuer=provider.issuer)
    page = browser.post(CREATE, {**typed, "action": "find_endpoints"})
    assert page.status_code == 200
    assert not page.context["form"].errors
    filling = page.context["form"].endpoints["filling"]
    assert escape(filling) in page.text
    again = browser.post(
        CREATE, {**typed, "client_secret": "", "draft": draft_of(page), "fill": filling,
                 "action": ""}
    )  # fmt: skip
    form = again.context["form"]
    assert form["auth_url"].value() == provider.auth_url
    assert form["token_url"].value() == provider.token_url
    assert form.draft.get("client_secret") == typed["client_secret"]
    assert Webhook.objects.count() == 0


def test_without_a_script_a_preset_fills_in_by_a_round_trip(
    browser: Client, provider: Provider
) -> None:
    data = {**oauth_fields(provider), "action": "use_preset", "provider": "google"}
    page = browser.post(CREATE, data)
    form = page.context["form"]
    assert form["auth_url"].value() == "https://accounts.google.com/o/oauth2/v2/auth"
    assert "access_type=offline" in form["authorization_parameters"].value()
    assert oauth.default_callback_url() in page.text


# ---- Grants ----------------------------------------------------------------------------------


def test_what_a_preset_fills_in_is_folded_unless_an_address_is_wrong(browser: Client) -> None:
    fields = {**OAUTH, "provider": "google"}
    page = browser.post(CREATE, posted(**fields, action="change_type")).text
    assert page.count("data-preset-fold><summary>") == 2
    page = browser.post(CREATE, posted(**{**fields, "token_url": "no address"})).text
    assert page.count("data-preset-fold open><summary>") == 1
    page = browser.post(CREATE, posted(**OAUTH, action="change_type")).text
    assert page.count("data-preset-fold open><summary hidden>") == 2


def test_change_grant_shows_the_other_fields_and_judges_nothing(browser: Client) -> None:
    data = posted(
        authorization_type="oauth2", grant_type="client_credentials", action="change_type"
    )
    page = browser.post(CREATE, data)
    assert page.context["form"].chosen_grant == "client_credentials"
    assert not page.context["form"].errors


def test_client_credentials_get_their_token_without_leaving(
    browser: Client, provider: Provider
) -> None:
    machine = {
        "grant_type": "client_credentials",
        "client_id": MACHINE_CLIENT.client_id,
        "client_secret": MACHINE_CLIENT.client_secret,
        "auth_url": "",
        "scope": "events:write",
    }
    answer = browser.post(CREATE, oauth_fields(provider, **machine))
    webhook = Webhook.objects.get()
    assert (answer.status_code, answer["Location"]) == (303, edit_url(webhook))
    assert webhook.credential.token.state == TokenState.VALID
    page = browser.get(edit_url(webhook)).text
    assert "The access token was stored." in page
    assert "fetched again automatically" in page


def test_client_credentials_that_are_refused_say_what_to_change(
    browser: Client, provider: Provider
) -> None:
    webhook = make_machine_webhook(provider, event_types=["call.*"])
    make_delivery(webhook)
    Delivery.objects.update(
        status=Status.HELD, hold_reason=HoldReason.MISCONFIGURED, next_attempt_at=None
    )
    wrong = Credential.objects.get()
    wrong.set_secret("client_secret", "wrong")
    wrong.save()
    browser.post(tool("authorize", webhook))
    page = browser.get(edit_url(webhook))
    assert "does not accept the client ID or client secret" in page.context["token_failure"]
    assert Delivery.objects.get().status == Status.HELD
    wrong.set_secret("client_secret", MACHINE_CLIENT.client_secret)
    wrong.save()
    browser.post(tool("authorize", webhook))
    assert Delivery.objects.get().status == Status.PENDING


# ---- Check -----------------------------------------------------------------------------------


def test_a_check_of_a_real_provider_has_a_tick_at_what_it_checked(
    browser: Client, provider: Provider
) -> None:
    webhook = make_webhook(provider, revocation_url=provider.revocation_url)
    panel = browser.post(tool("check_token", webhook), headers=HTMX)
    # The revocation URL is only called to clear a token.
    assert (panel.text.count("is-ok"), panel.text.count("not checked")) == (3, 1)
    assert "is-problem" not in panel.text
    assert oauth.default_callback_url() in panel.text
    assert "<html" not in panel.text


def test_without_a_script_a_check_is_a_page_that_leads_back(
    browser: Client, provider: Provider
) -> None:
    webhook = make_webhook(provider)
    page = browser.post(tool("check_token", webhook))
    assert "<html" in page.text
    assert f'href="{edit_url(webhook)}"' in page.text
    assert f'href="{edit_url(webhook)}#id_token_url"' in page.text


def test_what_is_wrong_says_so_at_its_field(browser: Client, fake: FakeProvider) -> None:
    webhook = make_webhook(auth_url=f"{fake.url}/authorize", token_url=fake.token_url)
    fake.reply(Reply(status=404), Reply(status=404))
    panel = browser.post(tool("check_token", webhook), headers=HTMX)
    assert panel.text.count("is-problem") == 2
    assert "#id_auth_url" in panel.text
    assert "There is no token endpoint" in panel.text


def test_the_last_failure_is_explained_with_its_fields(browser: Client, provider: Provider) -> None:
    webhook = make_webhook(provider)
    failed_exchange(webhook.credential)
    panel = browser.post(tool("check_token", webhook), headers=HTMX)
    assert "The provider does not accept the client ID" in panel.text
    assert "#id_client_secret" in panel.text
    assert "Try the other way" in panel.text


def test_a_redirect_that_does_not_match_shows_both_addresses(
    browser: Client, provider: Provider
) -> None:
    webhook = make_webhook(provider)
    description = "AADSTS50011: The redirect URI 'http://other.example/cb' does not match."
    sent = {"url": "http://sent.example/callback", "said": description}
    failed_exchange(webhook.credential, message=messages.dump("redirect_uri_mismatch", **sent))
    panel = browser.post(tool("check_token", webhook), headers=HTMX)
    assert "http://sent.example/callback" in panel.text
    assert "http://other.example/cb" in panel.text
    assert "Try the other way" not in panel.text


def test_a_provider_that_writes_markup_is_shown_as_text(
    browser: Client, provider: Provider
) -> None:
    webhook = make_webhook(provider)
    failed_exchange(
        webhook.credential, message="<b>bold</b>\x1b[31m", response="HTTP 400\n\n<script>x"
    )
    panel = browser.post(tool("check_token", webhook), headers=HTMX)
    page = browser.get(edit_url(webhook))
    for text in (panel.text, page.text):
        assert "<b>bold" not in text
        assert "<script>x" not in text
        assert "\x1b" not in text


# ---- The other client authentication ---------------------------------------------------------


def test_the_way_that_works_is_offered_and_saved_by_one_button(
    browser: Client, fake: FakeProvider
) -> None:
    webhook = make_webhook(token_url=fake.token_url, event_types=["call.*"])
    make_token(webhook.credential, state=TokenState.MISCONFIGURED, last_error="Wrong.")
    make_delivery(webhook)
    Delivery.objects.update(
        status=Status.HELD, hold_reason=HoldReason.MISCONFIGURED, next_attempt_at=None
    )
    fake.reply(takes_only_the_body)
    panel = browser.post(tool("try_authentication", webhook), headers=HTMX)
    assert "as “Client credentials in body”: choose that" in panel.text
    assert 'value="request_body"' in panel.text
    webhook.refresh_from_db()
    assert webhook.credential.client_authentication == "basic_header"
    answer = browser.post(
        tool("switch_authentication", webhook), {"client_authentication": "request_body"}
    )
    assert answer["Location"] == edit_url(webhook) + "#token"
    webhook.refresh_from_db()
    assert webhook.credential.client_authentication == "request_body"
    assert OAuthToken.objects.get().state == TokenState.VALID
    assert Delivery.objects.get().status == Status.PENDING
    assert "now sent as “Client credentials in body”" in browser.get(edit_url(webhook)).text


def test_neither_way_offers_nothing(browser: Client, provider: Provider) -> None:
    webhook = make_webhook(provider, client_secret="wrong")
    page = browser.post(tool("try_authentication", webhook))
    assert "in neither way" in page.text
    assert "Switch to it" not in page.text


def test_an_unknown_way_is_no_way(browser: Client, provider: Provider) -> None:
    webhook = make_webhook(provider)
    answer = browser.post(tool("switch_authentication", webhook), {"client_authentication": "x"})
    assert answer.status_code == 400


def test_a_webhook_without_oauth_has_nothing_to_check(browser: Client) -> None:
    webhook = make_webhook(authorization_type="basic")
    assert browser.post(tool("check_token", webhook)).status_code == 404


# ---- The exchange log and the end of a grant -------------------------------------------------


def test_a_stored_error_is_a_sentence_in_the_reader_s_language(browser: Client) -> None:
    webhook = make_webhook()
    last_error = messages.dump("invalid_client", said="no such client")
    make_token(webhook.credential, state=TokenState.MISCONFIGURED, last_error=last_error)
    page = browser.get(edit_url(webhook)).text
    assert "The provider does not accept the client ID" in page
    assert "The provider says: “no such client”" in page
    browser.cookies["django_language"] = "uk"
    assert "Провайдер не приймає ідентифікатор клієнта" in browser.get(edit_url(webhook)).text


def test_the_panel_shows_the_last_exchanges_without_a_secret(
    browser: Client, provider: Provider
) -> None:
    webhook = authorized(browser, provider)
    browser.post(tool("refresh_token", webhook))
    page = browser.get(edit_url(webhook)).text
    for shown in ("Last exchanges", "Refresh", "Authorization", "grant_type=refresh_token", "Good"):
        assert shown in page
    token = OAuthToken.objects.get()
    for secret in (token.access_token, token.refresh_token, webhook.credential.client_secret):
        assert secret not in page


def test_the_panel_shows_ten_exchanges_and_not_to_everybody(provider: Provider) -> None:
    webhook = make_webhook(provider)
    for number in range(12):
        failed_exchange(webhook.credential, message=f"Number {number}.")
    page = logged_in("change_webhook", "authorize_webhook").get(edit_url(webhook)).text
    assert "Number 2." in page
    assert "Number 1." not in page


def test_somebody_who_may_not_authorize_sees_no_exchanges(provider: Provider) -> None:
    webhook = make_webhook(provider)
    failed_exchange(webhook.credential)
    assert "Last exchanges" not in logged_in("change_webhook").get(edit_url(webhook)).text


@pytest.mark.parametrize(("days", "is_warned"), [(-1, True), (3, True), (30, False), (None, False)])
def test_a_grant_that_ends_soon_is_announced(
    browser: Client, provider: Provider, days: int | None, is_warned: bool
) -> None:
    webhook = make_webhook(provider)
    ends_at = None if days is None else timezone.now() + timedelta(days=days, minutes=1)
    make_token(webhook.credential, refresh_token_expires_at=ends_at)
    page = browser.get(edit_url(webhook)).text
    assert ("Get a new access token" in page or "The authorization ends" in page) is is_warned


def test_a_new_webhook_has_nothing_to_check_yet(browser: Client, provider: Provider) -> None:
    page = browser.post(CREATE, {**oauth_fields(provider), "action": "change_type"})
    assert "Checks the saved addresses" not in page.text
    start_authorization(browser, provider)
    assert "Checks the saved addresses" in browser.get(edit_url(Webhook.objects.get())).text
