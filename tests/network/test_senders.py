"""Every sender against the same attacks: redirects, rebinding, inside addresses, environment.

Delivery, test, code exchange, refresh, revocation, discovery and both checks of a connection. Rows
are written directly, so the form's check plays no part.
"""

import base64
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from tests import oauth_rows
from tests.factories import deliver_all, make_delivery, make_webhook
from tests.network.dns import engine_asks_getaddrinfo  # noqa: F401 - a fixture
from tests.network.test_guard import answer_with
from tests.network.test_sockets import SocketServer
from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply, fake_provider, token
from tests.security import connect_watch, oracle
from webhooks import events, network, oauth
from webhooks.models import Attempt, Delivery, OAuthToken, Outcome, TokenState, Webhook

pytestmark = [
    pytest.mark.once,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("engine_asks_getaddrinfo"),
]
PUBLIC = "93.184.215.14"
# The settings of the tests allow OPEN and not INSIDE; names are rebound from one to the other.
OPEN, INSIDE = "127.0.0.5", oracle.TRAP_ADDRESS


# The senders. Each takes a base URL and sends once.


def send_delivery(base: str) -> Any:
    make_delivery(make_webhook(url=f"{base}/hook"))
    deliver_all()


def send_test(base: str) -> Any:
    events.send_test(make_webhook(url=f"{base}/hook"))
    deliver_all()


def _oauth_webhook(base: str) -> Webhook:
    return oauth_rows.make_webhook(
        auth_url=f"{base}/authorize",
        token_url=f"{base}/token",
        refresh_url=f"{base}/refresh",
        revocation_url=f"{base}/revoke",
    )


def exchange_code(base: str) -> Any:
    oauth_rows.authorize(_oauth_webhook(base).credential)


def refresh(base: str) -> Any:
    webhook = _oauth_webhook(base)
    oauth_rows.make_token(webhook.credential)
    oauth_rows.token_after_refusal(webhook.credential, 1)


def revoke(base: str) -> Any:
    webhook = _oauth_webhook(base)
    oauth_rows.make_token(webhook.credential)
    oauth.clear_token(webhook.credential)


def discover(base: str) -> Any:
    oauth.discover(base)


def examine(base: str) -> Any:
    return oauth.examine(_oauth_webhook(base).credential)


def try_authentication(base: str) -> Any:
    return oauth.try_authentication(_oauth_webhook(base).credential)


SENDERS = [
    send_delivery,
    send_test,
    exchange_code,
    refresh,
    revoke,
    discover,
    examine,
    try_authentication,
]
EXPECTED_ERRORS = (oauth.AuthorizationError, oauth.MisconfiguredError, oauth.TokenUnavailableError)
Sender = Callable[[str], Any]


def send(sender: Sender, base: str) -> None:
    """Send; ignore the errors with which the OAuth senders explain a failure."""
    with contextlib.suppress(*EXPECTED_ERRORS):
        sender(base)


def assert_nothing_was_connected(before: int) -> None:
    """Assert that there was no connect by Python or libcurl, and that the attempts agree.

    `make security` also runs this module under strace.
    """
    assert connect_watch.seen() == before
    attempts = Attempt.objects.values_list("outcome", "remote_address")
    assert Delivery.objects.count() == len(attempts)
    assert set(attempts) <= {(Outcome.BLOCKED, "")}


@pytest.fixture
def internal_service() -> Iterator[FakeProvider]:
    """A service on the inside that no sender was told to contact."""
    with fake_provider() as running:
        running.reply(token())
        yield running


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    def lead_to(*addresses: str) -> list[str]:
        asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", answer_with(*addresses, asked=asked))
        return asked

    return lead_to


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("sender", SENDERS)
def test_no_sender_follows_a_redirect(
    sender: Sender, status: int, fake: FakeProvider, internal_service: FakeProvider
) -> None:
    fake.reply(Reply(status=status, headers={"Location": f"{internal_service.url}/inside"}))
    send(sender, fake.url)
    assert fake.requests
    assert internal_service.requests == []


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("header", ["Refresh", "Link", "Content-Location", "Alt-Svc"])
def test_no_sender_follows_another_header_that_leads_elsewhere(
    sender: Sender, header: str, fake: FakeProvider, internal_service: FakeProvider
) -> None:
    place = internal_service.url.removeprefix("http://")
    value = {
        "Refresh": f"0; url={internal_service.url}/",
        "Link": f'<{internal_service.url}/>; rel="next"',
        "Content-Location": f"{internal_service.url}/",
        "Alt-Svc": f'http/1.1="{place}"; ma=3600',
    }[header]
    fake.reply(Reply(status=401, headers={header: value}))
    send(sender, fake.url)
    send(sender, fake.url)
    assert fake.requests
    assert internal_service.requests == []


# Addresses inside.


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:6379",
        "https://10.0.0.1",
        "https://169.254.169.254",
        "https://[::1]:8443",
        "https://[fd00::1]",
        "https://redis:6379",
    ],
)
def test_no_sender_connects_to_an_address_inside(sender: Sender, base: str, settings: Any) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    before = connect_watch.seen()
    send(sender, base)
    assert_nothing_was_connected(before)


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("answers", [("10.0.0.1",), (PUBLIC, "10.0.0.1"), ("fd00::1", PUBLIC)])
def test_no_sender_connects_to_a_name_with_one_answer_inside(
    sender: Sender, answers: tuple[str, ...], names: Callable[..., list[str]], settings: Any
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    asked = names(*answers)
    before = connect_watch.seen()
    send(sender, "https://provider.example.com")
    assert asked
    assert_nothing_was_connected(before)


@pytest.mark.parametrize("sender", SENDERS)
def test_no_sender_asks_this_site_itself(
    sender: Sender, names: Callable[..., list[str]], settings: Any
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    settings.PUBLIC_URL = "https://hooks.example.com"
    names(PUBLIC)
    before = connect_watch.seen()
    send(sender, "https://hooks.example.com")
    assert_nothing_was_connected(before)


# DNS rebinding.


@pytest.mark.parametrize("sender", SENDERS)
def test_no_sender_believes_the_answer_of_an_earlier_check(
    sender: Sender, names: Callable[..., list[str]], settings: Any
) -> None:
    settings.WEBHOOKS_ALLOWED_NETWORKS = []
    names(PUBLIC)
    network.check_url("https://provider.example.com/")
    names("127.0.0.1")
    before = connect_watch.seen()
    send(sender, "https://provider.example.com")
    assert_nothing_was_connected(before)


@pytest.fixture
def rebinding_receivers(settings: Any) -> Iterator[tuple[int, dict[str, list[bytes]]]]:
    """Run a receiver on an open and one on an inside address; yield their port and requests."""
    settings.WEBHOOKS_ALLOWED_NETWORKS = [f"{OPEN}/32"]
    got: dict[str, list[bytes]] = {OPEN: [], INSIDE: []}
    servers = []
    port = 0
    for address, requests in got.items():
        server = SocketServer(_answering(requests), address=(address, port))
        port = server.port
        servers.append(server)
    yield port, got
    for server in servers:
        server.close()


def _answering(requests: list[bytes]) -> Callable[[socket.socket], None]:
    def play(connection: socket.socket) -> None:
        requests.append(connection.recv(65_536))
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    return play


def test_a_name_that_turns_between_two_attempts_is_refused_at_the_second(
    rebinding_receivers: tuple[int, dict[str, list[bytes]]], names: Callable[..., list[str]]
) -> None:
    port, got = rebinding_receivers
    names(OPEN)
    delivery = make_delivery(make_webhook(url=f"http://crm.example.com:{port}/hook"))
    deliver_all()
    names(INSIDE)
    Delivery.objects.update(next_attempt_at=timezone.now())
    deliver_all()
    outcomes = Attempt.objects.filter(delivery=delivery).order_by("number")
    assert list(outcomes.values_list("outcome", flat=True)) == [
        Outcome.SERVER_ERROR,
        Outcome.BLOCKED,
    ]
    assert (len(got[OPEN]), got[INSIDE]) == (1, [])


def test_a_name_that_turns_between_check_and_connect_is_connected_to_as_checked(
    rebinding_receivers: tuple[int, dict[str, list[bytes]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port, got = rebinding_receivers
    answers = iter([OPEN, INSIDE, INSIDE, INSIDE])

    def getaddrinfo(host: str, asked_port: int, *rest: Any, **more: Any) -> list[Any]:
        return answer_with(next(answers))(host, asked_port)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    make_delivery(make_webhook(url=f"http://crm.example.com:{port}/hook"))
    deliver_all()
    assert Attempt.objects.get().remote_address == OPEN
    assert (len(got[OPEN]), got[INSIDE]) == (1, [])


# Addresses that providers name.


def test_a_discovery_document_that_points_inside_is_refused(
    fake: FakeProvider, settings: Any
) -> None:
    port = fake.url.rpartition(":")[2]
    settings.WEBHOOKS_ALLOWED_NETWORKS = [f"127.0.0.1:{port}"]
    for endpoint in ("authorization_endpoint", "token_endpoint", "revocation_endpoint"):
        for inside in ("https://10.0.0.1/token", "http://127.0.0.1:6379/", "https://redis:6379/"):
            document = {
                "issuer": fake.url,
                "authorization_endpoint": f"{fake.url}/authorize",
                "token_endpoint": f"{fake.url}/token",
                endpoint: inside,
            }
            fake.reply(Reply(body=document))
            if endpoint == "revocation_endpoint":
                # A provider works without one.
                assert "revocation_url" not in oauth.discover(fake.url).fields
                continue
            with pytest.raises(oauth.MisconfiguredError, match=endpoint):
                oauth.discover(fake.url)


def test_addresses_in_a_token_answer_are_never_asked(
    fake: FakeProvider, internal_service: FakeProvider
) -> None:
    fields = dict.fromkeys(
        ("instance_url", "api_domain", "token_endpoint", "refresh_url", "introspection_endpoint"),
        f"{internal_service.url}/",
    )

    def answer(asked: ReceivedRequest) -> Reply:
        return token(refresh_token="r", expires_in=3600, id=f"{internal_service.url}/id", **fields)

    fake.reply(answer)
    exchange_code(fake.url)
    webhook = Webhook.objects.get()
    oauth_rows.token_after_refusal(webhook.credential, 1)
    oauth.clear_token(webhook.credential)
    assert OAuthToken.objects.get().state == TokenState.NONE
    assert len(fake.requests) >= 3
    assert internal_service.requests == []


# Environment variables and files.


@pytest.mark.parametrize("sender", SENDERS)
def test_no_sender_reads_proxies_or_netrc_of_the_environment(
    sender: Sender,
    fake: FakeProvider,
    internal_service: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.setenv(name, internal_service.url)
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("default login netrc-login password netrc-password\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    fake.reply(Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}))
    send(sender, fake.url)
    assert fake.requests
    assert internal_service.requests == []
    sent = [value for asked in fake.requests for value in asked.headers.values()]
    in_base64 = base64.b64encode(b"netrc-login:").decode()[:12]
    assert not [value for value in sent if in_base64 in value]
