"""Threads of the web server stay with a connection that is kept, and keep nobody else waiting."""

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.services import HOST, free_port

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.once

Connect = Callable[[], http.client.HTTPConnection]


def application(environ: Any, start_response: Any) -> list[bytes]:
    """Answer with the thread that answers."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.5)
    body = str(threading.get_ident()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture
def server() -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "tests.test_web_server:application"]
    command += ["--worker-class", "config.web_worker.StayingWorker", "--threads", "2"]
    command += ["--bind", f"{HOST}:{port}"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) as process:
        try:
            yield process, port
        finally:
            process.kill()


@pytest.fixture
def connect(server: tuple["subprocess.Popen[bytes]", int]) -> Iterator[Connect]:
    opened: list[http.client.HTTPConnection] = []

    def connect() -> http.client.HTTPConnection:
        opened.append(http.client.HTTPConnection(HOST, server[1], timeout=10))
        return opened[-1]

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError):
            ask(connect())
            break
        time.sleep(0.1)
    opened.pop().close()
    yield connect
    for connection in opened:
        connection.close()


def ask(connection: http.client.HTTPConnection, path: str = "/") -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def test_one_thread_serves_a_connection_that_is_kept(connect: Connect) -> None:
    first, second = connect(), connect()
    ask(second)
    threads = []
    for number in range(20):
        threads.append(ask(first))
        if number % 3 == 0:
            assert ask(second) != threads[0]
    assert len(set(threads)) == 1


def test_more_connections_than_threads_are_all_served_at_once(connect: Connect) -> None:
    kept = [connect() for _ in range(8)]
    began = time.monotonic()
    for _ in range(5):
        for connection in kept:
            ask(connection)
    # A thread that stayed would hold up each of the 40 requests for a second.
    assert time.monotonic() - began < 20


def test_a_connection_may_rest_and_go_on(connect: Connect) -> None:
    connection = connect()
    ask(connection)
    time.sleep(1.3)
    socket = connection.sock
    ask(connection)
    assert connection.sock is socket


def test_requests_that_were_sent_ahead_are_answered(connect: Connect) -> None:
    connection = connect()
    connection.connect()
    connection.sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3)
    answer = b""
    while answer.count(b"200 OK") < 3:
        chunk = connection.sock.recv(4096)
        assert chunk, answer
        answer += chunk


def test_a_stop_waits_for_a_request_and_not_for_kept_connections(
    server: tuple["subprocess.Popen[bytes]", int], connect: Connect
) -> None:
    kept, busy = connect(), connect()
    ask(kept)
    ask(busy)
    busy.request("GET", "/slow")
    time.sleep(0.1)
    server[0].send_signal(signal.SIGTERM)
    assert busy.getresponse().status == 200
    # For a connection that stays open it would be the 30 s of gunicorn's `graceful_timeout`.
    assert server[0].wait(20) == 0
