"""What the last failure at the provider means, read from the flight recorder."""

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from tests.oauth_rows import SESSION, begin, make_token, make_user, make_webhook, query_of
from tests.sandbox import Provider, answer_consent
from tests.ui.webhook_form.test_oauth_views import failed_exchange
from webhooks import oauth
from webhooks.models import Webhook

pytestmark = pytest.mark.django_db


def finish(webhook: Webhook, *, is_approved: bool = True) -> None:
    person = get_user_model().objects.first() or make_user()
    url, _query = begin(webhook, person)
    back = answer_consent(url, is_approved=is_approved)
    try:
        oauth.finish_authorization(query_of(back), user=person, session_key=SESSION)
    except oauth.AuthorizationFailed:
        return


def cause(webhook: Webhook) -> str:
    found = oauth.diagnose(webhook)
    return found.cause if found else ""


def answer(**fields: Any) -> str:
    return f"HTTP 400\nContent-Type: application/json\n\n{json.dumps(fields)}"


def test_real_provider_that_is_denied_approved_and_refused(provider: Provider) -> None:
    webhook = make_webhook(provider, scope="events:write offline_access")
    assert cause(webhook) == ""

    finish(webhook, is_approved=False)
    denied = oauth.diagnose(webhook)
    assert denied is not None
    assert (denied.cause, denied.fields) == ("denied", ())

    finish(webhook)
    assert cause(webhook) == ""

    webhook.set_secret("client_secret", "wrong")
    webhook.save()
    with pytest.raises(oauth.TokenUnavailable):
        oauth.refresh(webhook)
    wrong = oauth.diagnose(webhook)
    assert wrong is not None
    assert wrong.can_try_other_way
    assert "client_secret" in wrong.fields


def test_check_is_no_failure_of_the_token(provider: Provider) -> None:
    webhook = make_webhook(provider, client_secret="wrong")
    oauth.examine(webhook)
    oauth.try_authentication(webhook)

    assert oauth.diagnose(webhook) is None


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (answer(error="invalid_client"), "client"),
        (answer(error={"status": "invalid_client", "message": "no"}), "client"),
        (answer(error="bad_client_secret"), "client"),
        (answer(error="redirect_uri_mismatch"), "redirect"),
        (answer(error="invalid_grant", error_description="redirect_uri differs"), "redirect"),
        (answer(error="invalid_request", error_description="Redirect URI is wrong"), "redirect"),
        (answer(error="invalid_scope"), "scope"),
        (answer(error="invalid_grant", error_description="PKCE verification failed"), "pkce"),
        (answer(error="invalid_request", error_description="code_challenge missing"), "pkce"),
        (answer(error="access_denied"), "denied"),
        (answer(error="unsupported_grant_type"), "other"),
        ("HTTP 404\n\n<html>Not found", "other"),
        ("", "other"),
    ],
)
def test_each_refusal_is_about_something(response: str, expected: str) -> None:
    webhook = make_webhook()
    failed_exchange(webhook, status_code=400, response=response, message="Refused.")

    assert cause(webhook) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"result": "transient", "status_code": 503}, "transient"),
        ({"result": "transient", "status_code": None, "response": ""}, "transient"),
        ({"result": "needs_reauthorization", "status_code": 400, "response": ""}, "grant"),
        ({"status_code": 401, "response": "HTTP 401\n\nno"}, "client"),
        ({"result": "ok"}, ""),
        ({"result": "ok_with_warning"}, ""),
        ({"kind": "revocation"}, ""),
        ({"kind": "discovery"}, ""),
    ],
)
def test_status_and_class_count_too(fields: dict[str, Any], expected: str) -> None:
    webhook = make_webhook()
    failed_exchange(webhook, **fields)

    assert cause(webhook) == expected


def test_answer_in_the_browser_is_read_with_its_spaces() -> None:
    webhook = make_webhook()
    response = "error=invalid_request\nerror_description=Invalid redirect URI given\nstate=…"
    failed_exchange(webhook, kind="authorization", status_code=None, response=response)

    assert cause(webhook) == "redirect"


def test_both_callback_urls_are_named() -> None:
    webhook = make_webhook()
    words = "The URI 'https://sent.example/' is not one of https://right.example/cb, redirect_uri."
    failed_exchange(
        webhook,
        status_code=400,
        request="POST …\n\nredirect_uri=https://sent.example/",
        response=answer(error="invalid_grant", error_description=words),
    )
    found = oauth.diagnose(webhook)

    assert found is not None
    assert (found.sent, found.named) == ("https://sent.example/", "https://right.example/cb")


def test_last_exchange_counts() -> None:
    webhook = make_webhook()
    failed_exchange(webhook)
    failed_exchange(webhook, result="ok")
    assert cause(webhook) == ""
    failed_exchange(webhook, response=answer(error="invalid_scope"), status_code=400)

    assert cause(webhook) == "scope"


@pytest.mark.parametrize(
    ("provider_key", "words"), [("google", "access_type=offline"), ("", "offline_access")]
)
def test_missing_refresh_token_says_how_to_ask_this_provider(provider_key: str, words: str) -> None:
    webhook = make_webhook(provider=provider_key)
    make_token(webhook, refresh_token="")
    found = oauth.diagnose(webhook)

    assert found is not None
    assert found.cause == "no_refresh_token"
    assert words in found.message


@pytest.mark.parametrize("fields", [{"expires_at": None}, {"access_token": ""}])
def test_token_that_does_not_end_needs_no_refresh_token(fields: dict[str, Any]) -> None:
    webhook = make_webhook()
    make_token(webhook, **{"refresh_token": "", **fields})

    assert cause(webhook) == ""
