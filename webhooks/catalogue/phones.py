"""Phone numbers as people write them, and the digits that are the same in every spelling."""

import re

# Longer texts are no numbers; E.164 has 15 digits.
_MAX_LENGTH = 40
_NUMBER = re.compile(r"(?:tel:)?[+\d\s().\-/\u00a0\u2010-\u2013]{3,40}", re.ASCII | re.IGNORECASE)
_NOT_DIGITS = re.compile(r"[^0-9]+")


def digits(text: str) -> str:
    """Return the digits of a number as people write it; empty for any other text."""
    if len(text) > _MAX_LENGTH:
        return ""
    found = text.removeprefix("+")
    if found.isascii() and found.isdecimal():
        return found
    return _NOT_DIGITS.sub("", text) if _NUMBER.fullmatch(text.strip()) else ""
