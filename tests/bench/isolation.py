"""How much silent receivers slow down healthy ones; and latency, idle and at half the full rate.

A dead receiver accepts the connection, reads, and sends nothing until the webhook's timeout. Each
round makes new dead webhooks, so that the engine has to detect them each time.
"""

from dataclasses import dataclass, field

from tests.bench import steady_rate
from tests.bench.scale import Scale
from tests.bench.stage import WEBHOOKS, Stage, make_webhooks, notify

# Of 100 webhooks, and the same share of the due rows.
_DEAD = 10
_IDLE_PAUSE_SECONDS = 0.075
_PATIENCE_SECONDS = 300.0


@dataclass(slots=True)
class Isolation:
    """Healthy deliveries per second, alone and beside dead webhooks."""

    alone: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    # Duration of the drains with dead webhooks, in seconds.
    seconds: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Latency:
    idle: list[steady_rate.Times] = field(default_factory=list)
    half: list[steady_rate.Times] = field(default_factory=list)
    # At the same rate, with dead webhooks receiving 10 % more.
    half_beside: list[steady_rate.Times] = field(default_factory=list)


def measure_rates(stage: Stage, scale: Scale) -> Isolation:
    """Drain the same healthy rows with and without dead ones between them, alternating."""
    healthy = make_webhooks(WEBHOOKS - _DEAD, stage.receiver.url)
    rows = scale.isolation_rows * (WEBHOOKS - _DEAD) // WEBHOOKS
    found = Isolation()
    with stage.worker():
        _drain(stage, healthy, healthy, len(healthy))
        for _ in range(scale.rounds):
            found.alone.append(_drain(stage, healthy, healthy, rows)[0])
            dead = make_webhooks(
                _DEAD,
                stage.timing_receiver.silent_url,
                timeout_seconds=scale.dead_timeout_seconds,
            )
            mixed = _spread(healthy, dead)
            rate, seconds = _drain(stage, healthy, mixed, scale.isolation_rows)
            found.beside.append(rate)
            found.seconds.append(seconds)
    return found


def _spread(healthy: list[int], dead: list[int]) -> list[int]:
    """Put one dead webhook after each nine healthy ones."""
    step = len(healthy) // len(dead)
    mixed: list[int] = []
    for number, webhook in enumerate(dead):
        mixed += [*healthy[number * step : (number + 1) * step], webhook]
    return mixed


def _drain(stage: Stage, healthy: list[int], webhooks: list[int], rows: int) -> tuple[float, float]:
    """Return healthy deliveries per second, and the seconds they took."""
    stage.empty()
    stage.fill(rows, webhooks)
    notify()
    stage.wait(healthy, _PATIENCE_SECONDS)
    count, rate = stage.rate(healthy)
    if count != rows * len(healthy) // len(webhooks):
        raise RuntimeError(f"Only {count} healthy deliveries succeeded.")
    return rate, count / rate


def measure_latency(stage: Stage, scale: Scale, full_rate: float) -> Latency:
    """Publish singly, at half of `full_rate`, and at that rate beside dead webhooks, per round."""
    url = stage.timing_receiver.url
    make_webhooks(1, url, event_types=[steady_rate.lone_type()])
    steady_rate.make_subscribers(url)
    found = Latency()
    with stage.worker():
        for _ in range(scale.rounds):
            found.idle.append(
                steady_rate.publish_singly(
                    stage.timing_receiver, scale.idle_publishes, _IDLE_PAUSE_SECONDS
                )
            )
            found.half.append(_paced(stage, scale, full_rate))
            dead = steady_rate.make_dead_subscribers(
                stage.timing_receiver.silent_url, scale.dead_timeout_seconds
            )
            found.half_beside.append(_paced(stage, scale, full_rate))
            stage.forget(dead)
    return found


def _paced(stage: Stage, scale: Scale, full_rate: float) -> steady_rate.Times:
    # What the engine has learned about a webhook is kept, as in production. The log is not emptied:
    # PostgreSQL would keep the plans for the old content and scan the new one for seconds.
    steady_rate.publish_steadily(stage.timing_receiver, full_rate / 8, 0.5)
    return steady_rate.publish_steadily(stage.timing_receiver, full_rate / 2, scale.paced_seconds)
