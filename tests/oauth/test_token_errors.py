"""What providers write when they refuse, in which place, and what it means."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cpu_time import LINEAR, Work, growth
from tests.oauth.test_token_response import FORM, JSON, ask, good, text_of
from webhooks.oauth import sentence
from webhooks.oauth.errors import ERRORS, Grant, TokenResult
from webhooks.oauth.token_errors import normalized
from webhooks.oauth.token_response import Expected

DEAD = TokenResult.NEEDS_REAUTHORIZATION
LATER = TokenResult.TRANSIENT
WRONG = TokenResult.MISCONFIGURED

NESTED = [
    {"error": {"status": 400, "code": "invalid_grant"}},
    {"error": {"type": "invalid_request_error", "code": "invalid_grant"}},
    {"error": {"code": 400, "reason": "invalid_grant"}},
    {"error": {"code": 400, "errors": [{"domain": "global", "reason": "invalid_grant"}]}},
    {"error": {"code": 400, "details": [{"reason": "invalid_grant"}]}},
    {"error": [{"code": "invalid_grant"}]},
    {"error": {"error": {"code": "invalid_grant"}}},
    {"error": {"message": "invalid_grant"}},
    {"errors": [{"code": "invalid_grant"}]},
    {"errors": [{"message": "no"}, {"code": "invalid_grant"}]},
    {"errors": ["invalid_grant"]},
    {"data": {"error": "invalid_grant"}},
    {"data": [{"error": {"code": "invalid_grant"}}]},
    {"Error": "invalid_grant"},
    {"ErrorCode": "invalid_request", "Error": "Invalid Refresh Token"},
    {"fault": {"faultstring": "No", "detail": {"errorcode": "steps.oauth.invalid_grant"}}},
    {"status": 400, "error": "Bad Request", "message": "invalid_grant"},
    {"error": "Bad Request", "message": "Answer of the server: invalid_grant (revoked)"},
    {"error": 400, "error_description": "invalid_grant"},
    {"error": "invalid_grant: Token has been expired or revoked."},
    {"error": "invalidGrant"},
    {"error": "invalid_grant."},
    {"type": "https://provider.example/problems/invalid_grant", "title": "Bad Request"},
]


@pytest.mark.parametrize("body", NESTED, ids=str)
@pytest.mark.parametrize("status", [400, 401, 403])
def test_ended_grant_is_found_wherever_it_is_named(body: dict[str, Any], status: int) -> None:
    assert ask(body, status).result == DEAD


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("invalid_grant", "text/plain"),
        ("Error: invalid_grant", "text/plain"),
        ('"invalid_grant"', JSON),
        ('["invalid_grant"]', JSON),
        ('[{"error":"invalid_grant"}]', JSON),
        ("{'error': 'invalid_grant'}", JSON),
        ("<?xml version='1.0'?><error>invalid_grant</error>", "application/xml"),
        ("error=invalid_grant&error_description=The token ended", FORM),
        ("&error=invalid_grant", FORM),
    ],
)
def test_ended_grant_is_found_in_what_is_no_object(body: str, content_type: str) -> None:
    answer = ask(body, 400, content_type)

    assert (answer.result, answer.reason) == (DEAD, "invalid_grant")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"error": "invalid_client", "error_code": "invalid_grant"}, "invalid_client"),
        ({"error": {"code": 401, "type": "invalid_client"}}, "invalid_client"),
        ({"error": "made_up_code", "type": "error", "status": 400}, "made_up_code"),
        ({"error": {"code": "made_up_code", "type": "api_error"}}, "made_up_code"),
        ({"error": "Bad Request", "message": "no"}, "Bad Request"),
    ],
)
def test_code_that_says_most_is_believed(body: dict[str, Any], reason: str) -> None:
    answer = ask(body, 400)

    assert (answer.result, answer.reason) == (WRONG, reason)


@pytest.mark.parametrize(
    ("body", "result", "reason"),
    [
        ({"status": "BAD_REFRESH_TOKEN"}, DEAD, "BAD_REFRESH_TOKEN"),
        ({"code": "invalid_grant"}, DEAD, "invalid_grant"),
        ({"error_code": "invalid_grant"}, DEAD, "invalid_grant"),
        ({"data": {"error": "invalid_grant"}}, DEAD, "invalid_grant"),
        ({"access_token": None, "message": "Refresh token has expired"}, DEAD, "provider_error"),
        ({"message": "Too many requests"}, LATER, "provider_error"),
        ({"code": 429, "message": "no"}, LATER, "provider_error"),
        ({"errorCode": "invalid_client"}, WRONG, "invalid_client"),
        ({"code": 0, "message": "success", "data": {}}, WRONG, "no_token"),
        ({"status": "active", "token_type": "Bearer"}, WRONG, "no_token"),
        ({"status": "success", "data": {"access_token": "T"}}, WRONG, "no_token"),
    ],
)
def test_success_without_a_token_is_read_as_a_refusal(
    body: dict[str, Any], result: TokenResult, reason: str
) -> None:
    answer = ask(body)

    assert (answer.result, answer.token) == (result, None)
    assert answer.reason.startswith(reason) or reason == "provider_error"


@pytest.mark.parametrize(
    "body",
    [
        {"error": "QUERY_LIMIT_EXCEEDED", "error_description": "Too many requests"},
        {"error": "OPERATION_TIME_LIMIT", "error_description": "Too many requests"},
        {"status": "error", "message": "No", "category": "RATE_LIMITS"},
        {"status": "error", "message": "No", "errorType": "RATE_LIMIT"},
        {"error": {"code": 403, "message": "Rate Limit Exceeded"}},
        {"error": {"code": 403, "message": "No", "errors": [{"reason": "rateLimitExceeded"}]}},
        {"error": {"code": 403, "errors": [{"reason": "userRateLimitExceeded"}]}},
        {"error": {"code": 403, "errors": [{"reason": "dailyLimitExceeded"}]}},
        {"error": {"code": 400, "status": "RESOURCE_EXHAUSTED"}},
        {"error": {"code": "TooManyRequests", "message": "No"}},
        {"error": {"code": 429, "message": "No"}},
        {"__type": "x", "code": "Throttling"},
        {"code": "ThrottlingException"},
        {"error": "invalid_request", "error_description": "Too many requests"},
        {"error": "unauthorized", "message": "Rate limit reached"},
        {"error": "unknown_error", "error_description": "retry your request"},
        {"error": "REQUEST_LIMIT_EXCEEDED"},
        [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}],
        {"error": "Access Denied", "error_description": "You have made too many requests."},
        {"message": "API rate limit exceeded"},
    ],
    ids=str,
)
@pytest.mark.parametrize("status", [400, 403])
def test_limit_is_waited_for_under_every_status(body: Any, status: int) -> None:
    answer = ask(body, status, retry_after="30")

    assert (answer.result, answer.retry_after_seconds) == (LATER, 30)


@pytest.mark.parametrize(
    ("error", "description"),
    [
        ("invalid_request", "Too many parameters"),
        ("invalid_request", "Too many values of redirect_uri"),
        ("invalid_client", "Too many requests"),
        ("invalid_scope", "try again later"),
        ("made_up_code", "The limit of the scope is one resource"),
    ],
)
def test_other_limits_are_mistakes(error: str, description: str) -> None:
    assert ask({"error": error, "error_description": description}, 400).result == WRONG


def test_every_text_is_judged_and_the_first_is_shown() -> None:
    body = {"title": "Bad", "detail": "No such thing", "hint": "Token has been revoked"}

    answer = ask(body, 400)

    assert answer.result == DEAD
    assert "No such thing" in answer.message


@pytest.mark.parametrize(
    ("description", "result"),
    [
        ("Missing parameter: refresh token. Unknown client", WRONG),
        ("Missing parameter refresh_token; unknown client", WRONG),
        ("Missing refresh token, unknown client", WRONG),
        ("refresh_token is missing and the client secret has expired", WRONG),
        ("refresh_token is an unknown grant type", WRONG),
        ("grant_type refresh_token: the client_id is invalid", WRONG),
        ("refresh_token must be used with client_id", WRONG),
        ("The refresh token issued to this client has expired", DEAD),
        ("Refresh token is invalid for this client", DEAD),
        ("Refresh token unknown", DEAD),
        ("Value passed for the token was invalid.", DEAD),
        ("Invalid Token!", DEAD),
        ("This authorization code has been used.", DEAD),
        ("Invalid token endpoint authentication method", WRONG),
        ("Cannot decrypt the refresh token", DEAD),
        ("Cannot validate the provided authorization code", DEAD),
        ("Token is not linked to client", DEAD),
        ("Authorization code was not issued to this client", DEAD),
        ("Matching code was not found or was already used", DEAD),
        ("Invalid authorization code", DEAD),
        ("invalid code, rid: 6", DEAD),
        ("token invalid", DEAD),
        ("Invalid code challenge method", WRONG),
        ("The country code is invalid", WRONG),
        ("Cannot decrypt the client assertion", WRONG),
        ("token is invalid JSON", WRONG),
    ],
)
def test_sentence_says_whether_it_is_the_token_that_ended(
    description: str, result: TokenResult
) -> None:
    body = {"error": "invalid_request", "error_description": description}

    assert ask(body, 400).result == result


@pytest.mark.parametrize(
    ("body", "result"),
    [
        ({"errors": {"refresh_token": ["The refresh token is invalid."]}}, DEAD),
        ({"errors": {"refresh_token": "The refresh token has expired"}}, DEAD),
        ({"errors": {"grant_type": ["The grant type field is required."]}}, WRONG),
        ({"code": "REVOKED_ACCESS_TOKEN", "message": "revoked by the user"}, DEAD),
        ({"code": "EXPIRED_ACCESS_TOKEN"}, DEAD),
        ({"error": "access_token_expired"}, DEAD),
        ({"error": "user_cancelled_login"}, DEAD),
        ({"error": "invalid_grant", "error_codes": [7000222]}, WRONG),
        ({"error": "invalid_client", "error_codes": [700082]}, DEAD),
        ({"error": "invalid_request", "error_codes": [90033]}, LATER),
        ({"error": {"type": "OAuthException", "code": 190, "message": "Session"}}, DEAD),
        ({"error": {"type": "OAuthException", "code": 4, "message": "Reached"}}, LATER),
        ({"error": {"type": "OAuthException", "code": 9, "is_transient": True}}, LATER),
        ({"error": {"type": "OAuthException", "code": 1, "message": "Bad secret"}}, WRONG),
        ({"error": {"type": "OAuthException", "code": 9, "is_transient": False}}, WRONG),
        (
            {"error": "unauthorized_client", "error_description": "refresh_token is invalid"},
            DEAD,
        ),
        (
            {"error": "unauthorized_client", "error_description": "Not for grant refresh_token"},
            WRONG,
        ),
        ({"reason": "Invalid Token!", "error": "invalid_request"}, DEAD),
        # LinkedIn, Exact Online, Zitadel, DingTalk, Firebase, WeChat.
        (
            {
                "error": "invalid_request",
                "error_description": "The token used in the request has been revoked by the user",
            },
            DEAD,
        ),
        (
            {
                "error": "invalid_request",
                "error_description": "The token's client secret has been revoked",
            },
            WRONG,
        ),
        ({"error": "unauthorized_client", "error_description": "Old refresh token used."}, DEAD),
        (
            {"error": "invalid_request", "error_description": "Errors.User.RefreshToken.Invalid"},
            DEAD,
        ),
        ({"error": "invalid_request", "error_description": "Errors.Request.Invalid"}, WRONG),
        ({"code": "invalidParameter.authCode.notFound", "message": "x"}, DEAD),
        ({"error": {"code": 400, "message": "USER_NOT_FOUND", "status": "INVALID_ARGUMENT"}}, DEAD),
        ({"errcode": -1, "errmsg": "system error"}, LATER),
        ({"error": "invalid_oauthtoken"}, DEAD),
        ({"code": "INVALID_OAUTHTOKEN", "message": "no", "status": "error"}, DEAD),
    ],
    ids=str,
)
def test_dialects_of_providers_are_understood(body: dict[str, Any], result: TokenResult) -> None:
    assert ask(body, 400).result == result


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "invalid_grant"},
        {"ok": False},
        {"ok": "false"},
        {"ok": 0},
        {"success": False, "error": "x"},
        {"success": "False"},
        {"succeeded": False},
        {"isSuccess": False},
        {"status": False},
        {"status": "error"},
        {"Error": "invalid_grant"},
        {"errors": ["invalid_scope"]},
        {"error": {"code": 5}},
    ],
    ids=str,
)
def test_token_beside_a_failure_is_not_taken(fields: dict[str, Any]) -> None:
    assert ask(good(**fields)).token is None


@pytest.mark.parametrize(
    "fields",
    [
        {"ok": "true"},
        {"ok": None},
        {"status": "ok"},
        {"code": "made_up"},
        {"errors": []},
        {"errors": None},
        {"error": "none"},
        {"error": "0"},
        {"status": 0},
        {"error": {"code": 0, "message": ""}},
        {"error": {"code": "ok", "message": "", "log_id": "2026"}},
        {"token_type": "BearerToken"},
    ],
    ids=str,
)
def test_token_beside_no_failure_is_taken(fields: dict[str, Any]) -> None:
    assert ask(good(**fields)).result == TokenResult.OK


@pytest.mark.parametrize(
    "error", ["application_cannot_be_found", "app_not_found", "Client authorization failed"]
)
def test_client_that_is_unknown_is_named_in_other_words(error: str) -> None:
    assert ask({"error": error}, 403).code == "invalid_client"


def test_client_credentials_have_no_grant_to_end_in_other_words_either() -> None:
    expected = Expected(grant=Grant.CLIENT_CREDENTIALS)

    for body, status in (({"code": "invalid_grant"}, 200), ({"errors": ["invalid_grant"]}, 400)):
        answer = ask(body, status, expected=expected)
        assert (answer.result, answer.reason) == (WRONG, "invalid_grant")


@pytest.mark.parametrize("error", ["access_denied", "consent_required", "interaction_required"])
def test_client_on_its_own_is_not_asked_to_approve(error: str) -> None:
    expected = Expected(grant=Grant.CLIENT_CREDENTIALS)

    answer = ask({"error": error, "error_description": "Service not found"}, 403, expected=expected)

    assert (answer.result, answer.code) == (WRONG, "provider_error")
    assert f"“{error}”" in text_of(answer)


@pytest.mark.parametrize(
    ("grant", "status", "body", "code"),
    [
        # Auth0.
        (Grant.CLIENT_CREDENTIALS, 403, {"error": "access_denied", "error_description":
         "No audience parameter was provided, and no default audience has been configured"},
         "invalid_target"),
        # Google, for a service account without domain-wide delegation.
        (Grant.JWT_BEARER, 401, {"error": "unauthorized_client", "error_description":
         "Client is unauthorized to retrieve access tokens using this method, or client not "
         "authorized for any of the scopes requested."}, "unauthorized_client"),
        # No grant can have ended.
        (Grant.CLIENT_CREDENTIALS, 401, {"message": "User not found"}, "invalid_client"),
        (Grant.CLIENT_CREDENTIALS, 401, {"error": "invalid_token"}, "invalid_client"),
        (Grant.CLIENT_CREDENTIALS, 400, {"message": "Invalid token"}, "provider_error"),
        (Grant.CLIENT_CREDENTIALS, 401, {"error": "subscription_expired"}, "provider_error"),
        (Grant.CLIENT_CREDENTIALS, 403, {"error": "app_not_installed"}, "provider_error"),
        (Grant.JWT_BEARER, 401, {"message": "User not found"}, "assertion_refused"),
    ],
)  # fmt: skip
def test_refusal_of_a_grant_without_a_person_says_what_to_correct(
    grant: Grant, status: int, body: dict[str, Any], code: str
) -> None:
    answer = ask(body, status, expected=Expected(grant=grant))

    assert (answer.result, answer.code) == (WRONG, code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("Access Denied", "access_denied"),
        ("invalid-grant", "invalid_grant"),
        ("invalidGrant", "invalid_grant"),
        ("userRateLimitExceeded", "user_rate_limit_exceeded"),
        ("INVALID_GRANT", "invalid_grant"),
        ("Invalid Token!", "invalid_token"),
    ],
)
def test_codes_have_one_spelling(error: str, code: str) -> None:
    assert normalized(error) == code


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        ("", "a"),
        ("", "a_"),
        ("", "aB"),
        ("", "too many "),
        ("", "refresh token "),
        ("invalid token", " "),
        ("", "unexpected token "),
    ],
)
def test_long_text_is_judged_in_linear_time(start: str, piece: str) -> None:
    def prepare(parts: int) -> Work:
        text = start + piece * (8_000 * parts // len(piece))
        bodies = (text, {"error": text}, {"message": text})
        return lambda: [ask(body, 400, "text/plain") for body in bodies]

    assert growth(prepare, limit=LINEAR) < LINEAR


WRONG_CLIENT = [
    # Keycloak 26, a wrong secret.
    (401, "unauthorized_client", "Invalid client or Invalid client credentials"),
    # Glewlwyd, Okta and others.
    (401, "unauthorized_client", ""),
    (401, "unauthorized_client", "The client is not authorized"),
    # Auth0.
    (401, "access_denied", "Unauthorized"),
    # Google, for a secret of another client.
    (401, "unauthorized_client", "Unauthorized"),
    (401, "invalid_request", "Bad request"),
    (401, "made_up", "No"),
    (401, "unauthorized_client", "Access was not granted"),
    (400, "unauthorized_client", "Client authentication failed for this grant type"),
    # Salesforce.
    (400, "invalid_grant", "authentication failure - invalid client credentials"),
    (400, "invalid_request", "Client authentication failed"),
    (400, "unauthorized_client", "Wrong client secret"),
    (403, "unauthorized_client", "Bad client credentials"),
    (200, "made_up", "The client_id or secret is wrong"),
    (400, "unauthorized_client", "AADSTS700016: Application with identifier 'x' was not found"),
    (401, "invalid_client", "AADSTS7000215: Invalid client secret provided."),
]


@pytest.mark.parametrize(("status", "error", "description"), WRONG_CLIENT)
def test_refusal_of_the_client_is_not_called_one_of_the_grant(
    status: int, error: str, description: str
) -> None:
    answer = ask({"error": error, "error_description": description}, status)

    assert (answer.result, answer.code) == (WRONG, "invalid_client")


@pytest.mark.parametrize(
    ("status", "error", "description", "code"),
    [
        (400, "unauthorized_client", "", "unauthorized_client"),
        (403, "unauthorized_client", "", "client_or_grant"),
        (403, "unauthorized_client", "Forbidden", "client_or_grant"),
        (403, "unauthorized_client", "Grant type 'x' not allowed for the client.",
         "unauthorized_client"),
        # Keycloak says this with 401.
        (401, "unauthorized_client", "Client not enabled to retrieve service account",
         "unauthorized_client"),
        (400, "unauthorized_client", "May not use authorization grant 'client_credentials'",
         "unauthorized_client"),
        (400, "unauthorized_client", "Client credentials grant is not allowed here",
         "unauthorized_client"),
        # Ory Hydra, for a refresh token that was used twice.
        (401, "token_inactive", "Token is inactive because it is malformed.", "invalid_grant"),
        (401, "made_up", "The token is no longer known: refresh token has expired",
         "invalid_grant"),
        (401, "invalid_scope", "Unknown scope", "missing_scope"),
        (403, "made_up", "No", "provider_error"),
        # Atlassian, for an ended refresh token.
        (403, "unauthorized_client", "refresh_token is invalid", "invalid_grant"),
    ],
)  # fmt: skip
def test_refusal_of_something_else_is_not_called_one_of_the_client(
    status: int, error: str, description: str, code: str
) -> None:
    assert ask({"error": error, "error_description": description}, status).code == code


@pytest.mark.parametrize(
    ("error", "description", "method"),
    [
        ("invalid_client", "The OAuth 2.0 Client supports client authentication method "
         "'private_key_jwt', but method 'client_secret_basic' was requested.", "private_key_jwt"),
        ("invalid_client", "Parameter client_assertion_type is missing", "client_assertion"),
        ("invalid_request", "client assertion required", "client_assertion"),
        ("unauthorized_client", "This client uses client_secret_jwt", "client_secret_jwt"),
        ("invalid_client", "Mutual TLS is required", "mutual_tls"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 401])
def test_client_that_needs_a_key_is_named(
    status: int, error: str, description: str, method: str
) -> None:
    answer = ask({"error": error, "error_description": description}, status)

    assert answer.code == "client_key_needed"
    assert f"authenticate with “{method}”. Choose that" in sentence(answer.message)


@pytest.mark.parametrize(
    ("authentication", "description", "code"),
    [
        ("private_key_jwt", "AADSTS700024: Client assertion is not within its valid time range.",
         "assertion_refused"),
        ("private_key_jwt", "Client authentication with signed JWT failed", "assertion_refused"),
        ("private_key_jwt", "", "assertion_refused"),
        ("private_key_jwt", "Mutual TLS is required", "client_key_needed"),
        ("client_secret_jwt", "The client_assertion signature is invalid.", "invalid_client"),
        ("client_secret_jwt", "This client uses private_key_jwt", "client_key_needed"),
        ("tls_client_auth", "The client certificate does not match", "certificate_refused"),
        ("tls_client_auth", "", "certificate_refused"),
        ("tls_client_auth", "client assertion required", "client_key_needed"),
        ("basic_header", "", "invalid_client"),
    ],
)  # fmt: skip
def test_client_that_is_refused_is_asked_to_check_what_it_sends(
    authentication: str, description: str, code: str
) -> None:
    expected = Expected(authentication=authentication)

    refusal = {"error": "invalid_client", "error_description": description}
    answer = ask(refusal, 401, expected=expected)

    assert answer.code == code
    if not description:
        assert ask("", 401, expected=expected).code == code
    if code.endswith("_refused"):
        assert "client_secret" not in ERRORS[code].fields


def test_certificate_that_a_proxy_refuses_is_named() -> None:
    page = "<html><head><title>400 The SSL certificate error</title></head></html>"
    expected = Expected(authentication="tls_client_auth")

    answer = ask(page, 400, "text/html", expected=expected)

    assert answer.code == "certificate_refused"


def test_microsoft_that_takes_a_secret_too_asks_for_no_key() -> None:
    words = "AADSTS7000218: The body must contain: 'client_assertion' or 'client_secret'."

    answer = ask({"error": "invalid_client", "error_description": words}, 401)

    assert answer.code == "invalid_client"


@pytest.mark.parametrize(
    ("error", "description", "uses_pkce", "code"),
    [
        ("invalid_request", "Missing code challenge", False, "pkce_required"),
        ("invalid_request", "code  challenge is mandatory", False, "pkce_required"),
        ("unauthorized_client", "Client must send a code-challenge", False, "pkce_required"),
        ("invalid_grant", "PKCE verification failed: Code mismatch", True, "pkce_mismatch"),
        ("invalid_grant", "code verifier does not match the code challenge", True,
         "pkce_mismatch"),
        ("invalid_request", "Invalid code verifier", True, "pkce_mismatch"),
        ("invalid_request", "code challenge method not supported", True, "pkce_refused"),
        ("invalid_request", "Unknown parameter code_challenge", True, "pkce_refused"),
        ("invalid_code_verifier", "", True, "pkce_mismatch"),
        ("code_verifier_mismatch", "", True, "pkce_mismatch"),
        ("pkce_required", "", False, "pkce_required"),
        ("pkce_not_supported", "", True, "pkce_refused"),
    ],
)  # fmt: skip
def test_pkce_is_turned_off_only_where_it_is_not_wanted(
    error: str, description: str, uses_pkce: bool, code: str
) -> None:
    expected = Expected(grant=Grant.CODE, uses_pkce=uses_pkce)

    answer = ask({"error": error, "error_description": description}, 400, expected=expected)

    assert answer.code == code
    assert ("off" in sentence(answer.message)) is (code == "pkce_refused")


# Wording of many providers that the tables do not list one by one.
REFUSALS = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "data" / "token_refusals.tsv").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize(("status", "result", "code", "body"), REFUSALS)
def test_refusal_in_words_of_its_own_is_understood(
    status: str, result: str, code: str, body: str
) -> None:
    answer = ask(body, int(status))

    assert (answer.result, answer.token) == (result, None)
    assert code in ("-", answer.code)
    assert text_of(answer)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece",
    [
        "bad_",
        "invalid_client_",
        "token_",
        "account ",
        "user revoke ",
        "authorization ",
        "application ",
        "public client must not ",
        "limit of active ",
    ],
)
def test_words_are_judged_in_linear_time(piece: str) -> None:
    def prepare(parts: int) -> Work:
        fields = {"error": piece * 1_500 * parts, "error_description": piece * 500 * parts}
        return partial(ask, json.dumps(fields), 400)

    assert growth(prepare, limit=LINEAR) < LINEAR
