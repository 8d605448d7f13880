"""Canonical host names and IP addresses, and which of them are this machine's own.

A canonical host is ASCII, lower case and without a trailing dot. Requests to this site's public
host names or to local interfaces are refused because they would come from behind the firewall.
"""

import ipaddress
import re
import socket
import time
import unicodedata
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import idna
from django.conf import settings

from webhooks.network.failures import Failure, UnsafeURLError, blocked

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# IPv6 addresses up to this one, such as ::1, embed no IPv4 address.
_NO_IPV4 = 0xFFFF
# Linux lists its addresses here; in a container, those of the container.
IPV4_ROUTES, IPV6_ADDRESSES = Path("/proc/net/fib_trie"), Path("/proc/net/if_inet6")
_LOCAL_IPV4 = re.compile(r"\|-- ([0-9.]+)\s+/32 host LOCAL")
_LOCAL_IPV6 = re.compile(r"^([0-9a-f]{32}) ", re.MULTILINE)
# Wildcards in ALLOWED_HOSTS: every name, or every name below a domain.
_WILDCARDS = ("*", ".")
# Always in ALLOWED_HOSTS. Left to the address policy, whose message is more precise.
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# Interface addresses rarely change: a failover address, a renewed lease.
_KNOWN_SECONDS = 60


def ascii_host(text: str) -> tuple[str, bool]:
    """Return the canonical host, and whether it is an IP address. Errors: UnsafeURLError."""
    labels = [_ascii_label(label) for label in text.removesuffix(".").split(".")]
    if text.startswith("[") or _NUMBER.fullmatch(labels[-1]) or _is_foreign_number(labels[-1]):
        return _canonical_literal(text), True
    host = ".".join(labels)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnsafeURLError(blocked("host_name", name=text))
    return host, False


def _is_foreign_number(label: str) -> bool:
    """Return whether a label is a number in non-ASCII digits; no host name ends in one."""
    return label.startswith("xn--") and idna.ulabel(label).isdecimal()


def bare_address(text: str) -> Failure | None:
    """Return the failure for an IP address without brackets or with a trailing dot, else None."""
    try:
        ip = ipaddress.ip_address(text.removesuffix("."))
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        return blocked("interface", address=text)
    return blocked("literal_spelling", address=_in_url(ip))


def _in_url(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return an address as written in a URL; public IPv4 inside IPv6 is written as IPv4."""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    four = _ipv4_in(ip)
    return str(four) if four is not None and four.is_global else f"[{ip}]"


def _ipv4_in(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    # RFC 4291 sections 2.5.5.1 and 2.5.5.2: ::8.8.8.8 and ::ffff:8.8.8.8.
    is_compatible = _NO_IPV4 < int(ip) < 2**32
    return ipaddress.IPv4Address(int(ip)) if is_compatible else ip.ipv4_mapped


def _canonical_literal(text: str) -> str:
    try:
        ip = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise UnsafeURLError(bare_address(text) or blocked("literal", address=text)) from None
    canonical = _in_url(ip)
    # Private IPv4 inside IPv6, such as [::127.0.0.1], is left to the address policy, which refuses
    # every spelling unless an allowed network opens it.
    is_private = isinstance(ip, ipaddress.IPv6Address) and _ipv4_in(ip) and canonical[0] == "["
    if text.lower() != canonical and not is_private:
        raise UnsafeURLError(blocked("literal_spelling", address=canonical))
    return str(ip)


def _ascii_label(label: str) -> str:
    folded = label.lower() if label.isascii() else "".join(map(_lower, label))
    if folded.isascii() and not folded.startswith("xn--"):
        return folded
    try:
        encoded = idna.alabel(folded).decode()
        if encoded.startswith("xn--") and idna.alabel(idna.ulabel(encoded)).decode() == encoded:
            return encoded
    except UnicodeError:
        pass
    raise UnsafeURLError(blocked("host_part", part=label))


def _lower(letter: str) -> str:
    """Return the lower case of a letter if both map only to each other, else the letter itself.

    Other letters are refused later: the Kelvin sign and ſ fold to ASCII, İ to two letters, and ẞ to
    ß or to ss depending on the standard. Cherokee stays too and is valid: its capitals are the
    basic form.
    """
    lower = letter.lower()
    return lower if letter.casefold() == lower and lower.upper() == letter else letter


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_own_host(host: str) -> bool:
    """Return whether a host is one of this site's public host names, on any port.

    `host` must be canonical; the settings may use any spelling.
    """
    urls = (settings.PUBLIC_URL, *getattr(settings, "WEBHOOKS_PUBLIC_URLS", ()))
    return host in _own_hosts(urls, tuple(settings.ALLOWED_HOSTS))


@lru_cache(maxsize=8)
def _own_hosts(urls: tuple[str, ...], names: tuple[str, ...]) -> frozenset[str]:
    hosts = {_canonical(urlsplit(url).hostname or "") for url in urls}
    further = {_canonical(name) for name in names if not name.startswith(_WILDCARDS)}
    return frozenset(hosts | (further - _LOOPBACK)) - {""}


def _canonical(host: str) -> str:
    """Return a host from the settings in canonical form, or "" if no URL can name it."""
    # More lenient than the URL parser, because browsers accept these spellings too.
    bare = unicodedata.normalize("NFKC", host).lower().strip("[]").removesuffix(".")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        return ascii_host(bare)[0]
    except ValueError:
        return ""


def own_addresses() -> frozenset[str]:
    """Return the addresses of this machine's interfaces, cached for a minute."""
    return _own_addresses_at(int(time.monotonic() // _KNOWN_SECONDS))


@lru_cache(maxsize=2)
def _own_addresses_at(_minute: int) -> frozenset[str]:
    return read_own_addresses()


def read_own_addresses() -> frozenset[str]:
    try:
        return parse_interfaces(IPV4_ROUTES.read_text(), _read(IPV6_ADDRESSES))
    except OSError:
        return _by_host_name()


def parse_interfaces(fib_trie: str, if_inet6: str) -> frozenset[str]:
    """Return the canonical addresses listed in Linux's two tables."""
    four = _LOCAL_IPV4.findall(fib_trie)
    six = [ipaddress.IPv6Address(int(digits, 16)) for digits in _LOCAL_IPV6.findall(if_inet6)]
    return frozenset([*four, *map(str, six)])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        # IPv6 may be off.
        return ""


def _by_host_name() -> frozenset[str]:
    """Return the addresses of the host name, for systems other than Linux; may be incomplete."""
    try:
        answers = socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        return frozenset()
    return frozenset(str(answer[4][0]) for answer in answers)
