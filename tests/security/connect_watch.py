"""Watches every connect of Python's own sockets and of libcurl, over the whole test run.

A connect to a denied address is stopped before it leaves and fails the test that tried: Python's
by an audit hook, libcurl's where it is given its sockets. The tests' own servers are on loopback,
the only network open to them. Connects of libcurl without asking for a socket are not seen here;
strace finds those (`tests.security.oracle`).
"""

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pycurl
import pytest

from tests.security import figures, oracle

_denied: list[str] = []
_seen = 0
_is_watching = False


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event != "socket.connect" or not isinstance(args[1], tuple):
        return
    if args[0].type & 0xF == socket.SOCK_STREAM:
        _note(args[1])


def _note(where: Any) -> None:
    """Count a connect. Errors: ConnectionRefusedError when it is denied."""
    global _seen
    _seen += 1
    address = str(where[0])
    try:
        is_denied = oracle.is_denied(address)
    except ValueError:
        # A name given to the socket itself: what it resolves to was never checked.
        is_denied = address != "localhost"
    if is_denied:
        _denied.append(f"{address} port {where[1]}")
        raise ConnectionRefusedError(
            f"{address} is denied: stopped by tests/security/connect_watch.py"
        )


def begin() -> None:
    """Install the audit hook once: Python cannot remove it again."""
    global _is_watching
    if not _is_watching:
        _is_watching = True
        sys.addaudithook(_watch)
        _watch_libcurl()


def _watch_libcurl() -> None:
    # Imported only when the tests begin: the product reads its settings then.
    from webhooks.network import SocketOpener

    real = SocketOpener.open

    def watched(opener: Any, family: int, kind: int, protocol: int, where: Any) -> Any:
        try:
            _note(where)
        except ConnectionRefusedError:
            bad: int = pycurl.SOCKET_BAD
            return bad
        return real(opener, family, kind, protocol, where)

    setattr(SocketOpener, "open", watched)  # noqa: B010 - typed as what it was.


def seen() -> int:
    """Return how many TCP connects Python's sockets and libcurl tried in this process."""
    return _seen


def take_denied() -> list[str]:
    """Return the denied connects so far, and forget them."""
    found = _denied.copy()
    _denied.clear()
    return found


@pytest.fixture(autouse=True)
def _connects_are_watched() -> Iterator[None]:
    yield
    if found := take_denied():
        figures.report("connects", denied=len(found))
        pytest.fail(f"A connect to a denied address was tried: {', '.join(found)}")


def end() -> bool:
    """Report what was seen; return whether a thread tried something denied outside of any test."""
    found = take_denied()
    figures.report("connects", seen=_seen, denied=len(found))
    return bool(found)
