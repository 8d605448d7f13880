"""The event API on an event loop: what is ordinary is accepted without a thread.

An ordinary event comes whole and soon, from a key that was looked up within a second, and needs
nothing of the database but its insertion. Everything else is answered by the WSGI site in a thread:
pages, batches, and each event that is refused or has to be looked at more closely.
"""

import gc
import string
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
from webhooks.api.events import Answer, Caller
from webhooks.api.wsgi import Application, Environ, EventApi, StartResponse, log_refusal

# https://asgi.readthedocs.io/en/latest/specs/www.html
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Most of a request is waiting for the database.
_THREADS = 16
_SINGLE = "/api/v1/events"
# While a larger event is parsed the loop's other requests would wait.
_MAX_EVENT_BYTES = 65_536
_MAX_HEADS = 1000
# What the answer to an event depends on, beside its body.
_JUDGED_HEADERS = [
    *("host", "authorization", "content-type", "content-encoding", "transfer-encoding"),
    *("accept-language", "cookie", "x-forwarded-host", "x-forwarded-port"),
]


class _ClientGoneError(ConnectionError):
    """The connection ended before the request did."""


class _Head(NamedTuple):
    """The head of a request with a good key, as it was judged once."""

    key_hash: str
    request: WSGIRequest
    # Whether its body can be an event.
    is_ordinary: bool
    headers: dict[str, str]
    # Those of an accepted event as bytes, without its length.
    pairs: list[tuple[bytes, bytes]]


class EventsFirst:
    """An ASGI application: ordinary events, and a WSGI site in threads for everything else."""

    def __init__(self, site: Application) -> None:
        self._site = WSGIMiddleware(partial(_whatever_its_length, site), workers=_THREADS)
        self._api = EventApi()
        self._publisher = public.AsyncPublisher()
        # What follows an answer; one thread, with one connection to the database.
        self._afterwards = ThreadPoolExecutor(1, "after-events")
        # Whether that thread is to begin with it.
        self._is_followed_up = False
        self._judged_headers = frozenset(name.encode() for name in _judged_headers())
        self._heads: dict[object, _Head] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            _clean(scope)
            try:
                await self._respond(scope, _until_gone(receive), send)
            except _ClientGoneError:
                # Nobody is there to be told.
                return

    async def _live(self, receive: Receive, send: Send) -> None:
        """Answer the server's two questions, when it starts and when it stops."""
        await receive()
        self._publisher.is_ready()
        # What is loaded stays: a request would wait 30 ms and more for a look at all of it.
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._publisher.close()
        self._afterwards.submit(connections.close_all)
        self._afterwards.shutdown()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = None
        if scope["path"] in events.ENDPOINTS and self._publisher.is_ready():
            head = self._head(scope)
        if head and events.still_known(head.key_hash):
            limit = _MAX_EVENT_BYTES if head.is_ordinary else settings.WEBHOOKS_MAX_BATCH_BYTES
            read, is_whole = await _read(receive, limit)
            # Its body may have come for minutes.
            caller = events.still_known(head.key_hash)
            if head.is_ordinary and is_whole and caller:
                answer = await self._answer(scope, head, caller, read)
                if answer is not None:
                    await _send(send, answer, head)
                    self._follow_up(caller)
                    return
            again = {"type": "http.request", "body": read, "more_body": not is_whole}
            receive = _again(again, receive)
        await self._site(scope, receive, send)  # type: ignore[arg-type]

    def _head(self, scope: Scope) -> _Head | None:
        """Return the head of a request; None where the site has to look at it."""
        names = self._judged_headers
        judged = tuple([pair for pair in scope["headers"] if pair[0] in names])
        key = scope["method"], scope["scheme"], scope["path"], judged
        head = self._heads.get(key)
        if head is None and (head := self._judge(scope)):
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            self._heads[key] = head
        return head

    def _judge(self, scope: Scope) -> _Head | None:
        environ: Any = build_environ(scope, BytesIO())  # type: ignore[arg-type]
        request = WSGIRequest(environ)
        headers, caller = self._api.headers(request), events.known_caller(request)
        if headers is None or caller is None:
            return None
        is_single = (scope["method"], scope["path"]) == ("POST", _SINGLE)
        is_ordinary = is_single and events.takes(request)
        pairs = _pairs({**headers, **events.HEADERS})
        return _Head(caller.key_hash, request, is_ordinary, headers, pairs)

    async def _answer(
        self, scope: Scope, head: _Head, caller: Caller, body: bytes
    ) -> Answer | None:
        """Return the answer to an ordinary event; None for any other, which is not published."""
        keys = [value for name, value in scope["headers"] if name == b"idempotency-key"]
        key = b",".join(keys).decode("latin-1") if keys else None
        try:
            published = await self._publisher.publish(events.event_of(body, key, caller))
        except (events.RequestError, public.InvalidEventError):
            return None
        except OperationalError as error:
            with translation.override(head.headers["Content-Language"]):
                answer = events.unavailable(error)
            log_refusal(answer, head.request)
            return answer
        return events.accepted(published) if published else None

    def _follow_up(self, caller: Caller) -> None:
        is_needed = not public.is_wakeup_to_come() or events.is_to_renew(caller)
        if is_needed and not self._is_followed_up:
            self._is_followed_up = True
            self._afterwards.submit(self._do_follow_up, caller)

    def _do_follow_up(self, caller: Caller) -> None:
        # First: what is committed from here on asks once more.
        self._is_followed_up = False
        close_old_connections()
        try:
            events.follow_up(caller, is_new=True)
        finally:
            close_old_connections()


def _judged_headers() -> list[str]:
    secure = settings.SECURE_PROXY_SSL_HEADER
    names = [secure[0].removeprefix("HTTP_").replace("_", "-").lower()] if secure else []
    return [*_JUDGED_HEADERS, *names]


def _clean(scope: Scope) -> None:
    """Leave out what a site cannot tell apart: X_Forwarded_For from X-Forwarded-For."""
    scope["headers"] = [pair for pair in scope["headers"] if b"_" not in pair[0]]
    if not scope["query_string"].isascii():
        scope["query_string"] = quote(scope["query_string"], safe=string.punctuation).encode()


def _until_gone(receive: Receive) -> Receive:
    """Return what receives a body, and raises _ClientGoneError where that is not all of it."""

    async def received() -> Message:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        return message

    return received


async def _read(receive: Receive, limit: int) -> tuple[bytes, bool]:
    """Read a body; return it, or a little more than `limit` bytes, and whether it is whole."""
    message = await receive()
    if not message.get("more_body", False):
        return message.get("body", b""), True
    body = bytearray(message.get("body", b""))
    while message.get("more_body", False) and len(body) <= limit:
        message = await receive()
        body += message.get("body", b"")
    return bytes(body), not message.get("more_body", False)


def _again(message: Message, receive: Receive) -> Receive:
    """Return what receives a message once more, and then the rest."""
    read = [message]

    async def received() -> Message:
        return read.pop() if read else await receive()

    return received


async def _send(send: Send, answer: Answer, head: _Head) -> None:
    is_usual = answer.headers is events.HEADERS
    pairs = head.pairs if is_usual else _pairs({**head.headers, **answer.headers})
    pairs = [*pairs, (b"content-length", b"%d" % len(answer.content))]
    await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
    await send({"type": "http.response.body", "body": answer.content})


def _pairs(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def _whatever_its_length(site: Application, environ: Environ, start: StartResponse) -> Any:
    """Say that a body ends where it ends, however it came."""
    environ["wsgi.input_terminated"] = True
    return site(environ, start)
