"""What a variable can be compared with: its kind, and the operators that make sense for it."""

from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from webhooks import catalogue
from webhooks.catalogue import Variable, VariableType
from webhooks.filters.operators import Operator

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
_EQUALITY = (Operator.EQUALS, Operator.NOT_EQUALS)
_LISTS = (Operator.ONE_OF, Operator.NOT_ONE_OF)
_NUMERIC = (Operator.GREATER_THAN, Operator.AT_LEAST, Operator.LESS_THAN, Operator.AT_MOST)
_TEXT = (Operator.CONTAINS, Operator.NOT_CONTAINS, Operator.STARTS_WITH)
_PRESENCE = (Operator.EXISTS, Operator.NOT_EXISTS)
# The first is what a new condition begins with.
_FITTING: dict[Kind, tuple[Operator, ...]] = {
    Kind.TEXT: (*_EQUALITY, *_LISTS, *_TEXT, *_PRESENCE),
    Kind.CHOICE: (*_EQUALITY, *_LISTS, *_PRESENCE),
    Kind.NUMBER: (*_NUMERIC, *_EQUALITY, *_LISTS, *_PRESENCE),
    Kind.DURATION: (*_NUMERIC, *_EQUALITY, *_PRESENCE),
    Kind.BOOLEAN: (Operator.EQUALS, *_PRESENCE),
    Kind.OBJECT: (*_PRESENCE, Operator.CONTAINS, Operator.NOT_CONTAINS),
    Kind.ANY: (*_EQUALITY, *_LISTS, *_TEXT, *_NUMERIC, *_PRESENCE),
}


def fitting(kind: Kind) -> tuple[Operator, ...]:
    """Return the operators that make sense for a kind, the usual one first."""
    return _FITTING[kind]


def is_numeric(operator: Operator) -> bool:
    return operator in _NUMERIC


def takes_list(operator: Operator) -> bool:
    return operator in _LISTS


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
