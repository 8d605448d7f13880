"""Many events in one request: one transaction, and one result per event."""

import json
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.api.clients import CLIENTS
from tests.factories import make_webhook
from webhooks.models import ApiKey, Delivery, Event

pytestmark = pytest.mark.django_db

URL = "/api/v1/events/batch"
NDJSON = "application/x-ndjson"
Send = Callable[..., Any]


def event(number: int = 1, **fields: object) -> dict[str, object]:
    return {"type": "form.submitted", "payload": {"n": number}, **fields}


@pytest.fixture(params=CLIENTS)
def send(request: pytest.FixtureRequest) -> Send:
    plain = ApiKey.objects.issue("CRM")[1]
    client = request.param(enforce_csrf_checks=True)

    def send(body: Any, content_type: str = "application/json", **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        authorization = {"HTTP_AUTHORIZATION": f"Bearer {plain}", **headers}
        return client.post(URL, data, content_type, **authorization)

    return send


def lines(*parts: object) -> bytes:
    return b"\n".join(
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts
    )


@pytest.mark.parametrize("wrap", [list, lambda found: {"events": found}])
def test_each_event_has_its_result_in_order(send: Send, wrap: Callable[[Any], Any]) -> None:
    make_webhook(event_types=["form.*"])
    answer = send(wrap([event(1), event(2), {**event(3), "type": "deal.created"}]))
    assert answer.status_code == 202
    results = answer.json()["results"]
    assert [one["deliveries"] for one in results] == [1, 1, 0]
    assert not any(one["duplicate"] for one in results)
    stored = Event.objects.in_bulk([one["event_id"] for one in results])
    payloads = [json.loads(bytes(stored[one["event_id"]].payload)) for one in results]
    assert [payload["n"] for payload in payloads] == [1, 2, 3]
    assert Delivery.objects.count() == 2


@pytest.mark.parametrize("name", [NDJSON, "application/ndjson", "application/jsonl; charset=utf-8"])
def test_a_line_is_an_event(send: Send, name: str) -> None:
    answer = send(lines(event(1), b"", event(2)) + b"\r\n", name)
    assert answer.status_code == 202
    assert len(answer.json()["results"]) == Event.objects.count() == 2


def test_the_mark_before_a_text_is_no_line(send: Send) -> None:
    answer = send(b"\xef\xbb\xbf\r\n" + lines(event()), NDJSON)
    assert (answer.status_code, len(answer.json()["results"])) == (202, 1)


def test_a_carriage_return_within_a_line_is_a_space(send: Send) -> None:
    answer = send(json.dumps(event()).encode().replace(b", ", b",\r"), NDJSON)
    assert (answer.status_code, len(answer.json()["results"])) == (202, 1)


WRONG = [
    ({**event(), "type": "no.such"}, "unknown_type"),
    ({**event(), "type": "webhook.failing"}, "reserved_type"),
    ({**event(), "type": ["form.submitted"]}, "unknown_type"),
    ({"type": "form.submitted"}, "invalid_payload"),
    (event(idempotency_key=["a"]), "invalid_key"),
    (event(occurred_at="yesterday"), "invalid_time"),
    (event(colour="red"), "unknown_field"),
    ("text", "not_object"),
    ({"type": "form.submitted", "payload": {"t": "x" * 1024 * 1024}}, "too_large"),
]


@pytest.mark.parametrize(("wrong", "code"), WRONG)
def test_a_wrong_event_fails_alone(send: Send, wrong: object, code: str) -> None:
    answer = send([event(1), wrong, event(2)])
    assert answer.status_code == 207
    first, second, third = answer.json()["results"]
    assert second["error"]["code"] == code
    assert {first["event_id"], third["event_id"]} == set(Event.objects.values_list("id", flat=True))


def test_a_line_that_is_no_json_fails_alone(send: Send) -> None:
    answer = send(lines(event(1), b"{", b'{"a": 1, "a": 2}'), NDJSON)
    assert answer.status_code == 207
    codes = [one.get("error", {}).get("code") for one in answer.json()["results"]]
    assert codes == [None, "not_json", "duplicate_key"]


WRONG_LINES = [
    (b'{"type": oops}', "The text is not JSON. Line 4, column 10: “oops” is not a JSON value."),
    (b'{"a": 1,\r"a": 2}', "Line 4, column 10: “a” is in this object already."),
    (b'{"a": NaN}', "Line 4, column 7: NaN is not JSON."),
    (b'{"a": "\xff"}', "Line 4, column 8: The text is not UTF-8."),
]


@pytest.mark.parametrize(("line", "words"), WRONG_LINES)
def test_a_mistake_is_named_by_its_line_of_the_request(send: Send, line: bytes, words: str) -> None:
    answer = send(lines(event(1), b"\r", event(2), line), NDJSON)
    assert answer.json()["results"][2]["error"]["message"].startswith(words)


def test_only_the_first_of_many_long_lines_that_are_no_json_are_explained(send: Send) -> None:
    # Each event is followed by a comma.
    line = json.dumps({"type": "form.submitted", "payload": {"n": [1] * 5000}}).encode() + b","
    answer = send(lines(*[line] * 10, event()), NDJSON)
    said = [one["error"]["message"] for one in answer.json()["results"][:-1]]
    assert ["Remove what follows." in one for one in said] == [True] * 5 + [False] * 5
    assert said[9] == f"The text is not JSON: look at line 10, column {len(line)}."
    assert answer.json()["results"][-1]["event_id"]


def test_only_the_first_of_many_long_lines_with_a_key_twice_are_explained(send: Send) -> None:
    event = json.dumps({"type": "form.submitted", "payload": {"n": [1] * 5000}})
    line = event.removesuffix("}") + ', "type": 1}'
    answer = send(lines(*[line.encode()] * 10), NDJSON)
    said = [one["error"]["message"] for one in answer.json()["results"]]
    assert said[0] == f"Line 1, column {len(line) - 9}: “type” is in this object already."
    assert said[9] == "The key “type” occurs twice in one object."


def test_the_types_of_a_batch_are_named_where_it_has_another(send: Send) -> None:
    answer = send(lines(event()), "application/x-jsonlines")
    assert answer.status_code == 415
    named = re.findall("“Content-Type: (.+?)”", answer.json()["error"]["message"])
    assert named == ["application/json", NDJSON]
    bodies = ([event()], lines(event()))
    assert [send(*one).status_code for one in zip(bodies, named, strict=True)] == [202, 202]


def test_where_all_are_wrong_nothing_is_accepted(send: Send) -> None:
    answer = send([{}, {"type": "no.such", "payload": {}}])
    assert answer.status_code == 422
    assert not Event.objects.exists()


def test_idempotency_keys_count_within_a_batch_and_between(send: Send) -> None:
    batch = [event(1, idempotency_key="a"), event(1, idempotency_key="a"), event(2)]
    first = send(batch).json()["results"]
    assert [one["duplicate"] for one in first] == [False, True, False]
    assert first[0]["event_id"] == first[1]["event_id"]
    again = send([event(1, idempotency_key="a"), event(9, idempotency_key="a")])
    assert again.status_code == 207
    repeated, reused = again.json()["results"]
    assert (repeated["event_id"], repeated["duplicate"]) == (first[0]["event_id"], True)
    assert reused["error"]["code"] == "key_reused"
    assert Event.objects.count() == 2


def test_a_key_for_the_whole_batch_is_refused(send: Send) -> None:
    answer = send([event()], HTTP_IDEMPOTENCY_KEY="a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_key")


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        ([], "application/json", 400, "not_batch"),
        ({}, "application/json", 400, "not_batch"),
        (event(), "application/json", 400, "not_batch"),
        ({"events": {}}, "application/json", 400, "not_batch"),
        ({"events": []}, "application/json", 400, "not_batch"),
        ({"events": [event()], "x": 1}, "application/json", 422, "unknown_field"),
        ({"events": [event()], "type": 1}, "application/json", 422, "unknown_field"),
        (b"[", "application/json", 400, "not_json"),
        (b" \n", NDJSON, 400, "not_batch"),
        ([event()], "text/plain", 415, "unsupported_media_type"),
        ([event()] * 1001, "application/json", 413, "too_many"),
        (b"1\n" * 1001, NDJSON, 413, "too_many"),
        (b" " * (8 * 1024 * 1024 + 1), NDJSON, 413, "too_large"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_batch_is_refused(
    send: Send, body: object, content_type: str, status: int, code: str
) -> None:
    answer = send(body, content_type)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "The batch has no events."),
        ({"events": []}, "The batch has no events."),
        (b"\n", "The batch has no events."),
        (event(), "This is a single event. Send it to /api/v1/events."),
        ({}, "an object with this array as “events”"),
        ({"events": {}}, "an object with this array as “events”"),
        ({"events": [event()], "x": 1}, "There is no field “x”."),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_refused_batch_says_what_is_wrong(send: Send, body: object, said: str) -> None:
    content_type = NDJSON if body == b"\n" else "application/json"
    assert said in send(body, content_type).json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"10\n" * 700_000, NDJSON),
        (b"[" + b"{}," * 700_000 + b"{}]", "application/json"),
        (b'{"events": [' + b"[]," * 700_000 + b"[]]}", "application/json"),
    ],
    ids=["lines", "objects", "lists"],
)
def test_a_body_of_many_items_takes_little_memory(
    send: Send, body: bytes, content_type: str
) -> None:
    tracemalloc.start()
    try:
        assert send(body, content_type).status_code == 413
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The test client and the server each hold the body.
    assert peak < 8 * len(body)


def test_a_key_is_needed() -> None:
    answer = Client().post(URL, [event()], "application/json")
    assert answer.status_code == 401


def test_a_thousand_events_need_as_few_statements_as_ten(send: Send) -> None:
    make_webhook(event_types=["form.*"])
    send([event()])
    with CaptureQueriesContext(connection) as few:
        send([event(number) for number in range(10)])
    with CaptureQueriesContext(connection) as many:
        assert send([event(number) for number in range(1000)]).status_code == 202
    assert Delivery.objects.count() == 1011
    assert len(many) <= len(few) + 4
