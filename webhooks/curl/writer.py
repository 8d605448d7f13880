"""Write an attempt as a cURL command that is safe to paste into bash, whatever it contains.

Every word is printable ASCII in single quotes or in bash's `$'...'`, so a paste can neither run
anything but curl nor control a terminal. Secrets become shell variables; a request that a command
line cannot express raises an error.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from webhooks.curl import CurlError
from webhooks.network import HEADER_NAME, header_line
from webhooks.security.masker import MASK

# Linux allows 131,072 bytes per argument; an escaped byte takes four characters.
MAX_BODY_BYTES = 30_000
# Headers that curl writes itself, or that belong to one connection.
_LEFT_OUT = frozenset({"content-length", "connection", "transfer-encoding", "expect"})
_NEWLINE = " \\\n  "


@dataclass(frozen=True, slots=True, kw_only=True)
class CurlCommand:
    text: str
    # The shell variables to set first, in the order of their use.
    variables: tuple[str, ...]
    # The request has a webhook-signature, which receivers accept only for some minutes.
    is_signed: bool


def build(
    request_line: str, headers: Sequence[tuple[str, str]], body: bytes, *, login: str = ""
) -> CurlCommand:
    """Return the command for a logged request. Errors: CurlError.

    `request_line` is "POST https://..."; masked values become variables. `login` is the login of
    Basic credentials, which the log masks although it is no secret.
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
    # curl must send the Content-Length of an empty body too.
    if body or method != "GET":
        if "content-type" not in names:
            # Without this curl would declare a form.
            words.append("--header 'Content-Type:'")
        words.append(f"--data-raw {quote(body)}")
    return CurlCommand(
        text=_NEWLINE.join(words),
        variables=tuple(dict.fromkeys(variables)),
        is_signed="webhook-signature" in names,
    )


def _header(name: str, value: str, host: str, login: str, variables: list[str]) -> str:
    """Return the option for one header, or "" if curl sets it or its name is invalid."""
    lower = name.lower()
    # An invalid name could be read as a file ("@name") or as another option.
    if not HEADER_NAME.fullmatch(name) or lower in _LEFT_OUT or (lower == "host" and value == host):
        return ""
    if lower == "authorization" and value == f"Basic {MASK}":
        variables.append("PASSWORD")
        return f'--user {quote(f"{login}:".encode())}"$PASSWORD"'
    variable = "TOKEN" if lower == "authorization" else _variable(name)
    return f"--header {_word(header_line(name, value), variable, variables)}"


def _variable(name: str) -> str:
    # The prefix keeps a header named Path from sending the user's own PATH.
    return "SECRET_" + re.sub("[^A-Z0-9]", "_", name.upper())


def _word(text: str, variable: str, variables: list[str]) -> str:
    """Quote one argument; masked parts become a variable."""
    pieces = text.split(MASK)
    if len(pieces) > 1:
        variables.append(variable)
    return f'"${variable}"'.join(
        quote(piece.encode("utf-8", "backslashreplace")) if piece else "" for piece in pieces
    )


def quote(data: bytes) -> str:
    """Return bytes as one bash word of printable ASCII. Raise CurlError for a zero byte.

    In `$'...'` quotes and exclamation marks are escaped too, because an interactive bash expands
    its history before it recognizes this kind of quote.
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
