"""One limiter for each webhook: how many requests it may have in flight.

AIMD (additive increase, multiplicative decrease): a receiver starts with one request in flight,
each response allows one more, each network failure halves the limit. After several failures in a
row a circuit breaker opens for a while (exponential backoff) and then lets one probe through. So
receivers that never answer take almost nothing from the others. `Limiters` keeps what was learned
about receivers from drain to drain.
"""

import random
from collections import deque
from collections.abc import Mapping

from webhooks.delivery.queue.rows import ClaimQuota
from webhooks.delivery.requests import Request
from webhooks.models import Outcome

# The first limit of requests in flight: for an unknown receiver, and for one that answered its last
# request.
_FIRST_LIMIT, _KNOWN_LIMIT = 1, 8
# Network failures in a row that open the circuit breaker, and how long it is open at first and at
# most.
_BREAKER_FAILURES = 5
_BREAKER_SECONDS = (1.0, 60.0)
# A receiver is quick if its mean response time is below this; the moving mean gives the last
# response this weight.
QUICK_SECONDS = 1.0
_LAST_SHARE = 0.25
# Rows claimed ahead for a quick receiver, as a multiple of its limit: enough to span one claim.
_DEPTH = 8
_UNREACHABLE = frozenset({Outcome.TIMEOUT, Outcome.NETWORK, Outcome.TLS})


class Limiter:
    """The limit of one webhook.

    The engine thread writes `claimed` and `mean_made_bytes`, the sender thread the rest.
    """

    __slots__ = (
        "claimed", "failures", "hanging_limit", "in_flight", "is_queued", "late", "limit",
        "max_limit", "mean_made_bytes", "mean_seconds", "open_until", "rests_until", "waiting",
    )  # fmt: skip

    def __init__(self, max_limit: int, *, failures: int | None = None) -> None:
        """Start with `failures` in a row, as another process recorded them; None if unknown."""
        self.max_limit = max_limit
        self.limit = min(_FIRST_LIMIT if failures or failures is None else _KNOWN_LIMIT, max_limit)
        self.in_flight = 0
        self.failures = failures or 0
        # The mean response time; None before the first response.
        self.mean_seconds = 0.0 if failures == 0 else None
        self.open_until = 0.0
        # Until when nothing is claimed because this machine lacks something for this receiver only.
        self.rests_until = 0.0
        # Requests and when their leases end. An empty deque for each webhook would be a sixth of
        # the memory at a hundred thousand webhooks.
        self.waiting: deque[tuple[Request, float]] | tuple[()] = ()
        self.is_queued = False
        # How many requests in flight take longer than a quick receiver does, at the last look.
        self.late = 0
        # While most of them do: how many rows a receiver that was quick may have. Otherwise 0.
        self.hanging_limit = 0
        # Rows of this webhook that are claimed and not yet recorded.
        self.claimed = 0
        # The mean size of an event plus the body made from it; 0 before the first one.
        self.mean_made_bytes = 0.0

    def successor(self) -> "Limiter":
        """Return a limiter with the same knowledge of the receiver and no rows or requests."""
        limiter = Limiter(self.max_limit)
        limiter.limit, limiter.failures = self.limit, self.failures
        limiter.mean_seconds, limiter.open_until = self.mean_seconds, self.open_until
        limiter.mean_made_bytes = self.mean_made_bytes
        return limiter

    @property
    def is_quick(self) -> bool:
        """Return whether the receiver answers, and quickly."""
        mean = self.mean_seconds
        return mean is not None and mean < QUICK_SECONDS and not self.failures

    @property
    def most_in_flight(self) -> int:
        return self.hanging_limit or self.limit

    @property
    def is_new(self) -> bool:
        """Return whether nothing is known about the receiver: no request to it has ended."""
        return self.mean_seconds is None and not self.failures

    @property
    def rank(self) -> int:
        """Return 0 for a quick receiver, 1 for one of which nothing is known, 2 for all others."""
        return 0 if self.is_quick else 1 if self.is_new else 2

    def is_open(self, now: float) -> bool:
        """Return whether nothing is claimed for a while, as while the circuit breaker is open."""
        return now < max(self.open_until, self.rests_until)

    def quota(self, now: float, *, is_paced: bool = False) -> int:
        """Return how many more rows may be claimed for this webhook.

        A quick receiver gets several times its limit, unless the webhook is paced: rows claimed
        ahead would go out all at once after a stall. While it hangs it gets few, or the rows of
        hundreds that hang would fill the memory.
        """
        if now < self.rests_until:
            return 0
        if self.failures >= _BREAKER_FAILURES:
            return 0 if now < self.open_until else max(0, 1 - self.claimed)
        most = self.limit
        if self.is_quick and self.hanging_limit:
            most = min(most, self.hanging_limit)
        elif self.is_quick and not is_paced:
            most *= _DEPTH
        return max(0, most - self.claimed)

    def wait_seconds(self, now: float, *, is_paced: bool = False) -> float | None:
        """Return for how many seconds nothing can be claimed; None until a claimed row is done."""
        if self.quota(now, is_paced=is_paced) > 0:
            return 0.0
        return None if self.claimed else max(0.1, max(self.open_until, self.rests_until) - now)

    def note(self, outcome: Outcome | None, now: float, seconds: float) -> None:
        """Learn from a request: how it ended and how many seconds it took."""
        if outcome not in _UNREACHABLE:
            self.failures, self.open_until = 0, 0.0
            self.limit = min(self.max_limit, self.limit + 1)
            mean = self.mean_seconds
            self.mean_seconds = seconds if mean is None else mean + (seconds - mean) * _LAST_SHARE
            return
        if now < self.open_until:
            # It was in flight when the breaker opened, so its failure says nothing new.
            return
        self.failures += 1
        self.limit = max(1, self.limit // 2)
        if self.failures >= _BREAKER_FAILURES:
            shortest, longest = _BREAKER_SECONDS
            doubled = shortest * 2.0 ** min(self.failures - _BREAKER_FAILURES, 10)
            self.open_until = now + min(longest, doubled)

    def rest(self, now: float, seconds: float) -> None:
        """Claim nothing for a while, and half as much afterwards."""
        if now >= self.rests_until:
            self.rests_until = now + seconds
            self.limit = max(1, self.limit // 2)

    def note_made(self, size: int) -> None:
        """Learn from an event and the body made from it, which together have `size` bytes."""
        mean = self.mean_made_bytes
        self.mean_made_bytes = mean + (size - mean) * _LAST_SHARE if mean else float(size)

    def add(self, request: Request, lease_ends: float) -> None:
        """Queue a request."""
        if isinstance(self.waiting, tuple):
            self.waiting = deque()
        self.waiting.append((request, lease_ends))

    def take_first(self) -> tuple[Request, float]:
        """Remove and return the request that waits longest; there must be one."""
        assert isinstance(self.waiting, deque)
        first = self.waiting.popleft()
        if not self.waiting:
            self.waiting = ()
        return first

    def take_all(self) -> list[Request]:
        """Remove and return all waiting requests."""
        requests = [request for request, _ in self.waiting]
        self.waiting = ()
        return requests

    def take_stale(self, version: int, token_version: int, *, now: float) -> list[Request]:
        """Remove and return requests for other versions, or whose lease ends too soon.

        The first version is of the webhook, the second of its token; some requests have no token.
        Another worker takes a row once its lease is over, as if this one had died.
        """
        kept: deque[tuple[Request, float]] = deque()
        stale: list[Request] = []
        for request, lease_ends in self.waiting:
            plan = request.plan
            is_late = now + plan.timeout_seconds > lease_ends
            is_old = plan.version != version or plan.token_version not in (0, token_version)
            if is_late or is_old:
                stale.append(request)
            else:
                kept.append((request, lease_ends))
        if stale:
            self.waiting = kept or ()
        return stale


class Limiters:
    """The limiters of a process, by webhook: a drain starts with what the previous one learned.

    Concurrency: used by one drain at a time.
    """

    def __init__(self, max_limit: int) -> None:
        self._max_limit = max_limit
        self.current: dict[int, Limiter] = {}
        self._previous: dict[int, Limiter] = {}

    def get(self, webhook_id: int) -> Limiter:
        limiter = self.current.get(webhook_id)
        if limiter is None:
            before = self._previous.pop(webhook_id, None)
            limiter = before.successor() if before else Limiter(self._max_limit)
            self.current[webhook_id] = limiter
        return limiter

    def begin(self, webhook_id: int, failures: int | None) -> None:
        """Create a missing limiter from the failures that other processes recorded."""
        if webhook_id not in self.current and webhook_id not in self._previous:
            self.current[webhook_id] = Limiter(self._max_limit, failures=failures)

    def in_use(self) -> list[Limiter]:
        return list(self.current.values())

    def successor(self, *, forgets: bool) -> "Limiters":
        """Return the limiters for the next drain; rows and requests stay with this one.

        With `forgets`, only limiters that this drain used are kept.
        """
        following = Limiters(self._max_limit)
        following._previous = dict(self.current) if forgets else {**self._previous, **self.current}
        return following


def shares(quotas: Mapping[int, int], room: int) -> list[ClaimQuota]:
    """Divide the room among webhooks: an equal share each, the rest to those that can take more.

    If there is room for only some of them, chance picks these, so that none is always left out.
    """
    if room < len(quotas):
        return [ClaimQuota(pk, 1) for pk in random.sample(list(quotas), max(0, room))]
    divided: list[ClaimQuota] = []
    # Smallest quotas first: what they leave of their share goes to the others.
    left = len(quotas)
    for webhook_id, quota in sorted(quotas.items(), key=lambda item: item[1]):
        share = min(quota, room // left)
        left -= 1
        room -= share
        divided.append(ClaimQuota(webhook_id, share))
    return divided
