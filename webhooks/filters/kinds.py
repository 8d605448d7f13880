"""The kind of each variable, the operators for each kind, and common filters."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from webhooks import catalogue
from webhooks.catalogue import Variable, VariableType
from webhooks.filters.operators import EQUALITY, LISTS, NUMERIC, PRESENCE, Kind, Operator

_KINDS = {
    VariableType.INTEGER: Kind.NUMBER,
    VariableType.NUMBER: Kind.NUMBER,
    VariableType.BOOLEAN: Kind.BOOLEAN,
    VariableType.OBJECT: Kind.OBJECT,
    VariableType.DATETIME: Kind.DATETIME,
}
_TEXT = (Operator.CONTAINS, Operator.NOT_CONTAINS, Operator.STARTS_WITH)
# The operators that make sense for a kind; the first is the default of a new condition.
FITTING: dict[Kind, tuple[Operator, ...]] = {
    Kind.TEXT: (*EQUALITY, *LISTS, *_TEXT, *PRESENCE),
    Kind.PHONE: (*EQUALITY, *LISTS, *_TEXT, *PRESENCE),
    Kind.DATETIME: (*EQUALITY, *LISTS, *_TEXT, *PRESENCE),
    Kind.CHOICE: (*EQUALITY, *LISTS, *PRESENCE),
    Kind.NUMBER: (*NUMERIC, *EQUALITY, *LISTS, *PRESENCE),
    Kind.DURATION: (*NUMERIC, *EQUALITY, *PRESENCE),
    Kind.BOOLEAN: (Operator.EQUALS, *PRESENCE),
    Kind.OBJECT: (*PRESENCE, Operator.CONTAINS, Operator.NOT_CONTAINS),
    Kind.ANY: (*EQUALITY, *LISTS, *_TEXT, *NUMERIC, *PRESENCE),
}


def kind_of(name: str) -> Kind:
    variable = known(name)
    if variable is None:
        return Kind.DURATION if name.endswith("_seconds") else Kind.ANY
    kind = _KINDS.get(variable.type, Kind.TEXT)
    if variable.choices:
        return Kind.CHOICE
    if variable.is_phone:
        return Kind.PHONE
    is_duration = kind is Kind.NUMBER and variable.name.endswith("_seconds")
    return Kind.DURATION if is_duration else kind


def known(name: str) -> Variable | None:
    """Return the variable with this name or older name, None for paths and unknown fields."""
    return _all().get(catalogue.CURRENT_NAMES.get(name, name))


def label_of(name: str) -> str | Promise:
    """Return a variable's label; that of a duration without its unit, shown with the value."""
    variable = known(name)
    if variable is None:
        return name
    if kind_of(name) is Kind.DURATION:
        return str(variable.label).partition(",")[0]
    return variable.label


@lru_cache(maxsize=1)
def _all() -> dict[str, Variable]:
    types = catalogue.EVENT_TYPES
    carried = {v.name: v for key in types for v in catalogue.variables_for(key)}
    # Filters read the payload, which has no attempt number.
    return {name: v for name, v in {**carried, **catalogue.VARIABLES}.items() if name != "attempt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A ready-made filter, chosen by one click."""

    key: str
    label: str | Promise
    tree: Mapping[str, Any]
    # The value is a suggestion that most people change.
    asks_value: bool = False


def _preset(
    key: str, label: str | Promise, variable: str, value: object, operator: str = "equals"
) -> Preset:
    return Preset(
        key=key,
        label=label,
        tree={"all": [{"variable": variable, "operator": operator, "value": value}]},
        asks_value=operator != "equals",
    )


PRESETS: tuple[Preset, ...] = (
    _preset("missed", gettext_lazy("Missed calls"), "disposition", "NO ANSWER"),
    _preset("busy", gettext_lazy("Busy"), "disposition", "BUSY"),
    _preset("failed", gettext_lazy("Failed calls"), "disposition", "FAILED"),
    _preset("voicemail", gettext_lazy("Voicemail"), "disposition", "VOICEMAIL"),
    _preset("answered", gettext_lazy("Answered calls"), "disposition", "ANSWERED"),
    _preset("callback", gettext_lazy("Callbacks"), "insertion_type", "callback"),
    # Half a minute tells a conversation from a wrong number.
    _preset("longer", gettext_lazy("Longer than …"), "duration_seconds", 30, "greater_than"),
    _preset("repeated", gettext_lazy("Repeated calls"), "is_repeated", True),
    _preset("first", gettext_lazy("First calls"), "call_counter", 1),
    _preset("target", gettext_lazy("Target calls"), "is_proper", True),
    _preset("recorded", gettext_lazy("With a recording"), "has_recording", True),
)
