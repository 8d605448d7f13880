"""Every parser of outside text takes time in proportion to its length, up to 1 MiB.

A quadratic parser takes four times as long for twice the text. `make security` uses the whole
mebibyte and counts; a run of the tests alone uses an eighth of it.
"""

import contextlib
import datetime as dt
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from django.core.exceptions import SuspiciousOperation
from django.http import QueryDict, parse_cookie
from django.test import RequestFactory

from tests.security import figures
from tests.security.test_masker_time import BOUND, MEBIBYTE, TOKEN, ratio
from webhooks import filters, middleware, network, payloads
from webhooks.api import wsgi
from webhooks.curl import parser as curl
from webhooks.delivery import requests as delivery
from webhooks.delivery_log import decoded_body
from webhooks.models import origin_of
from webhooks.oauth import exchange_log, token_response
from webhooks.oauth.parameters import check_headers
from webhooks.oauth.token_response import RawResponse
from webhooks.security import pem
from webhooks.security.json_serializer import JSONSerializer
from webhooks.security.log_redaction import LineFormatter
from webhooks.security.masker import Masker
from webhooks.templatetags import logtext
from webhooks.ui.transfer import document
from webhooks.ui.webhook_form import authorization

pytestmark = pytest.mark.security

LENGTH = MEBIBYTE if figures.FILE_VARIABLE in os.environ else MEBIBYTE // 8
NOW = dt.datetime(2026, 11, 26, tzinfo=dt.UTC)
FACTORY = RequestFactory()


def quietly(work: Callable[[str], object]) -> Callable[[str], object]:
    """Return the same work, whose refusals count as results."""

    def done(text: str) -> object:
        with contextlib.suppress(ValueError, RecursionError, LookupError, SuspiciousOperation):
            return work(text)
        return None

    return done


def log_line(text: str) -> object:
    record = logging.LogRecord("urllib3", logging.WARNING, "", 0, "header: %s", (text,), None)
    return LineFormatter().format(record)


def log_error(text: str) -> object:
    """Format what Django logs about a failed request, with all its data."""
    request = FACTORY.post("/", {"field": text}, headers={"Cookie": f"a={text[:60_000]}"})
    try:
        raise ValueError(text)
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("django.request", logging.ERROR, "", 0, "%s", (text,), info)
    record.request = request
    return LineFormatter().format(record)


def token_answer(text: str) -> object:
    return token_response.classify(RawResponse(status=400, body=text.encode(), content_type=""))


def granted(text: str) -> object:
    """Read a token response in which every value is the text."""
    names = ("expires_in", "expires_at", "refresh_expires_in", "scope", "token_type", "id_token")
    fields = dict.fromkeys(names, f"{text}x") | {"access_token": f"a.{text}x.c"}
    return token_response.classify(RawResponse(status=200, body=json.dumps(fields).encode()))


def token_headers(text: str) -> object:
    for status in (302, 429):
        raw = RawResponse(status=status, content_type=text, retry_after=f"{text}x", location=text)
        token_response.classify(raw)
    return None


def transcript(text: str) -> object:
    return exchange_log.describe_response(400, {"Location": text}, text, secrets=[TOKEN])


def cut_off(text: str) -> object:
    """Mask a response that ends within a secret of 8,000 characters."""
    return Masker([TOKEN]).mask_bytes(text.encode() + TOKEN[:-1].encode(), is_cut=True)


def filtered(text: str) -> object:
    tree = {"variable": "caller", "operator": "contains", "value": text[: len(text) // 2]}
    return filters.compile_filter(tree).explain({"caller": text})


def cookies(text: str) -> object:
    """Read a cookie header of at most 32 KiB: no server passes on longer ones."""
    environ = {"HTTP_COOKIE": f'a="{text[: len(text) * 32_768 // LENGTH]}"'}
    wsgi.leave_out_unreadable(environ)
    return parse_cookie(environ["HTTP_COOKIE"])


PARSERS: dict[str, tuple[Callable[[str], object], tuple[str, ...]]] = {
    "lines of the log": (
        log_line,
        (
            *("a%23", "a#", "?a", "://a@", "token=", "\\n", '"token": "', "%3Fa", "?a=", "whsec_"),
            *("PRIVATE KEY-----a", "('token','", "token->", "token\\u003d", "('a_token', "),
        ),
    ),
    "errors in the log": (log_error, ("a%23", "token=", "&amp;", "\n")),
    "an answer cut off in a secret": (cut_off, ("a", TOKEN[:13], TOKEN[:-1], "%41")),
    "answers of token endpoints": (
        token_answer,
        ('{"a":', "[", "a=", "&", '"\\', "<html ", "charset =", "a" * 30 + "1 ", "error "),
    ),
    "headers of token requests": (quietly(check_headers), ("A: b\n", "A", ": ", " ", "\n", "{")),
    "keys": (quietly(pem.private_key), ("-----BEGIN ", "{", "A", "-----END A-----\n", '{"a":')),
    "certificates": (quietly(pem.check_certificate), ("-----BEGIN CERTIFICATE-----\n", "A=", "-")),
    "granted tokens": (granted, ("1", "1.", "a ", "QQ", "-1", "2026-")),
    "headers of token endpoints": (token_headers, ("a%23", ";", ",", " ", "1", "Mon, ", "a=b;")),
    "transcripts": (
        transcript,
        (
            *("token ", "a1/", "a" * 25 + "1=", "Bearer ", "\u202e", "[", "('token', '", "token->"),
            *("-----BEGIN PRIVATE KEY-----", "token%22%3A"),
        ),
    ),
    "Retry-After": (
        lambda text: delivery.retry_after_seconds(f"Retry-After: {text}".encode(), 0.0),
        ("1", " ", "Mon, ", ":", "(", "-"),
    ),
    "names of headers": (
        lambda text: delivery.retry_after_seconds(text.encode(), 0.0),
        ("retry-after", "a:b\n", "\n", "retry-after \n"),
    ),
    "headers of answers": (decoded_body.header_lines, ("a: b\n", "\n", ":", "Set-Cookie: ")),
    "bodies of answers": (
        lambda text: decoded_body.read(text.encode()),
        ("[", "{", '"\\', "\x00", "[1,", "\u202e", '{"a":1},'),
    ),
    "bodies on pages": (logtext.visible, ("\u202e", "<", "a", "\n")),
    "cookies": (cookies, ('"', "\\", ";", "a=", '="\\101', '\\"')),
    "queries": (quietly(QueryDict), ("&", "a=", "%", "+", ";", "%2")),
    "URLs": (quietly(network.parse_url), ("http://a", "%41", "a.", "@", "xn--", ":")),
    "origins": (origin_of, ("http://", "a.", "[", ":1", "\u00fc")),
    "secrets in URLs": (
        lambda text: authorization.secret_in_url(f"https://a.example/?{text}"),
        ("a-", "access_", "token=", "x-api-", "&k"),
    ),
    "cURL commands": (
        quietly(lambda text: curl.read(f"curl {text}")),
        ("-H a ", "'", '"\\', "$(", "--data a ", "\\\n", "`", "$'\\x41' "),
    ),
    "JSON of events": (
        quietly(lambda text: payloads.load_json(text.encode())),
        ("[", '{"a":', "1", '"\\u', "[[],", '"', "1e"),
    ),
    "JSON of the cache": (
        lambda text: JSONSerializer().loads(text.encode()),
        ("[", '{"a":', "1", '"\\u', "[1,"),
    ),
    "files of webhooks": (
        quietly(lambda text: document.read(text.encode())),
        ("[", '{"webhooks":', "1", "[{},", '"'),
    ),
    "templates": (
        lambda text: payloads.template_problems(text, {"caller"}),
        ("{{", "{{ caller }}", "}}", '"{{', "[", '{"a":', "\\"),
    ),
    "placeholders": (
        lambda text: payloads.template_problems(json.dumps(text), {"caller"}),
        ("{{ \\", "{{ '", "{{a'", "\\{", "{{ \\' '", "{{ a|"),
    ),
    "paths": (quietly(payloads.parse_path), ("a.", "[]", "\\", "[", ".")),
    "variables": (
        lambda text: payloads.variable_problem(text, {"caller"}),
        ("a.", "caller", "_", "|"),
    ),
    "filters": (quietly(filtered), ("a", "ab", "\u0130", " ")),
    "durations": (quietly(filters.parse_duration), ("1", "1 ", "1h", " ", ":")),
    "pages": (
        lambda text: middleware.escape_invisibles(text.encode()),
        ("<textarea", ' value="', "\u202e", "<textarea>", "</textarea"),
    ),
}
CASES = [(name, piece) for name, (_, pieces) in PARSERS.items() for piece in pieces]


@pytest.mark.parametrize(("name", "piece"), CASES)
def test_twice_the_text_takes_twice_the_time(
    name: str, piece: str, security_figure: Callable[..., None]
) -> None:
    found = ratio(PARSERS[name][0], piece, LENGTH)
    security_figure("linear", right=int(found < BOUND), of=1)
    assert found < BOUND


@pytest.fixture
def odd_endpoint() -> Iterator[str]:
    """Serve token responses whose head holds 60 KB of an invalid header."""
    server = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 200 OK\r\n" + b"a%23#" * 12_000 + b"\r\nX: a\r\n\r\n{}"

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                with client:
                    client.recv(65_536)
                    client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}/token"
    server.close()


def test_a_token_endpoint_with_a_malformed_header_keeps_nothing_busy(
    odd_endpoint: str, caplog: pytest.LogCaptureFixture, security_figure: Callable[..., None]
) -> None:
    caplog.set_level("DEBUG")
    caplog.handler.setFormatter(LineFormatter())
    began = dt.datetime.now(dt.UTC)
    session = network.GuardedSession(total_seconds=10)
    with contextlib.suppress(requests.RequestException):
        session.post(odd_endpoint, data="grant_type=refresh_token")
    is_quick = dt.datetime.now(dt.UTC) - began < dt.timedelta(seconds=5)
    security_figure("linear", right=int(is_quick), of=1)
    assert is_quick
    assert len(caplog.text) < 20_000


@pytest.mark.django_db
@pytest.mark.parametrize("address", ["/{}", "/?{}", "/?next={}", "/integrations/webhooks/?q={}"])
def test_a_long_address_without_a_login_keeps_nothing_busy(
    address: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """240 KB of `a%23` once blocked the whole of `make run` for two minutes."""
    caplog.set_level("DEBUG")
    caplog.handler.setFormatter(LineFormatter())

    def ask(text: str) -> object:
        caplog.clear()
        return client.get(address.format(text))

    assert ratio(ask, "a%23", 240_000) < BOUND
    assert len(caplog.text) < 20_000


@pytest.mark.slow
def test_forty_answers_beside_a_long_token_are_masked_at_once() -> None:
    """Masking 40 responses that end within a secret of 8,000 characters once took 18 s."""
    body = json.dumps({"error": TOKEN[:-1]}).encode()[:20_000]

    def mask(count: str) -> object:
        masker = Masker([TOKEN])
        return [masker.mask_bytes(body + one.encode(), is_cut=True) for one in count]

    assert ratio(mask, "a", 80) < BOUND
