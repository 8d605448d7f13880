"""Text that came from outside, made safe to look at: escaped, every trick character shown.

Owns how headers and bodies of the log are displayed. Whatever a receiver answers, the page shows
it as text: no markup, no terminal colours, no invisible or direction-changing characters.
"""

import re
from itertools import groupby
from typing import Any

from django import template
from django.utils.html import conditional_escape, format_html
from django.utils.safestring import SafeString, mark_safe

from webhooks.delivery_log import decoded_body
from webhooks.delivery_log.decoded_body import indent_json as indent_json
from webhooks.security.masking import MASK

register = template.Library()

# Headers whose value is a secret by its nature. The log masks them when it is written; a second
# time here costs nothing and keeps old or foreign rows from showing one.
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"}
)
# Letters and marks by Unicode's book that nobody can see: fillers, joiners and the selectors that
# carry hidden text. The one that follows emoji is left.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0\ufe00-\ufe0e"
    "\U000e0100-\U000e01ef]"
)
# Bytes that fit no character, as `surrogateescape` keeps them.
_FIRST_LOST_BYTE, _LAST_LOST_BYTE = 0xDC80, 0xDCFF


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
    if not text.replace("\n", "").replace("\t", "").isprintable():
        return False
    return text.isascii() or not _INVISIBLE.search(text)


def _escape(character: str) -> str:
    if character == "\r":
        return "\\r"
    code = ord(character)
    if _FIRST_LOST_BYTE <= code <= _LAST_LOST_BYTE:
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


@register.filter
def body(value: bytes | memoryview | None) -> SafeString:
    """Show a body as text; JSON gets line breaks, and not one other character changes."""
    return visible(decoded_body.read(bytes(value or b"")).text)


@register.inclusion_tag("webhooks/deliveries/_attempt_body.html")
def body_view(
    value: bytes | memoryview | None,
    *,
    label: str,
    key: str,
    headers: str = "",
    size: int | None = None,
    download: str = "",
    limit: int = 20_000,
) -> dict[str, Any]:
    """Draw a body: JSON to fold, text, or bytes, with its size and the way to its raw form.

    `key` is part of the ids; `size` is that of the whole body when `value` is its beginning.
    """
    data = bytes(value or b"")
    total = len(data) if size is None else max(size, len(data))
    declared = {name.lower(): text for name, text in header_lines(headers)}
    return {
        "readable": decoded_body.read(
            data[:limit],
            content_type=declared.get("content-type", ""),
            content_encoding=declared.get("content-encoding", ""),
        ),
        "label": label,
        "key": key,
        "is_empty": not data,
        "size": total,
        "shown_bytes": min(len(data), limit),
        "dumped_bytes": decoded_body.DUMPED_BYTES,
        "is_cut": total > min(len(data), limit),
        "download": download,
    }


@register.filter
def status_line(value: str) -> str:
    """Return the line above the headers of a stored response, or "" when there is none."""
    first = value.partition("\n")[0].strip()
    return first if first.startswith("HTTP/") else ""


@register.filter
def header_lines(value: str) -> list[tuple[str, str]]:
    """Split stored header lines into names and values, secrets masked; no status line."""
    headers = []
    # Not splitlines(), which takes characters of a value for ends of lines too.
    for line in value.replace("\r\n", "\n").split("\n")[bool(status_line(value)) :]:
        if not line:
            continue
        name, _colon, text = line.partition(":")
        headers.append((name.strip(), _masked(name.strip().lower(), text.strip())))
    return headers


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
