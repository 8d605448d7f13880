"""Messages that rows keep: a code with parameters, made into a sentence when it is shown.

A row holds compact JSON such as `{"code":"timeout","seconds":15}`, one message a line. A parameter
may be a stored message itself. Each package that stores messages has one table from its codes to
sentences; `render` chooses the reader's language.
"""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from django.utils.functional import Promise

# A template with %(name)s for each parameter, also of ngettext_lazy, or a function of them.
Sentence = str | Promise | Callable[..., str]
_START = '{"code":"'


class Message(NamedTuple):
    """A stored message: its code, and parameters as JSON knows them."""

    code: str
    params: dict[str, str | int]


def dump(code: str, /, **params: str | int) -> str:
    """Return the text that a row keeps. `code` is no name of a parameter."""
    return json.dumps({"code": code, **params}, ensure_ascii=False, separators=(",", ":"))


def load(text: str) -> Message | None:
    """Return the message that a row keeps; None for a text that was never a code."""
    if not text.startswith(_START):
        return None
    try:
        params = json.loads(text)
    except ValueError:
        return None
    code = params.pop("code")
    return Message(code, params) if isinstance(code, str) else None


def cut(text: str, max_length: int) -> str:
    """Return a stored text that fits: of messages the first, its longest parameters cut.

    A parameter that is a message itself is cut in the same way. Empty when nothing can be cut.
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
        # A character may take two in JSON, so half of what is too much is cut each time.
        less = max(1, (len(kept) - max_length) // 2)
        params[longest] = cut(str(params[longest]), max(0, lengths[longest] - less))
    return kept


def render(text: str, sentences: Mapping[str, Sentence]) -> str:
    """Return the sentences of a stored text in the active language.

    A text without a code is returned as it is, and a code that the table does not know as itself.
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
        # Stored by a version that named its parameters otherwise.
        return message.code
