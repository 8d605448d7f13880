"""The address policy: which addresses and ports are refused, and what an operator allows."""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from django.conf import settings
from django.utils.translation import gettext_noop

from webhooks.network.failures import Failure, blocked
from webhooks.network.hosts import is_own_host, own_addresses

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
AllowedNetwork = tuple[Network, frozenset[int] | None]


def _networks(by_reason: dict[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple(
        (ipaddress.ip_network(network), reason)
        for reason, networks in by_reason.items()
        for network in networks.split()
    )


# IANA special-purpose registry (RFC 6890 and later entries), multicast, class E, and public
# addresses that clouds use for their control plane.
DENIED_IPV4 = _networks(
    {
        gettext_noop("means this machine"): "0.0.0.0/8",
        gettext_noop("is a loopback address"): "127.0.0.0/8",
        gettext_noop("is a private address"): "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16",
        gettext_noop("is a shared carrier or cloud address"): "100.64.0.0/10",
        gettext_noop("is a link-local or cloud metadata address"): "169.254.0.0/16",
        # Azure's WireServer; Equinix Metal. The next line covers Oracle's 192.0.0.192.
        gettext_noop("is a cloud metadata address"): "168.63.129.16/32 192.80.8.124/32",
        gettext_noop("is reserved for protocols"): "192.0.0.0/24 192.88.99.0/24 192.52.193.0/24",
        gettext_noop("belongs to the AS112 service"): "192.31.196.0/24 192.175.48.0/24",
        gettext_noop(
            "is reserved for documentation"
        ): "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24",
        gettext_noop("is reserved for benchmarks"): "198.18.0.0/15",
        gettext_noop("is a multicast address"): "224.0.0.0/4",
        gettext_noop("is a reserved or broadcast address"): "240.0.0.0/4",
    }
)
# Only this part of IPv6 is global unicast (RFC 4291, IANA); the rest is refused.
GLOBAL_IPV6 = ipaddress.IPv6Network("2000::/3")
DENIED_IPV6 = _networks(
    {
        gettext_noop("is reserved for protocols such as Teredo and ORCHID"): "2001::/23",
        gettext_noop("is reserved for documentation"): "2001:db8::/32 3fff::/20",
        gettext_noop("is a 6to4 address"): "2002::/16",
        gettext_noop("belongs to the AS112 service"): "2620:4f:8000::/48",
    }
)
# Networks that an operator may have a reason to open; cloud metadata and the rest are never
# suggested.
_OPENABLE = tuple(
    map(
        ipaddress.ip_network,
        "127.0.0.0/8 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 ::1 fc00::/7".split(),  # noqa: SIM905 - read as prose.
    )
)
# Addresses at which clouds and their containers serve the machine's own credentials: AWS (also its
# containers and EKS), Google, Azure, DigitalOcean and others; Alibaba; Volcengine; UCloud; Oracle;
# Azure's WireServer; Equinix; and the IPv6 addresses of AWS, Google, Oracle, Scaleway, Akamai and
# OpenStack. An entry of WEBHOOKS_ALLOWED_NETWORKS opens one of them only if it names that address
# and nothing else.
METADATA = tuple(
    map(
        ipaddress.ip_network,
        (
            *("169.254.0.0/16", "100.100.100.200", "100.96.0.96", "100.80.80.80"),
            *("192.0.0.192", "168.63.129.16", "192.80.8.124"),
            *("fe80::/10", "fd00:ec2::/32", "fd20:ce::/32", "fd00:c1::/32", "fd00:42::/32"),
            "fd00:a9fe:a9fe::/48",
        ),
    )
)
# Prefix of local IPv4/IPv6 translators, which may put the IPv4 address in the middle (RFC 8215).
_LOCAL_TRANSLATION = ipaddress.IPv6Network("64:ff9b:1::/48")
# ISATAP (RFC 5214) embeds an IPv4 address after this interface identifier, in any prefix.
ISATAP, ISATAP_MASK = 0x0000_5EFE, 0xFDFF_FFFF

_ALLOWED_NETWORK = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+))(?P<prefix>/[0-9]{1,3})?"
    r"(?::(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?)?"
    r"|(?P<bare>[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:/[0-9]{1,3})?)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What may be reached besides the public internet. A network without ports opens every port."""

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
        """Return whether an entry opens an address; cloud metadata needs one that names only it."""
        must_be_alone = is_metadata(address)
        return any(
            (ports is None or port in ports)
            and address in network
            and (network.num_addresses == 1 or not must_be_alone)
            for network, ports in self.allowed_networks
        )

    def opens_port(self, port: int) -> bool:
        return any(ports is None or port in ports for _, ports in self.allowed_networks)


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


def address_problem(address: str, port: int, policy: Policy) -> Failure | None:
    """Return why nothing may be sent to this address and port, or None if it may.

    `address` is spelled as by a resolver or a socket; any other spelling is refused.
    """
    problem = _policy_problem(address, port, policy)
    if problem is not None:
        return problem
    is_own = address in own_addresses() or is_own_host(address)
    if is_own and not policy.opens(ipaddress.ip_address(address), port):
        return blocked("own_address", address=address)
    return None


def opened_by(address: str, port: int) -> str:
    """Return the narrowest entry of WEBHOOKS_ALLOWED_NETWORKS for a refused address, or ""."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return ""
    is_own = address in own_addresses() or is_own_host(address)
    if is_metadata(ip) or not (is_own or any(ip in network for network in _OPENABLE)):
        return ""
    return f"[{ip}]/128:{port}" if ip.version == 6 else f"{ip}/32:{port}"


def is_metadata(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether clouds serve credentials at an address, or at one it embeds (IPv6)."""
    if isinstance(ip, ipaddress.IPv6Address) and any(map(is_metadata, _embedded_ipv4(ip))):
        return True
    return any(ip in network for network in METADATA)


def _embedded_ipv4(ip: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield each IPv4 address that an IPv6 address may embed.

    Outside the global range any prefix may be a translator's (RFC 6052); mapped and compatible
    addresses are among these. Source: RFC 4291, RFC 3056, RFC 4380, RFC 5214.
    """
    if ip not in GLOBAL_IPV6 or (int(ip) >> 32) & ISATAP_MASK == ISATAP:
        yield ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    if ip in _LOCAL_TRANSLATION:
        # RFC 6052 section 2.2: the ninth byte is not part of the address.
        data = ip.packed[:8] + ip.packed[9:]
        yield from (ipaddress.IPv4Address(data[start : start + 4]) for start in (6, 7, 8))
    if ip.sixtofour:
        yield ip.sixtofour
    if ip.teredo:
        yield from ip.teredo


@lru_cache(maxsize=8192)
def _policy_problem(address: str, port: int, policy: Policy) -> Failure | None:
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return blocked("no_ip_address", address=address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        return blocked("interface", address=address)
    if policy.opens(ip, port):
        return None
    if not is_public_port(port):
        return blocked("port_closed", port=port)
    is_what = _ipv4_reason(ip) if isinstance(ip, ipaddress.IPv4Address) else _ipv6_reason(ip)
    return blocked("denied_network", address=address, is_what=is_what) if is_what else None


def _ipv4_reason(ip: ipaddress.IPv4Address) -> str | None:
    return next((reason for network, reason in DENIED_IPV4 if ip in network), None)


def _ipv6_reason(ip: ipaddress.IPv6Address) -> str | None:
    if ip not in GLOBAL_IPV6:
        return gettext_noop("is outside of the global IPv6 range")
    if (int(ip) >> 32) & ISATAP_MASK == ISATAP:
        return gettext_noop("embeds an IPv4 address")
    return next((reason for network, reason in DENIED_IPV6 if ip in network), None)


def is_public_port(port: int) -> bool:
    return port in (80, 443) or 1024 <= port <= 65535
