"""Data of the charts: attempts by outcome and their durations, read from the hourly roll-up.

Never reads the log, so the cost depends on the number of hours shown and not on how much was
sent. Hours of UTC are not split: in a time zone with an offset of half an hour, an hour belongs
to the bucket in which it begins.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from django.db import models
from django.db.models import Case, F, QuerySet, Sum, When
from django.db.models.functions import TruncDay
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.delivery.histogram import percentile_ms
from webhooks.models import HourlyCount, Outcome

_HOUR = timedelta(hours=1)


class Period(models.TextChoices):
    """How far a chart looks back."""

    DAY = "24h", _("24 hours")
    WEEK = "7d", _("7 days")
    MONTH = "30d", _("30 days")


class ResultKind(models.TextChoices):
    """The outcome of an attempt, grouped for charts."""

    SUCCEEDED = "succeeded", _("Succeeded")
    REFUSED = "refused", _("Refused")
    FAILED = "failed", _("Receiver failed")
    UNANSWERED = "unanswered", _("No response")


KIND_OF: dict[str, ResultKind] = {
    Outcome.SUCCEEDED: ResultKind.SUCCEEDED,
    Outcome.REFUSED: ResultKind.REFUSED,
    Outcome.REJECTED: ResultKind.REFUSED,
    Outcome.UNAUTHORIZED: ResultKind.REFUSED,
    Outcome.REDIRECT: ResultKind.REFUSED,
    Outcome.GONE: ResultKind.REFUSED,
    Outcome.SERVER_ERROR: ResultKind.FAILED,
    Outcome.THROTTLED: ResultKind.FAILED,
    Outcome.PROTOCOL: ResultKind.FAILED,
    Outcome.TIMEOUT: ResultKind.UNANSWERED,
    Outcome.NETWORK: ResultKind.UNANSWERED,
    Outcome.TLS: ResultKind.UNANSWERED,
    Outcome.BLOCKED: ResultKind.UNANSWERED,
    Outcome.UNKNOWN: ResultKind.UNANSWERED,
}
# Durations describe the receiver only if it responded or timed out. A connection that is refused at
# once would make a dead receiver look quick.
_TIMED = {outcome for outcome, kind in KIND_OF.items() if kind != ResultKind.UNANSWERED} | {
    Outcome.TIMEOUT
}
_BUCKETS = {Period.DAY: 24, Period.WEEK: 28, Period.MONTH: 30}
_SIX_HOURS = 6


@dataclass(slots=True)
class Bucket:
    """Attempts that began within a time span."""

    begins_at: datetime
    ends_at: datetime
    counts: "Counter[ResultKind]" = field(default_factory=Counter)
    # Duration step -> attempts with a response or a timeout.
    durations: "Counter[int]" = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.counts.total()

    @property
    def p50_ms(self) -> float | None:
        return percentile_ms(self.durations, 0.5)

    @property
    def p95_ms(self) -> float | None:
        return percentile_ms(self.durations, 0.95)

    def add(self, outcome: str, step: int, count: int) -> None:
        self.counts[KIND_OF[outcome]] += count
        if outcome in _TIMED:
            self.durations[step] += count


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    period: Period
    buckets: list[Bucket]
    # The sum of all buckets.
    whole: Bucket


def read(webhook_id: int, period: Period, now: datetime | None = None) -> Chart:
    """Read one webhook's chart in hours, quarters of a day or days of the current time zone."""
    edges = _edges(period, timezone.localtime(now))
    buckets = [Bucket(begin, end) for begin, end in pairwise(edges)]
    whole = Bucket(edges[0], edges[-1])
    for moment, outcome, step, count in _counts(webhook_id, period, edges[0]):
        index = bisect_right(edges, moment) - 1
        if 0 <= index < len(buckets):
            buckets[index].add(outcome, step, count)
            whole.add(outcome, step, count)
    return Chart(period=period, buckets=buckets, whole=whole)


def _edges(period: Period, now: datetime) -> list[datetime]:
    """Return the start of each bucket and the end of the last, by the wall clock of `now`."""
    count = _BUCKETS[period]
    if period == Period.DAY:
        # Hours of UTC, so that none is missing or repeated when clocks change.
        first = hour_of(now.astimezone(UTC)) - (count - 1) * _HOUR
        return [(first + step * _HOUR).astimezone(now.tzinfo) for step in range(count + 1)]
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == Period.MONTH:
        # Arithmetic on an aware time moves along the wall clock: midnight stays midnight.
        return [midnight + timedelta(days=step - count + 1) for step in range(count + 1)]
    last = midnight.replace(hour=now.hour // _SIX_HOURS * _SIX_HOURS)
    return [last + _SIX_HOURS * _HOUR * (step - count + 1) for step in range(count + 1)]


def _counts(
    webhook_id: int, period: Period, first: datetime
) -> Iterable[tuple[datetime, str, int, int]]:
    rows: QuerySet[HourlyCount, Any] = HourlyCount.objects.filter(
        webhook=webhook_id, hour__gte=first
    )
    if period != Period.MONTH:
        return rows.values_list("hour", "outcome", "duration_step", "count")
    # Summed to days in the database: reading ten thousand rows would take longer than summing them.
    days = rows.annotate(day=TruncDay("hour")).order_by()
    return days.values_list("day", "outcome", "duration_step").annotate(total=Sum("count"))


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def last_day(
    webhook_ids: Iterable[int], now: datetime | None = None
) -> dict[int, list[tuple[int, int]]]:
    """Return (succeeded, failed) attempts of the last 24 hours for each webhook, oldest first.

    The last entry is the current hour.
    """
    first = hour_of(now or timezone.now()) - 23 * _HOUR
    days = {webhook_id: [(0, 0)] * 24 for webhook_id in webhook_ids}
    counted = (
        HourlyCount.objects.filter(webhook__in=list(days), hour__gte=first)
        .order_by()
        .values_list("webhook_id", "hour")
        .annotate(
            total=Sum("count"),
            good=Sum(Case(When(outcome=Outcome.SUCCEEDED, then=F("count")), default=0)),
        )
    )
    for webhook_id, hour, total, good in counted:
        index = (hour - first) // _HOUR
        if index < 24:
            days[webhook_id][index] = (good, total - good)
    return days
