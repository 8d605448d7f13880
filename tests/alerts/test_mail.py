"""Mail by SMTP, to real servers on loopback that answer slowly."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest
from django.core.mail import EmailMessage
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from tests.faults.certificates import Authority
from webhooks.alerts import mail, notifications

pytestmark = pytest.mark.once

# Moments at which no command was sent.
HANDSHAKE, GREETING, BODY = b"handshake", b"greeting", b"body"
_ANSWERS = {b"EHLO": b"250 localhost", b"DATA": b"354 Go on", b"QUIT": b"221 Bye"}


class MailServer:
    """Speaks SMTP; `drips_at` is the command whose response never ends."""

    def __init__(self, *, drips_at: bytes | None = None, piece: bytes = b"2") -> None:
        self._drips_at, self._piece = drips_at, piece
        self.context: Any = None
        self.bodies: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _address = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self._drips_at == HANDSHAKE:
                self._drip(connection)
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as reader:
                self._converse(connection, reader)

    def _converse(self, connection: socket.socket, reader: IO[bytes]) -> None:
        self._answer(connection, GREETING, b"220 localhost")
        while line := reader.readline():
            command = line[:4].upper()
            self._answer(connection, command, _ANSWERS.get(command, b"250 OK"))
            if command == b"DATA":
                self.bodies.append(b"".join(iter(reader.readline, b".\r\n")))
                self._answer(connection, BODY, b"250 OK")

    def _answer(self, connection: socket.socket, command: bytes, text: bytes) -> None:
        if command == self._drips_at:
            self._drip(connection)
        connection.sendall(text + b"\r\n")

    def _drip(self, connection: socket.socket) -> None:
        while True:
            connection.sendall(self._piece)
            time.sleep(0.05)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def serve(settings: Any) -> Iterator[Callable[..., MailServer]]:
    """Return a function that starts a mail server and makes it that of the site."""
    servers: list[MailServer] = []

    def start(**options: Any) -> MailServer:
        servers.append(MailServer(**options))
        settings.EMAIL_BACKEND = "webhooks.alerts.mail.SmtpBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", servers[-1].port
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def is_hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "MAIL_SECONDS", 0.5)


def send() -> int:
    return EmailMessage("Subject", "Text", to=["ops@example.com"]).send()


def test_a_mail_is_sent(serve: Callable[..., MailServer]) -> None:
    server = serve()
    assert send() == 1
    assert b"Subject: Subject" in server.bodies[0]


@pytest.mark.usefixtures("is_hasty")
@pytest.mark.parametrize("command", [GREETING, b"EHLO", b"MAIL", b"RCPT", b"DATA", BODY])
@pytest.mark.parametrize("piece", [b"250-wait\r\n", b"2"])
def test_a_mail_is_given_up_at_its_deadline_although_the_server_keeps_sending(
    serve: Callable[..., MailServer], command: bytes, piece: bytes
) -> None:
    serve(drips_at=command, piece=piece)
    began_at = time.monotonic()
    with pytest.raises(TimeoutError, match="not sent within"):
        send()
    assert time.monotonic() - began_at < 5


@pytest.mark.usefixtures("is_hasty")
@pytest.mark.parametrize("command", [HANDSHAKE, GREETING, b"EHLO"])
def test_a_mail_over_tls_is_given_up_at_its_deadline(
    serve: Callable[..., MailServer],
    command: bytes,
    tmp_path: Path,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    authority = Authority(tmp_path)
    # The header of a TLS record; what is sent of its 16,383 bytes takes minutes.
    server = serve(drips_at=command, piece=b"\x16\x03\x01\x3f\xff")
    server.context = authority.context("mail")
    settings.EMAIL_USE_SSL = True
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    began_at = time.monotonic()
    with pytest.raises(TimeoutError, match="not sent within"):
        send()
    assert time.monotonic() - began_at < 5


@pytest.mark.usefixtures("is_hasty")
def test_a_mail_that_was_accepted_counts_as_sent_although_the_server_does_not_say_goodbye(
    serve: Callable[..., MailServer],
) -> None:
    server = serve(drips_at=b"QUIT")
    assert send() == 1
    assert len(server.bodies) == 1


@pytest.mark.django_db
@pytest.mark.usefixtures("is_hasty")
def test_the_page_says_that_a_test_mail_was_not_accepted_in_time(
    admin_client: Client, serve: Callable[..., MailServer]
) -> None:
    serve(drips_at=GREETING)
    url = reverse("webhooks:send_test_mail", args=[make_webhook().pk])
    typed = {"alert_recipients": "a@example.com"}
    page = admin_client.post(url, typed, headers={"HX-Request": "true"})
    assert "The mail server did not accept the email." in page.text


@pytest.mark.django_db
def test_no_thread_for_the_deadline_is_a_mail_that_was_not_sent(
    serve: Callable[..., MailServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    serve()
    monkeypatch.setattr(threading.Timer, "start", refuse)
    assert not notifications.send_test_mail(make_webhook(alert_recipients=["a@example.com"]))
