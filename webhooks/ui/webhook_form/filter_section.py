"""The Filter section of the webhook form: rows or JSON, what they mean, and what is wrong.

Knows no request and no event; how many events it matches is `webhooks.delivery_log.filter_preview`.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from django.http import QueryDict
from django.utils.translation import gettext as _

from webhooks import catalogue, filters
from webhooks.filters import (
    FITTING,
    LISTS,
    OPERATOR_LABELS,
    PRESENCE,
    PRESETS,
    FilterError,
    Kind,
    Operator,
    compile_filter,
    kind_of,
    known,
    value_words,
)
from webhooks.ui.webhook_form.filter_rows import (
    PATH,
    ConditionGroup,
    ConditionRow,
    edit_rows,
    from_post,
    from_tree,
    problem_of,
    to_tree,
)

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

# What filters of calls are mostly about, in this order, above the long list.
_COMMON = (
    *("disposition", "duration_seconds", "talk_seconds", "wait_seconds", "department"),
    *("employee_name", "call_type", "is_repeated", "is_proper", "number_alias", "utm_source"),
)
# The prefix of the actions of this section's buttons.
ACTION = "filter:"
_LONGEST_JSON = 200_000


class Choice(NamedTuple):
    value: str
    label: "StrOrPromise"
    is_chosen: bool = False


class Choices(NamedTuple):
    label: "StrOrPromise"
    choices: list[Choice]


class FilterSection:
    """What is posted or stored, as rows or as JSON, and judged only when asked."""

    def __init__(
        self,
        stored: Mapping[str, Any],
        data: Any = None,
        *,
        patterns: Any = (),
        is_checked: bool = False,
    ) -> None:
        self.is_posted = isinstance(data, QueryDict) and "filter-mode" in data
        self.types = catalogue.types_for(patterns)
        self.json_error = ""
        self.error = ""
        self.focus = ""
        self._stored = dict(stored)
        # A filter that does not compile can only have been written by hand; it is shown as such.
        is_readable = _problem(stored) == ""
        self.mode = "rows" if is_readable else "json"
        self.root = from_tree(stored) if is_readable else ConditionGroup(id=0)
        self.json_text = _written(stored)
        if self.is_posted:
            self._read(data)
        if self.is_posted and is_checked:
            self._check()

    @property
    def is_valid(self) -> bool:
        return not (self.json_error or self.error or any(row.errors for row in self.root.rows()))

    @property
    def changes(self) -> bool:
        """Return whether saving changes what the stored filter means."""
        return self.is_posted and self.tree != self._stored

    @property
    def tree(self) -> dict[str, Any]:
        """Return the tree to store: the stored one itself when it means the same."""
        if self.mode == "json":
            tree = _parsed(self.json_text)
            return tree if isinstance(tree, dict) else {}
        tree = to_tree(self.root)
        is_same = _problem(self._stored) == "" and tree == to_tree(from_tree(self._stored))
        return dict(self._stored) if is_same else tree

    @property
    def left_out(self) -> int:
        """Count the conditions that are not complete or not right yet."""
        if self.mode == "json":
            return 0
        return sum(row.is_blank or bool(problem_of(row)) for row in self.root.rows())

    @property
    def mistake(self) -> str:
        """Return what is wrong with the JSON, or the conditions together; empty when right."""
        return _problem(_parsed(self.json_text) if self.mode == "json" else to_tree(self.root))

    @property
    def is_wrong(self) -> bool:
        """Return whether a save would be refused; a condition that was only added means nothing."""
        is_rows = self.mode == "rows"
        return bool(self.mistake) or (is_rows and any(map(problem_of, self.root.rows())))

    @property
    def usable_tree(self) -> dict[str, Any]:
        """Return the tree of what is right so far; nothing when it is none."""
        tree = self.tree
        return {} if _problem(tree) else tree

    @property
    def sentence(self) -> str:
        """Return what passes so far; nothing while no condition is right."""
        tree = self.usable_tree
        if not tree and (self.left_out or self.mistake):
            return ""
        return filters.sentence(tree)

    def show_mistakes(self) -> None:
        """Put sentences at what is wrong, but not at what is only not typed yet."""
        for row in self.root.rows():
            row.errors = {} if row.is_incomplete else problem_of(row)

    @property
    def moves(self) -> list[tuple[str, str]]:
        return [("up", _("Move up")), ("down", _("Move down")), ("remove", _("Remove"))]

    @cached_property
    def variable_groups(self) -> list[Choices]:
        return variable_groups(self.types)

    @property
    def presets(self) -> list[dict[str, Any]]:
        return [{"key": preset.key, "label": preset.label} for preset in PRESETS]

    def problems(self) -> list[dict[str, Any]]:
        """Return every error as the form's summary lists them."""
        found = [
            {
                "target": f"filter-{row.id}-{part}",
                "label": _("Filter, condition %d") % row.number,
                "sentence": sentence,
            }
            for row in self.root.rows()
            for part, sentence in row.errors.items()
        ]
        if sentence := self.json_error or self.error:
            target = "filter-json" if self.json_error else "filter"
            found.append({"target": target, "label": _("Filter"), "sentence": sentence})
        return found

    def _read(self, data: QueryDict) -> None:
        self.mode = "json" if data.get("filter-mode") == "json" else "rows"
        self.root = from_post(data)
        self.json_text = data.get("filter-json", "")[:_LONGEST_JSON]
        action = data.get("action", "")
        if not action.startswith(ACTION):
            return
        verb = action.removeprefix(ACTION)
        if verb == "json" and self.mode == "rows":
            self.json_text = _written(to_tree(self.root))
            self.mode, self.focus = "json", "filter-json"
        elif verb == "rows" and self.mode == "json":
            self._leave_json()
        elif verb.startswith("variable:"):
            self._start_over(verb.removeprefix("variable:"))
        elif self.mode == "rows":
            self.focus = edit_rows(self.root, verb)

    def _start_over(self, part_id: str) -> None:
        """Begin a condition whose variable was just chosen with the usual operator for it."""
        for row in self.root.rows():
            if str(row.id) == part_id and row.variable and not any(row.values):
                row.operator = usual_operator(row)
                row.fit()

    def _leave_json(self) -> None:
        self.json_error = _problem(_parsed(self.json_text))
        if self.json_error:
            self.focus = "filter-json"
            return
        self.mode, self.root = "rows", from_tree(self.tree)

    def _check(self) -> None:
        if self.mode == "json":
            self.json_error = _problem(_parsed(self.json_text))
            return
        for row in self.root.rows():
            row.errors = problem_of(row)
        self.error = _problem(to_tree(self.root))


# ---- What the builder offers: variables by event type, operators and values by variable -------


def variable_groups(types: Collection[str]) -> list[Choices]:
    """Return the variables to choose from: common ones, those of the chosen events, the rest."""
    carried = _carried(types or catalogue.EVENT_TYPES)
    common = [name for name in _COMMON if name in carried]
    others = [name for name in _carried(catalogue.EVENT_TYPES) if name not in carried]
    carried_label = _("In the chosen events") if types else _("All variables")
    groups = [
        (_("Often used"), common),
        (carried_label, _sorted(name for name in carried if name not in common)),
        (_("In other events"), _sorted(others)),
    ]
    return [Choices(label, [_choice(name) for name in names]) for label, names in groups if names]


def foreign_choice(row: ConditionRow) -> Choice | None:
    """Return the row's variable when it is in no list: it has its older name."""
    name = row.chosen
    if name in ("", PATH) or name not in catalogue.CURRENT_NAMES:
        return None
    variable = known(name)
    label = variable.label if variable else name
    return Choice(name, f"{label} ({name})", True)


def operator_choices(row: ConditionRow) -> list[Choice]:
    offered = list(FITTING[row.kind])
    wanted = row.wanted_operator
    if wanted not in offered:
        # Stored by hand or through the API: odd, and not lost.
        offered.append(wanted)
    return [Choice(one.value, OPERATOR_LABELS[one], one is wanted) for one in offered]


def usual_operator(row: ConditionRow) -> str:
    return FITTING[row.kind][0].value


def control_of(row: ConditionRow) -> str:
    """Return how the value is entered: none, text, lines, choice or checks."""
    operator = row.wanted_operator
    if operator in PRESENCE:
        return "none"
    if operator in LISTS:
        return "checks" if row.choices else "lines"
    is_picked = bool(row.choices) and operator in (Operator.EQUALS, Operator.NOT_EQUALS)
    return "choice" if is_picked else "text"


def value_choices(row: ConditionRow) -> list[Choice]:
    """Return the values to pick from, with those that are set and not in the catalogue."""
    folded = {value.casefold() for value in row.values}
    known_values = {value.casefold() for value in row.choices}
    own = [value for value in row.values if value and value.casefold() not in known_values]
    return [
        Choice(value, _value_label(row, value), value.casefold() in folded)
        for value in (*row.choices, *own)
    ]


def placeholder_of(row: ConditionRow) -> str:
    if row.kind is Kind.DURATION:
        return _("90, 1:30 or 1m 30s")
    variable = known(row.variable)
    if variable is None or kind_of(row.variable) is Kind.OBJECT:
        return ""
    sample = str(variable.sample)
    return sample if len(sample) <= 40 else ""


def hint_of(row: ConditionRow, types: Collection[str]) -> tuple[str, bool]:
    """Return what to know about the row's variable, and whether that is a warning."""
    variable = known(row.variable) if row.variable else None
    if row.chosen == PATH:
        return _("The field's name in the event, with dots for inner ones: fields.city."), False
    if variable is None:
        return "", False
    if types and variable.name not in _carried(types):
        return _not_carried(variable.name), True
    if control_of(row) == "lines" and row.is_split_by_commas:
        return _("One value a line, or with commas between; in quotes a comma is kept."), False
    return str(variable.description), False


def _not_carried(name: str) -> str:
    keys = [key for key in catalogue.EVENT_TYPES if name in _carried([key])]
    labels = ", ".join(f"“{catalogue.EVENT_TYPES[key].label}”" for key in keys[:3])
    if not labels:
        return _("None of the chosen events has it.")
    return _("None of the chosen events has it. It is in %s.") % labels


def _carried(types: Iterable[str]) -> dict[str, Any]:
    """Return the names of the variables that at least one of the types carries."""
    return {
        variable.name: None
        for key in types
        if key in catalogue.EVENT_TYPES
        for variable in catalogue.variables_for(key)
        if variable.name != "attempt"
    }


def _sorted(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: str(_choice(name).label).casefold())


def _choice(name: str) -> Choice:
    variable = known(name)
    return Choice(name, variable.label if variable else name)


def _value_label(row: ConditionRow, value: str) -> str:
    return value_words(row.variable, value) if row.kind is Kind.BOOLEAN else value


def offered(row: ConditionRow, section: FilterSection) -> dict[str, Any]:
    """Return what the page needs to draw one row."""
    hint, is_warning = hint_of(row, section.types)
    return {
        "operators": operator_choices(row),
        "control": control_of(row),
        "values": value_choices(row),
        "placeholder": placeholder_of(row),
        "foreign": foreign_choice(row),
        "hint": hint,
        "is_warning": is_warning,
    }


def _parsed(text: str) -> object:
    """Return the JSON value of a text, {} for an empty one, or None when it is not JSON.

    NaN, NUL and half a surrogate pair are in no JSON that PostgreSQL stores.
    """
    if not text.strip():
        return {}
    try:
        parsed = json.loads(text)
        written = json.dumps(parsed, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return None
    return None if b"\\u0000" in written else parsed


def _problem(tree: object) -> str:
    if tree is None:
        return _("This is not JSON. A filter looks like the example below.")
    try:
        compile_filter(tree)
    except FilterError as error:
        place = " › ".join(str(step + 1 if isinstance(step, int) else step) for step in error.path)
        return f"{error} ({place})" if place else str(error)
    return ""


def _written(tree: object) -> str:
    return json.dumps(tree, ensure_ascii=False, indent=2) if tree else ""
