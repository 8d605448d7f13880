"""One libcurl handle and the buffers of the request it is working on.

Sets a request on the handle; `sender` drives it, `network.ResponseBuffer` limits the answer.
"""

import pycurl

from webhooks import network
from webhooks.delivery.limiter import Lane
from webhooks.delivery.requests import USER_AGENT, Request

_MAX_BODY_BYTES = 65_536
_CONNECT_TIMEOUT_SECONDS = 10
# What libcurl says then.
_DIED = "Connection died"


class Slot(network.ResponseBuffer):
    """One easy handle and the buffers of the request it is working on."""

    __slots__ = ("curl", "is_fresh", "lane", "lease_ends", "request")

    def __init__(self, opener: network.SocketOpener) -> None:
        self.curl = pycurl.Curl()
        super().__init__(self.curl, max_bytes=_MAX_BODY_BYTES)
        network.configure_curl(self.curl, opener)
        self.curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        self.curl.setopt(pycurl.USERAGENT, USER_AGENT)
        self.curl.setopt(pycurl.CONNECTTIMEOUT, _CONNECT_TIMEOUT_SECONDS)
        self.request: Request | None = None
        self.lane: Lane | None = None
        self.lease_ends = 0.0
        # Whether the request has to have a connection of its own.
        self.is_fresh = False

    def load(
        self, request: Request, lane: Lane, lease_ends: float, *, is_fresh: bool = False
    ) -> None:
        """Set what differs from the request this handle sent before."""
        curl, before, plan = self.curl, self.request, request.plan
        if before is None or before.plan.method != plan.method:
            _set_method(curl, plan.method)
        if before is None or before.plan.timeout_seconds != plan.timeout_seconds:
            curl.setopt(pycurl.TIMEOUT_MS, plan.timeout_seconds * 1000)
        if before is None or before.url != request.url:
            curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.HTTPHEADER, request.headers)
        if plan.method != "GET":
            curl.setopt(pycurl.POSTFIELDS, request.body)
        if is_fresh is not self.is_fresh:
            curl.setopt(pycurl.FRESH_CONNECT, int(is_fresh))
            self.is_fresh = is_fresh
        self.request, self.lane, self.lease_ends = request, lane, lease_ends

    def met_only_closed(self, code: int, message: str) -> bool:
        """Say whether the request got no connection that was still open.

        libcurl sends again by itself when a kept connection turns out to be closed, but on other
        kept ones: a receiver that closes each without saying so closed them all.
        """
        return code == pycurl.E_SEND_ERROR and not self.is_fresh and _DIED in message


def _set_method(curl: pycurl.Curl, method: str) -> None:
    if method == "GET":
        curl.unsetopt(pycurl.CUSTOMREQUEST)
        curl.setopt(pycurl.HTTPGET, 1)
    else:
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.CUSTOMREQUEST, method)
