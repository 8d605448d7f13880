"""A pasted cURL command as the request it describes.

What cannot become a webhook is refused with a sentence; what has no meaning here is named, so that
nothing is dropped in silence. Opens no file and runs nothing. Knows no form and no model.
"""

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.curl_words import UnclosedQuote, split

MAX_LENGTH = 200_000
JSON_TYPE = "application/json"


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Short option -> its long name.
_SHORT = {
    "X": "request",
    "H": "header",
    "d": "data",
    "u": "user",
    "G": "get",
    "F": "form",
    "T": "upload-file",
    "I": "head",
    "A": "user-agent",
    "e": "referer",
    "b": "cookie",
    "c": "cookie-jar",
    "m": "max-time",
    "K": "config",
    "k": "insecure",
    "L": "location",
    "s": "silent",
    "S": "show-error",
    "v": "verbose",
    "i": "include",
    "f": "fail",
    "N": "no-buffer",
    "g": "globoff",
    "o": "output",
    "O": "remote-name",
    "w": "write-out",
    "D": "dump-header",
    "x": "proxy",
    "U": "proxy-user",
    "E": "cert",
    "r": "range",
    "y": "speed-time",
    "Y": "speed-limit",
    "4": "ipv4",
    "6": "ipv6",
    "0": "http1.0",
    "1": "tlsv1",
    "n": "netrc",
    "j": "junk-session-cookies",
    "J": "remote-header-name",
    "R": "remote-time",
    "#": "progress-bar",
    "a": "append",
    "q": "disable",
    ":": "next",
}
_TAKES_VALUE = _names(
    """
    request header data data-raw data-binary data-ascii data-urlencode json user form
    form-string upload-file user-agent referer cookie cookie-jar max-time config output
    write-out dump-header proxy proxy-user cert key cacert capath range speed-time speed-limit
    url oauth2-bearer resolve connect-to connect-timeout retry retry-delay retry-max-time
    interface limit-rate ciphers tls-max cert-type key-type pass unix-socket aws-sigv4 url-query
    max-redirs
    """
)
# Options about curl's own work on one machine, which have no counterpart and change no request.
_MEANINGLESS = _names(
    """
    silent show-error verbose include fail no-buffer globoff output remote-name write-out
    dump-header ipv4 ipv6 progress-bar compressed http1.1 http2 http2-prior-knowledge
    fail-with-body remote-header-name remote-time disable junk-session-cookies cookie-jar
    no-progress-meter retry retry-delay retry-max-time retry-all-errors connect-timeout
    speed-time speed-limit limit-rate tcp-nodelay no-keepalive styled-output path-as-is
    max-redirs append create-dirs trace-time retry-connrefused
    """
)
COOKIES = gettext_lazy(
    "Cookies end and nobody renews them, so they were left out. Choose an authorization type."
)
_EXPLAINED = {
    "insecure": gettext_lazy("Certificates are always checked, so --insecure was left out."),
    "location": gettext_lazy("Redirects are not followed, so --location was left out."),
    "proxy": gettext_lazy("Proxies are set for the whole site, so --proxy was left out."),
    "cookie": COOKIES,
    "cert": gettext_lazy("Client certificates cannot be sent, so --cert was left out."),
    "digest": gettext_lazy("Digest authentication is not known; Basic is taken instead."),
}
_REFUSED = {
    "form": gettext_lazy(
        "The command sends a multipart form (-F). A webhook sends JSON or a plain form: write its "
        "fields with -d, or map them under Content."
    ),
    "upload-file": gettext_lazy("The command uploads a file (-T), which a webhook cannot."),
    "head": gettext_lazy("The command asks for headers only (-I), which a webhook cannot."),
    "config": gettext_lazy(
        "The command reads its options from a file (-K). Paste them instead of the file's name."
    ),
    "next": gettext_lazy("These are several requests (--next). Paste one of them."),
}
_REFUSED["form-string"] = _REFUSED["form"]
_FILE = gettext_lazy(
    "The command reads its body from a file (%(file)s). Paste what is in the file instead of its "
    "name."
)


class CannotRead(ValueError):
    """The text is no command that a webhook can repeat; says what to do."""


@dataclass(slots=True)
class CurlRequest:
    """What the command sends. `login` is None without Basic credentials."""

    method: str = ""
    url: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    # What is added to the query of the address.
    queries: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    is_json: bool = False
    is_in_query: bool = False
    login: str | None = None
    password: str = ""
    timeout_seconds: float | None = None
    # What a shell would have filled in: “$TOKEN”.
    expansions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def body(self) -> str:
        return ("" if self.is_json else "&").join(self.data)

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def read(text: str) -> CurlRequest:
    """Return the request of a command; raise CannotRead."""
    if len(text) > MAX_LENGTH:
        raise CannotRead(_("The command has at most %d characters.") % MAX_LENGTH)
    try:
        found = split(text)
    except UnclosedQuote as error:
        raise CannotRead(_("A %s is missing that closes a quote.") % error.quote) from error
    words = found.words
    while words[:1] and words[0] in ("$", "%", ">", "sudo", "PS>"):
        words = words[1:]
    name = words[0].replace("\\", "/").rpartition("/")[2].lower() if words else ""
    if name not in ("curl", "curl.exe"):
        raise CannotRead(_("A command begins with “curl”. Paste the whole of it."))
    request = CurlRequest(expansions=found.expansions)
    _take_options(request, words[1:])
    _finish(request)
    if found.expansions:
        names = ", ".join(dict.fromkeys(found.expansions))
        request.notes.append(
            _("The command has values that a shell fills in: %s. Type them yourself.") % names[:200]
        )
    if found.rest:
        request.notes.append(_("What follows the command was left out: %s") % found.rest[:80])
    return request


def _take_options(request: CurlRequest, words: list[str]) -> None:
    rest = list(reversed(words))
    unknown: list[str] = []
    only_addresses = False
    while rest:
        word = rest.pop()
        if word == "--" and not only_addresses:
            only_addresses = True
        elif only_addresses or not word.startswith("-") or word == "-":
            _take_address(request, word)
        elif word.startswith("--"):
            name = word[2:]
            _take(request, name, rest, unknown, shown=word)
        else:
            _take_short(request, word[1:], rest, unknown)
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))
        request.notes.append(_("These options are not known here and were left out: %s") % names)


def _take_short(request: CurlRequest, letters: str, rest: list[str], unknown: list[str]) -> None:
    """Take a cluster such as -sSXPOST: the first that needs a value has what follows it."""
    for position, letter in enumerate(letters):
        name = _SHORT.get(letter, "")
        remainder = letters[position + 1 :]
        if name in _TAKES_VALUE:
            if remainder:
                rest.append(remainder)
            _take(request, name, rest, unknown, shown=f"-{letter}")
            return
        _take(request, name, rest, unknown, shown=f"-{letter}")


def _take(
    request: CurlRequest, name: str, rest: list[str], unknown: list[str], *, shown: str
) -> None:
    if name in _REFUSED:
        raise CannotRead(str(_REFUSED[name]))
    value = ""
    if name in _TAKES_VALUE:
        if not rest:
            raise CannotRead(_("The command ends after %s: its value is missing.") % shown)
        value = rest.pop()
    if name in _ACTIONS:
        _ACTIONS[name](request, value)
    elif name in _EXPLAINED:
        request.notes.append(str(_EXPLAINED[name]))
    elif name not in _MEANINGLESS:
        unknown.append(shown)


def _take_address(request: CurlRequest, word: str) -> None:
    if request.url:
        raise CannotRead(
            _("There are two addresses, %(first)s and %(second)s. Is a quote missing?")
            % {"first": request.url[:100], "second": word[:100]}
        )
    request.url = word.strip()


def _take_header(request: CurlRequest, line: str) -> None:
    if line.startswith("@"):
        raise CannotRead(str(_FILE) % {"file": line})
    name, colon, value = line.partition(":")
    name, value = name.strip(), value.strip()
    if not colon:
        name = name.rstrip(";")
    if not name or (not value and colon):
        # “Accept:” takes a header of curl away.
        return
    request.headers.append((name, value))


def _take_data(request: CurlRequest, text: str) -> None:
    if text.startswith("@"):
        raise CannotRead(str(_FILE) % {"file": text})
    request.data.append(text)


def _take_encoded(request: CurlRequest, text: str) -> None:
    request.data.append(_encoded(text))


def _take_query(request: CurlRequest, text: str) -> None:
    """Take what goes to the end of the address, encoded unless it begins with a plus."""
    request.queries.append(text[1:] if text.startswith("+") else _encoded(text))


def _encoded(text: str) -> str:
    name, equals, content = text.partition("=")
    if not equals and "@" in text:
        raise CannotRead(str(_FILE) % {"file": text[text.index("@") :]})
    if not equals:
        name, content = "", text
    return f"{name}={quote(content, safe='')}" if name else quote(content, safe="")


def _take_json(request: CurlRequest, text: str) -> None:
    _take_data(request, text)
    request.is_json = True


def _take_user(request: CurlRequest, text: str) -> None:
    request.login, _colon, request.password = text.partition(":")


def _take_timeout(request: CurlRequest, text: str) -> None:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds):
        request.timeout_seconds = seconds
    else:
        request.notes.append(_("--max-time was left out: %s is no number of seconds.") % text[:20])


_Action = Callable[[CurlRequest, str], None]
_ACTIONS: dict[str, _Action] = {
    "request": lambda request, value: setattr(request, "method", value.upper()),
    "url": _take_address,
    "header": _take_header,
    "data": _take_data,
    "data-ascii": _take_data,
    "data-binary": _take_data,
    "data-raw": lambda request, value: request.data.append(value),
    "data-urlencode": _take_encoded,
    "json": _take_json,
    "get": lambda request, value: setattr(request, "is_in_query", True),
    "user": _take_user,
    "basic": lambda request, value: None,
    "oauth2-bearer": lambda request, value: _take_header(request, f"Authorization: Bearer {value}"),
    "user-agent": lambda request, value: _take_header(request, f"User-Agent: {value}"),
    "referer": lambda request, value: _take_header(request, f"Referer: {value}"),
    "max-time": _take_timeout,
    "url-query": _take_query,
}


def _finish(request: CurlRequest) -> None:
    if not request.url:
        raise CannotRead(_("The command has no address. Paste the whole of it."))
    if "://" not in request.url:
        request.url = f"https://{request.url}"
        request.notes.append(_("The address had no scheme; https:// was put before it."))
    for query in request.queries:
        request.url += ("&" if "?" in request.url else "?") + query
    if not request.method:
        request.method = "POST" if request.data and not request.is_in_query else "GET"
    _read_basic(request)


def _read_basic(request: CurlRequest) -> None:
    """Take Basic credentials out of an Authorization header."""
    scheme, _space, encoded = request.header("authorization").partition(" ")
    if scheme.lower() != "basic":
        return
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        request.notes.append(_("The Basic credentials could not be read. Type them below."))
        request.login = request.login or ""
    else:
        request.login, _colon, request.password = decoded.partition(":")
    request.headers = [one for one in request.headers if one[0].lower() != "authorization"]
