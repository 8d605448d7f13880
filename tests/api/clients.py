"""The two ways to the event API: through Django, and as a server calls config/wsgi.py."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from django.http import HttpResponse
from django.test import Client

from webhooks.api import wsgi


class WsgiClient(Client):
    """Sends a request to a WSGI application of its own, and closes the answer as a server does."""

    def __init__(self, application: wsgi.Application | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.application = application or wsgi.events_first(WSGIHandler())
        self.handler = self._call

    def _call(self, environ: dict[str, Any]) -> HttpResponse:
        with _open_connection():
            status, headers, content = call(self.application, environ)
        response = HttpResponse(content, status=int(status.split()[0]), headers=dict(headers))
        response.wsgi_request = WSGIRequest(environ)  # type: ignore[attr-defined]
        return response


@contextmanager
def _open_connection() -> Iterator[None]:
    """Let the test's own transaction go on, as Django's client does."""
    signals = (request_started, request_finished)
    for signal in signals:
        signal.disconnect(close_old_connections)
    try:
        with patch.object(wsgi, "close_old_connections"):
            yield
    finally:
        for signal in signals:
            signal.connect(close_old_connections)


def call(
    application: wsgi.Application, environ: dict[str, Any]
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return the status, the headers and the body; it was closed then."""
    started: list[Any] = []
    body: Any = application(environ, lambda *arguments: started.append(arguments))
    content = b"".join(body)
    body.close()
    [(status, headers)] = started
    return status, headers, content


CLIENTS = (Client, WsgiClient)
