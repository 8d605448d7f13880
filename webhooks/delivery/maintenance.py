"""What an engine does besides its deliveries.

`Maintenance` runs every second: it takes back rows of dead processes and requests that wait for
changed webhooks, and writes health and hourly counts. `PendingPauses` pauses the webhooks of
receivers that answered 410 before that is recorded, and `PendingHolds` holds what waits for a
person. Used by the engine thread only.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import ModuleType

from django.conf import settings

from webhooks.delivery import backlog
from webhooks.delivery.claims import Claimer, Claims
from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.due import Watermark
from webhooks.delivery.plans import present_versions
from webhooks.delivery.recorder import UNWRITTEN_SECONDS, Recorder, Writer, pause
from webhooks.delivery.requests import Request, Response
from webhooks.delivery.sender import Sender
from webhooks.models import HoldReason, Outcome, PauseReason, Status, Webhook
from webhooks.network import HostResolver

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# How often to look for expired leases: after this part of a lease, at most these seconds.
_EXPIRE_PART, EXPIRE_SECONDS = 0.05, 5.0
# The holder of a row that was locked until now may have a result, which it writes within a second.
# So a lease is taken back if it had ended, and its row was not locked, this long before as well. An
# observation older than the second duration does not count.
FREE_SECONDS, _LONGEST_FREE_SECONDS = 2.0, 10.0
# Leases that are taken back with one statement.
EXPIRED_AT_ONCE = 500
# How often to look for health to write: one statement for many webhooks.
_STATE_SECONDS = 0.5
# How long a pause waits for a webhook that another transaction locked, and how often it is tried.
# At the end of a drain it is not waited for.
_PAUSE_SECONDS, _PAUSE_AGAIN_SECONDS = 5.0, 0.1
# How many rows that wait for a person are held at a time. The pause after that is this multiple of
# the time it took, at most these seconds.
HOLD_ROWS, HOLD_PAUSES, LONGEST_HOLD_PAUSE = 200, 9, 10.0
_LOG_SECONDS = 1.0
# A longer time without a turn means that this process stood still.
_STOOD_SECONDS = 3.0
# How long a lack of this machine is shown.
_LACK_SHOWN_SECONDS = 60
# The database's own message is in the worker's log, and not where everybody can read it.
_DATABASE_FAULT_TEXT = "the database fails it, see database_fault in its log"


class Maintenance:
    def __init__(
        self,
        session: DatabaseSession,
        queue: ModuleType,
        sender: Sender,
        recorder: Recorder,
        writer: Writer,
        claims: Claims,
        claimer: Claimer,
        resolver: HostResolver,
        *,
        locked: Collection[str],
        on_due: Callable[[], None],
    ) -> None:
        """Take as `locked` the rows that this process hands back once they are not locked."""
        self._session = session
        self._queue = queue
        self._sender = sender
        self._recorder = recorder
        self._writer = writer
        self._claims = claims
        self._locked = locked
        self._resolver = resolver
        # An expired lease means a death only while none of these waits for the database.
        self._users = (session, writer, claimer)
        self._ran_at = math.inf
        self._on_due = on_due
        # Monotonic seconds; `run_due` has to be called by then.
        self.look_at = 0.0
        self._state_at = 0.0
        self._expire_at = 0.0
        # Rows whose lease is over, each with when that was seen first; and when that was looked at.
        self._late: dict[str, float] = {}
        self._late_at = 0.0
        self._watermark = Watermark()

    def run_due(self, now: float) -> None:
        """Do what is due at `now`, in monotonic seconds; called every second."""
        if now - self._ran_at > _STOOD_SECONDS:
            # Other processes of this machine may have stood still as well, and be alive.
            self._session.note_fault()
        self._ran_at = now
        self._session.sync_clock(now)
        if now >= self.look_at:
            self.look_at = now + _LOOK_SECONDS
            self._recall_changed()
            self._report_lack(now)
            if now >= self._expire_at and all(user.is_calm(now) for user in self._users):
                self._expire(now)
        self._write_counts(now)
        self._write_states(now)

    def _write_counts(self, now: float) -> None:
        self._recorder.add_counts(self._writer.take_uncounted())
        if self._writer.takes_counts(now) and (counts := self._recorder.due_counts(now)):
            self._writer.write_counts(counts)

    def _write_states(self, now: float) -> None:
        if now < self._state_at or not (states := self._recorder.due_states(now)):
            return

        def write() -> bool:
            self._recorder.write_states(states)
            return True

        self._state_at = now + _STATE_SECONDS
        if not self._session.run(write):
            self._state_at = time.monotonic() + UNWRITTEN_SECONDS

    def _recall_changed(self) -> None:
        """Recall requests that wait for webhooks that were paused, deleted or edited since.

        Also those with a token that was erased or replaced.
        """
        if waiting := self._claims.waiting_webhooks():
            versions = self._session.run(lambda: present_versions(waiting)) or {}
            for webhook_id, present in versions.items():
                self._sender.recall(webhook_id, present.webhook, present.token)

    def _report_lack(self, now: float) -> None:
        """Make `/readyz` show what this machine lacked a moment ago."""
        known = (self._sender.last_lack, self._resolver.missing_resource)
        lacks = [lack for lack in known if lack is not None]
        if any(user.is_failing for user in self._users):
            lacks.append((now, _DATABASE_FAULT_TEXT))
        for lacked_at, lack in lacks:
            if now - lacked_at < _LOOK_SECONDS:
                backlog.note(backlog.MACHINE_LACKS, lack, _LACK_SHOWN_SECONDS)

    def _expire(self, now: float) -> None:
        # Read before the call, which may wait: a lease that ends during it means no death.
        before, began_at = self._session.clock.lease_wall(), time.monotonic()
        since = self._watermark.begin(began_at)
        held = [*self._claims.held(), *self._locked]
        late = self._session.run(partial(self._queue.late, before, held=held, since=since))
        if late is None:
            self._late = {}
            self._watermark.forget()
            return
        if now - self._late_at > _LONGEST_FREE_SECONDS:
            self._late = {}
        self._late_at = now
        pause = min(EXPIRE_SECONDS, _EXPIRE_PART * settings.WEBHOOKS_LEASE_SECONDS)
        # SQLite has no locks of single rows.
        least = FREE_SECONDS if self._queue.WRITES_IN_PARALLEL else 0.0
        if not late:
            self._watermark.end(began_at, before)
        elif least:
            pause = min(pause, least)
        self._expire_at = now + pause
        self._late = {pk: self._late.get(pk, now) for pk in late}
        ripe = [pk for pk in late if now - self._late[pk] >= least]
        if len(ripe) >= EXPIRED_AT_ONCE:
            # At random, as other drains take some as well; and without a pause before the rest.
            ripe = random.sample(ripe, EXPIRED_AT_ONCE)
            self._expire_at = now
        expired = self._session.run(partial(self._queue.expire, ripe, before)) if ripe else None
        if expired:
            self._on_due()
            parked = sum(row.status == Status.PARKED for row in expired)
            logger.warning("leases_expired rows=%d parked=%d", len(expired), parked)


class PendingPauses:
    """Responses with status 410 that wait for a pause. Used by the engine thread only."""

    def __init__(self) -> None:
        # Each with the time it was added, on the monotonic clock.
        self._waiting: list[tuple[Request, Response, float]] = []
        # Monotonic seconds; `apply` does nothing before.
        self.apply_at = 0.0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, request: Request, response: Response) -> None:
        self._waiting.append((request, response, time.monotonic()))

    def apply(
        self, session: DatabaseSession, *, is_end: bool
    ) -> list[tuple[Request, Response, Outcome]]:
        """Pause the webhooks and return the outcomes of the responses; nothing on a database fault.

        A webhook that was changed since is not paused: its new URL has not answered 410. If it is
        paused by now, as by another response, its delivery waits all the same. One that is
        locked, perhaps to be changed, is paused after a later response.
        """
        now = time.monotonic()
        if now < self.apply_at and not is_end:
            return []
        asked = {request.plan.webhook_id: request.plan.version for request, _, _ in self._waiting}
        found = session.run(lambda: _paused_by_now(asked))
        if found is None:
            return []
        paused, locked = found
        self.apply_at = now + _PAUSE_AGAIN_SECONDS if locked else 0.0
        waiting, self._waiting = self._waiting, []
        decided: list[tuple[Request, Response, Outcome]] = []
        for request, response, added_at in waiting:
            webhook_id = request.plan.webhook_id
            if webhook_id in locked and now - added_at < _PAUSE_SECONDS and not is_end:
                self._waiting.append((request, response, added_at))
            else:
                outcome = Outcome.GONE if webhook_id in paused else Outcome.REFUSED
                decided.append((request, response, outcome))
        return decided


class PendingHolds:
    """Webhooks whose due rows wait for a person. Used by the engine thread only.

    Nothing sends these rows, so holding a million of them may take minutes and delays no others.
    """

    def __init__(self) -> None:
        self._blocked: dict[HoldReason, list[int]] = {}
        # Monotonic seconds: nothing is held before, and when to look for more rows.
        self._hold_at, self.look_at = 0.0, math.inf
        # What is not logged yet, by reason: a webhook, and how many rows of all.
        self._held: dict[HoldReason, tuple[int, int]] = {}
        self._logged_at = 0.0

    def add(self, webhook_id: int, reason: HoldReason) -> None:
        self._blocked.setdefault(reason, []).append(webhook_id)

    def takes_look(self, now: float) -> bool:
        """Return whether it is time to look for more rows; once for each time."""
        if now < self.look_at:
            return False
        self.look_at = math.inf
        return True

    def hold(self, session: DatabaseSession, queue: ModuleType, *, all_at_once: bool) -> None:
        """Hold some rows of the webhooks that the last look found, one statement for each reason.

        With `all_at_once` of each of them, as a webhook may have its next turn much later.
        """
        blocked, self._blocked = self._blocked, {}
        began_at = time.monotonic()
        if blocked and (all_at_once or began_at >= self._hold_at):
            is_any = False
            for reason, webhook_ids in blocked.items():
                chosen = webhook_ids
                if not all_at_once and len(chosen) > HOLD_ROWS:
                    chosen = random.sample(webhook_ids, HOLD_ROWS)
                held = session.run(partial(queue.hold, chosen, reason.value, HOLD_ROWS))
                if held:
                    is_any = True
                    first, rows = self._held.get(reason, (chosen[0], 0))
                    self._held[reason] = first, rows + held
            ended_at = time.monotonic()
            self._hold_at = ended_at + min(LONGEST_HOLD_PAUSE, HOLD_PAUSES * (ended_at - began_at))
            self.look_at = self._hold_at if is_any and not all_at_once else math.inf
        elif blocked:
            self.look_at = self._hold_at
        if began_at - self._logged_at > _LOG_SECONDS:
            self._logged_at = began_at
            self.log()

    def log(self) -> None:
        """Log what was held since the last time."""
        for reason, (first, rows) in self._held.items():
            logger.info("held rows=%d first_webhook=%d reason=%s", rows, first, reason)
        self._held.clear()


def _paused_by_now(asked: Mapping[int, int]) -> tuple[set[int], set[int]]:
    """Pause the webhooks that still have these versions.

    Return all that are paused, and those that are not because another transaction locked them.
    """
    present = present_versions(asked)
    gone = {pk for pk, version in asked.items() if present[pk].webhook == version}
    if gone:
        pause(sorted(gone), PauseReason.GONE)
    rows = Webhook.objects.filter(pk__in=asked, is_active=False)
    paused = set(rows.values_list("pk", flat=True))
    return paused, gone - paused
