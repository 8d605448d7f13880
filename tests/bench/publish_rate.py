"""How many events `publish_many()` accepts per second, and the statements of a wide fan-out.

The publisher is this process on the measured core, PostgreSQL is on the other: the figure is
events per wall-clock second, including the database's commits.
"""

import os
import tempfile
import time
from dataclasses import dataclass, field

from tests.bench import machine, steady_rate
from tests.bench.scale import Scale
from tests.bench.stage import PAYLOAD, Stage, make_webhooks

_BATCH = 500
_FAN_OUT = 1000
_WIDE_TYPE, _ONE_TYPE = -1, -2


@dataclass(slots=True)
class Publishing:
    per_second: list[float] = field(default_factory=list)
    # Statements for one event to 1,000 webhooks, and its milliseconds.
    statements: int = 0
    wide_ms: float = 0.0


def measure(stage: Stage, scale: Scale) -> Publishing:
    types = steady_rate.publishable()
    make_webhooks(1, stage.receiver.url, event_types=[types[_ONE_TYPE]])
    found = Publishing()
    with stage.pinned():
        machine.pin([os.getpid()], machine.CLIENT_CORES)
        try:
            for _ in range(scale.rounds):
                stage.empty()
                found.per_second.append(_rate(types[_ONE_TYPE], scale.publish_events))
            _widen(stage, types[_WIDE_TYPE], found)
        finally:
            machine.pin([os.getpid()])
    return found


def _rate(event_type: str, count: int) -> float:
    from webhooks import events

    began = time.perf_counter()
    for _ in range(count // _BATCH):
        events.publish_many([events.NewEvent(event_type, PAYLOAD) for _ in range(_BATCH)])
    return count // _BATCH * _BATCH / (time.perf_counter() - began)


def _widen(stage: Stage, event_type: str, found: Publishing) -> None:
    """Publish to 1,000 webhooks; count statements on the wire, where no layer can hide them."""
    from django.db import connection

    from tests.factories import make_many_webhooks
    from webhooks import events
    from webhooks.models import Webhook

    (webhook,) = make_webhooks(1, stage.receiver.url, event_types=[event_type])
    pattern = Webhook.objects.get(pk=webhook)
    make_many_webhooks(
        Webhook(name=f"Wide {number}", url=pattern.url, event_types=[event_type])
        for number in range(_FAN_OUT - 1)
    )
    events.publish(event_type, PAYLOAD)
    wire = connection.connection.pgconn
    with tempfile.TemporaryFile() as trace:
        wire.trace(trace.fileno())
        began = time.perf_counter()
        published = events.publish(event_type, PAYLOAD)
        found.wide_ms = (time.perf_counter() - began) * 1000
        wire.untrace()
        trace.seek(0)
        lines = trace.read().decode(errors="replace").splitlines()
    if published.deliveries != _FAN_OUT:
        raise RuntimeError(f"{published.deliveries} deliveries instead of {_FAN_OUT}.")
    kinds = [fields[3] for line in lines if len(fields := line.split("\t")) > 3]
    found.statements = kinds.count("Query") + kinds.count("Execute")
