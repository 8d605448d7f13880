"""The operator's proxy: everything goes through it, and refused requests never reach it."""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pycurl
import pytest
import requests

from tests.factories import deliver_all, make_delivery, make_webhook, run_engine
from tests.network.dns import engine_asks_getaddrinfo  # noqa: F401 - a fixture
from tests.network.test_guard import answer_with
from tests.network.test_sockets import (  # noqa: F401 - fixtures
    HOST,
    Certificates,
    SocketServer,
    certificates,
    curl,
    serve,
)
from tests.polling import PATIENCE_SECONDS, eventually
from tests.sandbox import Receiver
from tests.security.proxy import ForwardProxy
from tests.services import free_port
from webhooks import network
from webhooks.models import Attempt, Outcome
from webhooks.network import Policy, UnsafeURLError, guard
from webhooks.network.resolver import proxy_addresses

pytestmark = pytest.mark.usefixtures("engine_asks_getaddrinfo")
PUBLIC = "93.184.215.14"
LOGIN = "b3BlcmF0b3I6cHJveHktcGFzc3dvcmQ="


@pytest.fixture
def proxy_to() -> Iterator[Callable[..., ForwardProxy]]:
    """Return a function that starts a proxy that connects every request to one port."""
    proxies: list[ForwardProxy] = []

    def start(port: int, **options: Any) -> ForwardProxy:
        proxies.append(ForwardProxy(port, **options))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def public_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve every name to a public address, except the proxy's own."""
    public, own = answer_with(PUBLIC), answer_with("127.0.0.1")

    def getaddrinfo(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        return (own if host.startswith("proxy.") else public)(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def trust(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Certificates:  # noqa: F811
    """Let both senders trust the tests' own CA."""
    monkeypatch.setattr(guard, "ca_bundle", lambda: certificates.path("ca"))
    return certificates


def context(certificates: Certificates, name: str) -> ssl.SSLContext:  # noqa: F811
    return certificates.context(name)


def by_requests(url: str, policy: Policy) -> bytes:
    with network.GuardedSession(policy=policy) as session:
        return session.get(url, headers={"Authorization": "Bearer of-the-receiver"}).content


def by_libcurl(url: str, policy: Policy) -> bytes:
    header = (pycurl.HTTPHEADER, ["Authorization: Bearer of-the-receiver"])
    proxy_port = policy.egress_proxy.rpartition(":")[2]
    pins = (f"{HOST}:443:{PUBLIC}", f"proxy.example.com:{proxy_port}:127.0.0.1")
    result = curl(url, policy, pins=pins, options=(header,))
    if result.error:
        raise requests.ConnectionError(result.message)
    return result.body


SENDERS = [by_requests, by_libcurl]
Sender = Callable[[str, Policy], bytes]


@pytest.mark.parametrize("send", SENDERS)
def test_a_plain_receiver_is_reached_through_the_proxy(
    send: Sender,
    serve: Callable[..., SocketServer],  # noqa: F811
    proxy_to: Callable[..., ForwardProxy],
    public_names: None,
) -> None:
    server = serve()
    proxy = proxy_to(server.port)
    assert send(f"http://{HOST}/hook", Policy(egress_proxy=f"http://127.0.0.1:{proxy.port}")) == (
        b"ok"
    )
    assert proxy.hosts == [f"http://{HOST}/hook"]
    assert server.requests[0].startswith(b"GET /hook ")


@pytest.mark.parametrize("send", SENDERS)
def test_an_https_receiver_is_reached_through_a_tunnel_that_shows_no_secret(
    send: Sender,
    serve: Callable[..., SocketServer],  # noqa: F811
    proxy_to: Callable[..., ForwardProxy],
    public_names: None,
    trust: Certificates,
) -> None:
    server = serve(context=context(trust, "good"))
    proxy = proxy_to(server.port)
    assert send(f"https://{HOST}/hook", Policy(egress_proxy=f"http://127.0.0.1:{proxy.port}")) == (
        b"ok"
    )
    assert proxy.hosts == [f"{HOST}:443"]
    assert b"of-the-receiver" not in b"".join(proxy.asked)
    assert b"Bearer of-the-receiver" in server.requests[0]


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("name", ["other", "expired", "self"])
def test_the_receivers_certificate_is_checked_through_the_tunnel_too(
    send: Sender,
    name: str,
    serve: Callable[..., SocketServer],  # noqa: F811
    proxy_to: Callable[..., ForwardProxy],
    public_names: None,
    trust: Certificates,
) -> None:
    server = serve(context=context(trust, name))
    proxy = proxy_to(server.port)
    with pytest.raises(requests.RequestException):
        send(f"https://{HOST}/hook", Policy(egress_proxy=f"http://127.0.0.1:{proxy.port}"))
    assert server.requests == []


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_may_be_reached_over_tls_itself(
    send: Sender,
    scheme: str,
    serve: Callable[..., SocketServer],  # noqa: F811
    proxy_to: Callable[..., ForwardProxy],
    public_names: None,
    trust: Certificates,
) -> None:
    server = serve(context=context(trust, "good") if scheme == "https" else None)
    proxy = proxy_to(server.port, context=context(trust, "proxy"))
    policy = Policy(egress_proxy=f"https://proxy.example.com:{proxy.port}")
    assert send(f"{scheme}://{HOST}/hook", policy) == b"ok"


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_with_the_wrong_certificate_gets_nothing(
    send: Sender,
    scheme: str,
    proxy_to: Callable[..., ForwardProxy],
    public_names: None,
    trust: Certificates,
) -> None:
    proxy = proxy_to(9, context=context(trust, "other"))
    policy = Policy(egress_proxy=f"https://proxy.example.com:{proxy.port}")
    with pytest.raises(requests.RequestException):
        send(f"{scheme}://{HOST}/hook", policy)
    assert proxy.asked == []


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxys_login_goes_to_the_proxy_only(
    send: Sender,
    scheme: str,
    serve: Callable[..., SocketServer],  # noqa: F811
    proxy_to: Callable[..., ForwardProxy],
    public_names: None,
    trust: Certificates,
) -> None:
    server = serve(context=context(trust, "good") if scheme == "https" else None)
    proxy = proxy_to(server.port)
    policy = Policy(egress_proxy=f"http://operator:proxy-password@127.0.0.1:{proxy.port}")
    assert send(f"{scheme}://{HOST}/hook", policy) == b"ok"
    assert LOGIN.encode() in proxy.asked[0]
    if scheme == "https":
        assert LOGIN.encode() not in server.requests[0]


@pytest.mark.parametrize("send", SENDERS)
def test_a_proxy_that_refuses_is_reported_without_its_login(
    send: Sender, proxy_to: Callable[..., ForwardProxy], public_names: None
) -> None:
    proxy = proxy_to(9, refuses=b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    policy = Policy(egress_proxy=f"http://operator:proxy-password@127.0.0.1:{proxy.port}")
    with pytest.raises(requests.RequestException) as failure:
        send(f"https://{HOST}/hook", policy)
    assert "proxy-password" not in str(failure.value)


@pytest.mark.parametrize(
    "proxy", ["http://operator:s3cret@word@%s", "nothing://operator:s3cret@%s"]
)
def test_a_proxy_that_libcurl_does_not_understand_is_reported_without_its_login(
    proxy: str, public_names: None
) -> None:
    with pytest.raises(network.TransferError, match="Unsupported proxy") as failure:
        by_requests(f"https://{HOST}/hook", Policy(egress_proxy=proxy % "127.0.0.1:9"))
    assert not {"operator", "s3cret"} & set(re.findall(r"\w+", failure.value.reason))


# The engine and its deliveries.


def deliver(url: str, settings: Any, proxy: ForwardProxy) -> Attempt:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    settings.WEBHOOKS_EGRESS_PROXY = f"http://127.0.0.1:{proxy.port}"
    delivery = make_delivery(make_webhook(url=url))
    deliver_all()
    return Attempt.objects.get(delivery=delivery)


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_a_delivery_goes_through_the_proxy(
    receiver: Receiver, settings: Any, proxy_to: Callable[..., ForwardProxy], public_names: None
) -> None:
    proxy = proxy_to(int(receiver.url.rpartition(":")[2]))
    url = "http://crm.example.com/open/hook?a=%2f&b=../c"
    attempt = deliver(url, settings, proxy)
    assert (attempt.outcome, attempt.status_code) == (Outcome.SUCCEEDED, 200)
    assert proxy.hosts == [url]


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_no_attempt_holds_the_login_of_a_proxy_that_cannot_be_used(
    settings: Any, public_names: None
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    settings.WEBHOOKS_EGRESS_PROXY = "http://operator:s3cret@word@127.0.0.1:9"
    delivery = make_delivery(make_webhook(url="http://crm.example.com/hook"))
    deliver_all()
    attempt = Attempt.objects.get(delivery=delivery)
    assert "Unsupported proxy" in str(attempt.__dict__)
    assert "s3cret" not in str(attempt.__dict__)


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:6379/", "http://169.254.169.254/latest/", "https://[fd00::1]/"]
)
@pytest.mark.slow
def test_a_delivery_to_a_refused_literal_never_reaches_the_proxy(
    url: str, settings: Any, proxy_to: Callable[..., ForwardProxy]
) -> None:
    proxy = proxy_to(9)
    assert deliver(url, settings, proxy).outcome == Outcome.BLOCKED
    assert proxy.asked == []


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_a_delivery_to_a_name_that_leads_inside_never_reaches_the_proxy(
    settings: Any, proxy_to: Callable[..., ForwardProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answer_with(PUBLIC, "10.0.0.1"))
    proxy = proxy_to(9)
    assert deliver("https://crm.example.com/", settings, proxy).outcome == Outcome.BLOCKED
    assert proxy.asked == []


def test_a_literal_inside_never_reaches_the_proxy_through_requests(
    proxy_to: Callable[..., ForwardProxy],
) -> None:
    proxy = proxy_to(9)
    with pytest.raises(UnsafeURLError):
        by_requests("http://10.0.0.1/", Policy(egress_proxy=f"http://127.0.0.1:{proxy.port}"))
    assert proxy.asked == []


def lose_proxy_name(
    monkeypatch: pytest.MonkeyPatch, *, look_ups: int, error: socket.gaierror
) -> list[float]:
    """Fail the first look-ups of the proxy's name; return the times of all, as they are made."""
    public, own = answer_with(PUBLIC), answer_with("127.0.0.1")
    asked_at: list[float] = []

    def getaddrinfo(host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        if not host.startswith("proxy."):
            return public(host, port)
        asked_at.append(time.monotonic())
        if len(asked_at) <= look_ups:
            raise error
        return own(host, port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked_at


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("host", ["crm.example.com", PUBLIC])
def test_while_the_name_of_the_proxy_is_not_found_deliveries_wait_and_charge_no_one(
    host: str,
    receiver: Receiver,
    settings: Any,
    proxy_to: Callable[..., ForwardProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy = proxy_to(int(receiver.url.rpartition(":")[2]))
    error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    lose_proxy_name(monkeypatch, look_ups=2, error=error)
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    settings.WEBHOOKS_EGRESS_PROXY = f"http://proxy.{host}.internal:{proxy.port}"
    make_delivery(make_webhook(url=f"http://{host}/open/hook"))
    deliver_all()
    attempt = Attempt.objects.get()
    assert (attempt.number, attempt.outcome) == (1, Outcome.SUCCEEDED)


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_the_name_of_a_proxy_that_is_not_found_is_looked_up_once_a_second_for_all_receivers(
    receiver: Receiver,
    settings: Any,
    proxy_to: Callable[..., ForwardProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look-up may block everything else for seconds."""
    proxy = proxy_to(int(receiver.url.rpartition(":")[2]))
    error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    asked_at = lose_proxy_name(monkeypatch, look_ups=3, error=error)
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    settings.WEBHOOKS_EGRESS_PROXY = f"http://proxy.of-many.internal:{proxy.port}"
    for number in range(5):
        make_delivery(make_webhook(url=f"http://crm{number}.example.com/open/hook"))
    deliver_all()
    assert {one.outcome for one in Attempt.objects.all()} == {Outcome.SUCCEEDED}
    assert all(later - earlier > 0.9 for earlier, later in pairwise(asked_at))


def assert_no_one_was_charged(
    proxy_to: Callable[..., ForwardProxy], receiver: Receiver, settings: Any
) -> None:
    """Assert that no attempt was stored, and that the first one goes through a working proxy."""
    assert not Attempt.objects.exists()
    proxy = proxy_to(int(receiver.url.rpartition(":")[2]))
    settings.WEBHOOKS_EGRESS_PROXY = f"http://127.0.0.1:{proxy.port}"
    deliver_all()
    attempt = Attempt.objects.get()
    assert (attempt.number, attempt.outcome) == (1, Outcome.SUCCEEDED)


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_while_the_proxy_cannot_be_connected_to_deliveries_wait_and_charge_no_one(
    receiver: Receiver, settings: Any, proxy_to: Callable[..., ForwardProxy], public_names: None
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    settings.WEBHOOKS_EGRESS_PROXY = f"http://127.0.0.1:{free_port()}"
    make_delivery(make_webhook(url="http://crm.example.com/open/hook"))
    ends = time.monotonic() + 3
    run_engine(lambda: time.monotonic() > ends)
    assert_no_one_was_charged(proxy_to, receiver, settings)


@pytest.mark.once
@pytest.mark.django_db(transaction=True)
def test_while_the_proxy_answers_no_connection_deliveries_wait_and_charge_no_one(
    receiver: Receiver,
    settings: Any,
    proxy_to: Callable[..., ForwardProxy],
    public_names: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    make_delivery(make_webhook(url="http://crm.example.com/open/hook", timeout_seconds=1))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as kept:
        # With a full queue the kernel drops connection requests.
        for _ in range(2):
            client = kept.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        settings.WEBHOOKS_EGRESS_PROXY = f"http://127.0.0.1:{full.getsockname()[1]}"
        run_engine(lambda: network.PROXY_SILENT in caplog.text)
    assert_no_one_was_charged(proxy_to, receiver, settings)


def at_minutes(monkeypatch: pytest.MonkeyPatch, *minutes: int) -> None:
    """Let the proxy's addresses be asked for in these minutes."""
    seconds = iter(60.0 * minute for minute in minutes)
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("webhooks.network.resolver.time", clock)


def test_a_proxy_whose_name_cannot_be_looked_up_any_more_is_where_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Policy(egress_proxy="http://proxy.moved.example:3128")
    at_minutes(monkeypatch, 0, 1, 1)
    monkeypatch.setattr(socket, "getaddrinfo", answer_with("192.0.2.1"))
    before = proxy_addresses(policy)
    monkeypatch.setattr(socket, "getaddrinfo", answer_with())
    assert proxy_addresses(policy) == before == (("192.0.2.1", 3128),)
    eventually(lambda: "proxy-lookup" not in {one.name for one in threading.enumerate()})
    assert proxy_addresses(policy) == before


def test_a_proxy_that_nothing_was_sent_to_for_long_is_looked_up_before_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Policy(egress_proxy="http://proxy.idle.example:3128")
    at_minutes(monkeypatch, 0, 60)
    for address in ("192.0.2.1", "192.0.2.2"):
        monkeypatch.setattr(socket, "getaddrinfo", answer_with(address))
        assert proxy_addresses(policy) == ((address, 3128),)


def test_a_name_server_that_is_slow_about_the_proxy_delays_only_the_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Policy(egress_proxy="http://proxy.slow.example:3128")
    at_minutes(monkeypatch, 0, *[1] * 100_000)
    monkeypatch.setattr(socket, "getaddrinfo", answer_with("192.0.2.1"))
    before = proxy_addresses(policy)
    answered, answer = threading.Event(), answer_with("192.0.2.2")

    def look(*args: Any, **options: Any) -> Any:
        answered.wait(PATIENCE_SECONDS)
        return answer(*args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    assert proxy_addresses(policy) == before
    answered.set()
    eventually(lambda: proxy_addresses(policy) == (("192.0.2.2", 3128),))
