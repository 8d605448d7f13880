"""A receiver in plain sockets that counts every request by webhook-id, path and body bytes.

It runs on its own loop in a thread; its records can be read from any other thread.
"""

import asyncio
import hashlib
import ssl
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tests.services import HOST

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Arrival:
    """One complete request. Times are on the monotonic clock."""

    path: str
    event_id: str
    digest: str
    headers: dict[str, str]
    started_at: float
    status: int
    ended_at: float | None = None


class Loop:
    """An asyncio loop in a thread, with the servers that tests start on it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        # Ignore errors: some cases are about failed handshakes.
        self._loop.set_exception_handler(lambda *_: None)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def serve(self, handler: Handler, *, tls: ssl.SSLContext | None = None) -> int:
        """Listen on a new loopback port and return it."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await handler(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, EOFError):
                pass
            except asyncio.CancelledError:
                # Happens only at the end of a run.
                pass
            finally:
                self._tasks.discard(task)
                writer.close()

        server = self._call(
            asyncio.start_server(connected, HOST, 0, ssl=tls, backlog=1024, limit=4 * 1024 * 1024)
        )
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.sleep(0)

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Return path, headers by lower-case name, and the body of the next request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {}
    for line in head[1:]:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return head[0].split(" ")[1], headers, body


class CountingReceiver:
    """Responds with 204 after the delay set for its path, and remembers every request."""

    def __init__(self, loop: Loop) -> None:
        self._lock = threading.Lock()
        self._arrivals: list[Arrival] = []
        # Seconds before the response, and its status, by path; "" is the default for other paths.
        self.delays: dict[str, float] = {}
        self.statuses: dict[str, int] = {}
        self.port = loop.serve(self._serve)

    def listen(self, loop: Loop, tls: ssl.SSLContext | None = None, *, closes: bool = False) -> int:
        """Count requests at another port too, and return it; `closes` each connection."""
        return loop.serve(self._serve_once if closes else self._serve, tls=tls)

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}{path}"

    @property
    def arrivals(self) -> list[Arrival]:
        with self._lock:
            return list(self._arrivals)

    @property
    def in_flight(self) -> int:
        return sum(arrival.ended_at is None for arrival in self.arrivals)

    def clear(self) -> None:
        with self._lock:
            self._arrivals.clear()
        self.delays, self.statuses = {}, {}

    def counts(self) -> Counter[tuple[str, str]]:
        """Return how often each (path, webhook-id) arrived with a status below 300."""
        return Counter(
            (arrival.path, arrival.event_id) for arrival in self.arrivals if arrival.status < 300
        )

    def has_equal_bytes(self) -> bool:
        """Return whether each webhook-id came with the same body every time."""
        digests: dict[str, set[str]] = defaultdict(set)
        for arrival in self.arrivals:
            digests[arrival.event_id].add(arrival.digest)
        return all(len(seen) == 1 for seen in digests.values())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            await self._answer(reader, writer)

    async def _serve_once(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._answer(reader, writer, "Connection: close\r\n")
        # The client closes first, so its port stays in use for a while.
        await reader.read()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, header: str = ""
    ) -> None:
        path, headers, body = await read_request(reader)
        digest = hashlib.sha256(body).hexdigest()
        event_id = headers.get("webhook-id", "")
        status = self.statuses.get(path, self.statuses.get("", 204))
        arrival = Arrival(path, event_id, digest, headers, time.monotonic(), status)
        with self._lock:
            self._arrivals.append(arrival)
        if delay := self.delays.get(path, self.delays.get("", 0.0)):
            await asyncio.sleep(delay)
        head = f"HTTP/1.1 {status} Said\r\n{header}Content-Length: 0\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        arrival.ended_at = time.monotonic()
