"""The cost of a single event in statements, from accept to stored, and the cost of being idle.

PostgreSQL logs every statement of the publisher and of the worker.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench import front_door, machine, steady_rate
from tests.bench.scale import Scale
from tests.bench.stage import PAYLOAD, Stage, make_webhooks

# One event at a time: each one is stored before the next is published.
_PAUSE_SECONDS = 0.1
_REST_SECONDS = 3.0
_STATEMENTS = ("  statement: ", "  execute ")


@dataclass(slots=True)
class Lone:
    # For one event to one webhook, including BEGIN and COMMIT.
    statements_per_event: float = 0.0
    # Of one core: everything that compose.yaml starts, with PostgreSQL and Redis.
    idle_cpu_percent: float = 0.0


def measure(stage: Stage, scale: Scale) -> Lone:
    from webhooks import events

    webhooks = make_webhooks(1, stage.receiver.url, event_types=[steady_rate.lone_type()])
    found = Lone()
    stage.empty()
    with stage.worker():
        # The first event makes the plan, opens the connection and sets up the limiter.
        events.publish(steady_rate.lone_type(), PAYLOAD)
        stage.wait(webhooks, 60)
        time.sleep(_REST_SECONDS)
        with _logged(stage):
            before = stage.postgres.log
            for _ in range(scale.idle_publishes):
                events.publish(steady_rate.lone_type(), PAYLOAD)
                time.sleep(_PAUSE_SECONDS)
            lines = stage.postgres.log[len(before) :]
        stage.wait(webhooks, 60)
        made = sum(lines.count(one) for one in _STATEMENTS)
        found.statements_per_event = made / scale.idle_publishes
    with front_door.running(stage) as compose:
        time.sleep(scale.idle_start_seconds)
        pids = [*compose.pids, stage.postgres.pid, stage.redis.pid]
        used, began = machine.cpu_seconds(pids), time.monotonic()
        time.sleep(scale.idle_seconds)
        used, seconds = machine.cpu_seconds(pids) - used, time.monotonic() - began
        found.idle_cpu_percent = 100 * used / seconds
    return found


@contextmanager
def _logged(stage: Stage) -> Iterator[None]:
    for value in ("all", "none"):
        stage.database.execute(f"ALTER SYSTEM SET log_statement = '{value}'".encode())
        stage.query("SELECT pg_reload_conf()")
        # Processes read the setting at their next request.
        time.sleep(_REST_SECONDS)
        if value == "all":
            yield
