"""Phone numbers as people write them, and the digits that are the same in every spelling."""

import re
import unicodedata

# Longer texts are no numbers; E.164 has 15 digits.
_MAX_LENGTH = 40
# Address books put invisible marks around a number that is copied.
_INVISIBLE = r"\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069"
_NUMBER = re.compile(
    rf"(?:tel:)?[+\d\s().\-/\u2010-\u2015\u2212{_INVISIBLE}]{{3,40}}", re.ASCII | re.IGNORECASE
)
_NOT_DIGITS = re.compile(r"[^0-9]+")


def digits(text: str) -> str:
    """Return the digits of a number as people write it; empty for any other text."""
    if len(text) > _MAX_LENGTH:
        return ""
    found = text.removeprefix("+")
    if found.isascii() and found.isdecimal():
        return found
    if not text.isascii():
        # Other spaces, and digits of full width.
        text = unicodedata.normalize("NFKC", text)
    return _NOT_DIGITS.sub("", text) if _NUMBER.fullmatch(text.strip()) else ""
