"""Sends prepared requests: one plain loop over libcurl's multi interface, in one thread.

Owns the connections, how many requests each webhook has in flight, within what its
lane allows. Takes `Request` values and gives `Answer` values; knows neither the database nor what
an outcome leads to. Every address goes through the guard in `webhooks.network`.
"""

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pycurl
from django.utils.translation import gettext as _

from webhooks import network
from webhooks.delivery.limiter import Lane
from webhooks.delivery.queue import Claimed
from webhooks.delivery.requests import Answer, Request, no_answer
from webhooks.delivery.transport import Slot, SocketWatch
from webhooks.models import Outcome
from webhooks.network import curl_errors

logger = logging.getLogger(__name__)

# libcurl keeps so many idle connections beside those in use.
_IDLE_CONNECTIONS = 256
_LONGEST_WAIT_SECONDS = 1.0


class Sender:
    """The loop. `submit` and `answers` are safe from another thread; the rest is its own."""

    def __init__(
        self,
        *,
        policy: network.Policy,
        max_in_flight: int,
        max_per_webhook: int,
        on_answer: Callable[[], None],
    ) -> None:
        self.lanes: dict[int, Lane] = {}
        self.answers: deque[tuple[Request, Answer]] = deque()
        # Claims that were not sent, because their lease was nearly over or the sender stops.
        self.unsent: deque[Claimed] = deque()
        self._max_in_flight = max_in_flight
        self._max_per_webhook = max_per_webhook
        self._on_answer = on_answer
        self._opener = network.open_socket(policy)
        self._arrived: deque[tuple[Request, float]] = deque()
        self._pins: deque[list[str]] = deque()
        # (webhook id, its present version) of webhooks that may have changed.
        self._recalls: deque[tuple[int, int]] = deque()
        # Lanes that wait only because everything is busy, in turn.
        self._queued: deque[Lane] = deque()
        self._idle: list[Slot] = []
        self._in_flight = 0
        self._is_stopping = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_asleep = False
        # What libcurl asked for last, not yet in `_wake_at`; negative for no timer.
        self._timer_ms: int | None = None
        self._wake_at = math.inf
        self._slots: dict[Any, Slot] = {}
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def lane(self, webhook_id: int) -> Lane:
        lane = self.lanes.get(webhook_id)
        if lane is None:
            lane = self.lanes[webhook_id] = Lane(self._max_per_webhook)
        return lane

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def submit(self, requests: Iterable[Request], *, lease_ends: float) -> None:
        """Queue requests; `lease_ends` is on the monotonic clock, in seconds."""
        self._arrived.extend((request, lease_ends) for request in requests)
        self._wake()

    def pin(self, entries: list[str]) -> None:
        """Tell libcurl the checked addresses of a host, before its next connection."""
        self._pins.append(entries)
        self._wake()

    def waiting_webhooks(self) -> list[int]:
        """Return the webhooks that have requests here which are not on the wire yet."""
        return [webhook_id for webhook_id, lane in list(self.lanes.items()) if lane.waiting]

    def recall(self, webhook_id: int, version: int) -> None:
        """Give back, as unsent, what waits for a webhook and is of another version, or too old."""
        self._recalls.append((webhook_id, version))
        self._wake()

    def stop(self) -> None:
        """Begin nothing more; the thread ends when nothing is in flight."""
        self._is_stopping = True
        self._wake()

    def close(self) -> None:
        """Close what wakes the thread, once it has ended; nothing may be called after this.

        Not in the thread: somebody could be about to write to a number that is reused by then.
        """
        if not self._thread.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _wake(self) -> None:
        if self._is_asleep:
            self._is_asleep = False
            os.write(self._wake_write, b"w")

    # The loop's own thread from here on.

    def _run(self) -> None:
        self._multi = pycurl.CurlMulti()
        self._watch = SocketWatch(self._opener, self._wake_read)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch.change)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, self._max_in_flight + _IDLE_CONNECTIONS)
        try:
            while not self._is_stopping or self._in_flight:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        self._take_arrived()
        if self._recalls or self._is_stopping:
            self._take_recalls()
        for fd, flags in self._poll():
            self._multi.socket_action(fd, flags)
        if self._timer_ms == 0 or time.monotonic() >= self._wake_at:
            self._wake_at = math.inf
            # libcurl tells a time once: one that is still to come must not be forgotten here.
            self._timer_ms = self._timer_ms or None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _poll(self) -> list[tuple[int, int]]:
        now = time.monotonic()
        if self._timer_ms is not None:
            self._wake_at = now + self._timer_ms / 1000 if self._timer_ms >= 0 else math.inf
            self._timer_ms = None
        wait = min(_LONGEST_WAIT_SECONDS, max(0.0, self._wake_at - now))
        self._is_asleep = True
        if self._arrived or self._pins or self._recalls:
            wait = 0.0
        ready = self._watch.poll(wait)
        self._is_asleep = False
        return ready

    def _set_timer(self, timeout_ms: int) -> None:
        # Called twice for each request: the time is worked out once before each wait.
        self._timer_ms = timeout_ms

    def _take_recalls(self) -> None:
        if self._is_stopping:
            # At once: what is in flight may take longer than the worker may take to end.
            for lane in list(self.lanes.values()):
                self._give_back(lane.take_all())
        while self._recalls:
            webhook_id, version = self._recalls.popleft()
            self._give_back(self.lane(webhook_id).take_stale(version, time.monotonic()))

    def _give_back(self, requests: list[Request]) -> None:
        if requests:
            self.unsent.extend(request.claim for request in requests)
            self._on_answer()

    def _take_arrived(self) -> None:
        while self._arrived:
            item = self._arrived.popleft()
            lane = self.lane(item[0].plan.webhook_id)
            is_free = lane.in_flight < lane.limit and self._in_flight < self._max_in_flight
            if is_free and not lane.waiting:
                self._begin(*item, lane)
            else:
                lane.waiting.append(item)
                self._queue(lane)
        while self._queued and self._in_flight < self._max_in_flight:
            lane = self._queued.popleft()
            lane.is_queued = False
            if lane.waiting and lane.in_flight < lane.limit:
                self._begin(*lane.waiting.popleft(), lane)
                self._queue(lane)

    def _queue(self, lane: Lane) -> None:
        """Put a lane with waiting requests in turn; a full lane comes back when one ends."""
        if lane.waiting and not lane.is_queued and lane.in_flight < lane.limit:
            lane.is_queued = True
            self._queued.append(lane)

    def _begin(
        self, request: Request, lease_ends: float, lane: Lane, *, is_fresh: bool = False
    ) -> None:
        if self._is_stopping or time.monotonic() + request.plan.timeout_seconds > lease_ends:
            self.unsent.append(request.claim)
            self._on_answer()
            return
        slot = self._idle.pop() if self._idle else Slot(self._opener)
        try:
            slot.load(request, lane, lease_ends, is_fresh=is_fresh)
            if self._pins:
                self._set_pins(slot)
            self._multi.add_handle(slot.curl)
        except (pycurl.error, ValueError, TypeError) as error:
            # A request that libcurl does not take fails alone.
            slot.curl.close()
            reason = _("The request could not be sent: %(error)s.") % {"error": error}
            self.answers.append((request, no_answer(Outcome.REFUSED, reason)))
            self._on_answer()
            return
        lane.in_flight += 1
        self._in_flight += 1
        self._slots[slot.curl] = slot

    def _set_pins(self, slot: Slot) -> None:
        entries: list[str] = []
        while self._pins:
            entries.extend(self._pins.popleft())
        slot.curl.setopt(pycurl.RESOLVE, entries)

    def _collect(self) -> None:
        more = 1
        while more:
            more, succeeded, failed = self._multi.info_read(256)
            for curl in succeeded:
                self._end(curl, 0, "")
            for curl, code, message in failed:
                self._end(curl, code, message)
        if self.answers:
            self._on_answer()

    def _end(self, curl: pycurl.Curl, code: int, message: str) -> None:
        slot = self._slots.pop(curl)
        self._multi.remove_handle(curl)
        request, lane = slot.request, slot.lane
        assert request is not None
        assert lane is not None
        is_again = slot.met_only_closed(code, message)
        if not is_again:
            answer = self._answer(slot, code, message)
            lane.note(answer.error, time.monotonic())
            self.answers.append((request, answer))
        slot.clear()
        self._idle.append(slot)
        lane.in_flight -= 1
        self._in_flight -= 1
        if is_again:
            self._begin(request, slot.lease_ends, lane, is_fresh=True)
        self._queue(lane)

    def _answer(self, slot: Slot, code: int, message: str) -> Answer:
        getinfo = slot.curl.getinfo
        error, sentence = (None, "") if code == 0 else self._explain(slot, code, message)
        dns_ms = connect_ms = tls_ms = None
        # A reused connection reports neither look-up nor connect.
        if connected := getinfo(pycurl.CONNECT_TIME):
            names, secured = getinfo(pycurl.NAMELOOKUP_TIME), getinfo(pycurl.APPCONNECT_TIME)
            dns_ms, connect_ms = names * 1000, (connected - names) * 1000
            tls_ms = (secured - connected) * 1000 if secured else None
        return Answer(
            error,
            sentence,
            getinfo(pycurl.RESPONSE_CODE),
            b"".join(slot.header_lines),
            slot.body[0] if len(slot.body) == 1 else b"".join(slot.body),
            slot.body_size,
            getinfo(pycurl.PRIMARY_IP),
            dns_ms,
            connect_ms,
            tls_ms,
            first_byte_ms=getinfo(pycurl.STARTTRANSFER_TIME) * 1000,
            total_ms=getinfo(pycurl.TOTAL_TIME) * 1000,
        )

    def _explain(self, slot: Slot, code: int, message: str) -> tuple[Outcome | None, str]:
        """Turn a libcurl error into an outcome and a sentence; none if only the body was cut."""
        if code == pycurl.E_WRITE_ERROR:
            return (Outcome.PROTOCOL, slot.problem) if slot.problem else (None, "")
        if code == pycurl.E_COULDNT_CONNECT and (problem := self._opener.problem_for(slot.curl)):
            return Outcome.BLOCKED, problem
        request = slot.request
        assert request is not None
        return curl_errors.classify(
            code,
            message,
            host=request.plan.target.host,
            timeout_seconds=request.plan.timeout_seconds,
            is_connected=slot.curl.getinfo(pycurl.REQUEST_SIZE) > 0,
        )

    def _close(self) -> None:
        self._give_back([request for request, _ in self._arrived])
        for lane in self.lanes.values():
            self._give_back(lane.take_all())
        for slot in self._idle:
            slot.curl.close()
        self._multi.close()
        self._watch.close()
        self._on_answer()
