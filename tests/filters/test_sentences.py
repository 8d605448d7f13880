"""A filter in words, durations as people type them, and which values may be compared how."""

import json
from typing import Any

import pytest
from django.utils import translation

from webhooks import filters
from webhooks.filters import (
    FITTING,
    PRESETS,
    Kind,
    Operator,
    compile_filter,
    condition_words,
    duration_text,
    kind_of,
    label_of,
    parse_duration,
    refusal_words,
    sentence,
)

MISSED = {"variable": "disposition", "operator": "equals", "value": "NO ANSWER"}
SHORT = {"variable": "duration_seconds", "operator": "less_than", "value": 90}
AGENT = {"variable": "employee_name", "operator": "contains", "value": "Олена"}


# ---- Durations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("90", 90),
        (" 90 ", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("1,5", 1.5),
        ("1:30", 90),
        ("90:00", 5400),
        ("1:02:03", 3723),
        ("1m 30s", 90),
        ("1m30s", 90),
        ("1 MIN 30 S", 90),
        ("2 h", 7200),
        ("1 day", 86_400),
        ("1.5 h", 5400),
        ("1 хв 30 с", 90),
        ("2 год", 7200),
        ("30 sec.", 30),
        ("5 секунд", 5),
        ("1 секунда", 1),
        ("2 години", 7200),
        ("1 година 5 хвилин", 3900),
        ("1 хвилина", 60),
        ("1 хвилину", 60),
    ],
)
def test_a_time_is_understood_as_people_type_it(typed: str, seconds: float) -> None:
    assert parse_duration(typed) == seconds


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "-5",
        "abc",
        "1:99",
        "1:2:3:4",
        "5 parsecs",
        "s",
        "1e5",
        "1_0",
        "nan",
        "١٢",
        "9" * 12,
    ],
)
def test_what_is_no_time_is_refused(typed: str) -> None:
    assert parse_duration(typed) is None


@pytest.mark.parametrize(
    "seconds", [0, 1, 59, 60, 61, 90, 3599, 3600, 3661, 90_000, 2.5, 1_000_000.5, 0.0001]
)
def test_a_written_time_is_read_back_as_the_same(seconds: float) -> None:
    assert parse_duration(duration_text(seconds)) == seconds


def test_a_time_is_written_with_its_units() -> None:
    assert duration_text(3690) == "1 h 1 min 30 s"
    assert duration_text(0) == "0 s"
    assert duration_text(-3) == "-3 s"
    assert duration_text(float("inf")) == "inf s"


@pytest.mark.parametrize("number", [10**15, 10**309, -(10**400), 1e300, -1e300])
def test_a_number_of_seconds_that_is_none_can_be_shown(number: float) -> None:
    assert len(duration_text(number)) < 120
    refused = compile_filter(SHORT).explain({"duration_seconds": abs(number)})
    assert refusal_words(refused)


# ---- Kinds -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("disposition", Kind.CHOICE),
        ("duration_seconds", Kind.DURATION),
        ("billsec", Kind.DURATION),
        ("is_repeated", Kind.BOOLEAN),
        ("call_counter", Kind.NUMBER),
        ("employee_name", Kind.TEXT),
        ("E164", Kind.PHONE),
        ("contact_phone", Kind.PHONE),
        ("additional_number", Kind.TEXT),
        ("fields", Kind.OBJECT),
        ("fields.city", Kind.ANY),
        ("queue_seconds", Kind.DURATION),
        ("no such field", Kind.ANY),
    ],
)
def test_a_variable_is_compared_by_what_it_is(name: str, kind: Kind) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_can_be_asked_for_its_presence(kind: Kind) -> None:
    assert {Operator.EXISTS, Operator.NOT_EXISTS} <= set(FITTING[kind])


def test_an_unknown_field_may_be_compared_in_every_way() -> None:
    assert set(FITTING[Kind.ANY]) == set(Operator)


def test_a_time_loses_its_unit_in_its_label_because_the_value_has_one() -> None:
    assert "s" not in str(label_of("duration_seconds")).partition(",")[2]
    assert label_of("fields.city") == "fields.city"


# ---- Words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", Operator)
def test_every_operator_has_a_phrase_of_its_own(operator: Operator) -> None:
    others = {condition_words("caller", other, ["a"]) for other in Operator if other != operator}
    mine = condition_words("caller", operator, ["a"])
    assert mine
    # ONE_OF with a single value reads like EQUALS.
    alike = {Operator.EQUALS, Operator.ONE_OF, Operator.NOT_EQUALS, Operator.NOT_ONE_OF}
    assert operator in alike or mine not in others


@pytest.mark.parametrize("value", [True, 1, "1", "true", " TRUE"])
def test_a_boolean_is_said_in_one_way(value: object) -> None:
    assert condition_words("is_proper", Operator.EQUALS, value) == "target call is true"
    tree = {"variable": "is_proper", "operator": "equals", "value": value}
    refused = compile_filter(tree).explain({"is_proper": "0"})
    assert refusal_words(refused) == "Target call is true, but here it is false"


def test_a_filter_is_said_in_one_sentence() -> None:
    tree = {"all": [MISSED, {"any": [SHORT, AGENT]}]}
    said = sentence(tree)
    assert said.startswith("Sent when ")
    assert " is NO ANSWER and (" in said
    assert " is under 1 min 30 s or " in said
    assert said.endswith("contains “Олена”)")


def test_a_field_without_a_label_is_named_as_it_is_written() -> None:
    condition = {"variable": "Status", "operator": "equals", "value": "new"}
    assert sentence(condition) == "Sent when Status is “new”"


def test_no_filter_is_said_too() -> None:
    assert sentence({}) == "Every chosen event is sent"


def test_a_group_of_one_needs_no_brackets() -> None:
    assert "(" not in sentence({"all": [MISSED, {"any": [AGENT]}]})
    either = {"any": [AGENT, SHORT]}
    assert "(" not in sentence({"all": [{"all": [either]}]})
    assert sentence({"all": [{"all": [either]}, MISSED]}) == sentence({"all": [either, MISSED]})


def test_of_a_long_list_the_rest_is_counted() -> None:
    tree = {"variable": "caller", "operator": "one_of", "value": [str(n) for n in range(10)]}
    assert sentence(tree).endswith("“5” or 4 more")


def test_a_refusal_says_what_was_asked_and_what_was_found() -> None:
    refusals = compile_filter({"all": [MISSED, SHORT]}).explain(
        {"disposition": "ANSWERED", "duration_seconds": 138}
    )
    said = refusal_words(refusals)
    assert "is NO ANSWER, but here it is ANSWERED" in said
    assert "is under 1 min 30 s, but here it is 2 min 18 s" in said
    assert said[0].isupper()


def test_a_missing_value_is_called_empty() -> None:
    assert refusal_words(compile_filter(AGENT).explain({})).endswith("but here it is empty")


def test_many_refusals_are_counted() -> None:
    tree = {"all": [{"variable": f"v{n}", "operator": "exists"} for n in range(5)]}
    assert refusal_words(compile_filter(tree).explain({})).endswith("; and 2 more")


def test_a_time_is_written_and_read_in_ukrainian() -> None:
    with translation.override("uk"):
        assert parse_duration(duration_text(3690)) == 3690


# ---- Judgements and presets ------------------------------------------------------------------


def test_a_judgement_has_the_shape_of_its_filter() -> None:
    tree = {"all": [MISSED, {"any": [SHORT, AGENT]}]}
    judgement = compile_filter(tree).judge({"disposition": "NO ANSWER", "duration_seconds": 300})
    assert judgement is not None
    assert (judgement.group, judgement.passes) == ("all", False)
    missed, group = judgement.children
    assert (missed.passes, missed.variable, missed.actual) == (True, "disposition", "NO ANSWER")
    assert (group.group, group.passes) == ("any", False)
    assert [child.actual for child in group.children] == [300, None]


def test_no_filter_makes_no_judgement() -> None:
    assert compile_filter({}).judge({"disposition": "BUSY"}) is None


CALLS: dict[str, dict[str, Any]] = {
    "missed": {"disposition": "NO ANSWER"},
    "busy": {"disposition": "BUSY"},
    "failed": {"disposition": "FAILED"},
    "voicemail": {"disposition": "VOICEMAIL"},
    "answered": {"disposition": "ANSWERED"},
    "callback": {"insertion_type": "callback"},
    "longer": {"duration_seconds": 31},
    "repeated": {"is_repeated": True},
    "first": {"call_counter": 1},
    "target": {"is_proper": True},
    "recorded": {"has_recording": True},
}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_a_preset_lets_through_its_own_calls_and_no_others(preset: filters.Preset) -> None:
    compiled = compile_filter(preset.tree)
    assert {key for key, call in CALLS.items() if compiled.matches(call)} == {preset.key}
    assert json.loads(json.dumps(preset.tree)) == preset.tree
