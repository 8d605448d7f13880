"""The statements of the queue on PostgreSQL; `postgres` explains why they look as they do."""

from webhooks.delivery.queue.rows import (
    ATTEMPT_COLUMNS,
    LARGE_EVENT_BYTES,
    MAX_UNKNOWN,
    QUARANTINE_FROM,
    VERSION,
)

IS_PACED = """(w.rate_limit IS NOT NULL OR w.concurrency_limit IS NOT NULL OR w.is_ordered)"""

EVENTS = "SELECT id, payload FROM webhooks_event WHERE id = ANY(%s::text[])"

# The payloads of small events, and the sizes of all. Each event is looked up by its key, whatever
# the statistics say.
SMALL_EVENTS = f"""
SELECT wanted.id, CASE WHEN octet_length(e.payload) <= {LARGE_EVENT_BYTES} THEN e.payload END,
  octet_length(e.payload)
FROM unnest(%s::text[]) AS wanted(id) CROSS JOIN LATERAL (
  SELECT payload FROM webhooks_event WHERE id = wanted.id OFFSET 0) e
"""

# The oldest open row of webhook w is the head; while it is sent, held or waits for a retry, it
# blocks the rest. If the statistics know of no open row, other indexes look as good as the partial
# ones, such as the index of all rows in their order: only `delivery_in_order` and `delivery_held`
# have the order by both columns.
HEAD = """SELECT {columns} FROM webhooks_delivery d WHERE d.id = ANY(ARRAY(SELECT min(x.id) FROM (
      (SELECT id FROM webhooks_delivery
       WHERE status = 'pending' AND webhook_id >= w.id AND webhook_id <= w.id
       ORDER BY webhook_id, id LIMIT 1)
      UNION ALL
      (SELECT id FROM webhooks_delivery WHERE status = 'sending' AND webhook_id = w.id)
      UNION ALL
      (SELECT id FROM webhooks_delivery
       WHERE status = 'held' AND webhook_id >= w.id AND webhook_id <= w.id
       ORDER BY webhook_id, id LIMIT 1)) x))"""
HEAD_SECONDS = """CASE WHEN d.status = 'pending'
    THEN EXTRACT(EPOCH FROM d.next_attempt_at - now())::float8 END"""

# Checked first: the index of tests alone answers it, whatever the statistics say. The list of
# webhooks with tests may be read from all waiting rows, in a partition that was empty at planning.
_HAS_TESTS = """EXISTS (
    SELECT FROM webhooks_delivery WHERE status = 'pending' AND trigger = 'test')"""

# Each table is behind OFFSET 0: with plain joins, all webhooks were read once for each waiting one,
# since the shard condition makes the planner expect few, as does a table that was empty.
_OF_CREDENTIAL = """CROSS JOIN LATERAL (
  SELECT id, version, authorization_type FROM webhooks_credential
  WHERE id = w.credential_id OFFSET 0) c
LEFT JOIN LATERAL (
  SELECT version, refused_version FROM webhooks_oauthtoken
  WHERE credential_id = w.credential_id AND c.authorization_type = 'oauth2' OFFSET 0) t ON true"""
_FACTS = f"""
SELECT w.id, {VERSION}, COALESCE(t.version, 0), COALESCE(t.refused_version, 0),
  w.is_active AND w.deleted_at IS NULL AND w.cancels_before IS NULL, {IS_PACED},
  {_HAS_TESTS} AND w.deleted_at IS NULL AND w.id IN (
    SELECT webhook_id FROM webhooks_delivery
    WHERE status = 'pending' AND trigger = 'test' AND next_attempt_at <= now()),
  EXISTS (SELECT FROM webhooks_delivery
          WHERE status = 'pending' AND unknown_count >= {QUARANTINE_FROM}
            AND webhook_id %% %(shards)s = ANY(%(numbers)s::int[])),
  w.rate_limit, w.rate_limit_seconds,
  EXTRACT(EPOCH FROM COALESCE(s.next_send_at, now()) - now())::float8,
  w.concurrency_limit - CASE WHEN w.concurrency_limit IS NOT NULL THEN
    (SELECT count(*) FROM webhooks_delivery WHERE status = 'sending' AND webhook_id = w.id) END,
  CASE WHEN w.is_ordered THEN ({HEAD.format(columns=HEAD_SECONDS)}) ELSE 0 END, {{has_one_row}}
FROM {{waiting}} waiting
CROSS JOIN LATERAL (
  SELECT id, version, credential_id, is_active, deleted_at, cancels_before, rate_limit,
    rate_limit_seconds, concurrency_limit, is_ordered
  FROM webhooks_webhook WHERE id = waiting.webhook_id OFFSET 0) w
{_OF_CREDENTIAL}
LEFT JOIN LATERAL (
  SELECT next_send_at FROM webhooks_webhookstate
  WHERE webhook_id = w.id AND w.rate_limit IS NOT NULL OFFSET 0) s ON true
WHERE waiting.next_attempt_at <= now()
  AND waiting.webhook_id %% %(shards)s = ANY(%(numbers)s::int[])
"""

# A loose index scan: one probe per webhook with pending rows, however many rows it has, for at most
# `limit` webhooks. Of rows due since a time, it reads no entry of an earlier one in the table.
_WAITING = """
WITH RECURSIVE waiting(webhook_id, next_attempt_at, number) AS (
  (SELECT webhook_id, next_attempt_at, 1 FROM webhooks_delivery
   WHERE status = 'pending' AND webhook_id > %(after)s {since}
   ORDER BY webhook_id, next_attempt_at LIMIT 1)
  UNION ALL
  SELECT following.*, waiting.number + 1 FROM waiting CROSS JOIN LATERAL (
    SELECT d.webhook_id, d.next_attempt_at FROM webhooks_delivery d
    WHERE d.status = 'pending' AND d.webhook_id > waiting.webhook_id {since}
    ORDER BY d.webhook_id, d.next_attempt_at LIMIT 1) following
  WHERE waiting.number < %(limit)s
)
"""
_SINCE = "AND next_attempt_at >= to_timestamp(%(since)s)"
# Which of these webhooks have due rows.
WALK = f"""{_WAITING.format(since="")}
SELECT webhook_id,
  next_attempt_at <= now() AND webhook_id %% %(shards)s = ANY(%(numbers)s::int[])
FROM waiting
"""
# The candidates among these. Always returns a row, with the last webhook, how many webhooks were
# read, and the seconds until the next row is due.
PAGE = f"""{_WAITING.format(since=_SINCE)}
SELECT looked.*, facts.* FROM (
  SELECT max(webhook_id), max(number), EXTRACT(EPOCH FROM min(next_attempt_at)
    FILTER (WHERE webhook_id %% %(shards)s = ANY(%(numbers)s::int[])) - now())::float8
  FROM waiting) looked
LEFT JOIN ({_FACTS.format(waiting="", has_one_row="false")}) facts ON true
"""

# The same for given webhooks: those that still have due rows.
CANDIDATES = _FACTS.format(
    waiting="""(
  SELECT u.id AS webhook_id, rows.* FROM unnest(%(ids)s::bigint[]) AS u(id)
  CROSS JOIN LATERAL (SELECT min(next_attempt_at) AS next_attempt_at, count(*) AS count FROM (
    SELECT next_attempt_at FROM webhooks_delivery WHERE status = 'pending' AND webhook_id = u.id
    ORDER BY next_attempt_at LIMIT 2) first) rows)""",
    has_one_row="waiting.count = 1",
)

# The newest first, so that no backlog hides new rows. The index can only be used with the condition
# on the year 2000.
BECAME_DUE = """
SELECT webhook_id, EXTRACT(EPOCH FROM next_attempt_at)::float8 FROM webhooks_delivery
WHERE status = 'pending' AND next_attempt_at > '2000-01-01Z'
  AND next_attempt_at > to_timestamp(%(since)s) AND next_attempt_at <= now()
  AND webhook_id %% %(shards)s = ANY(%(numbers)s::int[])
ORDER BY next_attempt_at DESC LIMIT %(limit)s
"""

# A place is unique only within a partition, so the id selects that. The lease counts from
# clock_timestamp(): counted from now(), it could be over when a statement that waited ends. The
# statement itself updates rows, and the next one reads events: PostgreSQL 18.6 crashes where one
# part (WITH) updates rows of a partitioned table by id that another part locks webhook by webhook,
# if that met a row that was changed a moment before.
TAKE = """
)
UPDATE webhooks_delivery d
SET status = 'sending', lease = %(lease)s, attempt_count = attempt_count + 1,
    next_attempt_at = clock_timestamp() + %(lease_seconds)s * interval '1 second'
FROM wanted WHERE d.id = wanted.id AND d.ctid = wanted.place
RETURNING d.id, d.webhook_id, d.event_id, d.attempt_count, d.failure_count, d.trigger
"""

# Locks a found row. A row that was changed a moment before is read again, by the whole statement,
# and there PostgreSQL 18.6 crashes where a part chooses the partition by an id that it reads: so
# such an id is in an array, for which it looks into each partition's index.
_LOCKED = """
    SELECT d.id, d.ctid AS place FROM webhooks_delivery d
    WHERE d.id = ANY(ARRAY(SELECT {found}.id)) AND d.ctid = {found}.place
    FOR UPDATE SKIP LOCKED"""

# Claimed rows whose event is gone: there is nothing to send.
CANCEL_LOST = """
UPDATE webhooks_delivery
SET status = 'cancelled', lease = '', next_attempt_at = NULL, finished_at = now()
WHERE id = ANY(%s) AND lease = %s
"""

CLAIM = f"""
WITH wanted AS MATERIALIZED (
  SELECT due.id, due.ctid AS place
  FROM unnest(%(ids)s::bigint[], %(quotas)s::int[]) AS w(id, quota)
  CROSS JOIN LATERAL (
    SELECT d.id, d.ctid FROM webhooks_delivery d
    WHERE d.status = 'pending' AND d.webhook_id = w.id AND d.next_attempt_at <= now()
      {_SINCE} AND d.unknown_count < {QUARANTINE_FROM}
    ORDER BY d.next_attempt_at LIMIT w.quota FOR UPDATE SKIP LOCKED) due
{TAKE}"""

# The rows of these webhooks among the oldest that are due, without tests: one search instead of one
# for each webhook. The others among the oldest stay unlocked, as another drain may want them.
_OLDEST = f"""
WITH due AS MATERIALIZED (
  SELECT d.id, d.ctid AS place, d.webhook_id,
    d.unknown_count < {QUARANTINE_FROM} AND d.trigger <> 'test'
      AND d.webhook_id = ANY(%(ids)s::bigint[]) AS is_wanted
  FROM webhooks_delivery d
  WHERE d.status = 'pending' AND d.next_attempt_at > '2000-01-01Z' AND d.next_attempt_at <= now()
    {_SINCE}
  ORDER BY d.next_attempt_at LIMIT %(limit)s
)"""
_FREE_OF_DUE = f"""CROSS JOIN LATERAL ({_LOCKED.format(found="due")}) free
  WHERE due.is_wanted"""
CLAIM_OLDEST = f"""{_OLDEST}, wanted AS MATERIALIZED (
  SELECT free.* FROM due {_FREE_OF_DUE}
{TAKE}, EXISTS (SELECT FROM due WHERE NOT is_wanted)"""

# A few of these rows, without a look before: of webhooks that have no limit and need not wait now.
# With the versions that their plans are made from, the payloads of small events (by an id in an
# array as well), and how many rows were among the oldest.
CLAIM_FEW = f"""{_OLDEST}, wanted AS MATERIALIZED (
  SELECT free.*, {VERSION} AS version, t.version AS token_version, t.refused_version
  FROM due
  CROSS JOIN LATERAL (
    SELECT version, credential_id FROM webhooks_webhook w
    WHERE id = due.webhook_id AND is_active AND deleted_at IS NULL AND cancels_before IS NULL
      AND NOT {IS_PACED} OFFSET 0) w
  {_OF_CREDENTIAL}
  {_FREE_OF_DUE}
{TAKE}, wanted.version, COALESCE(wanted.token_version, 0), COALESCE(wanted.refused_version, 0),
  (SELECT CASE WHEN octet_length(payload) <= {LARGE_EVENT_BYTES} THEN payload END
   FROM webhooks_event WHERE id = ANY(ARRAY(SELECT d.event_id))),
  (SELECT count(*) FROM due)"""

# All due tests are listed first: there are few, and the index of tests alone finds them.
CLAIM_TESTS = f"""
WITH tests AS MATERIALIZED (
  SELECT d.id, d.webhook_id FROM webhooks_delivery d
  WHERE d.status = 'pending' AND d.trigger = 'test' AND d.next_attempt_at <= now()
    AND (d.unknown_count >= {QUARANTINE_FROM}) = %(is_quarantine)s
), wanted AS MATERIALIZED (
  SELECT free.* FROM unnest(%(ids)s::bigint[], %(quotas)s::int[]) AS w(id, quota)
  CROSS JOIN LATERAL (
    SELECT d.id, d.ctid AS place FROM webhooks_delivery d
    WHERE d.id = ANY(ARRAY(SELECT id FROM tests WHERE webhook_id = w.id)) AND d.status = 'pending'
    ORDER BY d.next_attempt_at LIMIT w.quota FOR UPDATE SKIP LOCKED) free
  LIMIT %(limit)s
{TAKE}"""

CLAIM_QUARANTINED = f"""
WITH wanted AS MATERIALIZED (
  SELECT due.id, due.ctid AS place FROM unnest(%(ids)s::bigint[]) AS w(id)
  CROSS JOIN LATERAL (
    SELECT d.id, d.ctid FROM webhooks_delivery d
    WHERE d.status = 'pending' AND d.webhook_id = w.id AND d.next_attempt_at <= now()
      AND d.unknown_count >= {QUARANTINE_FROM}
    ORDER BY d.next_attempt_at LIMIT 1 FOR UPDATE SKIP LOCKED) due LIMIT 1
{TAKE}"""

_HEAD_COLUMNS = "d.id, d.ctid AS place, d.status, d.next_attempt_at AS due_at, d.unknown_count"
CLAIM_HEADS = f"""
WITH heads AS MATERIALIZED (
  SELECT head.* FROM unnest(%(ids)s::bigint[]) AS w(id) CROSS JOIN LATERAL (
    {HEAD.format(columns=_HEAD_COLUMNS)}) head
), wanted AS MATERIALIZED (
  SELECT free.* FROM heads CROSS JOIN LATERAL ({_LOCKED.format(found="heads")}) free
  WHERE heads.status = 'pending' AND heads.due_at <= now()
    AND (heads.unknown_count >= {QUARANTINE_FROM}) = %(is_quarantine)s LIMIT %(limit)s
{TAKE}"""

ADD_STATES = """
INSERT INTO webhooks_webhookstate (webhook_id, last_error)
SELECT id, '' FROM unnest(%s::bigint[]) AS w(id)
WHERE NOT EXISTS (SELECT FROM webhooks_webhookstate WHERE webhook_id = w.id)
ON CONFLICT DO NOTHING
"""

# Apart from PACING: only a statement after the lock counts what the previous holder wrote.
LOCK_STATES = """
SELECT webhook_id FROM webhooks_webhookstate WHERE webhook_id = ANY(%s)
ORDER BY webhook_id FOR UPDATE SKIP LOCKED
"""

PACING = """
SELECT w.id, w.rate_limit, w.rate_limit_seconds, w.concurrency_limit, w.is_ordered,
       EXTRACT(EPOCH FROM COALESCE(s.next_send_at, now()) - now())::float8,
       (SELECT count(*) FROM webhooks_delivery d
        WHERE d.status = 'sending' AND d.webhook_id = w.id)
FROM webhooks_webhookstate s JOIN webhooks_webhook w ON w.id = s.webhook_id
WHERE s.webhook_id = ANY(%s)
"""

PACED = """
UPDATE webhooks_webhookstate s SET next_send_at = now() + r.seconds * interval '1 second'
FROM unnest(%s::bigint[], %s::float8[]) AS r(id, seconds) WHERE s.webhook_id = r.id
"""

_TIMINGS = ["float8"] * 5
ATTEMPT_TYPES = ["varchar", "int2", "timestamptz", *_TIMINGS, "varchar", "varchar", "text"]
ATTEMPT_TYPES += ["bytea", "int2", "text", "bytea", "int8", "varchar", "varchar"]
COPY = f"COPY webhooks_attempt ({', '.join(ATTEMPT_COLUMNS)}) FROM STDIN (FORMAT BINARY)"

# Each row is looked up by its key, whatever the statistics say. So the status is no condition (the
# lease alone says that a row is being sent), and the lease is a column behind OFFSET 0: a constant
# would make the planner expect one row and read the whole table to find it. A row that waits as it
# did before its claim is ours as well: a crash of the server lost that claim.
_IS_OURS = """(d.lease = r.lease AND d.attempt_count = r.number
    OR d.lease = '' AND d.attempt_count = r.number - 1 AND d.next_attempt_at IS NOT NULL)"""
SUCCEEDED = f"""
UPDATE webhooks_delivery d
SET status = 'succeeded', outcome = 'succeeded', status_code = r.code, lease = '',
    attempt_count = r.number, next_attempt_at = NULL, finished_at = now()
FROM (SELECT * FROM unnest(%s::text[], %s::int2[], %s::int2[]) AS u(id, number, code),
      (SELECT %s::text AS lease) l OFFSET 0) r
WHERE d.id = r.id AND {_IS_OURS}
RETURNING d.id
"""

OTHERS = f"""
UPDATE webhooks_delivery d
SET status = r.status, outcome = r.outcome, status_code = r.code, lease = '',
    hold_reason = r.hold, attempt_count = r.number, failure_count = d.failure_count + r.counts,
    unknown_count = 0, next_attempt_at = now() + r.delay * interval '1 second',
    finished_at = CASE WHEN r.status IN ('failed', 'cancelled', 'succeeded') THEN now() END
FROM (SELECT * FROM unnest(%s::text[], %s::int2[], %s::int2[], %s::text[], %s::text[], %s::text[],
                           %s::int2[], %s::float8[])
        AS u(id, number, code, status, outcome, hold, counts, delay),
      (SELECT %s::text AS lease) l OFFSET 0) r
WHERE d.id = r.id AND {_IS_OURS}
RETURNING d.id
"""

# Few results in one round trip; many are faster in separate statements with a binary COPY.
RECORD_FEW = f"""
WITH done AS ({OTHERS}), logged AS (
  INSERT INTO webhooks_attempt ({", ".join(ATTEMPT_COLUMNS)})
  SELECT * FROM unnest({", ".join(f"%s::{type}[]" for type in ATTEMPT_TYPES)}) AS a(delivery_id)
  WHERE NOT %s OR delivery_id IN (SELECT id FROM done)
)
SELECT count(*) FROM done
"""

IS_LATE = """
SELECT 1 FROM webhooks_delivery
WHERE status = 'sending' AND next_attempt_at <= LEAST(now(), to_timestamp(%(before)s))
  AND next_attempt_at >= to_timestamp(%(since)s) LIMIT 1
"""

_LATE = """
  SELECT d.id, d.ctid AS place FROM webhooks_delivery d
  WHERE d.status = 'sending' AND d.next_attempt_at <= LEAST(now(), to_timestamp(%(before)s))
    AND d.id {among}
  ORDER BY d.next_attempt_at LIMIT %(limit)s FOR {lock} SKIP LOCKED"""
# Shared locks, so that other drains find the same.
LATE = f"""
SELECT id FROM ({_LATE.format(among="<> ALL(%(held)s::text[])", lock="SHARE")}) late
"""

EXPIRE = f"""
WITH late AS MATERIALIZED ({_LATE.format(among="= ANY(%(ids)s::text[])", lock="UPDATE")})
UPDATE webhooks_delivery d
SET unknown_count = d.unknown_count + 1, lease = '', outcome = 'unknown', status_code = NULL,
    status = CASE WHEN d.unknown_count + 1 >= {MAX_UNKNOWN} THEN 'parked' ELSE 'pending' END,
    next_attempt_at = CASE WHEN d.unknown_count + 1 < {MAX_UNKNOWN} THEN now() END
FROM late WHERE d.id = late.id AND d.ctid = late.place
RETURNING d.id, d.webhook_id, d.attempt_count, d.status
"""

HOLD = """
WITH waiting AS MATERIALIZED (
  SELECT oldest.id, oldest.place FROM unnest(%s::bigint[]) AS w(id) CROSS JOIN LATERAL (
    SELECT d.id, d.ctid AS place FROM webhooks_delivery d
    WHERE d.status = 'pending' AND d.webhook_id = w.id AND (d.trigger <> 'test'
      OR (SELECT deleted_at FROM webhooks_webhook WHERE id = w.id) IS NOT NULL)
    ORDER BY d.next_attempt_at LIMIT %s FOR UPDATE SKIP LOCKED) oldest)
UPDATE webhooks_delivery d
SET status = CASE WHEN w.deleted_at IS NULL THEN 'held' ELSE 'cancelled' END,
    hold_reason = CASE WHEN w.deleted_at IS NULL THEN %s ELSE '' END, next_attempt_at = NULL,
    finished_at = CASE WHEN w.deleted_at IS NOT NULL THEN now() END
FROM waiting, webhooks_webhook w
WHERE w.id = d.webhook_id AND d.id = waiting.id AND d.ctid = waiting.place
  AND (%s <> 'paused' OR NOT w.is_active OR w.cancels_before IS NOT NULL
    OR w.deleted_at IS NOT NULL)
"""

HAND_BACK = """
UPDATE webhooks_delivery d
SET status = 'pending', lease = '', attempt_count = d.attempt_count - 1, next_attempt_at = now()
FROM (SELECT * FROM unnest(%s::text[], %s::int2[]) AS u(id, number),
      (SELECT %s::text AS lease) l OFFSET 0) r
WHERE d.id = r.id AND d.lease = r.lease AND d.attempt_count = r.number
"""

HAND_BACK_OTHERS = """
WITH others AS MATERIALIZED (
  SELECT id, ctid AS place FROM webhooks_delivery
  WHERE status = 'sending' AND lease = %s AND id <> ALL(%s::text[]) FOR UPDATE SKIP LOCKED
)
UPDATE webhooks_delivery d
SET status = 'pending', lease = '', attempt_count = attempt_count - 1, next_attempt_at = now()
FROM others WHERE d.id = others.id AND d.ctid = others.place
"""

# A failure that is older than the success that another drain wrote changes nothing, and neither
# does a success that is older than the failure, unless a clock was set back since.
STATE = """
WITH written AS (
INSERT INTO webhooks_webhookstate AS s
  (webhook_id, last_attempt_at, last_success_at, failing_since_at, last_status_code, last_error,
   failures_in_a_row)
SELECT r.id, clock_timestamp() - r.age * interval '1 second',
       CASE WHEN r.had_success THEN now() END, CASE WHEN NOT r.ok THEN now() END,
       r.code, r.error, r.failures
FROM unnest(%s::bigint[], %s::bool[], %s::int2[], %s::text[], %s::int[], %s::bool[], %s::float8[])
     AS r(id, ok, code, error, failures, had_success, age)
ON CONFLICT (webhook_id) DO UPDATE SET
  last_attempt_at = GREATEST(s.last_attempt_at, EXCLUDED.last_attempt_at),
  last_success_at = COALESCE(EXCLUDED.last_success_at, s.last_success_at),
  failing_since_at = CASE WHEN EXCLUDED.last_success_at IS NULL
    THEN COALESCE(s.failing_since_at, now()) ELSE EXCLUDED.failing_since_at END,
  failures_in_a_row = EXCLUDED.failures_in_a_row + CASE WHEN EXCLUDED.last_success_at IS NULL
    THEN s.failures_in_a_row ELSE 0 END,
  last_status_code = EXCLUDED.last_status_code,
  last_error = EXCLUDED.last_error
WHERE CASE WHEN EXCLUDED.failing_since_at IS NULL
  THEN s.failing_since_at IS NULL OR s.last_attempt_at IS NULL
    OR s.last_attempt_at <= EXCLUDED.last_attempt_at OR s.last_attempt_at > clock_timestamp()
  ELSE s.failing_since_at IS NOT NULL OR s.last_success_at IS NULL
    OR s.last_attempt_at < EXCLUDED.last_attempt_at END
RETURNING s.webhook_id, s.failing_since_at)
SELECT webhook_id, EXTRACT(EPOCH FROM now() - failing_since_at)::float8 FROM written
WHERE failing_since_at IS NOT NULL
"""

# Which of these rows another transaction locked. An update of no key takes this lock.
_LOCKED = """
WITH free AS MATERIALIZED (
  SELECT {key} FROM {table} WHERE {key} = ANY(%(keys)s) FOR NO KEY UPDATE SKIP LOCKED
)
SELECT {key} FROM {table} WHERE {key} = ANY(%(keys)s) AND {key} NOT IN (SELECT {key} FROM free)
"""
LOCKED_DELIVERIES = _LOCKED.format(table="webhooks_delivery", key="id")
LOCKED_STATES = _LOCKED.format(table="webhooks_webhookstate", key="webhook_id")
LOCKED_TOKENS = _LOCKED.format(table="webhooks_oauthtoken", key="credential_id")

# By their numbers in the arrays, from 1.
LOCKED_COUNTS = """
WITH known AS MATERIALIZED (
  SELECT r.number, h.id
  FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::bigint[]) WITH ORDINALITY
       AS r(webhook_id, hour, outcome, step, number)
  CROSS JOIN LATERAL (
    SELECT id FROM webhooks_hourlycount
    WHERE webhook_id = r.webhook_id AND hour = r.hour AND outcome = r.outcome
      AND duration_step = r.step OFFSET 0) h
), free AS MATERIALIZED (
  SELECT id FROM webhooks_hourlycount WHERE id = ANY(ARRAY(SELECT id FROM known))
  FOR NO KEY UPDATE SKIP LOCKED
)
SELECT number FROM known WHERE id NOT IN (SELECT id FROM free)
"""

ADD_COUNTS = """
INSERT INTO webhooks_hourlycount AS h (webhook_id, hour, outcome, duration_step, count)
SELECT webhook_id, hour, outcome, step::int2, count
FROM unnest(%s::bigint[], %s::timestamptz[], %s::text[], %s::bigint[], %s::bigint[])
     AS r(webhook_id, hour, outcome, step, count)
ON CONFLICT (webhook_id, hour, outcome, duration_step)
DO UPDATE SET count = h.count + EXCLUDED.count
"""

_EVENT_COLUMNS = """id, type, payload, occurred_at, filtered_count, idempotency_key, fingerprint,
    source, call_id, caller_digits, callee_digits, client_digits, company_digits"""
_EVENT_ARRAYS = """unnest(%s::text[], %s::text[], %s::bytea[], %s::timestamptz[], %s::bigint[],
    %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::text[])"""
_INSERT_EVENTS = f"""e AS (
  INSERT INTO webhooks_event ({_EVENT_COLUMNS}, created_at)
  SELECT *, statement_timestamp() FROM {_EVENT_ARRAYS} RETURNING id, idempotency_key
)"""
_INSERT_KEYS = """
INSERT INTO webhooks_idempotencykey (key, event_id)
SELECT idempotency_key, id FROM {rows} WHERE idempotency_key IS NOT NULL
"""
INSERT_EVENTS = f"WITH {_INSERT_EVENTS} {_INSERT_KEYS.format(rows='e')}"

INSERT_DELIVERIES = """
INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, trigger, hold_reason,
    next_attempt_at, attempt_count, failure_count, unknown_count, lease, outcome, created_at)
SELECT r.*, CASE WHEN status = 'pending' THEN now() END, 0, 0, 0, '', '', statement_timestamp()
FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[])
     AS r(id, event_id, webhook_id, status, trigger, hold_reason)
"""

# Both in one round trip.
INSERT_BOTH = f"""
WITH {_INSERT_EVENTS}, k AS ({_INSERT_KEYS.format(rows="e")}) {INSERT_DELIVERIES}
"""

OLDEST_TRANSACTION = """
SELECT EXTRACT(EPOCH FROM clock_timestamp() - xact_start)::float8, pid, usename::text,
  application_name
FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
  AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NOT NULL
ORDER BY xact_start LIMIT 1
"""

# The version is written when a transaction commits, or truncates: it is that transaction's id. It
# is negative in a transaction that has changed webhooks. It may also be negative in one that has
# written something else, if the session changed webhooks seconds ago, or if the server counts no
# changes.
_VERSION = """CASE WHEN pg_current_xact_id_if_assigned() IS NULL
  OR version <> pg_current_xact_id_if_assigned()::text::bigint
  AND current_setting('track_counts') = 'on'
  AND pg_stat_get_xact_tuples_inserted('webhooks_webhook'::regclass) = 0
  AND pg_stat_get_xact_tuples_updated('webhooks_webhook'::regclass) = 0
  AND pg_stat_get_xact_tuples_deleted('webhooks_webhook'::regclass) = 0
THEN version ELSE -2 - version END AS version"""

SUBSCRIPTIONS = f"SELECT {_VERSION} FROM webhooks_subscriptions"

# Inserts nothing if webhooks have changed, and no event whose key another event has. Waits for an
# uncommitted event with the same key, but not for long, as others wait as well.
_AT_ONCE = f"""
WITH known AS MATERIALIZED (
  SELECT {_VERSION}, set_config(
    'lock_timeout', COALESCE(NULLIF(%s, '0'), current_setting('lock_timeout')), true)
  FROM webhooks_subscriptions
), given AS MATERIALIZED (
  SELECT * FROM {_EVENT_ARRAYS} AS given({_EVENT_COLUMNS}) WHERE (SELECT version FROM known) = %s
), k AS ({_INSERT_KEYS.format(rows="given")} ON CONFLICT DO NOTHING RETURNING event_id
), e AS (
  INSERT INTO webhooks_event ({_EVENT_COLUMNS}, created_at)
  SELECT *, statement_timestamp() FROM given
  WHERE idempotency_key IS NULL OR id IN (SELECT event_id FROM k) RETURNING id
), d AS ({INSERT_DELIVERIES}  WHERE EXISTS (SELECT FROM e WHERE e.id = r.event_id)
)
SELECT version, array_to_string(ARRAY(SELECT id FROM e), ' ') FROM known
"""
# In the form that libpq takes: with numbered parameters.
INSERT_AT_ONCE = _AT_ONCE.replace("%s", "$%d") % tuple(range(1, _AT_ONCE.count("%s") + 1))
