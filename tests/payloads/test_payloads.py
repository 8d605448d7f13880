"""Documents: what a payload may contain, frozen bytes, and the request in each format."""

import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest
from django.utils import translation
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from webhooks import catalogue, payloads
from webhooks.models import Webhook
from webhooks.payloads import DocumentError, Rendered
from webhooks.payloads.document import MAX_DEPTH
from webhooks.payloads.variables import date_writer

OCCURRED_AT = datetime(2026, 5, 14, 9, 28, 49, tzinfo=UTC)
KYIV_SUMMER = timezone(timedelta(hours=3))


def build(payload: Any, **changes: Any) -> bytes:
    arguments: dict[str, Any] = {
        "event_type": "form.submitted",
        "event_id": "evt_1",
        "occurred_at": OCCURRED_AT,
        "project_id": "default",
    }
    return payloads.build_document(payload=payload, **arguments | changes)


def render(
    document: bytes, *, url: str = "https://crm.example.com/in", attempt: int = 1, **changes: Any
) -> Rendered:
    made = payloads.compile_request(Webhook(**changes), url)
    if made is None:
        return Rendered(url=url, body=document, content_type="application/json")
    return made(document, attempt)


def refused(payload: Any, **changes: Any) -> DocumentError:
    with pytest.raises(DocumentError) as raised:
        build(payload, **changes)
    assert str(raised.value).endswith(".")
    return raised.value


def nested(levels: int) -> Any:
    value: Any = []
    for level in range(levels - 1):
        value = [value] if level % 2 else {"in": value}
    return value


# The document


def test_a_document_is_one_flat_compact_object() -> None:
    assert (
        build({"name": "Тарас", "fields": {"a": [1, None, True, 0.5]}})
        == (
            '{"event":"form.submitted","event_id":"evt_1","occurred_at":"2026-05-14T09:28:49Z",'
            '"project_id":"default","name":"Тарас","fields":{"a":[1,null,true,0.5]}}'
        ).encode()
    )


def test_reserved_names_of_the_payload_give_way() -> None:
    document = build(
        {"a": 1, "event": "x", "event_id": 2, "occurred_at": 3, "project_id": 4, "attempt": 5}
    )
    assert json.loads(document) == {
        "event": "form.submitted",
        "event_id": "evt_1",
        "occurred_at": "2026-05-14T09:28:49Z",
        "project_id": "default",
        "a": 1,
    }


def test_the_payload_is_not_changed() -> None:
    payload = {"attempt": 5, "opened_at": "2026-05-14T12:00:00+03:00"}
    build(payload)
    assert payload == {"attempt": 5, "opened_at": "2026-05-14T12:00:00+03:00"}


def test_any_mapping_will_do() -> None:
    assert json.loads(build(MappingProxyType({"a": 1})))["a"] == 1


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (OCCURRED_AT, "2026-05-14T09:28:49Z"),
        (OCCURRED_AT.replace(microsecond=120), "2026-05-14T09:28:49.000120Z"),
        (datetime(2026, 5, 14, 12, 28, 49, tzinfo=KYIV_SUMMER), "2026-05-14T09:28:49Z"),
        (datetime(2026, 5, 14, 9, 28, 49), "2026-05-14T09:28:49Z"),
    ],
)
def test_moments_are_written_in_utc(moment: datetime, text: str) -> None:
    document = json.loads(build({"deep": {"list": [moment]}}, occurred_at=moment))
    assert document["occurred_at"] == text
    assert document["deep"] == {"list": [text]}


def test_a_moment_without_offset_is_in_the_projects_time_zone(settings: Any) -> None:
    settings.TIME_ZONE = "Europe/Kyiv"
    document = json.loads(
        build({"call_started_at": "2026-05-14 12:28:49", "opened_at": datetime(2026, 1, 14, 12)})
    )
    assert document["call_started_at"] == "2026-05-14T09:28:49Z"
    assert document["opened_at"] == "2026-01-14T10:00:00Z"


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("2026-05-14T12:28:49+03:00", "2026-05-14T09:28:49Z"),
        ("2026-05-14T09:28:49Z", "2026-05-14T09:28:49Z"),
        ("2026-05-14 09:28", "2026-05-14T09:28:00Z"),
        ("2026-05-14", "2026-05-14"),
        ("   2026-05-14   ", "   2026-05-14   "),
        ("yesterday, in the evening", "yesterday, in the evening"),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00"),
        ("", ""),
        ("2026-05-14t12:28:49.5+03:00", "2026-05-14T09:28:49.500000Z"),
        (" 2026-05-14t09:28:49z\n", "2026-05-14T09:28:49Z"),
        ("2026-05-14T09:28:49.123456789Z", "2026-05-14T09:28:49.123456Z"),
        ("2026-06-30T23:59:60Z", "2026-07-01T00:00:00Z"),
        ("2026-07-01 05:29:60.25+05:30", "2026-07-01T00:00:00.250000Z"),
        ("9999-12-31T23:59:60Z", "9999-12-31T23:59:60Z"),
        ("2026-05-14T12:28:49+03:00[Europe/Kyiv]", "2026-05-14T09:28:49Z"),
        ("2026-05-14T09:28:49.5Z[UTC]", "2026-05-14T09:28:49.500000Z"),
        ("2026-05-14T12:28:49[Europe/Kyiv]", "2026-05-14T12:28:49[Europe/Kyiv]"),
        ("2026-05-14 09:28:49 UTC", "2026-05-14T09:28:49Z"),
        ("2026-05-14 09:28:49 +0000 UTC", "2026-05-14T09:28:49Z"),
        ("2026-05-14 12:28:49 +0300", "2026-05-14T09:28:49Z"),
        ("2026-05-14 12:28:49 EEST", "2026-05-14 12:28:49 EEST"),
        ("2026-05-14 12:28:49 +0300 EEST", "2026-05-14T09:28:49Z"),
        ("2026-05-14 12:28:49.5 +0300 +03", "2026-05-14T09:28:49.500000Z"),
        ("2026-05-14 06:28:49 -03:00 cest ", "2026-05-14T09:28:49Z"),
        ("2026-05-14 15:13:49 +0545 +0545", "2026-05-14T09:28:49Z"),
        ("2026-05-14 09:28:49 GMT", "2026-05-14T09:28:49Z"),
        ("2026-05-14 09:28:49 +0000 GMT", "2026-05-14T09:28:49Z"),
        ("2026-05-14 12:28:49 +0300 Europe/Kyiv", "2026-05-14 12:28:49 +0300 Europe/Kyiv"),
        ("2026-05-14 EEST", "2026-05-14 EEST"),
    ],
)
def test_text_of_a_datetime_variable_is_written_in_utc(given_text: str, text: str) -> None:
    document = json.loads(build({"call_started_at": given_text, "title": given_text}))
    assert document["call_started_at"] == text
    assert document["title"] == given_text


class Color(Enum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


def test_subclasses_of_json_types_are_json() -> None:
    document = json.loads(build({"a": mark_safe("<b>"), "b": Size.BIG, "c": (1, 2)}))
    assert (document["a"], document["b"], document["c"]) == ("<b>", 3, [1, 2])


@pytest.mark.parametrize(
    "value",
    [object(), b"bytes", {1, 2}, Decimal("1.5"), date(2026, 5, 14), uuid4(), 1j, Color.RED, print],
)
def test_a_value_that_is_not_json_is_refused_by_its_place(value: object) -> None:
    error = refused({"fields": {"list": [1, value]}})
    assert error.code == "not_json"
    assert "fields.list.1" in str(error)
    assert type(value).__name__ in str(error)


@pytest.mark.parametrize("payload", [None, [], "text", 3])
def test_a_payload_that_is_no_object_is_refused(payload: object) -> None:
    assert refused(payload).code == "not_object"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    error = refused({"fields": {"sum": number}})
    assert (error.code, "fields.sum" in str(error)) == ("not_finite", True)
    assert ("NaN" in str(error)) == math.isnan(number)


@pytest.mark.parametrize("key", [1, None, True, 1.5, ("a",), b"a"])
def test_a_key_that_is_not_text_is_refused(key: object) -> None:
    assert refused({key: 1}).code == "key_not_text"
    error = refused({"fields": [{key: 1}]})
    assert (error.code, "fields.0" in str(error)) == ("key_not_text", True)


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d"])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    assert refused({"title": text}).code == "invalid_text"
    assert refused({"fields": [{text: 1}]}).code == "invalid_text"
    str(refused({text: 1})).encode()


def test_half_a_surrogate_pair_inside_a_refused_key_can_be_shown() -> None:
    str(refused({"\ud800": object()})).encode()


def test_emoji_and_nul_are_text() -> None:
    assert json.loads(build({"title": "📞\0"}))["title"] == "📞\0"


def test_nesting_stops_at_the_limit() -> None:
    build({"list": nested(MAX_DEPTH - 1)})
    assert refused({"list": nested(MAX_DEPTH)}).code == "too_deep"


def test_a_payload_that_holds_itself_is_refused() -> None:
    payload: dict[str, Any] = {}
    payload["self"] = [payload]
    assert refused(payload).code == "too_deep"


@pytest.mark.slow
def test_shared_parts_that_multiply_are_refused() -> None:
    value: list[Any] = [0]
    for _level in range(25):
        value = [value, value]
    assert refused({"bomb": value}).code == "too_large"


def test_a_number_with_too_many_digits_is_refused() -> None:
    assert refused({"n": 10**5000}).code == "not_json"


def test_a_moment_outside_the_calendar_is_refused() -> None:
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    assert refused({"title": early}).code == "not_json"


def test_the_limit_is_on_bytes_of_the_whole_document(settings: Any) -> None:
    size = len(build({"title": "я" * 100}))
    settings.WEBHOOKS_MAX_PAYLOAD_BYTES = size
    assert len(build({"title": "я" * 100})) == size
    settings.WEBHOOKS_MAX_PAYLOAD_BYTES = size - 1
    assert refused({"title": "я" * 100}).code == "too_large"


def test_a_fingerprint_distinguishes_contents_whatever_the_order_of_keys() -> None:
    payload = {"a": 1, "b": {"c": [1, "я"], "d": datetime(2026, 5, 14, tzinfo=UTC)}}
    turned = {"b": {"d": datetime(2026, 5, 14, tzinfo=UTC), "c": [1, "я"]}, "a": 1}
    made = payloads.fingerprint("form.submitted", payload)
    assert made == payloads.fingerprint("form.submitted", MappingProxyType(turned))
    assert made != payloads.fingerprint("dialog.opened", payload)
    assert made != payloads.fingerprint("form.submitted", payload | {"a": "1"})


@pytest.mark.parametrize(
    "payload",
    [None, {1: 1, "a": 2}, {"a": object()}, {"n": 10**5000}, {"n": float("nan")}, {"s": "\ud800"}],
)
def test_a_fingerprint_of_what_cannot_be_sent_is_refused(payload: Any) -> None:
    with pytest.raises(DocumentError):
        payloads.fingerprint("form.submitted", payload)


# Reading JSON


def test_json_is_read_with_or_without_a_byte_order_mark() -> None:
    assert payloads.load_json(b'\xef\xbb\xbf{"a": [1.5, "\xd1\x8f"]}') == {"a": [1.5, "я"]}


@pytest.mark.parametrize(
    "data",
    [
        b"", b" ", b"[", b"[1", b"[1,", b"[1,]", b"[1 2]", b'{"a"', b'{"a": [1,]}', b"{1: 2}",
        b'{"a": 1, "a": 2}', b"[NaN]", b"[" * 5000, b'[{"a": ' + b"9" * 5000 + b"}]", b"[1] 2",
    ],
    ids=lambda data: str(data[:20]),
)  # fmt: skip
def test_counting_items_changes_no_mistake(data: bytes) -> None:
    with pytest.raises(DocumentError) as counted:
        payloads.load_json(data, max_items=3)
    with pytest.raises(DocumentError) as plain:
        payloads.load_json(data)
    assert (str(counted.value), counted.value.code) == (str(plain.value), plain.value.code)


@pytest.mark.parametrize("text", ["[1, [2, 2, 2], {}]", '{"a": [1, {"b": [2, 2]}]}', "5", '"a"'])
def test_only_the_outermost_items_are_counted(text: str) -> None:
    assert payloads.load_json(text.encode(), max_items=3) == json.loads(text)


def test_nothing_is_read_after_too_many_items() -> None:
    with pytest.raises(payloads.TooManyItemsError):
        payloads.load_json(b"[1, 2, 3, 4 is not read", max_items=3)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"{'a': 1}", "not_json"),
        (b'{"a": 1,}', "not_json"),
        (b'{"a": 1} {}', "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b"[Infinity]", "not_json"),
        (b"[-Infinity]", "not_json"),
        (b'"\xff"', "not_json"),
        ('{"a": 1}'.encode("utf-16"), "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a":' * 100_000, "not_json"),
        (b"1" * 5000, "not_json"),
        (b'{"a": 1, "b": 2, "a": 3}', "duplicate_key"),
        (b'{"a": {"b": [{"\\u0063": 1, "c": 1}]}}', "duplicate_key"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "duplicate_key"),
    ],
)
def test_json_is_read_strictly(data: bytes, code: str) -> None:
    with pytest.raises(DocumentError) as raised:
        payloads.load_json(data)
    assert raised.value.code == code
    str(raised.value).encode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "Line 1, column 1: The text ends here, but a value is missing."),
        ("{not JSON", "Line 1, column 2: A key is text in double quotes"),
        ('{"a": 1,}', "Line 1, column 8: Remove this comma"),
        ('{"a": 1\n "b": 2}', "Line 2, column 2: A comma is missing before this."),
        ('{"a": {{ b }}}', "A key is text in double quotes"),
        ('{"a": 1,\n "b": {"c": 2, "c": 3}}', "Line 2, column 16: “c” is in this object already."),
        ('{"a": 1,\n "b": NaN}', "Line 2, column 7: NaN is not JSON."),
        ('{"a": [-Infinity]}', "Line 1, column 8: -Infinity is not JSON."),
        (" " * 70_000 + '{"a": 1, "a": 2}', "The key “a” occurs twice in one object."),
        (" " * 70_000 + "NaN", "NaN is not JSON."),
        (" " * 70_000 + "{", "look at line 1, column 70002"),
    ],
)
def test_a_mistake_in_json_is_said_with_what_to_change(text: str, sentence: str) -> None:
    with pytest.raises(DocumentError) as raised:
        payloads.load_json(text.encode())
    assert sentence in str(raised.value)
    assert "Expecting" not in str(raised.value)


@pytest.mark.parametrize(
    ("data", "place"),
    [
        ('{"a":\n "ключ'.encode() + b"\xff", "Line 2, column 7"),
        ("{}".encode("utf-16"), "Line 1, column 1"),
        (b'\xef\xbb\xbf{"a": "\xe9"}', "Line 1, column 8"),
    ],
)
def test_the_first_byte_that_is_not_utf_8_is_found(data: bytes, place: str) -> None:
    with pytest.raises(DocumentError, match=f"^{place}: The text is not UTF-8.$"):
        payloads.load_json(data)


def test_a_mistake_in_json_is_said_in_ukrainian_throughout() -> None:
    with translation.override("uk"), pytest.raises(DocumentError) as raised:
        payloads.load_json(b"{not JSON")
    assert "Line" not in str(raised.value)
    assert "quotes" not in str(raised.value)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" * 400 + ".0"])
def test_a_number_beyond_floats_is_refused_as_too_large(number: str) -> None:
    error = refused(payloads.load_json(f'{{"n": {number}}}'.encode()))
    assert error.code == "not_finite"
    assert str(error) == "The number at “n” is too large: the largest is about 1.8e308."


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("1E5", "100000.0"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("0.1234567890123456789", "0.12345678901234568"),
        ("12345678901234567.0", "1.2345678901234568e+16"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_numbers_are_sent_as_the_guide_says(typed: str, sent: str) -> None:
    """docs/receivers.md: doubles with a fraction or an exponent; integers keep all digits."""
    document = build(payloads.load_json(f'{{"n": {typed}}}'.encode()))
    assert document.endswith(f'"n":{sent}}}'.encode())


# The request


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_json_request_carries_the_documents_bytes(method: str) -> None:
    document = build({"amount": 1.0, "small": 1e-7, "n": -0.0, "title": "я\u2028</script>"})
    assert payloads.compile_request(Webhook(method=method), "https://crm.example.com/in") is None
    # Rendering anyway gives the same bytes.
    rendered = render(document, method=method, parameters=[{"name": "", "variable": "*"}])
    assert rendered == Rendered(
        url="https://crm.example.com/in", body=document, content_type="application/json"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"body_format": "form"},
        {"body_format": "query"},
        {"date_format": "sql"},
        {"date_format": "unix"},
        {"time_zone": "Europe/Kyiv"},
        {"uses_older_names": True},
    ],
)
def test_a_request_in_another_format_is_rendered(changes: dict[str, Any]) -> None:
    document = build({"call_id": "1"})
    assert render(document, **changes).body != document


def test_a_request_with_rows_or_a_json_body_is_rendered() -> None:
    document = build({"call_id": "1"})
    assert render(document, parameters=[{"name": "a", "value": "b"}]).body == b'{"a":"b"}'
    assert render(document, body_template='{"a": "b"}').body == b'{"a":"b"}'


@pytest.mark.parametrize(
    ("date_format", "time_zone", "started", "opened"),
    [
        ("iso8601", "UTC", "2026-05-14T09:26:31Z", "2026-01-14T23:00:00.250000Z"),
        (
            "iso8601",
            "Europe/Kyiv",
            "2026-05-14T12:26:31+03:00",
            "2026-01-15T01:00:00.250000+02:00",
        ),
        ("sql", "UTC", "2026-05-14 09:26:31", "2026-01-14 23:00:00"),
        ("sql", "Europe/Kyiv", "2026-05-14 12:26:31", "2026-01-15 01:00:00"),
        ("sql", "America/New_York", "2026-05-14 05:26:31", "2026-01-14 18:00:00"),
        ("unix", "UTC", 1778750791, 1768431600),
        ("unix", "Europe/Kyiv", 1778750791, 1768431600),
    ],
)
def test_dates_follow_the_format_and_the_time_zone(
    date_format: str, time_zone: str, started: object, opened: object
) -> None:
    document = build(
        {
            "call_started_at": "2026-05-14T12:26:31+03:00",
            "deep": [{"opened": datetime(2026, 1, 14, 23, 0, 0, 250_000, tzinfo=UTC)}],
            # As written by .NET and Go.
            "exact": "2026-01-14T23:00:00.250000000Z",
            "title": "2026-05-14 09:26:31",
        }
    )
    fields = json.loads(render(document, date_format=date_format, time_zone=time_zone).body)
    assert fields["call_started_at"] == started
    assert fields["deep"] == [{"opened": opened}]
    is_as_frozen = (date_format, time_zone) == ("iso8601", "UTC")
    assert fields["exact"] == ("2026-01-14T23:00:00.250000000Z" if is_as_frozen else opened)
    assert fields["title"] == "2026-05-14 09:26:31"
    assert fields["occurred_at"] != "2026-05-14T09:28:49Z" or date_format == "iso8601"


@pytest.mark.parametrize(
    ("time_zone", "moment", "written"),
    [
        # UTC offsets had seconds before standard time, in Monrovia until 1972.
        ("Europe/Kyiv", "1900-01-01T00:00:00Z", "1900-01-01T02:02:00+02:02"),
        ("Africa/Monrovia", "1970-01-01T12:00:00Z", "1970-01-01T11:16:00-00:44"),
        ("Asia/Kathmandu", "2026-01-01T00:00:00Z", "2026-01-01T05:45:00+05:45"),
    ],
)
def test_an_offset_has_no_seconds_and_the_moment_stays(
    time_zone: str, moment: str, written: str
) -> None:
    fields = json.loads(render(build({"title": moment}), time_zone=time_zone).body)
    assert fields["title"] == written
    assert datetime.fromisoformat(written) == datetime.fromisoformat(moment)


@pytest.mark.parametrize("text", ["2026-13-45T99:00:00Z", "9999-12-31T23:59:59Z", "Z"])
def test_a_date_that_cannot_be_shifted_stays(text: str) -> None:
    document = build({"title": text})
    fields = json.loads(render(document, time_zone="Pacific/Kiritimati").body)
    assert fields["title"] == text


def test_an_unknown_time_zone_is_an_error() -> None:
    with pytest.raises(payloads.MappingError, match="time zone"):
        render(build({}), time_zone="Europe/Atlantis")


def test_older_names_replace_the_current_ones() -> None:
    document = build({"call_id": "7", "duration_seconds": 5, "referrer": "r", "caller": "c"})
    fields = json.loads(render(document, uses_older_names=True).body)
    assert list(fields) == [
        *("event", "event_id", "occurred_at", "project_id"),
        *("uniqueid", "duration", "refferrer", "caller"),
    ]
    assert fields["uniqueid"] == "7"


@pytest.mark.parametrize(
    "order", [("duration", "duration_seconds"), ("duration_seconds", "duration")]
)
def test_a_variable_wins_its_older_name(order: tuple[str, str]) -> None:
    values = {"duration": "own", "duration_seconds": 5}
    document = build({name: values[name] for name in order})
    assert json.loads(render(document, uses_older_names=True).body)["duration"] == 5


FORM_PAYLOAD: dict[str, Any] = {
    "name": "Тарас & Co = 100%+",
    "is_proper": True,
    "is_repeated": False,
    "userfield": None,
    "amount": 48500.5,
    "fields": {"city": "Київ", "list": [1, 2]},
}
FORM_PAIRS = [
    ("event", "form.submitted"),
    ("event_id", "evt_1"),
    ("occurred_at", "2026-05-14T09:28:49Z"),
    ("project_id", "default"),
    ("name", "Тарас & Co = 100%+"),
    ("is_proper", "true"),
    ("is_repeated", "false"),
    ("userfield", ""),
    ("amount", "48500.5"),
    ("fields", '{"city":"Київ","list":[1,2]}'),
]


def test_a_form_holds_flat_pairs() -> None:
    rendered = render(build(FORM_PAYLOAD), body_format="form")
    assert rendered.content_type == "application/x-www-form-urlencoded"
    assert rendered.url == "https://crm.example.com/in"
    assert parse_qsl(rendered.body.decode(), keep_blank_values=True) == FORM_PAIRS


def test_the_body_of_a_form_is_the_same_on_every_attempt() -> None:
    document = build(FORM_PAYLOAD)
    first, second = (render(document, body_format="form", attempt=n) for n in (1, 2))
    assert first == second


@pytest.mark.parametrize(
    "changes",
    [
        {"body_format": "query"},
        {"body_format": "query", "method": "DELETE"},
        {"method": "GET"},
        {"method": "GET", "body_format": "form"},
    ],
)
def test_a_query_holds_the_same_pairs_and_the_attempt(changes: dict[str, Any]) -> None:
    rendered = render(build(FORM_PAYLOAD), attempt=3, **changes)
    assert (rendered.body, rendered.content_type) == (b"", None)
    query = urlsplit(rendered.url).query
    assert parse_qsl(query, keep_blank_values=True) == [*FORM_PAIRS, ("attempt", "3")]
    assert "+" not in query


def test_a_query_is_appended_to_the_urls_own() -> None:
    url = render(build({}), url="https://a.example/in?key=1", body_format="query").url
    assert url.startswith("https://a.example/in?key=1&event=")


def test_nothing_in_a_payload_breaks_out_of_a_query() -> None:
    hostile = {"a&b=c#d": "x\r\nHost: evil\0 #?&", "é": "\u2028"}
    url = render(build(hostile), body_format="query").url
    assert url.isascii()
    assert not set(url) & set("\r\n\0 #")
    assert parse_qsl(urlsplit(url).query)[4:6] == [*hostile.items()]


def writer_of(date_format: str, time_zone: str) -> Callable[[datetime], str | int]:
    return date_writer(date_format, time_zone)


def test_unix_seconds_before_1970_are_rounded_down() -> None:
    moment = datetime(1969, 12, 31, 23, 59, 58, 500_000, tzinfo=UTC)
    assert writer_of("unix", "UTC")(moment) == -2


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), children, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON_VALUES, max_size=6))
def test_every_json_object_survives_and_renders_to_the_same_bytes(payload: dict[str, Any]) -> None:
    document = build(payload)
    assert render(document).body == document
    reserved = {"event", "event_id", "occurred_at", "project_id", "attempt"}
    kept = {name: value for name, value in payload.items() if name not in reserved}
    # A name with “_at” may be a date, which is written in a normalized form.
    same = {name: value for name, value in kept.items() if "_at" not in name}
    assert json.loads(document).items() >= same.items()
    query = urlsplit(render(document, body_format="query").url).query
    assert len(parse_qsl(query, keep_blank_values=True)) == len(kept) + 5


@given(st.binary(max_size=200))
def test_reading_json_never_fails_in_another_way(data: bytes) -> None:
    try:
        payloads.load_json(data)
    except DocumentError:
        return


@pytest.mark.parametrize(
    ("event_type", "name"),
    [("call.incoming.after", "calldate"), ("order.paid", "paid_at")],
)
def test_a_moment_is_normalised_under_every_name_the_catalogue_has_for_one(
    event_type: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = {"order.paid": {"label": "Paid", "sample": {"paid_at": "2026-05-14T09:26:31Z"}}}
    monkeypatch.setattr(
        catalogue, "EVENT_TYPES", {**catalogue.EVENT_TYPES, **catalogue.host_types(types)}
    )
    document = build({name: "2026-05-14 12:26:31+03:00"}, event_type=event_type)
    assert json.loads(document)[name] == "2026-05-14T09:26:31Z"
