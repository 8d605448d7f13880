"""One limiter for each webhook: how many requests it may have in flight.

AIMD (additive increase, multiplicative decrease): a receiver starts with a few requests in flight,
each response allows one more, each network failure halves the limit. After several failures in a
row a circuit breaker opens for a while (exponential backoff) and then lets one probe through. So
receivers that never answer take next to nothing from the others.
"""

from collections import deque
from collections.abc import Mapping

from webhooks.delivery.queue.rows import ClaimQuota
from webhooks.delivery.requests import Request
from webhooks.models import Outcome

# Requests in flight with which a receiver that we know nothing about starts.
_FIRST_LIMIT = 8
# Network failures in a row that open the circuit breaker, and how long it is open at first and at
# most.
_BREAKER_FAILURES = 5
_BREAKER_SECONDS = (1.0, 60.0)
# How many times what may be in flight waits in memory: enough to span one claim.
_DEPTH = 8
_UNREACHABLE = frozenset({Outcome.TIMEOUT, Outcome.NETWORK, Outcome.TLS})


class Limiter:
    """The limit of one webhook. The sender writes all but `claimed`; the engine thread that."""

    __slots__ = (
        "claimed", "failures", "in_flight", "is_queued", "limit", "most", "open_until", "waiting",
    )  # fmt: skip

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = min(_FIRST_LIMIT, most)
        self.in_flight = 0
        self.failures = 0
        self.open_until = 0.0
        self.waiting: deque[tuple[Request, float]] = deque()
        self.is_queued = False
        # Rows of this webhook that are claimed and not yet recorded.
        self.claimed = 0

    def quota(self, now: float, *, depth: int = _DEPTH) -> int:
        """Return how many more rows may be claimed for this webhook.

        While it answers, `depth` times as many as may be in flight.
        """
        if self.failures >= _BREAKER_FAILURES:
            return 0 if now < self.open_until else max(0, 1 - self.claimed)
        ahead = self.limit if self.failures else depth * self.limit
        return max(0, ahead - self.claimed)

    def note(self, outcome: Outcome | None, now: float) -> None:
        if outcome not in _UNREACHABLE:
            self.failures = 0
            self.limit = min(self.most, self.limit + 1)
            return
        self.failures += 1
        self.limit = max(1, self.limit // 2)
        if self.failures >= _BREAKER_FAILURES:
            shortest, longest = _BREAKER_SECONDS
            doubled = shortest * 2.0 ** min(self.failures - _BREAKER_FAILURES, 10)
            self.open_until = now + min(longest, doubled)

    def take_all(self) -> list[Request]:
        """Take out everything that waits here."""
        requests = [request for request, _ in self.waiting]
        self.waiting.clear()
        return requests

    def take_stale(self, version: int, now: float) -> list[Request]:
        """Take out what waits here for another version of the webhook, or for too long already.

        A row whose lease is nearly over is taken by another worker, as if this one had died.
        """
        kept: deque[tuple[Request, float]] = deque()
        stale: list[Request] = []
        for request, lease_ends in self.waiting:
            is_late = now + request.plan.timeout_seconds > lease_ends
            if is_late or request.plan.version != version:
                stale.append(request)
            else:
                kept.append((request, lease_ends))
        if stale:
            self.waiting = kept
        return stale


def shares(quotas: Mapping[int, int], room: int) -> list[ClaimQuota]:
    """Divide the room among webhooks: an equal share each, the rest to who can take more."""
    divided: list[ClaimQuota] = []
    # Small quotas first: what they leave of their share goes to the others.
    left = len(quotas)
    for webhook_id, quota in sorted(quotas.items(), key=lambda item: item[1]):
        share = min(quota, max(1, room // left))
        left -= 1
        if room <= 0:
            break
        room -= share
        divided.append(ClaimQuota(webhook_id, share))
    return divided
