"""The cost of a delivery, and the latency of a healthy webhook, beside very many other webhooks.

100 and then thousands of webhooks have due rows, alternating; at the end thousands only wait, in
four ways. Rows are inserted by SQL, so that only the engine is measured. The one-time cost of a
webhook's first delivery (its plan, its receiver's limit) is paid before.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import machine
from tests.bench.scale import Scale
from tests.bench.stage import WEBHOOKS, BenchWorker, Stage, make_webhooks, notify

if TYPE_CHECKING:
    from django.db.models import Model

_PATIENCE_SECONDS = 900.0
_PAUSE_SECONDS = 0.15
# Give up after this long without a request; on a busy machine the next drain can start seconds
# after the previous one.
_STILL_SECONDS = 10.0

_WAITING = """
WITH w AS (
  SELECT id, row_number() OVER (ORDER BY id) AS n FROM webhooks_webhook WHERE id = ANY(%(webhooks)s)
), r AS (
  SELECT w.id, w.n %% 4 AS kind, lpad((w.n * 2 + behind)::text, 26, '0') AS row, behind
  FROM w, generate_series(0, 1) AS behind
)
INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, trigger, hold_reason,
    next_attempt_at, attempt_count, failure_count, unknown_count, lease, outcome, created_at)
SELECT 'dlv_' || row, 'evt_' || row, id, CASE kind WHEN 1 THEN 'held' ELSE 'pending' END, 'event',
  CASE kind WHEN 1 THEN 'no_token' ELSE '' END,
  CASE WHEN kind = 1 THEN NULL
       WHEN kind = 2 OR (kind = 3 AND behind = 1) THEN now() ELSE now() + interval '1 hour' END,
  1, 1, 0, '', '', now() FROM r
"""
# By kind: retries, held, limited with the next turn an hour away, ordered behind a waiting row.
_LIMITED = """
UPDATE webhooks_webhook
SET concurrency_limit = CASE n %% 4 WHEN 2 THEN 1 END, is_ordered = n %% 4 = 3
FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM webhooks_webhook
      WHERE id = ANY(%(webhooks)s)) w WHERE w.id = webhooks_webhook.id
"""
# The only request that a limited webhook may have in flight is leased to another worker for 1 hour.
_IN_FLIGHT = """
UPDATE webhooks_delivery SET status = 'sending', lease = 'bench',
  next_attempt_at = now() + interval '1 hour'
WHERE id IN (
  SELECT min(d.id) FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
  WHERE w.concurrency_limit = 1 AND d.webhook_id = ANY(%(webhooks)s) GROUP BY webhook_id)
"""


_IDS = """
SELECT nextval(pg_get_serial_sequence('webhooks_webhook', 'id')),
  nextval(pg_get_serial_sequence('webhooks_credential', 'id')) FROM generate_series(1, %s)
"""
_COPIES = """
WITH n AS MATERIALIZED (
  SELECT 'webhook_' || w AS own_uid, * FROM unnest(%(ids)s::bigint[], %(credentials)s::bigint[],
    %(secrets)s::text[]) AS u(w, c, secret)
), credentials AS (
  INSERT INTO webhooks_credential (id, uid, webhook_id, {credential})
  SELECT n.c, 'credential_' || n.c, n.own_uid, {credential}
  FROM n, webhooks_credential WHERE id = %(credential)s
)
INSERT INTO webhooks_webhook (id, uid, credential_id, signing_secret, {webhook})
SELECT n.w, n.own_uid, n.c, n.secret, {webhook} FROM n, webhooks_webhook WHERE id = %(webhook)s
"""
_UNLIMITED = b"UPDATE webhooks_webhook SET is_ordered = false, concurrency_limit = null"
_IS_PENDING = (
    "SELECT EXISTS (SELECT FROM webhooks_delivery WHERE status = 'pending' AND webhook_id = %s)"
)
_SECONDS = """
SELECT EXTRACT(EPOCH FROM max(finished_at) - %s)::float8 FROM webhooks_delivery
WHERE webhook_id <> %s
"""


@dataclass(slots=True)
class Load:
    """CPU microseconds of worker and PostgreSQL per delivery, and milliseconds of healthy ones."""

    cost_us: float
    p99_ms: float
    rate: float


@dataclass(slots=True)
class Many:
    # By the number of webhooks with due rows, or waiting: one load per round.
    due: dict[int, list[Load]] = field(default_factory=dict)
    waiting: dict[int, list[Load]] = field(default_factory=dict)
    # Deliveries per second of as many deliveries: events of 100 webhooks, and one event to many.
    wide: list[tuple[float, float]] = field(default_factory=list)

    def growth(self, of: str) -> dict[str, float]:
        """Return the median ratio of each load to that of 100 webhooks: `cost_us` or `p99_ms`."""
        found = {}
        for name, loads in (("due", self.due), ("waiting", self.waiting)):
            (_, base), *more = loads.items()
            for count, many in more:
                pairs = zip(base, many, strict=True)
                ratios = [getattr(load, of) / getattr(least, of) for least, load in pairs]
                found[f"{name}_{count // 1000}k"] = round(statistics.median(ratios), 2)
        return found

    @property
    def wide_ratio(self) -> float:
        """Return the median ratio of the rate with few webhooks to that of one event to many.

        Paired by round, because a shared machine may lose half of its speed between two drains.
        """
        return statistics.median(rate / wide for rate, wide in self.wide)


def measure(stage: Stage, scale: Scale) -> Many:
    found = Many()
    (healthy,) = make_webhooks(1, stage.timing_receiver.url)
    base = make_webhooks(WEBHOOKS, stage.receiver.url)
    others = base + _make(stage, scale.many_webhooks[-1] - WEBHOOKS)
    # `_due` and `_one_event` leave the log as it is: plans made for an empty log last for seconds.
    stage.empty()
    with stage.worker() as worker:
        for _ in range(scale.many_rounds):
            for count in (WEBHOOKS, *scale.many_webhooks):
                rows = max(scale.many_rows, 2 * count)
                load = _due(stage, worker, others[:count], rows, healthy)
                found.due.setdefault(count, []).append(load)
        wide = others[: scale.wide_webhooks]
        found.wide = [_one_event(stage, worker, base, wide) for _ in range(scale.rounds)]
        few, many = (base[: WEBHOOKS // 2], others[WEBHOOKS // 2 :])
        for _ in range(scale.many_rounds):
            for waiting in (base[WEBHOOKS // 2 :], many):
                load = _beside_waiting(stage, worker, few, waiting, scale, healthy)
                count = round(len(waiting), -3) or WEBHOOKS
                found.waiting.setdefault(count, []).append(load)
    return found


def _make(stage: Stage, count: int) -> list[int]:
    """Insert webhooks with their own credentials as copies of one: Django needs 1 ms per row."""
    from tests.factories import make_many_webhooks
    from webhooks.models import Credential, Webhook
    from webhooks.security import encryption, signatures

    url = f"{stage.receiver.url}/hook"
    [first] = make_many_webhooks([Webhook(name="Many", url=url, event_types=["deal.*"])])
    place = Webhook._meta.get_field("signing_secret").place(first)
    ids = stage.query(_IDS, [count])
    places = [place.replace(first.uid, f"webhook_{pk}") for pk, _ in ids]
    sealed = [encryption.seal(signatures.new_secret(), one).ciphertext for one in places]
    columns = [_columns(Credential, "webhook"), _columns(Webhook, "credential", "signing_secret")]
    stage.database.execute(
        _COPIES.format(credential=columns[0], webhook=columns[1]).encode(),
        {
            "ids": [pk for pk, _ in ids],
            "credentials": [pk for _, pk in ids],
            "secrets": sealed,
            "webhook": first.pk,
            "credential": first.credential_id,
        },
    )
    return [pk for pk, _ in ids]


def _columns(model: "type[Model]", *own: str) -> str:
    """Return the columns that a copy shares with its original."""
    kept = [field for field in model._meta.concrete_fields if field.name not in ("id", "uid", *own)]
    return ", ".join(field.column for field in kept)


def _due(stage: Stage, worker: BenchWorker, webhooks: list[int], rows: int, healthy: int) -> Load:
    # Make the webhooks known to the worker.
    _drain(stage, worker, [*webhooks, healthy], len(webhooks) + 1)
    stage.timing_receiver.arrivals()
    times: list[float] = []
    cost, rate = _drain(
        stage,
        worker,
        webhooks,
        rows,
        healthy=healthy,
        while_waiting=lambda: _measure_single_latencies(stage, healthy, webhooks, times),
    )
    return Load(cost, _p99(times), rate)


def _one_event(
    stage: Stage, worker: BenchWorker, base: list[int], wide: list[int]
) -> tuple[float, float]:
    """Return the rates of the same number of deliveries: many events to few webhooks, and one."""
    rates = []
    for webhooks, is_one in ((base, False), (wide, True)):
        # Make the webhooks known to the worker.
        _drain(stage, worker, webhooks, len(webhooks))
        rates.append(_drain(stage, worker, webhooks, len(wide), one_event=is_one)[1])
    return rates[0], rates[1]


def _beside_waiting(
    stage: Stage,
    worker: BenchWorker,
    few: list[int],
    waiting: list[int],
    scale: Scale,
    healthy: int,
) -> Load:
    stage.empty()
    with stage.database.transaction():
        for statement in (_LIMITED, _WAITING, _IN_FLIGHT):
            stage.database.execute(statement.encode(), {"webhooks": waiting})
    stage.database.execute("VACUUM (ANALYZE) webhooks_delivery, webhooks_webhook")
    _drain(stage, worker, [*few, healthy], len(few) + 1)
    stage.timing_receiver.arrivals()
    cost, rate = _drain(stage, worker, few, scale.many_rows)
    times: list[float] = []
    _measure_single_latencies(stage, healthy, [], times, count=scale.idle_publishes)
    stage.database.execute(_UNLIMITED)
    return Load(cost, _p99(times), rate)


def _drain(
    stage: Stage,
    worker: BenchWorker,
    webhooks: list[int],
    rows: int,
    *,
    one_event: bool = False,
    healthy: int = 0,
    while_waiting: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Deliver this many rows; return CPU microseconds per delivery, and deliveries per second.

    `while_waiting` may send a few more to the healthy webhook.
    """
    with stage.paused([worker]):
        stage.fill(rows, webhooks, one_event=one_event)
        came = stage.receiver.count()
        before = machine.cpu_seconds([worker.pid, stage.postgres.pid])
        began = stage.query("SELECT clock_timestamp()")[0][0]
    notify()
    while_waiting()
    _wait_for(stage, came + rows)
    # Listing thousands of ids in the query would add to the measured cost.
    stage.wait(webhooks if len(webhooks) <= WEBHOOKS else None, _PATIENCE_SECONDS)
    spent = machine.cpu_seconds([worker.pid, stage.postgres.pid]) - before
    seconds = stage.query(_SECONDS, [began, healthy])[0][0]
    return spent / rows * 1e6, rows / seconds


def _wait_for(stage: Stage, requests: int) -> None:
    """Wait until the receiver got this many requests, or until no more arrive.

    Polling PostgreSQL would read all finished rows each time, and would count as its cost.
    """
    ends, known = time.monotonic() + _STILL_SECONDS, -1
    while (count := stage.receiver.count()) < requests and time.monotonic() < ends:
        if count != known:
            ends, known = time.monotonic() + _STILL_SECONDS, count
        time.sleep(0.2)


def _measure_single_latencies(
    stage: Stage, healthy: int, others: list[int], times: list[float], *, count: int = 0
) -> None:
    """Append latencies of single deliveries in ms: `count`, or until the others are done."""
    while len(times) < count or (others and (len(times) < 20 or _is_open(stage, others))):
        stage.fill(1, [healthy])
        began = time.time()
        notify()
        while not (arrived := stage.timing_receiver.arrivals()):
            time.sleep(0.002)
        times.append((arrived[0].moment - began) * 1000)
        time.sleep(_PAUSE_SECONDS)


def _p99(times: list[float]) -> float:
    return statistics.quantiles(times, n=100)[98]


def _is_open(stage: Stage, webhooks: list[int]) -> bool:
    return bool(stage.query(_IS_PENDING, [webhooks[-1]])[0][0])
