"""The event API on an event loop: same responses, and ordinary events need no thread."""

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.api.clients import LiveServer
from tests.polling import eventually
from tests.services import HOST
from webhooks.api import asgi
from webhooks.models import ApiKey, Delivery, Event, Webhook

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database("postgres")]

URL = "/api/v1/events"
BODY = {"type": "form.submitted", "payload": {"n": 1}}
JSON = {"Content-Type": "application/json"}
CHUNKED = {"Transfer-Encoding": "chunked"}
Post = Callable[..., Any]


def refuse(environ: Any, start_response: Any) -> list[bytes]:
    """Stand in for the site, which these requests must not reach."""
    start_response("418 I'm a Teapot", [("Content-Length", "0")])
    return []


@pytest.fixture
def key() -> dict[str, str]:
    return {"Authorization": f"Bearer {ApiKey.objects.issue('CRM')[1]}"}


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer() as server:
        yield server


@pytest.fixture
def loop_alone(server: LiveServer, key: dict[str, str]) -> Iterator[LiveServer]:
    """Yield a server without the site, once the API key and the webhooks of the type are cached."""
    with LiveServer(refuse) as alone:

        def is_ordinary() -> bool:
            server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
            return alone.ask("POST", URL, json.dumps(BODY).encode(), JSON | key).status_code == 202

        eventually(is_ordinary)
        Event.objects.all().delete()
        yield alone


@pytest.fixture
def assumed_role(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A role to assume besides the one that logs in; a trigger notes the role in `call_id`."""
    name = f"{connection.settings_dict['NAME']}_assumed"
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        other.execute(f"CREATE ROLE {name} SUPERUSER")
        other.execute(
            "CREATE FUNCTION sign() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN NEW.call_id = current_user; RETURN NEW; END $$"
        )
        other.execute(
            "CREATE TRIGGER sign BEFORE INSERT ON webhooks_event "
            "FOR EACH ROW EXECUTE FUNCTION sign()"
        )
        with monkeypatch.context() as patch:
            patch.setitem(connection.settings_dict["OPTIONS"], "assume_role", name)
            yield name
        # The next connection uses the login role again.
        connection.close()
        other.execute("DROP FUNCTION sign() CASCADE")
        other.execute(f"DROP ROLE {name}")


def test_an_ordinary_event_is_inserted_by_the_role_that_is_assumed(
    assumed_role: str, loop_alone: LiveServer, key: dict[str, str]
) -> None:
    answer = loop_alone.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    assert answer.status_code == 202
    assert Event.objects.get().call_id == assumed_role


def test_an_ordinary_event_needs_no_site(loop_alone: LiveServer, key: dict[str, str]) -> None:
    answer = loop_alone.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    assert answer.status_code == 202
    assert json.loads(answer.content) == {
        "event_id": Event.objects.get().id,
        "deliveries": 0,
        "duplicate": False,
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"Idempotency-Key": "a"},
        {"Content-Type": "application/json; charset=utf-8"},
        {"Accept-Language": "uk"},
        {"X-Request-ID": "1"},
        {"Content-Encoding": "identity"},
    ],
)
def test_what_else_is_ordinary(
    loop_alone: LiveServer, key: dict[str, str], headers: Mapping[str, str]
) -> None:
    answer = loop_alone.ask("POST", URL, json.dumps(BODY).encode(), JSON | key | headers)
    assert answer.status_code == 202
    assert Event.objects.get().idempotency_key == headers.get("Idempotency-Key")


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (json.dumps(BODY), {"Authorization": "Bearer whapi_no"}),
        (json.dumps(BODY), {"Authorization": ""}),
        (json.dumps(BODY), {"Content-Type": "text/plain"}),
        (json.dumps(BODY), {"Content-Encoding": "gzip"}),
        (json.dumps(BODY | {"type": "no.such"}), {}),
        (json.dumps(BODY | {"x": 1}), {}),
        (json.dumps(BODY | {"payload": []}), {"Accept-Language": "uk"}),
        (json.dumps(BODY | {"occurred_at": "yesterday"}), {}),
        (json.dumps(BODY | {"payload": {"a": "\ud800"}}), {}),
        (json.dumps(BODY | {"idempotency_key": "a"}), {"Idempotency-Key": "b"}),
        (json.dumps(BODY | {"idempotency_key": ""}), {}),
        ("{", {"Accept-Language": "uk"}),
        ('{"type": "form.submitted", "type": "a"}', {}),
        ("[]", {}),
        (" ", {}),
    ],
)
def test_refusals_are_those_of_the_site(
    server: LiveServer, key: dict[str, str], body: str, headers: dict[str, str]
) -> None:
    server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    sent = JSON | key | {"Host": f"{HOST}:{server.port}"} | headers
    # The second request meets a loop that has cached the headers.
    for _ in range(2):
        answer = server.ask("POST", URL, body.encode(), sent)
        media_type = sent.pop("Content-Type")
        expected = Client().generic("POST", URL, body.encode(), media_type, headers=sent)
        sent["Content-Type"] = media_type
        assert (answer.status_code, answer.content) == (expected.status_code, expected.content)
        assert answer.status_code >= 400
        found = {name.lower(): value for name, value in answer.headers.items() if name != "date"}
        assert found == {name.lower(): value for name, value in expected.headers.items()}
    assert Event.objects.count() == 1


def test_a_host_that_is_not_ours_is_refused(server: LiveServer, key: dict[str, str]) -> None:
    body = json.dumps(BODY).encode()
    for _ in range(2):
        assert server.ask("POST", URL, body, JSON | key).status_code == 202
        answer = server.ask("POST", URL, body, JSON | key | {"Host": "evil.test"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "wrong_host")
    assert Event.objects.count() == 2


def test_a_content_type_that_django_cannot_read_is_refused(
    server: LiveServer, key: dict[str, str]
) -> None:
    server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    kind = {"Content-Type": "application/json; charset*=nosuch''x"}
    for _ in range(2):
        answer = server.ask("POST", URL, json.dumps(BODY).encode(), key | kind)
        assert answer.status_code == 415


def test_an_accepted_event_has_the_headers_of_the_site(
    server: LiveServer, key: dict[str, str]
) -> None:
    server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    answer = server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    expected = Client().post(URL, BODY, "application/json", headers=key)
    found = {name.lower(): value for name, value in answer.headers.items() if name != "date"}
    assert found == {name.lower(): value for name, value in expected.headers.items()}


def test_a_key_that_was_used_is_the_same_event(server: LiveServer, key: dict[str, str]) -> None:
    sent = JSON | key | {"Idempotency-Key": "ключ".encode().decode("latin-1")}
    answers = [
        json.loads(server.ask("POST", URL, json.dumps(BODY).encode(), sent).content)
        for _ in range(4)
    ]
    assert [one["duplicate"] for one in answers] == [False, True, True, True]
    assert Event.objects.get().idempotency_key == "ключ"


def test_a_filter_and_a_fan_out_are_judged(loop_alone: LiveServer, key: dict[str, str]) -> None:
    condition = {"variable": "name", "operator": "equals", "value": "Ann"}
    Webhook.objects.create(name="A", url="https://a.example/", event_types=["form.*"])
    Webhook.objects.create(
        name="B", url="https://b.example/", event_types=["form.*"], filter=condition
    )
    assert Client().post(URL, BODY, "application/json", headers=key).status_code == 202
    body = BODY | {"payload": {"name": "Ann"}}
    answer = loop_alone.ask("POST", URL, json.dumps(body).encode(), JSON | key)
    assert json.loads(answer.content)["deliveries"] == 2
    answer = loop_alone.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    assert json.loads(answer.content)["deliveries"] == 1
    assert Event.objects.order_by("-id")[0].filtered_count == 1


@pytest.mark.parametrize("part", [[], {}, 1, [[[]]]])
def test_an_event_of_very_many_values_does_not_hold_up_the_loop(
    server: LiveServer, loop_alone: LiveServer, key: dict[str, str], part: object
) -> None:
    for count, status in ((100, 202), (1000, 418)):
        body = json.dumps(BODY | {"payload": {"parts": [part] * count}}).encode()
        assert loop_alone.ask("POST", URL, body, JSON | key).status_code == status
        assert server.ask("POST", URL, body, JSON | key).status_code == 202


@pytest.mark.parametrize("size", [10_000, 70_000, 1_000_000])
def test_a_large_event_is_accepted(server: LiveServer, key: dict[str, str], size: int) -> None:
    body = json.dumps(BODY | {"payload": {"text": "a" * size}}).encode()
    for _ in range(2):
        assert server.ask("POST", URL, body, JSON | key).status_code == 202
    assert Event.objects.count() == 2


@pytest.mark.parametrize("path", [URL, f"{URL}/batch"])
def test_a_body_that_is_too_large_is_refused(
    server: LiveServer, key: dict[str, str], path: str
) -> None:
    server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    body = json.dumps([BODY | {"payload": {"text": "a" * 9_000_000}}]).encode()
    answer = server.ask("POST", path, body, JSON | key)
    assert (answer.status_code, json.loads(answer.content)["error"]["code"]) == (413, "too_large")


@pytest.mark.parametrize("path", [f"/{URL}", f"/%2F{URL[1:]}", "/api", "/api//v1/events"])
def test_another_address_of_the_api_is_refused_as_json(
    server: LiveServer, key: dict[str, str], path: str
) -> None:
    answer = server.ask("POST", path, json.dumps(BODY).encode(), JSON | key)
    assert (answer.status_code, json.loads(answer.content)["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/api/v2/events", "//api/v1/events", "/api"])
def test_another_address_of_the_api_is_refused_before_a_body_of_any_size(
    server: LiveServer, path: str
) -> None:
    chunk = b"2000000\r\n" + b"a" * (16 * 1024 * 1024 + 1)
    for more, body in (({"Content-Length": "999999999"}, b""), (CHUNKED, chunk)):
        answer = raw(server, head(server, JSON | more, path), body)
        assert answer.startswith(b"HTTP/1.1 404")
        assert b'"not_found"' in answer


def test_batches_are_answered(server: LiveServer, key: dict[str, str]) -> None:
    server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    answer = server.ask("POST", f"{URL}/batch", json.dumps([BODY] * 1000).encode(), JSON | key)
    assert (answer.status_code, len(json.loads(answer.content)["results"])) == (202, 1000)
    lines = "\n".join([json.dumps(BODY)] * 3).encode()
    answer = server.ask(
        "POST", f"{URL}/batch", lines, key | {"Content-Type": "application/x-ndjson"}
    )
    assert (answer.status_code, Event.objects.count()) == (202, 1004)


def raw(server: LiveServer, *pieces: bytes, is_ended: bool = False) -> bytes:
    """Send each piece on its own, and return all data until the server falls silent."""
    with socket.create_connection((HOST, server.port), 20) as opened:
        for piece in pieces:
            opened.sendall(piece)
            time.sleep(0.05)
        if is_ended:
            opened.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := opened.recv(65_536):
            answer += chunk
        return answer


def head(server: LiveServer, headers: Mapping[str, str], path: str = URL) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {HOST}:{server.port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", [URL, f"{URL}/batch"])
def test_a_proxy_that_sends_all_of_a_body_that_is_too_large_gets_the_answer(
    server: LiveServer, key: dict[str, str], path: str
) -> None:
    body = b"a" * 9_000_000
    length = {"Content-Length": str(len(body))}
    answer = raw(server, head(server, JSON | key | length, path), body[:500_000], body[500_000:])
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"too_large" in answer


def test_a_body_that_is_too_large_is_not_asked_for(server: LiveServer, key: dict[str, str]) -> None:
    asked = {"Content-Length": "9000000", "Expect": "100-continue"}
    assert raw(server, head(server, JSON | key | asked)).startswith(b"HTTP/1.1 413")


def test_a_page_body_that_is_too_large_is_not_to_be_sent_again(server: LiveServer) -> None:
    answer = raw(server, head(server, {"Content-Length": "999999999"}, "/accounts/login/"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"retry-after" not in answer.lower()


def test_chunks_and_pieces_are_put_together(server: LiveServer, key: dict[str, str]) -> None:
    server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    body = json.dumps(BODY).encode()
    chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:])]
    answer = raw(server, head(server, JSON | key | CHUNKED), *chunks, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 202")
    length = {"Content-Length": str(len(body))}
    answer = raw(server, head(server, JSON | key | length), body[:9], body[9:])
    assert answer.startswith(b"HTTP/1.1 202")
    assert Event.objects.count() == 3


@pytest.mark.parametrize("path", [URL, f"{URL}/batch"])
@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_what_is_cut_short_is_no_event(
    server: LiveServer, key: dict[str, str], path: str, is_known: bool, is_chunked: bool
) -> None:
    if is_known:
        server.ask("POST", URL, json.dumps(BODY | {"type": "no.such"}).encode(), JSON | key)
    line = json.dumps(BODY).encode() + b"\n"
    kind = {"Content-Type": "application/x-ndjson"} if path != URL else JSON
    length = CHUNKED if is_chunked else {"Content-Length": str(2 * len(line))}
    piece = b"%x\r\n%b\r\n" % (len(line), line) if is_chunked else line
    raw(server, head(server, kind | key | length, path), piece, is_ended=True)
    # A later request has its response, so the truncated one has been processed.
    server.ask("POST", path, b"{", kind | key)
    assert not Event.objects.exists()


def test_a_revoked_key_is_refused_within_a_second(server: LiveServer, key: dict[str, str]) -> None:
    for _ in range(3):
        assert server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key).status_code == 202
    ApiKey.objects.update(revoked_at=timezone.now())
    time.sleep(1.1)
    assert server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key).status_code == 401


def test_a_key_that_is_revoked_while_its_body_comes_is_refused(
    server: LiveServer, key: dict[str, str]
) -> None:
    body = json.dumps(BODY).encode()
    for _ in range(2):
        assert server.ask("POST", URL, body, JSON | key).status_code == 202
    with socket.create_connection((HOST, server.port), 20) as opened:
        opened.sendall(head(server, JSON | key | {"Content-Length": str(len(body))}) + body[:5])
        time.sleep(0.2)
        ApiKey.objects.update(revoked_at=timezone.now())
        time.sleep(1.1)
        opened.sendall(body[5:])
        assert opened.recv(65_536).startswith(b"HTTP/1.1 401")
    assert Event.objects.count() == 2


def test_headers_that_look_like_those_of_a_proxy_are_none(
    server: LiveServer, key: dict[str, str], settings: Any
) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    settings.SECURE_SSL_REDIRECT = True
    with LiveServer() as behind:
        body = json.dumps(BODY).encode()
        forged = JSON | key | {"X_Forwarded_Proto": "https"}
        assert behind.ask("POST", URL, body, forged).status_code == 301
        for _ in range(2):
            proxied = JSON | key | {"X-Forwarded-Proto": "https"}
            assert behind.ask("POST", URL, body, proxied).status_code == 202
            assert behind.ask("POST", URL, body, JSON | key).status_code == 301
            assert behind.ask("POST", URL, body, forged).status_code == 301


@pytest.mark.parametrize("path", ["/healthz?q=\xff", "/healthz?q=%ff", "/%ff", "/integrations/ї"])
def test_bytes_of_an_address_that_are_no_text_are_no_error_of_ours(
    server: LiveServer, path: str
) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{server.port}\r\nConnection: close\r\n\r\n"
    status = int(raw(server, request.encode()).split()[1])
    assert status in {200, 302, 400, 404}


def test_a_connection_that_the_server_ended_is_replaced(
    loop_alone: LiveServer, server: LiveServer, key: dict[str, str]
) -> None:
    with psycopg.connect(**connection.get_connection_params()) as other:
        other.autocommit = True
        others = (
            "FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid NOT IN (pg_backend_pid(), %s)"
        )
        own = [connection.connection.info.backend_pid]
        # Until the processes have ended: only then are their sockets closed.
        other.execute(f"SELECT pg_terminate_backend(pid, 60000) {others}", own)
    body = json.dumps(BODY).encode()
    assert server.ask("POST", URL, body, JSON | key).status_code == 202
    eventually(lambda: loop_alone.ask("POST", URL, body, JSON | key).status_code == 202)
    assert server.ask("POST", URL, body, JSON | key).status_code == 202


def test_many_clients_at_once_each_get_their_own_answer(
    server: LiveServer, key: dict[str, str]
) -> None:
    Webhook.objects.create(name="A", url="https://a.example/", event_types=["form.*"])
    opened = [http.client.HTTPConnection(HOST, server.port, timeout=60) for _ in range(40)]
    for round_number in range(3):
        for number, one in enumerate(opened):
            body = BODY | {"payload": {"call_id": f"{round_number}-{number}"}}
            one.request("POST", URL, json.dumps(body).encode(), JSON | key)
        for number, one in enumerate(opened):
            answer = json.loads(one.getresponse().read())
            event = Event.objects.get(pk=answer["event_id"])
            assert (event.call_id, answer["deliveries"]) == (f"{round_number}-{number}", 1)
    for one in opened:
        one.close()
    assert (Event.objects.count(), Delivery.objects.count()) == (120, 120)


def test_a_database_that_ends_connections_under_load_loses_no_event_and_holds_up_none(
    server: LiveServer, key: dict[str, str]
) -> None:
    body = json.dumps(BODY).encode()
    accepted: list[str] = []
    is_over = threading.Event()

    def post() -> None:
        while not is_over.is_set():
            answer = server.ask("POST", URL, body, JSON | key)
            assert answer.status_code in {202, 503}
            if answer.status_code == 202:
                accepted.append(json.loads(answer.content)["event_id"])

    with (
        psycopg.connect(**connection.get_connection_params(), autocommit=True) as other,
        ThreadPoolExecutor(8) as threads,
    ):
        clients = [threads.submit(post) for _ in range(8)]
        for _ in range(30):
            before = len(accepted)
            eventually(lambda before=before: len(accepted) > before + 20)  # type: ignore[misc]
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
                [connection.connection.info.backend_pid],
            )
        is_over.set()
        for one in clients:
            one.result()
    stored = set(Event.objects.values_list("pk", flat=True))
    assert set(accepted) <= stored
    assert len(set(accepted)) == len(accepted)


@pytest.mark.parametrize("path", [URL, f"{URL}/batch", "/login/"])
@pytest.mark.parametrize("size", [5, 60_000])
def test_bodies_that_do_not_come_take_no_thread(
    server: LiveServer, key: dict[str, str], path: str, size: int
) -> None:
    server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
    length = {"Content-Length": str(2 * size), "Cookie": f"csrftoken={'a' * 32}"}
    with ExitStack() as stack:
        for _ in range(20):
            opened = stack.enter_context(socket.create_connection((HOST, server.port), 20))
            opened.sendall(head(server, JSON | key | length, path) + b"a" * size)
        assert server.ask("GET", "/healthz").status_code == 200
        assert server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key).status_code == 202


@pytest.mark.parametrize("path", [f"{URL}/batch", "/api/v2/events", "/login/"])
def test_bodies_beyond_what_is_read_at_once_are_refused(
    server: LiveServer, key: dict[str, str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(asgi, "MAX_READ_UNKNOWN_KEY_BYTES", 1000)
    body = json.dumps(BODY).encode()
    server.ask("POST", URL, body, JSON | key)
    length = {"Content-Length": "5000", "Authorization": "Bearer whapi_no"}
    answer = raw(server, head(server, JSON | length, path) + b"a" * 2000, b"a")
    top, _, content = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 5" in top
    if path != "/login/":
        assert json.loads(content)["error"]["code"] == "unavailable"
    # A rejected body no longer counts, and anonymous requests leave room for others.
    assert server.ask("POST", URL, body, JSON | key).status_code == 202
    assert server.ask("POST", path, b"a" * 900, JSON).status_code in {401, 403, 404}


def test_who_leaves_amid_answers_keeps_no_thread(server: LiveServer) -> None:
    request = f"GET /login/ HTTP/1.1\r\nHost: {HOST}:{server.port}\r\n\r\n".encode()
    for _ in range(40):
        with socket.create_connection((HOST, server.port), 20) as opened:
            opened.sendall(request * 2)
            opened.recv(100)
            # Close with a reset.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.ask("GET", "/login/").status_code == 200


def test_a_machine_without_a_thread_left_notifies_after_the_next_event(
    server: LiveServer, key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, has_none, followed = threading.Thread.start, threading.Event(), threading.Event()

    def start_unless_full(self: threading.Thread) -> None:
        if self.name.startswith("after-events") and not has_none.is_set():
            has_none.set()
            raise RuntimeError("can't start new thread")
        start(self)

    def follow_up(*_: object, **__: object) -> None:
        if threading.current_thread().name.startswith("after-events"):
            followed.set()

    monkeypatch.setattr(threading.Thread, "start", start_unless_full)
    monkeypatch.setattr("webhooks.api.events.follow_up", follow_up)

    def is_followed() -> bool:
        answer = server.ask("POST", URL, json.dumps(BODY).encode(), JSON | key)
        assert answer.status_code == 202
        return followed.wait(0.1)

    eventually(is_followed)
    assert has_none.is_set()
