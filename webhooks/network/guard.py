"""What every libcurl handle may open and how much it may read.

`SocketOpener` asks the address policy about each connection when it is made, `configure_curl` sets
what is the same for every request, `ResponseBuffer` limits the answer. Deliveries drive their
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

# Where distributions keep the CA bundle that their administrators edit. The pycurl wheel knows
# only Red Hat's.
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
# An old connection keeps the address that was checked when it was opened, not longer than this.
_CONNECTION_SECONDS = 300
# libcurl asks for these together with the socket type.
_SOCKET_FLAGS = getattr(socket, "SOCK_CLOEXEC", 0) | getattr(socket, "SOCK_NONBLOCK", 0)
# Servers and proxies cut their own headers at 8 to 32 KiB.
_MAX_HEADER_BYTES = 65_536
# Chunks of a few bytes: for each Python waits for its lock, while others are sent to.
_MAX_PIECES = 4096
# 100 Continue and 103 Early Hints come once or twice.
_MAX_INTERIM_ANSWERS = 16
# RFC 9112 section 4. libcurl takes other versions too, more digits, and http/1.1 500 for a 200.
_STATUS_LINE = re.compile(rb"HTTP/1\.[01][ \t]+([1-9][0-9]{2})[ \t\r\n]")
# Said in the words of libcurl, which takes an answer that ends within its head for whole.
NO_STATUS_LINE = Failure(PROTOCOL, "broken_answer", {"reason": "Invalid status line"})
CUT_HEAD = Failure(PROTOCOL, "broken_answer", {"reason": "transfer closed within the headers"})
# Everybody may read it at /readyz, so it does not name the proxy.
PROXY_NOT_FOUND = "the name of the egress proxy is not found"
PROXY_SILENT = "the egress proxy does not answer"
# CURLOPT_SUPPRESS_CONNECT_HEADERS has no name in pycurl.
_SUPPRESS_CONNECT_HEADERS = 265


@lru_cache(maxsize=1)
def ca_bundle() -> str:
    """Return the path of the CA certificates to trust: the system's, else certifi's."""
    return next((path for path in _CA_BUNDLES if os.path.isfile(path)), certifi.where())


class _Socket(socket.socket):
    """Close without a warning: libcurl works on its own duplicate of the descriptor."""

    def __del__(self) -> None:
        self.close()


class SocketOpener:
    """Open libcurl's sockets, each only after its address passed the policy.

    `configure_curl` sets it; it is called for new connections only, and sees every address, also
    of IP literals in any spelling. Concurrency: one opener per thread.
    """

    __slots__ = ("_families", "_opened_for", "_problems", "opened", "policy")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        # How many sockets were opened.
        self.opened = 0
        # By handle, why its last connection was refused.
        self._problems: dict[int, Failure] = {}
        # By handle, the address family of its last socket, and how many it had.
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
        """Return, once, why the last connection of this handle was refused, or None."""
        return self._problems.pop(id(handle), None)

    def lacks_resources(self, handle: Any) -> Failure | None:
        """Return what this machine lacked when the last connection of this handle failed, or None.

        Without IPv6 every address of it is not available, which is no lack. The operator's proxy is
        a part of the machine.
        """
        problem = self._problems.get(id(handle))
        if problem is not None:
            return problem if problem.code == NO_RESOURCES else None
        number = handle.getinfo(pycurl.OS_ERRNO)
        family = self._families.get(id(handle))
        is_lack = number in _LACKS or (number == errno.EADDRNOTAVAIL and family == socket.AF_INET)
        is_lack |= bool(self.policy.egress_proxy and number)
        return _no_resources(number) if is_lack else None

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
        # pycurl says only that the connection failed when no descriptor is left for its duplicate.
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


# No descriptors, of the process or of the machine, no buffers, no memory.
_LACKS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# Descriptors beside those of requests: databases, broker, logs, name servers, tokens.
_OTHER_FILES = 64


def _no_resources(number: int) -> Failure:
    return Failure(NETWORK, NO_RESOURCES, {"reason": os.strerror(number)})


def affordable_connections(wanted: int) -> int:
    """Raise the limit of descriptors as far as it goes; return how many connections they allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = _OTHER_FILES
    try:
        used = len(os.listdir("/proc/self/fd"))
    except OSError as error:
        if error.errno in _LACKS and soft != resource.RLIM_INFINITY:
            # To look takes a file too: as many are open as may be.
            used = soft
    needed = wanted + used + _OTHER_FILES
    if resource.RLIM_INFINITY != soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(2, min(wanted, soft - used - _OTHER_FILES))


def end_connection(descriptor: int) -> None:
    """End a connection of libcurl, which then fails to send on it and closes it."""
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
    """Set what is the same for every request; the caller limits the time."""
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
        # Nor is the proxy's answer the receiver's.
        (_SUPPRESS_CONNECT_HEADERS, 1),
        (pycurl.MAXLIFETIME_CONN, _CONNECTION_SECONDS),
    ):
        handle.setopt(option, value)


def set_url(handle: Any, url: str, policy: Policy) -> None:
    """Send to `Target.url`, or one with a longer query, as it is written and as the log shows it.

    Without REQUEST_TARGET libcurl writes the percent-encoding of a path in capitals.
    """
    handle.setopt(pycurl.URL, url)
    # RFC 9112 section 3.2.2: a proxy without a tunnel gets the whole address.
    is_whole = policy.egress_proxy and url.startswith("http:")
    handle.setopt(pycurl.REQUEST_TARGET, url if is_whole else url[url.index("/", 8) :])


def set_certificate(handle: Any, pem: str) -> None:
    """Show a client certificate, whose key stands in the same text, to servers that ask for one.

    "" shows none. libcurl reuses a connection only for the same certificate; a TLS session, which
    carries it along, is not resumed.
    """
    handle.setopt(pycurl.SSL_SESSIONID_CACHE, 0 if pem else 1)
    for option in (pycurl.SSLCERT_BLOB, pycurl.SSLKEY_BLOB):
        if pem:
            handle.setopt(option, pem.encode())
        else:
            handle.unsetopt(option)


class ResponseBuffer:
    """Collect the answer to one request, and end the transfer where it is out of bounds.

    A transfer that is ended so fails with E_WRITE_ERROR: `problem` says why, or is None when only
    the body is longer than `max_bytes`, or comes in too many pieces.
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
        # How many heads began. The next one does with the next line, at first and after an interim
        # answer; what follows the last one are trailers.
        self.heads = 0
        self.awaits_status = True
        self.is_interim = False
        # Whether the answer's own head came to its end.
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
            # libcurl would wait for what never comes: no other protocol was asked for.
            self.problem = Failure(PROTOCOL, "switched_protocol", {})
        elif self.heads > _MAX_INTERIM_ANSWERS:
            self.problem = Failure(PROTOCOL, "interim_answers", {"limit": _MAX_INTERIM_ANSWERS})
        else:
            self.is_interim = found[1].startswith(b"1")

    def is_read(self, handle: Any) -> bool:
        """Return whether an answer began and no socket of the handle failed."""
        return self.header_size > 0 and not handle.getinfo(pycurl.OS_ERRNO)

    def take_body(self, chunk: bytes) -> int | None:
        self.body_size += len(chunk)
        if len(self.body) >= _MAX_PIECES:
            return -1
        # What was read is kept; the status decides.
        self.body.append(chunk)
        return -1 if self.body_size > self.max_bytes else None
