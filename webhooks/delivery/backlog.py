"""How far behind the engine is: what waits, since when, and how fast it sends.

Cheap at any size: counts stop at a limit, everything else is one step into an index. Read by
`/readyz` and the head of the delivery log.
"""

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.core.cache import cache
from django.db import connection
from django.db.models import Exists, Min, OuterRef, Q, QuerySet

from webhooks.delivery import queue
from webhooks.delivery.limited_calls import LimitedCalls
from webhooks.models import LONG_AGO, Attempt, Delivery, Status, Webhook, WebhookState

logger = logging.getLogger(__name__)

# Cache keys: the Unix time of the last sweep, by the clock of the machine that swept, and a flag
# that expires, as clocks differ. A sweep runs every 10 s; six missed ones mean that no worker runs,
# or no beat.
LAST_SWEEP, SWEPT_RECENTLY = "webhooks:last_sweep", "webhooks:swept_of_late"
SWEEP_LATE_SECONDS = 60
# Cache key: what a worker's machine recently lacked for requests.
MACHINE_LACKS = "webhooks:machine_lacks"
_cache_calls = LimitedCalls(2.0)
# Counting stops here; a deeper queue is shown as "more than".
MAX_COUNT = 10_000
# A delivery that is due for this long shows that the engine is behind.
LATE_SECONDS = 60.0
# The send rate is measured over this many last attempts, if they are within this time.
_RATE_ATTEMPTS = 1000
_RATE_WINDOW = timedelta(minutes=1)

# A receiver without a response to this many requests in a row is known to be down (`limiter`): due
# rows wait for it, not for the engine.
_DOWN_FAILURES = 5

# Among the first thousand due rows, nearly always one has a receiver that is not down.
_FIRST_DUE = 1000
# After those: a loose index scan that steps from webhook to webhook and reads the first row of
# each.
_OLDEST_DUE = """
WITH RECURSIVE waiting(webhook_id, due_at) AS (
  SELECT * FROM (SELECT webhook_id, next_attempt_at FROM webhooks_delivery
    WHERE status = 'pending' ORDER BY webhook_id, next_attempt_at LIMIT 1) AS first
  UNION ALL
  SELECT next.* FROM waiting, LATERAL (
    SELECT d.webhook_id, d.next_attempt_at FROM webhooks_delivery d
    WHERE d.status = 'pending' AND d.webhook_id > waiting.webhook_id
    ORDER BY d.webhook_id, d.next_attempt_at LIMIT 1) AS next
)
SELECT min(due_at) FROM waiting LEFT JOIN webhooks_webhookstate s USING (webhook_id)
WHERE due_at <= now() AND (
  s.failures_in_a_row >= %s AND s.last_status_code IS NULL
  OR s.failures_in_a_row = 0 AND s.failing_since_at IS NOT NULL) IS NOT TRUE
"""


def note_sweep() -> None:
    """Record for `/readyz` that a sweep ended."""
    note(LAST_SWEEP, time.time(), None)
    note(SWEPT_RECENTLY, True, SWEEP_LATE_SECONDS)


def note(key: str, value: object, seconds: float | None) -> None:
    """Write a value for `/readyz`, for this long. Never raises and never waits for long."""
    try:
        _cache_calls.run(partial(cache.set, key, value, seconds))
    except Exception as error:
        logger.warning("note_failed key=%s error=%s", key, type(error).__name__)


def noted(key: str) -> Any:
    """Read what `note` wrote, or None. Raises RedisError or OSError, and never waits for long."""
    return _cache_calls.run(partial(cache.get, key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Deliveries by what they wait for; counts are at most MAX_COUNT."""

    due: int
    sending: int
    held: int
    parked: int
    # How long the oldest due delivery of a receiver that is not down has waited; 0 without one.
    oldest_due_seconds: float
    sent_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A backlog, judged for people."""

    backlog: Backlog
    # Something has been due for longer than LATE_SECONDS.
    is_late: bool
    # All that is late waits behind blocking deliveries of ordered webhooks, as it should.
    waits_for_order: bool
    # Nothing is being sent, and ordering does not explain it.
    seems_stopped: bool


def read(now: datetime | None = None) -> Backlog:
    """Read the backlog; `now` is by default the database's time, which decides what is due."""
    now = now or queue.now()
    due = Delivery.objects.in_status(Status.PENDING).filter(
        next_attempt_at__gt=LONG_AGO, next_attempt_at__lte=now
    )
    oldest_of_all, oldest = _oldest_due(due)
    return Backlog(
        due=_count(due) if oldest_of_all else 0,
        sending=_count(Delivery.objects.in_status(Status.SENDING)),
        held=_count(Delivery.objects.in_status(Status.HELD)),
        parked=_count(Delivery.objects.in_status(Status.PARKED)),
        oldest_due_seconds=(now - oldest).total_seconds() if oldest else 0.0,
        sent_per_second=_send_rate(now),
    )


def report(now: datetime | None = None) -> Report:
    """Read the backlog and judge it."""
    now = now or queue.now()
    found = read(now)
    is_late = found.oldest_due_seconds > LATE_SECONDS
    waits_for_order = is_late and not _has_late_unblocked(now)
    return Report(
        backlog=found,
        is_late=is_late,
        waits_for_order=waits_for_order,
        seems_stopped=is_late and not waits_for_order and not found.sent_per_second,
    )


def _count(rows: QuerySet[Delivery]) -> int:
    return len(rows.order_by().values_list("pk")[:MAX_COUNT])


def _oldest_due(due: QuerySet[Delivery]) -> tuple[datetime | None, datetime | None]:
    """Return since when the first delivery is due: of all, and of receivers that are not down."""
    columns = "webhook_id", "next_attempt_at"
    first = list(due.order_by("next_attempt_at").values_list(*columns)[:_FIRST_DUE])
    if not first:
        return None, None
    states = WebhookState.objects.filter(_is_down(), pk__in={webhook_id for webhook_id, _ in first})
    down = set(states.values_list("pk", flat=True))
    of_up = next((at for webhook_id, at in first if webhook_id not in down), None)
    if of_up is None and len(first) == _FIRST_DUE:
        of_up = _oldest_due_behind(due)
    return first[0][1], of_up


def _oldest_due_behind(due: QuerySet[Delivery]) -> datetime | None:
    """Return since when the first delivery of a receiver that is not down is due, of all rows."""
    oldest: datetime | None
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(_OLDEST_DUE, [_DOWN_FAILURES])
            (oldest,) = cursor.fetchone()
    else:
        up = due.exclude(_is_down("webhook__state__"))
        oldest = up.aggregate(oldest=Min("next_attempt_at"))["oldest"]
    return oldest


def _has_late_unblocked(now: datetime) -> bool:
    """Return whether a delivery is long overdue in a webhook that no retry blocks."""
    pending = Delivery.objects.in_status(Status.PENDING).filter(webhook=OuterRef("pk"))
    late = pending.filter(next_attempt_at__lte=now - timedelta(seconds=LATE_SECONDS))
    retry = pending.filter(next_attempt_at__gt=now, failure_count__gt=0)
    blocked = Q(is_ordered=True) & Exists(retry)
    webhooks = Webhook.objects.filter(Exists(late)).exclude(blocked).exclude(_is_down("state__"))
    return webhooks.exists()


def _is_down(prefix: str = "") -> Q:
    """Select the states of webhooks whose receiver is known to be down; `prefix` leads to them.

    A webhook that fails without an attempt cannot be used as it is set up: it waits for a person.
    """
    is_silent = Q(
        (f"{prefix}failures_in_a_row__gte", _DOWN_FAILURES),
        (f"{prefix}last_status_code__isnull", True),
    )
    is_unusable = Q(
        (f"{prefix}failures_in_a_row", 0),
        (f"{prefix}failing_since_at__isnull", False),
    )
    return is_silent | is_unusable


def _send_rate(now: datetime) -> float:
    newest = Attempt.objects.order_by("-id").values_list("started_at", flat=True)
    recent = [at for at in newest[:_RATE_ATTEMPTS] if now - at < _RATE_WINDOW]
    if not recent:
        return 0.0
    span = max((now - min(recent)).total_seconds(), 1.0)
    return len(recent) / span
