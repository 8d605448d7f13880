"""PostgreSQL settings the queue relies on, changed by an administrator for a role or database."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from tests.factories import deliver_all, make_delivery, make_webhook
from tests.sandbox import Receiver
from webhooks.delivery import queue
from webhooks.delivery.db_session import DatabaseSession
from webhooks.models import Attempt, Webhook, WebhookState

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database("postgres")]
SetDefault = Callable[[str, str], None]


@pytest.fixture
def other() -> Iterator["psycopg.Connection[Any]"]:
    """Return the connection of another process."""
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as opened:
        yield opened


@pytest.fixture
def set_default(other: "psycopg.Connection[Any]") -> Iterator[SetDefault]:
    """Return a function that sets a parameter for all connections made from now on."""
    name = connection.settings_dict["NAME"]

    def set_default(setting: str, value: str) -> None:
        other.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        connection.close()

    yield set_default
    other.execute(f"ALTER DATABASE {name} RESET ALL")
    connection.close()


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_a_row_that_another_transaction_changed_is_looked_at_again(
    set_default: SetDefault, other: "psycopg.Connection[Any]", isolation: str
) -> None:
    make_webhook(name="before")
    set_default("default_transaction_isolation", isolation)
    with transaction.atomic():
        assert Webhook.objects.get().name == "before"
        other.execute("UPDATE webhooks_webhook SET name = 'theirs'")
        assert Webhook.objects.filter(name="before").update(name="ours") == 0
    assert Webhook.objects.get().name == "theirs"


def test_an_attempt_is_recorded_where_arrays_have_no_null(
    set_default: SetDefault, receiver: Receiver
) -> None:
    set_default("array_nulls", "off")
    make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
    deliver_all()
    assert Attempt.objects.get().status_code == 200
    assert WebhookState.objects.get().last_status_code == 200


def test_a_body_is_recorded_as_it_is_where_a_backslash_escapes(
    set_default: SetDefault, receiver: Receiver
) -> None:
    set_default("standard_conforming_strings", "off")
    make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
    deliver_all()
    attempt = Attempt.objects.get()
    assert 0 < attempt.response_size == len(attempt.response_body)


def test_the_clock_is_exact_where_numbers_have_few_digits(set_default: SetDefault) -> None:
    set_default("extra_float_digits", "-15")
    assert queue.backend().clock() == pytest.approx(time.time(), abs=60)


def test_a_session_of_the_engine_may_be_idle(set_default: SetDefault) -> None:
    set_default("idle_session_timeout", "100ms")
    session = DatabaseSession(queue.backend())
    for _ in range(2):
        assert session.run(queue.backend().clock) is not None
        time.sleep(0.5)
    queue.backend().reset_session()
