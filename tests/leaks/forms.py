"""The spellings of a leaked secret. Independent of the product's masking, as an oracle."""

import base64
import html
import json
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, quote_plus

# Shorter texts occur in any long text by chance.
_SHORTEST = 6
_LOGINS = ("x", "demo-login", "sandbox-client", "odd:client", "odd%3Aclient")


class Leak(NamedTuple):
    secret: str
    form: str
    sink: str
    around: str


def forms(secret: str) -> dict[str, str]:
    """Return the spellings to look for, by name; one text may have several names."""
    found = {
        "raw": secret,
        "percent": quote(secret, safe=""),
        "percent, slashes kept": quote(secret),
        "percent, lower case": _lower(quote(secret, safe="")),
        "form": quote_plus(secret),
        "json": json.dumps(secret)[1:-1],
        "json, not ascii": json.dumps(secret, ensure_ascii=False)[1:-1],
        "json, slashes escaped": json.dumps(secret)[1:-1].replace("/", r"\/"),
        "json in json": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "html": html.escape(secret),
        "json in html": html.escape(json.dumps(secret)[1:-1]),
    }
    for alignment in range(3):
        core = base64_core(secret, alignment)
        found[f"base64 at {alignment}"] = core
        found[f"base64url at {alignment}"] = core.replace("+", "-").replace("/", "_")
    for login in _LOGINS:
        # RFC 6749 section 2.3.1 form-encodes the credentials, RFC 7617 does not.
        for name, text in (("basic", secret), ("basic, form-encoded", quote_plus(secret))):
            pair = base64.b64encode(f"{login}:{text}".encode()).decode()
            found[f"{name}, of {login}"] = pair.rstrip("=")
    return {name: text for name, text in found.items() if len(text) >= _SHORTEST}


def base64_core(secret: str, alignment: int) -> str:
    """Return the Base64 characters that depend only on the secret, after this many other bytes."""
    data = secret.encode()
    bits = range(8 * alignment, 8 * (alignment + len(data)))
    text = base64.b64encode(b"\0" * alignment + data + b"\0\0").decode()
    # A character holds six bits and belongs to the secret if all six do.
    own = [n for n in range(len(text)) if 6 * n in bits and 6 * n + 5 in bits]
    return "".join(text[n] for n in own)


def leaks(text: str, secrets: dict[str, str], *, sink: str) -> Iterator[Leak]:
    """Yield a leak for each spelling of each secret that is in a text."""
    for name, secret in secrets.items():
        for form, spelled in forms(secret).items():
            if (at := text.find(spelled)) >= 0:
                yield Leak(name, form, sink, text[max(0, at - 120) : at + len(spelled) + 40])


def _lower(text: str) -> str:
    head, *rest = text.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])
