"""Webhooks whose settings cannot be used as they are: noted together, tried seldom."""

import time
from itertools import pairwise

import pytest

from tests.factories import make_delivery, make_webhook
from tests.waiting import eventually
from webhooks.delivery import plans as module
from webhooks.delivery import queue
from webhooks.delivery.plans import PlanEntry, Plans
from webhooks.models import Delivery, Status, Webhook, WebhookState

pytestmark = pytest.mark.django_db(transaction=True)


def entries(plans: Plans) -> list[PlanEntry]:
    """Return the entries of all webhooks with due rows, once they are made."""
    candidates = queue.backend().page().candidates

    def made() -> list[PlanEntry] | None:
        found = [entry for one in candidates if (entry := plans.get(one))]
        return found if len(found) == len(candidates) else None

    return eventually(made) or []


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.05)
    webhook = make_webhook()
    make_delivery(webhook)
    Webhook.objects.update(url="https://[x]/")
    plans = Plans()
    waits = [entries(plans)[0].retry_seconds]
    for _ in range(3):
        time.sleep(waits[-1])
        waits.append(entries(plans)[0].retry_seconds)
    assert all(after >= 2 * before for before, after in pairwise(waits))
    Webhook.objects.update(url=webhook.url, version=webhook.version + 1)
    [entry] = entries(plans)
    assert entry.plan is not None
    plans.close()
