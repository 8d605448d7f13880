"""Text that came from outside, made safe to look at: escaped, every trick character shown.

Owns how headers and bodies of the log are displayed. Whatever a receiver answers, the page shows
it as text: no markup, no terminal colours, no invisible or direction-changing characters.
"""

import json
import re
import unicodedata

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
# Cc: control, Cf: format (bidi, zero width), Cs: lone surrogates, Co: private use, Zl and Zp:
# separators that look like nothing.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
# Indenting is for reading; longer or deeper bodies are shown as they are.
_MAX_INDENTED_CHARACTERS = 200_000
_MAX_DEPTH = 40


@register.filter
def visible(value: object) -> SafeString:
    """Escape text and show what cannot be seen in it as `\\x1b` or `\\u202e`."""
    parts: list[str] = []
    plain: list[str] = []
    for character in str(value):
        if character in "\n\t" or unicodedata.category(character) not in _HIDDEN_CATEGORIES:
            plain.append(character)
            continue
        parts.append(conditional_escape("".join(plain)))
        plain.clear()
        parts.append(format_html('<span class="escape">{}</span>', _escape(character)))
    parts.append(conditional_escape("".join(plain)))
    return mark_safe("".join(parts))  # noqa: S308 - every part was escaped above


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

    Works on the tokens, so numbers, escapes and repeated keys stay as they were sent.
    """
    if text.lstrip()[:1] not in ("{", "[") or len(text) > _MAX_INDENTED_CHARACTERS:
        return ""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return ""
    lines: list[str] = []
    depth = 0
    previous = ""
    for token in _JSON_TOKEN.findall(text):
        is_closing = token in "}]"
        depth -= is_closing
        if depth > _MAX_DEPTH:
            return ""
        if previous in ("{", "[", ",") and not (is_closing and previous in "{["):
            lines.append("\n" + "  " * depth)
        elif is_closing and previous not in ("{", "["):
            lines.append("\n" + "  " * depth)
        lines.append(": " if token == ":" else token)
        depth += token in "{["
        previous = token
    return "".join(lines)


@register.filter
def header_lines(value: str) -> list[tuple[str, str]]:
    """Split stored header lines into names and values, secrets masked."""
    headers = []
    for line in value.splitlines():
        name, _colon, text = line.partition(":")
        headers.append((name.strip(), _masked(name.strip().lower(), text.strip())))
    return headers


def _masked(name: str, value: str) -> str:
    if name not in _SECRET_HEADERS or MASK in value:
        return value
    scheme, space, rest = value.partition(" ")
    return f"{scheme} {MASK}" if space and rest and "authorization" in name else MASK
