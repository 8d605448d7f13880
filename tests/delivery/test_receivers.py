"""Responses that look complete and are not, and what a kept connection must not pass on.

`tests/faults` runs many misbehaving receivers at once; here each test checks its own attempt.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.factories import deliver_all, make_delivery, make_webhook
from tests.faults.misbehaviour import answer
from tests.faults.receiver import Handler, Loop, read_request
from tests.services import HOST
from webhooks.delivery import outcomes
from webhooks.models import Attempt, Delivery, Outcome, Webhook

pytestmark = [pytest.mark.once, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
NOTHING = OK + b"Content-Length: 0\r\n\r\n"
# No HTTP/1.1 status lines, although a 200 or a 500 can be read in them.
LINES = ["HTTP/1.1 2000 OK", "HTTP/1.1 1000 OK", "HTTP/2 200", "HTTP/2 500", "http/1.1 500 oops"]
SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def receiver(loop: Loop, handler: Handler, **fields: object) -> Webhook:
    url = f"http://{HOST}:{loop.serve(handler)}/hook"
    return make_webhook(url=url, retry_schedule_seconds=[60, 600], **fields)


def attempt_at(loop: Loop, raw: bytes) -> Attempt:
    """Deliver to a receiver that responds with `raw` and closes; return the recorded attempt."""
    make_delivery(receiver(loop, answer(raw)))
    deliver_all()
    return Attempt.objects.get()


@pytest.mark.parametrize(
    "raw",
    [OK, OK + b"Content-Le", OK + b"Content-Length: 0\r\n", b"HTTP/1.1 500 Oops\r\nX: "],
    ids=["status line", "part of a header", "no blank line", "error"],
)
def test_an_answer_that_ends_within_its_headers_is_broken(loop: Loop, raw: bytes) -> None:
    attempt = attempt_at(loop, raw)
    assert attempt.outcome == Outcome.PROTOCOL
    assert outcomes.sentence(attempt.error) == (
        "The receiver's response is broken: transfer closed within the headers."
    )


def test_half_of_a_gone_pauses_nothing(loop: Loop) -> None:
    assert attempt_at(loop, b"HTTP/1.1 410 Gone\r\nX").outcome == Outcome.PROTOCOL
    assert Webhook.objects.get().is_active


@pytest.mark.parametrize("line", LINES)
def test_what_is_no_status_line_of_this_protocol_is_no_answer(loop: Loop, line: str) -> None:
    attempt = attempt_at(loop, line.encode() + b"\r\nContent-Length: 0\r\n\r\n")
    assert attempt.outcome == Outcome.PROTOCOL
    assert "Invalid status line" in outcomes.sentence(attempt.error)


@pytest.mark.parametrize(
    "raw",
    [
        OK + b"HTTP/1.1 101: a header\r\nContent-Length: 0\r\n\r\n",
        CHUNKED + b"0\r\nHTTP/1.1 101: a trailer\r\n\r\n",
    ],
    ids=["header", "trailer"],
)
def test_a_status_line_is_known_by_where_it_stands(loop: Loop, raw: bytes) -> None:
    attempt = attempt_at(loop, raw)
    assert (attempt.outcome, attempt.error) == (Outcome.SUCCEEDED, "")
    assert attempt.response_headers.startswith("HTTP/1.1 200 OK\n")


@pytest.mark.parametrize(
    "chunk",
    [
        b"zz\r\nok\r\n0\r\n\r\n",
        b"-2\r\nok\r\n0\r\n\r\n",
        b"F" * 20 + b"\r\nok",
        b"2\r\nokay\r\n0\r\n\r\n",
    ],
    ids=["no number", "negative", "too long", "more than it says"],
)
def test_broken_chunks_are_no_fault_of_the_connection(loop: Loop, chunk: bytes) -> None:
    attempt = attempt_at(loop, CHUNKED + chunk)
    assert attempt.outcome == Outcome.PROTOCOL
    assert "The receiver's response is broken" in outcomes.sentence(attempt.error)


def test_of_a_body_in_thousands_of_pieces_the_first_are_read(loop: Loop) -> None:
    attempt = attempt_at(loop, CHUNKED + b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n")
    assert attempt.outcome == Outcome.SUCCEEDED
    assert bytes(attempt.response_body) == b"a" * 4096
    # One byte more than is stored shows that the body was cut.
    assert attempt.response_size == 4097


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b", "/a/./b/..", "/a/%2E%2E/b", "//a//b?c=../d", "/a?", "/?",
        "/%0d%0aX-Evil:1", "/a%2fb/%2e%2e/%7e?c=%0d%7e",
    ],
)  # fmt: skip
def test_the_address_goes_out_as_the_log_shows_it(loop: Loop, path: str) -> None:
    paths: list[str] = []

    async def notes(reader: StreamReader, writer: StreamWriter) -> None:
        paths.append((await read_request(reader))[0])
        writer.write(NOTHING)

    url = f"http://{HOST}:{loop.serve(notes)}{path}"
    make_delivery(make_webhook(url=url))
    deliver_all()
    assert paths == [path]
    assert Attempt.objects.get().request_line == f"POST {url}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [SECOND, SECOND.replace(b"200 OK", b"408 Request Timeout"), b"\r\n", b"HTTP/1.1 2"],
    ids=["answer", "timeout", "empty line", "part of an answer"],
)
def test_what_a_receiver_says_unasked_answers_no_later_delivery(loop: Loop, more: bytes) -> None:
    connections = 0

    async def talks_on(reader: StreamReader, writer: StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(NOTHING)
            await writer.drain()
            # In a separate packet: libcurl notices bytes that arrive with the response.
            await asyncio.sleep(0.02)
            writer.write(more)
            await writer.drain()

    # One second between the requests, in which the connection is idle.
    webhook = receiver(loop, talks_on, rate_limit=1, rate_limit_seconds=1)
    for number in range(2):
        make_delivery(webhook, number=number)
    deliver_all()
    attempts = Attempt.objects.values_list("number", "outcome", "error", "response_size")
    assert list(attempts) == [(1, Outcome.SUCCEEDED, "", 0)] * 2
    assert Delivery.objects.count() == connections == 2


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
def test_an_event_that_kills_its_receiver_is_sent_twice_at_most(loop: Loop, is_reset: bool) -> None:
    seen: Counter[str] = Counter()

    async def dies_of_one(reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            _, headers, body = await read_request(reader)
            seen[headers["webhook-id"]] += 1
            if b"poison" in body:
                if is_reset:
                    writer.transport.abort()
                return
            # Long enough that several connections are opened.
            await asyncio.sleep(0.05)
            writer.write(NOTHING)
            await writer.drain()

    webhook = receiver(loop, dies_of_one)
    for number in range(100):
        make_delivery(webhook, number=number)
    poison = make_delivery(webhook, poison=True)
    deliver_all()
    attempt = Attempt.objects.get(delivery=poison)
    assert (attempt.number, attempt.outcome) == (1, Outcome.NETWORK)
    # On a kept connection, then on a new one: a closed connection may not have read the request.
    assert seen.pop(poison.event_id) <= 2
    assert set(seen.values()) == {1}
