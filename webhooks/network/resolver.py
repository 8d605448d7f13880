"""From a name to addresses that may be connected to: checked look-ups, one or many at once."""

import ipaddress
import itertools
import logging
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

# A look-up for a person at a form; glibc itself may wait for half a minute.
LOOKUP_SECONDS = 5.0
# c-ares waits for a name server as long as it usually takes, at least 0.25 s and at first this, and
# twice as long with each of this many tries.
_DNS_SECONDS, _DNS_TRIES = 1.0, 5
# A name without an answer by then has failed.
_DEADLINE_SECONDS = 10.0
# Without the search domains of /etc/resolv.conf: below them a name that is not there, or is typed
# wrong, may be somebody else's. EDNS is what c-ares takes by default.
_NO_SEARCH = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS
# More options of c-ares; a seam for other name servers.
DNS_OPTIONS: dict[str, Any] = {}
_DNS_CODES = {
    pycares.errno.ARES_ENOTFOUND: "name_not_found",
    pycares.errno.ARES_ENODATA: "name_without_address",
    pycares.errno.ARES_ETIMEOUT: "lookup_slow",
    # No server could be asked, or not with the descriptors and memory there are.
    pycares.errno.ARES_ECONNREFUSED: NO_RESOURCES,
    pycares.errno.ARES_ENOMEM: NO_RESOURCES,
    pycares.errno.ARES_EFILE: NO_RESOURCES,
}
# How many names at a time are asked for alone after an answer that could not be read, each once.
_ALONE_AT_ONCE = 8
# How long a thread that did so waits for more: its channel takes files, and long to end.
_ALONE_IDLE_SECONDS = 10.0
# A name server answers thousands a second; a dead one keeps each of these waiting.
_THREADS_AT_ONCE = 32
# Names whose last answer is kept. Each takes about 1 KB.
_MAX_KNOWN_NAMES = 20_000


_Answer = list[str] | OSError | UnicodeError
# What `looked_up` found, for the code inside it; None where the time was over.
_found: ContextVar[Mapping[str, _Answer | None]] = ContextVar("looked_up", default={})  # noqa: B039 - never changed.


@contextmanager
def looked_up(urls: Iterable[str], *, seconds: float) -> Iterator[None]:
    """Look the names of many URLs up side by side, with one deadline for all.

    Inside, `check_url` uses these answers and asks nothing more about these names. A URL that
    cannot be parsed is left to it.
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

    Errors: NameNotResolvedError, also when `seconds` are over.
    """
    known = _found.get()
    if host in known:
        answer = known[host]
    else:
        answer = _look_up(host, port) if seconds is None else _look_up_within(host, port, seconds)
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
        # Found as an attribute at each call, so that one seam serves tests and checkers.
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return error
    return [_spelled(answer[4]) for answer in answers]


def _spelled(address: tuple[object, ...]) -> str:
    scope = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{scope}" if scope and "%" not in str(address[0]) else str(address[0])


def _look_up_within(host: str, port: int, seconds: float) -> _Answer:
    answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
    # getaddrinfo cannot be interrupted; a daemon thread does not hold up the exit either.
    threading.Thread(target=lambda: answers.put(_look_up(host, port)), daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        raise NameNotResolvedError(_not_resolved("lookup_slow", host)) from None


def checked_addresses(
    host: str, port: int, policy: Policy, *, seconds: float | None = None
) -> tuple[str, ...]:
    """Return the addresses of a host, all of which may be connected to.

    Errors: UnsafeURLError when the name or any one address is refused, NameNotResolvedError.
    """
    if is_ip_address(host):
        return _judged(host, port, (host,), policy)
    check_name(host, port, policy=policy)
    return _judged(host, port, resolve(host, port, seconds=seconds), policy)


def _judged(host: str, port: int, addresses: tuple[str, ...], policy: Policy) -> tuple[str, ...]:
    """Return the addresses that a host has, all of which may be connected to, or raise."""
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

    A courtesy for forms: the socket checks again. Errors: UnsafeURLError, NameNotResolvedError.
    """
    policy = policy or Policy.from_settings()
    target = parse_url(url, policy=policy)
    checked_addresses(target.host, target.port, policy, seconds=LOOKUP_SECONDS)
    return target


def proxy_addresses(policy: Policy) -> tuple[tuple[str, int], ...]:
    """Return where the operator's proxy is. It is trusted by its setting, so not checked.

    Where it was a minute ago while its name cannot be looked up. Errors: NameNotResolvedError.
    """
    proxy, minute = policy.egress_proxy, int(time.monotonic() // 60)
    known = _proxies.get(proxy)
    if known is not None and known[0] == minute:
        return known[1]
    host, port = _proxy_host(proxy)
    try:
        found = (host,) if is_ip_address(host) else resolve(host, port, seconds=LOOKUP_SECONDS)
        addresses = tuple((address, port) for address in found)
    except NameNotResolvedError:
        if known is None:
            raise
        addresses = known[1]
    _proxies[proxy] = minute, addresses
    return addresses


# By its setting, in which minute the proxy was looked for, and where it is.
_proxies: dict[str, tuple[int, tuple[tuple[str, int], ...]]] = {}


def curl_resolve_entries(
    host: str, port: int, addresses: tuple[str, ...], policy: Policy
) -> list[str]:
    """Return what pycurl's RESOLVE takes for checked addresses, and for the egress proxy."""
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
    """What a look-up gave: addresses, or a failure (BLOCKED by the guard, or NETWORK: no answer).

    `generation` differs from that of the answer before when the addresses differ.
    """

    addresses: tuple[str, ...] = ()
    failure: Failure | None = None
    duration_ms: float = 0.0
    generation: int = 0


@dataclass(slots=True)
class _Known:
    # None while this machine lacks what a look-up needs.
    resolution: Resolution | None
    fresh_until: float
    stale_until: float


# Called once with the addresses of a name, unchecked, or with why there are none.
_Done = Callable[[tuple[str, ...] | Failure], None]


class DnsChannel:
    """Asks name servers about any number of names at once, without a thread for each.

    c-ares reads /etc/resolv.conf and /etc/hosts; other modules of nsswitch.conf are not asked. An
    answer that it cannot read ends the socket, and with it what else was asked through it: these
    names are asked for again, one after another through a few more channels.
    """

    def __init__(self, **options: Any) -> None:
        self._options = {"timeout": _DNS_SECONDS, "tries": _DNS_TRIES, **DNS_OPTIONS, **options}
        self._channel = pycares.Channel(**self._options)
        # In the order of: known as unreadable, when it came. None of two is equal in that.
        self._unread: queue.PriorityQueue[tuple[bool, int, str, int, _Done]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        # Names without an answer that could be read when they were asked for alone.
        self._unreadable: set[str] = set()
        self._readers = threading.Semaphore(_ALONE_AT_ONCE)
        self._is_closed = False

    def ask(self, host: str, port: int, done: _Done) -> None:
        def answered(result: pycares.AddrInfoResult | None, error: int | None) -> None:
            if error == pycares.errno.ARES_EBADRESP:
                self._ask_alone(host, port, done)
            else:
                done(_found_by(result, error, host))

        if host in self._unreadable:
            self._ask_alone(host, port, done)
        else:
            self._channel.getaddrinfo(host, port, type=socket.SOCK_STREAM, callback=answered)

    def _ask_alone(self, host: str, port: int, done: _Done) -> None:
        self._unread.put((host in self._unreadable, next(self._numbers), host, port, done))
        self._start_reader()

    def _start_reader(self) -> None:
        if self._readers.acquire(blocking=False):
            try:
                threading.Thread(target=self._read, name="look-up", daemon=True).start()
            except RuntimeError as error:
                self._readers.release()
                with suppress(queue.Empty):
                    *_order, _host, _port, done = self._unread.get_nowait()
                    done(_lacking(str(error)))

    def _read(self) -> None:
        """Ask for the names whose answers could not be read, until none came for a while."""
        channel = None
        with suppress(queue.Empty):
            while True:
                *_order, host, port, done = self._unread.get(timeout=_ALONE_IDLE_SECONDS)
                if self._is_closed:
                    break
                try:
                    channel = channel or pycares.Channel(**{**self._options, "tries": 1})
                except pycares.AresError as error:
                    done(_lacking(str(error)))
                else:
                    done(self._found_alone(channel, host, port))
        if channel is not None:
            channel.close()
        self._readers.release()
        if not self._is_closed and not self._unread.empty():
            # One that came when this one had looked for the last time.
            self._start_reader()

    def _found_alone(
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
        for _reader in range(_ALONE_AT_ONCE):
            # Ends its wait.
            self._unread.put((False, next(self._numbers), "", 0, lambda _nothing: None))


def _found_by(
    result: pycares.AddrInfoResult | None, error: int | None, host: str
) -> tuple[str, ...] | Failure:
    """Return the addresses of an answer of c-ares, or why there are none."""
    if error is not None or result is None:
        code = _DNS_CODES.get(error or 0, "lookup_failed")
        if code == NO_RESOURCES:
            return _lacking(_text(pycares.errno.strerror(error or 0)))
        return _not_resolved(code, host)
    found = dict.fromkeys(_spelled((_text(node.addr[0]), *node.addr[1:])) for node in result.nodes)
    return tuple(found) or _not_resolved("name_without_address", host)


def _lacking(reason: str) -> Failure:
    """Return that this machine lacks what a look-up needs."""
    return Failure(NETWORK, NO_RESOURCES, {"reason": reason})


def _text(address: bytes | str) -> str:
    return address.decode() if isinstance(address, bytes) else address


class HostResolver:
    """Look up and check names in the background, so that the sending loop never waits.

    Each name has a deadline of its own, and no number of names whose servers do not answer keeps
    another one waiting. A good answer is used for `ttl_seconds`, then for three times as long while
    a new one is looked up or cannot be had; a refusal or failure for `negative_ttl_seconds`. `wake`
    is called from another thread with the name and port of an answer that `lookup` did not have.
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
        # The names that somebody waits for.
        self._waited: set[tuple[str, int]] = set()
        self._generation = 0
        # What this machine lacked for a look-up, and when, on the monotonic clock.
        self.lack: tuple[float, str] | None = None

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
                self._waited.add(key)
        if since is None:
            self._ask(key)
        if known is not None and now < known.stale_until:
            return known.resolution
        if since is not None and now - since > _DEADLINE_SECONDS:
            return Resolution(failure=_not_resolved("lookup_slow", host))
        return None

    def curl_resolve_entries(self, host: str, port: int) -> list[str]:
        """Return what pycurl's RESOLVE takes, so that libcurl uses just the checked addresses.

        Set on any one handle, the entry holds for the whole CurlMulti, without a time limit and
        until the next entry for the same name and port replaces it. Without a usable answer the
        entry removes the name again. Open connections are not touched.

        Errors: NameNotResolvedError, of the egress proxy.
        """
        with self._lock:
            known = self._known.get((host, port))
        found = known.resolution if known is not None else None
        addresses = found.addresses if found is not None else ()
        if not addresses:
            return [f"-{_bracketed(host)}:{port}"]
        return curl_resolve_entries(host, port, addresses, self._policy)

    def close(self) -> None:
        """End what is looked up; nothing may be asked after this."""
        if self._channel is not None:
            self._channel.close()

    def _ask(self, key: tuple[str, int]) -> None:
        try:
            check_name(*key, policy=self._policy)
            if self._ask_servers is None:
                # Only a name of an opened network may be a short one, as in Kubernetes.
                flags = {} if self._policy.allowed_networks else {"flags": _NO_SEARCH}
                self._channel = DnsChannel(**flags)
                self._ask_servers = self._channel.ask
            self._ask_servers(*key, lambda answer: self._answered(key, answer))
        except UnsafeURLError as error:
            self._answered(key, error.failure)
        except Exception:
            # A name that stays pending is pending for good.
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
            is_waited = key in self._waited
            self._waited.discard(key)
            self._keep(key, resolution, self._clock())
        if isinstance(answer, Failure) and answer.code == NO_RESOURCES:
            self.lack = time.monotonic(), str(answer.params["reason"])
        if is_waited and (wake := self.wake):
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
                addresses = _judged(*key, answer, self._policy)
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
            # The one that was first asked for.
            del self._known[next(iter(self._known))]
        if new.failure is not None and new.failure.code == NO_RESOURCES:
            # Neither an answer nor a failure of the name: it is asked again in a moment.
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
