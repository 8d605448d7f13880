"""Stored messages: a code with parameters, made into a sentence when it is shown.

A column holds compact JSON such as `{"code":"timeout","seconds":15}`, one message per line. A
parameter may itself be a stored message. Each package that stores messages has one table from its
codes to sentences; `render` uses the active language.
"""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from django.utils.functional import Promise

# A string with %(name)s for each parameter (also from ngettext_lazy), or a function of them.
Sentence = str | Promise | Callable[..., str]
_START = '{"code":"'


class Message(NamedTuple):
    """A stored message: its code, and its parameters as JSON values."""

    code: str
    params: dict[str, str | int]


def dump(code: str, /, **params: str | int) -> str:
    """Return a message as stored text. No parameter may be named `code`."""
    return json.dumps({"code": code, **params}, ensure_ascii=False, separators=(",", ":"))


def load(text: str) -> Message | None:
    """Return the message in a stored text, or None if the text is no message."""
    if not text.startswith(_START):
        return None
    try:
        params = json.loads(text)
    except ValueError:
        return None
    code = params.pop("code")
    return Message(code, params) if isinstance(code, str) else None


def cut(text: str, max_length: int) -> str:
    """Return a stored text cut to fit: the first message, with its longest parameters cut.

    A parameter that is itself a message is cut in the same way. Empty if cutting is not enough.
    """
    if len(text) <= max_length:
        return text
    message = load(text.partition("\n")[0])
    if message is None:
        return text[:max_length]
    params = dict(message.params)
    while len(kept := dump(message.code, **params)) > max_length:
        lengths = {name: len(value) for name, value in params.items() if isinstance(value, str)}
        longest = max(lengths, key=lengths.__getitem__, default="")
        if not lengths.get(longest):
            return ""
        # A character may take two in JSON, so half of the excess is cut each time.
        less = max(1, (len(kept) - max_length) // 2)
        params[longest] = cut(str(params[longest]), max(0, lengths[longest] - less))
    return kept


def render(text: str, sentences: Mapping[str, Sentence]) -> str:
    """Return the sentences of a stored text in the active language.

    A text without a code is returned unchanged, and an unknown code as itself.
    """
    if not text.startswith(_START):
        return text
    return " ".join(_render(line, sentences) for line in text.split("\n"))


def _render(line: str, sentences: Mapping[str, Sentence]) -> str:
    message = load(line)
    if message is None:
        return line
    sentence = sentences.get(message.code, message.code)
    try:
        if callable(sentence):
            return sentence(**message.params)
        return str(sentence % message.params)
    except (KeyError, TypeError, ValueError):
        # Stored by a version with other parameter names.
        return message.code
