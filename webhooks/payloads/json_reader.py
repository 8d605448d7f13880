"""Parse JSON from outside: `load_json` returns values, `parse` a tree with positions.

Errors give the position and what to change, unlike those of Python's parser. The tree keeps numbers
as they were typed.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from json.decoder import (  # type: ignore[attr-defined]
    JSONArray,
    JSONDecodeError,
    JSONDecoder,
    JSONObject,
    scanstring,
)
from typing import Any, NoReturn

from django.utils.translation import gettext as _

from webhooks.payloads.document import MAX_DEPTH, shown
from webhooks.payloads.errors import (
    DocumentError,
    MappingError,
    TooManyItemsError,
    Violation,
)

_SPACE = re.compile(r"[ \t\r\n]*")
# RFC 8259 sections 3 and 6.
_PLAIN = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null")
_MAX_DIGITS = 1000
_WORD = re.compile(rf"[^\s,\]}}:]{{1,{_MAX_DIGITS}}}")
# Double quotes as changed by text editors, and one within a text at the position where it should
# end.
CURLY_QUOTES = "“”„‟«»"
_CURLY_END = re.compile(rf'[^\n"{CURLY_QUOTES}]*([{CURLY_QUOTES}])[ \t]*(?:[:,}}\]\n]|\Z)')
# The byte order mark that some editors write first.
BYTE_ORDER_MARK = "\ufeff"
# Explaining a mistake is slower than parsing; longer texts were not typed by a person.
_MAX_EXPLAINED = 65_536


def load_json(
    data: bytes,
    *,
    is_explained: bool = True,
    first_line: int = 1,
    max_items: int | None = None,
) -> Any:
    """Parse JSON strictly. Raise DocumentError, also for repeated keys and NaN.

    Without `is_explained` an error has only its position, because explaining is far slower than
    parsing. Lines are counted from `first_line`, for a text that is part of a longer one.
    Raise TooManyItemsError at an item beyond `max_items` of the outermost array, or of the arrays
    in the outermost object.
    """
    options: dict[str, Any] = {} if max_items is None else {"cls": _Limited, "max_items": max_items}
    try:
        text = data.decode("utf-8-sig")
        return json.loads(
            text, object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant, **options
        )
    except TooManyItemsError:
        raise
    except DocumentError as error:
        # A repeated key or NaN, for which Python's parser gives no position.
        sentence = (is_explained and _mistake_of(text, first_line)) or str(error)
        raise DocumentError(sentence, code=error.code) from error
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode()
        problem = problem_at(before, len(before), _("The text is not UTF-8."), first_line)
        raise DocumentError(problem.sentence, code="not_json") from error
    except json.JSONDecodeError as error:
        sentence = (is_explained and _explain(text, first_line)) or _place_of(error, first_line)
        raise DocumentError(sentence, code="not_json") from error
    except RecursionError as error:
        # The depth at which Python's parser gives up depends on the version.
        sentence = (is_explained and _mistake_of(text, first_line)) or str(_too_deep())
        raise DocumentError(sentence, code="not_json") from error
    except ValueError as error:
        raise DocumentError(_("A number has too many digits."), code="not_json") from error


class _Limited(JSONDecoder):
    """Counts items while they are read: eight megabytes of “{},” would take 200 MB of memory."""

    def __init__(self, *, max_items: int, **options: Any) -> None:
        super().__init__(**options)
        self._scan, self._left = self.scan_once, max_items  # type: ignore[has-type]
        self.scan_once = self._outermost

    def _outermost(self, text: str, at: int) -> Any:
        if text[at : at + 1] == "{":
            return JSONObject(
                (text, at + 1), self.strict, self._member, None, self.object_pairs_hook
            )
        return self._member(text, at)

    def _member(self, text: str, at: int) -> Any:
        if text[at : at + 1] == "[":
            return JSONArray((text, at + 1), self._item)
        return self._scan(text, at)

    def _item(self, text: str, at: int) -> Any:
        if self._left == 0:
            raise TooManyItemsError
        self._left -= 1
        return self._scan(text, at)


def load_typed(text: str) -> Any:
    """Return the JSON value of a text typed into a field. Raise ValueError."""
    try:
        value = json.loads(text.removeprefix(BYTE_ORDER_MARK))
    except RecursionError as error:
        raise _too_deep() from error
    check_depth(value)
    return value


def check_depth(value: Any, levels: int = MAX_DEPTH) -> None:
    """Raise DocumentError for a value nested deeper than an event may be."""
    if isinstance(value, dict | list):
        if levels == 0:
            raise _too_deep()
        for one in value.values() if isinstance(value, dict) else value:
            check_depth(one, levels - 1)


def _too_deep() -> DocumentError:
    message = _("The JSON is nested more than %d levels deep.") % MAX_DEPTH
    return DocumentError(message, code="too_deep")


def _explain(text: str, first_line: int) -> str:
    """Return a sentence that says what to change, in the words of the JSON editor."""
    mistake = _mistake_of(text, first_line)
    return _("The text is not JSON. %(problem)s") % {"problem": mistake} if mistake else ""


def _mistake_of(text: str, first_line: int) -> str:
    """Return the first mistake with its line and column, or "" if the text is too long."""
    if len(text) <= _MAX_EXPLAINED:
        try:
            parse(text, has_placeholders=False, first_line=first_line)
        except MappingError as found:
            return found.problems[0].sentence
    return ""


def _place_of(error: json.JSONDecodeError, first_line: int) -> str:
    place = {"line": error.lineno + first_line - 1, "column": error.colno}
    return _("The text is not JSON: look at line %(line)d, column %(column)d.") % place


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(key for key, _value in pairs)
        repeated = next(key for key, count in counts.items() if count > 1)
        message = _("The key “%s” occurs twice in one object.") % shown(repeated)
        raise DocumentError(message, code="duplicate_key")
    return made


def _refuse_constant(name: str) -> None:
    raise DocumentError(_("%s is not JSON.") % name, code="not_json")


@dataclass(frozen=True, slots=True)
class Plain:
    """A number, true, false or null as typed."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Array:
    items: list["Node"]


@dataclass(frozen=True, slots=True)
class Object:
    members: list[tuple[Text, "Node"]]


Node = Plain | Text | Array | Object


def problem_at(text: str, position: int, sentence: str, first_line: int = 1) -> Violation:
    """Return a problem whose sentence begins with the line and column."""
    line = text.count("\n", 0, position) + first_line
    column = position - (text.rfind("\n", 0, position) + 1) + 1
    where = _("Line %(line)d, column %(column)d: %(what)s") % {
        "line": line,
        "column": column,
        "what": sentence,
    }
    return Violation(sentence=where, field="body_template", line=line, column=column)


def parse(text: str, *, has_placeholders: bool = True, first_line: int = 1) -> Node:
    """Return the document as a tree. Raise MappingError with the position of the mistake."""
    reader = _Reader(text, has_placeholders=has_placeholders, first_line=first_line)
    position = reader.skip(len(BYTE_ORDER_MARK) if text.startswith(BYTE_ORDER_MARK) else 0)
    if position == len(text) and has_placeholders:
        reader.fail(position, _('Write a JSON document, for example {"id": "{{ call_id }}"}.'))
    node, position = reader.value(position, 1)
    position = reader.skip(position)
    if position != len(text):
        reader.fail(position, _("The document ends before this. Remove what follows."))
    return node


def _pasted_problem(sign: str) -> str:
    """Return what to do about a pasted character such as a curly quote, or ""."""
    if sign and sign in CURLY_QUOTES:
        sentence = _('This quote (%s) is curly. Replace all curly quotes with straight ones (").')
        return sentence % sign
    if not sign.isprintable() and sign not in "\t\r\n":
        return _("Here is an invisible character (%s). Remove it.") % f"U+{ord(sign):04X}"
    return ""


class _Reader:
    """A recursive descent parser; every method takes and returns a position."""

    def __init__(self, text: str, *, has_placeholders: bool, first_line: int) -> None:
        self._text = text
        self._has_placeholders = has_placeholders
        self._first_line = first_line

    def skip(self, position: int) -> int:
        found = _SPACE.match(self._text, position)
        return found.end() if found else position

    def fail(self, position: int, sentence: str) -> NoReturn:
        found = _pasted_problem(self._text[position : position + 1])
        problem = problem_at(self._text, position, found or sentence, self._first_line)
        raise MappingError(problem)

    def value(self, position: int, depth: int) -> tuple[Node, int]:
        if depth > MAX_DEPTH:
            self.fail(position, str(_too_deep()))
        if self._has_placeholders and self._text.startswith("{{", position):
            self._fail_at_bare_placeholder(position)
        first = self._text[position : position + 1]
        if first == "{":
            return self._object(position, depth)
        if first == "[":
            return self._array(position, depth)
        if first == '"':
            return self._string(position)
        plain = _PLAIN.match(self._text, position)
        word = _WORD.match(self._text, position)
        if plain is None or word is None or plain.end() != word.end():
            if plain and len(plain[0]) > _MAX_DIGITS:
                self.fail(position, _("A number has too many digits."))
            self._fail_at_value(position)
        return Plain(plain[0]), plain.end()

    def _array(self, position: int, depth: int) -> tuple[Array, int]:
        items: list[Node] = []

        def take(at: int) -> int:
            item, at = self.value(at, depth + 1)
            items.append(item)
            return at

        return Array(items), self._members(position, "]", take)

    def _object(self, position: int, depth: int) -> tuple[Object, int]:
        members: list[tuple[Text, Node]] = []
        keys: set[str] = set()

        def take(at: int) -> int:
            key, end = self._key(at)
            if key.value in keys:
                self.fail(at, _("“%s” is in this object already.") % shown(key.value))
            keys.add(key.value)
            at = self.skip(end)
            if not self._text.startswith(":", at):
                self.fail(at, _("Write a colon between a key and its value."))
            node, at = self.value(self.skip(at + 1), depth + 1)
            members.append((key, node))
            return at

        return Object(members), self._members(position, "}", take)

    def _members(self, start: int, closing: str, take: Callable[[int], int]) -> int:
        """Read comma-separated members up to the closing bracket."""
        position = self.skip(start + 1)
        if self._text.startswith(closing, position):
            return position + 1
        while True:
            position = self.skip(take(position))
            following = self._text[position : position + 1]
            if following == closing:
                return position + 1
            if following != ",":
                self._fail_between(position, start, closing)
            comma, position = position, self.skip(position + 1)
            if self._text.startswith(closing, position):
                self.fail(comma, _("Remove this comma: nothing follows it."))

    def _key(self, position: int) -> tuple[Text, int]:
        if not self._text.startswith('"', position):
            if position >= len(self._text):
                self.fail(position, _("The text ends here, but a key and its value are missing."))
            self.fail(position, _('A key is text in double quotes, like “"phone"”.'))
        return self._string(position)

    def _string(self, position: int) -> tuple[Text, int]:
        try:
            value, end = scanstring(self._text, position + 1, True)
        except JSONDecodeError as error:
            self._fail_in_string(position, error)
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(position, _("This text holds half of a surrogate pair."))
        return Text(value, position, end), end

    def _fail_in_string(self, start: int, error: JSONDecodeError) -> NoReturn:
        is_open = error.msg.startswith("Unterminated") or "control character" in error.msg
        if is_open and (curly := _CURLY_END.match(self._text, start + 1)):
            self.fail(curly.start(1), "")
        if error.msg.startswith("Unterminated"):
            self.fail(start, _("The double quote that ends this text is missing."))
        if "control character" in error.msg:
            self.fail(
                error.pos,
                _("A line break or tab inside text is written \\n or \\t. Is a quote missing?"),
            )
        self.fail(error.pos, _('After a backslash comes one of " \\ / b f n r t or u0000.'))

    def _fail_at_bare_placeholder(self, position: int) -> NoReturn:
        end = self._text.find("}}", position)
        placeholder = self._text[position : end + 2] if 0 < end < position + 100 else "{{ … }}"
        self.fail(
            position,
            _(
                "Put double quotes around %s. A text that is only one variable keeps the "
                "variable's type: a number stays a number."
            )
            % placeholder,
        )

    def _fail_at_value(self, position: int) -> NoReturn:
        word = _WORD.match(self._text, position)
        typed = word[0] if word else self._text[position : position + 1]
        if not typed:
            self.fail(position, _("The text ends here, but a value is missing."))
        if typed[0] == "'":
            self.fail(position, _("JSON has double quotes only. Replace the single quotes."))
        if typed.lower() in ("true", "false", "null", "none"):
            self.fail(position, _("Write true, false or null in small letters."))
        if typed in ("NaN", "Infinity", "-Infinity"):
            self.fail(position, _("%s is not JSON.") % typed)
        if typed.startswith(("//", "/*", "#")):
            self.fail(position, _("JSON has no comments. Remove this one."))
        if typed[0] in ",]}:":
            self.fail(position, _("A value is missing before this."))
        sentence = _("“%s” is not a JSON value. Put text in double quotes.")
        self.fail(position, sentence % shown(typed))

    def _fail_between(self, position: int, start: int, closing: str) -> NoReturn:
        if position >= len(self._text):
            self.fail(start, _("The %s that closes this is missing.") % closing)
        if self._text[position] in "]}":
            self.fail(position, _("Here is the wrong bracket: %s is expected.") % closing)
        self.fail(position, _("A comma is missing before this."))
