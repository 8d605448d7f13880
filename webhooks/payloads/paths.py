"""Names as paths, `client.phone`, `tags[]`, `items[0].id`, and the document they form together.

A dot enters an object, a number in brackets an element of a list; empty brackets append to a list.
A backslash escapes a dot, a bracket or a backslash: `utm\\.source` is one key. Within a
placeholder, braces and bars must be escaped too.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from django.utils.translation import gettext as _

from webhooks.payloads.document import shown

MAX_NAME_LENGTH = 200
# Deeper than any receiver's own documents, and well below the limits of JSON parsers.
MAX_STEPS = 10
MAX_INDEX = 99
# The step written as `[]`.
APPEND = None

# Value of a row that is left out, unlike null, which is sent.
OMITTED = object()

Steps = tuple[str | int | None, ...]
Read = Callable[[Mapping[str, Any]], Any]

_KEY = re.compile(r"(?:\\[.\[\]\\{}|]|[^.\[\]\\])+")
_BRACKETS = re.compile(r"\[(\d{0,9})\]", re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


@lru_cache(maxsize=4096)
def parse_path(text: str) -> Steps:
    """Return the steps of a path. Raise ValueError with a sentence for people."""
    if len(text) > MAX_NAME_LENGTH:
        raise ValueError(_("A name has at most %d characters.") % MAX_NAME_LENGTH)
    steps: list[str | int | None] = []
    position = 0
    while True:
        key = _KEY.match(text, position)
        if key is None:
            raise ValueError(_unreadable(text, position))
        steps.append(_ESCAPE.sub(r"\1", key[0]))
        position = key.end()
        while brackets := _BRACKETS.match(text, position):
            steps.append(_index(brackets[1]))
            position = brackets.end()
        if len(steps) > MAX_STEPS:
            raise ValueError(_("A name goes at most %d levels deep.") % MAX_STEPS)
        if position == len(text):
            return tuple(steps)
        if text[position] != ".":
            raise ValueError(_unreadable(text, position))
        position += 1


def escape(key: str) -> str:
    """Escape a key so that it is one step of a path."""
    return re.sub(r"([.\[\]\\])", r"\\\1", key)


def spell(steps: Steps) -> str:
    """Return the path for steps; the inverse of `parse_path`."""
    text = ""
    for step in steps:
        if isinstance(step, str):
            text += ("." if text else "") + escape(step)
        else:
            text += "[]" if step is None else f"[{step}]"
    return text


def _index(digits: str) -> int | None:
    if not digits:
        return APPEND
    if int(digits) > MAX_INDEX:
        raise ValueError(_("A list in a name has at most %d elements.") % (MAX_INDEX + 1))
    return int(digits)


def _unreadable(text: str, position: int) -> str:
    if position >= len(text) or text[position] == ".":
        if not text:
            return _("Give this row a name, for example “client.phone”.")
        return _("There is nothing between two dots, or before or after one. Remove the dot.")
    if text[position] in "[]":
        return _(
            "Brackets come after a name and hold a number or nothing: “items[0].id” or “tags[]”."
        )
    return _(
        "“%s” cannot be read as a name. A backslash is written before . [ ] { } | or \\ only."
    ) % shown(text)


class _Container:
    """An object by key, or a list by index, in insertion order."""

    __slots__ = ("is_list", "members", "row")

    def __init__(self, *, is_list: bool, row: int) -> None:
        self.is_list = is_list
        self.row = row
        self.members: dict[str | int, _Container | _Leaf] = {}


class _Leaf:
    __slots__ = ("read", "row")

    def __init__(self, row: int, read: Read | None) -> None:
        self.row = row
        self.read = read


class Shape:
    """A document without values; each leaf reads its own from an event."""

    def __init__(self) -> None:
        self._root = _Container(is_list=False, row=0)
        self._spread: Read | None = None

    def spread(self, read: Read) -> None:
        """Add all fields that `read` returns at the top level, except those that have rows."""
        self._spread = read

    def add(self, steps: Steps, row: int, read: Read | None = None) -> None:
        """Add a leaf. Raise ValueError with a sentence about the conflicting row."""
        container = self._root
        for depth, step in enumerate(steps):
            key = self._key(container, step, steps[: depth + 1], row)
            if depth == len(steps) - 1:
                if key in container.members:
                    raise ValueError(_name_conflict(container.members[key], steps))
                container.members[key] = _Leaf(row, read)
                return
            container = self._enter(container, key, steps, depth, row)

    def build(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the document for the fields of an event."""
        built = _fill(self._root, fields)
        document: dict[str, Any] = {} if built is OMITTED else built
        if self._spread is None:
            return document
        own = self._root.members
        every = {key: value for key, value in self._spread(fields).items() if key not in own}
        return {**every, **document}

    def _key(
        self, container: _Container, step: str | int | None, path: Steps, row: int
    ) -> str | int:
        if isinstance(step, str):
            return step
        size = len(container.members)
        if step is None:
            return size
        if step > size:
            wanted = spell((*path[:-1], size))
            raise ValueError(
                _("Before “%(this)s” comes “%(wanted)s”. Add that row above.")
                % {"this": spell(path), "wanted": wanted}
            )
        return step

    def _enter(
        self, container: _Container, key: str | int, steps: Steps, depth: int, row: int
    ) -> _Container:
        """Return the container at a step, created if missing."""
        path = steps[: depth + 1]
        is_list = not isinstance(steps[depth + 1], str)
        found = container.members.get(key)
        if found is None:
            found = container.members[key] = _Container(is_list=is_list, row=row)
        if isinstance(found, _Leaf):
            raise ValueError(
                _("“%(name)s” holds the value of row %(row)d, so nothing can be inside it.")
                % {"name": spell(path), "row": found.row + 1}
            )
        if found.is_list != is_list:
            sentence = (
                _("“%(name)s” is a list in row %(row)d. Write a number in brackets after it.")
                if found.is_list
                else _("“%(name)s” is an object in row %(row)d. Write a dot and a key after it.")
            )
            raise ValueError(sentence % {"name": spell(path), "row": found.row + 1})
        return found


def _name_conflict(found: _Container | _Leaf, steps: Steps) -> str:
    if isinstance(found, _Leaf):
        sentence = _("“%(name)s” is the name of row %(row)d already. Rename or remove one of them.")
    else:
        sentence = _("“%(name)s” holds the values of row %(row)d, so it can have none of its own.")
    return sentence % {"name": spell(steps), "row": found.row + 1}


def _fill(container: _Container, fields: Mapping[str, Any]) -> Any:
    """Return the value of a container, or OMITTED if all its members are."""
    made: dict[str | int, Any] = {}
    for key, member in container.members.items():
        if isinstance(member, _Container):
            value = _fill(member, fields)
        else:
            value = member.read(fields) if member.read is not None else None
        if value is not OMITTED:
            made[key] = value
    if not made:
        return OMITTED
    # Omitted elements leave no gap in a list.
    return [made[index] for index in sorted(made)] if container.is_list else made
