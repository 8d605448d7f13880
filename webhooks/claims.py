"""The rows that an engine holds: which to claim next, how many there are, and the quarantined one.

Knows lanes and the queue; neither requests nor results. Used by the keeper's thread alone.
"""

import time
from collections.abc import Callable, Iterable
from types import ModuleType

from django.conf import settings

from webhooks.lanes import Lane, shares
from webhooks.queue import Candidate, Claimed, Want

# Rows claimed at once: enough that the wait for the commit is a small part of sending them.
CLAIM_ROWS = 1000
# Rows held in memory in all.
_CLAIMED_ROWS = 4000
# Tests claimed at once.
_TEST_ROWS = 50


class Claims:
    """Rows that are ours: waiting in memory, in flight, or not yet recorded."""

    def __init__(self, queue: ModuleType, lease: str, lane: Callable[[int], Lane]) -> None:
        self._queue = queue
        self._lease = lease
        self._lane = lane
        self.count = 0
        # The one row in flight that was also in flight at crashes.
        self._quarantined = ""

    @property
    def has_room(self) -> bool:
        return self.count < _CLAIMED_ROWS

    def take(self, ready: list[Candidate], claims: list[Claimed]) -> bool:
        """Take tests first, then a fair share of every webhook, then one quarantined row.

        Each is a transaction: what was taken before one fails is in `claims` and ours.
        """
        terms = {"lease": self._lease, "lease_seconds": settings.WEBHOOKS_LEASE_SECONDS}
        all_ids = [candidate.webhook_id for candidate in ready]
        if ready[0].has_tests:
            claims += self._queue.claim_tests(all_ids, limit=_TEST_ROWS, **terms)
        active = [candidate for candidate in ready if candidate.is_active]
        wants = self._shares([candidate for candidate in active if not candidate.is_paced])
        if wants:
            claims += self._queue.claim(wants, **terms)
        for candidate in active:
            if candidate.is_paced:
                quota = self._lane(candidate.webhook_id).quota(time.monotonic())
                if quota:
                    claims += self._queue.claim_paced(candidate.webhook_id, quota=quota, **terms)
        if not self._quarantined and active and active[0].has_suspects:
            suspects = self._queue.claim_quarantined([c.webhook_id for c in active], **terms)
            self._quarantined = "".join(claim.id for claim in suspects)
            claims += suspects
        return True

    def _shares(self, candidates: list[Candidate]) -> list[Want]:
        now = time.monotonic()
        quotas = {
            candidate.webhook_id: quota
            for candidate in candidates
            if (quota := self._lane(candidate.webhook_id).quota(now)) > 0
        }
        return shares(quotas, min(CLAIM_ROWS, _CLAIMED_ROWS - self.count))

    def add(self, claim: Claimed) -> None:
        self.count += 1
        self._lane(claim.webhook_id).claimed += 1

    def release(self, rows: Iterable[tuple[str, int]]) -> None:
        """Let go of rows, given as (delivery id, webhook id)."""
        for delivery_id, webhook_id in rows:
            self.count -= 1
            self._lane(webhook_id).claimed -= 1
            if delivery_id == self._quarantined:
                self._quarantined = ""
