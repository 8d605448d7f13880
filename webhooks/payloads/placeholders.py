"""A JSON body with `{{ variable }}` placeholders, compiled into fixed text and variables.

A text that is a single placeholder takes the value and its type; within longer text, values become
text. Filters follow the name after |: `iso8601`, `sql`, `unix` (dates), `zone:'Europe/Kyiv'`,
`text` (text whatever the type) and `default:…` (sent if the event has no value). `{{ '{{' }}`
writes two braces. Keys cannot be variable, so the structure of the document is fixed. Nothing is
evaluated: placeholders are looked up, and every value is encoded as JSON.
"""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.utils.translation import gettext as _

from webhooks.payloads.document import ENCODER, shown
from webhooks.payloads.errors import BodyTooLargeError, MappingError, Violation
from webhooks.payloads.json_reader import (
    Array,
    Node,
    Object,
    Plain,
    Text,
    load_typed,
    parse,
    problem_at,
)
from webhooks.payloads.variables import (
    AS_THE_WEBHOOK,
    TEXT_WEIGHT,
    Fields,
    Style,
    make_reader,
    size_problem,
    variable_problem,
    zone_problem,
)

MAX_TEMPLATE_LENGTH = 65_536
MAX_PLACEHOLDERS = 200
# A backslash escapes a brace or a bar. A quote after a letter belongs to the name, because forms
# have fields such as “ім'я”.
_ONE = r"\\(?!\{\{)[\\{}|]?+|(?<!\w)(?:'[^']*'|\"[^\"]*\")|(?<=\w)['\"]"
# Part of the content of a placeholder.
_CONTENT = re.compile(_ONE + r"|(?:(?!\}\}|\{\{)[^\\'\"])+", re.DOTALL)
_PART = re.compile(r"(?:" + _ONE + r"|[^\\'\"|])*")
# Escaped in text in quotes, as in JSON: a double quote, and a backslash before u0022 or u005c.
_ESCAPE = re.compile(r"\\u00(22|5c)")
_DATES = ("iso8601", "sql", "unix")

Render = Callable[[Fields], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """One `{{ … }}`: a variable, or a `literal` text."""

    variable: str = ""
    literal: str | None = None
    style: Style = AS_THE_WEBHOOK


def compile_template(text: str, *, date_format: str, time_zone: str) -> Callable[[Fields], str]:
    """Return a function that writes the body for an event's fields. Raise MappingError.

    The returned function raises BodyTooLargeError before the text is joined. Names of variables are
    not checked here: missing ones are null.
    """
    pieces = list(_pieces(parse(text), text, Style(format=date_format, time_zone=time_zone)))
    merged: list[str | Render] = []
    for piece in pieces:
        if isinstance(piece, str) and merged and isinstance(merged[-1], str):
            merged[-1] += piece
        else:
            merged.append(piece)

    def write(fields: Fields) -> str:
        texts: list[str] = []
        limit = settings.WEBHOOKS_MAX_BODY_BYTES
        left = limit
        for piece in merged:
            text = piece if isinstance(piece, str) else piece(fields)
            left -= len(text)
            if left < 0:
                raise BodyTooLargeError(limit)
            texts.append(text)
        return "".join(texts)

    return write


def template_problems(text: str, known: Collection[str]) -> list[Violation]:
    """Return all problems of a JSON body, in the order of the text."""
    if len(text) > MAX_TEMPLATE_LENGTH:
        sentence = _("The JSON body has at most %d characters.") % MAX_TEMPLATE_LENGTH
        return [Violation(sentence=sentence, field="body_template")]
    try:
        node = parse(text)
    except MappingError as error:
        return list(error.problems)
    problems: list[Violation] = []
    count = 0
    for string, is_key in _texts(node):
        for position, sentence, placeholders in _check_string(string, text, known, is_key=is_key):
            count += placeholders
            if sentence:
                problems.append(problem_at(text, position, sentence))
            if count > MAX_PLACEHOLDERS:
                sentence = _("The JSON body has at most %d variables.") % MAX_PLACEHOLDERS
                return [*problems, Violation(sentence=sentence, field="body_template")]
    if not problems and (sentence := size_problem(_uses(node), fixed_bytes=len(text.encode()))):
        problems.append(Violation(sentence=sentence, field="body_template"))
    return problems


def _uses(node: Node) -> Iterator[tuple[str, int]]:
    """Yield each variable and the maximum number of bytes sent per byte of its value."""
    for string, _is_key in _texts(node):
        parts = list(_split(string.value))
        contents = [content for _text, content in parts if content is not None]
        for placeholder in map(parse_placeholder, contents):
            if placeholder.literal is None:
                is_whole = len(parts) == 1 and not placeholder.style.is_text
                yield placeholder.variable, 1 if is_whole else TEXT_WEIGHT


def template_variables(text: str) -> set[str]:
    """Return the names of the variables in a JSON body. Raise ValueError for an invalid body."""
    return {name for name, _weight in _uses(parse(text))}


def has_placeholder(text: str) -> bool:
    return next(_spans(text), None) is not None


def only_variable(text: str) -> str:
    """Return the variable of a text that is a single placeholder without filters, else ""."""
    parts = list(_split(text))
    content = parts[0][1] if len(parts) == 1 else None
    try:
        placeholder = Placeholder() if content is None else parse_placeholder(content)
    except ValueError:
        return ""
    return placeholder.variable if placeholder.style == AS_THE_WEBHOOK else ""


def parse_placeholder(content: str) -> Placeholder:
    """Parse the content of a placeholder. Raise ValueError with a sentence for people."""
    parts = [found.strip() for found in _parts(content)]
    source = parts[0]
    if source[:1] in ("'", '"'):
        if len(parts) > 1 or len(source) < 2 or source[-1] != source[0]:
            raise ValueError(_("Text in quotes stands alone between the braces."))
        return Placeholder(literal=source[1:-1])
    options: dict[str, Any] = {}
    for part in parts[1:]:
        for name, value in _filter(part).items():
            if name in options:
                raise ValueError(_("“%s” sets again what a filter before it set.") % shown(part))
            options[name] = value
    return Placeholder(variable=source, style=Style(**options))


def _parts(content: str) -> list[str]:
    parts, position = [], 0
    while True:
        found = cast(re.Match[str], _PART.match(content, position))
        parts.append(found[0])
        if found.end() >= len(content):
            return parts
        if content[found.end()] != "|":
            raise ValueError(_("A quote is missing."))
        position = found.end() + 1


def _filter(part: str) -> dict[str, Any]:
    name, colon, argument = part.partition(":")
    name, argument = name.strip(), argument.strip()
    if name in _DATES and not colon:
        return {"format": name}
    if name == "text" and not colon:
        return {"is_text": True}
    if name == "default" and colon:
        return {"default": _argument(argument), "has_default": True}
    if name == "zone" and colon:
        zone = str(_argument(argument))
        if problem := zone_problem(zone):
            raise ValueError(problem)
        return {"time_zone": zone}
    raise ValueError(
        _("“%s” is not a filter. Use iso8601, sql, unix, text, default:'…' or zone:'Europe/Kyiv'.")
        % shown(part)
    )


def _argument(text: str) -> Any:
    if len(text) >= 2 and text[0] in "'\"" and text[-1] == text[0]:
        return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text[1:-1])
    try:
        value = load_typed(text)
        # Neither NaN nor half of a surrogate pair can be sent.
        ENCODER.encode(value).encode()
    except ValueError:
        raise ValueError(_("Put the text after the colon into single quotes.")) from None
    return value


def _split(value: str) -> Iterator[tuple[str, str | None]]:
    """Yield (text, None) and (placeholder, content), in order."""
    position = 0
    for start, end in _spans(value):
        if start > position:
            yield value[position:start], None
        yield value[start:end], value[start + 2 : end - 2]
        position = end
    if position < len(value):
        yield value[position:], None


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the start and end of each placeholder, in linear time.

    One regular expression would read to the end of the text again for each “{{” without “}}”.
    """
    tried: set[int] = set()
    start = text.find("{{")
    while start >= 0:
        end = _end_of(text, start + 2, tried)
        if end is None:
            start = text.find("{{", start + 1)
        else:
            yield start, end
            start = text.find("{{", end)


def _end_of(text: str, position: int, tried: set[int]) -> int | None:
    """Return where the placeholder with its content at `position` ends, None if it does not."""
    while position not in tried:
        if text.startswith("}}", position):
            return position + 2
        tried.add(position)
        part = _CONTENT.match(text, position)
        if part is None:
            break
        position = part.end()
    return None


def _texts(node: Node) -> Iterator[tuple[Text, bool]]:
    """Yield every string of a document and whether it is a key."""
    if isinstance(node, Text):
        yield node, False
    elif isinstance(node, Array):
        for item in node.items:
            yield from _texts(item)
    elif isinstance(node, Object):
        for key, member in node.members:
            yield key, True
            yield from _texts(member)


def _check_string(
    string: Text, source: str, known: Collection[str], *, is_key: bool
) -> Iterator[tuple[int, str, int]]:
    """Yield the position, problem ("" if none) and number of placeholders of each part."""
    position = string.start
    for text, content in _split(string.value):
        if content is None:
            if "{{" in text:
                at = _find(source, "{{", position, string.end)
                yield at, _("The }} that ends this variable is missing."), 0
            continue
        position = _find(source, "{{", position, string.end)
        yield position, _placeholder_problem(content, known, is_key=is_key), 1
        position += 2


def _placeholder_problem(content: str, known: Collection[str], *, is_key: bool) -> str:
    if is_key:
        return _("A key cannot be variable. Write its name.")
    try:
        placeholder = parse_placeholder(content)
    except ValueError as error:
        return str(error)
    return "" if placeholder.literal is not None else variable_problem(placeholder.variable, known)


def _find(source: str, wanted: str, start: int, end: int) -> int:
    # Not found if it is escaped in the source; then use the start of the string.
    return max(source.find(wanted, start, end), start)


def _pieces(node: Node, source: str, style: Style) -> Iterator[str | Render]:
    if isinstance(node, Plain):
        yield node.text
    elif isinstance(node, Text):
        yield from _text_pieces(node, source, style)
    elif isinstance(node, Array):
        yield "["
        for index, item in enumerate(node.items):
            yield "," if index else ""
            yield from _pieces(item, source, style)
        yield "]"
    else:
        yield "{"
        for index, (key, member) in enumerate(node.members):
            yield ("," if index else "") + ENCODER.encode(key.value) + ":"
            yield from _pieces(member, source, style)
        yield "}"


def _text_pieces(string: Text, source: str, style: Style) -> Iterator[str | Render]:
    parts = list(_split(string.value))
    try:
        contents = [content for _text, content in parts if content is not None]
        placeholders = list(map(parse_placeholder, contents))
    except ValueError as error:
        raise MappingError(problem_at(source, string.start, str(error))) from error
    if len(parts) == 1 and placeholders and placeholders[0].literal is None:
        yield _standalone(placeholders[0], style)
        return
    yield '"'
    for text, content in parts:
        if content is None:
            yield _json_string_content(text)
        else:
            placeholder = placeholders.pop(0)
            is_literal = placeholder.literal is not None
            yield (
                _json_string_content(placeholder.literal or "")
                if is_literal
                else _embedded(placeholder, style)
            )
    yield '"'


def _standalone(placeholder: Placeholder, style: Style) -> Render:
    read = make_reader(placeholder.variable, placeholder.style.over(style))
    return lambda fields: ENCODER.encode(read(fields))


def _embedded(placeholder: Placeholder, style: Style) -> Render:
    read = make_reader(placeholder.variable, placeholder.style.over(style)._replace(is_text=True))
    return lambda fields: _json_string_content(read(fields))


def _json_string_content(text: str) -> str:
    return ENCODER.encode(text)[1:-1]
