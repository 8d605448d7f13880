"""Celery tasks and the database connection of the thread that runs them."""

import psycopg
import pytest
from django.db import connection

from webhooks import tasks


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_task_connects_again_once_the_server_has_ended_its_connection() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        own = cursor.fetchone()
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT pg_terminate_backend(%s, 10000)", own)
    assert tasks.advance_resends.apply(throw=True).successful()
