"""The event API on an event loop: ordinary events are accepted without a thread.

An ordinary event is small and complete, comes with a key that was looked up within the last
second, and needs the database only for its insert. The WSGI site handles everything else in a
thread: pages, batches, and events that are rejected or need further checks.
"""

import gc
import string
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from io import BytesIO
from typing import Any, NamedTuple
from urllib.parse import quote

from a2wsgi import WSGIMiddleware
from a2wsgi.wsgi import build_environ
from django.conf import settings
from django.core.handlers.wsgi import WSGIRequest
from django.db import OperationalError, close_old_connections, connections
from django.utils import translation

from webhooks import events as public
from webhooks.api import events
from webhooks.api.events import ApiError, ApiResponse, Caller
from webhooks.api.wsgi import (
    Application,
    Environ,
    EventApi,
    StartResponse,
    leave_out_unreadable,
    log_refusal,
)
from webhooks.delivery import queue

# https://asgi.readthedocs.io/en/latest/specs/www.html
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# A thread spends most of a request waiting for the database.
_THREADS = 16
_SINGLE = "/api/v1/events"
# Parsing and serializing a larger event would delay the loop's other requests.
_MAX_EVENT_BYTES = 8192
# 500 values are parsed in less than a millisecond; 2,700 lists would take 6 ms.
_MAX_VALUES, _BETWEEN_VALUES = 500, (b"[", b"{", b",")
# Bodies are read before a thread is used: the limit in bytes over all requests in progress, for a
# request with a known key and for one without.
MAX_READ_BYTES, MAX_READ_UNKNOWN_KEY_BYTES = 128 * 1024 * 1024, 32 * 1024 * 1024
# Each chunk of a thread's response costs one switch to the loop and back.
_PIECE_BYTES = 65_536
_MAX_HEADS = 1000
# The headers that the response to an event depends on.
_CHECKED_HEADERS = [
    *("host", "authorization", "content-type", "content-encoding", "transfer-encoding"),
    *("accept-language", "cookie", "x-forwarded-host", "x-forwarded-port"),
]


class _ClientDisconnectedError(ApiError, ConnectionError):
    """The connection ended before the request did."""


class _RefusedBodyError(ApiError):
    """The body is not read any further; `status` gives the reason."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class _Head(NamedTuple):
    """The cached checks of a request head with a valid key."""

    key_hash: str
    # Whether the body may be a single event.
    is_ordinary: bool
    headers: dict[str, str]
    # Response headers for an accepted event as bytes, without Content-Length.
    pairs: list[tuple[bytes, bytes]]


class _RequestBody(NamedTuple):
    content: bytes
    is_whole: bool


class EventLoopSite:
    """An ASGI application: ordinary events, and a WSGI site in threads for everything else."""

    def __init__(self, site: Application) -> None:
        self._site = WSGIMiddleware(partial(_while_connected, site), workers=_THREADS)
        self._api = EventApi()
        self._publisher = public.AsyncPublisher()
        # For the work after a response: one thread, with one database connection.
        self._follow_up_executor = ThreadPoolExecutor(
            1, "after-events", initializer=queue.postgres.limit_answer_waits
        )
        # Whether such work is queued and not yet begun.
        self._is_followed_up = False
        self._checked_headers = frozenset(name.encode() for name in _checked_headers())
        self._heads: dict[object, _Head] = {}
        # Body bytes of all requests in progress.
        self._read_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._handle_lifespan(receive, send)
        elif scope["type"] == "http":
            _clean(scope)
            send = _unless_closed(send)
            try:
                await self._respond(scope, _until_disconnected(receive), send)
            except _ClientDisconnectedError:
                # There is no connection for a response.
                return
            except _RefusedBodyError as refusal:
                await _refuse(scope, send, refusal.status)

    async def _handle_lifespan(self, receive: Receive, send: Send) -> None:
        """Handle the server's lifespan events: startup and shutdown."""
        await receive()
        self._publisher.is_ready()
        # Exempt all loaded objects: collecting them would delay a request by 30 ms and more.
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._publisher.close()
        self._follow_up_executor.submit(connections.close_all)
        self._follow_up_executor.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("state", {}).get("is_refused"):
            # The server has too many connections.
            raise _RefusedBodyError(HTTPStatus.SERVICE_UNAVAILABLE)
        head = None
        if scope["path"] in events.ENDPOINTS and self._publisher.is_ready():
            head = self._head(scope)
        body = await self._read(scope, receive, head is not None)
        try:
            if head and head.is_ordinary and await self._accept(scope, head, body, send):
                return
            first = {"type": "http.request", "body": body.content, "more_body": not body.is_whole}
            await self._site(scope, _replay_first(first, receive), send)  # type: ignore[arg-type]
        finally:
            self._read_bytes -= len(body.content)

    async def _read(self, scope: Scope, receive: Receive, is_known: bool) -> _RequestBody:
        """Read a body; one too large for the event API is left to the site, which rejects it.

        Its bytes count towards the limit until the response is sent. Raises _RefusedBodyError.
        """
        limit, is_page = _limit(scope)
        declared = [value for name, value in scope["headers"] if name == b"content-length"]
        if any(int(value) > limit for value in declared):
            if is_page:
                raise _RefusedBodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            if all(int(value) <= settings.MAX_REQUEST_BYTES for value in declared):
                await _discard(scope, receive)
            return _RequestBody(b"", False)
        message = await receive()
        content, is_whole = message.get("body", b""), not message.get("more_body", False)
        self._read_bytes += len(content)
        if is_whole:
            return _RequestBody(content, True)
        body = bytearray(content)
        budget = MAX_READ_BYTES if is_known else MAX_READ_UNKNOWN_KEY_BYTES
        try:
            while not is_whole and len(body) <= limit:
                if self._read_bytes > budget:
                    raise _RefusedBodyError(HTTPStatus.SERVICE_UNAVAILABLE)
                message = await receive()
                piece, is_whole = message.get("body", b""), not message.get("more_body", False)
                body += piece
                self._read_bytes += len(piece)
            if is_page and len(body) > limit:
                raise _RefusedBodyError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except BaseException:
            self._read_bytes -= len(body)
            raise
        return _RequestBody(bytes(body), is_whole)

    async def _accept(self, scope: Scope, head: _Head, body: _RequestBody, send: Send) -> bool:
        """Respond to an ordinary event; return whether the request was one."""
        # Checked again: the body may have taken minutes to arrive.
        caller = events.still_known(head.key_hash)
        if caller is None or not body.is_whole or not _is_small(body.content):
            return False
        answer = await self._answer(scope, head, caller, body.content)
        if answer is None:
            return False
        await _send(send, answer, head)
        self._follow_up(caller)
        return True

    def _head(self, scope: Scope) -> _Head | None:
        """Return the checked head of a request; None if the site has to handle it."""
        names = self._checked_headers
        checked = tuple([pair for pair in scope["headers"] if pair[0] in names])
        key = scope["method"], scope["scheme"], scope["path"], checked
        head = self._heads.get(key)
        if head is None and (head := self._check_head(scope)):
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _check_head(self, scope: Scope) -> _Head | None:
        request = _request(scope)
        headers, caller = self._api.headers(request), events.known_caller(request)
        if headers is None or caller is None:
            return None
        is_single = (scope["method"], scope["path"]) == ("POST", _SINGLE)
        is_ordinary = is_single and events.accepts_single_event(request)
        pairs = _pairs({**headers, **events.HEADERS})
        return _Head(caller.key_hash, is_ordinary, headers, pairs)

    async def _answer(
        self, scope: Scope, head: _Head, caller: Caller, body: bytes
    ) -> ApiResponse | None:
        """Publish an ordinary event and return the response; None for any other event."""
        keys = [value for name, value in scope["headers"] if name == b"idempotency-key"]
        key = b",".join(keys).decode("latin-1") if keys else None
        try:
            published = await self._publisher.publish(
                events.event_of(body, key, caller, is_explained=False)
            )
        except (events.RequestError, public.InvalidEventError):
            return None
        except OperationalError as error:
            with translation.override(head.headers["Content-Language"]):
                answer = events.unavailable(error)
            log_refusal(answer, _request(scope))
            return answer
        return events.accepted(published) if published else None

    def _follow_up(self, caller: Caller) -> None:
        is_needed = not public.is_wakeup_to_come() or events.needs_renewal(caller)
        if is_needed and not self._is_followed_up:
            self._is_followed_up = True
            try:
                self._follow_up_executor.submit(self._do_follow_up, caller)
            except RuntimeError:
                # The machine has no thread left; the next event tries again.
                self._is_followed_up = False

    def _do_follow_up(self, caller: Caller) -> None:
        # Reset first, so that events committed from here on queue another follow-up.
        self._is_followed_up = False
        close_old_connections()
        try:
            events.follow_up(caller, is_new=True)
        finally:
            close_old_connections()


def _checked_headers() -> list[str]:
    secure = settings.SECURE_PROXY_SSL_HEADER
    names = [secure[0].removeprefix("HTTP_").replace("_", "-").lower()] if secure else []
    return [*_CHECKED_HEADERS, *names]


def _clean(scope: Scope) -> None:
    """Drop headers with underscores, and percent-encode a query string that is not ASCII.

    WSGI cannot tell X_Forwarded_For from X-Forwarded-For.
    """
    scope["headers"] = [pair for pair in scope["headers"] if b"_" not in pair[0]]
    if not scope["query_string"].isascii():
        scope["query_string"] = quote(scope["query_string"], safe=string.punctuation).encode()


def _is_small(body: bytes) -> bool:
    """Return whether a body is quick to parse."""
    if len(body) > _MAX_EVENT_BYTES:
        return False
    return sum(map(body.count, _BETWEEN_VALUES)) <= _MAX_VALUES


def _until_disconnected(receive: Receive) -> Receive:
    """Wrap `receive` so that it raises _ClientDisconnectedError when the client disconnects."""

    async def received() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientDisconnectedError
        return message

    return received


async def _discard(scope: Scope, receive: Receive) -> None:
    """Read and discard a rejected body, unless the client waits for a response before sending it.

    Closing a connection with unread data resets it: a proxy that is still sending would get no
    response.
    """
    is_awaited = any(name == b"expect" for name, _value in scope["headers"])
    while not is_awaited and (await receive()).get("more_body", False):
        pass


def _limit(scope: Scope) -> tuple[int, bool]:
    """Return the maximum body size in bytes, and whether the request is for a page."""
    if scope["path"] not in events.ENDPOINTS:
        # Any other URL of the API is unknown: the site says so without reading the body.
        return settings.MAX_REQUEST_BYTES, not events.is_api_path(scope["path"])
    if scope["path"] == _SINGLE:
        return settings.WEBHOOKS_MAX_PAYLOAD_BYTES, False
    return settings.WEBHOOKS_MAX_BATCH_BYTES, False


def _request(scope: Scope) -> WSGIRequest:
    environ: Any = build_environ(scope, BytesIO())  # type: ignore[arg-type]
    leave_out_unreadable(environ)
    return WSGIRequest(environ)


def _replay_first(message: Message, receive: Receive) -> Receive:
    """Wrap `receive` so that it first returns a message that was read already."""
    read = [message]

    async def received() -> Message:
        return read.pop() if read else await receive()

    return received


async def _send(send: Send, answer: ApiResponse, head: _Head) -> None:
    is_usual = answer.headers is events.HEADERS
    pairs = head.pairs if is_usual else _pairs({**head.headers, **answer.headers})
    pairs = [*pairs, (b"content-length", b"%d" % len(answer.content))]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.content})


async def _refuse(scope: Scope, send: Send, status: HTTPStatus) -> None:
    content, headers = status.phrase.encode(), {"Content-Type": "text/plain"}
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        answer = events.busy()
        headers["Retry-After"] = answer.headers["Retry-After"]
        if events.is_api_path(scope["path"]):
            content, headers = answer.content, dict(answer.headers)
    pairs = _pairs({**headers, "Connection": "close", "Content-Length": str(len(content))})
    await send({"type": "http.response.start", "status": int(status), "headers": pairs})
    await send({"type": "http.response.body", "body": content})


def _unless_closed(send: Send) -> Send:
    """Wrap `send` so that it drops messages once the connection is closed.

    The server raises RuntimeError then, which would end the reader of a thread's response, and
    the thread would wait for that reader forever.
    """
    is_closed = False

    async def sent(message: Message) -> None:
        nonlocal is_closed
        if not is_closed:
            try:
                await send(message)
            except RuntimeError:
                is_closed = True

    return sent


def _pairs(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _while_connected(
    site: Application, environ: Environ, start_response: StartResponse
) -> Iterator[bytes]:
    """Yield the site's response in large chunks while the client is connected.

    `wsgi.input_terminated` is set: a request body has an end with any transfer encoding.
    """
    environ["wsgi.input_terminated"] = True
    is_disconnected = environ["asgi.scope"].get("state", {}).get("is_disconnected", lambda: False)
    answer: Any = site(environ, start_response)
    pieces, size = [], 0
    try:
        for piece in answer:
            pieces.append(piece)
            size += len(piece)
            if size >= _PIECE_BYTES:
                if is_disconnected():
                    return
                yield b"".join(pieces)
                pieces, size = [], 0
        yield b"".join(pieces)
    finally:
        if hasattr(answer, "close"):
            answer.close()
