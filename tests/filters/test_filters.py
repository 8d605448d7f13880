"""The filter language: what each operator means, how trees combine, and which are refused."""

import unicodedata
from typing import Any

import pytest

from tests.cpu_time import LINEAR, Work, growth
from webhooks.filters import (
    MAX_CONDITIONS,
    MAX_DEPTH,
    OPERATOR_LABELS,
    FilterError,
    Operator,
    compile_filter,
    refusal_words,
)

CALL: dict[str, Any] = {
    "event": "call.incoming.after",
    "disposition": "ANSWERED",
    "department": "Відділ продажу",
    "duration_seconds": 138,
    "wait_seconds": "17",
    "amount": 48500.5,
    "is_proper": True,
    "is_repeated": False,
    "caller_e164": "+380671234567",
    "employee_number": "104",
    "recording_url": "",
    "userfield": None,
    "landing": "https://vikna.example.com/kyiv?utm_source=google",
    "tags": ["vip", "Kyiv"],
    "fields": {"city": "Київ", "windows": 3, "empty": {}},
}


def condition(variable: str, operator: str, value: object = None) -> dict[str, object]:
    made: dict[str, object] = {"variable": variable, "operator": operator}
    return made if value is None else made | {"value": value}


def matches(tree: object, document: dict[str, Any] = CALL) -> bool:
    return compile_filter(tree).matches(document)


@pytest.mark.parametrize(
    ("variable", "operator", "value", "is_match"),
    [
        ("disposition", "equals", "ANSWERED", True),
        ("disposition", "equals", "answered", True),
        ("disposition", "equals", "BUSY", False),
        ("disposition", "not_equals", "BUSY", True),
        ("disposition", "not_equals", "ANSWERED", False),
        ("department", "equals", "ВІДДІЛ ПРОДАЖУ", True),
        ("missing", "equals", "x", False),
        ("missing", "not_equals", "x", True),
        ("userfield", "equals", "null", False),
        ("duration_seconds", "equals", 138, True),
        ("duration_seconds", "equals", "138", True),
        ("duration_seconds", "equals", "138.0", True),
        ("duration_seconds", "equals", "13", False),
        ("duration_seconds", "equals", "long", False),
        ("amount", "equals", "48500.5", True),
        ("employee_number", "equals", 104, True),
        ("employee_number", "equals", "0104", False),
        ("caller_e164", "equals", "380671234567", True),
        ("is_proper", "equals", True, True),
        ("is_proper", "equals", "true", True),
        ("is_proper", "equals", 1, True),
        ("is_repeated", "equals", "false", True),
        ("is_repeated", "equals", 0, True),
        ("disposition", "one_of", ["BUSY", "ANSWERED"], True),
        ("disposition", "one_of", ["BUSY", "FAILED"], False),
        ("duration_seconds", "one_of", ["1", 138], True),
        ("disposition", "not_one_of", ["BUSY", "FAILED"], True),
        ("disposition", "not_one_of", ["ANSWERED"], False),
        ("missing", "one_of", ["x"], False),
        ("missing", "not_one_of", ["x"], True),
        ("landing", "contains", "KYIV", True),
        ("landing", "contains", "lviv", False),
        ("landing", "not_contains", "lviv", True),
        ("landing", "not_contains", "kyiv", False),
        ("missing", "contains", "a", False),
        ("missing", "not_contains", "a", True),
        ("duration_seconds", "contains", "3", True),
        ("tags", "contains", "VIP", True),
        ("tags", "contains", "vi", False),
        ("tags", "not_contains", "vip", False),
        ("caller_e164", "starts_with", "+38067", True),
        ("caller_e164", "starts_with", "067", False),
        ("missing", "starts_with", "a", False),
        ("duration_seconds", "greater_than", 137, True),
        ("duration_seconds", "greater_than", 138, False),
        ("duration_seconds", "at_least", 138, True),
        ("duration_seconds", "at_least", "138.5", False),
        ("duration_seconds", "less_than", 139, True),
        ("duration_seconds", "less_than", 138, False),
        ("duration_seconds", "at_most", "138", True),
        ("duration_seconds", "at_most", 9, False),
        ("wait_seconds", "at_least", 9, True),
        ("wait_seconds", "less_than", 100, True),
        ("is_proper", "at_least", 0, False),
        ("disposition", "at_least", 0, False),
        ("missing", "at_most", 100, False),
        ("disposition", "exists", None, True),
        ("is_repeated", "exists", None, True),
        ("recording_url", "exists", None, False),
        ("userfield", "exists", None, False),
        ("missing", "exists", None, False),
        ("recording_url", "not_exists", None, True),
        ("missing", "not_exists", None, True),
        ("disposition", "not_exists", None, False),
    ],
)
def test_an_operator_compares(variable: str, operator: str, value: object, is_match: bool) -> None:
    assert matches(condition(variable, operator, value)) is is_match


@pytest.mark.parametrize(
    ("actual", "operator", "value", "is_match"),
    [
        ("+12025550100", "equals", "+1 (202) 555-0100", True),
        ("12025550100", "equals", "+1 (202) 555-0100", True),
        (12025550100, "equals", "+1 (202) 555-0100", True),
        ("+1 202 555 01 00", "equals", 12025550100, True),
        ("tel:+1-202-555-0100", "equals", "+1.202.555.0100", True),
        ("+12025550100", "equals", "0012025550100", True),
        ("00 1 202 555 0100", "equals", "+12025550100", True),
        ("+12025550100", "equals", "202 555-0100", False),
        ("+12025550100", "equals", "+12025550101", False),
        ("+12025550100", "not_equals", "+1 (202) 555-0100", False),
        ("+12025550100", "one_of", ["104", "+1 (202) 555-0100"], True),
        ("+12025550100", "not_one_of", ["104", "+1 (202) 555-0100"], False),
        ("+12025550100", "not_one_of", ["104", "+1 (202) 555-0101"], True),
        ("1 (202) 555-0100", "starts_with", "+1202", True),
        ("+12025550100", "starts_with", "1 (202)", True),
        ("+12025550100", "starts_with", "001 202", True),
        ("+12025550100", "starts_with", "202", False),
        ("+12025550100", "contains", "(202) 555-01", True),
        ("+12025550100", "contains", "202 555-02", False),
        ("+12025550100", "not_contains", "(202) 555", False),
        ("sip:12025550100@pbx.example", "contains", "+1 (202) 555-0100", True),
        (["anonymous", "+1 202 555 0100"], "contains", "+12025550100", True),
        # Values that are no number are compared as text, and matches as text remain matches.
        ("Anonymous", "equals", "anonymous", True),
        ("Anonymous", "contains", "nony", True),
        ("+12025550100", "starts_with", "+", True),
        ("+1 (202) 555-0100", "contains", ") 555-", True),
        ("0012025550100", "starts_with", "00", True),
        ("1202555x100", "equals", "1202555100", False),
        ("104", "equals", "0104", False),
        ("007", "equals", "7", False),
        ("123", "equals", "00123", False),
        # A plus, or 00 in its place, starts a country code, which no extension has.
        ("+380671112233", "not_contains", "+7", True),
        ("+74951234567", "not_contains", "+7", False),
        ("701", "not_contains", "+7", True),
        ("+380441234567", "contains", "+1", False),
        ("+1 202 555 0100", "contains", "+1202", True),
        ("101", "starts_with", "+1", False),
        ("+15551234567", "not_contains", "00123", True),
        ("+442071234567", "starts_with", "0044", True),
        ("+442071234567", "contains", "00 44 2071234", True),
        ("+79161234567", "contains", "007", False),
        ("+12125550100", "not_contains", "0012", True),
        ("+38067 111 00-12", "contains", "00-12", True),
        ("001-23-45", "contains", "0012345", True),
    ],
)  # fmt: skip
def test_a_phone_number_is_compared_by_its_digits(
    actual: object, operator: str, value: object, is_match: bool
) -> None:
    assert matches(condition("client_number", operator, value), {"client_number": actual}) is (
        is_match
    )


@pytest.mark.parametrize(
    ("typed", "actual", "is_match"),
    [
        ("\u202a+1 (202) 555\u20110100\u202c", "+12025550100", True),
        ("+1\u202f202\u2009555\u20070100", "+12025550100", True),
        ("+1 202 555\u20140100", "+12025550100", True),
        ("\uff0b\uff11202 5550100", "+12025550100", True),
        ("+1 (202) 555-0100", "\u2066+12025550100\u2069", True),
        ("+1 202 555 0100 ext. 5", "+12025550100", False),
        ("+1\u00ad202\u00ad555 0100\ufeff", "+12025550100", True),
        ("+\u0661 \u0662\u0660\u0662 \u0665\u0665\u06650100", "+12025550100", True),
        ("\u06f1\u06f2\u06f0\u06f25550100", "12025550100", True),
        ("+44 (0)20 7946 0958", "+442079460958", True),
        ("0044 (0) 20 7946 0958", "+442079460958", True),
        ("tel:+380-(0)-67-123-45-67", "+380671234567", True),
        ("+38 (0)67 123-45-67", "+380671234567", True),
        ("0038(0) 67 123 45 67", "+380671234567", True),
        ("+381 (0)11 123 456", "+38111123456", True),
        ("(0)20 7946 0958", "02079460958", True),
        ("+39 (0)6 1234 5678", "+390612345678", True),
    ],
)
def test_a_phone_number_that_was_copied_has_marks_that_do_not_count(
    typed: str, actual: str, is_match: bool
) -> None:
    assert matches(condition("phone", "equals", typed), {"phone": actual}) is is_match


@pytest.mark.parametrize(
    ("operator", "value", "actual", "is_match"),
    [
        ("equals", "Sales", " Sales\n", True),
        ("not_equals", "Sales", "Sales ", False),
        ("one_of", ["Support", "Sales"], "Sales ", True),
        ("starts_with", "Sal", "  Sales", True),
        ("starts_with", " ", " Sales", False),
        ("contains", " ", "Sales East", True),
        ("contains", " ", "Sales", False),
        ("equals", "Sales East", "Sales\u00a0East", True),
        ("contains", "a b", "xa\u202fby", True),
        ("equals", "Sales  East", "Sales East", False),
        ("equals", "Sales\u200b", "Sales", True),
        ("equals", "\u202aSales\u202c", "Sales", True),
        ("equals", "a\u00adb", "ab", True),
        ("equals", "\u2764\ufe0f", "\u2764", True),
        ("equals", "\uff21\uff22", "ab", True),
        ("equals", "\ufb01n", "FIN", True),
        ("equals", "mhz", "\u3392", True),
        ("equals", "VIP", "\U0001d415\U0001d408\U0001d40f", True),
        ("equals", "Cafe", "Café", False),
        ("equals", "istanbul", "İSTANBUL", True),
        ("equals", "IŞIK", "ışık", True),
        ("one_of", ["ısparta", "izmir"], "ISPARTA", True),
        ("starts_with", "izm", "İzmir", True),
        ("contains", "i", "İzmir", True),
        ("equals", "Відділ зв'язку", "ВІДДІЛ ЗВ’ЯЗКУ", True),
        ("equals", "Мар'яна", "Мар`яна", True),
        ("contains", "Мар´яна", "Мар′яна Коваль", True),
        ("one_of", ["O'Brien"], "O`Brien", True),
        ("contains", "зв\u02bcяз", "Відділ зв\u2018язку", True),
        ("contains", "\u200b", "Sales", False),
        ("exists", None, "  ", False),
        ("not_exists", None, "\t\u00a0\n", True),
        ("not_equals", "x", " ", True),
    ],
)
def test_what_cannot_be_seen_does_not_count(
    operator: str, value: object, actual: str, is_match: bool
) -> None:
    assert matches(condition("department", operator, value), {"department": actual}) is is_match


@pytest.mark.parametrize(
    ("operator", "value", "is_match"),
    [
        ("equals", "2026-05-14T09:26:31Z", True),
        ("equals", "2026-05-14T09:26:31.000Z", True),
        ("equals", "2026-05-14T12:26:31+03:00", True),
        ("equals", "2026-05-14 09:26:31+00:00", True),
        ("not_equals", "2026-05-14T12:26:31+03:00", False),
        ("one_of", ["soon", " 2026-05-14T12:26:31+03:00 "], True),
        ("equals", "2026-05-14T12:26:31Z", False),
        ("equals", "2026-05-14", False),
        ("starts_with", "2026-05-14T09:26", True),
        ("contains", "T09:", True),
    ],
)
def test_a_moment_is_the_same_in_every_time_zone(
    operator: str, value: object, is_match: bool
) -> None:
    document = {"calldate": "2026-05-14T09:26:31Z"}
    assert matches(condition("call_started_at", operator, value), document) is is_match


@pytest.mark.parametrize(
    ("value", "actual", "is_match"),
    [
        ("2026-05-14T12:26:31+03:00", "2026-05-14T09:26:31Z", True),
        ("2026-05-14T09:26:31Z", "2026-05-14 12:26:31+03:00", True),
        ("2026-05-14T09:26:31Z", "2026-05-14T09:26:31.000Z", True),
        ("2026-05-14T09:26:31Z", "2026-05-14T12:26:31Z", False),
        ("2026-05-14", "2026-05-14T00:00:00Z", False),
        ("2026051409263100", "2026-05-14T09:26:31Z", False),
    ],
)
def test_a_moment_in_a_field_that_the_catalogue_does_not_know_is_one_too(
    value: str, actual: str, is_match: bool
) -> None:
    assert matches(condition("fields.visit", "equals", value), {"fields": {"visit": actual}}) is (
        is_match
    )


def test_a_moment_that_is_written_as_it_came_is_the_same_too() -> None:
    came = {"closed_at": "2026-05-14T12:26:31+03:00"}
    assert matches(condition("closed_at", "equals", "2026-05-14T12:26:31+03:00"), came)
    assert matches(condition("closed_at", "equals", "2026-05-14T09:26:31Z"), came)


def test_no_text_passes_for_the_json_around_it() -> None:
    value = '"vip":true'
    assert matches(condition("fields", "contains", value), {"fields": {"VIP": True}})
    for note in (value, "\uff02vip\uff02:true"):
        assert not matches(condition("fields", "contains", value), {"fields": {"note": note}})


@pytest.mark.parametrize(
    ("value", "fields", "is_match"),
    [
        ('ТОВ "Ромашка"', {"company": 'тов "РОМАШКА", Київ'}, True),
        ('ТОВ "Ромашка": Київ', {"company": 'ТОВ "Ромашка": Київ'}, True),
        ("C:\\temp", {"files": [{"path": "c:\\temp\\1"}]}, True),
        ('"Імʼя"', {'Ваше "ім\'я"': "Тарас"}, True),
        ('ТОВ "Ромашка"', {"company": "ТОВ Ромашка"}, False),
        ('а"б', {"one": "а", "other": '"б'}, False),
    ],
)
def test_quotes_and_backslashes_of_a_text_within_an_object_are_found(
    value: str, fields: dict[str, Any], is_match: bool
) -> None:
    assert matches(condition("fields", "contains", value), {"fields": fields}) is is_match
    assert matches(condition("fields", "not_contains", value), {"fields": fields}) is not is_match


def test_another_text_of_digits_is_no_phone_number() -> None:
    assert not matches(condition("deal_id", "equals", "+1 2"), {"deal_id": "12"})
    assert not matches(condition("deal_id", "equals", "1-2"), {"deal_id": "12"})


def test_durations_are_compared_as_numbers_and_not_as_text() -> None:
    assert matches(condition("duration_seconds", "less_than", "60"), {"duration_seconds": 9})
    assert matches(condition("talk_seconds", "greater_than", "60"), {"talk_seconds": "138"})
    assert not matches(condition("wait_seconds", "greater_than", "9"), {"wait_seconds": "10x"})


def test_huge_numbers_are_compared_exactly() -> None:
    value = 2**63 + 1
    assert matches(condition("n", "equals", str(value)), {"n": value})
    assert not matches(condition("n", "equals", str(value)), {"n": value + 1})
    assert matches(condition("n", "greater_than", 1), {"n": 10**400})


def test_a_part_of_an_object_is_reached_by_dots() -> None:
    assert matches(condition("fields.city", "equals", "київ"))
    assert matches(condition("fields.windows", "at_least", 2))
    assert not matches(condition("fields.city.more", "exists"))
    assert not matches(condition("fields.empty", "exists"))
    assert matches(condition("a.b", "equals", "flat"), {"a.b": "flat", "a": {"b": "deep"}})


def test_a_variable_may_be_given_by_its_older_name() -> None:
    assert matches(condition("duration", "at_least", 100))
    assert matches(condition("E164", "starts_with", "+380"))
    assert not matches(condition("duration", "at_least", 100), {"duration": 5})


def test_an_empty_filter_passes_everything() -> None:
    assert matches({})
    assert matches({}, {})
    assert compile_filter({}).is_empty
    assert compile_filter({}).explain(CALL) == []


def test_all_needs_every_condition_and_any_needs_one() -> None:
    true, false = condition("is_proper", "exists"), condition("missing", "exists")
    assert matches({"all": [true, true]})
    assert not matches({"all": [true, false]})
    assert matches({"any": [false, true]})
    assert not matches({"any": [false, false]})
    assert matches({"all": [true, {"any": [false, {"all": [true]}]}]})
    assert not matches({"any": [false, {"all": [true, {"any": [false]}]}]})


def test_a_refused_event_names_the_conditions_that_refused_it() -> None:
    tree = {
        "all": [
            condition("disposition", "equals", "ANSWERED"),
            {
                "any": [
                    condition("department", "equals", "Support"),
                    condition("duration_seconds", "at_least", 600),
                ]
            },
            condition("recording_url", "exists"),
        ]
    }
    refusals = compile_filter(tree).explain(CALL)
    assert [(r.variable, r.operator, r.value, r.actual) for r in refusals] == [
        ("department", "equals", "Support", "Відділ продажу"),
        ("duration_seconds", "at_least", 600, 138),
        ("recording_url", "exists", None, None),
    ]


def test_a_group_that_passes_refuses_nothing() -> None:
    tree = {
        "any": [condition("disposition", "equals", "BUSY"), condition("is_proper", "exists")],
    }
    assert compile_filter(tree).explain(CALL) == []


def test_a_long_value_is_shown_short() -> None:
    refusals = compile_filter(condition("x", "equals", "y")).explain({"x": "z" * 5000})
    assert len(refusal_words(refusals)) < 200


def nested(levels: int) -> dict[str, Any]:
    tree: dict[str, Any] = condition("x", "exists")
    for _level in range(levels):
        tree = {"all": [tree]}
    return tree


@pytest.mark.parametrize(
    ("tree", "path"),
    [
        (None, ()),
        ([], ()),
        ("true", ()),
        ({"all": []}, ("all",)),
        ({"any": {}}, ("any",)),
        ({"all": [{}]}, ("all", 0, "variable")),
        ({"all": [3]}, ("all", 0)),
        ({"all": [condition("a", "exists")], "any": []}, ()),
        ({"none": []}, ()),
        (condition("a", "exists") | {"more": 1}, ()),
        (condition("", "exists"), ("variable",)),
        (condition("x" * 1001, "exists"), ("variable",)),
        ({"variable": 3, "operator": "exists"}, ("variable",)),
        (condition("fields..city", "exists"), ("variable",)),
        (condition(".a", "exists"), ("variable",)),
        (condition("a.", "exists"), ("variable",)),
        (condition("a[b]", "exists"), ("variable",)),
        (condition("a[100]", "exists"), ("variable",)),
        (condition("a[]", "exists"), ("variable",)),
        (condition("a\\b", "exists"), ("variable",)),
        (condition("x." * 300, "exists"), ("variable",)),
        (condition("a", "matches", ".*"), ("operator",)),
        ({"variable": "a"}, ("operator",)),
        ({"variable": "a", "operator": ["equals"]}, ("operator",)),
        (condition("a", "equals"), ("value",)),
        (condition("a", "equals", ""), ("value",)),
        (condition("a", "equals", []), ("value",)),
        (condition("a", "equals", float("nan")), ("value",)),
        (condition("a", "contains", {}), ("value",)),
        (condition("a", "starts_with", "x" * 1001), ("value",)),
        (condition("a", "one_of", "abc"), ("value",)),
        (condition("a", "one_of", []), ("value",)),
        (condition("a", "one_of", ["a", {}]), ("value", 1)),
        (condition("a", "one_of", ["a"] * 1001), ("value",)),
        (
            {"all": [condition("a", "one_of", ["a"] * 600), condition("b", "one_of", [1] * 401)]},
            ("all", 1, "value"),
        ),
        (condition("a", "at_least", "soon"), ("value",)),
        (condition("a", "at_least", True), ("value",)),
        (condition("a", "at_least", "nan"), ("value",)),
        (condition("a", "at_least", float("inf")), ("value",)),
        (condition("a", "at_least", "1_000"), ("value",)),
        ({"any": [{"all": [condition("b", "")]}]}, ("any", 0, "all", 0, "operator")),
    ],
)
def test_a_wrong_filter_is_refused_at_the_part_that_is_wrong(
    tree: object, path: tuple[object, ...]
) -> None:
    with pytest.raises(FilterError) as raised:
        compile_filter(tree)
    assert raised.value.path == path
    assert str(raised.value).endswith(".")


def test_the_limits_are_the_documented_ones() -> None:
    compile_filter(nested(MAX_DEPTH))
    with pytest.raises(FilterError, match="nested"):
        compile_filter(nested(MAX_DEPTH + 1))
    compile_filter({"all": [condition("x", "exists")] * (MAX_CONDITIONS - 1)})
    with pytest.raises(FilterError, match="at most"):
        compile_filter({"all": [condition("x", "exists")] * MAX_CONDITIONS})


@pytest.mark.parametrize("name", ["a\\.b", "x.y.z[0][1]", "a b", ".".join("x" * 300), "*"])
def test_a_path_that_may_be_in_an_event_is_taken(name: str) -> None:
    compile_filter(condition(name, "exists"))


def test_a_hostile_filter_is_refused_without_deep_recursion() -> None:
    with pytest.raises(FilterError):
        compile_filter(nested(900))


def test_a_hostile_filter_matches_in_linear_time() -> None:
    pattern = "a" * 999 + "b"
    tree = {"any": [condition("x", "contains", pattern)] * (MAX_CONDITIONS - 1)}
    compiled = compile_filter(tree)

    def prepare(parts: int) -> Work:
        event = {"x": "a" * 25_000 * parts}
        return lambda: compiled.matches(event)

    assert not prepare(1)()
    assert growth(prepare, limit=LINEAR) < LINEAR


def test_patterns_are_plain_text() -> None:
    assert matches(condition("x", "contains", ".*"), {"x": "a.*b"})
    assert not matches(condition("x", "contains", ".*"), {"x": "ab"})
    assert not matches(condition("x", "equals", "__import__('os')"), {"x": "os"})


def test_every_operator_has_words() -> None:
    assert set(OPERATOR_LABELS) == set(Operator)


@pytest.mark.parametrize(
    ("older", "variable", "operator", "value"),
    [
        ({"duration": 120}, "duration_seconds", "at_least", 60),
        ({"employee_fio": "Олена"}, "employee_name", "equals", "Олена"),
        ({"billsec": 9}, "talk_seconds", "less_than", 10),
    ],
)
def test_a_value_is_found_by_the_name_it_was_published_under(
    older: dict[str, Any], variable: str, operator: str, value: object
) -> None:
    assert matches(condition(variable, operator, value), older)


def test_a_name_with_dots_is_found_as_it_is_and_escaped() -> None:
    for name in ("utm.source", r"utm\.source"):
        assert matches(condition(name, "equals", "google"), {"utm.source": "google"})


@pytest.mark.parametrize("path", ["fields.l[0].id", r"fields.a\.b", "fields.l.0.id"])
def test_a_path_reaches_what_a_mapping_reaches(path: str) -> None:
    document = {"fields": {"l": [{"id": 7}], "a.b": 7}}
    assert matches(condition(path, "equals", 7), document)
    assert not matches(condition(path, "exists"), {"fields": {"l": [], "a": {"c": 1}}})


def test_a_path_of_many_steps_is_followed() -> None:
    document: dict[str, Any] = {"k": 1}
    for _level in range(14):
        document = {"k": document}
    assert matches(condition(".".join(["k"] * 15), "equals", 1), document)


def test_the_whole_event_is_no_variable_of_a_filter() -> None:
    assert not matches(condition("*", "exists"), CALL)


@pytest.mark.parametrize(
    ("actual", "operator", "value", "is_match"),
    [
        ("48500.50", "equals", 48500.5, True),
        ("60.0", "equals", 60, True),
        ("60.5", "equals", 60, False),
        ("text", "equals", 60, False),
        ("60.0", "equals", "60", False),
        ("48500.50", "not_equals", 48500.5, False),
        ("60.0", "one_of", [1, 60], True),
        ([1.0], "contains", 1, True),
        (["1.0", 3], "contains", 1, True),
        ([2.0], "contains", 1, False),
        (["VIP"], "contains", "vip", True),
        (1, "equals", True, True),
        ("1", "equals", True, True),
        (0, "equals", True, False),
        (0, "equals", False, True),
        (True, "equals", 1, False),
        ("Київ й", "equals", "Київ и\u0306", True),
        ("Київ и\u0306", "contains", "й", True),
    ],
)
def test_equal_values_are_equal_however_they_are_written(
    actual: object, operator: str, value: object, is_match: bool
) -> None:
    assert matches(condition("x", operator, value), {"x": actual}) is is_match


@pytest.mark.parametrize("wanted", [True, False, "TRUE", " false ", 0, 1, "0", "1"])
@pytest.mark.parametrize("actual", [True, False, "true", "False", 0, 1, 1.0, "0", " 1"])
def test_a_boolean_is_the_same_in_every_notation(wanted: object, actual: object) -> None:
    is_same = (str(wanted).strip().lower() in ("true", "1")) is (
        str(actual).strip().lower() in ("true", "1", "1.0")
    )
    for name in ("is_proper", "proper_flag"):
        assert matches(condition(name, "equals", wanted), {name: actual}) is is_same
        assert matches(condition(name, "not_equals", wanted), {name: actual}) is not is_same
        assert matches(condition(name, "one_of", ["x", wanted]), {name: actual}) is is_same


@pytest.mark.parametrize("actual", [2, "yes", "01", -1, [1], {"a": 1}])
def test_what_is_no_boolean_equals_none(actual: object) -> None:
    for wanted in (True, False, 1, "0"):
        assert not matches(condition("is_proper", "equals", wanted), {"is_proper": actual})


@pytest.mark.parametrize(
    ("variable", "wanted", "actual", "is_match"),
    [
        ("amount", "48500.5", "48500.50", True),
        ("category_mark", "5", "5.0", True),
        ("duration_seconds", " 60.0", "60", True),
        ("queue_seconds", "6e1", "60", True),
        ("amount", "5", "50", False),
        ("amount", "n/a", "N/A", True),
        ("fields.code", "5", "5.0", False),
        ("employee_number", "5", "5.0", False),
    ],
)
def test_numbers_that_are_written_as_text_are_numbers(
    variable: str, wanted: str, actual: str, is_match: bool
) -> None:
    document = {"fields": {"code": actual}, variable: actual}
    assert matches(condition(variable, "equals", wanted), document) is is_match
    assert matches(condition(variable, "not_one_of", [wanted]), document) is not is_match


@pytest.mark.parametrize("before", [0, 1, 254, 255, 256, 300, 511])
@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("か\u3099", "が"),
        ("ｶﾞ", "ガ"),
        ("a\u0323\u0302", "ậ"),
        ("\u1112\u1161\u11ab", "한"),
        ("\u0bc6\u0bbe", "\u0bca"),
    ],
)
def test_a_character_of_several_parts_is_found_anywhere(
    before: int, written: str, wanted: str
) -> None:
    document = {"x": "あ" * before + written + "あ" * 300}
    assert matches(condition("x", "contains", wanted), document)
    assert not matches(condition("x", "contains", "か"), document)


@pytest.mark.parametrize("value", [10**40, -(10**400)])
def test_a_number_that_no_one_means_is_refused(value: int) -> None:
    with pytest.raises(FilterError, match="Give a number to compare with"):
        compile_filter(condition("duration_seconds", "at_least", value))
    with pytest.raises(FilterError, match="Give a number to compare with"):
        compile_filter(condition("duration_seconds", "one_of", [1, value]))


@pytest.mark.parametrize(
    ("wanted", "actual"),
    [
        ([1, "x"], 1.0),
        (["1.0"], 1),
        ([1], "1.0"),
        ([True], 1),
        ([True], "TRUE"),
        (["a", False], "0"),
        (["ЇЖАК"], "ї" + "жак"),
        (["\u0439"], "\u0418\u0306"),
        (['{"a":["x",1]}'], {"A": ["X", 1]}),
        (["null"], [None, 2, "null"]),
    ],
)
def test_a_value_equals_one_of_many_as_it_equals_one(wanted: list[Any], actual: object) -> None:
    passes = [matches(condition("v", "equals", one), {"v": actual}) for one in wanted]
    assert matches(condition("v", "one_of", wanted), {"v": actual}) is any(passes)
    assert matches(condition("v", "one_of", ["none", *wanted]), {"v": actual}) is any(passes)


@pytest.mark.parametrize(
    ("wanted", "elements", "contains"),
    [
        (2, ["1", "2"], True),
        ("2", ["1", 2.0], True),
        (True, [1.0, 1], True),
        (True, [1.0], False),
        ('{"a":1}', [{"A": 1}], True),
        ("b", ["abc"], False),
    ],
)
def test_a_list_contains_what_equals_an_element(
    wanted: object, elements: list[Any], contains: bool
) -> None:
    assert matches(condition("v", "contains", wanted), {"v": elements}) is contains


def test_a_letter_is_found_with_its_accent_however_long_the_text() -> None:
    text = "й" * 5_000 + " й" * 400
    decomposed = unicodedata.normalize("NFD", text)
    assert matches(condition("v", "contains", " й" * 50), {"v": decomposed})
