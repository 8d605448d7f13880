"""What the last failure at the provider means, and the check before a person is sent there."""

import json
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth import get_user_model

from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply
from tests.oauth_rows import (
    SESSION,
    begin,
    make_credential,
    make_machine_credential,
    make_token,
    make_user,
    query_of,
)
from tests.sandbox import Provider, answer_consent
from tests.ui.webhook_form.test_oauth_views import failed_exchange
from webhooks import oauth
from webhooks.models import (
    AuthorizationRequest,
    Credential,
    ExchangeKind,
    OAuthExchange,
    OAuthToken,
)
from webhooks.oauth.errors import ERRORS, Grant, joined, stored
from webhooks.oauth.token_response import Expected, RawResponse, classify

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def finish(credential: Credential, *, is_approved: bool = True) -> None:
    person = get_user_model().objects.first() or make_user()
    url, _query = begin(credential, person)
    back = answer_consent(url, is_approved=is_approved)
    try:
        oauth.finish_authorization(query_of(back), user=person, session_key=SESSION)
    except oauth.AuthorizationError:
        return


def code(credential: Credential) -> str:
    found = oauth.diagnose(credential)
    return found.code if found else ""


def refuse(credential: Credential, body: Any, status: int = 400, **fields: Any) -> None:
    """Store an exchange whose code was refused with this body."""
    raw = RawResponse(status=status, body=json.dumps(body).encode())
    expected = Expected(grant=Grant.CODE, redirect_uri="https://sent.example/", scope="read")
    answer = classify(raw, expected)
    failed_exchange(credential, result=answer.result, message=answer.message, **fields)


def test_real_provider_that_is_denied_approved_and_refused(provider: Provider) -> None:
    credential = make_credential(provider, scope="events:write offline_access")
    assert code(credential) == ""

    finish(credential, is_approved=False)
    denied = oauth.diagnose(credential)
    assert denied is not None
    assert (denied.code, denied.fields) == ("access_denied", ())

    finish(credential)
    assert code(credential) == ""

    credential.set_secret("client_secret", "wrong")
    credential.save()
    with pytest.raises(oauth.TokenUnavailableError):
        oauth.refresh(credential)
    wrong = oauth.diagnose(credential)
    assert wrong is not None
    assert wrong.can_try_other_way
    assert "client_secret" in wrong.fields


def test_check_is_no_failure_of_the_token(provider: Provider) -> None:
    credential = make_credential(provider, client_secret="wrong")
    oauth.examine(credential)
    oauth.try_authentication(credential)

    assert oauth.diagnose(credential) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": "invalid_client"}, "invalid_client"),
        ({"error": {"status": "invalid_client", "message": "no"}}, "invalid_client"),
        ({"error": "bad_client_secret"}, "invalid_client"),
        ({"error": "redirect_uri_mismatch"}, "redirect_uri_mismatch"),
        (
            {"error": "invalid_grant", "error_description": "redirect_uri differs"},
            "redirect_uri_mismatch",
        ),
        (
            {"error": "invalid_request", "error_description": "Redirect URI is wrong"},
            "redirect_uri_mismatch",
        ),
        ({"error": "invalid_scope"}, "invalid_scope"),
        (
            {"error": "invalid_grant", "error_description": "PKCE verification failed"},
            "pkce_required",
        ),
        (
            {"error": "invalid_request", "error_description": "code_challenge missing"},
            "pkce_required",
        ),
        ({"error": "access_denied"}, "access_denied"),
        ({"error": "invalid_grant"}, "invalid_grant"),
        ({"error": "unsupported_grant_type"}, "unauthorized_client"),
        ({"error": "made_up"}, "provider_error"),
        ({}, "refused_without_code"),
    ],
)
def test_each_refusal_is_about_something(body: Any, expected: str) -> None:
    credential = make_credential()
    refuse(credential, body)

    assert code(credential) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, "invalid_client"), (404, "no_endpoint"), (429, "rate_limited"), (503, "unavailable")],
)
def test_status_counts_where_there_is_no_code(status: int, expected: str) -> None:
    credential = make_credential()
    refuse(credential, {}, status)
    found = oauth.diagnose(credential)

    assert found is not None
    assert found.code == expected
    assert found.is_warning is (expected in ("rate_limited", "unavailable"))


@pytest.mark.parametrize(
    "fields",
    [
        {"result": "ok"},
        {"result": "ok_with_warning"},
        {"kind": "revocation"},
        {"kind": "check"},
    ],
)
def test_other_exchanges_are_no_failure(fields: dict[str, Any]) -> None:
    credential = make_credential()
    failed_exchange(credential, **fields)

    assert oauth.diagnose(credential) is None


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        (("unavailable", "no_endpoint"), ("no_endpoint", ("token_url",))),
        (("unavailable", "html"), ("html", ("token_url",))),
        (("response_lost", "unavailable"), ("unavailable", ())),
    ],
)
def test_message_of_two_lines_is_about_the_last(
    messages: tuple[str, str], found: tuple[str, tuple[str, ...]]
) -> None:
    credential = make_credential()
    lines = joined(*(stored(one, status=404, time="12:00") for one in messages))
    failed_exchange(credential, message=lines)

    diagnosis = oauth.diagnose(credential)

    assert diagnosis is not None
    assert (diagnosis.code, diagnosis.fields) == found
    assert diagnosis.message == oauth.sentence(lines)


def test_every_row_names_fields_of_the_form() -> None:
    known = {field.name for field in Credential._meta.concrete_fields}

    assert {name for kind in ERRORS.values() for name in kind.fields} <= known


def test_text_from_before_codes_is_shown_as_it_is() -> None:
    credential = make_credential()
    failed_exchange(credential, message="It was refused.")
    found = oauth.diagnose(credential)

    assert found is not None
    assert (found.code, found.message) == ("", "It was refused.")


def test_answer_in_the_browser_is_diagnosed_too() -> None:
    credential, user = make_credential(), make_user()
    _url, sent = begin(credential, user)
    words = "Invalid redirect URI given"
    query = {"state": [sent["state"]], "error": ["invalid_request"], "error_description": [words]}
    with pytest.raises(oauth.AuthorizationError, match=words):
        oauth.finish_authorization(query, user=user, session_key=SESSION)

    assert code(credential) == "redirect_uri_mismatch"


def test_both_callback_urls_are_named() -> None:
    credential = make_credential()
    words = "The URI 'https://sent.example/' is not one of https://right.example/cb, redirect_uri."
    refuse(credential, {"error": "invalid_grant", "error_description": words})
    found = oauth.diagnose(credential)

    assert found is not None
    assert (found.sent, found.named) == ("https://sent.example/", "https://right.example/cb")


def test_last_exchange_counts() -> None:
    credential = make_credential()
    failed_exchange(credential)
    failed_exchange(credential, result="ok")
    assert code(credential) == ""
    refuse(credential, {"error": "invalid_scope"})

    assert code(credential) == "invalid_scope"


@pytest.mark.parametrize(
    ("provider_key", "words"), [("google", "access_type=offline"), ("", "offline_access")]
)
def test_missing_refresh_token_says_how_to_ask_this_provider(provider_key: str, words: str) -> None:
    credential = make_credential(provider=provider_key)
    make_token(credential, refresh_token="")
    found = oauth.diagnose(credential)

    assert found is not None
    assert found.code == "no_refresh_token"
    assert words in found.message


@pytest.mark.parametrize("fields", [{"expires_at": None}, {"access_token": ""}])
def test_token_that_does_not_end_needs_no_refresh_token(fields: dict[str, Any]) -> None:
    credential = make_credential()
    make_token(credential, **{"refresh_token": "", **fields})

    assert code(credential) == ""


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    return make_credential(
        **{"auth_url": f"{fake.url}/authorize", "token_url": fake.token_url, **fields}
    )


HTML = {"Content-Type": "text/html"}
PAGE = Reply(body=b"<html>Log in", headers=HTML)
REFUSAL = Reply(status=400, body={"error": "invalid_request"})


def problems(credential: Credential) -> dict[str, str]:
    return {one.field: one.message for one in oauth.examine(credential) if not one.is_ok}


def test_real_provider_is_well(provider: Provider) -> None:
    findings = oauth.examine(make_credential(provider))

    assert [(one.field, one.is_ok) for one in findings] == [
        ("callback_url", True),
        ("auth_url", True),
        ("token_url", True),
    ]
    assert "exactly as shown" in findings[0].message


def test_check_sends_no_credentials_and_is_kept(fake: FakeProvider) -> None:
    fake.reply(PAGE, Reply(status=400, body={"error": "invalid_request"}))
    credential = credential_at(fake)

    assert problems(credential) == {}

    assert all("authorization" not in asked.headers for asked in fake.requests)
    assert all(b"sandbox" not in asked.body for asked in fake.requests)
    kept = OAuthExchange.objects.get()
    assert kept.kind == ExchangeKind.CHECK
    assert "A check" in oauth.sentence(kept.message)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=404, body=b"no"), "no token endpoint"),
        (Reply(body=b"<html>login", headers={"Content-Type": "text/html"}), "web page"),
        (Reply(status=302, headers={"Location": "https://other.example/"}), "other.example"),
        (Reply(status=503), "not working"),
        (Reply(raw=b""), "connection was closed"),
        (Reply(body={"service": "up"}), "not a token response"),
        (Reply(body=b'{"service"'), "ends in the middle"),
        (Reply(status=403, body={"message": "Missing Authentication Token"}), "no token endpoint"),
        (Reply(status=401, body={"error": "Invalid access token"}), "no token endpoint"),
    ],
)
def test_address_that_is_no_token_endpoint_is_reported(
    fake: FakeProvider, reply: Reply, words: str
) -> None:
    fake.reply(reply)

    assert words in problems(credential_at(fake))["token_url"]


@pytest.mark.parametrize("status", [404, 410, 500])
def test_address_that_is_no_page_is_reported(fake: FakeProvider, status: int) -> None:
    fake.reply(Reply(status=status), Reply(status=400, body={"error": "invalid_request"}))

    assert str(status) in problems(credential_at(fake))["auth_url"]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (PAGE, "Shows a page"),
        (Reply(status=302, headers={"Location": "https://login.example/"}), "on to login.example"),
        (Reply(status=303, headers={"Location": "/login?next=1"}), "on to 127.0.0.1"),
    ],
)
def test_page_or_redirect_to_a_login_is_well(fake: FakeProvider, reply: Reply, words: str) -> None:
    fake.reply(reply, REFUSAL)

    found = {one.field: one for one in oauth.examine(credential_at(fake))}

    assert found["auth_url"].severity == "ok"
    assert words in found["auth_url"].message


@pytest.mark.parametrize("location", ["https://[login/", "https://[v9]/", "https:///x", "urn:x"])
def test_a_redirect_to_what_is_no_address_is_no_page(fake: FakeProvider, location: str) -> None:
    fake.reply(Reply(status=302, headers={"Location": location}), REFUSAL)

    assert problems(credential_at(fake))["auth_url"].startswith("Answered 302 instead of a page.")


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(status=400, body=b"<p>redirect_uri_mismatch", headers=HTML), "problem", "exactly"),
        (Reply(status=401, body=b"<p>Unknown client", headers=HTML), "problem", "Copy Client ID"),
        (Reply(status=403, body=b"<p>No", headers=HTML), "warning", "Most often Client ID"),
        (Reply(status=302, headers={"Location": "/oauth/error?x=1"}), "warning", "Most often"),
        (Reply(status=400, body={"error": "invalid_request"}), "problem", "data instead"),
        (Reply(body={"some": "data"}), "problem", "data instead"),
    ],
)
def test_page_that_refuses_is_recognised_by_what_it_is_about(
    fake: FakeProvider, reply: Reply, kind: str, words: str
) -> None:
    fake.reply(reply, REFUSAL)

    found = {one.field: one for one in oauth.examine(credential_at(fake))}

    assert found["auth_url"].severity == kind
    assert words in found["auth_url"].message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("invalid_scope", "Correct Scope"),
        ("unauthorized_client", "does not allow this client"),
        ("invalid_request&error_description=code_challenge+missing", "PKCE"),
    ],
)
def test_error_that_comes_back_at_once_is_reported_before_anybody_is_sent_there(
    fake: FakeProvider, error: str, words: str
) -> None:
    location = f"{oauth.default_callback_url()}?error={error}&state=x"
    fake.reply(Reply(status=302, headers={"Location": location}), REFUSAL)

    assert words in problems(credential_at(fake))["auth_url"]


def test_page_is_asked_for_with_the_real_parameters(fake: FakeProvider) -> None:
    asked: list[str] = []

    def answer(request: ReceivedRequest) -> Reply:
        asked.append(request.query)
        return PAGE

    fake.reply(answer, REFUSAL)
    oauth.examine(credential_at(fake))

    for part in ("response_type=code", "client_id=sandbox-client", "code_challenge=", "state="):
        assert part in asked[0]
    assert AuthorizationRequest.objects.count() == 0


def test_wrong_token_url_is_not_blamed_on_the_auth_url(fake: FakeProvider) -> None:
    fake.reply(PAGE)

    assert problems(credential_at(fake, token_url="")).keys() == {"token_url"}


def test_refresh_and_revocation_url_are_looked_at_too(fake: FakeProvider) -> None:
    fake.reply(PAGE, REFUSAL, Reply(status=404, body=b"no"))
    credential = credential_at(
        fake, refresh_url=f"{fake.url}/refresh", revocation_url="http://10.0.0.1/"
    )

    assert problems(credential).keys() == {"refresh_url", "revocation_url"}


def test_a_usable_revocation_url_is_neither_right_nor_wrong(fake: FakeProvider) -> None:
    fake.reply(PAGE, REFUSAL)
    findings = oauth.examine(credential_at(fake, revocation_url=f"{fake.url}/revoke"))

    assert {one.field: one.severity for one in findings} == {
        "callback_url": "ok",
        "auth_url": "ok",
        "token_url": "ok",
        "revocation_url": "not_checked",
    }


def test_unsafe_and_missing_addresses_are_reported(
    fake: FakeProvider, settings: LazySettings
) -> None:
    credential = make_credential(auth_url="", token_url="http://provider.example/token")

    assert problems(credential).keys() == {"auth_url", "token_url"}
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    assert problems(credential_at(fake)).keys() == {"auth_url", "token_url"}
    assert fake.requests == []


def test_client_credentials_need_only_the_token_endpoint(provider: Provider) -> None:
    findings = oauth.examine(make_machine_credential(provider))

    assert [(one.field, one.is_ok) for one in findings] == [("token_url", True)]


def takes(method: str) -> Any:
    """Return a provider that accepts one way of client authentication only."""

    def answer(asked: ReceivedRequest) -> Reply:
        is_header = "authorization" in asked.headers
        if is_header is (method == "basic_header"):
            return Reply(status=400, body={"error": "invalid_grant"})
        return Reply(status=401, body={"error": "invalid_client"})

    return answer


@pytest.mark.parametrize(
    ("chosen", "taken", "words"),
    [
        ("basic_header", "basic_header", "as they are sent now"),
        ("request_body", "request_body", "as they are sent now"),
        ("basic_header", "request_body", "as “Client credentials in body”: choose that"),
        ("request_body", "basic_header", "as “Basic Auth header”: choose that"),
    ],
)
def test_both_ways_are_tried(fake: FakeProvider, chosen: str, taken: str, words: str) -> None:
    credential = credential_at(fake, client_authentication=chosen)
    make_token(credential)
    fake.reply(takes(taken))

    tried = oauth.try_authentication(credential)

    assert words in tried.message
    assert tried.better == ("" if chosen == taken else taken)
    # The real refresh token was not sent, and the row is unchanged.
    sent = [asked.fields["refresh_token"] for asked in fake.requests]
    assert "a-refresh-token-0001" not in sent
    assert OAuthToken.objects.get().version == 1
    credential.refresh_from_db()
    assert credential.client_authentication == chosen


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply(status=401, body={"error": "invalid_client"}), "in neither way"),
        (Reply(status=503), "is unclear which way"),
        (Reply(body=b"<html>"), "is unclear which way"),
        # Keycloak, with a wrong secret.
        (
            Reply(status=401, body={"error": "unauthorized_client"}),
            "in neither way",
        ),
        # Auth0.
        (Reply(status=401, body={"error": "access_denied"}), "in neither way"),
        # Glewlwyd, also for the wrong way of client authentication.
        (
            Reply(status=403, body={"error": "unauthorized_client"}),
            "in neither way. Copy Client ID and Client secret again; a secret may have expired. If "
            "both are right, allow this client the grant",
        ),
        (Reply(status=401), "in neither way"),
        # None of these responses says that the client was accepted.
        (Reply(status=400, body={"error": "unsupported_grant_type"}), "is unclear which way"),
        (Reply(status=400, body={"error": "invalid_request"}), "is unclear which way"),
        (Reply(status=403, body={"error": "access_denied"}), "is unclear which way"),
        (Reply(status=400, body={"error": "made_up"}), "with “made_up”"),
        (Reply(status=404), "is unclear which way"),
        (Reply(status=307, headers={"Location": "/elsewhere"}), "is unclear which way"),
        (Reply(body={"access_token": "T"}), "as they are sent now"),
        (Reply(status=400, body={"error": "invalid_grant"}), "as they are sent now"),
        (
            Reply(
                status=400,
                body={"error": "invalid_request", "error_description": "Invalid refresh token"},
            ),
            "as they are sent now",
        ),
    ],
)
def test_other_outcomes_are_said(fake: FakeProvider, reply: Reply, words: str) -> None:
    fake.reply(reply)

    assert words in oauth.try_authentication(credential_at(fake)).message


def test_extra_parameters_are_sent_along_where_they_can_be_filled(fake: FakeProvider) -> None:
    extra = {"tenant": "42", "device_id": "{callback.device_id}", "secret": "{client_secret}"}
    credential = credential_at(fake, refresh_parameters=extra)
    fake.reply(Reply(status=401, body={"error": "invalid_client"}))

    assert "in neither way" in oauth.try_authentication(credential).message

    assert {asked.fields["tenant"] for asked in fake.requests} == {"42"}
    assert not any("device_id" in asked.fields for asked in fake.requests)
    in_body = [asked.fields for asked in fake.requests if "client_secret" in asked.fields]
    assert [fields["secret"] for fields in in_body] == [credential.client_secret]
    assert sum("secret" in asked.fields for asked in fake.requests) == 1


def test_words_of_the_admin_do_not_make_the_client_known(fake: FakeProvider) -> None:
    credential = credential_at(fake, reauthorization_words=["unauthorized"])
    fake.reply(Reply(status=401, body={"error": "unauthorized_client"}))

    assert "in neither way" in oauth.try_authentication(credential).message


@pytest.mark.parametrize(
    ("status", "error", "can_try"),
    [
        (401, "unauthorized_client", True),
        (403, "unauthorized_client", True),
        (400, "unauthorized_client", False),
        (400, "invalid_scope", False),
    ],
)
def test_other_way_is_offered_where_it_may_help(
    fake: FakeProvider, status: int, error: str, can_try: bool
) -> None:
    credential = credential_at(fake)
    make_token(credential)
    fake.reply(Reply(status=status, body={"error": error}))
    with pytest.raises(oauth.TokenUnavailableError):
        oauth.refresh(credential)

    diagnosis = oauth.diagnose(credential)

    assert diagnosis is not None
    assert diagnosis.can_try_other_way is can_try


def test_public_client_has_one_way(fake: FakeProvider) -> None:
    assert "only one way" in oauth.try_authentication(credential_at(fake, client_secret="")).message


def test_real_provider_knows_its_clients(provider: Provider) -> None:
    assert "as they are sent now" in oauth.try_authentication(make_credential(provider)).message
    assert (
        "as they are sent now"
        in oauth.try_authentication(make_machine_credential(provider)).message
    )
    wrong = make_credential(provider, client_secret="wrong")
    assert "in neither way" in oauth.try_authentication(wrong).message
