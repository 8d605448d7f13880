"""Headers of a message: what a name is, several of one name, and a line as libcurl takes it."""

import re
from collections.abc import Iterable

# RFC 9110 sections 5.1 and 5.6.2.
HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def header_line(name: str, value: str) -> str:
    """Write a header for curl, which takes one without a value for a request to leave it out."""
    return f"{name}: {value}" if value else f"{name};"


def merge_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return each name once, whatever its case; its values are one list (RFC 9110 section 5.3)."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), (name, []))[1].append(value)
    return [(name, ", ".join(filter(None, values))) for name, values in found.values()]
