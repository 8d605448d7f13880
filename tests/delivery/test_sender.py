"""The sender alone: which webhook is next while there are more requests than slots."""

import threading
from collections.abc import Iterator

import pytest

from tests.sandbox import Receiver
from tests.waiting import eventually
from webhooks import network
from webhooks.delivery.auth import NoAuthorization
from webhooks.delivery.limiter import Limiters
from webhooks.delivery.queue.rows import Claimed
from webhooks.delivery.requests import Request, make_plan, prepare
from webhooks.delivery.sender import Sender
from webhooks.models import Webhook

pytestmark = pytest.mark.once


@pytest.fixture
def sender() -> Iterator[Sender]:
    """Return a sender with four slots, whose receivers are all known to respond."""
    limiters = Limiters(64)
    for webhook_id in range(1, 5):
        limiters.begin(webhook_id, failures=0)
    sender = Sender(
        policy=network.Policy.from_settings(),
        limiters=limiters,
        max_in_flight=4,
        on_response=threading.Event().set,
    )
    sender.start()
    yield sender
    sender.stop()
    eventually(lambda: not sender.is_alive)
    sender.close()


def request_to(url: str, webhook_id: int) -> Request:
    webhook = Webhook(pk=webhook_id, url=url)
    webhook.set_secret("signing_secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    claim = Claimed(f"dlv_{webhook_id}", webhook_id, "evt_1", 1, 0, "event", b"{}")
    return prepare(claim, make_plan(webhook, NoAuthorization()), 0.0)


def is_first(request: Request) -> bool:
    return request.plan.webhook_id == 1


def answered(sender: Sender) -> list[int]:
    return [request.plan.webhook_id for request, _ in list(sender.responses)]


def test_who_had_as_many_in_flight_as_places_were_left_goes_on_when_more_are(
    sender: Sender, receiver: Receiver
) -> None:
    slow, quick = f"{receiver.url}/slow/15", f"{receiver.url}/open/hook"
    others = [request_to(f"{receiver.url}/slow/{number}", number) for number in (2, 3, 4)]
    # The first webhook has a slow request; all slots are taken when its second one comes.
    requests = [request_to(slow, 1), *others, request_to(quick, 1)]
    sender.submit(requests, lease_ends=float("inf"))
    eventually(lambda: 1 in answered(sender))
    [took_ms] = [response.total_ms for request, response in sender.responses if is_first(request)]
    assert took_ms < 10_000, "it waited for the slow one"
