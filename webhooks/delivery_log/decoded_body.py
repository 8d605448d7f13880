"""Foreign bytes as something a person can read: which charset, JSON or not, text or a hex dump.

Never fails, whatever a receiver answers. `webhooks.templatetags.logtext` makes the markup.
"""

import json
import re
from dataclasses import dataclass
from enum import StrEnum

from webhooks import network
from webhooks.security.masker import MASK

_JSON_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
# Indenting is for reading; longer or deeper bodies are shown as they are.
_MAX_INDENTED_CHARACTERS = 200_000
_MAX_DEPTH = 40
# Of a body that is no text.
DUMPED_BYTES = 512
_BYTES_PER_LINE = 16
_COMPRESSIONS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress", "x-compress"})
_GZIP_MAGIC = b"\x1f\x8b"
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
# Controls but tab and line feed, marks that turn text around, separators that end some lines.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
# How many characters decide whether a body is text, and the share of controls that makes it binary.
_SAMPLED = 1000
_BINARY_SHARE = 0.1


class BodyKind(StrEnum):
    JSON = "json"
    TEXT = "text"
    BINARY = "binary"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodedBody:
    """A body as text. Bytes that fit no character are lone surrogates (PEP 383)."""

    kind: BodyKind
    # What to show: indented JSON, the text itself, or a hex dump.
    text: str
    # The text as it was sent; the same as `text` unless JSON was indented.
    raw: str
    # A charset other than UTF-8 that was declared and fits.
    charset: str = ""
    # How the bytes are compressed, if they are.
    compression: str = ""


def read(data: bytes, *, content_type: str = "", content_encoding: str = "") -> DecodedBody:
    """Return a body as text, with the kind that was found."""
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
    """Return whether a body that claims to be compressed is plain text after all."""
    return data.isascii() and not _CONTROL.search(data.decode())


def _decode(data: bytes, content_type: str) -> tuple[str, str]:
    """Return the text and the charset, if it is one that was declared, fits and is not UTF-8."""
    name = network.declared_charset(content_type)
    if name not in ("", "utf-8", "utf8"):
        try:
            text = data.decode(name)
            return text, name if text.encode() != data else ""
        except (UnicodeError, LookupError):
            # Declared wrongly, or cut in the middle of a character: UTF-8 as for the rest.
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
    """Return a text for a place without markup, such as a mail, with escapes for what hides."""
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


# ---- Headers ----------------------------------------------------------------------------------

# Headers whose value is a secret by its nature. The log masks them when it is written; a second
# time here costs nothing and keeps old or foreign rows from showing one.
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "x-auth-token"}
)

# Headers of a response that say nothing of the request.
_OF_SERVERS = frozenset(
    """
    allow cache-control connection content-encoding content-length content-type date expires
    keep-alive ratelimit ratelimit-policy retry-after server strict-transport-security
    transfer-encoding vary www-authenticate x-ratelimit-limit x-ratelimit-remaining
    x-ratelimit-reset
    """.split()  # noqa: SIM905 - read as prose.
)


def status_line(value: str) -> str:
    """Return the line above the headers of a stored response, or "" when there is none."""
    first = value.partition("\n")[0].strip()
    return first if first.startswith("HTTP/") else ""


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


def response_header_lines(value: str, may_see_payload: bool) -> list[tuple[str, str]]:
    """Split stored lines as `header_lines` does, without values that may repeat a payload.

    A redirect repeats the query of the request, for example.
    """
    lines = header_lines(value)
    if may_see_payload:
        return lines
    return [(name, text if name.lower() in _OF_SERVERS else "…") for name, text in lines]


def _masked(name: str, value: str) -> str:
    if name not in _SECRET_HEADERS or MASK in value:
        return value
    scheme, space, rest = value.partition(" ")
    return f"{scheme} {MASK}" if space and rest and "authorization" in name else MASK
