"""The one URL parser, and the names that never lead to the public internet.

Owns what a URL may look like and how it is spelled. No look-up: `resolver` does that.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import quote

import idna
from django.utils.translation import gettext as _

from webhooks.network.addresses import Policy, UnsafeURL, is_public_port, port_reason
from webhooks.network.local_addresses import is_own_host

# Longer URLs are cut or refused by some proxies and servers.
MAX_URL_LENGTH = 2048
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
    """Return the parts of a URL that every parser reads the same way, without any look-up.

    Errors: UnsafeURL. Parsing `Target.url` again gives the same target.
    Source: RFC 3986, RFC 5891, WHATWG URL; what these disagree on is refused.
    """
    _check_characters(url)
    match = _URL.fullmatch(url)
    if match is None or match[1].lower() not in _DEFAULT_PORTS:
        raise UnsafeURL(_("The URL must start with http:// or https://."), code="scheme")
    scheme = match[1].lower()
    host_text, port = _split_authority(match[2], scheme)
    host, is_literal = ascii_host(host_text)
    if not is_public_port(port) and not (policy or Policy.from_settings()).opens_port(port):
        raise UnsafeURL(port_reason(port), code="port")
    origin = f"{scheme}://[{host}]" if ":" in host else f"{scheme}://{host}"
    if port != _DEFAULT_PORTS[scheme]:
        origin += f":{port}"
    # What RFC 3986 has no place for is encoded, what is encoded already stays as it is.
    rest = quote((match[3] or "/") + (match[4] or ""), safe="%/?:@!$&'()*+,;=~")
    if len(origin) + len(rest) > MAX_URL_LENGTH:
        raise UnsafeURL(
            _("The URL is longer than %(limit)d characters.") % {"limit": MAX_URL_LENGTH},
            code="length",
        )
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
        raise UnsafeURL(_("The URL is empty."), code="empty")
    if len(url) > MAX_URL_LENGTH:
        raise UnsafeURL(
            _("The URL is longer than %(limit)d characters.") % {"limit": MAX_URL_LENGTH},
            code="length",
        )
    if any(unicodedata.category(character) in _INVISIBLE for character in url):
        raise UnsafeURL(
            _("The URL has a space or an invisible character in it."), code="characters"
        )
    bad = next((character for character in url if character in '\\<>"^`{}'), None)
    if bad is not None:
        raise UnsafeURL(
            _("The URL may not have the character %(character)s in it.") % {"character": bad},
            code="characters",
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", url.partition("#")[0]):
        raise UnsafeURL(_("A % in the URL must be written as %25."), code="characters")


def _split_authority(authority: str, scheme: str) -> tuple[str, int]:
    if "@" in authority:
        raise UnsafeURL(
            _("The URL may not have a login or password in it: use the authorization below."),
            code="userinfo",
        )
    match = _AUTHORITY.fullmatch(authority)
    if match is None or "%" in authority:
        raise UnsafeURL(_("The URL has no valid host name and port."), code="host")
    text = match[2] or str(_DEFAULT_PORTS[scheme])
    if text.startswith("0") or len(text) > 5 or int(text) > 65535:
        raise UnsafeURL(_("The port must be a number from 1 to 65535."), code="port")
    return match[1], int(text)


def ascii_host(text: str) -> tuple[str, bool]:
    """Return the host in its one spelling, and whether it is an IP address. Errors: UnsafeURL."""
    labels = [_ascii_label(label) for label in text.removesuffix(".").split(".")]
    if text.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        return _canonical_literal(text), True
    host = ".".join(labels)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnsafeURL(_("“%(name)s” is not a valid host name.") % {"name": text}, code="host")
    return host, False


def _canonical_literal(text: str) -> str:
    try:
        ip = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise UnsafeURL(
            _("“%(address)s” is not a valid IP address.") % {"address": text}, code="literal"
        ) from None
    canonical = f"[{ip}]" if ip.version == 6 else str(ip)
    if text.lower() != canonical:
        raise UnsafeURL(
            _("Write the IP address as %(address)s.") % {"address": canonical}, code="literal"
        )
    return str(ip)


def _ascii_label(label: str) -> str:
    folded = "".join(map(_lower, label))
    if folded.isascii() and not folded.startswith("xn--"):
        return folded
    try:
        encoded = idna.alabel(folded).decode()
        if encoded.startswith("xn--") and idna.alabel(idna.ulabel(encoded)).decode() == encoded:
            return encoded
    except UnicodeError:
        pass
    raise UnsafeURL(
        _("“%(part)s” is not a valid part of a host name.") % {"part": label}, code="host"
    )


def _lower(letter: str) -> str:
    """Return the lower case of a letter that is nothing but its capital, else the letter.

    The others stay, and are refused then: K and ſ fold into ASCII, İ into two letters, and ẞ is
    ß to some and ss to others. Cherokee stays and is right, its capitals are the basic form.
    """
    lower = letter.lower()
    return lower if letter.casefold() == lower and lower.upper() == letter else letter


def check_name(host: str, port: int = 443, *, policy: Policy | None = None) -> None:
    """Refuse names that never lead to the public internet, unless an allowed network opens them.

    Errors: UnsafeURL. Whatever passes is still resolved and its addresses are checked.
    """
    if _has_suffix(host, REFUSED_SUFFIXES):
        raise UnsafeURL(
            _("%(host)s is not a name on the public internet.") % {"host": host}, code="name"
        )
    if not needs_opening(host) or (policy or Policy.from_settings()).opens_port(port):
        return
    if is_own_host(host):
        raise UnsafeURL(_("%(host)s is this site itself.") % {"host": host}, code="own")
    raise UnsafeURL(
        _("%(host)s is a name of a private network: use a public host name.") % {"host": host},
        code="private",
    )


def needs_opening(host: str) -> bool:
    """Say whether only addresses that the operator opened may be behind a name."""
    return is_private_name(host) or is_own_host(host)


def is_private_name(host: str) -> bool:
    *rest, top = host.split(".")
    return not rest or _has_suffix(host, PRIVATE_SUFFIXES) or not _TOP_LABEL.fullmatch(top)


def _has_suffix(host: str, suffixes: frozenset[str]) -> bool:
    labels = host.split(".")
    return any(".".join(labels[start:]) in suffixes for start in range(len(labels)))
