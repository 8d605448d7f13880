"""Unmarked user-visible texts: template words outside of tags, and texts passed to forms."""

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from django.template.base import DebugLexer, Token, TokenType

_BLOCKS = ("blocktranslate", "blocktrans", "comment")
# The content of these blocks is inside an HTML tag of the extended template.
_ATTRIBUTE_BLOCKS = ("id", "attributes", "open", "page_class")
_ATTRIBUTES = {"alt", "aria-label", "aria-description", "placeholder", "title", "label"}
_SPOKEN_DATA = ("data-label", "data-copied", "data-announces", "data-text", "data-confirm")
_WORD = re.compile(r"[^\W\d_]{2,}")
# Elements whose text is for machines, or the same in every language.
_SILENT = {"script", "style", "code", "kbd", "samp"}
_VOID = {"br", "hr", "img", "input", "link", "meta", "use", "rect", "path", "line", "circle"}
_NAMED = {
    "label", "help_text", "verbose_name", "verbose_name_plural", "description",
    "violation_error_message", "empty_label", "search_help_text", "title", "short_description",
}  # fmt: skip
_SPOKEN_CALLS = {
    "ValidationError", "messages.success", "messages.error", "messages.warning", "messages.info",
    "add_error",
}  # fmt: skip


def in_template(source: str) -> Iterator[str]:
    """Yield every literal text of a template that people read."""
    reader = _TemplateReader()
    reader.feed(_without_tags(source))
    reader.close()
    yield from reader.found


def _without_tags(source: str) -> str:
    """Return a template's HTML: tags and values become spaces, translated blocks are removed."""
    pieces, inside = [], ""
    for token in DebugLexer(source).tokenize():
        word = _first_word(token)
        if inside:
            inside = "" if word == f"end{inside}" else inside
        elif word in _BLOCKS or (
            word == "block" and token.split_contents()[1] in _ATTRIBUTE_BLOCKS
        ):
            inside = word
        else:
            pieces.append(token.contents if token.token_type == TokenType.TEXT else " ")
    return "".join(pieces)


def _first_word(token: Token) -> str:
    words = token.contents.split()
    return words[0] if token.token_type == TokenType.BLOCK and words else ""


class _TemplateReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT and tag not in _VOID:
            self._silent.append(tag)
        for name, value in attrs:
            if name in _ATTRIBUTES or name.startswith(_SPOKEN_DATA):
                self._note(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._silent:
            self._silent.remove(tag)

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._note(data)

    def _note(self, text: str) -> None:
        text = " ".join(text.split())
        if _WORD.search(text):
            self.found.append(text)


def in_python(path: Path) -> Iterator[str]:
    """Yield literal texts passed to forms, models, messages or errors as user-visible text."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            for word in node.keywords:
                if word.arg in _NAMED:
                    yield from _literal(word.value)
            if ast.unparse(node.func) in _SPOKEN_CALLS or _method(node) in _SPOKEN_CALLS:
                for argument in node.args:
                    yield from _literal(argument)
        elif isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & _NAMED:
                yield from _literal(node.value)


def _method(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _literal(node: ast.expr) -> Iterator[str]:
    """Yield a text if it contains a space or a capital, because others are keys."""
    if isinstance(node, ast.JoinedStr):
        words = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        words = node.value
    else:
        return
    if _WORD.search(words) and (" " in words or words[0].isupper()):
        yield words
