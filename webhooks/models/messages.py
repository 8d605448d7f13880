"""Messages that rows keep: a code with parameters, made into a sentence when it is shown.

A row holds compact JSON such as `{"code":"timeout","seconds":15}`. Each package that stores
messages has one table from its codes to sentences; `render` chooses the reader's language.
"""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

from django.utils.functional import Promise

# A template with %(name)s for each parameter, or a function of the parameters (plurals, lists).
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
    return Message(params.pop("code"), params)


def render(text: str, sentences: Mapping[str, Sentence]) -> str:
    """Return the sentence of a stored message in the active language.

    A text without a code is returned as it is, and a code that the table does not know as itself.
    """
    message = load(text)
    if message is None:
        return text
    sentence = sentences.get(message.code, "")
    try:
        if callable(sentence):
            return sentence(**message.params)
        return str(sentence) % message.params if sentence else message.code
    except (KeyError, TypeError, ValueError):
        # Stored by a version that named its parameters otherwise.
        return message.code
