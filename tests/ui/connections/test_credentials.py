"""Connections: one credential for many webhooks, and only for its hosts."""

import base64
from typing import Any

import pytest
from django.core import mail
from django.db.models import RestrictedError
from django.urls import reverse

from tests.delivery.test_engine_oauth import oauth_webhook
from tests.factories import deliver_all, make_credential, make_delivery, make_webhook
from tests.oauth_rows import connect
from tests.sandbox import Provider, Receiver
from webhooks import events
from webhooks.alerts import notifications
from webhooks.models import Credential, Delivery, HoldReason, OAuthToken, Status, Webhook
from webhooks.ui import shared_credentials

pytestmark = pytest.mark.django_db(transaction=True)


def make_connection_from(credential: Credential) -> Credential:
    """Turn a webhook's own credential into a connection."""
    webhook = credential.webhook
    assert webhook is not None
    webhook.credential.authorization_type = "oauth2"
    return shared_credentials.save_as_connection(webhook, created_by_id=None)


def test_many_webhooks_send_the_credentials_of_one_connection(receiver: Receiver) -> None:
    connection = make_credential(basic_password="hush-hush")
    for number in range(2):
        make_webhook(url=f"{receiver.url}/open/{number}", credential=connection)
    events.publish("call.incoming.after", {})
    deliver_all()
    expected = base64.b64encode(b"shared:hush-hush").decode()
    sent = [request.header("Authorization") for request in receiver.requests()]
    assert sent == [f"Basic {expected}"] * 2


def test_a_changed_connection_is_used_by_the_next_attempt(receiver: Receiver) -> None:
    connection = make_credential(basic_password="before")
    webhook = make_webhook(url=f"{receiver.url}/open/x", credential=connection)
    make_delivery(webhook)
    deliver_all()
    connection = Credential.objects.get(pk=connection.pk)
    connection.set_secret("basic_password", "after")
    connection.save()
    make_delivery(webhook)
    deliver_all()
    sent = [request.header("Authorization") for request in receiver.requests()]
    assert sent[1] == "Basic " + base64.b64encode(b"shared:after").decode()


def test_credentials_never_go_to_a_host_the_connection_is_not_bound_to(
    receiver: Receiver,
) -> None:
    connection = make_credential(basic_password="hush", allowed_hosts=["crm.example.com"])
    make_delivery(make_webhook(url=f"{receiver.url}/open/x", credential=connection))
    deliver_all()
    assert receiver.requests() == []
    assert Delivery.objects.get().hold_reason == HoldReason.MISCONFIGURED


def test_a_connection_is_no_webhook_and_gets_no_events() -> None:
    connection = make_credential()
    assert not Webhook.objects.exists()
    assert list(Credential.objects.shared()) == [connection]
    assert events.publish("call.incoming.after", {}).deliveries == 0


def test_a_connection_in_use_cannot_be_deleted() -> None:
    connection = make_credential()
    make_webhook(credential=connection)
    with pytest.raises(RestrictedError):
        connection.delete()


def test_one_token_serves_every_webhook_and_one_reauthorization_releases_all(
    receiver: Receiver, provider: Provider
) -> None:
    connection = make_connection_from(oauth_webhook(receiver, provider, event_types=[]).credential)
    for number in range(2):
        make_webhook(url=f"{receiver.url}/bearer/{number}", credential=connection)
    events.publish("call.incoming.after", {})
    deliver_all()
    assert {row.hold_reason for row in Delivery.objects.all()} == {HoldReason.NO_TOKEN}
    connect(connection)
    assert events.release_held(connection) == 2
    deliver_all()
    assert {row.status for row in Delivery.objects.all()} == {Status.SUCCEEDED}
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants == ["authorization_code"]


def test_people_of_every_webhook_that_uses_it_are_notified_when_its_grant_is_lost() -> None:
    connection = make_credential(alert_recipients=["owner@example.com"])
    Credential.objects.filter(pk=connection.pk).update(authorization_type="oauth2")
    OAuthToken.objects.create(credential=connection, state="needs_reauthorization")
    make_webhook(credential=connection, alert_recipients=["user@example.com"])
    notifications.run()
    assert mail.outbox[0].to == ["owner@example.com", "user@example.com"]
    assert reverse("webhooks:connection_edit", args=[connection.pk]) in mail.outbox[0].body


@pytest.mark.parametrize("kind", ["oauth2", "basic", "none"])
def test_purging_revokes_the_token_whatever_the_type_is_by_now(
    receiver: Receiver, provider: Provider, kind: str
) -> None:
    webhook = oauth_webhook(
        receiver, provider, event_types=[], revocation_url=provider.revocation_url
    )
    connect(webhook.credential)
    webhook.credential.authorization_type = kind
    webhook.credential.save(update_fields=["authorization_type"])

    events.delete(webhook)
    events.purge(webhook)

    assert [one.status for one in provider.revocation_requests()] == [200, 200]


@pytest.mark.parametrize("is_connection", [True, False])
def test_who_dies_while_a_token_is_revoked_leaves_no_secret_behind(
    receiver: Receiver, provider: Provider, monkeypatch: pytest.MonkeyPatch, is_connection: bool
) -> None:
    webhook = oauth_webhook(receiver, provider, event_types=[])
    connect(webhook.credential)
    found: Any = webhook
    if is_connection:
        found = make_connection_from(webhook.credential)
        webhook = Webhook.objects.get(pk=webhook.pk)
    events.delete(webhook)

    def die(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr("webhooks.oauth.revoke", die)
    with pytest.raises(SystemExit):
        (shared_credentials.delete if is_connection else events.purge)(found)
    left = Credential.objects.get(pk=webhook.credential_id)
    assert left.deleted_at is not None
    assert not any(left.has_secret(field) for field in ("client_secret", "basic_password"))
    assert not OAuthToken.objects.exists()
