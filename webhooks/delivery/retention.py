"""Deletes what is kept too long: finished deliveries by age and count, and expired sessions.

On PostgreSQL it drops whole partitions (`partitions`), and everywhere it deletes small batches.

Hourly counts are deleted with the deliveries they count, but not while the charts of 30 days need
them; those of a deleted webhook stay as long as its log.

Never deletes a delivery that is pending, sending, held or parked. Ids sort by time, so the oldest
rows are found through the primary key.
"""

import datetime as dt

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection, transaction
from django.db.models import Exists, OuterRef
from django.utils import timezone

from webhooks.delivery import queue, trash
from webhooks.delivery.queue import partitions
from webhooks.models import (
    FINAL_STATUSES,
    OPEN_STATUSES,
    Attempt,
    AuthorizationRequest,
    Delivery,
    Event,
    HourlyCount,
    IdempotencyKey,
    OAuthExchange,
    Status,
    ids,
)

BATCH = 500
# One run deletes at most this many batches and leaves the rest to the next.
BATCHES = 40
# The longest chart shows 30 days, the first of which may have begun a day earlier.
_CHARTED_DAYS = 31
# How far web servers may be behind the database: their clocks decide what has expired.
_CLOCKS_APART = dt.timedelta(hours=1)
# Larger than `BATCH`, as these rows are small and nothing refers to them.
_COUNTS_BATCH = 5000


def delete_old_rows(now: dt.datetime | None = None) -> int:
    """Delete finished deliveries past the limits; return about how many.

    Without `now`, rows have to be too old by both clocks, the database's and this machine's: one
    that is ahead would empty the log.
    """
    present = now or queue.now()
    partitions.make_ahead(present)
    with queue.unless_locked("deliveries_of_deleted"):
        close_deliveries_of_deleted_webhooks(present)
    now = now or min(present, timezone.now())
    with queue.unless_locked("trash"):
        trash.purge_old(now)
    cutoff = now - dt.timedelta(days=settings.WEBHOOKS_RETENTION_DAYS)
    deleted = 0
    with queue.unless_locked("deliveries"):
        deleted += partitions.drop_deliveries(cutoff)
        deleted += _delete_finished(before=cutoff, at_most=BATCH * BATCHES)
        if surplus := _surplus():
            deleted += partitions.drop_deliveries(now, at_most=surplus)
            deleted += _delete_finished(before=now, at_most=min(_surplus(), BATCH * BATCHES))
    with queue.unless_locked("events"):
        partitions.drop_events(cutoff)
        _delete_orphaned_events(cutoff)
    with queue.unless_locked("counts"):
        _delete_old_counts(now)
    oauth_cutoff = now - dt.timedelta(days=settings.WEBHOOKS_OAUTH_RETENTION_DAYS)
    with queue.unless_locked("exchanges"):
        OAuthExchange.objects.filter(started_at__lt=oauth_cutoff).delete()
    ended_at = now - _CLOCKS_APART
    with queue.unless_locked("logins"):
        AuthorizationRequest.objects.filter(expires_at__lt=ended_at).delete()
        _delete_ended_sessions(ended_at)
    return deleted


def close_deliveries_of_deleted_webhooks(now: dt.datetime) -> int:
    """Cancel deliveries that were in flight when their webhook was deleted; return how many."""
    of_deleted = Delivery.objects.filter(webhook__deleted_at__isnull=False)
    closed = 0
    # One status at a time: each has a partial index.
    for status in (Status.PENDING, Status.HELD, Status.PARKED):
        for _ in range(BATCHES):
            with transaction.atomic():
                free = of_deleted.filter(status=status).select_for_update(
                    skip_locked=True, of=("self",)
                )
                batch = list(free.values_list("id", flat=True)[:BATCH])
                if not batch:
                    break
                closed += Delivery.objects.filter(id__in=batch, status=status).update(
                    status=Status.CANCELLED, hold_reason="", next_attempt_at=None, finished_at=now
                )
    return closed


def _delete_finished(*, before: dt.datetime, at_most: int) -> int:
    """Delete the oldest finished deliveries; return how many."""
    finished = Delivery.objects.filter(id__lt=ids.floor("dlv", before.timestamp()))
    finished = finished.filter(status__in=FINAL_STATUSES).order_by("id")
    deleted, seen, last = 0, 0, ""
    while seen < at_most:
        # Continue after the last batch: an open backlog may lie before it.
        following = finished.filter(id__gt=last).values_list("id", flat=True)
        batch = list(following[: min(BATCH, at_most - seen)])
        if not batch:
            break
        Attempt.objects.filter(delivery_id__in=batch).delete()
        old = Delivery.objects.filter(id__in=batch, status__in=FINAL_STATUSES)
        deleted += old._raw_delete(old.db)
        seen, last = seen + len(batch), batch[-1]
    return deleted


def _surplus() -> int:
    """Return about how many finished deliveries exceed the limit."""
    surplus: int = estimated_deliveries() - settings.WEBHOOKS_RETENTION_ROWS
    for status in OPEN_STATUSES:
        if surplus <= 0:
            return 0
        # Open deliveries are never deleted, so a backlog must not get finished ones deleted.
        surplus -= Delivery.objects.filter(status=status).order_by()[:surplus].count()
    return max(surplus, 0)


def _delete_orphaned_events(cutoff: dt.datetime) -> None:
    """Delete events past the limit that no delivery refers to any more."""
    unused = Event.objects.exclude(Exists(Delivery.objects.filter(event=OuterRef("pk"))))
    orphans = unused.filter(id__lt=ids.floor("evt", cutoff.timestamp())).order_by("id")
    for _ in range(BATCHES):
        with transaction.atomic():
            # Skip events that are being resent.
            free = orphans.select_for_update(skip_locked=True, of=("self",))
            batch = list(free.values_list("id", flat=True)[:BATCH])
            # Checked again under the lock: a delivery may have been added before.
            old = list(unused.filter(id__in=batch).values_list("id", flat=True))
            if not old:
                return
            IdempotencyKey.objects.filter(event__in=old).delete()
            gone = Event.objects.filter(id__in=old)
            gone._raw_delete(gone.db)


def _delete_old_counts(now: dt.datetime) -> None:
    cutoff = now - dt.timedelta(days=max(settings.WEBHOOKS_RETENTION_DAYS, _CHARTED_DAYS))
    for _ in range(BATCHES):
        past = HourlyCount.objects.filter(hour__lt=cutoff).order_by("hour")
        batch = list(past.values_list("pk", flat=True)[:_COUNTS_BATCH])
        if not batch:
            return
        old = HourlyCount.objects.filter(pk__in=batch)
        old._raw_delete(old.db)


def _delete_ended_sessions(before: dt.datetime) -> None:
    """Delete sessions of browsers that did not log out: each may hold input of forms."""
    for _ in range(BATCHES):
        ended = Session.objects.filter(expire_date__lt=before).values_list("pk", flat=True)
        batch = list(ended[:BATCH])
        if not batch:
            return
        Session.objects.filter(pk__in=batch).delete()


def estimated_deliveries() -> int:
    """Return about how many deliveries there are; a full count is too slow at ten million.

    PostgreSQL's planner has a past count, and its statistics follow the changes since. The lower of
    the two is used, as neither is exact: rows that are not deleted now are deleted later.
    """
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT COALESCE(sum(GREATEST(LEAST(reltuples, pg_stat_get_live_tuples(oid)), 0)), "
                "0)::bigint FROM pg_class WHERE relispartition AND relkind = 'r' "
                "AND oid IN (SELECT relid FROM pg_partition_tree('webhooks_delivery'))"
            )
        else:
            cursor.execute("SELECT count(*) FROM webhooks_delivery")
        return int(cursor.fetchone()[0])
