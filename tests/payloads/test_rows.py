"""Parameters as rows: names as paths, values from the event or fixed, in each format."""

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu_time import CONSTANT, Work, growth
from webhooks import catalogue, payloads
from webhooks.models import Webhook
from webhooks.payloads import MappingError, Violation
from webhooks.payloads.paths import escape, parse_path, spell

DOCUMENT = json.dumps(
    {
        "event": "call.incoming.after",
        "event_id": "evt_1",
        "occurred_at": "2026-05-14T09:28:49Z",
        "project_id": "default",
        "call_started_at": "2026-05-14T09:26:31Z",
        "client_number": "380671234567",
        "duration_seconds": 138,
        "is_repeated": True,
        "utm_source": "",
        "utm_term": None,
        "fields": {"city": "Київ", "items": [{"id": 7}, {"id": 8}], "at": "2026-05-14T09:26:31Z"},
    }
).encode()


def request(rows: list[dict[str, Any]], *, attempt: int = 1, **changes: Any) -> payloads.Rendered:
    webhook = Webhook(parameters=rows, **changes)
    render = payloads.compile_request(webhook, "https://crm.test/in")
    assert render is not None
    return render(DOCUMENT, attempt)


def body(*rows: dict[str, Any], **changes: Any) -> Any:
    return json.loads(request(list(rows), **changes).body)


def value_of(row: dict[str, Any], **changes: Any) -> Any:
    return body({"name": "a", **row}, **changes)["a"]


def form(*rows: dict[str, Any], **changes: Any) -> list[tuple[str, str]]:
    rendered = request(list(rows), **{"body_format": "form", **changes})
    text = rendered.body.decode() or urlsplit(rendered.url).query
    return parse_qsl(text, keep_blank_values=True)


def problems(*rows: Any, body_format: str = "json") -> list[Violation]:
    return payloads.rows_problems(rows, body_format=body_format, known=payloads.known_names())


def problem(row: dict[str, Any], **changes: Any) -> Violation:
    [found] = problems(row, **changes)
    assert found.row == 0
    assert found.sentence.endswith((".", "?"))
    return found


# ---- Values from the event -------------------------------------------------------------------


def test_a_row_sends_a_variable_under_its_name_and_nothing_else_is_sent() -> None:
    row = {"name": "phone", "variable": "client_number"}
    assert request([row]).body == b'{"phone":"380671234567"}'


def test_a_variable_keeps_its_type() -> None:
    assert value_of({"variable": "duration_seconds"}) == 138
    assert value_of({"variable": "is_repeated"}) is True
    assert value_of({"variable": "fields"})["city"] == "Київ"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("duration", 138),
        ("calldate", "2026-05-14T09:26:31Z"),
        ("repeated_flag", True),
        ("fields.city", "Київ"),
        ("fields.items[1].id", 8),
        ("fields.items.0.id", 7),
        ("fields.items[9].id", None),
        ("fields.city.street", None),
        ("deal_id", None),
        ("event", "call.incoming.after"),
    ],
)
def test_variables_are_found_by_either_name_and_by_path(variable: str, value: object) -> None:
    assert value_of({"variable": variable}) == value
    assert value_of({"variable": variable}, uses_older_names=True) == value


def test_the_number_of_the_attempt_can_be_mapped() -> None:
    rows = [{"name": "n", "variable": "attempt"}]
    assert json.loads(request(rows, attempt=3).body) == {"n": 3}


@pytest.mark.parametrize(
    ("row", "webhook", "value"),
    [
        ({}, {}, "2026-05-14T09:26:31Z"),
        ({}, {"date_format": "sql", "time_zone": "Europe/Kyiv"}, "2026-05-14 12:26:31"),
        ({"format": "unix"}, {"date_format": "sql"}, 1778750791),
        ({"format": "sql"}, {}, "2026-05-14 09:26:31"),
        ({"format": "sql", "time_zone": "Europe/Kyiv"}, {}, "2026-05-14 12:26:31"),
        ({"time_zone": "Europe/Kyiv"}, {}, "2026-05-14T12:26:31+03:00"),
        ({"format": "iso8601"}, {"date_format": "unix"}, "2026-05-14T09:26:31Z"),
        ({"format": "text"}, {"date_format": "unix"}, "1778750791"),
    ],
)
def test_dates_are_written_as_the_row_or_else_the_webhook_says(
    row: dict[str, str], webhook: dict[str, str], value: object
) -> None:
    assert value_of({"variable": "call_started_at", **row}, **webhook) == value


def test_dates_within_an_object_are_written_so_too() -> None:
    assert value_of({"variable": "fields", "format": "unix"})["at"] == 1778750791


def test_a_value_can_be_sent_as_text() -> None:
    assert value_of({"variable": "duration_seconds", "format": "text"}) == "138"
    assert value_of({"variable": "is_repeated", "format": "text"}) == "true"


@pytest.mark.parametrize("variable", ["deal_id", "utm_source", "utm_term"])
def test_a_default_stands_for_what_is_absent_null_or_empty(variable: str) -> None:
    assert value_of({"variable": variable, "default": "none"}) == "none"


def test_a_default_has_the_type_of_its_variable_where_it_can() -> None:
    assert value_of({"variable": "talk_seconds", "default": "0"}) == 0
    assert value_of({"variable": "billsec", "default": "none"}) == "none"
    assert value_of({"variable": "deal_id", "default": "0"}) == "0"
    assert value_of({"variable": "amount", "default": "0.5"}) == 0.5
    for text in ("NaN", "-Infinity", "1e999"):
        assert value_of({"variable": "amount", "default": text}) == text
    assert value_of({"variable": "client_number", "default": "0"}) == "380671234567"


@pytest.mark.parametrize("variable", ["deal_id", "utm_source", "utm_term"])
def test_an_empty_value_is_left_out_when_asked_for(variable: str) -> None:
    row = {"name": "a.b[0].c", "variable": variable, "omit_if_empty": True}
    assert body(row, {"name": "d", "value": "e"}) == {"d": "e"}
    assert form(row, {"name": "d", "value": "e"}) == [("d", "e")]
    assert body(row) == {}


@pytest.mark.parametrize("value", [None, "", [], {}])
def test_an_empty_value_is_left_out_as_a_text_too(value: object) -> None:
    row = {"name": "a", "variable": "x", "format": "text", "omit_if_empty": True}
    render = payloads.compile_request(Webhook(parameters=[row]), "https://crm.test/")
    assert render is not None
    assert render(json.dumps({"x": value}).encode(), 1).body == b"{}"
    assert render(b'{"x":[0]}', 1).body == b'{"a":"[0]"}'


# ---- Fixed values ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ({"value": "42"}, "42"),
        ({"value": "42", "type": "number"}, 42),
        ({"value": "-0.5e3", "type": "number"}, -500.0),
        ({"value": "TRUE ", "type": "boolean"}, True),
        ({"value": "", "type": "null"}, None),
        ({"value": '{"b": [1, null]}', "type": "json"}, {"b": [1, None]}),
        ({"value": 7}, 7),
        ({"value": None}, None),
    ],
)
def test_a_value_of_its_own_has_the_chosen_type(row: dict[str, Any], value: object) -> None:
    assert value_of(row) == value
    assert problems({"name": "a", **row}) == []


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("number", "many", "Write a number"),
        ("number", "true", "Write a number"),
        ("number", "NaN", "Write a number"),
        ("number", "1e999", "Write a number"),
        ("boolean", "yes", "true or false"),
        ("json", "{", "Choose Text"),
        ("json", '{"a": 1, "a": 2}', "in this object already"),
        ("json", "1e999", "not JSON"),
        ("json", '"\\ud800"', "not JSON"),
        ("json", "[" * 33 + "]" * 33, "32 levels deep"),
        ("json", "[" * 8000, "Line 1, column 33: The JSON is nested more than 32 levels deep."),
        ("number", "[" * 8000, "Write a number"),
        ("colour", "red", "one of"),
        ("text", "x" * 8193, "at most 8192"),
    ],
)
def test_a_value_that_is_not_of_its_type_is_refused(kind: str, text: str, words: str) -> None:
    assert words in problem({"name": "a", "value": text, "type": kind}).sentence


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (nested(33), "32 levels deep"),
        (nested(5000), "32 levels deep"),
        ({"a": nested(32)}, "32 levels deep"),
        (float("inf"), "This is not JSON."),
        (["\ud800"], "half a character"),
    ],
    ids=["33", "5000", "object", "inf", "surrogate"],
)
def test_a_value_from_a_file_that_no_request_can_hold_is_refused(value: Any, words: str) -> None:
    assert words in problem({"name": "a", "value": value}).sentence
    found = problem({"name": "a", "variable": "event", "default": value})
    assert words in found.sentence
    assert found.field == "default"
    assert problems({"name": "a", "value": nested(32)}) == []


def test_a_default_that_is_nested_without_end_is_text() -> None:
    row = {"variable": "call_counter", "default": "[" * 8000}
    assert problems({"name": "a", **row}) == []
    assert value_of(row) == "[" * 8000


# ---- Names -----------------------------------------------------------------------------------


def test_names_build_nested_json_in_the_order_of_the_rows() -> None:
    rows = [
        {"name": "lead.phone", "variable": "client_number"},
        {"name": "tags[]", "value": "call"},
        {"name": "lead.utm.source", "variable": "utm_source"},
        {"name": "tags[]", "variable": "event"},
        {"name": "items[0].id", "value": "1"},
        {"name": "items[0].name", "value": "One"},
        {"name": "items[1].id", "value": "2"},
        {"name": r"dotted\.key", "value": "v"},
    ]
    assert problems(*rows) == []
    assert list(json.loads(request(rows).body).items()) == [
        ("lead", {"phone": "380671234567", "utm": {"source": ""}}),
        ("tags", ["call", "call.incoming.after"]),
        ("items", [{"id": "1", "name": "One"}, {"id": "2"}]),
        ("dotted.key", "v"),
    ]


def test_an_element_that_is_left_out_leaves_no_gap() -> None:
    assert body(
        {"name": "tags[]", "variable": "deal_id", "omit_if_empty": True},
        {"name": "tags[]", "value": "call"},
    ) == {"tags": ["call"]}


def test_every_variable_can_be_sent_beside_rows_which_win() -> None:
    sent = body(
        {"name": "", "variable": "*"},
        {"name": "source", "value": "pbx"},
        {"name": "client_number", "value": "hidden"},
        {"name": "fields", "variable": "deal_id", "omit_if_empty": True},
    )
    assert sent["duration_seconds"] == 138
    assert sent["source"] == "pbx"
    assert sent["client_number"] == "hidden"
    assert "fields" not in sent
    assert "attempt" not in sent


def test_the_whole_event_can_be_one_value() -> None:
    sent = body({"name": "data", "variable": "*"}, uses_older_names=True, date_format="unix")
    assert sent["data"]["duration"] == 138
    assert sent["data"]["calldate"] == 1778750791


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_forms_and_queries_send_names_as_they_are_and_may_repeat_them(method: str) -> None:
    rows = (
        {"name": "client[phone]", "variable": "client_number"},
        {"name": "tag", "value": "a b"},
        {"name": "tag", "value": "&"},
        {"name": "a.b", "variable": "duration_seconds"},
        {"name": "note", "variable": "deal_id"},
        {"name": "city", "variable": "fields.city"},
    )
    assert problems(*rows, body_format="form") == []
    assert form(*rows, method=method) == [
        ("client[phone]", "380671234567"),
        ("tag", "a b"),
        ("tag", "&"),
        ("a.b", "138"),
        ("note", ""),
        ("city", "Київ"),
    ]


def test_a_query_keeps_what_the_address_has_already() -> None:
    rows = [{"name": "b", "value": "2"}]
    webhook = Webhook(body_format="query", parameters=rows)
    render = payloads.compile_request(webhook, "https://crm.test/in?a=1")
    assert render is not None
    sent = render(DOCUMENT, 1)
    assert (sent.url, sent.body, sent.content_type) == ("https://crm.test/in?a=1&b=2", b"", None)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "a"], "row 1"),
        (["a", "a.b"], "nothing can be inside"),
        (["a.b", "a"], "holds the values of row 1"),
        (["a[]", "a.b"], "is a list in row 1"),
        (["a.b", "a[0]"], "is an object in row 1"),
        (["a[0]", "a[2]"], "a[1]"),
        (["x", "items[1].id"], "items[0]"),
        (["a[0]", "a[0]"], "row 1"),
    ],
)
def test_names_that_cannot_be_in_one_document_are_refused_at_the_later_row(
    names: list[str], words: str
) -> None:
    [found] = problems(*({"name": name, "value": ""} for name in names))
    assert (found.row, found.field) == (1, "name")
    assert words in found.sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "Give this row a name"),
        ("  ", "Give this row a name"),
        (".a", "dot"),
        ("a..b", "dot"),
        ("a.", "dot"),
        ("[0]", "Brackets"),
        ("a[b]", "Brackets"),
        ("a[0", "Brackets"),
        ("a[0]b", "cannot be read"),
        ("a[].b", "can only end"),
        ("a[100]", "at most 100"),
        ("\\x", "cannot be read"),
        ("a\nb", "line breaks"),
        ("x" * 201, "at most 200"),
        (".".join("abcdefghijk"), "at most 10"),
    ],
)
def test_a_name_that_is_no_path_is_refused(name: str, words: str) -> None:
    found = problem({"name": name, "value": ""})
    assert (found.field, words in found.sentence) == ("name", True), found.sentence


def test_more_rows_than_allowed_are_refused_at_once() -> None:
    rows = [{"name": f"a{number}", "value": ""} for number in range(101)]
    [found] = problems(*rows)
    assert "at most 100" in found.sentence
    assert problems(*rows[:100]) == []


@given(st.lists(st.text(min_size=1, max_size=15), min_size=1, max_size=5))
def test_any_key_can_be_written_as_a_path(keys: list[str]) -> None:
    path = ".".join(map(escape, keys))
    assert parse_path(path) == tuple(keys)
    assert spell(parse_path(path)) == path


@pytest.mark.parametrize("body_format", ["json", "form", "query"])
def test_all_other_variables_are_added_once(body_format: str) -> None:
    spread = {"name": "", "variable": "*"}
    rows = [{"name": "a", "variable": "event"}, spread, {**spread, "name": "*"}]
    (found,) = problems(*rows, body_format=body_format)
    assert (found.row, found.field) == (2, "content")
    assert found.sentence.startswith("Row 2 adds all other variables already")


# ---- Variables -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("durration_seconds", "Did you mean “duration_seconds”"),
        ("Client_Number", "“client_number”"),
        ("bilsec", "“billsec”"),
        ("qqqq", "list of variables"),
        ("feilds.email", "“fields”"),
        ("call_id.x", "single value"),
        ("fields.", "dot"),
        ("fields.items[]", "adds to a list"),
        ("", "Choose a variable"),
    ],
)
def test_an_unknown_variable_is_refused_with_those_that_are_near(variable: str, words: str) -> None:
    found = problem({"name": "a", "variable": variable})
    assert (found.field, words in found.sentence) == ("content", True), found.sentence


def test_many_unknown_variables_are_refused_at_once() -> None:
    """Similar names are looked for among a bounded number, however many variables there are."""
    rows = [{"name": f"n{number}", "variable": f"client_numbr{number}"} for number in range(90)]
    found: list[Violation] = []

    def prepare(parts: int) -> Work:
        known = payloads.known_names() | {f"client_number_{n}" for n in range(2_500 * parts)}

        def check() -> None:
            found[:] = payloads.rows_problems(rows, body_format="json", known=known)

        return check

    assert growth(prepare, limit=CONSTANT) < CONSTANT
    assert ["“client_number”" in one.sentence for one in found] == [True] * 90


def test_a_part_of_what_a_host_type_has_as_an_object_can_be_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = {"name": "a", "variable": "amount.value"}
    assert "single value" in problem(part).sentence
    types = {"order.paid": {"label": "Order paid", "sample": {"amount": {"value": 10.5}}}}
    monkeypatch.setitem(
        catalogue.EVENT_TYPES, "order.paid", catalogue.host_types(types)["order.paid"]
    )
    assert problems(part) == []


@pytest.mark.parametrize(
    "variable", ["client_number", "billsec", "fields", "fields.email", "attempt", "*"]
)
def test_variables_of_the_catalogue_are_known_by_every_name(variable: str) -> None:
    assert problems({"name": "a", "variable": variable}) == []


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"format": "rfc"}, "format"),
        ({"time_zone": "Kyiv"}, "time_zone"),
        ({"time_zone": "../etc/passwd"}, "time_zone"),
        ({"default": "x" * 8193}, "default"),
    ],
)
def test_a_wrong_option_is_refused_at_its_field(row: dict[str, str], field: str) -> None:
    assert problem({"name": "a", "variable": "call_started_at", **row}).field == field


@pytest.mark.parametrize(
    "row", ["text", {"name": "a"}, {"name": "a", "value": "", "variable": "event"}, {"nam": "a"}]
)
def test_what_is_no_row_is_refused(row: Any) -> None:
    [found] = problems(row)
    assert found.sentence


def test_rows_that_cannot_be_read_make_no_request() -> None:
    with pytest.raises(MappingError, match="format"):
        request([{"name": "a", "variable": "event", "format": "rfc"}])


@pytest.mark.parametrize("body_format", ["json", "form"])
@pytest.mark.parametrize("name", ["*", ""])
def test_every_variable_stays_many_whatever_a_stored_row_says(name: str, body_format: str) -> None:
    plain: dict[str, Any] = {"name": name, "variable": "*"}
    odd = {**plain, "format": "text", "omit_if_empty": True, "default": "x"}
    expected = request([plain], body_format=body_format)
    assert request([odd], body_format=body_format) == expected
