"""Parse a pasted cURL command into the request it describes.

Options that a webhook cannot support raise an error; options without meaning here are listed, so
that nothing is dropped silently. Opens no file and runs nothing.
"""

import base64
import binascii
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import dropwhile
from urllib.parse import quote, unquote

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.curl import CurlError
from webhooks.curl.tokenizer import ASSIGNMENT, split
from webhooks.network import with_query

MAX_LENGTH = 200_000
JSON_TYPE = "application/json"
_SCHEME = re.compile("[a-z][a-z0-9+.-]*://", re.I)
# What notes and errors quote of words that may hold a secret: the name of an option, the host of a
# URL, the name of a variable or of a command. A stray word is often a part of a header, and tokens
# stand in paths and queries too.
_OPTION = re.compile("--[A-Za-z0-9.-]{0,30}")
_HOST = re.compile(
    r"[a-z][a-z0-9+.-]{0,20}://(?P<login>[^/?#\\]*@)?"
    r"(?P<host>\[[0-9a-f:.]{1,45}\]|[^/?#\\@:\[\]]{1,80})",
    re.I,
)
_EXPANSION = re.compile(
    r"(?P<begin>\$[({]|`)(?P<name>[A-Za-z_][\w.-]{0,30}(?![\w.-]*=))?(?P<rest>.*)(?P<end>[)}`])",
    re.DOTALL,
)
_FOLLOWING = re.compile(r"[|;&<>]+(?:\s+[\w./-]{1,20})?|[\w./-]{1,20}")
_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<login>[^/?#\\]*)@", re.I)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# curl's options, from `curl --help all` and src/tool_getparam.c of curl 7.88: short option to long
# name.
SHORT: dict[str, str] = dict(
    re.findall(
        r"(\S) (\S+)",
        """
    X request  H header  d data  u user  G get  F form  T upload-file  I head  A user-agent
    e referer  b cookie  c cookie-jar  m max-time  K config  k insecure  L location  s silent
    S show-error  v verbose  i include  f fail  N buffer  g globoff  o output  O remote-name
    w write-out  D dump-header  x proxy  U proxy-user  E cert  r range  y speed-time
    Y speed-limit  4 ipv4  6 ipv6  0 http1.0  1 tlsv1  n netrc  j junk-session-cookies
    J remote-header-name  R remote-time  # progress-bar  a append  q disable  : next
    B use-ascii  C continue-at  l list-only  M manual  P ftp-port  p proxytunnel  Q quote
    t telnet-option  z time-cond  Z parallel  2 sslv2  3 sslv3  h help  V version
    """,
    )
)
# Full names, as browsers and documentation write them; includes options of later versions.
TAKE_A_VALUE = _names(
    """
    abstract-unix-socket alt-svc aws-sigv4 cacert capath cert cert-type ciphers config
    connect-timeout connect-to continue-at cookie cookie-jar create-file-mode crlfile curves
    data data-ascii data-binary data-raw data-urlencode delegation dns-interface dns-ipv4-addr
    dns-ipv6-addr dns-servers doh-url dump-header ech egd-file engine etag-compare etag-save
    expect100-timeout form form-string ftp-account ftp-alternative-to-user ftp-method ftp-port
    ftp-ssl-ccc-mode happy-eyeballs-timeout-ms haproxy-clientip header hostpubmd5 hostpubsha256
    hsts interface ip-tos ipfs-gateway json keepalive-cnt keepalive-time key key-type krb
    libcurl limit-rate local-port login-options mail-auth mail-from mail-rcpt max-filesize
    max-redirs max-time netrc-file noproxy oauth2-bearer output output-dir parallel-max pass
    pinnedpubkey preproxy proto proto-default proto-redir proxy proxy-cacert proxy-capath
    proxy-cert proxy-cert-type proxy-ciphers proxy-crlfile proxy-header proxy-key proxy-key-type
    proxy-pass proxy-pinnedpubkey proxy-service-name proxy-tls13-ciphers proxy-tlsauthtype
    proxy-tlspassword proxy-tlsuser proxy-user proxy1.0 pubkey quote random-file range rate
    referer request request-target resolve retry retry-delay retry-max-time sasl-authzid
    service-name sigalgs socks4 socks4a socks5 socks5-gssapi-service socks5-hostname speed-limit
    speed-time stderr telnet-option tftp-blksize time-cond tls-max tls13-ciphers tlsauthtype
    tlspassword tlsuser trace trace-ascii trace-config unix-socket upload-file url url-query
    user user-agent variable vlan-priority write-out
    """
)
# Options about curl's own work on one machine: no counterpart here, and no effect on the request.
_MEANINGLESS = _names(
    """
    alpn alt-svc append buffer clobber compressed connect-timeout cookie-jar create-dirs
    create-file-mode disable disallow-username-in-url dns-interface dns-ipv4-addr dns-ipv6-addr
    dns-servers doh-url dump-header eprt epsv etag-save expect100-timeout fail fail-early
    fail-with-body globoff happy-eyeballs-timeout-ms hsts http1.0 http1.1 http2
    http2-prior-knowledge http3 http3-only ssl-no-revoke tls-max tlsv1 tlsv1.0 tlsv1.1 tlsv1.2
    tlsv1.3
    include ipv4 ipv6 junk-session-cookies keepalive keepalive-cnt keepalive-time libcurl
    limit-rate local-port max-filesize max-redirs noproxy npn output output-dir parallel
    parallel-immediate parallel-max path-as-is progress-bar progress-meter proto proto-redir rate
    remote-header-name remote-name remote-name-all remote-time remove-on-error retry
    retry-all-errors retry-connrefused retry-delay retry-max-time sessionid show-error silent
    speed-limit speed-time stderr styled-output suppress-connect-headers tcp-fastopen tcp-nodelay
    trace trace-ascii trace-config trace-ids trace-time use-ascii verbose write-out xattr
    """
)
COOKIES = gettext_lazy(
    "Cookies expire and cannot be renewed, so they were left out. Choose an authorization type."
)
_EXPLAINED = {
    "insecure": gettext_lazy("Certificates are always checked, so --insecure was left out."),
    "location": gettext_lazy("Redirects are not followed, so --location was left out."),
    "proxy": gettext_lazy("Proxies are set for the whole site, so --proxy was left out."),
    "cookie": COOKIES,
    "cert": gettext_lazy(
        "The command reads its client certificate from a file, so it was left out. Paste it with "
        "its private key under Advanced."
    ),
    "digest": gettext_lazy("Digest authentication is not supported; Basic is used instead."),
}
_EXPLAINED["location-trusted"] = _EXPLAINED["location"]
_EXPLAINED["key"] = _EXPLAINED["cert"]
_REFUSED = {
    "form": gettext_lazy(
        "The command sends a multipart form (-F). A webhook sends JSON or a plain form: write its "
        "fields with -d, or map them under Content."
    ),
    "upload-file": gettext_lazy("The command uploads a file (-T), which a webhook cannot do."),
    "head": gettext_lazy("The command asks for headers only (-I), which a webhook cannot do."),
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
# Prompts, and commands that run another command.
_BEFORE_CURL = frozenset({"$", "%", "sudo", "export", "env", "time"})
# The first match decides which shell it is: a quote or a line continuation of each. In cmd a quote
# within quotes is doubled, as in "{""a"":1}".
_SHELL = re.compile(
    r"""(?P<cmd>\s\^"|[ \t]\^[ \t]*\r?\n|"[\[{]+""\w)
    |(?P<PowerShell>`[ \t]*\r?\n|\bInvoke-(?:WebRequest|RestMethod)\b|\bNew-Object\b)|'|\\\r?\n""",
    re.VERBOSE,
)


@dataclass(slots=True)
class CurlRequest:
    """The request that the command sends. `login` is None without Basic credentials."""

    method: str = ""
    url: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    # Headers set by other options; -H wins wherever it stands.
    implied: dict[str, str] = field(default_factory=dict)
    # curl's own headers that “Accept:” removes, in lower case.
    removed: set[str] = field(default_factory=set)
    # Parts appended to the query string of the URL.
    queries: list[str] = field(default_factory=list)
    # Pieces of the body, each with its separator; an empty piece is sent too.
    data: list[str] = field(default_factory=list)
    is_json: bool = False
    is_in_query: bool = False
    login: str | None = None
    password: str = ""
    timeout_seconds: float | None = None
    # Expansions that a shell would have replaced, such as “$TOKEN”.
    expansions: list[str] = field(default_factory=list)
    # The text of a here-document or here-string, which “@-” stands for.
    stdin: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def body(self) -> str:
        return "".join(self.data)

    @property
    def authorization(self) -> tuple[str, str]:
        """Return the scheme and the credentials of the Authorization header."""
        scheme, *credentials = self.header("authorization").split(None, 1) or [""]
        return scheme, "".join(credentials)

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")


def read(text: str) -> CurlRequest:
    """Parse a command. Errors: CurlError."""
    if len(text) > MAX_LENGTH:
        raise CurlError(_("The command has at most %d characters.") % MAX_LENGTH)
    if (shell := _SHELL.search(text)) and shell.lastgroup:
        raise CurlError(
            _(
                "This command is for %s. Choose “Copy as cURL (bash)” in the browser, or in "
                "Firefox “Copy as cURL (POSIX)”, and paste that."
            )
            % shell.lastgroup
        )
    found = split(text)
    words = list(
        dropwhile(lambda word: word in _BEFORE_CURL or ASSIGNMENT.match(word), found.words)
    )
    name = words[0].replace("\\", "/").rpartition("/")[2].lower() if words else ""
    if name not in ("curl", "curl.exe"):
        raise CurlError(_("A command begins with “curl”. Paste the whole of it."))
    request = CurlRequest(expansions=found.expansions, stdin=found.stdin)
    _take_options(request, words[1:])
    _finish(request)
    if found.expansions:
        names = ", ".join(dict.fromkeys(map(_expansion_shown, found.expansions)))
        request.notes.append(
            _("The command has values that a shell fills in: %s. Type them yourself.") % names[:200]
        )
    if any("\ufffd" in word for word in words):
        request.notes.append(_("Bytes that are not UTF-8 became �. Replace that sign in the form."))
    if found.redirections:
        files = ", ".join(f"{sign}…" for sign in dict.fromkeys(found.redirections))
        request.notes.append(
            _("A shell reads these as files, so they were left out: %s. Put quotes around values.")
            % files
        )
    if found.rest:
        following = _following_shown(found.rest)
        request.notes.append(_("What follows the command was left out: %s") % following)
    return request


def _address_shown(word: str) -> str:
    """Return a URL as far as its host; only the beginning of any other word."""
    found = _HOST.match(word)
    if found is None:
        return f"{word[: min(3, len(word) // 4)]}…"
    rest = word[found.end() :]
    if "@" in rest:
        # Perhaps a login with a slash in its password.
        return f"{word[: word.index('://') + 3]}…"
    shown = word[: found.start("login")] + found["host"] if found["login"] else found[0]
    return shown if rest in ("", "/") else f"{shown}…"


def _option_shown(word: str) -> str:
    """Return the name of an option without a value that is glued to it."""
    found = _OPTION.match(word)
    return word if found is None or found[0] == word else f"{found[0]}…"


def _expansion_shown(expansion: str) -> str:
    """Return an expansion with only the name of its variable or command: “$(echo …)”."""
    found = _EXPANSION.fullmatch(expansion)
    if found is None:
        return expansion
    name, rest = found["name"] or "", found["rest"]
    blank = " " if name and rest[:1].isspace() else ""
    return f"{found['begin']}{name}{blank}{'…' if rest else ''}{found['end']}"


def _following_shown(text: str) -> str:
    """Return only the first sign and command of what follows: it may be the rest of a value."""
    found = _FOLLOWING.match(text)
    shown = found[0] if found else ""
    return shown if shown == text else f"{shown} …".lstrip()


def _take_options(request: CurlRequest, words: list[str]) -> None:
    remaining = list(reversed(words))
    unknown: list[str] = []
    only_urls = False
    while remaining:
        word = remaining.pop()
        if word == "--" and not only_urls:
            only_urls = True
        elif only_urls or not word.startswith("-") or word == "-":
            _take_url(request, word)
        elif word.startswith("--"):
            _take_long(request, word, remaining, unknown)
        else:
            _take_short(request, word[1:], remaining, unknown)
    if unknown:
        names = ", ".join(dict.fromkeys(unknown))[:200]
        request.notes.append(_("These options are not known here and were left out: %s") % names)


def _take_long(request: CurlRequest, word: str, remaining: list[str], unknown: list[str]) -> None:
    name, equals, _value = word.partition("=")
    if not equals:
        _take(request, word[2:], remaining, unknown, shown=_option_shown(word))
    elif name[2:].removeprefix("expand-") in TAKE_A_VALUE:
        note = _("%s was left out: curl expects a space, not “=”, before its value.") % name
        if note not in request.notes:
            request.notes.append(note)
    else:
        unknown.append(f"{_option_shown(name)}=…")


def _take_short(
    request: CurlRequest, letters: str, remaining: list[str], unknown: list[str]
) -> None:
    """Handle a cluster such as -sSXPOST: the first option with a value takes the rest."""
    for position, letter in enumerate(letters):
        name = SHORT.get(letter, f"-{letter}")
        takes_value = name in TAKE_A_VALUE
        if takes_value and (remainder := letters[position + 1 :]):
            remaining.append(remainder)
        _take(request, name, remaining, unknown, shown=f"-{letter}")
        if takes_value:
            return


def _take(
    request: CurlRequest, name: str, remaining: list[str], unknown: list[str], *, shown: str
) -> None:
    # “--expand-data” is --data with {{variables}} that curl replaces.
    name = name.removeprefix("expand-")
    if name.startswith("no-"):
        # Turned off, as a webhook does anyway.
        return
    if name in _REFUSED:
        raise CurlError(str(_REFUSED[name]))
    value = ""
    if name in TAKE_A_VALUE:
        if not remaining:
            raise CurlError(_("The command ends after %s: its value is missing.") % shown)
        value = remaining.pop()
    if name in _ACTIONS:
        _ACTIONS[name](request, value)
    elif name in _EXPLAINED:
        if (note := str(_EXPLAINED[name])) not in request.notes:
            request.notes.append(note)
    elif name not in _MEANINGLESS:
        unknown.append(shown)


def _take_url(request: CurlRequest, word: str) -> None:
    if request.url:
        raise CurlError(
            _("There are two addresses, %(first)s and %(second)s. Is a quote missing?")
            % {"first": _address_shown(request.url), "second": _address_shown(word)}
        )
    request.url = word.strip()


def _take_header(request: CurlRequest, line: str) -> None:
    if line.startswith("@"):
        raise CurlError(str(_FILE) % {"file": line})
    name, colon, value = line.partition(":")
    name, value = name.strip(), value.strip()
    if colon and name and value:
        request.headers.append((name, value))
    elif colon:
        request.removed.add(name.lower())
    elif line.find(";") == len(line) - 1 > 0:
        # “X-Empty;” makes curl send a header with an empty value; without the semicolon it sends
        # none.
        request.headers.append((line[:-1].strip(), ""))


def _take_data(request: CurlRequest, text: str) -> None:
    """Append to the body; curl leaves the line breaks of a file out."""
    if text == "@-" and request.stdin is not None:
        _append(request, request.stdin.replace("\n", ""))
    else:
        _take_binary(request, text)


def _take_binary(request: CurlRequest, text: str, separator: str = "&") -> None:
    if text == "@-" and request.stdin is not None:
        text = request.stdin
    elif text.startswith("@"):
        raise CurlError(str(_FILE) % {"file": text})
    _append(request, text, separator)


def _append(request: CurlRequest, text: str, separator: str = "&") -> None:
    """Append to the body; every option except --json puts an ampersand before its data."""
    request.data.append(f"{separator}{text}" if request.data else text)


def _take_query(request: CurlRequest, text: str) -> None:
    """Append to the query string of the URL, encoded unless the text begins with a plus."""
    request.queries.append(text[1:] if text.startswith("+") else _encoded(request, text))


def _encoded(request: CurlRequest, text: str) -> str:
    name, equals, content = text.partition("=")
    if not equals:
        name, at, file = text.partition("@")
        if not at:
            name, content = "", text
        elif file == "-" and request.stdin is not None:
            content = request.stdin
        else:
            raise CurlError(str(_FILE) % {"file": f"@{file}"})
    return f"{name}={quote(content, safe='')}" if name else quote(content, safe="")


def _take_json(request: CurlRequest, text: str) -> None:
    _take_binary(request, text, separator="")
    request.is_json = True
    request.implied["Accept"] = JSON_TYPE


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
        request.notes.append(_("--max-time was left out: its value is not a number of seconds."))


_Action = Callable[[CurlRequest, str], None]


def _imply(name: str, prefix: str = "") -> _Action:
    def take(request: CurlRequest, value: str) -> None:
        request.implied[name] = value and f"{prefix}{value}"

    return take


def _authorize(scheme: str) -> _Action:
    return lambda request, value: request.implied.update(Authorization=scheme)


_ACTIONS: dict[str, _Action] = {
    "request": lambda request, value: setattr(request, "method", value.upper()),
    "url": _take_url,
    "header": _take_header,
    "data": _take_data,
    "data-ascii": _take_data,
    "data-binary": _take_binary,
    "data-raw": _append,
    "data-urlencode": lambda request, value: _append(request, _encoded(request, value)),
    "json": _take_json,
    "get": lambda request, value: setattr(request, "is_in_query", True),
    "user": _take_user,
    "basic": lambda request, value: None,
    "oauth2-bearer": _imply("Authorization", "Bearer "),
    # These do not send the login itself: their headers are computed for each request.
    "aws-sigv4": _authorize("AWS4-HMAC-SHA256"),
    "negotiate": _authorize("Negotiate"),
    "ntlm": _authorize("NTLM"),
    "user-agent": _imply("User-Agent"),
    "referer": _imply("Referer"),
    "max-time": _take_timeout,
    "url-query": _take_query,
}


def _finish(request: CurlRequest) -> None:
    if not request.url:
        raise CurlError(_("The command has no address. Paste the whole of it."))
    if not _SCHEME.match(request.url):
        request.url = f"https://{request.url}"
        request.notes.append(_("The address had no scheme; https:// was put before it."))
    _take_login_of_url(request)
    for query in request.queries:
        request.url = with_query(request.url, query)
    if not request.method:
        request.method = "POST" if request.data and not request.is_in_query else "GET"
    for name, value in request.implied.items():
        if value and name.lower() not in request.removed and not request.header(name.lower()):
            request.headers.append((name, value))
    _read_basic(request)


def _take_login_of_url(request: CurlRequest) -> None:
    """Move the login out of “https://login:password@host”: the password is a secret; -u wins."""
    found = _CREDENTIALS.match(request.url)
    if found is None:
        return
    request.url = found["scheme"] + request.url[found.end() :]
    if request.login is None:
        login, _colon, password = found["login"].partition(":")
        request.login, request.password = unquote(login), unquote(password)


def _read_basic(request: CurlRequest) -> None:
    """Move Basic credentials out of an Authorization header, which wins over a login."""
    scheme, encoded = request.authorization
    if scheme.lower() != "basic":
        if scheme or "authorization" in request.removed:
            request.login, request.password = None, ""
        return
    try:
        decoded = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, ValueError):
        request.notes.append(_("The Basic credentials could not be read. Type them below."))
        request.login = request.login or ""
    else:
        request.login, _colon, request.password = decoded.partition(":")
    request.headers = [one for one in request.headers if one[0].lower() != "authorization"]
