"""Payload mapping: rows and JSON bodies are rejected with messages, or make valid requests."""

import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.utils import timezone
from hypothesis import strategies as st

from tests.fuzz.mutations import VALUES, Json
from tests.fuzz.target import FuzzTarget
from webhooks import payloads
from webhooks.payloads.rows import FORMATS, ValueType

_KNOWN = {"event", "event_id", "occurred_at", "caller_number", "duration_seconds", "fields", "tags"}
_NAMES = ("a", "a.b", "a[0]", "a[1].c", "*", "", "a..b", "a[", "x y", "caller", "__proto__", "é")
_VARIABLE = st.sampled_from([*sorted(_KNOWN), "*", "fields.city", "fields.a[0]", "attempt", "no"])
_VALUE = st.one_of(st.sampled_from(VALUES), st.text(max_size=10), st.integers())
_ROW = st.one_of(
    st.fixed_dictionaries(
        {"name": st.sampled_from(_NAMES), "variable": _VARIABLE},
        optional={
            "format": st.sampled_from([*FORMATS, "other"]),
            "time_zone": st.sampled_from(["UTC", "Europe/Kyiv", "No/Where", "../etc/passwd"]),
            "default": st.text(max_size=8),
            "omit_if_empty": st.booleans(),
        },
    ),
    st.fixed_dictionaries(
        {"name": st.sampled_from(_NAMES), "value": _VALUE},
        optional={"type": st.sampled_from([*map(str, ValueType), "other"])},
    ),
)
_PIECES = ("{{event}}", "{{ fields.city }}", "{{caller_number|default:\"x\"}}", "{{tags}}", "{{",
           "}}", "{{no}}", "text", "\\\"", "\\u0041", "{% load %}", "{{event|unix}}", "é", "\\n",
           "{{occurred_at|sql}}", "{{\"literal\"}}", "${x}", "{{event.__class__}}")  # fmt: skip
_STRING = st.lists(st.sampled_from(_PIECES), max_size=3).map(lambda all: '"' + "".join(all) + '"')
_TEMPLATE = st.one_of(
    st.just(""),
    st.dictionaries(_STRING, _STRING, max_size=3).map(
        lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
    ),
    st.lists(st.one_of(_STRING, st.sampled_from(["1", "null", "{}", "1e5"])), max_size=3).map(
        lambda all: "[" + ",".join(all) + "]"
    ),
)
_PAYLOAD = st.dictionaries(
    st.sampled_from(["caller_number", "duration_seconds", "fields", "tags", "note", "{{event}}"]),
    st.recursive(
        st.one_of(_VALUE, st.sampled_from(['"}', "{{event}}", "\r\n", "&a=b", "\x1b[0m"])),
        lambda inner: st.one_of(
            st.lists(inner, max_size=2),
            st.dictionaries(st.sampled_from(["city", "a", ""]), inner, max_size=2),
        ),
        max_leaves=3,
    ),
    max_size=4,
)
INPUTS = st.builds(
    lambda rows, text, payload, shape: (Json(rows=rows), text, Json(payload=payload), shape),
    st.lists(_ROW, max_size=4),
    _TEMPLATE,
    _PAYLOAD,
    st.tuples(
        st.sampled_from(["POST", "GET"]),
        st.sampled_from(["json", "form"]),
        st.sampled_from(["iso8601", "sql", "unix"]),
        st.booleans(),
    ).map(lambda shape: Json(shape=list(shape))),
)
_URL = "https://example.com/hook?fixed=1"
_NOW = timezone.datetime(2026, 5, 14, 9, 28, 49, tzinfo=timezone.get_fixed_timezone(0))


def check(given: Any) -> bool:
    rows, template, payload = given[0]["rows"], given[1], given[2]["payload"]
    try:
        document = payloads.build_document("call.incoming.after", "evt_1", _NOW, "", payload)
    except payloads.DocumentError as error:
        assert str(error)
        return False
    webhook = _webhook(given[3]["shape"])
    kind = payloads.sent_as(webhook.method, webhook.body_format)
    if template and kind == "json":
        if problems := payloads.template_problems(template, _KNOWN):
            assert all(problem.sentence for problem in problems)
            return False
        webhook.body_template = template
    elif not isinstance(rows, list):
        return False
    elif problems := payloads.rows_problems(rows, body_format=kind, known=_KNOWN):
        assert all(problem.sentence for problem in problems)
        return False
    else:
        webhook.parameters = rows
    _check_request(webhook, kind, document)
    return True


def _webhook(shape: Any) -> Any:
    shape = shape if isinstance(shape, list) and len(shape) == 4 else []
    method, body_format, date_format, is_older = shape or ("POST", "json", "iso8601", False)
    return SimpleNamespace(
        method="GET" if method == "GET" else "POST",
        body_format="form" if body_format == "form" else "json",
        date_format=date_format if date_format in ("sql", "unix") else "iso8601",
        time_zone="Europe/Kyiv",
        uses_older_names=bool(is_older),
        parameters=[],
        body_template="",
    )


def _check_request(webhook: Any, kind: str, document: bytes) -> None:
    render = payloads.compile_request(webhook, _URL)
    assert render is not None
    try:
        made = render(document, 1)
    except payloads.MappingError as error:
        # For example a URL longer than any server reads.
        assert error.problems
        return
    assert made == render(document, 1)
    parts = urlsplit(made.url)
    assert made.url.startswith(_URL)
    assert made.url.isascii()
    assert made.url.isprintable()
    assert parts.netloc == "example.com"
    if kind == "json":
        json.loads(made.body)
    else:
        # No value can add a parameter of its own: strict parsing must succeed.
        text = made.body.decode("ascii") if kind == "form" else parts.query
        parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict")


TARGET = FuzzTarget(name="mapping", inputs=INPUTS, check=check, share=4)
