"""Incidents: one message when something breaks, a reminder each day, one when it works again."""

import datetime as dt
import json
from smtplib import SMTPDataError, SMTPException, SMTPRecipientsRefused
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_credential, make_delivery, make_webhook
from webhooks import events
from webhooks.alerts import notifications
from webhooks.models import (
    AlertChannel,
    AlertMessage,
    Delivery,
    Event,
    HourlyCount,
    Incident,
    IncidentKind,
    OAuthToken,
    Outcome,
    PauseReason,
    Webhook,
    WebhookState,
)
from webhooks.ui import shared_credentials

pytestmark = pytest.mark.django_db
NOW = timezone.now()
PEOPLE = ["ops@example.com"]


def lost_grant(**fields: object) -> Webhook:
    values = {"authorization_type": "oauth2", "alert_recipients": PEOPLE, **fields}
    webhook = make_webhook(**values)
    OAuthToken.objects.create(
        credential=webhook.credential,
        state="needs_reauthorization",
        last_error="The grant was revoked.",
    )
    return webhook


def test_a_lost_grant_is_reported_once_with_a_link_to_the_button(settings) -> None:
    webhook = lost_grant()
    assert notifications.run(NOW) == 1
    assert notifications.run(NOW + dt.timedelta(hours=1)) == 0
    [message] = mail.outbox
    assert message.to == PEOPLE
    assert "needs re-authorization" in message.subject
    assert "The grant was revoked." in message.body
    assert f"{settings.PUBLIC_URL}/integrations/webhooks/{webhook.pk}/edit/#token" in message.body


def test_the_message_says_how_many_deliveries_wait() -> None:
    webhook = lost_grant()
    make_delivery(webhook)
    Delivery.objects.update(status="held", next_attempt_at=None)
    notifications.run(NOW)
    assert "1 delivery is on hold" in mail.outbox[0].body


def test_a_lost_grant_becomes_an_operational_event_for_others() -> None:
    watcher = make_webhook(event_types=["webhook.reauthorization_required"])
    lost_grant()
    notifications.run(NOW)
    event = Event.objects.get(type="webhook.reauthorization_required")
    assert Delivery.objects.get(event=event).webhook == watcher


def granted_by(person: Any, webhook: Webhook) -> Webhook:
    OAuthToken.objects.filter(credential=webhook.credential).update(granted_by=person)
    return webhook


def test_grants_of_one_person_that_end_together_are_one_mail() -> None:
    person = get_user_model().objects.create(username="anna")
    ended = [granted_by(person, lost_grant(name=f"CRM {number}")) for number in range(3)]
    assert notifications.run(NOW) == 1
    [message] = mail.outbox
    assert "3 access tokens need re-authorization" in message.subject
    assert "anna granted all of them" in message.body
    assert "/integrations/webhooks/connections/grants/" in message.body
    for webhook in ended:
        assert f"“{webhook.name}”: " in message.body
        assert f"/integrations/webhooks/{webhook.pk}/edit/#token" in message.body
    # Each grant has its own incident and event, and all share one reminder.
    assert Incident.objects.filter(notified_at=NOW).count() == 3
    assert Event.objects.filter(type="webhook.reauthorization_required").count() == 3
    assert notifications.run(NOW + dt.timedelta(minutes=1)) == 0
    assert notifications.run(NOW + dt.timedelta(hours=25)) == 1
    assert mail.outbox[1].subject.startswith("Reminder: 3 access tokens")


def test_grants_of_others_at_others_or_reported_to_others_are_mails_of_their_own() -> None:
    anna, petro = (get_user_model().objects.create(username=name) for name in ("anna", "petro"))
    granted_by(anna, lost_grant(token_url="https://one.example/token"))
    granted_by(petro, lost_grant(token_url="https://one.example/token"))
    granted_by(anna, lost_grant(token_url="https://two.example/token"))
    granted_by(
        anna,
        lost_grant(token_url="https://one.example/token", alert_recipients=["crm@example.com"]),
    )
    lost_grant(token_url="https://one.example/token")
    assert notifications.run(NOW) == 5
    assert not any("grants" in message.subject for message in mail.outbox)


def test_a_mail_about_many_that_is_not_taken_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = get_user_model().objects.create(username="anna")
    for _ in range(2):
        granted_by(person, lost_grant())

    def refuse(self: object) -> int:
        raise OSError("The mail server is away.")

    with monkeypatch.context() as patch:
        patch.setattr("django.core.mail.EmailMessage.send", refuse)
        assert notifications.run(NOW) == 0
    assert Incident.objects.filter(notified_at=None).count() == 2
    assert notifications.run(NOW + dt.timedelta(minutes=1)) == 1


def test_a_webhook_s_own_grant_is_no_problem_while_it_uses_a_connection() -> None:
    webhook = lost_grant()
    own = webhook.credential
    webhook.credential = make_credential()
    webhook.save()
    assert notifications.run(NOW) == 0
    webhook.credential = own
    webhook.save()
    assert notifications.run(NOW) == 1


def test_an_end_that_each_refresh_moves_is_not_announced() -> None:
    """As with Keycloak's session idle timeout."""
    webhook = lost_grant()
    OAuthToken.objects.filter(credential=webhook.credential).update(
        state="valid",
        refresh_token_expires_at=NOW + dt.timedelta(minutes=30),
        refresh_end_moves=True,
    )
    assert notifications.run(NOW) == 0


def test_a_reminder_comes_after_a_day() -> None:
    lost_grant()
    notifications.run(NOW)
    assert notifications.run(NOW + dt.timedelta(hours=25)) == 1
    assert len(mail.outbox) == 2


def test_recovery_is_reported_and_closes_the_incident() -> None:
    webhook = lost_grant()
    notifications.run(NOW)
    OAuthToken.objects.filter(credential=webhook.credential).update(state="valid")
    assert notifications.run(NOW + dt.timedelta(minutes=1)) == 1
    assert "works again" in mail.outbox[1].subject
    assert Incident.objects.get().closed_at is not None
    assert Event.objects.filter(type="webhook.recovered").count() == 1


def test_a_token_that_was_cleared_is_no_recovery() -> None:
    webhook = lost_grant()
    token = OAuthToken.objects.filter(credential=webhook.credential)
    notifications.run(NOW)
    token.update(state="none")
    assert notifications.run(NOW + dt.timedelta(days=2)) == 1
    assert mail.outbox[1].subject.startswith("Reminder")
    assert not Event.objects.filter(type="webhook.recovered").exists()
    token.update(state="valid")
    assert notifications.run(NOW + dt.timedelta(days=3)) == 1
    assert "works again" in mail.outbox[2].subject


def test_a_webhook_does_not_work_while_its_connection_does_not() -> None:
    webhook = lost_grant()
    notifications.run(NOW)
    shared_credentials.save_as_connection(webhook, created_by_id=None)
    assert notifications.run(NOW + dt.timedelta(minutes=1)) == 1
    assert "needs re-authorization" in mail.outbox[1].subject
    assert not Event.objects.filter(type="webhook.recovered").exists()
    OAuthToken.objects.update(state="valid")
    assert notifications.run(NOW + dt.timedelta(minutes=2)) == 1
    assert "works again" in mail.outbox[2].subject


@pytest.mark.parametrize("is_lost_again", [False, True])
def test_a_mail_that_it_works_again_is_repeated_while_that_is_so(
    is_lost_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.mail import EmailMessage

    AlertChannel.objects.create(kind="slack", name="Ops", secret="http://127.0.0.1:9/")
    lost_grant()
    notifications.run(NOW)
    OAuthToken.objects.update(state="valid")
    with monkeypatch.context() as broken:

        def refuse(self: EmailMessage, fail_silently: bool = False) -> int:
            raise ConnectionRefusedError

        broken.setattr(EmailMessage, "send", refuse)
        for minutes in range(1, 4):
            assert notifications.run(NOW + dt.timedelta(minutes=minutes)) == 0
    if is_lost_again:
        OAuthToken.objects.update(state="needs_reauthorization")
    for minutes in range(4, 7):
        notifications.run(NOW + dt.timedelta(minutes=minutes))
    last = "needs re-authorization" if is_lost_again else "works again"
    assert [message.subject for message in mail.outbox][1:] == [f"“CRM” {last}"]
    assert Event.objects.filter(type="webhook.recovered").count() == 1
    assert AlertMessage.objects.count() == (3 if is_lost_again else 2)


def test_a_second_spell_is_a_new_incident() -> None:
    webhook = lost_grant()
    token = OAuthToken.objects.filter(credential=webhook.credential)
    for minutes, state in enumerate(["needs_reauthorization", "valid", "needs_reauthorization"]):
        token.update(state=state)
        notifications.run(NOW + dt.timedelta(minutes=minutes))
    assert Incident.objects.count() == 2
    assert Incident.objects.filter(closed_at=None).count() == 1


def test_failing_is_reported_only_after_a_while() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE)
    WebhookState.objects.create(
        webhook=webhook, failing_since_at=NOW, last_error="The receiver failed with 500."
    )
    assert notifications.run(NOW + dt.timedelta(minutes=1)) == 0
    assert notifications.run(NOW + dt.timedelta(minutes=16)) == 1
    assert "The receiver failed with 500." in mail.outbox[0].body


def test_a_webhook_paused_by_the_engine_is_reported_and_one_paused_by_a_person_is_not() -> None:
    events.pause(make_webhook(alert_recipients=PEOPLE), PauseReason.GONE)
    events.pause(make_webhook(alert_recipients=PEOPLE))
    assert notifications.run(NOW) == 1
    assert Incident.objects.get().kind == IncidentKind.PAUSED


def test_an_ending_refresh_token_is_announced_days_before() -> None:
    webhook = make_webhook(authorization_type="oauth2", alert_recipients=PEOPLE)
    OAuthToken.objects.create(
        credential=webhook.credential,
        state="valid",
        refresh_token_expires_at=NOW + dt.timedelta(days=8),
    )
    assert notifications.run(NOW) == 0
    assert notifications.run(NOW + dt.timedelta(days=2)) == 1


def test_muted_alerts_go_only_to_the_recipients_of_every_webhook() -> None:
    AlertChannel.objects.create(kind="email", name="All", recipient="all@example.com")
    lost_grant(alerts_are_muted=True)
    notifications.run(NOW)
    assert mail.outbox[0].to == ["all@example.com"]


def test_a_mail_server_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    lost_grant()
    from django.core.mail import EmailMessage

    with monkeypatch.context() as broken:

        def refuse(self: EmailMessage, fail_silently: bool = False) -> int:
            raise ConnectionRefusedError

        broken.setattr(EmailMessage, "send", refuse)
        assert notifications.run(NOW) == 0
    assert notifications.run(NOW) == 1
    assert Event.objects.filter(type="webhook.reauthorization_required").count() == 1


def test_a_wrong_sender_does_not_keep_channels_from_being_notified(settings) -> None:
    channel = AlertChannel.objects.create(kind="slack", name="Ops", secret="http://127.0.0.1:9/")
    webhook = lost_grant()
    settings.DEFAULT_FROM_EMAIL = "Служба, ТОВ <hooks@example.com>"
    assert not notifications.send_test_mail(webhook)
    assert notifications.run(NOW) == 0
    channel.refresh_from_db()
    assert channel.last_error
    settings.DEFAULT_FROM_EMAIL = "hooks@example.com"
    assert notifications.run(NOW) == 1


@pytest.mark.parametrize(
    ("error", "is_repeated"),
    [
        (SMTPRecipientsRefused({"ops@example.com": (550, b"No such user.")}), False),
        (SMTPRecipientsRefused({"ops@example.com": (450, b"Mailbox busy.")}), True),
        (SMTPDataError(554, b"Looks like spam."), False),
        (SMTPDataError(451, b"Try later."), True),
    ],
)
def test_a_mail_that_is_refused_is_repeated_at_once_or_after_a_day_and_channels_do_not_wait(
    error: SMTPException, is_repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from django.core.mail import EmailMessage

    AlertChannel.objects.create(kind="slack", name="Ops", secret="http://127.0.0.1:9/")
    lost_grant()
    tried: list[list[str]] = []

    def refuse(self: EmailMessage, fail_silently: bool = False) -> int:
        tried.append(self.to)
        raise error

    monkeypatch.setattr(EmailMessage, "send", refuse)
    for minutes in range(3):
        notifications.run(NOW + dt.timedelta(minutes=minutes))
    assert len(tried) == (3 if is_repeated else 1)
    published = Event.objects.filter(type="webhook.reauthorization_required")
    assert (published.count(), AlertMessage.objects.count()) == (1, 1)
    notifications.run(NOW + dt.timedelta(hours=25))
    assert len(tried) == (4 if is_repeated else 2)
    assert (published.count(), AlertMessage.objects.count()) == (1, 2)


def test_a_mail_server_that_hangs_takes_the_time_of_one_mail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sweeps and tokens wait for this task in the same slots of a worker."""
    from django.core.mail import EmailMessage

    for _ in range(5):
        lost_grant()
    notifications.run(NOW)
    assert len(mail.outbox) == 5
    tried: list[list[str]] = []

    def hang(self: EmailMessage, fail_silently: bool = False) -> int:
        tried.append(self.to)
        now[0] += 2 * notifications.NOTIFY_SECONDS
        raise TimeoutError

    now = [0.0]
    monkeypatch.setattr(notifications, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for _ in range(5):
        lost_grant()
    with monkeypatch.context() as hanging:
        hanging.setattr(EmailMessage, "send", hang)
        notifications.run(NOW)
        assert len(tried) == 1
        OAuthToken.objects.update(state="valid")
        notifications.run(NOW)
        assert len(tried) == 2
    notifications.run(NOW)
    # That of the refused mail, too.
    assert len(mail.outbox) == 5 + 5
    assert not Incident.objects.filter(closed_at=None).exists()


def test_a_worker_that_stops_sends_the_current_message_and_leaves_the_others_to_the_next_run() -> (
    None
):
    for _ in range(3):
        lost_grant()
    assert notifications.run(NOW, should_stop=lambda: True) == 1
    assert notifications.run(NOW) == 2
    OAuthToken.objects.update(state="valid")
    assert notifications.run(NOW, should_stop=lambda: True) == 1
    assert notifications.run(NOW) == 2
    assert len(mail.outbox) == 6


def test_a_name_with_line_breaks_adds_no_header() -> None:
    lost_grant(name="CRM\r\nBcc: evil@example.com")
    notifications.run(NOW)
    assert "\n" not in mail.outbox[0].subject


def test_nothing_is_reported_about_a_deleted_webhook() -> None:
    events.delete(lost_grant())
    assert notifications.run(NOW) == 0


def failing(failures: int = 3, **fields: object) -> Webhook:
    values = {"alert_recipients": PEOPLE, **fields}
    webhook = make_webhook(**values)
    WebhookState.objects.create(
        webhook=webhook,
        failing_since_at=NOW,
        failures_in_a_row=failures,
        last_status_code=500,
        last_error="The receiver failed with 500.",
    )
    return webhook


def count_attempts(webhook: Webhook, *, good: int = 0, bad: int = 0, hours_ago: int = 0) -> None:
    hour = NOW.replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=hours_ago)
    for outcome, count in ((Outcome.SUCCEEDED, good), (Outcome.SERVER_ERROR, bad)):
        HourlyCount.objects.update_or_create(
            webhook=webhook, hour=hour, outcome=outcome, duration_step=1, defaults={"count": count}
        )


def test_enough_failures_in_a_row_are_reported_at_once_and_fewer_are_not() -> None:
    webhook = failing(failures=4, alert_after_failures=5)
    assert notifications.run(NOW + dt.timedelta(hours=3)) == 0
    WebhookState.objects.filter(webhook=webhook).update(failures_in_a_row=5)
    assert notifications.run(NOW + dt.timedelta(seconds=1)) == 1
    [message] = mail.outbox
    assert "5 attempts in a row failed." in message.body
    assert "Last error: The receiver failed with 500." in message.body
    assert reverse("webhooks:detail", args=[webhook.pk]) in message.body


def test_a_share_of_failures_is_reported_once_enough_attempts_were_made() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE, alert_failure_percent=20)
    count_attempts(webhook, good=4, bad=5)
    assert notifications.run(NOW) == 0
    count_attempts(webhook, good=81, bad=19)
    assert notifications.run(NOW) == 0
    count_attempts(webhook, good=80, bad=20)
    assert notifications.run(NOW) == 1
    assert "20% of the attempts in this hour and the one before failed: 20 of 100." in (
        mail.outbox[0].body
    )


def test_a_problem_began_with_the_first_failure_and_not_when_it_was_noticed() -> None:
    failing(alert_after_failures=1)
    notifications.run(NOW + dt.timedelta(minutes=1))
    assert Incident.objects.get().opened_at == NOW


def test_a_share_of_failures_began_in_the_hour_of_the_first() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE, alert_failure_percent=20)
    count_attempts(webhook, good=50, hours_ago=1)
    count_attempts(webhook, good=50, bad=50)
    HourlyCount.objects.filter(count=0).delete()
    notifications.run(NOW)
    assert Incident.objects.get().opened_at == NOW.replace(minute=0, second=0, microsecond=0)


@pytest.mark.database("postgres")
def test_workers_whose_clocks_differ_agree_on_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = make_webhook(alert_recipients=PEOPLE)
    since = timezone.now() - dt.timedelta(minutes=1)
    WebhookState.objects.create(webhook=webhook, failing_since_at=since, failures_in_a_row=1)
    real, minute = timezone.now, dt.timedelta(minutes=1)
    for minutes in (30, 0, 30, 0):
        monkeypatch.setattr(timezone, "now", lambda ahead=minutes: real() + minute * ahead)
        notifications.run()
    assert mail.outbox == []
    assert not Incident.objects.exists()


def test_a_pause_by_the_engine_began_when_it_paused() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE)
    events.pause(webhook, PauseReason.GONE)
    notifications.run(timezone.now() + dt.timedelta(minutes=1))
    webhook.refresh_from_db()
    assert Incident.objects.get().opened_at == webhook.paused_at


def test_old_attempts_are_no_part_of_the_share() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE, alert_failure_percent=50)
    count_attempts(webhook, bad=100, hours_ago=2)
    assert notifications.run(NOW) == 0
    count_attempts(webhook, bad=100, hours_ago=1)
    assert notifications.run(NOW) == 1


def test_a_share_at_the_edge_sends_no_mail_every_minute() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE, alert_failure_percent=20)
    count_attempts(webhook, good=80, bad=20)
    assert notifications.run(NOW) == 1
    count_attempts(webhook, good=85, bad=15)
    assert notifications.run(NOW) == 0
    count_attempts(webhook, good=95, bad=5)
    assert notifications.run(NOW) == 1
    assert "works again" in mail.outbox[1].subject


def test_a_share_of_nothing_is_over_only_when_the_last_attempt_succeeded() -> None:
    webhook = failing(alert_failure_percent=20)
    count_attempts(webhook, bad=20)
    assert notifications.run(NOW) == 1
    HourlyCount.objects.all().delete()
    assert notifications.run(NOW) == 0
    assert notifications.run(NOW + dt.timedelta(hours=25)) == 1
    assert f"No success since {NOW:%Y-%m-%d %H:%M} UTC." in mail.outbox[1].body
    WebhookState.objects.update(failing_since_at=None)
    assert notifications.run(NOW) == 1


def test_a_webhook_that_asks_for_a_share_is_not_reported_by_the_minutes() -> None:
    failing(alert_failure_percent=90)
    assert notifications.run(NOW + dt.timedelta(hours=1)) == 0


def test_a_failing_webhook_that_is_paused_does_not_work_again() -> None:
    webhook = failing(alert_after_failures=1)
    notifications.run(NOW)
    events.pause(webhook)
    assert notifications.run(NOW) == 0
    assert Incident.objects.get().closed_at is not None
    assert not Event.objects.filter(type="webhook.recovered").exists()


def test_from_one_trouble_into_another_only_the_new_one_is_reported() -> None:
    webhook = failing(alert_after_failures=1)
    notifications.run(NOW)
    events.pause(webhook, PauseReason.FAILING)
    assert notifications.run(NOW) == 1
    assert [message.subject for message in mail.outbox] == [
        "“CRM” is failing",
        "“CRM” was paused",
    ]
    assert "Last error: The receiver failed with 500." in mail.outbox[1].body
    assert Event.objects.filter(type="webhook.disabled").count() == 1


def test_a_webhook_that_works_again_is_reported_so_while_its_token_ends_soon() -> None:
    webhook = failing(alert_after_failures=3, authorization_type="oauth2")
    ends_at = NOW + dt.timedelta(days=6)
    OAuthToken.objects.create(
        credential=webhook.credential, state="valid", refresh_token_expires_at=ends_at
    )
    notifications.run(NOW)
    WebhookState.objects.update(failing_since_at=None, failures_in_a_row=0)
    notifications.run(NOW + dt.timedelta(minutes=1))
    assert "works again" in mail.outbox[-1].subject
    assert Event.objects.filter(type="webhook.recovered").exists()


def test_a_webhook_does_not_work_again_with_a_connection_whose_grant_is_lost() -> None:
    webhook = lost_grant()
    notifications.run(NOW)
    webhook.credential = make_credential(name="CRM", authorization_type="oauth2")
    OAuthToken.objects.create(credential=webhook.credential, state="needs_reauthorization")
    webhook.save()
    notifications.run(NOW + dt.timedelta(minutes=1))
    assert not any("works again" in message.subject for message in mail.outbox)


@pytest.mark.parametrize("state", ["needs_reauthorization", "misconfigured"])
@pytest.mark.parametrize("then", ["none", "expiring"], ids=["cleared", "pasted in an outage"])
def test_a_cleared_token_works_again_only_when_there_is_a_new_one(state: str, then: str) -> None:
    lost_grant()
    OAuthToken.objects.update(state=state)
    notifications.run(NOW)
    OAuthToken.objects.update(state=then, last_error="", obtained_at=None)
    notifications.run(NOW + dt.timedelta(minutes=1))
    assert len(mail.outbox) == 1
    OAuthToken.objects.update(state="valid")
    notifications.run(NOW + dt.timedelta(minutes=2))
    assert "works again" in mail.outbox[1].subject


@pytest.mark.parametrize("limit", [100, None])
def test_other_alert_settings_do_not_make_a_webhook_work_again(limit: int | None) -> None:
    failing(failures=5, alert_after_failures=3)
    notifications.run(NOW)
    Webhook.objects.update(alert_after_failures=limit)
    notifications.run(NOW + dt.timedelta(minutes=1))
    assert len(mail.outbox) == 1
    WebhookState.objects.update(failing_since_at=None, failures_in_a_row=0)
    notifications.run(NOW + dt.timedelta(minutes=2))
    assert "works again" in mail.outbox[1].subject


def test_resuming_is_reported_as_active_and_not_as_working() -> None:
    webhook = make_webhook(alert_recipients=PEOPLE)
    events.pause(webhook, PauseReason.GONE)
    notifications.run(NOW)
    events.resume(webhook)
    assert notifications.run(NOW) == 1
    assert mail.outbox[1].subject == "“CRM” is active again"


def test_resuming_a_failing_webhook_at_once_is_not_reported_as_working() -> None:
    webhook = failing(alert_after_failures=1)
    assert notifications.run(NOW) == 1
    events.pause(webhook)
    events.resume(webhook)
    assert notifications.run(NOW) == 0
    assert Incident.objects.get().closed_at is not None
    assert not Event.objects.filter(type="webhook.recovered").exists()


def test_a_webhook_that_was_paused_as_failing_is_reported_as_active_when_resumed() -> None:
    webhook = failing(alert_after_failures=1)
    events.pause(webhook, PauseReason.FAILING)
    notifications.run(NOW)
    events.resume(webhook)
    assert notifications.run(NOW) == 1
    assert [message.subject for message in mail.outbox] == [
        "“CRM” was paused",
        "“CRM” is active again",
    ]


def test_a_misconfigured_client_is_shown_with_what_the_provider_said() -> None:
    webhook = make_webhook(authorization_type="oauth2", alert_recipients=PEOPLE)
    OAuthToken.objects.create(
        credential=webhook.credential,
        state="misconfigured",
        last_error="The client secret is wrong.",
    )
    assert notifications.run(NOW) == 1
    assert "misconfigured OAuth client" in mail.outbox[0].subject
    assert "The client secret is wrong." in mail.outbox[0].body


def test_a_reminder_says_so_and_how_it_is_by_now() -> None:
    webhook = failing(failures=5, alert_after_failures=5)
    notifications.run(NOW)
    WebhookState.objects.filter(webhook=webhook).update(failures_in_a_row=70)
    assert notifications.run(NOW + dt.timedelta(hours=24)) == 1
    assert mail.outbox[1].subject == "Reminder: “CRM” is failing"
    assert "70 attempts in a row failed." in mail.outbox[1].body


def test_an_operational_event_carries_what_is_known_about_the_failure() -> None:
    url = "https://crm.example:8443/hooks/T0KEN?key=K3Y"
    webhook = failing(alert_after_failures=1, url=url)
    notifications.run(NOW)
    payload = json.loads(bytes(Event.objects.get(type="webhook.failing").payload))
    assert payload["webhook_id"] == webhook.uid
    # Not the rest of the URL, which may be a secret.
    assert payload["webhook_url"] == "https://crm.example:8443"
    assert payload["last_status_code"] == 500
    assert dt.datetime.fromisoformat(payload["failing_since_at"]) == NOW


def test_a_mute_for_a_while_ends_automatically_and_what_is_still_wrong_is_reported_then() -> None:
    until = NOW + dt.timedelta(hours=8)
    lost_grant(alerts_are_muted=True, alerts_muted_until=until)
    notifications.run(NOW)
    notifications.run(NOW + dt.timedelta(hours=7))
    assert mail.outbox == []
    notifications.run(until + dt.timedelta(seconds=1))
    assert len(mail.outbox) == 1
    assert Event.objects.filter(type="webhook.reauthorization_required").count() == 1


@pytest.mark.parametrize("hours", [None, 8])
def test_what_is_still_wrong_when_a_person_ends_a_mute_is_reported_then(hours: int | None) -> None:
    until = NOW + dt.timedelta(hours=hours) if hours else None
    webhook = lost_grant(alerts_are_muted=True, alerts_muted_until=until)
    notifications.run(NOW)
    assert notifications.run(NOW + dt.timedelta(hours=1)) == 0
    assert mail.outbox == []
    Webhook.objects.filter(pk=webhook.pk).update(alerts_are_muted=False, alerts_muted_until=None)
    notifications.run(NOW + dt.timedelta(hours=2))
    notifications.run(NOW + dt.timedelta(hours=3))
    assert len(mail.outbox) == 1
    assert Event.objects.filter(type="webhook.reauthorization_required").count() == 1


def test_what_is_still_wrong_when_the_mute_of_a_connection_s_webhooks_ends_is_reported_then() -> (
    None
):
    connection = make_credential(name="CRM", authorization_type="oauth2")
    OAuthToken.objects.create(credential=connection, state="needs_reauthorization")
    muted = {"alerts_are_muted": True, "alerts_muted_until": NOW + dt.timedelta(hours=2)}
    make_webhook(credential=connection, alert_recipients=PEOPLE, **muted)
    notifications.run(NOW)
    assert not mail.outbox
    notifications.run(NOW + dt.timedelta(hours=2, minutes=1))
    assert [message.to for message in mail.outbox] == [PEOPLE]


def test_no_secret_is_in_a_mail() -> None:
    secrets = {"basic_password": "pass-word", "client_secret": "client-secret"}
    headers = '[{"name": "X-Key", "value": "key-in-a-header", "secret": true}]'
    webhook = lost_grant(**secrets, headers_json=headers)
    notifications.run(NOW)
    token = webhook.credential.token
    token.state, token.access_token = "valid", "token-text"
    token.save()
    notifications.run(NOW)
    notifications.send_test_mail(webhook)
    assert len(mail.outbox) == 3
    for text in (message.subject + message.body for message in mail.outbox):
        assert not [
            one for one in (*secrets.values(), "key-in-a-header", "token-text") if one in text
        ]
        assert webhook.signing_secret not in text


def test_looking_costs_the_same_queries_however_many_webhooks_are_well(
    django_assert_max_num_queries: Any,
) -> None:
    for number in range(30):
        webhook = make_webhook(name=f"Hook {number}", alert_failure_percent=20)
        WebhookState.objects.create(webhook=webhook)
        count_attempts(webhook, good=100)
    with django_assert_max_num_queries(10):
        assert notifications.run(NOW) == 0
