"""Mutual TLS: a server that asks for a certificate gets the right one, others get none."""

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import oauth_rows
from tests.factories import deliver_all, make_delivery, make_webhook
from tests.network.dns import engine_asks_getaddrinfo  # noqa: F401 - a fixture
from tests.network.test_sockets import HOST, Certificates, SocketServer, certificates, resolve_to  # noqa: F401
from tests.oauth_fakes import FakeProvider, Reply
from webhooks import events, oauth
from webhooks.models import GrantType
from webhooks.network import guard

pytestmark = [
    pytest.mark.once,
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("engine_asks_getaddrinfo"),
]
TOKEN = b'{"access_token": "T", "token_type": "Bearer"}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


class Asking(SocketServer):
    """A server that asks for a certificate and records whose it was for each request."""

    def __init__(self, context: ssl.SSLContext) -> None:
        # The path and the owner of the certificate.
        self.seen: list[tuple[str, str]] = []
        self.connections = 0
        self.context = context
        super().__init__(self._note, context)

    def _note(self, connection: Any) -> None:
        self.connections += 1
        while request := self.read_request(connection):
            subject = dict(one[0] for one in (connection.getpeercert() or {}).get("subject", ()))
            path = request.split()[1].decode().removeprefix("/")
            self.seen.append((path, subject.get("commonName", "")))
            connection.sendall(ANSWER % (len(TOKEN), TOKEN))


@pytest.fixture
def asking(
    certificates: Certificates,  # noqa: F811
    resolve_to: Callable[..., None],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Asking]:
    monkeypatch.setattr(guard, "ca_bundle", lambda: certificates.path("ca"))
    resolve_to("127.0.0.1")
    context = certificates.context("good")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(certificates.path("ca"))
    server = Asking(context)
    yield server
    server.close()


def test_deliveries_on_the_same_connections_show_each_its_own_certificate(
    asking: Asking,
    certificates: Certificates,  # noqa: F811
) -> None:
    names = ["good", "", "other"]
    for name in names:
        text = (certificates.folder / f"{name}.pem").read_text() if name else ""
        make_webhook(url=f"https://{HOST}:{asking.port}/{name}", client_certificate=text)

    for _ in range(2):
        for number in range(4):
            events.publish("call.incoming.after", {"call_id": f"call-{number}"})
        deliver_all()

    assert sorted(asking.seen) == sorted((name, name) for name in names * 8)
    assert asking.connections < len(asking.seen)


def test_a_token_is_fetched_with_the_certificate(
    asking: Asking,
    certificates: Certificates,  # noqa: F811
) -> None:
    credential = oauth_rows.make_credential(
        grant_type="client_credentials",
        token_url=f"https://{HOST}:{asking.port}/token",
        client_authentication="tls_client_auth",
        client_secret="",
        client_certificate=(certificates.folder / "good.pem").read_text(),
    )

    oauth.usable_token(credential.pk)

    assert asking.seen == [("token", "good")]


def test_a_token_endpoint_that_wants_a_certificate_is_distinguished_from_one_that_is_down(
    asking: Asking,
    certificates: Certificates,  # noqa: F811
) -> None:
    """RFC 8446 section 6.2, certificate_required; TLS 1.2 has no alert of its own for it."""
    asking.context.verify_mode = ssl.CERT_REQUIRED
    credential = oauth_rows.make_credential(
        grant_type="client_credentials", token_url=f"https://{HOST}:{asking.port}/token"
    )

    with pytest.raises(oauth.TokenUnavailableError, match="“tls_client_auth”") as failure:
        oauth.usable_token(credential.pk)

    assert failure.value.hold_reason == "misconfigured"
    assert asking.seen == []


def test_a_discovered_endpoint_for_certificates_sees_one(
    asking: Asking,
    certificates: Certificates,  # noqa: F811
    fake: FakeProvider,
) -> None:
    document = {
        "issuer": fake.url,
        "token_endpoint": fake.token_url,
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "tls_client_auth"],
        "mtls_endpoint_aliases": {"token_endpoint": f"https://{HOST}:{asking.port}/mtls"},
    }
    fake.reply(Reply(body=document))
    found = oauth.discover(
        fake.url, grant=GrantType.CLIENT_CREDENTIALS, authentication="tls_client_auth"
    )
    credential = oauth_rows.make_credential(
        **found.fields,
        grant_type="client_credentials",
        client_secret="",
        client_certificate=(certificates.folder / "good.pem").read_text(),
    )

    oauth.usable_token(credential.pk)

    assert asking.seen == [("mtls", "good")]
    assert len(fake.requests) == 1


def test_a_certificate_stays_with_the_origin_it_was_entered_for(
    asking: Asking,
    certificates: Certificates,  # noqa: F811
) -> None:
    text = (certificates.folder / "good.pem").read_text()
    webhook = make_webhook(url="https://before.example/hook", client_certificate=text)
    type(webhook).objects.filter(pk=webhook.pk).update(url=f"https://{HOST}:{asking.port}/hook")

    delivery = make_delivery(webhook)
    deliver_all()

    delivery.refresh_from_db()
    assert (delivery.status, delivery.hold_reason) == ("held", "misconfigured")
    assert not asking.seen
