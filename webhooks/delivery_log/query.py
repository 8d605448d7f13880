"""Reads the delivery log at any size: filters, pages by key, never a count.

Only for some conditions does an index return rows in the order of their ids. For the others, a
page scans stretches of the most selective index until it is full or its time is up, and reports
how far it got. So no page takes long, and every row can be reached. Ids sort by creation time, so
a time range is a key range.
"""

import datetime as dt
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from django.db import connection
from django.db.models import Value
from django.db.models.functions import Coalesce

from webhooks.delivery_log import search
from webhooks.delivery_log.search import Found
from webhooks.models import (
    CREDENTIAL_SECRETS,
    WEBHOOK_SECRETS,
    Attempt,
    Delivery,
    DeliveryQuerySet,
    Outcome,
    Status,
    Trigger,
    ids,
)

PAGE_ROWS = 50
# Rows that an export reads at once.
EXPORT_ROWS = 500
# Index rows in one stretch: about ten milliseconds of work.
STRETCH = 20_000
SEARCH_SECONDS = 0.15
# Up to this many open deliveries are filtered by their ids.
_MAX_OPEN = 2000
_EXCEPTIONAL = (Status.FAILED, Status.HELD, Status.PARKED, Status.CANCELLED)
_OPEN = (Status.PENDING, Status.SENDING)
_RARE = (Trigger.TEST, Trigger.RESENT, Trigger.BULK, Trigger.EDITED)
# Lists load no payloads and no ciphertexts.
_SECRETS = [f"webhook__{name}" for name in WEBHOOK_SECRETS]
_CREDENTIAL_SECRETS = [f"webhook__credential__{name}" for name in CREDENTIAL_SECRETS]
LEFT_OUT = ["event__payload", *_SECRETS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Filters of the log; an empty value does not filter."""

    words: str = ""
    # Without it, the words match a phone number only by nearly all of its digits.
    may_see_numbers: bool = True
    webhook: int | None = None
    status: str = ""
    # An Outcome, or "failure" for every outcome except success.
    outcome: str = ""
    # "404", "5xx", or "none" for no response.
    code: str = ""
    type: str = ""
    trigger: str = ""
    # Created in [since, until).
    since: dt.datetime | None = None
    until: dt.datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """A page, newest first. The keys say where the next pages begin; empty if there is none."""

    rows: list[Delivery] = field(default_factory=list)
    older_than: str = ""
    newer_than: str = ""
    # Where the search stopped before the page was full; None if it did not. A search upward went
    # from older to newer rows.
    searched_to: dt.datetime | None = None
    is_upward: bool = False


def get(delivery_id: str) -> Delivery | None:
    """Return a delivery with its event and webhook, without secrets; None if there is none."""
    found = Delivery.objects.select_related("event", "webhook__credential")
    found = found.defer(*_SECRETS, *_CREDENTIAL_SECRETS)
    # PostgreSQL rejects NUL in text.
    return found.filter(pk=delivery_id.replace("\0", "")).first()


def page(
    conditions: Conditions, *, before: str = "", after: str = "", size: int = PAGE_ROWS
) -> LogPage:
    """Return the rows older than `before`, or newer than `after`, or the newest."""
    log_search = _LogSearch(conditions, after or before, is_upward=bool(after))
    rows = log_search.rows(size + 1, time.monotonic() + SEARCH_SECONDS)
    has_more = len(rows) > size
    rows = rows[:size]
    further = rows[-1].pk if has_more else log_search.ended_at
    if after:
        rows.reverse()
        # If nothing is newer, the row `after` is the first of the older ones: a longer key is
        # greater.
        older, newer = (rows[-1].pk if rows else f"{after}0"), further
    else:
        older, newer = further, (rows[0].pk if rows and before else "")
    return LogPage(
        rows=rows,
        older_than=older,
        newer_than=newer,
        searched_to=ids.moment(log_search.ended_at)
        if log_search.ended_at and not has_more
        else None,
        is_upward=bool(after),
    )


def durations(rows: Iterable[Delivery]) -> dict[str, float | None]:
    """Return how long the last attempt of each delivery took, in milliseconds."""
    last = {row.pk: row.attempt_count for row in rows}
    attempts = Attempt.objects.filter(delivery__in=list(last), number__in=set(last.values()))
    found = attempts.order_by("id").values_list("delivery_id", "number", "total_ms")
    return {key: total_ms for key, number, total_ms in found if number == last[key]}


def pages(conditions: Conditions, *, limit: int, seconds: float) -> Iterator[LogPage]:
    """Yield pages from the newest on, up to a limit of rows, or of seconds in the database.

    `older_than` of the last page says where the rows begin that are left, if any.
    """
    before = ""
    while limit > 0 and seconds > 0:
        began_at = time.monotonic()
        found = page(conditions, before=before, size=min(EXPORT_ROWS, limit))
        seconds -= time.monotonic() - began_at
        yield found
        limit -= len(found.rows)
        if not (before := found.older_than):
            return


class _LogSearch:
    """One search through the log in one direction, starting at a key."""

    def __init__(self, conditions: Conditions, start: str, *, is_upward: bool) -> None:
        self._wanted = conditions
        self._start = start
        self._is_upward = is_upward
        # The key at which the search stopped; empty if it reached the end.
        self.ended_at = ""
        self._found = self._search()
        self._candidate_indexes, self._is_answered = _candidate_indexes(conditions, self._found)
        self._matching = _narrow(Delivery.objects.all(), conditions, self._found)
        if (keys := _few_open(conditions.status)) is not None:
            self._matching = self._matching.filter(pk__in=keys)
            self._is_answered = True

    def _search(self) -> Found | None:
        """Look up the search words; of many events, only those nearest to the start key.

        A process makes the id of an event before those of its deliveries, so both sort alike.
        """
        words, start = self._wanted.words, self._start
        if not words:
            return None
        find = partial(search.find, words, may_see_numbers=self._wanted.may_see_numbers)
        if not self._is_upward:
            return find(before=start.replace("dlv_", "evt_"))
        # The event may have further deliveries; a shorter id sorts before the event itself.
        last = Delivery.objects.filter(pk=start).values_list("event_id", flat=True).first()
        return find(after=last[:-1] if last else start.replace("dlv_", "evt_"))

    def rows(self, limit: int, deadline: float) -> list[Delivery]:
        matching = _in_range(self._matching, self._wanted)
        matching = matching.select_related("event", "webhook").defer(*LEFT_OUT)
        found: list[Delivery] = []
        start = self._start
        while True:
            end = "" if self._is_answered else self._stretch(start)
            piece = self._beyond(matching, start)
            if end:
                piece = piece.filter(pk__lte=end) if self._is_upward else piece.filter(pk__gte=end)
            found += piece[: limit - len(found)]
            if len(found) < limit and not end and self._found and self._found.is_cut:
                self.ended_at = self._found.events[-1].replace("evt_", "dlv_")
            if len(found) >= limit or not end:
                return found
            if time.monotonic() > deadline:
                self.ended_at = end
                return found
            start = end

    def _stretch(self, start: str) -> str:
        """Return the key at the end of the next stretch, in the index that reaches furthest."""
        ends = []
        for index in self._candidate_indexes:
            rows = self._beyond(_in_range(index, self._wanted), start)
            if not (end := list(rows.values_list("pk", flat=True)[STRETCH : STRETCH + 1])):
                return ""
            ends += end
        return max(ends) if self._is_upward else min(ends)

    def _beyond(self, rows: DeliveryQuerySet, start: str) -> DeliveryQuerySet:
        if self._is_upward:
            return rows.filter(pk__gt=start).order_by("pk")
        return (rows.filter(pk__lt=start) if start else rows).order_by("-pk")


def _candidate_indexes(
    wanted: Conditions, found: Found | None
) -> tuple[list[DeliveryQuerySet], bool]:
    """Return the indexes to choose from, and whether one of them covers all conditions."""
    every_row = Delivery.objects.all()
    conditions = [
        wanted.webhook is not None, wanted.status, wanted.outcome, wanted.code, wanted.type,
        wanted.trigger,
    ]  # fmt: skip
    # The shortest first: if it ends within a stretch, the others are not needed.
    indexes = []
    if wanted.status in _EXCEPTIONAL:
        indexes.append(_with_status(every_row, wanted.status))
    if wanted.code.isdecimal() and not wanted.code.startswith("2"):
        indexes.append(_with_code(every_row, wanted.code))
    if wanted.trigger in _RARE:
        indexes.append(_with_trigger(every_row, wanted.trigger))
    if wanted.webhook is not None:
        indexes.append(every_row.filter(webhook=wanted.webhook))
    asked = sum(map(bool, conditions))
    if found is not None:
        if not found.webhooks:
            # Few rows, whatever the other conditions are.
            return [every_row], True
        if len(found.webhooks) == 1:
            return [every_row.filter(webhook__in=found.webhooks)], asked == 0
        # No index has the rows of several webhooks in id order.
        return indexes or [every_row], False
    is_answered = asked == len(indexes) <= 1
    return indexes or [every_row], is_answered


def _in_range(rows: DeliveryQuerySet, wanted: Conditions) -> DeliveryQuerySet:
    if wanted.since:
        rows = rows.filter(pk__gte=ids.floor("dlv", wanted.since.timestamp()))
    if wanted.until:
        rows = rows.filter(pk__lt=ids.floor("dlv", wanted.until.timestamp()))
    return rows


def _narrow(rows: DeliveryQuerySet, wanted: Conditions, found: Found | None) -> DeliveryQuerySet:
    if found is not None:
        if found.delivery:
            rows = rows.filter(pk=found.delivery)
        elif found.webhooks:
            rows = rows.filter(webhook__in=found.webhooks)
        else:
            rows = rows.filter(event__in=found.events)
    if wanted.webhook is not None and wanted.status in _EXCEPTIONAL:
        rows = rows.of_webhook(wanted.webhook)
    elif wanted.webhook is not None:
        rows = rows.filter(webhook=wanted.webhook)
    if wanted.status:
        rows = _with_status(rows, wanted.status)
    if wanted.outcome == "failure":
        rows = rows.exclude(outcome__in=("", Outcome.SUCCEEDED))
    elif wanted.outcome:
        rows = rows.filter(outcome=wanted.outcome)
    if wanted.code:
        rows = _with_code(rows, wanted.code)
    if wanted.type:
        rows = _with_type(rows, wanted.type)
    if wanted.trigger:
        rows = _with_trigger(rows, wanted.trigger)
    return rows


def _with_status(rows: DeliveryQuerySet, status: str) -> DeliveryQuerySet:
    partial = rows.by_index("delivery_exceptional") if status in _EXCEPTIONAL else rows
    return partial.filter(status=status)


def _with_type(rows: DeliveryQuerySet, type: str) -> DeliveryQuerySet:
    if connection.vendor != "sqlite":
        return rows.filter(event__type=type)
    # SQLite would start with all events of the type; a function call prevents use of that index.
    return rows.alias(kind=Coalesce("event__type", Value(""))).filter(kind=type)


def _with_trigger(rows: DeliveryQuerySet, trigger: str) -> DeliveryQuerySet:
    partial = rows.by_index("delivery_by_trigger") if trigger in _RARE else rows
    return partial.filter(trigger=trigger)


def _few_open(status: str) -> list[str] | None:
    """Return the keys of pending or sending deliveries if they are few, which is usual; else None.

    No index has all of these rows in key order.
    """
    if status not in _OPEN:
        return None
    index = "delivery_in_order" if status == Status.PENDING else "delivery_leased"
    waiting = Delivery.objects.by_index(index).filter(status=status).order_by()
    keys = list(waiting.values_list("pk", flat=True)[: _MAX_OPEN + 1])
    return keys if len(keys) <= _MAX_OPEN else None


def _with_code(rows: DeliveryQuerySet, code: str) -> DeliveryQuerySet:
    if code == "none":
        return rows.filter(status_code=None, attempt_count__gt=0)
    if code.endswith("xx"):
        first = int(code[0]) * 100
        return rows.filter(status_code__gte=first, status_code__lt=first + 100)
    partial = rows if code.startswith("2") else rows.by_index("delivery_by_bad_code")
    return partial.filter(status_code=int(code))
