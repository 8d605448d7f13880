"""How uvicorn serves the site. More processes for more cores: WEB_CONCURRENCY=2."""

import asyncio
import resource
import signal
import socket
import sys
from functools import partial
from types import FrameType
from typing import Any

import httptools
import uvicorn
from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from uvicorn.config import STARTUP_FAILURE
from uvicorn.protocols.http.flow_control import service_unavailable
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.supervisors import Multiprocess

from config.environment import Env

# The header Date says seconds.
_TICK_SECONDS = 1.0
# The longest address of a page has a few thousand characters.
_MAX_HEAD_BYTES = 32_768
# As Apache and gunicorn: what is made of a request takes far longer for thousands of them.
_MAX_HEADERS = 100
# How long the head of a request is waited for, and a body that comes slower than it has to. A bad
# line is faster: Apache's mod_reqtimeout demands as much.
PATIENCE_SECONDS = 30.0
LEAST_BYTES_PER_SECOND = 500
# How long a client may take nothing of an answer: a thread may wait for it.
UNREAD_SECONDS = 60.0
# Requests of further connections get 503. A proxy in front keeps some hundred.
_MAX_CONNECTIONS = 1000
# Descriptors: a shell's 1,024 leave none to answer 503 over, and a container's million would let
# what is refused fill the memory. One that says nothing takes 7 KB, one with most of a head 36 KB.
_MAX_FILES = 5 * _MAX_CONNECTIONS
_GRACE_SECONDS = 30
# Longer than a proxy keeps a connection to it, 60 s for nginx: otherwise both end it at once.
_KEEP_ALIVE_SECONDS = 75
# Of a request that offers another protocol; none is spoken here.
_OF_UPGRADE = {b"upgrade", b"connection", b"http2-settings"}
# Requests of one connection that wait for the answers to earlier ones. A packet may have thousands,
# each of which takes some kilobytes.
_MAX_AHEAD = 50
# Pieces of a body, beside one for each of these bytes: each costs as much as some kilobytes do.
_MAX_PIECES, _BYTES_OF_PIECE = 10_000, 64
# What knows no answer in chunks (RFC 9112 section 6.1).
_WITHOUT_CHUNKS = {"0.9", "1.0"}


class _RefusedError(ValueError):
    """A request that is not read any further; the text says why."""


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads that are too long, requests that stay incomplete, and trailers.

    A request that offers to change to another protocol is read as if it did not.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Bytes of the connection that belong to no body, since the last head or piece of a body.
        self._head_bytes = 0
        self._is_head, self._is_body = True, False
        # How many more of a body are read.
        self._pieces = 0
        # The head of a request that offers another protocol, until it is read again.
        self._offer: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        # In seconds of the loop's clock.
        self._until = 0.0
        # What is answered now; `cycle` is of the last request that was sent ahead.
        self._answered: RequestResponseCycle | None = None
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Linux alone has it.
            unread_ms = round(UNREAD_SECONDS * 1000)
            opened = transport.get_extra_info("socket")
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
        super().connection_made(transport)
        self._start_timer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        if app is service_unavailable:
            # The site says so in its own words.
            app = self.app
            cycle.scope["state"]["is_refused"] = True
        if cycle.scope["http_version"] in _WITHOUT_CHUNKS:
            app = partial(_answer_without_chunks, cycle, app)
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether the connection stays: for the answer to what came whole before its end."""
        is_to_answer = not (self._is_head or self._is_body or self.cycle.response_complete)
        if is_to_answer:
            self.cycle.keep_alive = False
        return is_to_answer

    def _start_timer(self) -> None:
        self._until = self.loop.time() + PATIENCE_SECONDS
        self._timer = self.loop.call_at(self._until, self._end)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        """Close a connection whose request stays incomplete, unless reading is paused."""
        if self.flow.read_paused:
            self._start_timer()
        elif self.loop.time() < self._until:
            self._timer = self.loop.call_at(self._until, self._end)
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.logger.info("An HTTP request was refused.")
            # What a method of this class raised is within the parser's own error.
            is_ours = isinstance(error.__context__, _RefusedError)
            self._refuse(str(error.__context__) if is_ours else "Invalid HTTP request received.")
            return
        # What the parser has kept of something that goes on.
        if self._head_bytes > _MAX_HEAD_BYTES + len(data):
            self._refuse("The head of the request is too long.")
        elif not self.transport.is_closing():
            self._wait_on()

    def _refuse(self, sentence: str) -> None:
        """Answer 400, unless a client would take that for the answer to another request."""
        answered = self._answered
        is_own = self._is_body and answered is self.cycle
        if answered is not None and not answered.response_complete and not is_own:
            # It is answered, and nothing after it.
            self._stop_timer()
            self.pipeline.clear()
            answered.keep_alive = False
            self.flow.pause_reading()
        elif is_own and answered is not None and answered.response_started:
            self.transport.close()
        else:
            self.send_400_response(sentence)

    def _wait_on(self) -> None:
        """Wait for the rest of a request, or for the next one."""
        if not self._is_body and not self._is_head:
            self._stop_timer()
        elif self._timer is None:
            self._start_timer()
        is_idle = not self._is_body and not self._is_head and self.cycle.response_complete
        if is_idle and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                # The parser leaves a body unread then.
                data = b"\r\n".join([*self._offer, b"", b""]) + data[upgrade.args[0] :]
                self._offer = []
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._is_head = True
        self._stop_timer()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_head:
            raise _RefusedError("Trailers are not accepted.")
        if len(self.headers) >= _MAX_HEADERS:
            raise _RefusedError("The request has too many headers.")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        length = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if length > _MAX_HEAD_BYTES:
            raise _RefusedError("The head of the request is too long.")
        if self.parser.should_upgrade():
            self._offer = self._without_offer()
            return
        self._is_head, self._is_body = False, True
        self._head_bytes = 0
        self._pieces = _MAX_PIECES
        self._stop_timer()
        # A thread that answers stops by it.
        state: Any = self.scope["state"]
        state["is_disconnected"] = self.transport.is_closing
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_AHEAD:
            raise _RefusedError("Too many requests were sent ahead.")

    def _without_offer(self) -> list[bytes]:
        """Return the lines of a head without its offer to change to another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise _RefusedError("This is no proxy.")
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        for name, value in self.headers:
            if name not in _OF_UPGRADE:
                lines.append(b"%b: %b" % (name, value))
            elif name == b"connection" and b"close" in value.lower():
                lines.append(b"Connection: close")
        return lines

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._pieces += len(body) // _BYTES_OF_PIECE - 1
        if self._pieces < 0:
            raise _RefusedError("The body comes in too many pieces.")
        if self._timer is not None:
            earned = self._until + len(body) / LEAST_BYTES_PER_SECOND
            self._until = min(earned, self.loop.time() + PATIENCE_SECONDS)
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._offer:
            self._is_body = False
            super().on_message_complete()


async def _answer_without_chunks(
    cycle: RequestResponseCycle,
    app: ASGI3Application,
    scope: Scope,
    receive: ASGIReceiveCallable,
    send: ASGISendCallable,
) -> None:
    """Let an answer that does not say its length end with the connection."""
    is_endless = False

    async def sent(message: ASGISendEvent) -> None:
        nonlocal is_endless
        if message["type"] == "http.response.start":
            is_endless = b"content-length" not in dict(message["headers"])
            if is_endless:
                cycle.chunked_encoding = cycle.keep_alive = False
        elif is_endless and message["type"] == "http.response.body":
            cycle.expected_content_length = len(message["body"])
        await send(message)

    await app(scope, receive, sent)


class QuietServer(uvicorn.Server):
    """Wakes once a second where uvicorn's own does ten times, and at once to stop."""

    _loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._woken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            timer = self._loop.call_later(_TICK_SECONDS, self._woken.set)
            await self._woken.wait()
            timer.cancel()
            self._woken.clear()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)


def serve(bind: str) -> None:
    """Serve at an address, `host:port`, until SIGTERM; then requests under way are answered."""
    host, _colon, port = bind.rpartition(":")
    # uvicorn raises the signal again once it has stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _MAX_FILES if most == resource.RLIM_INFINITY else min(_MAX_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    config = uvicorn.Config(
        "config.asgi:application",
        host=host.strip("[]"),
        port=int(port),
        workers=Env().int("WEB_CONCURRENCY", default=1),
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
    if config.workers > 1:
        Multiprocess(config, sockets=[config.bind_socket()]).run()
        return
    server = QuietServer(config)
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
