"""Checked DNS lookups: from host names to addresses that the policy allows."""

import ipaddress
import itertools
import logging
import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pycares

from webhooks.network.addresses import Policy, address_problem, opened_by
from webhooks.network.failures import (
    NETWORK,
    NO_RESOURCES,
    Failure,
    NameNotResolvedError,
    UnsafeURLError,
    blocked,
)
from webhooks.network.hosts import is_ip_address
from webhooks.network.urls import Target, check_name, is_private_name, needs_opening, parse_url

logger = logging.getLogger(__name__)

# Limit for lookups while a person waits; glibc itself may take half a minute.
LOOKUP_SECONDS = 5.0
# c-ares adapts its timeout to each name server (at first this, at least 0.25 s) and doubles it with
# each of these tries.
_DNS_SECONDS, _DNS_TRIES = 1.0, 5
# A lookup without an answer after this time has failed.
_DEADLINE_SECONDS = 10.0
# Ignore the search domains of /etc/resolv.conf: a missing or mistyped name could exist below them
# and belong to someone else. EDNS is the default of c-ares, which other flags replace.
_NO_SEARCH = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS
# Further options of c-ares; tests set their name servers here.
DNS_OPTIONS: dict[str, Any] = {}
_DNS_CODES = {
    pycares.errno.ARES_ENOTFOUND: "name_not_found",
    pycares.errno.ARES_ENODATA: "name_without_address",
    pycares.errno.ARES_ETIMEOUT: "lookup_slow",
    # No name server was reachable, or descriptors or memory ran out.
    pycares.errno.ARES_ECONNREFUSED: NO_RESOURCES,
    pycares.errno.ARES_ENOMEM: NO_RESOURCES,
    pycares.errno.ARES_EFILE: NO_RESOURCES,
}
# Names looked up alone at the same time, with one try each, after an unparsable answer.
_MAX_RETRY_THREADS = 8
# Idle time before such a thread ends: its channel holds descriptors and is slow to close.
_RETRY_IDLE_SECONDS = 10.0
# A name server answers thousands a second; a dead one keeps each of these threads waiting.
_THREADS_AT_ONCE = 32
# Maximum number of cached names, about 1 KB each.
_MAX_KNOWN_NAMES = 20_000


_Answer = list[str] | OSError | UnicodeError
# Answers of the enclosing `looked_up`; None for a name without an answer in time.
_found: ContextVar[Mapping[str, _Answer | None]] = ContextVar("looked_up", default={})  # noqa: B039 - never changed.


@contextmanager
def looked_up(urls: Iterable[str], *, seconds: float) -> Iterator[None]:
    """Look up the hosts of many URLs in parallel, with one deadline for all.

    In this context `check_url` uses these answers and does no further lookup for these hosts. URLs
    that cannot be parsed are left to `check_url`.
    """
    targets = {}
    for url in urls:
        with suppress(UnsafeURLError):
            target = parse_url(url)
            if not is_ip_address(target.host):
                targets[target.host] = target.port
    token = _found.set(_look_up_all(targets, seconds))
    try:
        yield
    finally:
        _found.reset(token)


def _look_up_all(ports: Mapping[str, int], seconds: float) -> dict[str, _Answer | None]:
    asked: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, _Answer]] = queue.SimpleQueue()
    ends_at = time.monotonic() + seconds

    def work() -> None:
        while time.monotonic() < ends_at:
            try:
                host, port = asked.get_nowait()
            except queue.Empty:
                return
            answers.put((host, _look_up(host, port)))

    for one in ports.items():
        asked.put(one)
    for _thread in range(min(_THREADS_AT_ONCE, len(ports))):
        threading.Thread(target=work, name="look-up", daemon=True).start()
    found: dict[str, _Answer | None] = dict.fromkeys(ports)
    for _answer in ports:
        try:
            host, answer = answers.get(timeout=max(ends_at - time.monotonic(), 0))
        except queue.Empty:
            break
        found[host] = answer
    return found


def resolve(host: str, port: int, *, seconds: float | None = None) -> tuple[str, ...]:
    """Return every address of a name, unchecked, in the order the system prefers.

    Errors: NameNotResolvedError, also after `seconds`.
    """
    known = _found.get()
    if host in known:
        answer = known[host]
    else:
        answer = (
            _look_up(host, port) if seconds is None else _look_up_with_timeout(host, port, seconds)
        )
    if answer is None:
        raise NameNotResolvedError(_not_resolved("lookup_slow", host))
    if isinstance(answer, OSError | UnicodeError):
        raise NameNotResolvedError(_not_resolved("name_not_found", host)) from answer
    addresses = tuple(dict.fromkeys(answer))
    if not addresses:
        raise NameNotResolvedError(_not_resolved("name_without_address", host))
    return addresses


def _not_resolved(code: str, host: str) -> Failure:
    return Failure(NETWORK, code, {"host": host})


def _look_up(host: str, port: int) -> _Answer:
    try:
        # Read from the module at each call, so that tests and checkers can replace it there.
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return error
    return [_with_scope(answer[4]) for answer in answers]


def _with_scope(address: tuple[object, ...]) -> str:
    scope = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{scope}" if scope and "%" not in str(address[0]) else str(address[0])


def _look_up_with_timeout(host: str, port: int, seconds: float) -> _Answer:
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    # getaddrinfo cannot be interrupted; a daemon thread does not delay the exit of the process.
    threading.Thread(target=lambda: answers.put(_look_up(host, port)), daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        raise NameNotResolvedError(_not_resolved("lookup_slow", host)) from None


def checked_addresses(
    host: str, port: int, policy: Policy, *, seconds: float | None = None
) -> tuple[str, ...]:
    """Return the addresses of a host after checking that all of them are allowed.

    Errors: UnsafeURLError when the name or any one address is refused, NameNotResolvedError.
    """
    if is_ip_address(host):
        return _checked(host, port, (host,), policy)
    check_name(host, port, policy=policy)
    return _checked(host, port, resolve(host, port, seconds=seconds), policy)


def _checked(host: str, port: int, addresses: tuple[str, ...], policy: Policy) -> tuple[str, ...]:
    """Return the addresses if all are allowed for this host. Errors: UnsafeURLError."""
    is_opened_only = not is_ip_address(host) and needs_opening(host)
    for address in addresses:
        problem = address_problem(address, port, policy)
        if problem is None and is_opened_only:
            problem = _unopened_problem(host, address, port, policy)
        if problem is not None:
            if address != host:
                problem = blocked(
                    "name_refused", **{**problem.params, "host": host, "problem": problem.code}
                )
            raise UnsafeURLError(problem, opened_by=opened_by(address, port))
    return addresses


def _unopened_problem(host: str, address: str, port: int, policy: Policy) -> Failure | None:
    if policy.opens(ipaddress.ip_address(address), port):
        return None
    code = "private_name_outside" if is_private_name(host) else "own_name_outside"
    return blocked(code, address=address, host=host)


def check_url(url: str, *, policy: Policy | None = None) -> Target:
    """Return the target of a URL that may be sent to now.

    Early feedback for forms; each address is checked again when its socket is opened. Errors:
    UnsafeURLError, NameNotResolvedError.
    """
    policy = policy or Policy.from_settings()
    target = parse_url(url, policy=policy)
    checked_addresses(target.host, target.port, policy, seconds=LOOKUP_SECONDS)
    return target


def proxy_addresses(policy: Policy) -> tuple[tuple[str, int], ...]:
    """Return the addresses of the egress proxy, which are trusted and not checked.

    Cached for a minute. Then a thread looks again, and while that takes or fails, the known ones
    are used. A lookup is waited for only if there was none for minutes. Errors:
    NameNotResolvedError.
    """
    proxy, minute = policy.egress_proxy, int(time.monotonic() // 60)
    host, port = _proxy_host(proxy)
    if is_ip_address(host):
        return ((host, port),)
    known = _proxies.get(proxy)
    age = minute - known[0] if known else math.inf
    if known and age:
        # No other call looks it up in this minute.
        _proxies[proxy] = minute, known[1]
    if age > _PROXY_MINUTES:
        _look_up_proxy(proxy, minute)
    elif age:
        look = threading.Thread(
            target=_look_up_proxy, args=(proxy, minute), name="proxy-lookup", daemon=True
        )
        # This machine may have no thread left.
        with suppress(RuntimeError):
            look.start()
    return _proxies[proxy][1]


def _look_up_proxy(proxy: str, minute: int) -> None:
    host, port = _proxy_host(proxy)
    try:
        found = resolve(host, port, seconds=LOOKUP_SECONDS)
    except NameNotResolvedError:
        if proxy not in _proxies:
            raise
    else:
        _proxies[proxy] = minute, tuple((address, port) for address in found)


# From which age on the addresses of a proxy are not used while they are looked up.
_PROXY_MINUTES = 5
# By proxy setting: the minute of the last lookup, and the addresses.
_proxies: dict[str, tuple[int, tuple[tuple[str, int], ...]]] = {}


def curl_resolve_entries(
    host: str, port: int, addresses: tuple[str, ...], policy: Policy
) -> list[str]:
    """Return pycurl's RESOLVE entries for checked addresses and for the egress proxy."""
    entries = [_curl_entry(host, port, addresses)]
    if policy.egress_proxy:
        proxies = tuple(address for address, _port in proxy_addresses(policy))
        entries.append(_curl_entry(*_proxy_host(policy.egress_proxy), proxies))
    return entries


def _curl_entry(host: str, port: int, addresses: tuple[str, ...]) -> str:
    return f"{_bracketed(host)}:{port}:{','.join(map(_bracketed, addresses))}"


def _proxy_host(proxy: str) -> tuple[str, int]:
    parts = urlsplit(proxy)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The result of a lookup: addresses, or a failure (BLOCKED by the guard, or NETWORK).

    `generation` differs from that of the previous result when the addresses differ.
    """

    addresses: tuple[str, ...] = ()
    failure: Failure | None = None
    duration_ms: float = 0.0
    generation: int = 0


@dataclass(slots=True)
class _Known:
    # None while a local resource for lookups is missing.
    resolution: Resolution | None
    fresh_until: float
    stale_until: float


# Called once with the unchecked addresses of a name, or with the failure.
_Done = Callable[[tuple[str, ...] | Failure], None]


class DnsChannel:
    """Look up any number of names at the same time, without a thread for each.

    c-ares reads /etc/resolv.conf and /etc/hosts, but no other source of nsswitch.conf. An answer
    that it cannot parse closes the socket and fails the other queries on it; all of these names are
    looked up again, one at a time, through a few more channels.
    """

    def __init__(self, **options: Any) -> None:
        self._options = {"timeout": _DNS_SECONDS, "tries": _DNS_TRIES, **DNS_OPTIONS, **options}
        self._channel = pycares.Channel(**self._options)
        # Ordered by: known as unreadable, then arrival. The number is unique, so callbacks are
        # never compared.
        self._retry_queue: queue.PriorityQueue[tuple[bool, int, str, int, _Done]] = (
            queue.PriorityQueue()
        )
        self._numbers = itertools.count()
        # Names that got no readable answer when they were looked up alone.
        self._unreadable: set[str] = set()
        self._retry_threads = threading.Semaphore(_MAX_RETRY_THREADS)
        self._is_closed = False

    def ask(self, host: str, port: int, done: _Done) -> None:
        def answered(result: pycares.AddrInfoResult | None, error: int | None) -> None:
            if error == pycares.errno.ARES_EBADRESP:
                self._retry_alone(host, port, done)
            else:
                done(_found_by(result, error, host))

        if host in self._unreadable:
            self._retry_alone(host, port, done)
        else:
            self._channel.getaddrinfo(host, port, type=socket.SOCK_STREAM, callback=answered)

    def _retry_alone(self, host: str, port: int, done: _Done) -> None:
        self._retry_queue.put((host in self._unreadable, next(self._numbers), host, port, done))
        self._start_retry_thread()

    def _start_retry_thread(self) -> None:
        if self._retry_threads.acquire(blocking=False):
            try:
                threading.Thread(target=self._retry_queued, name="look-up", daemon=True).start()
            except RuntimeError as error:
                self._retry_threads.release()
                with suppress(queue.Empty):
                    *_order, _host, _port, done = self._retry_queue.get_nowait()
                    done(_no_resources_failure(str(error)))

    def _retry_queued(self) -> None:
        """Look up the queued names one at a time, until none arrives for `_RETRY_IDLE_SECONDS`."""
        channel = None
        with suppress(queue.Empty):
            while True:
                *_order, host, port, done = self._retry_queue.get(timeout=_RETRY_IDLE_SECONDS)
                if self._is_closed:
                    break
                try:
                    channel = channel or pycares.Channel(**{**self._options, "tries": 1})
                except pycares.AresError as error:
                    done(_no_resources_failure(str(error)))
                else:
                    done(self._look_up_alone(channel, host, port))
        if channel is not None:
            channel.close()
        self._retry_threads.release()
        if not self._is_closed and not self._retry_queue.empty():
            # A name arrived between the last wait and the release.
            self._start_retry_thread()

    def _look_up_alone(
        self, channel: pycares.Channel, host: str, port: int
    ) -> tuple[str, ...] | Failure:
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        channel.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, callback=lambda *answer: answers.put(answer)
        )
        try:
            result, error = answers.get(timeout=_DEADLINE_SECONDS)
        except queue.Empty:
            channel.cancel()
            result, error = None, pycares.errno.ARES_ETIMEOUT
        if error not in (pycares.errno.ARES_EBADRESP, pycares.errno.ARES_ETIMEOUT):
            self._unreadable.discard(host)
        elif len(self._unreadable) < _MAX_KNOWN_NAMES:
            self._unreadable.add(host)
        return _found_by(result, error, host)

    def close(self) -> None:
        self._is_closed = True
        self._channel.close()
        for _thread in range(_MAX_RETRY_THREADS):
            # Wakes a waiting thread.
            self._retry_queue.put((False, next(self._numbers), "", 0, lambda _nothing: None))


def _found_by(
    result: pycares.AddrInfoResult | None, error: int | None, host: str
) -> tuple[str, ...] | Failure:
    """Return the addresses in an answer of c-ares, or the failure."""
    if error is not None or result is None:
        code = _DNS_CODES.get(error or 0, "lookup_failed")
        if code == NO_RESOURCES:
            return _no_resources_failure(_text(pycares.errno.strerror(error or 0)))
        return _not_resolved(code, host)
    found = dict.fromkeys(
        _with_scope((_text(node.addr[0]), *node.addr[1:])) for node in result.nodes
    )
    return tuple(found) or _not_resolved("name_without_address", host)


def _no_resources_failure(reason: str) -> Failure:
    """Return the failure for a missing local resource."""
    return Failure(NETWORK, NO_RESOURCES, {"reason": reason})


def _text(address: bytes | str) -> str:
    return address.decode() if isinstance(address, bytes) else address


class HostResolver:
    """Look up and check names in the background, so that the sending loop never waits.

    Each name has its own deadline, and names whose servers do not answer never delay other names. A
    good answer is used for `ttl_seconds`, then for three times as long while it is being refreshed
    or the refresh fails; a refusal or failure for `negative_ttl_seconds`. `wake` is called from
    another thread with the name and port once an answer arrives that `lookup` did not have.
    Concurrency: safe from every thread.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        wake: Callable[[str, int], object] | None = None,
        ask: Callable[[str, int, _Done], None] | None = None,
        ttl_seconds: float = 30.0,
        negative_ttl_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy or Policy.from_settings()
        self.wake = wake
        self._ask_servers = ask
        self._channel: DnsChannel | None = None
        self._ttl_seconds = ttl_seconds
        self._negative_ttl_seconds = negative_ttl_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], _Known] = {}
        self._pending: dict[tuple[str, int], float] = {}
        # Names for which `lookup` had no usable answer.
        self._awaited: set[tuple[str, int]] = set()
        self._generation = 0
        # When a lookup last lacked a local resource (monotonic clock), and which.
        self.missing_resource: tuple[float, str] | None = None

    def lookup(self, host: str, port: int) -> Resolution | None:
        """Return the answer for `Target.host` and its port, or None while it is looked up."""
        key, now = (host, port), self._clock()
        with self._lock:
            known = self._known.get(key)
            if known is not None and now < known.fresh_until:
                return known.resolution
            if is_ip_address(host):
                return self._keep(key, self._answer(key, (host,)), now)
            since = self._pending.get(key)
            if since is None:
                self._pending[key] = now
            if known is None or now >= known.stale_until:
                self._awaited.add(key)
        if since is None:
            self._ask(key)
        if known is not None and now < known.stale_until:
            return known.resolution
        if since is not None and now - since > _DEADLINE_SECONDS:
            return Resolution(failure=_not_resolved("lookup_slow", host))
        return None

    def curl_resolve_entries(self, host: str, port: int) -> list[str]:
        """Return pycurl's RESOLVE entries, which restrict libcurl to the checked addresses.

        Set on any handle, an entry holds for the whole CurlMulti, without a time limit, until the
        next entry for the same name and port. Without a usable answer the entry removes the name.
        Open connections are not affected.

        Errors: NameNotResolvedError, for the egress proxy.
        """
        with self._lock:
            known = self._known.get((host, port))
        found = known.resolution if known is not None else None
        addresses = found.addresses if found is not None else ()
        if not addresses:
            return [f"-{_bracketed(host)}:{port}"]
        return curl_resolve_entries(host, port, addresses, self._policy)

    def close(self) -> None:
        """Cancel pending lookups; `lookup` may not be called afterwards."""
        if self._channel is not None:
            self._channel.close()

    def _ask(self, key: tuple[str, int]) -> None:
        try:
            check_name(*key, policy=self._policy)
            if self._ask_servers is None:
                # Short names, which need search domains, exist only in allowed networks, as in
                # Kubernetes.
                flags = {} if self._policy.allowed_networks else {"flags": _NO_SEARCH}
                self._channel = DnsChannel(**flags)
                self._ask_servers = self._channel.ask
            self._ask_servers(*key, lambda answer: self._answered(key, answer))
        except UnsafeURLError as error:
            self._answered(key, error.failure)
        except pycares.AresError as error:
            # As where this machine has no descriptor left for the channel.
            self._answered(key, _no_resources_failure(str(error)))
        except Exception:
            # A name left pending would never be looked up again.
            logger.exception("lookup_failed host=%s", key[0])
            self._answered(key, _not_resolved("lookup_failed", key[0]))

    def _answered(self, key: tuple[str, int], answer: tuple[str, ...] | Failure) -> None:
        try:
            resolution = self._answer(key, answer)
        except Exception:
            logger.exception("lookup_unreadable host=%s", key[0])
            resolution = Resolution(failure=_not_resolved("lookup_failed", key[0]))
        with self._lock:
            self._pending.pop(key, None)
            is_awaited = key in self._awaited
            self._awaited.discard(key)
            self._keep(key, resolution, self._clock())
        if isinstance(answer, Failure) and answer.code == NO_RESOURCES:
            self.missing_resource = time.monotonic(), str(answer.params["reason"])
        if is_awaited and (wake := self.wake):
            wake(*key)

    def _answer(self, key: tuple[str, int], answer: tuple[str, ...] | Failure) -> Resolution:
        now = self._clock()
        duration_ms = (now - self._pending.get(key, now)) * 1000
        addresses: tuple[str, ...] = ()
        failure = None
        if isinstance(answer, Failure):
            failure = answer
        else:
            try:
                addresses = _checked(*key, answer, self._policy)
            except UnsafeURLError as error:
                failure = error.failure
        return Resolution(addresses=addresses, failure=failure, duration_ms=duration_ms)

    def _keep(self, key: tuple[str, int], new: Resolution, now: float) -> Resolution | None:
        known = self._known.get(key)
        old = known.resolution if known is not None else None
        is_unanswered = new.failure is not None and new.failure.kind == NETWORK
        if is_unanswered and known and old and old.addresses and now < known.stale_until:
            known.fresh_until = now + self._negative_ttl_seconds
            return old
        if known is None and len(self._known) >= _MAX_KNOWN_NAMES:
            # Evict the oldest entry.
            del self._known[next(iter(self._known))]
        if new.failure is not None and new.failure.code == NO_RESOURCES:
            # Neither an answer nor a failure of the name: look it up again soon.
            self._known[key] = _Known(None, now + self._negative_ttl_seconds, now)
            return None
        if old is None or old.addresses != new.addresses:
            self._generation += 1
            new = replace(new, generation=self._generation)
        else:
            new = replace(new, generation=old.generation)
        seconds = self._ttl_seconds if new.addresses else self._negative_ttl_seconds
        stale_until = now + 4 * seconds if new.addresses else now
        self._known[key] = _Known(new, now + seconds, stale_until)
        return new


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
