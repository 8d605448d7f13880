"""Resends: past deliveries put into the queue again, at a chosen rate, until done or stopped.

A task advances each running resend by what its rate allows, in small transactions that insert new
deliveries and move the cursor together: after a crash the next run continues at the last commit,
and nothing is queued twice. Any number of workers may try; the row decides. Rates follow the
database's clock.
"""

import datetime as dt
import logging
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest
from django.utils import timezone

from webhooks.delivery import queue
from webhooks.delivery.fan_out import DeliveryError, deliver_again
from webhooks.models import (
    FINAL_STATUSES,
    Delivery,
    DeliveryQuerySet,
    Resend,
    ResendScope,
    ResendStatus,
    Status,
    Trigger,
    Webhook,
    ids,
)

logger = logging.getLogger(__name__)

# A page counts up to this; a worker finds the exact number when the resend begins.
COUNT_LIMIT = 10_000
# The most deliveries in a selection.
MAX_SELECTED = 1000
# Deliveries queued with one commit, and commits of one run of the task for a resend.
BATCH = 1000
BATCHES = 40
# The time limit of a run, shared by all running resends: sweeps wait for the same slot.
ADVANCE_SECONDS = 5.0
COUNT_CHUNK = 5000
# How much of the rate is made up for after a pause of the workers, at most: more than the time
# between two runs of the schedule.
_MAX_CREDIT_SECONDS = 12.0
# A worker that counts renews its mark at least this often, or another one may begin.
_COUNTING_SECONDS = 60
# How far the clocks that make ids may differ from the database's.
_CLOCKS_APART = dt.timedelta(minutes=5)
# The same selection, posted again this soon, is a double click.
_DOUBLE_CLICK = dt.timedelta(minutes=1)
# Waiting and held deliveries are sent anyway. Of a selection, parked ones are made due instead.
_FINISHED = (*FINAL_STATUSES, Status.PARKED)


class AlreadyRunningError(DeliveryError):
    """The same resend, `resend`, is already running."""

    def __init__(self, resend: Resend) -> None:
        super().__init__(str(resend))
        self.resend = resend


class _OvertakenError(DeliveryError):
    """The resend was stopped or advanced by another process, so this step is undone."""


class _DeliveryRow(NamedTuple):
    id: str
    event_id: str
    webhook_id: int


def count(resend: Resend) -> int:
    """Count what a resend would send, whether saved or not, up to COUNT_LIMIT + 1."""
    counted = 0
    for rows in _chunks(resend):
        counted += len(rows)
        if counted > COUNT_LIMIT:
            return COUNT_LIMIT + 1
    return counted


def start(resend: Resend) -> Resend:
    """Save a resend as running; raise AlreadyRunningError if the same one is running.

    `created_by` has to be set. Deliveries that are added after this moment are not resent.
    """
    resend.until_at = resend.until_at or queue.now()
    resend.delivery_ids = sorted(set(resend.delivery_ids))[:MAX_SELECTED]
    counted = count(resend)
    # 0: to be counted by a worker.
    resend.total = counted if counted <= COUNT_LIMIT else 0
    if not counted:
        resend.status, resend.finished_at = ResendStatus.FINISHED, timezone.now()
    with transaction.atomic():
        _lock(resend)
        if same := _same_resend(resend):
            raise AlreadyRunningError(same)
        resend.save(force_insert=True)
    return resend


def _lock(resend: Resend) -> None:
    """Make requests that start the same resend run one after the other."""
    rows: QuerySet[Any]
    if resend.webhook_id:
        rows = Webhook.objects.filter(pk=resend.webhook_id)
    elif resend.scope != ResendScope.SELECTION:
        # For all webhooks: the oldest one is locked in place of them.
        rows = Webhook.objects.filter(pk__in=Webhook.objects.order_by("pk").values("pk")[:1])
    else:
        # A resend that the product starts has no creator.
        rows = get_user_model().objects.filter(pk=resend.created_by_id or 0)
    list(rows.select_for_update().values_list("pk"))


def _same_resend(resend: Resend) -> Resend | None:
    if resend.scope == ResendScope.SELECTION:
        recent = Resend.objects.filter(
            scope=resend.scope,
            created_by=resend.created_by_id,
            created_at__gt=timezone.now() - _DOUBLE_CLICK,
        )
        return next((one for one in recent if one.delivery_ids == resend.delivery_ids), None)
    running = Resend.objects.filter(status=ResendStatus.RUNNING, webhook=resend.webhook_id)
    return running.exclude(scope=ResendScope.SELECTION).first()


def running() -> list[int]:
    """Return the ids of the resends that run."""
    found = Resend.objects.filter(status=ResendStatus.RUNNING).order_by("id")
    return list(found.values_list("pk", flat=True))


def stop(resend: Resend) -> bool:
    """End a resend where it is; return whether it was still running."""
    running = Resend.objects.filter(pk=resend.pk, status=ResendStatus.RUNNING)
    return bool(running.update(status=ResendStatus.STOPPED, finished_at=queue.now()))


def results(resend: Resend) -> Counter[str]:
    """Count the new deliveries by status, up to COUNT_LIMIT of them."""
    began_at, ended_at = resend.until_at or resend.created_at, resend.finished_at
    made = Delivery.objects.filter(
        trigger=Trigger.BULK,
        webhook=resend.webhook_id,
        pk__gte=_first_id(began_at - _CLOCKS_APART),
        created_at__gte=began_at,
    )
    if ended_at:
        made = made.filter(pk__lt=_first_id(ended_at + _CLOCKS_APART), created_at__lte=ended_at)
    return Counter(made.order_by("-id").values_list("status", flat=True)[:COUNT_LIMIT])


def advance_all() -> int:
    """Advance the running resends while there is time; return how many deliveries were queued."""
    queued, ends_at = 0, time.monotonic() + ADVANCE_SECONDS
    pks = running()
    # In random order, so that it is not the same ones each time.
    for number, pk in enumerate(random.sample(pks, len(pks))):
        if number and time.monotonic() > ends_at:
            break
        with queue.unless_locked("resend"):
            queued += advance(pk, among=len(pks))
    return queued


def advance(pk: int, *, among: int = 1) -> int:
    """Advance one resend by what its rate allows now; return how many deliveries were queued.

    `among` is how many are running: each gets its share of the time, and at least one step.
    """
    _count_once(pk)
    queued, ends_at = 0, time.monotonic() + ADVANCE_SECONDS / max(1, among)
    for step in range(BATCHES):
        if step and time.monotonic() > ends_at:
            break
        try:
            made = _step(pk)
        except _OvertakenError:
            break
        if made is None:
            break
        queued += made
    return queued


def _step(pk: int) -> int | None:
    """Queue one batch; None when there is nothing to do now."""
    with transaction.atomic():
        running = Resend.objects.select_for_update(skip_locked=True).filter(
            pk=pk, status=ResendStatus.RUNNING, total__gt=0
        )
        resend = running.first()
        if resend is None:
            return None
        now = queue.now()
        paid_until, second = resend.advanced_at, dt.timedelta(seconds=1)
        if not resend.cursor or (paid_until and paid_until > now + second):
            # In the first step, and after a clock was set back, a second's worth goes out at once.
            paid_until = now - second
        earliest = now - dt.timedelta(seconds=_MAX_CREDIT_SECONDS)
        paid_until = max(paid_until or earliest, earliest)
        allowed = int(resend.rate * (now - paid_until).total_seconds() + 1e-6)
        if allowed < 1:
            return None
        rows = following(resend, BATCH)
        if not rows:
            _finish(resend, now)
            return None
        # Rows that are left out are passed at once, however low the rate is.
        fresh = _newest_only(resend, rows)
        chosen = fresh[:allowed]
        queued = deliver_again(
            [(row.event_id, row.webhook_id) for row in chosen], trigger=Trigger.BULK
        )
        moved = Resend.objects.filter(
            pk=pk, status=ResendStatus.RUNNING, cursor=resend.cursor
        ).update(
            cursor=(rows if len(fresh) <= allowed else chosen)[-1].id,
            done=F("done") + queued,
            # Deliveries that were open when it began and failed since are resent, too.
            total=Greatest("total", F("done") + queued),
            advanced_at=paid_until + dt.timedelta(seconds=queued / resend.rate),
        )
        if not moved:
            raise _OvertakenError
        return queued


def _finish(resend: Resend, now: dt.datetime) -> None:
    Resend.objects.filter(pk=resend.pk, status=ResendStatus.RUNNING).update(
        status=ResendStatus.FINISHED, finished_at=now
    )
    logger.info("resend_finished id=%d done=%d total=%d", resend.pk, resend.done, resend.total)


def _count_once(pk: int) -> None:
    """Find the total of a resend that was too long for a page; only one worker does this."""
    counting = Resend.objects.filter(pk=pk, status=ResendStatus.RUNNING, total=0)
    now, lasts = queue.now(), dt.timedelta(seconds=_COUNTING_SECONDS)
    # A time in the future was written by a clock that was set back since.
    is_idle = ~Q(advanced_at__range=(now - lasts, now + lasts)) | Q(advanced_at=None)
    if not counting.filter(is_idle).update(advanced_at=now):
        return
    resend = Resend.objects.get(pk=pk)
    counted = 0
    for rows in _chunks(resend):
        counted += len(rows)
        if not counting.update(advanced_at=queue.now()):
            # It was stopped in the meantime.
            return
    if counted:
        counting.update(total=counted)
    else:
        _finish(resend, queue.now())


def _chunks(resend: Resend) -> Iterator[list[_DeliveryRow]]:
    """Yield the rest of a resend in chunks; each reads one range of ids."""
    place = Resend(
        webhook_id=resend.webhook_id,
        scope=resend.scope,
        since_at=resend.since_at,
        until_at=resend.until_at,
        delivery_ids=resend.delivery_ids,
        cursor=resend.cursor,
    )
    while rows := following(place, COUNT_CHUNK):
        yield _newest_only(place, rows)
        place.cursor = rows[-1].id


def following(resend: Resend, limit: int) -> list[_DeliveryRow]:
    """Return the next deliveries of a resend, oldest first."""
    rows = Delivery.objects.filter(webhook__deleted_at=None)
    if resend.scope == ResendScope.SELECTION:
        rows = rows.filter(pk__in=resend.delivery_ids, status__in=FINAL_STATUSES)
    else:
        rows = rows.exclude(trigger=Trigger.TEST)
        if resend.webhook_id:
            rows = rows.filter(webhook=resend.webhook_id)
        if resend.scope == ResendScope.FAILED:
            rows = rows.filter(status=Status.FAILED)
        else:
            rows = rows.filter(status__in=_FINISHED)
        rows = _until(rows.filter(pk__gte=_first_id(resend.since_at)), resend)
    columns = ("id", "event_id", "webhook_id")
    following = rows.filter(pk__gt=resend.cursor).order_by("id").values_list(*columns)
    return [_DeliveryRow._make(row) for row in following[:limit]]


def _newest_only(resend: Resend, rows: list[_DeliveryRow]) -> list[_DeliveryRow]:
    """Leave out deliveries that were sent again later: each event goes to each webhook once.

    A failed delivery that has a newer one, by whatever trigger, is judged by that one.
    """
    same = Delivery.objects.filter(
        event__in={row.event_id for row in rows},
        webhook__in={row.webhook_id for row in rows},
        pk__gte=rows[0].id,
    )
    if resend.scope == ResendScope.SELECTION:
        same = same.filter(pk__in=resend.delivery_ids, status__in=FINAL_STATUSES)
    elif resend.scope == ResendScope.ALL:
        same = _until(same, resend)
    newest: dict[tuple[str, int], str] = {}
    for key, event_id, webhook_id in same.values_list("pk", "event_id", "webhook_id"):
        newest[event_id, webhook_id] = max(key, newest.get((event_id, webhook_id), ""))
    return [row for row in rows if newest.get((row.event_id, row.webhook_id)) == row.id]


def _until(rows: DeliveryQuerySet, resend: Resend) -> DeliveryQuerySet:
    """Leave out deliveries that were added since the resend began, above all its own."""
    if resend.until_at is None:
        return rows
    # The database's time decides; ids only narrow the range, as other clocks made them.
    return rows.filter(
        pk__lt=_first_id(resend.until_at + _CLOCKS_APART), created_at__lt=resend.until_at
    )


def _first_id(moment: dt.datetime | None) -> str:
    return ids.floor("dlv", moment.timestamp()) if moment else ""
