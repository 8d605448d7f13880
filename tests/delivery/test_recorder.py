"""The recorder: batches, rows the database refuses, and the health of webhooks."""

import datetime as dt
import time

import pytest
from django.db import DataError
from django.utils import timezone

from tests.delivery.test_queue import claim, succeeded
from tests.factories import make_delivery, make_webhook
from webhooks.delivery import queue
from webhooks.delivery.queue import ATTEMPT_COLUMNS, Result
from webhooks.delivery.recorder import RECORD_ROWS, Recorder, pause
from webhooks.models import Attempt, Delivery, PauseReason, Status, Webhook, WebhookState

pytestmark = pytest.mark.django_db(transaction=True)


def a_recorder() -> Recorder:
    return Recorder(queue.backend(), "here")


def results(count: int) -> list[Result]:
    webhook = make_webhook()
    for _ in range(count):
        make_delivery(webhook)
    return [succeeded(row) for row in claim(webhook.pk, quota=count)]


def with_values(result: Result, **values: object) -> Result:
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
    write = recorder._queue.record

    def refuse_poison(rows: list[Result], **terms: object) -> int:
        if any("poison" in row.attempt for row in rows):
            raise DataError("refused")
        return int(write(rows, **terms))

    monkeypatch.setattr(recorder._queue, "record", refuse_poison)
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
    # A success that another failure followed at once still ended the spell.
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
