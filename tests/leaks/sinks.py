"""Places where a secret could appear, and the search through all of them.

A sink is one named text. Secrets that a page shows by design are named where the page is requested
(`shown`), never here.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from tests.leaks.forms import Leak, forms

# The timestamp, which makes log lines differ that are otherwise the same.
_TIME = re.compile(r"^\[?\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*( \+0000\])?")


class Sink(NamedTuple):
    # "page", "log", "redis", ...: used to count the kinds of places that were searched.
    kind: str
    name: str
    text: str
    # Kinds of secrets that this text may hold, because the person has just asked for them.
    shown: frozenset[str] = frozenset()


class Secrets:
    """Values to look for, by kind; a kind can have many values."""

    def __init__(self) -> None:
        self.values: dict[str, set[str]] = defaultdict(set)

    def add(self, kind: str, *values: str) -> None:
        self.values[kind].update(value for value in values if value)

    def spellings(self) -> list[tuple[str, str, str]]:
        """Return (kind, form, text) for each different text to look for."""
        found = {
            (kind, text): form
            for kind, values in self.values.items()
            for value in values
            for form, text in forms(value).items()
        }
        return [(kind, form, text) for (kind, text), form in found.items()]


def search(sinks: Iterable[Sink], secrets: Secrets) -> list[Leak]:
    """Return every spelling of every secret in every sink, except those shown by design.

    No secret contains a line break, and most lines occur in many pages and logs, so each distinct
    line is searched once.
    """
    holders: dict[str, set[Sink]] = defaultdict(set)
    for sink in sinks:
        for line in sink.text.split("\n"):
            holders[_TIME.sub("", line)].add(sink)
    lines = list(holders)
    everything = "\n".join(lines)
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    return [
        Leak(kind, form, f"{sink.kind}: {sink.name}", _around(lines[number], text))
        for kind, form, text in secrets.spellings()
        for number in {bisect_right(starts, at) - 1 for at in _places(everything, text)}
        for sink in holders[lines[number]]
        if kind not in sink.shown
    ]


def _places(everything: str, text: str) -> Iterator[int]:
    at = everything.find(text)
    while at >= 0:
        yield at
        at = everything.find(text, at + 1)


def _around(text: str, found: str) -> str:
    at = text.index(found)
    return text[max(0, at - 120) : at + len(found) + 40]
