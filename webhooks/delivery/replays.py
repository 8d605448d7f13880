"""Replays: past deliveries put into the queue again, at a chosen rate, until done or stopped.

A task moves each running replay on by what its rate allows, in small transactions that insert new
deliveries and move the cursor together: after a crash the next one goes on where the last commit
was, and nothing is put in twice. Any number of workers may try; the row decides. Rates are paced
by the database's clock.
"""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from webhooks.delivery import queue
from webhooks.delivery.fan_out import DeliveryError, deliver_again
from webhooks.models import (
    Delivery,
    Replay,
    ReplayScope,
    ReplayStatus,
    Status,
    Trigger,
    Webhook,
    ids,
)

logger = logging.getLogger(__name__)

# A page counts no further; the exact number is found when the replay begins.
COUNT_LIMIT = 10_000
# A longer selection is no selection.
MAX_SELECTED = 1000
# What is put in with one commit, and how many commits one run of the task makes for a replay.
_BATCH = 1000
_BATCHES = 40
_COUNT_CHUNK = 5000
# After a pause of the workers at most so much of the rate is caught up on.
_MAX_CREDIT_SECONDS = 5.0
# A worker that counts says so at least this often, or another one may begin.
_COUNTING_SECONDS = 60
# The same selection, posted again so soon, is a double click.
_DOUBLE_CLICK = dt.timedelta(minutes=1)
# What waits or is on hold is sent anyway; of a selection what is stuck is sent as it is.
_ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
_FINISHED = (*_ENDED, Status.PARKED)


class AlreadyRunningError(DeliveryError):
    """The same replay is under way: `replay` is it."""

    def __init__(self, replay: Replay) -> None:
        super().__init__(str(replay))
        self.replay = replay


class _OvertakenError(DeliveryError):
    """The replay was stopped or moved on by another, so this step is undone."""


class _DeliveryRow(NamedTuple):
    id: str
    event_id: str
    webhook_id: int


def count(replay: Replay) -> int:
    """Count what a replay would send, saved or not, up to one more than COUNT_LIMIT."""
    counted = 0
    for rows in _chunks(replay):
        counted += len(rows)
        if counted > COUNT_LIMIT:
            return COUNT_LIMIT + 1
    return counted


def start(replay: Replay) -> Replay:
    """Save a replay as running; raise AlreadyRunningError for one that is under way.

    `created_by` is set. What is added after this moment is not replayed.
    """
    replay.until_at = replay.until_at or timezone.now()
    replay.delivery_ids = sorted(set(replay.delivery_ids))[:MAX_SELECTED]
    counted = count(replay)
    # 0: to be counted by a worker.
    replay.total = counted if counted <= COUNT_LIMIT else 0
    if not counted:
        replay.status, replay.finished_at = ReplayStatus.FINISHED, timezone.now()
    with transaction.atomic():
        _lock(replay)
        if twin := _twin(replay):
            raise AlreadyRunningError(twin)
        replay.save(force_insert=True)
    return replay


def _lock(replay: Replay) -> None:
    """Let two who start the same replay at once come one after the other."""
    rows: QuerySet[Any]
    if replay.webhook_id:
        rows = Webhook.objects.filter(pk=replay.webhook_id)
    elif replay.scope != ReplayScope.SELECTION:
        # Of every webhook: the oldest stands for them.
        rows = Webhook.objects.filter(pk__in=Webhook.objects.order_by("pk").values("pk")[:1])
    else:
        # What the product starts has no creator.
        rows = get_user_model().objects.filter(pk=replay.created_by_id or 0)
    list(rows.select_for_update().values_list("pk"))


def _twin(replay: Replay) -> Replay | None:
    if replay.scope == ReplayScope.SELECTION:
        recent = Replay.objects.filter(
            scope=replay.scope,
            created_by=replay.created_by_id,
            created_at__gt=timezone.now() - _DOUBLE_CLICK,
        )
        return next((one for one in recent if one.delivery_ids == replay.delivery_ids), None)
    running = Replay.objects.filter(status=ReplayStatus.RUNNING, webhook=replay.webhook_id)
    return running.exclude(scope=ReplayScope.SELECTION).first()


def stop(replay: Replay) -> bool:
    """End a replay where it is; return whether it was still running."""
    running = Replay.objects.filter(pk=replay.pk, status=ReplayStatus.RUNNING)
    return bool(running.update(status=ReplayStatus.STOPPED, finished_at=_now()))


def results(replay: Replay) -> Counter[str]:
    """Count what became of the new deliveries by status, up to COUNT_LIMIT of them."""
    made = Delivery.objects.filter(
        trigger=Trigger.BULK, pk__gte=_first_id(replay.created_at), webhook=replay.webhook_id
    )
    if replay.finished_at:
        made = made.filter(pk__lt=_first_id(replay.finished_at + dt.timedelta(seconds=1)))
    return Counter(made.order_by("-id").values_list("status", flat=True)[:COUNT_LIMIT])


def advance_all() -> int:
    """Move every running replay on; return how many deliveries were put into the queue."""
    running = Replay.objects.filter(status=ReplayStatus.RUNNING).order_by("id")
    return sum(advance(pk) for pk in running.values_list("pk", flat=True))


def advance(pk: int) -> int:
    """Move one replay on by what its rate allows now; return how many deliveries were put in."""
    _count_once(pk)
    queued = 0
    for _ in range(_BATCHES):
        try:
            made = _step(pk)
        except _OvertakenError:
            break
        if made is None:
            break
        queued += made
    return queued


def _step(pk: int) -> int | None:
    """Put in one batch; None when there is nothing to do now."""
    with transaction.atomic():
        running = Replay.objects.select_for_update(skip_locked=True).filter(
            pk=pk, status=ReplayStatus.RUNNING, total__gt=0
        )
        replay = running.first()
        if replay is None:
            return None
        now = _now()
        # At the first step a second's worth goes out at once.
        paid_until = replay.advanced_at if replay.cursor else now - dt.timedelta(seconds=1)
        earliest = now - dt.timedelta(seconds=_MAX_CREDIT_SECONDS)
        paid_until = max(paid_until or earliest, earliest)
        allowed = int(replay.rate * (now - paid_until).total_seconds() + 1e-6)
        if allowed < 1:
            return None
        rows = _following(replay, min(allowed, _BATCH))
        if not rows:
            _finish(replay, now)
            return None
        fresh = _newest_only(replay, rows)
        queued = deliver_again(
            [(row.event_id, row.webhook_id) for row in fresh], trigger=Trigger.BULK
        )
        moved = Replay.objects.filter(
            pk=pk, status=ReplayStatus.RUNNING, cursor=replay.cursor
        ).update(
            cursor=rows[-1].id,
            done=F("done") + queued,
            advanced_at=paid_until + dt.timedelta(seconds=queued / replay.rate),
        )
        if not moved:
            raise _OvertakenError
        return queued


def _finish(replay: Replay, now: dt.datetime) -> None:
    Replay.objects.filter(pk=replay.pk, status=ReplayStatus.RUNNING).update(
        status=ReplayStatus.FINISHED, finished_at=now
    )
    logger.info("replay_finished id=%d done=%d total=%d", replay.pk, replay.done, replay.total)


def _count_once(pk: int) -> None:
    """Find the total of a replay that was too long for a page; one worker does."""
    counting = Replay.objects.filter(pk=pk, status=ReplayStatus.RUNNING, total=0)
    idle = Q(advanced_at=None) | Q(advanced_at__lt=_now() - dt.timedelta(seconds=_COUNTING_SECONDS))
    if not counting.filter(idle).update(advanced_at=_now()):
        return
    replay = Replay.objects.get(pk=pk)
    counted = 0
    for rows in _chunks(replay):
        counted += len(rows)
        if not counting.update(advanced_at=_now()):
            # Stopped by now.
            return
    if counted:
        counting.update(total=counted)
    else:
        _finish(replay, _now())


def _chunks(replay: Replay) -> Iterator[list[_DeliveryRow]]:
    """Yield everything that is left of a replay, chunk by chunk; each reads one range of ids."""
    place = Replay(
        webhook_id=replay.webhook_id,
        scope=replay.scope,
        since_at=replay.since_at,
        until_at=replay.until_at,
        delivery_ids=replay.delivery_ids,
        cursor=replay.cursor,
    )
    while rows := _following(place, _COUNT_CHUNK):
        yield _newest_only(place, rows)
        place.cursor = rows[-1].id


def _following(replay: Replay, limit: int) -> list[_DeliveryRow]:
    """Return the next rows of the log that the replay is about, oldest first."""
    rows = Delivery.objects.filter(webhook__deleted_at=None)
    if replay.scope == ReplayScope.SELECTION:
        rows = rows.filter(pk__in=replay.delivery_ids, status__in=_ENDED)
    else:
        rows = rows.exclude(trigger=Trigger.TEST)
        if replay.webhook_id:
            rows = rows.filter(webhook=replay.webhook_id)
        if replay.scope == ReplayScope.FAILED:
            rows = rows.filter(status=Status.FAILED)
        else:
            rows = rows.filter(status__in=_FINISHED)
        rows = rows.filter(pk__gte=_first_id(replay.since_at))
        if replay.until_at:
            rows = rows.filter(pk__lt=_first_id(replay.until_at))
    columns = ("id", "event_id", "webhook_id")
    following = rows.filter(pk__gt=replay.cursor).order_by("id").values_list(*columns)
    return [_DeliveryRow._make(row) for row in following[:limit]]


def _newest_only(replay: Replay, rows: list[_DeliveryRow]) -> list[_DeliveryRow]:
    """Leave out what was sent again later: each event goes to each webhook once.

    What failed and has a newer delivery, by whatever trigger, is judged by that one.
    """
    same = Delivery.objects.filter(
        event__in={row.event_id for row in rows},
        webhook__in={row.webhook_id for row in rows},
        pk__gte=rows[0].id,
    )
    if replay.scope == ReplayScope.SELECTION:
        same = same.filter(pk__in=replay.delivery_ids, status__in=_ENDED)
    elif replay.scope == ReplayScope.ALL and replay.until_at:
        same = same.filter(pk__lt=_first_id(replay.until_at))
    newest: dict[tuple[str, int], str] = {}
    for key, event_id, webhook_id in same.values_list("pk", "event_id", "webhook_id"):
        newest[event_id, webhook_id] = max(key, newest.get((event_id, webhook_id), ""))
    return [row for row in rows if newest.get((row.event_id, row.webhook_id)) == row.id]


def _first_id(moment: dt.datetime | None) -> str:
    return ids.floor("dlv", max(moment.timestamp(), 0)) if moment else ""


def _now() -> dt.datetime:
    """Return the database's time: workers' clocks differ."""
    return dt.datetime.fromtimestamp(queue.backend().clock(), dt.UTC)
