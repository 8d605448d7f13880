"""Writes what became of deliveries into the database: results, health and hourly counts.

`Recorder` collects results and decides what is due; `Writer` writes it, on PostgreSQL in a thread
with a connection of its own, so that claims and writes wait for the disk at the same time. SQLite
has one writer at a time, so there the engine thread writes on its own connection.

Hourly counts feed charts and are the only inexact data here. They are written every two seconds, a
thousand at a time, apart from the attempts they count: a killed process loses those that were not
written, and a connection that breaks during its commit can count some twice. Neither tests nor
attempts whose process died are counted.
"""

import datetime as dt
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from operator import attrgetter
from types import ModuleType
from typing import Any

from django.conf import settings
from django.db import DataError, OperationalError, transaction
from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from webhooks import audit, oauth
from webhooks.delivery import queue
from webhooks.delivery.db_session import DatabaseSession, SessionThread
from webhooks.delivery.histogram import step_of
from webhooks.delivery.queue.rows import ATTEMPT_COLUMNS, AttemptResult, HourCount, StateChange
from webhooks.delivery.requests import RequestPlan
from webhooks.models import (
    Action,
    Attempt,
    Delivery,
    Outcome,
    PauseReason,
    Status,
    Trigger,
    Webhook,
    WebhookState,
)
from webhooks.models.webhook import bump_version

logger = logging.getLogger(__name__)

# The most results of one write, and how long the oldest waits unless more are on their way. A crash
# can send one such batch and what was in flight twice.
RECORD_ROWS = 500
RECORD_SECONDS = 0.01
# While more are on their way, wait for this many or this long: a write costs as much as 30 rows.
_ENOUGH_ROWS, _BUSY_RECORD_SECONDS = 250, 0.04
# How often the health of a webhook is written while it does not change, and for how many webhooks
# at a time: each is a row to write in addition to its deliveries.
_STATE_SECONDS, _STATES_AT_ONCE = 2.0, 250
_REST_AT_ONCE = 2000
# How often the hourly counts are written, and how many of them at a time.
_COUNT_SECONDS, _COUNTS_AT_ONCE = 2.0, 1000
# How long health and counts wait after a fault: if another transaction locked a whole table, each
# try takes a thread's time, until PostgreSQL's `lock_timeout`.
UNWRITTEN_SECONDS = 10.0
# How often to look whether what another transaction locked is free.
_LOCKED_SECONDS = 1.0
# A plain string: a member of a TextChoices takes longer to compare.
_SUCCEEDED = Outcome.SUCCEEDED.value
_ERROR = ATTEMPT_COLUMNS.index("error")
_STARTED_AT = ATTEMPT_COLUMNS.index("started_at")
_TOTAL_MS = ATTEMPT_COLUMNS.index("total_ms")
# Columns of an attempt with content from outside, and what replaces it if the row is refused.
_BLANKED_COLUMNS = {
    "request_headers": "",
    "response_headers": "",
    "response_body": b"",
    "error": "",
}


# (webhook id, hours since the year 1, outcome, duration step) -> attempts.
Counts = Counter[tuple[int, int, str, int]]


class Recorder:
    """Collects results and writes them.

    `batch`, `write` and `write_counts` are called by the writer, which may be a thread of its own;
    the rest by the engine thread, or by a thread that ends the drain's work.
    """

    def __init__(
        self, queue: ModuleType, lease: str, rows_in_hand: Callable[[], int] = lambda: 0
    ) -> None:
        """Take `rows_in_hand`, which returns how many claimed rows are not yet recorded."""
        self.queue = queue
        self._lease = lease
        self._rows_in_hand = rows_in_hand
        self.waiting: deque[AttemptResult] = deque()
        # How many results were added and written so far, and the number of the last one that a
        # webhook with a limit or an order waits for.
        self._added = self._done = self._awaited = 0
        self._oldest_at = 0.0
        # Credential id -> (token version that was refused, or proved good; webhook).
        self._refused: dict[int, tuple[int, int]] = {}
        self._proved: dict[int, tuple[int, int]] = {}
        # The batch whose commit may or may not have happened.
        self._uncertain_batch: list[AttemptResult] = []
        # Results of deliveries that another transaction locked, such as one that was forgotten, and
        # when to look at them again.
        self.locked: list[AttemptResult] = []
        self._locked_at = 0.0
        self._states: dict[int, StateChange] = {}
        # Webhooks in `_states` whose health differs from what was last written.
        self._changed: set[int] = set()
        # Webhooks in `_states` for which a success with this status code says nothing new.
        self._unchanged_status: dict[int, int | None] = {}
        # Webhook id -> (last written state was a success, when to write again).
        self._written: dict[int, tuple[bool, float]] = {}
        # Start and hour of the last result: results that were claimed together share one start.
        self._hour: tuple[dt.datetime | None, int] = None, 0
        self._counts: Counts = Counter()
        self._count_at = 0.0

    def add(
        self, result: AttemptResult, *, is_test: bool = False, is_awaited: bool = False
    ) -> None:
        """Take a result to write; a test affects neither health nor counts."""
        if not self.waiting:
            self._oldest_at = time.monotonic()
        self.waiting.append(result)
        self._added += 1
        if is_awaited:
            self._awaited = self._added
        if is_test:
            return
        _id, webhook_id, _, _, _, _, outcome, status_code, _, attempt = result
        started_at: Any = attempt[_STARTED_AT]
        total_ms: Any = attempt[_TOTAL_MS]
        if started_at is not self._hour[0]:
            # A number is faster to look up than a datetime.
            self._hour = started_at, started_at.toordinal() * 24 + started_at.hour
        self._counts[webhook_id, self._hour[1], outcome, step_of(total_ms)] += 1
        if outcome != _SUCCEEDED or self._unchanged_status.get(webhook_id) != status_code:
            self._note(result)

    def _note(self, result: AttemptResult) -> None:
        """Keep what the result says about its webhook's health."""
        before = self._states.get(result.webhook_id)
        succeeded = result.outcome == _SUCCEEDED
        if self._written.get(result.webhook_id, (None, 0.0))[0] is not succeeded:
            self._changed.add(result.webhook_id)
        self._states[result.webhook_id] = StateChange(
            result.webhook_id,
            succeeded,
            result.status_code,
            str(result.attempt[_ERROR]),
            0 if succeeded else (before.failures if before else 0) + 1,
            succeeded or bool(before and before.had_success),
            time.monotonic(),
        )
        self._unchanged_status.pop(result.webhook_id, None)
        if succeeded:
            self._unchanged_status[result.webhook_id] = result.status_code

    def token_refused(self, plan: RequestPlan) -> None:
        """Write a refused token before its delivery can be claimed again, here or elsewhere.

        Must be called before `add`. If another transaction locked the token, its delivery does not
        wait, and it is written with a later result: until then another process may send it.
        """
        self._refused[plan.credential_id] = (plan.token_version, plan.webhook_id)

    def token_worked(self, plan: RequestPlan) -> None:
        """Record that the token that replaced a refused one is good."""
        self._proved[plan.credential_id] = (plan.token_version, plan.webhook_id)

    def _write_tokens(self) -> None:
        """Write which tokens were refused, or proved good; later if one is locked."""
        if not (noted := [*self._refused, *self._proved]):
            return
        locked = self.queue.locked_tokens(noted)
        for tokens, write in (
            (self._refused, oauth.record_refusals),
            (self._proved, oauth.record_successes),
        ):
            free = {pk: one for pk, one in tokens.copy().items() if pk not in locked}
            if free:
                write(free)
            for credential_id, (version, _) in free.items():
                if tokens[credential_id][0] == version:
                    del tokens[credential_id]

    def batch(self, now: float) -> list[AttemptResult]:
        """Return the results that are due to be written, at most RECORD_ROWS."""
        if self._uncertain_batch:
            return self._uncertain_batch
        count, waited = len(self.waiting), now - self._oldest_at
        if count < _ENOUGH_ROWS and waited < RECORD_SECONDS:
            return []
        is_busy = self._awaited <= self._done and self._rows_in_hand() > 2 * count
        if count < _ENOUGH_ROWS and is_busy and waited < _BUSY_RECORD_SECONDS:
            return []
        return [self.waiting[index] for index in range(min(count, RECORD_ROWS))]

    def write(self, batch: Sequence[AttemptResult]) -> int | None:
        """Write a batch; return how many deliveries were still ours. Raises database errors.

        Return None if nothing was written, as another transaction locked some of the deliveries:
        these are set aside, and the rest is the next batch.
        """
        self._write_tokens()
        # A transaction that locked one may have locked others as well: do not wait for each.
        if self.locked and self._set_locked_aside(batch):
            return None
        is_repeat = bool(self._uncertain_batch)
        self._uncertain_batch = list(batch)
        try:
            try:
                ours: int = self.queue.record(batch, lease=self._lease, is_repeat=is_repeat)
            except (DataError, ValueError):
                ours = self._write_singly(batch)
        except OperationalError as error:
            if self.queue.is_lock_timeout(error):
                self._set_locked_aside(batch)
            raise
        self._uncertain_batch = []
        for _ in batch:
            self.waiting.popleft()
        self._done += len(batch)
        self._oldest_at = time.monotonic()
        if ours < len(batch):
            logger.warning("leases_lost rows=%d", len(batch) - ours)
        return ours

    def _set_locked_aside(self, batch: Sequence[AttemptResult]) -> bool:
        """Let the rest of a batch not wait for deliveries that another transaction locked.

        Return whether there are any.
        """
        locked = self.queue.locked_deliveries([row.delivery_id for row in batch])
        if not locked:
            return False
        for _ in batch:
            self.waiting.popleft()
        if not self.locked:
            # Otherwise a look at the others is due.
            self._locked_at = time.monotonic() + _LOCKED_SECONDS
        self.locked += [row for row in batch if row.delivery_id in locked]
        self._write_next([row for row in batch if row.delivery_id not in locked])
        logger.warning("deliveries_locked rows=%d first=%s", len(locked), min(locked))
        return True

    def _write_next(self, batch: list[AttemptResult]) -> None:
        self._uncertain_batch = batch
        self.waiting.extendleft(reversed(batch))

    @property
    def has_locked(self) -> bool:
        """Return whether to look now at what was locked, with `take_unlocked`."""
        is_time = bool(self.locked) and time.monotonic() >= self._locked_at
        return is_time and not self._uncertain_batch

    def take_unlocked(self) -> None:
        """Write next what is not locked any more, at most RECORD_ROWS."""
        self._locked_at = time.monotonic() + _LOCKED_SECONDS
        locked = self.queue.locked_deliveries([row.delivery_id for row in self.locked])
        free = [row for row in self.locked if row.delivery_id not in locked]
        if len(free) > RECORD_ROWS:
            # Other workers leave their holder little time after the lock.
            self._locked_at = 0.0
        free = free[:RECORD_ROWS]
        taken = {row.delivery_id for row in free}
        self.locked = [row for row in self.locked if row.delivery_id not in taken]
        self._write_next(free)

    def _write_singly(self, batch: Sequence[AttemptResult]) -> int:
        """Write row by row; a refused row is written without content from outside."""
        ours = 0
        for row in batch:
            try:
                ours += self.queue.record([row], lease=self._lease, is_repeat=True)
            except (DataError, ValueError) as error:
                logger.error("attempt_refused delivery=%s error=%s", row.delivery_id, error)
                values = dict(zip(ATTEMPT_COLUMNS, row.attempt, strict=True)) | _BLANKED_COLUMNS
                bare = row._replace(attempt=tuple(values.values()))
                ours += self.queue.record([bare], lease=self._lease, is_repeat=True)
        return ours

    def due_states(self, now: float) -> list[StateChange]:
        """Return the webhooks whose health changed, and some that were not written lately."""
        due = [self._states[webhook_id] for webhook_id in self._changed]
        is_end = now == float("inf")
        for change in islice(self._states.values(), None if is_end else _STATES_AT_ONCE):
            webhook_id = change.webhook_id
            if webhook_id not in self._changed and now >= self._written[webhook_id][1]:
                due.append(change)
        return due

    def write_states(self, changes: Sequence[StateChange]) -> None:
        """Write the health of webhooks and pause those that failed for too long.

        What another transaction locked is left for later: to wait for it takes 1.5 s for each drain
        that waits, one after the other.
        """
        locked = self.queue.locked_states([one.webhook_id for one in changes])
        changes = [one for one in changes if one.webhook_id not in locked]
        if not changes:
            return
        failing = self.queue.write_states(changes)
        limit = settings.WEBHOOKS_PAUSE_AFTER_DAYS * 86400
        if dead := [webhook for webhook, seconds in failing if seconds >= limit]:
            pause(dead, PauseReason.FAILING)
        again_at = time.monotonic() + _STATE_SECONDS
        for change in changes:
            self._states.pop(change.webhook_id, None)
            self._changed.discard(change.webhook_id)
            self._unchanged_status.pop(change.webhook_id, None)
            self._written[change.webhook_id] = (change.succeeded, again_at)

    def due_counts(self, now: float) -> Counts:
        """Return the oldest thousand counts if any are due; they are no longer kept here."""
        if now < self._count_at or not self._counts:
            return Counter()
        self._count_at = now + _COUNT_SECONDS
        return self._oldest_counts()

    def _oldest_counts(self) -> Counts:
        oldest = Counter(dict(islice(self._counts.items(), _COUNTS_AT_ONCE)))
        for key in oldest:
            del self._counts[key]
        return oldest

    def write_counts(self, counts: Counts) -> Counts:
        """Add to the hourly counts; return those that another transaction locked."""
        keys = {
            HourCount(webhook_id, _hour(hour), outcome, step, count): key
            for key, count in counts.items()
            for webhook_id, hour, outcome, step in (key,)
        }
        locked = self.queue.locked_counts(list(keys))
        if free := [count for count in keys if count not in locked]:
            self.queue.add_counts(free)
        return Counter({keys[count]: count.attempts for count in locked})

    def take_counts(self) -> Counts:
        """Return the counts that are not written yet, which are no longer kept here."""
        counts, self._counts = self._counts, Counter()
        return counts

    def add_counts(self, counts: Counts) -> None:
        """Keep counts that could not be written, here or by another recorder."""
        self._counts.update(counts)

    def take_states(self) -> list[StateChange]:
        """Return the health that is not written yet, which is no longer kept here."""
        states, self._states = self._states, {}
        self._changed.clear()
        self._unchanged_status.clear()
        return list(states.values())

    def add_state(self, change: StateChange) -> None:
        """Keep health that earlier drains could not write, in any order; call it before `add`."""
        first, last = sorted(
            (self._states.get(change.webhook_id, change), change), key=attrgetter("ended_at")
        )
        if first is not last:
            failures = last.failures if last.had_success else first.failures + last.failures
            had_success = first.had_success or last.had_success
            last = last._replace(failures=failures, had_success=had_success)
        self._states[change.webhook_id] = last
        self._changed.add(change.webhook_id)

    @property
    def rest(self) -> int:
        """Return how many counts, and webhooks with health, are not written."""
        return len(self._counts) + len(self._states)

    def write_rest(self) -> bool:
        """Write the remaining counts and health at the end of a drain; return True when done.

        After a fault it can be called again. Counts that another transaction locked are left:
        `take_counts` returns them.
        """
        for _ in range(0, len(self._counts), _COUNTS_AT_ONCE):
            # Kept until they are written, and then behind the others if they are locked.
            unwritten = counts = self._oldest_counts()
            try:
                unwritten = self.write_counts(counts)
            finally:
                self.add_counts(unwritten)
        # Twice, as another drain may have locked some for a moment.
        for _ in range(2):
            changes = self.due_states(float("inf"))
            # In parts: otherwise thousands stay locked until the last one is written.
            for first in range(0, len(changes), _REST_AT_ONCE):
                self.write_states(changes[first : first + _REST_AT_ONCE])
        return True


# Usually one or two hours are in use.
@lru_cache(maxsize=8)
def _hour(number: int) -> dt.datetime:
    """Return the start of an hour that is counted since the year 1."""
    return dt.datetime.fromordinal(number // 24).replace(hour=number % 24, tzinfo=dt.UTC)


def pause(webhook_ids: Sequence[int], reason: PauseReason) -> int:
    """Pause active webhooks; the engine holds their deliveries when it next looks.

    Those that another transaction locked stay active.
    """
    active = Webhook.objects.filter(pk__in=webhook_ids, is_active=True)
    with transaction.atomic():
        # Locked, so that the audit trail names exactly those that this call pauses.
        rows = active.only("name").order_by("pk")
        found = list(rows.select_for_update(skip_locked=True, no_key=True))
        paused = active.filter(pk__in=[webhook.pk for webhook in found]).update(
            is_active=False, pause_reason=reason, paused_at=Now(), **bump_version()
        )
        audit.record_many(
            Action.PAUSED, found, user=None, note=audit.note("pause_reason", value=reason)
        )
    if paused:
        ids = [webhook.pk for webhook in found]
        logger.warning("webhooks_paused ids=%s reason=%s", ids, reason)
    return paused


def fail_tests(reasons: Mapping[int, str], *, outcome: Outcome = Outcome.UNAUTHORIZED) -> int:
    """End tests of webhooks that cannot be sent, by default for lack of a token.

    `reasons` are by webhook, and stored with the attempts.
    """
    waiting = Delivery.objects.filter(
        webhook__in=list(reasons), status=Status.PENDING, trigger=Trigger.TEST
    )
    now = timezone.now()
    with transaction.atomic():
        tests = list(waiting.select_for_update(skip_locked=True))
        waiting.filter(pk__in=[test.pk for test in tests]).update(
            status=Status.FAILED,
            outcome=outcome,
            status_code=None,
            attempt_count=F("attempt_count") + 1,
            failure_count=F("failure_count") + 1,
            next_attempt_at=None,
            finished_at=now,
        )
        Attempt.objects.bulk_create(
            Attempt(
                delivery=test,
                number=test.attempt_count + 1,
                started_at=now,
                request_line="",
                outcome=outcome,
                error=reasons[test.webhook_id],
            )
            for test in tests
        )
    return len(tests)


def note_unusable(reasons: Mapping[int, str]) -> None:
    """Show on pages of webhooks and in their alerts why nothing can be sent, and end their tests.

    Their other deliveries wait: the settings may be corrected. From now on such a webhook counts as
    failing, unless only tests wait. `reasons` are by webhook.
    """
    fail_tests(reasons, outcome=Outcome.REFUSED)
    rows = Delivery.objects.in_status(Status.PENDING).filter(webhook=OuterRef("pk"))
    # Another thread may be ending a test at this moment.
    rows = rows.exclude(trigger=Trigger.TEST)
    waiting = Webhook.objects.filter(Exists(rows), pk__in=list(reasons)).values_list(
        "pk", flat=True
    )
    by_reason: dict[str, list[int]] = {}
    for webhook_id in waiting:
        by_reason.setdefault(reasons[webhook_id], []).append(webhook_id)
    # By the database's clock, which also measures how long a webhook has been failing.
    since = Coalesce("failing_since_at", Now())
    for reason, webhook_ids in by_reason.items():
        states = [WebhookState(webhook_id=webhook_id) for webhook_id in webhook_ids]
        WebhookState.objects.bulk_create(states, ignore_conflicts=True)
        locked = queue.backend().locked_states(webhook_ids)
        found = WebhookState.objects.filter(pk__in=set(webhook_ids) - locked)
        found.update(failing_since_at=since, last_error=reason)


_LONGEST_WAIT_SECONDS = 1.0


class Writer(SessionThread):
    """The thread that writes; it fills `written`, which the engine thread empties."""

    def __init__(
        self,
        recorder: Recorder,
        queue: ModuleType,
        engine_session: DatabaseSession,
        on_written: Callable[[], None],
        uncounted: deque[Counts],
    ) -> None:
        """Take as `uncounted` what an earlier drain could not count; it gets what this one cannot.

        It may still get some after this one's end, if another transaction locked something.
        """
        super().__init__("writer", queue, engine_session)
        self._recorder = recorder
        self._on_written = on_written
        # Batches that are committed, so that their rows are no longer ours.
        self.written: deque[list[AttemptResult]] = deque()
        self._counts: deque[Counts] = deque()
        self._uncounted = uncounted
        # Monotonic seconds: no counts are taken before that.
        self._count_at = 0.0

    def takes_counts(self, now: float) -> bool:
        """Return whether the counts before are written, or what kept them out is long ago."""
        return not self._counts and now >= self._count_at

    def write_counts(self, counts: Counts) -> None:
        """Write counts, here or in the thread: a thousand take 30 ms, for which requests wait."""
        self._counts.append(counts)
        if self._in_parallel:
            self._event.set()
        else:
            self._write_counts()

    def take_uncounted(self) -> Counts:
        """Return the counts that another transaction locked, or that a fault kept out."""
        counts: Counts = Counter()
        while self._uncounted:
            counts.update(self._uncounted.popleft())
        return counts

    def write_due(self, now: float) -> None:
        """Write what is due, here or in the thread; `now` is monotonic, or inf for everything."""
        if not self._in_parallel:
            self._write(now)
        elif self._recorder.waiting and not self._event.is_set():
            self._event.set()

    def finish(self, ends: float) -> None:
        """Write everything, waiting until `ends` (monotonic) for a database without response."""
        if self._in_parallel:
            self._end(ends)
            return
        while self._recorder.waiting and time.monotonic() < ends:
            self._write(float("inf"))
            time.sleep(self._session.backoff_seconds)

    def _write(self, now: float) -> None:
        """Write batches until none is due, or until the database has a fault."""
        while batch := self._batch(now):
            if self._session.run(lambda: self._recorder.write(batch)) is None:
                return
            self.written.append(batch)
            self._on_written()

    def _write_counts(self) -> None:
        """Write what the engine thread gave, and give back what could not be written."""
        counts = self._counts[0]
        left = self._session.run(partial(self._recorder.write_counts, counts))
        if left is None:
            self._count_at = time.monotonic() + UNWRITTEN_SECONDS
            left = counts
        if left:
            self._uncounted.append(left)
        self._counts.popleft()

    def _batch(self, now: float) -> list[AttemptResult]:
        if self._recorder.has_locked:
            self._session.run(self._recorder.take_unlocked)
        return self._recorder.batch(now)

    # Called by the thread.

    def _has_work(self) -> bool:
        return bool(self._recorder.waiting or self._recorder.locked or self._counts)

    def _turn(self) -> None:
        self._write(float("inf") if self._is_closing else time.monotonic())
        if self._counts:
            self._write_counts()
        self._rest()

    def _rest(self) -> None:
        """Wait until the oldest result is due, until there is one, or until the fault is over."""
        away = self._session.resume_at - time.monotonic()
        if away > 0:
            time.sleep(away)
        elif self._recorder.waiting:
            time.sleep(RECORD_SECONDS / 4)
        elif self._is_closing:
            # Only what is locked is left, if anything.
            time.sleep(_LOCKED_SECONDS / 10 if self._recorder.locked else 0.0)
        else:
            self._event.wait(_LONGEST_WAIT_SECONDS)
            self._event.clear()
