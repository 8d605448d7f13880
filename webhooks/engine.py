"""The engine of one drain: claims due rows, prepares them, records what became of them.

This thread (the keeper) owns the database; `webhooks.sender` owns the network in a second thread,
so that claims and writes overlap with hundreds of requests in flight. A third thread listens for
the bell. Nothing is decided here about retries (`webhooks.delivery`) or about who is slow
(`webhooks.sender`); nothing is lost when this process dies, because every row it holds is leased.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from webhooks import ids, network, queue
from webhooks.bell import Bell
from webhooks.delivery import (
    Answer,
    Plan,
    Request,
    Step,
    explain,
    judge,
    next_step,
    prepare,
    result,
    retry_after_seconds,
)
from webhooks.models import HoldReason, Outcome, PauseReason, Status
from webhooks.plans import Plans
from webhooks.queue import Candidate, Claimed, Want
from webhooks.recorder import RECORD_SECONDS, Recorder, pause
from webhooks.sender import Sender

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

# Rows claimed at once, and rows held in memory in all.
_CLAIM_ROWS = 500
_CLAIMED_ROWS = 2000
# After work was found the queue is looked at again soon, then less and less often.
_FIRST_SCAN_SECONDS = 0.01
_EXPIRE_SECONDS = 1.0
_CLOCK_SECONDS = 10.0
_BACKOFF_SECONDS = (0.1, 2.0)
# How long the end of a drain waits for a database that does not answer.
_FINISH_SECONDS = 10.0


class Engine:
    """Runs until told to stop; one per drain task."""

    def __init__(self, bell: Bell, should_stop: Callable[[], bool]) -> None:
        self._bell = bell
        self._should_stop = should_stop
        self._queue = queue.backend()
        # Names this run's claims together with the attempt number.
        self._lease = ids.new_id("l")[2:]
        self._event = threading.Event()
        self._is_resting = False
        self._rang = True
        self._is_closing = False
        self._plans = Plans(on_ready=self._ring)
        self._resolver = network.HostResolver(
            network.Policy.from_settings(), wake=lambda *_: self._ring()
        )
        self._sender = Sender(
            policy=network.Policy.from_settings(),
            max_in_flight=settings.WEBHOOKS_MAX_IN_FLIGHT,
            max_per_webhook=settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK,
            on_answer=self._on_answer,
        )
        self._recorder = Recorder(self._queue, self._lease)
        # Requests that ended, however they ended.
        self.sent = 0
        # Rows that are ours: waiting in memory, in flight, or not yet recorded.
        self._claimed = 0
        self._ready: dict[int, Plan] = {}
        self._pinned: dict[tuple[str, int], int] = {}
        self._session: object = None
        self._scan_at = self._expire_at = self._clock_at = 0.0
        self._scan_seconds = _FIRST_SCAN_SECONDS
        self._clock_offset = time.time() - time.monotonic()
        self._backoff = self._resume_at = 0.0

    # Called by other threads.

    def _ring(self) -> None:
        self._rang = True
        self._event.set()

    def _on_answer(self) -> None:
        if self._is_resting:
            self._event.set()

    def _listen(self) -> None:
        while not self._is_closing:
            if self._bell.wait(1.0):
                self._ring()

    # The keeper's own thread.

    def run(self, seconds: float) -> None:
        """Deliver until `should_stop()`, or until a quiet moment after `seconds`."""
        ends = time.monotonic() + seconds
        threading.Thread(target=self._listen, name="bell", daemon=True).start()
        self._sender.start()
        try:
            while not self._should_stop() and not (time.monotonic() > ends and not self._claimed):
                if not self._sender.is_alive:
                    raise RuntimeError("The sender's thread ended.")
                self._turn()
        finally:
            self._finish()

    def _turn(self) -> None:
        self._collect()
        now = time.monotonic()
        if now >= self._resume_at:
            self._record(now)
            self._keep_house(now)
            if self._rang or now >= self._scan_at:
                self._rang = False
                self._scan(now)
        self._rest()

    def _rest(self) -> None:
        """Wait for an answer, a ring, or the next thing that is due."""
        now = time.monotonic()
        wait = max(self._resume_at, min(self._scan_at, self._expire_at)) - now
        if self._recorder.waiting or self._sender.answers:
            wait = min(wait, RECORD_SECONDS / 2)
            self._event.clear()
            if not self._rang and wait > 0:
                self._event.wait(wait)
            return
        self._is_resting = True
        self._event.clear()
        if not self._rang and not self._sender.answers and wait > 0:
            self._event.wait(min(wait, 1.0))
        self._is_resting = False

    def _database(self, work: Callable[[], _T]) -> _T | None:
        """Run one transaction; on a database fault reconnect later and return None."""
        try:
            if connection.connection is None or connection.connection is not self._session:
                connection.ensure_connection()
                self._queue.prepare_session()
                self._session = connection.connection
            done = work()
        except DatabaseError as error:
            shortest, longest = _BACKOFF_SECONDS
            self._backoff = min(longest, max(shortest, self._backoff * 2))
            self._resume_at = time.monotonic() + self._backoff
            logger.warning("database_fault wait=%.1f error=%s", self._backoff, error)
            connection.close()
            return None
        self._backoff = 0.0
        return done

    def _wall(self) -> float:
        """Return Unix time by the database's clock."""
        return self._clock_offset + time.monotonic()

    # Claiming.

    def _scan(self, now: float) -> None:
        found = self._database(self._queue.candidates)
        if found is None:
            self._rang = True
            return
        self._ready = {}
        ready = [candidate for candidate in found if self._is_ready(candidate)]
        claims: list[Claimed] = []
        if ready and self._claimed < _CLAIMED_ROWS:
            claims = self._database(lambda: self._claim(ready)) or []
        self._submit(claims, now)
        if ready:
            self._scan_seconds = _FIRST_SCAN_SECONDS
        else:
            self._scan_seconds = min(settings.WEBHOOKS_POLL_SECONDS, self._scan_seconds * 2)
        wait = 0.0 if len(claims) >= _CLAIM_ROWS else self._scan_seconds
        self._scan_at = time.monotonic() + wait

    def _is_ready(self, candidate: Candidate) -> bool:
        """Say whether this webhook can be sent to now; hold its rows if they wait for a person."""
        if not candidate.is_active:
            self._hold(candidate, HoldReason.PAUSED)
        entry = self._plans.get(candidate)
        if entry is None:
            return False
        if entry.plan is None:
            if entry.hold_reason:
                self._hold(candidate, HoldReason(entry.hold_reason))
            return False
        target = entry.plan.target
        if not target.is_literal and self._resolver.lookup(target.host, target.port) is None:
            return False
        self._ready[candidate.webhook_id] = entry.plan
        return True

    def _hold(self, candidate: Candidate, reason: HoldReason) -> None:
        held = self._database(lambda: self._queue.hold(candidate.webhook_id, reason.value))
        if held:
            logger.info("held webhook=%d rows=%d reason=%s", candidate.webhook_id, held, reason)

    def _claim(self, ready: list[Candidate]) -> list[Claimed]:
        """Take tests first, then a fair share of every webhook, then one quarantined row."""
        terms = {"lease": self._lease, "lease_seconds": settings.WEBHOOKS_LEASE_SECONDS}
        all_ids = [candidate.webhook_id for candidate in ready]
        claims: list[Claimed] = self._queue.claim_tests(all_ids, limit=50, **terms)
        active = [candidate for candidate in ready if candidate.is_active]
        wants = self._shares([candidate for candidate in active if not candidate.is_paced])
        if wants:
            claims += self._queue.claim(wants, **terms)
        for candidate in active:
            if candidate.is_paced:
                quota = self._sender.lane(candidate.webhook_id).quota(time.monotonic())
                if quota:
                    claims += self._queue.claim_paced(candidate.webhook_id, quota=quota, **terms)
        if not claims and not self._claimed and active:
            claims = self._queue.claim_quarantined([c.webhook_id for c in active], **terms)
        return claims

    def _shares(self, candidates: list[Candidate]) -> list[Want]:
        """Divide the room there is: an equal share each, the rest to who can take more."""
        now = time.monotonic()
        room = min(_CLAIM_ROWS, _CLAIMED_ROWS - self._claimed)
        quotas = {
            candidate.webhook_id: quota
            for candidate in candidates
            if (quota := self._sender.lane(candidate.webhook_id).quota(now)) > 0
        }
        wants: list[Want] = []
        # Small quotas first: what they leave of their share goes to the others.
        left = len(quotas)
        for webhook_id, quota in sorted(quotas.items(), key=lambda item: item[1]):
            share = min(quota, max(1, room // left))
            left -= 1
            if room <= 0:
                break
            room -= share
            wants.append(Want(webhook_id, share))
        return wants

    def _submit(self, claims: list[Claimed], claimed_at: float) -> None:
        lease_ends = claimed_at + settings.WEBHOOKS_LEASE_SECONDS
        wall = self._wall()
        requests: list[Request] = []
        for claim in claims:
            self._claimed += 1
            self._sender.lane(claim.webhook_id).claimed += 1
            request = prepare(claim, self._ready[claim.webhook_id], wall)
            if (refusal := self._refusal(request)) is not None:
                self._judge(request, refusal)
            else:
                requests.append(request)
        if requests:
            self._sender.submit(requests, lease_ends=lease_ends)

    def _refusal(self, request: Request) -> Answer | None:
        """Return an answer of our own when the name cannot or must not be connected to."""
        target = request.plan.target
        if target.is_literal:
            return None
        found = self._resolver.lookup(target.host, target.port)
        if found is None:
            return None
        if found.problem:
            return _no_answer(Outcome.BLOCKED, found.problem)
        if found.error:
            return _no_answer(Outcome.NETWORK, found.error)
        key = (target.host, target.port)
        if self._pinned.get(key) != found.generation:
            self._pinned[key] = found.generation
            self._sender.pin(self._resolver.curl_resolve_entries(*key))
        return None

    # Recording.

    def _collect(self) -> None:
        answers = self._sender.answers
        while answers:
            request, answer = answers.popleft()
            self._judge(request, answer)
        if self._sender.unsent:
            self._hand_back()

    def _judge(self, request: Request, answer: Answer) -> None:
        claim, plan = request.claim, request.plan
        outcome = judge(answer)
        step = None
        if outcome is Outcome.SUCCEEDED:
            if plan.can_refresh_token:
                self._plans.token_worked(claim.webhook_id)
        elif answer.status_code in plan.expired_status_codes and plan.can_refresh_token:
            step = self._after_refused_token(request)
        if step is None:
            wait = None
            if answer.status_code in (429, 503):
                wait = retry_after_seconds(answer.headers, self._wall())
            step = next_step(outcome, claim, plan, retry_after=wait)
        self.sent += 1
        self._recorder.add(result(request, answer, outcome, step), explain(outcome, answer))
        if outcome is Outcome.GONE:
            self._database(lambda: pause([claim.webhook_id], PauseReason.GONE))

    def _after_refused_token(self, request: Request) -> Step | None:
        """Send once more with a fresh token, without using up a retry."""
        claim = request.claim
        had_free_retry = claim.number - 1 > claim.failure_count
        if had_free_retry or not self._plans.token_refused(request.plan):
            return None
        return Step(Status.PENDING, 0.0, "", False)

    def _record(self, now: float) -> None:
        while batch := self._recorder.batch(now):
            if self._database(lambda: self._recorder.write(batch)) is None:
                return
            self._release(Counter(row.webhook_id for row in batch))

    def _release(self, counts: "Counter[int]") -> None:
        for webhook_id, count in counts.items():
            self._claimed -= count
            self._sender.lane(webhook_id).claimed -= count

    def _hand_back(self, delay_seconds: float = 0.0) -> None:
        """Return claimed rows that were not sent."""
        unsent = self._sender.unsent
        claims = [unsent.popleft().claim for _ in range(len(unsent))]
        hand_back = self._queue.hand_back
        for start in range(0, len(claims), _CLAIM_ROWS):
            part = claims[start : start + _CLAIM_ROWS]
            # Should this fail, the lease gives the rows back.
            self._database(lambda: hand_back(part, lease=self._lease, delay_seconds=delay_seconds))  # noqa: B023
        self._release(Counter(claim.webhook_id for claim in claims))

    def _keep_house(self, now: float) -> None:
        if now >= self._clock_at:
            self._clock_at = now + _CLOCK_SECONDS
            if (seconds := self._database(self._queue.clock)) is not None:
                self._clock_offset = seconds - time.monotonic()
        if now >= self._expire_at:
            self._expire_at = now + _EXPIRE_SECONDS
            if expired := self._database(self._queue.expire):
                self._rang = True
                parked = sum(row.status == Status.PARKED for row in expired)
                logger.warning("leases_expired rows=%d parked=%d", len(expired), parked)
        if states := self._recorder.due_states(now):
            self._database(lambda: self._recorder.write_states(states))

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
        tries_end = time.monotonic() + _FINISH_SECONDS
        while self._recorder.waiting and time.monotonic() < tries_end:
            self._record(float("inf"))
            time.sleep(self._backoff)
        self._database(lambda: self._recorder.write_states(self._recorder.due_states(float("inf"))))
        self._plans.close()
        self._resolver.close()
        self._database(self._queue.reset_session)


def _no_answer(outcome: Outcome, message: str) -> Answer:
    return Answer(outcome, message, 0, b"", b"", 0, "", None, None, None, None, None)
