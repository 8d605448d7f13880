"""Serves the site with uvicorn. WEB_CONCURRENCY=2 starts two processes, for more cores."""

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
from webhooks.delivery import overdue

# The Date header has a resolution of one second.
_TICK_SECONDS = 1.0
# The longest URL of a page has a few thousand characters.
_MAX_HEAD_BYTES = 32_768
# As in Apache and gunicorn: processing a request takes far longer with thousands of headers.
_MAX_HEADERS = 100
# Timeout for the head of a request, and for a body slower than the minimum rate. Even a bad line
# is faster; Apache's mod_reqtimeout requires the same rate.
PATIENCE_SECONDS = 30.0
LEAST_BYTES_PER_SECOND = 500
# How long a client may read nothing of a response: a thread may be waiting for it.
UNREAD_SECONDS = 60.0
# How long a client may take for the part of a response that waits for it, some hundred kilobytes: a
# thread waits, too, and a client that reads a byte a second would keep it for days.
SLOW_SECONDS = 300.0
# Requests on further connections get 503. A proxy in front keeps some hundred open.
_MAX_CONNECTIONS = 1000
# Limit of descriptors: a shell's 1,024 leave none for 503 responses; with a container's million,
# rejected connections could fill memory. A silent one takes 7 KB, one with most of a head 36 KB.
_MAX_FILES = 5 * _MAX_CONNECTIONS
# How long a stop waits for responses, and then for threads that wait for the database. The sum
# is shorter than compose.yaml's stop_grace_period.
_GRACE_SECONDS, _OVERDUE_SECONDS = 30, 10
# Longer than a proxy keeps an idle connection, 60 s for nginx: otherwise both may close it at once.
_KEEP_ALIVE_SECONDS = 75
# Headers of a request that offers to switch protocols, which is not supported.
_UPGRADE_HEADERS = {b"upgrade", b"connection", b"http2-settings"}
# Pipelined requests of one connection that wait for earlier responses. A packet may have thousands,
# each of which takes some kilobytes.
_MAX_AHEAD = 50
# Chunks of a body, in addition to one for every 64 bytes: each chunk costs as much as kilobytes do.
_MAX_PIECES, _BYTES_OF_PIECE = 10_000, 64
# HTTP versions without chunked responses (RFC 9112 section 6.1).
_WITHOUT_CHUNKS = {"0.9", "1.0"}


class _RefusedError(ValueError):
    """The request is not read any further; the message gives the reason."""


class BoundedProtocol(HttpToolsProtocol):
    """Rejects heads that are too long, requests that stay incomplete, and trailers.

    An offer to switch to another protocol is ignored.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Bytes received that belong to no body, since the last head or chunk of a body.
        self._head_bytes = 0
        self._is_head, self._is_body = True, False
        # How many more chunks of the body are accepted.
        self._pieces = 0
        # The head of a request that offered another protocol, until it is parsed again.
        self._offer: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        # Set while the client has not read enough of a response.
        self._slow_timer: asyncio.TimerHandle | None = None
        # Deadline, in seconds of the loop's clock.
        self._deadline = 0.0
        # The request being responded to; `cycle` belongs to the last pipelined request.
        self._answered: RequestResponseCycle | None = None
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Only on Linux.
            unread_ms = round(UNREAD_SECONDS * 1000)
            opened = transport.get_extra_info("socket")
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, unread_ms)
        super().connection_made(transport)
        self._start_timer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        if app is service_unavailable:
            # The site responds 503 itself, in the format of the URL.
            app = self.app
            cycle.scope["state"]["is_refused"] = True
        if cycle.scope["http_version"] in _WITHOUT_CHUNKS:
            app = partial(_answer_without_chunks, cycle, app)
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_slow_timer()
        if self._answered is not None:
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slow_timer = self.loop.call_later(SLOW_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_slow_timer()

    def _stop_slow_timer(self) -> None:
        if self._slow_timer is not None:
            self._slow_timer.cancel()
            self._slow_timer = None

    def eof_received(self) -> bool:  # type: ignore[override]
        """Return whether to keep the connection open, to respond to a request that is complete."""
        is_to_answer = not (self._is_head or self._is_body or self.cycle.response_complete)
        if is_to_answer:
            self.cycle.keep_alive = False
        return is_to_answer

    def _start_timer(self) -> None:
        self._deadline = self.loop.time() + PATIENCE_SECONDS
        self._timer = self.loop.call_at(self._deadline, self._end)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        """Close a connection whose request stays incomplete, unless reading is paused."""
        if self.flow.read_paused:
            self._start_timer()
        elif self.loop.time() < self._deadline:
            self._timer = self.loop.call_at(self._deadline, self._end)
        else:
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._head_bytes += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self.logger.info("An HTTP request was refused.")
            # Errors raised by methods of this class are the context of the parser's error.
            is_ours = isinstance(error.__context__, _RefusedError)
            self._refuse(str(error.__context__) if is_ours else "Invalid HTTP request received.")
            return
        # The parser buffers an incomplete head or trailer.
        if self._head_bytes > _MAX_HEAD_BYTES + len(data):
            self._refuse("The head of the request is too long.")
        elif not self.transport.is_closing():
            self._set_timers()

    def _refuse(self, sentence: str) -> None:
        """Respond 400, unless the client would take it for the response to another request."""
        answered = self._answered
        is_own = self._is_body and answered is self.cycle
        if answered is not None and not answered.response_complete and not is_own:
            # That request gets its response, and no later one.
            self._stop_timer()
            self.pipeline.clear()
            answered.keep_alive = False
            self.flow.pause_reading()
        elif is_own and answered is not None and answered.response_started:
            self.transport.close()
        else:
            self.send_400_response(sentence)

    def _set_timers(self) -> None:
        """Set timers for the rest of a request, or for the next one."""
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
                # After an offer the parser does not read the body: parse the head again without it.
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
        # A thread stops its response when this returns True.
        state: Any = self.scope["state"]
        state["is_disconnected"] = self.transport.is_closing
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_AHEAD:
            raise _RefusedError("Too many requests were sent ahead.")

    def _without_offer(self) -> list[bytes]:
        """Return the lines of a head without its offer to switch to another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise _RefusedError("This is no proxy.")
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        for name, value in self.headers:
            if name not in _UPGRADE_HEADERS:
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
            earned = self._deadline + len(body) / LEAST_BYTES_PER_SECOND
            self._deadline = min(earned, self.loop.time() + PATIENCE_SECONDS)
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
    """End a response without Content-Length by closing the connection."""
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
    """Wakes up once a second, where uvicorn wakes up ten times, and at once to stop."""

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
        if not self.should_exit:
            overdue.end_after(_GRACE_SECONDS + _OVERDUE_SECONDS)
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)


class BoundedMultiprocess(Multiprocess):
    """Ends in limited time, with its processes."""

    def terminate_all(self) -> None:
        overdue.end_after(_GRACE_SECONDS + _OVERDUE_SECONDS)
        super().terminate_all()


def serve(bind: str) -> None:
    """Serve at `host:port` until SIGTERM; requests in progress still get their responses."""
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
        # The site decides whether to trust a proxy's headers: BEHIND_TLS_PROXY.
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    if config.workers > 1:
        BoundedMultiprocess(config, sockets=[config.bind_socket()]).run()
        return
    server = QuietServer(config)
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)
