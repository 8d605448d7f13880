"""The statements of the queue on SQLite; `sqlite` explains how they are run."""

from webhooks.delivery.queue.rows import ATTEMPT_COLUMNS, MAX_UNKNOWN, QUARANTINE_FROM, VERSION

# The oldest open row of a webhook is the head; while it is sent, held or waits for a retry, it
# blocks the rest. Each status has an index that must be named, as the index of all rows has the
# same order. min() of several values is null if one of them is, and '~' is greater than any id.
_HEAD = """nullif(min(
  coalesce((SELECT id FROM webhooks_delivery INDEXED BY delivery_in_order
    WHERE status = 'pending' AND webhook_id = {webhook} ORDER BY id LIMIT 1), '~'),
  coalesce((SELECT min(id) FROM webhooks_delivery INDEXED BY delivery_leased
    WHERE status = 'sending' AND webhook_id = {webhook}), '~'),
  coalesce((SELECT id FROM webhooks_delivery INDEXED BY delivery_held
    WHERE status = 'held' AND webhook_id = {webhook} ORDER BY id LIMIT 1), '~')), '~')"""

# A loose index scan: one probe per webhook that has pending rows, however many rows it has.
_WAITING = """
WITH RECURSIVE waiting(webhook_id) AS (
  SELECT min(webhook_id) FROM webhooks_delivery WHERE status = 'pending'
  UNION ALL
  SELECT (SELECT min(d.webhook_id) FROM webhooks_delivery d
          WHERE d.status = 'pending' AND d.webhook_id > waiting.webhook_id)
  FROM waiting WHERE waiting.webhook_id IS NOT NULL
)"""
CANDIDATES = f"""{_WAITING}
SELECT w.id, {VERSION}, COALESCE(t.version, 0), COALESCE(t.refused_version, 0),
  w.is_active AND w.deleted_at IS NULL AND w.cancels_before IS NULL,
  w.rate_limit IS NOT NULL OR w.concurrency_limit IS NOT NULL OR w.is_ordered,
  w.deleted_at IS NULL AND w.id IN (
    SELECT webhook_id FROM webhooks_delivery
    WHERE status = 'pending' AND "trigger" = 'test' AND next_attempt_at > '2000'),
  EXISTS (SELECT 1 FROM webhooks_delivery
          WHERE status = 'pending' AND unknown_count >= {QUARANTINE_FROM}
            AND webhook_id %% %s IN ({{numbers}})),
  w.rate_limit, w.rate_limit_seconds, s.next_send_at,
  w.concurrency_limit - CASE WHEN w.concurrency_limit IS NOT NULL THEN
    (SELECT count(*) FROM webhooks_delivery WHERE status = 'sending' AND webhook_id = w.id) END,
  w.is_ordered,
  CASE WHEN w.is_ordered THEN
    (SELECT CASE WHEN status = 'pending' THEN next_attempt_at END FROM webhooks_delivery
     WHERE id = {_HEAD.format(webhook="w.id")}) END
FROM waiting
JOIN webhooks_webhook w ON w.id = waiting.webhook_id
JOIN webhooks_credential c ON c.id = w.credential_id
LEFT JOIN webhooks_oauthtoken t ON t.credential_id = w.credential_id
LEFT JOIN webhooks_webhookstate s ON s.webhook_id = w.id
WHERE EXISTS (SELECT 1 FROM webhooks_delivery d WHERE d.status = 'pending'
  AND d.webhook_id = w.id AND d.next_attempt_at <= %s)
  AND w.id %% %s IN ({{numbers}})
"""

# When the next row is due, by the same probes.
NEXT_DUE = f"""{_WAITING}
SELECT min((SELECT min(next_attempt_at) FROM webhooks_delivery d
            WHERE d.status = 'pending' AND d.webhook_id = waiting.webhook_id)) FROM waiting
WHERE webhook_id %% %s IN ({{numbers}})
"""

DUE = f"""
SELECT id FROM webhooks_delivery
WHERE status = 'pending' AND webhook_id = %s AND next_attempt_at <= %s
  AND unknown_count < {QUARANTINE_FROM}
ORDER BY next_attempt_at LIMIT %s
"""

DUE_TESTS = f"""
SELECT id FROM webhooks_delivery
WHERE status = 'pending' AND "trigger" = 'test' AND webhook_id = %s
  AND next_attempt_at <= %s AND (unknown_count >= {QUARANTINE_FROM}) = %s
ORDER BY next_attempt_at LIMIT %s
"""

DUE_QUARANTINED = f"""
SELECT id FROM webhooks_delivery
WHERE status = 'pending' AND webhook_id = %s AND next_attempt_at <= %s
  AND unknown_count >= {QUARANTINE_FROM}
ORDER BY next_attempt_at LIMIT 1
"""

WITH_QUARANTINED = f"""
SELECT DISTINCT webhook_id FROM webhooks_delivery
WHERE status = 'pending' AND next_attempt_at <= %s AND unknown_count >= {QUARANTINE_FROM}
"""

DUE_HEAD = f"""
SELECT d.id FROM (SELECT %s AS id) w JOIN webhooks_delivery d
ON d.id = {_HEAD.format(webhook="w.id")}
WHERE d.status = 'pending' AND d.next_attempt_at <= %s
  AND (d.unknown_count >= {QUARANTINE_FROM}) = %s
"""

TAKE = """
UPDATE webhooks_delivery
SET status = 'sending', lease = %s, next_attempt_at = %s, attempt_count = attempt_count + 1
WHERE status = 'pending' AND id IN ({ids})
RETURNING id, webhook_id, event_id, attempt_count, failure_count, "trigger"
"""

# Claimed rows whose event is gone: there is nothing to send.
CANCEL_LOST = """
UPDATE webhooks_delivery SET status = 'cancelled', lease = '', next_attempt_at = NULL,
  finished_at = %s WHERE id IN ({ids})
"""

PACING = """
SELECT w.rate_limit, w.rate_limit_seconds, w.concurrency_limit, w.is_ordered, s.next_send_at,
  (SELECT count(*) FROM webhooks_delivery d WHERE d.status = 'sending' AND d.webhook_id = w.id)
FROM webhooks_webhook w LEFT JOIN webhooks_webhookstate s ON s.webhook_id = w.id WHERE w.id = %s
"""

FINISH = """
UPDATE webhooks_delivery
SET status = %s, outcome = %s, status_code = %s, hold_reason = %s, lease = '',
    failure_count = failure_count + %s, unknown_count = 0, next_attempt_at = %s, finished_at = %s
WHERE id = %s AND status = 'sending' AND lease = %s AND attempt_count = %s
"""

INSERT_ATTEMPT = (
    f"INSERT INTO webhooks_attempt ({', '.join(ATTEMPT_COLUMNS)}) "
    f"VALUES ({', '.join(['%s'] * len(ATTEMPT_COLUMNS))})"
)

INSERT_DIED = """
INSERT INTO webhooks_attempt (delivery_id, number, started_at, remote_address, request_line,
    request_headers, response_headers, response_body, response_size, outcome, error)
VALUES (%s, %s, %s, '', '', '', '', x'', 0, 'unknown', %s)
"""

LATE = """
SELECT id FROM webhooks_delivery WHERE status = 'sending' AND next_attempt_at <= %s
  AND id NOT IN ({held}) ORDER BY next_attempt_at LIMIT %s
"""

EXPIRE = f"""
UPDATE webhooks_delivery
SET unknown_count = unknown_count + 1, lease = '', outcome = 'unknown', status_code = NULL,
    status = CASE WHEN unknown_count + 1 >= {MAX_UNKNOWN} THEN 'parked' ELSE 'pending' END,
    next_attempt_at = CASE WHEN unknown_count + 1 < {MAX_UNKNOWN} THEN %s END
WHERE id IN ({{ids}}) AND status = 'sending' AND next_attempt_at <= %s
RETURNING id, webhook_id, attempt_count, status
"""

HOLD = """
UPDATE webhooks_delivery
SET status = CASE WHEN w.deleted_at IS NULL THEN 'held' ELSE 'cancelled' END,
    hold_reason = CASE WHEN w.deleted_at IS NULL THEN %s ELSE '' END, next_attempt_at = NULL,
    finished_at = CASE WHEN w.deleted_at IS NOT NULL THEN %s END
FROM webhooks_webhook w
WHERE w.id = webhook_id
  AND (%s <> 'paused' OR NOT w.is_active OR w.cancels_before IS NOT NULL
    OR w.deleted_at IS NOT NULL)
  AND webhooks_delivery.id IN (
  SELECT id FROM webhooks_delivery WHERE status = 'pending' AND webhook_id = %s
  AND ("trigger" <> 'test'
    OR (SELECT deleted_at FROM webhooks_webhook WHERE id = webhook_id) IS NOT NULL)
  ORDER BY next_attempt_at LIMIT %s)
"""

HAND_BACK = """
UPDATE webhooks_delivery
SET status = 'pending', lease = '', attempt_count = attempt_count - 1, next_attempt_at = %s
WHERE id = %s AND status = 'sending' AND lease = %s AND attempt_count = %s
"""

HAND_BACK_OTHERS = """
UPDATE webhooks_delivery
SET status = 'pending', lease = '', attempt_count = attempt_count - 1, next_attempt_at = %s
WHERE status = 'sending' AND lease = %s AND id NOT IN ({held})
"""

# A failure that is older than the success that another drain wrote changes nothing, and neither
# does a success that is older than the failure, unless a clock was set back since.
STATE = """
INSERT INTO webhooks_webhookstate
  (webhook_id, last_attempt_at, last_success_at, failing_since_at, last_status_code, last_error,
   failures_in_a_row)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (webhook_id) DO UPDATE SET
  last_attempt_at = max(COALESCE(last_attempt_at, ''), excluded.last_attempt_at),
  last_success_at = COALESCE(excluded.last_success_at, last_success_at),
  failing_since_at = CASE WHEN excluded.last_success_at IS NULL
    THEN COALESCE(failing_since_at, excluded.failing_since_at)
    ELSE excluded.failing_since_at END,
  failures_in_a_row = excluded.failures_in_a_row + CASE WHEN excluded.last_success_at IS NULL
    THEN failures_in_a_row ELSE 0 END,
  last_status_code = excluded.last_status_code,
  last_error = excluded.last_error
WHERE CASE WHEN excluded.failing_since_at IS NULL
  THEN failing_since_at IS NULL OR last_attempt_at IS NULL
    OR last_attempt_at <= excluded.last_attempt_at
    -- SQLite's clock has only milliseconds, and what was written in the same one is no later.
    OR last_attempt_at > strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '+0.001 seconds')
  ELSE failing_since_at IS NOT NULL OR last_success_at IS NULL
    OR last_attempt_at < excluded.last_attempt_at END
RETURNING webhook_id, failing_since_at
"""

ADD_COUNT = """
INSERT INTO webhooks_hourlycount (webhook_id, hour, outcome, duration_step, count)
VALUES (%s, %s, %s, %s, %s)
ON CONFLICT (webhook_id, hour, outcome, duration_step) DO UPDATE SET count = count + excluded.count
"""

INSERT_EVENT = """
INSERT INTO webhooks_event (id, type, payload, occurred_at, filtered_count, idempotency_key,
                            fingerprint, source, call_id, caller_digits, callee_digits,
                            client_digits, company_digits, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

INSERT_KEY = "INSERT INTO webhooks_idempotencykey (key, event_id) VALUES (%s, %s)"

INSERT_DELIVERY = """
INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, "trigger", hold_reason,
    next_attempt_at, attempt_count, failure_count, unknown_count, lease, outcome, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, 0, 0, 0, '', '', %s)
"""
