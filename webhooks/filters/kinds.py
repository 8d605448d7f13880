"""What a variable can be compared with: its kind, and the operators that make sense for it."""

from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from webhooks import catalogue
from webhooks.catalogue import Variable, VariableType
from webhooks.filters.operators import EQUALITY, LISTS, NUMERIC, PRESENCE, Operator

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class Kind(StrEnum):
    TEXT = "text"
    CHOICE = "choice"
    NUMBER = "number"
    # A number of seconds, typed and shown as a time.
    DURATION = "duration"
    BOOLEAN = "boolean"
    OBJECT = "object"
    # A field the catalogue does not know: everything may fit.
    ANY = "any"


_KINDS = {
    VariableType.INTEGER: Kind.NUMBER,
    VariableType.NUMBER: Kind.NUMBER,
    VariableType.BOOLEAN: Kind.BOOLEAN,
    VariableType.OBJECT: Kind.OBJECT,
}
_TEXT = (Operator.CONTAINS, Operator.NOT_CONTAINS, Operator.STARTS_WITH)
# The first is what a new condition begins with.
_FITTING: dict[Kind, tuple[Operator, ...]] = {
    Kind.TEXT: (*EQUALITY, *LISTS, *_TEXT, *PRESENCE),
    Kind.CHOICE: (*EQUALITY, *LISTS, *PRESENCE),
    Kind.NUMBER: (*NUMERIC, *EQUALITY, *LISTS, *PRESENCE),
    Kind.DURATION: (*NUMERIC, *EQUALITY, *PRESENCE),
    Kind.BOOLEAN: (Operator.EQUALS, *PRESENCE),
    Kind.OBJECT: (*PRESENCE, Operator.CONTAINS, Operator.NOT_CONTAINS),
    Kind.ANY: (*EQUALITY, *LISTS, *_TEXT, *NUMERIC, *PRESENCE),
}


def fitting(kind: Kind) -> tuple[Operator, ...]:
    """Return the operators that make sense for a kind, the usual one first."""
    return _FITTING[kind]


def is_numeric(operator: Operator) -> bool:
    return operator in NUMERIC


def takes_list(operator: Operator) -> bool:
    return operator in LISTS


def kind_of(name: str) -> Kind:
    variable = known(name)
    if variable is None:
        return Kind.DURATION if name.endswith("_seconds") else Kind.ANY
    kind = _KINDS.get(variable.type, Kind.TEXT)
    if variable.choices:
        return Kind.CHOICE
    is_duration = kind is Kind.NUMBER and variable.name.endswith("_seconds")
    return Kind.DURATION if is_duration else kind


def known(name: str) -> Variable | None:
    """Return the variable of this name or older name; None for a path or a field of no event."""
    return _all().get(catalogue.CURRENT_NAMES.get(name, name))


def label_of(name: str) -> "StrOrPromise":
    """Return a variable's label; that of a duration without its unit, which the value has."""
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
    # A payload cannot be asked for the number of the attempt: it does not count them.
    return {name: v for name, v in {**catalogue.VARIABLES, **carried}.items() if name != "attempt"}
