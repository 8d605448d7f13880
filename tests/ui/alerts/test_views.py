"""The page of alerts: channels of each kind, their tests, and what is never shown."""

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse

from tests.people import logged_in
from tests.sandbox import Receiver
from webhooks.models import AlertChannel, AuditEntry

pytestmark = pytest.mark.django_db

ALERTS = reverse("webhooks:alerts")


@pytest.fixture
def browser() -> Client:
    return logged_in(is_superuser=True)


def add(browser: Client, kind: str, **fields: str) -> AlertChannel:
    answer = browser.post(reverse("webhooks:alert_add", args=[kind]), fields)
    assert answer.status_code == 302, answer.text
    return AlertChannel.objects.get()


def test_an_address_is_added_tested_and_removed(browser: Client) -> None:
    channel = add(browser, "email", recipient="ops@example.com")
    answer = browser.post(reverse("webhooks:alert_test", args=[channel.pk]), follow=True)
    assert "The test for “ops@example.com” was accepted." in answer.text
    assert mail.outbox[0].to == ["ops@example.com"]
    browser.post(reverse("webhooks:alert_delete", args=[channel.pk]))
    assert "No alerts yet" in browser.get(ALERTS).text
    actions = AuditEntry.objects.filter(object_type="alertchannel").order_by("pk")
    assert list(actions.values_list("action", flat=True)) == ["created", "tested", "deleted"]


def test_a_url_is_kept_sealed_and_never_shown(browser: Client, receiver: Receiver) -> None:
    channel = add(browser, "slack", name="Ops", secret=f"{receiver.url}/services/T0KEN")
    edit = reverse("webhooks:alert_edit", args=[channel.pk])
    for page in (ALERTS, edit):
        assert "T0KEN" not in browser.get(page).text
    assert f"{receiver.url}/••••" in browser.get(ALERTS).text
    browser.post(edit, {"name": "Night shift", "secret": ""})
    channel.refresh_from_db()
    assert (channel.name, channel.secret) == ("Night shift", f"{receiver.url}/services/T0KEN")
    browser.post(reverse("webhooks:alert_test", args=[channel.pk]))
    [request] = receiver.requests()
    assert b"Test: alerts arrive here" in request.body


def test_a_test_that_is_refused_says_why(browser: Client, receiver: Receiver) -> None:
    channel = add(browser, "webhook", name="Ops", secret=f"{receiver.url}/status/404")
    answer = browser.post(reverse("webhooks:alert_test", args=[channel.pk]), follow=True)
    assert "refused the request with 404" in answer.text


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("email", {"recipient": "nobody"}),
        ("slack", {"name": "Ops", "secret": "http://169.254.169.254/"}),
        ("webhook", {"name": "Ops", "secret": ""}),
        ("telegram", {"name": "Ops", "secret": "not a token", "recipient": "-1001"}),
        ("telegram", {"name": "Ops", "secret": "1234567:" + "a" * 35, "recipient": "a chat"}),
    ],
)
def test_what_can_reach_nobody_is_refused(
    browser: Client, kind: str, fields: dict[str, str]
) -> None:
    answer = browser.post(reverse("webhooks:alert_add", args=[kind]), fields)
    assert answer.status_code == 422
    assert not AlertChannel.objects.exists()


def test_my_own_address_is_filled_in(browser: Client) -> None:
    from django.contrib.auth import get_user_model

    get_user_model().objects.update(email="me@example.com")
    address = f"{reverse('webhooks:alert_add', args=['email'])}?mine=1"
    assert address in browser.get(ALERTS).text
    assert 'value="me@example.com"' in browser.get(address).text
