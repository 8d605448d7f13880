"""The condition builder: rows from a filter, a filter from rows, and its buttons."""

import json
from typing import Any

import pytest
from django.http import QueryDict

from webhooks.filters import PRESETS, compile_filter
from webhooks.ui.webhook_form.filter import FilterSection
from webhooks.ui.webhook_form.filter_rows import ConditionRow, from_tree, to_tree

MISSED = {"variable": "disposition", "operator": "equals", "value": "NO ANSWER"}
SHORT = {"variable": "duration_seconds", "operator": "less_than", "value": 90}
AGENT = {"variable": "employee_name", "operator": "contains", "value": "Олена"}
CITY = {"variable": "fields.city", "operator": "equals", "value": "Kyiv"}
LISTED = {"variable": "caller_number", "operator": "one_of", "value": ["380671", "380672"]}
SOME = {"variable": "disposition", "operator": "one_of", "value": ["BUSY", "FAILED"]}
REPEATED = {"variable": "is_repeated", "operator": "equals", "value": True}
FIRST = {"variable": "call_counter", "operator": "at_most", "value": 1}
PRESENT = {"variable": "recording_url", "operator": "exists"}
TREES: list[dict[str, Any]] = [
    {},
    {"all": [MISSED]},
    {"any": [MISSED, SHORT]},
    {"all": [SOME, {"any": [AGENT, CITY, {"all": [REPEATED, FIRST]}]}, PRESENT]},
    {"all": [LISTED]},
    {"all": [{"variable": "billsec", "operator": "at_least", "value": 2.5}]},
    {"all": [{"any": [MISSED]}, {"any": [SHORT]}]},
    {"all": [{"variable": "caller", "operator": "one_of", "value": ["Acme, Inc."]}]},
    {"all": [{"variable": "caller", "operator": "one_of", "value": ['"A, B" C', "D"]}]},
    {"all": [{"variable": "fields.windows", "operator": "equals", "value": 3}]},
    {"all": [{"variable": "fields.agreed", "operator": "not_equals", "value": True}]},
    {"all": [{"variable": "fields.size", "operator": "one_of", "value": [1.5, "2", 3]}]},
]


def posted(section: FilterSection, **fields: str | list[str]) -> QueryDict:
    """Return what a browser sends for the section as it is drawn, with some fields changed."""
    data = QueryDict(mutable=True)
    data["filter-mode"] = section.mode
    if section.mode == "json":
        data["filter-json"] = section.json_text
    else:
        _post_group(data, section.root)
    for name, value in fields.items():
        data.setlist(name.replace("_", "-"), value if isinstance(value, list) else [value])
    return data


def _post_group(data: QueryDict, group: Any) -> None:
    data[f"filter-{group.id}-kind"] = group.kind
    for child in group.children:
        if child.is_group:
            data.appendlist("filter-node", f"open-{child.id}")
            _post_group(data, child)
            data.appendlist("filter-node", "close")
            continue
        data.appendlist("filter-node", f"row-{child.id}")
        prefix = f"filter-{child.id}"
        data[f"{prefix}-was"] = child.variable
        data[f"{prefix}-variable"] = child.chosen
        data[f"{prefix}-typed"] = child.typed
        data[f"{prefix}-path"] = child.path
        data[f"{prefix}-operator"] = child.operator
        data.setlist(f"{prefix}-value", child.values)


def pressed(section: FilterSection, action: str, **fields: str | list[str]) -> FilterSection:
    """Return the section after pressing one of its buttons."""
    data = posted(section, **fields)
    data["action"] = f"filter:{action}"
    return FilterSection({}, data)


def saved(section: FilterSection, **fields: str | list[str]) -> FilterSection:
    return FilterSection({}, posted(section, **fields), is_checked=True)


def with_row(variable: str, operator: str, value: str | list[str]) -> FilterSection:
    """Return the section saved with one condition typed by hand."""
    section = pressed(FilterSection({}), "add:0")
    fields = {"filter_1_variable": variable, "filter_1_was": variable}
    return saved(section, **fields, filter_1_operator=operator, filter_1_value=value)


# ---- Rows and trees --------------------------------------------------------------------------


@pytest.mark.parametrize("tree", TREES, ids=json.dumps)
def test_a_filter_becomes_rows_and_the_same_filter_again(tree: dict[str, Any]) -> None:
    assert to_tree(from_tree(tree)) == tree


@pytest.mark.parametrize("tree", TREES, ids=json.dumps)
def test_a_form_that_is_sent_back_unchanged_changes_nothing(tree: dict[str, Any]) -> None:
    section = FilterSection(tree, posted(FilterSection(tree)), is_checked=True)
    assert section.is_valid
    assert not section.changes
    assert section.tree == tree


def test_a_stored_number_stays_one_when_another_condition_is_added() -> None:
    windows = {"variable": "fields.windows", "operator": "equals", "value": 3}
    section = FilterSection({"all": [windows]})
    section.root.children += from_tree({"all": [{"any": [MISSED]}]}).children
    section.root.children[-1].id = 5
    section = FilterSection({"all": [windows]}, posted(section), is_checked=True)
    assert section.tree == {"all": [windows, {"any": [MISSED]}]}


def test_a_number_that_becomes_true_is_a_change() -> None:
    stored = {"all": [{"variable": "fields.agreed", "operator": "equals", "value": 1}]}
    wanted = {"all": [{"variable": "fields.agreed", "operator": "equals", "value": True}]}
    data = QueryDict(mutable=True)
    data.update({"filter-mode": "json", "filter-json": json.dumps(wanted)})
    section = FilterSection(stored, data, is_checked=True)
    assert section.changes
    assert section.tree["all"][0]["value"] is True


def test_a_single_condition_is_kept_as_it_is_stored() -> None:
    section = FilterSection(MISSED, posted(FilterSection(MISSED)), is_checked=True)
    assert section.tree == MISSED
    assert not section.changes


def test_a_value_that_no_row_takes_is_shown_as_json_and_can_be_removed() -> None:
    negative = {"variable": "duration_seconds", "operator": "greater_than", "value": -1}
    stored = {"any": [negative, MISSED]}
    section = FilterSection(stored)
    assert section.mode == "json"
    assert json.loads(section.json_text) == stored
    rest = posted(FilterSection({"any": [MISSED]}))
    assert FilterSection(stored, rest, is_checked=True).tree == {"any": [MISSED]}


@pytest.mark.parametrize("value", ["Kyiv\nLviv", ["Kyiv\r\nLviv", "Odesa"]])
def test_a_value_of_several_lines_is_shown_as_json(value: object) -> None:
    operator = "one_of" if isinstance(value, list) else "equals"
    stored = {"any": [MISSED, {**CITY, "operator": operator, "value": value}]}
    section = FilterSection(stored)
    assert section.mode == "json"
    assert not FilterSection(stored, posted(section), is_checked=True).changes


def test_a_form_without_the_section_changes_no_filter() -> None:
    section = FilterSection({"all": [MISSED]}, QueryDict("name=CRM"), is_checked=True)
    assert not section.changes
    assert section.tree == {"all": [MISSED]}


@pytest.mark.parametrize("value", [True, 1, "1", "True"])
def test_a_stored_boolean_is_shown_as_one_of_two_choices(value: object) -> None:
    (row,) = FilterSection({"all": [REPEATED | {"value": value}]}).root.children
    assert isinstance(row, ConditionRow)
    assert row.value_choices == [("true", "true", True), ("false", "false", False)]
    assert row.condition() == REPEATED


@pytest.mark.parametrize(
    ("variable", "operator", "value", "stored"),
    [
        ("duration_seconds", "greater_than", "1:30", 90),
        ("duration_seconds", "greater_than", "1 m 30 s", 90),
        ("call_counter", "at_least", "3", 3),
        ("amount", "at_least", "2,5", 2.5),
        ("amount", "at_least", "0,500", 0.5),
        ("amount", "at_least", "1 500", 1500),
        ("amount", "at_least", "-48\u00a0500,50", -48500.5),
        ("amount", "at_least", "1\u202f234\u202f567", 1_234_567),
        ("duration_seconds", "at_least", "1 500", 1500),
        ("is_repeated", "equals", "true", True),
        ("caller_number", "equals", "007", "007"),
        ("caller_number", "one_of", "a\nb\n\n a ", ["a", "b"]),
        ("caller_number", "one_of", "Sales, Marketing,", ["Sales", "Marketing"]),
        ("caller_number", "one_of", '"Acme, Inc." , b\n"a"b', ["Acme, Inc.", "b", '"a"b']),
        ("amount", "one_of", "2,5\n3", [2.5, 3]),
        ("disposition", "one_of", ["BUSY", "FAILED"], ["BUSY", "FAILED"]),
    ],
)
def test_a_value_is_stored_as_its_variable_is_compared(
    variable: str, operator: str, value: str | list[str], stored: object
) -> None:
    section = with_row(variable, operator, value)
    assert section.is_valid
    assert section.tree["all"][0]["value"] == stored
    compile_filter(section.tree)


@pytest.mark.parametrize(
    ("variable", "operator", "value", "part", "words"),
    [
        ("", "equals", "x", "variable", "Choose a variable"),
        ("caller", "equals", "", "value", "Enter a value"),
        ("caller", "one_of", " \n ", "value", "Enter at least one value"),
        ("disposition", "equals", "", "value", "Choose a value"),
        ("disposition", "one_of", [], "value", "Tick at least one"),
        ("duration_seconds", "less_than", "soon", "value", "“soon” is not a duration"),
        ("call_counter", "less_than", "many", "value", "“many” is not a number"),
        ("call_counter", "less_than", "nan", "value", "number"),
        ("call_counter", "less_than", "1_000", "value", "“1_000” is not a number"),
        ("amount", "at_least", "1,500", "value", "two meanings. Enter 1500 or 1.5"),
        ("duration_seconds", "at_least", "1,500", "value", "two meanings. Enter 1500 or 1.5"),
        ("amount", "at_least", "1,234.56", "value", "“1,234.56” is not a number"),
        ("amount", "at_least", "12 34", "value", "“12 34” is not a number"),
        ("caller", "equals", "x" * 1001, "value", "at most 1000"),
    ],
)
def test_a_mistake_is_named_at_its_part_of_the_row(
    variable: str, operator: str, value: str | list[str], part: str, words: str
) -> None:
    section = with_row(variable, operator, value)
    assert not section.is_valid
    [problem] = section.problems()
    assert problem["target"] == f"filter-1-{part}"
    assert words in problem["sentence"]


def test_a_blank_row_and_an_empty_group_mean_nothing() -> None:
    section = pressed(pressed(FilterSection({"all": [MISSED]}), "add:0"), "group:0")
    section = saved(section)
    assert section.is_valid
    assert section.tree == {"all": [MISSED]}


def test_a_hostile_post_makes_no_error() -> None:
    data = QueryDict(mutable=True)
    data["filter-mode"] = "rows"
    tokens = ["close", "open-1", "row-1", "row-x", "open-", "row-99999999", "\0", "close", "close"]
    data.setlist("filter-node", tokens * 300)
    data["filter-1-variable"] = "\0caller"
    data["action"] = "filter:up:999999999999999999999999"
    assert FilterSection({}, data).tree == {}


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("variable", {"filter_1_variable": ".", "filter_1_path": "fields.ci\0ty"}),
        ("value", {"filter_1_variable": "employee_name", "filter_1_value": "Ol\0ena"}),
        ("value", {"filter_1_operator": "one_of", "filter_1_value": "\0"}),
    ],
)
def test_a_null_character_is_named_at_its_row_and_kept(part: str, fields: dict[str, str]) -> None:
    section = pressed(FilterSection({}), "add:0")
    typed = {
        "filter_1_variable": "caller",
        "filter_1_operator": "equals",
        "filter_1_value": "a",
        **fields,
    }
    section = saved(section, **typed, filter_1_was=typed["filter_1_variable"])
    assert not section.is_valid
    [row] = section.root.rows()
    assert row.errors == {part: "Null characters are not allowed."}
    assert "\0" in (row.path if part == "variable" else row.value)


def test_a_null_character_in_a_filter_as_json_is_named() -> None:
    condition = json.dumps({**MISSED, "value": "a\0b"})
    data = QueryDict(mutable=True)
    data.update({"filter-mode": "json", "filter-json": condition})
    section = FilterSection({}, data, is_checked=True)
    assert "Null characters are not allowed." in section.mistake
    assert section.json_text == condition


def test_too_many_conditions_are_refused_with_a_sentence() -> None:
    tree = {"all": [MISSED] * 199}
    section = pressed(pressed(FilterSection(tree), "add:0"), "add:0")
    fields = {f"filter_{n}_variable": "caller" for n in (200, 201)}
    fields |= {f"filter_{n}_was": "caller" for n in (200, 201)}
    section = saved(section, **fields, filter_200_value="a", filter_201_value="b")
    assert not section.is_valid
    assert "at most 200" in section.error


# ---- Buttons ---------------------------------------------------------------------------------


def test_a_condition_is_added_and_removed() -> None:
    section = pressed(FilterSection({"all": [MISSED]}), "add:0")
    assert [row.variable for row in section.root.rows()] == ["disposition", ""]
    added = list(section.root.rows())[1]
    assert section.focus == f"filter-{added.id}-variable"
    section = pressed(section, f"remove:{added.id}")
    assert section.tree == {"all": [MISSED]}
    assert section.focus == "filter-0-add"


def test_a_group_begins_with_the_other_kind_and_one_row() -> None:
    section = pressed(FilterSection({"all": [MISSED]}), "group:0")
    group = section.root.children[1]
    assert group.is_group
    assert (group.kind, len(list(group.rows()))) == ("any", 1)  # type: ignore[union-attr]


def test_conditions_move_within_into_and_out_of_groups() -> None:
    section = FilterSection({"all": [MISSED, {"any": [SHORT, AGENT]}]})
    row = section.root.children[0]
    section = pressed(section, f"down:{row.id}")
    assert section.tree == {"all": [{"any": [MISSED, SHORT, AGENT]}]}
    section = pressed(section, f"down:{row.id}")
    assert section.tree == {"all": [{"any": [SHORT, MISSED, AGENT]}]}
    section = pressed(pressed(section, f"up:{row.id}"), f"up:{row.id}")
    assert section.tree == {"all": [MISSED, {"any": [SHORT, AGENT]}]}
    assert pressed(section, f"up:{row.id}").tree == section.tree


def test_a_group_moves_as_a_whole() -> None:
    section = FilterSection({"all": [{"any": [SHORT, AGENT]}, MISSED]})
    group = section.root.children[0]
    assert pressed(section, f"down:{group.id}").tree == {"all": [MISSED, {"any": [SHORT, AGENT]}]}


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.key)
def test_a_preset_fills_in_its_conditions(preset: Any) -> None:
    section = pressed(FilterSection({}), f"preset:{preset.key}")
    assert section.tree == preset.tree
    assert saved(section).is_valid


def test_missed_and_then_busy_means_either() -> None:
    section = pressed(pressed(FilterSection({}), "preset:missed"), "preset:busy")
    [condition] = section.tree["all"]
    assert condition == {
        "variable": "disposition",
        "operator": "one_of",
        "value": ["NO ANSWER", "BUSY"],
    }


def test_a_preset_pressed_twice_adds_nothing() -> None:
    section = pressed(FilterSection({}), "preset:longer")
    again = pressed(section, "preset:longer")
    assert again.tree == section.tree
    assert again.focus == "filter-1-value"


def test_another_variable_takes_an_operator_that_fits() -> None:
    section = pressed(FilterSection({"all": [AGENT]}), "try", filter_1_variable="duration_seconds")
    [row] = section.root.rows()
    assert row.operator == "greater_than"
    section = pressed(FilterSection({"all": [SHORT]}), "try", filter_1_variable="is_repeated")
    [row] = section.root.rows()
    assert (row.operator, row.values[-1:]) == ("equals", ["true"])


@pytest.mark.parametrize("action", ["add:77", "remove:77", "up:", "preset:nothing", "group:x", ""])
def test_a_button_that_leads_nowhere_changes_nothing(action: str) -> None:
    assert pressed(FilterSection({"all": [MISSED]}), action).tree == {"all": [MISSED]}


# ---- What is offered -------------------------------------------------------------------------


def test_choices_are_picked_ticked_or_typed_by_operator() -> None:
    controls = [
        next(from_tree({"all": [condition]}).rows()).control
        for condition in (MISSED, SOME, AGENT, LISTED, PRESENT, REPEATED)
    ]
    assert controls == ["choice", "checks", "text", "lines", "none", "choice"]


def test_a_list_says_how_its_values_are_parted() -> None:
    tree = {"variable": "caller", "operator": "one_of", "value": ["Sales"]}
    (row,) = FilterSection(tree).root.rows()
    assert row.hint.startswith("One value per line, or separated by commas")


DIGITS = (
    "Only the digits of a number count: +1 (202) 555-0100 equals 12025550100. With a plus, a value "
    "matches only the start of a number."
)


@pytest.mark.parametrize("mode", ["rows", "json"])
@pytest.mark.parametrize(
    ("variable", "operator", "is_said"),
    [
        ("client_number", "equals", True),
        ("E164", "one_of", True),
        ("phone", "starts_with", True),
        ("phone", "exists", False),
        ("employee_number", "equals", False),
    ],
)
def test_that_a_phone_number_is_compared_by_its_digits_is_said_once(
    variable: str, operator: str, is_said: bool, mode: str
) -> None:
    value = {} if operator == "exists" else {"value": ["1"] if operator == "one_of" else "1"}
    section = FilterSection({"variable": variable, "operator": operator, **value})
    section.mode = mode
    (row,) = section.root.rows()
    assert (row.hint if mode == "rows" else section.note).endswith(DIGITS) is is_said
    assert mode == "json" or not section.note


@pytest.mark.parametrize("operator", ["contains", "not_contains"])
def test_that_digits_are_looked_for_anywhere_in_a_phone_number_is_said(operator: str) -> None:
    condition = {"variable": "client_number", "operator": operator, "value": "(202)"}
    (row,) = FilterSection(condition).root.rows()
    assert "wherever they are: (202) is also in +1 520 255-0100." in row.hint
    is_in = compile_filter(condition).matches({"client_number": "+1 520 255-0100"})
    assert is_in is (operator == "contains")


def test_a_condition_on_a_moment_says_how_it_is_written() -> None:
    tree = {"variable": "calldate", "operator": "starts_with", "value": "2026-05-14"}
    (row,) = FilterSection(tree).root.rows()
    assert row.hint == "Times in events are in UTC: 2026-05-14T09:26:31Z."


def test_a_variable_that_no_chosen_event_has_is_pointed_out() -> None:
    section = FilterSection({"all": [MISSED]}, patterns=["form.submitted"])
    [row] = section.root.rows()
    assert row.is_absent_in_events
    assert "Not in the chosen events. It is in “" in row.hint
    section = FilterSection({"all": [MISSED]}, patterns=["call.*"])
    [row] = section.root.rows()
    assert not row.is_absent_in_events


def test_variables_are_grouped_by_the_chosen_events() -> None:
    labels = [label for label, _ in FilterSection({}, patterns=["call.*"]).variable_groups]
    assert labels == ["Often used", "In the chosen events", "In other events"]
    offered_names = [
        name for _, choices in FilterSection({}).variable_groups for name, _ in choices
    ]
    assert len(offered_names) == len(set(offered_names)) > 60
    assert "attempt" not in offered_names


def test_an_older_name_that_is_stored_stays_chosen() -> None:
    section = FilterSection({"all": [{"variable": "billsec", "operator": "at_least", "value": 5}]})
    [row] = section.root.rows()
    assert row.chosen == "billsec"
    assert "(billsec)" in row.older_name


def test_an_odd_operator_that_is_stored_is_not_lost() -> None:
    tree = {"all": [{"variable": "is_proper", "operator": "starts_with", "value": "t"}]}
    section = FilterSection(tree, posted(FilterSection(tree)), is_checked=True)
    assert section.tree == tree


def test_mistakes_are_shown_but_not_what_is_only_not_typed_yet() -> None:
    section = pressed(FilterSection({"all": [SHORT]}), "try", filter_1_value="soon")
    section.show_mistakes()
    assert [list(row.errors) for row in section.root.rows()] == [["value"]]
    section = pressed(FilterSection({"all": [SHORT]}), "try", filter_1_value="")
    section.show_mistakes()
    assert [list(row.errors) for row in section.root.rows()] == [[]]
    assert section.left_out == 1


# ---- JSON ------------------------------------------------------------------------------------


def test_rows_become_json_and_rows_again() -> None:
    tree = {"all": [MISSED, {"any": [SHORT, AGENT]}]}
    section = pressed(FilterSection(tree), "json")
    assert json.loads(section.json_text) == tree
    assert section.mode == "json"
    section = pressed(section, "rows")
    assert (section.mode, section.tree) == ("rows", tree)


@pytest.mark.parametrize(("value", "words"), [("abc", "not a duration"), ("", "Enter a value")])
def test_a_condition_that_json_would_lose_is_corrected_first(value: str, words: str) -> None:
    section = pressed(FilterSection({"all": [MISSED, SHORT]}), "json", filter_2_value=value)
    section.show_mistakes()
    assert (section.mode, section.focus) == ("rows", "filter-2-value")
    assert [words in "".join(row.errors.values()) for row in section.root.rows()] == [False, True]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '"text"',
        '{"all": []}',
        '{"variable": "a", "operator": "exists", "value": NaN}',
        '{"variable": "a\\u0000", "operator": "exists"}',
        '{"variable": "a\\ud800", "operator": "exists"}',
        '{"variable": "a", "operator": "matches", "value": ".*"}',
        "[" * 100_000,
        "9" * 5000,
    ],
    ids=range(11),
)
def test_json_that_is_no_filter_is_refused_and_kept(text: str) -> None:
    section = pressed(FilterSection({}), "json")
    section = saved(section, filter_json=text)
    assert not section.is_valid
    assert section.json_text == text
    assert section.usable_tree == {}
    assert [problem["target"] for problem in section.problems()] == ["filter-json"]
    assert pressed(section, "rows").mode == "json"


def test_empty_json_is_no_filter() -> None:
    section = saved(pressed(FilterSection({"all": [MISSED]}), "json"), filter_json=" ")
    assert section.is_valid
    assert section.tree == {}


def test_a_stored_filter_that_does_not_compile_is_shown_as_json() -> None:
    section = FilterSection({"any": [{"variable": "a", "operator": "gone", "value": 1}]})
    assert section.mode == "json"
    assert '"gone"' in section.json_text


def test_groups_without_end_are_drawn_flat_after_some_depth() -> None:
    data = QueryDict(mutable=True)
    data["filter-mode"] = "rows"
    data.setlist("filter-node", [f"open-{number}" for number in range(1, 900)])
    section = FilterSection({}, data)
    assert 1 < max(group.depth for group in section.root.groups()) < 20
    assert to_tree(section.root) is not None


@pytest.mark.parametrize("path", ["fields..city", ".a", "a.", "a[b]", "a[]"])
def test_a_path_that_no_event_has_is_refused_at_its_row_and_kept(path: str) -> None:
    section = with_row(".", "equals", "Kyiv")
    section = saved(section, filter_1_path=path, filter_1_was=path)
    [row] = section.root.rows()
    assert list(row.errors) == ["variable"]
    assert (row.path, row.values) == (path, ["Kyiv"])
    assert section.usable_tree == {}
    [problem] = section.problems()
    assert problem["target"] == "filter-1-path"
