"""Values between the queue and its callers. Named tuples: thousands are made each second.

A row costs microseconds in this package, where a model instance would cost more than sending the
request. So every statement names its columns and runs on Django's own connection, in one short
transaction without network. Times are the database's own: a worker with a wrong clock schedules
nothing wrongly.
"""

import sys
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from webhooks.models.messages import dump

# The order of the values in `AttemptResult.attempt`.
ATTEMPT_COLUMNS = (
    "delivery_id",
    "number",
    "started_at",
    "dns_ms",
    "connect_ms",
    "tls_ms",
    "first_byte_ms",
    "total_ms",
    "remote_address",
    "request_line",
    "request_headers",
    "request_body",
    "status_code",
    "response_headers",
    "response_body",
    "response_size",
    "outcome",
    "error",
)

# A row that was in flight when this many processes died is parked.
MAX_UNKNOWN = 3
# From this count on a row is claimed alone, so that a poison message harms no other row.
QUARANTINE_FROM = 2


# What is stored about an attempt whose process died.
DIED = dump("process_died")

# `Webhook.version_sent` in SQL, for a webhook w and its credential c.
VERSION = "w.version + c.version + c.id * 4294967296"


# Bytes of events that are held in memory, and the size from which on an event is read apart from
# its rows: once for all of them.
MAX_EVENT_BYTES = 64 * 1024 * 1024
LARGE_EVENT_BYTES = 16 * 1024


def affordable(events: Iterable[tuple[str, int]], max_bytes: int) -> list[str]:
    """Return the first of the events, given with their sizes, that fit; at least one."""
    chosen: list[str] = []
    for event_id, size in events:
        max_bytes -= size
        if max_bytes < 0 and chosen:
            break
        chosen.append(event_id)
    return chosen


class NewEventRow(NamedTuple):
    """An event to insert, in the order of its columns."""

    id: str
    type: str
    payload: bytes
    occurred_at: datetime
    filtered_count: int
    idempotency_key: str | None
    fingerprint: str
    source: str
    call_id: str | None
    caller_digits: str | None
    callee_digits: str | None
    client_digits: str | None
    company_digits: str | None


class Pace(NamedTuple):
    """The rate limit of a webhook: `rate` requests in `per_seconds`; none without a rate.

    GCRA with a burst of one second's worth (at least one request). `ahead_seconds` is how far the
    next request on schedule is ahead of now.
    """

    rate: int | None
    per_seconds: float
    ahead_seconds: float

    @property
    def _spacing(self) -> float:
        # No form accepts less than a second.
        return max(self.per_seconds, 1.0) / self.rate if self.rate else 0.0

    @property
    def _burst(self) -> float:
        return max(self._spacing, min(1.0, self.per_seconds))

    @property
    def _ahead(self) -> float:
        # A value beyond any burst comes from another limit or from a clock that was wrong.
        return self.ahead_seconds if 0 < self.ahead_seconds <= self._burst + self._spacing else 0.0

    @property
    def quota(self) -> int:
        """Return how many requests may be sent now."""
        if not self.rate:
            return sys.maxsize
        return int((self._burst - self._ahead) / self._spacing + 1e-9)

    @property
    def wait_seconds(self) -> float:
        """Return how long it is until the next request may be sent."""
        return max(0.0, self._ahead + self._spacing - self._burst) if self.rate else 0.0

    def after(self, count: int) -> float:
        """Return how far ahead the schedule is after `count` more requests, in seconds."""
        return self._ahead + self._spacing * count


class NewDelivery(NamedTuple):
    """A delivery to insert; due at once unless it is held."""

    id: str
    event_id: str
    webhook_id: int
    status: str
    trigger: str
    hold_reason: str


class Candidate(NamedTuple):
    """A webhook with rows that are due now."""

    webhook_id: int
    version: int
    # 0 while there is no token.
    token_version: int
    # The version that a receiver refused; 0 when none was, or when the next one proved good.
    refused_version: int
    is_active: bool
    # Has a rate limit, a concurrency limit or ordered delivery.
    is_paced: bool
    # Whether a test of this webhook waits.
    has_tests: bool
    # Whether any webhook of these shards has a waiting row that was in flight at several crashes.
    has_suspects: bool
    # For how long its limit or order lets only tests go; None until a row in flight is done.
    wait_seconds: float | None = 0.0
    # Whether it is known to have a single waiting row, so that a claim of one leaves none.
    has_one_row: bool = False


class Page(NamedTuple):
    """A page of the webhooks with waiting rows, in the order of their ids: those with due rows."""

    candidates: list[Candidate]
    # The last webhook of the page; None when no others have waiting rows.
    last: int | None
    # Seconds until the next waiting row is due; None when none waits.
    next_due_seconds: float | None


def paced_wait(pace: Pace, *, room: int | None, head_seconds: float | None) -> float | None:
    """Return `Candidate.wait_seconds` of a webhook with a limit or an order.

    `room` is how many more requests may be in flight, None without a limit; `head_seconds` is how
    long until the oldest row of an ordered webhook is due, None while it is being sent or held.
    """
    if head_seconds is None or (room is not None and room <= 0):
        return None
    return max(pace.wait_seconds, head_seconds, 0.0)


class ClaimQuota(NamedTuple):
    """How many rows of a webhook the engine can take."""

    webhook_id: int
    quota: int


class Claimed(NamedTuple):
    """A row that is now `sending` and belongs to this engine until its lease ends."""

    id: str
    webhook_id: int
    event_id: str
    # The number of this attempt, from 1; together with the lease it names the claim.
    number: int
    failure_count: int
    trigger: str
    # The event document, frozen UTF-8 JSON; empty if it could not be read, so the row goes back.
    payload: bytes


def bytes_left(max_bytes: int, claims: Iterable[Claimed]) -> int:
    """Return how many of these bytes the events of claimed rows leave; each event counts once."""
    return max_bytes - sum({claim.event_id: len(claim.payload) for claim in claims}.values())


class AttemptResult(NamedTuple):
    """The result of one attempt, and the delivery's next status."""

    delivery_id: str
    webhook_id: int
    number: int
    status: str
    # Seconds until the next attempt; None unless `status` is pending.
    delay_seconds: float | None
    hold_reason: str
    outcome: str
    status_code: int | None
    # Whether it uses up a step of the retry schedule.
    counts: bool
    # One row in the order of ATTEMPT_COLUMNS.
    attempt: tuple[object, ...]


class StateChange(NamedTuple):
    """What the last attempts say about a webhook's health."""

    webhook_id: int
    # Whether the last of them succeeded.
    succeeded: bool
    status_code: int | None
    error: str
    # How many failed since the last success among them.
    failures: int
    # Whether any of them succeeded, which ends the failures before.
    had_success: bool
    # When the last of them ended, on the monotonic clock.
    ended_at: float


class OpenTransaction(NamedTuple):
    """A transaction of any client of the database, and how long it has been open."""

    seconds: float
    pid: int
    user: str
    application: str


class HourCount(NamedTuple):
    """Attempts of a webhook to add to an hour; all but `attempts` is the key of a row."""

    webhook_id: int
    hour: datetime
    outcome: str
    duration_step: int
    attempts: int


class Expired(NamedTuple):
    """A row whose lease ended without a result: its process died."""

    id: str
    webhook_id: int
    number: int
    status: str
