"""The event API: what it accepts, how it rejects requests, and what it stores."""

import io
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import InterfaceError, InternalError, OperationalError, connection
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.api.clients import CLIENTS
from tests.polling import eventually
from webhooks import events as public
from webhooks import tasks
from webhooks.api import events
from webhooks.delivery import queue
from webhooks.delivery.group_commit import Throttle
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.events import wake_drains
from webhooks.models import ApiKey, Delivery, Event, Webhook
from webhooks.templatetags.interface import sentence

pytestmark = pytest.mark.django_db

URL = "/api/v1/events"
BODY: dict[str, Any] = {"type": "form.submitted", "payload": {"name": "Тарас", "n": 1}}
LIMIT = 1024 * 1024


@pytest.fixture
def plain_key() -> str:
    return ApiKey.objects.issue("CRM")[1]


@pytest.fixture(params=CLIENTS)
def send(plain_key: str, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that sends bytes, or an object as JSON, with a valid key."""
    client = request.param(enforce_csrf_checks=True)

    def send(body: Any = BODY, method: str = "POST", **headers: str) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        arguments = {
            "HTTP_AUTHORIZATION": f"Bearer {plain_key}",
            "CONTENT_TYPE": "application/json",
        }
        return client.generic(method, URL, data, **arguments | headers)

    return send


def error_of(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    assert response["Cache-Control"] == "no-store"
    assert list(response.json()) == ["error"]
    error: dict[str, Any] = response.json()["error"]
    assert list(error) == ["code", "message", "field"]
    assert error["message"].endswith(".")
    error["message"].encode()
    return error


def make_webhook(**fields: Any) -> Webhook:
    arguments = {"name": "CRM", "url": "https://crm.example.com/", "event_types": ["form.*"]}
    return Webhook.objects.create(**arguments | fields)


# Accepted events


def test_an_event_is_accepted_with_its_id_and_the_number_of_deliveries(send: Any) -> None:
    make_webhook()
    make_webhook()
    make_webhook(event_types=["deal.created"])
    response = send()
    assert response.status_code == 202
    event = Event.objects.get()
    assert response.json() == {"event_id": event.id, "deliveries": 2, "duplicate": False}
    assert Delivery.objects.filter(event=event).count() == 2
    document = json.loads(bytes(event.payload))
    assert document.items() >= {"event": "form.submitted", "name": "Тарас", "n": 1}.items()
    assert document["event_id"] == event.id
    assert sentence(event.source).startswith("API key whapi_")


def test_the_address_is_the_one_of_the_urlconf() -> None:
    assert reverse("webhooks:api_events") == URL


@pytest.mark.once
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "address",
    [
        *(f"{URL}/", f"{URL}/batch/", f"{URL}/evt_1", "/api/v2/events", "/api", "/api/"),
        *(f"/{URL}", "//api", "/api//v1/events", "/api/%0A"),
    ],
)
def test_another_address_of_the_api_is_refused_as_json(address: str, method: str) -> None:
    # With the host, as a path that begins with two slashes would be taken for one.
    address = f"http://testserver{address}"
    response = Client(enforce_csrf_checks=True).generic(method, address, b"{}")
    error = error_of(response, 404)
    assert error["code"] == "not_found"
    assert URL in error["message"]


@pytest.mark.once
def test_an_address_that_only_begins_like_the_api_is_a_page() -> None:
    response = Client().get("/apiary")
    assert response.status_code == 404
    assert response["Content-Type"].startswith("text/html")


def test_a_leap_second_is_the_next_one(send: Any) -> None:
    assert send({**BODY, "occurred_at": "2016-12-31T23:59:60Z"}).status_code == 202
    assert Event.objects.get().occurred_at == datetime(2017, 1, 1, tzinfo=UTC)


def test_neither_cookie_nor_session_nor_csrf_token_is_used(send: Any) -> None:
    response = send()
    assert response.status_code == 202
    assert not response.cookies


@pytest.mark.parametrize("text", ["2026-05-14T12:28:49+03:00", "2026-05-14t09:28:49z "])
def test_the_time_of_the_event_may_be_given(send: Any, text: str) -> None:
    response = send({**BODY, "occurred_at": text})
    assert response.status_code == 202
    event = Event.objects.get()
    assert event.occurred_at == datetime(2026, 5, 14, 9, 28, 49, tzinfo=UTC)
    assert json.loads(bytes(event.payload))["occurred_at"] == "2026-05-14T09:28:49Z"


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON;charset=UTF-8"]
)
def test_a_charset_may_be_named(send: Any, content_type: str) -> None:
    assert send(CONTENT_TYPE=content_type).status_code == 202


def test_the_scheme_is_read_without_case(send: Any, plain_key: str) -> None:
    assert send(HTTP_AUTHORIZATION=f"bearer  {plain_key}").status_code == 202


# Idempotency


@pytest.mark.parametrize("place", ["body", "header", "both"])
def test_the_same_idempotency_key_twice_is_one_event(send: Any, place: str) -> None:
    make_webhook()
    body = BODY if place == "header" else {**BODY, "idempotency_key": "order-1"}
    headers = {} if place == "body" else {"HTTP_IDEMPOTENCY_KEY": "order-1"}
    first, second = send(body, **headers), send(body, **headers)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == {**first.json(), "duplicate": True}
    assert first.json()["deliveries"] == 1
    assert (Event.objects.count(), Delivery.objects.count()) == (1, 1)


def test_a_key_is_the_same_in_the_header_and_in_the_body(send: Any) -> None:
    # A WSGI server passes header bytes on as Latin-1.
    header = "замовлення-1".encode().decode("latin-1")
    first = send({**BODY, "idempotency_key": "замовлення-1"})
    second = send(HTTP_IDEMPOTENCY_KEY=header)
    assert second.json() == {**first.json(), "duplicate": True}
    assert send({**BODY, "idempotency_key": "é"}).status_code == 202
    assert send(HTTP_IDEMPOTENCY_KEY="é").json()["duplicate"]


def test_a_reused_key_with_other_content_is_refused(send: Any) -> None:
    send({**BODY, "idempotency_key": "k"})
    error = error_of(send({**BODY, "payload": {"n": 2}, "idempotency_key": "k"}), 422)
    assert (error["code"], error["field"]) == ("key_reused", "idempotency_key")
    assert Event.objects.count() == 1


def test_two_keys_in_one_request_are_refused(send: Any) -> None:
    response = send({**BODY, "idempotency_key": "a"}, HTTP_IDEMPOTENCY_KEY="b")
    assert error_of(response, 422)["code"] == "invalid_key"


@pytest.mark.parametrize("key", ["", "x" * 256, "a\0b", "a\nb", 3, ["a"], {}, False, "\ud800"])
def test_a_wrong_idempotency_key_is_refused(send: Any, key: object) -> None:
    error = error_of(send({**BODY, "idempotency_key": key}), 422)
    assert (error["code"], error["field"]) == ("invalid_key", "idempotency_key")
    assert not Event.objects.exists()


def test_an_empty_header_is_a_wrong_key(send: Any) -> None:
    assert error_of(send(HTTP_IDEMPOTENCY_KEY=""), 422)["code"] == "invalid_key"


# Authentication and permissions


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "whapi_abc", "Token whapi_abc"]
)
def test_a_request_without_a_key_is_challenged(send: Any, header: str) -> None:
    response = send(HTTP_AUTHORIZATION=header)
    assert error_of(response, 401)["code"] == "unauthorized"
    assert response["WWW-Authenticate"] == 'Bearer realm="webhooks"'


def test_a_request_without_the_header_is_challenged(client: Client) -> None:
    response = client.post(URL, BODY, content_type="application/json")
    assert error_of(response, 401)["code"] == "unauthorized"


@pytest.mark.parametrize("key", ["whapi_unknown", "é", "x" * 5000, "a b"])
def test_an_unknown_key_is_refused(send: Any, key: str) -> None:
    response = send(HTTP_AUTHORIZATION=f"Bearer {key}")
    assert error_of(response, 401)["code"] == "unauthorized"
    assert 'error="invalid_token"' in response["WWW-Authenticate"]
    assert key not in response.content.decode()
    assert not Event.objects.exists()


def test_a_key_for_something_else_learns_which_scope_it_lacks(send: Any) -> None:
    _key, plain = ApiKey.objects.issue("Monitor", scopes=["health:read"])

    response = send(HTTP_AUTHORIZATION=f"Bearer {plain}")

    assert error_of(response, 403)["code"] == "forbidden"
    assert 'error="insufficient_scope", scope="events:write"' in response["WWW-Authenticate"]
    assert not Event.objects.exists()


def test_a_revoked_key_is_refused_a_second_later(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: now))
    assert send().status_code == 202
    ApiKey.objects.update(revoked_at=timezone.now())
    now = 1.0
    error_of(send(), 401)


def test_a_key_in_use_is_looked_up_once_the_client_has_its_answer(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: now))
    asked: list[bool] = []
    for now in (0.0, 0.4, 0.6, 1.2, 1.5, 2.4, 2.5):
        with CaptureQueriesContext(connection) as queries:
            assert send().status_code == 202
        looked_up = ['FROM "webhooks_apikey"' in query["sql"] for query in queries]
        asked.append(looked_up[0])
        assert any(looked_up[1:]) == (now in (0.6, 1.2))
    # The first request, and one after a second without requests.
    assert asked == [True, False, False, False, False, True, False]


def test_a_key_that_was_revoked_is_not_renewed(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: now))
    assert send().status_code == 202
    ApiKey.objects.update(revoked_at=timezone.now())
    now = 0.6
    assert send().status_code == 202
    error_of(send(), 401)


def test_drains_are_woken_once_the_client_has_its_answer(
    plain_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakeup = ProcessWakeup()
    monkeypatch.setattr(tasks, "wakeup", lambda: wakeup)
    # Wait for the wakeups that earlier tests caused.
    wake_drains()
    eventually(lambda: wakeup.wait(0))
    make_webhook()
    request = RequestFactory().post(
        URL, json.dumps(BODY), "application/json", headers={"Authorization": f"Bearer {plain_key}"}
    )
    answer = events.publish_event(request)
    assert answer.status == 202
    assert not wakeup.wait(0)
    answer.then()
    eventually(lambda: wakeup.wait(0))


def test_drains_are_woken_also_while_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(timer: threading.Timer) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Timer, "start", fail)
    calls: list[int] = []
    throttle = Throttle(lambda: calls.append(1), every_seconds=60, burst=1)
    for _ in range(3):
        throttle.call()
    assert len(calls) == 3


def test_nothing_is_read_before_the_key_is_known(send: Any) -> None:
    error_of(send(b"{", HTTP_AUTHORIZATION="Bearer wrong", CONTENT_TYPE="text/plain"), 401)


def test_the_time_of_the_last_use_is_kept_to_the_minute(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(events, "time", SimpleNamespace(monotonic=lambda: now))
    send()
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    send()
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=first - timedelta(seconds=61))
    # A key is cached for one second.
    now = 1.0
    send()
    assert ApiKey.objects.get().last_used_at >= first  # type: ignore[operator]


def test_the_time_of_the_last_use_does_not_stay_with_a_clock_that_was_wrong(send: Any) -> None:
    ahead = timezone.now() + timedelta(days=3653)
    ApiKey.objects.update(last_used_at=ahead)
    send()
    last = ApiKey.objects.get().last_used_at
    assert last is not None
    assert last < timezone.now()


# Method and headers


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])
def test_another_method_is_refused(send: Any, method: str) -> None:
    response = send(b"", method=method)
    assert response.status_code == 405
    assert response["Allow"] == "POST"
    if method != "HEAD":
        assert error_of(response, 405)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    "headers",
    [
        {"CONTENT_TYPE": "text/plain"},
        {"CONTENT_TYPE": "application/x-www-form-urlencoded"},
        {"CONTENT_TYPE": "multipart/form-data; boundary=x"},
        {"CONTENT_TYPE": ""},
        {"CONTENT_TYPE": "application/json; charset=windows-1251"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
    ],
)
def test_another_media_type_is_refused(send: Any, headers: dict[str, str]) -> None:
    assert error_of(send(**headers), 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"type=form.submitted",
        b"{'type': 1}",
        b'{"type": "form.submitted", "payload": {"n": NaN}}',
        b"\xff\xfe{}",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"[" + b"1" * 5000 + b"]",
    ],
)
def test_a_body_that_is_no_json_is_refused(send: Any, body: bytes) -> None:
    assert error_of(send(body), 400)["code"] == "not_json"


@pytest.mark.parametrize(
    "body",
    [
        b'{"type": "a", "type": "form.submitted", "payload": {}}',
        b'{"type": "form.submitted", "payload": {"a": {"b": 1, "b": 2}}}',
    ],
)
def test_a_repeated_key_is_refused(send: Any, body: bytes) -> None:
    assert error_of(send(body), 400)["code"] == "duplicate_key"


@pytest.mark.parametrize("body", [[], "text", None, 3, [BODY]])
def test_a_body_that_is_no_object_is_refused(send: Any, body: object) -> None:
    assert error_of(send(body), 400)["code"] == "not_object"


# Size limits


def event_of_size(size: int) -> bytes:
    empty = json.dumps({**BODY, "payload": {"title": ""}}).encode()
    return empty.replace(b'""', b'"' + b"x" * (size - len(empty)) + b'"')


def test_a_body_over_the_limit_is_refused_and_one_under_it_is_not(send: Any) -> None:
    assert send(event_of_size(LIMIT - 1000)).status_code == 202
    assert error_of(send(event_of_size(LIMIT + 1)), 413)["code"] == "too_large"
    assert Event.objects.count() == 1


def test_a_document_over_the_limit_is_refused(send: Any) -> None:
    error = error_of(send(event_of_size(LIMIT)), 413)
    assert (error["code"], error["field"]) == ("too_large", "payload")


class Unreadable(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise AssertionError("The body was read.")


class CountingStream(io.BytesIO):
    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        # A server may return fewer bytes than requested.
        chunk = super().read(min(size or 0, 65_536))
        self.taken += len(chunk)
        return chunk


def call(
    plain_key: str, endpoint: events.Endpoint = events.publish_event, **environ: Any
) -> events.ApiResponse:
    """Call an endpoint as a server does, without Content-Length by default."""
    request = RequestFactory().generic("POST", URL)
    usual = {
        "HTTP_AUTHORIZATION": f"Bearer {plain_key}",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": "",
    }
    return endpoint(type(request)(request.environ | usual | environ))


@pytest.mark.parametrize("length", [str(LIMIT + 1), "9" * 5000])
def test_a_declared_length_over_the_limit_is_refused_unread(plain_key: str, length: str) -> None:
    response = call(plain_key, CONTENT_LENGTH=length, **{"wsgi.input": Unreadable()})
    assert response.status == 413


def chunked(plain_key: str, stream: io.IOBase, *, is_terminated: bool = True) -> events.ApiResponse:
    environ = {"wsgi.input": stream, "wsgi.input_terminated": is_terminated}
    return call(plain_key, HTTP_TRANSFER_ENCODING="chunked", **environ)


def test_a_body_without_a_length_is_read_up_to_the_limit(plain_key: str) -> None:
    stream = CountingStream(event_of_size(5 * LIMIT))
    assert chunked(plain_key, stream).status == 413
    assert stream.taken == LIMIT + 1


def test_a_body_without_a_length_is_accepted(plain_key: str) -> None:
    assert chunked(plain_key, CountingStream(event_of_size(200_000))).status == 202


def test_a_server_that_cannot_read_chunks_asks_for_a_length(plain_key: str) -> None:
    assert chunked(plain_key, Unreadable(), is_terminated=False).status == 411


class BrokenStream(io.BytesIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def read(self, size: int | None = -1) -> bytes:
        raise self._error


def test_a_client_that_goes_away_is_no_error_of_ours(plain_key: str) -> None:
    assert chunked(plain_key, BrokenStream(ConnectionResetError())).status == 400
    stream = BrokenStream(ConnectionResetError())
    response = call(plain_key, CONTENT_LENGTH="100", **{"wsgi.input": stream})
    assert response.status == 400


@pytest.mark.parametrize("error", [EOFError(), SyntaxError("not a chunk")])
def test_chunks_that_are_none_are_no_error_of_ours(plain_key: str, error: Exception) -> None:
    answer = chunked(plain_key, BrokenStream(error))
    assert json.loads(answer.content)["error"]["code"] == "incomplete"


def test_a_body_that_is_cut_short_is_refused(plain_key: str) -> None:
    body = json.dumps(BODY).encode()
    cut = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body[:-1])}
    assert call(plain_key, **cut).status == 400
    assert not Event.objects.exists()


@pytest.mark.parametrize("missing", [1, 40])
def test_lines_of_a_batch_that_is_cut_short_are_no_events(plain_key: str, missing: int) -> None:
    body = json.dumps(BODY).encode() + b"\n"
    cut = {
        "CONTENT_TYPE": "application/x-ndjson",
        "CONTENT_LENGTH": str(2 * len(body)),
        "wsgi.input": io.BytesIO((2 * body)[:-missing]),
    }
    answer = call(plain_key, events.publish_batch, **cut)
    assert (answer.status, json.loads(answer.content)["error"]["code"]) == (400, "incomplete")
    assert not Event.objects.exists()


class Slow(io.BytesIO):
    """A body that takes a minute to read, during which its key is revoked."""

    def read(self, size: int | None = -1) -> bytes:
        for caller in events.callers.values():
            caller.looked_at -= 60
        ApiKey.objects.update(revoked_at=timezone.now())
        return super().read(size)


@pytest.mark.parametrize(
    ("endpoint", "body"), [(events.publish_event, BODY), (events.publish_batch, [BODY])]
)
def test_a_key_that_is_revoked_while_its_body_comes_in_is_refused(
    plain_key: str, endpoint: events.Endpoint, body: object
) -> None:
    sent = json.dumps(body).encode()
    environ = {"CONTENT_LENGTH": str(len(sent)), "wsgi.input": Slow(sent)}
    assert call(plain_key, endpoint, **environ).status == 401
    assert not Event.objects.exists()


# Validation


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"type": "no.such"}, "unknown_type", "type"),
        ({"type": ""}, "unknown_type", "type"),
        ({"type": 3}, "unknown_type", "type"),
        ({"type": None}, "unknown_type", "type"),
        ({"type": "call.*"}, "unknown_type", "type"),
        ({"type": "\ud800"}, "unknown_type", "type"),
        ({"type": "webhook.test"}, "reserved_type", "type"),
        ({"type": "webhook.failing"}, "reserved_type", "type"),
        ({"payload": None}, "invalid_payload", "payload"),
        ({"payload": []}, "invalid_payload", "payload"),
        ({"payload": "{}"}, "invalid_payload", "payload"),
        ({"payload": {"title": "\ud800"}}, "invalid_payload", "payload"),
        ({"occurred_at": "2026-05-14T09:28:49"}, "invalid_time", "occurred_at"),
        ({"occurred_at": "yesterday"}, "invalid_time", "occurred_at"),
        ({"occurred_at": 1778750929}, "invalid_time", "occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+14:00"}, "invalid_time", "occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00Z"}, "invalid_time", "occurred_at"),
        ({"occurred_at": "1969-12-31T23:59:59Z"}, "invalid_time", "occurred_at"),
        ({"occurred_at": "9999-12-31T23:59:59Z"}, "invalid_time", "occurred_at"),
        ({"idempotencyKey": "a"}, "unknown_field", "idempotencyKey"),
    ],
)
def test_a_wrong_field_is_named(send: Any, changes: dict[str, Any], code: str, field: str) -> None:
    error = error_of(send({**BODY, **changes}), 422)
    assert (error["code"], error["field"]) == (code, field)
    assert not Event.objects.exists()


@pytest.mark.parametrize("name", ["type", "payload"])
def test_a_missing_field_is_named(send: Any, name: str) -> None:
    body = {key: value for key, value in BODY.items() if key != name}
    assert error_of(send(body), 422)["field"] == name


@pytest.mark.once
@pytest.mark.parametrize("key", ["", ', "idempotency_key": "k"'])
def test_deep_nesting_is_refused(send: Any, key: str) -> None:
    # The parser fails somewhere below 1,000 levels, and the encoder slightly before it.
    for levels in (33, 200, *range(800, 1000, 2)):
        value = "[" * levels + "]" * levels
        body = f'{{"type": "form.submitted", "payload": {{"a": {value}}}{key}}}'
        assert send(body.encode()).status_code in {400, 422}
    assert not Event.objects.exists()


def test_a_number_beyond_floats_is_refused(send: Any) -> None:
    error = error_of(send(b'{"type": "form.submitted", "payload": {"n": 1e400}}'), 422)
    assert error["code"] == "invalid_payload"


def test_a_text_with_nul_is_accepted(send: Any) -> None:
    assert send({**BODY, "payload": {"call_id": "a\0b"}}).status_code == 202


def test_messages_are_in_the_language_of_the_caller(send: Any) -> None:
    response = send({**BODY, "type": "x"}, HTTP_ACCEPT_LANGUAGE="uk")
    assert response["Content-Language"] == "uk"


@contextmanager
def unreachable_database(error: Exception) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise error

    with connection.execute_wrapper(refuse):
        yield


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("no connection"),
        InterfaceError("the connection is closed"),
        # PostgreSQL when it is read-only, during a failover.
        InternalError("cannot execute INSERT in a read-only transaction"),
    ],
)
def test_a_database_that_does_not_answer_makes_a_clear_503(
    send: Any, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    with unreachable_database(error):
        response = send()
    assert error_of(response, 503)["code"] == "unavailable"
    assert response["Retry-After"] == "5"
    assert "api_unavailable" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_session_that_stays_read_only_is_not_used_again(send: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    assert error_of(send(), 503)["code"] == "unavailable"
    assert send().status_code == 202


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_role_that_lost_a_right_makes_a_503_without_a_traceback(
    send: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # A role belongs to the whole server, which other pytest workers use too.
    weak = f"{connection.settings_dict['NAME']}_weak"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {weak}")
        cursor.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {weak}")
        cursor.execute(f"SET ROLE {weak}")
        try:
            response = send()
        finally:
            cursor.execute("RESET ROLE")
            cursor.execute(f"DROP OWNED BY {weak}; DROP ROLE {weak}")
    assert error_of(response, 503)["code"] == "unavailable"
    assert "permission denied" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("sqlite")
def test_a_file_that_is_locked_is_waited_for_once() -> None:
    begun: list[str] = []

    def note(execute: Any, statement: str, *arguments: Any) -> Any:
        if statement.startswith("BEGIN"):
            begun.append(statement)
        return execute(statement, *arguments)

    item = public.NewEvent("form.submitted", {})
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as other:
        other.execute("BEGIN IMMEDIATE")
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 1")
        with connection.execute_wrapper(note), pytest.raises(OperationalError):
            public.publish_together(item)
    connection.close()
    assert begun == ["BEGIN IMMEDIATE"]
    assert public.publish_together(item).event_id


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("sqlite")
def test_a_file_that_stays_locked_keeps_no_request_for_long(
    send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise requests that wait take all threads of `manage.py run`, and `/healthz` none."""
    monkeypatch.setattr(queue.sqlite, "API_WAIT_MS", 500)
    monkeypatch.setattr(queue.sqlite, "_hurried_until", float("-inf"))
    assert send().status_code == 202
    with closing(sqlite3.connect(connection.settings_dict["NAME"])) as other:
        other.execute("BEGIN IMMEDIATE")
        waits = []
        for _ in range(2):
            began_at = time.monotonic()
            response = send()
            waits.append(time.monotonic() - began_at)
            assert error_of(response, 503)["code"] == "unavailable"
            assert response["Retry-After"] == "5"
    assert 0.4 < waits[0] < 5
    assert waits[1] < 0.4
    assert send().status_code == 202
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        assert cursor.fetchone() == (20_000,)


def test_a_key_is_in_no_log(send: Any, plain_key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    send()
    send(b"{")
    with unreachable_database(OperationalError("no connection")):
        send()
    assert plain_key not in caplog.text


@pytest.mark.slow
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "payload", "idempotency_key", "occurred_at", "x"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_body_makes_a_server_error(send: Any, body: bytes) -> None:
    assert send(body).status_code in {202, 400, 422}


def test_an_answer_needs_no_middleware(plain_key: str) -> None:
    request: HttpRequest = RequestFactory().post(
        URL, BODY, content_type="application/json", HTTP_AUTHORIZATION=f"Bearer {plain_key}"
    )
    assert events.publish_event(request).status == 202
