"""How many drains a worker runs, and which slots are left for its other tasks."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.concurrency import prefork, solo, thread
from celery.worker import state
from kombu import Queue
from pytest_django import Settings

import config.celery  # noqa: F401 - maps `redis://` to the product's transport.
from tests.polling import eventually
from tests.services import RedisServer
from webhooks import tasks
from webhooks.delivery import drains
from webhooks.delivery.wakeup import ProcessWakeup


def may_begin(*, slots: int, queues: tuple[str, ...], pool: type[Any]) -> bool:
    amqp: Any = SimpleNamespace(queues=SimpleNamespace(consume_from=dict.fromkeys(queues)))
    controller = SimpleNamespace(
        app=SimpleNamespace(amqp=amqp), concurrency=slots, pool=pool(slots)
    )
    return drains.has_free_slot(controller)


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    requests: set[Any] = set()
    monkeypatch.setattr(state, "active_requests", requests)
    monkeypatch.setattr(state, "reserved_requests", set())
    return requests


class ReservedRequest:
    name = drains.DRAIN


def most_drains(
    running: set[Any], slots: int, *queues: str, pool: type[Any] = prefork.TaskPool
) -> int:
    count = 0
    while may_begin(slots=slots, queues=queues, pool=pool):
        running.add(ReservedRequest())
        count += 1
    return count


@pytest.mark.parametrize(
    ("slots", "queues", "drains_at_once"),
    [
        (4, ("deliveries",), 4),
        (4, ("deliveries", "default"), 3),
        (1, ("deliveries", "default"), 1),
    ],
)
def test_a_worker_of_other_queues_keeps_a_slot_for_them(
    running: set[Any], slots: int, queues: tuple[str, ...], drains_at_once: int
) -> None:
    assert most_drains(running, slots, *queues) == drains_at_once


def test_a_worker_runs_no_more_drains_than_it_is_allowed(
    running: set[Any], settings: Settings
) -> None:
    settings.WEBHOOKS_DRAINS_PER_WORKER = 2
    assert most_drains(running, 8, "deliveries") == 2


def test_threads_share_one_drain(running: set[Any], settings: Settings) -> None:
    """They share one interpreter: a second drain would need memory and send nothing more."""
    queues = ("deliveries", "default")
    assert most_drains(running, 4, *queues, pool=thread.TaskPool) == 1
    running.clear()
    settings.WEBHOOKS_DRAINS_PER_WORKER = 2
    assert most_drains(running, 4, *queues, pool=thread.TaskPool) == 2


def test_threads_take_no_drain_that_another_worker_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They share the queue: a second long drain would block a thread for sweeps and tokens."""
    monkeypatch.setattr(drains, "wanted", 1)
    monkeypatch.setattr(tasks, "wakeup", ProcessWakeup)
    began: list[float] = []
    monkeypatch.setattr(tasks, "run_drain", lambda seconds: began.append(seconds) or 1)
    with drains.drain_slot() as is_wanted:
        assert is_wanted
        assert tasks.drain() == 0
        assert tasks.drain(seconds=1.0) == 1
    assert tasks.drain() == 1
    assert len(began) == 2


@pytest.mark.slow
def test_a_worker_asks_at_once_for_what_comes_after_a_drain(
    running: set[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks rarely while the drain it wants is running."""
    monkeypatch.setattr(drains, "wanted", 1)
    monkeypatch.setattr(drains, "REST_SECONDS", 600.0)
    asked = threading.Event()
    amqp: Any = SimpleNamespace(queues=SimpleNamespace(consume_from={"deliveries": None}))
    drain = SimpleNamespace(apply_async=lambda **_: asked.set())
    app = SimpleNamespace(amqp=amqp, tasks={drains.DRAIN: drain})
    controller = SimpleNamespace(app=app, concurrency=1, pool=thread.TaskPool(1))
    running.add(ReservedRequest())
    # Ignore the end of an earlier drain.
    drains.slots_changed.clear()
    looks = threading.Thread(target=drains.watch_slots, args=(controller,))
    try:
        with drains.drain_slot():
            looks.start()
            assert not asked.wait(1)
            running.clear()
        assert asked.wait(60)
    finally:
        drains.stop_worker()
        looks.join()
        drains.begin_worker()


def test_a_publisher_asks_for_a_short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long one could take the slot that a worker keeps for its other tasks."""
    asked: list[Any] = []
    monkeypatch.setattr(tasks.drain, "apply_async", lambda **terms: asked.append(terms))
    monkeypatch.setattr(tasks, "wakeup", ProcessWakeup)
    monkeypatch.setattr(tasks, "asked_at", float("-inf"))
    tasks.notify()
    tasks.notify()
    [terms] = asked
    assert terms["kwargs"]["seconds"] < 5


def test_a_short_drain_is_superfluous_once_another_drain_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tasks, "run_drain", lambda seconds: 7)
    listened = ProcessWakeup()
    monkeypatch.setattr(tasks, "wakeup", lambda: listened)
    assert tasks.drain(seconds=1.0) == 7
    listened.wait(0.0)
    assert tasks.drain(seconds=1.0) == 0
    # It is woken, as rows were due when the short drain was requested.
    assert listened.wait(0.0)


@contextmanager
def full_worker(url: str, settings: Settings, pool: type[Any]) -> Iterator[Any]:
    """Run what a worker without a free slot does: it reads its queue, and watches its slots."""
    settings.REDIS_URL = url
    drains.begin_worker()
    app = Celery("full", broker=url, set_as_current=False)
    app.conf.broker_transport_options = {"socket_timeout": 1, "socket_connect_timeout": 1}
    app.tasks[drains.DRAIN] = tasks.drain
    app.amqp.queues.select([drains.QUEUE])
    connection = app.connection()
    consumer = SimpleNamespace(connection=connection, task_consumer=None)
    controller = SimpleNamespace(app=app, concurrency=1, pool=pool(1), consumer=consumer)
    has_ended = threading.Event()

    def read() -> None:
        consumer.task_consumer = connection.Consumer(
            [Queue(drains.QUEUE)], on_message=lambda message: message.ack()
        )
        consumer.task_consumer.consume()
        while not has_ended.is_set() and not isinstance(controller.pool, solo.TaskPool):
            with suppress(TimeoutError):
                connection.drain_events(timeout=0.1)

    def read_until_it_fails() -> None:
        with suppress(redis.RedisError):
            read()
        if not has_ended.is_set() and not isinstance(controller.pool, solo.TaskPool):
            consumer.connection = None

    threads = [
        threading.Thread(target=read_until_it_fails),
        threading.Thread(target=drains.watch_slots, args=(controller,)),
    ]
    for one in threads:
        one.start()
    try:
        yield controller
    finally:
        has_ended.set()
        drains.stop_worker()
        for one in threads:
            one.join()
        drains.begin_worker()
        connection.release()
        app.close()


def _uses_of(client: "redis.Redis", command: str) -> list[Any]:
    """Return the ids of the connections whose last command this is."""
    return [one["id"] for one in client.client_list() if one["cmd"].lower() == command]


def _cut_off(client: "redis.Redis", command: str) -> None:
    connections = _uses_of(client, command)
    client.config_set("maxclients", 1)
    for connection in connections:
        client.client_kill_filter(_id=connection)


def _cut_off_reader(client: "redis.Redis") -> None:
    _cut_off(client, "brpop")


def _cut_off_publisher(client: "redis.Redis") -> None:
    _cut_off(client, "ltrim")


def _refuse_keys(client: "redis.Redis") -> None:
    client.execute_command("ACL", "SETUSER", "default", "resetkeys", "~webhooks:*")


def _spoil_queue(client: "redis.Redis") -> None:
    client.delete(drains.QUEUE)
    client.set(drains.QUEUE, "text")


@pytest.mark.parametrize("fault", [_cut_off_reader, _cut_off_publisher, _refuse_keys, _spoil_queue])
def test_a_drain_may_end_while_its_worker_can_start_the_next_one(
    fault: Callable[["redis.Redis"], None],
    redis_server: RedisServer,
    running: set[Any],
    settings: Settings,
) -> None:
    """Wakeups still work, over connections of their own: they cannot tell."""
    running.add(ReservedRequest())
    worker = full_worker(redis_server.url, settings, prefork.TaskPool)
    with worker, redis.Redis(port=redis_server.port) as client:
        eventually(lambda: drains.can_start_next(since=0.0) and _uses_of(client, "ltrim"))
        fault(client)
        # From here on, as for a drain whose time ends now.
        broken_at = time.monotonic()
        ends = broken_at + 4
        while time.monotonic() < ends:
            assert not drains.can_start_next(since=broken_at)
            time.sleep(0.01)


def test_a_drain_of_a_worker_without_threads_and_processes_may_end(
    redis_server: RedisServer, running: set[Any], settings: Settings
) -> None:
    """Its worker reads no queue before the drain has ended."""
    running.add(ReservedRequest())
    worker = full_worker(redis_server.url, settings, solo.TaskPool)
    with worker, redis.Redis(port=redis_server.port) as client:
        eventually(lambda: drains.can_start_next(since=0.0) and _uses_of(client, "ltrim"))
        _spoil_queue(client)
        eventually(lambda: not drains.can_start_next(since=0.0))


def test_a_drain_without_a_worker_may_end() -> None:
    assert drains.can_start_next(since=time.monotonic())
