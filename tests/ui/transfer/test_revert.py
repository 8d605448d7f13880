"""Going back to an earlier version of a webhook."""

import datetime as dt
import json

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_webhook
from webhooks import audit
from webhooks.models import Action, AuditEntry, Webhook, WebhookVersion

pytestmark = pytest.mark.django_db

HEADERS = json.dumps(
    [{"name": "X-Key", "value": "hush", "secret": True}, {"name": "X-Team", "value": "a"}]
)


def changed(webhook: Webhook, **fields: object) -> None:
    """Change a webhook as a form would, with its audit entry."""
    for name, value in fields.items():
        setattr(webhook, name, value)
    webhook.save()
    audit.record(Action.CHANGED, webhook, user=None, fields=fields)


def test_a_webhook_gets_its_earlier_settings_and_keeps_its_secrets(browser: Client) -> None:
    webhook = make_webhook(
        name="CRM",
        url="http://127.0.0.1:9/old",
        authorization_type="basic",
        basic_login="pbx",
        basic_password="hush",
        headers_json=HEADERS,
    )
    changed(webhook, timeout_seconds=10)
    first = WebhookVersion.objects.get()
    assert "hush" not in first.settings
    changed(webhook, url="http://127.0.0.1:9/new", timeout_seconds=30, name="Renamed")
    address = reverse("webhooks:revert", args=[webhook.pk, first.pk])
    assert address in browser.get(reverse("webhooks:audit", args=[webhook.pk])).text
    page = browser.get(address).text
    for label in ("URL", "Timeout (seconds)", "Name"):
        assert label in page
    assert "“CRM” has its earlier settings again." in browser.post(address, follow=True).text
    now = Webhook.objects.get(pk=webhook.pk)
    assert (now.name, now.url, now.timeout_seconds) == ("CRM", "http://127.0.0.1:9/old", 10)
    assert now.credential.basic_password == "hush"
    assert json.loads(now.headers_json) == json.loads(HEADERS) or "hush" in now.headers_json
    entry = AuditEntry.objects.get(action=Action.REVERTED)
    assert {"url", "timeout_seconds", "name"} <= set(entry.fields)
    assert "already has these settings" in browser.get(address).text


def test_a_secret_goes_to_no_origin_it_was_not_entered_for(browser: Client) -> None:
    webhook = make_webhook(url="http://127.0.0.1:9/old", authorization_type="none")
    changed(webhook, timeout_seconds=10)
    first = WebhookVersion.objects.get()
    webhook.credential.authorization_type = "basic"
    webhook.credential.basic_login = "pbx"
    webhook.credential.set_secret("basic_password", "hush")
    webhook.url = "http://127.0.0.1:7/new"
    webhook.save()
    webhook.credential.save()
    changed(webhook, timeout_seconds=20)
    second = WebhookVersion.objects.latest("pk")
    browser.post(reverse("webhooks:revert", args=[webhook.pk, first.pk]))
    assert Webhook.objects.get(pk=webhook.pk).url == "http://127.0.0.1:9/old"
    browser.post(reverse("webhooks:revert", args=[webhook.pk, second.pk]))
    now = Webhook.objects.get(pk=webhook.pk)
    assert now.url == "http://127.0.0.1:7/new"
    assert now.credential.secret_origins.get("basic_password", ["http://127.0.0.1:7"]) == [
        "http://127.0.0.1:7"
    ]


def test_a_mute_for_some_hours_does_not_come_back_for_good(browser: Client) -> None:
    until = timezone.now() + dt.timedelta(hours=8)
    webhook = make_webhook(
        alert_recipients=["ops@example.com"], alerts_are_muted=True, alerts_muted_until=until
    )
    changed(webhook, timeout_seconds=10)
    during = WebhookVersion.objects.get()
    changed(webhook, timeout_seconds=30)
    address = reverse("webhooks:revert", args=[webhook.pk, during.pk])
    browser.post(address)
    now = Webhook.objects.get(pk=webhook.pk)
    assert (now.timeout_seconds, now.alerts_muted_until) == (10, until)
    changed(now, alerts_are_muted=False, alerts_muted_until=None, timeout_seconds=30)
    browser.post(address)
    now = Webhook.objects.get(pk=webhook.pk)
    assert (now.timeout_seconds, now.alerts_are_muted) == (10, False)
