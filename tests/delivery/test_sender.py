"""The sender alone: which webhook is next while there are more requests than slots."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults import hooks
from tests.polling import eventually
from tests.sandbox import Receiver, running_receiver
from tests.services import HOST, free_port
from webhooks import network
from webhooks.delivery.auth import NoAuthorization
from webhooks.delivery.limiter import Limiters
from webhooks.delivery.queue.rows import Claimed
from webhooks.delivery.requests import Request, make_plan, prepare
from webhooks.delivery.sender import Sender
from webhooks.models import Webhook

pytestmark = pytest.mark.once


@pytest.fixture
def limiters() -> Limiters:
    """Return limiters of receivers that are all known to respond."""
    limiters = Limiters(64)
    for webhook_id in range(1, 15):
        limiters.begin(webhook_id, failures=0)
    return limiters


@pytest.fixture
def sender(limiters: Limiters) -> Iterator[Sender]:
    """Return a sender with four slots."""
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


def test_requests_that_hang_leave_their_places_to_others(
    sender: Sender, receiver: Receiver
) -> None:
    hanging = [request_to(f"{receiver.url}/slow/8", number) for number in (2, 3, 4, 5)]
    sender.submit(hanging, lease_ends=float("inf"))
    sender.submit([request_to(f"{receiver.url}/open/hook", 1)], lease_ends=float("inf"))
    eventually(lambda: answered(sender) == [1])
    assert sender.late == 4


def test_only_a_limited_number_of_requests_that_hang_leave_their_places(
    sender: Sender, receiver: Receiver
) -> None:
    hanging = [request_to(f"{receiver.url}/slow/5", number) for number in range(2, 15)]
    sender.submit(hanging, lease_ends=float("inf"))
    most = 0
    while len(answered(sender)) < len(hanging):
        time.sleep(0.05)
        most = max(most, sender.late)
    assert most == 8


def test_what_waits_for_a_receiver_that_hangs_is_handed_back(
    sender: Sender, receiver: Receiver, limiters: Limiters
) -> None:
    limiter = limiters.get(1)
    requests = [request_to(f"{receiver.url}/slow/5", 1) for _ in range(8)]
    limiter.claimed = len(requests)
    sender.submit(requests, lease_ends=float("inf"))
    eventually(lambda: len(sender.unsent) == 6)
    assert limiter.hanging_limit == 4
    eventually(lambda: len(answered(sender)) == 2)
    eventually(lambda: limiter.hanging_limit == 0)


def test_what_comes_for_receivers_that_hang_takes_no_place_and_is_handed_back(
    sender: Sender, receiver: Receiver, limiters: Limiters
) -> None:
    numbers = 2, 3, 4, 5
    hanging = [request_to(f"{receiver.url}/slow/4", number) for number in numbers]
    for number in numbers:
        limiters.get(number).claimed = 2
    sender.submit(hanging, lease_ends=float("inf"))
    eventually(lambda: sender.late == 4)
    again = [request_to(f"{receiver.url}/slow/4", number) for number in numbers]
    sender.submit(again, lease_ends=float("inf"))
    eventually(lambda: list(sender.unsent) == [request.claim for request in again])
    assert not answered(sender)


def test_each_webhook_begins_one_request_before_another_begins_its_second(
    sender: Sender, receiver: Receiver
) -> None:
    hanging = [request_to(f"{receiver.url}/slow/4", number) for number in (2, 2, 3, 3, 4, 4)]
    quick = request_to(f"{receiver.url}/open/hook", 1)
    sender.submit([*hanging, quick], lease_ends=float("inf"))
    eventually(lambda: 1 in answered(sender))
    assert sender.late == 0


def test_what_this_machine_lacks_beside_requests_that_hang_leaves_fewer_places(
    sender: Sender, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = [request_to(f"{receiver.url}/slow/8", number) for number in range(2, 8)]
    sender.submit(hanging, lease_ends=float("inf"))
    eventually(lambda: sender.late == 6)
    monkeypatch.setattr(Sender, "lacked_resource", lambda *_: "Too many open files")
    refused = request_to(f"http://{HOST}:{free_port()}/", 8)
    sender.submit([refused], lease_ends=float("inf"))
    eventually(lambda: len(sender.unsent) == 1)
    assert sender.places < 4
    time.sleep(0.6)
    assert sender.late == 0


@pytest.fixture
def two_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections begin at two ports only, as after thousands of closed ones to an address."""
    opened, both = network.SocketOpener.open, hooks.two_ports()
    with socket.socket() as probe:
        try:
            probe.setsockopt(socket.IPPROTO_IP, hooks.IP_LOCAL_PORT_RANGE, both)
        except OSError:
            pytest.skip("this kernel cannot limit the ports of a socket")

    def open_at_one_of_them(*args: Any) -> Any:
        made = opened(*args)
        made.setsockopt(socket.IPPROTO_IP, hooks.IP_LOCAL_PORT_RANGE, both)
        return made

    monkeypatch.setattr(network.SocketOpener, "open", open_at_one_of_them)


@pytest.mark.usefixtures("two_ports")
def test_a_receiver_that_used_up_the_ports_to_its_address_stops_no_other(
    sender: Sender, receiver: Receiver, limiters: Limiters
) -> None:
    slow = [request_to(f"{receiver.url}/slow/3", number) for number in (4, 5, 1)]
    sender.submit(slow, lease_ends=float("inf"))
    eventually(lambda: len(sender.unsent) == 1)
    assert sender.last_lack is not None
    assert sender.last_lack[1] == network.NO_PORTS
    assert not sender.is_lacking
    assert sender.places == 4
    limiter = limiters.get(1)
    assert limiter.limit == 4
    assert limiter.rests_until > 0
    assert limiter.quota(limiter.rests_until - 0.1) == 0
    with running_receiver() as other:
        quick = [request_to(f"{other.url}/open/hook", number) for number in (2, 3)]
        sender.submit(quick, lease_ends=float("inf"))
        eventually(lambda: len(answered(sender)) >= 2)
        assert {2, 3} <= set(answered(sender))
    eventually(lambda: limiter.quota(time.monotonic()) > 0)
    assert {response.error for _, response in sender.responses} == {None}
