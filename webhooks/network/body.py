"""Response bodies: remove the content coding and decode them to text."""

import codecs
import json
import re
import zlib

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
# Python's other codecs are no charsets of the web ("zip", "unicode_escape"), or are slow
# ("punycode", "idna").
_CHARSETS = re.compile(
    r"utf-?(?:8|16|32)(?:[-_]?[lb]e)?|us-ascii|ascii|iso-?8859-?\d{1,2}|latin-?1|windows-?125\d"
    r"|cp125\d|cp866|koi8-[ru]|shift_?jis|euc-(?:jp|kr)|gb2312|gbk|gb18030|big5"
)

# The gzip magic number (RFC 1952 section 2.3.1); no text begins with it.
_GZIP = b"\x1f\x8b"


def declared_charset(content_type: str) -> str:
    """Return the charset that a Content-Type names, or "" if it names none or an unknown one."""
    found = _CHARSET.search(content_type)
    name = found[1].lower() if found else ""
    return name if _CHARSETS.fullmatch(name) else ""


def decode(body: bytes, content_type: str = "") -> str:
    """Return the body as text without a byte order mark. Never raises."""
    if body.startswith(codecs.BOM_UTF8):
        return body.decode("utf-8-sig", errors="replace")
    for charset in ("utf-8" if b"\0" not in body else "", declared_charset(content_type)):
        if charset:
            try:
                return body.decode(charset).removeprefix("\ufeff")
            except (UnicodeError, LookupError):
                continue
    detected = json.detect_encoding(body)
    return body.decode(detected, errors="replace").removeprefix("\ufeff")


def is_packed(body: bytes, coding: str) -> bool:
    """Return whether a body is compressed in a way that `unpack` knows.

    Some servers compress although the request asked for identity, and some send no Content-Encoding
    then.
    """
    codings = {one.strip().lower() for one in coding.split(",")} - {"", "identity"}
    return (bool(codings) or body.startswith(_GZIP)) and codings <= {"gzip", "x-gzip", "deflate"}


def unpack(body: bytes, coding: str, *, max_bytes: int) -> bytes:
    """Return the body decompressed, at most one byte more than `max_bytes`.

    A broken body, or one with another coding, is returned unchanged.
    """
    if not is_packed(body, coding):
        return body
    try:
        # Both the gzip and the zlib format (RFC 9110 section 8.4.1).
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        text = unpacker.decompress(body, max_bytes + 1)
        # One or two bytes of plain text give no output: zlib waits for the rest of its header.
        return text if text or unpacker.eof else body
    except zlib.error:
        return _inflate(body, max_bytes) if "deflate" in coding.lower() else body


def _inflate(body: bytes, max_bytes: int) -> bytes:
    """Return a body that is raw deflate, without the zlib format, decompressed.

    Some servers send it as "deflate". Plain text may begin like raw deflate, so the stream must
    also end properly. Source: RFC 9110 section 8.4.1.2.
    """
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        text = unpacker.decompress(body, max_bytes + 1)
    except zlib.error:
        return body
    is_whole = unpacker.eof and not unpacker.unused_data
    return text if is_whole or len(text) > max_bytes else body
