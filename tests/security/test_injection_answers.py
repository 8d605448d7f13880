"""No response keeps its attempt from being stored: the real engine, raw bytes."""

import json
import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse

from tests.factories import deliver_all, make_webhook
from tests.security.hostile import answering
from tests.security.injections import CORPUS
from tests.ui.webhook_form.test_views import logged_in
from webhooks import events
from webhooks.models import Attempt, Delivery, Outcome, Status

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]

OK = b"HTTP/1.1 200 OK\r\n"
EVERYTHING = "\n".join(CORPUS).encode()


def head(*lines: bytes, status: bytes = OK) -> bytes:
    return status + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def body(data: bytes, *lines: bytes, status: bytes = OK) -> bytes:
    return head(b"Content-Length: %d" % len(data), *lines, status=status) + data


def one_line(text: str) -> bytes:
    return text.replace("\r", "").replace("\n", "").encode()


ANSWERS: dict[str, bytes] = {
    "invalid UTF-8": body(b"\xff\xfe\xc3\x28\xed\xa0\x80\xf8\x88"),
    "NUL in the body": body(b"a\0b\0\0c"),
    "only NULs": body(b"\0" * 5000),
    "every byte": body(bytes(range(256)) * 10),
    "the whole corpus": body(EVERYTHING, b"Content-Type: text/html"),
    "the corpus as JSON": body(json.dumps(CORPUS).encode(), b"Content-Type: application/json"),
    "JSON with half pairs": body(b'{"a": "\\ud800", "\\u0000": NaN}'),
    "deep JSON": body(b"[" * 10_000),
    "a huge number": body(b"9" * 15_000, b"Content-Type: application/json"),
    "NUL in a header": head(b"X-A: a\0b", b"Content-Length: 0"),
    "invalid UTF-8 in a header": head(b"X-A: \xff\xfe\xc3\x28", b"Content-Length: 0"),
    "escape sequences in a header": head(b"X-A: \x1b[31m\x9b2J\x07", b"Content-Length: 0"),
    "bidi in a header": head("X-A: \u202egnp\u2066".encode(), b"Content-Length: 0"),
    "the corpus in headers": head(
        *(b"X-%d: %s" % (number, one_line(text)) for number, text in enumerate(CORPUS)),
        b"Content-Length: 0",
    ),
    "a thousand headers": head(*(b"X-%d: v" % n for n in range(1000)), b"Content-Length: 0"),
    "one huge header": head(b"X-A: " + b"v" * 90_000, b"Content-Length: 0"),
    "a megabyte of headers": head(*(b"X-%d: " % n + b"v" * 9000 for n in range(120))),
    "a header without a name": head(b": v", b"Content-Length: 0"),
    "a header without a colon": head(b"no colon here", b"Content-Length: 0"),
    "a folded header": head(b"X-A: a", b"  b", b"\tc", b"Content-Length: 0"),
    "bare line feeds": b"HTTP/1.1 200 OK\nX-A: a\nContent-Length: 0\n\n",
    "bare carriage returns": b"HTTP/1.1 200 OK\rX-A: a\r\r\n\r\n",
    "markup in the reason": body(b"x", status=b"HTTP/1.1 200 <script>alert(1)</script>\r\n"),
    "tricks in the reason": body(b"x", status=b"HTTP/1.1 200 \0\x1b[31m\xff\xe2\x80\xae\r\n"),
    "a huge reason": body(b"x", status=b"HTTP/1.1 200 " + b"r" * 90_000 + b"\r\n"),
    "no reason": body(b"x", status=b"HTTP/1.1 200\r\n"),
    "status 999": body(b"x", status=b"HTTP/1.1 999 Odd\r\n"),
    "status 99999": body(b"x", status=b"HTTP/1.1 99999 Odd\r\n"),
    "status -1": body(b"x", status=b"HTTP/1.1 -1 Odd\r\n"),
    "status 000": body(b"x", status=b"HTTP/1.1 000 Zero\r\n"),
    "no status line": b"<script>alert(1)</script>",
    "nothing": b"",
    "garbage": bytes(range(256)),
    "another protocol": b"SSH-2.0-OpenSSH_9.0\r\n",
    "HTTP/0.9": b"\0\1\2 hello",
    "HTTP/9.9": body(b"x", status=b"HTTP/9.9 200 OK\r\n"),
    "a negative length": head(b"Content-Length: -5") + b"x",
    "a length of words": head(b"Content-Length: many") + b"x",
    "two lengths": head(b"Content-Length: 1", b"Content-Length: 2") + b"xy",
    "an endless length": head(b"Content-Length: 99999999999999999999999") + b"x",
    "too short a body": head(b"Content-Length: 100") + b"x",
    "broken chunks": head(b"Transfer-Encoding: chunked") + b"zz\r\nx\r\n",
    "a huge chunk": head(b"Transfer-Encoding: chunked") + b"FFFFFFFFFFFFFFFFF\r\nx",
    "hostile trailers": head(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nX-T: \0\x1b\r\n\r\n",
    "not gzip": body(b"<script>", b"Content-Encoding: gzip"),
    "an unknown encoding": body(b"x", b"Content-Encoding: \x1b<script>"),
    "an odd charset": body(b"\xff", b"Content-Type: text/plain; charset=unicode_escape"),
    "zip as a charset": body(b"\xff", b"Content-Type: text/plain; charset=zip"),
    "UTF-16": body("<script>\0".encode("utf-16"), b"Content-Type: text/html; charset=utf-16"),
    "UTF-7": body(b"+ADw-script+AD4-", b"Content-Type: text/html; charset=utf-7"),
    "an odd Retry-After": head(
        b"Retry-After: \x1b-99999999999999999999", status=b"HTTP/1.1 503 x\r\n"
    ),
    "Retry-After in the year 99999": head(
        b"Retry-After: Fri, 31 Dec 99999 23:59:59 GMT", status=b"HTTP/1.1 429 x\r\n"
    ),
    "a hostile redirect": head(b"Location: javascript:alert(1)", status=b"HTTP/1.1 302 x\r\n"),
    "a hostile challenge": head(
        b'WWW-Authenticate: Bearer error="invalid_token", error_description="<script>\x1b\xff"',
        status=b"HTTP/1.1 401 x\r\n",
    ),
    "hundreds of 100s": b"HTTP/1.1 100 Continue\r\n\r\n" * 300 + body(b"x"),
    "hostile early hints": b"HTTP/1.1 103 \x1b\r\nLink: <javascript:alert(1)>\r\n\r\n" + body(b"x"),
}
# C0 and C1 except line feed and tab, bidi marks, and separators that split lines elsewhere.
TRICKS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.fixture
def attempts() -> dict[str, Attempt]:
    """Return an attempt for each response, sent to its own webhook and stored by the engine."""
    by_path = {f"/{number}": answer for number, answer in enumerate(ANSWERS.values())}
    with answering(by_path) as address:
        made = {
            name: make_webhook(name=name[:100], url=f"{address}/{number}", timeout_seconds=2)
            for number, name in enumerate(ANSWERS)
        }
        events.publish("call.incoming.after", {"call_id": "call-1"})
        deliver_all(seconds=40)
    rows = {row.delivery.webhook_id: row for row in Attempt.objects.select_related("delivery")}
    return {name: rows[webhook.pk] for name, webhook in made.items() if webhook.pk in rows}


def test_every_answer_leaves_a_whole_attempt_and_the_engine_goes_on(
    attempts: dict[str, Attempt],
) -> None:
    assert attempts.keys() == ANSWERS.keys()
    assert not Delivery.objects.filter(status=Status.SENDING).exists()
    wrong = {}
    for name, attempt in attempts.items():
        if attempt.delivery.attempt_count != 1:
            wrong[name] = "counted wrongly"
        elif attempt.outcome != Outcome.SUCCEEDED and not attempt.error:
            wrong[name] = "no sentence says what went wrong"
        elif not attempt.request_headers:
            wrong[name] = "stored only without what came from outside"
        elif trick := TRICKS.search(attempt.response_headers + attempt.error):
            wrong[name] = f"stored {trick[0]!r}"
    assert wrong == {}


def test_what_was_answered_is_stored_byte_for_byte(attempts: dict[str, Attempt]) -> None:
    stored = {name: bytes(attempt.response_body) for name, attempt in attempts.items()}
    assert stored["the whole corpus"] == EVERYTHING[:20_000]
    assert stored["NUL in the body"] == b"a\0b\0\0c"
    assert stored["invalid UTF-8"] == b"\xff\xfe\xc3\x28\xed\xa0\x80\xf8\x88"
    assert stored["every byte"] == bytes(range(256)) * 10


@pytest.mark.slow
def test_every_stored_answer_can_be_looked_at(attempts: dict[str, Attempt]) -> None:
    browser = logged_in(is_superuser=True)
    User.objects.update(is_staff=True)
    wrong = []
    for name, attempt in attempts.items():
        key = attempt.delivery_id
        for url in (
            reverse("webhooks:delivery", args=[key]),
            reverse("admin:webhooks_delivery_change", args=[key]),
        ):
            page = browser.get(url)
            text = page.content.decode()
            if page.status_code != 200 or "<script>alert" in text or TRICKS.search(text):
                wrong.append(f"{name}: {url}")
    assert wrong == []


def test_a_body_is_downloaded_as_bytes_that_no_browser_runs(attempts: dict[str, Attempt]) -> None:
    attempt = attempts["the whole corpus"]
    url = reverse("webhooks:delivery_body", args=[attempt.delivery_id, attempt.pk, "response"])
    answer = logged_in(is_superuser=True).get(url)
    content = b"".join(answer) if answer.streaming else answer.content
    assert content == EVERYTHING[:20_000]
    assert answer["Content-Type"].startswith("application/octet-stream")
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Disposition"].startswith("attachment")
