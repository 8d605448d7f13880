"""Make small changes to inputs, to get inputs that a grammar would never produce.

A variation depends only on the input it is made of, so that failures can be reproduced.
"""

import random
import zlib
from collections.abc import Iterator
from typing import Any

# Spellings that parsers disagree about, and characters that end a quoted or nested context.
TOKENS = (
    "@", ":", "/", "//", "\\", "#", "?", "%", "%00", "%2e", "%2f", "%40", "%0d%0a", "\r\n", "\n",
    "\r", "\t", "\0", " ", ".", "..", "[", "]", "::", "[::1]", "::ffff:127.0.0.1", "127.0.0.1",
    "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "10.0.0.1", "169.254.169.254", "localhost",
    "。", "．", "①", "ⓛ", "K", "ß", "İ", "\u00ad", "\u200b", "\u202e", "\ufeff", "\ud800", "é",
    "xn--", "xn--a", "%25eth0", "{{", "}}", "{%", "${", "{", "}", '"', "'", "`", "<", ">", "&",
    "=", ";", ",", "[]", "null", "true", "NaN", "Infinity", "-0", "1e999", "9" * 30, "0.1",
    "\x1b[31m", "\x7f", "\x85", "\u2028", "access_token", "error", "Bearer", "all", "any",
    "variable", "event",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**40, 0.5, 1e308, -0.0, "", " ",
    "0", "1", "true", "null", "\0", "\ud800", "\U0001f600", "a" * 300, [], {}, [[]], {"": {}},
    [None], {"a": [1, {"b": "c"}]}, "{{event}}", "fields.a.b", "a[0]", "2026-05-14T09:28:49Z",
)  # fmt: skip


def variations(given: Any, count: int) -> Iterator[Any]:
    """Yield this many inputs that differ from the given one in one to three places."""
    seed = zlib.crc32(repr(given).encode("utf-8", "backslashreplace"))
    chance = random.Random(seed)
    for _ in range(count):
        varied = given
        for _ in range(chance.choice((1, 1, 2, 3))):
            varied = vary(varied, chance)
        yield varied


def vary(given: Any, chance: random.Random) -> Any:
    """Return a value of the same type, changed in one place."""
    if isinstance(given, str):
        return _text(given, chance)
    if isinstance(given, bytes):
        return _text(given.decode("latin-1"), chance).encode("utf-8", "surrogatepass")
    if isinstance(given, bool):
        return not given
    if isinstance(given, dict) and given:
        key = chance.choice(list(given))
        return given | {key: _part(given[key], chance)}
    if isinstance(given, list | tuple) and given:
        place = chance.randrange(len(given))
        return type(given)([*given[:place], _part(given[place], chance), *given[place + 1 :]])
    return given


def varied_json(given: Any, chance: random.Random) -> Any:
    """Return JSON changed in one place, where shape and types may change too."""
    how = chance.randrange(8)
    if how == 0 or not isinstance(given, dict | list | str) or not given:
        return chance.choice(VALUES)
    if isinstance(given, str):
        return _text(given, chance)
    if isinstance(given, list):
        place = chance.randrange(len(given))
        if how == 1:
            return given[:place] + given[place + 1 :]
        if how == 2:
            return [*given, given[place]]
        return [*given[:place], varied_json(given[place], chance), *given[place + 1 :]]
    key = chance.choice(list(given))
    rest = {name: value for name, value in given.items() if name != key}
    if how == 1:
        return rest
    if how == 2:
        return rest | {_text(str(key), chance): given[key]}
    return given | {key: varied_json(given[key], chance)}


class Json(dict[str, Any]):
    """A part of an input whose shape may change too: `Json(tree=...)`."""


def _part(given: Any, chance: random.Random) -> Any:
    if isinstance(given, Json):
        return Json({key: varied_json(value, chance) for key, value in given.items()})
    return vary(given, chance)


def _text(given: str, chance: random.Random) -> str:
    start = chance.randrange(len(given) + 1)
    end = min(len(given), start + chance.randrange(4))
    how = chance.randrange(6)
    if how == 0:
        return given[:start] + given[end:]
    if how == 1:
        return given[:start] + given[start:end] * 3 + given[end:]
    if how == 2:
        return given[:start] + chr(chance.randrange(0x250)) + given[end:]
    if how == 3:
        return given[:start] + given[start:end].swapcase() + given[end:][::-1]
    return given[:start] + chance.choice(TOKENS) + given[end if how == 4 else start :]
