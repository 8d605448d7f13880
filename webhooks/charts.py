"""What charts show: attempts by outcome and how long they took, read from the hourly roll-up.

Never reads the log, so the cost depends on how many hours are shown and not on how much was sent.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Case, F, Sum, When
from django.utils import timezone

from webhooks.models import HourlyCount, Outcome

_HOUR = timedelta(hours=1)


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def last_day(
    webhook_ids: Iterable[int], now: datetime | None = None
) -> dict[int, list[tuple[int, int]]]:
    """Return (succeeded, failed) attempts of the last 24 hours for each webhook, oldest first.

    The last entry is the hour that has begun.
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
