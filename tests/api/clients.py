"""Clients of the event API: through Django, through config/wsgi.py, and over HTTP to asgi.py."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any
from unittest.mock import patch

import uvicorn
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections
from django.http import HttpResponse
from django.test import Client

from tests.polling import eventually
from tests.services import HOST
from webhooks.api import asgi, wsgi
from webhooks.management.web_server import BoundedProtocol


class WsgiClient(Client):
    """Calls a WSGI application directly, and closes the response as a server does."""

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
    """Keep the test's own transaction open across the call, as Django's test client does."""
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
    """Return the status, the headers and the body of a response, which is closed afterwards."""
    started: list[Any] = []
    body: Any = application(environ, lambda *arguments: started.append(arguments))
    content = b"".join(body)
    body.close()
    [(status, headers)] = started
    return status, headers, content


CLIENTS = (Client, WsgiClient)


class LiveServer:
    """The site served by an event loop in a thread of this process, over HTTP."""

    def __init__(
        self, site: wsgi.Application | None = None, *, most_connections: int | None = None
    ) -> None:
        served = site or _closing(wsgi.events_first(WSGIHandler()))
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                asgi.EventLoopSite(served),
                http=BoundedProtocol,
                log_config=None,
                proxy_headers=False,
                server_header=False,
                access_log=False,
                log_level="warning",
                limit_concurrency=most_connections,
            )
        )
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}
        )
        self._thread.start()
        self.loop = eventually(self._loop)

    def _loop(self) -> asyncio.AbstractEventLoop | None:
        if not self._server.started:
            return None
        return self._server.servers[0].get_loop()

    def __enter__(self) -> "LiveServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        with closing(http.client.HTTPConnection(HOST, self.port, timeout=60)) as opened:
            opened.request(method, path, body, dict(headers or {}))
            answer = opened.getresponse()
            found = HttpResponse(answer.read(), status=answer.status, headers=dict(answer.headers))
        found.json = lambda: json.loads(found.content)  # type: ignore[attr-defined]
        return found


def _closing(site: wsgi.Application) -> wsgi.Application:
    """Close the thread's database connections, so that the test database can be dropped."""

    def closed(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        answer: Any = site(environ, start_response)
        try:
            return list(answer)
        finally:
            answer.close()
            connections.close_all()

    return closed
