"""What a libcurl handle may connect to, and how much it may read.

`SocketOpener` checks each new connection against the address policy, `configure_curl` sets the
options that all requests share, `ResponseBuffer` limits the response. Deliveries drive their
handles in a CurlMulti; `adapter` sends one request at a time for requests.
"""

import errno
import os
import re
import resource
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import certifi
import pycurl

from webhooks.network.addresses import Policy, address_problem
from webhooks.network.failures import (
    NETWORK,
    NO_RESOURCES,
    PROTOCOL,
    Failure,
    NameNotResolvedError,
    blocked,
)
from webhooks.network.resolver import proxy_addresses

# CA bundles that the administrators of each distribution edit. The pycurl wheel knows only Red
# Hat's.
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
# Maximum age of a reused connection; its address was checked only when it was opened.
_CONNECTION_SECONDS = 300
# libcurl passes these flags together with the socket type.
_SOCKET_FLAGS = getattr(socket, "SOCK_CLOEXEC", 0) | getattr(socket, "SOCK_NONBLOCK", 0)
# Servers and proxies limit their own headers to 8 to 32 KiB.
_MAX_HEADER_BYTES = 65_536
# Limit for tiny chunks: the callback for each takes Python's lock, which delays other requests.
_MAX_CHUNKS = 4096
# 100 Continue and 103 Early Hints come once or twice.
_MAX_INTERIM_RESPONSES = 16
# RFC 9112 section 4. libcurl also accepts other versions and more digits, and takes "http/1.1 500"
# for a 200.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01][ \t]+([1-9][0-9]{2})[ \t\r\n]")
# Worded like libcurl's errors. libcurl accepts a response that ends within its headers.
NO_STATUS_LINE = Failure(PROTOCOL, "broken_answer", {"reason": "Invalid status line"})
CUT_HEAD = Failure(PROTOCOL, "broken_answer", {"reason": "transfer closed within the headers"})
# Shown at /readyz, which is public, so neither names the proxy.
PROXY_NOT_FOUND = "the name of the egress proxy is not found"
PROXY_SILENT = "the egress proxy does not answer"
NO_PORTS = "no local port is left for connections to one address"
# CURLOPT_SUPPRESS_CONNECT_HEADERS has no name in pycurl.
_SUPPRESS_CONNECT_HEADERS = 265


@lru_cache(maxsize=1)
def ca_bundle() -> str:
    """Return the path of the CA certificates to trust: the system's, else certifi's."""
    return next((path for path in _CA_BUNDLES if os.path.isfile(path)), certifi.where())


class _Socket(socket.socket):
    """A socket that closes without a ResourceWarning: libcurl uses its own duplicate."""

    def __del__(self) -> None:
        self.close()


class SocketOpener:
    """Open sockets for libcurl, only to addresses that the policy allows.

    `configure_curl` installs it. libcurl calls it for each new connection, with the numeric address
    even where the URL spells an IP literal in another way. Concurrency: one opener per thread.
    """

    __slots__ = ("_families", "_opened_for", "_problems", "opened", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        # Number of sockets opened.
        self.opened = 0
        # By handle: why its last connection was refused.
        self._problems: dict[int, Failure] = {}
        # By handle: the address family of its last socket, and the number of its sockets.
        self._families: dict[int, int] = {}
        self._opened_for: dict[int, int] = {}

    def for_handle(self, handle: Any) -> Callable[[int, Any], socket.socket | int]:
        """Return the OPENSOCKETFUNCTION of a handle."""
        key = id(handle)
        return lambda purpose, address: self._check_and_open(key, *address)

    def opened_for(self, handle: Any) -> int:
        """Return how many sockets were opened for a handle so far."""
        return self._opened_for.get(id(handle), 0)

    def problem_for(self, handle: Any) -> Failure | None:
        """Return and clear why the last connection of this handle was refused, or None."""
        return self._problems.pop(id(handle), None)

    def resource_failure(self, handle: Any) -> Failure | None:
        """Return the failure if a local resource was missing for the last connection, else None.

        Without IPv6 every IPv6 address fails with EADDRNOTAVAIL, which is no missing resource.
        Failures of the operator's egress proxy count as local.
        """
        problem = self._problems.get(id(handle))
        if problem is not None:
            return problem if problem.code == NO_RESOURCES else None
        number = handle.getinfo(pycurl.OS_ERRNO)
        family = self._families.get(id(handle))
        if number == errno.EADDRNOTAVAIL and family == socket.AF_INET:
            return Failure(NETWORK, NO_RESOURCES, {"reason": NO_PORTS})
        is_missing = number in _RESOURCE_ERRNOS or bool(self.policy.egress_proxy and number)
        return _no_resources(number) if is_missing else None

    def _check_and_open(
        self, key: int, family: int, kind: int, protocol: int, where: Any
    ) -> socket.socket | int:
        problem = self._problem(family, kind, where)
        if problem is None:
            try:
                opened = self.open(family, kind, protocol, where)
            except OSError as error:
                problem = _no_resources(error.errno or 0)
            else:
                self._problems.pop(key, None)
                self._families[key] = family
                self._opened_for[key] = self._opened_for.get(key, 0) + 1
                self.opened += 1
                return opened
        self._problems[key] = problem
        bad: int = pycurl.SOCKET_BAD
        return bad

    def open(self, family: int, kind: int, protocol: int, where: Any) -> socket.socket | int:
        """Open a socket for an address that passed the policy. Errors: OSError."""
        opened = _Socket(family, kind, protocol)
        # Fail here when no descriptor is left for pycurl's duplicate; pycurl would only report a
        # failed connection.
        os.close(os.dup(opened.fileno()))
        return opened

    def _problem(self, family: int, kind: int, where: Any) -> Failure | None:
        if kind & ~_SOCKET_FLAGS != socket.SOCK_STREAM or family not in (
            socket.AF_INET,
            socket.AF_INET6,
        ):
            return blocked("no_tcp")
        address, port = _address_and_port(where)
        if not self.policy.egress_proxy:
            return address_problem(address, port, self.policy)
        try:
            is_proxy = (address, port) in proxy_addresses(self.policy)
        except NameNotResolvedError:
            return Failure(NETWORK, NO_RESOURCES, {"reason": PROXY_NOT_FOUND})
        return None if is_proxy else blocked("no_proxy", address=address)


# No descriptors (process or machine), buffers or memory left.
_RESOURCE_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Descriptors reserved for other uses: databases, broker, logs, name servers, tokens.
_OTHER_FILES = 64


def _no_resources(number: int) -> Failure:
    return Failure(NETWORK, NO_RESOURCES, {"reason": os.strerror(number)})


def affordable_connections(wanted: int) -> int:
    """Raise the descriptor limit as needed and possible; return how many connections fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = _OTHER_FILES
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError as error:
        if error.errno in _RESOURCE_ERRNOS and soft != resource.RLIM_INFINITY:
            # Listing the directory needs a descriptor too: the limit is reached.
            used = soft
    needed = wanted + used + _OTHER_FILES
    if resource.RLIM_INFINITY != soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(2, min(wanted, soft - used - _OTHER_FILES))


def end_connection(descriptor: int) -> None:
    """Shut down a connection of libcurl, which then fails to send on it and closes it."""
    connection = socket.socket(fileno=descriptor)
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.detach()


def _address_and_port(where: Any) -> tuple[str, int]:
    if not isinstance(where, tuple):
        return str(where), 0
    scope = where[3] if len(where) > 3 else 0
    return (f"{where[0]}%{scope}" if scope else where[0]), where[1]


def configure_curl(handle: Any, opener: SocketOpener) -> None:
    """Set the options that all requests share; the caller sets the timeouts."""
    web = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
    for option, value in (
        (pycurl.OPENSOCKETFUNCTION, opener.for_handle(handle)),
        (pycurl.PROTOCOLS, web),
        (pycurl.REDIR_PROTOCOLS, web),
        (pycurl.FOLLOWLOCATION, 0),
        (pycurl.MAXREDIRS, 0),
        (pycurl.UNRESTRICTED_AUTH, 0),
        # Set even when empty, or libcurl reads them from the environment.
        (pycurl.PROXY, opener.policy.egress_proxy),
        (pycurl.NOPROXY, "" if opener.policy.egress_proxy else "*"),
        (pycurl.NETRC, pycurl.NETRC_IGNORED),
        (pycurl.HTTP09_ALLOWED, 0),
        (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
        # No decompression in libcurl, against decompression bombs.
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
        # Request headers are for the receiver, not for the proxy.
        (pycurl.HEADEROPT, pycurl.HEADER_SEPARATE),
        # The proxy's CONNECT response is not the receiver's.
        (_SUPPRESS_CONNECT_HEADERS, 1),
        (pycurl.MAXLIFETIME_CONN, _CONNECTION_SECONDS),
    ):
        handle.setopt(option, value)


def set_url(handle: Any, url: str, policy: Policy) -> None:
    """Set `Target.url`, or one with a longer query, to be sent exactly as the log shows it.

    Without REQUEST_TARGET libcurl writes the percent-encoding of a path in upper case.
    """
    handle.setopt(pycurl.URL, url)
    # RFC 9112 section 3.2.2: a proxy without a tunnel gets the absolute URL.
    is_whole = policy.egress_proxy and url.startswith("http:")
    handle.setopt(pycurl.REQUEST_TARGET, url if is_whole else url[url.index("/", 8) :])


def set_certificate(handle: Any, pem: str) -> None:
    """Use the client certificate and key in `pem` for servers that ask for one; "" uses none.

    libcurl reuses a connection only for the same certificate. A TLS session carries the certificate
    along, so sessions are not resumed.
    """
    handle.setopt(pycurl.SSL_SESSIONID_CACHE, 0 if pem else 1)
    for option in (pycurl.SSLCERT_BLOB, pycurl.SSLKEY_BLOB):
        if pem:
            handle.setopt(option, pem.encode())
        else:
            handle.unsetopt(option)


class ResponseBuffer:
    """Collect the response to one request, and abort the transfer at the first limit.

    An aborted transfer fails with E_WRITE_ERROR. `problem` is the reason, or None when only the
    body is longer than `max_bytes` or comes in too many chunks.
    """

    __slots__ = (
        "awaits_status", "body", "body_size", "has_head", "header_lines", "header_size", "heads",
        "is_interim", "max_bytes", "problem",
    )  # fmt: skip

    def __init__(self, handle: Any, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        handle.setopt(pycurl.HEADERFUNCTION, self.take_header)
        handle.setopt(pycurl.WRITEFUNCTION, self.take_body)
        self.clear()

    def clear(self) -> None:
        self.header_lines: list[bytes] = []
        self.header_size = 0
        # Number of header sections begun. While `awaits_status` is true the next line begins one:
        # at the start and after an interim response. Lines after the final section are trailers.
        self.heads = 0
        self.awaits_status = True
        self.is_interim = False
        # Whether the headers of the final response are complete.
        self.has_head = False
        self.body: list[bytes] = []
        self.body_size = 0
        self.problem: Failure | None = None

    def take_header(self, line: bytes) -> int | None:
        self.header_size += len(line)
        if self.awaits_status:
            self._begin_head(line)
        elif len(line) < 3 and not line.strip(b"\r\n"):
            self.awaits_status, self.has_head = self.is_interim, not self.is_interim
        if self.header_size > _MAX_HEADER_BYTES:
            self.problem = Failure(PROTOCOL, "headers_too_large", {})
        if self.problem:
            return -1
        self.header_lines.append(line)
        return None

    def _begin_head(self, line: bytes) -> None:
        self.heads += 1
        self.awaits_status = False
        self.header_lines.clear()
        found = _STATUS_LINE.match(line)
        if found is None:
            self.problem = NO_STATUS_LINE
        elif found[1] == b"101":
            # No other protocol was requested, so libcurl would wait without end.
            self.problem = Failure(PROTOCOL, "switched_protocol", {})
        elif self.heads > _MAX_INTERIM_RESPONSES:
            self.problem = Failure(PROTOCOL, "interim_answers", {"limit": _MAX_INTERIM_RESPONSES})
        else:
            self.is_interim = found[1].startswith(b"1")

    def is_read(self, handle: Any) -> bool:
        """Return whether a response began and no socket of the handle failed."""
        return self.header_size > 0 and not handle.getinfo(pycurl.OS_ERRNO)

    def take_body(self, chunk: bytes) -> int | None:
        self.body_size += len(chunk)
        if len(self.body) >= _MAX_CHUNKS:
            return -1
        # Kept although over the limit: the status of the response still counts.
        self.body.append(chunk)
        return -1 if self.body_size > self.max_bytes else None
