"""An attempt as a cURL command that can be pasted into bash, whatever its address or body holds.

Every word is printable ASCII in single quotes or in bash's `$'...'`, so a paste can neither run
anything but curl nor steer a terminal. Secrets are shell variables; what cannot be said on a
command line is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from webhooks.curl import CurlError
from webhooks.network import HEADER_NAME, header_line
from webhooks.security.masker import MASK

# Linux takes 131,072 bytes in one argument; an escaped byte is four characters.
MAX_BODY_BYTES = 30_000
# curl writes these, or they belong to one connection.
_LEFT_OUT = frozenset({"content-length", "connection", "transfer-encoding", "expect"})
_NEWLINE = " \\\n  "


@dataclass(frozen=True, slots=True, kw_only=True)
class CurlCommand:
    text: str
    # The shell variables to set before, in the order in which they occur.
    variables: tuple[str, ...]
    # Carries a webhook-signature, which receivers accept for some minutes only.
    is_signed: bool


def build(
    request_line: str, headers: Sequence[tuple[str, str]], body: bytes, *, login: str = ""
) -> CurlCommand:
    """Write the command of a logged request; raise CurlError.

    `request_line` is "POST https://..."; masked values become variables. `login` is the part of
    Basic credentials that the log masks although it is no secret.
    """
    method, _space, url = request_line.partition(" ")
    if not re.fullmatch("[A-Z]{1,20}", method) or not url.startswith(("http://", "https://")):
        raise CurlError(_("No request was made."))
    if len(body) > MAX_BODY_BYTES:
        raise CurlError(_("The body is too long for a command line. Download it instead."))
    variables: list[str] = []
    words = [
        f"curl --globoff --path-as-is --request {method}",
        f"--url {_word(url, 'TOKEN', variables)}",
    ]
    for name, value in headers:
        if word := _header(name, value, urlsplit(url).netloc, login, variables):
            words.append(word)
    names = {name.lower() for name, _value in headers}
    # An empty body has a Content-Length too.
    if body or method != "GET":
        if "content-type" not in names:
            # curl would call it a form.
            words.append("--header 'Content-Type:'")
        words.append(f"--data-raw {quote(body)}")
    return CurlCommand(
        text=_NEWLINE.join(words),
        variables=tuple(dict.fromkeys(variables)),
        is_signed="webhook-signature" in names,
    )


def _header(name: str, value: str, host: str, login: str, variables: list[str]) -> str:
    """Write one header, or "" for one that is left to curl or is none."""
    lower = name.lower()
    # A name that is no token could be read as a file ("@name") or as another option.
    if not HEADER_NAME.fullmatch(name) or lower in _LEFT_OUT or (lower == "host" and value == host):
        return ""
    if lower == "authorization" and value == f"Basic {MASK}":
        variables.append("PASSWORD")
        return f'--user {quote(f"{login}:".encode())}"$PASSWORD"'
    variable = "TOKEN" if lower == "authorization" else _variable(name)
    return f"--header {_word(header_line(name, value), variable, variables)}"


def _variable(name: str) -> str:
    # With a prefix, so that a header called Path never sends the person's own PATH.
    return "SECRET_" + re.sub("[^A-Z0-9]", "_", name.upper())


def _word(text: str, variable: str, variables: list[str]) -> str:
    """Quote one argument; what is masked in it becomes a variable."""
    pieces = text.split(MASK)
    if len(pieces) > 1:
        variables.append(variable)
    return f'"${variable}"'.join(
        quote(piece.encode("utf-8", "backslashreplace")) if piece else "" for piece in pieces
    )


def quote(data: bytes) -> str:
    """Write bytes as one bash word of printable ASCII; raise CurlError for a zero byte.

    In `$'...'` quotes and exclamation marks are escapes too: an interactive bash looks for its
    history before it knows that kind of quotes.
    """
    if b"\0" in data:
        raise CurlError(_("The request holds a zero byte, which no command line can carry."))
    if all(32 <= byte < 127 and byte != 0x27 for byte in data):
        return f"'{data.decode('ascii')}'"
    return "$'" + "".join(map(_escaped, data)) + "'"


def _escaped(byte: int) -> str:
    if byte == 0x5C:
        return "\\\\"
    if byte == 0x0A:
        return "\\n"
    if 32 <= byte < 127 and byte not in (0x27, 0x21):
        return chr(byte)
    return f"\\x{byte:02x}"
