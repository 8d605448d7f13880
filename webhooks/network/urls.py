"""The URL parser, and host names that never lead to the public internet.

Looks no name up: `resolver` does.
"""

import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote

from webhooks.network.addresses import Policy, address_problem, is_public_port, opened_by
from webhooks.network.failures import Failure, UnsafeURLError, blocked
from webhooks.network.hosts import ascii_host, bare_address, is_own_host

# Longer URLs are cut or refused by some proxies and servers.
MAX_URL_LENGTH = 2048
# Names of the machine, its network, cluster or lab. They never lead to the public internet, so only
# an allowed network opens them, and only for addresses inside it. RFC 6761, RFC 6762 appendix G,
# RFC 8375, ICANN (.internal), Docker, Kubernetes, Consul.
PRIVATE_SUFFIXES = frozenset(
    """
    localhost local localdomain internal intranet private corp home lan mail domain workgroup
    router gateway modem dhcp fritz.box vm svc pod cluster default kube consul nomad node docker
    test example home.arpa
    """.split()  # noqa: SIM905 - read as prose, sorted by kind.
)
# Names outside DNS, and names of cloud metadata services. The longest matching suffix decides:
# metadata.google.internal is here although internal is above, and home.arpa is above although arpa
# is here.
REFUSED_SUFFIXES = frozenset(
    """
    arpa onion i2p exit alt invalid bit gnu zkey metadata.goog metadata.google.internal
    ec2.internal metadata.azure.internal metadata.packet.net metadata.platformequinix.com
    metadata.tencentyun.com metadata.cloud.ibm.com metadata.exoscale.com
    """.split()  # noqa: SIM905 - read as prose, sorted by kind.
)

_KNOWN_SUFFIXES = PRIVATE_SUFFIXES | REFUSED_SUFFIXES
_DEFAULT_PORTS = {"http": 80, "https": 443}
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^\[\]:]+)(?::([0-9]+))?")
_ZONE = re.compile(r"\[[0-9A-Fa-f:.]+%")
_TOP_LABEL = re.compile(r"[a-z]{2,63}|xn--[a-z0-9-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A parsed URL. `host` is ASCII, lower case, without brackets or trailing dot."""

    scheme: str
    host: str
    port: int
    is_literal: bool
    url: str
    origin: str


def parse_url(url: str, *, policy: Policy | None = None) -> Target:
    """Return the parts of a URL that every parser reads the same way, without a lookup.

    Errors: UnsafeURLError. Parsing `Target.url` again gives the same target. Source: RFC 3986, RFC
    5891, WHATWG URL; URLs on which these disagree are refused.
    """
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in _DEFAULT_PORTS:
        raise UnsafeURLError(blocked("scheme"))
    scheme = match[1].lower()
    host_text, port_text = _split_authority(match[2], scheme, policy)
    port = int(port_text)
    try:
        host, is_literal = ascii_host(host_text)
    except UnsafeURLError as error:
        raise _first_refusal(error.failure, port, policy) from None
    if not is_public_port(port) and not (policy or Policy.from_settings()).opens_port(port):
        raise UnsafeURLError(blocked("port_closed", port=port))
    if port_text.startswith("0"):
        raise UnsafeURLError(blocked("port_spelling", port=port))
    origin = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    if port != _DEFAULT_PORTS[scheme]:
        origin += f":{port}"
    typed = (match[3] or "/") + (match[4] or "")
    if re.search(r"%(?![0-9A-Fa-f]{2})", typed):
        raise UnsafeURLError(blocked("percent"))
    # Encode characters that RFC 3986 does not allow; keep existing percent-encoding.
    rest = quote(typed, safe="%/?:@!$&'()*+,;=~")
    if len(origin) + len(rest) > MAX_URL_LENGTH:
        raise UnsafeURLError(blocked("encoded_url_too_long", limit=MAX_URL_LENGTH))
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        is_literal=is_literal,
        url=origin + rest,
        origin=origin,
    )


def with_query(url: str, query: str) -> str:
    """Append `query` to the query string of a URL, before its fragment."""
    base, mark, fragment = url.partition("#")
    sign = "&" if "?" in base else "?"
    is_begun = base.endswith("?") or (sign == "&" and base.endswith("&"))
    joint = "" if not query or is_begun else sign
    return f"{base}{joint}{query}{mark}{fragment}"


def _check_characters(url: str) -> None:
    if not url:
        raise UnsafeURLError(blocked("url_empty"))
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeURLError(blocked("url_too_long", limit=MAX_URL_LENGTH))
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not is_plain and any(unicodedata.category(one) in _INVISIBLE for one in url):
        raise UnsafeURLError(blocked("invisible_character"))
    bad = next((character for character in url if character in '\\<>"^`{}'), None)
    if bad is not None:
        raise UnsafeURLError(blocked("character", character=bad))


def _split_authority(authority: str, scheme: str, policy: Policy | None) -> tuple[str, str]:
    """Return the host and the port, both as typed; the port may have leading zeros."""
    if "@" in authority:
        raise UnsafeURLError(blocked("userinfo"))
    if _ZONE.match(authority):
        raise UnsafeURLError(blocked("interface", address=authority))
    match = _AUTHORITY.fullmatch(authority)
    if match is None or "%" in authority:
        failure = bare_address(authority) or blocked("authority")
        raise _first_refusal(failure, _DEFAULT_PORTS[scheme], policy)
    text = match[2] or str(_DEFAULT_PORTS[scheme])
    number = text.lstrip("0")
    if not number or len(number) > 5 or int(number) > 65535:
        raise UnsafeURLError(blocked("port_number"))
    return match[1], text


def _first_refusal(failure: Failure, port: int, policy: Policy | None) -> UnsafeURLError:
    """Return the error of an address in another spelling: refused addresses need no better one."""
    if failure.code == "literal_spelling":
        address = str(failure.params["address"]).strip("[]")
        problem = address_problem(address, port, policy or Policy.from_settings())
        if problem is not None:
            return UnsafeURLError(problem, opened_by=opened_by(address, port))
    return UnsafeURLError(failure)


def check_name(host: str, port: int = 443, *, policy: Policy | None = None) -> None:
    """Refuse names that never lead to the public internet, unless an allowed network opens them.

    Errors: UnsafeURLError. Names that pass are still resolved, and their addresses checked.
    """
    if _known_suffix(host) in REFUSED_SUFFIXES:
        raise UnsafeURLError(blocked("no_public_name", host=host))
    if not needs_opening(host) or (policy or Policy.from_settings()).opens_port(port):
        return
    if is_own_host(host):
        raise UnsafeURLError(blocked("own_name", host=host))
    raise UnsafeURLError(blocked("private_name", host=host))


def needs_opening(host: str) -> bool:
    """Return whether a name may resolve only to addresses in allowed networks."""
    return is_private_name(host) or is_own_host(host)


def is_private_name(host: str) -> bool:
    *rest, top = host.split(".")
    return not rest or _known_suffix(host) in PRIVATE_SUFFIXES or not _TOP_LABEL.fullmatch(top)


def _known_suffix(host: str) -> str:
    """Return the longest ending of a name that is in one of the lists, or ""."""
    labels = host.split(".")
    endings = (".".join(labels[start:]) for start in range(len(labels)))
    return next((one for one in endings if one in _KNOWN_SUFFIXES), "")
