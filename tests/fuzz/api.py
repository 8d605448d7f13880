"""The event API's input: rejected with a code and a message, or an event that can be sent."""

import json
from typing import Any

from django.test import RequestFactory
from hypothesis import strategies as st

from tests.fuzz.mutations import VALUES
from tests.fuzz.target import FuzzTarget
from tests.fuzz.tokens import storable
from webhooks import payloads
from webhooks.api import events
from webhooks.delivery import fan_out

_JSON = st.recursive(
    st.one_of(st.sampled_from(VALUES), st.text(max_size=10), st.floats(), st.integers()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
_TIME = st.sampled_from(
    ["2026-05-14T09:28:49Z", "2026-05-14", "0001-01-01T00:00:00+23:59", "20260514T092849Z", "now",
     "9999-12-31T23:59:59-23:59", "2026-W20-4", "2026-05-14T24:00:00Z", "2026-05-14T09:28:49+03:00"]
)  # fmt: skip
_SOUND = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["call.incoming.after", "call.outgoing.after"]),
        "payload": st.dictionaries(st.text(max_size=8), _JSON, max_size=4),
    },
    optional={"occurred_at": _TIME, "idempotency_key": st.text(min_size=1, max_size=10)},
)
_ODD = st.dictionaries(
    st.sampled_from(["type", "payload", "idempotency_key", "occurred_at", "other"]), _JSON
)
_FIELDS = st.one_of(_SOUND, _SOUND, _ODD)  # fmt: skip
_BODY = st.one_of(
    _FIELDS.map(lambda fields: json.dumps(fields).encode()),
    _FIELDS.map(
        lambda fields: json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.binary(max_size=30),
    st.sampled_from(
        [b"", b"[" * 1200, b'{"a":' * 1200, b"9" * 6000, b"\xef\xbb\xbf{}", b'{"a":1,"a":2}']
    ),
)
INPUTS = st.fixed_dictionaries(
    {"body": _BODY, "key": st.one_of(st.just(""), st.just(""), st.text(max_size=8))}
)
_requests = RequestFactory()
_LIMIT = 262_144


def check(given: dict[str, Any]) -> bool:
    try:
        _accept(given)
    except events.RequestError as refusal:
        assert 400 <= refusal.status < 500
        assert refusal.code
        _check_answer(refusal.answer().content)
        return False
    except fan_out.InvalidEventError as error:
        assert error.code
        _check_answer(
            events.RequestError(422, error.code, error, field=error.field).answer().content
        )
        return False
    return True


def _accept(given: dict[str, Any]) -> None:
    """Run the steps of the view between the key and the database."""
    headers = {"Idempotency-Key": given["key"]} if given["key"] else {}
    request = _requests.post("/api/events/", given["body"], "application/json", headers=headers)
    events.check_content_type(request, "application/json")
    body = events.read_body(request, limit=_LIMIT)
    caller = events.Caller("", 0, "", 0.0, None)
    item = events.event_of(body, request.META.get("HTTP_IDEMPOTENCY_KEY"), caller)
    fan_out.check(item)
    try:
        payloads.fingerprint(item.type, item.payload)
        moment = item.occurred_at or _NOW
        document = payloads.build_document(item.type, "evt_1", moment, "", item.payload)
    except payloads.DocumentError as error:
        raise fan_out.refusal(error) from error
    assert storable(item.idempotency_key or "")
    assert json.loads(document)["event_id"] == "evt_1"
    assert storable(document.decode())


def _check_answer(content: bytes) -> None:
    error = json.loads(content)["error"]
    assert error["message"]
    assert len(content) < 2000


_NOW = fan_out.dt.datetime(2026, 5, 14, tzinfo=fan_out.dt.UTC)
TARGET = FuzzTarget(name="api input", inputs=INPUTS, check=check)
