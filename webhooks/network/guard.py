"""The address policy and the only code that opens a socket.

Everything that is sent leaves through here: deliveries through libcurl (`configure_curl`,
`open_socket`, `HostResolver`), OAuth through requests (`GuardedSession`). Both ask about every
address at the moment of the connect. Knows no models, no webhooks and no retries. The parts:
`addresses` (the policy), `ourselves` (what is our own), `targets` (URLs and names), `resolving`
(look-ups), `sessions` (requests).
"""

import socket
from collections.abc import Callable
from typing import Any

import pycurl

from webhooks.network.addresses import (
    NameNotResolved,
    Policy,
    SendError,
    UnsafeURL,
    address_problem,
    is_ip_address,
    parse_allowed_network,
)
from webhooks.network.resolver import (
    LOOKUP_SECONDS,
    HostResolver,
    Resolution,
    check_url,
    checked_addresses,
    proxy_addresses,
    resolve,
)
from webhooks.network.sessions import (
    DeadlineExceeded,
    GuardedAdapter,
    GuardedSession,
    GuardedSessionMixin,
    ResponseTooLarge,
    ca_bundle,
    guarded_session,
)
from webhooks.network.urls import Target, check_name, parse_url

__all__ = [
    "LOOKUP_SECONDS",
    "DeadlineExceeded",
    "GuardedAdapter",
    "GuardedSession",
    "GuardedSessionMixin",
    "HostResolver",
    "NameNotResolved",
    "Policy",
    "Resolution",
    "ResponseTooLarge",
    "SendError",
    "SocketOpener",
    "Target",
    "UnsafeURL",
    "address_problem",
    "ca_bundle",
    "check_name",
    "check_url",
    "checked_addresses",
    "configure_curl",
    "guarded_session",
    "is_ip_address",
    "open_socket",
    "parse_allowed_network",
    "parse_url",
    "resolve",
]

# An old connection keeps the address that was checked when it was opened, not longer than this.
_CONNECTION_SECONDS = 300
# libcurl asks for these together with the socket type.
_SOCKET_FLAGS = getattr(socket, "SOCK_CLOEXEC", 0) | getattr(socket, "SOCK_NONBLOCK", 0)


class _Socket(socket.socket):
    """Close without a warning: libcurl works on its own duplicate of the descriptor."""

    def __del__(self) -> None:
        self.close()


class SocketOpener:
    """Open libcurl's sockets, each only after its address passed the policy.

    `configure_curl` sets it; it is called for new connections only, and sees every address,
    also of IP literals in any spelling. `refused` keeps the latest reasons by address and port,
    `problem_for` that of one handle's transfer. Concurrency: one opener per thread.
    """

    __slots__ = ("_problems", "last_problem", "opened", "policy", "refused")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        # How many sockets were opened.
        self.opened = 0
        self.refused: dict[tuple[str, int], str] = {}
        self.last_problem: str | None = None
        self._problems: dict[int, str] = {}

    def __call__(self, purpose: int, address: Any) -> socket.socket | int:
        return self._open(address, None)

    def for_handle(self, handle: Any) -> Callable[[int, Any], socket.socket | int]:
        """Return the callback that remembers its refusals under this handle."""
        key = id(handle)
        return lambda purpose, address: self._open(address, key)

    def problem_for(self, handle: Any) -> str | None:
        """Return, once, why the last connection of this handle was refused, or None."""
        return self._problems.pop(id(handle), None)

    def _open(self, address: Any, key: int | None) -> socket.socket | int:
        family, kind, protocol, where = address
        problem = self._problem(family, kind, where)
        if problem is None:
            self._problems.pop(key or 0, None)
            self.opened += 1
            return _Socket(family, kind, protocol)
        self.last_problem = problem
        if len(self.refused) > 1000:
            self.refused.clear()
        self.refused[_address_and_port(where)] = problem
        if key is not None:
            self._problems[key] = problem
        bad: int = pycurl.SOCKET_BAD
        return bad

    def _problem(self, family: int, kind: int, where: Any) -> str | None:
        if kind & ~_SOCKET_FLAGS != socket.SOCK_STREAM or family not in (
            socket.AF_INET,
            socket.AF_INET6,
        ):
            return "Only TCP connections are made."
        address, port = _address_and_port(where)
        if not self.policy.egress_proxy:
            return address_problem(address, port, self.policy)
        try:
            is_proxy = (address, port) in proxy_addresses(self.policy)
        except NameNotResolved as error:
            return error.reason
        return None if is_proxy else f"{address} is not the egress proxy."


def _address_and_port(where: Any) -> tuple[str, int]:
    if not isinstance(where, tuple):
        return str(where), 0
    scope = where[3] if len(where) > 3 else 0
    return (f"{where[0]}%{scope}" if scope else where[0]), where[1]


def open_socket(policy: Policy) -> SocketOpener:
    """Return the callback for OPENSOCKETFUNCTION."""
    return SocketOpener(policy)


def configure_curl(handle: Any, opener: SocketOpener) -> None:
    """Set what is the same for every request that libcurl sends.

    libcurl ends a transfer whose headers pass 300 KiB; the caller limits body and time.
    """
    web = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
    for option, value in (
        (pycurl.OPENSOCKETFUNCTION, opener.for_handle(handle)),
        (pycurl.PROTOCOLS, web),
        (pycurl.REDIR_PROTOCOLS, web),
        (pycurl.FOLLOWLOCATION, 0),
        (pycurl.MAXREDIRS, 0),
        (pycurl.UNRESTRICTED_AUTH, 0),
        # Set, even to nothing, these keep libcurl from reading the environment.
        (pycurl.PROXY, opener.policy.egress_proxy),
        (pycurl.NOPROXY, "" if opener.policy.egress_proxy else "*"),
        (pycurl.NETRC, pycurl.NETRC_IGNORED),
        (pycurl.HTTP09_ALLOWED, 0),
        (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
        # Bodies stay as they were sent: nothing small becomes large.
        (pycurl.HTTP_CONTENT_DECODING, 0),
        (pycurl.NOSIGNAL, 1),
        (pycurl.SSL_VERIFYPEER, 1),
        (pycurl.SSL_VERIFYHOST, 2),
        (pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
        (pycurl.SSL_SESSIONID_CACHE, 1),
        (pycurl.CAINFO, ca_bundle()),
        (pycurl.PROXY_CAINFO, ca_bundle()),
        (pycurl.PROXY_SSL_VERIFYPEER, 1),
        (pycurl.PROXY_SSL_VERIFYHOST, 2),
        (pycurl.PROXY_SSLVERSION, pycurl.SSLVERSION_TLSv1_2),
        # A header of the request is for the receiver, not for the proxy in between.
        (pycurl.HEADEROPT, pycurl.HEADER_SEPARATE),
        (pycurl.MAXLIFETIME_CONN, _CONNECTION_SECONDS),
    ):
        handle.setopt(option, value)
