"""Apply a filter to past events: how many pass, and which.

Reads a bounded number of the newest events through an index.
"""

from collections.abc import Sequence
from typing import Any

from django.db import connection

from webhooks import catalogue, payloads
from webhooks.delivery_log.event_detail import FOR_ONE
from webhooks.filters import Filter
from webhooks.models import Event

MAX_EVENTS = 200
# An event may have a megabyte; reading this many bytes takes a few milliseconds.
_MAX_BYTES = 4 * 1024 * 1024
# The search for the newest event stops after this many tests and edited copies in a row.
_MAX_SKIPPED = 50


def preview(compiled: Filter, types: Sequence[str], *, may_see_payload: bool) -> dict[str, Any]:
    """Apply a filter to the newest events of these types, or to samples if there are none.

    Return the total, the number that match, and each event with the conditions that rejected it.
    A sample has no time. Users who may not see payloads get samples: from the number of events that
    match one filter after another they could guess a value piece by piece.
    """
    found = recent_events(types) if may_see_payload else []
    documents = [payloads.read_document(event.payload) for event in found]
    events: list[dict[str, Any]] = [
        {"type": event.type, "call_id": event.call_id, "created_at": event.created_at}
        for event in found
    ]
    if not found:
        documents = [catalogue.sample_event(key) for key in types]
        events = [{"type": key} for key in types]
    for event, document in zip(events, documents, strict=True):
        event["label"] = catalogue.label_of(event["type"])
        event["refusals"] = compiled.explain(document)
        event["passes"] = not event["refusals"]
    return {
        "events": events,
        "total": len(events),
        "matched": sum(event["passes"] for event in events),
        "is_of_samples": not found,
    }


def recent_events(types: Sequence[str], *, limit: int = MAX_EVENTS) -> list[Event]:
    """Return the newest events of these types with their payloads, newest first.

    Tests and edited copies are left out: a filter never sees them.
    """
    ids: list[str] = []
    size = 0
    for event_id, payload_size, source in _newest(types, limit):
        size += payload_size
        if ids and size > _MAX_BYTES:
            break
        if source not in FOR_ONE:
            ids.append(event_id)
    events = Event.objects.in_bulk(ids)
    return [events[event_id] for event_id in ids if event_id in events]


def newest_event(types: Sequence[str]) -> Event | None:
    """Return the newest event of these types, without tests and edited copies."""
    for event_id, _size, source in _newest(types, _MAX_SKIPPED):
        if source not in FOR_ONE:
            return Event.objects.filter(pk=event_id).first()
    return None


def _newest(types: Sequence[str], limit: int) -> list[tuple[str, int, str]]:
    """Return id, size and source of the newest events.

    Each type is read from the end of its own range of the index `event_by_type`. A single
    condition on all types makes PostgreSQL read all events of these types, or all events.
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
