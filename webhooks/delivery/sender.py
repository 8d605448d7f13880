"""Sends prepared requests: one plain loop over libcurl's multi interface, in one thread.

Owns the connections and keeps each webhook within its limiter. Takes `Request` values and returns
`Response` values. Every address goes through the guard in `webhooks.network`.
"""

import errno
import logging
import math
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any

import pycurl

from webhooks import network
from webhooks.delivery import outcomes
from webhooks.delivery.limiter import QUICK_SECONDS, Limiter, Limiters
from webhooks.delivery.queue.rows import Claimed
from webhooks.delivery.requests import KEPT_BODY_BYTES, Request, Response, no_response
from webhooks.delivery.transport import SocketWatch, Transfer
from webhooks.models import Outcome
from webhooks.models.messages import Message

logger = logging.getLogger(__name__)

# Idle connections that libcurl keeps in addition to those in use.
_IDLE_CONNECTIONS = 256
_LONGEST_WAIT_SECONDS = 1.0
# How long nothing new begins after this machine lacked a resource for a request, and after how long
# twice as many may be in flight again.
_LACK_SECONDS, _GROW_SECONDS = 1.0, 10.0
_NO_AUTHORITIES = "the file of certificate authorities cannot be read"
# A clock reading this much too late means that this process stood still. Responses that arrived in
# that time are read, for the second duration, before any timeout counts.
_STOOD_SECONDS, _READ_SECONDS = 1.0, 1.0
# How often to look for requests that take longer than a quick receiver does, and how many of them
# may be in flight in addition, as a multiple of the places: they cost only memory and a connection.
_LATE_LOOK_SECONDS = 0.25
_LATE_PLACES = 2
# After this many failures in a row, waiting requests are handed back to make room in memory.
_FAILURES_TO_GIVE_BACK = 2


class Sender:
    """The loop. Methods before `_run`, and `is_lacking`, may be called by other threads."""

    def __init__(
        self,
        *,
        policy: network.Policy,
        limiters: Limiters,
        max_in_flight: int,
        on_response: Callable[[], None],
    ) -> None:
        self.responses: deque[tuple[Request, Response]] = deque()
        # Claims to hand back unsent, for example because their lease was nearly over.
        self.unsent: deque[Claimed] = deque()
        self._limiters = limiters
        connections = network.affordable_connections((1 + _LATE_PLACES) * max_in_flight)
        self._max_in_flight = self._places = min(max_in_flight, connections)
        self._most_late = connections - self._places
        if self._places < max_in_flight:
            logger.error("too_few_descriptors places=%d wanted=%d", self._places, max_in_flight)
        # When this machine last lacked a resource for a request, on the monotonic clock, and which.
        self.last_lack: tuple[float, str] | None = None
        self._lacks_until = 0.0
        self._on_response = on_response
        self._opener = network.SocketOpener(policy)
        self._arrived: deque[tuple[Request, float]] = deque()
        self._pins: deque[list[str]] = deque()
        # (webhook id, its current version, its token's) of webhooks that may have changed.
        self._recalls: deque[tuple[int, int, int]] = deque()
        # Limiters whose requests wait only for a free place, in turn.
        self._queued: deque[Limiter] = deque()
        # Limiters that had as many in flight as places were left, by that number.
        self._waiting_for_places: dict[int, dict[Limiter, None]] = {}
        self._idle: list[Transfer] = []
        self._in_flight = 0
        # How many of these are late and take no place.
        self._late = 0
        self._is_stopping = self._has_given_back = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_asleep = False
        # libcurl's last timer, not yet in `_wake_at`; negative for no timer.
        self._timer_ms: int | None = None
        self._grow_at = math.inf
        self._wake_at = math.inf
        # When the clock should be read again, and when a request may be too late.
        self._look_at = self._late_at = math.inf
        self._late_limiters: Counter[Limiter] = Counter()
        self._late_look_at = 0.0
        self._transfers: dict[Any, Transfer] = {}
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def places(self) -> int:
        """Return how many requests that are not late this machine has resources for."""
        return self._places

    @property
    def late(self) -> int:
        """Return how many requests in flight take no place, because their receivers hang."""
        return self._late

    def start(self) -> None:
        self._thread.start()

    def submit(self, requests: Iterable[Request], *, lease_ends: float) -> None:
        """Queue requests; `lease_ends` is on the monotonic clock, in seconds."""
        self._arrived.extend((request, lease_ends) for request in requests)
        self._wake()

    def pin(self, entries: list[str]) -> None:
        """Give libcurl the checked addresses of a host, before its next connection."""
        self._pins.append(entries)
        self._wake()

    def recall(self, webhook_id: int, version: int, token_version: int = 0) -> None:
        """Hand back waiting requests of other versions, or with too little of their lease left."""
        self._recalls.append((webhook_id, version, token_version))
        self._wake()

    def hanging(self) -> set[int]:
        """Return the webhooks with a request in flight for longer than a quick receiver takes."""
        before = time.monotonic() - QUICK_SECONDS
        late = [one.request for one in list(self._transfers.values()) if one.began_at < before]
        return {request.plan.webhook_id for request in late if request is not None}

    def report_lack(self, reason: str) -> bool:
        """Pause claims briefly, as this machine lacks something; return whether that is new."""
        self._lacks_until = time.monotonic() + _LACK_SECONDS
        return self._note_lack(reason)

    def has_lacked(self, seconds: float) -> bool:
        """Return whether this machine lacked something within this time, for all receivers."""
        return time.monotonic() < self._lacks_until + seconds

    def _note_lack(self, reason: str) -> bool:
        now = time.monotonic()
        before_at, before = self.last_lack or (-math.inf, "")
        is_new = reason != before or now - before_at > _GROW_SECONDS
        if is_new:
            logger.error("machine_lacks reason=%s in_flight=%d", reason, self._in_flight)
        self.last_lack = now, reason
        return is_new

    def stop(self) -> None:
        """Begin no more requests; the thread ends when none is in flight."""
        self._is_stopping = True
        self._wake()

    def close(self) -> None:
        """Close the wakeup pipe once the thread has ended; no method may be called after this.

        Not in the thread: another one could be writing to a descriptor that is reused by then.
        """
        if not self._thread.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _wake(self) -> None:
        if self._is_asleep:
            self._is_asleep = False
            os.write(self._wake_write, b"w")

    # Called by the loop's own thread from here on.

    def _run(self) -> None:
        self._multi = pycurl.CurlMulti()
        self._watch = SocketWatch(self._opener, self._wake_read)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch.change)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._limit_kept()
        try:
            while not self._is_stopping or self._in_flight:
                self._turn()
        finally:
            self._close()

    def _limit_kept(self) -> None:
        """Limit the kept connections to the descriptors that nothing else needs."""
        kept = network.affordable_connections(self._places + self._late + _IDLE_CONNECTIONS)
        self._multi.setopt(pycurl.M_MAXCONNECTS, kept)

    def _turn(self) -> None:
        self._look()
        if (now := self._look_at) >= self._grow_at:
            self._grow(now)
        if now >= self._late_at:
            self._end_late(now)
        if now >= self._late_look_at:
            self._note_late(now)
        self._take_arrived()
        if self._recalls or self._is_stopping:
            self._take_recalls()
        for fd, flags in self._poll():
            self._multi.socket_action(fd, flags)
        if self._timer_ms == 0 or time.monotonic() >= self._wake_at:
            self._wake_at = math.inf
            # libcurl announces a timer only once, so keep one that is not due yet.
            self._timer_ms = self._timer_ms or None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect()

    def _poll(self) -> list[tuple[int, int]]:
        self._look()
        now = self._look_at
        if self._timer_ms is not None:
            self._wake_at = now + self._timer_ms / 1000 if self._timer_ms >= 0 else math.inf
            self._timer_ms = None
        next_at = min(self._wake_at, self._late_at)
        if self._transfers:
            next_at = min(next_at, self._late_look_at)
        wait = min(_LONGEST_WAIT_SECONDS, max(0.0, next_at - now))
        self._is_asleep = True
        if self._arrived or self._pins or self._recalls:
            wait = 0.0
        self._look_at = now + wait
        ready = self._watch.poll(wait)
        self._is_asleep = False
        return ready

    def _look(self) -> None:
        """Notice that this process stood still, as on a machine that was suspended."""
        now = time.monotonic()
        if now - self._look_at > _STOOD_SECONDS:
            seconds = now - self._look_at
            logger.warning("stood_still seconds=%.1f in_flight=%d", seconds, self._in_flight)
            self._late_at = now + _READ_SECONDS
        self._look_at = now

    def _end_late(self, now: float) -> None:
        """End requests that take longer than their webhook's timeout."""
        transfers = list(self._transfers.values())
        for transfer in transfers:
            if now >= transfer.ends_at:
                self._end(transfer.curl, pycurl.E_OPERATION_TIMEDOUT, "")
        left = self._transfers.values()
        self._late_at = min((transfer.ends_at for transfer in left), default=math.inf)
        self._on_response()

    def _note_late(self, now: float) -> None:
        """Note which requests take no place, and hand back what was claimed ahead for them.

        Otherwise hundreds of quick receivers that hang all at once, as when they share a host,
        would take every place until their timeouts, and their waiting rows the memory.
        """
        self._late_look_at = now + _LATE_LOOK_SECONDS
        began_before = now - QUICK_SECONDS
        late = Counter(
            one.limiter
            for one in self._transfers.values()
            if one.limiter and one.began_at < began_before
        )
        for limiter in self._late_limiters.keys() - late.keys():
            limiter.late = limiter.hanging_limit = 0
            self._queue(limiter)
        hanging = [one for one, count in late.items() if 2 * count >= one.in_flight]
        share = max(1, self._places // max(1, sum(one.is_quick for one in hanging)))
        for limiter, count in late.items():
            limiter.late, limiter.hanging_limit = count, 0
        for limiter in hanging:
            if limiter.is_quick:
                limiter.hanging_limit = min(limiter.limit, share)
            if limiter.claimed > limiter.most_in_flight:
                self._give_back(limiter.take_all())
        for limiter in late:
            self._queue(limiter)
        self._late_limiters = late
        # While this machine lacks something, all count.
        most_late = self._most_late if self._places == self._max_in_flight else 0
        if (total := min(late.total(), most_late)) != self._late:
            self._late = total
            self._limit_kept()

    def _set_timer(self, timeout_ms: int) -> None:
        # Called twice for each request, so the time is computed only once, before each wait.
        self._timer_ms = timeout_ms

    def _take_recalls(self) -> None:
        if self._is_stopping and not self._has_given_back:
            # At once: requests in flight may take longer than the worker is given to end.
            self._has_given_back = True
            self._give_back_waiting()
        while self._recalls:
            webhook_id, *versions = self._recalls.popleft()
            limiter = self._limiters.get(webhook_id)
            self._give_back(limiter.take_stale(*versions, now=time.monotonic()))

    def _give_back(self, requests: list[Request]) -> None:
        if requests:
            self.unsent.extend(request.claim for request in requests)
            self._on_response()

    def _give_back_waiting(self) -> None:
        for limiter in self._limiters.in_use():
            self._give_back(limiter.take_all())

    def _take_arrived(self) -> None:
        # The rows of a webhook follow one another in a claim. The first of each begins at once and
        # the rest take turns, or the first webhooks would take several of the last places each.
        is_empty = not self._queued
        while self._arrived:
            item = self._arrived.popleft()
            limiter = self._limiters.get(item[0].plan.webhook_id)
            is_next = is_empty and not (limiter.in_flight or limiter.waiting)
            if self._is_stopping or (is_next and self._may_begin(limiter)):
                self._begin(*item, limiter)
            else:
                limiter.add(*item)
                self._queue(limiter)
        while self._queued and self._in_flight < self._places + self._late:
            limiter = self._queued.popleft()
            limiter.is_queued = False
            self._begin_next(limiter)
        if self._waiting_for_places:
            self._fill_places()

    def _begin_next(self, limiter: Limiter) -> None:
        """Begin the longest waiting request, unless the places left are reserved for others."""
        if not limiter.waiting:
            return
        if self._may_begin(limiter):
            self._begin(*limiter.take_first(), limiter)
            self._queue(limiter)
        elif limiter.in_flight < limiter.most_in_flight:
            self._waiting_for_places.setdefault(limiter.in_flight, {})[limiter] = None

    def _fill_places(self) -> None:
        """Begin requests of limiters with fewer in flight than places are left, fewest first.

        Waiting for one of their own requests to end could take as long as its timeout.
        """
        for in_flight in sorted(self._waiting_for_places):
            limiters = self._waiting_for_places[in_flight]
            while limiters and in_flight < self._places + self._late - self._in_flight:
                limiter = next(iter(limiters))
                del limiters[limiter]
                self._begin_next(limiter)
            if not limiters:
                del self._waiting_for_places[in_flight]

    def _may_begin(self, limiter: Limiter) -> bool:
        """Return whether a webhook may have one more in flight: never more than places are left.

        So webhooks that hang share the places and leave an equal share to the next one (dynamic
        thresholds, Choudhury and Hahne 1998).
        """
        left = self._places + self._late - self._in_flight
        return limiter.in_flight < min(limiter.most_in_flight, left)

    def _queue(self, limiter: Limiter) -> None:
        """Queue a limiter with waiting requests; one at its limit returns when a request ends."""
        is_waiting = limiter.waiting and not limiter.is_queued
        if is_waiting and limiter.in_flight < limiter.most_in_flight:
            limiter.is_queued = True
            self._queued.append(limiter)

    def _begin(
        self, request: Request, lease_ends: float, limiter: Limiter, *, is_fresh: bool = False
    ) -> None:
        now = time.monotonic()
        if self._is_stopping or now + request.plan.timeout_seconds > lease_ends:
            self.unsent.append(request.claim)
            self._on_response()
            return
        transfer = self._idle.pop() if self._idle else Transfer(self._opener)
        try:
            transfer.load(request, limiter, lease_ends, now, is_fresh=is_fresh)
            if self._pins:
                self._set_pins(transfer)
            self._multi.add_handle(transfer.curl)
        except (pycurl.error, ValueError, TypeError) as error:
            # If libcurl does not accept a request, only this one fails.
            transfer.curl.close()
            message = Message("not_sent", {"error": str(error)})
            self.responses.append((request, no_response(Outcome.REFUSED, message)))
            self._on_response()
            return
        limiter.in_flight += 1
        self._in_flight += 1
        self._transfers[transfer.curl] = transfer
        self._late_at = min(self._late_at, transfer.ends_at)

    def _set_pins(self, transfer: Transfer) -> None:
        entries: list[str] = []
        while self._pins:
            entries.extend(self._pins.popleft())
        transfer.curl.setopt(pycurl.RESOLVE, entries)

    def _collect(self) -> None:
        more = 1
        while more:
            more, succeeded, failed = self._multi.info_read(256)
            for curl in succeeded:
                self._end(curl, 0, "")
            for curl, code, message in failed:
                self._end(curl, code, message)
        if self.responses:
            self._on_response()

    def _end(self, curl: pycurl.Curl, code: int, message: str) -> None:
        transfer = self._transfers.pop(curl)
        self._multi.remove_handle(curl)
        request, limiter = transfer.request, transfer.limiter
        assert request is not None
        assert limiter is not None
        is_again = transfer.met_closed(code)
        if code and (lack := self.lacked_resource(transfer, code)):
            self._hand_back_for_lack(request, limiter, lack)
        elif not is_again:
            response = self._response(transfer, code, message)
            limiter.note(response.error, time.monotonic(), (response.total_ms or 0.0) / 1000)
            if limiter.failures >= _FAILURES_TO_GIVE_BACK:
                self._give_back(limiter.take_all())
            self.responses.append((request, response))
        transfer.clear()
        if len(self._idle) < self._places:
            self._idle.append(transfer)
        else:
            transfer.curl.close()
        limiter.in_flight -= 1
        self._in_flight -= 1
        if is_again:
            self._begin(request, transfer.lease_ends, limiter, is_fresh=True)
        self._queue(limiter)

    def lacked_resource(self, transfer: Transfer, code: int) -> str:
        """Return what this machine lacked for a failed request, or "" for a receiver's fault."""
        if code == pycurl.E_OUT_OF_MEMORY:
            return os.strerror(errno.ENOMEM)
        if code == pycurl.E_SSL_CACERT_BADFILE:
            return _NO_AUTHORITIES
        if code == pycurl.E_OPERATION_TIMEDOUT and self._opener.policy.egress_proxy:
            # A kept connection reports no connect time, but something was sent on it.
            sizes = map(transfer.curl.getinfo, (pycurl.CONNECT_TIME, pycurl.REQUEST_SIZE))
            return "" if any(sizes) else network.PROXY_SILENT
        if code != pycurl.E_COULDNT_CONNECT:
            return ""
        lack = self._opener.resource_failure(transfer.curl)
        return str(lack.params["reason"]) if lack else ""

    def _hand_back_for_lack(self, request: Request, limiter: Limiter, reason: str) -> None:
        """Hand a request back uncounted, and allow fewer in flight for a while."""
        if reason == network.NO_PORTS and not self._opener.policy.egress_proxy:
            # Each address has all ports: those to others are not used up.
            self._note_lack(reason)
            limiter.rest(time.monotonic(), _LACK_SECONDS)
            self._give_back([request, *limiter.take_all()])
            return
        if self.report_lack(reason):
            self._limit_kept()
        self._late = 0
        fewer = min(self._places, self._max_in_flight - 1, self._in_flight - 1)
        self._places = max(1, fewer)
        self._grow_at = time.monotonic() + _GROW_SECONDS
        self.unsent.append(request.claim)
        self._on_response()

    def _grow(self, now: float) -> None:
        """Allow more in flight again, after a while in which nothing was lacking."""
        self._places = min(self._max_in_flight, 2 * self._places)
        self._grow_at = now + _GROW_SECONDS if self._places < self._max_in_flight else math.inf
        self._limit_kept()

    @property
    def is_lacking(self) -> bool:
        """Return whether a request just failed because this machine lacks something."""
        return time.monotonic() < self._lacks_until

    def _response(self, transfer: Transfer, code: int, message: str) -> Response:
        getinfo = transfer.curl.getinfo
        error, problem = None, None
        if code or not transfer.has_head:
            error, problem = self._explain(transfer, code, message)
        dns_ms = connect_ms = tls_ms = None
        # A reused connection reports neither lookup nor connect times.
        if connected := getinfo(pycurl.CONNECT_TIME):
            names, secured = getinfo(pycurl.NAMELOOKUP_TIME), getinfo(pycurl.APPCONNECT_TIME)
            dns_ms, connect_ms = names * 1000, (connected - names) * 1000
            tls_ms = (secured - connected) * 1000 if secured else None
        total_ms = getinfo(pycurl.TOTAL_TIME) * 1000
        if code == pycurl.E_OPERATION_TIMEDOUT:
            # libcurl's own value ends at its last activity.
            total_ms = (time.monotonic() - transfer.began_at) * 1000
        body = transfer.body[0] if len(transfer.body) == 1 else b"".join(transfer.body)
        # Cut, as thousands may wait for a database that does not respond.
        kept = transfer.max_bytes if self._is_judged(transfer) else KEPT_BODY_BYTES
        return Response(
            error,
            problem,
            getinfo(pycurl.RESPONSE_CODE),
            b"".join(transfer.header_lines),
            # Shorter than `body_size` when there was more.
            body[:kept],
            transfer.body_size,
            getinfo(pycurl.PRIMARY_IP),
            dns_ms,
            connect_ms,
            tls_ms,
            first_byte_ms=getinfo(pycurl.STARTTRANSFER_TIME) * 1000,
            total_ms=total_ms,
        )

    @staticmethod
    def _is_judged(transfer: Transfer) -> bool:
        """Return whether the whole response is needed, because a success rule judges it."""
        return transfer.request is not None and transfer.request.plan.success_rule is not None

    def _explain(
        self, transfer: Transfer, code: int, text: str
    ) -> tuple[Outcome | None, Message | None]:
        """Turn a libcurl error into an outcome and a message; none if only the body was cut."""
        if code == pycurl.E_WRITE_ERROR and transfer.problem is None:
            return None, None
        refusal = None
        if code == pycurl.E_COULDNT_CONNECT:
            refusal = self._opener.problem_for(transfer.curl)
        elif not code:
            refusal = network.CUT_HEAD
        request = transfer.request
        assert request is not None
        failure = (
            refusal
            or transfer.problem
            or network.classify(
                code,
                text,
                host=request.plan.target.host,
                timeout_seconds=request.plan.timeout_seconds,
                is_connected=transfer.curl.getinfo(pycurl.REQUEST_SIZE) > 0,
                is_read=transfer.is_read(transfer.curl),
            )
        )
        return Outcome(failure.kind), outcomes.of_failure(failure)

    def _close(self) -> None:
        self._give_back([request for request, _ in self._arrived])
        self._give_back_waiting()
        for transfer in self._idle:
            transfer.curl.close()
        self._multi.close()
        self._watch.close()
        self._on_response()
