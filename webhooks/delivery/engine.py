"""The engine of one drain: claims due rows, prepares requests, records their outcomes.

The engine thread decides what to claim; `Claimer` claims it, `Sender` owns the network and
`Writer` writes results, each in a thread of its own, so that claims and writes overlap with
hundreds of requests in flight. One more thread listens for wakeups. Retries are decided in
`requests`, numbers in flight in `limiter`. Every row that this process holds is leased, so nothing
is lost when it dies.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from types import ModuleType

from django.conf import settings

from webhooks import network
from webhooks.delivery import outcomes, queue
from webhooks.delivery.affinity import Affinity
from webhooks.delivery.claims import (
    CLAIM_ROWS,
    FEW_ROWS,
    LIGHT_BYTES,
    MADE_BYTES,
    ROWS,
    ROWS_OF_MANY,
    ClaimBatch,
    Claimer,
    Claims,
)
from webhooks.delivery.db_session import DatabaseClock, DatabaseSession
from webhooks.delivery.due import PAGE, DueWebhooks
from webhooks.delivery.limiter import Limiters
from webhooks.delivery.maintenance import Maintenance, PendingHolds, PendingPauses
from webhooks.delivery.plans import Plans
from webhooks.delivery.queue.rows import Candidate, Claimed, StateChange
from webhooks.delivery.recorder import RECORD_SECONDS, Counts, Recorder, Writer, fail_tests
from webhooks.delivery.requests import (
    NextStep,
    Request,
    RequestPlan,
    Response,
    challenge_error,
    classify,
    is_long,
    judge,
    next_step,
    no_response,
    prepare,
    result,
    retry_after_seconds,
    utc,
)
from webhooks.delivery.sender import Sender
from webhooks.delivery.shards import Shards
from webhooks.delivery.wakeup import LISTEN_SECONDS, Wakeup
from webhooks.models import HoldReason, Outcome, Status, Trigger, ids
from webhooks.models.messages import Message
from webhooks.payloads import MappingError

logger = logging.getLogger(__name__)

# How often to look for webhooks with due rows while claims come back full, and after a wakeup.
LOOK_SECONDS, WOKEN_LOOK_SECONDS = 0.3, 0.1
# And at least this multiple of a look's time, capped as the machine may have stood still in it.
_LOOK_PAUSES, _LONGEST_LOOK_SECONDS = 4, 1.0
# Plans and names that arrive within this time cause one look.
_READY_SECONDS = 0.01
# After work was found, the next scan is this soon, then less and less often.
FIRST_SCAN_SECONDS = 0.01
# The longest pause while a limit, an order or a circuit breaker blocks the due rows.
BLOCKED_SCAN_SECONDS = 0.1
# A plain string: a member of a TextChoices takes longer to compare.
_TEST = Trigger.TEST.value
# With fewer rows in hand than this, responses are collected twice as often.
_FEW_ROWS = 100
# The statuses whose Retry-After is honoured.
_RETRY_AFTER_STATUSES = frozenset({408, 425, 429, 503})
# Long responses are judged and masked for this long per turn. More of them than this many turns
# would handle are too many.
_JUDGE_SECONDS, _TURNS_BEHIND = 0.02, 10
# How long an ending drain continues with receivers that answer quickly.
_ENDING_SECONDS = 60.0
# Limiters and plans that no drain used for this long, or up to twice as long, are forgotten.
_FORGET_SECONDS = 120.0
# How long the end of a drain waits for a database that does not respond.
FINISH_SECONDS = 10.0
# A drain whose machine could not send within this time leaves its shards to others.
LACKED_SECONDS = 10.0
# How often to log a request that could not be made.
LOG_SECONDS = 1.0
# How often to try to hand back what another transaction locked.
_LOCKED_SECONDS = 1.0
# The next drain does not wait for more counts and webhooks with health to write than this.
SHORT_REST = 2000
# Its thread may meet locks of the next drain, which writes the same rows. It waits so long for the
# thread of the drain before.
_REST_TRIES, _REST_SECONDS = 3, 60.0


class DrainCache:
    """What the drains of a process hand on to each other, such as limiters, plans and names."""

    # Belongs to the process: drains that run at the same time share it.
    affinity = Affinity()

    def __init__(self) -> None:
        self.limiters = Limiters(settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK)
        self.plans = Plans()
        self.clock = DatabaseClock()
        self.resolver = network.HostResolver(network.Policy.from_settings())
        self._forgot_at = time.monotonic()
        # What another transaction locked: rows to hand back, with their leases, and counts and
        # health to write.
        self.locked: dict[str, tuple[Claimed, str]] = {}
        self.counts: deque[Counts] = deque()
        self.states: deque[StateChange] = deque()
        # The thread that writes what the last drain left.
        self._rest: threading.Thread | None = None

    def has_rest(self) -> bool:
        """Return whether a drain left something that was locked."""
        return bool(self.locked or any(self.counts) or self.states)

    @property
    def is_writing_rest(self) -> bool:
        return self._rest is not None and self._rest.is_alive()

    def write_rest(self, backend: ModuleType, recorder: Recorder) -> None:
        """Write counts and health in a thread of their own, after those of the drain before."""
        before = self._rest

        def run() -> None:
            if before is not None:
                before.join(_REST_SECONDS)
            session = DatabaseSession(backend, self.clock)
            try:
                for _ in range(_REST_TRIES):
                    if session.run(recorder.write_rest):
                        return
                    time.sleep(session.backoff_seconds)
            finally:
                session.close()
                self.take_unwritten(recorder)

        self._rest = threading.Thread(target=run, name="rest", daemon=True)
        self._rest.start()

    def take_unwritten(self, recorder: Recorder) -> None:
        """Keep what an ended drain could not write, for the next one."""
        if counts := recorder.take_counts():
            self.counts.append(counts)
        self.states.extend(recorder.take_states())

    def wait_for_rest(self, seconds: float) -> None:
        if self._rest is not None:
            self._rest.join(seconds)

    def hand_over(self) -> None:
        """End a drain, and forget what was not used for a while.

        Not after each drain: publishers start drains of one second, which use little of it.
        """
        now = time.monotonic()
        forgets = now - self._forgot_at > _FORGET_SECONDS
        if forgets:
            self._forgot_at = now
        # A new object: a sender that takes long to end keeps using the old one.
        self.limiters = self.limiters.successor(forgets=forgets)
        self.plans.hand_over(forgets=forgets)
        self.resolver.wake = None

    def close(self) -> None:
        self.plans.close()
        self.resolver.close()


class Engine:
    """Runs until asked to stop; one per drain task, which passes what earlier drains learned."""

    def __init__(
        self,
        wakeup: Wakeup,
        should_stop: Callable[[], bool],
        cache: DrainCache | None = None,
        *,
        can_start_next: Callable[[float], bool] = lambda since: True,
    ) -> None:
        self._wakeup = wakeup
        self._should_stop = should_stop
        self._can_start_next = can_start_next
        self._queue = queue.backend()
        # Identifies this run's claims, together with the attempt number.
        self._lease = ids.new_id("l")[2:]
        self.event = threading.Event()
        self._is_resting = False
        self._is_notified = True
        self._is_more_ready = False
        self._is_closing = False
        # Monotonic seconds, from which on a drain looks for a good moment to end.
        self._ends_at = math.inf
        self._cache = cache or DrainCache()
        self._is_own_cache = cache is None
        self.session = DatabaseSession(self._queue, self._cache.clock)
        self.plans, self._resolver = self._cache.plans, self._cache.resolver
        # Webhooks whose plans were made or could not be made.
        self._planned: deque[int] = deque()
        self.plans.on_ready = self._note_planned
        # Webhooks that wait for a name, by host and port; and the names that were resolved.
        self._waiting_for_name: dict[tuple[str, int], set[int]] = {}
        self._resolved_names: deque[tuple[str, int]] = deque()
        self._resolver.wake = self._note_resolved_name
        self.limiters = self._cache.limiters
        policy = network.Policy.from_settings()
        self._has_proxy = bool(policy.egress_proxy)
        self.sender = Sender(
            policy=policy,
            limiters=self.limiters,
            max_in_flight=settings.WEBHOOKS_MAX_IN_FLIGHT,
            on_response=self._on_response,
        )
        self.shards = Shards(self.session)
        self._due = DueWebhooks(self.session, self._queue, self.shards)
        self.claims = Claims(
            self._queue,
            self._lease,
            self.limiters,
            lambda: self.sender.places,
            lambda: self.sender.late,
            lambda: len(self._recorder.locked) + len(self._locked),
        )
        self.claimer = Claimer(self.claims, self._queue, self.session, self.event.set)
        self._recorder = Recorder(self._queue, self._lease, self.claims.__len__)
        while self._cache.states:
            self._recorder.add_state(self._cache.states.popleft())
        self.writer = Writer(
            self._recorder, self._queue, self.session, self._on_response, self._cache.counts
        )
        self.maintenance = Maintenance(
            self.session,
            self._queue,
            self.sender,
            self._recorder,
            self.writer,
            self.claims,
            self.claimer,
            self._resolver,
            locked=self._cache.locked,
            on_due=self.notify,
        )
        # Requests that ended, with any outcome.
        self.sent = 0
        self.is_hand_back_open = False
        # Rows to hand back that another transaction locked, each with its lease, which may be that
        # of an earlier drain; and when to try again.
        self._locked = self._cache.locked
        self._locked_at = 0.0
        # Rows of the last claim that are neither with the sender nor have a result.
        self._claimed: deque[Claimed] = deque()
        # Bytes of events and of the bodies made from them, since the last claim arrived.
        self._made_bytes = 0
        # Whether a claim failed that may have been committed.
        self._is_claim_open = False
        # When a request that could not be made was logged.
        self._logged_at = -math.inf
        # Long responses, by webhook.
        self.unjudged: dict[int, deque[tuple[Request, Response]]] = {}
        self.ready: dict[int, RequestPlan] = {}
        self.candidates: list[Candidate] = []
        # Webhooks that could be sent to without a limit at a recent look, each with its plan and
        # when that was; and until when to claim the oldest rows without a look, as these are all of
        # such webhooks.
        self.sendable: dict[int, tuple[RequestPlan, float]] = {}
        self.oldest_until = 0.0
        # Whether the last look found only such webhooks.
        self._are_all_sendable = False
        # Webhooks that could be sent to without a limit at a look of this drain; and whether the
        # last claim took only a few rows and left none, or the last look found none.
        self._known: set[int] = set()
        self._is_light = False
        # The plans of the last claim of the oldest rows.
        self._oldest_plans: dict[int, RequestPlan] = {}
        # Whether any webhook has due rows, even if none can be sent to.
        self._has_due = False
        # Found by a look: webhooks whose rows wait for a person; and webhooks whose tests cannot be
        # sent, with the problem, by outcome.
        self._pending_holds = PendingHolds()
        self._untestable: dict[Outcome, dict[int, str]] = {}
        self._pending_pauses = PendingPauses()
        self._pinned: dict[tuple[str, int], int] = {}
        self._scan_at = self.look_at = self._looked_at = self._look_cost = 0.0
        # Whether a wakeup came too soon after a look for another: what it announced was not read.
        self._owes_look = False
        self._scan_seconds = FIRST_SCAN_SECONDS

    # Called by other threads.

    def notify(self) -> None:
        self._is_notified = True
        self.event.set()

    def _note_planned(self, webhook_ids: Collection[int]) -> None:
        self._planned.extend(webhook_ids)
        self._note_ready()

    def _note_resolved_name(self, host: str, port: int) -> None:
        self._resolved_names.append((host, port))
        self._note_ready()

    def _note_ready(self) -> None:
        """Look again for a plan or a name that arrived: once for all within a few milliseconds."""
        if not self._is_more_ready:
            self._is_more_ready = True
            self.event.set()

    def _on_response(self) -> None:
        if self._is_resting:
            self.event.set()

    def _listen(self) -> None:
        while not self._is_closing:
            if not self._wakeup.wait(LISTEN_SECONDS):
                continue
            if self._is_closing:
                # Passed on to another drain, as this one claims no more.
                self._wakeup.notify()
            else:
                self.notify()

    # Called by the engine thread.

    def run(self, seconds: float) -> None:
        """Deliver until `should_stop()`, or until a good moment to end after `seconds`."""
        ends = self._ends_at = time.monotonic() + seconds
        listener = threading.Thread(target=self._listen, name="wakeup", daemon=True)
        try:
            # Inside of `try`: the machine may have no thread left for one of them.
            listener.start()
            self.sender.start()
            self.claimer.start()
            self.writer.start()
            while not self._should_stop() and not (time.monotonic() > ends and self.may_end()):
                for part in (self.sender, self.claimer, self.writer):
                    if not part.is_alive:
                        raise RuntimeError(f"The thread of {type(part).__name__} ended.")
                if not listener.is_alive():
                    raise RuntimeError("The thread that listens for wakeups ended.")
                self.note_end(time.monotonic() - ends - seconds)
                self._turn()
        finally:
            self.finish()

    def note_end(self, overdue_seconds: float) -> None:
        """Once overdue, continue only with quick and new receivers, so that ending is fast.

        A busy drain is never idle, and the slowest receiver must not keep the others waiting. Once
        no slow request is in hand, claim nothing: those in flight end within a second, or their
        receivers are slow as well. Claim nothing after a minute either, whatever is in hand.
        """
        claims = self.claims
        is_overdue = overdue_seconds > 0 and not self._wakeup.is_broken
        claims.is_ending = is_overdue and self._can_start_next(self._ends_at)
        if not claims.is_ending:
            claims.is_closed = False
            claims.hanging.clear()
            return
        claims.hanging |= self.sender.hanging()
        slow = claims.slow_webhooks()
        claims.is_closed = not slow or overdue_seconds > _ENDING_SECONDS
        for webhook_id in slow or claims.waiting_webhooks():
            # What is recalled must not be claimed again at once.
            is_left = claims.is_closed or not claims.goes_on_with(webhook_id)
            if is_left and self.limiters.get(webhook_id).waiting:
                self.sender.recall(webhook_id, -1)

    def may_end(self) -> bool:
        """Return whether no request is in hand and a broker can start the next drain.

        What another transaction locked is left: its results are written later, by their thread,
        and the next drain hands back the rest.
        """
        # Asked first, as the answer may take until the next turn.
        if (
            not self._can_start_next(self._ends_at)
            or not self._is_rest_locked
            or self.claimer.is_busy
        ):
            return False
        # Checked now: a broker that just failed may not have been noticed yet.
        self._wakeup.notify()
        return not self._wakeup.is_broken

    @property
    def _is_rest_locked(self) -> bool:
        """Return whether another transaction locked every row in hand, or none is in hand."""
        unsent = sum(delivery_id in self.claims for delivery_id in self._locked)
        return len(self.claims) <= len(self._recorder.locked) + unsent

    def _turn(self) -> None:
        self.collect()
        now = time.monotonic()
        self._cache.affinity.look(now)
        self.record(now)
        batch = self.claimer.batch()
        if batch is not None:
            if batch.found:
                batch = batch._replace(plans=self._plans_of(batch.found))
            self.note_claimed(batch)
            if not batch.is_full:
                self.submit(batch)
        self._hand_back_lost()
        if batch is not None:
            # Before the next claim, during which a hand-back may have to wait.
            self.hand_back()
            self._hand_back_locked(now)
        if now >= self.session.resume_at:
            self.maintenance.run_due(now)
            if self._may_have_shards(now):
                self.shards.look(now)
            if self._is_more_ready and now >= self._look_ready_at:
                self._is_more_ready, self._is_notified = False, True
                for _ in range(len(self._planned)):
                    self._note_plan(self._planned.popleft())
                for _ in range(len(self._resolved_names)):
                    self._due.wake(self._waiting_for_name.pop(self._resolved_names.popleft(), ()))
            is_time = self._is_notified or now >= min(self._scan_at, self._pending_holds.look_at)
            if is_time and self._may_claim:
                is_early = now < min(self._scan_at, self._pending_holds.look_at)
                if self._is_notified:
                    self._owes_look = True
                    self.look_at = min(self.look_at, self._look_again_at(is_woken=True))
                if self._pending_holds.takes_look(now):
                    self.look_at = 0.0
                self._is_notified = False
                if not (is_early and self.claim_few()):
                    self._scan(now)
                # Beside the claim.
                self._pending_holds.hold(self.session, self._queue, all_at_once=self._due.are_many)
        if batch is not None and batch.is_full:
            # More rows are due: prepare these while the next ones are claimed.
            self.submit(batch)
        self.rest()

    def rest(self) -> None:
        """Wait for a response, a wakeup, or the next thing that is due."""
        if self.unjudged:
            return
        now = time.monotonic()
        # While a claim is under way, wait for its rows.
        scan_at = self.maintenance.look_at
        if self._may_claim:
            scan_at = min(self._scan_at, self._pending_holds.look_at)
        look_at = self.maintenance.look_at
        if self._pending_pauses:
            look_at = min(look_at, self._pending_pauses.apply_at)
        wait = max(self.session.resume_at, min(scan_at, look_at)) - now
        is_away = self.session.resume_at > now
        if (self._recorder.waiting or self.sender.responses) and not is_away:
            self.event.clear()
            if not self._has_news(is_away) and wait > 0:
                self.event.wait(min(wait, RECORD_SECONDS / 2 if self._is_calm else RECORD_SECONDS))
            return
        self._is_resting = True
        self.event.clear()
        has_responses = self.sender.responses or self.writer.written
        if not has_responses and not self._has_news(is_away) and wait > 0:
            if self._is_more_ready and self._may_claim:
                wait = min(wait, max(0.001, self._look_ready_at - now))
            self.event.wait(min(wait, 1.0))
        self._is_resting = False

    @property
    def _is_calm(self) -> bool:
        """Return whether few rows are in hand, so that none of them waits behind others."""
        return len(self.claims) < _FEW_ROWS

    def _may_have_shards(self, now: float) -> bool:
        """Return whether other drains should leave this one its shards.

        Not while it claims no more, or if its machine could not send a moment ago: another one may.
        """
        missing = self._resolver.missing_resource
        is_lacking = missing is not None and now - missing[0] < LACKED_SECONDS
        return not (is_lacking or self.claims.is_closed or self.sender.has_lacked(LACKED_SECONDS))

    def _has_news(self, is_away: bool) -> bool:
        """Return whether claimed rows arrived, or a wakeup while the database may be queried."""
        can_ask = not is_away and self._may_claim
        return self.claimer.has_batch or (self._is_notified and can_ask)

    @property
    def _may_claim(self) -> bool:
        """Return whether no claim is under way and this machine can send."""
        return not self.claimer.is_busy and not self.sender.is_lacking

    # Claiming.

    def _note_plan(self, webhook_id: int) -> None:
        """Look at a webhook now if its plan is ready, or else when the plan is made again."""
        again_at = self.plans.made_again_at(webhook_id)
        if again_at is None:
            self._due.wake([webhook_id])
        else:
            self._due.look_no_later_than(webhook_id, again_at)

    def _scan(self, now: float) -> None:
        if not self.claims.has_room:
            # There is no room to claim anything.
            self._scan_at = now + FIRST_SCAN_SECONDS
            return
        if now < self.oldest_until and self.claim_oldest():
            return
        ready = self.look(now)
        if ready is None:
            self._is_notified = True
            return
        if self.claims.has_room and any(one.has_tests or one.wait_seconds == 0 for one in ready):
            self.claims.since = self._due.since
            self.claimer.request(ready, self.ready)
        elif not (self._has_due or self._due.are_many or self._wakeup.is_broken):
            self._scan_when_due()
        else:
            waits = [one.wait_seconds for one in ready if one.wait_seconds]
            self._scan_later(min([settings.WEBHOOKS_POLL_SECONDS, *waits]))

    def claim_few(self) -> bool:
        """Claim a few rows that a wakeup announced, if nothing else is expected to be due.

        Between two looks, whenever these were: the claim reads the versions of the webhooks.
        """
        is_light = self._is_light and self._is_calm and self._due.is_cheap
        if not (is_light and self.shards.are_all) or self.session.backoff_seconds:
            return False
        webhook_ids = self.claims.may_have_oldest(self._known, FEW_ROWS)
        if webhook_ids:
            self._owes_look = False
            self.claims.since = self._due.since
            self.claimer.claim_few(webhook_ids)
        return bool(webhook_ids)

    def _plans_of(self, found: Iterable[Candidate]) -> dict[int, RequestPlan]:
        """Return the plans of webhooks that were claimed from without a look.

        The rows of the others go back: a look makes their plans, or holds them.
        """
        plans: dict[int, RequestPlan] = {}
        for one in found:
            if self._is_ready(one):
                plans[one.webhook_id] = self.ready[one.webhook_id]
            else:
                self._known.discard(one.webhook_id)
        return plans

    def claim_oldest(self) -> bool:
        """Claim what became due a moment ago; return whether webhooks may have that."""
        plans = {pk: self.sendable[pk][0] for pk in self.claims.may_have_oldest(self.sendable)}
        if plans:
            self._oldest_plans = plans
            # It reads the rows of all webhooks.
            self._owes_look = False
            self.claims.since = self._due.since
            self.claimer.request_oldest(plans)
        return bool(plans)

    def _note_sendable(self, found: list[Candidate]) -> None:
        """Note which webhooks can be sent to without a limit, and whether all with due rows can.

        The oldest rows may be of other shards: so only a drain that serves all claims these.
        """
        if self._due.are_many or not (self._queue.WRITES_IN_PARALLEL and self.shards.are_all):
            self.sendable, self.oldest_until = {}, 0.0
            self._known.clear()
            return
        now = self._looked_at
        free = {
            one.webhook_id: (self.ready[one.webhook_id], now)
            for one in found
            if one.is_active and not one.is_paced and one.webhook_id in self.ready
        }
        is_all = len(free) == len(found) and not any(one.has_suspects for one in found[:1])
        seen = {one.webhook_id for one in found}
        self._known = (self._known - seen) | free.keys()
        if len(self._known) > PAGE:
            self._known = set(free)
        for webhook_id, one in self.sendable.items():
            if webhook_id not in seen and now - one[1] < LOOK_SECONDS:
                free[webhook_id] = one
        self.sendable, self._are_all_sendable = free, is_all
        self.oldest_until = now + WOKEN_LOOK_SECONDS if is_all else 0.0

    def _scan_when_due(self) -> None:
        """Wait for a wakeup or the next due row; the poll interval finds a lost wakeup."""
        self._is_light = True
        if self._known:
            self.session.run(self._queue.plan_ahead)
        self.look_at = 0.0
        self._scan_in(self._until_due(self._due.next_due_seconds))

    def _scan_later(self, longest: float) -> None:
        """Scan again soon, with longer pauses up to `longest` while nothing is found."""
        if self._due.are_many:
            # Continue with the next page, or even sooner with webhooks that were not read yet.
            longest = min(longest, BLOCKED_SCAN_SECONDS)
            longest = min(longest, self._look_cost) if self._due.has_others else longest
        if self.claims.has_room:
            self._scan_seconds = max(FIRST_SCAN_SECONDS, min(longest, self._scan_seconds * 2))
        else:
            self._scan_seconds = FIRST_SCAN_SECONDS
        self._look_soon()
        self._scan_in(self._scan_seconds)

    def _scan_in(self, seconds: float) -> None:
        """Scan after this time, or sooner for a wakeup whose look was put off."""
        self._scan_at = time.monotonic() + seconds
        if self._owes_look:
            self._scan_at = min(self._scan_at, self.look_at)

    def _look_soon(self) -> None:
        """Look for due webhooks at the next scan, unless a look takes long."""
        self.look_at = min(self.look_at, self._looked_at + self._look_cost)

    def note_claimed(self, batch: ClaimBatch) -> None:
        """Count the claimed rows and schedule the next scan."""
        is_whole = batch.is_all and (bool(batch.found) or self._are_all_sendable)
        self._is_light = is_whole and len(batch.claims) < FEW_ROWS
        batch.claims[:] = self._new_among(batch.claims)
        if unread := [claim for claim in batch.claims if not claim.payload]:
            self.sender.unsent.extend(unread)
            batch.claims[:] = [claim for claim in batch.claims if claim.payload]
        batch.claims[:] = map(self.claims.add, batch.claims)
        self._claimed.extend(batch.claims)
        self._is_claim_open = self._is_claim_open or bool(batch.failed)
        self._due.note_fault(batch.failed)
        self._due.note_claimed(batch.served, batch.exhausted, batch.left_out, len(batch.claims))
        if not batch.is_all:
            # More rows are due, or others.
            self.oldest_until = 0.0
            if batch.is_oldest:
                self.look_at, self._is_notified = 0.0, True
        if not batch.claims:
            self._scan_later(BLOCKED_SCAN_SECONDS)
            return
        if batch.found and batch.is_all:
            # The next look is due when it was.
            return
        if self._due.are_many:
            self.look_at = 0.0
        self._scan_seconds = FIRST_SCAN_SECONDS
        self._scan_at = 0.0
        if not batch.is_full:
            self._look_soon()
            is_all = batch.is_all and not (self._due.has_more or self._wakeup.is_broken)
            wait = self._until_due(None) if is_all else self._scan_seconds
            if self._due.are_many and self._due.has_more:
                wait = 0.0
            self._scan_in(wait)

    def _new_among(self, claims: list[Claimed]) -> list[Claimed]:
        """Return the claims whose request is neither under way nor done.

        The others were claimed a second time, after a database crash lost the first claim.
        """
        claimed = {claim.id for claim in claims}
        unsent = [claim for claim in list(self.sender.unsent) if claim.id in claimed]
        for claim in unsent:
            # Handed back by a commit whose confirmation was lost, or by that crash.
            self.sender.unsent.remove(claim)
        again = {claim.id for claim in unsent}
        again |= {claim.id for claim in claims if self._locked.pop(claim.id, None)}
        new = [c for c in claims if c.id in again or not self.claims.has_attempt(c)]
        self.claims.recorded.clear()
        return new

    def look(self, now: float) -> list[Candidate] | None:
        """Return the webhooks that have due rows and can be sent to; None on a database fault."""
        if now < self.look_at:
            return self.candidates
        began_at = time.monotonic()
        found = self._due.look(self.claims.room)
        if found is None:
            return None
        self._owes_look = False
        self.ready = {}
        self._has_due = bool(found)
        self.candidates = [
            one for one in found if not self._needs_no_plan(one) and self._is_ready(one)
        ]
        for outcome, problems in self._untestable.items():
            self.session.run(partial(fail_tests, problems, outcome=outcome))
        self._untestable = {}
        self.claims.most_rows = ROWS_OF_MANY if self._due.are_many else ROWS
        if self._due.are_many:
            self._leave_out(found, now)
        self._looked_at = time.monotonic()
        self._note_sendable(found)
        self._look_cost = min(self._looked_at - began_at, _LONGEST_LOOK_SECONDS)
        self.look_at = self._look_again_at(is_woken=False)
        return self.candidates

    def _needs_no_plan(self, candidate: Candidate) -> bool:
        """Return whether a webhook needs no plan yet: plans of thousands would fill the memory."""
        may_go = candidate.wait_seconds == 0 or candidate.has_tests
        return self._due.are_many and candidate.is_active and not may_go

    def _leave_out(self, found: list[Candidate], now: float) -> None:
        """Note which webhooks cannot be claimed from now, and for how long."""
        for candidate in found:
            webhook_id, wait = candidate.webhook_id, candidate.wait_seconds
            if wait == 0 and webhook_id in self.ready:
                limiter = self.limiters.get(webhook_id)
                wait = limiter.wait_seconds(now, is_paced=candidate.is_paced)
            elif wait == 0:
                # It waits for its plan, its host name or a person.
                wait = None
            if wait == 0:
                self._due.clear_wait(webhook_id)
            else:
                self._due.wait(webhook_id, wait)
                if (again_at := self.plans.made_again_at(webhook_id)) is not None:
                    self._due.look_no_later_than(webhook_id, again_at)

    @property
    def _look_ready_at(self) -> float:
        return self._looked_at + max(_READY_SECONDS, self._look_cost)

    def _look_again_at(self, *, is_woken: bool) -> float:
        """Return when to look again; with many webhooks, looks take only a part of the time."""
        if self._due.are_many and is_woken:
            return self._looked_at + max(FIRST_SCAN_SECONDS, self._look_cost)
        least = WOKEN_LOOK_SECONDS if is_woken else LOOK_SECONDS
        return self._looked_at + max(least, _LOOK_PAUSES * self._look_cost)

    def _until_due(self, seconds: float | None) -> float:
        """Return how long to wait if the next row is due in `seconds`: at most a poll interval."""
        poll: float = settings.WEBHOOKS_POLL_SECONDS
        if self._due.are_many:
            # Waiting webhooks and the next page have to be looked at soon.
            return min(poll, BLOCKED_SCAN_SECONDS)
        return poll if seconds is None else min(poll, max(FIRST_SCAN_SECONDS, seconds))

    def _is_ready(self, candidate: Candidate) -> bool:
        """Return whether this webhook can be sent to; note it if its rows wait for a person."""
        if not candidate.is_active:
            self._pending_holds.add(candidate.webhook_id, HoldReason.PAUSED)
        entry = self.plans.get(candidate)
        if entry is None:
            return False
        if entry.plan is None:
            if entry.hold_reason:
                self._pending_holds.add(candidate.webhook_id, HoldReason(entry.hold_reason))
            if candidate.has_tests and (entry.hold_reason or entry.retry_seconds):
                outcome = Outcome.UNAUTHORIZED if entry.hold_reason else Outcome.REFUSED
                problems = self._untestable.setdefault(outcome, {})
                problems[candidate.webhook_id] = entry.problem
            return False
        self.limiters.begin(candidate.webhook_id, entry.failures)
        target = entry.plan.target
        name = target.host, target.port
        if not target.is_literal and self._resolver.lookup(*name) is None:
            self._waiting_for_name.setdefault(name, set()).add(candidate.webhook_id)
            return False
        self.ready[candidate.webhook_id] = entry.plan
        return True

    def submit(self, batch: ClaimBatch) -> None:
        requests: list[Request] = []
        wall = self.session.clock.wall()
        checked: dict[tuple[str, int], network.Resolution | None] = {}
        self._made_bytes = 0
        try:
            while self._claimed:
                # Removed first: a row that causes an error is left to its lease, so that it ends up
                # parked.
                claim = self._claimed.popleft()
                plan = batch.plans.get(claim.webhook_id)
                if plan is None:
                    # Its token was refused since the claim.
                    self.sender.unsent.append(claim)
                    continue
                if self._made_bytes >= MADE_BYTES and self._has_large_body(claim, plan):
                    # Its size was not known when it was claimed; the others must not wait for it.
                    self.sender.unsent.append(claim)
                    continue
                request = self._request(claim, plan, wall, checked)
                if request is not None:
                    requests.append(request)
        finally:
            if requests:
                lease_ends = batch.asked_at + settings.WEBHOOKS_LEASE_SECONDS
                self.sender.submit(requests, lease_ends=lease_ends)

    def _has_large_body(self, claim: Claimed, plan: RequestPlan) -> bool:
        """Return whether the body made for a row is large, or its event is."""
        mean_made_bytes = self.limiters.get(claim.webhook_id).mean_made_bytes
        return plan.render is not None and max(mean_made_bytes, len(claim.payload)) > LIGHT_BYTES

    def _note_made(self, claim: Claimed, request: Request | None) -> None:
        """Count the bytes made from an event; if that failed, assume the largest body."""
        size = settings.WEBHOOKS_MAX_BODY_BYTES if request is None else len(request.body)
        if request is not None:
            self.claims.add_body(claim, size)
        size += len(claim.payload)
        self._made_bytes += size
        self.limiters.get(claim.webhook_id).note_made(size)

    def _request(
        self,
        claim: Claimed,
        plan: RequestPlan,
        wall: float,
        checked: dict[tuple[str, int], network.Resolution | None],
    ) -> Request | None:
        """Return the request to send; otherwise the row already has a result, or goes back."""
        request = self._prepare(claim, plan, wall)
        if plan.render is not None:
            self._note_made(claim, request)
        if request is None:
            return None
        key = (plan.target.host, plan.target.port)
        if key not in checked:
            checked[key] = self.check(plan.target)
        found = checked[key]
        if found is None:
            # The name just expired, and only a name that was just checked may be connected to. Or
            # the egress proxy was not found.
            self.sender.unsent.append(claim)
        elif failure := found.failure:
            outcome = Outcome(failure.kind)
            self.handle(request, no_response(outcome, outcomes.of_failure(failure)))
        else:
            return request
        return None

    def _prepare(self, claim: Claimed, plan: RequestPlan, wall: float) -> Request | None:
        """Make the request; if that fails, only this delivery fails."""
        try:
            return prepare(claim, plan, wall)
        except Exception as error:
            empty = Request(claim, plan, plan.target.url, [], b"", utc(wall), "")
            if isinstance(error, MappingError):
                # The attempt records it; a log line for each could mean thousands a second.
                message = outcomes.of_error(error)
            else:
                self._log_not_made(claim)
                message = Message("not_built", {"error": type(error).__name__})
            self.handle(empty, no_response(Outcome.REFUSED, message))
            return None

    def _log_not_made(self, claim: Claimed) -> None:
        """Log the present exception, but not all of thousands; their attempts record it as well."""
        now = time.monotonic()
        if now - self._logged_at > LOG_SECONDS:
            self._logged_at = now
            logger.exception("request_not_made delivery=%s", claim.id)

    def check(self, target: network.Target) -> network.Resolution | None:
        """Look up an address, even a literal: behind an egress proxy, the socket sees only that.

        The checked addresses, and the proxy's, are passed to libcurl when they change.
        """
        key = (target.host, target.port)
        found = self._resolver.lookup(*key)
        is_unpinned = target.is_literal and not self._has_proxy
        if found is None or found.failure or is_unpinned:
            return found
        if self._pinned.get(key) != found.generation:
            if self._has_proxy and self.sender.is_lacking:
                # Looking up the proxy's name may take seconds each time.
                return None
            try:
                self.sender.pin(self._resolver.curl_resolve_entries(*key))
            except network.NameNotResolvedError:
                # Not the receiver's fault.
                self.sender.report_lack(network.PROXY_NOT_FOUND)
                return None
            self._pinned[key] = found.generation
        return found

    # Recording.

    def collect(self) -> None:
        responses = self.sender.responses
        while responses:
            request, response = responses.popleft()
            if is_long(response):
                waiting = self.unjudged.setdefault(request.plan.webhook_id, deque())
                waiting.append((request, response))
            else:
                self.handle(request, response)
        if self.unjudged or self.claims.slow_to_judge:
            self.judge_long(time.monotonic() + _JUDGE_SECONDS)
        if self.sender.unsent:
            self.hand_back()
        self._hand_back_locked(time.monotonic())

    def judge_long(self, ends: float) -> None:
        """Handle long responses, of one webhook after another, until `ends` (monotonic seconds).

        One may take as long as hundreds of others: its receiver may have written it so that a
        success rule or the masker takes long. Webhooks with too many of them get no new rows.
        """
        count = 0
        while self.unjudged and (not count or time.monotonic() < ends):
            webhook_id = next(iter(self.unjudged))
            waiting = self.unjudged.pop(webhook_id)
            request, response = waiting.popleft()
            if waiting:
                self.unjudged[webhook_id] = waiting
            self.handle(request, response)
            count += 1
        self.claims.slow_to_judge = {
            webhook_id
            for webhook_id, waiting in self.unjudged.items()
            if len(waiting) * len(self.unjudged) > _TURNS_BEHIND * count
        }
        for webhook_id in self.claims.slow_to_judge:
            if self.limiters.get(webhook_id).waiting:
                self.sender.recall(webhook_id, -1)

    def handle(self, request: Request, response: Response) -> None:
        claim, plan = request.claim, request.plan
        outcome, is_token_expired = classify(response), False
        if plan.success_rule is not None:
            outcome, response, is_token_expired = judge(plan.success_rule, response, outcome)
        step = wait = None
        if outcome is Outcome.SUCCEEDED:
            if plan.is_tried_here:
                self.plans.token_worked(plan)
                self._recorder.token_worked(plan)
        elif outcome is Outcome.GONE and claim.trigger != Trigger.TEST:
            self._pending_pauses.add(request, response)
            return
        else:
            is_token_expired |= response.status_code in plan.expired_status_codes
            error = challenge_error(response) if plan.can_refresh_token else ""
            if plan.can_refresh_token and (is_token_expired or error == "invalid_token"):
                step = self.after_refused_token(request)
            if error == "insufficient_scope":
                said = Message(error, {"status": response.status_code})
                response = response._replace(message=said)
            if response.status_code in _RETRY_AFTER_STATUSES:
                wait = retry_after_seconds(response.headers, self.session.clock.wall())
        if step is None:
            step = next_step(outcome, claim, plan, retry_after=wait)
        self._note(request, response, outcome, step)

    def _note(self, request: Request, response: Response, outcome: Outcome, step: NextStep) -> None:
        self.sent += 1
        claim = request.claim
        self._recorder.add(
            result(request, response, outcome, step),
            is_test=claim.trigger == _TEST,
            is_awaited=self.claims.is_paced(claim.webhook_id),
        )

    def after_refused_token(self, request: Request) -> NextStep | None:
        """Send once more with a fresh token, without using up a retry."""
        plan = request.plan
        is_first = self.plans.is_token_used(plan)
        if not self.plans.token_refused(plan):
            return None
        if is_first:
            # Requests that wait with the refused token, or are being claimed, need the fresh one.
            self.sender.recall(plan.webhook_id, -1)
            for plans in (self.ready, self._oldest_plans):
                plans.pop(plan.webhook_id, None)
            # Others may use the same token.
            self.sendable, self.oldest_until = {}, 0.0
            self.look_at = 0.0
        self._recorder.token_refused(plan)
        return NextStep(Status.PENDING, 0.0, "", False)

    def record(self, now: float) -> None:
        if self._pending_pauses:
            # A drain whose time is over must not wait for a webhook that is locked.
            is_end = self._is_closing or time.monotonic() > self._ends_at
            decided = self._pending_pauses.apply(self.session, is_end=is_end)
            for request, response, outcome in decided:
                step = next_step(outcome, request.claim, request.plan, retry_after=None)
                self._note(request, response, outcome, step)
        self.writer.write_due(now)
        written = self.writer.written
        while written:
            rows = written.popleft()
            if self.claimer.is_busy:
                self.claims.recorded.update((row.delivery_id, row.number) for row in rows)
            self._release((row.delivery_id, row.webhook_id, row.number) for row in rows)
            delays = [row.delay_seconds for row in rows if row.delay_seconds is not None]
            self._scan_at = min(self._scan_at, time.monotonic() + min(delays, default=math.inf))

    def _release(self, rows: Iterable[tuple[str, int, int]]) -> None:
        if self._due.are_many:
            rows = list(rows)
            self._due.wake(row[1] for row in rows)
        if self.claims.release(rows):
            # Only a look tells which webhook is next.
            self.oldest_until = 0.0
            self._look_soon()
            self._is_notified = True

    def hand_back(self) -> None:
        """Hand back claimed rows that were not sent; while the database is away they stay here.

        So do those that another transaction locked. A failed hand-back may have been committed, and
        a database crash releases rows as well: the claim under way could then return the same rows,
        so wait until it has arrived.
        """
        unsent, may_hand_back = self.sender.unsent, self._may_hand_back
        while unsent and may_hand_back:
            claims = [unsent[index] for index in range(min(len(unsent), CLAIM_ROWS))]
            locked = self._hand_back_free(claims, self._lease)
            self.is_hand_back_open = locked is None
            if locked is None:
                return
            for _claim in claims:
                unsent.popleft()
            self._locked |= {one.id: (one, self._lease) for one in claims if one.id in locked}

    @property
    def _may_hand_back(self) -> bool:
        now = time.monotonic()
        is_calm = self.session.is_calm(now) and self.claimer.is_calm(now)
        is_open = self.is_hand_back_open or not is_calm
        return not (is_open and self.claimer.is_busy)

    def _hand_back_locked(self, now: float) -> None:
        """Hand back what was locked and is free by now."""
        if not self._locked or now < self._locked_at or not self._may_hand_back:
            return
        self._locked_at = now + _LOCKED_SECONDS
        by_lease: dict[str, list[Claimed]] = {}
        for claim, lease in self._locked.values():
            by_lease.setdefault(lease, []).append(claim)
        for lease, claims in by_lease.items():
            locked = self._hand_back_free(claims, lease)
            if locked is None:
                self.is_hand_back_open = True
                return
            for claim in claims:
                if claim.id not in locked:
                    del self._locked[claim.id]
        if not self.sender.unsent:
            self.is_hand_back_open = False

    def _hand_back_free(self, claims: list[Claimed], lease: str) -> set[str] | None:
        """Hand back the rows that no other transaction keeps locked; return the others.

        None on a database fault: it is unknown which were handed back.
        """

        def hand_back() -> set[str]:
            locked: set[str] = self._queue.locked_deliveries([claim.id for claim in claims])
            if free := [claim for claim in claims if claim.id not in locked]:
                self._queue.hand_back(free, lease=lease)
            return locked

        locked = self.session.run(hand_back)
        if locked is not None:
            free = [claim for claim in claims if claim.id not in locked]
            self._release((claim.id, claim.webhook_id, claim.number) for claim in free)
            # Their webhooks may have to wait, as for a name that expired.
            self.oldest_until = 0.0
            self._look_soon()
            self._scan_at = min(self._scan_at, time.monotonic() + FIRST_SCAN_SECONDS)
        return locked

    def _hand_back_lost(self) -> None:
        """Hand back rows that a failed claim took after all, because its confirmation was lost.

        While no claim is under way, all other rows of this lease are in hand.
        """
        if not self._is_claim_open or self.claimer.is_busy:
            return
        give = partial(self._queue.hand_back_others, self.claims.held(), lease=self._lease)
        if (count := self.session.run(give)) is None:
            return
        self._is_claim_open = False
        if count:
            logger.warning("claim_response_lost rows=%d", count)
            self._is_notified = True

    def _has_rows_to_return(self) -> bool:
        """Return whether rows have to be handed back, or wait for their webhook to be paused."""
        is_locked = self._locked and self._should_stop()
        unsent = self.sender.unsent
        return bool(self._pending_pauses or unsent or is_locked or self._is_claim_open)

    def finish(self) -> None:
        """Finish requests in flight, hand back the rest, and write all results."""
        self._is_closing = True
        # First, since the rest may take long, or fail.
        self._cache.affinity.release()
        grace_ends = time.monotonic() + settings.WEBHOOKS_GRACE_SECONDS
        self.sender.stop()
        while self.sender.is_alive and time.monotonic() < grace_ends:
            self.collect()
            self.record(time.monotonic())
            time.sleep(RECORD_SECONDS)
        self.collect()
        self.judge_long(math.inf)
        ends = time.monotonic() + FINISH_SECONDS
        if batch := self.claimer.finish(ends):
            self.note_claimed(batch)
        self.sender.unsent.extend(self._claimed)
        while self._has_rows_to_return() and time.monotonic() < ends:
            self.record(float("inf"))
            self.hand_back()
            self._hand_back_locked(time.monotonic())
            self._hand_back_lost()
            time.sleep(max(RECORD_SECONDS, self.session.backoff_seconds))
        # What is locked may stay so for hours; unless this process ends, the writer's thread writes
        # it later.
        is_left = self._recorder.locked and self._is_rest_locked and not self._should_stop()
        self.writer.finish(0.0 if is_left else ends)
        self._recorder.add_counts(self.writer.take_uncounted())
        # First, as another transaction may have locked what the rest is written to.
        self.shards.leave()
        self._write_rest()
        self._cache.hand_over()
        if self._is_own_cache:
            self._cache.close()
        self.sender.close()
        self._pending_holds.log()
        self.session.run(self._queue.reset_session)

    def _write_rest(self) -> None:
        """Write the remaining counts and health, beside the next drain if that takes long."""
        is_behind = self._cache.is_writing_rest
        is_long = is_behind or self._recorder.rest > SHORT_REST
        if is_long and self._queue.WRITES_IN_PARALLEL and not self._should_stop():
            if is_behind:
                # The next drain writes them sooner than a thread that waits, which a stop may end.
                self._cache.counts.append(self._recorder.take_counts())
            self._cache.write_rest(self._queue, self._recorder)
        else:
            self._cache.wait_for_rest(FINISH_SECONDS)
            self.session.run(self._recorder.write_rest)
            if left := self._recorder.rest:
                # If this process ends, they are lost.
                logger.warning("rest_not_written rows=%d", left)
            self._cache.take_unwritten(self._recorder)
