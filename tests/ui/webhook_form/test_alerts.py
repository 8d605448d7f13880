"""Send test email: to the recipients as typed, and the page shows the result."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.core.mail import EmailMessage
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_webhook
from tests.ui.webhook_form.test_forms import posted
from webhooks.alerts import notifications
from webhooks.models import Webhook

pytestmark = [pytest.mark.django_db, pytest.mark.once]

HTMX = {"HX-Request": "true"}


def send(browser: Client, webhook: Webhook, recipients: str) -> str:
    """Press the button as htmx does; return what the page shows."""
    url = reverse("webhooks:send_test_mail", args=[webhook.pk])
    answer = browser.post(url, {"alert_recipients": recipients}, headers=HTMX)
    assert answer.status_code == 200
    return str(answer.text)


def test_a_test_mail_goes_to_the_typed_recipients_and_saves_nothing(browser: Client) -> None:
    webhook = make_webhook(name="CRM", alert_recipients=["old@example.com"])
    text = send(browser, webhook, "a@example.com, b@example.com")
    [message] = mail.outbox
    assert message.to == ["a@example.com", "b@example.com"]
    assert "“CRM”" in message.subject
    assert reverse("webhooks:detail", args=[webhook.pk]) in message.body
    assert "A test email was sent to a@example.com, b@example.com." in text
    webhook.refresh_from_db()
    assert webhook.alert_recipients == ["old@example.com"]


def test_a_test_mail_is_sent_although_alerts_are_muted() -> None:
    webhook = make_webhook(alert_recipients=["ops@example.com"], alerts_are_muted=True)
    assert notifications.send_test_mail(webhook)
    assert len(mail.outbox) == 1


def test_without_recipients_nothing_is_sent(browser: Client) -> None:
    webhook = make_webhook()
    assert "Enter a recipient first" in send(browser, webhook, "")
    assert not notifications.send_test_mail(webhook)
    assert mail.outbox == []


def test_a_wrong_address_is_named(browser: Client) -> None:
    text = send(browser, make_webhook(), "ops@example.com, <script>")
    assert "“&lt;script&gt;” is not an email address." in text
    assert mail.outbox == []


def test_a_mail_server_that_refuses_is_reported(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: EmailMessage, fail_silently: bool = False) -> int:
        raise ConnectionRefusedError

    monkeypatch.setattr(EmailMessage, "send", refuse)
    text = send(browser, make_webhook(), "ops@example.com")
    assert "The mail server did not accept the email." in text


def test_without_a_mail_server_the_page_says_where_the_mail_went(
    browser: Client, settings: Any
) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    assert "EMAIL_URL" in send(browser, make_webhook(), "ops@example.com")


def test_without_javascript_the_form_comes_back_with_everything_typed(browser: Client) -> None:
    webhook = make_webhook(name="CRM")
    url = reverse("webhooks:send_test_mail", args=[webhook.pk])
    data = posted(name="CRM, changed", alert_recipients="ops@example.com", action="test_mail")
    page = browser.post(url, {**data, "draft": ""})
    assert "A test email was sent to ops@example.com." in page.text
    assert 'value="CRM, changed"' in page.text
    assert page.context["form"].errors == {}
    webhook.refresh_from_db()
    assert (webhook.name, webhook.alert_recipients) == ("CRM", [])


def test_a_webhook_that_is_not_saved_yet_has_no_button(browser: Client) -> None:
    assert "Send test email" not in browser.get(reverse("webhooks:create")).text


@pytest.mark.parametrize(
    ("typed", "there"),
    [
        ("", "me@example.com"),
        ("ops@example.com", "ops@example.com\nme@example.com"),
        ("me@example.com", "me@example.com"),
    ],
)
def test_one_button_puts_in_the_address_of_who_edits_and_saves_nothing(
    browser: Client, typed: str, there: str
) -> None:
    get_user_model().objects.update(email="me@example.com")
    webhook = make_webhook(name="CRM")
    url = reverse("webhooks:edit", args=[webhook.pk])
    assert 'data-own-address="me@example.com"' in browser.get(url).text

    page = browser.post(url, posted(alert_recipients=typed, action="use_my_address"))

    assert page.context["form"]["alert_recipients"].value() == there
    assert page.context["form"].has_alerts_open
    webhook.refresh_from_db()
    assert webhook.alert_recipients == []


def test_who_has_no_address_has_no_button_for_it(browser: Client) -> None:
    get_user_model().objects.update(email="")
    assert "data-own-address" not in browser.get(reverse("webhooks:create")).text


def save(browser: Client, webhook: Webhook, **fields: Any) -> Any:
    data = posted(alert_recipients="ops@example.com", **fields)
    url = reverse("webhooks:edit", args=[webhook.pk])
    answer = browser.post(url, data)
    webhook.refresh_from_db()
    return answer


def test_limits_of_failing_are_saved_and_can_be_emptied(browser: Client) -> None:
    webhook = make_webhook()
    save(browser, webhook, alert_after_failures="5", alert_failure_percent="20")
    assert (webhook.alert_after_failures, webhook.alert_failure_percent) == (5, 20)
    save(browser, webhook, alert_after_failures="", alert_failure_percent="")
    assert (webhook.alert_after_failures, webhook.alert_failure_percent) == (None, None)


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("alert_after_failures", "0"),
        ("alert_after_failures", "many"),
        ("alert_failure_percent", "101"),
        ("alerts_muted_until", "someday"),
        ("alerts_muted_until", "2026-01-01T00:00:00"),
        ("alerts_muted_until", "9999-12-31T23:59:59-12:00"),
        ("alerts_muted_until", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_limits_that_are_none_are_refused_at_their_field(
    browser: Client, field: str, typed: str
) -> None:
    page = save(browser, make_webhook(), alerts_are_muted="on", **{field: typed})
    assert list(page.context["form"].errors) == [field]
    assert '<details class="card fold" id="alerts" data-fold open' in page.text


def test_alerts_are_muted_for_some_hours_and_the_form_says_until_when(browser: Client) -> None:
    webhook = make_webhook()
    save(browser, webhook, alerts_are_muted="on", alerts_muted_until="8")
    until = webhook.alerts_muted_until
    assert until is not None
    assert timedelta(hours=7.9) < until - timezone.now() < timedelta(hours=8.1)
    page = browser.get(reverse("webhooks:edit", args=[webhook.pk]))
    assert f'<option value="{until.isoformat()}" selected>' in page.text
    assert f"Muted until {timezone.localtime(until):%Y-%m-%d %H:%M}" in page.text
    save(browser, webhook, alerts_are_muted="on", alerts_muted_until=until.isoformat())
    assert webhook.alerts_muted_until == until


def test_unticking_forgets_the_time(browser: Client) -> None:
    webhook = make_webhook(alerts_are_muted=True, alerts_muted_until=timezone.now())
    save(browser, webhook, alerts_muted_until="8")
    assert (webhook.alerts_are_muted, webhook.alerts_muted_until) == (False, None)


def test_a_mute_that_has_ended_is_shown_as_none(browser: Client) -> None:
    ended = timezone.now() - timedelta(minutes=1)
    webhook = make_webhook(alerts_are_muted=True, alerts_muted_until=ended)
    page = browser.get(reverse("webhooks:edit", args=[webhook.pk]))
    assert page.context["form"]["alerts_are_muted"].value() is False
    assert ended.isoformat() not in page.text


def test_the_form_of_a_connection_has_no_limits_of_failing(browser: Client) -> None:
    page = browser.get(reverse("webhooks:connection_create"))
    assert 'name="alerts_muted_until"' in page.text
    assert 'name="alert_after_failures"' not in page.text
