"""Sockets watched for libcurl: what is registered with the kernel, also while one is idle."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pycurl
import pytest

from webhooks import network
from webhooks.delivery.transport import SocketWatch


class Watched:
    """A socket watch with its opener; `pair` returns a connected socket and its other end."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.opener = network.SocketOpener(network.Policy())
        wake, self.waker = os.pipe2(os.O_NONBLOCK)
        stack.callback(os.close, wake)
        stack.callback(os.close, self.waker)
        self.watch = SocketWatch(self.opener, wake)
        stack.callback(self.watch.close)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        self.opener.opened += 1
        ours, theirs = socket.socketpair()
        self._stack.enter_context(ours)
        self._stack.enter_context(theirs)
        return ours, theirs

    def change(self, what: int, own: socket.socket) -> None:
        self.watch.change(what, own.fileno(), None, None)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with ExitStack() as stack:
        yield Watched(stack)


def test_a_socket_that_rests_between_two_requests_is_heard_again(watched: Watched) -> None:
    ours, theirs = watched.pair()
    for _ in range(3):
        watched.change(pycurl.POLL_IN, ours)
        theirs.send(b"answer")
        assert watched.watch.poll(1.0) == [(ours.fileno(), pycurl.CSELECT_IN)]
        ours.recv(100)
        watched.change(pycurl.POLL_REMOVE, ours)
        assert watched.watch.poll(0.0) == []


def test_ready_to_write_and_to_read_are_distinguished(watched: Watched) -> None:
    ours, theirs = watched.pair()
    watched.change(pycurl.POLL_OUT, ours)
    assert watched.watch.poll(1.0) == [(ours.fileno(), pycurl.CSELECT_OUT)]
    theirs.send(b"answer")
    watched.change(pycurl.POLL_INOUT, ours)
    both = pycurl.CSELECT_IN | pycurl.CSELECT_OUT
    assert watched.watch.poll(1.0) == [(ours.fileno(), both)]


def test_an_idle_connection_that_its_other_end_closed_is_not_spun_on(watched: Watched) -> None:
    ours, theirs = watched.pair()
    watched.change(pycurl.POLL_IN, ours)
    watched.change(pycurl.POLL_REMOVE, ours)
    theirs.close()
    assert watched.watch.poll(1.0) == []
    # The kernel no longer reports the closed end, so polling does not spin.
    os.write(watched.waker, b"w")
    assert watched.watch.epoll.poll(1.0) == [(watched.watch.wake, 1)]
    # libcurl uses the connection once more and has to learn that it ended.
    watched.change(pycurl.POLL_IN, ours)
    assert (ours.fileno(), pycurl.CSELECT_IN) in watched.watch.poll(1.0)


def test_an_idle_connection_with_more_to_say_is_ended(watched: Watched) -> None:
    ours, theirs = watched.pair()
    watched.change(pycurl.POLL_IN, ours)
    watched.change(pycurl.POLL_REMOVE, ours)
    theirs.send(b"one answer too many")
    assert watched.watch.poll(1.0) == []
    with pytest.raises(BrokenPipeError):
        ours.send(b"the next request")
    assert theirs.recv(100) == b""


def test_a_new_socket_with_the_number_of_a_closed_one_is_heard(watched: Watched) -> None:
    ours, _ = watched.pair()
    watched.change(pycurl.POLL_IN, ours)
    watched.change(pycurl.POLL_REMOVE, ours)
    number = ours.fileno()
    fresh, theirs = watched.pair()
    os.dup2(fresh.fileno(), number)
    fresh.close()
    watched.change(pycurl.POLL_IN, ours)
    theirs.send(b"answer")
    assert watched.watch.poll(1.0) == [(number, pycurl.CSELECT_IN)]


def test_a_wake_up_is_read_and_is_no_socket(watched: Watched) -> None:
    os.write(watched.waker, b"ww")
    assert watched.watch.poll(1.0) == []
    assert watched.watch.poll(0.0) == []
