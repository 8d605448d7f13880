"""Why an event was or was not sent to a webhook, and to each of many."""

import datetime as dt

import pytest
from django.utils import timezone

from tests.ui.webhook_form.test_filter_views import MISSED, make_webhook, publish
from webhooks import audit, events
from webhooks.delivery_log import explain
from webhooks.models import Action, AuditEntry, Delivery, Status, Webhook

pytestmark = pytest.mark.django_db


def test_a_change_before_many_other_entries_is_still_seen() -> None:
    webhook, other = make_webhook(filter=MISSED), make_webhook()
    [event] = publish(disposition="NO ANSWER")
    for one, fields in ((webhook, ["filter", "name"]), (other, ["name"])):
        audit.record(Action.CHANGED, one, user=None, fields=fields)
    tests = [
        AuditEntry(action=Action.TESTED, object_type="webhook", object_id=str(one.pk))
        for one in [webhook, other] * 1100
    ]
    AuditEntry.objects.bulk_create(tests)
    Webhook.objects.update(updated_at=timezone.now())
    changed_at = explain.last_changes(list(Webhook.objects.all()), event.created_at)
    assert changed_at[webhook.pk] >= event.created_at
    assert changed_at[other.pk] < event.created_at


def test_an_event_during_the_time_in_the_trash_found_another_webhook() -> None:
    webhook = make_webhook()
    events.delete(webhook)
    [event] = publish()
    restored = events.restore(webhook.pk)
    assert restored is not None
    audit.record(Action.RESTORED, restored, user=None)
    event.created_at -= dt.timedelta(seconds=1)
    verdict = explain.judge_for(restored).verdict(event, [])
    assert verdict["changed_since"] is not None
    assert "would be sent now" in verdict["sentence"]


def test_an_edited_copy_and_a_test_were_sent_at_once() -> None:
    webhook = make_webhook()
    publish()
    judge = explain.judge_for(webhook)
    copy = events.resend_edited(Delivery.objects.get(), {"call_id": "call-2"})
    assert "Not at once" not in judge.verdict(copy.event, [copy])["sentence"]
    test = events.send_test(webhook)
    again = make_resent(test)
    assert "Not at once" not in judge.verdict(test.event, [again, test])["sentence"]
    assert "Not at once" in judge.verdict(test.event, [again])["sentence"]


def make_resent(delivery: Delivery) -> Delivery:
    rows = Delivery.objects.filter(pk=delivery.pk)
    rows.update(status=Status.FAILED, next_attempt_at=None)
    events.resend(rows)
    return Delivery.objects.filter(event=delivery.event_id).latest("id")
