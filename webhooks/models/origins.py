"""Origins: scheme, host and port of an address, to compare them. Text alone; nothing is judged."""

import ipaddress
import re

import idna

_ADDRESS = re.compile(
    r"(https?)://(\[[^\]/?#]*\]|[^:/?#]*)(?::([0-9]{0,5}))?(?=[/?#]|\Z)", re.ASCII | re.I
)
_LOOPBACK = re.compile(r"http://(localhost|\[::1\]|127(\.[0-9]{1,3}){3})(:[0-9]+)?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def origin_of(url: str) -> str:
    """Return the origin of an address, or of one already; what is neither stays as it is.

    Two addresses that are sent to different places never have the same (RFC 6454 section 4).
    """
    found = _ADDRESS.match(url)
    if found is None:
        return url
    scheme, host, port = found[1].lower(), found[2].removesuffix("."), found[3]
    origin = f"{scheme}://{_ascii(host)}"
    return f"{origin}:{port}" if port and port != _DEFAULT_PORTS[scheme] else origin


def host_origin(entry: str) -> str:
    """Return the origin that an entry of `Credential.allowed_hosts` means: a bare host is https."""
    if "://" in entry:
        return entry
    return f"https://[{entry}]" if ":" in entry else f"https://{entry}"


def host_entry(origin: str) -> str:
    """Return how an origin is written in `Credential.allowed_hosts`, as short as it can be."""
    host = origin.removeprefix("https://")
    bare = host.strip("[]")
    return bare if host != origin and host_origin(bare) == origin else origin


def is_plain_http(url: str) -> bool:
    """Return whether what is sent to an address can be read on its way to another machine."""
    origin = origin_of(url)
    return origin.startswith("http://") and not _LOOPBACK.fullmatch(origin)


def _ascii(host: str) -> str:
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return host.lower()
    # Letter by letter, as the sender reads a host: in a word a capital sigma has two small forms.
    # Of Cherokee the capitals are the basic form, which it keeps.
    lower = "".join(one.lower() if one.lower() == one.casefold() else one for one in host)
    if lower.isascii():
        return lower
    try:
        return idna.encode(lower).decode()
    except idna.IDNAError:
        return lower
