"""How far behind the engine is."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from webhooks.delivery import backlog
from webhooks.delivery.recorder import note_unusable
from webhooks.models import Attempt, Delivery, WebhookState, ids

pytestmark = pytest.mark.django_db


def test_an_empty_queue_has_no_backlog() -> None:
    assert backlog.read() == backlog.Backlog(
        due=0, sending=0, held=0, parked=0, oldest_due_seconds=0.0, sent_per_second=0.0
    )


def test_what_waits_is_counted_by_what_it_waits_for() -> None:
    webhook = make_webhook()
    rows = [make_delivery(webhook) for _ in range(5)]
    hour_ago = timezone.now() - dt.timedelta(hours=1)
    later = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.filter(pk=rows[0].pk).update(next_attempt_at=hour_ago)
    Delivery.objects.filter(pk=rows[1].pk).update(next_attempt_at=later)
    Delivery.objects.filter(pk=rows[2].pk).update(status="sending")
    Delivery.objects.filter(pk=rows[3].pk).update(status="held", next_attempt_at=None)
    Delivery.objects.filter(pk=rows[4].pk).update(status="parked", next_attempt_at=None)
    found = backlog.read()
    assert (found.due, found.sending, found.held, found.parked) == (1, 1, 1, 1)
    assert 3590 < found.oldest_due_seconds < 3700


def test_the_oldest_due_delivery_is_found_behind_any_webhook() -> None:
    for _ in range(3):
        make_webhook(event_types=["deal.*"])
    make_delivery(make_webhook())
    hour_ago = timezone.now() - dt.timedelta(hours=1)
    Delivery.objects.update(next_attempt_at=hour_ago)
    assert backlog.read().oldest_due_seconds > 3590


@pytest.mark.database("postgres")
def test_a_retry_is_not_late_by_a_clock_that_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    make_delivery(make_webhook())
    real = timezone.now
    Delivery.objects.update(next_attempt_at=real() + dt.timedelta(minutes=5))
    monkeypatch.setattr(timezone, "now", lambda: real() + dt.timedelta(minutes=10))
    found = backlog.report()
    assert not found.is_late
    assert found.backlog.due == 0


def test_what_waits_for_a_receiver_that_is_down_is_not_late() -> None:
    down = make_webhook()
    make_delivery(down)
    WebhookState.objects.create(webhook=down, failures_in_a_row=5)
    Delivery.objects.update(next_attempt_at=timezone.now() - dt.timedelta(hours=1))
    assert (backlog.read().oldest_due_seconds, backlog.read().due) == (0, 1)
    assert not backlog.report().is_late
    # A receiver that responds with errors is not down.
    WebhookState.objects.update(last_status_code=500)
    assert backlog.report().is_late


def test_what_waits_as_its_webhook_cannot_be_used_as_it_is_set_is_not_late() -> None:
    unusable = make_webhook()
    make_delivery(unusable)
    Delivery.objects.update(next_attempt_at=timezone.now() - dt.timedelta(hours=1))
    assert backlog.report().seems_stopped
    note_unusable({unusable.pk: "Its port is closed."})
    assert not backlog.report().is_late


@pytest.mark.parametrize(
    "state",
    [{"failures_in_a_row": 5}, {"failing_since_at": timezone.now()}],
    ids=["down", "unusable"],
)
def test_a_late_delivery_is_found_behind_very_many_that_wait_for_something_else(
    state: dict[str, Any],
) -> None:
    down, up = make_webhook(event_types=["call.incoming.after"]), make_webhook()
    WebhookState.objects.create(webhook=down, **state)
    event_id = make_delivery(down).event_id
    now = timezone.now()
    Delivery.objects.filter(webhook=up).update(next_attempt_at=now - dt.timedelta(minutes=10))
    Delivery.objects.bulk_create(
        Delivery(
            id=ids.delivery_id(),
            event_id=event_id,
            webhook=down,
            status="pending",
            trigger="event",
            next_attempt_at=now - dt.timedelta(hours=1),
        )
        for _ in range(1500)
    )
    found = backlog.read(now)
    assert (found.due, found.oldest_due_seconds) == (1502, 600)


def test_the_send_rate_is_taken_over_recent_attempts_only() -> None:
    delivery = make_delivery(make_webhook())
    now = timezone.now()
    for seconds in (1, 2, 3, 600):
        started_at = now - dt.timedelta(seconds=seconds)
        Attempt.objects.create(delivery=delivery, number=1, started_at=started_at, request_line="")
    assert backlog.read(now).sent_per_second == pytest.approx(1.0)
