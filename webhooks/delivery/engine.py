"""The engine of one drain: claims due rows, prepares requests, records their outcomes.

The engine thread decides what to claim; `Claimer` claims it, `Sender` owns the network and
`Writer` writes results, each in a thread of its own, so that claims and writes overlap with
hundreds of requests in flight. One more thread listens for wakeups. Retries are decided in
`requests`, rates in `limiter`. Every row that this process holds is leased, so nothing is lost
when it dies.
"""

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from django.conf import settings

from webhooks import network
from webhooks.delivery import outcomes, queue
from webhooks.delivery.claims import CLAIM_ROWS, ClaimBatch, Claimer, Claims
from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.maintenance import Maintenance, PendingPauses
from webhooks.delivery.plans import Plans
from webhooks.delivery.queue.rows import Candidate, Claimed
from webhooks.delivery.recorder import RECORD_SECONDS, Recorder, Writer, fail_tests
from webhooks.delivery.requests import (
    NextStep,
    Request,
    RequestPlan,
    Response,
    classify,
    next_step,
    no_response,
    prepare,
    result,
    retry_after_seconds,
    utc,
)
from webhooks.delivery.sender import Sender
from webhooks.delivery.wakeup import Wakeup
from webhooks.models import HoldReason, Outcome, Status, ids
from webhooks.models.messages import Message
from webhooks.payloads import MappingError

logger = logging.getLogger(__name__)

# While claims come back full, who has due rows is asked only so often.
_LOOK_SECONDS = 0.1
# After work was found the queue is looked at again soon, then less and less often.
_FIRST_SCAN_SECONDS = 0.01
# So rarely while what is due may not be sent: a limit, an order or a breaker is in the way.
_BLOCKED_SCAN_SECONDS = 0.1
# How long the end of a drain waits for a database that does not answer.
_FINISH_SECONDS = 10.0


class Engine:
    """Runs until told to stop; one per drain task."""

    def __init__(self, wakeup: Wakeup, should_stop: Callable[[], bool]) -> None:
        self._wakeup = wakeup
        self._should_stop = should_stop
        self._queue = queue.backend()
        self._session = DatabaseSession(self._queue)
        # Names this run's claims together with the attempt number.
        self._lease = ids.new_id("l")[2:]
        self._event = threading.Event()
        self._is_resting = False
        self._is_notified = True
        self._is_closing = False
        self._plans = Plans(on_ready=self._notify)
        self._resolver = network.HostResolver(
            network.Policy.from_settings(), wake=lambda *_: self._notify()
        )
        self._sender = Sender(
            policy=network.Policy.from_settings(),
            max_in_flight=settings.WEBHOOKS_MAX_IN_FLIGHT,
            max_per_webhook=settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK,
            on_response=self._on_response,
        )
        self._claims = Claims(self._queue, self._lease, self._sender.limiter)
        self._claimer = Claimer(self._claims, self._queue, self._session, self._event.set)
        self._recorder = Recorder(self._queue, self._lease)
        self._writer = Writer(self._recorder, self._queue, self._session, self._on_response)
        parts = (self._session, self._queue, self._sender, self._recorder, self._writer)
        self._maintenance = Maintenance(*parts, on_due=self._notify)
        # Requests that ended, however they ended.
        self.sent = 0
        self._ready: dict[int, RequestPlan] = {}
        self._candidates: list[Candidate] = []
        self._pending_pauses = PendingPauses()
        self._pinned: dict[tuple[str, int], int] = {}
        self._scan_at = self._look_at = 0.0
        self._scan_seconds = _FIRST_SCAN_SECONDS

    # Called by other threads.

    def _notify(self) -> None:
        self._is_notified = True
        self._event.set()

    def _on_response(self) -> None:
        if self._is_resting:
            self._event.set()

    def _listen(self) -> None:
        while not self._is_closing:
            if self._wakeup.wait(1.0):
                self._notify()

    # Called by the engine thread.

    def run(self, seconds: float) -> None:
        """Deliver until `should_stop()`, or until a quiet moment after `seconds`."""
        ends = time.monotonic() + seconds
        threading.Thread(target=self._listen, name="wakeup", daemon=True).start()
        self._sender.start()
        self._claimer.start()
        self._writer.start()
        try:
            while not self._should_stop() and not (time.monotonic() > ends and self._may_end()):
                for part in (self._sender, self._claimer, self._writer):
                    if not part.is_alive:
                        raise RuntimeError(f"The thread of {type(part).__name__} ended.")
                # A drain that never gets quiet stops claiming after twice its time.
                is_overdue = time.monotonic() > ends + seconds and not self._wakeup.is_broken
                self._turn(may_claim=not is_overdue)
        finally:
            self._finish()

    def _may_end(self) -> bool:
        """Return whether nothing is in hand and a broker can bring the next drain."""
        if self._claims.count or self._claimer.is_busy:
            return False
        # Asked now: a broker that broke a moment ago was not noticed yet.
        self._wakeup.notify()
        return not self._wakeup.is_broken

    def _turn(self, *, may_claim: bool) -> None:
        self._collect()
        now = time.monotonic()
        self._record(now)
        batch = self._claimer.batch()
        if batch is not None:
            self._note_claimed(batch)
            if not batch.is_full:
                self._submit(batch)
        if now >= self._session.resume_at:
            self._maintenance.run_due(now)
            is_time = self._is_notified or now >= self._scan_at
            if may_claim and is_time and not self._claimer.is_busy:
                self._is_notified = False
                self._scan(now)
        if batch is not None and batch.is_full:
            # There is more: these are prepared while the next ones are claimed.
            self._submit(batch)
        self._rest()

    def _rest(self) -> None:
        """Wait for a response, a wakeup, or the next thing that is due."""
        now = time.monotonic()
        # While rows are claimed, their arrival is waited for.
        scan_at = self._maintenance.look_at if self._claimer.is_busy else self._scan_at
        wait = max(self._session.resume_at, min(scan_at, self._maintenance.look_at)) - now
        is_away = self._session.resume_at > now
        if (self._recorder.waiting or self._sender.responses) and not is_away:
            self._event.clear()
            if not self._has_news(is_away) and wait > 0:
                self._event.wait(min(wait, RECORD_SECONDS / 2))
            return
        self._is_resting = True
        self._event.clear()
        has_responses = self._sender.responses or self._writer.written
        if not has_responses and not self._has_news(is_away) and wait > 0:
            self._event.wait(min(wait, 1.0))
        self._is_resting = False

    def _has_news(self, is_away: bool) -> bool:
        """Return whether rows came, or a wakeup while the database can be asked."""
        can_ask = not is_away and not self._claimer.is_busy
        return self._claimer.has_batch or (self._is_notified and can_ask)

    # Claiming.

    def _scan(self, now: float) -> None:
        ready = self._look(now)
        if ready is None:
            self._is_notified = True
            return
        if ready and self._claims.has_room:
            self._claimer.request(ready, self._ready)
        else:
            self._scan_later(_BLOCKED_SCAN_SECONDS if ready else settings.WEBHOOKS_POLL_SECONDS)

    def _scan_later(self, longest: float) -> None:
        """Look again soon, and later each time nothing was found."""
        if self._claims.has_room:
            self._scan_seconds = min(longest, self._scan_seconds * 2)
        else:
            self._scan_seconds = _FIRST_SCAN_SECONDS
        self._look_at = 0.0
        self._scan_at = time.monotonic() + self._scan_seconds

    def _note_claimed(self, batch: ClaimBatch) -> None:
        """Count what was claimed, and say when to look for more."""
        for claim in batch.claims:
            self._claims.add(claim)
        if not batch.claims:
            self._scan_later(_BLOCKED_SCAN_SECONDS)
            return
        self._scan_seconds = _FIRST_SCAN_SECONDS
        self._scan_at = 0.0
        if not batch.is_full:
            self._look_at = 0.0
            self._scan_at = time.monotonic() + self._scan_seconds

    def _look(self, now: float) -> list[Candidate] | None:
        """Return the webhooks that have due rows and can be sent to; None on a database fault."""
        if now < self._look_at:
            return self._candidates
        found = self._session.run(self._queue.candidates)
        if found is None:
            return None
        self._ready = {}
        self._candidates = [candidate for candidate in found if self._is_ready(candidate)]
        self._look_at = now + _LOOK_SECONDS
        return self._candidates

    def _is_ready(self, candidate: Candidate) -> bool:
        """Return whether this webhook can be sent to; hold its rows if they wait for a person."""
        if not candidate.is_active:
            self._hold(candidate, HoldReason.PAUSED)
        entry = self._plans.get(candidate)
        if entry is None:
            return False
        if entry.plan is None:
            if entry.hold_reason:
                self._hold(candidate, HoldReason(entry.hold_reason))
                self._session.run(partial(fail_tests, candidate.webhook_id, entry.problem))
            return False
        target = entry.plan.target
        if not target.is_literal and self._resolver.lookup(target.host, target.port) is None:
            return False
        self._ready[candidate.webhook_id] = entry.plan
        return True

    def _hold(self, candidate: Candidate, reason: HoldReason) -> None:
        held = self._session.run(lambda: self._queue.hold(candidate.webhook_id, reason.value))
        if held:
            logger.info("held webhook=%d rows=%d reason=%s", candidate.webhook_id, held, reason)

    def _submit(self, batch: ClaimBatch) -> None:
        lease_ends = batch.asked_at + settings.WEBHOOKS_LEASE_SECONDS
        wall = self._session.wall()
        requests: list[Request] = []
        checked: dict[int, network.Resolution | None] = {}
        for claim in batch.claims:
            plan = batch.plans[claim.webhook_id]
            request = self._prepare(claim, plan, wall)
            if request is None:
                continue
            if plan.webhook_id not in checked:
                checked[plan.webhook_id] = self._check(plan.target)
            found = checked[plan.webhook_id]
            if found is None:
                # Forgotten a moment ago; only a name that was just checked may be connected to.
                self._sender.unsent.append(claim)
            elif failure := found.failure:
                outcome = Outcome(failure.kind)
                self._handle(request, no_response(outcome, outcomes.of_failure(failure)))
            else:
                requests.append(request)
        if requests:
            self._sender.submit(requests, lease_ends=lease_ends)

    def _prepare(self, claim: Claimed, plan: RequestPlan, wall: float) -> Request | None:
        """Make the request; one that cannot be made fails alone."""
        try:
            return prepare(claim, plan, wall)
        except Exception as error:
            logger.exception("request_not_made delivery=%s", claim.id)
            empty = Request(claim, plan, plan.target.url, [], b"", utc(wall), "")
            message = Message("not_built", {"error": type(error).__name__})
            if isinstance(error, MappingError):
                message = outcomes.of_error(error)
            self._handle(empty, no_response(Outcome.REFUSED, message))
            return None

    def _check(self, target: network.Target) -> network.Resolution | None:
        """Look an address up, literals too: behind an egress proxy the socket sees only that.

        libcurl is told the addresses that were checked, when they changed.
        """
        key = (target.host, target.port)
        found = self._resolver.lookup(*key)
        if found is None or found.failure or target.is_literal:
            return found
        if self._pinned.get(key) != found.generation:
            self._pinned[key] = found.generation
            self._sender.pin(self._resolver.curl_resolve_entries(*key))
        return found

    # Recording.

    def _collect(self) -> None:
        responses = self._sender.responses
        while responses:
            request, response = responses.popleft()
            self._handle(request, response)
        if self._sender.unsent:
            self._hand_back()

    def _handle(self, request: Request, response: Response) -> None:
        claim, plan = request.claim, request.plan
        outcome = classify(response)
        step = wait = None
        if outcome is Outcome.SUCCEEDED:
            if plan.is_tried_here:
                self._recorder.token_worked(plan)
        elif outcome is Outcome.GONE:
            self._pending_pauses.add(request, response)
            return
        else:
            if response.status_code in plan.expired_status_codes and plan.can_refresh_token:
                step = self._after_refused_token(request)
            if response.status_code in (429, 503):
                wait = retry_after_seconds(response.headers, self._session.wall())
        if step is None:
            step = next_step(outcome, claim, plan, retry_after=wait)
        self._note(request, response, outcome, step)

    def _note(self, request: Request, response: Response, outcome: Outcome, step: NextStep) -> None:
        self.sent += 1
        self._recorder.add(result(request, response, outcome, step))

    def _after_refused_token(self, request: Request) -> NextStep | None:
        """Send once more with a fresh token, without using up a retry."""
        if not self._plans.token_refused(request.plan):
            return None
        self._recorder.token_refused(request.plan)
        return NextStep(Status.PENDING, 0.0, "", False)

    def _record(self, now: float) -> None:
        if self._pending_pauses:
            for request, response, outcome in self._pending_pauses.settle(self._session):
                step = next_step(outcome, request.claim, request.plan, retry_after=None)
                self._note(request, response, outcome, step)
        self._writer.write_due(now)
        written = self._writer.written
        while written:
            self._claims.release((row.delivery_id, row.webhook_id) for row in written.popleft())

    def _hand_back(self) -> None:
        """Return claimed rows that were not sent; while the database is away they wait here."""
        unsent = self._sender.unsent
        while unsent:
            claims = [unsent[index] for index in range(min(len(unsent), CLAIM_ROWS))]
            give = partial(self._queue.hand_back, claims, lease=self._lease)
            if self._session.run(give) is None:
                return
            for _claim in claims:
                unsent.popleft()
            self._claims.release((claim.id, claim.webhook_id) for claim in claims)

    def _finish(self) -> None:
        """Finish what is in flight, hand the rest back, and write everything down."""
        self._is_closing = True
        grace_ends = time.monotonic() + settings.WEBHOOKS_GRACE_SECONDS
        self._sender.stop()
        while self._sender.is_alive and time.monotonic() < grace_ends:
            self._collect()
            self._record(time.monotonic())
            time.sleep(RECORD_SECONDS)
        self._collect()
        ends = time.monotonic() + _FINISH_SECONDS
        if batch := self._claimer.finish(ends):
            self._note_claimed(batch)
            self._sender.unsent.extend(batch.claims)
        while (self._pending_pauses or self._sender.unsent) and time.monotonic() < ends:
            self._record(float("inf"))
            self._hand_back()
            time.sleep(self._session.backoff_seconds)
        self._writer.finish(ends)
        self._session.run(self._recorder.write_rest)
        self._plans.close()
        self._resolver.close()
        self._sender.close()
        self._session.run(self._queue.reset_session)
