"""Build the request for a document: URL, body and content type in the webhook's format.

`compile_request` does all work that does not depend on the event. The function it returns is called
for each request: by the engine, tests, resends and the form's preview.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from django.conf import settings
from django.utils.translation import gettext as _

from webhooks.catalogue import CURRENT_NAMES, OLDER_NAMES
from webhooks.network import with_query
from webhooks.payloads.document import ENCODER
from webhooks.payloads.errors import BodyTooLargeError, MappingError, Violation
from webhooks.payloads.paths import OMITTED, Shape, parse_path
from webhooks.payloads.placeholders import compile_template
from webhooks.payloads.rows import Row, read_rows, uses
from webhooks.payloads.variables import (
    ATTEMPT,
    Fields,
    Style,
    as_text,
    date_writer,
    is_empty,
    make_reader,
    rewrite_dates,
)

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
# Eight times the limit of common servers (about 8,000).
MAX_RENDERED_URL_LENGTH = 65_536
# An escaped quote in JSON; pairs of backslashes before it are escaped backslashes.
_ESCAPED_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)\\"')
# A backslash of a text that would be read as the beginning of an escape.
_ESCAPING = re.compile(r"\\(?=u00(?:22|5c))")
# Characters with a meaning within a placeholder, unless already escaped.
_SIGN = re.compile(r"(\\.)|([{}|])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The URL and body to send. `content_type` is None without a body."""

    url: str
    body: bytes
    content_type: str | None


Render = Callable[[bytes, int], Rendered]
Pairs = list[tuple[str, str]]


class Format(Protocol):
    """The fields of a webhook that shape its requests."""

    method: str
    body_format: str
    date_format: str
    time_zone: str
    uses_older_names: bool
    parameters: Any
    body_template: str


def sent_as(method: str, body_format: str) -> str:
    """Return json, form or query; a GET has no body whatever its format."""
    return "query" if method == "GET" else body_format


def _is_verbatim(webhook: Format) -> bool:
    """Return whether the request body is the document itself."""
    return (
        sent_as(webhook.method, webhook.body_format) == "json"
        and webhook.date_format == "iso8601"
        and webhook.time_zone == "UTC"
        and not webhook.uses_older_names
        and not webhook.parameters
        and not webhook.body_template
    )


def compile_request(webhook: Format, url: str) -> Render | None:
    """Return a function that builds the request for (document, attempt number).

    None means that the body is the document unchanged. Raises MappingError for invalid parameters;
    the returned function raises it for a URL or body that is too long. A variable that the event
    does not have is null, or empty in a form or a query string.
    """
    if _is_verbatim(webhook):
        return None
    kind = sent_as(webhook.method, webhook.body_format)
    style = Style(format=webhook.date_format, time_zone=webhook.time_zone)
    read = _fields_reader(uses_older_names=webhook.uses_older_names)
    if webhook.body_template:
        return _template_request(webhook, kind, read, url)
    if webhook.parameters:
        rows = read_rows(webhook.parameters)
        if kind == "json":
            return _rows_request(rows, style, read, url)
        pairs = _pairs_of(rows, style)
        return lambda document, attempt: _flat(url, kind, pairs(read(document, attempt)))
    return _every_variable(kind, style, read, url)


def _rows_request(
    rows: list[Row], style: Style, read: Callable[[bytes, int], dict[str, Any]], url: str
) -> Render:
    build = _shape_of(rows, style).build
    readers = [_reader(row, style) for row in rows]
    weight = sum(weight for _name, weight in uses(rows, "json"))

    def render(document: bytes, attempt: int) -> Rendered:
        fields = read(document, attempt)
        limit = settings.WEBHOOKS_MAX_BODY_BYTES
        if weight * len(document) > limit:
            # A value may be used in many rows, so their sizes are summed before the body is built.
            left = limit
            for reader in readers:
                value = reader(fields)
                left -= 0 if value is OMITTED else len(ENCODER.encode(value))
                if left < 0:
                    raise BodyTooLargeError(limit)
        return _json(url, build(fields))

    return render


def rows_as_placeholders(stored: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the JSON document of rows, with placeholders for variables. Raise MappingError."""
    shape = Shape()
    for number, row in enumerate(read_rows(stored)):
        if row.is_spread:
            continue
        if row.variable:
            value = _placeholder(row)
        else:
            # Literal braces stay braces; in JSON two in a row occur only within text.
            value = json.loads(ENCODER.encode(row.value).replace("{{", "{{ '{{' }}"))
        shape.add(parse_path(row.name), number, _constant(value))
    return shape.build({})


def _placeholder(row: Row) -> str:
    """Return a placeholder for a row's variable and its formatting."""
    filters = [row.style.format] if row.style.format else []
    if row.style.time_zone:
        filters.append(f"zone:'{row.style.time_zone}'")
    if row.style.is_text:
        filters.append("text")
    if row.style.has_default:
        filters.append(f"default:{_argument(row.style.default)}")
    variable = _SIGN.sub(lambda found: found[1] or f"\\{found[2]}", row.variable)
    return "{{ " + " | ".join([variable, *filters]) + " }}"


def _argument(default: Any) -> str:
    """Return a default as written in a placeholder, where text ends at its first matching quote."""
    if not isinstance(default, str):
        return _ESCAPED_QUOTE.sub(r"\1\\u0022", as_text(default))
    text = _ESCAPING.sub(r"\\u005c", default)
    return '"' + text.replace('"', r"\u0022") + '"' if "'" in text else f"'{text}'"


def _fields_reader(*, uses_older_names: bool) -> Callable[[bytes, int], dict[str, Any]]:
    def read(document: bytes, attempt: int) -> dict[str, Any]:
        fields: dict[str, Any] = json.loads(document)
        if uses_older_names:
            fields = _with_older_names(fields)
        # Added to the fields only: the document's bytes are the same at every attempt.
        fields[ATTEMPT] = attempt
        return fields

    return read


def _every_variable(
    kind: str, style: Style, read: Callable[[bytes, int], dict[str, Any]], url: str
) -> Render:
    is_as_frozen = (style.format, style.time_zone) == ("iso8601", "UTC")
    write = None if is_as_frozen else date_writer(style.format, style.time_zone)

    def render(document: bytes, attempt: int) -> Rendered:
        fields = read(document, attempt)
        if kind != "query":
            del fields[ATTEMPT]
        if write is not None:
            fields = rewrite_dates(fields, write)
        return _json(url, fields) if kind == "json" else _flat(url, kind, _texts(fields.items()))

    return render


def _template_request(
    webhook: Format, kind: str, read: Callable[[bytes, int], dict[str, Any]], url: str
) -> Render:
    write = compile_template(
        webhook.body_template, date_format=webhook.date_format, time_zone=webhook.time_zone
    )

    def render(document: bytes, attempt: int) -> Rendered:
        text = write(read(document, attempt))
        if kind == "json":
            return _with_body(url, text, JSON_TYPE)
        # The form refuses a JSON body here; a webhook saved another way sends its top-level fields.
        value = json.loads(text)
        return _flat(url, kind, _texts(value.items() if isinstance(value, dict) else []))

    return render


def _reader(row: Row, style: Style) -> Callable[[Fields], Any]:
    if row.variable:
        style = row.style.over(style)
        if not row.is_omitted_if_empty:
            return make_reader(row.variable, style)
        # As text an empty list would not count as empty.
        find = make_reader(row.variable, style._replace(is_text=False))

        def read(fields: Fields) -> Any:
            if is_empty(value := find(fields)):
                return OMITTED
            return as_text(value) if style.is_text else value

        return read
    return _constant(OMITTED if row.is_omitted_if_empty and is_empty(row.value) else row.value)


def _constant(value: Any) -> Callable[[Fields], Any]:
    return lambda fields: value


def _shape_of(rows: Iterable[Row], style: Style) -> Shape:
    shape = Shape()
    for number, row in enumerate(rows):
        if row.is_spread:
            shape.spread(_reader(row, style))
        else:
            shape.add(parse_path(row.name), number, _reader(row, style))
    return shape


def _pairs_of(rows: Iterable[Row], style: Style) -> Callable[[Fields], Pairs]:
    readers = [(row.name, row.is_spread, _reader(row, style)) for row in rows]
    own = {name for name, is_spread, _read in readers if not is_spread}

    def pairs(fields: Fields) -> Pairs:
        made: Pairs = []
        left = limit = settings.WEBHOOKS_MAX_BODY_BYTES
        for name, is_spread, read in readers:
            value = read(fields)
            if is_spread:
                added = _texts((key, one) for key, one in value.items() if key not in own)
            else:
                added = [] if value is OMITTED else [(name, as_text(value))]
            left -= sum(len(text) for _name, text in added)
            if left < 0:
                raise BodyTooLargeError(limit)
            made += added
        return made

    return pairs


def _json(url: str, value: Any) -> Rendered:
    return _with_body(url, ENCODER.encode(value), JSON_TYPE)


def _with_body(url: str, text: str, content_type: str) -> Rendered:
    body = text.encode()
    if len(body) > (limit := settings.WEBHOOKS_MAX_BODY_BYTES):
        raise BodyTooLargeError(limit)
    return Rendered(url=url, body=body, content_type=content_type)


def _flat(url: str, kind: str, pairs: Pairs) -> Rendered:
    if kind == "form":
        return _with_body(url, urlencode(pairs), FORM_TYPE)
    address = with_query(url, urlencode(pairs, quote_via=quote))
    if len(address) > MAX_RENDERED_URL_LENGTH:
        sentence = _(
            "The address would be %(length)d characters long, more than the %(limit)d that are "
            "sent. Choose fewer parameters, or a method and a format with a body."
        ) % {"length": len(address), "limit": MAX_RENDERED_URL_LENGTH}
        raise MappingError(Violation(sentence=sentence))
    return Rendered(url=address, body=b"", content_type=None)


def _texts(items: Iterable[tuple[str, Any]]) -> Pairs:
    return [(name, as_text(value)) for name, value in items]


def _with_older_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Rename variables to their older names, replacing fields that already have these names."""
    return {
        OLDER_NAMES.get(name, name): value
        for name, value in fields.items()
        if CURRENT_NAMES.get(name) not in fields
    }
