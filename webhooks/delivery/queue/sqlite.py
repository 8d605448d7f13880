"""The queue on SQLite: the same functions under its one-writer lock.

BEGIN IMMEDIATE takes the lock at the start of each transaction (settings.DATABASES), so a
conditional UPDATE decides ownership as SKIP LOCKED does elsewhere. One machine holds the file, so
the process clock is the database's clock.
"""

import datetime as dt
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import OperationalError, connection, transaction
from django.utils import timezone

from webhooks.delivery.queue import sqlite_sql as sql
from webhooks.delivery.queue.rows import (
    DIED,
    MAX_EVENT_BYTES,
    AttemptResult,
    Candidate,
    Claimed,
    ClaimQuota,
    Expired,
    HourCount,
    NewDelivery,
    NewEventRow,
    Pace,
    Page,
    StateChange,
    affordable,
    bytes_left,
    paced_wait,
)

logger = logging.getLogger(__name__)

# One transaction writes at a time: a second connection would only wait for the first.
WRITES_IN_PARALLEL = False
# Its statements cost no round trips.
ACCEPTS_AT_ONCE = False
# In ms. How long a request of the event API waits while another process writes: the threads of
# `manage.py run` also serve pages and probes. Transactions of the product take milliseconds.
API_WAIT_MS = 2000
# After one such wait without success, further requests wait this long only, for a few seconds.
_HURRIED_WAIT_MS, _HURRIED_SECONDS = 100, 5.0
# Monotonic seconds.
_hurried_until = float("-inf")


def _stored(moment: dt.datetime | None) -> Any:
    return connection.ops.adapt_datetimefield_value(moment) if moment else None


def _now(seconds: float = 0.0) -> Any:
    return _stored(timezone.now() + dt.timedelta(seconds=seconds))


def _as_utc(moment: dt.datetime | None) -> dt.datetime | None:
    """Add UTC to a time that SQLite's own converter read, as that leaves the zone out."""
    return moment.replace(tzinfo=dt.UTC) if moment else None


def _marks(values: Sequence[object]) -> str:
    return ", ".join(["%s"] * len(values))


def enqueue(events: Sequence[NewEventRow], deliveries: Sequence[NewDelivery]) -> None:
    """Insert events and their deliveries in the caller's transaction, due at once."""
    now = _now()
    with connection.cursor() as cursor:
        cursor.executemany(
            sql.INSERT_EVENT,
            [[*row._replace(occurred_at=_stored(row.occurred_at)), now] for row in events],
        )
        keys = [(row.idempotency_key, row.id) for row in events if row.idempotency_key]
        cursor.executemany(sql.INSERT_KEY, keys)
        cursor.executemany(
            sql.INSERT_DELIVERY,
            [[*row, None if row.status == "held" else now, now] for row in deliveries],
        )


def takes_events() -> bool:
    """Return whether an event could be stored: not in a read-only file."""
    with connection.cursor() as cursor:
        # The path, even if the name is a URI; empty for a database in memory.
        cursor.execute("SELECT file FROM pragma_database_list WHERE name = 'main'")
        [file] = cursor.fetchone()
    return not file or os.access(file, os.W_OK)


def oldest_transaction() -> None:
    """Return None: nothing waits for a reader here, and a writer is waited for."""


def described(error: BaseException) -> str:
    """Return the message of a database fault."""
    return str(error)


def is_lock_timeout(error: BaseException) -> bool:
    """Return False: a lock is one of the whole database."""
    return False


@contextmanager
def short_lock_waits() -> Iterator[None]:
    """Let this thread wait for the lock of the file for a short time only.

    While it stays locked, as by somebody's own transaction, requests would take all threads.
    """
    global _hurried_until
    is_hurried = time.monotonic() < _hurried_until
    _limit_lock_waits(_HURRIED_WAIT_MS if is_hurried else API_WAIT_MS)
    try:
        yield
    except OperationalError as error:
        # The lower byte is the primary code.
        if getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            _hurried_until = time.monotonic() + _HURRIED_SECONDS
        raise
    finally:
        # In seconds.
        _limit_lock_waits(1000 * connection.settings_dict["OPTIONS"].get("timeout", 5))


def _limit_lock_waits(milliseconds: int) -> None:
    connection.ensure_connection()
    connection.connection.execute(f"PRAGMA busy_timeout = {milliseconds}")


def locked_states(webhook_ids: Sequence[int]) -> set[int]:
    """Return nothing: a lock is one of the whole database."""
    return set()


def locked_deliveries(ids: Sequence[str]) -> set[str]:
    """Return nothing: a lock is one of the whole database."""
    return set()


def locked_tokens(credential_ids: Sequence[int]) -> set[int]:
    """Return nothing: a lock is one of the whole database."""
    return set()


def locked_counts(counts: Sequence[HourCount]) -> set[HourCount]:
    """Return nothing: a lock is one of the whole database."""
    return set()


def prepare_session() -> None:
    """Do nothing: the planner reads no statistics here."""


def reset_session() -> None:
    """Do nothing: nothing was pinned."""


def plan_ahead() -> None:
    """Do nothing: statements are not planned again."""


def clock() -> float:
    """Return the database's Unix time in seconds."""
    return timezone.now().timestamp()


def page(*, shards: int = 1, numbers: Sequence[int] = (0,), **_: float) -> Page:
    """Return the webhooks of these shards that have due rows: here all of them on one page."""
    with connection.cursor() as cursor:
        now, ours = timezone.now(), [shards, *numbers]
        statement = sql.CANDIDATES.format(numbers=_marks(numbers))
        cursor.execute(statement, [*ours, _stored(now), *ours])
        found = [_candidate(row, now) for row in cursor.fetchall()]
        if found:
            return Page(found, None, 0.0)
        cursor.execute(sql.NEXT_DUE.format(numbers=_marks(numbers)), ours)
        return Page([], None, _seconds_to(cursor.fetchone()[0], now))


def _candidate(row: tuple[Any, ...], now: dt.datetime) -> Candidate:
    facts = [*row[:4], *map(bool, row[4:8])]
    if not row[5]:
        return Candidate._make([*facts, 0.0, False])
    rate, per_seconds, next_send_at, room, is_ordered, head_due_at = row[8:]
    pace = Pace(rate, per_seconds, _seconds_to(next_send_at, now) or 0.0)
    head_seconds = _seconds_to(head_due_at, now) if is_ordered else 0.0
    wait_seconds = paced_wait(pace, room=room, head_seconds=head_seconds)
    return Candidate._make([*facts, wait_seconds, False])


def _seconds_to(moment: str | dt.datetime | None, now: dt.datetime) -> float | None:
    """Return how far a time is ahead; it is text where SQLite does not know the column's type."""
    if moment is None:
        return None
    read = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return (read.replace(tzinfo=dt.UTC) - now).total_seconds()


def _take(
    cursor: Any, ids: list[str], lease: str, lease_seconds: float, max_bytes: int
) -> list[Claimed]:
    """Return claimed rows with their events; rows with events beyond `max_bytes` go back.

    A row whose event is missing is cancelled.
    """
    if not ids:
        return []
    cursor.execute(sql.TAKE.format(ids=_marks(ids)), [lease, _now(lease_seconds), *ids])
    order = {delivery_id: index for index, delivery_id in enumerate(ids)}
    rows = sorted(cursor.fetchall(), key=lambda row: order[row[0]])
    events = list(dict.fromkeys(row[2] for row in rows))
    read = "SELECT id, {column} FROM webhooks_event WHERE id IN ({ids})"
    cursor.execute(read.format(column="length(payload)", ids=_marks(events)), events)
    sizes = dict(cursor.fetchall())
    chosen = list(sizes)
    if sum(sizes.values()) > max_bytes:
        chosen = affordable(((one, sizes[one]) for one in events if one in sizes), max_bytes)
    cursor.execute(read.format(column="payload", ids=_marks(chosen)), chosen)
    payloads = {event_id: bytes(payload) for event_id, payload in cursor.fetchall()}
    if lost := [row[0] for row in rows if row[2] not in sizes]:
        cursor.execute(sql.CANCEL_LOST.format(ids=_marks(lost)), [_now(), *lost])
        logger.error("events_missing deliveries=%s", ",".join(lost))
    if left := [row for row in rows if row[2] in sizes and row[2] not in payloads]:
        due = _now()
        cursor.executemany(sql.HAND_BACK, [(due, row[0], lease, row[3]) for row in left])
    return [Claimed._make([*row, payloads[row[2]]]) for row in rows if row[2] in payloads]


def _ids(cursor: Any, sql: str, parameters: Sequence[object]) -> list[str]:
    cursor.execute(sql, parameters)
    return [row[0] for row in cursor.fetchall()]


def claim(
    quotas: Sequence[ClaimQuota],
    *,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    since: float = 0.0,
) -> list[Claimed]:
    """Take due rows of several webhooks, each up to its quota, oldest first.

    Nothing is left out: a finished row leaves no entry in an index.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        now = _now()
        ids = [
            delivery_id
            for one in quotas
            for delivery_id in _ids(cursor, sql.DUE, [one.webhook_id, now, one.quota])
        ]
        return _take(cursor, ids, lease, lease_seconds, max_bytes)


def claim_tests(
    quotas: Sequence[ClaimQuota],
    *,
    limit: int,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    is_quarantine: bool = False,
) -> list[Claimed]:
    """Take test deliveries of several webhooks, each up to its quota.

    The limits of a webhook do not apply to them. With `is_quarantine` only those that were in
    flight at several crashes, otherwise the others.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        now = _now()
        ids: list[str] = []
        for one in quotas:
            least = min(one.quota, limit - len(ids))
            ids += _ids(cursor, sql.DUE_TESTS, [one.webhook_id, now, is_quarantine, least])
        return _take(cursor, ids, lease, lease_seconds, max_bytes)


def claim_quarantined(
    webhook_ids: list[int], *, lease: str, lease_seconds: float, max_bytes: int = MAX_EVENT_BYTES
) -> list[Claimed]:
    """Take one row that was in flight at several crashes, of the first webhook that has one."""
    with transaction.atomic(), connection.cursor() as cursor:
        now = _now()
        cursor.execute(sql.WITH_QUARANTINED, [now])
        found = {row[0] for row in cursor.fetchall()}
        first = next((one for one in webhook_ids if one in found), None)
        ids = _ids(cursor, sql.DUE_QUARANTINED, [first, now])
        return _take(cursor, ids, lease, lease_seconds, max_bytes)


def claim_paced(
    quotas: Sequence[ClaimQuota],
    *,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    is_quarantine: bool = False,
) -> list[Claimed]:
    """Take rows of webhooks with a limit or an order; of an ordered one only the head may go.

    With `is_quarantine` it takes one row that was in flight at several crashes.
    """
    claimed: list[Claimed] = []
    with transaction.atomic(), connection.cursor() as cursor:
        for one in quotas:
            if claimed and (is_quarantine or max_bytes <= 0):
                break
            terms = (lease, lease_seconds, max_bytes)
            taken = _claim_paced(cursor, one, terms, is_quarantine)
            max_bytes = bytes_left(max_bytes, taken)
            claimed += taken
    return claimed


def _claim_paced(
    cursor: Any, one: ClaimQuota, terms: tuple[str, float, int], is_quarantine: bool
) -> list[Claimed]:
    webhook_id, quota = one
    cursor.execute(sql.PACING, [webhook_id])
    rate, per_seconds, concurrency, is_ordered, next_send_at, sending = cursor.fetchone()
    now = timezone.now()
    if concurrency is not None:
        quota = min(quota, concurrency - sending)
    pace = Pace(rate, per_seconds, _seconds_to(next_send_at, now) or 0.0)
    quota = min(quota, pace.quota)
    if quota <= 0:
        return []
    if is_ordered:
        ids = _ids(cursor, sql.DUE_HEAD, [webhook_id, _stored(now), is_quarantine])
    elif is_quarantine:
        ids = _ids(cursor, sql.DUE_QUARANTINED, [webhook_id, _stored(now)])
    else:
        ids = _ids(cursor, sql.DUE, [webhook_id, _stored(now), quota])
    claimed = _take(cursor, ids, *terms)
    if rate and claimed:
        upto = now + dt.timedelta(seconds=pace.after(len(claimed)))
        cursor.execute(
            "INSERT INTO webhooks_webhookstate (webhook_id, next_send_at, last_error) "
            "VALUES (%s, %s, '') ON CONFLICT (webhook_id) "
            "DO UPDATE SET next_send_at = excluded.next_send_at",
            [webhook_id, _stored(upto)],
        )
    return claimed


def record(results: Sequence[AttemptResult], *, lease: str, is_repeat: bool = False) -> int:
    """Write attempts and deliveries in one transaction; return how many deliveries were ours.

    A delivery whose lease was lost keeps what its new holder wrote. With `is_repeat` a part of the
    batch may be written already, so only attempts of deliveries that are still ours are written.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        ours: list[AttemptResult] = []
        now = timezone.now()
        for result in results:
            due = result.delay_seconds
            cursor.execute(
                sql.FINISH,
                [
                    result.status,
                    result.outcome,
                    result.status_code,
                    result.hold_reason,
                    int(result.counts),
                    None if due is None else _stored(now + dt.timedelta(seconds=due)),
                    _stored(now) if result.status in ("succeeded", "failed") else None,
                    result.delivery_id,
                    lease,
                    result.number,
                ],
            )
            if cursor.rowcount:
                ours.append(result)
        written = ours if is_repeat else results
        cursor.executemany(sql.INSERT_ATTEMPT, [_attempt(result.attempt) for result in written])
        return len(ours)


def _attempt(values: tuple[object, ...]) -> list[Any]:
    return [_stored(value) if isinstance(value, dt.datetime) else value for value in values]


def write_states(changes: Sequence[StateChange]) -> list[tuple[int, float]]:
    """Record the health of webhooks; return those that fail, each with for how many seconds."""
    failing: list[tuple[int, float]] = []
    with transaction.atomic(), connection.cursor() as cursor:
        now, clock = timezone.now(), time.monotonic()
        for change in changes:
            stored = _stored(now)
            cursor.execute(
                sql.STATE,
                [
                    change.webhook_id,
                    _stored(now - dt.timedelta(seconds=clock - change.ended_at)),
                    stored if change.had_success else None,
                    None if change.succeeded else stored,
                    change.status_code,
                    change.error,
                    change.failures,
                ],
            )
            # A failure that changed nothing returns no row.
            webhook_id, since = cursor.fetchone() or (0, None)
            if began := _as_utc(since):
                failing.append((webhook_id, (now - began).total_seconds()))
    return failing


def add_counts(counts: Sequence[HourCount]) -> None:
    """Add to the hourly counts."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            sql.ADD_COUNT, [row._replace(hour=_stored(row.hour)) for row in sorted(counts)]
        )


def late(
    before: float, *, held: Sequence[str] = (), limit: int = 5000, since: float = 0.0
) -> list[str]:
    """Return the rows whose lease ended, the oldest first.

    `before` is Unix time by the database's clock; rows in `held` are alive in this process.
    """
    with connection.cursor() as cursor:
        return _ids(cursor, sql.LATE.format(held=_marks(held)), [_cutoff(before), *held, limit])


def _cutoff(before: float) -> Any:
    return _stored(min(timezone.now(), dt.datetime.fromtimestamp(before, dt.UTC)))


def expire(ids: Sequence[str], before: float) -> list[Expired]:
    """Take back those of these rows whose lease has ended: pending, or parked after many crashes.

    `before` is Unix time by the database's clock.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        now = timezone.now()
        cursor.execute(sql.EXPIRE.format(ids=_marks(ids)), [_stored(now), *ids, _cutoff(before)])
        expired = [Expired(*row) for row in cursor.fetchall()]
        died = [(row.id, row.number, _stored(now), DIED) for row in expired]
        cursor.executemany(sql.INSERT_DIED, died)
        return expired


def hold(webhook_ids: Sequence[int], reason: str, limit: int = 1000) -> int:
    """Hold waiting deliveries of webhooks, except tests; return how many.

    Those of a deleted webhook are cancelled, tests too, since nothing could release them. Each
    webhook has its share of `limit`, one at least.
    """
    share = max(1, limit // len(webhook_ids))
    with transaction.atomic(), connection.cursor() as cursor:
        held = 0
        for webhook_id in webhook_ids:
            cursor.execute(sql.HOLD, [reason, _now(), reason, webhook_id, share])
            held += cursor.rowcount
        return held


def hand_back(claims: Sequence[Claimed], *, lease: str) -> int:
    """Hand back rows that were claimed and not sent, as if never claimed; return how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        due = _now()
        cursor.executemany(sql.HAND_BACK, [(due, row.id, lease, row.number) for row in claims])
        return int(cursor.rowcount)


def hand_back_others(held: Sequence[str], *, lease: str) -> int:
    """Hand back rows of a lease that are not in `held`, as if never claimed; return how many.

    The result of their claim was lost, so no process has them.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql.HAND_BACK_OTHERS.format(held=_marks(held)), [_now(), lease, *held])
        return int(cursor.rowcount)
