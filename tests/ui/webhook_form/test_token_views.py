"""Get, refresh and clear a token over HTTP, against the sandbox's provider."""

from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.oauth_rows import make_machine_webhook, make_token
from tests.sandbox import AUTHORIZATION_CLIENT, Provider, answer_consent
from tests.ui.webhook_form.test_forms import posted
from tests.ui.webhook_form.test_views import CREATE, draft_of, edit_url, logged_in
from webhooks import events
from webhooks.models import (
    AuditEntry,
    Delivery,
    HoldReason,
    OAuthToken,
    Status,
    TokenState,
    Webhook,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]

HTMX = {"HX-Request": "true"}


def oauth_fields(provider: Provider, **overrides: Any) -> dict[str, Any]:
    """Return the posted form of a webhook that is registered at the sandbox's provider."""
    return posted(
        **{
            "authorization_type": "oauth2",
            "token_name": "Sandbox",
            "auth_url": provider.auth_url,
            "token_url": provider.token_url,
            "client_id": AUTHORIZATION_CLIENT.client_id,
            "client_secret": AUTHORIZATION_CLIENT.client_secret,
            "scope": "events:write offline_access",
            "client_authentication": "basic_header",
            "action": "authorize",
            "draft": "",
            **overrides,
        }
    )


def authorize_url(webhook: Webhook) -> str:
    return reverse("webhooks:authorize", args=[webhook.credential_id])


def start_authorization(browser: Client, provider: Provider, **overrides: Any) -> str:
    """Press Get new access token on a new webhook's form; return the URL at the provider."""
    answer = browser.post(CREATE, oauth_fields(provider, **overrides))
    assert answer.status_code == 303, answer.context["form"].errors
    return str(answer["Location"])


def path_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def come_back(browser: Client, url: str) -> Any:
    return browser.get(path_of(url))


def authorized(browser: Client, provider: Provider, **overrides: Any) -> Webhook:
    come_back(browser, answer_consent(start_authorization(browser, provider, **overrides)))
    webhook = Webhook.objects.latest("pk")
    browser.get(edit_url(webhook))
    assert webhook.credential.token.state == TokenState.VALID, webhook.credential.token.last_error
    return webhook


# ---- Begin -----------------------------------------------------------------------------------


def test_the_button_saves_the_form_and_goes_to_the_provider(
    browser: Client, provider: Provider
) -> None:
    url = start_authorization(browser, provider)
    webhook = Webhook.objects.get()
    assert webhook.credential.client_secret == AUTHORIZATION_CLIENT.client_secret
    assert url.startswith(provider.auth_url)
    query = parse_qs(urlsplit(url).query)
    assert query["redirect_uri"] == [webhook.credential.callback_url]
    assert query["code_challenge_method"] == ["S256"]
    changed = oauth_fields(provider, name="Renamed", client_secret="")
    answer = browser.post(authorize_url(webhook), changed)
    assert answer.status_code == 303
    assert answer["Location"].startswith(provider.auth_url)
    assert "no-store" in answer["Cache-Control"]
    webhook.refresh_from_db()
    assert webhook.name == "Renamed"


def test_a_wrong_form_is_shown_again_and_goes_nowhere(browser: Client, provider: Provider) -> None:
    start_authorization(browser, provider)
    webhook = Webhook.objects.get()
    page = browser.post(authorize_url(webhook), oauth_fields(provider, token_url=""))
    assert page.status_code == 200
    assert 'href="#id_token_url"' in page.text
    # Save on that page saves, and does not redirect to the provider.
    assert f'action="{edit_url(webhook)}"' in page.text
    kept = oauth_fields(provider, client_secret="", draft=draft_of(page))
    assert browser.post(edit_url(webhook), {**kept, "action": "save"}).status_code == 302


def test_only_oauth_webhooks_get_a_token(browser: Client, provider: Provider) -> None:
    created = browser.post(CREATE, posted(action="authorize"))
    webhook = Webhook.objects.get()
    answer = browser.post(authorize_url(webhook))
    assert created["Location"] == answer["Location"] == edit_url(webhook) + "#authorization"
    before_the_form = browser.get(edit_url(webhook)).text.partition('<form id="webhook-form"')[0]
    assert before_the_form.count("Choose OAuth 2.0") == 2


# ---- The callback ----------------------------------------------------------------------------


def test_an_approval_ends_on_the_form_with_a_valid_token(
    browser: Client, provider: Provider
) -> None:
    answer = come_back(browser, answer_consent(start_authorization(browser, provider)))
    webhook = Webhook.objects.get()
    assert answer.status_code == 303
    # The top of the page, where the new webhook's signing secret is shown once.
    assert answer["Location"] == edit_url(webhook)
    assert "no-store" in answer["Cache-Control"]
    assert answer["Referrer-Policy"] == "no-referrer"
    token = webhook.credential.token
    assert (token.state, token.granted_by) == (TokenState.VALID, get_user_model().objects.get())
    page = browser.get(edit_url(webhook)).text
    assert webhook.signing_secret in page
    assert "The access token was stored." in page
    for shown in ("Sandbox", "events:write", "Valid", "admin", "Refresh"):
        assert shown in page
    assert token.access_token not in page


def test_what_waited_for_the_token_is_released(browser: Client, provider: Provider) -> None:
    url = start_authorization(browser, provider)
    webhook = Webhook.objects.get()
    events.publish("call.incoming.after", {"call_id": "1"})
    Delivery.objects.update(
        status=Status.HELD, hold_reason=HoldReason.NO_TOKEN, next_attempt_at=None
    )
    assert "1</span> delivery is on hold" in browser.get(edit_url(webhook)).text
    come_back(browser, answer_consent(url))
    assert Delivery.objects.get().status == Status.PENDING
    assert "1 delivery that waited for it is being sent." in browser.get(edit_url(webhook)).text


def test_what_a_pause_holds_as_well_is_not_being_sent(browser: Client, provider: Provider) -> None:
    url = start_authorization(browser, provider)
    webhook = Webhook.objects.get()
    events.publish("call.incoming.after", {"call_id": "1"})
    Delivery.objects.update(
        status=Status.HELD, hold_reason=HoldReason.NO_TOKEN, next_attempt_at=None
    )
    Webhook.objects.update(is_active=False, pause_reason="person", paused_at=timezone.now())
    come_back(browser, answer_consent(url))
    page = browser.get(edit_url(webhook)).text
    assert "The access token was stored." in page
    assert "being sent" not in page


def test_a_denial_says_so_on_the_form_with_everything_there(
    browser: Client, provider: Provider
) -> None:
    url = start_authorization(browser, provider)
    webhook = Webhook.objects.get()
    browser.get(edit_url(webhook))
    answer = come_back(browser, answer_consent(url, is_approved=False))
    assert answer["Location"] == edit_url(webhook) + "#token"
    page = browser.get(edit_url(webhook))
    assert page.context["token_failure"]
    assert 'role="alert"' in page.text
    assert f'value="{provider.token_url}"' in page.text
    assert not browser.get(edit_url(webhook)).context["token_failure"]


def test_a_wrong_client_secret_says_what_to_change(browser: Client, provider: Provider) -> None:
    come_back(
        browser, answer_consent(start_authorization(browser, provider, client_secret="wrong"))
    )
    page = browser.get(edit_url(Webhook.objects.get()))
    assert "secret" in page.context["token_failure"].lower()


def test_a_callback_without_a_known_state_ends_on_the_start_page(browser: Client) -> None:
    answer = browser.get("/integrations/webhooks/oauth/callback/?code=c0de&state=unknown")
    assert (answer.status_code, answer["Location"]) == (303, "/")
    assert "c0de" not in browser.get("/integrations/webhooks/").text


def test_a_session_that_ended_leads_to_the_login_without_the_code_and_back(
    browser: Client, provider: Provider
) -> None:
    url = answer_consent(start_authorization(browser, provider))
    webhook = Webhook.objects.get()
    browser.logout()
    answer = come_back(browser, url)
    login = urlsplit(answer["Location"])
    assert (answer.status_code, login.path) == (303, "/login/")
    back = reverse("webhooks:credential", args=[webhook.credential_id])
    assert parse_qs(login.query) == {"next": [back]}
    assert "no-store" in answer["Cache-Control"]
    page = browser.get(answer["Location"])
    assert "Your session ended" in page.text
    assert f'value="{back}"' in page.text
    browser.force_login(get_user_model().objects.get())
    assert browser.get(back)["Location"] == edit_url(webhook) + "#token"


@pytest.mark.parametrize(
    ("permissions", "page"),
    [
        (["view_webhook", "authorize_webhook"], "webhooks:detail"),
        (["authorize_webhook"], "webhooks:grants"),
    ],
)
def test_a_login_after_the_session_ended_leads_to_an_open_page(
    browser: Client, provider: Provider, permissions: list[str], page: str
) -> None:
    start_authorization(browser, provider)
    webhook = Webhook.objects.get()
    granter = logged_in(*permissions, name="granter")
    url = answer_consent(granter.post(authorize_url(webhook))["Location"])
    granter.logout()
    (back,) = parse_qs(urlsplit(come_back(granter, url)["Location"]).query)["next"]
    granter.force_login(get_user_model().objects.get(username="granter"))
    opened = granter.get(back, follow=True)
    assert opened.status_code == 200
    assert opened.resolver_match.view_name == page
    assert "Your session ended" in opened.text


def test_a_session_that_ended_with_an_unknown_state_leads_to_the_login(browser: Client) -> None:
    browser.logout()
    answer = browser.get("/integrations/webhooks/oauth/callback/?code=c0de&state=unknown")
    assert (answer.status_code, answer["Location"]) == (303, "/login/")


def test_back_after_the_success_shows_the_token_and_no_error(
    browser: Client, provider: Provider
) -> None:
    url = answer_consent(start_authorization(browser, provider))
    come_back(browser, url)
    webhook = Webhook.objects.get()
    browser.get(edit_url(webhook))
    again = come_back(browser, url)
    assert (again.status_code, again["Location"]) == (303, edit_url(webhook) + "#token")
    page = browser.get(edit_url(webhook))
    assert not page.context["token_failure"]
    assert "The access token is stored already." in page.text
    assert OAuthToken.objects.get().version == 1
    # Another user learns nothing.
    browser.force_login(get_user_model().objects.create_superuser("other"))
    assert come_back(browser, url)["Location"] == "/"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("error=access_denied&state={s}", "it was used already"),
        ("code=other&state={s}", "it was used already"),
        ("code=c&code=d&state={s}", "names “code” more than once"),
        ("code=c&state=fresh&state={s}", "names “state” more than once"),
        ("state={s}&code=x&iss=https://evil.example", "it was used already"),
        ("state={s}", "it was used already"),
    ],
)
def test_another_answer_with_a_used_state_is_refused(
    browser: Client, provider: Provider, query: str, words: str
) -> None:
    url = answer_consent(start_authorization(browser, provider))
    come_back(browser, url)
    browser.get(edit_url(Webhook.objects.get()))
    (state,) = parse_qs(urlsplit(url).query)["state"]
    page = browser.get(f"{urlsplit(url).path}?{query.format(s=state)}", follow=True)
    assert words in page.text
    assert "stored already" not in page.text
    assert OAuthToken.objects.get().version == 1
    # The answer itself is still known.
    come_back(browser, url)
    assert "stored already" in browser.get(edit_url(Webhook.objects.get())).text


def test_back_after_the_token_was_cleared_is_no_success(
    browser: Client, provider: Provider
) -> None:
    url = answer_consent(start_authorization(browser, provider))
    come_back(browser, url)
    webhook = Webhook.objects.get()
    browser.post(reverse("webhooks:clear_token", args=[webhook.credential_id]))
    assert come_back(browser, url)["Location"] == "/"


def test_who_may_authorize_but_not_edit_returns_to_the_page_of_the_webhook(
    browser: Client, provider: Provider
) -> None:
    start_authorization(browser, provider)
    webhook = Webhook.objects.get()
    granter = logged_in("view_webhook", "authorize_webhook", name="granter")
    url = granter.post(authorize_url(webhook))["Location"]
    page = granter.get(come_back(granter, answer_consent(url))["Location"])
    assert page.request["PATH_INFO"] == reverse("webhooks:detail", args=[webhook.pk])
    assert "The access token was stored." in page.text
    cleared = granter.post(reverse("webhooks:clear_token", args=[webhook.credential_id]))
    assert "The access token was cleared" in granter.get(cleared["Location"]).text


def test_who_may_authorize_only_returns_to_the_list_of_grants(browser: Client) -> None:
    browser.post(CREATE, posted())
    answer = logged_in("authorize_webhook", name="granter").post(
        authorize_url(Webhook.objects.get()), follow=True
    )
    assert answer.request["PATH_INFO"] == reverse("webhooks:grants")
    assert "Choose OAuth 2.0" in answer.text
    # It links to no page that is closed to this person.
    assert "Go to the webhooks" not in answer.text


def test_another_person_cannot_finish_it(browser: Client, provider: Provider) -> None:
    url = answer_consent(start_authorization(browser, provider))
    other = get_user_model().objects.create_superuser("other")
    browser.force_login(other)
    come_back(browser, url)
    token = OAuthToken.objects.first()
    assert token is None or not token.has_access_token()


def test_a_permission_that_was_taken_away_stops_the_callback(provider: Provider) -> None:
    browser = logged_in("add_webhook", "change_webhook", "view_webhook", "authorize_webhook")
    url = answer_consent(start_authorization(browser, provider))
    get_user_model().objects.get().user_permissions.clear()
    assert come_back(browser, url)["Location"] == "/"
    token = OAuthToken.objects.first()
    assert token is None or not token.has_access_token()


def test_the_callback_is_a_get(browser: Client) -> None:
    assert browser.put("/integrations/webhooks/oauth/callback/").status_code == 405


def test_an_answer_that_is_a_form_says_which_response_mode_is_needed() -> None:
    """A browser sends no cookies with it, and new cookies would end the current session."""
    browser = Client(enforce_csrf_checks=True)

    answer = browser.post(
        "/integrations/webhooks/oauth/callback/", {"code": "c0de", "state": "a-state"}
    )

    assert (answer.status_code, answer["Allow"]) == (405, "GET")
    assert "response_mode=form_post" in answer.text
    assert "“query”" in answer.text
    assert not {"c0de", "a-state"} & set(answer.text.split())
    assert not answer.cookies
    assert answer["Referrer-Policy"] == "no-referrer"
    assert "no-store" in answer["Cache-Control"]


# ---- Refresh and clear -----------------------------------------------------------------------


def test_refresh_gets_another_token(browser: Client, provider: Provider) -> None:
    webhook = authorized(browser, provider)
    before = webhook.credential.token.access_token
    url = reverse("webhooks:refresh_token", args=[webhook.credential_id])
    panel = browser.post(url, headers=HTMX)
    assert "The access token was refreshed." in panel.text
    assert "<html" not in panel.text
    assert OAuthToken.objects.get().access_token != before
    assert browser.post(url)["Location"] == edit_url(webhook) + "#token"


def test_a_refresh_that_fails_says_why_in_the_panel(browser: Client, provider: Provider) -> None:
    webhook = authorized(browser, provider)
    provider.revoke_grants()
    panel = browser.post(
        reverse("webhooks:refresh_token", args=[webhook.credential_id]), headers=HTMX
    )
    assert panel.context["token_failure"]
    assert OAuthToken.objects.get().state == TokenState.NEEDS_REAUTHORIZATION


def test_clear_forgets_the_token(browser: Client, provider: Provider) -> None:
    webhook = authorized(browser, provider)
    answer = browser.post(reverse("webhooks:clear_token", args=[webhook.credential_id]))
    assert answer["Location"] == edit_url(webhook) + "#token"
    page = browser.get(edit_url(webhook)).text
    assert "The access token was cleared." in page
    assert "No token" in page
    # There is no revocation URL here.
    assert "It may still be valid at the provider" in page


def test_a_refresh_token_alone_can_be_cleared(browser: Client, provider: Provider) -> None:
    """It was pasted, and the provider was down."""
    webhook = authorized(browser, provider)
    OAuthToken.objects.update(access_token="", state=TokenState.NONE)
    address = reverse("webhooks:clear_token", args=[webhook.credential_id])
    assert address in browser.get(edit_url(webhook)).text
    browser.post(address)
    assert not OAuthToken.objects.get().has_refresh_token()
    assert address not in browser.get(edit_url(webhook)).text


def test_refresh_without_a_refresh_token_does_not_call_a_valid_token_expired(
    browser: Client, provider: Provider
) -> None:
    """The button is on an old page: another tab stored a token that cannot be refreshed."""
    webhook = authorized(browser, provider)
    OAuthToken.objects.update(refresh_token="")
    address = reverse("webhooks:refresh_token", args=[webhook.credential_id])
    failure = browser.post(address, headers=HTMX).context["token_failure"]
    assert "gave no refresh token" in failure
    assert "has expired" not in failure


def test_a_cleared_token_that_no_person_approves_holds_nothing(
    browser: Client, provider: Provider
) -> None:
    webhook = make_machine_webhook(provider)
    make_token(webhook.credential)
    page = browser.get(edit_url(webhook)).text
    assert "The next delivery gets a new one." in page
    assert "on hold until you get a new one" not in page


def test_clear_says_nothing_of_the_provider_when_it_revoked_the_token(
    browser: Client, provider: Provider
) -> None:
    webhook = authorized(browser, provider, revocation_url=provider.revocation_url)
    browser.post(reverse("webhooks:clear_token", args=[webhook.credential_id]))
    page = browser.get(edit_url(webhook)).text
    assert "The access token was cleared." in page
    assert "may still be valid" not in page


def test_a_revocation_that_failed_is_said_on_the_page(browser: Client, provider: Provider) -> None:
    webhook = authorized(browser, provider, revocation_url=provider.revocation_url)
    provider.fault(status=503, endpoint="revocation_endpoint", times=None)
    url = reverse("webhooks:clear_token", args=[webhook.credential_id])
    panel = browser.post(url, headers=HTMX).text
    provider.clear_fault()
    assert "The access token was cleared." in panel
    assert "It may still be valid at the provider" in panel


def test_the_account_that_was_connected_is_shown(browser: Client, provider: Provider) -> None:
    webhook = authorized(browser, provider)
    OAuthToken.objects.update(account="anna@example.com")
    assert "anna@example.com" in browser.get(edit_url(webhook)).text
    detail = reverse("webhooks:detail", args=[webhook.pk])
    assert "anna@example.com" in browser.get(detail).text


@pytest.mark.parametrize("moves", [True, False])
def test_an_end_that_each_refresh_moves_is_no_warning(
    browser: Client, provider: Provider, moves: bool
) -> None:
    webhook = authorized(browser, provider)
    soon = timezone.now() + timedelta(minutes=30)
    OAuthToken.objects.update(refresh_token_expires_at=soon, refresh_end_moves=moves, warning="")
    assert ("The authorization ends" in browser.get(edit_url(webhook)).text) is not moves


def test_the_form_says_before_saving_what_drops_the_token(
    browser: Client, provider: Provider
) -> None:
    webhook = authorized(browser, provider)
    assert "Saving deletes the access token" in browser.get(edit_url(webhook)).text
    browser.post(edit_url(webhook), oauth_fields(provider, client_id="other-client", action="save"))
    assert "Saving deletes the access token" not in browser.get(edit_url(webhook)).text


def test_a_new_token_comes_with_the_test_beside_it_once(
    browser: Client, provider: Provider
) -> None:
    come_back(browser, answer_consent(start_authorization(browser, provider)))
    webhook = Webhook.objects.get()
    # In the page's head, in the bar and in the panel; and once beside the message.
    assert browser.get(edit_url(webhook)).text.count("data-test>") == 4
    assert browser.get(edit_url(webhook)).text.count("data-test>") == 3
    cleared = browser.post(
        reverse("webhooks:clear_token", args=[webhook.credential_id]), follow=True
    )
    assert "The access token was cleared." in cleared.text
    assert cleared.text.count("data-test>") == 3


# ---- Another client secret ---------------------------------------------------------------------


def test_a_wrong_secret_replaces_the_working_one_only_until_it_is_restored(
    browser: Client, provider: Provider
) -> None:
    webhook = authorized(browser, provider)
    working = webhook.credential.client_secret
    for wrong in ("wrong", "wrong too"):
        browser.post(edit_url(webhook), oauth_fields(provider, client_secret=wrong, action="save"))
    page = browser.get(edit_url(webhook)).text
    assert "made with other credentials" in page
    assert working not in page
    assert browser.post(
        reverse("webhooks:refresh_token", args=[webhook.credential_id]), headers=HTMX
    )
    assert OAuthToken.objects.get().state == TokenState.MISCONFIGURED
    restore = reverse("webhooks:restore_secret", args=[webhook.credential_id])
    page = browser.post(restore, follow=True).content.decode()
    assert "The last working client secret is restored." in page
    assert "made with other credentials" not in page
    assert Webhook.objects.get().credential.client_secret == working
    assert OAuthToken.objects.get().state == TokenState.VALID
    trail = AuditEntry.objects.filter(action="changed").first()
    assert trail is not None
    assert trail.fields == ["client_secret"]
    assert "made with other" not in browser.get(edit_url(webhook)).text


def test_a_secret_that_gets_a_token_is_the_working_one(browser: Client, provider: Provider) -> None:
    webhook = authorized(browser, provider)
    working = webhook.credential.client_secret
    browser.post(edit_url(webhook), oauth_fields(provider, client_secret="wrong", action="save"))
    assert OAuthToken.objects.get().replaced_secret == working
    browser.post(edit_url(webhook), oauth_fields(provider, client_secret=working, action="save"))
    assert not OAuthToken.objects.get().has_replaced_secret()
    browser.post(edit_url(webhook), oauth_fields(provider, client_secret="wrong", action="save"))
    browser.post(reverse("webhooks:clear_token", args=[webhook.credential_id]))
    assert not OAuthToken.objects.get().has_replaced_secret()


def test_a_refusal_marks_the_fields_it_is_about(browser: Client, provider: Provider) -> None:
    come_back(
        browser, answer_consent(start_authorization(browser, provider, client_secret="wrong"))
    )
    form = browser.get(edit_url(Webhook.objects.get())).context["form"]
    marked = {name for name, one in form.fields.items() if "aria-invalid" in one.widget.attrs}
    assert {"client_id", "client_secret"} <= marked
    assert not marked & {"auth_url", "scope", "callback_url"}
