"""Reads the body of an authorization server's answer, strictly, whatever was sent.

Pure. Every body becomes a mapping or a `Malformed`; no other error leaves this module.
"""

import codecs
import json
import math
import re
from typing import Any
from urllib.parse import parse_qsl

# Real answers have three levels; a parser's recursion is not for strangers to spend.
_MAX_DEPTH = 20
_MAX_FIELDS = 200
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)
_FORM = re.compile(r"[A-Za-z_][\w.-]*=[^\s<>{}]*")
# What says that it is a form may be written carelessly: spaces as they are, a leading "&".
_DECLARED_FORM = re.compile(r"&*[A-Za-z_][\w.-]*=")
# Other codecs of Python are no charsets of the web, or cost time ("punycode", "idna").
_CHARSETS = re.compile(
    r"utf-?(8|16|32)([-_]?[lb]e)?|iso-?8859-\d+|latin-?1|windows-125\d|cp125\d|koi8-[ru]"
)
_HTML = re.compile(r"\s*(<!doctype|<html|<head|<body|<!--|<title|<script)", re.IGNORECASE)


class Malformed(ValueError):
    """The body is no token answer; `reason` is a word for programs."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def read(body: bytes, content_type: str) -> dict[str, Any]:
    """Return the fields of a JSON object or of form data, each there once.

    Errors: Malformed with the reason "empty", "html", "too_deep", "truncated", "duplicate_keys",
    "not_json" or "not_an_object".
    """
    text = decode(body, content_type).strip()
    if not text:
        raise Malformed("empty")
    if is_html(text, content_type):
        raise Malformed("html")
    if _is_form(text, content_type):
        return _read_form(text)
    return _read_json(text)


def decode(body: bytes, content_type: str = "") -> str:
    """Return the body as text without a byte order mark; it never fails."""
    if body.startswith(codecs.BOM_UTF8):
        return body.decode("utf-8-sig", errors="replace")
    declared = _CHARSET.search(content_type)
    for charset in ("utf-8" if b"\0" not in body else "", declared[1] if declared else ""):
        if charset and _CHARSETS.fullmatch(charset.lower()):
            try:
                return body.decode(charset).removeprefix("\ufeff")
            except (UnicodeError, LookupError):
                continue
    detected = json.detect_encoding(body)
    return body.decode(detected, errors="replace").removeprefix("\ufeff")


def is_html(text: str, content_type: str) -> bool:
    if text.startswith(("{", "[")):
        return False
    is_called_html = media_type(content_type) in ("text/html", "application/xhtml+xml")
    return _HTML.match(text) is not None or (is_called_html and not _FORM.fullmatch(text))


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_form(text: str, content_type: str) -> bool:
    if media_type(content_type) == "application/x-www-form-urlencoded":
        return _DECLARED_FORM.match(text) is not None
    # Some providers call their forms text/plain or text/html.
    return _FORM.fullmatch(text) is not None and media_type(content_type) != "application/json"


def _read_form(text: str) -> dict[str, Any]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise Malformed("not_json") from error
    return _unique(pairs)


def _read_json(text: str) -> dict[str, Any]:
    depth, deepest = _measure(text)
    if deepest > _MAX_DEPTH:
        raise Malformed("too_deep")
    try:
        document = json.loads(
            text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_constant
        )
    except Malformed:
        raise
    except (ValueError, RecursionError) as error:
        is_cut = text.startswith("{") and depth > 0
        raise Malformed("truncated" if is_cut else "not_json") from error
    if not isinstance(document, dict):
        raise Malformed("not_an_object")
    return document


def _measure(text: str) -> tuple[int, int]:
    """Return how many brackets are open at the end, a string among them, and at most."""
    depth = deepest = 0
    for match in _TOKENS.finditer(text):
        bracket = match[0]
        if bracket in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in "]}":
            depth -= 1
    return depth, deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise Malformed("duplicate_keys")
    return fields


def _integer(text: str) -> int | float:
    # int() refuses very long numbers with a ValueError.
    return int(text) if len(text) < 20 else float(text)


def _constant(text: str) -> float:
    # NaN and Infinity are no JSON, and as an expiry they are ignored.
    return math.nan
