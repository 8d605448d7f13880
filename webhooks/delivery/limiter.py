"""One limiter for each webhook: how many requests it may have in flight.

AIMD (additive increase, multiplicative decrease): a receiver starts with one request in flight,
each response allows one more, each network failure halves the limit. After several failures in a
row a circuit breaker opens for a while (exponential backoff) and then lets one probe through. So
receivers that never answer take next to nothing from the others. `Limiters` keeps what was learned
about receivers from drain to drain.
"""

import random
from collections import deque
from collections.abc import Mapping

from webhooks.delivery.queue.rows import ClaimQuota
from webhooks.delivery.requests import Request
from webhooks.models import Outcome

# Requests in flight with which a receiver starts: one that we know nothing about, and one that
# answered its last request.
_FIRST_LIMIT, _KNOWN_LIMIT = 1, 8
# Network failures in a row that open the circuit breaker, and how long it is open at first and at
# most.
_BREAKER_FAILURES = 5
_BREAKER_SECONDS = (1.0, 60.0)
# A receiver is quick when it answers in less than this, by a moving mean that weighs the last
# response with this share.
_QUICK_SECONDS = 1.0
_LAST_SHARE = 0.25
# How many times what may be in flight waits in memory: enough to span one claim.
_DEPTH = 8
_UNREACHABLE = frozenset({Outcome.TIMEOUT, Outcome.NETWORK, Outcome.TLS})


class Limiter:
    """The limit of one webhook.

    The engine's thread writes `claimed` and `made_bytes`, the sender's the rest.
    """

    __slots__ = (
        "claimed", "failures", "in_flight", "is_queued", "limit", "made_bytes", "mean_seconds",
        "most", "open_until", "waiting",
    )  # fmt: skip

    def __init__(self, most: int, *, failures: int | None = None) -> None:
        """Start with `failures` in a row, of another process; None while nothing is known."""
        self.most = most
        self.limit = min(_FIRST_LIMIT if failures or failures is None else _KNOWN_LIMIT, most)
        self.in_flight = 0
        self.failures = failures or 0
        # Of a response; None while there was none.
        self.mean_seconds = 0.0 if failures == 0 else None
        self.open_until = 0.0
        # Requests and when their leases end. An empty deque for each would be a sixth of the memory
        # of a hundred thousand webhooks.
        self.waiting: deque[tuple[Request, float]] | tuple[()] = ()
        self.is_queued = False
        # Rows of this webhook that are claimed and not yet recorded.
        self.claimed = 0
        # Of its events and the bodies made from them, a mean; 0 while none is.
        self.made_bytes = 0.0

    def successor(self) -> "Limiter":
        """Return a limiter that knows the same about the receiver and has nothing in hand."""
        limiter = Limiter(self.most)
        limiter.limit, limiter.failures = self.limit, self.failures
        limiter.mean_seconds, limiter.open_until = self.mean_seconds, self.open_until
        limiter.made_bytes = self.made_bytes
        return limiter

    @property
    def is_quick(self) -> bool:
        """Return whether the receiver answers, and soon."""
        mean = self.mean_seconds
        return mean is not None and mean < _QUICK_SECONDS and not self.failures

    @property
    def is_new(self) -> bool:
        """Return whether nothing is known of the receiver: no request to it has ended."""
        return self.mean_seconds is None and not self.failures

    def quota(self, now: float, *, is_paced: bool = False) -> int:
        """Return how many more rows may be claimed for this webhook.

        While it answers quickly, several times as many as may be in flight; not when it has a limit
        or an order, as what was claimed ahead would go out at once after a stall.
        """
        if self.failures >= _BREAKER_FAILURES:
            return 0 if now < self.open_until else max(0, 1 - self.claimed)
        ahead = _DEPTH * self.limit if self.is_quick and not is_paced else self.limit
        return max(0, ahead - self.claimed)

    def wait_seconds(self, now: float, *, is_paced: bool = False) -> float | None:
        """Return how long nothing can be claimed; None until something comes back."""
        if self.quota(now, is_paced=is_paced) > 0:
            return 0.0
        return None if self.claimed else max(0.1, self.open_until - now)

    def note(self, outcome: Outcome | None, now: float, seconds: float) -> None:
        """Learn from a request: how it ended and how many seconds it took."""
        if outcome not in _UNREACHABLE:
            self.failures, self.open_until = 0, 0.0
            self.limit = min(self.most, self.limit + 1)
            mean = self.mean_seconds
            self.mean_seconds = seconds if mean is None else mean + (seconds - mean) * _LAST_SHARE
            return
        if now < self.open_until:
            # In flight when the breaker opened: says nothing new.
            return
        self.failures += 1
        self.limit = max(1, self.limit // 2)
        if self.failures >= _BREAKER_FAILURES:
            shortest, longest = _BREAKER_SECONDS
            doubled = shortest * 2.0 ** min(self.failures - _BREAKER_FAILURES, 10)
            self.open_until = now + min(longest, doubled)

    def note_made(self, size: int) -> None:
        """Learn from an event and the body that was made from it, of so many bytes together."""
        mean = self.made_bytes
        self.made_bytes = mean + (size - mean) * _LAST_SHARE if mean else float(size)

    def add(self, request: Request, lease_ends: float) -> None:
        """Let a request wait here."""
        if isinstance(self.waiting, tuple):
            self.waiting = deque()
        self.waiting.append((request, lease_ends))

    def take_first(self) -> tuple[Request, float]:
        """Take out what waits longest; there has to be something."""
        assert isinstance(self.waiting, deque)
        first = self.waiting.popleft()
        if not self.waiting:
            self.waiting = ()
        return first

    def take_all(self) -> list[Request]:
        """Take out everything that waits here."""
        requests = [request for request, _ in self.waiting]
        self.waiting = ()
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
            self.waiting = kept or ()
        return stale


class Limiters:
    """The limiters of a process, by webhook: a drain begins with what the one before learned.

    Concurrency: of one drain at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used: dict[int, Limiter] = {}
        self._before: dict[int, Limiter] = {}

    def get(self, webhook_id: int) -> Limiter:
        limiter = self._used.get(webhook_id)
        if limiter is None:
            before = self._before.pop(webhook_id, None)
            limiter = before.successor() if before else Limiter(self._most)
            self._used[webhook_id] = limiter
        return limiter

    def begin(self, webhook_id: int, failures: int | None) -> None:
        """Start a limiter that is not there with what other processes wrote of the receiver."""
        if webhook_id not in self._used and webhook_id not in self._before:
            self._used[webhook_id] = Limiter(self._most, failures=failures)

    def in_use(self) -> list[Limiter]:
        return list(self._used.values())

    def successor(self, *, forgets: bool) -> "Limiters":
        """Return what the next drain begins with; what is in hand stays with this one.

        With `forgets` it is only what this drain used.
        """
        following = Limiters(self._most)
        following._before = dict(self._used) if forgets else {**self._before, **self._used}
        return following


def shares(quotas: Mapping[int, int], room: int) -> list[ClaimQuota]:
    """Divide the room among webhooks: an equal share each, the rest to who can take more.

    With room for too few of them chance decides which, so that none is always left out.
    """
    if room < len(quotas):
        return [ClaimQuota(pk, 1) for pk in random.sample(list(quotas), max(0, room))]
    divided: list[ClaimQuota] = []
    # Small quotas first: what they leave of their share goes to the others.
    left = len(quotas)
    for webhook_id, quota in sorted(quotas.items(), key=lambda item: item[1]):
        share = min(quota, room // left)
        left -= 1
        room -= share
        divided.append(ClaimQuota(webhook_id, share))
    return divided
