"""A JSON body with placeholders: always valid JSON, and errors named by line and column."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu_time import LINEAR, Work, growth
from webhooks import payloads
from webhooks.models import Webhook

FIELDS = {
    "event": "call.incoming.after",
    "call_started_at": "2026-05-14T09:26:31Z",
    "client_number": "380671234567",
    "duration_seconds": 138,
    "is_repeated": True,
    "utm_source": "",
    "fields": {"city": 'Київ "1"', "n": [1, 2]},
}


def written(template: str, fields: dict[str, Any] | None = None, **changes: Any) -> str:
    unused = [{"name": "unused", "value": ""}]
    webhook = Webhook(parameters=unused, body_template=template, **changes)
    render = payloads.compile_request(webhook, "https://crm.test/")
    assert render is not None
    sent = render(json.dumps(FIELDS if fields is None else fields).encode(), 2)
    assert sent.content_type == "application/json"
    return sent.body.decode()


def value_of(place: str, **changes: Any) -> Any:
    return json.loads(written(json.dumps({"a": place}), **changes))["a"]


def problems(template: str) -> list[payloads.Violation]:
    return payloads.template_problems(template, payloads.known_names())


def problem(template: str) -> payloads.Violation:
    [found] = problems(template)
    assert found.sentence.endswith((".", "?", "}}.")), found.sentence
    return found


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("{{ duration_seconds }}", 138),
        ("{{duration}}", 138),
        ("{{ is_repeated }}", True),
        ("{{ fields }}", FIELDS["fields"]),
        ("{{ fields.city }}", 'Київ "1"'),
        ("{{ fields.n[1] }}", 2),
        ("{{ deal_id }}", None),
        ("{{ attempt }}", 2),
        ("{{ duration_seconds|text }}", "138"),
        ("{{ call_started_at|unix }}", 1778750791),
        ("{{ call_started_at | sql | zone:'Europe/Kyiv' }}", "2026-05-14 12:26:31"),
        ("{{ deal_id|default:'none' }}", "none"),
        ('{{ deal_id|default:"a | b }} c" }}', "a | b }} c"),
        ("{{ deal_id|default:0 }}", 0),
        ("{{ utm_source|default:null }}", None),
        ("{{ client_number|default:'none' }}", "380671234567"),
        ("{{ fields.ім'я | default:'it is }} none' }}", "it is }} none"),
        ("{{ '{{' }}", "{{"),
        ("}} { {", "}} { {"),
    ],
)
def test_text_that_is_one_place_takes_the_value_and_its_type(place: str, value: object) -> None:
    assert problems(json.dumps({"a": place})) == []
    assert value_of(place) == value


def test_a_quote_within_a_name_is_a_part_of_it() -> None:
    fields = {"fields": {"ім'я": "Олена", 'size 5"': 2}}
    places = [
        "{{ fields.ім'я }}",
        "{{ fields.ім'я }} 'x' {{ fields.ім'я|text }}",
        '{{fields.size 5"}}',
    ]
    assert problems(json.dumps(places)) == []
    assert json.loads(written(json.dumps(places), fields)) == ["Олена", "Олена 'x' Олена", 2]


@pytest.mark.parametrize(
    "content",
    [
        {"variable": "fields.ім'я"},
        {"variable": "fields.a}}"},
        {"variable": "fields.{{a | b}}\\\\", "default": "x"},
        {"variable": "fields.a\\|b\\.c"},
        {"variable": "email", "default": "it's"},
        {"variable": "email", "default": 'say "x"'},
        {"variable": "email", "default": "it's \"}} x"},
        {"variable": "email", "default": r"\u0022 \u005c \u005cu0022 \\u0022 \n"},
        {"variable": "email", "default": "it's \"\\u0022\\"},
        {"variable": "email", "default": ["\\u0022", "\\u005c"]},
        {"variable": "email", "default": ["it's", 'a"b', '\\"', "\\", "}}"]},
        {"variable": "email", "default": {'k"': "{{ x }}"}},
        {"value": "{{ '{{' }}"},
    ],
)
def test_rows_are_sent_as_their_placeholders_are(content: dict[str, Any]) -> None:
    rows = [{"name": "a", **content}]
    template = json.dumps(payloads.rows_as_placeholders(rows))
    assert problems(template) == []
    render = payloads.compile_request(Webhook(parameters=rows), "https://crm.test/")
    assert render is not None
    names = ["ім'я", "a}}", "{{a | b}}\\", "a|b.c"]
    fields = {"fields": dict.fromkeys(names, "Олена")}
    sent = render(json.dumps(fields).encode(), 1).body
    assert json.loads(written(template, fields)) == json.loads(sent)


def test_places_within_longer_text_become_text() -> None:
    place = "{{ client_number }}: {{ duration_seconds }} s, {{ deal_id }}{{ fields }} {{ '{{' }}"
    assert value_of(place) == '380671234567: 138 s, {"city":"Київ \\"1\\"","n":[1,2]} {{'


def test_dates_follow_the_webhook_unless_the_place_says_otherwise() -> None:
    template = '["{{ call_started_at }}", "{{ call_started_at|iso8601 }}"]'
    assert written(template, date_format="sql", time_zone="Europe/Kyiv") == (
        '["2026-05-14 12:26:31","2026-05-14T12:26:31+03:00"]'
    )


@pytest.mark.parametrize(
    ("filters", "value"),
    [
        ("|unix", 1778750791),
        ("|sql|zone:'Europe/Kyiv'", "2026-05-14 12:26:31"),
        ("|iso8601", "2026-05-14T09:26:31Z"),
        ("|zone:'Europe/Kyiv'", "2026-05-14T12:26:31+03:00"),
        ("|text", "2026-05-14T14:26:31+05:00"),
        ("", "2026-05-14T14:26:31+05:00"),
    ],
)
def test_a_time_with_an_offset_is_written_as_its_place_asks(filters: str, value: object) -> None:
    fields = {"fields": {"at": "2026-05-14T14:26:31+05:00", "day": "2026-05-14"}}
    template = f'["{{{{ fields.at{filters} }}}}", "{{{{ fields.day{filters} }}}}"]'
    assert json.loads(written(template, fields)) == [value, "2026-05-14"]


def test_numbers_keys_and_their_order_stay_as_typed() -> None:
    template = '{ "z": 1.10, "a": [1e2, -0, true, null, {}], "z\\u0061": "\\n" }'
    assert written(template) == '{"z":1.10,"a":[1e2,-0,true,null,{}],"za":"\\n"}'


def test_a_number_may_have_many_digits() -> None:
    template = '{"a":0.' + "1" * 900 + "}"
    assert problems(template) == []
    assert written(template) == template


def test_the_whole_event_can_be_a_value() -> None:
    assert value_of("{{ * }}", uses_older_names=True)["duration"] == 138


def test_a_place_without_braces_around_text_is_only_text() -> None:
    assert value_of("{ client_number }") == "{ client_number }"


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(VALUES)
def test_whatever_a_value_holds_the_result_is_that_value_and_nothing_else(value: Any) -> None:
    sent = json.loads(written('{"a": "{{ fields }}", "b": "x"}', {"fields": value}))
    assert sent == {"a": value, "b": "x"}


@given(VALUES)
def test_whatever_stands_in_longer_text_the_result_is_valid(value: Any) -> None:
    sent = json.loads(written('{"a": "<{{ fields }}>", "b": "x"}', {"fields": value}))
    assert sent.keys() == {"a", "b"}
    assert sent["a"][0] + sent["a"][-1] == "<>"


@given(VALUES)
def test_a_document_without_places_is_sent_as_it_is(value: Any) -> None:
    template = json.dumps(value, indent=2)
    if "{{" not in template:
        assert problems(template) == []
        assert json.loads(written(template)) == json.loads(template)


@pytest.mark.parametrize(
    ("template", "line", "column", "words"),
    [
        ("", 1, 1, "Write a JSON document"),
        ('{"a": {{ call_id }}}', 1, 7, "double quotes around {{ call_id }}"),
        ('{\n  "a": 1,\n}', 2, 9, "Remove this comma"),
        ("{\n  'a': 1}", 2, 3, "double quotes"),
        ("{\"a\": 'b'}", 1, 7, "single quotes"),
        ('{"a" 1}', 1, 6, "colon"),
        ('{"a": 1 "b": 2}', 1, 9, "comma is missing"),
        ('{"a": True}', 1, 7, "small letters"),
        ('{"a": }', 1, 7, "value is missing"),
        ('{"a": 01}', 1, 7, "is not a JSON value"),
        ('{"a": yes}', 1, 7, "“yes” is not a JSON value"),
        ('{"a": 1', 1, 1, "}"),
        ('{"a": [1}', 1, 9, "]"),
        ('{"a": "b', 1, 7, "double quote that ends"),
        ('{"a": "b\nc"}', 1, 9, "\\n"),
        ('{"a": "\\x"}', 1, 8, "backslash"),
        ('{"a": "\\ud800"}', 1, 7, "surrogate"),
        ('{"a": 1, "a": 2}', 1, 10, "already"),
        ('{"a": 1} x', 1, 10, "Remove what follows"),
        ('{"a": 1 // why\n}', 1, 9, "comma is missing"),
        ('{"a": // why\n1}', 1, 7, "no comments"),
        ('{"a": 1,', 1, 9, "text ends here"),
        ("[" * 33 + "]" * 33, 1, 33, "32 levels"),
        ('{\n "a": "{{ durration }}"}', 2, 8, "“duration”"),
        ('{"a": "x {{ call_id"}', 1, 10, "}} that ends this variable"),
        ('{"{{ event }}": 1}', 1, 3, "key cannot be variable"),
        ('{"a": "{{ call_started_at|rfc }}"}', 1, 8, "is not a filter"),
        ('{"a": "{{ event|zone:\'Kyiv\' }}"}', 1, 8, "no time zone"),
        ('{"a": "{{ event|default:none }}"}', 1, 8, "single quotes"),
        ('{"a": "{{ deal_id|default:1e999 }}"}', 1, 8, "single quotes"),
        (r'{"a": "{{ deal_id|default:[\"\\ud800\"] }}"}', 1, 8, "single quotes"),
        ('{"a": "{{ event|default:' + "[" * 9000 + '}}"}', 1, 8, "single quotes"),
        ('{"a": "{{ call_started_at|sql|unix }}"}', 1, 8, "sets again"),
        ('{"a": "{{ }}"}', 1, 8, "Choose a variable"),
        ('{"a": "{{ \'x\'|text }}"}', 1, 8, "stands alone"),
        ('{"a": "{{ client_number.x }}"}', 1, 8, "single value"),
        ("{\n “a”: 1}", 2, 2, "This quote (“) is curly"),
        ('{"a": „b“}', 1, 7, "This quote („) is curly"),
        ('{"a": 1, "b”: 2}', 1, 12, "This quote (”) is curly"),
        ('{"a": "b”}', 1, 9, "This quote (”) is curly"),
        ('{"a": "b”,\n "c": 1}', 1, 9, "This quote (”) is curly"),
        ('{"a": "“b” is it}', 1, 7, "double quote that ends"),
        ('{\u00a0"a": 1}', 1, 2, "invisible character (U+00A0)"),
        ('{"a": 1}\u200b', 1, 9, "invisible character (U+200B)"),
        ('{"a": 1}\0', 1, 9, "invisible character (U+0000)"),
        ('\x1e{"a": 1}', 1, 1, "invisible character (U+001E)"),
        ('{"a": "b\x01"}', 1, 9, "invisible character (U+0001)"),
        ('{"a": "b\t"}', 1, 9, "A line break or tab"),
    ],
)
def test_a_mistake_is_named_by_line_column_and_what_to_do(
    template: str, line: int, column: int, words: str
) -> None:
    found = problem(template)
    assert words in found.sentence
    assert (found.line, found.column) == (line, column), found.sentence
    assert found.sentence.startswith(f"Line {line}, column {column}: ")


def test_the_mark_before_a_text_and_curly_quotes_within_one_are_no_mistake() -> None:
    assert problems('\ufeff{"a": "“b”"}') == []
    assert json.loads(written('\ufeff {"a": "“b”"}')) == {"a": "“b”"}


def test_every_wrong_place_is_named_at_once() -> None:
    found = problems('["{{ a1 }} {{ event }}",\n "{{ event }} {{ b2 }}"]')
    assert [(one.line, one.column) for one in found] == [(1, 3), (2, 15)]


def test_size_and_number_of_places_are_limited() -> None:
    assert "65536" in problem(json.dumps("x" * 65_536)).sentence
    assert "200" in problem(json.dumps(["{{ event }}"] * 201)).sentence
    assert problems(json.dumps(["{{ event }}"] * 200)) == []


@pytest.mark.parametrize("piece", ["{{a' '", "{{", "{{ \\\\", "{{ 'x' "])
def test_the_longest_body_is_checked_at_once(piece: str) -> None:
    def prepare(parts: int) -> Work:
        template = '{"a": "%s"}' % (piece * (8_100 * parts // len(piece)))

        def check() -> None:
            assert problems(template)
            assert not payloads.has_placeholder(template)

        return check

    assert growth(prepare, limit=LINEAR) < LINEAR


@given(st.text(alphabet="{}[]\":,\\ {ab1\n'", max_size=40))
def test_any_text_is_judged_without_an_exception(text: str) -> None:
    if not problems(text):
        json.loads(text)
        json.loads(written(text) if text else "0")
