"""The search box: ids, a call, a phone number in any notation, a part of a URL.

Each lookup in the log uses an index and is bounded, whatever the size of the log.
"""

from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from webhooks.catalogue import phones
from webhooks.models import Event, Webhook

# Limits of one search: events of a call or a number, and different numbers.
MAX_EVENTS = 200
_MAX_NUMBERS = 50
# Limit of webhooks found by a part of a URL.
_MAX_WEBHOOKS = 200
_TABLE = Event._meta.db_table
_COLUMNS = phones.PhoneNumbers._fields
# Greater than any event id.
_AFTER_ALL = "evt_Z"
# A loose index scan: steps from one number to the next, however many events each has.
_SCAN = """
all_{column}(number) AS (
  SELECT * FROM (SELECT {column} FROM {table} WHERE {column} >= %s AND {column} < %s
    ORDER BY {column} LIMIT 1) AS first
  UNION ALL
  SELECT (SELECT e.{column} FROM {table} e WHERE e.{column} > a.number AND e.{column} < %s
    ORDER BY e.{column} LIMIT 1)
  FROM all_{column} a WHERE a.number IS NOT NULL
)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the words match; at most one of these is not empty."""

    delivery: str = ""
    events: list[str] = field(default_factory=list)
    webhooks: list[int] = field(default_factory=list)
    # Whether there are more events of this call or number.
    is_cut: bool = False


def find(words: str, *, before: str = "", after: str = "", may_see_numbers: bool = True) -> Found:
    """Look up the search words; of many events, those older than `before` or newer than `after`."""
    if words.startswith("dlv_"):
        return Found(delivery=words)
    if words.startswith("evt_"):
        return Found(events=[words])
    least = phones.MIN_SEARCHED if may_see_numbers else phones.MIN_KNOWN
    events = events_of(words, least_digits=least)
    if (before or after) and len(events) == MAX_EVENTS:
        events = events_of(words, before=before, after=after, least_digits=least)
        return Found(events=events, is_cut=len(events) == MAX_EVENTS)
    if events:
        # All events on every page: an old event that was resent has a new delivery.
        return Found(events=events, is_cut=len(events) == MAX_EVENTS)
    # Includes deleted webhooks.
    webhooks = Webhook.objects.filter(url__icontains=words).order_by("-pk")
    return Found(webhooks=list(webhooks.values_list("pk", flat=True)[:_MAX_WEBHOOKS]))


def events_of(
    words: str, *, before: str = "", after: str = "", least_digits: int = phones.MIN_SEARCHED
) -> list[str]:
    """Return the events of a call or of a phone number, the nearest first."""
    pairs = [("call_id", words), *_numbers(words, least_digits)]
    range_, order = ("id > %s", "id") if after else ("id < %s", "id DESC")
    parts = [
        f"SELECT id FROM (SELECT id FROM {_TABLE} WHERE {column} = %s AND {range_} "  # noqa: S608
        f"ORDER BY {order} LIMIT {MAX_EVENTS}) AS nearest"
        for column, _number in pairs
    ]
    bound = after or before or _AFTER_ALL
    parameters = [value for _column, number in pairs for value in (number, bound)]
    statement = f"{' UNION '.join(parts)} ORDER BY {order} LIMIT {MAX_EVENTS}"
    return [event_id for (event_id,) in _rows(statement, parameters)]


def _numbers(words: str, least_digits: int) -> list[tuple[str, str]]:
    """Return pairs of a column and a stored number that ends in the digits searched for."""
    if (wanted := phones.search(words, least=least_digits)) is None:
        return []
    scans = ", ".join(_SCAN.format(column=column, table=_TABLE) for column in _COLUMNS)
    parts = (
        f"SELECT '{column}', number FROM all_{column} WHERE number IS NOT NULL"  # noqa: S608
        for column in _COLUMNS
    )
    found = _rows(
        f"WITH RECURSIVE {scans} {' UNION ALL '.join(parts)} LIMIT {_MAX_NUMBERS}",
        [wanted.begin, wanted.end, wanted.end] * len(_COLUMNS),
    )
    return [*found, *((column, number) for column in _COLUMNS for number in wanted.shorter)]


def _rows(statement: str, parameters: list[str]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return list(cursor.fetchall())
