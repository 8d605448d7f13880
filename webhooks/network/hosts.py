"""Host names and IP addresses in their one spelling: ASCII, lower case, no trailing dot."""

import ipaddress
import re

import idna

from webhooks.network.errors import UnsafeURLError
from webhooks.network.failures import blocked

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def ascii_host(text: str) -> tuple[str, bool]:
    """Return the host in its one spelling, and whether it is an address. Errors: UnsafeURLError."""
    labels = [_ascii_label(label) for label in text.removesuffix(".").split(".")]
    if text.startswith("[") or _NUMBER.fullmatch(labels[-1]):
        return _canonical_literal(text), True
    host = ".".join(labels)
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise UnsafeURLError(blocked("host_name", name=text))
    return host, False


def _canonical_literal(text: str) -> str:
    try:
        ip = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        raise UnsafeURLError(blocked("literal", address=text)) from None
    canonical = f"[{ip}]" if ip.version == 6 else str(ip)
    if text.lower() != canonical:
        raise UnsafeURLError(blocked("literal_spelling", address=canonical))
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
    raise UnsafeURLError(blocked("host_part", part=label))


def _lower(letter: str) -> str:
    """Return the lower case of a letter that is nothing but its capital, else the letter.

    The others stay, and are refused then: K and ſ fold into ASCII, İ into two letters, and ẞ is
    ß to some and ss to others. Cherokee stays and is right, its capitals are the basic form.
    """
    lower = letter.lower()
    return lower if letter.casefold() == lower and lower.upper() == letter else letter


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
