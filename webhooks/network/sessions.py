"""Guarded sessions of requests, for the exchanges with authorization servers.

Owns the deadline over a whole exchange, the size of an answer, and the connections of requests:
each address is checked at the moment of the connect. Names are given out by `webhooks.network`.
"""

import copy
import os
import socket
import ssl
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import certifi
import requests
from django.utils.translation import gettext as _
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.ssl_ import create_urllib3_context

from webhooks.network.addresses import NameNotResolved, Policy, SendError, UnsafeURL
from webhooks.network.resolver import checked_addresses, proxy_addresses
from webhooks.network.urls import Target, parse_url

# Where distributions keep the CA bundle that their administrators edit. The pycurl wheel knows
# only Red Hat's.
_CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
_READ_BYTES = 16_384


class DeadlineExceeded(SendError):
    """Say that an exchange took longer in total than it may."""


class ResponseTooLarge(SendError):
    """Say that an answer has more bytes than anybody needs; its status was `status_code`."""

    def __init__(self, reason: str, *, status_code: int) -> None:
        super().__init__(reason)
        self.status_code = status_code


@lru_cache(maxsize=1)
def ca_bundle() -> str:
    """Return the path of the CA certificates that both senders trust."""
    return next((path for path in _CA_BUNDLES if os.path.isfile(path)), certifi.where())


@dataclass(slots=True, kw_only=True)
class _Exchange:
    """One request and its answer: what it may reach, until when, and why it was stopped."""

    policy: Policy
    ends_at: float
    problem: Exception | None = None

    def remaining_seconds(self) -> float:
        remaining = self.ends_at - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("The exchange is over its deadline.")
        return remaining

    @property
    def is_over(self) -> bool:
        # A socket's own timeout may end a moment early.
        return time.monotonic() > self.ends_at - 0.005


_exchange: ContextVar[_Exchange] = ContextVar("exchange")


class _DeadlineSocket(socket.socket):
    """Give every operation only what is left of the whole exchange's time."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_exchange.get().remaining_seconds())
        return super().recv_into(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(_exchange.get().remaining_seconds())
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.settimeout(_exchange.get().remaining_seconds())
        super().sendall(*args, **kwargs)


class _DeadlineTLSSocket(_DeadlineSocket, ssl.SSLSocket):
    """The same under TLS. The handshake's time is that of the socket when it was connected."""


def _connect(host: str, port: int) -> socket.socket:
    """Resolve once, check every answer, and connect to one of them.

    Errors: OSError; the reason is kept in the exchange.
    """
    exchange = _exchange.get()
    try:
        if exchange.policy.egress_proxy:
            places = proxy_addresses(exchange.policy)
        else:
            seconds = exchange.remaining_seconds()
            addresses = checked_addresses(host, port, exchange.policy, seconds=seconds)
            places = tuple((address, port) for address in addresses)
    except (UnsafeURL, NameNotResolved) as problem:
        exchange.problem = problem
        raise OSError(str(problem)) from problem
    failure: OSError | None = None
    for left, place in zip(range(len(places), 0, -1), places, strict=True):
        try:
            return _connect_to(place, exchange, share=left)
        except OSError as error:
            failure = error
    raise failure or OSError(_("The name %(host)s has no address.") % {"host": host})


def _connect_to(place: tuple[str, int], exchange: _Exchange, *, share: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
    connection = _DeadlineSocket(family, socket.SOCK_STREAM)
    try:
        # One dead address leaves time for the others.
        connection.settimeout(exchange.remaining_seconds() / share)
        connection.connect(place)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(exchange.remaining_seconds())
    except OSError:
        connection.close()
        raise
    return connection


class _GuardedHTTPConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self.host, self.port)


class _GuardedHTTPSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connect(self.host, self.port)


class _GuardedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _GuardedHTTPConnection


class _GuardedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _GuardedHTTPSConnection


_POOLS = {"http": _GuardedHTTPPool, "https": _GuardedHTTPSPool}


class GuardedAdapter(HTTPAdapter):
    """Send for requests, within one deadline and size, to addresses the policy allows.

    The response comes back read, raw, and with its connection closed. Errors: UnsafeURL,
    NameNotResolved, DeadlineExceeded, ResponseTooLarge, and those of requests.
    Concurrency: one adapter, and so one session, per thread.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        total_seconds: float = 10.0,
        max_bytes: int = 65_536,
    ) -> None:
        self.policy = policy
        self.total_seconds = total_seconds
        self.max_bytes = max_bytes
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        context = create_urllib3_context(ssl_minimum_version=ssl.TLSVersion.TLSv1_2)
        context.sslsocket_class = _DeadlineTLSSocket
        super().init_poolmanager(*args, **kwargs, ssl_context=context)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        # An http address may lie behind a proxy that is reached over TLS, which requests would
        # not verify then.
        super().cert_verify(conn, "https://", verify, cert)  # type: ignore[no-untyped-call]

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        policy = self.policy or Policy.from_settings()
        target = parse_url(request.url or "", policy=policy)
        exchange = _Exchange(policy=policy, ends_at=time.monotonic() + self.total_seconds)
        proxies = self._proxies(target, policy)
        verify = verify if isinstance(verify, str) else ca_bundle()
        timeout = self.total_seconds
        request.url = target.url
        request.headers["Accept-Encoding"] = "identity"
        token = _exchange.set(exchange)
        try:
            return self._read(super().send(request, True, timeout, verify, None, proxies))
        except ResponseTooLarge:
            raise
        except (HTTPError, OSError) as error:
            raise self._told(error, exchange) from error
        finally:
            _exchange.reset(token)
            self.close()

    def _proxies(self, target: Target, policy: Policy) -> dict[str, str]:
        if not policy.egress_proxy:
            return {}
        # The proxy resolves by itself; what we know to be refused does not get to it.
        checked_addresses(target.host, target.port, policy, seconds=self.total_seconds)
        return {target.scheme: policy.egress_proxy}

    def _read(self, response: requests.Response) -> requests.Response:
        body = bytearray()
        try:
            for chunk in response.raw.stream(_READ_BYTES, decode_content=False):
                body += chunk
                if len(body) > self.max_bytes:
                    raise ResponseTooLarge(
                        _("The answer is longer than %(limit)d bytes.") % {"limit": self.max_bytes},
                        status_code=response.status_code,
                    )
        finally:
            response.raw.close()
        # What requests itself sets when it reads a body.
        response._content = bytes(body)
        response._content_consumed = True  # type: ignore[attr-defined]
        return response

    def _told(self, error: Exception, exchange: _Exchange) -> Exception:
        """Return the error in the caller's terms."""
        if isinstance(exchange.problem, UnsafeURL):
            return exchange.problem
        if exchange.is_over:
            return DeadlineExceeded(
                _("The exchange took longer than %(seconds)s s.")
                % {"seconds": f"{self.total_seconds:g}"}
            )
        if exchange.problem is not None:
            return exchange.problem
        if isinstance(error, requests.RequestException):
            return error
        return requests.ConnectionError(error)


class GuardedSessionMixin(requests.Session):
    """Make any session of requests send guarded; call `guard` after its own `__init__`."""

    _policy: Policy | None = None

    def guard(
        self,
        *,
        policy: Policy | None = None,
        total_seconds: float = 10.0,
        max_bytes: int = 65_536,
    ) -> None:
        self._policy = policy
        # No proxies, CA bundles or netrc from the environment.
        self.trust_env = False
        self.max_redirects = 0
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = GuardedAdapter(policy=policy, total_seconds=total_seconds, max_bytes=max_bytes)
        self.adapters.clear()
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Judge the URL as it was written: requests repairs what the parser refuses.

        Errors: UnsafeURL, before anything is looked up.
        """
        judged = copy.copy(request)
        judged.url = parse_url(str(request.url or ""), policy=self._policy).url
        return super().prepare_request(judged)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect: the answer is the 3xx itself."""


class GuardedSession(GuardedSessionMixin):
    """A session whose every request is guarded; its responses are already read."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        total_seconds: float = 10.0,
        max_bytes: int = 65_536,
    ) -> None:
        super().__init__()
        self.guard(policy=policy, total_seconds=total_seconds, max_bytes=max_bytes)


def guarded_session(
    *, policy: Policy | None = None, total_seconds: float = 10.0, max_bytes: int = 65_536
) -> GuardedSession:
    """Return a session for one or a few exchanges with an authorization server."""
    return GuardedSession(policy=policy, total_seconds=total_seconds, max_bytes=max_bytes)
