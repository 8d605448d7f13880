"""The bare client: libcurl alone, without any decision, signature, read or write of the engine.

A plain pycurl multi loop (`socket_action` over epoll, as in the engine's sender) that posts the
same bytes with the same headers to the same URLs. `python -m tests.bench.bare URL REQUESTS
IN_FLIGHT` reads the header lines and the body as JSON from standard input and prints requests per
second.
"""

import json
import select
import subprocess
import sys
import time

import pycurl

from tests.bench import machine


class BareLoop:
    def __init__(self, urls: list[str], headers: list[str], body: bytes, requests: int) -> None:
        self._urls, self._headers, self._body = urls, headers, body
        self._left = requests
        self._epoll = select.epoll()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._wake_at: float | None = None
        self._handles: list[pycurl.Curl] = []
        self.failed = 0

    def run(self, in_flight: int) -> float:
        """Send all requests; return the duration in seconds."""
        began = time.perf_counter()
        for _ in range(min(in_flight, self._left)):
            curl = pycurl.Curl()
            curl.setopt(pycurl.POST, 1)
            curl.setopt(pycurl.WRITEFUNCTION, _ignore)
            self._handles.append(curl)
            self._begin(curl)
        busy = len(self._handles)
        while busy:
            wait = 1.0
            if self._wake_at is not None:
                wait = max(0.0, self._wake_at - time.monotonic())
            for fd, events in self._epoll.poll(wait):
                flags = pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0
                if events & select.EPOLLOUT:
                    flags |= pycurl.CSELECT_OUT
                self._multi.socket_action(fd, flags)
            if self._wake_at is not None and time.monotonic() >= self._wake_at:
                self._wake_at = None
                self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            busy -= self._collect()
        return time.perf_counter() - began

    def _begin(self, curl: pycurl.Curl) -> None:
        self._left -= 1
        curl.setopt(pycurl.URL, self._urls[self._left % len(self._urls)])
        curl.setopt(pycurl.HTTPHEADER, self._headers)
        curl.setopt(pycurl.POSTFIELDS, self._body)
        self._multi.add_handle(curl)

    def _collect(self) -> int:
        """Start the next request on each finished handle; return how many handles stay idle."""
        rested = 0
        more = 1
        while more:
            more, succeeded, failed = self._multi.info_read(256)
            self.failed += len(failed)
            for curl in [*succeeded, *(item[0] for item in failed)]:
                self._multi.remove_handle(curl)
                if self._left:
                    self._begin(curl)
                else:
                    rested += 1
        return rested

    def _watch(self, what: int, fd: int, _multi: object, _known: object) -> None:
        if what == pycurl.POLL_REMOVE:
            self._epoll.unregister(fd)
            return
        events = 0
        if what & pycurl.POLL_IN:
            events |= select.EPOLLIN
        if what & pycurl.POLL_OUT:
            events |= select.EPOLLOUT
        try:
            self._epoll.modify(fd, events)
        except FileNotFoundError:
            self._epoll.register(fd, events)

    def _set_timer(self, timeout_ms: int) -> None:
        self._wake_at = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000


def _ignore(chunk: bytes) -> None:
    return None


def measure(url: str, requests: int, in_flight: int, headers: list[str], body: str) -> float:
    """Run the client in its own process, on the measured core; return requests per second."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.bare", url, str(requests), str(in_flight)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    machine.pin([process.pid], machine.CLIENT_CORES)
    output, _ = process.communicate(json.dumps({"headers": headers, "body": body}))
    if process.returncode:
        raise RuntimeError("The bare client failed.")
    return float(output)


def main(arguments: list[str]) -> None:
    from tests.bench.stage import WEBHOOKS

    machine.allow_many_files()
    url, requests, in_flight = arguments[0], int(arguments[1]), int(arguments[2])
    given = json.load(sys.stdin)
    urls = [f"{url}/hook/{number}" for number in range(WEBHOOKS)]
    loop = BareLoop(urls, given["headers"], given["body"].encode(), requests)
    seconds = loop.run(in_flight)
    if loop.failed:
        raise SystemExit(f"{loop.failed} requests failed.")
    print(requests / seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
