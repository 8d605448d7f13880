"""Origins of URLs (scheme, host and port), for comparison. Works on text only; checks nothing."""

import ipaddress
import re

import idna

_ADDRESS = re.compile(
    r"(https?)://(\[[^\]/?#]*\]|[^:/?#]*)(?::([0-9]{0,5}))?(?=[/?#]|\Z)", re.ASCII | re.I
)
_LOOPBACK = re.compile(r"http://(localhost|\[::1\]|127(\.[0-9]{1,3}){3})(:[0-9]+)?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def origin_of(url: str) -> str:
    """Return the origin of a URL or origin; any other text is returned unchanged.

    URLs of different servers never have the same origin (RFC 6454 section 4).
    """
    found = _ADDRESS.match(url)
    if found is None:
        return url
    scheme, host, port = found[1].lower(), found[2].removesuffix("."), found[3]
    origin = f"{scheme}://{_ascii(host)}"
    return f"{origin}:{port}" if port and port != _DEFAULT_PORTS[scheme] else origin


def host_origin(entry: str) -> str:
    """Return the origin for an entry of `Credential.allowed_hosts`; a bare host means https."""
    if "://" in entry:
        return entry
    return f"https://[{entry}]" if ":" in entry else f"https://{entry}"


def host_entry(origin: str) -> str:
    """Return the shortest entry of `Credential.allowed_hosts` for an origin."""
    host = origin.removeprefix("https://")
    bare = host.strip("[]")
    return bare if host != origin and host_origin(bare) == origin else origin


def is_plain_http(url: str) -> bool:
    """Return whether requests to a URL can be read on their way to another machine."""
    origin = origin_of(url)
    return origin.startswith("http://") and not _LOOPBACK.fullmatch(origin)


def _ascii(host: str) -> str:
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1])}]"
        except ValueError:
            return host.lower()
    # Letter by letter, as the URL parser reads a host: in a word a capital sigma has two lower-case
    # forms. Cherokee letters keep their capitals, which are the basic form.
    lower = "".join(one.lower() if one.lower() == one.casefold() else one for one in host)
    try:
        # ASCII labels may have what IDNA does not allow, such as an underscore.
        labels = (one if one.isascii() else idna.alabel(one).decode() for one in lower.split("."))
        return ".".join(labels)
    except idna.IDNAError:
        return lower
