"""Token responses: each falls into exactly one class, and no message contains a secret."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.mutations import VALUES
from tests.fuzz.target import FuzzTarget
from webhooks.oauth import exchange_log
from webhooks.oauth.token_response import Expected, RawResponse, classify

_SECRET = "canary-client-secret"
_TOKEN = "canary-access-token"
_FIELDS = (
    "access_token", "token_type", "expires_in", "refresh_token", "scope", "error", "id_token",
    "error_description", "data", "access_token_expires", "ok", "authed_user", "message", "status",
)  # fmt: skip
_WORDS = (_TOKEN, _SECRET, "Bearer", "mac", "invalid_grant", "invalid_client", "3600", "a b",
          "\r\nX", "expired", "temporarily_unavailable", "slow_down", "\u202e", "gone")  # fmt: skip
_VALUE = st.one_of(
    st.sampled_from(_WORDS), st.sampled_from(VALUES), st.integers(), st.text(max_size=9)
)
_JSON = st.dictionaries(
    st.sampled_from(_FIELDS),
    st.one_of(_VALUE, st.dictionaries(st.sampled_from(_FIELDS), _VALUE, max_size=3)),
    max_size=6,
).map(lambda fields: json.dumps(fields).encode())
_GOOD = st.fixed_dictionaries(
    {"access_token": st.one_of(st.just(_TOKEN), st.text(min_size=1, max_size=30))},
    optional={
        "token_type": st.sampled_from(["Bearer", "bearer", "", "mac", _SECRET]),
        "expires_in": st.one_of(
            st.integers(), st.floats(), st.sampled_from(["3600", "", "x", None])
        ),
        "refresh_token": st.one_of(st.text(max_size=10), st.none()),
        "scope": st.one_of(st.text(max_size=10), st.lists(st.text(max_size=4), max_size=3)),
        "error": st.sampled_from(["", None, False, "invalid_grant"]),
    },
).map(lambda fields: json.dumps(fields).encode())
_FORM = st.lists(st.tuples(st.sampled_from(_FIELDS), st.sampled_from(_WORDS)), max_size=5).map(
    lambda pairs: "&".join(f"{key}={value}" for key, value in pairs).encode()
)
_BODY = st.one_of(
    _GOOD,
    _GOOD,
    _JSON,
    _FORM,
    st.binary(max_size=40),
    st.sampled_from(
        [b"", b"{", b"[]", b"null", b"<html><h1>Error</h1>", b"[" * 1200, b'{"a":' * 600,
         b"9" * 5000, b"\xef\xbb\xbf{}", b'{"access_token":"a","access_token":"b"}',
         b'{"expires_in":1e999}']
    ),
)  # fmt: skip
INPUTS = st.fixed_dictionaries(
    {
        "body": _BODY,
        "content_type": st.sampled_from(
            ["application/json", "application/x-www-form-urlencoded", "text/html", "", "text/plain",
             "application/json; charset=utf-16", "application/json;charset=no", "é", "a/b/c;="]
        ),
        "status": st.sampled_from(
            [200, 200, 200, 201, 204, 301, 302, 400, 401, 403, 404, 429, 500, 503, 999]
        ),
        "retry_after": st.sampled_from(
            ["", "5", "-1", "9" * 40, "Wed, 21 Oct 2026 07:28:00 GMT", "x", "٣"]
        ),
        "location": st.sampled_from(["", "https://a/", f"/x?code={_SECRET}", "\r\n", "\ud800"]),
    }
)  # fmt: skip
_EXPECTED = Expected(secrets=(_SECRET,))


def check(given: dict[str, Any]) -> bool:
    raw = RawResponse(
        status=given["status"],
        content_type=given["content_type"],
        body=given["body"],
        retry_after=given["retry_after"],
        location=given["location"],
    )
    answer = classify(raw, _EXPECTED)
    assert answer.result
    assert (answer.token is not None) == answer.is_ok
    assert answer.is_ok or answer.message
    for text in (answer.message, answer.warning, answer.reason):
        assert _SECRET not in text
        assert storable(text)
    if answer.token is not None:
        assert raw.status < 300
        assert answer.token.access_token.isascii()
        assert answer.token.access_token.isprintable()
        assert answer.token.access_token not in answer.message
    if answer.retry_after_seconds is not None:
        assert 0 <= answer.retry_after_seconds <= 3600
    body = raw.body.decode("utf-8", "replace")
    kept = exchange_log.redact_body(body, secrets=(_SECRET,), may_grant=True)
    assert _SECRET not in kept
    assert storable(kept)
    return answer.is_ok


def storable(text: str) -> bool:
    """Return whether every database can store a text: UTF-8, without NUL."""
    text.encode()
    return "\0" not in text


TARGET = FuzzTarget(name="token answers", inputs=INPUTS, check=check)
