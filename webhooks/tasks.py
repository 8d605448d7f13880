"""Celery tasks of a few lines each, without logic of their own and without data."""

import logging
import threading
import time
from functools import partial

from celery import shared_task
from django.conf import settings

from webhooks import oauth
from webhooks.alerts import notifications
from webhooks.delivery import backlog, drains, holds, resends, retention
from webhooks.delivery.engine import DrainCache, Engine
from webhooks.delivery.limited_calls import LimitedCalls
from webhooks.delivery.wakeup import wakeup

logger = logging.getLogger(__name__)

# Requests are made after a commit, so the caller waits for them no longer than this.
_requests = LimitedCalls(1.0)
# A process requests a drain from Celery at most once in this time; a wakeup itself is cheap.
_ASK_SECONDS = 1.0
# A requested drain is short: each worker starts its long drains itself, in a fixed number of slots.
_REQUESTED_DRAIN_SECONDS = 1.0
asked_at = float("-inf")
# How often a running resend advances.
_ADVANCE_SECONDS = 2.0
# State that finished drains of this process pass on; in a pool of threads several run at once.
_caches: list[DrainCache] = []
_caches_lock = threading.Lock()
# Held while this process sends alerts.
_alerts_lock = threading.Lock()


@shared_task
def drain(seconds: float | None = None) -> int:
    """Deliver due rows for a while; return how many requests were sent.

    A drain of `seconds` was requested while none listened, perhaps many times while all of them
    stood still: one after the other, they would keep a slot from its long drain.
    """
    if seconds is not None:
        return 0 if wakeup().notify() else run_drain(seconds)
    with drains.drain_slot() as is_wanted:
        return run_drain(settings.WEBHOOKS_DRAIN_SECONDS) if is_wanted else 0


def run_drain(seconds: float) -> int:
    with drains.watch_for_stop() as should_stop, drains.rare_collections():
        cache = _take_cache()
        try:
            engine = Engine(wakeup(), should_stop, cache, can_start_next=drains.can_start_next)
            engine.run(seconds)
        except BaseException:
            cache.close()
            raise
        with _caches_lock:
            _caches.append(cache)
    return engine.sent


def _take_cache() -> DrainCache:
    """Take a cache that no drain uses: first one whose last drain left something."""
    with _caches_lock:
        best = max(_caches, key=DrainCache.has_rest, default=None)
        if best is None:
            return DrainCache()
        _caches.remove(best)
        return best


@shared_task
def sweep() -> None:
    """Wake a drain in case a wakeup was lost, and record that the schedule is alive.

    Recorded last: a worker without a database sweeps nothing.
    """
    notify()
    if stopped := holds.stop_overlooked():
        logger.info("overlooked_stopped rows=%d", stopped)
    if released := holds.release_overlooked():
        logger.warning("overlooked_released rows=%d", released)
        notify()
    backlog.note_sweep()


@shared_task
def refresh_expiring_tokens() -> int:
    return oauth.refresh_expiring()


@shared_task
def send_alerts() -> None:
    """Send alerts unless this process does already: a slow mail server takes one slot, not all."""
    if not _alerts_lock.acquire(blocking=False):
        return
    try:
        notifications.run(should_stop=drains.is_stopping)
    finally:
        _alerts_lock.release()
    notify()


@shared_task
def delete_old_rows() -> int:
    return retention.delete_old_rows()


@shared_task
def advance_resends() -> int:
    """Advance the running resends; return how many deliveries were queued."""
    queued = resends.advance_all()
    if queued:
        notify()
    return queued


@shared_task
def advance_resend(pk: int) -> int:
    """Advance one resend, and schedule its next turn while it runs."""
    began_at = time.monotonic()
    queued = resends.advance(pk, among=len(resends.running()))
    if queued:
        notify()
    if pk in (running := resends.running()):
        # All resends together take at most half of the time of one slot, which sweeps need too.
        others_seconds = (time.monotonic() - began_at) * (len(running) - 1)
        advance_soon(pk, seconds=max(_ADVANCE_SECONDS, 2 * others_seconds))
    return queued


def advance_soon(pk: int, *, seconds: float = 0.0) -> None:
    """Schedule a turn of a resend. Never raises: the periodic task advances resends as well."""
    # Tests Redis first, because a wakeup gives up sooner than Celery.
    wakeup().notify()
    if wakeup().is_broken:
        return
    try:
        request = partial(advance_resend.apply_async, args=(pk,), countdown=seconds)
        _requests.run(partial(request, expires=seconds + 60))
    except Exception as error:
        logger.warning("resend_request_failed resend=%d error=%s", pk, type(error).__name__)


def notify() -> None:
    """Tell the drains that rows are due. Never raises and never waits for long."""
    global asked_at
    if wakeup().notify() or time.monotonic() - asked_at < _ASK_SECONDS:
        return
    if wakeup().is_broken:
        # Celery would wait longer for the same Redis.
        return
    asked_at = time.monotonic()
    try:
        short = {"seconds": _REQUESTED_DRAIN_SECONDS}
        _requests.run(partial(drain.apply_async, kwargs=short, expires=60))
    except Exception as error:
        # The rows are in the database, which every worker polls anyway.
        logger.warning("notify_failed error=%s", type(error).__name__)
