"""What a condition compares: operators, their words, and the test each makes of its value."""

import json
import math
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

# Of a compared text, a variable's name and a list.
MAX_LENGTH = 1000
# Of a compared number: more than any that a person means, and fewer than make arithmetic fail.
_MAX_DIGITS = 40

Path = tuple[str | int, ...]
# Whether a present value passes.
Test = Callable[[Any], bool]

_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class Operator(StrEnum):
    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    ONE_OF = "one_of"
    NOT_ONE_OF = "not_one_of"
    CONTAINS = "contains"
    NOT_CONTAINS = "not_contains"
    STARTS_WITH = "starts_with"
    GREATER_THAN = "greater_than"
    AT_LEAST = "at_least"
    LESS_THAN = "less_than"
    AT_MOST = "at_most"
    EXISTS = "exists"
    NOT_EXISTS = "not_exists"


OPERATOR_LABELS: dict[Operator, "StrOrPromise"] = {
    Operator.EQUALS: gettext_lazy("equals"),
    Operator.NOT_EQUALS: gettext_lazy("does not equal"),
    Operator.ONE_OF: gettext_lazy("is one of"),
    Operator.NOT_ONE_OF: gettext_lazy("is none of"),
    Operator.CONTAINS: gettext_lazy("contains"),
    Operator.NOT_CONTAINS: gettext_lazy("does not contain"),
    Operator.STARTS_WITH: gettext_lazy("starts with"),
    Operator.GREATER_THAN: gettext_lazy("is greater than"),
    Operator.AT_LEAST: gettext_lazy("is at least"),
    Operator.LESS_THAN: gettext_lazy("is less than"),
    Operator.AT_MOST: gettext_lazy("is at most"),
    Operator.EXISTS: gettext_lazy("has a value"),
    Operator.NOT_EXISTS: gettext_lazy("has no value"),
}
EQUALITY = (Operator.EQUALS, Operator.NOT_EQUALS)
LISTS = (Operator.ONE_OF, Operator.NOT_ONE_OF)
NUMERIC = (Operator.GREATER_THAN, Operator.AT_LEAST, Operator.LESS_THAN, Operator.AT_MOST)
PRESENCE = (Operator.EXISTS, Operator.NOT_EXISTS)
# The operators that a missing value passes.
NEGATIVE = {
    Operator.NOT_EQUALS,
    Operator.NOT_ONE_OF,
    Operator.NOT_CONTAINS,
    Operator.NOT_EXISTS,
}
ABSENT = object()


class FilterError(ValueError):
    """A filter that means nothing; `path` leads to the part that is wrong."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


def present_value(found: Any) -> Any:
    # Null, "" and empty collections are what senders put where there is no value.
    return ABSENT if found is None or found in ("", [], {}) else found


def make_test(operator: Operator, value: object, path: Path) -> Test:
    if operator in PRESENCE:
        return lambda actual: operator is Operator.EXISTS
    if operator in NUMERIC:
        return _numeric_test(operator, value, path)
    if operator in LISTS:
        if not isinstance(value, list) or not 0 < len(value) <= MAX_LENGTH:
            raise FilterError(_("Give a list of values to compare with."), path)
        tests = [_equality_test(item, (*path, index)) for index, item in enumerate(value)]
        is_wanted = operator is Operator.ONE_OF
        return lambda actual: any(test(actual) for test in tests) is is_wanted
    if operator in EQUALITY:
        equals = _equality_test(value, path)
        return lambda actual: equals(actual) is (operator is Operator.EQUALS)
    return _text_test(operator, value, path)


def _equality_test(value: object, path: Path) -> Test:
    text = _wanted_text(value, path)
    if isinstance(value, bool):
        # Older senders write their flags as 0 and 1.
        flags = (text, str(int(value)))
        return lambda actual: _text(actual) in flags
    number = _number(value)
    is_number = not isinstance(value, str)

    def equals(actual: Any) -> bool:
        if isinstance(actual, int | float) and not isinstance(actual, bool):
            return number is not None and actual == number
        if is_number:
            return _number(actual) == number
        return _text(actual) == text

    return equals


def _text_test(operator: Operator, value: object, path: Path) -> Test:
    text = _wanted_text(value, path)
    equals = _equality_test(value, path)
    if operator is Operator.STARTS_WITH:
        return lambda actual: _text(actual).startswith(text)

    def contains(actual: Any) -> bool:
        if isinstance(actual, list):
            return any(map(equals, actual))
        return text in _text(actual)

    return lambda actual: contains(actual) is (operator is Operator.CONTAINS)


def _numeric_test(operator: Operator, value: object, path: Path) -> Test:
    number = _number(value)
    if number is None or _is_absurd(number):
        raise FilterError(_("Give a number to compare with."), path)
    compare: dict[Operator, Callable[[float], bool]] = {
        Operator.GREATER_THAN: lambda actual: actual > number,
        Operator.AT_LEAST: lambda actual: actual >= number,
        Operator.LESS_THAN: lambda actual: actual < number,
        Operator.AT_MOST: lambda actual: actual <= number,
    }
    holds = compare[operator]

    def test(actual: Any) -> bool:
        found = _number(actual)
        return found is not None and holds(found)

    return test


def _wanted_text(value: object, path: Path) -> str:
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, str | int | float) or value == "" or not is_finite:
        raise FilterError(_("Give a value to compare with."), path)
    if _is_absurd(value):
        raise FilterError(_("Give a number to compare with."), path)
    text = _text(value)
    if len(text) > MAX_LENGTH:
        message = _("A value has at most %d characters.") % MAX_LENGTH
        raise FilterError(message, path)
    return text


def _is_absurd(value: object) -> bool:
    return isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS


def _number(value: object) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _parsed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def _parsed(text: str) -> int | float | None:
    # Parsing more is slow.
    if len(text) > _MAX_DIGITS or "_" in text:
        return None
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    """Return a value as it is compared: text without case, everything else as JSON.

    A letter with its accent is one character, whatever the sender's system made of it.
    """
    text = value if isinstance(value, str) else _COMPACT.encode(value)
    return text.casefold() if text.isascii() else unicodedata.normalize("NFC", text.casefold())


def shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"
