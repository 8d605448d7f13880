"""The queue on PostgreSQL: SKIP LOCKED, lateral index reads by ctid, binary COPY.

Plans are pinned by shape, not by statistics: a table that was empty at the last ANALYZE makes the
planner choose a scan or a nested loop that costs a hundred times more under load. So each read
goes through one partial index inside a LATERAL or by `ctid = ANY(ARRAY(...))`, parameters are
planned for each call, and sequential scans are switched off for the engine's session.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection, transaction

from webhooks.queue.rows import (
    ATTEMPT_COLUMNS,
    DIED,
    MAX_UNKNOWN,
    QUARANTINE_FROM,
    Candidate,
    Claimed,
    Expired,
    NewDelivery,
    NewEventRow,
    Result,
    StateChange,
    Want,
)

_PACED = """(w.rate_limit IS NOT NULL OR w.concurrency_limit IS NOT NULL OR w.is_ordered)"""

# A loose index scan: one probe per webhook that has pending rows, however many rows it has.
_CANDIDATES = f"""
WITH RECURSIVE waiting(webhook_id) AS (
  (SELECT webhook_id FROM webhooks_delivery WHERE status = 'pending'
   ORDER BY webhook_id LIMIT 1)
  UNION ALL
  SELECT (SELECT d.webhook_id FROM webhooks_delivery d
          WHERE d.status = 'pending' AND d.webhook_id > waiting.webhook_id
          ORDER BY d.webhook_id LIMIT 1)
  FROM waiting WHERE waiting.webhook_id IS NOT NULL
)
SELECT w.id, w.version, COALESCE(t.version, 0), w.is_active AND w.deleted_at IS NULL, {_PACED}
FROM waiting
JOIN webhooks_webhook w ON w.id = waiting.webhook_id
LEFT JOIN webhooks_oauthtoken t ON t.webhook_id = w.id
WHERE EXISTS (
  SELECT 1 FROM webhooks_delivery d WHERE d.status = 'pending' AND d.webhook_id = w.id
  AND d.next_attempt_at <= now() LIMIT 1 OFFSET 0)
"""

_TAKE = """
), claimed AS MATERIALIZED (
  UPDATE webhooks_delivery d
  SET status = 'sending', lease = %(lease)s, attempt_count = attempt_count + 1,
      next_attempt_at = now() + %(lease_seconds)s * interval '1 second'
  WHERE d.ctid = ANY(ARRAY(SELECT place FROM wanted))
  RETURNING d.id, d.webhook_id, d.event_id, d.attempt_count, d.failure_count, d.trigger
)
SELECT c.id, c.webhook_id, c.event_id, c.attempt_count, c.failure_count, c.trigger, e.payload
FROM claimed c
CROSS JOIN LATERAL (
  SELECT payload FROM webhooks_event e WHERE e.id = c.event_id OFFSET 0) e
"""

_CLAIM = f"""
WITH wanted AS MATERIALIZED (
  SELECT due.ctid AS place
  FROM unnest(%(ids)s::bigint[], %(quotas)s::int[]) AS w(id, quota)
  CROSS JOIN LATERAL (
    SELECT d.ctid FROM webhooks_delivery d
    WHERE d.status = 'pending' AND d.webhook_id = w.id AND d.next_attempt_at <= now()
      AND d.unknown_count < {QUARANTINE_FROM}
    ORDER BY d.next_attempt_at, d.id LIMIT w.quota FOR UPDATE SKIP LOCKED) due
{_TAKE}"""

_CLAIM_TESTS = f"""
WITH wanted AS MATERIALIZED (
  SELECT d.ctid AS place FROM webhooks_delivery d
  WHERE d.status = 'pending' AND d.trigger = 'test' AND d.next_attempt_at <= now()
    AND d.webhook_id = ANY(%(ids)s::bigint[])
  ORDER BY d.next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
{_TAKE}"""

_CLAIM_QUARANTINED = f"""
WITH wanted AS MATERIALIZED (
  SELECT due.ctid AS place FROM unnest(%(ids)s::bigint[]) AS w(id)
  CROSS JOIN LATERAL (
    SELECT d.ctid FROM webhooks_delivery d
    WHERE d.status = 'pending' AND d.webhook_id = w.id AND d.next_attempt_at <= now()
      AND d.unknown_count >= {QUARANTINE_FROM}
    ORDER BY d.next_attempt_at, d.id LIMIT 1 FOR UPDATE SKIP LOCKED) due LIMIT 1
{_TAKE}"""

# The oldest open row is the head; a head that is sent or waits for a retry blocks the rest.
_CLAIM_HEAD = f"""
WITH head AS MATERIALIZED (
  SELECT d.ctid AS place, d.status, d.next_attempt_at <= now() AS is_due FROM webhooks_delivery d
  WHERE d.id = (SELECT min(x.id) FROM (
      (SELECT id FROM webhooks_delivery WHERE status = 'pending' AND webhook_id = %(id)s
       ORDER BY id LIMIT 1)
      UNION ALL
      (SELECT id FROM webhooks_delivery WHERE status = 'sending' AND webhook_id = %(id)s)) x)
), wanted AS MATERIALIZED (
  SELECT place FROM head WHERE status = 'pending' AND is_due
{_TAKE}"""

_PACING = """
SELECT w.rate_limit, w.rate_limit_seconds, w.concurrency_limit, w.is_ordered,
       EXTRACT(EPOCH FROM COALESCE(s.next_send_at, now()) - now())::float8,
       (SELECT count(*) FROM webhooks_delivery d
        WHERE d.status = 'sending' AND d.webhook_id = w.id)
FROM webhooks_webhookstate s JOIN webhooks_webhook w ON w.id = s.webhook_id
WHERE s.webhook_id = %(id)s FOR UPDATE OF s SKIP LOCKED
"""

_TIMINGS = ["float8"] * 5
_ATTEMPT_TYPES = ["varchar", "int2", "timestamptz", *_TIMINGS, "varchar", "varchar", "text"]
_ATTEMPT_TYPES += ["bytea", "int2", "text", "bytea", "int8", "varchar", "varchar"]
_COPY = f"COPY webhooks_attempt ({', '.join(ATTEMPT_COLUMNS)}) FROM STDIN (FORMAT BINARY)"

_SUCCEEDED = """
UPDATE webhooks_delivery d
SET status = 'succeeded', outcome = 'succeeded', status_code = r.code, lease = '',
    next_attempt_at = NULL, finished_at = now()
FROM unnest(%s::text[], %s::int2[], %s::int2[]) AS r(id, number, code)
WHERE d.id = r.id AND d.status = 'sending' AND d.lease = %s AND d.attempt_count = r.number
RETURNING d.id
"""

_OTHERS = """
UPDATE webhooks_delivery d
SET status = r.status, outcome = r.outcome, status_code = r.code, lease = '',
    hold_reason = r.hold, failure_count = d.failure_count + r.counts,
    next_attempt_at = now() + r.delay * interval '1 second',
    finished_at = CASE WHEN r.status IN ('failed', 'cancelled', 'succeeded') THEN now() END
FROM unnest(%s::text[], %s::int2[], %s::int2[], %s::text[], %s::text[], %s::text[], %s::int2[],
            %s::float8[]) AS r(id, number, code, status, outcome, hold, counts, delay)
WHERE d.id = r.id AND d.status = 'sending' AND d.lease = %s AND d.attempt_count = r.number
RETURNING d.id
"""

_EXPIRE = f"""
WITH late AS MATERIALIZED (
  SELECT d.ctid AS place FROM webhooks_delivery d
  WHERE d.status = 'sending' AND d.next_attempt_at <= now()
  ORDER BY d.next_attempt_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE webhooks_delivery d
SET unknown_count = d.unknown_count + 1, lease = '', outcome = 'unknown', status_code = NULL,
    status = CASE WHEN d.unknown_count + 1 >= {MAX_UNKNOWN} THEN 'parked' ELSE 'pending' END,
    next_attempt_at = CASE WHEN d.unknown_count + 1 < {MAX_UNKNOWN} THEN now() END
WHERE d.ctid = ANY(ARRAY(SELECT place FROM late))
RETURNING d.id, d.webhook_id, d.attempt_count, d.status
"""

_HOLD = """
WITH waiting AS MATERIALIZED (
  SELECT d.ctid AS place FROM webhooks_delivery d
  WHERE d.status = 'pending' AND d.webhook_id = %s AND d.trigger <> 'test'
  ORDER BY d.next_attempt_at LIMIT %s FOR UPDATE SKIP LOCKED)
UPDATE webhooks_delivery d SET status = 'held', hold_reason = %s, next_attempt_at = NULL
WHERE d.ctid = ANY(ARRAY(SELECT place FROM waiting))
"""

_HAND_BACK = """
UPDATE webhooks_delivery d
SET status = 'pending', lease = '', attempt_count = d.attempt_count - 1,
    next_attempt_at = now() + %s * interval '1 second'
FROM unnest(%s::text[], %s::int2[]) AS r(id, number)
WHERE d.id = r.id AND d.status = 'sending' AND d.lease = %s AND d.attempt_count = r.number
"""

_STATE = """
INSERT INTO webhooks_webhookstate AS s
  (webhook_id, last_attempt_at, last_success_at, failing_since_at, last_status_code, last_error)
SELECT r.id, now(), CASE WHEN r.ok THEN now() END, CASE WHEN NOT r.ok THEN now() END, r.code,
       r.error
FROM unnest(%s::bigint[], %s::bool[], %s::int2[], %s::text[]) AS r(id, ok, code, error)
ON CONFLICT (webhook_id) DO UPDATE SET
  last_attempt_at = now(),
  last_success_at = COALESCE(EXCLUDED.last_success_at, s.last_success_at),
  failing_since_at = CASE WHEN EXCLUDED.last_success_at IS NULL
    THEN COALESCE(s.failing_since_at, now()) END,
  last_status_code = EXCLUDED.last_status_code,
  last_error = EXCLUDED.last_error
RETURNING s.webhook_id, EXTRACT(EPOCH FROM now() - s.failing_since_at)::float8
"""


@contextmanager
def _cursor() -> Iterator["psycopg.Cursor[Any]"]:
    """Open a cursor that binds on the server: Django's own would quote every value into the SQL."""
    connection.ensure_connection()
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        yield cursor


_INSERT_EVENTS = """
INSERT INTO webhooks_event (id, type, payload, occurred_at, filtered_count, idempotency_key,
                            fingerprint, source, call_id, created_at)
SELECT *, now() FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::timestamptz[], %s::int[],
                            %s::text[], %s::text[], %s::text[], %s::text[])
"""

_INSERT_DELIVERIES = """
INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, trigger, hold_reason,
    next_attempt_at, attempt_count, failure_count, unknown_count, lease, outcome, created_at)
SELECT *, CASE WHEN status = 'pending' THEN now() END, 0, 0, 0, '', '', now()
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[])
     AS r(id, event_id, webhook_id, status, trigger, hold_reason)
"""


def enqueue(events: Sequence[NewEventRow], deliveries: Sequence[NewDelivery]) -> None:
    """Insert events and their deliveries in the caller's transaction, due at once."""
    with _cursor() as cursor:
        if events:
            cursor.execute(_INSERT_EVENTS, [list(column) for column in zip(*events, strict=True)])
        if deliveries:
            columns = [list(column) for column in zip(*deliveries, strict=True)]
            cursor.execute(_INSERT_DELIVERIES, columns)


def prepare_session() -> None:
    """Pin the plans of this thread's connection; call it after each new connection."""
    with _cursor() as cursor:
        cursor.execute("SET enable_seqscan = off")
        cursor.execute("SET plan_cache_mode = force_custom_plan")
        cursor.execute("SET jit = off")


def reset_session() -> None:
    with _cursor() as cursor:
        cursor.execute("RESET ALL")


def clock() -> float:
    """Return the database's Unix time in seconds."""
    with _cursor() as cursor:
        row = cursor.execute("SELECT EXTRACT(EPOCH FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0])


def candidates() -> list[Candidate]:
    with _cursor() as cursor:
        return [Candidate(*row) for row in cursor.execute(_CANDIDATES)]


def _take(sql: str, parameters: dict[str, Any]) -> list[Claimed]:
    with transaction.atomic(), _cursor() as cursor:
        cursor.execute(sql, parameters, binary=True)
        return [Claimed(*row) for row in cursor.fetchall()]


def claim(wants: Sequence[Want], *, lease: str, lease_seconds: float) -> list[Claimed]:
    """Take due rows of several webhooks, each up to its quota, oldest first."""
    return _take(
        _CLAIM,
        {
            "ids": [want.webhook_id for want in wants],
            "quotas": [want.quota for want in wants],
            "lease": lease,
            "lease_seconds": lease_seconds,
        },
    )


def claim_tests(
    webhook_ids: list[int], *, limit: int, lease: str, lease_seconds: float
) -> list[Claimed]:
    """Take test deliveries, which pass every limit."""
    return _take(
        _CLAIM_TESTS,
        {"ids": webhook_ids, "limit": limit, "lease": lease, "lease_seconds": lease_seconds},
    )


def claim_quarantined(webhook_ids: list[int], *, lease: str, lease_seconds: float) -> list[Claimed]:
    """Take one row that was in flight at several crashes."""
    return _take(
        _CLAIM_QUARANTINED, {"ids": webhook_ids, "lease": lease, "lease_seconds": lease_seconds}
    )


def claim_paced(webhook_id: int, *, quota: int, lease: str, lease_seconds: float) -> list[Claimed]:
    """Take rows of a webhook with a limit or an order, under the lock of its state row."""
    with transaction.atomic(), _cursor() as cursor:
        cursor.execute(
            "INSERT INTO webhooks_webhookstate (webhook_id, last_error) VALUES (%s, '') "
            "ON CONFLICT DO NOTHING",
            [webhook_id],
        )
        pacing = cursor.execute(_PACING, {"id": webhook_id}).fetchone()
        if pacing is None:
            return []
        rate, per_seconds, concurrency, is_ordered, ahead_seconds, sending = pacing
        if concurrency is not None:
            quota = min(quota, concurrency - sending)
        spacing = per_seconds / rate if rate else 0.0
        if rate:
            # GCRA with a burst of one second's worth (at least one request).
            burst_seconds = max(spacing, min(1.0, per_seconds))
            quota = min(quota, int((burst_seconds - max(ahead_seconds, 0.0)) / spacing + 1e-9))
        if quota <= 0:
            return []
        parameters = {
            "id": webhook_id,
            "ids": [webhook_id],
            "quotas": [quota],
            "lease": lease,
            "lease_seconds": lease_seconds,
        }
        cursor.execute(_CLAIM_HEAD if is_ordered else _CLAIM, parameters, binary=True)
        claimed = [Claimed(*row) for row in cursor.fetchall()]
        if rate and claimed:
            cursor.execute(
                "UPDATE webhooks_webhookstate SET next_send_at = "
                "GREATEST(COALESCE(next_send_at, now()), now()) + %s * interval '1 second' "
                "WHERE webhook_id = %s",
                [spacing * len(claimed), webhook_id],
            )
        return claimed


def record(results: Sequence[Result], *, lease: str, is_repeat: bool = False) -> int:
    """Write attempts and deliveries in one transaction; return how many deliveries were ours.

    A delivery whose lease was lost keeps what its new owner wrote. With `is_repeat` the previous
    try may have been committed before the connection broke, so that only attempts of deliveries
    that are still ours are written.
    """
    with transaction.atomic(), _cursor() as cursor:
        ours = _finish(cursor, results, lease)
        rows: Iterable[Result] = results
        if is_repeat:
            rows = [result for result in results if result.delivery_id in ours]
        with cursor.copy(_COPY) as copy:
            copy.set_types(_ATTEMPT_TYPES)
            for result in rows:
                copy.write_row(result.attempt)
    return len(ours)


def _finish(cursor: "psycopg.Cursor[Any]", results: Sequence[Result], lease: str) -> set[str]:
    ours: set[str] = set()
    succeeded = [result for result in results if result.status == "succeeded"]
    if succeeded:
        cursor.execute(
            _SUCCEEDED,
            [
                [result.delivery_id for result in succeeded],
                [result.number for result in succeeded],
                [result.status_code for result in succeeded],
                lease,
            ],
        )
        ours.update(row[0] for row in cursor.fetchall())
    others = [result for result in results if result.status != "succeeded"]
    if others:
        cursor.execute(
            _OTHERS,
            [
                [result.delivery_id for result in others],
                [result.number for result in others],
                [result.status_code for result in others],
                [result.status for result in others],
                [result.outcome for result in others],
                [result.hold_reason for result in others],
                [int(result.counts) for result in others],
                [result.delay_seconds for result in others],
                lease,
            ],
        )
        ours.update(row[0] for row in cursor.fetchall())
    return ours


def write_states(changes: Sequence[StateChange]) -> list[tuple[int, float | None]]:
    """Note the health of webhooks; return (webhook id, seconds it has been failing or None)."""
    # Sorted, so that two workers lock the rows in the same order.
    ordered = sorted(changes)
    with transaction.atomic(), _cursor() as cursor:
        cursor.execute(
            _STATE,
            [
                [change.webhook_id for change in ordered],
                [change.succeeded for change in ordered],
                [change.status_code for change in ordered],
                [change.error for change in ordered],
            ],
        )
        return [(row[0], row[1]) for row in cursor.fetchall()]


def expire(limit: int = 500) -> list[Expired]:
    """Take back rows whose lease ended: pending again, or parked after too many."""
    with transaction.atomic(), _cursor() as cursor:
        expired = [Expired(*row) for row in cursor.execute(_EXPIRE, [limit])]
        if expired:
            cursor.execute(
                "INSERT INTO webhooks_attempt (delivery_id, number, started_at, remote_address, "
                "request_line, request_headers, response_headers, response_body, response_size, "
                "outcome, error) SELECT r.id, r.number, now(), '', '', '', '', '', 0, 'unknown', "
                "%s FROM unnest(%s::text[], %s::int2[]) AS r(id, number)",
                [
                    DIED,
                    [row.id for row in expired],
                    [row.number for row in expired],
                ],
            )
        return expired


def hold(webhook_id: int, reason: str, limit: int = 1000) -> int:
    """Hold waiting deliveries of a webhook, except tests; return how many (at most `limit`)."""
    with transaction.atomic(), _cursor() as cursor:
        return cursor.execute(_HOLD, [webhook_id, limit, reason]).rowcount


def hand_back(claims: Sequence[Claimed], *, lease: str, delay_seconds: float = 0.0) -> None:
    """Return rows that were claimed and not sent, as if they had never been claimed."""
    with transaction.atomic(), _cursor() as cursor:
        cursor.execute(
            _HAND_BACK,
            [delay_seconds, [row.id for row in claims], [row.number for row in claims], lease],
        )
