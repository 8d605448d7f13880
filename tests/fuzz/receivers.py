"""Receiver responses: whatever comes back, the attempt can be stored and secrets are masked."""

import base64
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from tests.fuzz.target import FuzzTarget
from tests.fuzz.tokens import storable
from webhooks.delivery import requests
from webhooks.delivery.auth import BasicAuthorization
from webhooks.delivery.queue.rows import Claimed
from webhooks.delivery.success import compile_rule
from webhooks.delivery_log import decoded_body
from webhooks.models import Outcome, Status, Trigger, Webhook
from webhooks.models.messages import Message

# Chosen by index, so that variations do not change the values.
_ERRORS = (None, None, None, Outcome.TIMEOUT, Outcome.PROTOCOL, Outcome.TLS)
_PASSWORD = "canary-päss word/+"
_AUTHORIZATION = BasicAuthorization(login="login", password=_PASSWORD)
_BASIC = base64.b64encode(f"login:{_PASSWORD}".encode())
_ECHOES = (_BASIC, _PASSWORD.encode(), quote(_PASSWORD, safe="").encode())
_LINES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 999 \xff", b"Content-Type: application/json", b"\x00: \x00",
    b"Content-Type: text/html; charset=utf-16", b"Retry-After: 5", b"Retry-After: \xd9\xa3",
    b"Retry-After: Wed, 21 Oct 9999 07:28:00 GMT", b"Retry-After: Wed, 21 Oct 2026 07:28:00 -9999",
    b"Retry-After: " + b"9" * 400, b"Retry-After: -1", b"Retry-After:", b"X: \x1b[31m\xe2\x80\xae",
    b"Echo: Basic " + _BASIC, b"Content-Encoding: gzip", b"Set-Cookie: a=b", b": ", b"\xff" * 50,
    b"Content-Type: a; charset=zip", b"Content-Type: a; charset=unicode_escape", b"A" * 20_000,
)  # fmt: skip
_BODIES = (
    b"", b"ok", b"\0", b"\x1f\x8b\x08", b"{", b'{"a": [1, 2]}', b"[" * 1200, b"\xff\xfe",
    b"<script>",
    b"\xe2\x80\xaeabc", b"\x1b[2J", b"\xed\xa0\x80", b"9" * 30_000, b"Bearer ", b"NaN",
    b'{"a":1e999}',
    b'{"a":"', b'{"a":', b'"}', b"}", rb"\ud800", b"[" * 400, b"]" * 400,
)  # fmt: skip
_PIECE = st.one_of(st.sampled_from([*_BODIES, *_ECHOES]), st.binary(max_size=20))
INPUTS = st.fixed_dictionaries(
    {
        "status": st.one_of(
            st.sampled_from([0, 200, 204, 301, 401, 410, 429, 503]), st.integers(0, 999)
        ),
        "headers": st.lists(st.sampled_from(_LINES), max_size=4).map(b"\r\n".join),
        "body": st.lists(_PIECE, max_size=3).map(b"".join),
        "error": st.integers(0, 5),
        "message": st.one_of(st.just(""), st.text(max_size=30)),
    }
)  # fmt: skip
_webhook = Webhook(pk=1, url="https://example.com/hook")
_webhook.signing_secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
_CLAIM = Claimed(
    id="dlv_1", webhook_id=1, event_id="evt_1", payload=b"{}", number=1, failure_count=0,
    trigger=Trigger.EVENT,
)  # fmt: skip
_PLAN = requests.make_plan(_webhook, _AUTHORIZATION)
_RULE = compile_rule(
    Webhook(response_rule="fails", response_variable="a", response_operator="contains",
            response_value="x", response_error="a", expired_token_errors=["x"])
)  # fmt: skip
_REQUEST = requests.prepare(_CLAIM, _PLAN, 1_800_000_000.0)


def check(given: dict[str, Any]) -> bool:
    error = _ERRORS[given["error"]]
    answer = requests.Response(
        error, Message("not_sent", {"error": given["message"]}) if error else None, given["status"],
        given["headers"], given["body"], len(given["body"]), "93.184.215.14",
        1.0, 1.0, 1.0, 1.0, 1.0,
    )  # fmt: skip
    outcome = requests.classify(answer)
    if outcome is Outcome.SUCCEEDED:
        outcome, answer, _is_expired = requests.judge(_RULE, answer, outcome)
    wait = requests.retry_after_seconds(answer.headers, 1_800_000_000.0)
    assert wait is None or wait >= 0
    step = requests.next_step(outcome, _CLAIM, _PLAN, retry_after=wait)
    assert step.status in Status
    assert step.delay_seconds is None or 0 <= step.delay_seconds <= 5 * 86_400
    stored = requests.result(_REQUEST, answer, outcome, step).attempt
    for value in stored:
        assert not isinstance(value, str) or storable(value), value
    kept = [value if isinstance(value, bytes) else str(value).encode() for value in stored]
    assert not [echo for echo in _ECHOES if any(echo in value for value in kept)]
    body = next((value for value in stored if isinstance(value, bytes)), b"")
    _check_reading(body, answer.headers)
    return True


def _check_reading(body: bytes, headers: bytes) -> None:
    """Check that every stored body can be shown."""
    kind = headers.rpartition(b"Content-Type: ")[2].partition(b"\r\n")[0].decode("latin-1")
    shown = decoded_body.read(body, content_type=kind)
    assert shown.kind in decoded_body.BodyKind
    decoded_body.read(body, content_type=kind, content_encoding="gzip")


TARGET = FuzzTarget(name="receiver answers", inputs=INPUTS, check=check)
