"""How the engine thread's connection behaves when the database does not."""

import errno
import time
from types import SimpleNamespace

import pytest
from django.db import connection
from pytest_django import Settings

from webhooks.delivery import db_session, queue
from webhooks.delivery.db_session import DatabaseClock, DatabaseSession

pytestmark = pytest.mark.django_db(transaction=True)


def ask(statement: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


def failed_session() -> DatabaseSession:
    session = DatabaseSession(queue.backend())
    assert session.run(lambda: ask("SELECT nothing FROM nowhere")) is None
    return session


def test_what_fails_is_nothing_and_what_works_is_the_answer() -> None:
    session = failed_session()
    time.sleep(session.backoff_seconds)
    assert session.run(lambda: ask("SELECT 1")) == 1
    assert session.backoff_seconds == 0


def test_after_a_fault_the_database_is_left_alone_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("webhooks.delivery.db_session.BACKOFF_SECONDS", (60.0, 60.0))
    session = failed_session()
    assert session.run(lambda: ask("SELECT 1")) is None


@pytest.mark.parametrize("lack", [OSError(errno.EMFILE, "none left"), MemoryError()])
def test_what_this_machine_lacks_for_a_connection_is_a_fault_that_ends(lack: Exception) -> None:
    session = DatabaseSession(queue.backend())

    def fail() -> None:
        raise lack

    assert session.run(fail) is None
    time.sleep(session.backoff_seconds)
    assert session.run(lambda: ask("SELECT 1")) == 1


def test_the_wait_grows_up_to_a_limit() -> None:
    session = DatabaseSession(queue.backend())
    waits = []
    for _ in range(7):
        session.resume_at = 0.0
        session.run(lambda: ask("SELECT nothing FROM nowhere"))
        waits.append((session.backoff_seconds, session.is_failing))
    short = [(seconds, False) for seconds in (0.1, 0.2, 0.4, 0.8, 1.6)]
    assert waits == [*short, (2.0, True), (2.0, True)]


def test_leases_are_taken_back_only_while_the_database_has_been_well() -> None:
    session = DatabaseSession(queue.backend())
    now = time.monotonic()
    assert not session.is_calm(now)
    assert session.is_calm(now + 10)
    time.sleep(0.1)
    session.run(lambda: ask("SELECT nothing FROM nowhere"))
    assert not session.is_calm(now + 8.05)


@pytest.mark.slow
def test_a_call_that_waited_says_as_much_as_a_fault() -> None:
    session = DatabaseSession(queue.backend())
    now = time.monotonic()
    calm_in_the_midst: list[bool] = []
    waited_until: list[float] = []

    def wait() -> bool:
        time.sleep(1.1)
        calm_in_the_midst.append(session.is_calm(now + 20))
        waited_until.append(time.monotonic())
        return True

    assert session.run(wait)
    assert calm_in_the_midst == [False]
    assert not session.is_calm(waited_until[0] + 7.9)
    assert session.is_calm(time.monotonic() + 8.1)


def test_a_step_forward_of_the_clock_ends_leases_only_after_the_length_of_a_lease(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.WEBHOOKS_LEASE_SECONDS = 60
    now = 0.0
    monkeypatch.setattr(db_session, "time", SimpleNamespace(monotonic=lambda: now))
    clock = DatabaseClock()
    for seconds in (1000, 4600, 5600):
        clock.compare(seconds)
    now = 59.0
    assert (clock.wall(), clock.lease_wall()) == (5659, 1059)
    now = 60.0
    assert (clock.wall(), clock.lease_wall()) == (5660, 5660)


def test_the_first_comparison_and_a_step_back_are_no_step_forward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(db_session, "time", SimpleNamespace(monotonic=lambda: 0.0))
    clock = DatabaseClock()
    for seconds in (9000, 1000):
        clock.compare(seconds)
        assert (clock.wall(), clock.lease_wall()) == (seconds, seconds)
