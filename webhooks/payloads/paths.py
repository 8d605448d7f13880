"""Names as paths: `client.phone`, `tags[]`, `items[0].id`.

A dot goes into an object, a number in brackets into a list, empty brackets add to a list. A
backslash takes the meaning from a dot, a bracket or a backslash: `utm\\.source` is one key.
"""

import re
from functools import lru_cache

from django.utils.translation import gettext as _

from webhooks.payloads.document import shown

MAX_NAME_LENGTH = 200
# Deeper than any receiver's own documents, and far from what a JSON parser refuses.
MAX_STEPS = 10
MAX_INDEX = 99
# The step that `[]` is.
APPEND = None

Steps = tuple[str | int | None, ...]

_KEY = re.compile(r"(?:\\[.\[\]\\]|[^.\[\]\\])+")
_BRACKETS = re.compile(r"\[(\d{0,9})\]", re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


@lru_cache(maxsize=4096)
def parse_path(text: str) -> Steps:
    """Return the steps of a path; raise ValueError with a sentence for people."""
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
    """Write a key so that it is one step of a path."""
    return re.sub(r"([.\[\]\\])", r"\\\1", key)


def spell(steps: Steps) -> str:
    """Write steps as the path they were read from."""
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
    return _("“%s” cannot be read as a name. A backslash is written before . [ ] or \\ only.") % (
        shown(text)
    )
