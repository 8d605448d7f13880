"""Comparisons in conditions: operators, their labels, and the test for each value.

The time is linear in the size of the event: each value is folded once for all conditions, and
values of lists are looked up in sets.
"""

import json
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.catalogue import INSTANT
from webhooks.catalogue.phones import digits
from webhooks.payloads import instant_of_text

# Maximum length of a compared text and of a variable's name.
MAX_LENGTH = 1000
# Maximum digits of a compared number: more than people need, fewer than make arithmetic fail.
_MAX_DIGITS = 40
# Dialed in place of the plus in much of the world; minimum digits of a number with it, and without.
# Shorter numbers are extensions.
_INTERNATIONAL_PREFIX, _MIN_INTERNATIONAL, _MIN_NUMBER = "00", 9, 7

# Normalizing is quadratic in a run of combining marks, so a text is normalized in pieces.
_PIECE_LENGTH = 256
# Vowels and final consonants of Korean syllables combine, although they are no marks.
_KOREAN_PARTS = range(0x1160, 0x1200)
# Invisible characters that are copied along: soft hyphens, zero-width spaces, direction marks,
# variation selectors of emoji.
_INVISIBLE = re.compile(
    "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufe00-\ufe0f\ufeff]+"
)
# Turkish has two letters i: İ keeps a combining dot in lower case, and I may be the capital of ı.
_EQUIVALENTS = (("i\u0307", "i"), ("ı", "i"))
# The apostrophe in Ukrainian words depends on the keyboard or text editor; keyboards without one
# have a backtick or an acute accent.
_APOSTROPHES = "`\u00b4\u2018\u2019\u02b9\u02bc\u2032"
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
# A key and the beginning of its value, as `_COMPACT` writes them.
_MEMBER = re.compile(r'":(?:["\[{0-9tfn-]|\Z)')

Path = tuple[str | int, ...]


class Kind(StrEnum):
    TEXT = "text"
    # Compared by its digits.
    PHONE = "phone"
    CHOICE = "choice"
    # Compared as text, in UTC.
    DATETIME = "datetime"
    NUMBER = "number"
    # A number of seconds, typed and shown as a time.
    DURATION = "duration"
    # Senders also write 1 and 0, or text.
    BOOLEAN = "boolean"
    OBJECT = "object"
    # A field unknown to the catalogue; any operator may apply.
    ANY = "any"


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


OPERATOR_LABELS: dict[Operator, str | Promise] = {
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
# Operators that a missing value passes.
NEGATIVE = {
    Operator.NOT_EQUALS,
    Operator.NOT_ONE_OF,
    Operator.NOT_CONTAINS,
    Operator.NOT_EXISTS,
}
ABSENT = object()


class FilterError(ValueError):
    """An invalid filter; `path` leads to the wrong part."""

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.path = path


def present_value(found: Any) -> Any:
    # Senders write null, blank text or an empty collection for a missing value.
    is_blank = found.isspace() if isinstance(found, str) else found is None
    return ABSENT if is_blank or found in ("", [], {}) else found


class _Compared:
    """A value of an event, or the elements of a list, prepared for equality tests."""

    def __init__(self, values: list[Any], event: "Folded") -> None:
        self._event = event
        self._numbers = [value for value in values if _is_number(value)]
        self._others = [value for value in values if not _is_number(value)]

    @cached_property
    def numbers(self) -> set[int | float]:
        return set(self._numbers)

    @cached_property
    def number_texts(self) -> set[str]:
        return {_COMPACT.encode(number) for number in self._numbers}

    @cached_property
    def texts(self) -> set[str]:
        return {self._event.text(value).strip() for value in self._others}

    @cached_property
    def typed_numbers(self) -> set[int | float]:
        """Return the numbers that are written as text."""
        parsed = map(_number, self._others)
        return {number for number in parsed if number is not None}

    @cached_property
    def booleans(self) -> set[bool | None]:
        return set(map(as_boolean, (*self._numbers, *self._others)))

    @cached_property
    def phones(self) -> set[str]:
        return {self._event.phone(value) for value in (*self._numbers, *self._others)}

    @cached_property
    def moments(self) -> set[str]:
        # Responses, and fields without a sample, have times in any notation.
        return set(map(_moment, self._others))


class Folded:
    """The values of one event, each prepared once for every filter that reads it."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        # By id() of a value, because a part of an event has several names.
        self._texts: dict[int, str] = {}
        self._inner_texts: dict[int, str] = {}
        self._phones: dict[int, str] = {}
        self._compared: dict[tuple[int, bool], _Compared] = {}

    def text(self, value: Any) -> str:
        """Return a value for comparison: text without case, everything else as JSON."""
        if (known := self._texts.get(id(value))) is None:
            known = self._json(value) if isinstance(value, dict | list) else _fold(value)
            self._texts[id(value)] = known
        return known

    def inner_texts(self, value: Any) -> str:
        """Return the keys and texts within an object without JSON's escapes, divided by NUL."""
        if (known := self._inner_texts.get(id(value))) is None:
            known = self._inner_texts[id(value)] = "\0".join(map(_fold, _texts_in(value)))
        return known

    def phone(self, value: Any) -> str:
        """Return the digits of a phone number, or the text of any other value."""
        if (known := self._phones.get(id(value))) is None:
            known = self._phones[id(value)] = _phone(value) or self.text(value)
        return known

    def _json(self, value: Any) -> str:
        """Return JSON, built from parts that are also compared alone."""
        if isinstance(value, dict):
            members = (f"{_COMPACT.encode(_fold(k))}:{self._part(v)}" for k, v in value.items())
            return f"{{{','.join(members)}}}"
        if isinstance(value, list):
            return f"[{','.join(map(self._part, value))}]"
        # Folded first: a full-width quote becomes a plain one, which the encoder must escape.
        return _COMPACT.encode(_fold(value)) if isinstance(value, str) else _fold(value)

    def _part(self, value: Any) -> str:
        return self.text(value) if isinstance(value, dict | list) else self._json(value)

    def compared(self, value: Any, *, is_by_element: bool = False) -> _Compared:
        key = (id(value), is_by_element)
        if (known := self._compared.get(key)) is None:
            known = _Compared(value if is_by_element else [value], self)
            self._compared[key] = known
        return known


# Whether a present value passes.
Test = Callable[[Any, Folded], bool]


def make_test(operator: Operator, value: object, path: Path, kind: Kind) -> Test:
    """Return the test for a condition; values of some kinds match in any notation."""
    if operator in PRESENCE:
        return lambda actual, event: operator is Operator.EXISTS
    if operator in NUMERIC:
        return _numeric_test(operator, value, path)
    if operator in LISTS:
        if not isinstance(value, list) or not value:
            raise FilterError(_("Give a list of values to compare with."), path)
        wanted = [(item, (*path, index)) for index, item in enumerate(value)]
        is_one = _membership(wanted, kind)
        return lambda actual, event: is_one(event.compared(actual)) is (operator is Operator.ONE_OF)
    if operator in EQUALITY:
        equals = _membership([(value, path)], kind)
        return lambda actual, event: equals(event.compared(actual)) is (operator is Operator.EQUALS)
    return _text_test(operator, value, path, kind)


def _membership(wanted: list[tuple[object, Path]], kind: Kind) -> Callable[[_Compared], bool]:
    """Return a test for whether a compared value equals one of the wanted values."""
    texts: set[str] = set()
    numbers: set[int | float] = set()
    typed_numbers: set[int | float] = set()
    flags: set[str] = set()
    booleans: set[bool | None] = set()
    phones = {_phone(value) for value, _path in wanted if kind is Kind.PHONE} - {""}
    has_moments = kind in (Kind.DATETIME, Kind.ANY)
    typed = (_moment(value) for value, _path in wanted if has_moments)
    # Any other text is compared as text.
    moments = {moment for moment in typed if INSTANT.fullmatch(moment)}
    is_number = kind in (Kind.NUMBER, Kind.DURATION)
    for value, path in wanted:
        text = _wanted_text(value, path)
        if kind is Kind.BOOLEAN and (boolean := as_boolean(value)) is not None:
            booleans.add(boolean)
            continue
        if isinstance(value, bool):
            # Older senders write booleans as 0 and 1.
            flags |= {text, str(int(value))}
            continue
        number = _number(value)
        if number is not None:
            numbers.add(number)
        if isinstance(value, str):
            texts.add(text.strip())
        if number is not None and (is_number or not isinstance(value, str)):
            typed_numbers.add(number)
    texts |= flags

    def is_member(found: _Compared) -> bool:
        return (
            not numbers.isdisjoint(found.numbers)
            or bool(flags and not flags.isdisjoint(found.number_texts))
            or bool(texts and not texts.isdisjoint(found.texts))
            or bool(typed_numbers and not typed_numbers.isdisjoint(found.typed_numbers))
            or bool(booleans and not booleans.isdisjoint(found.booleans))
            or bool(phones and not phones.isdisjoint(found.phones))
            or bool(moments and not moments.isdisjoint(found.moments))
        )

    return is_member


def _text_test(operator: Operator, value: object, path: Path, kind: Kind) -> Test:
    text = _wanted_text(value, path)
    is_start = operator is Operator.STARTS_WITH
    has_digits = _digits_test(value, is_start=is_start) if kind is Kind.PHONE else None
    if is_start:
        text = text.lstrip() or text
        return lambda actual, event: (
            event.text(actual).lstrip().startswith(text)
            or (has_digits is not None and has_digits(event.phone(actual)))
        )
    is_member = _membership([(value, path)], kind)
    # JSON escapes quotes and backslashes of texts. A part of JSON itself has them too, and must not
    # match a text that quotes it.
    is_escaped = _COMPACT.encode(text)[1:-1] != text and _MEMBER.search(text) is None

    def test(actual: Any, event: Folded) -> bool:
        if isinstance(actual, list):
            contains = is_member(event.compared(actual, is_by_element=True))
        else:
            contains = (
                text in event.text(actual)
                or (is_escaped and isinstance(actual, dict) and text in event.inner_texts(actual))
                or (has_digits is not None and has_digits(event.phone(actual)))
            )
        return contains is (operator is Operator.CONTAINS)

    return test


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)


def _digits_test(value: object, *, is_start: bool) -> Callable[[str], bool] | None:
    """Return a test for the digits of `value` in a number, or at its start; None without digits.

    With a plus the digits must begin the number: +7 is a country code. A leading 00 counts as a
    plus only in a full number or at the start, as it may also be digits within a number.
    """
    typed = str(value) if isinstance(value, str) or type(value) is int else ""
    wanted = digits(typed)
    if not wanted:
        return None
    has_plus = "+" in unicodedata.normalize("NFKC", typed)
    international = wanted if has_plus else ""
    is_dialed = len(wanted) >= _MIN_INTERNATIONAL or (
        is_start and len(wanted) > len(_INTERNATIONAL_PREFIX)
    )
    if wanted.startswith(_INTERNATIONAL_PREFIX) and is_dialed:
        international, has_plus = wanted.removeprefix(_INTERNATIONAL_PREFIX), False

    def test(number: str) -> bool:
        is_number = number.isdecimal()
        if (
            international
            and is_number
            and len(number) >= _MIN_NUMBER
            and number.startswith(international)
        ):
            return True
        if has_plus and (is_number or len(wanted) < _MIN_NUMBER):
            return False
        return number.startswith(wanted) if is_start else wanted in number

    return test


def _numeric_test(operator: Operator, value: object, path: Path) -> Test:
    number = _number(value)
    if number is None or _is_too_large(number):
        raise FilterError(_("Give a number to compare with."), path)
    compare: dict[Operator, Callable[[float], bool]] = {
        Operator.GREATER_THAN: lambda actual: actual > number,
        Operator.AT_LEAST: lambda actual: actual >= number,
        Operator.LESS_THAN: lambda actual: actual < number,
        Operator.AT_MOST: lambda actual: actual <= number,
    }
    holds = compare[operator]

    def test(actual: Any, event: Folded) -> bool:
        found = _number(actual)
        return found is not None and holds(found)

    return test


def _wanted_text(value: object, path: Path) -> str:
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if not isinstance(value, str | int | float) or value == "" or not is_finite:
        raise FilterError(_("Give a value to compare with."), path)
    if _is_too_large(value):
        raise FilterError(_("Give a number to compare with."), path)
    text = _fold(value)
    # Folding may make a text longer or shorter.
    if min(len(text), len(str(value))) > MAX_LENGTH:
        message = _("A value has at most %d characters.") % MAX_LENGTH
        raise FilterError(message, path)
    return text


def _phone(value: object) -> str:
    """Return the digits of a phone number, without 00 before a country code, or ""."""
    if type(value) is int:
        value = str(value)
    found = digits(value) if isinstance(value, str) else ""
    is_international = found.startswith(_INTERNATIONAL_PREFIX) and len(found) >= _MIN_INTERNATIONAL
    return found.removeprefix(_INTERNATIONAL_PREFIX) if is_international else found


def _moment(value: object) -> str:
    """Return a time as events write it, other text unchanged, and "" for other types."""
    return instant_of_text(value.strip()) if isinstance(value, str) else ""


def as_boolean(value: object) -> bool | None:
    """Return the boolean that a sender may write as true, "true", 1 or "1", None for others."""
    if isinstance(value, str):
        return _BOOLEANS.get(value.strip().lower())
    return bool(value) if value in (0, 1) else None


def _is_too_large(value: object) -> bool:
    return isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: object) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return _parsed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) else None


def _parsed(text: str) -> int | float | None:
    # Parsing longer numbers is slow.
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


def _fold(value: Any) -> str:
    """Return a text without case and with look-alikes made equal (Unicode NFKC).

    A number, a boolean or null becomes JSON.
    """
    text = value if isinstance(value, str) else _COMPACT.encode(value)
    if text.isascii():
        return text.casefold().replace("`", "'")
    # Before NFKC, which takes an acute accent for a space with a combining mark.
    for apostrophe in _APOSTROPHES:
        text = text.replace(apostrophe, "'")
    pieces = _pieces(_INVISIBLE.sub("", text.casefold()))
    # NFKC may produce capitals.
    seen = "".join(unicodedata.normalize("NFKC", piece) for piece in pieces).casefold()
    for one, same in _EQUIVALENTS:
        seen = seen.replace(one, same)
    # A text of invisible characters only is kept: every text contains an empty one.
    return seen or text


def _pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces that end before a character which does not combine."""
    start = 0
    while start < len(text):
        end = start + _PIECE_LENGTH
        while start < end < len(text) and _is_combining(text[end]):
            end -= 1
        # A run of combining characters alone is cut anywhere.
        end = end if end > start else start + _PIECE_LENGTH
        yield text[start:end]
        start = end


def _is_combining(character: str) -> bool:
    """Return whether normalizing may combine a character with the one before it."""
    first = unicodedata.normalize("NFKD", character)[0]
    return unicodedata.category(first)[0] == "M" or ord(first) in _KOREAN_PARTS


def shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:99] + "…"
