"""F43-F46: thousands of webhooks, many waiting rows, a database that is read-only."""

import http.client
import json
import time
from collections.abc import Callable, Mapping

import psycopg
from django.db import connection, transaction
from django.utils import timezone

from tests.factories import make_many_webhooks
from tests.faults.catalogue import BOTH, fault
from tests.faults.front_door import start_web
from tests.faults.starvation import (
    check_healthy,
    healthy,
    healthy_waits,
    load_factor,
    longest_seconds,
    publish_steadily,
    warm_up,
)
from tests.faults.world import EVENT, World, check, fresh_connection
from tests.services import HOST, free_port
from webhooks import events
from webhooks.models import ApiKey, Delivery, Status, Trigger, Webhook, ids
from webhooks.security import signatures

_FORM = {"form_id": "f", "page_url": "p"}
# Maximum duration of a person's request, however many rows wait.
_LONGEST_SECONDS = 3.0
# Rows that wait, usually and with `--quick`.
_WAITING_ROWS, _FEWER_ROWS = 1_000_000, 50_000
_FILL_ROWS = 50_000
# Three sweeps cancel this many, beside the engine.
_CANCELLED_ROWS = 40_000
# How many times as long a healthy delivery may take (p50) as without these rows.
_SLOWER = 5


def _crowd(world: World, count: int) -> list[Webhook]:
    """Make webhooks that are subscribed to forms only, and have received nothing yet."""
    return make_many_webhooks(
        Webhook(
            name=f"/crowd/{number}",
            url=world.receiver.url(f"/crowd/{number}"),
            event_types=["form.submitted"],
            timeout_seconds=2,
            retry_schedule_seconds=[2] * 8,
            signing_secret=signatures.new_secret(),
        )
        for number in range(count)
    )


def _publish_form(world: World) -> None:
    world.accept(lambda: [events.publish("form.submitted", _FORM)])


@fault("F43", "one event to 2,000 webhooks that were never sent to", databases=BOTH)
def cold_start(world: World) -> None:
    world.any_worker()
    warm_up(world)
    healthy(world, 6)
    _crowd(world, 2000)
    _publish_form(world)
    began = time.monotonic()
    check_healthy(world, publish_steadily(world, 8), 6)
    world.settle()
    last = max(one.started_at for one in world.receiver.arrivals if one.path.startswith("/crowd"))
    world.notes.append(f"the last of them after {last - began:.1f} s")
    world.verify()


@fault("F44", "a webhook with a million waiting rows is paused, resumed, deleted", databases=BOTH)
def many_waiting_rows(world: World) -> None:
    if world.database == "postgres":
        world.beat()
    world.any_worker()
    warm_up(world)
    healthy(world, 6)
    webhook = world.webhook("/waiting", event_types=["form.submitted"])
    world.receiver.delays["/waiting"] = 0.2
    rows = _FEWER_ROWS if world.is_quick else _WAITING_ROWS
    before = _p50(world, publish_steadily(world, 3))
    _fill(webhook, rows)
    # All rows are of one event, so the receiver gets the same webhook-id repeatedly.
    world.allowed += rows
    published: dict[str, float] = {}
    longest = 0.0
    for change in (events.pause, events.resume, events.pause, events.delete):
        longest = max(longest, _seconds(lambda change=change: change(webhook)))  # type: ignore[misc]
        published |= publish_steadily(world, 2)
        if change is not events.resume:
            arrived = _arrived(world, "/waiting")
            published |= publish_steadily(world, 2)
            count = _arrived(world, "/waiting") - arrived
            check(count == 0, f"{count} went out after {change.__name__}")
    world.notes.append(f"the longest change took {longest:.1f} s")
    check(longest < _LONGEST_SECONDS * load_factor(), f"a change took {longest:.1f} s")
    check_healthy(world, published, 6)
    beside = _p50(world, published)
    world.notes.append(f"p50 {1000 * beside:.0f} ms, {1000 * before:.0f} ms before")
    check(beside < _SLOWER * before, f"p50 {beside:.3f} s instead of {before:.3f} s")

    def left(*statuses: Status) -> int:
        with fresh_connection():
            return Delivery.objects.filter(webhook=webhook, status__in=statuses).count()

    if world.is_quick:
        is_over = lambda: left(Status.PENDING, Status.HELD) == 0  # noqa: E731
    else:
        is_over = lambda: left(Status.CANCELLED) >= _CANCELLED_ROWS  # noqa: E731
    seconds = world.wait(is_over, 90, "Cancelling what waited")
    world.notes.append(f"rows were cancelled {seconds:.0f} s later")


def _p50(world: World, published: Mapping[str, float]) -> float:
    """Return the median seconds of the healthy deliveries that arrived."""
    waits = healthy_waits(world, published)
    return waits[len(waits) // 2]


def _fill(webhook: Webhook, rows: int) -> None:
    """Insert pending deliveries of one event that are due now, at once."""
    published = events.publish("form.submitted", _FORM)
    copied = ", ".join(
        field.column for field in Delivery._meta.concrete_fields if not field.primary_key
    )
    is_sqlite = connection.vendor == "sqlite"
    of_each_id = "json_each(%s)" if is_sqlite else "json_array_elements_text(%s::json)"
    with transaction.atomic(), connection.cursor() as cursor:
        first = Delivery.objects.create(
            event_id=published.event_id,
            webhook=webhook,
            status=Status.PENDING,
            trigger=Trigger.EVENT,
            next_attempt_at=timezone.now(),
        )
        for start in range(1, rows, _FILL_ROWS):
            made = ids.new_ids("dlv", min(_FILL_ROWS, rows - start))
            cursor.execute(
                f"INSERT INTO webhooks_delivery (id, {copied}) SELECT made.value, {copied} "
                f"FROM {of_each_id} AS made, webhooks_delivery AS first WHERE first.id = %s",
                [json.dumps(made), first.pk],
            )


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _arrived(world: World, path: str) -> int:
    return sum(one.path == path for one in world.receiver.arrivals)


@fault("F45", "PostgreSQL takes no writes, as in a failover")
def read_only(world: World) -> None:
    """The API asks clients to retry, logging at most a few lines each; then everything recovers."""
    world.webhook()
    world.worker()
    port, key = free_port(), ApiKey.objects.issue("faults")[1]
    web = start_web(world, port)
    world.wait(lambda: _post(port, key, "first")[0] == 202, 30, "The first event")
    _let_write(world, False)
    try:
        lines = len(web.log.splitlines())
        for number in range(20):
            status, after = _post(port, key, f"refused-{number}")
            check(status == 503 and after > 0, f"answered {status}, Retry-After {after}")
        lines = len(web.log.splitlines()) - lines
    finally:
        # Later faults need to write.
        _let_write(world, True)
    check(lines <= 60, f"{lines} lines of log for 20 requests")
    world.notes.append(f"{lines} lines of log for 20 requests")
    world.wait(lambda: _post(port, key, "last")[0] == 202, 30, "The last event")
    world.accepted += 2
    world.settle()
    world.verify()


def _let_write(world: World, may: bool) -> None:
    """Set whether new sessions may write, and end the existing ones."""
    assert world.postgres is not None
    with psycopg.connect(world.postgres.url, autocommit=True) as session:
        session.execute("SET default_transaction_read_only = off")
        name = session.execute("SELECT current_database()").fetchone()
        assert name is not None
        state = "off" if may else "on"
        session.execute(
            f'ALTER DATABASE "{name[0]}" SET default_transaction_read_only = {state}'.encode()
        )
        session.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
    connection.close()


def _post(port: int, key: str, name: str) -> tuple[int, int]:
    """Publish over HTTP; return status and Retry-After seconds, or zeros if the server is down."""
    body = {"type": EVENT, "payload": {"n": 1}, "idempotency_key": name}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    client = http.client.HTTPConnection(HOST, port, timeout=20)
    try:
        client.request("POST", "/api/v1/events", json.dumps(body), headers)
        response = client.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0, 0
    finally:
        client.close()
    return response.status, int(response.headers.get("Retry-After", 0))


@fault("F46", "1,500 webhooks whose settings cannot be used", databases=BOTH)
def unusable_settings(world: World) -> None:
    world.any_worker()
    warm_up(world)
    crowd = _crowd(world, 1500)
    # As if another version had accepted a URL that this one rejects.
    Webhook.objects.filter(pk__in=[one.pk for one in crowd]).update(url="https://[x]/")
    _publish_form(world)
    published: dict[str, float] = {}
    for number in range(10):
        # A new webhook each time, so its plan and its first turn are new as well.
        world.webhook(f"/healthy/{number}", event_types=[EVENT])
        for event_id in world.publish(1):
            published[event_id] = time.monotonic()
        time.sleep(1)

    def waits() -> list[float]:
        arrived = [one for one in world.receiver.arrivals if one.path.startswith("/healthy")]
        return sorted(one.started_at - published[one.event_id] for one in arrived)

    # The first webhook got ten events, the second nine, and so on.
    world.wait(lambda: len(waits()) == 55, 30, "55 healthy arrivals")
    note = f"healthy p50 {waits()[27]:.2f} s, slowest {waits()[-1]:.2f} s"
    world.notes.append(note)
    check(waits()[-1] < longest_seconds(world), note)
