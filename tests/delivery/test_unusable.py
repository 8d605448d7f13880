"""Webhooks whose settings cannot be used: recorded together, retried seldom."""

import datetime as dt
import time
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.polling import eventually
from webhooks.delivery import outcomes, queue
from webhooks.delivery import plans as module
from webhooks.delivery.plans import PlanEntry, Plans
from webhooks.delivery.recorder import note_unusable, pause
from webhooks.models import Attempt, Delivery, PauseReason, Status, Webhook, WebhookState
from webhooks.models.messages import dump

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def advance_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Stop the clock of the plans; the returned function advances it by some seconds."""
    now = [time.monotonic()]

    def advance_clock(seconds: float) -> None:
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=time.sleep)
    monkeypatch.setattr(module, "time", clock)
    return advance_clock


def entries(plans: Plans) -> list[PlanEntry]:
    """Return the entries of all webhooks with due rows, once they are made."""
    candidates = queue.backend().page().candidates

    def made() -> list[PlanEntry] | None:
        found = [entry for one in candidates if (entry := plans.get(one))]
        return found if len(found) == len(candidates) else None

    return eventually(made) or []


def test_how_long_it_has_not_been_usable_is_by_the_clock_of_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook, now = make_webhook(), timezone.now()
    make_delivery(webhook)
    monkeypatch.setattr(timezone, "now", lambda: now - dt.timedelta(days=3653))
    note_unusable({webhook.pk: "Its port is closed."})
    pause([webhook.pk], PauseReason.GONE)
    webhook.refresh_from_db()
    began_at = WebhookState.objects.get().failing_since_at
    assert began_at is not None
    assert webhook.paused_at is not None
    for moment in (began_at, webhook.paused_at):
        assert abs(moment - now) < dt.timedelta(minutes=1)


def test_many_are_noted_in_one_line_and_each_at_its_webhook(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for number in range(30):
        make_webhook(name=str(number))
    make_delivery(Webhook.objects.all()[0])
    Delivery.objects.filter(webhook=Webhook.objects.all()[1]).update(trigger="test")
    Webhook.objects.update(url="https://[x]/")
    plans = Plans()
    assert all(entry.plan is None and entry.problem for entry in entries(plans))
    lines = eventually(lambda: [one for one in caplog.messages if "plans_unavailable" in one])
    plans.close()
    assert lines is not None
    assert len(lines) <= 2
    assert WebhookState.objects.exclude(failing_since_at=None).count() == 29
    assert Delivery.objects.get(trigger="test").status == Status.FAILED


def test_they_are_tried_less_and_less_often_until_they_are_changed(
    advance_clock: Callable[[float], None],
) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    Webhook.objects.update(url="https://[x]/")
    plans = Plans()
    waits = [entries(plans)[0].retry_seconds]
    for _ in range(3):
        advance_clock(waits[-1])
        waits.append(entries(plans)[0].retry_seconds)
    assert all(after >= 2 * before for before, after in pairwise(waits))
    Webhook.objects.update(url=webhook.url, version=webhook.version + 1)
    [entry] = entries(plans)
    assert entry.plan is not None
    plans.close()


def test_a_failure_that_no_one_expected_counts_when_it_occurs_again(
    advance_clock: Callable[[float], None],
) -> None:
    failing, other = make_webhook(), make_webhook(name="Other")
    test = make_delivery(failing)
    Delivery.objects.filter(pk=test.pk).update(trigger="test")
    make_delivery(other)
    # Written to the row directly, bypassing the form.
    Webhook.objects.filter(pk=failing.pk).update(retry_schedule_seconds=["soon"])
    plans = Plans()
    first = {one.problem for one in entries(plans)}
    reason = dump("not_built", error="ValueError")
    assert first == {reason, ""}
    assert not Delivery.objects.exclude(status=Status.PENDING).exists()
    assert not WebhookState.objects.exclude(last_error="").exists()
    advance_clock(module.AGAIN_SECONDS)
    assert {one.problem for one in entries(plans)} == first
    eventually(lambda: WebhookState.objects.filter(last_error=reason).exists())
    plans.close()
    attempt = Attempt.objects.get()
    assert (attempt.delivery_id, attempt.error) == (test.pk, reason)
    assert outcomes.sentence(attempt.error) == "The request could not be built (ValueError)."
    assert set(Delivery.objects.exclude(status=Status.PENDING)) == {test}
    assert not WebhookState.objects.filter(webhook=other).exclude(last_error="").exists()


def test_a_failure_of_the_moment_ends_no_test(advance_clock: Callable[[float], None]) -> None:
    test = make_delivery(make_webhook())
    Delivery.objects.filter(pk=test.pk).update(trigger="test")
    Webhook.objects.update(retry_schedule_seconds=["soon"])
    plans = Plans()
    [entry] = entries(plans)
    assert (entry.plan, entry.retry_seconds) == (None, 0.0)
    Webhook.objects.update(retry_schedule_seconds=[60])
    advance_clock(module.AGAIN_SECONDS)
    [entry] = entries(plans)
    plans.close()
    assert entry.plan is not None
    assert Delivery.objects.get().status == Status.PENDING
