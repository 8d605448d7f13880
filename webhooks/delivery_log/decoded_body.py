"""Decode untrusted bytes for people: charset, JSON or text, or a hex dump.

Never fails, whatever a receiver sends. `webhooks.templatetags.logtext` makes the markup.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from webhooks import network
from webhooks.security.masker import MASK

_JSON_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
# Longer or deeper bodies are shown without indentation.
_MAX_INDENTED_CHARACTERS = 200_000
_MAX_DEPTH = 40
# The part of a binary body that is shown as a hex dump.
DUMPED_BYTES = 512
_BYTES_PER_LINE = 16
# Besides gzip, which is recognized by its first bytes: a body that repeated a secret is stored
# decompressed.
_COMPRESSIONS = frozenset({"deflate", "br", "zstd", "compress", "x-compress"})
_GZIP_MAGIC = b"\x1f\x8b"
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# Controls except tab and line feed, direction marks, line separators, and lone surrogates.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# Characters that are sampled, and the share of control characters above which a body is binary.
_SAMPLED = 1000
_BINARY_SHARE = 0.1


class BodyKind(StrEnum):
    JSON = "json"
    TEXT = "text"
    BINARY = "binary"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBody:
    """A body as text. Undecodable bytes are lone surrogates (PEP 383)."""

    kind: BodyKind
    # What to show: indented JSON, the text itself, or a hex dump.
    text: str
    # The text as it was sent; differs from `text` only for indented JSON.
    raw: str
    # The declared charset, if it is not UTF-8 and decodes the body.
    charset: str = ""
    # The compression of the bytes, if any.
    compression: str = ""


def read(data: bytes, *, content_type: str = "", content_encoding: str = "") -> DecodedBody:
    """Return a body as text, with its detected kind."""
    compression = _compression(data, content_encoding)
    text, charset = _decode(data, content_type)
    if compression or (not charset and _is_binary(text)):
        dump = hex_dump(data[:DUMPED_BYTES])
        return DecodedBody(kind=BodyKind.BINARY, text=dump, raw=dump, compression=compression)
    if indented := indent_json(text):
        return DecodedBody(kind=BodyKind.JSON, text=indented, raw=text, charset=charset)
    return DecodedBody(kind=BodyKind.TEXT, text=text, raw=text, charset=charset)


def _compression(data: bytes, content_encoding: str) -> str:
    declared = content_encoding.strip().lower()
    if data.startswith(_GZIP_MAGIC):
        return "gzip"
    return declared if data and declared in _COMPRESSIONS and not _is_ascii(data) else ""


def _is_ascii(data: bytes) -> bool:
    """Return whether a body that is declared as compressed is in fact plain text."""
    return data.isascii() and not _CONTROL.search(data.decode())


def _decode(data: bytes, content_type: str) -> tuple[str, str]:
    """Return the text, and the declared charset if it is not UTF-8 and decodes the body."""
    name = network.declared_charset(content_type)
    if name not in ("", "utf-8", "utf8"):
        try:
            text = data.decode(name)
            return text, name if text.encode() != data else ""
        except (UnicodeError, LookupError):
            # Wrongly declared, or cut in the middle of a character: decoded as UTF-8 instead.
            pass
    return data.decode("utf-8", "surrogateescape"), ""


def _is_binary(text: str) -> bool:
    sample = text[:_SAMPLED]
    return "\0" in sample or len(_CONTROL.findall(sample)) > _BINARY_SHARE * len(sample)


def hex_dump(data: bytes) -> str:
    """Write bytes as lines of offset, hexadecimal digits and printable ASCII."""
    lines = []
    for start in range(0, len(data), _BYTES_PER_LINE):
        piece = data[start : start + _BYTES_PER_LINE]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"{start:04x}  {piece.hex(' '):<{3 * _BYTES_PER_LINE}} {shown}")
    return "\n".join(lines)


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


def escape_invisible(text: str) -> str:
    """Return text for media without markup, such as mail, with invisible characters escaped."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


# ---- Headers ----------------------------------------------------------------------------------

# Headers whose value is always a secret. They are masked when the log is written; masking them
# here as well costs nothing and covers old rows and rows from elsewhere.
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"}
)

# Response headers that cannot repeat the request.
_SAFE_RESPONSE_HEADERS = frozenset(
    """
    allow cache-control connection content-encoding content-length content-type date expires
    keep-alive ratelimit ratelimit-policy retry-after server strict-transport-security
    transfer-encoding vary www-authenticate x-ratelimit-limit x-ratelimit-remaining
    x-ratelimit-reset
    """.split()  # noqa: SIM905 - read as prose.
)


def status_line(value: str, may_see_payload: bool = True) -> str:
    """Return the status line of a stored response, or "" when there is none.

    Without its reason phrase, which may repeat a payload, for users who may not see payloads.
    """
    first = value.partition("\n")[0].strip()
    if not first.startswith("HTTP/"):
        return ""
    return first if may_see_payload else " ".join(first.split()[:2])


def header_lines(value: str) -> list[tuple[str, str]]:
    """Split stored header lines into names and values, secrets masked; no status line."""
    headers = []
    # Not splitlines(): it also splits at characters that a value may contain.
    for line in value.replace("\r\n", "\n").split("\n")[bool(status_line(value)) :]:
        if not line:
            continue
        name, _colon, text = line.partition(":")
        headers.append((name.strip(), _masked(name.strip().lower(), text.strip())))
    return headers


def response_header_lines(value: str, may_see_payload: bool) -> list[tuple[str, str]]:
    """Split stored lines as `header_lines` does, hiding values that may repeat a payload.

    For example, a redirect may repeat the query string of the request.
    """
    lines = header_lines(value)
    if may_see_payload:
        return lines
    return [(name, text if name.lower() in _SAFE_RESPONSE_HEADERS else "…") for name, text in lines]


def _masked(name: str, value: str) -> str:
    if name not in _SECRET_HEADERS or MASK in value:
        return value
    scheme, space, rest = value.partition(" ")
    return f"{scheme} {MASK}" if space and rest and "authorization" in name else MASK
