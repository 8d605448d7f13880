"""Keeps drains running in every Celery worker, with or without beat, whatever the broker lost.

A small thread in the worker's main process checks whether each slot that serves the `deliveries`
queue has a drain, and requests one if not. It also tells pool processes to stop, which Celery does
not do at a warm shutdown, and ends a stop that takes too long.
"""

import gc
import logging
import math
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import signals
from celery.concurrency import solo, thread
from celery.worker import state
from django.conf import settings

from webhooks.delivery import overdue, queue

logger = logging.getLogger(__name__)

DRAIN = "webhooks.tasks.drain"
QUEUE = settings.CELERY_TASK_ROUTES[DRAIN]["queue"]
# The longest pause between two drains, and how long a request for one may take to be received.
# Where all wanted drains are known to run, as in a pool of threads, a look only finds failures and
# is made more rarely.
_LOOK_SECONDS, _REQUEST_SECONDS, REST_SECONDS = 0.05, 0.25, 5.0
# A request for a drain that no worker took within this time is superfluous.
_EXPIRES_SECONDS = 20.0
# New objects kept between two runs of the garbage collector; Python's own value is 700.
_COLLECT_AFTER = 50_000
# Shared with forked pool processes: whether the worker is stopping, when a drain last asked whether
# the next one can start, and when that was last tested with success (monotonic seconds).
_shared = memoryview(mmap.mmap(-1, 3 * 8)).cast("d")
_IS_STOPPING, _ASKED_AT, _PASSED_AT = range(3)
# Without Redis, and outside of a worker, no drain waits for a broker.
_shared[_PASSED_AT] = math.inf
# A test is made for a drain that asked within this time, again after `_TEST_SECONDS`, and counts
# for `_PASSED_SECONDS`.
_ASKED_SECONDS, _TEST_SECONDS, _PASSED_SECONDS = 2.0, 1.0, 3.0
# A stop is ended this long after the grace time: drains have recorded and handed back what they can
# by then (`engine.FINISH_SECONDS`), and it is earlier than compose.yaml's stop_grace_period.
_OVERDUE_SECONDS = 15.0
# To be set when another worker begins in this process.
_stop_is_over = threading.Event()
# The process id of the worker's main process.
_worker_pid = 0
# Set for an immediate look.
slots_changed = threading.Event()
_slots_lock = threading.Lock()
# Long drains that run in this process, and how many its worker wants; None outside of a worker.
_running = 0
wanted: int | None = None


def is_stopping() -> bool:
    return _shared[_IS_STOPPING] == 1


def can_start_next(since: float) -> bool:
    """Return whether a drain could be started a moment ago, and have that tested again.

    A test counts if it was made after `since` (monotonic seconds).

    The worker's main process makes the test, as only its own connections to the broker count.
    """
    if _worker_pid not in (os.getpid(), os.getppid()):
        # The main process was killed: this one must not outlive it for long.
        return True
    now = time.monotonic()
    if now - _shared[_ASKED_AT] > _LOOK_SECONDS:
        _shared[_ASKED_AT] = now
        slots_changed.set()
    return _shared[_PASSED_AT] > max(since, now - _PASSED_SECONDS)


@contextmanager
def watch_for_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether a drain has to stop: by its worker, or by a SIGTERM.

    Without this, a SIGTERM ends a pool process in the middle of sending.
    """
    terminated = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield is_stopping
        return
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        yield lambda: is_stopping() or terminated.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def drain_slot() -> Iterator[bool]:
    """Yield whether this process wants one more long drain, and count it inside the block.

    Workers share a queue: one may get another's request, and its threads are for other tasks, too.
    """
    global _running
    with _slots_lock:
        is_wanted = wanted is None or _running < wanted
        _running += 1
    try:
        yield is_wanted
    finally:
        with _slots_lock:
            _running -= 1
        slots_changed.set()


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the garbage collector run rarely, and skip what was loaded before the first drain.

    A drain makes and drops thousands of tuples and no cycles; scanning all of Django for them costs
    6 % of its time, and each full collection 50 ms at once.
    """
    before = gc.get_threshold()
    _keep_loaded()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _keep_loaded() -> None:
    """Exclude loaded objects from collection, once: pages that it never writes to stay shared."""
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@signals.worker_init.connect
def begin_worker(**_: object) -> None:
    global _worker_pid
    _worker_pid = os.getpid()
    # Before a pool forks its processes.
    _keep_loaded()
    queue.postgres.limit_lock_waits()
    _shared[_IS_STOPPING] = 0
    _stop_is_over.set()


@signals.worker_process_init.connect
def _ignore_sigterm(**_: object) -> None:
    """Let a pool process ignore a SIGTERM to its whole group, as systemd sends it.

    It would end a task such as a token refresh in the middle, and if it ended an idle process, the
    main process could hang in its shutdown. The main process ends its pool processes.
    """
    # The solo pool has no process of its own.
    if os.getpid() != _worker_pid:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


@signals.worker_ready.connect
def _keep_drains(sender: Any, **_: object) -> None:
    global wanted
    queues = sender.controller.app.amqp.queues.consume_from
    if QUEUE in queues:
        wanted = _slots(sender.controller)
        threading.Thread(target=watch_slots, args=(sender.controller,), daemon=True).start()


@signals.worker_shutting_down.connect
def stop_worker(**_: object) -> None:
    global _stop_is_over
    if is_stopping():
        return
    _shared[_IS_STOPPING] = 1
    slots_changed.set()
    _stop_is_over = overdue.end_after(settings.WEBHOOKS_GRACE_SECONDS + _OVERDUE_SECONDS)


def watch_slots(controller: Any) -> None:
    task = controller.app.tasks[DRAIN]
    test = NextDrainTest(controller) if settings.REDIS_URL else None
    while not is_stopping():
        pause = _LOOK_SECONDS
        is_asked = time.monotonic() - _shared[_ASKED_AT] < _ASKED_SECONDS
        try:
            if has_free_slot(controller):
                pause = _REQUEST_SECONDS
                task.apply_async(expires=_EXPIRES_SECONDS)
            elif test and is_asked:
                test.advance()
        except Exception as error:
            # Without a broker, running drains continue; the next look tries again.
            logger.warning("drain_request_failed error=%s", type(error).__name__)
        is_complete = wanted is not None and _running >= wanted and not is_asked
        slots_changed.wait(REST_SECONDS if is_complete else pause)
        slots_changed.clear()
    # Nothing keeps a drain of a worker that stops.
    _shared[_PASSED_AT] = math.inf


class NextDrainTest:
    """Tests whether a next drain could start: its request can be published, and is then read.

    It sends no request, which another worker could take.
    """

    def __init__(self, controller: Any) -> None:
        self._controller = controller
        self._tested_at = self._next_at = -math.inf
        _shared[_PASSED_AT] = -math.inf

    def advance(self) -> None:
        """Note the end of the last test; begin another one if it is due."""
        now = time.monotonic()
        read_at = self._read_at()
        if read_at == -math.inf:
            _shared[_PASSED_AT] = -math.inf
        elif read_at > self._tested_at:
            _shared[_PASSED_AT] = self._tested_at
            if now > self._next_at:
                self._begin(now)

    def _begin(self, now: float) -> None:
        self._next_at = now + _TEST_SECONDS
        try:
            with self._controller.app.producer_or_acquire() as producer:
                producer.channel.check_publishing(QUEUE)
        except Exception:
            _shared[_PASSED_AT] = self._tested_at = -math.inf
            raise
        self._tested_at = time.monotonic()

    def _read_at(self) -> float:
        """Return when Redis last answered a read of this worker's queues; -inf if it cannot."""
        consumer = self._controller.consumer
        if not (consumer.connection and consumer.task_consumer):
            return -math.inf
        channel = consumer.task_consumer.channel
        if isinstance(self._controller.pool, solo.TaskPool) or not channel.qos.can_consume():
            # It reads again once a task has ended.
            return time.monotonic()
        read_at: float = channel.read_at
        return read_at


def has_free_slot(controller: Any) -> bool:
    """Return whether a slot of this worker has neither a drain nor a request for one."""
    own = [r for r in state.reserved_requests | state.active_requests if r.name == DRAIN]
    return len(set(own)) < _slots(controller)


def _slots(controller: Any) -> int:
    """Return how many drains a worker may run.

    A worker that serves other queues as well keeps a slot for them, as a drain takes minutes.
    Threads share one interpreter, which a single drain keeps busy.
    """
    has_others = len(controller.app.amqp.queues.consume_from) > 1
    most: int = controller.concurrency - 1 if has_others else controller.concurrency
    usual = 1 if isinstance(controller.pool, thread.TaskPool) else most
    return max(1, min(settings.WEBHOOKS_DRAINS_PER_WORKER or usual, most))
