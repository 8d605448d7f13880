"""How uvicorn serves the site. More processes for more cores: WEB_CONCURRENCY=2."""

import asyncio
import os
import signal
import sys

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# The longest address of a page has a few thousand characters.
_MAX_HEAD_BYTES = 32_768
HEAD_SECONDS = 30.0
# Further connections get 503. A proxy in front keeps some hundred.
_MAX_CONNECTIONS = 1000
_GRACE_SECONDS = 30
# Longer than a proxy keeps a connection to it, 60 s for nginx: otherwise both end it at once.
_KEEP_ALIVE_SECONDS = 75


class BoundedProtocol(HttpToolsProtocol):
    """Refuses the head of a request that is too long, or that does not come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._head_bytes = 0
        self._is_head = True
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._end_without_head)

    def _end_without_head(self) -> None:
        """End a connection whose first request has not begun."""
        if self.cycle is None:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._is_head = True
        super().on_message_begin()

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        # What the parser has kept of a head that goes on.
        if self._is_head and self._head_bytes > _MAX_HEAD_BYTES + len(data):
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._is_head = False
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > _MAX_HEAD_BYTES:
            raise ValueError("The head of the request is too long.")
        super().on_headers_complete()


def serve(bind: str) -> None:
    """Serve at an address, `host:port`, until SIGTERM; then requests under way are answered."""
    host, _colon, port = bind.rpartition(":")
    # uvicorn raises the signal again once it has stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    uvicorn.run(
        "config.asgi:application",
        host=host.strip("[]"),
        port=int(port),
        workers=int(os.environ.get("WEB_CONCURRENCY", "1")),
        http=BoundedProtocol,
        ws="none",
        # What a proxy says is judged by the site: BEHIND_TLS_PROXY.
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
