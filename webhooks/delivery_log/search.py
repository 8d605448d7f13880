"""What one search box finds: ids, a call, a phone number in any spelling, a part of a URL.

Each is answered by an index and bounded, whatever the log holds.
"""

from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from webhooks.catalogue import phones
from webhooks.models import Event, Webhook

# The events that one look reads of a call or a number, and the different numbers.
MAX_EVENTS = 200
_MAX_NUMBERS = 50
# How many webhooks a part of a URL finds.
_MAX_WEBHOOKS = 200
_TABLE = Event._meta.db_table
_COLUMNS = phones.PhoneNumbers._fields
# No id is greater.
_AFTER_ALL = "evt_Z"
# A loose index scan: from one number to the next, however many events each has.
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
    """What the words name; at most one of these is not empty."""

    delivery: str = ""
    events: list[str] = field(default_factory=list)
    webhooks: list[int] = field(default_factory=list)
    # There are events of this call or number beyond these.
    is_cut: bool = False


def find(words: str, *, before: str = "", after: str = "", may_see_numbers: bool = True) -> Found:
    """Look up what a person typed; events older than `before`, or newer than `after`."""
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
        # All of them, on every page: an old event that was sent again has a new delivery.
        return Found(events=events, is_cut=len(events) == MAX_EVENTS)
    # Deleted ones too.
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
    """Return in which columns there are numbers that end so, and those numbers."""
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
