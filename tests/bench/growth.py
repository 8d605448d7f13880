"""The cost of claiming and recording behind 10,000, a million and ten million finished rows.

The history is made by SQL in one shape: a month of successful deliveries with one attempt each.
Then batches of 500 due rows are claimed and recorded through `webhooks.delivery.queue`, as the
engine does. At the end retention removes the whole history.
"""

import datetime as dt
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from tests.bench.history import DAYS, TIME_KEY, has_scan, make_partitions
from tests.bench.scale import Scale
from tests.bench.stage import LOGIN, PASSWORD, WEBHOOKS, Stage, make_webhooks

if TYPE_CHECKING:
    from webhooks.delivery.queue.rows import AttemptResult, Claimed

_BATCH = 500
_CHUNK = 500_000
_LEASE = {"lease": "bench", "lease_seconds": 90.0}

_HISTORY = f"""
WITH r AS MATERIALIZED (
  SELECT i, {TIME_KEY} || lpad(i::text, 16, '0') AS id FROM (
    SELECT i, (%(begins)s + i * %(step)s)::bigint AS ms
    FROM generate_series(%(first)s::bigint, %(last)s::bigint) i) s
), d AS (
  INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, trigger, hold_reason,
      attempt_count, failure_count, unknown_count, lease, outcome, status_code, created_at,
      finished_at)
  SELECT 'dlv_' || id, 'evt_' || id, (%(webhooks)s::bigint[])[1 + i %% %(count)s], 'succeeded',
    'event', '', 1, 0, 0, '', 'succeeded', 204, now(), now() FROM r
)
INSERT INTO webhooks_attempt (delivery_id, number, started_at, first_byte_ms, total_ms,
    remote_address, request_line, request_headers, status_code, response_headers, response_body,
    response_size, outcome, error)
SELECT 'dlv_' || id, 1, now(), 1, 1, '127.0.0.1', 'POST http://127.0.0.1/hook',
  repeat('x', 300), 204, repeat('y', 120), '', 0, 'succeeded', '' FROM r
"""


@dataclass(slots=True)
class Cost:
    """Median milliseconds per batch of 500, behind this many finished rows."""

    history: int
    claim_ms: float
    record_ms: float


@dataclass(slots=True)
class Growth:
    costs: list[Cost] = field(default_factory=list)
    plans: dict[str, str] = field(default_factory=dict, repr=False)
    # Statements whose plan scanned a whole table when the statistics said that no row is due.
    flipped: list[str] = field(default_factory=list)
    # Time to remove all deliveries and their attempts.
    retention_seconds: float = 0.0

    @property
    def claim_ratio(self) -> float:
        return self.costs[-1].claim_ms / self.costs[0].claim_ms

    @property
    def record_ratio(self) -> float:
        return self.costs[-1].record_ms / self.costs[0].record_ms


def measure(stage: Stage, scale: Scale) -> Growth:
    from django.utils import timezone

    from webhooks.delivery import queue

    webhooks = make_webhooks(WEBHOOKS, stage.receiver.url)
    growth = Growth()
    stage.empty()
    begins = timezone.now() - dt.timedelta(days=DAYS)
    make_partitions()
    terms = {
        "begins": begins.timestamp() * 1000,
        "step": DAYS * 86_400_000 / scale.history_rows[-1],
        "webhooks": webhooks,
        "count": len(webhooks),
    }
    made = 0
    for rows in scale.history_rows:
        for first in range(made, rows, _CHUNK):
            _add_history(stage, {**terms, "first": first, "last": min(first + _CHUNK, rows) - 1})
        made = rows
        # Collect statistics while no row is due, as autovacuum does on a quiet night.
        stage.database.execute("VACUUM (ANALYZE) webhooks_delivery, webhooks_attempt")
        stage.database.execute("CHECKPOINT")
        queue.backend().prepare_session()
        growth.costs.append(_cost(stage, scale, webhooks, rows))
    growth.plans = _plans(stage, webhooks)
    growth.flipped = [name for name, plan in growth.plans.items() if has_scan(plan)]
    growth.retention_seconds = _retention_seconds(stage)
    return growth


def _add_history(stage: Stage, terms: dict[str, Any]) -> None:
    with stage.database.transaction():
        # The history need not survive a crash.
        stage.database.execute("SET LOCAL synchronous_commit = off")
        stage.database.execute(_HISTORY.encode(), terms)


def _retention_seconds(stage: Stage) -> float:
    """Return how long retention takes when every delivery is finished and expired."""
    from django.utils import timezone

    from webhooks.delivery.queue import partitions

    stage.database.execute(
        "UPDATE webhooks_delivery SET status = 'succeeded', next_attempt_at = NULL "
        "WHERE status IN ('pending', 'sending')"
    )
    began = time.perf_counter()
    partitions.drop_deliveries(timezone.now() + dt.timedelta(days=DAYS))
    seconds = time.perf_counter() - began
    if stage.query("SELECT EXISTS (SELECT FROM webhooks_delivery)")[0][0]:
        raise RuntimeError("Retention left deliveries behind.")
    partitions.make_ahead(timezone.now())
    return seconds


def _cost(stage: Stage, scale: Scale, webhooks: list[int], rows: int) -> Cost:
    from webhooks.delivery import queue
    from webhooks.delivery.queue.rows import ClaimQuota

    backend = queue.backend()
    make_result = _results_of(webhooks)
    stage.fill(_BATCH * scale.growth_batches, webhooks)
    quotas = [ClaimQuota(webhook, _BATCH // len(webhooks)) for webhook in webhooks]
    claims_ms: list[float] = []
    records_ms: list[float] = []
    for _ in range(scale.growth_batches):
        began = time.perf_counter()
        claims = backend.claim(quotas, **_LEASE)
        claimed = time.perf_counter()
        results = [make_result(claim) for claim in claims]
        prepared = time.perf_counter()
        if len(claims) != _BATCH or backend.record(results, lease=_LEASE["lease"]) != _BATCH:
            raise RuntimeError("A batch was not claimed or recorded as a whole.")
        claims_ms.append((claimed - began) * 1000)
        records_ms.append((time.perf_counter() - prepared) * 1000)
    return Cost(rows, statistics.median(claims_ms), statistics.median(records_ms))


def _results_of(webhooks: list[int]) -> Callable[["Claimed"], "AttemptResult"]:
    """Return a function that makes the result that the engine records for a success."""
    from webhooks.delivery import auth, requests
    from webhooks.models import Outcome, Webhook

    plans = {
        webhook.pk: requests.make_plan(webhook, auth.BasicAuthorization(LOGIN, PASSWORD))
        for webhook in Webhook.objects.filter(pk__in=webhooks)
    }
    headers = b"HTTP/1.1 204 No Content\r\nServer: nginx\r\nConnection: keep-alive\r\n\r\n"
    answer = requests.Response(
        error=None, message=None, status_code=204, headers=headers, body=b"", size=0,
        address="127.0.0.1", dns_ms=None, connect_ms=None, tls_ms=None, first_byte_ms=1.0,
        total_ms=1.1,
    )  # fmt: skip

    def make(claim: "Claimed") -> "AttemptResult":
        plan = plans[claim.webhook_id]
        request = requests.prepare(claim, plan, time.time())
        step = requests.next_step(Outcome.SUCCEEDED, claim, plan, retry_after=None)
        return requests.result(request, answer, Outcome.SUCCEEDED, step)

    return make


def _plans(stage: Stage, webhooks: list[int]) -> dict[str, str]:
    """Return PostgreSQL's plans of the hot statements while its statistics show no due row."""
    from django.db import connection, transaction

    from webhooks.delivery import queue
    from webhooks.delivery.queue import postgres_sql as sql
    from webhooks.delivery.queue.rows import ClaimQuota

    stage.database.execute("ANALYZE webhooks_delivery")
    stage.fill(_BATCH * 10, webhooks)
    claims = queue.backend().claim([ClaimQuota(webhook, 5) for webhook in webhooks], **_LEASE)
    since = {"since": 0.0}
    quotas = {"ids": webhooks, "quotas": [5] * len(webhooks), **since, **_LEASE}
    page = {"after": 0, "limit": 1000, "shards": 1, "numbers": [0], **since}
    found = [[claim.id for claim in claims], [1] * len(claims), [204] * len(claims), "bench"]
    statements = {
        "candidates": (sql.PAGE, page),
        "claim": (sql.CLAIM, quotas),
        "record": (sql.SUCCEEDED, found),
    }
    plans = {}
    for name, (statement, parameters) in statements.items():
        with transaction.atomic(), psycopg.ClientCursor(connection.connection) as cursor:
            # As the engine runs it: planned once, without the parameter values.
            places = [f"${place}" for place in range(1, len(parameters) + 1)]
            if isinstance(parameters, dict):
                places, values = dict(zip(parameters, places, strict=True)), parameters.values()
            else:
                places, values = tuple(places), parameters
            cursor.execute(f"PREPARE {name} AS {statement % places}".encode())
            listed = ", ".join(["%s"] * len(parameters))
            cursor.execute(
                f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE {name} ({listed})".encode(), [*values]
            )
            plans[name] = "\n".join(row[0] for row in cursor.fetchall())
            transaction.set_rollback(True)
    return plans
