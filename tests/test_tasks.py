"""Celery tasks and the database connection of the thread that runs them."""

import time

import psycopg
import pytest
import redis
from django.core.cache import cache
from django.db import OperationalError, connection
from kombu import Connection
from kombu.exceptions import OperationalError as BrokerError

import config.celery  # noqa: F401 - maps `redis://` to the product's transport.
from tests.relay import Relay
from tests.services import RedisServer
from webhooks import tasks
from webhooks.alerts import notifications
from webhooks.delivery import backlog, holds


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_task_connects_again_once_the_server_has_ended_its_connection() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        own = cursor.fetchone()
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", own)
    assert tasks.advance_resends.apply(throw=True).successful()


@pytest.mark.django_db
def test_a_worker_without_a_database_does_not_count_as_one_that_sweeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> int:
        raise OperationalError("no answer")

    cache.delete_many([backlog.LAST_SWEEP, backlog.SWEPT_RECENTLY])
    monkeypatch.setattr(holds, "stop_overlooked", fail)
    with pytest.raises(OperationalError):
        tasks.sweep()
    assert cache.get(backlog.SWEPT_RECENTLY) is None
    monkeypatch.undo()
    tasks.sweep()
    assert cache.get(backlog.SWEPT_RECENTLY) is True
    assert time.time() - cache.get(backlog.LAST_SWEEP) < 10


def test_a_process_sends_alerts_once_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow mail server would otherwise take one more thread of a worker every 30 s."""
    runs: list[int] = []

    def send(**_: object) -> None:
        runs.append(1)
        # As a second run in another thread: returns at once.
        tasks.send_alerts()

    monkeypatch.setattr(notifications, "run", send)
    monkeypatch.setattr(tasks, "notify", lambda: None)
    tasks.send_alerts()
    assert len(runs) == 1
    tasks.send_alerts()
    assert len(runs) == 2


def test_a_producer_follows_the_name_of_the_broker_after_a_failover(
    redis_server: RedisServer,
) -> None:
    """Beat keeps its producer for ever, and the old primary stays up as a replica."""
    with RedisServer() as after, Relay(redis_server.port) as relay:
        with Connection(f"redis://127.0.0.1:{relay.port}/0") as own:
            producer = own.Producer()
            producer.publish("before", routing_key="failover")
            with redis.Redis(port=redis_server.port) as client:
                client.replicaof("127.0.0.1", "1")
            relay.target = after.port
            with pytest.raises(redis.ReadOnlyError):
                producer.publish("lost", routing_key="failover")
            producer.publish("after", routing_key="failover")
        with redis.Redis(port=after.port) as client:
            assert client.llen("failover") == 1


def test_a_broker_that_takes_no_writes_is_away(redis_server: RedisServer) -> None:
    with Connection(redis_server.url) as own:
        own.ensure_connection(max_retries=1)
        own.default_channel.client.replicaof("127.0.0.1", "1")
    with Connection(redis_server.url) as own:
        waits: list[float] = []
        with pytest.raises(BrokerError, match="read only replica"):
            own.ensure_connection(lambda _error, wait: waits.append(wait), max_retries=1)
        assert waits == [2.0]
