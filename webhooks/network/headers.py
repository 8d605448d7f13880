"""HTTP headers: valid names, merging of repeated names, lines in libcurl's format."""

import re
from collections.abc import Iterable

# RFC 9110 sections 5.1 and 5.6.2.
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def header_line(name: str, value: str) -> str:
    """Return a header line for libcurl, which would remove a header written as `Name:`."""
    return f"{name}: {value}" if value else f"{name};"


def merge_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return each name once, ignoring case, its values joined by commas (RFC 9110 section 5.3)."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), (name, []))[1].append(value)
    return [(name, ", ".join(filter(None, values))) for name, values in found.values()]
