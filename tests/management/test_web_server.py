"""The web server of compose.yaml: the requests it rejects, and how it stops."""

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.api.clients import LiveServer
from tests.polling import PATIENCE_SECONDS
from tests.services import HOST, free_port
from webhooks.management import web_server

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.once, pytest.mark.slow]

Start = Callable[..., tuple["subprocess.Popen[bytes]", int]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the server without a database, which no request of these tests needs."""
    with ExitStack() as stack:

        def start(**environment: str) -> tuple["subprocess.Popen[bytes]", int]:
            port = free_port()
            process = subprocess.Popen(
                [sys.executable, "manage.py", "web", f"--bind={HOST}:{port}"],
                cwd=ROOT,
                env={**os.environ, "DATABASE_URL": f"sqlite:///{tmp_path}/none.sqlite3"}
                | environment,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                with suppress(OSError):
                    assert ask(port) == 200
                    break
                time.sleep(0.1)
            return process, port

        yield start


def ask(port: int) -> int:
    with closing(http.client.HTTPConnection(HOST, port, timeout=20)) as connection:
        return ask_over(connection)


def ask_over(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    answer.read()
    return answer.status


def send(port: int, content: bytes, *, is_ended: bool = False) -> bytes:
    """Send as much as the server accepts; return its whole response."""
    with socket.create_connection((HOST, port), 20) as opened:
        with suppress(OSError):
            opened.sendall(content)
        if is_ended:
            opened.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while chunk := opened.recv(65_536):
                answer += chunk
        return answer


def test_a_stop_waits_for_a_request_and_not_for_kept_connections(start: Start) -> None:
    process, port = start()
    with (
        closing(http.client.HTTPConnection(HOST, port, timeout=20)) as kept,
        socket.create_connection((HOST, port), 20) as busy,
    ):
        assert ask_over(kept) == 200
        busy.sendall(
            b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\na=1"
        )
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        busy.sendall(b"&b=2&c=")
        # The CSRF token is missing.
        assert busy.recv(65_536).startswith(b"HTTP/1.1 403")
    # If it waited for open connections, it would take the grace time of 30 s.
    assert process.wait(20) == 0


def test_two_processes_serve_one_address(start: Start) -> None:
    _process, port = start(WEB_CONCURRENCY="2")
    for _ in range(8):
        assert ask(port) == 200


def test_a_server_that_has_nothing_to_do_sleeps(start: Start) -> None:
    process, _port = start()
    time.sleep(1)
    before, began = wakes(process.pid), time.monotonic()
    time.sleep(4)
    # uvicorn's own loop wakes up ten times per second.
    assert wakes(process.pid) - before < 4 * (time.monotonic() - began)


def wakes(pid: int) -> int:
    """Return how often the main thread of a process has waited."""
    lines = Path(f"/proc/{pid}/task/{pid}/status").read_text().splitlines()
    return next(int(one.split()[1]) for one in lines if one.startswith("voluntary_ctxt"))


def test_more_connections_are_answered_than_a_shell_lets_a_process_have(start: Start) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        _process, port = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ExitStack() as opened:
        for _ in range(250):
            opened.enter_context(socket.create_connection((HOST, port), 20))
        assert ask(port) == 200


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


def _in_pieces(environ: Any, start_response: Any) -> Iterator[bytes]:
    """Stand in for a page without a length, such as an export."""
    start_response("200 OK", [("Content-Type", "text/csv")])
    for _ in range(3):
        yield b"a" * 70_000


def test_a_client_that_leaves_amid_answers_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    is_left, is_over = threading.Event(), threading.Event()

    def begins(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "10000000")])
        try:
            yield b"a" * 100_000
            is_left.wait(20)
            time.sleep(0.2)
            yield from [b"a" * 100_000] * 99
        finally:
            is_over.set()

    with LiveServer(begins) as server:
        with socket.create_connection((HOST, server.port), 20) as opened:
            opened.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
            assert opened.recv(100)
        is_left.set()
        assert is_over.wait(20)
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


def _endless(is_over: threading.Event) -> Callable[..., Iterator[bytes]]:
    """Return a site whose response ends when its client is gone."""

    def site(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/csv")])
        try:
            while True:
                yield b"a" * 100_000
        finally:
            is_over.set()

    return site


@contextmanager
def _connected(server: LiveServer) -> Iterator[socket.socket]:
    """Return a connection on which a page was requested."""
    with socket.create_connection((HOST, server.port), PATIENCE_SECONDS) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield opened


def test_a_client_that_reads_a_byte_at_a_time_keeps_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_server, "SLOW_SECONDS", 1)
    is_over = threading.Event()
    with LiveServer(_endless(is_over)) as server, _connected(server) as opened:
        ends_at = time.monotonic() + PATIENCE_SECONDS
        with suppress(ConnectionError):
            while not is_over.wait(0.1) and time.monotonic() < ends_at:
                opened.recv(1)
        assert is_over.is_set()


def test_a_client_that_keeps_reading_gets_all_of_a_long_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web_server, "SLOW_SECONDS", 4)
    is_over = threading.Event()
    with LiveServer(_endless(is_over)) as server, _connected(server) as opened:
        ends_at = time.monotonic() + 5
        while time.monotonic() < ends_at:
            assert opened.recv(65_536)
        assert not is_over.is_set()


def test_a_client_that_does_not_read_keeps_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "UNREAD_SECONDS", 0.5)
    is_over = threading.Event()
    with LiveServer(_endless(is_over)) as server, _connected(server) as opened:
        is_ended = is_over.wait(PATIENCE_SECONDS)
        opened.close()
        assert is_ended


@pytest.mark.parametrize("version", ["1.0", "0.9"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_knows_no_chunks_gets_none(method: str, version: str) -> None:
    request = f"{method} / HTTP/{version}\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n"
    with LiveServer(_in_pieces) as server:
        answer = send(server.port, request.encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == (b"a" * 210_000 if method == "GET" else b"")


def test_requests_that_were_sent_ahead_are_answered(server: LiveServer) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    answer = send(server.port, (one + b"\r\n") * 2 + one + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 3


def test_what_too_many_connections_ask_for_is_refused_in_the_words_of_the_address() -> None:
    with LiveServer(most_connections=2) as server, socket.create_connection((HOST, server.port)):
        answer = server.ask("POST", "/api/v1/events", b"{}")
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
        assert json.loads(answer.content)["error"]["code"] == "unavailable"
        answer = server.ask("GET", "/login/")
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
        assert answer.content == b"Service Unavailable"


def test_a_client_that_has_sent_everything_is_answered(server: LiveServer) -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    post = b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
    answer = send(server.port, get + post + b"a=b&", is_ended=True)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"403"]
    assert send(server.port, post + b"a=b", is_ended=True) == b""
    assert send(server.port, get[:-1], is_ended=True) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /healthz?" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"a:b\r\n" * 100 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Endless: " + b"a" * 2_000_000,
        b"GET /" + b"a" * 2_000_000,
        b"GET /healthz HTTP/1.1\r\n" + b"X-A: b\r\n" * 200_000,
    ],
    ids=[
        "header",
        "address",
        "many",
        "many-short",
        "endless-header",
        "endless-address",
        "endless-many",
    ],
)
def test_a_head_that_is_too_long_is_refused(server: LiveServer, head: bytes) -> None:
    answer = send(server.port, head)
    # A client that keeps sending is cut off, and can lose the response with its unread data.
    assert answer.startswith(b"HTTP/1.1 400") or (not answer and len(head) > 1_000_000)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (b"X-Long: " + b"a" * 40_000, b"The head of the request is too long."),
        (b"\r\n".join([b"a: b"] * 100), b"The request has too many headers."),
        (b"no header", b"Invalid HTTP request received."),
    ],
    ids=["long", "many", "none"],
)
def test_a_head_is_refused_with_the_reason(
    server: LiveServer, lines: bytes, sentence: bytes
) -> None:
    answer = send(server.port, b"POST /api/v1/events HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(sentence)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n" + b"a" * 9000,
    ],
)
def test_what_two_servers_may_read_in_two_ways_is_refused(server: LiveServer, head: bytes) -> None:
    assert send(server.port, head).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "piece",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: local",
        b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
        b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na",
        b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1",
    ],
)
def test_a_request_that_does_not_come_is_not_waited_for(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, piece: bytes
) -> None:
    monkeypatch.setattr(web_server, "PATIENCE_SECONDS", 0.2)
    assert send(server.port, piece) == b""


def trickle(port: int, head: bytes, pieces: Iterable[bytes]) -> bytes:
    """Send pieces 50 ms apart; return the response."""
    with socket.create_connection((HOST, port), 20) as opened:
        opened.sendall(head)
        with suppress(ConnectionError):
            for piece in pieces:
                opened.sendall(piece)
                time.sleep(0.05)
            return opened.recv(65_536)
    return b""


_LENGTH = b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
_CHUNKED = b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ", [b"a"] * 100 + [b"\r\n\r\n"]),
        (_LENGTH, [b"a"] * 100),
        (_CHUNKED, [b"1\r\na\r\n"] * 100 + [b"0\r\n\r\n"]),
        (_CHUNKED + b"1;", [b"a"] * 100 + [b"\r\na\r\n0\r\n\r\n"]),
    ],
    ids=["head", "body", "chunks", "extension"],
)
def test_a_request_that_comes_byte_by_byte_is_not_waited_for(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, head: bytes, pieces: Iterable[bytes]
) -> None:
    monkeypatch.setattr(web_server, "PATIENCE_SECONDS", 1)
    assert trickle(server.port, head, pieces) == b""


def test_a_body_that_comes_over_a_bad_line_is_waited_for(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_server, "PATIENCE_SECONDS", 1)
    head = b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    answer = trickle(server.port, head, [b"a" * 1000] * 60)
    assert answer.startswith(b"HTTP/1.1 403")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"POST /login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999\r\n\r\n", b"413"),
    ],
)
def test_what_follows_an_answer_and_is_no_request_is_not_waited_for(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, head: bytes, status: bytes
) -> None:
    monkeypatch.setattr(web_server, "PATIENCE_SECONDS", 1)
    with socket.create_connection((HOST, server.port), 20) as opened:
        opened.sendall(head)
        assert opened.recv(65_536).startswith(b"HTTP/1.1 " + status)
        with suppress(ConnectionError):
            opened.sendall(b"\r\n")
            # uvicorn would keep the connection for 5 s here.
            while opened.recv(65_536):
                pass


@pytest.mark.parametrize(
    ("first", "then", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"hello\r\n\r\n", b"200"),
        (_CHUNKED + b"0\r\n\r\n", _CHUNKED + b"hello\r\n", b"403"),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /" + b"a" * 40_000, b"200"),
    ],
)
def test_what_is_refused_is_not_taken_for_the_answer_to_what_came_before(
    server: LiveServer, first: bytes, then: bytes, status: bytes
) -> None:
    assert re.findall(rb"HTTP/1.1 (\d+)", send(server.port, first + then)) == [status]


def test_a_body_that_goes_wrong_after_its_answer_gets_no_second_one(server: LiveServer) -> None:
    head = _CHUNKED.replace(b"/login/", b"/api/v1/events")
    with socket.create_connection((HOST, server.port), 20) as opened:
        opened.sendall(head + b"1000000\r\n" + b"a" * 9_000_000)
        # There is no API key, and the body is larger than any limit.
        assert opened.recv(65_536).startswith(b"HTTP/1.1 401")
        with suppress(ConnectionError):
            opened.sendall(b"a" * (0x1000000 - 9_000_000) + b"hello")
            assert opened.recv(65_536) == b""


@pytest.mark.parametrize(
    ("size", "count", "status"), [(1, 9000, b"403"), (1, 30_000, b"400"), (64, 30_000, b"403")]
)
def test_a_body_of_very_many_chunks_is_refused_unless_they_hold_something(
    server: LiveServer, size: int, count: int, status: bytes
) -> None:
    chunk = b"%x\r\n%b\r\n" % (size, b"a" * size)
    head = _CHUNKED.replace(b"chunked\r\n", b"chunked\r\nConnection: close\r\n")
    answer = send(server.port, head + chunk * count + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 " + status)


def test_very_many_requests_that_were_sent_ahead_are_not_kept(server: LiveServer) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    answer = send(server.port, (one + b"\r\n") * 2000 + one + b"Connection: close\r\n\r\n")
    assert 1 <= answer.count(b"HTTP/1.1 200") < 200
    assert answer.count(b"HTTP/1.1") == answer.count(b"HTTP/1.1 200")


def test_what_comes_behind_a_body_is_refused(server: LiveServer) -> None:
    head = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = send(server.port, head + b"1\r\na\r\n0\r\nX-Forwarded-Proto: https\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    answer = send(server.port, head + b"1\r\na\r\n0\r\nX-Endless: " + b"a" * 2_000_000)
    assert answer.startswith(b"HTTP/1.1 400") or not answer


def test_an_offer_of_another_protocol_is_not_taken(server: LiveServer) -> None:
    """Java's client offers HTTP/2 with its first request."""
    body = b'{"type": "GET /smuggled HTTP/1.1"}'
    head = (
        b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\n"
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    last = (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close, Upgrade\r\n"
        b"Upgrade: h2c\r\n\r\n"
    )
    for pieces in ([head + body + last], [head, body + last], [head[:99], head[99:] + body, last]):
        with socket.create_connection((HOST, server.port), 20) as opened:
            for piece in pieces:
                opened.sendall(piece)
                time.sleep(0.1)
            answer = b""
            while chunk := opened.recv(65_536):
                answer += chunk
        # There is no API key.
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"401", b"200"]
