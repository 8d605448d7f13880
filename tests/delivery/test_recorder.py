"""The recorder: batches, rows the database refuses, the health of webhooks, the hourly roll-up."""

import datetime as dt
import math
import threading
import time
from collections import Counter, deque
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection
from django.utils import timezone

from tests.delivery.test_queue import claim, succeeded
from tests.factories import deliver_all, make_delivery, make_webhook, run_engine
from tests.polling import eventually
from tests.sandbox import Receiver
from webhooks import events
from webhooks.delivery import queue, retention
from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.histogram import NO_DURATION, step_of
from webhooks.delivery.queue.rows import ATTEMPT_COLUMNS, AttemptResult, HourCount
from webhooks.delivery.recorder import RECORD_ROWS, Counts, Recorder, Writer, pause
from webhooks.models import (
    Attempt,
    Delivery,
    HourlyCount,
    Outcome,
    PauseReason,
    Status,
    Webhook,
    WebhookState,
)

pytestmark = pytest.mark.django_db(transaction=True)


def a_recorder() -> Recorder:
    return Recorder(queue.backend(), "here")


def results(count: int) -> list[AttemptResult]:
    webhook = make_webhook()
    for _ in range(count):
        make_delivery(webhook)
    return [succeeded(row) for row in claim(webhook.pk, quota=count)]


def with_values(result: AttemptResult, **values: object) -> AttemptResult:
    attempt = dict(zip(ATTEMPT_COLUMNS, result.attempt, strict=True)) | values
    return result._replace(attempt=tuple(attempt.values()))


def test_a_batch_is_due_when_it_is_full_or_old_enough() -> None:
    recorder = a_recorder()
    [result] = results(1)
    now = time.monotonic()
    recorder.add(result)
    assert recorder.batch(now) == []
    assert recorder.batch(now + 60) == [result]
    for _ in range(RECORD_ROWS):
        recorder.add(result)
    assert len(recorder.batch(now)) == RECORD_ROWS


def test_a_batch_waits_for_more_while_more_are_on_their_way() -> None:
    in_hand = 100
    recorder = Recorder(queue.backend(), "here", lambda: in_hand)
    [result] = results(1)
    before = time.monotonic()
    recorder.add(result)
    after = time.monotonic()
    assert recorder.batch(before + 0.02) == []
    assert recorder.batch(after + 0.1) == [result]
    in_hand = 1
    assert recorder.batch(after + 0.02) == [result]


def test_a_batch_that_a_webhook_waits_for_is_not_held_up() -> None:
    recorder = Recorder(queue.backend(), "here", lambda: 100)
    first, second = results(2)
    recorder.add(first, is_awaited=True)
    batch = recorder.batch(time.monotonic() + 0.02)
    assert batch == [first]
    recorder.write(batch)
    before = time.monotonic()
    recorder.add(second)
    assert recorder.batch(before + 0.02) == []


def test_a_written_batch_is_forgotten_and_an_unwritten_one_is_kept() -> None:
    recorder = a_recorder()
    for result in results(3):
        recorder.add(result)
    batch = recorder.batch(float("inf"))
    assert recorder.write(batch) == 3
    assert not recorder.waiting
    assert Delivery.objects.filter(status=Status.SUCCEEDED).count() == 3


def test_a_row_that_the_database_refuses_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder = a_recorder()
    good, bad = results(2)
    bad = with_values(bad, response_headers="poison")
    write = recorder.queue.record

    def refuse_poison(rows: list[AttemptResult], **terms: object) -> int:
        if any("poison" in row.attempt for row in rows):
            raise DataError("refused")
        return int(write(rows, **terms))

    monkeypatch.setattr(recorder.queue, "record", refuse_poison)
    recorder.add(good)
    recorder.add(bad)
    assert recorder.write(recorder.batch(float("inf"))) == 2
    assert Delivery.objects.filter(status=Status.SUCCEEDED).count() == 2
    assert Attempt.objects.get(delivery=bad.delivery_id).response_headers == ""


def test_a_nul_in_an_attempt_is_no_reason_to_lose_it() -> None:
    recorder = a_recorder()
    [result] = results(1)
    recorder.add(with_values(result, error="a\x00b"))
    recorder.write(recorder.batch(float("inf")))
    assert Delivery.objects.get().status == Status.SUCCEEDED
    assert Attempt.objects.count() == 1


def test_health_is_written_at_once_when_it_changes_and_seldom_when_not() -> None:
    recorder = a_recorder()
    first, second = results(2)
    recorder.add(first)
    now = time.monotonic()
    due = recorder.due_states(now)
    assert len(due) == 1
    recorder.write_states(due)
    recorder.add(second)
    assert recorder.due_states(now) == []
    recorder.add(second._replace(outcome="timeout"))
    assert len(recorder.due_states(now)) == 1


def test_a_webhook_that_fails_for_too_long_is_paused() -> None:
    recorder = a_recorder()
    [result] = results(1)
    webhook = Webhook.objects.get()
    long_ago = timezone.now() - dt.timedelta(days=6)
    WebhookState.objects.create(webhook=webhook, failing_since_at=long_ago)
    recorder.add(result._replace(outcome="timeout"))
    recorder.write_states(recorder.due_states(0.0))
    webhook.refresh_from_db()
    assert webhook.pause_reason == PauseReason.FAILING


def health(recorder: Recorder) -> WebhookState:
    recorder.write_states(recorder.due_states(float("inf")))
    return WebhookState.objects.get()


def test_failures_in_a_row_are_counted_over_batches_and_end_with_a_success() -> None:
    recorder = a_recorder()
    [success] = results(1)
    failure = success._replace(outcome="timeout")
    for _ in range(3):
        recorder.add(failure)
    assert health(recorder).failures_in_a_row == 3
    recorder.add(failure)
    first = health(recorder)
    assert first.failures_in_a_row == 4
    for result in (failure, success, failure, failure):
        recorder.add(result)
    then = health(recorder)
    assert then.failures_in_a_row == 2
    # A success that another failure followed at once still ended the first series of failures.
    assert then.failing_since_at
    assert first.failing_since_at
    assert then.failing_since_at > first.failing_since_at
    assert then.last_success_at is not None
    recorder.add(success)
    assert health(recorder).failures_in_a_row == 0
    assert health(recorder).failing_since_at is None


def test_pausing_changes_only_webhooks_that_are_active() -> None:
    webhook = make_webhook()
    assert pause([webhook.pk], PauseReason.GONE) == 1
    assert pause([webhook.pk], PauseReason.FAILING) == 0
    webhook.refresh_from_db()
    assert webhook.pause_reason == PauseReason.GONE


AN_HOUR = dt.datetime(2026, 3, 4, 15, tzinfo=dt.UTC)


def an_attempt(webhook_id: int = 1, outcome: str = "succeeded", **values: object) -> AttemptResult:
    given = {"started_at": AN_HOUR, "total_ms": 40.0, "outcome": outcome, **values}
    attempt = tuple(given.get(column) for column in ATTEMPT_COLUMNS)
    status = "succeeded" if outcome == "succeeded" else "pending"
    return AttemptResult("dlv_1", webhook_id, 1, status, None, "", outcome, 204, False, attempt)


def rows() -> dict[tuple[int, dt.datetime, str, int], int]:
    found = HourlyCount.objects.values_list("webhook", "hour", "outcome", "duration_step", "count")
    return {(row[0], row[1], row[2], row[3]): row[4] for row in found}


def test_attempts_are_counted_by_webhook_hour_outcome_and_duration() -> None:
    recorder = a_recorder()
    later = AN_HOUR + dt.timedelta(minutes=59, seconds=59)
    for attempt in (
        an_attempt(),
        an_attempt(started_at=later, total_ms=40.1),
        an_attempt(total_ms=90.0),
        an_attempt(outcome="timeout", total_ms=5000.0),
        an_attempt(outcome="blocked", total_ms=None),
        an_attempt(webhook_id=2, started_at=AN_HOUR + dt.timedelta(hours=9)),
    ):
        recorder.add(attempt)
    assert not recorder.write_counts(recorder.take_counts())
    assert rows() == {
        (1, AN_HOUR, "succeeded", step_of(40.0)): 2,
        (1, AN_HOUR, "succeeded", step_of(90.0)): 1,
        (1, AN_HOUR, "timeout", step_of(5000.0)): 1,
        (1, AN_HOUR, "blocked", NO_DURATION): 1,
        (2, AN_HOUR + dt.timedelta(hours=9), "succeeded", step_of(40.0)): 1,
    }


def test_counts_add_to_what_the_hour_has_already() -> None:
    recorder = a_recorder()
    for _ in range(2):
        recorder.add(an_attempt())
        recorder.add(an_attempt())
        recorder.write_counts(recorder.take_counts())
    assert list(rows().values()) == [4]


def test_counts_are_due_every_two_seconds_and_only_when_something_was_sent() -> None:
    recorder = a_recorder()
    now = time.monotonic()
    assert not recorder.due_counts(now)
    recorder.add(an_attempt())
    assert sum(recorder.due_counts(now).values()) == 1
    recorder.add(an_attempt())
    assert not recorder.due_counts(now + 1)
    assert sum(recorder.due_counts(now + 3).values()) == 1
    assert not recorder.due_counts(now + 9)


def test_no_more_than_a_thousand_counts_are_due_at_a_time() -> None:
    recorder = a_recorder()
    for webhook_id in range(1, 1201):
        recorder.add(an_attempt(webhook_id=webhook_id))
    now = time.monotonic()
    due = [recorder.due_counts(now + seconds) for seconds in (0, 3, 6)]
    assert [len(counts) for counts in due] == [1000, 200, 0]
    assert min(key[0] for key in due[1]) == 1001


@pytest.mark.parametrize("is_in_parallel", [True, False])
def test_counts_that_a_fault_keeps_out_are_given_back(
    is_in_parallel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = a_recorder()
    monkeypatch.setattr(recorder.queue, "WRITES_IN_PARALLEL", is_in_parallel)
    session = DatabaseSession(recorder.queue)
    uncounted: deque[Counts] = deque()
    writer = Writer(recorder, recorder.queue, session, lambda: None, uncounted)
    writer.start()
    counts = Counter({(1, AN_HOUR.toordinal() * 24 + AN_HOUR.hour, "succeeded", 9): 2})
    with monkeypatch.context() as patched:
        patched.setattr(recorder.queue, "add_counts", _fail)
        writer.write_counts(counts)
        eventually(lambda: writer.takes_counts(math.inf))
    assert rows() == {}
    assert not writer.takes_counts(time.monotonic()), "a broken database is not asked at once"
    assert writer.takes_counts(time.monotonic() + 11)
    assert writer.take_uncounted() == counts
    assert not writer.take_uncounted()
    # Also what was given a moment before the end.
    time.sleep(session.backoff_seconds)
    writer.write_counts(counts)
    writer.finish(time.monotonic() + 20)
    assert [*rows().values(), *uncounted] == [2]


def _fail(counts: list[HourCount]) -> None:
    raise OperationalError("gone")


def test_two_workers_that_count_the_same_hours_at_once_lose_nothing_and_do_not_deadlock() -> None:
    backend = queue.backend()
    keys = [(webhook, step) for webhook in range(1, 21) for step in range(1, 6)]
    barrier = threading.Barrier(2)
    errors: list[Exception] = []

    def add(order: int) -> None:
        counts = [HourCount(webhook, AN_HOUR, "succeeded", step, 1) for webhook, step in keys]
        barrier.wait()
        try:
            for _ in range(10):
                backend.add_counts(counts[::order])
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=add, args=(order,)) for order in (1, -1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert Counter(rows().values()) == {20: len(keys)}


def test_a_drain_leaves_its_counts_behind(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    for _ in range(3):
        make_delivery(webhook)
    # Tests are not counted: they would distort the chart.
    events.send_test(webhook, "webhook.test")
    deliver_all()
    counted = HourlyCount.objects.filter(webhook=webhook, outcome=Outcome.SUCCEEDED)
    assert sum(row.count for row in counted) == 3
    assert all(row.duration_step != NO_DURATION for row in counted)


@pytest.mark.database("postgres")
def test_new_requests_do_not_wait_for_counts(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers: list[str] = []

    def add_counts(counts: list[HourCount]) -> None:
        writers.append(threading.current_thread().name)
        add(counts)

    add = queue.backend().add_counts
    monkeypatch.setattr(queue.backend(), "add_counts", add_counts)
    make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
    run_engine(HourlyCount.objects.exists)
    assert writers == ["writer"]


@pytest.mark.parametrize(("days", "kept_days"), [(7, 31), (90, 90)])
def test_counts_are_kept_as_long_as_deliveries_and_as_the_longest_chart(
    days: int, kept_days: int, settings: Any
) -> None:
    settings.WEBHOOKS_RETENTION_DAYS = days
    kept = AN_HOUR - dt.timedelta(days=kept_days)
    past = kept - dt.timedelta(hours=1)
    queue.backend().add_counts(
        [HourCount(1, hour, "succeeded", 9, 1) for hour in (past, kept, AN_HOUR)]
    )
    retention.delete_old_rows(AN_HOUR)
    assert sorted(key[1] for key in rows()) == [kept, AN_HOUR]


def test_counts_of_a_deleted_webhook_stay_with_its_log() -> None:
    webhook = make_webhook()
    queue.backend().add_counts([HourCount(webhook.pk, AN_HOUR, "succeeded", 9, 1)])
    events.delete(webhook)
    retention.delete_old_rows(AN_HOUR)
    assert HourlyCount.objects.get().webhook.name == webhook.name
