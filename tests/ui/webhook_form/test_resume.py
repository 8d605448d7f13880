"""Making a paused webhook active in its form: held deliveries are sent or dropped, as chosen."""

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import make_delivery, make_webhook
from tests.ui.webhook_form.test_forms import bound, posted
from tests.ui.webhook_form.test_views import logged_in
from webhooks import audit, events
from webhooks.models import Action, AuditEntry, Delivery, Status, Webhook

pytestmark = pytest.mark.django_db

TICKED = {"is_active": "on", "initial-is_active": "False"}


@pytest.fixture
def held() -> Delivery:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    events.pause(webhook)
    delivery.refresh_from_db()
    assert delivery.status == Status.HELD
    return delivery


def webhook_of(delivery: Delivery) -> Webhook:
    return Webhook.objects.get(pk=delivery.webhook_id)


def test_it_asks_before_it_becomes_active(held: Delivery) -> None:
    form = bound(webhook_of(held), **TICKED)
    assert not form.is_valid()
    assert form.errors["held"] == ["Choose what happens to the deliveries on hold."]
    assert [one["target"] for one in form.problems()] == ["id_held"]


@pytest.mark.parametrize(("choice", "status"), [("send", "pending"), ("cancel", "cancelled")])
def test_what_is_held_is_sent_or_dropped(held: Delivery, choice: str, status: str) -> None:
    form = bound(webhook_of(held), held=choice, **TICKED)
    assert form.is_valid(), form.errors
    form.save()
    held.refresh_from_db()
    assert held.status == status
    assert webhook_of(held).is_active


def test_other_changes_of_a_paused_webhook_need_no_answer(held: Delivery) -> None:
    form = bound(webhook_of(held), name="Renamed", is_active=None, **{"initial-is_active": "False"})
    assert form.is_valid(), form.errors
    form.save()
    held.refresh_from_db()
    assert (webhook_of(held).name, held.status) == ("Renamed", Status.HELD)


def test_it_asks_nothing_when_the_pause_came_while_the_form_was_open(held: Delivery) -> None:
    form = bound(webhook_of(held), name="Renamed")
    assert form.is_valid(), form.errors
    form.save()
    assert (webhook_of(held).name, webhook_of(held).is_active) == ("Renamed", False)


def test_it_asks_nothing_when_nothing_is_held() -> None:
    webhook = make_webhook()
    events.pause(webhook)
    form = bound(Webhook.objects.get(pk=webhook.pk), **TICKED)
    assert form.is_valid(), form.errors
    assert "held" not in form.fields


@pytest.mark.slow
def test_the_page_asks_and_the_trail_says_what_was_dropped(held: Delivery) -> None:
    browser: Client = logged_in(is_superuser=True)
    url = reverse("webhooks:edit", args=[held.webhook_id])
    assert 'name="held" value="cancel"' in browser.get(url).text
    assert "Choose what happens to the deliveries" in browser.post(url, posted(**TICKED)).text
    browser.post(url, posted(held="cancel", event_types=["call.*"], **TICKED))
    entry = AuditEntry.objects.get(action=Action.RESUMED)
    assert audit.sentence(entry.note) == "Deliveries on hold were cancelled."
