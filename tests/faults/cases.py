"""R1 to R40: each misbehaviour, and the outcome that its attempt must have."""

import email.utils
import gzip
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults import misbehaviour as do
from tests.faults.receiver import Handler
from tests.services import HOST

_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"Transfer-Encoding: chunked\r\n\r\n"
_HUNDRED = _OK + b"Content-Length: 100\r\n\r\n"
_NAUGHTY = "\x00 \x1b[2J\x1b]0;owned\x07 <script>alert(1)</script> \u202e".encode()
_BLOCK = bytes(64 * 1024)
# These fields subscribe a webhook to the event with the large body.
_LARGE: dict[str, object] = {"event_types": ["form.submitted"]}


@dataclass(frozen=True, slots=True)
class Case:
    id: str
    title: str
    # The accepted outcomes, separated by spaces.
    outcomes: str
    # None: the case has its own kind of socket.
    handler: Handler | None
    # "": plain HTTP; otherwise the kind of server certificate, or "none" for https without TLS.
    tls: str = ""
    events: int = 1
    # Minimum and maximum seconds until the next attempt; None: not checked.
    delay_seconds: tuple[float, float] | None = None
    fields: dict[str, object] = field(default_factory=dict)


def cases(seen: do.Seen, *, redirect_port: int) -> list[Case]:
    """Return every case; cases with the same id are variants."""
    return [
        *_slow_or_large(),
        *_broken(),
        *_redirects(redirect_port),
        *_tls(),
        *_statuses(),
        *_bodies_and_connections(seen),
    ]


def _slow_or_large() -> Iterator[Case]:
    yield Case("R1", "connection refused", "network", None)
    yield Case("R2", "blackhole", "timeout", None)
    yield Case("R3", "accepts and never answers", "timeout", do.silent)
    yield Case("R4", "headers byte by byte", "timeout", do.drip(_OK + b"X: ", b"a"))
    yield Case("R5", "body byte by byte", "timeout", do.drip(_HUNDRED, b"a"))
    gibibyte = _OK + b"Content-Length: 1073741824\r\n\r\n"
    yield Case("R6", "1 GiB body", "succeeded", do.flood(gibibyte, _BLOCK))
    chunk = b"10000\r\n" + _BLOCK + b"\r\n"
    yield Case("R7", "endless chunks", "succeeded", do.flood(_CHUNKED, chunk))
    extension = do.flood(_CHUNKED + b"2;", b"a" * 8192)
    yield Case("R7", "endless chunk extension", "timeout", extension)
    trailers = do.flood(_CHUNKED + b"0\r\n", b"X-Trailer: " + b"a" * 500 + b"\r\n")
    yield Case("R7", "endless trailers", "protocol", trailers)
    bombs = {
        "gzip": gzip.compress(bytes(200 * 2**20)),
        "br": do.BROTLI_BOMB,
        "zstd": do.zstd_bomb(blocks=4096),
    }
    for coding, bomb in bombs.items():
        handler = do.body(bomb, f"Content-Encoding: {coding}")
        yield Case("R8" if coding == "gzip" else "R9", f"{coding} bomb", "succeeded", handler)
    broken = do.body(b"\x1f\x8b\x08\x00broken", "Content-Encoding: gzip")
    yield Case("R10", "broken gzip", "succeeded", broken)
    many = do.status(200, *(f"X-Header-{number}: {number}" for number in range(5000)))
    yield Case("R11", "5,000 headers", "protocol", many)
    yield Case("R12", "64 KiB header line", "protocol", do.status(200, "X: " + "a" * 65536))


def _broken() -> Iterator[Case]:
    yield Case("R13", "reset before the headers", "network", do.reset_after(b""))
    yield Case("R13", "reset before reading", "network", do.reset_after(b"", reads=False))
    yield Case("R13", "reset after the headers", "network", do.reset_after(_HUNDRED))
    yield Case("R14", "reset in mid-body", "network", do.reset_after(_HUNDRED + b"half"))
    yield Case("R15", "less than Content-Length", "protocol", do.answer(_HUNDRED + b"half"))
    cut = b"HTTP/1.1 410 Gone\r\nContent-Le"
    yield Case("R15", "ends within its headers", "protocol", do.answer(cut))
    no_chunk = do.answer(_CHUNKED + b"zz\r\n")
    yield Case("R15", "a chunk without a number", "protocol", no_chunk)
    more = _OK + b"Content-Length: 4\r\n\r\nhalf and more"
    yield Case("R15", "more than Content-Length", "succeeded", do.answer(more))
    two = _OK + b"Content-Length: 4\r\nContent-Length: 8\r\n\r\nhalf"
    yield Case("R16", "two Content-Lengths", "protocol", do.answer(two))
    both = _OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r\n"
    yield Case("R17", "Content-Length and chunked", "succeeded protocol", do.answer(both))
    garbage = os.urandom(64).replace(b"H", b"x") + b"\r\n\r\n"
    yield Case("R18", "garbage status line", "protocol", do.answer(garbage))
    yield Case("R18", "status without a number", "protocol", do.answer(b"HTTP/1.1 fine\r\n\r\n"))
    small = do.answer(b"http/1.1 500 oops\r\nContent-Length: 0\r\n\r\n")
    yield Case("R18", "status line in small letters", "protocol", small)
    for code in (b"999", b"000"):
        odd = do.answer(b"HTTP/1.1 %s Odd\r\nContent-Length: 0\r\n\r\n" % code, closes=False)
        yield Case("R18", f"status {code.decode()}", "protocol", odd)
    yield Case("R19", "HTTP/0.9", "protocol", do.answer(b"<html>It works</html>"))
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    yield Case("R20", "flood of 1xx", "protocol", do.flood(b"", interim))
    upgrade = do.status(101, "Upgrade: websocket", "Connection: Upgrade")
    yield Case("R21", "101 upgrade", "protocol", upgrade)
    hidden = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 500 Said\r\n\r\n"
    yield Case("R22", "204 with a body", "succeeded", do.answer(hidden, closes=False))


def _redirects(port: int) -> Iterator[Case]:
    yield Case("R23", "redirect loop", "redirect", do.status(302, "Location: /"))
    to_loopback = do.status(307, f"Location: http://{HOST}:{port}/")
    yield Case("R24", "redirect to loopback", "redirect", to_loopback)
    long = do.status(302, "Location: /" + "a" * 2**20)
    yield Case("R25", "1 MiB Location", "protocol", long)


def _tls() -> Iterator[Case]:
    for kind in ("expired", "self-signed", "wrong-name", "old-protocol"):
        yield Case("R26", f"TLS {kind}", "tls", do.silent, tls=kind)
    yield Case("R26", "TLS good, for comparison", "succeeded", do.status(204), tls="good")
    yield Case("R27", "handshake hangs", "timeout", do.silent, tls="none")
    yield Case("R28", "plain HTTP on an https port", "tls", do.plain_http, tls="none")
    yield Case("R29", "closed during the handshake", "tls", do.hang_up, tls="none")


def _statuses() -> Iterator[Case]:
    for code in (401, 403, 407):
        handler = do.status(code, "WWW-Authenticate: Basic", "Proxy-Authenticate: Basic")
        yield Case("R30", str(code), "unauthorized", handler)
    yield Case("R31", "404", "refused", do.status(404))
    yield Case("R31", "410", "gone", do.status(410))
    for code in (413, 414, 431):
        yield Case("R32", str(code), "refused", do.status(code))
    # Retry-After is limited to the range between the first delay of 5 s and the second of 5 min,
    # and then lengthened by up to 20 %.
    in_four_minutes = email.utils.formatdate(time.time() + 240, usegmt=True)
    asked: dict[str, tuple[float, float]] = {
        "120": (110, 149),
        # A wide range, because the attempt may wait for its turn.
        in_four_minutes: (140, 293),
        "-5": (3, 7),
        "1000000000": (290, 365),
        "soon, I guess": (3, 7),
        # Later than a Python datetime can represent.
        "Fri, 31 Dec 9999 23:59:59 -9999": (3, 365),
    }
    for value, seconds in asked.items():
        handler = do.status(429, f"Retry-After: {value}")
        yield Case("R33", f"Retry-After: {value}", "throttled", handler, delay_seconds=seconds)
    for code in (500, 502, 503, 504):
        yield Case("R34", str(code), "server_error", do.status(code))


def _bodies_and_connections(seen: do.Seen) -> Iterator[Case]:
    yield Case("R35", "Set-Cookie", "succeeded", seen.cookie, events=2)
    html = do.body(_NAUGHTY, "Content-Type: text/html")
    yield Case("R36", "NUL, ANSI, script, bidi", "succeeded", html)
    every_byte = do.body(bytes(range(256)) * 8, "X: \x1b[31m\x80\xff")
    yield Case("R36", "not UTF-8", "succeeded", every_byte)
    failing = do.status(500, "X: a\x01b", body=_NAUGHTY)
    yield Case("R36", "NUL in an error", "server_error", failing)
    charset = do.body("привіт".encode("cp1251"), "Content-Type: text/plain; charset=utf-16")
    yield Case("R37", "wrong charset", "succeeded", charset)
    yield Case("R38", "closed when idle", "succeeded", do.closes_when_idle, events=2)
    # The request is either repeated at once on a new connection, or recorded and retried.
    reused = do.closes_when_used_again
    yield Case("R38", "closed when used again", "succeeded network", reused, events=2)
    stays = do.early(413, stays=True)
    yield Case("R39", "413 before the body is read", "refused", stays, fields=_LARGE)
    yield Case("R39", "the body is never read", "timeout", do.unread, fields=_LARGE)
    # The reset can arrive before the response.
    closes = do.early(200, stays=False)
    yield Case("R39", "200 and closed", "succeeded network", closes, fields=_LARGE)
    yield Case("R40", "answers after the timeout", "timeout", do.late)
