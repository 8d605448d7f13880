"""Text that came from outside, made safe to look at: escaped, every trick character shown.

Owns how headers and bodies of the log are displayed. Whatever a receiver answers, the page shows
it as text: no markup, no terminal colours, no invisible or direction-changing characters.
"""

import json
import re
from itertools import groupby

from django import template
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from webhooks.secrets import MASK

register = template.Library()

# Headers whose value is a secret by its nature. The log masks them when it is written; a second
# time here costs nothing and keeps old or foreign rows from showing one.
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"}
)
_JSON_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
# Indenting is for reading; longer or deeper bodies are shown as they are.
_MAX_INDENTED_CHARACTERS = 200_000
_MAX_DEPTH = 40


@register.filter
def visible(value: object) -> SafeString:
    """Escape text and show what cannot be seen in it as `\\x1b` or `\\u202e`."""
    text = str(value)
    if _is_plain(text):
        return conditional_escape(text)
    parts = [
        conditional_escape("".join(run))
        if is_plain
        else format_html('<span class="escape">{}</span>', "".join(map(_escape, run)))
        for is_plain, run in groupby(text, _is_plain)
    ]
    return mark_safe("".join(parts))  # noqa: S308 - every part was escaped above


def _is_plain(text: str) -> bool:
    """Say whether every character can be seen: no control, format, bidi or odd space."""
    return text.replace("\n", "").replace("\t", "").isprintable()


def _escape(character: str) -> str:
    if character == "\r":
        return "\\r"
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


@register.filter
def body(value: bytes | memoryview | None) -> SafeString:
    """Show a body as text; JSON gets line breaks, and not one other character changes."""
    text = bytes(value or b"").decode("utf-8", "backslashreplace")
    return visible(indent_json(text) or text)


def indent_json(text: str) -> str:
    """Return the JSON text with line breaks and indents, or "" when it is not a JSON container.

    Works on the text, so numbers, escapes and repeated keys stay as they were sent.
    """
    if text.lstrip()[:1] not in ("{", "[") or len(text) > _MAX_INDENTED_CHARACTERS:
        return ""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return ""
    pieces: list[str] = []
    depth = 0
    previous = ""
    for piece in _JSON_PIECE.findall(text):
        is_closing = piece in ("}", "]")
        depth -= is_closing
        if depth > _MAX_DEPTH:
            return ""
        # Empty containers stay on one line.
        if previous == "," or is_closing != (previous in ("{", "[")):
            pieces.append("\n" + "  " * depth)
        pieces.append(": " if piece == ":" else piece)
        depth += piece in ("{", "[")
        previous = piece
    return "".join(pieces)


@register.filter
def status_line(value: str) -> str:
    """Return the line above the headers of a stored response, or "" when there is none."""
    first = value.partition("\n")[0].strip()
    return first if first.startswith("HTTP/") else ""


@register.filter
def header_lines(value: str) -> list[tuple[str, str]]:
    """Split stored header lines into names and values, secrets masked; no status line."""
    headers = []
    for line in value.splitlines()[bool(status_line(value)) :]:
        name, _colon, text = line.partition(":")
        headers.append((name.strip(), _masked(name.strip().lower(), text.strip())))
    return headers


@register.filter
def first_bytes(value: bytes | memoryview | None, limit: int) -> bytes:
    return bytes(value or b"")[:limit]


@register.filter
def without_query(request_line: str) -> str:
    """Cut the query off a request line: with the query format it carries the payload."""
    method, _space, rest = request_line.partition(" ")
    address, space, version = rest.rpartition(" ")
    address = address or rest
    return f"{method} {address.partition('?')[0]}{space}{version if space else ''}"


def _masked(name: str, value: str) -> str:
    if name not in _SECRET_HEADERS or MASK in value:
        return value
    scheme, space, rest = value.partition(" ")
    return f"{scheme} {MASK}" if space and rest and "authorization" in name else MASK
