"""The sockets that libcurl asks to watch, in an epoll.

libcurl stops watching a socket at the end of each request and asks again when the next one goes
out on the same connection. The kernel is told only of what differs from what it watches already,
which saves two system calls for each request. Every socket comes through the opener: names are
pinned, so libcurl looks nothing up by itself. Used by the sender's thread alone.
"""

import os
import select

import pycurl

from webhooks import network

# By what libcurl asks for: POLL_NONE, POLL_IN, POLL_OUT, POLL_INOUT.
_EVENTS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
_IN = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_OUT = select.EPOLLOUT | select.EPOLLERR


class SocketWatch:
    """Watches sockets for a multi handle (`change` is its M_SOCKETFUNCTION), and a wake-up pipe."""

    def __init__(self, opener: network.SocketOpener, wake: int) -> None:
        self._opener = opener
        self._opened = opener.opened
        self._wake = wake
        self._epoll = select.epoll()
        self._epoll.register(wake, select.EPOLLIN)
        # What the kernel watches; forgotten whenever a socket is opened, which may have the number
        # of one that was closed.
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
            self._epoll.modify(fd, events)
        except FileNotFoundError:
            self._epoll.register(fd, events)

    def poll(self, seconds: float) -> list[tuple[int, int]]:
        """Wait, at most so long; return sockets that are ready and their CSELECT flags."""
        ready = []
        for fd, events in self._epoll.poll(seconds):
            if fd in self._resting:
                # An idle connection that was closed by its other end: libcurl looks by itself.
                self._forget(fd)
            elif fd == self._wake:
                os.read(fd, 4096)
            else:
                flags = pycurl.CSELECT_IN if events & _IN else 0
                ready.append((fd, flags | pycurl.CSELECT_OUT if events & _OUT else flags))
        return ready

    def _forget(self, fd: int) -> None:
        self._events.pop(fd, None)
        self._epoll.unregister(fd)

    def close(self) -> None:
        self._epoll.close()
