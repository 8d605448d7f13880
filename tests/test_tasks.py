"""Celery tasks and the database connection of the thread that runs them."""

import time

import psycopg
import pytest
from django.core.cache import cache
from django.db import OperationalError, connection

from webhooks import tasks
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

    cache.delete(backlog.LAST_SWEEP)
    monkeypatch.setattr(holds, "stop_overlooked", fail)
    with pytest.raises(OperationalError):
        tasks.sweep()
    assert cache.get(backlog.LAST_SWEEP) is None
    monkeypatch.undo()
    tasks.sweep()
    assert time.time() - cache.get(backlog.LAST_SWEEP) < 10
