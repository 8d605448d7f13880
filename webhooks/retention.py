"""Deletes what the log keeps too long: finished deliveries by age and by count, in small batches.

Hourly counts go with the deliveries they count, but not before the charts of 30 days are done with
them; those of a deleted webhook stay as long as its log.

Never touches a delivery that is pending, sending, held or parked. Ids sort by time, so the oldest
rows are found through the primary key.
"""

import datetime as dt

from django.conf import settings
from django.db import connection
from django.utils import timezone

from webhooks import ids
from webhooks.models import (
    Attempt,
    AuthorizationRequest,
    Delivery,
    Event,
    HourlyCount,
    OAuthExchange,
    Status,
)

_FINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
_BATCH = 500
# One run deletes at most so many batches and leaves the rest to the next.
_BATCHES = 40
# The longest chart shows 30 days, the first of which may have begun a day earlier.
_CHARTED_DAYS = 31
# Small rows that nothing refers to.
_COUNTS_BATCH = 5000


def delete_old_rows(now: dt.datetime | None = None) -> int:
    """Delete finished deliveries past the limits; return how many."""
    now = now or timezone.now()
    close_deliveries_of_deleted_webhooks(now)
    cutoff = now - dt.timedelta(days=settings.WEBHOOKS_RETENTION_DAYS)
    deleted = 0
    for _ in range(_BATCHES):
        batch = _oldest(before=ids.floor("dlv", cutoff.timestamp()))
        if not batch:
            break
        deleted += _delete(batch)
    surplus = _estimated_deliveries() - settings.WEBHOOKS_RETENTION_ROWS
    for _ in range(min(_BATCHES, -(-max(surplus, 0) // _BATCH))):
        deleted += _delete(_oldest(before=ids.floor("dlv", now.timestamp())))
    _delete_orphaned_events(cutoff)
    _delete_old_counts(now)
    oauth_cutoff = now - dt.timedelta(days=settings.WEBHOOKS_OAUTH_RETENTION_DAYS)
    OAuthExchange.objects.filter(started_at__lt=oauth_cutoff).delete()
    AuthorizationRequest.objects.filter(expires_at__lt=now).delete()
    return deleted


def close_deliveries_of_deleted_webhooks(now: dt.datetime) -> int:
    """Cancel what a deleted webhook still had in flight when it was deleted."""
    return (
        Delivery.objects.filter(webhook__deleted_at__isnull=False)
        .filter(status__in=(Status.PENDING, Status.HELD, Status.PARKED))
        .update(status=Status.CANCELLED, next_attempt_at=None, finished_at=now)
    )


def _oldest(*, before: str) -> list[str]:
    finished = Delivery.objects.filter(id__lt=before, status__in=_FINAL)
    return list(finished.order_by("id").values_list("id", flat=True)[:_BATCH])


def _delete(delivery_ids: list[str]) -> int:
    Attempt.objects.filter(delivery_id__in=delivery_ids).delete()
    finished = Delivery.objects.filter(id__in=delivery_ids, status__in=_FINAL)
    return finished._raw_delete(finished.db)


def _delete_orphaned_events(cutoff: dt.datetime) -> None:
    """Delete events past the limit that no delivery refers to any more."""
    for _ in range(_BATCHES):
        orphans = list(
            Event.objects.filter(id__lt=ids.floor("evt", cutoff.timestamp()), deliveries=None)
            .order_by("id")
            .values_list("id", flat=True)[:_BATCH]
        )
        if not orphans:
            return
        old = Event.objects.filter(id__in=orphans)
        old._raw_delete(old.db)


def _delete_old_counts(now: dt.datetime) -> None:
    cutoff = now - dt.timedelta(days=max(settings.WEBHOOKS_RETENTION_DAYS, _CHARTED_DAYS))
    for _ in range(_BATCHES):
        past = HourlyCount.objects.filter(hour__lt=cutoff).order_by("hour")
        batch = list(past.values_list("pk", flat=True)[:_COUNTS_BATCH])
        if not batch:
            return
        old = HourlyCount.objects.filter(pk__in=batch)
        old._raw_delete(old.db)


def _estimated_deliveries() -> int:
    """Return about how many deliveries there are; a full count is too slow at ten million."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT GREATEST(reltuples, 0)::bigint FROM pg_class "
                "WHERE oid = 'webhooks_delivery'::regclass"
            )
        else:
            cursor.execute("SELECT count(*) FROM webhooks_delivery")
        return int(cursor.fetchone()[0])
