"""A sentence that was stored in one language, told in the reader's.

The engine writes in the site's language and a person's notes are in theirs, so a page in another
language finds the text of the catalogue that a stored sentence was made from and says that instead.
Owns the search and nothing else: what is not found stays as it is, and nothing is escaped here.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from django.utils import translation

from webhooks import oauth
from webhooks.models import messages

_CATALOGUES = Path(__file__).parents[1] / "locale"
_PLACE = re.compile(r"%(?:\((\w+)\))?(?:\.\d+)?([sdfg%])")
_NUMBER = re.compile(r"-?[\d.,\s]{1,20}")
_CYRILLIC = re.compile("[\u0400-\u04ff]")
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=\S)")
# Values that are sentences of ours themselves; a name that somebody chose is never translated.
_TOLD = frozenset({"sentence", "error", "reason", "problem", "what", "where"})
# A text with fewer letters of its own, such as “%s ago”, could be anything.
_LEAST_LETTERS = 6
_MAX_LENGTH = 2000
_MAX_SENTENCES = 8
_MAX_DEPTH = 3


class _Key(NamedTuple):
    """A text of the catalogue as gettext is asked for it."""

    text: str
    plural: str


class _Template(NamedTuple):
    """A text with places: `literals` stand before, between and after the values of `names`."""

    key: _Key
    literals: tuple[str, ...]
    names: tuple[str, ...]
    numbers: frozenset[str]

    def weight(self) -> int:
        return sum(map(len, self.literals))


class _Index(NamedTuple):
    exact: dict[str, _Key]
    # Those that say most themselves come first.
    templates: tuple[_Template, ...]


def retell(text: str) -> str:
    """Return a stored sentence in the language of the page, or as it is when it is not known."""
    message = messages.load(text.partition("\n")[0])
    if message and message.code in oauth.SENTENCES:
        return oauth.sentence(text)
    language = (translation.get_language() or "en").partition("-")[0]
    # Nearly always: written in English, read in English.
    if not text or len(text) > _MAX_LENGTH or (language == "en" and not _CYRILLIC.search(text)):
        return text
    return _retold(text, language)


@lru_cache(maxsize=2048)
def _retold(text: str, _language: str) -> str:
    return _told(text, 0)


def _told(text: str, depth: int) -> str:
    whole = _whole(text, depth)
    sentences = _SENTENCE_END.split(text)
    if not 1 < len(sentences) <= _MAX_SENTENCES or text in _index().exact:
        return text if whole is None else whole
    each = [_whole(sentence, depth) for sentence in sentences]
    # A place of a longer text must not swallow a sentence that is known by itself.
    if whole is None or None not in each:
        parts = zip(each, sentences, strict=True)
        return " ".join(sentence if told is None else told for told, sentence in parts)
    return whole


def _whole(text: str, depth: int) -> str | None:
    """Return what one text of the catalogue says; None when none is this."""
    index = _index()
    if (key := index.exact.get(text)) is not None:
        return translation.gettext(key.text)
    if depth >= _MAX_DEPTH:
        return None
    for template in index.templates:
        values = _match(template, text)
        if values is not None:
            return _fill(template, values, depth)
    return None


def _match(template: _Template, text: str) -> list[str] | None:
    """Return the values in their order. Goes over the text once, whatever it holds."""
    first, *between, last = template.literals
    end = len(text) - len(last)
    position = len(first)
    if position >= end or not text.startswith(first) or not text.endswith(last):
        return None
    values = []
    for literal in between:
        found = text.find(literal, position, end)
        if found < 0:
            return None
        values.append(text[position:found])
        position = found + len(literal)
    values.append(text[position:end])
    known: dict[str, str] = {}
    for name, value in zip(template.names, values, strict=True):
        if not value or known.setdefault(name, value) != value:
            return None
        if name in template.numbers and not _NUMBER.fullmatch(value):
            return None
    return values


def _fill(template: _Template, values: Sequence[str], depth: int) -> str:
    told = {
        name: _told(value, depth + 1) if name in _TOLD else value
        for name, value in zip(template.names, values, strict=True)
    }
    wanted = _in_language(template, told)
    literals, names, _numbers = _parse(wanted)
    if not set(names) <= told.keys():
        return wanted
    return "".join(
        literal + value
        for literal, value in zip(literals, [*(told[name] for name in names), ""], strict=True)
    )


def _in_language(template: _Template, values: dict[str, str]) -> str:
    text, plural = template.key
    if not plural:
        return translation.gettext(text)
    numbers = {name: value for name, value in values.items() if _NUMBER.fullmatch(value)}
    counted = numbers.get("count") or next(iter(numbers.values()), "")
    return translation.ngettext(text, plural, int(re.sub(r"\D", "", counted) or 0))


@lru_cache(maxsize=1)
def _index() -> _Index:
    exact: dict[str, _Key] = {}
    templates: list[_Template] = []
    for path in sorted(_CATALOGUES.glob("*/LC_MESSAGES/django.mo")):
        for key, forms in _entries(path.read_bytes()):
            for form in dict.fromkeys(forms):
                literals, names, numbers = _parse(form)
                template = _Template(key, literals, names, numbers)
                if not names:
                    exact.setdefault(form, key)
                elif _is_telling(literals):
                    templates.append(template)
    templates.sort(key=_Template.weight, reverse=True)
    return _Index(exact, tuple(templates))


def _entries(data: bytes) -> Iterator[tuple[_Key, list[str]]]:
    """Yield the texts of a compiled catalogue, each with all that it can look like."""
    _magic, _revision, count, originals, translations = struct.unpack_from("<5I", data)

    def forms(table: int, number: int) -> list[str]:
        length, offset = struct.unpack_from("<2I", data, table + 8 * number)
        return data[offset : offset + length].decode().split("\0")

    for number in range(count):
        source = forms(originals, number)
        # The empty text is the catalogue's head; “\4” ends a context, which nothing stored has.
        if source[0] and "\4" not in source[0]:
            plural = source[1] if len(source) > 1 else ""
            yield _Key(source[0], plural), source + forms(translations, number)


def _parse(text: str) -> tuple[tuple[str, ...], tuple[str, ...], frozenset[str]]:
    """Split a text at its places; those without a name are counted."""
    literals = [""]
    names: list[str] = []
    numbers: set[str] = set()
    position = 0
    for place in _PLACE.finditer(text):
        literals[-1] += text[position : place.start()]
        position = place.end()
        if place[2] == "%":
            literals[-1] += "%"
            continue
        name = place[1] or f"#{len(names)}"
        names.append(name)
        literals.append("")
        if place[2] != "s":
            numbers.add(name)
    literals[-1] += text[position:]
    return tuple(literals), tuple(names), frozenset(numbers)


def _is_telling(literals: Sequence[str]) -> bool:
    letters = sum(character.isalpha() for literal in literals for character in literal)
    return letters >= _LEAST_LETTERS and all(literals[1:-1])
