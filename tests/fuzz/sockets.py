"""The sockets of both senders, without a form or parser before them: no denied address passes.

The guard reports what it lets pass and the oracle judges it; no connection is made. Any connection
around the guard would be visible to strace (`make security` runs this under it).
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import pycurl
import requests

from tests.fuzz import urls
from tests.fuzz.target import FuzzTarget
from tests.security import oracle
from webhooks import network

_allowed_addresses: list[str] = []
_PORTS = (80, 443, 8443, 6379, 5432, 8000, 8080, 11211)


def _record(opener: Any, family: int, kind: int, protocol: int, where: Any) -> int:
    """Note the address that passed the guard, and open no socket."""
    _allowed_addresses.append(str(where[0]))
    bad: int = pycurl.SOCKET_BAD
    return bad


@contextlib.contextmanager
def around() -> Iterator[None]:
    with urls.names_are_answered():
        real = network.SocketOpener.open
        setattr(network.SocketOpener, "open", _record)  # noqa: B010 - mypy rejects an assignment.
        try:
            yield
        finally:
            setattr(network.SocketOpener, "open", real)  # noqa: B010


def check(given: tuple[str, tuple[str, ...]]) -> bool:
    url, answers = given
    _allowed_addresses.clear()
    by_requests(url, answers)
    by_libcurl(url, answers)
    assert [one for one in _allowed_addresses if oracle.is_denied(one, allowed=())] == []
    return bool(_allowed_addresses)


def by_requests(url: str, answers: tuple[str, ...]) -> None:
    urls.given_answers[:] = answers
    with (
        # ValueError: requests parses the URL itself before the adapter does.
        contextlib.suppress(requests.RequestException, ValueError),
        network.GuardedSession(policy=urls.CLOSED) as session,
    ):
        session.get(url)


def by_libcurl(url: str, answers: tuple[str, ...]) -> None:
    ports = {int(digits) for digits in re.findall(r":(\d{1,5})(?!\d)", url)} | set(_PORTS)
    handle = pycurl.Curl()
    try:
        network.configure_curl(handle, network.SocketOpener(urls.CLOSED))
        handle.setopt(pycurl.URL, url)
        pins = ",".join(f"[{one}]" if ":" in one else one for one in answers) or "127.0.0.1"
        # libcurl makes no DNS lookup: every name on each of these ports resolves to the pins.
        handle.setopt(pycurl.RESOLVE, [f"*:{port}:{pins}" for port in ports if port < 65_536])
        handle.setopt(pycurl.TIMEOUT_MS, 2000)
        handle.setopt(pycurl.WRITEFUNCTION, lambda chunk: None)
        handle.perform()
    except (pycurl.error, ValueError):
        # Only the addresses that passed the guard matter.
        return
    finally:
        handle.close()


TARGET = FuzzTarget(name="sockets", inputs=urls.INPUTS, check=check, around=around, share=1)
