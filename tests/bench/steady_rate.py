"""Publishing at a steady rate through `publish_many()`, and the latency of each delivery.

Latency runs from the commit of the event until the receiver has read the request. The publisher's
own statements come before that; latency from the call is kept separately.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import machine
from tests.bench.receivers import OwnReceiver, TimedArrival
from tests.bench.stage import PAYLOAD, make_webhooks

if TYPE_CHECKING:
    from webhooks.events import NewEvent

# Ten webhooks per event type: with 10 % dead ones, nine healthy and one dead.
TYPES = 10
_HEALTHY_EACH = 9
_TICK_SECONDS = 0.01


@dataclass(slots=True)
class Times:
    """Milliseconds from commit to request, one value per delivery that arrived."""

    milliseconds: list[float] = field(default_factory=list)
    # The same, measured from the call of `publish()` or `publish_many()`.
    from_call: list[float] = field(default_factory=list)
    # Deliveries published per second.
    rate: float = 0.0
    # Part of the CPU that other machines of the host took.
    stolen: float = 0.0

    def __repr__(self) -> str:
        shown = " ".join(f"p{percent}={self.percentile(percent):.1f}" for percent in (50, 90, 99))
        return f"<{len(self.milliseconds)} at {self.rate:.0f}/s: {shown} ms>"

    def percentile(self, percent: float) -> float:
        return _percentile(self.milliseconds, percent)

    def percentile_from_call(self, percent: float) -> float:
        return _percentile(self.from_call, percent)


def _percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class _Publisher:
    """Publishes in its own transaction and records the times of the call and of the commit."""

    def __init__(self) -> None:
        # Event id -> Unix seconds of the call, of the commit.
        self._moments: dict[str, tuple[float, float]] = {}

    def publish(self, items: list["NewEvent"]) -> None:
        from django.db import transaction

        from webhooks import events

        committed: list[float] = []
        called = time.time()
        with transaction.atomic():
            # Registered first, so that it runs before the wakeup.
            transaction.on_commit(lambda: committed.append(time.time()))
            published = events.publish_many(items)
        for event in published:
            self._moments[event.event_id] = called, committed[0]

    def times(self, arrivals: list[TimedArrival], *, rate: float) -> Times:
        pairs = [(arrival.moment, self._moments[arrival.event_id]) for arrival in arrivals]
        return Times(
            [(moment - committed) * 1000 for moment, (_, committed) in pairs],
            [(moment - called) * 1000 for moment, (called, _) in pairs],
            rate,
        )


def publishable() -> list[str]:
    """Return the event types in the catalogue's order."""
    from webhooks import catalogue

    return [key for key, kind in catalogue.EVENT_TYPES.items() if kind.is_publishable]


def event_types() -> list[str]:
    """Return the types that are published steadily."""
    return publishable()[:TYPES]


def lone_type() -> str:
    """Return a type that only one webhook of the bench is subscribed to."""
    return publishable()[TYPES]


def make_subscribers(url: str) -> list[int]:
    """Make nine webhooks for each of ten event types."""
    return [
        webhook
        for event_type in event_types()
        for webhook in make_webhooks(_HEALTHY_EACH, url, event_types=[event_type])
    ]


def make_dead_subscribers(url: str, timeout_seconds: int) -> list[int]:
    """Make one webhook per event type, with a receiver that never responds."""
    return [
        webhook
        for event_type in event_types()
        for webhook in make_webhooks(
            1, url, event_types=[event_type], timeout_seconds=timeout_seconds
        )
    ]


def publish_singly(receiver: OwnReceiver, count: int, pause_seconds: float) -> Times:
    """Publish one event at a time with pauses, as a quiet installation does."""
    from webhooks.events import NewEvent

    publisher = _Publisher()
    for number in range(count):
        # Varied, to stay out of step with everything that polls the queue at regular intervals.
        time.sleep(pause_seconds * (0.7 + 0.6 * (number * 0.618 % 1.0)))
        publisher.publish([NewEvent(lone_type(), PAYLOAD)])
    return publisher.times(_collect(receiver, count), rate=1 / pause_seconds)


def publish_steadily(receiver: OwnReceiver, rate: float, seconds: float) -> Times:
    """Publish this many healthy deliveries per second, in batches 10 ms apart."""
    from webhooks.events import NewEvent

    publisher = _Publisher()
    types = event_types()
    began, stolen = time.monotonic(), machine.stolen_seconds()
    published = 0
    while (elapsed := time.monotonic() - began) < seconds:
        # A late tick publishes what it missed: the load does not wait for a slow system.
        due = int((elapsed + _TICK_SECONDS) * rate / _HEALTHY_EACH) - published
        items = [
            NewEvent(types[number % TYPES], PAYLOAD) for number in range(published, published + due)
        ]
        if items:
            publisher.publish(items)
        published += due
        left = _TICK_SECONDS - (time.monotonic() - began - elapsed)
        time.sleep(max(0.0, left))
    spent = time.monotonic() - began
    stolen = machine.stolen_seconds() - stolen
    arrived = _collect(receiver, published * _HEALTHY_EACH)
    times = publisher.times(arrived, rate=published * _HEALTHY_EACH / spent)
    times.stolen = stolen / spent
    return times


def _collect(receiver: OwnReceiver, expected: int) -> list[TimedArrival]:
    """Fetch arrivals until all have come, or none has come for 10 seconds."""
    arrivals: list[TimedArrival] = []
    quiet_since = time.monotonic()
    while len(arrivals) < expected and time.monotonic() - quiet_since < 10.0:
        if new := receiver.arrivals():
            arrivals += new
            quiet_since = time.monotonic()
        time.sleep(0.1)
    if len(arrivals) != expected:
        raise RuntimeError(f"{expected} deliveries made {len(arrivals)} requests.")
    return arrivals
