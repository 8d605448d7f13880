"""What the builder offers: variables by event type, operators and values by variable."""

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from django.utils.translation import gettext as _

from webhooks import catalogue
from webhooks.filters import OPERATOR_LABELS, Kind, Operator, kind_of, known
from webhooks.filters.kinds import fitting, takes_list
from webhooks.filters.operators import PRESENCE
from webhooks.filters.words import value_words
from webhooks.ui.webhook_form.filter_rows import PATH, Row

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

# What filters of calls are mostly about, in this order, above the long list.
_COMMON = (
    *("disposition", "duration_seconds", "talk_seconds", "wait_seconds", "department"),
    *("employee_name", "call_type", "is_repeated", "is_proper", "number_alias", "utm_source"),
)


class Choice(NamedTuple):
    value: str
    label: "StrOrPromise"
    is_chosen: bool = False


class Choices(NamedTuple):
    label: "StrOrPromise"
    choices: list[Choice]


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


def foreign_choice(row: Row) -> Choice | None:
    """Return the row's variable when it is in no list: it has its older name."""
    name = row.chosen
    if name in ("", PATH) or name not in catalogue.CURRENT_NAMES:
        return None
    variable = known(name)
    label = variable.label if variable else name
    return Choice(name, f"{label} ({name})", True)


def operator_choices(row: Row) -> list[Choice]:
    offered = list(fitting(row.kind))
    wanted = row.wanted_operator
    if wanted not in offered:
        # Stored by hand or through the API: odd, and not lost.
        offered.append(wanted)
    return [Choice(one.value, OPERATOR_LABELS[one], one is wanted) for one in offered]


def usual_operator(row: Row) -> str:
    return fitting(row.kind)[0].value


def control_of(row: Row) -> str:
    """Return how the value is entered: none, text, lines, choice or checks."""
    operator = row.wanted_operator
    if operator in PRESENCE:
        return "none"
    if takes_list(operator):
        return "checks" if row.choices else "lines"
    is_picked = bool(row.choices) and operator in (Operator.EQUALS, Operator.NOT_EQUALS)
    return "choice" if is_picked else "text"


def value_choices(row: Row) -> list[Choice]:
    """Return the values to pick from, with those that are set and not in the catalogue."""
    folded = {value.casefold() for value in row.values}
    known_values = {value.casefold() for value in row.choices}
    own = [value for value in row.values if value and value.casefold() not in known_values]
    return [
        Choice(value, _value_label(row, value), value.casefold() in folded)
        for value in (*row.choices, *own)
    ]


def placeholder_of(row: Row) -> str:
    if row.kind is Kind.DURATION:
        return _("90, 1:30 or 1m 30s")
    variable = known(row.variable)
    if variable is None or kind_of(row.variable) is Kind.OBJECT:
        return ""
    sample = str(variable.sample)
    return sample if len(sample) <= 40 else ""


def hint_of(row: Row, types: Collection[str]) -> tuple[str, bool]:
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


def _value_label(row: Row, value: str) -> str:
    return value_words(row.variable, value) if row.kind is Kind.BOOLEAN else value
