"""The address policy: which URLs, names and addresses a request may go to.

Owns the frozen lists, the one URL parser and the checked look-up of a name. Opens no socket
besides the look-up: `webhooks.network` does, and asks here first. Knows no models and no HTTP.
"""

import ipaddress
import logging
import queue
import re
import socket
import threading
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Self
from urllib.parse import quote, urlsplit

import idna
import requests
from django.conf import settings

logger = logging.getLogger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AllowedNetwork = tuple[Network, frozenset[int] | None]

# Longer URLs are cut or refused by some proxies and servers.
MAX_URL_LENGTH = 2048
# A look-up for a person at a form; glibc itself may wait for half a minute.
LOOKUP_SECONDS = 5.0
# Names whose last answer is kept. Each takes about 1 KB.
_MAX_KNOWN_NAMES = 20_000


def _networks(words: dict[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple(
        (ipaddress.ip_network(network), reason)
        for reason, networks in words.items()
        for network in networks.split()
    )


# IANA special-purpose registry (RFC 6890 and what came after), multicast, class E, and the
# addresses inside public space that a cloud gives to its own control plane.
DENIED_IPV4 = _networks(
    {
        "means this machine": "0.0.0.0/8",
        "is a loopback address": "127.0.0.0/8",
        "is a private address": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        "is a shared carrier or cloud address": "100.64.0.0/10",
        "is a link-local or cloud metadata address": "169.254.0.0/16",
        # Azure's WireServer; Equinix Metal. Oracle's 192.0.0.192 is in the next line.
        "is a cloud metadata address": "168.63.129.16/32 192.80.8.124/32",
        "is reserved for protocols": "192.0.0.0/24 192.88.99.0/24 192.52.193.0/24",
        "belongs to the AS112 service": "192.31.196.0/24 192.175.48.0/24",
        "is reserved for documentation": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24",
        "is reserved for benchmarks": "198.18.0.0/15",
        "is a multicast address": "224.0.0.0/4",
        "is a reserved or broadcast address": "240.0.0.0/4",
    }
)
# Only this part of IPv6 is global unicast (RFC 4291, IANA); the rest is refused unseen.
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
DENIED_IPV6 = _networks(
    {
        "is reserved for protocols such as Teredo and ORCHID": "2001::/23",
        "is reserved for documentation": "2001:db8::/32 3fff::/20",
        "is a 6to4 address": "2002::/16",
        "belongs to the AS112 service": "2620:4f:8000::/48",
    }
)
# ISATAP (RFC 5214) hides an IPv4 address behind this interface id, in any prefix.
ISATAP, ISATAP_MASK = 0x0000_5EFE, 0xFDFF_FFFF

# Names of the machine, its network, cluster or laboratory. They never lead to the public
# internet, so only an allowed network opens them, and only for addresses inside of it.
# RFC 6761, RFC 6762 appendix G, RFC 8375, ICANN (.internal), Docker, Kubernetes, Consul.
PRIVATE_SUFFIXES = frozenset(
    """
    localhost local localdomain internal intranet private corp home lan mail domain workgroup
    router gateway modem dhcp fritz.box vm svc pod cluster default kube consul nomad node docker
    test example
    """.split()  # noqa: SIM905 - read as prose, sorted by kind.
)
# Names that are no DNS names, or that only cloud metadata services answer to.
REFUSED_SUFFIXES = frozenset(
    """
    arpa onion i2p exit alt invalid bit gnu zkey metadata.goog metadata.google.internal
    ec2.internal metadata.azure.internal metadata.packet.net metadata.platformequinix.com
    metadata.tencentyun.com
    """.split()  # noqa: SIM905 - read as prose, sorted by kind.
)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^\[\]:]+)(?::([0-9]+))?")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_TOP_LABEL = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ALLOWED_NETWORK = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+))(?P<prefix>/[0-9]{1,3})?"
    r"(?::(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?"
    r"|(?P<bare>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:/[0-9]{1,3})?)"
)


class UnsafeURL(ValueError):
    """Say in one sentence why nothing may be sent to a URL or an address."""

    permanent: ClassVar[bool] = True

    def __init__(self, reason: str, *, code: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class SendError(requests.RequestException):
    """Say why an exchange failed. Other failures of requests share the base class."""

    permanent: ClassVar[bool] = False

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NameNotResolved(SendError):
    """Say that a name has no address now: it may have one later."""

    code: ClassVar[str] = "not_resolved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is open beside the public internet. No port set means every port."""

    allowed_networks: tuple[AllowedNetwork, ...] = ()
    egress_proxy: str = ""

    @classmethod
    def from_settings(cls) -> Self:
        """Return the policy of this installation, parsed once for each value of the settings."""
        return cls._parsed(
            tuple(settings.WEBHOOKS_ALLOWED_NETWORKS),
            getattr(settings, "WEBHOOKS_EGRESS_PROXY", ""),
        )

    @classmethod
    @lru_cache(maxsize=32)
    def _parsed(cls, networks: tuple[str, ...], egress_proxy: str) -> Self:
        allowed = tuple(parse_allowed_network(text) for text in networks)
        return cls(allowed_networks=allowed, egress_proxy=egress_proxy)

    def opens(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> bool:
        return any(
            (ports is None or port in ports) and address in network
            for network, ports in self.allowed_networks
        )

    def opens_port(self, port: int) -> bool:
        return any(ports is None or port in ports for _, ports in self.allowed_networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parsed URL. `host` is ASCII, lower case, without brackets or trailing dot."""

    scheme: str
    host: str
    port: int
    is_literal: bool
    url: str
    origin: str


def parse_allowed_network(text: str) -> AllowedNetwork:
    """Read one entry of WEBHOOKS_ALLOWED_NETWORKS, such as `10.0.0.0/8:8000-8099`.

    Errors: ValueError with a full sentence.
    """
    match = _ALLOWED_NETWORK.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            f"“{text}” is not a network: write it as 10.0.0.0/8, 10.1.2.3:8080, "
            "10.0.0.0/8:8000-8099 or [::1]/128:9000."
        )
    part = match.groupdict()
    network = part["bare"] or f"{part['six'] or part['four']}{part['prefix'] or ''}"
    try:
        parsed = ipaddress.ip_network(network)
    except ValueError as error:
        raise ValueError(f"“{text}” is not a network: {error}.") from error
    if part["first"] is None:
        return parsed, None
    first, last = int(part["first"]), int(part["last"] or part["first"])
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"“{text}” has no valid ports: they go upwards from 1 to 65535.")
    return parsed, frozenset(range(first, last + 1))


@lru_cache(maxsize=8192)
def address_problem(address: str, port: int, policy: Policy) -> str | None:
    """Return why nothing may be sent to this address and port, or None if it may.

    `address` is what a resolver or a socket names; every other spelling is refused.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return f"{address} is not an IP address."
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        return f"{address} names a network interface, which is not allowed."
    if policy.opens(ip, port):
        return None
    if not _is_public_port(port):
        return _port_reason(port)
    words = _ipv4_words(ip) if isinstance(ip, ipaddress.IPv4Address) else _ipv6_words(ip)
    return words and f"{address} {words}, which is not on the public internet."


def _ipv4_words(ip: ipaddress.IPv4Address) -> str | None:
    return next((words for network, words in DENIED_IPV4 if ip in network), None)


def _ipv6_words(ip: ipaddress.IPv6Address) -> str | None:
    if ip not in GLOBAL_IPV6:
        return "is outside of the global IPv6 range"
    if (int(ip) >> 32) & ISATAP_MASK == ISATAP:
        return "hides an IPv4 address"
    return next((words for network, words in DENIED_IPV6 if ip in network), None)


def _is_public_port(port: int) -> bool:
    return port in (80, 443) or 1024 <= port <= 65535


def _port_reason(port: int) -> str:
    return f"Port {port} is not open for webhooks: use 80, 443, or 1024 to 65535."


def parse_url(url: str, *, policy: Policy | None = None) -> Target:
    """Return the parts of a URL that every parser reads the same way, without any look-up.

    Errors: UnsafeURL. Parsing `Target.url` again gives the same target.
    Source: RFC 3986, RFC 5891, WHATWG URL; what these disagree on is refused.
    """
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in _DEFAULT_PORTS:
        raise UnsafeURL("The URL must start with http:// or https://.", code="scheme")
    scheme = match[1].lower()
    host_text, port = _split_authority(match[2], scheme)
    host, is_literal = _ascii_host(host_text)
    if not _is_public_port(port) and not (policy or Policy.from_settings()).opens_port(port):
        raise UnsafeURL(_port_reason(port), code="port")
    origin = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    if port != _DEFAULT_PORTS[scheme]:
        origin += f":{port}"
    # What RFC 3986 has no place for is encoded, what is encoded already stays as it is.
    rest = quote((match[3] or "/") + (match[4] or ""), safe="%/?:@!$&'()*+,;=~")
    if len(origin) + len(rest) > MAX_URL_LENGTH:
        raise UnsafeURL(f"The URL is longer than {MAX_URL_LENGTH} characters.", code="length")
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        is_literal=is_literal,
        url=origin + rest,
        origin=origin,
    )


def _check_characters(url: str) -> None:
    if not url:
        raise UnsafeURL("The URL is empty.", code="empty")
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeURL(f"The URL is longer than {MAX_URL_LENGTH} characters.", code="length")
    if any(unicodedata.category(character) in _INVISIBLE for character in url):
        raise UnsafeURL("The URL has a space or an invisible character in it.", code="characters")
    bad = next((character for character in url if character in '\\<>"^`{}'), None)
    if bad is not None:
        raise UnsafeURL(f"The URL may not have the character {bad} in it.", code="characters")
    if re.search(r"%(?![0-9A-Fa-f]{2})", url.partition("#")[0]):
        raise UnsafeURL("A % in the URL must be written as %25.", code="characters")


def _split_authority(authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise UnsafeURL(
            "The URL may not have a login or password in it: use the authorization below.",
            code="userinfo",
        )
    match = _AUTHORITY.fullmatch(authority)
    if match is None or "%" in authority:
        raise UnsafeURL("The URL has no valid host name and port.", code="host")
    text = match[2] or str(_DEFAULT_PORTS[scheme])
    if text.startswith("0") or len(text) > 5 or int(text) > 65535:
        raise UnsafeURL("The port must be a number from 1 to 65535.", code="port")
    return match[1], int(text)


def _ascii_host(text: str) -> tuple[str, bool]:
    """Return the host in its one spelling, and whether it is an IP address."""
    labels = [_ascii_label(label) for label in text.removesuffix(".").split(".")]
    if text.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        return _canonical_literal(text), True
    host = ".".join(labels)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnsafeURL(f"“{text}” is not a valid host name.", code="host")
    return host, False


def _canonical_literal(text: str) -> str:
    try:
        ip = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise UnsafeURL(f"“{text}” is not a valid IP address.", code="literal") from None
    canonical = f"[{ip}]" if ip.version == 6 else str(ip)
    if text.lower() != canonical:
        raise UnsafeURL(f"Write the IP address as {canonical}.", code="literal")
    return str(ip)


def _ascii_label(label: str) -> str:
    # Only ASCII letters are folded: what folds into ASCII from elsewhere (K, ①) is refused.
    folded = "".join(letter.lower() if letter.isascii() else letter for letter in label)
    if folded.isascii() and not folded.startswith("xn--"):
        return folded
    try:
        encoded = idna.alabel(folded).decode()
        if encoded.startswith("xn--") and idna.alabel(idna.ulabel(encoded)).decode() == encoded:
            return encoded
    except UnicodeError:
        pass
    raise UnsafeURL(f"“{label}” is not a valid part of a host name.", code="host")


def check_name(host: str, port: int = 443, *, policy: Policy | None = None) -> None:
    """Refuse names that never lead to the public internet, unless an allowed network opens them.

    Errors: UnsafeURL. Whatever passes is still resolved and its addresses are checked.
    """
    if _has_suffix(host, REFUSED_SUFFIXES):
        raise UnsafeURL(f"{host} is not a name on the public internet.", code="name")
    if _is_private_name(host) and not (policy or Policy.from_settings()).opens_port(port):
        raise UnsafeURL(
            f"{host} is a name of a private network: use a public host name.", code="name"
        )


def _is_private_name(host: str) -> bool:
    *rest, top = host.split(".")
    return not rest or _has_suffix(host, PRIVATE_SUFFIXES) or not _TOP_LABEL.fullmatch(top)


def _has_suffix(host: str, suffixes: frozenset[str]) -> bool:
    labels = host.split(".")
    return any(".".join(labels[start:]) in suffixes for start in range(len(labels)))


def resolve(host: str, port: int, *, seconds: float | None = None) -> tuple[str, ...]:
    """Return every address of a name, unchecked, in the order the system prefers.

    Errors: NameNotResolved, also when `seconds` are over.
    """
    answer = _look_up(host, port) if seconds is None else _look_up_within(host, port, seconds)
    if isinstance(answer, OSError | UnicodeError):
        raise NameNotResolved(f"The name {host} was not found.") from answer
    addresses = tuple(dict.fromkeys(answer))
    if not addresses:
        raise NameNotResolved(f"The name {host} has no address.")
    return addresses


def _look_up(host: str, port: int) -> list[str] | OSError | UnicodeError:
    try:
        # Found as an attribute at each call, so that one seam serves tests and checkers.
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return error
    return [_spelled(answer[4]) for answer in answers]


def _spelled(address: tuple[object, ...]) -> str:
    scope = address[3] if len(address) > 3 else 0
    return f"{address[0]}%{scope}" if scope and "%" not in str(address[0]) else str(address[0])


def _look_up_within(host: str, port: int, seconds: float) -> list[str] | OSError | UnicodeError:
    answers: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()
    # getaddrinfo cannot be interrupted; a daemon thread does not hold up the exit either.
    threading.Thread(target=lambda: answers.put(_look_up(host, port)), daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        raise NameNotResolved(f"Looking up the name {host} takes too long.") from None


def checked_addresses(
    host: str, port: int, policy: Policy, *, seconds: float | None = None
) -> tuple[str, ...]:
    """Return the addresses of a host, all of which may be connected to.

    Errors: UnsafeURL when the name or any one address is refused, NameNotResolved.
    """
    if is_ip_address(host):
        addresses: tuple[str, ...] = (host,)
        is_private = False
    else:
        check_name(host, port, policy=policy)
        addresses = resolve(host, port, seconds=seconds)
        is_private = _is_private_name(host)
    for address in addresses:
        problem = address_problem(address, port, policy)
        if problem is None and is_private:
            problem = _private_problem(host, address, port, policy)
        if problem is not None:
            prefix = "" if address == host else f"{host} leads to an address that is refused: "
            raise UnsafeURL(prefix + problem, code="address")
    return addresses


def _private_problem(host: str, address: str, port: int, policy: Policy) -> str | None:
    if policy.opens(ipaddress.ip_address(address), port):
        return None
    return f"{address} is outside of the allowed networks, and {host} is a private name."


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_url(url: str, *, policy: Policy | None = None) -> Target:
    """Return the target of a URL that may be sent to now.

    A courtesy for forms: the socket checks again. Errors: UnsafeURL, NameNotResolved.
    """
    policy = policy or Policy.from_settings()
    target = parse_url(url, policy=policy)
    checked_addresses(target.host, target.port, policy, seconds=LOOKUP_SECONDS)
    return target


def is_own_address(target: Target) -> bool:
    """Say whether a target is this site itself, by the addresses people reach it by."""
    return any(
        (target.host, target.port) == _host_and_port(url)
        for url in (settings.PUBLIC_URL, *getattr(settings, "WEBHOOKS_PUBLIC_URLS", ()))
    )


def _host_and_port(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)


def proxy_addresses(policy: Policy) -> tuple[tuple[str, int], ...]:
    """Return where the operator's proxy is. It is trusted by its setting, so not checked."""
    return _proxy_addresses_at(policy.egress_proxy, int(time.monotonic() // 60))


@lru_cache(maxsize=4)
def _proxy_addresses_at(proxy: str, _minute: int) -> tuple[tuple[str, int], ...]:
    host, port = _proxy_host(proxy)
    if is_ip_address(host):
        return ((host, port),)
    return tuple((address, port) for address in resolve(host, port, seconds=LOOKUP_SECONDS))


def _proxy_host(proxy: str) -> tuple[str, int]:
    parts = urlsplit(proxy)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What a look-up gave: addresses, or `problem` (the guard refuses), or `error` (no answer).

    `generation` differs from that of the answer before when the addresses differ.
    """

    addresses: tuple[str, ...] = ()
    problem: str | None = None
    error: str | None = None
    duration_ms: float = 0.0
    generation: int = 0


@dataclass(slots=True)
class _Known:
    resolution: Resolution
    fresh_until: float
    stale_until: float


class HostResolver:
    """Look up and check names in a few threads, so that the sending loop never waits.

    A good answer is used for `ttl_seconds`, then for three times as long while a new one is
    looked up or cannot be had; a refusal or failure for `negative_ttl_seconds`. A name that takes
    longer than `lookup_seconds` counts as failed until its answer comes. `wake` is called from a
    thread after each answer. Concurrency: safe from every thread.
    """

    def __init__(
        self,
        policy: Policy | None = None,
        *,
        wake: Callable[[], object] | None = None,
        threads: int = 8,
        ttl_seconds: float = 30.0,
        negative_ttl_seconds: float = 5.0,
        lookup_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy or Policy.from_settings()
        self._wake = wake
        self._threads = threads
        self._ttl_seconds = ttl_seconds
        self._negative_ttl_seconds = negative_ttl_seconds
        self._lookup_seconds = lookup_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[tuple[str, int], _Known] = {}
        self._pending: dict[tuple[str, int], float] = {}
        self._asked: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._started = 0
        self._generation = 0

    def lookup(self, host: str, port: int) -> Resolution | None:
        """Return the answer for `Target.host` and its port, or None while it is looked up."""
        key, now = (host, port), self._clock()
        with self._lock:
            known = self._known.get(key)
            if known is not None and now < known.fresh_until:
                return known.resolution
            if is_ip_address(host):
                return self._keep(key, self._answer(host, port), now)
            since = self._pending.get(key)
            if since is None:
                self._ask(key, now)
            if known is not None and now < known.stale_until:
                return known.resolution
        if since is None or now - since < self._lookup_seconds:
            return None
        return Resolution(error=f"Looking up the name {host} takes too long.")

    def curl_resolve_entries(self, host: str, port: int) -> list[str]:
        """Return what pycurl's RESOLVE takes, so that libcurl uses just the checked addresses.

        Set on any one handle, the entry holds for the whole CurlMulti, without a time limit and
        until the next entry for the same name and port replaces it. Without a usable answer the
        entry removes the name again. Open connections are not touched.
        """
        with self._lock:
            known = self._known.get((host, port))
        addresses = known.resolution.addresses if known is not None else ()
        name = _bracketed(host)
        if not addresses:
            return [f"-{name}:{port}"]
        entries = [f"{name}:{port}:{','.join(map(_bracketed, addresses))}"]
        if self._policy.egress_proxy:
            proxy_host, proxy_port = _proxy_host(self._policy.egress_proxy)
            proxies = ",".join(_bracketed(address) for address, _ in proxy_addresses(self._policy))
            entries.append(f"{_bracketed(proxy_host)}:{proxy_port}:{proxies}")
        return entries

    def close(self) -> None:
        """End the threads; those inside a look-up end after it, and hold up nothing."""
        for _ in range(self._started):
            self._asked.put(None)
        self._threads = 0

    def _ask(self, key: tuple[str, int], now: float) -> None:
        self._pending[key] = now
        self._asked.put(key)
        if self._started < min(self._threads, len(self._pending)):
            self._started += 1
            threading.Thread(target=self._work, name="resolver", daemon=True).start()

    def _work(self) -> None:
        while (key := self._asked.get()) is not None:
            resolution = self._answer(*key)
            with self._lock:
                self._pending.pop(key, None)
                self._keep(key, resolution, self._clock())
            if self._wake is not None:
                self._wake()

    def _answer(self, host: str, port: int) -> Resolution:
        started = time.perf_counter()
        addresses: tuple[str, ...] = ()
        problem = error = None
        try:
            addresses = checked_addresses(host, port, self._policy)
        except UnsafeURL as refusal:
            problem = refusal.reason
        except NameNotResolved as failure:
            error = failure.reason
        except Exception:
            # A thread that dies would leave the name pending for good.
            logger.exception("lookup_failed host=%s", host)
            error = f"Looking up the name {host} failed."
        return Resolution(
            addresses=addresses,
            problem=problem,
            error=error,
            duration_ms=(time.perf_counter() - started) * 1000,
        )

    def _keep(self, key: tuple[str, int], new: Resolution, now: float) -> Resolution:
        old = self._known.get(key)
        if new.error and old and old.resolution.addresses and now < old.stale_until:
            old.fresh_until = now + self._negative_ttl_seconds
            return old.resolution
        if old is None or old.resolution.addresses != new.addresses:
            self._generation += 1
            new = replace(new, generation=self._generation)
        else:
            new = replace(new, generation=old.resolution.generation)
        seconds = self._ttl_seconds if new.addresses else self._negative_ttl_seconds
        if len(self._known) >= _MAX_KNOWN_NAMES:
            self._known.clear()
        stale_until = now + 4 * seconds if new.addresses else now
        self._known[key] = _Known(new, now + seconds, stale_until)
        return new


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
