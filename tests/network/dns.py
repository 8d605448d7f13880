"""Names for tests: a name server for some names, and the getaddrinfo stand-in as a resolver."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from webhooks import network
from webhooks.network import resolver
from webhooks.network.failures import NETWORK, Failure

Done = Callable[[tuple[str, ...] | Failure], None]


def by_getaddrinfo(host: str, port: int, done: Done) -> None:
    """Answer a resolver from the test's stand-in for getaddrinfo, in a thread."""

    def look_up() -> None:
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError:
            done(Failure(NETWORK, "name_not_found", {"host": host}))
        else:
            done(tuple(str(answer[4][0]) for answer in answers))

    threading.Thread(target=look_up, daemon=True).start()


@pytest.fixture
def engine_asks_getaddrinfo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let deliveries look names up where every other sender does: at the getaddrinfo stand-in."""

    def ask(_channel: object, host: str, port: int, done: Done) -> None:
        by_getaddrinfo(host, port, done)

    monkeypatch.setattr(resolver.DnsChannel, "ask", ask)


@contextmanager
def name_server(address: str, *, silent: str = "dead", below: str = "") -> Iterator[int]:
    """Answer every name with `address`, except names that begin with `silent`.

    Answers for names that begin with "garbled" cannot be parsed. With `below`, a domain, all other
    names do not exist.
    """
    ending = b"".join(bytes([len(label)]) + label.encode() for label in below.split(".") if label)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
    server.bind(("127.0.0.1", 0))
    server.settimeout(0.1)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                query, client = server.recvfrom(4096)
            except TimeoutError:
                continue
            if len(query) > 12 and not query[13:].startswith(silent.encode()):
                server.sendto(_answer(query, address, ending), client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        ended.set()
        thread.join()
        server.close()


def _answer(query: bytes, address: str, ending: bytes) -> bytes:
    """Return the answer to a query (RFC 1035 section 4.1): an A record, and no other type."""
    end = query.index(b"\0", 12) + 5
    (kind,) = struct.unpack("!H", query[end - 4 : end - 2])
    is_there = query[12 : end - 5].endswith(ending)
    is_known = kind == 1 and is_there
    if query[13:].startswith(b"garbled"):
        return query[:2] + b"\x81\x80" + query[2:5]
    head = (
        query[:2]
        + (b"\x81\x80" if is_there else b"\x81\x83")
        + struct.pack("!HHHH", 1, is_known, 0, 0)
    )
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(address)
    return head + query[12:end] + (record if is_known else b"")


def resolver_with(
    policy: network.Policy, port: int, *, clock: Callable[[], float] = time.monotonic
) -> network.HostResolver:
    """Return a resolver like the engine's that asks only the test's name server."""
    # Not pycares' `lookups`: 5.2.1 frees it before c-ares has read it, and no look-up goes out.
    channel = resolver.DnsChannel(servers=["127.0.0.1"], udp_port=port)
    return network.HostResolver(policy, ask=channel.ask, clock=clock)
