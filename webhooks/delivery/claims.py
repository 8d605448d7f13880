"""The rows that an engine holds: which to claim next, how many, and the thread that claims.

On PostgreSQL a claim takes about as long as sending what it brings: one after the other they leave
the network idle a third of the time. So `Claimer` claims on a connection of its own while the last
rows are prepared. SQLite has one writer at a time, so there the engine thread claims.
"""

import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from django.conf import settings

from webhooks.delivery.db_session import DatabaseSession, SessionThread
from webhooks.delivery.limiter import Limiter, Limiters, shares
from webhooks.delivery.queue.rows import MAX_EVENT_BYTES, Candidate, Claimed, ClaimQuota
from webhooks.delivery.requests import RequestPlan

# Rows claimed at once: enough that the wait for the commit is a small part of sending them.
CLAIM_ROWS = 1000
# Rows held in memory in all, and bytes of their events. One that comes waits behind about as many
# rows as webhooks have some here, so it is less with very many webhooks.
ROWS, ROWS_OF_MANY, _FULL_PART = 4000, 1000, 0.75
_CLAIMED_BYTES = MAX_EVENT_BYTES
# Of these bytes the first part is for all, then some for webhooks that have no row here, and the
# rest for those of them that answer quickly: large events to receivers that hang fill no more.
_FOR_ALL, _FOR_NEW = 0.75, 0.875
# Of the places for requests in flight, the part that only receivers get which answer quickly, and
# the part that only these get and those to which no request has ended yet.
_QUICK_PLACES, _NEW_PLACES = 0.25, 0.125
# Of bodies that are made from events. One claim may make this many bytes, events and bodies, as all
# others wait meanwhile; this many bytes of bodies are held, the first part of them for everybody;
# and webhooks whose mean is below LIGHT_BYTES are not looked at for that.
MADE_BYTES, _BODY_BYTES, _BODIES_FOR_ALL = 4 * 1024 * 1024, 32 * 1024 * 1024, 0.25
LIGHT_BYTES = 16 * 1024
# What a row adds to these bytes before any was seen, and over how many rows its mean is taken.
_FIRST_MEAN_BYTES = 256 * 1024
_MEAN_OF = 200
# Tests claimed at once.
_TEST_ROWS = 50


class _HeldEvent:
    """An event and how many rows it has."""

    __slots__ = ("payload", "rows")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.rows = 1


class Claims:
    """Rows that are ours: waiting in memory, in flight, or not yet recorded.

    `claim` is called by the claimer, which may be a thread of its own; the rest by the engine
    thread.
    """

    def __init__(
        self,
        queue: ModuleType,
        lease: str,
        limiters: Limiters,
        places: Callable[[], int] = lambda: settings.WEBHOOKS_MAX_IN_FLIGHT,
    ) -> None:
        """Take how many requests may be in flight by now."""
        self._queue = queue
        self._limiters = limiters
        self._places = places
        self._terms: dict[str, Any] = {
            "lease": lease,
            "lease_seconds": settings.WEBHOOKS_LEASE_SECONDS,
        }
        # How many rows may be held.
        self.most_rows = ROWS
        # Whether only receivers that answer quickly get something, as the drain is about to end.
        self.is_ending = False
        # Whether nothing is claimed any more.
        self.is_closed = False
        # Webhooks of which nothing is claimed, as their answers take long to judge.
        self.behind: Collection[int] = ()
        # The webhooks of which rows are ours.
        self._webhooks: set[int] = set()
        # By delivery: the id of its event, the size of its own body, the number of its attempt.
        self._rows: dict[str, tuple[str, int, int]] = {}
        # Attempts, as (delivery id, number), that were recorded while a claim was under way.
        self.recorded: set[tuple[str, int]] = set()
        # An event is held once for all its rows.
        self._events: dict[str, _HeldEvent] = {}
        self._bytes = self._body_bytes = 0
        # Up to how many the present claim may go.
        self._most_bytes = _CLAIMED_BYTES
        self._mean_bytes = float(_FIRST_MEAN_BYTES)
        # The webhooks with a limit or an order among those of the last claim.
        self._paced: set[int] = set()
        # Whether the last claim took everything that was due; webhooks without a limit of which
        # it did, those that got a share and those that got none.
        self.is_all = False
        self.exhausted: list[int] = []
        self.served: set[int] = set()
        self.left_out: list[int] = []
        # The one row in flight that was also in flight at crashes.
        self._quarantined = ""

    def __len__(self) -> int:
        return len(self._rows)

    def has_attempt(self, claim: Claimed) -> bool:
        """Return whether this attempt of a delivery is ours already, or was until a moment ago."""
        held = self._rows.get(claim.id)
        if held is not None and held[2] == claim.number:
            return True
        return (claim.id, claim.number) in self.recorded

    def is_paced(self, webhook_id: int) -> bool:
        """Return whether a webhook had a limit or an order at the last claim."""
        return webhook_id in self._paced

    def held(self) -> list[str]:
        """Return the ids of the rows that are ours."""
        return list(self._rows)

    @property
    def room(self) -> int:
        """Return how many more rows may be held."""
        return self.most_rows - len(self)

    @property
    def has_room(self) -> bool:
        # Enough that a claim is worth its commit.
        return len(self) < self.most_rows * _FULL_PART and self._bytes < _CLAIMED_BYTES

    def claim(self, ready: list[Candidate], claims: list[Claimed]) -> bool:
        """Claim tests, then a fair share of every webhook, those with limits last, then a suspect.

        Each is a transaction: what was claimed before one fails is in `claims` and ours.
        """
        self.is_all = False
        self.exhausted, self.served, self.left_out = [], set(), []
        if self.is_ending:
            ready = [] if self.is_closed else [one for one in ready if self._is_quick(one)]
            if not ready:
                return True
        parts = (_FOR_ALL, _FOR_NEW, 1.0)
        limits = (int(part * _CLAIMED_BYTES) for part in parts)
        self._most_bytes = next((most for most in limits if self._bytes < most), _CLAIMED_BYTES)
        self._terms["max_bytes"] = max(1, self._most_bytes - self._bytes)
        tested = [candidate.webhook_id for candidate in ready if candidate.has_tests]
        if tested:
            claims += self._queue.claim_tests(tested, limit=_TEST_ROWS, **self._terms)
        active = [candidate for candidate in ready if candidate.is_active]
        self._paced = {candidate.webhook_id for candidate in active if candidate.is_paced}
        quotas = self._shares([one for one in active if one.wait_seconds == 0])
        self.served = {one.webhook_id for one in quotas}
        self.left_out = [one.webhook_id for one in active if one.webhook_id not in self.served]
        if free := [one for one in quotas if one.webhook_id not in self._paced]:
            self._leave_room(claims)
            claims += self._queue.claim(free, **self._terms)
            taken = Counter(claim.webhook_id for claim in claims)
            # What it has may be suspects, which take turns.
            least = 1 if active[0].has_suspects else 0
            self.exhausted = [pk for pk, quota in free if least <= taken[pk] < quota]
        if paced := [one for one in quotas if one.webhook_id in self._paced]:
            self._leave_room(claims)
            claims += self._queue.claim_paced(paced, **self._terms)
        if active and active[0].has_suspects:
            self._leave_room(claims)
            claims += self._claim_suspect(active)
        elif not (self._paced or self.is_ending or tested):
            self.is_all = len(self.exhausted) == len(free) == len(active) == len(ready)
        return True

    def _is_quick(self, candidate: Candidate) -> bool:
        return self._limiters.get(candidate.webhook_id).is_quick

    def _leave_room(self, claims: list[Claimed]) -> None:
        """Let the next claim take what this one has left of the bytes."""
        if claims:
            events = {claim.event_id: len(claim.payload) for claim in claims}
            left = self._most_bytes - self._bytes - sum(events.values())
            self._terms["max_bytes"] = max(1, left)

    def _claim_suspect(self, active: list[Candidate]) -> list[Claimed]:
        """Claim the one row that was in flight at several crashes, if none of them is here yet."""
        if self._quarantined:
            return []
        free = [one.webhook_id for one in active if not one.is_paced]
        claimed: list[Claimed] = self._queue.claim_quarantined(free, **self._terms)
        if self._paced and not claimed:
            quotas = [ClaimQuota(webhook_id, 1) for webhook_id in self._paced]
            claimed = self._queue.claim_paced(quotas, is_quarantine=True, **self._terms)
        self._quarantined = "".join(claim.id for claim in claimed)
        return claimed

    def _shares(self, candidates: list[Candidate]) -> list[ClaimQuota]:
        """Return what each webhook gets: never more than there is room left for the others.

        Receivers that are slow, or did not answer yet, get no more rows than may wait for them:
        in memory and in flight the rest is for those that answer. New ones come before those that
        failed, so that hundreds that hang do not keep a new one from showing that it is quick.
        """
        now = time.monotonic()
        left = self.room
        quick: dict[int, int] = {}
        new: dict[int, int] = {}
        slow: dict[int, int] = {}
        large: list[tuple[dict[int, int], int]] = []
        for candidate in candidates:
            limiter = self._limiters.get(candidate.webhook_id)
            quota = limiter.quota(now, is_paced=candidate.is_paced)
            quota = min(quota, left - limiter.claimed)
            if candidate.webhook_id in self.behind:
                continue
            if quota > 0 and self._may_have(limiter):
                kind = quick if limiter.is_quick else new if limiter.is_new else slow
                kind[candidate.webhook_id] = quota
                if limiter.made_bytes > LIGHT_BYTES:
                    large.append((kind, candidate.webhook_id))
        self._bound_bodies(large)
        # As many as fit if they are as large as those of late.
        fitting = int((self._most_bytes - self._bytes) / max(self._mean_bytes, 1.0))
        rows = max(1, min(CLAIM_ROWS, left, fitting))
        # By chance half of one: while little fits each claim is of a single row.
        for_slow = (rows + random.getrandbits(1)) // 2 if quick else rows
        room, known_room = self._slow_rooms()
        room = min(room, for_slow)
        divided = shares(new, room)
        room -= sum(one.quota for one in divided)
        divided += shares(slow, min(room, known_room))
        rows -= sum(one.quota for one in divided)
        return divided + shares(quick, rows)

    def _may_have(self, limiter: Limiter) -> bool:
        """Return whether the bytes that are left are for this webhook, too."""
        if self._most_bytes <= _FOR_ALL * _CLAIMED_BYTES:
            return True
        is_left = limiter.is_quick or self._most_bytes <= _FOR_NEW * _CLAIMED_BYTES
        return is_left and not limiter.claimed

    def _bound_bodies(self, large: Sequence[tuple[dict[int, int], int]]) -> None:
        """Lower the quotas of webhooks with large bodies; by chance whose, so that they take turns.

        The bodies that are being sent have a bound, too, the lower one for slow receivers.
        """
        left = float(MADE_BYTES)
        for number, (quotas, webhook_id) in enumerate(random.sample(large, len(large))):
            limiter = self._limiters.get(webhook_id)
            most = _BODY_BYTES * (1 if limiter.is_quick else _BODIES_FOR_ALL)
            if left <= 0 or self._body_bytes >= most:
                del quotas[webhook_id]
                continue
            share = left / (len(large) - number)
            quota = min(quotas[webhook_id], max(1, int(share / limiter.made_bytes)))
            quotas[webhook_id] = quota
            left -= quota * limiter.made_bytes

    def _slow_rooms(self) -> tuple[int, int]:
        """Return how many more rows of slow receivers may be claimed, and how many of known ones.

        A receiver is known once a request to it has ended.
        """
        # Nor may they fill the memory, where more may be in flight than rows are held.
        places = min(self._places(), int(self.most_rows * _FULL_PART))
        # Up: also of two places one is for the others.
        for_slow = max(1, places - math.ceil(places * _QUICK_PLACES))
        for_known = max(1, for_slow - math.ceil(places * _NEW_PLACES))
        held = held_by_known = 0
        for webhook_id in self.slow_webhooks():
            limiter = self._limiters.get(webhook_id)
            held += limiter.claimed
            held_by_known += 0 if limiter.is_new else limiter.claimed
        return for_slow - held, for_known - held_by_known

    def waiting_webhooks(self) -> list[int]:
        """Return the webhooks of which a request waits for its turn: among those with rows here."""
        return [pk for pk in self._webhooks if self._limiters.get(pk).waiting]

    def slow_webhooks(self) -> list[int]:
        """Return the webhooks of slow receivers of which rows are ours."""
        return [pk for pk in list(self._webhooks) if not self._limiters.get(pk).is_quick]

    def add(self, claim: Claimed) -> Claimed:
        """Count a row and return it with the one copy of its event."""
        delivery_id, webhook_id, event_id, number, failures, trigger, payload = claim
        if (before := self._rows.get(delivery_id)) is not None:
            # Its lease ended while this process stood still, or it was handed back: claimed again.
            self.release([(delivery_id, webhook_id, before[2])])
        size = 0
        if (held := self._events.get(event_id)) is not None:
            held.rows += 1
            if held.payload is not payload:
                # A third of the time that `_replace` takes.
                first = held.payload
                claim = Claimed(delivery_id, webhook_id, event_id, number, failures, trigger, first)
        else:
            self._events[event_id] = _HeldEvent(payload)
            size = len(payload)
        self._bytes += size
        self._rows[delivery_id] = event_id, 0, number
        self._mean_bytes += (size - self._mean_bytes) / _MEAN_OF
        limiter = self._limiters.get(webhook_id)
        limiter.claimed += 1
        if limiter.claimed == 1:
            self._webhooks.add(webhook_id)
        return claim

    def add_body(self, claim: Claimed, size: int) -> None:
        """Count the body of a row that was made from its event: it may be many times as large."""
        event_id, _, number = self._rows[claim.id]
        self._rows[claim.id] = event_id, size, number
        self._body_bytes += size

    def release(self, rows: Iterable[tuple[str, int, int]]) -> bool:
        """Let go of attempts, given as (delivery id, webhook id, number).

        Of a delivery that was claimed again since, the later attempt stays. Return whether one of
        them ends the wait of a webhook with a limit or an order.
        """
        ends_wait = False
        for delivery_id, webhook_id, number in rows:
            held = self._rows.get(delivery_id)
            if held is not None and held[2] != number:
                continue
            if delivery_id == self._quarantined:
                # Also one that is not held, as its event could not be read.
                self._quarantined = ""
            if held is None:
                continue
            del self._rows[delivery_id]
            self._forget(*held[:2])
            limiter = self._limiters.get(webhook_id)
            limiter.claimed -= 1
            if not limiter.claimed:
                self._webhooks.discard(webhook_id)
            ends_wait = ends_wait or webhook_id in self._paced
        return ends_wait

    def _forget(self, event_id: str, own: int) -> None:
        held = self._events[event_id]
        held.rows -= 1
        self._body_bytes -= own
        if not held.rows:
            del self._events[event_id]
            self._bytes -= len(held.payload)


class ClaimBatch(NamedTuple):
    """The rows of one claim; none when no row was free or the database had a fault."""

    claims: list[Claimed]
    # By webhook id, as they were when the claim was requested.
    plans: Mapping[int, RequestPlan]
    # Monotonic seconds before the claim: the leases run from then on or later.
    asked_at: float
    # Whether nothing else was due; and see `Claims`.
    is_all: bool = False
    exhausted: Sequence[int] = ()
    served: Collection[int] = ()
    left_out: Sequence[int] = ()
    # Those of which nothing may have been claimed, as the database had a fault.
    failed: Sequence[int] = ()

    @property
    def is_full(self) -> bool:
        return len(self.claims) >= CLAIM_ROWS


class _ClaimRequest(NamedTuple):
    ready: list[Candidate]
    plans: Mapping[int, RequestPlan]
    asked_at: float


class Claimer(SessionThread):
    """The thread that claims. One claim at a time: `request`, then `batch` until it is there.

    All methods are called by the engine thread; `on_claimed` by this one.
    """

    def __init__(
        self,
        claims: Claims,
        queue: ModuleType,
        engine_session: DatabaseSession,
        on_claimed: Callable[[], None],
    ) -> None:
        super().__init__("claimer", queue, engine_session)
        self._claims = claims
        self._on_claimed = on_claimed
        self._requested: deque[_ClaimRequest] = deque()
        self._batches: deque[ClaimBatch] = deque()
        self.is_busy = False

    @property
    def has_batch(self) -> bool:
        return bool(self._batches)

    def request(self, ready: list[Candidate], plans: Mapping[int, RequestPlan]) -> None:
        """Claim rows of these webhooks; not while `is_busy`."""
        self.is_busy = True
        self._requested.append(_ClaimRequest(ready, plans, time.monotonic()))
        if self._in_parallel:
            self._event.set()
        else:
            self._claim()

    def batch(self) -> ClaimBatch | None:
        """Return the claimed rows, once; None while it is not there."""
        if not self._batches:
            return None
        self.is_busy = False
        return self._batches.popleft()

    def finish(self, ends: float) -> ClaimBatch | None:
        """End the thread and return what it still claimed.

        A database that does not answer is waited for until `ends` on the monotonic clock; what it
        claims later is due again when its lease ends.
        """
        if self._in_parallel:
            self._end(ends)
        return self.batch()

    def _claim(self) -> None:
        request = self._requested.popleft()
        claims: list[Claimed] = []
        done = self._session.run(lambda: self._claims.claim(request.ready, claims))
        batch = ClaimBatch(claims, request.plans, request.asked_at)
        if done:
            # A claim that failed says nothing of what is left.
            batch = batch._replace(
                is_all=self._claims.is_all,
                exhausted=self._claims.exhausted,
                served=self._claims.served,
                left_out=self._claims.left_out,
            )
        else:
            batch = batch._replace(failed=[one.webhook_id for one in request.ready])
        self._batches.append(batch)
        self._on_claimed()

    # The thread.

    def _has_work(self) -> bool:
        return bool(self._requested)

    def _turn(self) -> None:
        if self._requested:
            self._claim()
        else:
            self._event.wait()
            self._event.clear()
