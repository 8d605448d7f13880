"""A filter tried on events that already happened: how many it lets through, and which.

Reads a bounded number of the newest events through an index. Knows no form and no request.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from webhooks import catalogue, payloads
from webhooks.filters import Filter, Judgement
from webhooks.models import Event

MAX_EVENTS = 200
# Events may hold a megabyte each; so many bytes in all are read, which is a few milliseconds.
_MAX_BYTES = 4 * 1024 * 1024
# Behind so many test events nothing else is looked for.
_MAX_TESTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One event and what the filter makes of it; a sample has no id and no time."""

    type: str
    passes: bool
    refusals: tuple[Judgement, ...] = ()
    event_id: str = ""
    call_id: str = ""
    created_at: dt.datetime | None = None

    @property
    def label(self) -> Any:
        known = catalogue.EVENT_TYPES.get(self.type)
        return known.label if known else self.type


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it; `is_of_samples` when no event of these types happened yet."""

    tried: tuple[Tried, ...]
    is_of_samples: bool = False

    @property
    def total(self) -> int:
        return len(self.tried)

    @property
    def matched(self) -> int:
        return sum(one.passes for one in self.tried)


def attempt(compiled: Filter, types: Sequence[str]) -> Trial:
    """Try a filter on the newest events of these types, or on samples where there are none."""
    found = recent_events(types)
    if not found:
        samples = [
            Tried(type=key, **_judged(compiled, catalogue.sample_event(key))) for key in types
        ]
        return Trial(tried=tuple(samples), is_of_samples=True)
    return Trial(
        tried=tuple(
            Tried(
                type=event.type,
                event_id=event.pk,
                call_id=event.call_id,
                created_at=event.created_at,
                **_judged(compiled, payloads.read_document(event.payload)),
            )
            for event in found
        )
    )


def recent_events(types: Sequence[str], limit: int = MAX_EVENTS) -> list[Event]:
    """Return the newest events of these types with their payloads, newest first.

    Test events are left out: a filter never sees them.
    """
    ids: list[str] = []
    size = 0
    for event_id, payload_size, source in _newest(types, limit):
        size += payload_size
        if ids and size > _MAX_BYTES:
            break
        if source != "test":
            ids.append(event_id)
    events = Event.objects.in_bulk(ids)
    return [events[event_id] for event_id in ids if event_id in events]


def newest_event(types: Sequence[str]) -> Event | None:
    """Return the newest event of these types that is no test."""
    for event_id, _size, source in _newest(types, _MAX_TESTS):
        if source != "test":
            return Event.objects.filter(pk=event_id).first()
    return None


def _newest(types: Sequence[str], limit: int) -> list[tuple[str, int, str]]:
    """Return id, size and source of the newest events.

    Each type is read from the end of its own stretch of the index `event_by_type`; one condition
    on all types makes PostgreSQL read every event of them, or every event.
    """
    if not types:
        return []
    one = (
        "SELECT id, size, source FROM (SELECT id, length(payload) AS size, source "  # noqa: S608
        f"FROM {Event._meta.db_table} WHERE type = %s ORDER BY id DESC LIMIT %s) AS newest"
    )
    statement = " UNION ALL ".join([one] * len(types))
    parameters = [value for key in types for value in (key, limit)]
    with connection.cursor() as cursor:
        cursor.execute(f"{statement} ORDER BY id DESC LIMIT %s", [*parameters, limit])
        return list(cursor.fetchall())


def _judged(compiled: Filter, values: dict[str, Any]) -> dict[str, Any]:
    refusals = tuple(compiled.explain(values))
    return {"passes": not refusals, "refusals": refusals}
