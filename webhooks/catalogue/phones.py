"""Phone numbers: normalize them to digits, and find them by columns of digits.

The columns of an event hold the digits in reverse. People search with or without country code or
trunk prefix, or for the last digits only. In reverse the known digits are a prefix, which an index
finds.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

# Longer texts are not phone numbers; E.164 allows 15 digits.
_MAX_LENGTH = 40
# Invisible marks that address books put around copied numbers.
_INVISIBLE = r"\u00ad\ufeff\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069"
_NUMBER = re.compile(
    rf"(?:tel:)?[+\d\s().\-/\u2010-\u2015\u2212{_INVISIBLE}]{{3,40}}", re.ASCII | re.IGNORECASE
)
# A trunk prefix, dialed only within the country: +44 (0)20 is +44 20. Italy always dials the zero,
# and in +38 (0)67 it belongs to the country code of Ukraine, 380.
_TRUNK_PREFIX = re.compile(
    r"(?<![0-9])((?:\+|00)\s*(?!39|38[\s.\-]*\()[0-9][0-9\s.\-]*)\(0\)", re.ASCII
)
_NOT_DIGITS = re.compile(r"[^0-9]+")

_MAX_DIGITS = 20
# An extension has three digits.
_MIN_DIGITS = 3
# With fewer digits too many numbers match.
MIN_SEARCHED = 5
# For users who may not see phone numbers: with fewer digits a number could be guessed digit by
# digit.
MIN_KNOWN = 8
# Shortest national number that is searched for as a complete number.
_MIN_NATIONAL = 7
# The longest country code.
_COUNTRY_DIGITS = 3
# In a dozen countries this trunk prefix begins eleven digits of a national number.
_TRUNK, _TRUNK_LENGTH = "8", 11
# Payload fields with each number, best first.
_CALLER = ("caller_e164", "E164", "caller_number", "caller")
_CALLEE = ("dst",)
_CLIENT = ("client_number", "phone", "contact_phone")
_COMPANY = ("company_number", "outbound_number")
_GROUPS = (_CALLER, _CALLEE, _CLIENT, _COMPANY)
# The column of each field, in order of preference.
_COLUMNS = {name: column for column, names in enumerate(_GROUPS) for name in names}
_ORDER = {name: order for order, name in enumerate(_COLUMNS)}.__getitem__


def digits(text: str) -> str:
    """Return the digits of a phone number in any notation, or "" for any other text."""
    if len(text) > _MAX_LENGTH:
        return ""
    found = text.removeprefix("+")
    if found.isascii() and found.isdecimal():
        return found
    if not text.isascii():
        # Normalizes other spaces, full-width digits and digits of other scripts.
        text = "".join(map(_as_ascii, unicodedata.normalize("NFKC", text)))
    if "(0)" in text:
        text = _TRUNK_PREFIX.sub(r"\1", text)
    return _NOT_DIGITS.sub("", text) if _NUMBER.fullmatch(text.strip()) else ""


def _as_ascii(sign: str) -> str:
    return str(unicodedata.decimal(sign)) if sign.isdecimal() else sign


class PhoneNumbers(NamedTuple):
    """The phone numbers of one event by column, without repetition."""

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


def display_number(backwards: str) -> str:
    """Return a number for display, from the reversed digits of a column."""
    found = backwards[::-1]
    return f"+{found}" if len(found) >= _TRUNK_LENGTH and found[0] not in "08" else found


class NumberRange(NamedTuple):
    """A search for a number: columns in [begin, end), or equal to one of `shorter`."""

    begin: str
    end: str
    shorter: list[str]


def search(words: str, *, least: int = MIN_SEARCHED) -> NumberRange | None:
    """Return the search for a number in any notation, or None if it is no phone number.

    `least` is the minimum number of digits without a trunk prefix.
    """
    known = digits(words).lstrip("0")[:_MAX_DIGITS]
    if len(known) == _TRUNK_LENGTH and known.startswith(_TRUNK):
        known = known[1:].lstrip("0")
    if len(known) < least:
        return None
    begin = known[::-1]
    # The first text after all those that begin with it; letters sort after digits.
    head = begin.rstrip("9")
    end = f"{head[:-1]}{int(head[-1]) + 1}" if head else "a"
    # Numbers stored without the country code, possibly with a trunk prefix.
    shorter = [
        begin[:length] + trunk
        for length in range(max(len(begin) - _COUNTRY_DIGITS, _MIN_NATIONAL), len(begin))
        for trunk in ("", "0", _TRUNK)
    ]
    return NumberRange(begin, end, shorter)
