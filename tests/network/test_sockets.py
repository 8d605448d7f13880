"""What both senders do at the socket, whatever was checked before.

The oracle does not use the guard: an audit hook that also stops every connect off loopback.
For libcurl it is `strace`, in `test_url_table`. No test connects to anything but loopback.
"""

import contextlib
import datetime
import errno
import gzip
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pycurl
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from oauthlib.oauth2 import WebApplicationClient
from requests_oauthlib import OAuth2Session

from tests.network.dns import by_getaddrinfo
from tests.network.test_guard import UrlRow, answer_with, row_id, url_rows
from tests.polling import PATIENCE_SECONDS
from tests.security.oracle import is_public
from webhooks import network
from webhooks.network import Policy, Target, UnsafeURLError, adapter, guard, resolver
from webhooks.oauth import client

CLOSED = Policy()
LOOPBACK = Policy(allowed_networks=(network.parse_allowed_network("127.0.0.0/8"),))
HOST = "receiver.example.com"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Record every address libcurl would connect to; those off loopback get no socket."""
    found: list[tuple[str, int]] = []
    real = network.SocketOpener.open

    def open_socket(opener: Any, family: int, kind: int, protocol: int, where: Any) -> Any:
        found.append(where[:2])
        is_loopback = where[0].startswith("127.")
        return real(opener, family, kind, protocol, where) if is_loopback else pycurl.SOCKET_BAD

    monkeypatch.setattr(network.SocketOpener, "open", open_socket)
    return found


# Receivers.


class SocketServer:
    """A loopback server that handles every connection with one function."""

    def __init__(
        self,
        play: Callable[[socket.socket], None],
        context: Any = None,
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self._play = play
        self._context = context
        self.requests: list[bytes] = []
        self._listener = socket.create_server(address)
        self._listener.settimeout(10)
        self.port: int = self._listener.getsockname()[1]
        self._is_open = True
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def _accept(self) -> None:
        while self._is_open:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
                self._shake_hands(connection)
            self._play(connection)
        except OSError:
            pass
        finally:
            connection.close()

    @staticmethod
    def _shake_hands(connection: Any) -> None:
        try:
            connection.do_handshake()
        except ssl.SSLError:
            # Closing the connection with unread data would discard the alert as well.
            with socket.socket(fileno=os.dup(connection.fileno())) as plain:
                plain.settimeout(10)
                plain.shutdown(socket.SHUT_WR)
                while plain.recv(4096):
                    pass
            raise

    def read_request(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (chunk := connection.recv(65_536)):
                break
            data += chunk
        if data:
            self.requests.append(data)
        return data

    def close(self) -> None:
        self._is_open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *self._threads):
            thread.join(5)


@pytest.fixture
def serve() -> Iterator[Callable[..., SocketServer]]:
    """Return a function that starts a server for the rest of the test."""
    servers: list[SocketServer] = []

    def start(
        answer: bytes = OK, *, drip: bytes = b"", context: Any = None, every: float = 0.02
    ) -> SocketServer:
        def play(connection: socket.socket) -> None:
            while server.read_request(connection):
                connection.sendall(answer)
                for _ in range(int(8 / every) if drip else 0):
                    connection.sendall(drip)
                    time.sleep(every)
                if drip:
                    return

        server = SocketServer(play, context)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


# The two senders.


@dataclass
class Result:
    status: int = 0
    body: bytes = b""
    error: int = 0
    message: str = ""
    problem: network.Failure | None = None
    seconds: float = 0.0


def curl(
    url: str,
    policy: Policy = LOOPBACK,
    *,
    pins: tuple[str, ...] = (),
    options: tuple[tuple[int, Any], ...] = (),
) -> Result:
    """Send with libcurl as the engine does, and return the result."""
    opener = network.SocketOpener(policy)
    handle, body = pycurl.Curl(), bytearray()
    network.configure_curl(handle, opener)
    handle.setopt(pycurl.URL, url)
    handle.setopt(pycurl.WRITEFUNCTION, body.extend)
    handle.setopt(pycurl.TIMEOUT_MS, 5000)
    handle.setopt(pycurl.RESOLVE, list(pins))
    for option, value in options:
        handle.setopt(option, value)
    result = Result()
    started = time.monotonic()
    try:
        handle.perform()
    except pycurl.error as error:
        result.error, result.message = error.args
    result.seconds = time.monotonic() - started
    result.status = handle.getinfo(pycurl.RESPONSE_CODE)
    result.body = bytes(body)
    result.problem = opener.problem_for(handle)
    handle.close()
    return result


@pytest.fixture
def resolve_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_answers(*addresses: str) -> None:
        monkeypatch.setattr(socket, "getaddrinfo", answer_with(*addresses))

    return set_answers


def get(url: str, policy: Policy = LOOPBACK, **options: Any) -> requests.Response:
    with network.GuardedSession(policy=policy, **options) as session:
        return session.get(url)


# The table at the socket of requests.


def expected_attempts(row: UrlRow) -> list[tuple[str, int]]:
    target = network.parse_url(row.url, policy=CLOSED)
    return [(address, target.port) for address in row.answers or (target.host,)]


@pytest.mark.parametrize("row", url_rows(), ids=row_id)
def test_requests_connects_only_where_the_table_allows(
    row: UrlRow, attempts: list[tuple[str, int]], resolve_to: Callable[..., None]
) -> None:
    resolve_to(*(row.answers or ("127.0.0.1",)))
    with pytest.raises((UnsafeURLError, requests.RequestException, UnicodeError)):
        get(row.url, CLOSED)
    # Sorted, as libcurl goes on to the other address family when one does not respond.
    assert sorted(attempts) == (sorted(expected_attempts(row)) if row.verdict == "allow" else [])


def unchecked_target(url: str, *, policy: Policy | None = None) -> Target:
    """Parse a URL like a program that trusts its input."""
    parts = urlsplit(url)
    return Target(
        scheme=parts.scheme,
        host=parts.hostname or "",
        port=parts.port or 80,
        is_literal=False,
        url=url,
        origin="",
    )


def libc_answers(row: UrlRow) -> Callable[..., list[object]]:
    """Answer odd spellings as the C library does, and every other name with loopback."""

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        if row.answers is not None:
            addresses = row.answers
        else:
            try:
                addresses = (socket.inet_ntoa(socket.inet_aton(host)),)
            except (OSError, UnicodeError):
                addresses = ("127.0.0.1",)
        return answer_with(*addresses)(host, port)

    return getaddrinfo


@pytest.mark.parametrize("row", [r for r in url_rows() if r.verdict == "block"], ids=row_id)
def test_requests_is_stopped_at_the_socket_when_nothing_was_checked_before(
    row: UrlRow, attempts: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "parse_url", unchecked_target)
    monkeypatch.setattr(resolver, "check_name", lambda *args, **kwargs: None)
    monkeypatch.setattr(socket, "getaddrinfo", libc_answers(row))
    with pytest.raises((UnsafeURLError, requests.RequestException, ValueError)):
        get(row.url, CLOSED)
    assert [attempt for attempt in attempts if not is_public(attempt[0])] == []


def of_the_library() -> client.ProviderSession:
    session = client.ProviderSession(WebApplicationClient(""))
    session.guard(policy=CLOSED)
    return session


def of_our_own() -> network.GuardedSession:
    return network.GuardedSession(policy=CLOSED)


# URLs that requests corrects before any adapter sees them.
REPAIRED = [
    "http://@8.8.8.8/", "http://:@8.8.8.8/", "http://8.8.8.8\\@1.1.1.1/", "http://8.8.8.8\\/",
    "http://%38.8.8.8/", "http://8%2e8.8.8/", "http://example.com%2e/", "http://%65xample.com/",
    "http://8.8.8.8:080/", "http://8.8.8.8:/", "http://8.8.8.8:0443/", " http://8.8.8.8/",
    "\t\nhttp://8.8.8.8/", "\u00a0http://8.8.8.8/", "\u3000http://8.8.8.8/", "\x1fhttp://8.8.8.8/",
    "http://8.8.8.8/ ", "http://8.8.8.8/\u2028", "http://8.8.8.8/\r\nX: y", "http://8.8.8.8/\x00",
    "http://8.8.8.8/\u200b", "http://8.8.8.8/{x}", "http://8.8.8.8/<x>", "http://8.8.8.8/a|b\\c",
    'http://8.8.8.8/"', "http://8.8.8.8/`id`", "http://8.8.8.8/%zz", "http://8.8.8.8/%",
    "http://\u212a.com/", "http://\u017f.com/", "http://\u2460.com/", "http://ex\u00adample.com/",
    "http://example\u3002com/", "http://\uff45xample.com/", "http://bu\u0308cher.example.com/",
    "http://[2606:4700:4700:0:0:0:0:1111]/", "http://[2606:4700:4700::1111%25eth0]/",
]  # fmt: skip


@pytest.mark.parametrize("make_session", [of_our_own, of_the_library])
@pytest.mark.parametrize("url", REPAIRED, ids=ascii)
def test_requests_sends_to_no_url_that_only_requests_can_read(
    url: str,
    make_session: Callable[[], requests.Session],
    attempts: list[tuple[str, int]],
    resolve_to: Callable[..., None],
) -> None:
    resolve_to("93.184.215.14")
    with make_session() as session, pytest.raises(UnsafeURLError):
        session.get(url)
    assert attempts == []


@pytest.mark.parametrize("make_session", [of_our_own, of_the_library])
def test_requests_prepares_the_url_that_the_parser_returns(
    make_session: Callable[[], requests.Session],
) -> None:
    asked = requests.Request("GET", "HTTPS://BÜCHER.Example.com.:443/ä?b=1#c", params={"d": "2"})
    with make_session() as session:
        prepared = session.prepare_request(asked)
    assert prepared.url == "https://xn--bcher-kva.example.com/%C3%A4?b=1&d=2"
    assert asked.url == "HTTPS://BÜCHER.Example.com.:443/ä?b=1#c"


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/a/./b/..", "/a/%2e%2e/b", "//a//b?c=../d", "/a?", "/%0d%0aX:1?%7e=%c3%bc#d"],
)
def test_requests_sends_an_address_as_it_is_written(
    path: str, serve: Callable[..., SocketServer]
) -> None:
    server = serve()
    get(server.url.removesuffix("/") + path)
    assert server.requests[0].split()[1].decode() == path.partition("#")[0]


# Rebinding and mixed answers.


def test_requests_refuses_a_name_that_turns_to_loopback_after_its_check(
    attempts: list[tuple[str, int]], resolve_to: Callable[..., None]
) -> None:
    resolve_to("93.184.215.14")
    network.check_url("http://example.com/", policy=CLOSED)
    resolve_to("127.0.0.1")
    with pytest.raises(UnsafeURLError, match="loopback"):
        get("http://example.com/", CLOSED)
    assert attempts == []


def test_requests_connects_to_the_very_answer_it_checked(
    attempts: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([["93.184.215.14"], ["127.0.0.1"], ["127.0.0.1"]])
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **kwargs: answer_with(*next(answers))(host, port)
    )
    with pytest.raises(requests.ConnectionError):
        get("http://example.com/", CLOSED)
    assert attempts == [("93.184.215.14", 80)]


def test_requests_refuses_mixed_answers_before_any_connect(
    attempts: list[tuple[str, int]], resolve_to: Callable[..., None]
) -> None:
    resolve_to("93.184.215.14", "::1")
    with pytest.raises(UnsafeURLError):
        get("http://example.com/", CLOSED)
    assert attempts == []


def test_requests_tries_the_next_address_when_one_does_not_answer(
    serve: Callable[..., SocketServer], resolve_to: Callable[..., None]
) -> None:
    server = serve()
    resolve_to("127.0.0.99", "127.0.0.1")
    assert get(f"http://{HOST}:{server.port}/").content == b"ok"


def test_requests_leaves_time_for_the_next_address_when_one_is_silent(
    serve: Callable[..., SocketServer], resolve_to: Callable[..., None]
) -> None:
    server = serve()
    resolve_to("127.0.0.2", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.2", server.port), backlog=0))
        # With a full backlog the kernel drops new connections, like a dead machine.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        assert get(f"http://{HOST}:{server.port}/", total_seconds=1.0).content == b"ok"


def test_libcurl_refuses_a_pin_that_leads_to_loopback() -> None:
    result = curl(f"http://{HOST}:8000/", CLOSED, pins=(f"{HOST}:8000:127.0.0.1",))
    assert result.error == pycurl.E_COULDNT_CONNECT
    assert result.problem is not None
    assert "127.0.0.1 is a loopback address" in result.problem.sentence()


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::]"])
def test_libcurl_is_stopped_at_a_literal_in_any_spelling(host: str) -> None:
    assert curl(f"http://{host}:8000/", CLOSED).problem


def test_an_opener_reports_once_what_it_refused_to_which_handle() -> None:
    opener = network.SocketOpener(CLOSED)
    refused, other = object(), object()
    address = (socket.AF_INET, socket.SOCK_STREAM, 6, ("10.0.0.1", 80))
    assert opener.for_handle(refused)(0, address) == pycurl.SOCKET_BAD
    assert opener.problem_for(other) is None
    problem = opener.problem_for(refused)
    assert problem is not None
    assert "10.0.0.1 is a private address" in problem.sentence()
    assert opener.problem_for(refused) is None


@pytest.mark.parametrize(
    "address",
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, "/run/docker.sock"),
        (socket.AF_INET, socket.SOCK_DGRAM, 17, ("93.184.215.14", 443)),
        (socket.AF_INET6, socket.SOCK_STREAM, 6, ("2606:4700::1", 443, 0, 3)),
    ],
)
def test_an_opener_opens_tcp_sockets_without_a_scope_only(address: Any) -> None:
    open_socket = network.SocketOpener(LOOPBACK).for_handle(None)
    assert open_socket(0, address) == pycurl.SOCKET_BAD


def test_an_opener_is_not_asked_about_a_connection_that_is_open(
    serve: Callable[..., SocketServer],
) -> None:
    server, calls = serve(), []

    class Counting(network.SocketOpener):
        def open(self, *address: Any) -> socket.socket | int:
            calls.append(address)
            return super().open(*address)

    handle = pycurl.Curl()
    network.configure_curl(handle, Counting(LOOPBACK))
    handle.setopt(pycurl.URL, server.url)
    for _ in range(3):
        handle.perform_rb()
    handle.close()
    assert (len(calls), len(server.requests)) == (1, 3)


WITHOUT_DESCRIPTORS = """
import os, resource
from django.conf import settings
settings.configure()
from webhooks import network
free = os.dup(0)
os.close(free)
resource.setrlimit(resource.RLIMIT_NOFILE, (free, free))
print(network.affordable_connections(100))
"""


def test_a_process_that_may_open_no_file_at_all_affords_the_fewest_connections() -> None:
    command = [sys.executable, "-c", WITHOUT_DESCRIPTORS]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (done.stdout, done.stderr) == ("2\n", "")


def test_a_socket_without_a_descriptor_for_its_duplicate_is_what_the_machine_lacks(
    serve: Callable[..., SocketServer],
) -> None:
    opener, handle = network.SocketOpener(LOOPBACK), pycurl.Curl()
    network.configure_curl(handle, opener)
    handle.setopt(pycurl.URL, serve().url)
    handle.setopt(pycurl.FRESH_CONNECT, 1)
    handle.perform_rb()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as probe:
        free = probe.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, hard))
    try:
        with pytest.raises(pycurl.error) as raised:
            handle.perform()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.args[0] == pycurl.E_COULDNT_CONNECT
    lack = opener.resource_failure(handle)
    assert lack is not None
    assert lack.params["reason"] == os.strerror(errno.EMFILE)
    handle.close()


# Pins, as the engine's CurlMulti treats them.


def drive(multi: Any, handle: Any) -> int:
    """Run one transfer and return libcurl's error number."""
    multi.add_handle(handle)
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends_at:
        multi.perform()
        _, succeeded, failed = multi.info_read()
        if succeeded or failed:
            multi.remove_handle(handle)
            return failed[0][1] if failed else 0
        multi.select(0.05)
    raise AssertionError("the transfer did not end")


@pytest.fixture
def multi() -> Iterator[Any]:
    made = pycurl.CurlMulti()
    yield made
    made.close()


def pinned_handle(url: str, opener: network.SocketOpener, entries: list[str] | None) -> Any:
    handle = pycurl.Curl()
    network.configure_curl(handle, opener)
    handle.setopt(pycurl.URL, url)
    handle.setopt(pycurl.WRITEFUNCTION, lambda chunk: None)
    handle.setopt(pycurl.DNS_CACHE_TIMEOUT, 0)
    handle.setopt(pycurl.FRESH_CONNECT, 1)
    if entries is not None:
        handle.setopt(pycurl.RESOLVE, entries)
    return handle


def test_a_pin_set_on_one_handle_serves_all_handles_without_a_time_limit(
    multi: Any, serve: Callable[..., SocketServer]
) -> None:
    server, opener = serve(), network.SocketOpener(LOOPBACK)
    url = f"http://{HOST}:{server.port}/"
    first = pinned_handle(url, opener, [f"{HOST}:{server.port}:127.0.0.1"])
    assert drive(multi, first) == 0
    second = pinned_handle(url, opener, None)
    assert drive(multi, second) == 0


def test_a_later_pin_replaces_the_earlier_for_new_connections(
    multi: Any, serve: Callable[..., SocketServer]
) -> None:
    server, opener = serve(), network.SocketOpener(LOOPBACK)
    url = f"http://{HOST}:{server.port}/"
    assert drive(multi, pinned_handle(url, opener, [f"{HOST}:{server.port}:127.0.0.99"])) == 7
    assert drive(multi, pinned_handle(url, opener, [f"{HOST}:{server.port}:127.0.0.1"])) == 0


def test_a_resolver_pins_what_it_checked(
    multi: Any, serve: Callable[..., SocketServer], resolve_to: Callable[..., None]
) -> None:
    server, opener = serve(), network.SocketOpener(LOOPBACK)
    resolve_to("127.0.0.1")
    ready = threading.Event()
    resolver = network.HostResolver(LOOPBACK, wake=lambda *_: ready.set(), ask=by_getaddrinfo)
    resolver.lookup(HOST, server.port)
    assert ready.wait(PATIENCE_SECONDS)
    entries = resolver.curl_resolve_entries(HOST, server.port)
    resolver.close()
    assert drive(multi, pinned_handle(f"http://{HOST}:{server.port}/", opener, entries)) == 0


# The environment is ignored.


@pytest.fixture
def hostile_environment(
    serve: Callable[..., SocketServer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> SocketServer:
    """Set proxy variables that point to a server of the test, and a netrc with a password."""
    proxy = serve()
    monkeypatch.delenv("no_proxy", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    (tmp_path / ".netrc").write_text("default login admin password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    return proxy


def test_both_senders_ignore_proxies_and_netrc_of_the_environment(
    serve: Callable[..., SocketServer], hostile_environment: SocketServer
) -> None:
    server = serve()
    assert get(server.url).content == curl(server.url).body == b"ok"
    assert not any(b"authorization" in request.lower() for request in server.requests)
    assert hostile_environment.requests == []


# The operator's proxy.


def test_requests_goes_through_the_operators_proxy_only(
    serve: Callable[..., SocketServer],
    attempts: list[tuple[str, int]],
    resolve_to: Callable[..., None],
) -> None:
    proxy = serve()
    resolve_to("93.184.215.14")
    policy = Policy(egress_proxy=proxy.url)
    assert get("http://example.com/a", policy).content == b"ok"
    assert proxy.requests[0].startswith(b"GET http://example.com/a ")
    assert attempts == [("127.0.0.1", proxy.port)]


def test_requests_sends_no_refused_name_to_the_operators_proxy(
    serve: Callable[..., SocketServer], resolve_to: Callable[..., None]
) -> None:
    proxy = serve()
    resolve_to("10.0.0.1")
    with pytest.raises(UnsafeURLError):
        get("http://example.com/", Policy(egress_proxy=proxy.url))
    assert proxy.requests == []


def test_an_opener_with_a_proxy_opens_nothing_else() -> None:
    opener = network.SocketOpener(Policy(egress_proxy="http://127.0.0.1:3128"))
    where = (socket.AF_INET, socket.SOCK_STREAM, 6, ("93.184.215.14", 443))
    assert opener.for_handle(None)(0, where) == pycurl.SOCKET_BAD


# Redirects, schemes, cookies, decoding.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_for_both_senders(
    status: int, serve: Callable[..., SocketServer]
) -> None:
    inner = serve()
    location = f"HTTP/1.1 {status} Moved\r\nLocation: {inner.url}\r\nContent-Length: 0\r\n\r\n"
    outer = serve(location.encode())
    response = get(outer.url)
    assert (response.status_code, response.history, response.next) == (status, [], None)
    result = curl(outer.url)
    assert (result.status, result.error) == (status, 0)
    with network.GuardedSession(policy=LOOPBACK) as session:
        assert session.post(outer.url, allow_redirects=True).status_code == status
    assert inner.requests == []


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1:21/", "gopher://127.0.0.1:70/"]
)
def test_libcurl_speaks_http_only(url: str) -> None:
    assert curl(url).error == pycurl.E_UNSUPPORTED_PROTOCOL


def test_libcurl_refuses_an_answer_without_a_status_line(
    serve: Callable[..., SocketServer],
) -> None:
    assert curl(serve(b"hello\r\n\r\n").url).error in (
        pycurl.E_UNSUPPORTED_PROTOCOL,
        pycurl.E_FTP_WEIRD_SERVER_REPLY,
    )


def test_cookies_are_never_sent_back(serve: Callable[..., SocketServer]) -> None:
    server = serve(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
    with network.GuardedSession(policy=LOOPBACK) as session:
        session.get(server.url)
        session.get(server.url)
    curl(server.url)
    curl(server.url)
    assert not any(b"cookie" in request.lower() for request in server.requests)


def test_a_gzip_bomb_stays_packed_for_both_senders(serve: Callable[..., SocketServer]) -> None:
    bomb = gzip.compress(b"0" * 20_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    server = serve(head + bomb)
    assert get(server.url).content == bomb
    assert curl(server.url).body == bomb
    assert b"Accept-Encoding: identity" in server.requests[0]
    assert b"accept-encoding" not in server.requests[1].lower()


# Size and time.


def test_a_body_of_the_permitted_size_is_read_whole(serve: Callable[..., SocketServer]) -> None:
    body = b"a" * 65_536
    server = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + body)
    assert get(server.url).content == body


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 1000000000\r\n\r\n",
        b"\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n20000\r\n",
    ],
    ids=["length", "until-close", "chunked"],
)
def test_a_longer_body_is_cut(head: bytes, serve: Callable[..., SocketServer]) -> None:
    server = serve(b"HTTP/1.1 503 Busy\r\n" + head + b"a" * 200_000)
    with pytest.raises(network.ResponseTooLargeError) as caught:
        get(server.url)
    assert caught.value.status_code == 503


@pytest.mark.parametrize(
    ("answer", "drip"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"a"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Line: a\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"a"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: a\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silent", "header", "headers", "body", "chunks", "trailers", "continue"],
)
def test_a_dripping_receiver_is_cut_at_the_total_deadline(
    answer: bytes, drip: bytes, serve: Callable[..., SocketServer]
) -> None:
    # Slow enough that the limit on interim responses is not reached first.
    server = serve(answer, drip=drip, every=0.05)
    started = time.monotonic()
    with pytest.raises(network.DeadlineExceededError) as caught:
        get(server.url, total_seconds=0.5)
    # The server keeps sending for eight seconds.
    assert 0.45 < time.monotonic() - started < 6
    assert caught.value.permanent is False
    result = curl(server.url, options=((pycurl.TIMEOUT_MS, 500),))
    assert result.error == pycurl.E_OPERATION_TIMEDOUT
    assert result.seconds < 6


def test_the_look_up_counts_against_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: done.wait(60) and [])
    with pytest.raises(network.DeadlineExceededError):
        get("https://example.com/", CLOSED, total_seconds=0.2)
    done.set()


def test_a_request_body_that_is_never_read_is_cut_at_the_deadline() -> None:
    is_over = threading.Event()
    server = SocketServer(lambda connection: is_over.wait(10))
    started = time.monotonic()
    with (
        network.GuardedSession(policy=LOOPBACK, total_seconds=0.5) as session,
        pytest.raises(network.DeadlineExceededError),
    ):
        session.post(server.url, data=b"a" * 30_000_000)
    assert time.monotonic() - started < 6
    is_over.set()
    server.close()


def test_a_body_that_breaks_off_is_an_error_of_requests() -> None:
    server = SocketServer(
        lambda connection: (
            server.read_request(connection),
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na"),
        )[1]
    )
    with pytest.raises(requests.RequestException):
        get(server.url)
    server.close()


def test_a_name_that_does_not_resolve_is_reported_as_such(resolve_to: Callable[..., None]) -> None:
    resolve_to()
    with pytest.raises(network.NameNotResolvedError):
        get("https://example.com/", CLOSED)


def test_any_session_of_requests_can_be_guarded(
    serve: Callable[..., SocketServer],
    certificates: "Certificates",
    resolve_to: Callable[..., None],
) -> None:
    class Session(network.GuardedSessionMixin, OAuth2Session):  # type: ignore[misc]
        pass

    server = serve(context=certificates.context("good"))
    url = f"https://{HOST}:{server.port}/"
    resolve_to("127.0.0.1")
    with Session(client_id="id") as session:
        session.verify = certificates.path("ca")
        session.guard(policy=CLOSED)
        with pytest.raises(UnsafeURLError):
            session.get(url, withhold_token=True)
        session.guard(policy=LOOPBACK)
        assert session.get(url, withhold_token=True).content == b"ok"


# TLS.


@dataclass(frozen=True)
class Certificates:
    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.pem")

    def context(self, name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path(name))
        return context


def write_certificate(
    folder: Path, name: str, *, host: str, days: int, signer: Any = None, is_ca: bool = False
) -> Any:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    issuer, issuer_key = signer or (subject, key)
    # Python 3.13 requires this extension in a CA certificate.
    usage = x509.KeyUsage(True, False, False, False, False, is_ca, is_ca, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / f"{name}.pem").write_bytes(private + public)
    return subject, key


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ca = write_certificate(folder, "ca", host="ca.example.com", days=10, is_ca=True)
    write_certificate(folder, "good", host=HOST, days=10, signer=ca)
    write_certificate(folder, "proxy", host="proxy.example.com", days=10, signer=ca)
    write_certificate(folder, "expired", host=HOST, days=-1, signer=ca)
    write_certificate(folder, "other", host="other.example.com", days=10, signer=ca)
    write_certificate(folder, "self", host=HOST, days=10)
    return Certificates(folder)


def get_tls(server: SocketServer, certificates: Certificates, **options: Any) -> requests.Response:
    with network.GuardedSession(policy=LOOPBACK, **options) as session:
        session.verify = certificates.path("ca")
        return session.get(f"https://{HOST}:{server.port}/")


def curl_tls(server: SocketServer, certificates: Certificates, **options: Any) -> Result:
    return curl(
        f"https://{HOST}:{server.port}/",
        pins=(f"{HOST}:{server.port}:127.0.0.1",),
        options=((pycurl.CAINFO, certificates.path("ca")),),
    )


def test_a_valid_certificate_is_accepted_by_both_senders(
    serve: Callable[..., SocketServer], certificates: Certificates, resolve_to: Callable[..., None]
) -> None:
    server = serve(context=certificates.context("good"))
    resolve_to("127.0.0.1")
    assert get_tls(server, certificates).content == b"ok"
    assert curl_tls(server, certificates).body == b"ok"


@pytest.mark.parametrize("name", ["expired", "other", "self"])
def test_a_wrong_certificate_is_refused_by_both_senders(
    name: str,
    serve: Callable[..., SocketServer],
    certificates: Certificates,
    resolve_to: Callable[..., None],
) -> None:
    server = serve(context=certificates.context(name))
    resolve_to("127.0.0.1")
    with pytest.raises(requests.exceptions.SSLError):
        get_tls(server, certificates)
    assert curl_tls(server, certificates).error == pycurl.E_PEER_FAILED_VERIFICATION
    assert server.requests == []


def test_a_certificate_of_an_unknown_authority_is_refused_by_both_senders(
    serve: Callable[..., SocketServer], certificates: Certificates, resolve_to: Callable[..., None]
) -> None:
    server = serve(context=certificates.context("good"))
    resolve_to("127.0.0.1")
    url = f"https://{HOST}:{server.port}/"
    with network.GuardedSession(policy=LOOPBACK) as session:
        with pytest.raises(requests.exceptions.SSLError):
            session.get(url)
        with pytest.raises(requests.exceptions.SSLError):
            session.get(url, verify=False)
    result = curl(url, pins=(f"{HOST}:{server.port}:127.0.0.1",))
    assert result.error == pycurl.E_PEER_FAILED_VERIFICATION


def test_the_ca_bundle_is_the_systems_or_certifis() -> None:
    assert Path(guard.ca_bundle()).stat().st_size > 100_000


def test_old_tls_is_offered_by_neither_sender(
    resolve_to: Callable[..., None], certificates: Certificates
) -> None:
    hellos: list[bytes] = []
    server = SocketServer(lambda connection: hellos.append(connection.recv(4096)))
    resolve_to("127.0.0.1")
    with pytest.raises(requests.RequestException):
        get_tls(server, certificates)
    assert curl_tls(server, certificates).error
    server.close()
    for hello in hellos:
        # Extension 43, supported_versions: its list holds neither 1.0 (0301) nor 1.1 (0302).
        versions = hello[hello.index(b"\x00\x2b\x00") + 4 :]
        listed = versions[1 : 1 + versions[0]]
        assert set(zip(listed[::2], listed[1::2], strict=True)) <= {(3, 3), (3, 4)}
    assert len(hellos) == 2


def test_a_hanging_tls_handshake_is_cut_at_the_deadline(
    certificates: Certificates, resolve_to: Callable[..., None]
) -> None:
    def play(connection: socket.socket) -> None:
        connection.recv(4096)
        # The start of a 16 KB record, and then one byte at a time.
        connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")
        for _ in range(500):
            connection.sendall(b"\x03")
            time.sleep(0.02)

    server = SocketServer(play)
    resolve_to("127.0.0.1")
    started = time.monotonic()
    with pytest.raises(network.DeadlineExceededError):
        get_tls(server, certificates, total_seconds=0.5)
    assert time.monotonic() - started < 6
    server.close()


def test_a_body_that_drips_under_tls_is_cut_at_the_deadline(
    serve: Callable[..., SocketServer], certificates: Certificates, resolve_to: Callable[..., None]
) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"
    server = serve(answer, drip=b"a", context=certificates.context("good"))
    resolve_to("127.0.0.1")
    started = time.monotonic()
    with pytest.raises(network.DeadlineExceededError):
        get_tls(server, certificates, total_seconds=0.5)
    assert time.monotonic() - started < 6


# What the adapter of requests sends and reads.


def test_requests_sends_what_was_prepared_and_nothing_of_libcurls_own(
    serve: Callable[..., SocketServer],
) -> None:
    server = serve()
    session = network.GuardedSession(policy=LOOPBACK)
    session.headers.clear()
    session.post(server.url, data=b"a" * 10, headers={"X-Empty": "", "X-Latin": "\u00e9"})
    head = server.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert sorted(head) == sorted(
        [
            b"POST / HTTP/1.1",
            f"Host: 127.0.0.1:{server.port}".encode(),
            b"Accept-Encoding: identity",
            b"Content-Length: 10",
            b"X-Empty:",
            b"X-Latin: \xe9",
        ]
    )


def test_requests_sends_a_large_body_without_waiting_for_leave(
    serve: Callable[..., SocketServer],
) -> None:
    server = serve()
    with network.GuardedSession(policy=LOOPBACK) as session:
        session.post(server.url, data=b"a" * 2_000_000)
    assert b"expect" not in server.requests[0].lower()


def test_requests_takes_no_body_that_is_read_piece_by_piece(
    serve: Callable[..., SocketServer],
) -> None:
    server = serve()
    with (
        network.GuardedSession(policy=LOOPBACK) as session,
        pytest.raises(TypeError, match="whole body"),
    ):
        session.post(server.url, data=iter([b"a"]))
    assert server.requests == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_requests_sends_every_method(method: str, serve: Callable[..., SocketServer]) -> None:
    server = serve()
    with network.GuardedSession(policy=LOOPBACK) as session:
        response = session.request(method, server.url)
    assert server.requests[0].startswith(f"{method} / HTTP/1.1\r\n".encode())
    assert (response.status_code, response.ok) == (200, True)
    assert response.content == (b"" if method == "HEAD" else b"ok")


def test_requests_reads_the_last_head_without_interim_answers_and_trailers(
    serve: Callable[..., SocketServer],
) -> None:
    server = serve(
        b"HTTP/1.1 103 Early Hints\r\nX-Name: early\r\n\r\n"
        b"HTTP/1.1 201 Made up\r\nX-Name: one\r\nx-name: two\r\nX-Latin: \xe9\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\nX-Name: trailer\r\n\r\n"
    )
    response = get(server.url)
    assert (response.status_code, response.reason, response.text) == (201, "Made up", "ok")
    assert response.headers["X-Name"] == "one, two"
    assert response.headers["X-Latin"] == "\u00e9"
    assert (response.encoding, response.url) == ("utf-8", server.url)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 17 + OK, "more than 16 interim responses"),
        (
            b"HTTP/1.1 200 OK\r\n" + (b"X: " + b"y" * 1000 + b"\r\n") * 70 + b"\r\n",
            "more than 64 KiB of headers",
        ),
        (b"hello\r\n\r\n", "broken"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "Invalid status line"),
    ],
    ids=["upgrade", "interim", "headers", "no-http", "status"],
)
def test_requests_reads_no_head_that_is_out_of_bounds(
    answer: bytes, words: str, serve: Callable[..., SocketServer]
) -> None:
    with pytest.raises(network.TransferError, match=words) as caught:
        get(serve(answer).url)
    assert (caught.value.is_refused, caught.value.is_closed) == (False, False)


def test_requests_takes_no_answer_that_ends_within_its_head() -> None:
    def play(connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: appl")

    server = SocketServer(play)
    with pytest.raises(network.TransferError, match="closed within the headers") as caught:
        get(server.url)
    server.close()
    assert caught.value.is_sent


def test_a_closed_connection_is_reported_and_never_tried_again() -> None:
    def play(connection: socket.socket) -> None:
        server.read_request(connection)

    server = SocketServer(play)
    with (
        network.GuardedSession(policy=LOOPBACK) as session,
        pytest.raises(network.TransferError) as caught,
    ):
        session.post(server.url, data=b"refresh_token=used-once")
    server.close()
    assert (caught.value.is_closed, len(server.requests)) == (True, 1)


def test_each_request_has_a_connection_of_its_own(
    serve: Callable[..., SocketServer], attempts: list[tuple[str, int]]
) -> None:
    server = serve()
    with network.GuardedSession(policy=LOOPBACK) as session:
        session.get(server.url)
        session.get(server.url)
    assert attempts == [("127.0.0.1", server.port)] * 2


def test_a_refused_connection_is_reported(serve: Callable[..., SocketServer]) -> None:
    server = serve()
    server.close()
    with pytest.raises(network.TransferError) as caught:
        get(server.url)
    assert isinstance(caught.value, requests.ConnectionError)
    assert (caught.value.is_refused, caught.value.is_closed) == (True, False)
    assert caught.value.permanent is False


def test_a_name_that_is_refused_at_the_socket_is_an_unsafe_url(
    resolve_to: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to("127.0.0.1")
    monkeypatch.setattr(adapter, "checked_addresses", lambda *args, **more: ("127.0.0.1",))
    with pytest.raises(UnsafeURLError, match="loopback") as caught:
        get("http://example.com/", CLOSED)
    assert (caught.value.code, caught.value.permanent) == ("denied_network", True)
