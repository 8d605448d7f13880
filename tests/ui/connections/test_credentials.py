"""Connections: one credential for many webhooks, and only for its hosts."""

import base64

import pytest
from django.core import mail
from django.db.models import ProtectedError
from django.urls import reverse

from tests.delivery.test_engine_oauth import connect, oauth_webhook
from tests.factories import deliver_all, make_delivery, make_webhook
from tests.sandbox import Provider, Receiver
from webhooks import events
from webhooks.alerts import notifications
from webhooks.models import Connection, Delivery, HoldReason, OAuthToken, Status, Webhook
from webhooks.ui.connections import lifecycle

pytestmark = pytest.mark.django_db(transaction=True)


def a_connection(**fields: object) -> Connection:
    values = {"name": "CRM login", "allowed_hosts": ["127.0.0.1"], **fields}
    secrets = {name: values.pop(name) for name in ("basic_password",) if name in values}
    connection = Connection(authorization_type="basic", basic_login="shared", **values)
    for name, value in secrets.items():
        connection.set_secret(name, str(value))
    connection.save()
    return connection


def as_connection(webhook: Webhook, **fields: object) -> Webhook:
    """Turn a webhook with credentials into a connection."""
    Webhook.objects.filter(pk=webhook.pk).update(
        is_connection=True, event_types=[], allowed_hosts=["127.0.0.1"], url="", **fields
    )
    return Webhook.objects.get(pk=webhook.pk)


def test_many_webhooks_send_the_credentials_of_one_connection(receiver: Receiver) -> None:
    connection = a_connection(basic_password="hush-hush")
    for number in range(2):
        make_webhook(url=f"{receiver.url}/open/{number}", connection=connection)
    events.publish("call.incoming.after", {})
    deliver_all()
    expected = base64.b64encode(b"shared:hush-hush").decode()
    sent = [request.header("Authorization") for request in receiver.requests()]
    assert sent == [f"Basic {expected}"] * 2


def test_a_changed_connection_is_used_by_the_next_attempt(receiver: Receiver) -> None:
    connection = a_connection(basic_password="before")
    webhook = make_webhook(url=f"{receiver.url}/open/x", connection=connection)
    make_delivery(webhook)
    deliver_all()
    connection = Connection.objects.get(pk=connection.pk)
    connection.set_secret("basic_password", "after")
    connection.save()
    make_delivery(webhook)
    deliver_all()
    sent = [request.header("Authorization") for request in receiver.requests()]
    assert sent[1] == "Basic " + base64.b64encode(b"shared:after").decode()


def test_credentials_never_go_to_a_host_the_connection_is_not_bound_to(
    receiver: Receiver,
) -> None:
    connection = a_connection(basic_password="hush", allowed_hosts=["crm.example.com"])
    make_delivery(make_webhook(url=f"{receiver.url}/open/x", connection=connection))
    deliver_all()
    assert receiver.requests() == []
    assert Delivery.objects.get().hold_reason == HoldReason.MISCONFIGURED


def test_a_connection_is_no_webhook_and_gets_no_events() -> None:
    connection = a_connection(event_types=["call.*"])
    assert connection.pk not in Webhook.objects.present().values_list("pk", flat=True)
    assert list(Webhook.objects.connections()) == [Webhook.objects.get(pk=connection.pk)]
    assert events.publish("call.incoming.after", {}).deliveries == 0


def test_a_connection_in_use_cannot_be_deleted() -> None:
    connection = a_connection()
    make_webhook(connection=connection)
    with pytest.raises(ProtectedError):
        connection.delete()


def test_one_token_serves_every_webhook_and_one_reauthorization_releases_all(
    receiver: Receiver, provider: Provider
) -> None:
    owner = oauth_webhook(receiver, provider, event_types=[])
    as_connection(owner)
    connection = Webhook.objects.get(pk=owner.pk)
    for number in range(2):
        make_webhook(url=f"{receiver.url}/bearer/{number}", connection=connection)
    events.publish("call.incoming.after", {})
    deliver_all()
    assert {row.hold_reason for row in Delivery.objects.all()} == {HoldReason.NO_TOKEN}
    connect(connection)
    assert events.release_held(connection) == 2
    deliver_all()
    assert {row.status for row in Delivery.objects.all()} == {Status.SUCCEEDED}
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants == ["authorization_code"]


def test_people_of_every_webhook_that_uses_it_are_told_when_its_grant_is_lost() -> None:
    connection = a_connection(alert_recipients=["owner@example.com"])
    Webhook.objects.filter(pk=connection.pk).update(authorization_type="oauth2")
    OAuthToken.objects.create(webhook=connection, state="needs_reauthorization")
    make_webhook(connection=connection, alert_recipients=["user@example.com"])
    notifications.look()
    assert mail.outbox[0].to == ["owner@example.com", "user@example.com"]
    assert reverse("webhooks:connection_edit", args=[connection.pk]) in mail.outbox[0].body


@pytest.mark.parametrize("is_connection", [True, False])
def test_who_dies_while_a_token_is_revoked_leaves_no_secret_behind(
    receiver: Receiver, provider: Provider, monkeypatch: pytest.MonkeyPatch, is_connection: bool
) -> None:
    webhook = oauth_webhook(receiver, provider, event_types=[])
    connect(webhook)
    if is_connection:
        as_connection(webhook)
    found = Webhook.objects.get(pk=webhook.pk)

    def die(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("webhooks.oauth.revoke", die)
    with pytest.raises(SystemExit):
        (lifecycle if is_connection else events).delete(found)
    left = Webhook.objects.get(pk=webhook.pk)
    assert left.deleted_at is not None
    assert not any(left.has_secret(field) for field in ("client_secret", "basic_password"))
    assert not OAuthToken.objects.exists()
