"""Requests per second on one core: the engine, a task per delivery, and bare libcurl."""

import base64
import statistics
import time
from dataclasses import dataclass, field

from tests.bench import bare, machine, naive
from tests.bench.scale import Scale
from tests.bench.stage import (
    LOGIN,
    PASSWORD,
    WEBHOOKS,
    BenchWorker,
    Stage,
    make_webhooks,
    notify,
)

_BARE_IN_FLIGHT = 256
_PATIENCE_SECONDS = 300.0


@dataclass(slots=True)
class Rates:
    engine: list[float] = field(default_factory=list)
    naive: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    # The memory of the pool process after each round of the engine, in MiB.
    memory: list[float] = field(default_factory=list)
    # CPU microseconds per delivery: worker, PostgreSQL, receiver.
    worker_us: list[float] = field(default_factory=list)
    postgres_us: list[float] = field(default_factory=list)
    receiver_us: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Pairs:
    """One worker and two, on all cores."""

    one_rate: list[float] = field(default_factory=list)
    two_rate: list[float] = field(default_factory=list)
    one_us: list[float] = field(default_factory=list)
    two_us: list[float] = field(default_factory=list)


def compare(stage: Stage, scale: Scale) -> Rates:
    """Measure the three alternately, each on the first core while the servers have the rest."""
    webhooks = make_webhooks(WEBHOOKS, stage.receiver.url)
    rates = Rates()
    cores = machine.CLIENT_CORES
    with (
        stage.pinned(),
        stage.worker(cores=cores) as engine,
        stage.worker(app="tests.bench.naive", queue=naive.QUEUE, cores=cores) as baseline,
    ):
        _drain(stage, webhooks, WEBHOOKS, [engine])
        for _ in range(scale.rounds):
            _measure_engine(stage, scale, webhooks, engine, rates)
            rates.naive.append(_naive_rate(stage, webhooks, scale.naive_rows, baseline))
            rates.bare.append(_bare_rate(stage, scale.bare_requests))
    return rates


def _measure_engine(
    stage: Stage, scale: Scale, webhooks: list[int], engine: BenchWorker, rates: Rates
) -> None:
    rate, spent = _drain(stage, webhooks, scale.engine_rows, [engine])
    rates.engine.append(rate)
    rates.memory.append(machine.memory_mib(engine.pool_pid))
    for values, value in zip(
        (rates.worker_us, rates.postgres_us, rates.receiver_us), spent, strict=True
    ):
        values.append(value)


def compare_workers(stage: Stage, scale: Scale) -> Pairs:
    """Measure one worker and two alternately, without pinning."""
    webhooks = make_webhooks(WEBHOOKS, stage.receiver.url)
    pairs = Pairs()
    with stage.worker() as first, stage.worker() as second:
        _drain(stage, webhooks, WEBHOOKS, [first, second])
        for _ in range(scale.rounds):
            with stage.paused([second]):
                rate, spent = _drain(stage, webhooks, scale.two_workers_rows, [first])
            pairs.one_rate.append(rate)
            pairs.one_us.append(sum(spent[:2]))
            rate, spent = _drain(stage, webhooks, scale.two_workers_rows, [first, second])
            pairs.two_rate.append(rate)
            pairs.two_us.append(sum(spent[:2]))
    return pairs


def _drain(
    stage: Stage, webhooks: list[int], rows: int, workers: list[BenchWorker]
) -> tuple[float, list[float]]:
    """Publish rows, then let the workers deliver them.

    Returns deliveries per second, and the CPU microseconds of workers, PostgreSQL and receiver per
    delivery.
    """
    stage.empty()
    sent_before = stage.receiver.count()
    with stage.paused(workers):
        stage.fill(rows, webhooks)
        before = _cpu(stage, workers)
    notify()
    stage.wait(webhooks, _PATIENCE_SECONDS)
    after = _cpu(stage, workers)
    count, rate = stage.rate(webhooks)
    sent = stage.receiver.count() - sent_before
    if count != rows or sent != rows:
        raise RuntimeError(f"{rows} deliveries gave {count} successes and {sent} requests.")
    spent = [(end - start) / rows * 1e6 for start, end in zip(before, after, strict=True)]
    return rate, spent


def _naive_rate(stage: Stage, webhooks: list[int], rows: int, worker: BenchWorker) -> float:
    stage.empty()
    stage.fill(rows, webhooks, status="sending")
    with stage.paused([worker]):
        for (delivery_id,) in stage.query("SELECT id FROM webhooks_delivery ORDER BY id"):
            naive.deliver.delay(delivery_id)
    stage.wait(webhooks, _PATIENCE_SECONDS)
    return stage.rate(webhooks)[1]


def _bare_rate(stage: Stage, requests: int) -> float:
    from webhooks.security import signatures

    credentials = base64.b64encode(f"{LOGIN}:{PASSWORD}".encode()).decode()
    body = stage.document()
    timestamp = int(time.time())
    signed = signatures.signature([b"k" * 32], "evt_0", timestamp, body.encode())
    headers = [
        "User-Agent: Webhooks/2.0",
        f"Authorization: Basic {credentials}",
        "Content-Type: application/json",
        f"webhook-id: evt_{'0' * 26}",
        f"webhook-timestamp: {timestamp}",
        f"webhook-signature: {signed}",
    ]
    return bare.measure(stage.receiver.url, requests, _BARE_IN_FLIGHT, headers, body)


def _cpu(stage: Stage, workers: list[BenchWorker]) -> tuple[float, float, float]:
    """Return the CPU seconds so far of workers, PostgreSQL and the receiver."""
    return (
        machine.cpu_seconds(worker.pid for worker in workers),
        machine.cpu_seconds([stage.postgres.pid]),
        machine.cpu_seconds([stage.receiver.pid]),
    )


def growth_mib(memory: list[float]) -> float:
    """Return the MiB gained between the first round and the median of the later ones."""
    return statistics.median(memory[1:] or memory) - memory[0]
