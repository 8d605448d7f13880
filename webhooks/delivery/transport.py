"""The libcurl handles of the sender and the sockets they use.

`Transfer` is one handle with the buffers of its current request; `network.ResponseBuffer` limits
what is read. `SocketWatch` wraps epoll. libcurl stops watching a socket at the end of each request
and asks again when the next one goes out on the same connection; the kernel is told only what
differs from what it already watches, which saves two system calls for each request. Every socket
comes through the opener: names are pinned, so libcurl looks nothing up. Used by the sender thread
only.
"""

import os
import select

import pycurl

from webhooks import network
from webhooks.delivery.limiter import Limiter
from webhooks.delivery.requests import USER_AGENT, Request

_MAX_BODY_BYTES = 65_536
_CONNECT_TIMEOUT_SECONDS = 10


class Transfer(network.ResponseBuffer):
    """One easy handle and the buffers of its current request."""

    __slots__ = (
        "_opened_before", "_opener", "began_at", "curl", "is_fresh", "lease_ends", "limiter",
        "request", "sends",
    )  # fmt: skip

    def __init__(self, opener: network.SocketOpener) -> None:
        self.curl = pycurl.Curl()
        super().__init__(self.curl, max_bytes=_MAX_BODY_BYTES)
        network.configure_curl(self.curl, opener)
        self.curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        self.curl.setopt(pycurl.USERAGENT, USER_AGENT)
        self.curl.setopt(pycurl.CONNECTTIMEOUT, _CONNECT_TIMEOUT_SECONDS)
        self.curl.setopt(pycurl.PREREQFUNCTION, self._may_send)
        self.request: Request | None = None
        self.limiter: Limiter | None = None
        # Monotonic seconds, like all times here.
        self.began_at = self.lease_ends = 0.0
        # Whether the request must go out on a new connection.
        self.is_fresh = False
        # How often libcurl was about to send the request.
        self.sends = 0
        self._opener = opener
        self._opened_before = 0

    @property
    def ends_at(self) -> float:
        """Return when the request must be over.

        The sender checks this itself: libcurl checks its own timeout before it reads data that
        came in time.
        """
        assert self.request is not None
        return self.began_at + self.request.plan.timeout_seconds

    def load(
        self,
        request: Request,
        limiter: Limiter,
        lease_ends: float,
        began_at: float,
        *,
        is_fresh: bool = False,
    ) -> None:
        """Set what differs from the request this handle sent before."""
        curl, before, plan = self.curl, self.request, request.plan
        if before is None or before.plan.method != plan.method:
            _set_method(curl, plan.method)
        if before is None or before.url != request.url:
            network.set_url(curl, request.url, self._opener.policy)
        if (before.plan.certificate if before else "") != plan.certificate:
            network.set_certificate(curl, plan.certificate)
        curl.setopt(pycurl.HTTPHEADER, request.headers)
        if plan.method != "GET":
            curl.setopt(pycurl.POSTFIELDS, request.body)
        if is_fresh is not self.is_fresh:
            curl.setopt(pycurl.FRESH_CONNECT, int(is_fresh))
            self.is_fresh = is_fresh
        self.request, self.limiter, self.lease_ends = request, limiter, lease_ends
        self.began_at = began_at
        self.sends, self._opened_before = 0, self._opener.opened_for(curl)

    def _may_send(self, *_addresses: object) -> int:
        """Let libcurl send once, and once more on a new connection.

        When a kept connection turns out to be closed, libcurl sends again on up to five other kept
        ones, although the receiver may have read the request each time.
        """
        self.sends += 1
        may = self.sends == 1 or self._opener.opened_for(self.curl) > self._opened_before
        verdict: int = pycurl.PREREQFUNC_OK if may else pycurl.PREREQFUNC_ABORT
        return verdict

    def met_closed(self, code: int) -> bool:
        """Return whether the request met a kept connection that was closed, and got no response.

        Then it is sent once more, on a new connection. If it could not be sent completely, it was
        not received; if it was, libcurl itself wants to send it again.
        """
        if self.is_fresh or self.header_size or self.curl.getinfo(pycurl.NUM_CONNECTS):
            return False
        return code in (pycurl.E_SEND_ERROR, pycurl.E_ABORTED_BY_CALLBACK)


def _set_method(curl: pycurl.Curl, method: str) -> None:
    if method == "GET":
        curl.unsetopt(pycurl.CUSTOMREQUEST)
        curl.setopt(pycurl.HTTPGET, 1)
    else:
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.CUSTOMREQUEST, method)


# Indexed by what libcurl asks for: POLL_NONE, POLL_IN, POLL_OUT, POLL_INOUT.
_EVENTS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
_IN = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_OUT = select.EPOLLOUT | select.EPOLLERR


class SocketWatch:
    """Watches sockets for a multi handle (`change` is its M_SOCKETFUNCTION), and a wake-up pipe."""

    def __init__(self, opener: network.SocketOpener, wake: int) -> None:
        self._opener = opener
        self._opened = opener.opened
        self.wake = wake
        self.epoll = select.epoll()
        self.epoll.register(wake, select.EPOLLIN)
        # What the kernel watches; cleared whenever a socket is opened, which may reuse the number
        # of a closed one.
        self._events: dict[int, int] = {}
        # Sockets that the kernel watches and libcurl does not.
        self._resting: set[int] = set()

    def change(self, what: int, fd: int, _multi: object, _known: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._resting.add(fd)
            return
        self._resting.discard(fd)
        if self._opened != self._opener.opened:
            self._opened = self._opener.opened
            self._events.clear()
        events = _EVENTS[what]
        if self._events.get(fd) == events:
            return
        self._events[fd] = events
        try:
            self.epoll.modify(fd, events)
        except FileNotFoundError:
            self.epoll.register(fd, events)

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """Wait for at most `seconds`; return sockets that are ready and their CSELECT flags."""
        ready = []
        for fd, events in self.epoll.poll(seconds):
            if fd in self._resting:
                # An idle connection that the receiver closed or sent more data on than requested:
                # that data must not be taken for the response to a later request.
                self._forget(fd)
                network.end_connection(fd)
            elif fd == self.wake:
                os.read(fd, 4096)
            else:
                flags = pycurl.CSELECT_IN if events & _IN else 0
                ready.append((fd, flags | pycurl.CSELECT_OUT if events & _OUT else flags))
        return ready

    def _forget(self, fd: int) -> None:
        self._events.pop(fd, None)
        self.epoll.unregister(fd)

    def close(self) -> None:
        self.epoll.close()
