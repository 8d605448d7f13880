"""Incidents: one message when something breaks, a reminder a day, one when it works again."""

import datetime as dt

import pytest
from django.core import mail
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from webhooks import alerts, events
from webhooks.models import (
    Delivery,
    Event,
    Incident,
    IncidentKind,
    OAuthToken,
    PauseReason,
    Webhook,
    WebhookState,
)

pytestmark = pytest.mark.django_db
NOW = timezone.now()
PEOPLE = ["ops@example.com"]


def lost_grant(**fields: object) -> Webhook:
    values = {"authorization_type": "oauth2", "alert_recipients": PEOPLE, **fields}
    webhook = make_webhook(**values)
    OAuthToken.objects.create(
        webhook=webhook, state="needs_reauthorization", last_error="The grant was revoked."
    )
    return webhook


def test_a_lost_grant_is_told_once_with_a_link_to_the_button(settings) -> None:
    webhook = lost_grant()
    assert alerts.look(NOW) == 1
    assert alerts.look(NOW + dt.timedelta(hours=1)) == 0
    [message] = mail.outbox
    assert message.to == PEOPLE
    assert "needs re-authorization" in message.subject
    assert "The grant was revoked." in message.body
    assert f"{settings.PUBLIC_URL}/integrations/webhooks/{webhook.pk}/edit/#token" in message.body


def test_the_message_says_how_many_deliveries_wait() -> None:
    webhook = lost_grant()
    make_delivery(webhook)
    Delivery.objects.update(status="held", next_attempt_at=None)
    alerts.look(NOW)
    assert "1 delivery waits" in mail.outbox[0].body


def test_a_lost_grant_becomes_an_operational_event_for_others() -> None:
    watcher = make_webhook(event_types=["webhook.reauthorization_required"])
    lost_grant()
    alerts.look(NOW)
    event = Event.objects.get(type="webhook.reauthorization_required")
    assert Delivery.objects.get(event=event).webhook == watcher


def test_a_reminder_comes_after_a_day() -> None:
    lost_grant()
    alerts.look(NOW)
    assert alerts.look(NOW + dt.timedelta(hours=25)) == 1
    assert len(mail.outbox) == 2


def test_recovery_is_told_and_closes_the_incident() -> None:
    webhook = lost_grant()
    alerts.look(NOW)
    OAuthToken.objects.filter(webhook=webhook).update(state="valid")
    assert alerts.look(NOW + dt.timedelta(minutes=1)) == 1
    assert "works again" in mail.outbox[1].subject
    assert Incident.objects.get().closed_at is not None
    assert Event.objects.filter(type="webhook.recovered").count() == 1


def test_a_second_spell_is_a_new_incident() -> None:
    webhook = lost_grant()
    token = OAuthToken.objects.filter(webhook=webhook)
    for minutes, state in enumerate(["needs_reauthorization", "valid", "needs_reauthorization"]):
        token.update(state=state)
        alerts.look(NOW + dt.timedelta(minutes=minutes))
    assert Incident.objects.count() == 2
    assert Incident.objects.filter(closed_at=None).count() == 1


def test_failing_is_told_only_after_a_while() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE)
    WebhookState.objects.create(
        webhook=webhook, failing_since_at=NOW, last_error="The receiver failed with 500."
    )
    assert alerts.look(NOW + dt.timedelta(minutes=1)) == 0
    assert alerts.look(NOW + dt.timedelta(minutes=16)) == 1
    assert "The receiver failed with 500." in mail.outbox[0].body


def test_a_webhook_paused_by_the_engine_is_told_and_one_paused_by_a_person_is_not() -> None:
    events.pause(make_webhook(alert_recipients=PEOPLE), PauseReason.GONE)
    events.pause(make_webhook(alert_recipients=PEOPLE))
    assert alerts.look(NOW) == 1
    assert Incident.objects.get().kind == IncidentKind.PAUSED


def test_an_ending_refresh_token_is_announced_days_before() -> None:
    webhook = make_webhook(authorization_type="oauth2", alert_recipients=PEOPLE)
    OAuthToken.objects.create(
        webhook=webhook, state="valid", refresh_token_expires_at=NOW + dt.timedelta(days=8)
    )
    assert alerts.look(NOW) == 0
    assert alerts.look(NOW + dt.timedelta(days=2)) == 1


def test_muted_alerts_go_only_to_the_recipients_of_every_webhook(settings) -> None:
    settings.WEBHOOKS_ALERT_RECIPIENTS = ["all@example.com"]
    lost_grant(alerts_are_muted=True)
    alerts.look(NOW)
    assert mail.outbox[0].to == ["all@example.com"]


def test_a_mail_server_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost_grant()
    from django.core.mail import EmailMessage

    with monkeypatch.context() as broken:

        def refuse(self: EmailMessage, fail_silently: bool = False) -> int:
            raise ConnectionRefusedError

        broken.setattr(EmailMessage, "send", refuse)
        assert alerts.look(NOW) == 0
    assert alerts.look(NOW) == 1
    assert Event.objects.filter(type="webhook.reauthorization_required").count() == 1


def test_a_name_with_line_breaks_adds_no_header() -> None:
    lost_grant(name="CRM\r\nBcc: evil@example.com")
    alerts.look(NOW)
    assert "\n" not in mail.outbox[0].subject


def test_nothing_is_told_about_a_deleted_webhook() -> None:
    events.delete(lost_grant())
    assert alerts.look(NOW) == 0
