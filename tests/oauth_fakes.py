"""An authorization server that sends the replies a test sets, over a real socket."""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """One request as received."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    query: str = ""

    @property
    def form(self) -> list[tuple[str, str]]:
        return parse_qsl(self.body.decode(), keep_blank_values=True)

    @property
    def fields(self) -> dict[str, str]:
        return dict(self.form)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A response; a body other than bytes is sent as JSON, with `drip_seconds` between bytes."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay_seconds: float = 0.0
    drip_seconds: float = 0.0
    # Sent unchanged; the connection is closed afterwards.
    raw: bytes | None = None

    def payload(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


Answerer = Callable[[ReceivedRequest], Reply]


class FakeProvider:
    """Sends replies from a queue; the last one is repeated."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.token_url = f"{self.url}/token"
        self.requests: list[ReceivedRequest] = []
        self._replies: deque[Reply | Answerer] = deque([Reply(status=404)])
        self._lock = threading.Lock()

    def reply(self, *replies: Reply | Answerer) -> None:
        with self._lock:
            self._replies = deque(replies)

    def answer(self, asked: ReceivedRequest) -> Reply:
        with self._lock:
            self.requests.append(asked)
            reply = self._replies[0] if len(self._replies) == 1 else self._replies.popleft()
        return reply if isinstance(reply, Reply) else reply(asked)


def token(**fields: Any) -> Reply:
    """Return a successful token response with these additional fields."""
    return Reply(body={"access_token": "fresh-token", "token_type": "Bearer", **fields})


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Serve in threads of this process while the context is open; yield the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    # A client that gave up must not delay the test.
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def fake_provider(port: int = 0) -> Iterator[FakeProvider]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            asked = ReceivedRequest(
                method=self.command,
                path=urlsplit(self.path).path,
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(length),
                query=urlsplit(self.path).query,
            )
            _send(self, fake.answer(asked))

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Suppress the log."""

    with serving(Handler, port) as url:
        fake = FakeProvider(url)
        yield fake


def _send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    time.sleep(reply.delay_seconds)
    try:
        if reply.raw is not None:
            handler.wfile.write(reply.raw)
            return
        payload = reply.payload()
        handler.send_response(reply.status)
        headers = {"Content-Type": JSON, "Content-Length": str(len(payload)), **reply.headers}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        for start in range(0, len(payload), 1) if reply.drip_seconds else (0,):
            handler.wfile.write(payload[start : start + 1] if reply.drip_seconds else payload)
            time.sleep(reply.drip_seconds)
    except OSError:
        # The client closed the connection, as it should when a response is too slow or too large.
        return
    finally:
        handler.close_connection = True
