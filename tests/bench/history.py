"""A month of log made by SQL: deliveries of many webhooks, most of them successful.

Ids are made as `webhooks.models.ids` makes them, so that time and key agree as in a real log.
`fill` is for PostgreSQL, after `make_partitions`, and `fill_file` for SQLite; both only use the
tables.
"""

import datetime as dt
import json
import random
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

import psycopg

DAYS = 30
WEBHOOKS = 200
_CHUNK = 250_000

# The first ten characters of an id: the time `ms` in Crockford's base 32.
TIME_KEY = "||".join(
    f"substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (ms >> {shift} & 31)::int + 1, 1)"
    for shift in range(45, -1, -5)
)
# One event and one delivery per row; one in a hundred failed after five attempts.
_CHUNK_SQL = f"""
WITH r AS MATERIALIZED (
  SELECT i, to_timestamp(ms / 1000.0) AS moment, {TIME_KEY} || lpad(i::text, 16, '0') AS id,
    webhook, kind
  FROM (
    SELECT i, (%(begins)s + i * %(step)s)::bigint AS ms,
      -- A few webhooks send most, as everywhere.
      (%(webhooks)s::bigint[])[1 + floor(%(count)s * random() ^ 3)::int] AS webhook,
      floor(random() * 1000)::int AS kind
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) i
  ) s
), e AS (
  INSERT INTO webhooks_event (id, type, payload, occurred_at, filtered_count, fingerprint, source,
                              call_id, caller_digits, callee_digits, created_at)
  SELECT 'evt_' || id,
    CASE WHEN i %% 5 = 0 THEN 'call.outgoing.after' ELSE 'call.incoming.after' END,
    convert_to('{{"id": "evt_' || id || '", "data": {{"call_id": "call-' || i || '", "note": "'
      || repeat('x', 300) || '"}}}}', 'UTF8'), moment, 0, '', 'bench', 'call-' || i,
    reverse((380670000000 + i * 7919 %% 300000)::text), reverse((380440000000 + i %% 50)::text),
    moment FROM r
), d AS (
  INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, trigger, hold_reason,
      next_attempt_at, attempt_count, failure_count, unknown_count, lease, outcome, status_code,
      created_at, finished_at)
  SELECT 'dlv_' || id, 'evt_' || id, webhook,
    CASE WHEN kind < 10 THEN 'failed' WHEN kind < 14 THEN 'held' WHEN kind < 16 THEN 'cancelled'
      WHEN kind < 17 THEN 'parked' WHEN kind < 18 THEN 'pending' ELSE 'succeeded' END,
    CASE WHEN kind < 2 THEN 'resent' WHEN kind = 500 THEN 'test' ELSE 'event' END,
    CASE WHEN kind BETWEEN 10 AND 13 THEN 'paused' ELSE '' END,
    CASE WHEN kind = 17 THEN now() + interval '1 day' END,
    CASE WHEN kind < 10 THEN 5 WHEN kind < 17 THEN 0 ELSE 1 END,
    CASE WHEN kind < 10 THEN 5 WHEN kind = 17 THEN 1 ELSE 0 END, 0, '',
    CASE WHEN kind < 5 THEN 'server_error' WHEN kind < 10 THEN 'timeout' WHEN kind < 17 THEN ''
      WHEN kind = 17 THEN 'server_error' ELSE 'succeeded' END,
    CASE WHEN kind < 5 OR kind = 17 THEN 503 WHEN kind < 17 THEN NULL ELSE 200 END,
    moment, CASE WHEN kind BETWEEN 10 AND 17 THEN NULL ELSE moment END FROM r
)
INSERT INTO webhooks_attempt (delivery_id, number, started_at, first_byte_ms, total_ms,
    remote_address, request_line, request_headers, status_code, response_headers, response_body,
    response_size, outcome, error)
SELECT 'dlv_' || id, number, moment + number * interval '1 minute', 20, 30, '127.0.0.1',
  'POST http://127.0.0.1/hook HTTP/1.1', repeat('x', 300),
  CASE WHEN kind BETWEEN 5 AND 9 THEN NULL WHEN kind < 18 THEN 503 ELSE 200 END,
  repeat('y', 120), '', 0, CASE WHEN kind BETWEEN 5 AND 9 THEN 'timeout'
  WHEN kind < 18 THEN 'server_error' ELSE 'succeeded' END, ''
FROM r, generate_series(1, CASE WHEN kind < 10 THEN 5 WHEN kind < 17 THEN 0 ELSE 1 END) number
"""
_HOURS_SQL = """
INSERT INTO webhooks_hourlycount (webhook_id, hour, outcome, duration_step, count)
SELECT webhook, date_trunc('hour', now()) - hours * interval '1 hour', outcome, step, 7
FROM unnest(%(webhooks)s::bigint[]) webhook, generate_series(0, 24 * %(days)s) hours,
  (VALUES ('succeeded', 16), ('succeeded', 17), ('succeeded', 18), ('succeeded', 20),
          ('server_error', 19), ('timeout', 42)) kinds(outcome, step)
"""
_AUDIT_SQL = """
INSERT INTO webhooks_auditentry (at, username, action, object_type, object_id, object_name, fields,
                                 note, webhook_id)
SELECT now(), 'admin', 'changed', 'webhook', webhook::text, 'Webhook ' || webhook, '["url"]', '',
  webhook
FROM generate_series(1, %(entries)s) i, unnest(%(webhooks)s::bigint[]) webhook
"""
_EXCHANGES_SQL = """
INSERT INTO webhooks_oauthexchange (credential_id, kind, started_at, duration_ms, url, status_code,
                                    result, request, response, message)
SELECT credential_id, 'refresh', now(), 80, 'https://id.example.com/token', 200, 'ok', '', '', ''
FROM generate_series(1, %(entries)s) i, webhooks_webhook WHERE id = ANY(%(webhooks)s::bigint[])
"""
_INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE tablename IN ('webhooks_event', 'webhooks_delivery', 'webhooks_attempt')
  AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""
# Ignores scans whose estimated cost is near zero: empty partitions or a single leftover page.
_SCAN = re.compile(
    r"Seq Scan on webhooks_(?:delivery|attempt|event|hourlycount|auditentry|oauthexchange)"
    r"(?:_\w+)?\b[^(]*\(cost=(?!0\.\d\d\.\.[01]\.\d)"
)
_TABLES = "webhooks_event, webhooks_delivery, webhooks_attempt, webhooks_hourlycount"


def make_partitions() -> None:
    """Make the partitions that a log of one month has."""
    from webhooks.delivery.queue import partitions

    now = dt.datetime.now(dt.UTC)
    partitions.make(now - dt.timedelta(days=DAYS), now)


def fill(database: psycopg.Connection[Any], webhooks: list[int], rows: int) -> Iterator[int]:
    """Write a month of `rows` deliveries that ends now; yield the number written so far."""
    milliseconds = DAYS * 86400 * 1000
    parameters: dict[str, Any] = {
        "webhooks": webhooks,
        "count": len(webhooks),
        "days": DAYS,
        "step": milliseconds / rows,
        "entries": max(min(rows // 20_000, 500), 40),
    }
    [[now]] = database.execute("SELECT EXTRACT(EPOCH FROM now())::float8 * 1000").fetchall()
    parameters["begins"] = now - milliseconds
    indexes = _drop_indexes(database)
    for first in range(0, rows, _CHUNK):
        last = min(first + _CHUNK, rows) - 1
        database.execute(_CHUNK_SQL.encode(), {**parameters, "first": first, "last": last})
        yield last + 1
    for definition in indexes:
        database.execute(definition.encode())
    for statement in (_HOURS_SQL, _AUDIT_SQL, _EXCHANGES_SQL):
        database.execute(statement.encode(), parameters)


def _drop_indexes(database: psycopg.Connection[Any]) -> list[str]:
    """Drop indexes that are faster to rebuild at the end; return their CREATE statements."""
    found = database.execute(_INDEXES).fetchall()
    for name, _definition in found:
        database.execute(f'DROP INDEX "{name}"'.encode())
    # Create the indexes on the partitions too.
    return [definition.replace(" ON ONLY ", " ON ") for _name, definition in found]


def has_scan(plan: str) -> bool:
    """Return whether PostgreSQL's plan scans a growing table sequentially.

    The partition in which the month begins is ignored, and so is one that began within a day: they
    may have only a few pages.
    """
    from webhooks.delivery.queue import partitions

    now = dt.datetime.now(dt.UTC)
    begins_at, yesterday = now - dt.timedelta(days=DAYS), now - dt.timedelta(days=1)
    small = [
        one.name.removeprefix(one.table)
        for one in partitions.partitions("webhooks_delivery")
        if one.begins_at <= begins_at < one.ends_at or yesterday < one.begins_at <= now
    ]
    lines = [line for line in plan.splitlines() if not any(name in line for name in small)]
    return _SCAN.search("\n".join(lines)) is not None


def settle(database: psycopg.Connection[Any]) -> None:
    """Gather statistics, as autovacuum does over time."""
    database.execute(f"VACUUM (ANALYZE) {_TABLES}".encode())
    database.execute("ANALYZE")
    database.execute("CHECKPOINT")


_EVENT = """
INSERT INTO webhooks_event (id, type, payload, occurred_at, filtered_count, fingerprint, source,
    copy_of, call_id, caller_digits, callee_digits, created_at)
VALUES (?, ?, ?, ?, 0, '', 'bench', '', ?, ?, ?, ?)
"""
_DELIVERY = """
INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, "trigger", hold_reason,
    next_attempt_at, attempt_count, failure_count, unknown_count, lease, outcome, status_code,
    created_at, finished_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, '', ?, ?, ?, ?)
"""
_ATTEMPT = """
INSERT INTO webhooks_attempt (delivery_id, number, started_at, first_byte_ms, total_ms,
    remote_address, request_line, request_headers, status_code, response_headers, response_body,
    response_size, outcome, error)
VALUES (?, 1, ?, 20, 30, '127.0.0.1', 'POST http://127.0.0.1/hook HTTP/1.1', ?, ?, ?, '', 0, ?, '')
"""
_HOUR = """
INSERT INTO webhooks_hourlycount (webhook_id, hour, outcome, duration_step, count)
VALUES (?, ?, ?, ?, 7)
"""
# The cumulative share of each status in a thousand, with its outcome and status code.
_KINDS = [
    (10, "failed", "timeout", None), (14, "held", "", None), (16, "cancelled", "", None),
    (17, "parked", "", None), (18, "pending", "server_error", 503),
    (1000, "succeeded", "succeeded", 200),
]  # fmt: skip


def _time_key(moment: dt.datetime) -> str:
    milliseconds = int(moment.timestamp() * 1000)
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    return "".join(letters[milliseconds >> shift & 31] for shift in range(45, -1, -5))


def fill_file(database: sqlite3.Connection, webhooks: list[int], rows: int) -> Iterator[int]:
    """Write the same history into an SQLite file, with one attempt per delivery."""
    chance = random.Random(1)
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    step = dt.timedelta(days=DAYS) / rows
    database.execute("PRAGMA synchronous = OFF")
    for first in range(0, rows, _CHUNK // 10):
        events, deliveries, attempts = [], [], []
        for number in range(first, min(first + _CHUNK // 10, rows)):
            moment = now - step * (rows - number)
            at = str(moment)
            key = f"_{_time_key(moment.replace(tzinfo=dt.UTC))}{number:016d}"
            kind = chance.randrange(1000)
            _, status, outcome, code = next(one for one in _KINDS if kind < one[0])
            webhook = webhooks[int(len(webhooks) * chance.random() ** 3)]
            caller, callee = 380670000000 + number * 7919 % 300000, 380440000000 + number % 50
            type = "call.outgoing.after" if number % 5 == 0 else "call.incoming.after"
            payload = json.dumps({"event": type, "call_id": f"call-{number}", "note": "x" * 300})
            events.append(
                (f"evt{key}", type, payload.encode(), at, f"call-{number}", str(caller)[::-1],
                 str(callee)[::-1], at)
            )  # fmt: skip
            trigger = "resent" if kind < 2 else "test" if kind == 500 else "event"
            due_at = str(now + dt.timedelta(days=1)) if status == "pending" else None
            reason = "paused" if status == "held" else ""
            deliveries.append(
                (f"dlv{key}", f"evt{key}", webhook, status, trigger, reason, due_at,
                 int(bool(outcome)), outcome, code, at, at)
            )  # fmt: skip
            if outcome:
                attempts.append((f"dlv{key}", at, "x" * 300, code, "y" * 120, outcome))
        database.executemany(_EVENT, events)
        database.executemany(_DELIVERY, deliveries)
        database.executemany(_ATTEMPT, attempts)
        yield number + 1
    hour = now.replace(minute=0, second=0, microsecond=0)
    outcomes = [("succeeded", 16), ("succeeded", 18), ("server_error", 19), ("timeout", 42)]
    database.executemany(
        _HOUR,
        [
            (webhook, str(hour - dt.timedelta(hours=back)), outcome, step_)
            for webhook in webhooks
            for back in range(24 * DAYS)
            for outcome, step_ in outcomes
        ],
    )
