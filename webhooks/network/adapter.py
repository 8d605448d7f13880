"""Sessions of requests over the guarded libcurl of deliveries, for authorization servers.

Start at `GuardedAdapter.send`: one request on its own connection, never sent twice, with a size
limit and one deadline that includes the DNS lookup.
"""

import copy
import errno
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import pycurl
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers

from webhooks.network.addresses import Policy
from webhooks.network.failures import (
    PROTOCOL,
    TIMEOUT,
    TLS,
    DeadlineExceededError,
    Failure,
    NameNotResolvedError,
    Params,
    ResponseTooLargeError,
    SendError,
    TLSError,
    TransferError,
    UnsafeURLError,
    classify,
)
from webhooks.network.guard import (
    CUT_HEAD,
    ResponseBuffer,
    SocketOpener,
    configure_curl,
    set_certificate,
    set_url,
)
from webhooks.network.headers import header_line, merge_headers
from webhooks.network.resolver import checked_addresses, curl_resolve_entries
from webhooks.network.urls import Target, parse_url

# libcurl and pycurl add these headers; only those that requests prepared are sent. `Expect` would
# also make libcurl wait.
_UNWANTED_HEADERS = ("Accept", "Content-Type", "Expect", "User-Agent")
# libcurl sets these from the body.
_COUNTED_HEADERS = frozenset({"content-length", "transfer-encoding"})
_CLOSED = frozenset({pycurl.E_GOT_NOTHING, pycurl.E_RECV_ERROR, pycurl.E_SEND_ERROR})
# Called before a request of this context waits for the network: DNS lookup, then response.
before_waiting: ContextVar[Callable[[], None]] = ContextVar("before_waiting", default=lambda: None)


class GuardedAdapter(BaseAdapter):
    """Send to addresses that the policy allows, with one deadline and one size limit.

    The response is completely read and not decoded. Errors: UnsafeURLError and the SendErrors.
    Concurrency: keeps no state between requests.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        total_seconds: float = 10.0,
        max_bytes: int = 65_536,
    ) -> None:
        super().__init__()
        self.policy = policy
        self.total_seconds = total_seconds
        self.max_bytes = max_bytes

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        ends_at = time.monotonic() + self.total_seconds
        policy = self.policy or Policy.from_settings()
        target = parse_url(request.url or "", policy=policy)
        before_waiting.get()()
        pins = self._look_up(target, policy, ends_at)
        opener, handle = SocketOpener(policy), pycurl.Curl()
        buffer = ResponseBuffer(handle, max_bytes=self.max_bytes)
        try:
            configure_curl(handle, opener)
            handle.setopt(pycurl.RESOLVE, pins)
            if isinstance(verify, str):
                handle.setopt(pycurl.CAINFO, verify)
            if cert:
                set_certificate(handle, cert)
            set_url(handle, target.url, policy)
            _load(handle, request)
            handle.setopt(pycurl.TIMEOUT_MS, max(1, int((ends_at - time.monotonic()) * 1000)))
            handle.perform()
        except pycurl.error as error:
            failure = self._failure(error, handle, opener, buffer, request, target)
            if isinstance(failure, SendError):
                failure.is_sent = handle.getinfo(pycurl.REQUEST_SIZE) > 0
            raise failure from error
        else:
            if not buffer.has_head:
                cut = TransferError(CUT_HEAD)
                cut.is_sent = True
                raise cut
            return _response(request, handle.getinfo(pycurl.RESPONSE_CODE), buffer)
        finally:
            handle.close()

    def close(self) -> None:
        """Do nothing: no connection outlives its request."""

    def _look_up(self, target: Target, policy: Policy, ends_at: float) -> list[str]:
        """Return the RESOLVE entries that replace libcurl's own lookup.

        An egress proxy resolves names itself, but hosts that are refused here never reach it.
        """
        try:
            addresses = checked_addresses(
                target.host, target.port, policy, seconds=ends_at - time.monotonic()
            )
            return curl_resolve_entries(target.host, target.port, addresses, policy)
        except NameNotResolvedError as error:
            # A wait may end a moment early.
            if time.monotonic() > ends_at - 0.005:
                raise self._deadline_error() from error
            raise

    def _deadline_error(self) -> DeadlineExceededError:
        params: Params = {"seconds": f"{self.total_seconds:g}"}
        return DeadlineExceededError(Failure(TIMEOUT, "deadline", params))

    def _failure(
        self,
        error: pycurl.error,
        handle: Any,
        opener: SocketOpener,
        buffer: ResponseBuffer,
        request: requests.PreparedRequest,
        target: Target,
    ) -> SendError | UnsafeURLError:
        """Return the exception for a libcurl error."""
        number, message = error.args if len(error.args) == 2 else (0, str(error))
        if number == pycurl.E_COULDNT_CONNECT and (problem := opener.problem_for(handle)):
            return UnsafeURLError(problem)
        if number == pycurl.E_OPERATION_TIMEDOUT:
            return self._deadline_error()
        if number == pycurl.E_WRITE_ERROR and buffer.problem is None:
            return ResponseTooLargeError(
                Failure(PROTOCOL, "body_too_large", {"limit": self.max_bytes}),
                head=_response(request, handle.getinfo(pycurl.RESPONSE_CODE), buffer),
            )
        failure = buffer.problem or classify(
            number,
            message,
            host=target.host,
            timeout_seconds=0,
            is_connected=False,
            is_read=buffer.is_read(handle),
        )
        if failure.kind == TLS:
            return TLSError(failure)
        return TransferError(
            failure,
            is_refused=handle.getinfo(pycurl.OS_ERRNO) == errno.ECONNREFUSED,
            # A proxy that refused the tunnel does not count.
            is_closed=number in _CLOSED and handle.getinfo(pycurl.HTTP_CONNECTCODE) < 300,
        )


def _load(handle: Any, request: requests.PreparedRequest) -> None:
    """Set the method, body and headers of a prepared request; the handle has its URL."""
    handle.setopt(pycurl.FORBID_REUSE, 1)
    body = request.body or b""
    if not isinstance(body, bytes | str):
        raise TypeError("A guarded request takes its whole body as bytes or text.")
    if request.method == "HEAD":
        handle.setopt(pycurl.NOBODY, 1)
    elif body or request.method != "GET":
        handle.setopt(pycurl.POSTFIELDS, body.encode() if isinstance(body, str) else body)
    handle.setopt(pycurl.CUSTOMREQUEST, request.method)
    headers = CaseInsensitiveDict(request.headers)
    # Against decompression bombs.
    headers["Accept-Encoding"] = "identity"
    lines = [
        _line(name, value)
        for name, value in headers.items()
        if name.lower() not in _COUNTED_HEADERS
    ]
    lines += [f"{name}:".encode() for name in _UNWANTED_HEADERS if name not in headers]
    handle.setopt(pycurl.HTTPHEADER, lines)


def _line(name: str, value: str | bytes) -> bytes:
    """Return a header in libcurl's format. Errors: UnicodeError."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return header_line(name, text).encode("latin-1")


def _response(
    request: requests.PreparedRequest, status: int, buffer: ResponseBuffer
) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.request = request
    response.url = request.url or ""
    status_line, *lines = buffer.header_lines
    response.reason = status_line.decode("latin-1").strip().partition(" ")[2].partition(" ")[2]
    headers: list[tuple[str, str]] = []
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon:
            # The headers end here; trailers follow.
            break
        headers.append((name, value.strip()))
    response.headers.update(merge_headers(headers))
    response.encoding = get_encoding_from_headers(response.headers)
    # requests sets these when it reads a body.
    response._content = b"".join(buffer.body)
    response._content_consumed = True  # type: ignore[attr-defined]
    return response


class GuardedSessionMixin(requests.Session):
    """Send all requests of a session through the guard; call `guard` after its `__init__`."""

    _policy: Policy | None = None

    def guard(self, *, policy: Policy | None = None, **limits: Any) -> None:
        """Mount the guarded adapter; `limits` are its keyword arguments."""
        self._policy = policy
        # No proxies, CA bundles or netrc from the environment.
        self.trust_env = False
        self.max_redirects = 0
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = GuardedAdapter(policy=policy, **limits)
        self.adapters.clear()
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Check the URL as written, because requests repairs URLs that the parser refuses.

        Errors: UnsafeURLError, before any lookup.
        """
        checked = copy.copy(request)
        checked.url = parse_url(str(request.url or ""), policy=self._policy).url
        prepared = super().prepare_request(checked)
        if not (request.params or self.params):
            # As written: requests resolves dots and decodes percent-encoding.
            prepared.url = checked.url
        return prepared

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Follow no redirect: the 3xx itself is the response."""


class GuardedSession(GuardedSessionMixin):
    """A session that sends every request through the guard; its responses are already read."""

    def __init__(self, *, policy: Policy | None = None, **limits: Any) -> None:
        super().__init__()
        self.guard(policy=policy, **limits)
