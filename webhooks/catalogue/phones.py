"""Phone numbers: the digits that are the same in every spelling, and the columns they are found by.

The columns of an event hold digits from the last to the first. People know a number with or without
its country code, with the trunk prefix or without, or only its end. Backwards, what they know is
the beginning, which an index finds.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

# Longer texts are no numbers; E.164 has 15 digits.
_MAX_LENGTH = 40
# Address books put invisible marks around a number that is copied.
_INVISIBLE = r"\u00ad\ufeff\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069"
_NUMBER = re.compile(
    rf"(?:tel:)?[+\d\s().\-/\u2010-\u2015\u2212{_INVISIBLE}]{{3,40}}", re.ASCII | re.IGNORECASE
)
# Dialed within a country only: +44 (0)20 is +44 20. In Italy the zero is always dialed.
_TRUNK_PREFIX = re.compile(r"(?<![0-9])((?:\+|00)\s*(?!39)[0-9][0-9\s.\-]*)\(0\)", re.ASCII)
_NOT_DIGITS = re.compile(r"[^0-9]+")

_MAX_DIGITS = 20
# An extension has three digits.
_MIN_DIGITS = 3
# Fewer digits are the end of too many numbers.
MIN_SEARCHED = 5
# Who may not see numbers has to know one: by its end it could be guessed, digit after digit.
MIN_KNOWN = 8
# How many digits of a national number stand for the whole of it.
_MIN_NATIONAL = 7
# The longest country code.
_COUNTRY_DIGITS = 3
# Eleven digits after this trunk prefix are a national number in a dozen countries.
_TRUNK, _TRUNK_LENGTH = "8", 11
# The names of a payload that hold each number, the best first.
_CALLER = ("caller_e164", "E164", "caller_number", "caller")
_CALLEE = ("dst",)
_CLIENT = ("client_number", "phone", "contact_phone")
_COMPANY = ("company_number", "outbound_number")
_GROUPS = (_CALLER, _CALLEE, _CLIENT, _COMPANY)
# The column of each, in the order of preference.
_COLUMNS = {name: column for column, names in enumerate(_GROUPS) for name in names}
_ORDER = {name: order for order, name in enumerate(_COLUMNS)}.__getitem__


def digits(text: str) -> str:
    """Return the digits of a number as people write it; empty for any other text."""
    if len(text) > _MAX_LENGTH:
        return ""
    found = text.removeprefix("+")
    if found.isascii() and found.isdecimal():
        return found
    if not text.isascii():
        # Other spaces, and digits of full width and of other scripts.
        text = "".join(map(_as_ascii, unicodedata.normalize("NFKC", text)))
    if "(0)" in text:
        text = _TRUNK_PREFIX.sub(r"\1", text)
    return _NOT_DIGITS.sub("", text) if _NUMBER.fullmatch(text.strip()) else ""


def _as_ascii(sign: str) -> str:
    return str(unicodedata.decimal(sign)) if sign.isdecimal() else sign


class PhoneNumbers(NamedTuple):
    """The numbers of one event, in the order of their columns; each is there once."""

    caller_digits: str | None
    callee_digits: str | None
    client_digits: str | None
    company_digits: str | None


_NONE = PhoneNumbers(None, None, None, None)


def numbers_of(payload: Mapping[str, object]) -> PhoneNumbers:
    names = _COLUMNS.keys() & payload.keys()
    if not names:
        return _NONE
    found: list[str | None] = [None] * len(_GROUPS)
    decided: set[int] = set()
    for name in sorted(names, key=_ORDER):
        column = _COLUMNS[name]
        if column not in decided and (number := _backwards(payload[name])):
            decided.add(column)
            if number not in found:
                found[column] = number
    return PhoneNumbers._make(found)


def _backwards(value: object) -> str | None:
    if isinstance(value, int) and 0 < value < 10**_MAX_DIGITS:
        value = str(value)
    found = digits(value) if isinstance(value, str) else ""
    return found[::-1] if _MIN_DIGITS <= len(found) <= _MAX_DIGITS else None


def written(backwards: str) -> str:
    """Return a number as a column holds it for people."""
    found = backwards[::-1]
    return f"+{found}" if len(found) >= _TRUNK_LENGTH and found[0] not in "08" else found


class NumberRange(NamedTuple):
    """What finds a number: columns in [begin, end), or one of `shorter`."""

    begin: str
    end: str
    shorter: list[str]


def search(words: str, *, least: int = MIN_SEARCHED) -> NumberRange | None:
    """Return what finds the columns of this number in every spelling; None if it is no number.

    `least` is how many digits it has to have, without a trunk prefix.
    """
    known = digits(words).lstrip("0")[:_MAX_DIGITS]
    if len(known) == _TRUNK_LENGTH and known.startswith(_TRUNK):
        known = known[1:].lstrip("0")
    if len(known) < least:
        return None
    begin = known[::-1]
    # The next text that does not begin so; letters come after digits.
    head = begin.rstrip("9")
    end = f"{head[:-1]}{int(head[-1]) + 1}" if head else "a"
    # Stored without the country code, perhaps with a trunk prefix.
    shorter = [
        begin[:length] + trunk
        for length in range(max(len(begin) - _COUNTRY_DIGITS, _MIN_NATIONAL), len(begin))
        for trunk in ("", "0", _TRUNK)
    ]
    return NumberRange(begin, end, shorter)
