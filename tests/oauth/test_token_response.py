"""Every response of a token endpoint gets exactly one class, and nothing unsafe is accepted."""

import ast
import base64
import csv
import json
import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from django.utils import translation

from webhooks.oauth import sentence
from webhooks.oauth.errors import ERRORS, MAX_STORED, Grant, TokenResult, stored
from webhooks.oauth.token_response import Expected, RawResponse, TokenResponse, classify

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
YEAR = 365 * 86_400


def ask(body: Any, status: int = 200, content_type: str = JSON, **more: Any) -> TokenResponse:
    """Classify a response; a body that is neither str nor bytes is sent as JSON."""
    expected = more.pop("expected", None)
    is_last = more.pop("is_last", False)
    if isinstance(body, str):
        body = body.encode()
    elif not isinstance(body, bytes):
        body = json.dumps(body).encode()
    raw = RawResponse(status=status, content_type=content_type, body=body, **more)
    return classify(raw, expected, now=NOW, is_last=is_last)


def text_of(answer: TokenResponse) -> str:
    return sentence(answer.message)


def good(**fields: Any) -> dict[str, Any]:
    return {"access_token": "T", "token_type": "Bearer", **fields}


def rows() -> list[list[str]]:
    path = Path(__file__).parents[1] / "data" / "token_responses.tsv"
    with path.open(newline="") as file:
        lines = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row in lines if not row[0].startswith("#")]


# Reason codes for the results that the shared table describes in words.
REASONS = {
    "type_mac": "unsupported_token_type",
    "no_token": "no_token",
    "token_empty": "no_token",
    "token_int": "no_token",
    "token_list": "no_token",
    "token_crlf": "unsafe_token",
    "slack_ok_false": "invalid_code",
    "err_invalid_grant": "invalid_grant",
    "err_unknown": "made_up_code",
    "err_html_desc": "invalid_client",
    "nested_data": "no_token",
    "html200": "html",
    "html500": "http_500",
    "empty": "empty",
    "null": "not_an_object",
    "list_obj": "not_an_object",
    "str": "not_an_object",
    "trunc": "truncated",
    "dupkeys": "duplicate_keys",
    "deep": "too_deep",
    "204": "empty",
    "503": "http_503",
}
LIVES = {
    "expires_floatstr": 3600,
    "expires_neg": -5,
    "expires_huge": 10 * YEAR,
    "expires_at_iso": (datetime(2030, 1, 1, tzinfo=UTC) - NOW).total_seconds(),
}


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_answer_of_the_shared_table_ends_in_its_class(row: list[str]) -> None:
    name, status, content_type, body, words = row

    # `literal_eval` rejects a product.
    text = "[" * 100_000 if body == "'['*100000" else ast.literal_eval(body)
    answer = ask(text, int(status), content_type)

    if words.startswith("ok"):
        assert answer.result == TokenResult.OK
        assert answer.token is not None
        assert answer.token.access_token == "T"
        assert answer.token.expires_in == LIVES.get(name)
    else:
        assert answer.token is None
        assert answer.reason == REASONS[name]
        assert text_of(answer).endswith((".", "”"))
    if words.startswith("transient"):
        assert answer.result == TokenResult.TRANSIENT
    if words.startswith("needs"):
        assert answer.result == TokenResult.NEEDS_REAUTHORIZATION
    if words.startswith("reject"):
        assert answer.result in (TokenResult.MISCONFIGURED, TokenResult.NEEDS_REAUTHORIZATION)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3600, 3600),
        ("3600", 3600),
        (" 3600 ", 3600),
        (3599.5, 3599.5),
        ("1e3", 1000),
        (-0.0, None),
        ("0", None),
        ("-1", -1),
        (-(10**18), -10 * YEAR),
        (10**40, 10 * YEAR),
        (10**12, None),
        (10**15, None),
        (10**18, None),
        (2**63 - 1, 10 * YEAR),
        ("9" * 400, None),
        (True, None),
        (None, None),
        ([], None),
        ([3600], None),
        ("", None),
        ("soon", None),
        ("3600s", 3600),
        ("0.5 s", 0.5),
        ("3600 Seconds", 3600),
        ("3600000ms", 3600),
        ("15m", 900),
        ("90 min", 5400),
        ("1h", 3600),
        ("2 hours", 7200),
        ("7d", 7 * 86_400),
        ("1 day", 86_400),
        ("0s", None),
        ("PT1H", 3600),
        ("P1DT30M", 88_200),
        ("PT0S", None),
        ("P" + "9" * 400 + "D", None),
        ("PX", None),
        ("3600x", None),
        ("1h30m", None),
        ("s", None),
        ("1" * 41 + "s", None),
        ("1e999s", None),
        ("NaN", None),
        ("Infinity", None),
        ("1_000", None),
        ("١٢٣", None),
        ("３６００", None),
        ("+60", 60),
        ("60.", 60),
        ("60.5", 60.5),
        ("1" * 41, None),
        ("1" * 60_000 + "x", None),
        (".5e2", 50),
    ],
)
def test_expiry_is_read_in_every_form(value: object, seconds: float | None) -> None:
    answer = ask(good(expires_in=value))

    assert answer.result == TokenResult.OK
    assert answer.token is not None
    assert answer.token.expires_in == seconds


@pytest.mark.parametrize(
    "number",
    ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", "9" * 5000, "1" + "0" * 5000],
)
def test_impossible_number_in_json_never_fails(number: str) -> None:
    answer = ask('{"access_token": "T", "expires_in": %s}' % number)  # noqa: UP031 - braces.

    assert answer.result == TokenResult.OK
    assert answer.token is not None
    assert answer.token.expires_in in (None, 10 * YEAR)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"expires_at": NOW.timestamp() + 60}, 60),
        ({"expires_at": str(int(NOW.timestamp()) + 60)}, 60),
        ({"expires_at": (NOW.timestamp() + 60) * 1000}, 60),
        ({"expires_at": "2026-01-01T00:01:00Z"}, 60),
        ({"expires_at": "2026-01-01T01:01:00+01:00"}, 60),
        ({"expires_at": "2026-01-01T00:01:00"}, 60),
        ({"expires_at": "2025-12-31T23:59:00Z"}, -60),
        ({"expires_on": str(int(NOW.timestamp()) + 60)}, 60),
        ({"expires": int(NOW.timestamp()) + 60}, 60),
        # Facebook, Zoho, Shopee and DingTalk, and a point in time in place of a duration.
        ({"expires": 5184000}, 5184000),
        ({"expires_in": 3600000, "expires_in_sec": 3600}, 3600),
        ({"expire_in": 7200}, 7200),
        ({"expire": 7200}, 7200),
        ({"expiresIn": 7200}, 7200),
        ({"expires_in": "2026-01-01T00:01:00Z"}, 60),
        ({"expires_in": NOW.timestamp() + 60}, 60),
        ({"expires_in": 2**31 - 1}, 10 * YEAR),
        ({"expires_in": 30, "expires_at": "2026-01-01T00:01:00Z"}, 30),
        ({"expires_in": {}, "expires_at": "2026-01-01T00:01:00Z"}, 60),
        ({"expires_in": 0, "expires_at": "2026-01-01T00:01:00Z"}, 60),
        ({"expires_in": 0, "expires_at": 0}, None),
        ({"expires_at": "9999-12-31T23:59:59Z"}, 10 * YEAR),
        ({"expires_at": "0001-01-01T00:00:00+14:00"}, -10 * YEAR),
        ({"expires_at": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
        ({"expires": "Thu, 01 Jan 2026 02:01:00 +0200"}, 60),
        ({"expires_at": "Thu, 99 Jan 99999 00:01:00 GMT"}, None),
        ({".expires": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60),
        ({"expiry": "2026-01-01T00:01:00.500000001Z"}, 60.5),
        ({"expireTime": "2026-01-01T00:01:00Z"}, 60),
        ({"expiration": (NOW.timestamp() + 60) * 1000}, 60),
        ({"accessTokenExpiresAt": "2026-01-01 00:01:00 UTC"}, 60),
        # TikTok Shop, Google's libraries, and timestamps finer than milliseconds.
        ({"access_token_expire_in": NOW.timestamp() + 60}, 60),
        ({"token_expires_in": "60"}, 60),
        ({"expires_in_seconds": 60}, 60),
        ({"expiry_date": (NOW.timestamp() + 60) * 1000}, 60),
        ({"expirationTime": "2026-01-01T00:01:00Z"}, 60),
        ({"token_expiry": "2026-01-01T00:01:00Z"}, 60),
        ({"valid_until": "2026-01-01T00:01:00Z"}, 60),
        ({"expires_at": int(NOW.timestamp() + 60) * 10**6}, 60),
        ({"expires_at": int(NOW.timestamp() + 60) * 10**9}, 60),
        ({"expires_at": f"/Date({int(NOW.timestamp() + 60) * 1000})/"}, 60),
        ({"expires_at": f"/Date({int(NOW.timestamp() + 60) * 1000}+0200)/"}, 60),
        ({"expires_in": 30, "access_token_expires_in": 60}, 30),
        ({"refresh_token_expires_in": 60, "refresh_expires_at": NOW.timestamp() + 60}, None),
        ({"expiration": "never"}, None),
        ({"expires_at": "tomorrow"}, None),
        ({"expires_at": 60}, None),
        ({"expires_at": {}}, None),
    ],
)
def test_moment_of_expiry_is_read_or_ignored(fields: dict[str, Any], seconds: float | None) -> None:
    token = ask(good(**fields)).token

    assert token is not None
    assert token.expires_in == seconds


@pytest.mark.parametrize("skew_minutes", [-60, -5, 0, 5, 60])
def test_moments_are_of_the_providers_clock(skew_minutes: int) -> None:
    theirs = NOW + timedelta(minutes=skew_minutes)
    date, later = (format_datetime(at, usegmt=True) for at in (theirs, theirs + timedelta(0, 60)))

    token = ask(good(expires_at=later), date=date).token
    busy = ask("", 503, date=date, retry_after=later)

    assert token is not None
    assert (token.expires_in, busy.retry_after_seconds) == (60, 60)


@pytest.mark.parametrize("date", ["", "soon", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_clock_that_is_none_is_not_used(date: str) -> None:
    token = ask(good(expires_at="2026-01-01T00:01:00Z"), date=date).token

    assert token is not None
    assert token.expires_in == 60


@pytest.mark.parametrize(
    "value",
    ["bearer", "BEARER", "Bearer", " bearer ", "", None, "null", " None ", "undefined"],
)
def test_bearer_is_understood_however_it_is_written(value: str | None) -> None:
    token = ask(good(token_type=value)).token

    assert token is not None
    assert token.token_type == "Bearer"


@pytest.mark.parametrize(
    "value", ["mac", "MAC", "DPoP", "dpop", "pop", "N_A", 5, True, [], {}, ["Bearer"], "b" * 100]
)
def test_other_token_type_is_refused(value: object) -> None:
    answer = ask(good(token_type=value))

    assert (answer.result, answer.reason) == (TokenResult.MISCONFIGURED, "unsupported_token_type")


@pytest.mark.parametrize(
    "fields",
    [
        {"token_type": "User Access Token"},
        {"token_type": "Application Access Token"},
        {"token_type": "BEARER_TOKEN"},
        {"token_type": "user-access-token"},
        {"token_type": "bot", "ok": True},
        {"token_type": "user", "ok": True},
    ],
    ids=str,
)
def test_bearer_is_understood_under_the_names_of_providers(fields: dict[str, Any]) -> None:
    assert ask(good(**fields)).is_ok


@pytest.mark.parametrize("fields", [{"token_type": "bot"}, {"token_type": "DPoP", "ok": True}])
def test_name_of_one_provider_is_no_bearer_of_another(fields: dict[str, Any]) -> None:
    assert ask(good(**fields)).reason == "unsupported_token_type"


@pytest.mark.parametrize(
    "body", [{"message": "No such account"}, {"result": "no", "detail": "No such account"}]
)
def test_answer_without_a_token_shows_what_it_says(body: dict[str, Any]) -> None:
    answer = ask(body)

    assert (answer.result, answer.code) == (TokenResult.MISCONFIGURED, "no_token_answer")
    assert text_of(answer).endswith("The provider says: “No such account”")


def test_own_header_prefix_is_a_token_type() -> None:
    expected = Expected(token_types=("Zoho-oauthtoken",))

    assert ask(good(token_type="Zoho-OAuthToken"), expected=expected).is_ok


@pytest.mark.parametrize(
    "value",
    [
        "a\r\nX-Evil: 1",
        "a\nb",
        "a\tb",
        "a\0b",
        "a b",
        " a",
        "a ",
        "a\x7f",
        "ä",
        "тoken",
        "a\u2028b",
        "\ud800",
        "a\u202eb",
    ],
)
def test_token_that_no_header_can_carry_is_refused(value: str) -> None:
    answer = ask(good(access_token=value))

    assert (answer.result, answer.reason) == (TokenResult.MISCONFIGURED, "unsafe_token")


@pytest.mark.parametrize(
    "value", [None, 123, 1.5, True, False, [], ["a"], {}, "", 0, " ", "null", "None", "undefined"]
)
def test_token_that_is_no_text_is_refused(value: object) -> None:
    answer = ask({"access_token": value, "token_type": "Bearer"})

    assert (answer.result, answer.reason) == (TokenResult.MISCONFIGURED, "no_token")


@pytest.mark.parametrize("value", [123, True, ["a"], {"a": 1}, "a\r\nb", "ä", "\0"])
def test_refresh_token_that_cannot_be_used_is_left_out_with_a_warning(value: object) -> None:
    answer = ask(good(refresh_token=value))

    assert answer.result == TokenResult.OK_WITH_WARNING
    assert answer.token is not None
    assert answer.token.refresh_token == ""
    assert "refresh token" in sentence(answer.warning)


@pytest.mark.parametrize("value", [None, "", False, " ", "null", "None", "undefined"])
def test_refresh_token_may_be_missing(value: object) -> None:
    answer = ask(good(refresh_token=value))

    assert answer.result == TokenResult.OK
    assert answer.token is not None
    assert answer.token.refresh_token == ""


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        ("a b", "a b"),
        ("a,b", "a b"),
        ("a, b  c", "a b c"),
        ("a a b", "a b"),
        (["a", "b"], "a b"),
        (["a", 5, None], "a"),
        ([4, 6], None),
        ("", ""),
        ([], ""),
        (None, None),
        (5, None),
        ({}, None),
        (True, None),
        ('a "b" c', "a c"),
        ("a \0 \r\n b", "a b"),
        ("https://www.googleapis.com/auth/calendar openid", None),
    ],
)
def test_scope_is_read_in_every_form(value: object, scope: str | None) -> None:
    token = ask(good(scope=value)).token

    assert token is not None
    assert token.scope == (scope if scope is not None or not isinstance(value, str) else value)


def test_scope_is_read_under_bitbuckets_name_too() -> None:
    named, both = ask(good(scopes="a b")).token, ask(good(scope="a", scopes=["a", "b"])).token

    assert (named and named.scope, both and both.scope) == ("a b", "a")


def test_scope_is_cut_at_a_whole_word() -> None:
    token = ask(good(scope=" ".join(["scope-number"] + [f"s{n}" for n in range(3000)]))).token

    assert token is not None
    assert token.scope is not None
    assert 4000 < len(token.scope) <= 4096
    assert token.scope.split()[-1].startswith("s")


@pytest.mark.parametrize(
    ("requested", "granted", "words"),
    [
        ("a b", "a", "Not granted of the scopes asked for: b."),
        ("a", "a b", "More scopes were granted than asked for: b."),
        ("a b", "a c", "Not granted of the scopes asked for: b."),
        ("a b", "", "Not granted of the scopes asked for: a b."),
        ("a,b", "b a", ""),
        ("a b", None, ""),
        ("", "a b", ""),
        # GitHub and Shopify list only the wider scope.
        ("user user:email gist", "user,gist", ""),
        ("read_orders,write_orders", "write_orders", ""),
        ("user:email", "gist", "Not granted of the scopes asked for: user:email."),
        ("admin:org write:org read:org repo public_repo", "admin:org,repo", ""),
        ("write:org", "read:org", "Not granted of the scopes asked for: write:org."),
        # Salesforce.
        ("api offline_access", "refresh_token api", ""),
        ("api refresh_token", "offline_access api", ""),
        ("api refresh_token", "refresh_token", "Not granted of the scopes asked for: api."),
        # Bitbucket.
        ("repository repository:write", "repository:write", ""),
        (
            "repository repository:write",
            "repository:write account",
            "More scopes were granted than asked for: account.",
        ),
        ("repository:write", "repository repository:write", ""),
        ("repository account", "repository:write", "Not granted of the scopes asked for: account."),
        ("issues:read issues:write", "issues:write", ""),
        ("issues:write", "issues:read", "Not granted of the scopes asked for: issues:write."),
        # Reddit.
        ("identity read", "*", ""),
        ("*", "identity read", ""),
        ("a b", "a:*", "Not granted of the scopes asked for: a b."),
        ("openid offline_access a", "a", ""),
        ("offline_access", "a", ""),
        ("email", "https://www.googleapis.com/auth/userinfo.email openid", ""),
        ("offline_access User.Read", "openid profile email User.Read", ""),
        ("User.Read", "https://graph.microsoft.com/User.Read", ""),
        ("https://graph.microsoft.com/.default", "https://graph.microsoft.com/.default", ""),
        (
            "offline_access https://graph.microsoft.com/.default",
            "https://graph.microsoft.com/User.Read https://graph.microsoft.com/.default",
            "",
        ),
    ],
)
def test_change_of_scope_is_a_warning(requested: str, granted: str | None, words: str) -> None:
    expected = Expected(scope=requested)

    answer = ask(good(scope=granted), expected=expected)

    assert answer.result == (TokenResult.OK_WITH_WARNING if words else TokenResult.OK)
    assert sentence(answer.warning) == words


@pytest.mark.parametrize(
    "body",
    [
        good(),
        {"error": "invalid_grant"},
        {"error": "invalid_client"},
        "<html>",
        "",
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
    ids=["token", "invalid_grant", "invalid_client", "html", "empty", "deep", "garbage"],
)
def test_status_of_a_broken_provider_is_believed_before_its_body(body: Any) -> None:
    for status in [500, 501, 502, 503, 504, 520, 529, 599, 429, 408, 425, 444, 460, 499]:
        answer = ask(body, status)

        assert (answer.result, answer.token) == (TokenResult.TRANSIENT, None), status


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304, 399, 100, 199])
def test_redirect_is_never_an_answer(status: int) -> None:
    answer = ask(good(), status, location="https://elsewhere.example/token?code=secret-code")

    assert answer.result == TokenResult.MISCONFIGURED
    assert "https://elsewhere.example/token" in answer.message
    assert "secret-code" not in answer.message


@pytest.mark.parametrize(
    ("location", "shown", "is_offered"),
    [
        ("https://new.example/token?key=secret-1", "https://new.example/token", True),
        ("https://new.example:8443/@app/t;v=2", "https://new.example:8443/@app/t;v=2", True),
        ("https://new.example/token#access_token=secret-1", "https://new.example/token", False),
        ("https://new.example#secret-1?secret-2", "https://new.example", False),
        ("https://user:secret-1@new.example/token", "https://new.example/token", False),
        ("https://secret-1@new.example", "https://new.example", False),
        ("https:/\\a:secret-1@b@new.example/", "https:/\\new.example/", False),
        ("//a:secret-1@new.example/x", "//new.example/x", False),
        ("http://user:secret-1@[::1", "http://[::1", False),
        ("http://new.example/token", "http://new.example/token", False),
        ("ftp://new.example/token", "ftp://new.example/token", False),
        ("http://127.0.0.1:8000/token", "http://127.0.0.1:8000/token", True),
    ],
)
def test_redirect_is_shown_without_secrets_and_offered_if_it_may_be_entered(
    location: str, shown: str, is_offered: bool
) -> None:
    answer = ask(good(), 302, location=location)

    assert f"“{shown}”" in text_of(answer)
    assert "secret-" not in answer.message
    assert ("enter it" in text_of(answer)) is is_offered


@pytest.mark.parametrize("status", [300, 302, 304, 307])
def test_redirect_to_nowhere_names_its_status(status: int) -> None:
    answer = ask("", status)

    assert answer.result == TokenResult.MISCONFIGURED
    assert f"it answered {status}." in text_of(answer)


@pytest.mark.parametrize(
    ("challenge", "code", "words"),
    [
        ('Basic realm="x", error="invalid_client", error_description="No \\"me\\""',
         "invalid_client", 'No "me"'),
        ("Basic realm=x, error=invalid_client", "invalid_client", "invalid_client"),
        ('Bearer error="invalid_token", error_description="Refresh token expired"',
         "invalid_grant", "Refresh token expired"),
        ('Bearer Error = "invalid_grant"', "invalid_grant", "invalid_grant"),
        ('Basic realm="a", Bearer error="app_is_locked"', "invalid_client", "app_is_locked"),
        ('Bearer error="invalid_scope", scope="write"', "missing_scope", "invalid_scope"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("body", "content_type"),
    [("", JSON), ("<html>No</html>", "text/html"), ("{}", JSON), ('{"status": 401}', JSON)],
)
def test_error_is_found_in_the_challenge_alone(
    challenge: str, code: str, words: str, body: str, content_type: str
) -> None:
    answer = ask(body, 401, content_type, www_authenticate=challenge)

    assert answer.code == code
    assert text_of(answer).endswith(f"The provider says: “{words}”")


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Basic",
        'Basic realm="error=invalid_grant"',
        'Basic realm="x", error=""',
        'Basic error="',
    ],
)
def test_challenge_without_an_error_changes_nothing(challenge: str) -> None:
    assert ask("", 401, www_authenticate=challenge) == ask("", 401)


def test_error_of_the_body_comes_before_that_of_the_challenge() -> None:
    answer = ask({"error": "invalid_grant"}, 401, www_authenticate="Basic error=invalid_client")

    assert answer.code == "invalid_grant"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 418, 451])
def test_token_in_a_refusal_is_not_taken(status: int) -> None:
    answer = ask(good(), status)

    assert (answer.result, answer.token) == (TokenResult.MISCONFIGURED, None)


@pytest.mark.parametrize("status", [200, 201, 203])
def test_other_success_is_a_success(status: int) -> None:
    assert ask(good(), status).is_ok


@pytest.mark.parametrize(
    ("error", "result"),
    [
        ("invalid_grant", TokenResult.NEEDS_REAUTHORIZATION),
        ("INVALID_GRANT", TokenResult.NEEDS_REAUTHORIZATION),
        ("interaction_required", TokenResult.NEEDS_REAUTHORIZATION),
        ("login_required", TokenResult.NEEDS_REAUTHORIZATION),
        ("consent_required", TokenResult.NEEDS_REAUTHORIZATION),
        ("expired_token", TokenResult.NEEDS_REAUTHORIZATION),
        ("token_revoked", TokenResult.NEEDS_REAUTHORIZATION),
        ("invalid_refresh_token", TokenResult.NEEDS_REAUTHORIZATION),
        ("bad_refresh_token", TokenResult.NEEDS_REAUTHORIZATION),
        ("BAD_REFRESH_TOKEN", TokenResult.NEEDS_REAUTHORIZATION),
        ("bad_verification_code", TokenResult.NEEDS_REAUTHORIZATION),
        ("account_inactive", TokenResult.NEEDS_REAUTHORIZATION),
        ("invalid_client", TokenResult.MISCONFIGURED),
        ("incorrect_client_credentials", TokenResult.MISCONFIGURED),
        ("unauthorized_client", TokenResult.MISCONFIGURED),
        ("unsupported_grant_type", TokenResult.MISCONFIGURED),
        ("invalid_scope", TokenResult.MISCONFIGURED),
        ("invalid_request", TokenResult.MISCONFIGURED),
        ("invalid_target", TokenResult.MISCONFIGURED),
        ("redirect_uri_mismatch", TokenResult.MISCONFIGURED),
        ("made_up_code", TokenResult.MISCONFIGURED),
        ("temporarily_unavailable", TokenResult.TRANSIENT),
        ("server_error", TokenResult.TRANSIENT),
        ("slow_down", TokenResult.TRANSIENT),
        ("ratelimited", TokenResult.TRANSIENT),
        ("internal_error", TokenResult.TRANSIENT),
    ],
)
def test_error_decides_whatever_the_status(error: str, result: TokenResult) -> None:
    for status in (200, 400, 401, 403):
        answer = ask({"error": error}, status)

        assert (answer.result, answer.reason, answer.token) == (result, error, None), status


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            {"error": {"code": 400, "message": "No", "status": "INVALID_ARGUMENT"}},
            "INVALID_ARGUMENT",
        ),
        ({"error": {"message": "Bad", "type": "OAuthException", "code": 190}}, "OAuthException"),
        ({"error": {}, "message": "x"}, "http_400"),
        ({"error": ["invalid_grant"]}, "invalid_grant"),
        ({"error": True}, "True"),
        ({"error": 7}, "7"),
        ({"ok": False}, "error"),
        ({"success": False, "message": "no"}, "error"),
        ({"status": "BAD_REFRESH_TOKEN", "message": "missing"}, "BAD_REFRESH_TOKEN"),
        (
            {"status": "error", "message": "bad", "category": "BAD_AUTH_CODE"},
            "BAD_AUTH_CODE",
        ),
        (
            {"status": 400, "title": "Bad", "hint": "Token has been revoked"},
            "Token has been revoked",
        ),
        ({"message": "no"}, "http_400"),
        ({}, "http_400"),
    ],
)
def test_error_is_found_in_the_shapes_of_providers(body: dict[str, Any], reason: str) -> None:
    answer = ask(body, 400)

    assert answer.reason == reason
    assert answer.token is None


@pytest.mark.parametrize("error", [None, "", False, 0, [], {}])
def test_error_that_is_none_is_none(error: object) -> None:
    assert ask(good(error=error)).is_ok


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        ("<?xml version='1.0'?><e><error>invalid_grant</error></e>", "text/xml", "invalid_grant"),
        ("error=invalid_client&error_description=no", JSON, "invalid_client"),
        ("ERROR: unauthorized_client", "text/plain", "unauthorized_client"),
        ("<o><access_token>T</access_token><rate_limit>9</rate_limit></o>", "text/xml",
         "no_token_answer"),
    ],
)  # fmt: skip
def test_error_in_what_is_no_json_is_named(body: str, content_type: str, code: str) -> None:
    answer = ask(body, content_type=content_type)

    assert answer.code == code
    assert "…" not in text_of(answer)


def test_form_error_with_status_200_is_an_error() -> None:
    body = "error=bad_verification_code&error_description=The+code+passed+is+incorrect."

    answer = ask(body, 200, FORM)

    assert answer.reason == "bad_verification_code"
    assert "The code passed is incorrect." in answer.message


@pytest.mark.parametrize(
    ("number", "result"),
    [
        ("700082", TokenResult.NEEDS_REAUTHORIZATION),
        ("50173", TokenResult.NEEDS_REAUTHORIZATION),
        ("50076", TokenResult.NEEDS_REAUTHORIZATION),
        ("70008", TokenResult.NEEDS_REAUTHORIZATION),
        ("65001", TokenResult.NEEDS_REAUTHORIZATION),
        ("7000215", TokenResult.MISCONFIGURED),
        ("7000222", TokenResult.MISCONFIGURED),
        ("700016", TokenResult.MISCONFIGURED),
        ("50011", TokenResult.MISCONFIGURED),
        ("90033", TokenResult.TRANSIENT),
    ],
)
@pytest.mark.parametrize("error", ["invalid_grant", "invalid_client", "invalid_request"])
def test_number_of_microsoft_decides(error: str, number: str, result: TokenResult) -> None:
    body = {"error": error, "error_description": f"AADSTS{number}: Something. Trace ID: 1"}

    assert ask(body, 400).result == result


@pytest.mark.parametrize("status", [200, 400, 401, 403, 422])
def test_words_of_the_webhook_mean_authorize_again(status: int) -> None:
    expected = Expected(reauthorization_words=("token has been WITHDRAWN", "  "))
    body = {"error": "invalid_request", "note": "Token has been withdrawn by its owner"}

    assert ask(body, status, expected=expected).result == TokenResult.NEEDS_REAUTHORIZATION
    assert ask(body, status).result == TokenResult.MISCONFIGURED


def test_words_are_found_in_a_page_too_but_not_in_an_outage() -> None:
    expected = Expected(reauthorization_words=("revoked",))

    assert ask("Grant revoked", 403, "text/plain", expected=expected).result == (
        TokenResult.NEEDS_REAUTHORIZATION
    )
    assert ask("Grant revoked", 503, expected=expected).result == TokenResult.TRANSIENT


@pytest.mark.parametrize(
    "description",
    [
        "Refresh token has expired",
        "The refresh_token is invalid",
        "expired refresh token",
        "Token has been revoked",
        "refresh token not found",
    ],
)
def test_ended_grant_is_recognized_behind_a_general_error(description: str) -> None:
    body = {"error": "invalid_request", "error_description": description}

    assert ask(body, 400).result == TokenResult.NEEDS_REAUTHORIZATION


def test_too_many_requests_is_not_a_refusal_of_access() -> None:
    body = {
        "error": "Access Denied",
        "error_description": "You have made too many requests continuously.",
    }

    assert ask(body, 400).result == TokenResult.TRANSIENT


def test_client_credentials_have_no_person_to_ask() -> None:
    expected = Expected(grant=Grant.CLIENT_CREDENTIALS)

    assert (
        ask({"error": "invalid_grant"}, 400, expected=expected).result == TokenResult.MISCONFIGURED
    )


@pytest.mark.parametrize(
    ("status", "result"),
    [
        (400, TokenResult.TRANSIENT),
        (403, TokenResult.TRANSIENT),
        (401, TokenResult.TRANSIENT),
        (404, TokenResult.MISCONFIGURED),
        (405, TokenResult.MISCONFIGURED),
        (200, TokenResult.MISCONFIGURED),
    ],
)
def test_page_of_something_in_between_is_transient(status: int, result: TokenResult) -> None:
    page = "<!DOCTYPE html><html><title>Attention required</title>"

    assert ask(page, status, "text/html; charset=utf-8").result == result
    assert ask(page, status, JSON).result == result


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("\ufeff", "empty"),
        ("true", "not_an_object"),
        ("5", "not_an_object"),
        ('"T"', "not_an_object"),
        ("[]", "not_an_object"),
        ("{}", "no_token"),
        ("abc", "not_json"),
        ("{'access_token': 'T'}", "not_json"),
        ('{"access_token": "T",}', "not_json"),
        ('{"access_token": "T"} x', "not_json"),
        ('{"access_token": "T"}{"access_token": "U"}', "not_json"),
        ('callback({"access_token": "T"})', "not_json"),
        ('{"access_token": "T" /* comment */}', "not_json"),
        ('{"access_token": "a\nb"}', "not_json"),
        ("access_token=T", "not_json"),
        ('<?xml version="1.0"?><token>T</token>', "not_json"),
        ("<html></html>", "html"),
        ('{"access_token":"T","a":{"b":1,"b":2}}', "duplicate_keys"),
        ('{"access_token":"T","expires_in":1,"expires_in":2}', "duplicate_keys"),
        ('{"access_token":"T","\\u0061ccess_token":"U"}', "duplicate_keys"),
        ("[" * 21 + "]" * 21, "too_deep"),
        ('{"a":' * 100_000, "too_deep"),
        ('{"access_token":"T","a":' + "[" * 50 + "]" * 50 + "}", "too_deep"),
        (b"\x80\x81\x82", "not_json"),
        (b"\x1f\x8b\x08\x00\x00\x00", "not_json"),
    ],
)
def test_body_that_is_no_token_answer_is_refused(body: Any, reason: str) -> None:
    answer = ask(body)

    assert (answer.result, answer.reason) == (TokenResult.MISCONFIGURED, reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("access_token=T&access_token=U", "duplicate_keys"),
        ("access_token=", "no_token"),
        ("token_type=bearer", "no_token"),
        ("&".join(f"a{number}=1" for number in range(300)), "not_json"),
        ("access_token=%0d%0aX-Evil:1", "unsafe_token"),
        ("access_token=%ff", "unsafe_token"),
    ],
)
def test_form_is_read_as_strictly(body: str, reason: str) -> None:
    answer = ask(body, 200, FORM)

    assert (answer.result, answer.reason) == (TokenResult.MISCONFIGURED, reason)


@pytest.mark.parametrize(
    "content_type", [FORM, f"{FORM}; charset=UTF-8", "text/plain", "", "text/html"]
)
def test_form_is_understood_under_its_usual_names(content_type: str) -> None:
    token = ask("access_token=T&expires=5184000&scope=a%2Cb", 200, content_type).token

    assert token is not None
    assert (token.access_token, token.scope) == ("T", "a b")


@pytest.mark.parametrize(
    "body",
    ["access_token=T&scope=a b", "&access_token=T&scope=a+b", "&&access_token=T&scope=a%20b"],
)
def test_declared_form_may_be_written_carelessly(body: str) -> None:
    token = ask(body, 200, FORM).token

    assert token is not None
    assert (token.access_token, token.scope) == ("T", "a b")


@pytest.mark.parametrize("content_type", ["", "text/html", "text/plain", "text/javascript", FORM])
def test_json_is_understood_under_other_names(content_type: str) -> None:
    assert ask(good(), 200, content_type).is_ok


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_unicode_encoding_is_read(encoding: str) -> None:
    assert ask(json.dumps(good()).encode(encoding)).is_ok


def test_description_in_an_older_encoding_is_read() -> None:
    body = '{"error": "invalid_grant", "error_description": "Токен отозван"}'

    answer = ask(body.encode("cp1251"), 400, "application/json; charset=windows-1251")
    undeclared = ask(body.encode("cp1251"), 400)

    assert "Токен отозван" in answer.message
    assert undeclared.result == TokenResult.NEEDS_REAUTHORIZATION


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape", "zip", "idna", "no-such"])
def test_charset_of_python_only_is_not_used(charset: str) -> None:
    assert ask(good(), 200, f"application/json; charset={charset}").is_ok


TRUNCATED = [
    '{"access_token":"T","token',
    '{"access_token":"T"',
    '{"access_token":"T",',
    '{"access_token":',
    '{"access_token":"T","a":{"b":1}',
    '{"access_token":"T\\',
    '{"access_token":tr',
    "{",
]


@pytest.mark.parametrize("body", TRUNCATED)
def test_cut_off_json_is_transient_once_and_then_malformed(body: str) -> None:
    first, second = ask(body), ask(body, is_last=True)

    assert (first.result, first.is_truncated) == (TokenResult.TRANSIENT, True)
    assert (second.result, second.reason) == (TokenResult.MISCONFIGURED, "truncated")


@pytest.mark.parametrize("body", TRUNCATED)
def test_cut_off_refusal_is_transient_too(body: str) -> None:
    assert ask(body, 400).result == TokenResult.TRANSIENT


def test_answer_that_is_too_large_is_refused_unless_the_provider_is_broken() -> None:
    assert ask("", 200, is_too_large=True).reason == "too_large"
    assert ask("", 500, is_too_large=True).result == TokenResult.TRANSIENT


@pytest.mark.parametrize(
    ("path", "body", "is_found"),
    [
        ("data.access_token", {"code": 0, "data": {"access_token": "T"}}, True),
        ("data", {"data": {"access_token": "T"}}, True),
        ("token", {"token": "T"}, True),
        ("authed_user.access_token", {"ok": True, "authed_user": {"access_token": "T"}}, True),
        ("tokens.0.value", {"tokens": [{"value": "T"}]}, True),
        ("data.access_token", {"access_token": "T"}, False),
        ("data.access_token", {"data": [1]}, False),
        ("data.access_token", {"data": "T"}, False),
        ("tokens.7.value", {"tokens": []}, False),
        ("tokens.٣", {"tokens": ["T"] * 9}, False),
        ("..", {"access_token": "T"}, False),
        ("data", {"data": {"other": "T"}}, False),
    ],
)
def test_token_is_read_at_its_path(path: str, body: dict[str, Any], is_found: bool) -> None:
    answer = ask(body, expected=Expected(token_path=path, grant=Grant.CODE))

    assert answer.is_ok is is_found
    assert is_found or answer.reason == "no_token"


def test_what_belongs_to_a_nested_token_is_read_beside_it_only() -> None:
    body = {
        "ok": True,
        "access_token": "bot",
        "refresh_token": "bot-refresh",
        "expires_in": 1,
        "authed_user": {"access_token": "T", "expires_in": 43200, "scope": "chat:write"},
    }

    token = ask(body, expected=Expected(token_path="authed_user.access_token")).token

    assert token is not None
    assert (token.access_token, token.refresh_token, token.expires_in) == ("T", "", 43200)
    assert token.scope == "chat:write"


def test_refreshed_token_may_be_at_the_top() -> None:
    expected = Expected(token_path="authed_user.access_token", grant=Grant.REFRESH)

    assert ask(good(ok=True), expected=expected).is_ok
    nested = ask(good(authed_user={"access_token": "U"}), expected=expected).token
    assert nested is not None
    assert nested.access_token == "U"


@pytest.mark.parametrize(
    "body", [{"token": "short"}, {"token": "Invalid token, sorry"}, {"access": "read"}], ids=str
)
def test_word_of_a_tokens_name_is_no_token(body: dict[str, Any]) -> None:
    assert ask(body).code == "no_token_answer"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"code": 0, "data": {"access_token": "T"}}, "data.access_token"),
        ({"accessToken": "T", "expiresIn": 60}, "accessToken"),
        ({"data": {"accessToken": "T"}}, "data.accessToken"),
        # Instagram.
        ({"data": [{"access_token": "T", "user_id": "1"}]}, "data.0.access_token"),
        ({"access-token": "T"}, "access-token"),
        # Providers' own names for it.
        ({"token": "abcdefgh12345678", "expires": 60}, "token"),
        ({"access": "abcdefgh.12345678.sig", "refresh": "abcdefgh.12345678"}, "access"),
        ({"data": {"authToken": "abcdefgh12345678"}}, "data.authToken"),
        ({"accesstoken": "abcdefgh12345678"}, "accesstoken"),
        ({"token": "abcdefgh12345678", "user": {"accessToken": "T"}}, "user.accessToken"),
    ],
)
def test_nested_token_that_was_not_looked_for_is_named(body: dict[str, Any], path: str) -> None:
    answer = ask(body)

    assert f"“{path}”" in text_of(answer)
    assert ask(body, expected=Expected(token_path=path)).is_ok


def test_what_stands_beside_a_token_in_camel_case_is_read() -> None:
    body = {
        "accessToken": "T",
        "tokenType": "Bearer",
        "refreshToken": "R",
        "expiresIn": 60,
        "refreshTokenExpiresIn": 120,
        "expires_in": 30,
    }

    token = ask(body, expected=Expected(token_path="accessToken")).token

    assert token is not None
    assert (token.access_token, token.refresh_token) == ("T", "R")
    assert (token.expires_in, token.refresh_expires_in) == (30, 120)


def test_type_in_camel_case_is_checked_too() -> None:
    answer = ask({"access_token": "T", "tokenType": "DPoP"})

    assert answer.reason == "unsupported_token_type"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120),
        ("999999999", 3600),
        ("-5", None),
        ("0", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("Thu, 99 Xyz 99999 99:99:99", None),
        ("", None),
    ],
)
def test_retry_after_is_honoured_within_bounds(value: str, seconds: float | None) -> None:
    assert ask("", 429, retry_after=value).retry_after_seconds == seconds


@pytest.mark.parametrize("body", [{"message": "Account is being migrated"}, "", "Locked"])
@pytest.mark.parametrize("status", [413, 424, 477])
def test_refusal_that_says_when_to_come_back_is_for_now(status: int, body: Any) -> None:
    answer = ask(body, status, retry_after="120")

    assert (answer.result, answer.retry_after_seconds) == (TokenResult.TRANSIENT, 120)
    assert ask(body, status).result == TokenResult.MISCONFIGURED


@pytest.mark.parametrize(
    "body",
    ["", "Locked", "<html>Busy</html>", {"error": "conflict"}, {"message": "Refresh in progress"}],
)
@pytest.mark.parametrize("status", [409, 420, 421, 423, 449])
def test_conflict_is_for_now(body: Any, status: int) -> None:
    answer = ask(body, status)

    assert (answer.result, answer.is_lost) == (TokenResult.TRANSIENT, False)


@pytest.mark.parametrize("error", ["invalid_client", "invalid_grant"])
@pytest.mark.parametrize("status", [409, 420, 421, 423, 449])
def test_conflict_with_a_named_error_is_that_error(error: str, status: int) -> None:
    assert ask({"error": error}, status).code == error


@pytest.mark.parametrize(
    ("status", "is_lost"),
    [(444, False), (460, True), (499, True), (500, True), (502, True), (503, False), (504, True)],
)
def test_status_of_a_broken_connection_says_whether_the_answer_is_lost(
    status: int, is_lost: bool
) -> None:
    answer = ask("", status)

    assert (answer.code, answer.is_lost) == ("unavailable", is_lost)


@pytest.mark.parametrize("error", ["invalid_client", "invalid_grant", "invalid_scope"])
def test_refusal_with_a_name_is_no_matter_of_time(error: str) -> None:
    answer = ask({"error": error}, 400, retry_after="120")

    assert answer.result != TokenResult.TRANSIENT


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": "too_many_requests", "error_description": "Slow down"}, "“Slow down”"),
        ({"error": "too_many_requests"}, "“too_many_requests”"),
        ({"fault": {"faultstring": "Quota violation"}}, "“Quota violation”"),
        ({"errorCode": "E0000047", "errorSummary": "API call exceeded"}, "“API call exceeded”"),
        ("Slow down", "“Slow down”"),
        ("<html><title>Slow down</title></html>", ""),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_what_a_busy_provider_says_is_shown_without_its_brackets(
    body: Any, said: str, status: int
) -> None:
    assert text_of(ask(body, status)).partition("The provider says: ")[2] == said


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"refresh_token_expires_in": 15811200}, 15811200),
        ({"refresh_expires_in": "1800"}, 1800),
        ({"refresh_expires_in": 0}, None),
        ({"refresh_expires_in": -1}, None),
        ({"re_expires_in": 1800}, 1800),
        ({"refreshTokenExpiresIn": 1800}, 1800),
        ({"refresh_token_expire_in": NOW.timestamp() + 1800}, 1800),
        ({"refresh_token_expires_at": "2026-01-01T00:30:00Z"}, 1800),
        ({"refresh_token_expires_at": "2025-12-31T23:30:00Z"}, None),
        ({"refreshTokenExpiresAt": (NOW.timestamp() + 1800) * 1000}, 1800),
        ({"expires_in": 1800, "expires_at": NOW.timestamp() + 1800}, None),
        ({}, None),
    ],
)
def test_life_of_a_refresh_token_is_read(body: dict[str, Any], seconds: float | None) -> None:
    token = ask(good(refresh_token="R", **body)).token

    assert token is not None
    assert token.refresh_expires_in == seconds


class TestProvidersWords:
    def test_they_are_cut_and_one_line_without_control_characters(self) -> None:
        description = "a\r\nSet-Cookie: x\x00\x1b[31m\u202e" + "long " * 500

        message = text_of(ask({"error": "invalid_scope", "error_description": description}, 400))

        quote = message.partition("“")[2]
        assert not any(ord(one) < 32 for one in message)
        assert "\u202e" not in message
        assert len(quote) < 900
        assert message.endswith("…”")

    def test_markup_stays_text_for_the_template_to_escape(self) -> None:
        body = {"error": "x", "error_description": "<script>alert(1)</script>"}

        assert "<script>alert(1)</script>" in ask(body, 400).message

    def test_secrets_are_masked(self) -> None:
        expected = Expected(secrets=("a-client-secret", "a refresh/token"))
        description = (
            "secret a-client-secret, refresh_token=a+refresh%2Ftoken, code=SplxlOBeZQQYbYS6WxSbIA, "
            "Authorization: Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW, access_token: eyJhbGciOi.J9.x"
        )

        message = ask(
            {"error": "invalid_request", "error_description": description}, 400, expected=expected
        ).message

        for secret in (
            "a-client-secret",
            "a+refresh%2Ftoken",
            "SplxlOBeZQQYbYS6WxSbIA",
            "czZCaGRSa3F0MzpnWDFmQmF0M2JW",
            "eyJhbGciOi.J9.x",
        ):
            assert secret not in message

    @pytest.mark.parametrize("value", [5, None, [], {}, True])
    def test_description_may_be_anything(self, value: object) -> None:
        answer = ask({"error": "invalid_grant", "error_description": value}, 400)

        assert answer.result == TokenResult.NEEDS_REAUTHORIZATION

    def test_lone_surrogates_can_be_stored(self) -> None:
        message = ask('{"error":"x\\ud800","error_description":"y\\udfff"}', 400).message

        message.encode()


class TestSentences:
    @pytest.mark.parametrize(
        ("status", "body"),
        [(400, {"error": "invalid_client"}), (400, {"error": "bad_client_secret"}), (401, "")],
    )
    def test_wrong_secret_names_the_fields(self, status: int, body: Any) -> None:
        message = text_of(ask(body, status))

        assert all(one in message for one in ("client ID", "secret", "“Send credentials as”"))

    def test_redirect_mismatch_shows_the_url_to_register(self) -> None:
        url = "https://site.example/integrations/webhooks/oauth/callback/"
        expected = Expected(grant=Grant.CODE, redirect_uri=url)
        bodies = [
            {"error": "redirect_uri_mismatch"},
            {"error": "invalid_grant", "error_description": "redirect_uri does not match"},
            {"error": "invalid_request", "error_description": "AADSTS50011: redirect_uri"},
            {"status": "BAD_REDIRECT_URI", "message": "x"},
        ]

        for body in bodies:
            message = text_of(ask(body, 400, expected=expected))
            assert "Register exactly this one" in message
            assert url in message

    def test_refused_scope_is_named(self) -> None:
        refused = {"error": "invalid_scope"}

        assert "“read write”" in text_of(ask(refused, 400, expected=Expected(scope="read write")))
        assert "fill in Scope" in text_of(ask(refused, 400))

    def test_refused_pkce_says_which_switch(self) -> None:
        body = {"error": "invalid_request", "error_description": "Unknown code_verifier"}
        used = Expected(grant=Grant.CODE, uses_pkce=True)

        assert "turn “Use PKCE” off" in text_of(ask(body, 400, expected=used))
        assert "Turn “Use PKCE” on" in text_of(ask(body, 400))

    def test_provider_s_own_word_is_quoted(self) -> None:
        refused = {"error": "made_up", "error_description": "The moon is full"}

        assert "“made_up”" in text_of(ask(refused, 400))
        assert text_of(ask(refused, 400)).endswith("The provider says: “The moon is full”")
        assert text_of(ask({"error": "invalid_grant"}, 400)).endswith("“invalid_grant”")

    def test_reader_chooses_the_language(self) -> None:
        refused = ask({"error": "invalid_client", "error_description": "no"}, 400)

        with translation.override("uk"):
            assert "Провайдер" in text_of(refused)
        with translation.override("en"):
            assert "The provider" in text_of(refused)

    def test_every_row_is_a_sentence_whatever_is_known(self) -> None:
        for code, row in ERRORS.items():
            names = re.findall(r"%\((\w+)\)", str(row.text))
            kept = stored(code, **dict.fromkeys(names, "x" * 3000), said='"' * 3000)

            assert len(kept) <= MAX_STORED, code
            assert sentence(kept) != code
            assert "%(" not in sentence(kept), code


def test_repr_shows_no_token() -> None:
    answer = ask(good(access_token="visible-token", refresh_token="visible-refresh"))

    assert "visible" not in repr(answer)


def jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJSUzI1NiJ9.{payload}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"access_token": jwt(exp=NOW.timestamp() + 900)}, 900),
        ({"access_token": jwt(exp=str(int(NOW.timestamp()) + 900))}, 900),
        ({"access_token": jwt(exp=NOW.timestamp() - 900)}, -900),
        # A lifetime in the response takes precedence.
        ({"access_token": jwt(exp=NOW.timestamp() + 900), "expires_in": 60}, 60),
        ({"access_token": jwt(sub="nobody")}, None),
        ({"access_token": jwt(exp="never")}, None),
        ({"access_token": "opaque"}, None),
        ({"access_token": "a.b.c"}, None),
        ({"access_token": "a." + "W" * 50_000 + ".c"}, None),
    ],
)
def test_life_of_a_jwt_is_read_when_the_answer_does_not_tell(
    fields: dict[str, Any], seconds: float | None
) -> None:
    answer = ask(fields)

    assert answer.token is not None
    assert answer.token.expires_in == seconds


@pytest.mark.parametrize(
    ("fields", "path", "code"),
    [
        ({}, "", "only_refresh_token"),
        ({"access_token": None, "expires_in": 60}, "", "only_refresh_token"),
        ({"access_token": "two words"}, "", "unsafe_token"),
        ({"access_token": "T", "token_type": "DPoP"}, "", "unsupported_token_type"),
        ({}, "user.access_token", "only_refresh_token"),
    ],
)
def test_new_refresh_token_is_kept_without_a_usable_access_token(
    fields: dict[str, Any], path: str, code: str
) -> None:
    """RFC 6749 section 6: the client must discard the old one."""
    body = {**fields, "refresh_token": "rotated"}

    answer = ask(body, expected=Expected(token_path=path))
    nested = ask({"data": {"token": "x" * 20, "refreshToken": "rotated"}})
    of_a_code = ask(body, expected=Expected(grant=Grant.CODE, token_path=path))

    assert (answer.result, answer.code) == (TokenResult.MISCONFIGURED, code)
    assert answer.refresh_token == nested.refresh_token == "rotated"
    assert "rotated" not in f"{answer} {answer.message}"
    assert of_a_code.refresh_token == ""


def test_life_of_a_refresh_token_may_have_a_unit() -> None:
    token = ask(good(refresh_token="R", refresh_expires_in="30d")).token

    assert token is not None
    assert token.refresh_expires_in == 30 * 86_400


@pytest.mark.parametrize(
    ("value", "scope"),
    [
        ('["read", "write"]', "read write"),
        ('"read write"', "read write"),
        ("[]", ""),
        ('["read", 5, null]', "read"),
        ("[read]", "[read]"),
        ('["read"', ""),
        ("[" * 60_000, ""),
    ],
)
def test_scope_may_be_json_in_a_text(value: str, scope: str) -> None:
    token = ask(good(scope=value)).token

    assert token is not None
    assert token.scope == scope


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "text/plain", JSON])
@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("said", ["wrong code", "Invalid code.", "The authorization code expired"])
def test_plain_words_are_read_whatever_they_are_called(
    content_type: str, status: int, said: str
) -> None:
    """Deezer sends "wrong code" as HTML."""
    answer = ask(said, status, content_type)

    assert (answer.result, answer.code) == (TokenResult.NEEDS_REAUTHORIZATION, "invalid_grant")
    assert said in text_of(answer)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("Log in", 200, "html"),
        ("<p>wrong code</p>", 200, "html"),
        ("Access denied", 403, "web_page"),
        ("wrong code T0k3n-of-somebody-0123456789", 200, "html"),
    ],
)
def test_other_words_that_are_called_html_are_a_page(body: str, status: int, code: str) -> None:
    assert ask(body, status, "text/html").code == code


@pytest.mark.parametrize(
    ("body", "status", "result", "code"),
    [
        # Notion.
        ({"object": "error", "status": 400, "code": "validation_error", "message": "Invalid code"},
         400, TokenResult.NEEDS_REAUTHORIZATION, "invalid_grant"),
        ({"error": "invalid_request", "error_description": "Invalid code: is it yours?"},
         400, TokenResult.NEEDS_REAUTHORIZATION, "invalid_grant"),
        # Apigee's check of API requests.
        ({"fault": {"faultstring": "Invalid access token",
                    "detail": {"errorcode": "oauth.v2.InvalidAccessToken"}}},
         401, TokenResult.MISCONFIGURED, "no_endpoint"),
        ({"fault": {"faultstring": "Invalid Access Token",
                    "detail": {"errorcode": "keymanagement.service.invalid_access_token"}}},
         401, TokenResult.MISCONFIGURED, "no_endpoint"),
        ({"fault": {"faultstring": "Invalid refresh token",
                    "detail": {"errorcode": "keymanagement.service.invalid_refresh_token"}}},
         401, TokenResult.NEEDS_REAUTHORIZATION, "invalid_grant"),
        # Netatmo.
        ({"error": {"code": 26, "message": "User usage reached"}},
         403, TokenResult.TRANSIENT, "temporarily_unavailable"),
        ({"error": {"code": 27, "message": "Application usage has been exceeded"}},
         403, TokenResult.TRANSIENT, "temporarily_unavailable"),
        # LinkedIn lists the possible causes.
        ({"error": "invalid_request", "error_description": "Unable to retrieve access token: "
          "appid/redirect uri/code verifier does not match authorization code. Or authorization "
          "code expired. Or external member binding exists"},
         400, TokenResult.NEEDS_REAUTHORIZATION, "invalid_grant"),
        ({"error": "invalid_redirect_uri", "error_description": "appid/redirect uri does not "
          "match authorization code. Or authorization code expired"},
         400, TokenResult.MISCONFIGURED, "redirect_uri_mismatch"),
    ],
)  # fmt: skip
def test_words_of_providers_mean_what_they_mean_there(
    body: dict[str, Any], status: int, result: TokenResult, code: str
) -> None:
    answer = ask(body, status, expected=Expected(grant=Grant.CODE, uses_pkce=True))

    assert (answer.result, answer.code) == (result, code)


@pytest.mark.parametrize("token_type", ["JWT", "OAuth", "access_token", "id", "N_A"])
def test_unknown_token_type_is_distinguished_from_a_sender_constrained_one(token_type: str) -> None:
    """RFC 6749 section 7.1: a client must not use a type that it does not know."""
    unknown, bound = ask(good(token_type=token_type)), ask(good(token_type="DPoP"))

    assert (unknown.result, unknown.code) == (TokenResult.MISCONFIGURED, "unknown_token_type")
    assert f"of the type “{token_type}”" in text_of(unknown)
    assert "Header prefix" in text_of(unknown)
    assert ERRORS["unknown_token_type"].fields == ("header_prefix",)
    assert bound.code == "unsupported_token_type"
    assert "sender-constrained" in text_of(bound)


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("content_type", ["text/html", "application/javascript", JSON])
@pytest.mark.parametrize(
    ("text", "result", "code"),
    [
        ('callback( {"error":100020,"error_description":"code is reused error"} );\n',
         TokenResult.NEEDS_REAUTHORIZATION, "invalid_grant"),
        ('callback( {"error":100009,"error_description":"client secret is illegal"} );',
         TokenResult.MISCONFIGURED, "invalid_client"),
        ('/**/cb({"error":"temporarily_unavailable"})',
         TokenResult.TRANSIENT, "temporarily_unavailable"),
    ],
)  # fmt: skip
def test_error_in_a_call_of_jsonp_is_read(
    text: str, result: TokenResult, code: str, content_type: str, status: int
) -> None:
    answer = ask(text, status, content_type)

    assert (answer.result, answer.code) == (result, code)


def test_hint_is_shown_and_judged_beside_a_general_description() -> None:
    body = {
        "error": "invalid_request",
        "error_description": "The request is missing a required parameter.",
        "hint": "Check the `redirect_uri` parameter",
    }

    answer = ask(body, 400)

    assert answer.code == "redirect_uri_mismatch"
    assert "“The request is missing a required parameter. (Check the `redirect_uri`" in text_of(
        answer
    )


def test_azure_devops_calls_a_bearer_token_by_a_name_of_its_own() -> None:
    assert ask(good(token_type="jwt-bearer")).result is TokenResult.OK


@pytest.mark.parametrize("grant", [Grant.CODE, Grant.REFRESH])
def test_identity_token_alone_asks_for_a_scope_of_the_api(grant: Grant) -> None:
    """Entra External ID (B2C) gives no access token for "openid" alone."""
    body = {"id_token": jwt(sub="me"), "token_type": "Bearer", "refresh_token": "next"}

    answer = ask(body, expected=Expected(grant=grant))

    assert (answer.code, ERRORS[answer.code].fields) == ("only_identity_token", ("scope",))
    assert answer.refresh_token == ("next" if grant is Grant.REFRESH else "")


@pytest.mark.parametrize("body", ["<html><title>415 Unsupported Media Type</title></html>", ""])
def test_form_that_is_not_taken_is_no_wrong_address(body: str) -> None:
    answer = ask(body, 415, "text/html")

    assert answer.code == "other_format"
    assert ERRORS[answer.code].fields == ("uses_json_token_request",)
