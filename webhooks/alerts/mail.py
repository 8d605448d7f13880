"""Mail by SMTP with a deadline: Django's timeout counts for each read alone."""

import smtplib
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Self

from django.core.mail import EmailMessage
from django.core.mail.backends import smtp

# For a whole mail, from connecting to the response to QUIT. RFC 5321 section 4.5.3.2 allows minutes
# for each response, but a page or one of a worker's few slots waits for this.
MAIL_SECONDS = 20.0


class SmtpBackend(smtp.EmailBackend):
    """Django's SMTP backend; a mail that takes longer than MAIL_SECONDS raises TimeoutError.

    A server that sends a part of its response each second would never let it time out.
    """

    _deadline: "_Deadline | None" = None

    @property
    def connection_class(self) -> Any:
        if self._deadline is None:
            return super().connection_class
        return partial(_SmtpOverTls if self.use_ssl else _Smtp, self._deadline)

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        with _Deadline() as self._deadline:
            return super().send_messages(email_messages)


class _Deadline:
    """Shuts a connection down after MAIL_SECONDS, which ends every read from it."""

    def __init__(self) -> None:
        self._timer = threading.Timer(MAIL_SECONDS, self._end)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None
        if self._is_over and isinstance(error, OSError):
            raise TimeoutError(f"not sent within {MAIL_SECONDS:.0f} s") from error

    def watch(self, opened: socket.socket) -> None:
        """Let the deadline count for a connection."""
        # A duplicate, because TLS takes the descriptor out of its socket.
        watched = opened.dup()
        with self._lock:
            self._socket = watched
            self._shut_down_if_over()

    def _end(self) -> None:
        with self._lock:
            self._is_over = True
            self._shut_down_if_over()

    def _shut_down_if_over(self) -> None:
        if self._is_over and self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


class _Smtp(smtplib.SMTP):
    """An SMTP connection that a deadline watches from before its greeting."""

    def __init__(self, deadline: _Deadline, *args: Any, **kwargs: Any) -> None:
        self._deadline = deadline
        super().__init__(*args, **kwargs)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        opened: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        self._deadline.watch(opened)
        return opened


class _SmtpOverTls(smtplib.SMTP_SSL, _Smtp):
    """The same over TLS, from before its handshake."""

    def __init__(self, deadline: _Deadline, *args: Any, **kwargs: Any) -> None:
        self._deadline = deadline
        smtplib.SMTP_SSL.__init__(self, *args, **kwargs)
