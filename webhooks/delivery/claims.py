"""The rows that an engine holds: which to claim next, how many, and the thread that claims.

On PostgreSQL a claim takes about as long as sending its rows: one after the other, they leave the
network idle a third of the time. So `Claimer` claims on a connection of its own while the previous
rows are prepared. SQLite has one writer at a time, so there the engine thread claims.
"""

import math
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from django.conf import settings

from webhooks.delivery.db_session import DatabaseSession, SessionThread
from webhooks.delivery.limiter import Limiter, Limiters, shares
from webhooks.delivery.queue.rows import (
    MAX_EVENT_BYTES,
    Candidate,
    Claimed,
    ClaimQuota,
    bytes_left,
)
from webhooks.delivery.requests import RequestPlan
from webhooks.models import Trigger

# Rows claimed at once: enough that the wait for the commit is a small part of sending them.
CLAIM_ROWS = 1000
# Claims of the oldest rows, whichever webhooks they are of, have at most this many: enough for what
# became due since the last one, unless they are a backlog, which webhooks share.
OLDEST_ROWS = 200
# And at most this many without a look: what arrives while little is sent.
FEW_ROWS = 32
# The most rows held in memory: usually, and with very many webhooks, since a new row waits behind
# about as many rows as webhooks have rows here. No claim is made once this share is full.
ROWS, ROWS_OF_MANY, _FULL_PART = 4000, 2000, 0.75
CLAIMED_BYTES = MAX_EVENT_BYTES
# The first share of these bytes is for all webhooks, then up to the second for webhooks without a
# row here, the rest for quick ones of these: large events to receivers that hang cannot fill it.
_FOR_ALL, _FOR_NEW = 0.75, 0.875
# The share of places for requests in flight that is reserved for receivers that answer quickly, and
# the share reserved for these and for receivers to which no request has ended yet.
_QUICK_PLACES, _NEW_PLACES = 0.25, 0.125
# Bytes of bodies made from events. One claim may make this many, events included, as all other
# webhooks wait for it. This many are held, only the given share of them for slow receivers.
# Webhooks whose mean is below LIGHT_BYTES are exempt.
MADE_BYTES, BODY_BYTES, _BODIES_FOR_ALL = 4 * 1024 * 1024, 32 * 1024 * 1024, 0.25
LIGHT_BYTES = 16 * 1024
# The mean bytes per row before any row was seen, and over how many rows the mean is taken.
FIRST_MEAN_BYTES = 256 * 1024
_MEAN_OF = 200
# Tests claimed at once.
_TEST_ROWS = 50
# A plain string: a member of a TextChoices takes longer to compare.
_TEST = Trigger.TEST.value


class _HeldEvent:
    """An event and how many rows it has."""

    __slots__ = ("payload", "rows")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.rows = 1


class Claims:
    """Rows leased to this engine: waiting in memory, in flight, or not yet recorded.

    The claimer, which may be a thread of its own, calls `claim` and `claim_oldest`; the engine
    thread calls the rest, while no claim is under way.
    """

    def __init__(
        self,
        queue: ModuleType,
        lease: str,
        limiters: Limiters,
        places: Callable[[], int] = lambda: settings.WEBHOOKS_MAX_IN_FLIGHT,
        late: Callable[[], int] = lambda: 0,
        locked: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take how many requests may be in flight now, and how many late ones do not count.

        And how many held rows another transaction keeps locked: up to `most_rows` of them do not
        count either, or a forgotten transaction could stop all claims.
        """
        self._queue = queue
        self.limiters = limiters
        self._places = places
        self._late = late
        self._locked = locked
        self.terms: dict[str, Any] = {
            "lease": lease,
            "lease_seconds": settings.WEBHOOKS_LEASE_SECONDS,
        }
        # From which Unix time on rows are claimed of webhooks without a limit; 0 for all.
        self.since = 0.0
        # How many rows may be held.
        self.most_rows = ROWS
        # Whether only receivers that answer quickly get rows, because the drain is about to end.
        self.is_ending = False
        # Whether nothing is claimed any more.
        self.is_closed = False
        # Webhooks that had a request in flight for long while the drain was about to end.
        self.hanging: set[int] = set()
        # Webhooks that get no rows, because their responses take long to judge.
        self.slow_to_judge: Collection[int] = ()
        # The webhooks with rows here.
        self._webhooks: set[int] = set()
        # By delivery: event id, size of the row's own body, attempt number.
        self._rows: dict[str, tuple[str, int, int]] = {}
        # The webhook of each test among them.
        self._tests: dict[str, int] = {}
        # Attempts, as (delivery id, number), that were recorded while a claim was under way.
        self.recorded: set[tuple[str, int]] = set()
        # An event is held once for all its rows.
        self._events: dict[str, _HeldEvent] = {}
        self._bytes = self.body_bytes = 0
        # The total of event bytes that the present claim may reach.
        self._most_bytes = CLAIMED_BYTES
        self._mean_bytes = float(FIRST_MEAN_BYTES)
        # The webhooks with a limit or an order among those of the last claim.
        self._paced: set[int] = set()
        # The last claim: whether it took everything that was due; webhooks without a limit whose
        # due rows it all took; webhooks that got a share; webhooks that got none.
        self.is_all = False
        self.exhausted: list[int] = []
        self.served: set[int] = set()
        self.left_out: list[int] = []
        # The webhooks of the rows that were claimed without a look.
        self.found: list[Candidate] = []
        # The id of the row in flight that was also in flight at several crashes, or "".
        self._quarantined = ""

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, delivery_id: str) -> bool:
        return delivery_id in self._rows

    def has_attempt(self, claim: Claimed) -> bool:
        """Return whether this attempt of a delivery is held, or was recorded a moment ago."""
        held = self._rows.get(claim.id)
        if held is not None and held[2] == claim.number:
            return True
        return (claim.id, claim.number) in self.recorded

    def is_paced(self, webhook_id: int) -> bool:
        """Return whether a webhook had a limit or an order at the last claim."""
        return webhook_id in self._paced

    def held(self) -> list[str]:
        """Return the ids of the held rows."""
        return list(self._rows)

    @property
    def room(self) -> int:
        """Return how many more rows may be held."""
        return self.most_rows - self._counted

    @property
    def has_room(self) -> bool:
        # Enough that a claim is worth its commit.
        return self._counted < self.most_rows * _FULL_PART and self._bytes < CLAIMED_BYTES

    @property
    def _counted(self) -> int:
        return len(self._rows) - self._late() - min(self._locked(), self.most_rows)

    def claim(self, ready: list[Candidate], claims: list[Claimed]) -> bool:
        """Claim tests, then a fair share for every webhook, those with limits last, then a suspect.

        Each step is one transaction: if one fails, the rows of the earlier ones are in `claims`.
        """
        self._begin()
        if self.is_ending:
            ready = [one for one in ready if self.goes_on_with(one.webhook_id)]
            if self.is_closed or not ready:
                return True
        tested = [candidate.webhook_id for candidate in ready if candidate.has_tests]
        if quotas := self._test_quotas(tested):
            claims += self._queue.claim_tests(quotas, limit=_TEST_ROWS, **self.terms)
        active = [candidate for candidate in ready if candidate.is_active]
        self._paced = {candidate.webhook_id for candidate in active if candidate.is_paced}
        quotas = self._shares([one for one in active if one.wait_seconds == 0])
        self.served = {one.webhook_id for one in quotas}
        self.left_out = [one.webhook_id for one in active if one.webhook_id not in self.served]
        if free := [one for one in quotas if one.webhook_id not in self._paced]:
            self._set_max_bytes(claims)
            found = self._queue.claim(free, since=self.since, **self.terms)
            claims += found
            # Otherwise rows may have gone back, whose events did not fit.
            if bytes_left(self.terms["max_bytes"], found) > settings.WEBHOOKS_MAX_PAYLOAD_BYTES:
                taken = Counter(claim.webhook_id for claim in claims)
                # A webhook that got none may have only suspects left, which take turns.
                least = 1 if active[0].has_suspects else 0
                single = {one.webhook_id for one in active if one.has_one_row}
                self.exhausted = [
                    pk for pk, quota in free if least <= taken[pk] < quota + (pk in single)
                ]
        if paced := [one for one in quotas if one.webhook_id in self._paced]:
            self._set_max_bytes(claims)
            claims += self._queue.claim_paced(paced, **self.terms)
        if ready[0].has_suspects:
            self._set_max_bytes(claims)
            claims += self._claim_suspect(active, tested)
        elif not (self._paced or self.is_ending or tested):
            self.is_all = len(self.exhausted) == len(free) == len(active) == len(ready)
        return True

    def _test_quotas(self, webhook_ids: list[int]) -> list[ClaimQuota]:
        """Return how many tests of each webhook may be claimed.

        They fit into its limit, or go one at a time: a person waits for it, and many to a receiver
        that hangs would fill the places of all slow ones.
        """
        held = Counter(list(self._tests.values()))
        quotas: list[ClaimQuota] = []
        for webhook_id in webhook_ids:
            limiter = self.limiters.get(webhook_id)
            quota = max(limiter.limit - limiter.claimed, 1 - held[webhook_id])
            if quota > 0:
                quotas.append(ClaimQuota(webhook_id, quota))
        return quotas

    def _begin(self) -> None:
        self.is_all = False
        self.exhausted, self.served, self.left_out, self.found = [], set(), [], []
        parts = (_FOR_ALL, _FOR_NEW, 1.0)
        limits = (int(part * CLAIMED_BYTES) for part in parts)
        self._most_bytes = next((most for most in limits if self._bytes < most), CLAIMED_BYTES)
        self.terms["max_bytes"] = max(1, self._most_bytes - self._bytes)

    def may_have_oldest(self, webhook_ids: Iterable[int], rows: int = OLDEST_ROWS) -> list[int]:
        """Return which of these webhooks, which have no limit, may have all of the oldest rows."""
        is_large = self._bytes > _FOR_ALL * CLAIMED_BYTES
        if self.is_ending or self.room < rows or is_large or self.slow_to_judge:
            return []
        now, room = time.monotonic(), self.room

        def may_have(limiter: Limiter) -> bool:
            is_light = limiter.mean_made_bytes <= LIGHT_BYTES
            quota = min(limiter.quota(now), room - limiter.claimed)
            return is_light and limiter.is_quick and quota >= rows

        return [pk for pk in webhook_ids if may_have(self.limiters.get(pk))]

    def claim_oldest(self, webhook_ids: Sequence[int], claims: list[Claimed]) -> bool:
        """Claim the oldest due rows that are of these webhooks, which `may_have_oldest` chose."""
        self._begin()
        limit = self._fitting(OLDEST_ROWS)
        found, has_others = self._queue.claim_oldest(
            webhook_ids, limit=limit, since=self.since, **self.terms
        )
        claims += found
        left = bytes_left(self.terms["max_bytes"], found)
        is_whole = not has_others and left > settings.WEBHOOKS_MAX_PAYLOAD_BYTES
        self.is_all = is_whole and 0 < len(found) < limit
        return True

    def claim_few(self, webhook_ids: Sequence[int], claims: list[Claimed]) -> bool:
        """Claim a few of the oldest due rows; `found` are their webhooks as they are now."""
        self._begin()
        claimed, self.found, is_whole = self._queue.claim_few(
            webhook_ids, limit=self._fitting(FEW_ROWS), since=self.since, **self.terms
        )
        claims += claimed
        left = bytes_left(self.terms["max_bytes"], claimed)
        self.is_all = is_whole and left > settings.WEBHOOKS_MAX_PAYLOAD_BYTES
        return True

    def _fitting(self, most: int) -> int:
        """Return how many rows fit into the bytes that are left, if they are as large as usual."""
        fitting = int((self._most_bytes - self._bytes) / max(self._mean_bytes, 1.0))
        return max(1, min(most, fitting))

    def goes_on_with(self, webhook_id: int) -> bool:
        """Return whether an ending drain claims more for this webhook.

        Also for one that was never sent to, whose first delivery or test a person may wait for.
        """
        return webhook_id not in self.hanging and self.limiters.get(webhook_id).rank < 2

    def _is_quick(self, webhook_id: int) -> bool:
        return webhook_id not in self.hanging and self.limiters.get(webhook_id).is_quick

    def _set_max_bytes(self, claims: list[Claimed]) -> None:
        """Give the next claim the bytes that this one left."""
        if claims:
            left = bytes_left(self._most_bytes - self._bytes, claims)
            self.terms["max_bytes"] = max(1, left)

    def _claim_suspect(self, active: list[Candidate], tested: list[int]) -> list[Claimed]:
        """Claim the one row that was in flight at several crashes, unless one is already held.

        Those of quick receivers come first: no other suspect is sent until one that hangs has timed
        out. Then come new receivers, then slow ones, then those that failed; of each kind, no
        webhook is always first.
        """
        if self._quarantined:
            return []
        claimed: list[Claimed] = []
        if tested:
            quotas = [ClaimQuota(webhook_id, 1) for webhook_id in tested]
            claimed = self._queue.claim_tests(quotas, limit=1, is_quarantine=True, **self.terms)
        now = time.monotonic()
        ranks: dict[int, tuple[int, bool]] = {}
        for one in random.sample(active, len(active)):
            limiter = self.limiters.get(one.webhook_id)
            if not limiter.is_open(now):
                ranks[one.webhook_id] = limiter.rank, limiter.failures > 0
        quick = [pk for pk, (rank, _) in ranks.items() if not rank]
        others = sorted((pk for pk, (rank, _) in ranks.items() if rank), key=ranks.__getitem__)
        for webhook_ids in (quick, others):
            claimed = claimed or self._claim_suspect_of(webhook_ids)
        self._quarantined = "".join(claim.id for claim in claimed)
        return claimed

    def _claim_suspect_of(self, webhook_ids: list[int]) -> list[Claimed]:
        """Claim a suspect of the first of these webhooks that has one, or of one with a limit."""
        free = [webhook_id for webhook_id in webhook_ids if webhook_id not in self._paced]
        claimed: list[Claimed] = self._queue.claim_quarantined(free, **self.terms) if free else []
        quotas = [
            ClaimQuota(webhook_id, 1) for webhook_id in webhook_ids if webhook_id in self._paced
        ]
        if quotas and not claimed:
            claimed = self._queue.claim_paced(quotas, is_quarantine=True, **self.terms)
        return claimed

    def _shares(self, candidates: list[Candidate]) -> list[ClaimQuota]:
        """Return the share of each webhook: none may hold more rows than are left for the others.

        Slow receivers and those that have not answered yet are limited by `_slow_rooms`: the rest
        of the memory and of the places is for quick ones. New receivers come before those that
        failed, so that hundreds that hang do not keep a new one from proving that it is quick.
        """
        now = time.monotonic()
        left = self.room
        quick: dict[int, int] = {}
        new: dict[int, int] = {}
        slow: dict[int, int] = {}
        large: list[tuple[dict[int, int], int]] = []
        for candidate in candidates:
            limiter = self.limiters.get(candidate.webhook_id)
            quota = limiter.quota(now, is_paced=candidate.is_paced)
            quota = min(quota, left - limiter.claimed)
            if candidate.webhook_id in self.slow_to_judge:
                continue
            if quota > 0 and self._may_use_bytes(limiter):
                kind = (quick, new, slow)[limiter.rank]
                kind[candidate.webhook_id] = quota
                if limiter.mean_made_bytes > LIGHT_BYTES:
                    large.append((kind, candidate.webhook_id))
        self._limit_bodies(large)
        rows = self._fitting(min(CLAIM_ROWS, left))
        # Half, rounded at random: while little fits, each claim has a single row.
        for_slow = (rows + random.getrandbits(1)) // 2 if quick else rows
        room, known_room = self._slow_rooms()
        room = min(room, for_slow)
        divided = shares(new, room)
        room -= sum(one.quota for one in divided)
        divided += shares(slow, min(room, known_room))
        rows -= sum(one.quota for one in divided)
        return divided + shares(quick, rows)

    def _may_use_bytes(self, limiter: Limiter) -> bool:
        """Return whether this webhook may use the bytes that are left."""
        if self._most_bytes <= _FOR_ALL * CLAIMED_BYTES:
            return True
        is_left = limiter.is_quick or self._most_bytes <= _FOR_NEW * CLAIMED_BYTES
        return is_left and not limiter.claimed

    def _limit_bodies(self, large: Sequence[tuple[dict[int, int], int]]) -> None:
        """Lower the quotas of webhooks with large bodies, in random order, so that they take turns.

        The bytes of all held bodies are limited as well, with a lower limit for slow receivers.
        """
        left = float(MADE_BYTES)
        for number, (quotas, webhook_id) in enumerate(random.sample(large, len(large))):
            limiter = self.limiters.get(webhook_id)
            most = BODY_BYTES * (1 if limiter.is_quick else _BODIES_FOR_ALL)
            if left <= 0 or self.body_bytes >= most:
                del quotas[webhook_id]
                continue
            share = left / (len(large) - number)
            quota = min(quotas[webhook_id], max(1, int(share / limiter.mean_made_bytes)))
            quotas[webhook_id] = quota
            left -= quota * limiter.mean_made_bytes

    def _slow_rooms(self) -> tuple[int, int]:
        """Return how many more rows of slow receivers may be claimed, and how many of known ones.

        A receiver is known once a request to it has ended.
        """
        # Slow rows may not fill the memory either, if there are more places than rows held.
        places = min(self._places(), int(self.most_rows * _FULL_PART))
        # Rounded up: even of two places, one is reserved.
        for_slow = max(1, places - math.ceil(places * _QUICK_PLACES))
        for_known = max(1, for_slow - math.ceil(places * _NEW_PLACES))
        slow = [self.limiters.get(webhook_id) for webhook_id in self.slow_webhooks()]
        known = [limiter for limiter in slow if not limiter.is_new]
        return for_slow - self._places_of(slow), for_known - self._places_of(known)

    def _places_of(self, limiters: list[Limiter]) -> int:
        """Return how many places these have claimed, without late requests that take none."""
        late = sum(limiter.late for limiter in limiters)
        return sum(limiter.claimed for limiter in limiters) - min(late, self._late())

    def waiting_webhooks(self) -> list[int]:
        """Return the webhooks with rows here that have a request waiting for its turn."""
        return [pk for pk in self._webhooks if self.limiters.get(pk).waiting]

    def slow_webhooks(self) -> list[int]:
        """Return the webhooks with rows here whose receivers are slow."""
        return [pk for pk in list(self._webhooks) if not self._is_quick(pk)]

    def add(self, claim: Claimed) -> Claimed:
        """Count a row and return it with the shared copy of its event."""
        delivery_id, webhook_id, event_id, number, failures, trigger, payload = claim
        if (before := self._rows.get(delivery_id)) is not None:
            # Claimed again: its lease ended while this process stood still, or it was handed back.
            self.release([(delivery_id, webhook_id, before[2])])
        size = 0
        if (held := self._events.get(event_id)) is not None:
            held.rows += 1
            if held.payload is not payload:
                # Takes a third of the time of `_replace`.
                first = held.payload
                claim = Claimed(delivery_id, webhook_id, event_id, number, failures, trigger, first)
        else:
            self._events[event_id] = _HeldEvent(payload)
            size = len(payload)
        self._bytes += size
        self._rows[delivery_id] = event_id, 0, number
        self._mean_bytes += (size - self._mean_bytes) / _MEAN_OF
        if trigger == _TEST:
            self._tests[delivery_id] = webhook_id
        limiter = self.limiters.get(webhook_id)
        limiter.claimed += 1
        if limiter.claimed == 1:
            self._webhooks.add(webhook_id)
        return claim

    def add_body(self, claim: Claimed, size: int) -> None:
        """Count the body made for a row, which may be many times as large as its event."""
        event_id, _, number = self._rows[claim.id]
        self._rows[claim.id] = event_id, size, number
        self.body_bytes += size

    def release(self, rows: Iterable[tuple[str, int, int]]) -> bool:
        """Release attempts, given as (delivery id, webhook id, number).

        The later attempt of a delivery that was claimed again stays. Return whether this may end
        the wait of a webhook with a limit or an order.
        """
        ends_wait = False
        for delivery_id, webhook_id, number in rows:
            held = self._rows.get(delivery_id)
            if held is not None and held[2] != number:
                continue
            if delivery_id == self._quarantined:
                # Even if the row is not held, because its event could not be read.
                self._quarantined = ""
            if held is None:
                continue
            del self._rows[delivery_id]
            self._tests.pop(delivery_id, None)
            self._forget(*held[:2])
            limiter = self.limiters.get(webhook_id)
            limiter.claimed -= 1
            if not limiter.claimed:
                self._webhooks.discard(webhook_id)
            ends_wait = ends_wait or webhook_id in self._paced
        return ends_wait

    def _forget(self, event_id: str, own: int) -> None:
        held = self._events[event_id]
        held.rows -= 1
        self.body_bytes -= own
        if not held.rows:
            del self._events[event_id]
            self._bytes -= len(held.payload)


class ClaimBatch(NamedTuple):
    """The rows of one claim; none when no row was free or the database had a fault."""

    claims: list[Claimed]
    # By webhook id, as of the claim request.
    plans: Mapping[int, RequestPlan]
    # Monotonic seconds before the claim: the leases run from then on or later.
    asked_at: float
    # Whether nothing else was due; the others are described in `Claims`.
    is_all: bool = False
    exhausted: Sequence[int] = ()
    served: Collection[int] = ()
    left_out: Sequence[int] = ()
    # Webhooks whose claim failed with a database fault: it may or may not have been committed.
    failed: Sequence[int] = ()
    # Whether only the oldest rows were claimed, so that a look is next unless `is_all`.
    is_oldest: bool = False
    # The webhooks of rows that were claimed without a look, which have no plans here yet.
    found: Sequence[Candidate] = ()

    @property
    def is_full(self) -> bool:
        return len(self.claims) >= CLAIM_ROWS


class _ClaimRequest(NamedTuple):
    # Appends the rows to a list.
    claim: Callable[[list[Claimed]], bool]
    webhook_ids: Collection[int]
    plans: Mapping[int, RequestPlan]
    asked_at: float
    is_oldest: bool = False


class Claimer(SessionThread):
    """The thread that claims, one claim at a time: `request`, then `batch` until it has arrived.

    The engine thread calls all methods; this thread calls `on_claimed`. Nothing must be requested
    or claimed while it `is_busy`.
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
        self._engine_session = engine_session
        self._on_claimed = on_claimed
        self._requested: deque[_ClaimRequest] = deque()
        self.batches: deque[ClaimBatch] = deque()
        self.is_busy = False

    @property
    def has_batch(self) -> bool:
        return bool(self.batches)

    def request(self, ready: list[Candidate], plans: Mapping[int, RequestPlan]) -> None:
        """Claim rows of these webhooks."""
        webhook_ids = [one.webhook_id for one in ready]
        claim = partial(self._claims.claim, ready)
        self._request(_ClaimRequest(claim, webhook_ids, plans, time.monotonic()))

    def request_oldest(self, plans: Mapping[int, RequestPlan]) -> None:
        """Claim the oldest rows, as far as they are of the webhooks of these plans."""
        claim = partial(self._claims.claim_oldest, list(plans))
        self._request(_ClaimRequest(claim, plans, plans, time.monotonic(), is_oldest=True))

    def claim_few(self, webhook_ids: Sequence[int]) -> None:
        """Claim a few of the oldest rows, as far as they are of these webhooks.

        In the engine thread: to wait for another one takes as long as the database.
        """
        claim = partial(self._claims.claim_few, webhook_ids)
        self.is_busy = True
        request = _ClaimRequest(claim, webhook_ids, {}, time.monotonic(), is_oldest=True)
        self._claim(request, self._engine_session)

    def _request(self, request: _ClaimRequest) -> None:
        self.is_busy = True
        self._requested.append(request)
        if self._in_parallel:
            self._event.set()
        else:
            self._claim(self._requested.popleft(), self._session)

    def batch(self) -> ClaimBatch | None:
        """Return the claimed rows once; None until they have arrived."""
        if not self.batches:
            return None
        self.is_busy = False
        return self.batches.popleft()

    def finish(self, ends: float) -> ClaimBatch | None:
        """End the thread and return the rows that it still claimed.

        Wait until `ends` on the monotonic clock for a database that does not respond; rows that it
        claims later are due again when their leases end.
        """
        if self._in_parallel:
            self._end(ends)
        return self.batch()

    def _claim(self, request: _ClaimRequest, session: DatabaseSession) -> None:
        claims: list[Claimed] = []
        done = session.run(lambda: request.claim(claims))
        batch = ClaimBatch(claims, request.plans, request.asked_at, is_oldest=request.is_oldest)
        if done:
            # Only a successful claim tells what is left.
            batch = batch._replace(
                is_all=self._claims.is_all,
                exhausted=self._claims.exhausted,
                served=self._claims.served,
                left_out=self._claims.left_out,
                found=self._claims.found,
            )
        else:
            batch = batch._replace(failed=list(request.webhook_ids))
        self.batches.append(batch)
        self._on_claimed()

    # Called by the thread.

    def _has_work(self) -> bool:
        return bool(self._requested)

    def _turn(self) -> None:
        if self._requested:
            self._claim(self._requested.popleft(), self._session)
        else:
            self._event.wait()
            self._event.clear()
