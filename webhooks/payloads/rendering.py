"""The request a document becomes: URL, body and content type in the webhook's format."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from webhooks.catalogue import CURRENT_NAMES, INSTANT, OLDER_NAMES
from webhooks.payloads.document import ENCODER, instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What goes on the wire. `content_type` is None when there is no body."""

    url: str
    body: bytes
    content_type: str | None


class Format(Protocol):
    """The fields of a webhook that shape its requests."""

    method: str
    body_format: str
    date_format: str
    time_zone: str
    uses_older_names: bool


def renders_verbatim(webhook: Format) -> bool:
    """Say whether the request's body is the document itself, so that rendering can be skipped."""
    return (
        webhook.body_format == "json"
        and webhook.method != "GET"
        and webhook.date_format == "iso8601"
        and webhook.time_zone == "UTC"
        and not webhook.uses_older_names
    )


def render(
    document: bytes,
    *,
    method: str,
    url: str,
    body_format: str,
    date_format: str,
    time_zone: str,
    uses_older_names: bool,
    attempt: int,
) -> Rendered:
    """Return the URL and body of the request for a document.

    A GET has no body: it carries everything in its query whatever the body format. Every string
    that is an instant as `instant` writes it, at any depth, gets the date format and time zone.
    Nested values become compact JSON in forms and queries, where null is empty.
    """
    fields = _fields(document, date_format, time_zone, uses_older_names)
    if body_format == "query" or method == "GET":
        query = urlencode(_pairs({**fields, "attempt": attempt}), quote_via=quote)
        return Rendered(url=_with_query(url, query), body=b"", content_type=None)
    if body_format == "form":
        body = urlencode(_pairs(fields)).encode()
        return Rendered(url=url, body=body, content_type="application/x-www-form-urlencoded")
    return Rendered(url=url, body=ENCODER.encode(fields).encode(), content_type="application/json")


def _fields(
    document: bytes, date_format: str, time_zone: str, uses_older_names: bool
) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(document)
    if uses_older_names:
        fields = _with_older_names(fields)
    if (date_format, time_zone) != ("iso8601", "UTC"):
        fields = _reformat(fields, date_writer(date_format, time_zone))
    return fields


@lru_cache(maxsize=256)
def date_writer(date_format: str, time_zone: str) -> Callable[[datetime], str | int]:
    """Return how to write an aware moment; raise ZoneInfoNotFoundError for an unknown zone."""
    zone = ZoneInfo(time_zone)
    if date_format == "unix":
        return lambda moment: math.floor(moment.timestamp())
    if date_format == "sql":
        return lambda moment: (
            moment.astimezone(zone).replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
        )
    if time_zone == "UTC":
        return instant
    return lambda moment: moment.astimezone(zone).isoformat()


def _reformat(value: Any, write: Callable[[datetime], str | int]) -> Any:
    if isinstance(value, str):
        if not value.endswith("Z") or not INSTANT.fullmatch(value):
            return value
        try:
            return write(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            return value
    if isinstance(value, dict):
        return {key: _reformat(item, write) for key, item in value.items()}
    if isinstance(value, list):
        return [_reformat(item, write) for item in value]
    return value


def _with_older_names(fields: dict[str, Any]) -> dict[str, Any]:
    """Rename what has an older name; a field that already has that name gives way."""
    return {
        OLDER_NAMES.get(name, name): value
        for name, value in fields.items()
        if CURRENT_NAMES.get(name) not in fields
    }


def _pairs(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _as_text(value)) for name, value in fields.items()]


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else ENCODER.encode(value)


def _with_query(url: str, query: str) -> str:
    # A fragment is never sent.
    base = url.partition("#")[0]
    if base.endswith(("?", "&")):
        return base + query
    return f"{base}{'&' if '?' in base else '?'}{query}"
