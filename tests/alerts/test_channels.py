"""Channels: what each kind is sent, through the guard, and what happens when it is refused."""

import datetime as dt
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import mail
from django.utils import timezone

from tests.alerts.test_notifications import failing, granted_by, lost_grant
from tests.factories import make_delivery, make_webhook
from tests.log_rows import make_attempt
from tests.sandbox import Receiver
from webhooks.alerts import channels, notifications
from webhooks.models import (
    AlertChannel,
    AlertMessage,
    Credential,
    Delivery,
    Incident,
    OAuthToken,
    Webhook,
    WebhookState,
    messages,
)
from webhooks.ui import shared_credentials

pytestmark = pytest.mark.django_db
NOW = timezone.now()
EVIL = "[Log in](https://evil.example)"


def make_channel(receiver: Receiver, kind: str, path: str = "", **fields: Any) -> AlertChannel:
    secret = "123456789:AAEabcdefghijklmnopqrstu" if kind == "telegram" else receiver.url + path
    return AlertChannel.objects.create(kind=kind, name="Ops", secret=secret, **fields)


def ill(**fields: Any) -> Webhook:
    webhook = failing(alert_after_failures=2, name="CRM <1>", alert_recipients=[], **fields)
    delivery = make_delivery(webhook)
    Delivery.objects.filter(pk=delivery.pk).update(attempt_count=2, status_code=503)
    return webhook


@pytest.mark.parametrize("kind", ["slack", "teams", "telegram", "webhook"])
def test_each_kind_names_webhook_event_answer_time_and_delivery(
    kind: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channels, "TELEGRAM_API", receiver.url)
    make_channel(receiver, kind, "/status/200", recipient="-100123")
    webhook = ill()
    notifications.run(NOW)
    notifications.run(NOW + dt.timedelta(minutes=1))
    [request] = receiver.requests()
    body = json.dumps(json.loads(request.body), ensure_ascii=False)
    delivery = Delivery.objects.get()
    name = "CRM &lt;1&gt;" if kind == "slack" else "CRM <1>"
    for part in (name, "is failing", delivery.event.type, "503", delivery.pk, "UTC"):
        assert part in body
    assert f"/integrations/webhooks/{webhook.pk}/" in body
    if kind == "telegram":
        assert request.path.endswith("/bot123456789:AAEabcdefghijklmnopqrstu/sendMessage")
        assert '"chat_id": "-100123"' in body
    else:
        assert AlertChannel.objects.get().sent_at is not None
    assert not AlertMessage.objects.exists()


def test_a_url_gets_data_beside_the_texts(receiver: Receiver) -> None:
    make_channel(receiver, "webhook", "/status/200")
    ill()
    delivery = Delivery.objects.get()
    make_attempt(delivery, error=messages.dump("http_server_error", status=503))
    notifications.run(NOW)
    [request] = receiver.requests()
    content = json.loads(request.body)
    assert content.pop("title") == "“CRM <1>” is failing"
    assert delivery.pk in content.pop("text")
    assert content.pop("link").endswith(f"/integrations/webhooks/{delivery.webhook_id}/")
    assert dt.datetime.fromisoformat(content.pop("opened_at")) == Incident.objects.get().opened_at
    assert content.pop("delivery_url").endswith(f"/{delivery.pk}/")
    assert content == {
        "kind": "failing",
        "is_closed": False,
        "webhook_name": "CRM <1>",
        "connection_name": None,
        "event_type": delivery.event.type,
        "last_status_code": 503,
        "last_error": "The receiver failed with 503.",
        "delivery_id": delivery.pk,
    }


def test_data_without_a_response_or_a_delivery_is_null() -> None:
    AlertChannel.objects.create(kind="webhook", name="Ops", secret="http://127.0.0.1:9/")
    ill()
    Delivery.objects.update(status_code=None)
    make_attempt(Delivery.objects.get(), status_code=None, error="Timed out.")
    lost_grant(name="Billing")
    notifications.run(NOW)
    sent = AlertMessage.objects.values_list("content", flat=True)
    found = {content["webhook_name"]: content for content in sent}
    silent, lost = found["CRM <1>"], found["Billing"]
    assert silent["last_status_code"] is None
    assert silent["last_error"] == "Timed out."
    names = ("event_type", "last_status_code", "last_error", "delivery_id", "delivery_url")
    assert [lost[name] for name in names] == [None] * len(names)
    assert lost["kind"] == "reauthorization"


def test_a_problem_of_a_connection_names_it_instead_of_a_webhook() -> None:
    AlertChannel.objects.create(kind="webhook", name="Ops", secret="http://127.0.0.1:9/")
    shared_credentials.save_as_connection(lost_grant(), created_by_id=None)
    notifications.run(NOW)
    content = AlertMessage.objects.get().content
    connection = Credential.objects.shared().get()
    assert (content["webhook_name"], content["connection_name"]) == (None, connection.name)


def test_a_card_for_teams_has_no_markdown(receiver: Receiver) -> None:
    make_channel(receiver, "teams", "/status/200")
    webhook = lost_grant()
    OAuthToken.objects.filter(credential=webhook.credential).update(last_error=EVIL)
    notifications.run(NOW)
    notifications.run(NOW + dt.timedelta(minutes=1))
    [request] = receiver.requests()
    [attachment] = json.loads(request.body)["attachments"]
    card = attachment["content"]
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    lines = [run["text"] for block in card["body"] for run in block["inlines"]]
    assert EVIL in lines
    assert not [line for line in lines if "\n" in line]


def test_a_message_about_many_grants_names_each_of_them() -> None:
    AlertChannel.objects.create(kind="slack", name="Ops", secret="http://127.0.0.1:9/")
    person = get_user_model().objects.create(username="anna")
    webhooks = [granted_by(person, lost_grant(name=f"CRM {number}")) for number in range(3)]
    notifications.run(NOW)
    text = AlertMessage.objects.get().content["text"]
    assert text.startswith("anna granted all of them")
    for webhook in webhooks:
        assert f"“{webhook.name}”: " in text
        assert text.count(f"/integrations/webhooks/{webhook.pk}/edit/#token") == 1


def test_what_is_not_taken_is_sent_again_later_and_a_refusal_is_not(receiver: Receiver) -> None:
    away = make_channel(receiver, "webhook", "/status/503")
    refused = make_channel(receiver, "slack", "/status/404")
    ill()
    notifications.run(NOW)
    assert [row.channel for row in AlertMessage.objects.all()] == [away]
    notifications.run(NOW + dt.timedelta(seconds=30))
    assert len(receiver.requests()) == 2
    notifications.run(NOW + dt.timedelta(minutes=2))
    assert len(receiver.requests()) == 3
    refused.refresh_from_db()
    assert "404" in refused.last_error
    AlertMessage.objects.update(attempt_count=100)
    notifications.run(NOW + dt.timedelta(hours=2))
    assert not AlertMessage.objects.exists()


def test_a_channel_that_fails_gets_one_message_a_run_and_takes_no_turn_of_others(
    receiver: Receiver,
) -> None:
    make_channel(receiver, "webhook", "/status/503")
    content = {"title": "CRM", "text": "is failing", "link": "https://a.example/"}
    for minutes in range(25):
        channels.queue(
            AlertChannel.objects.all(), content, NOW - dt.timedelta(minutes=30 - minutes)
        )
    working = make_channel(receiver, "slack", "/status/200")
    channels.queue(AlertChannel.objects.filter(pk=working.pk), content, NOW)
    assert channels.send_due(NOW) == 1
    assert [one.path for one in receiver.requests()] == ["/status/503", "/status/200"]


def test_channels_that_hang_take_the_time_of_one_message(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        make_channel(receiver, "webhook", "/slow/5")
    monkeypatch.setattr(channels, "POST_SECONDS", 0.3)
    monkeypatch.setattr(channels, "SEND_SECONDS", 0.2)
    content = {"title": "CRM", "text": "is failing", "link": "https://a.example/"}
    channels.queue(AlertChannel.objects.all(), content, NOW)
    channels.send_due(NOW)
    assert AlertMessage.objects.filter(attempt_count=1).count() == 1
    # The messages that were tried are now behind the others.
    channels.send_due(NOW)
    assert AlertMessage.objects.filter(attempt_count=1).count() == 2


def test_a_channel_that_hangs_delays_others_by_one_message_however_many_it_has(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = make_channel(receiver, "webhook", "/slow/5")
    monkeypatch.setattr(channels, "POST_SECONDS", 0.3)
    # Each run ends after a message that hangs.
    monkeypatch.setattr(channels, "SEND_SECONDS", 0.2)
    for number in range(10):
        content = {"title": "CRM", "text": "is failing", "link": f"https://a.example/{number}"}
        channels.queue(AlertChannel.objects.all(), content, NOW - dt.timedelta(minutes=1))
    healthy = make_channel(receiver, "webhook", "/open/alerts")
    channels.queue(AlertChannel.objects.filter(pk=healthy.pk), content, NOW)
    assert channels.send_due(NOW) == 0
    assert AlertMessage.objects.filter(attempt_count=1).count() == 10
    assert channels.send_due(NOW) == 1
    # They stay in their order, and all of them arrive once the channel responds.
    hanging.secret = healthy.secret
    hanging.save()
    monkeypatch.undo()
    assert channels.send_due(NOW + dt.timedelta(minutes=2)) == 10
    links = [json.loads(one.body)["link"] for one in receiver.requests("/open/alerts")]
    assert links[1:] == [f"https://a.example/{number}" for number in range(10)]


def test_a_denied_address_is_never_connected_to(receiver: Receiver) -> None:
    AlertChannel.objects.create(kind="webhook", name="Meta", secret="http://169.254.169.254/x")
    ill()
    notifications.run(NOW)
    assert not AlertMessage.objects.exists()
    assert AlertChannel.objects.get().last_error


def test_a_channel_of_some_webhooks_hears_of_no_other(receiver: Receiver) -> None:
    other = make_webhook(name="Other")
    for kind, recipient in (("webhook", ""), ("email", "ops@example.com")):
        channel = make_channel(receiver, kind, recipient=recipient)
        channel.webhooks.add(other)
    lost_grant(alert_recipients=[])
    notifications.run(NOW)
    assert receiver.requests() == []
    assert mail.outbox == []


def test_programs_learn_whether_a_problem_begins_or_is_over() -> None:
    AlertChannel.objects.create(kind="webhook", name="Ops", secret="http://127.0.0.1:9/")
    lost_grant()
    notifications.run(NOW)
    OAuthToken.objects.update(state="valid")
    notifications.run(NOW + dt.timedelta(minutes=1))
    sent = AlertMessage.objects.order_by("pk").values_list("content", flat=True)
    assert [content["is_closed"] for content in sent] == [False, True]


def test_works_again_does_not_arrive_before_is_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    AlertChannel.objects.create(kind="slack", name="Ops", secret="http://127.0.0.1:9/")
    failing(alert_after_failures=2)
    arrived: list[str] = []

    def unreachable(channel: AlertChannel, content: dict[str, Any]) -> tuple[str, bool]:
        return "not_connected", False

    def accept(channel: AlertChannel, content: dict[str, Any]) -> tuple[str, bool]:
        arrived.append(content["title"])
        return "", True

    monkeypatch.setattr(channels, "post", unreachable)
    for minutes in range(20):
        notifications.run(NOW + dt.timedelta(minutes=minutes))
    WebhookState.objects.update(failing_since_at=None, failures_in_a_row=0)
    notifications.run(NOW + dt.timedelta(minutes=20))
    monkeypatch.setattr(channels, "post", accept)
    for minutes in range(21, 60):
        notifications.run(NOW + dt.timedelta(minutes=minutes))
    assert arrived == ["“CRM” is failing", "“CRM” works again"]


def test_the_last_alert_to_an_address_is_noted_and_one_about_other_webhooks_is_not() -> None:
    address = AlertChannel.objects.create(kind="email", name="All", recipient="all@example.com")
    limited = AlertChannel.objects.create(kind="email", name="One", recipient="one@example.com")
    limited.webhooks.add(make_webhook())
    webhook = lost_grant()
    notifications.run(NOW)
    assert list(AlertChannel.objects.filter(sent_at=NOW)) == [address]
    limited.webhooks.add(webhook)
    OAuthToken.objects.update(state="valid")
    over_at = NOW + dt.timedelta(minutes=1)
    notifications.run(over_at)
    assert AlertChannel.objects.filter(sent_at=over_at).count() == 2
