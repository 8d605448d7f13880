"""After a lost grant a new token releases 500 held deliveries: once, in order, at their rate."""

from collections import Counter

import pytest
from django.utils import timezone

from tests.factories import run_engine
from tests.oauth_rows import connect, make_webhook
from tests.sandbox import Provider, Receiver
from webhooks import events
from webhooks.models import Delivery, HoldReason, OAuthToken, Status, Webhook

pytestmark = pytest.mark.django_db(transaction=True)

RATE = 200


def webhook_that_lost_its_grant(url: str, provider: Provider, **fields: bool) -> Webhook:
    webhook = make_webhook(provider, url=url, event_types=["call.*"], rate_limit=RATE, **fields)
    connect(webhook.credential)
    provider.revoke_grants()
    OAuthToken.objects.update(expires_at=timezone.now())
    return webhook


def hold(count: int) -> list[str]:
    """Publish and let the engine hold all deliveries unsent; return the event ids."""
    items = [events.NewEvent("call.incoming.after", {"number": n}) for n in range(count)]
    ids = [published.event_id for published in events.publish_many(items)]
    held = Delivery.objects.filter(status=Status.HELD, hold_reason=HoldReason.REAUTHORIZATION)
    run_engine(lambda: held.count() == count)
    # Nothing was sent, so nothing failed.
    assert not Delivery.objects.exclude(attempt_count=0, failure_count=0).exists()
    return ids


def send_all(count: int) -> None:
    succeeded = Delivery.objects.filter(status=Status.SUCCEEDED)
    run_engine(lambda: succeeded.count() == count, seconds=30)
    assert set(succeeded.values_list("attempt_count", flat=True)) == {1}


def test_500_held_deliveries_go_out_once_each_and_at_the_rate_of_the_webhook(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = webhook_that_lost_its_grant(f"{receiver.url}/open/hook", provider)
    ids = hold(500)
    assert receiver.requests() == []

    connect(webhook.credential)
    assert events.release_held(webhook.credential) == 500
    send_all(500)

    requests = receiver.requests()
    came = Counter(request.header("webhook-id") for request in requests)
    assert came == Counter(ids)
    # A second's worth may go at once.
    assert requests[-1].time - requests[0].time >= (500 - RATE) / RATE * 0.9
    token = OAuthToken.objects.get(credential=webhook.credential).access_token
    assert {request.header("Authorization") for request in requests} == {f"Bearer {token}"}
    # Releasing once more, as a second person might, releases nothing twice.
    assert events.release_held(webhook.credential) == 0


def test_held_deliveries_of_an_ordered_webhook_go_out_in_order(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = webhook_that_lost_its_grant(f"{receiver.url}/open/hook", provider, is_ordered=True)
    ids = hold(60)

    connect(webhook.credential)
    assert events.release_held(webhook.credential) == 60
    send_all(60)

    assert [request.header("webhook-id") for request in receiver.requests()] == ids
