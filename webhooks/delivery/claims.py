"""The rows that an engine holds: which to claim next, how many, and the thread that claims.

On PostgreSQL a claim takes about as long as sending what it brings: one after the other they leave
the network idle a third of the time. So `Claimer` claims on a connection of its own while the last
rows are prepared. On SQLite, where one transaction writes at a time anyway, the keeper does it.
`Claims.take` is the claimer's; the rest of `Claims` is the keeper's.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import NamedTuple

from django.conf import settings

from webhooks.delivery.db_session import Session, SessionThread
from webhooks.delivery.limiter import Lane, shares
from webhooks.delivery.queue import Candidate, Claimed, Want
from webhooks.delivery.requests import Plan

# Rows claimed at once: enough that the wait for the commit is a small part of sending them.
CLAIM_ROWS = 1000
# Rows held in memory in all, and about how many bytes of events.
_CLAIMED_ROWS = 4000
_CLAIMED_BYTES = 64 * 1024 * 1024
# The size of an event before any was seen, and over how many rows its mean is taken.
_FIRST_MEAN_BYTES = 256 * 1024
_MEAN_OF = 200
# Tests claimed at once.
_TEST_ROWS = 50
# The first and the longest wait before a webhook with a limit or an order that gave nothing is
# asked again. What comes back from its receiver ends the wait.
_PACED_WAIT_SECONDS = (0.01, 0.25)


class Claims:
    """Rows that are ours: waiting in memory, in flight, or not yet recorded."""

    def __init__(self, queue: ModuleType, lease: str, lane: Callable[[int], Lane]) -> None:
        self._queue = queue
        self._lane = lane
        self._terms = {"lease": lease, "lease_seconds": settings.WEBHOOKS_LEASE_SECONDS}
        self.count = 0
        # Of the events of these rows, by delivery and in all.
        self._sizes: dict[str, int] = {}
        self._bytes = 0
        self._mean_bytes = float(_FIRST_MEAN_BYTES)
        # Webhook id -> when it is asked again, how long it waits after that.
        self._waits: dict[int, tuple[float, float]] = {}
        # The one row in flight that was also in flight at crashes.
        self._quarantined = ""

    @property
    def has_room(self) -> bool:
        return self.count < _CLAIMED_ROWS and self._bytes < _CLAIMED_BYTES

    def take(self, ready: list[Candidate], claims: list[Claimed]) -> bool:
        """Take tests first, then a fair share of every webhook, then one quarantined row.

        Each is a transaction: what was taken before one fails is in `claims` and ours.
        """
        all_ids = [candidate.webhook_id for candidate in ready]
        if ready[0].has_tests:
            claims += self._queue.claim_tests(all_ids, limit=_TEST_ROWS, **self._terms)
        active = [candidate for candidate in ready if candidate.is_active]
        free = [candidate.webhook_id for candidate in active if not candidate.is_paced]
        paced = [candidate.webhook_id for candidate in active if candidate.is_paced]
        if wants := self._shares(free):
            claims += self._queue.claim(wants, **self._terms)
        for webhook_id in paced:
            claims += self._take_paced(webhook_id)
        if active and active[0].has_suspects:
            claims += self._take_suspect(free, paced)
        return True

    def _take_paced(self, webhook_id: int) -> list[Claimed]:
        """Take rows of a webhook with a limit or an order; one that gave none is asked less often.

        Nothing is taken ahead of what may be in flight: it would go out at once after a stall.
        """
        now = time.monotonic()
        asked_again_at, wait = self._waits.get(webhook_id, (0.0, _PACED_WAIT_SECONDS[0]))
        quota = self._lane(webhook_id).quota(now, depth=1)
        if now < asked_again_at or not quota:
            return []
        # Before it is asked: what comes back meanwhile ends this wait too.
        self._waits[webhook_id] = now + wait, min(wait * 2, _PACED_WAIT_SECONDS[1])
        taken: list[Claimed] = self._queue.claim_paced(webhook_id, quota=quota, **self._terms)
        if taken:
            self._waits.pop(webhook_id, None)
        return taken

    def _take_suspect(self, free: list[int], paced: list[int]) -> list[Claimed]:
        """Take the one row that was in flight at several crashes, if none of them is here yet."""
        if self._quarantined:
            return []
        taken: list[Claimed] = self._queue.claim_quarantined(free, **self._terms)
        for webhook_id in paced:
            if not taken:
                terms = {"quota": 1, "is_quarantine": True, **self._terms}
                taken = self._queue.claim_paced(webhook_id, **terms)
        self._quarantined = "".join(claim.id for claim in taken)
        return taken

    def _shares(self, webhook_ids: list[int]) -> list[Want]:
        now = time.monotonic()
        quotas = {
            webhook_id: quota
            for webhook_id in webhook_ids
            if (quota := self._lane(webhook_id).quota(now)) > 0
        }
        rows = min(CLAIM_ROWS, _CLAIMED_ROWS - self.count)
        # As many as fit if they are as large as those of late.
        fitting = int((_CLAIMED_BYTES - self._bytes) / max(self._mean_bytes, 1.0))
        return shares(quotas, max(1, min(rows, fitting)))

    def add(self, claim: Claimed) -> None:
        size = len(claim.payload)
        self.count += 1
        self._bytes += size
        self._sizes[claim.id] = size
        self._mean_bytes += (size - self._mean_bytes) / _MEAN_OF
        self._lane(claim.webhook_id).claimed += 1

    def release(self, rows: Iterable[tuple[str, int]]) -> None:
        """Let go of rows, given as (delivery id, webhook id)."""
        for delivery_id, webhook_id in rows:
            self.count -= 1
            self._bytes -= self._sizes.pop(delivery_id, 0)
            self._waits.pop(webhook_id, None)
            self._lane(webhook_id).claimed -= 1
            if delivery_id == self._quarantined:
                self._quarantined = ""


class Taken(NamedTuple):
    """What one claim brought; nothing when no row was free or the database had a fault."""

    claims: list[Claimed]
    # By webhook id, as they were when the claim was asked for.
    plans: Mapping[int, Plan]
    # Monotonic seconds before the claim: the leases run from then on or later.
    asked_at: float

    @property
    def is_full(self) -> bool:
        return len(self.claims) >= CLAIM_ROWS


class _Wish(NamedTuple):
    ready: list[Candidate]
    plans: Mapping[int, Plan]
    asked_at: float


class Claimer(SessionThread):
    """The thread, where there is one. One claim at a time: `ask`, then `taken` until it is there.

    All methods are the keeper's; `on_taken` is called by the thread.
    """

    def __init__(
        self,
        claims: Claims,
        queue: ModuleType,
        keepers_session: Session,
        on_taken: Callable[[], None],
    ) -> None:
        super().__init__("claimer", queue, keepers_session)
        self._claims = claims
        self._on_taken = on_taken
        self._wishes: deque[_Wish] = deque()
        self._taken: deque[Taken] = deque()
        self.is_busy = False

    @property
    def has_taken(self) -> bool:
        return bool(self._taken)

    def ask(self, ready: list[Candidate], plans: Mapping[int, Plan]) -> None:
        """Claim rows of these webhooks; not while `is_busy`."""
        self.is_busy = True
        self._wishes.append(_Wish(ready, plans, time.monotonic()))
        if self._in_parallel:
            self._event.set()
        else:
            self._claim()

    def taken(self) -> Taken | None:
        """Return what the claim brought, once; None while it is not there."""
        if not self._taken:
            return None
        self.is_busy = False
        return self._taken.popleft()

    def finish(self, ends: float) -> Taken | None:
        """End the thread and return what it still claimed.

        A database that does not answer is waited for until `ends` on the monotonic clock; what it
        claims later is due again when its lease ends.
        """
        if self._in_parallel:
            self._end(ends)
        return self.taken()

    def _claim(self) -> None:
        wish = self._wishes.popleft()
        claims: list[Claimed] = []
        self._session.run(lambda: self._claims.take(wish.ready, claims))
        self._taken.append(Taken(claims, wish.plans, wish.asked_at))
        self._on_taken()

    # The thread.

    def _has_work(self) -> bool:
        return bool(self._wishes)

    def _turn(self) -> None:
        if self._wishes:
            self._claim()
        else:
            self._event.wait()
            self._event.clear()
