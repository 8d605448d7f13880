"""Concurrent requests share a transaction, and one event's failure does not affect the others."""

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from tests.api.clients import LiveServer
from tests.polling import eventually
from webhooks import events as public
from webhooks.catalogue import phones
from webhooks.delivery import fan_out, queue
from webhooks.delivery.group_commit import AsyncGroupCommit, GroupCommit
from webhooks.models import ApiKey, Delivery, Event, Webhook

# The trigger waits, raises or ends its connection, to simulate a slow disk, a bug or a failover.
_TRIGGER = """
CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0 AS $$
BEGIN
  IF NEW.call_id = 'waits' THEN PERFORM pg_advisory_xact_lock(1); END IF;
  IF NEW.call_id = 'poison' THEN RAISE EXCEPTION 'poisoned'; END IF;
  IF NEW.call_id = 'lost' THEN PERFORM pg_terminate_backend(pg_backend_pid()), pg_sleep(5); END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER disturb BEFORE INSERT ON webhooks_event
FOR EACH ROW EXECUTE FUNCTION disturb()
"""
# pg_locks covers every database, and other tests of this file may run in theirs.
# pg_stat_activity would keep the snapshot of its first read in a transaction.
_LOCKS = (
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN (SELECT pid FROM pg_locks JOIN "
    "pg_database ON oid = database WHERE datname = current_database()) AND locktype = "
)
_WAITING = f"{_LOCKS} 'advisory'"
_BLOCKED = f"{_LOCKS} 'transactionid'"
Post = Callable[..., "Future[Any]"]


@pytest.fixture(params=["threads", "loop"])
def transport(request: pytest.FixtureRequest) -> Iterator[LiveServer | None]:
    """A server with an event loop, or None for threads of this process."""
    if request.param == "threads":
        yield None
        return
    with LiveServer() as server:
        yield server


@pytest.fixture
def post(transport: LiveServer | None) -> Iterator[Post]:
    """Return a function that posts an event without waiting for its response."""
    key = ApiKey.objects.issue("CRM")[1]

    def send(call_id: str, idempotency_key: str | None, language: str) -> Any:
        body = {"type": "form.submitted", "payload": {"call_id": call_id}}
        content = json.dumps(body | {"idempotency_key": idempotency_key})
        headers = {"Authorization": f"Bearer {key}", "Accept-Language": language}
        if transport:
            headers["Content-Type"] = "application/json"
            return transport.ask("POST", "/api/v1/events", content.encode(), headers)
        try:
            return Client(raise_request_exception=False).post(
                "/api/v1/events", content, content_type="application/json", headers=headers
            )
        finally:
            connections.close_all()

    with ThreadPoolExecutor(16) as threads:
        yield lambda call_id, key=None, language="en": threads.submit(send, call_id, key, language)


@pytest.fixture
def other_connection() -> Iterator["psycopg.Connection[Any]"]:
    """A connection outside the test's own, with the trigger installed."""
    with psycopg.connect(**connection.get_connection_params()) as opened:
        opened.autocommit = True
        opened.execute(_TRIGGER)
        yield opened
        opened.execute("DROP FUNCTION disturb() CASCADE")


@contextmanager
def blocked_commit(other_connection: "psycopg.Connection[Any]", post: Post) -> Iterator[None]:
    """Keep a first event in its commit, so that events posted inside form the next group."""
    # Afterwards the API key and the webhooks of the type are cached.
    known = post("known").result()
    assert known.status_code == 202
    Event.objects.filter(call_id="known").delete()
    Delivery.objects.filter(event_id=known.json()["event_id"]).delete()
    other_connection.execute("SELECT pg_advisory_lock(1)")
    try:
        first = post("waits")
        eventually(lambda: other_connection.execute(_WAITING).fetchone() == (1,))
        yield
    finally:
        other_connection.execute("SELECT pg_advisory_unlock(1)")
    assert first.result().status_code == 202


def queued(count: int, transport: LiveServer | None) -> None:
    """Wait until more than `count` threads or tasks wait for the first event's commit."""
    eventually(
        lambda: (_waiting_tasks(transport.loop) if transport else _waiting_threads()) > count
    )


def _waiting_threads() -> int:
    code = GroupCommit.submit.__code__
    stacks = [traceback.walk_stack(frame) for frame in sys._current_frames().values()]
    return sum(any(frame.f_code is code for frame, _ in stack) for stack in stacks)


def _waiting_tasks(loop: asyncio.AbstractEventLoop) -> int:
    code = AsyncGroupCommit.submit.__code__
    return sum(code in _codes(task.get_coro()) for task in asyncio.all_tasks(loop))


def _codes(coroutine: Any) -> list[Any]:
    """Return the code objects of a coroutine and of everything it awaits."""
    codes = []
    while hasattr(coroutine, "cr_code"):
        codes.append(coroutine.cr_code)
        coroutine = coroutine.cr_await
    return codes


def groups() -> int:
    """Return the number of transactions that inserted the events."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT xmin::text) FROM webhooks_event")
        return int(cursor.fetchone()[0])


def make_webhook() -> Webhook:
    return Webhook.objects.create(name="A", url="https://a.example/", event_types=["form.*"])


pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database("postgres")]


def test_requests_that_come_together_share_a_transaction(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    make_webhook()
    with blocked_commit(other_connection, post):
        sent = [post("a", f"key-{number}" if number % 2 else None) for number in range(6)]
        queued(6, transport)
    assert {one.result().status_code for one in sent} == {202}
    assert {one.result().json()["deliveries"] for one in sent} == {1}
    assert (Event.objects.count(), Delivery.objects.count(), groups()) == (7, 7, 2)


def test_a_role_that_writes_moments_in_another_style_is_understood(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    name = connection.settings_dict["NAME"]
    other_connection.execute(f"ALTER DATABASE {name} SET DateStyle = 'German'")
    try:
        connection.close()
        assert post("a", "key").result().status_code == 202
        # Read from the stored row.
        assert post("a", "key").result().json()["duplicate"]
        assert Event.objects.get().created_at
    finally:
        other_connection.execute(f"ALTER DATABASE {name} RESET DateStyle")


def test_a_version_that_was_lost_is_back_after_the_next_change(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    other_connection.execute("DELETE FROM webhooks_subscriptions")
    assert post("a").result().status_code == 202
    make_webhook()
    with blocked_commit(other_connection, post):
        sent = [post("a") for _ in range(3)]
        queued(3, transport)
    assert {one.result().json()["deliveries"] for one in sent} == {1}
    assert (Event.objects.count(), groups()) == (5, 3)


def test_a_poisoned_event_fails_alone(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    with blocked_commit(other_connection, post):
        poisoned = post("poison")
        queued(1, transport)
        sent = [post("a") for _ in range(4)]
        queued(5, transport)
    assert poisoned.result().status_code >= 500
    assert {one.result().status_code for one in sent} == {202}
    assert not Event.objects.filter(call_id="poison").exists()
    assert Event.objects.count() == 5


def test_an_error_of_ours_fails_its_event_alone(
    other_connection: Any, post: Post, transport: LiveServer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers_of = phones.numbers_of

    def fail(payload: Mapping[str, object]) -> phones.PhoneNumbers:
        return numbers_of({"dst": 1 // (payload["call_id"] != "odd")})

    monkeypatch.setattr(phones, "numbers_of", fail)
    with blocked_commit(other_connection, post):
        sent = [post("a" if number else "odd") for number in range(4)]
        queued(4, transport)
    assert [one.result().status_code for one in sent] == [500, 202, 202, 202]
    assert Event.objects.count() == 4


def test_a_refusal_is_in_the_language_of_its_client(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    alone = post("\ud800", language="uk").result()
    assert alone.status_code == 422
    with blocked_commit(other_connection, post):
        accepted = post("a")
        queued(1, transport)
        refused = post("\ud800", language="uk")
        queued(2, transport)
    assert refused.result().json() == alone.json()
    assert accepted.result().status_code == 202


def test_a_key_that_another_transaction_writes_holds_up_no_other_event(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    with blocked_commit(other_connection, post):
        taken = post("a", "taken")
        queued(1, transport)
        sent = [post("a", f"key-{number}") for number in range(3)]
        queued(4, transport)
        other_connection.execute("BEGIN")
        other_connection.execute(
            "INSERT INTO webhooks_event (id, type, payload, occurred_at, filtered_count, "
            "idempotency_key, fingerprint, source, call_id, created_at) "
            "VALUES ('evt_1', 'form.submitted', '{}', now(), 0, 'taken', '', '', '', now())"
        )
        other_connection.execute("INSERT INTO webhooks_idempotencykey VALUES ('taken', 'evt_1')")
    try:
        assert {one.result().status_code for one in sent} == {202}
        assert not taken.done()
    finally:
        other_connection.execute("COMMIT")
    # The stored event has different content.
    assert taken.result().json()["error"]["code"] == "key_reused"


def test_a_database_lost_amid_a_group_is_a_503_and_leaves_nothing(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    make_webhook()
    with blocked_commit(other_connection, post):
        sent = [post("lost" if number == 1 else "a") for number in range(3)]
        queued(3, transport)
    for one in sent:
        assert one.result().status_code == 503
        assert one.result()["Retry-After"]
    assert (Event.objects.count(), Delivery.objects.count()) == (1, 1)
    # The lost connection must not be reused.
    assert post("a").result().status_code == 202


def end_connection(other_connection: "psycopg.Connection[Any]") -> None:
    """End this thread's connection on the server, as a restart does."""
    connection.ensure_connection()
    pid = connection.connection.info.backend_pid
    # Until the process has ended: only then is its socket closed.
    other_connection.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])


def test_a_connection_that_the_server_ended_is_not_asked_for_anything(
    other_connection: Any,
) -> None:
    public.publish("form.submitted", {})
    end_connection(other_connection)
    # Nothing is cached for this type yet.
    public.publish("deal.created", {})
    assert Event.objects.count() == 2


def test_a_connection_that_was_found_broken_is_replaced(other_connection: Any) -> None:
    public.publish("form.submitted", {})
    end_connection(other_connection)
    with pytest.raises(OperationalError):
        Event.objects.count()
    public.publish("form.submitted", {})
    assert Event.objects.count() == 2


def test_a_rollback_ends_no_statement_of_ours_where_psycopg_prepares_its_own() -> None:
    connection.close()
    connection.ensure_connection()
    # OPTIONS in DATABASES can set this.
    connection.connection.prepare_threshold = 0
    try:
        assert queue.backend().subscriptions_version() >= 0
        public.publish("form.submitted", {})
        with transaction.atomic():
            assert Event.objects.count() == 1
            transaction.set_rollback(True)
        public.publish("form.submitted", {})
        assert Event.objects.count() == 2
    finally:
        connection.close()


def test_the_lock_timeout_of_a_transaction_stays() -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '1234ms'")
        fan_out.accept_at_once([fan_out.NewEvent("form.submitted", {})])
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("1234ms",)


def test_a_batch_without_a_right_event_is_answered_by_a_process_that_knows_nothing_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fan_out, "REMEMBERED_SECONDS", 0.0)
    [error] = public.publish_each([public.NewEvent("no.such", {})])
    assert isinstance(error, public.InvalidEventError)
    assert error.code == "unknown_type"


KEY = "INSERT INTO webhooks_idempotencykey VALUES (%s, %s)"


def test_events_take_their_keys_in_one_order_so_that_no_two_publishers_wait_for_each_other(
    other_connection: Any,
) -> None:
    other_connection.execute("BEGIN")
    other_connection.execute(KEY, ["a", "evt_1"])
    given = [public.NewEvent("form.submitted", {}, idempotency_key=key) for key in "ba"]

    def publish() -> None:
        try:
            public.publish_many(given)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as threads:
        try:
            published = threads.submit(publish)
            eventually(lambda: other_connection.execute(_BLOCKED).fetchone() == (1,))
            other_connection.execute("SET LOCAL lock_timeout = '1s'")
            # It would block if publishing had taken the keys in the order given.
            other_connection.execute(KEY, ["b", "evt_1"])
        finally:
            other_connection.execute("ROLLBACK")
        published.result()
    assert Event.objects.count() == 2


@pytest.mark.parametrize("is_batch", [False, True])
def test_a_key_that_is_held_for_long_makes_a_503(
    other_connection: Any, monkeypatch: pytest.MonkeyPatch, is_batch: bool
) -> None:
    monkeypatch.setattr(public, "LOCK_TIMEOUT_ALONE_MS", 100)
    other_connection.execute("BEGIN")
    other_connection.execute(KEY, ["taken", "evt_1"])
    plain = ApiKey.objects.issue("CRM")[1]
    body = {"type": "form.submitted", "payload": {}, "idempotency_key": "taken"}
    try:
        answer = Client().post(
            "/api/v1/events/batch" if is_batch else "/api/v1/events",
            json.dumps([body] if is_batch else body),
            content_type="application/json",
            headers={"Authorization": f"Bearer {plain}"},
        )
    finally:
        other_connection.execute("ROLLBACK")
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")


def test_a_key_that_is_waited_for_holds_up_nothing_more(
    other_connection: Any, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert post("a").result().status_code == 202
    other_connection.execute("BEGIN")
    other_connection.execute(KEY, ["taken", "evt_1"])
    try:
        waiting = post("a", "taken")
        eventually(lambda: public.published_alone == ["taken"])
        monkeypatch.setattr(public, "LOCK_TIMEOUT_ALONE_MS", 600_000)
        assert post("a", "taken").result(60).status_code == 503
        monkeypatch.setattr(public, "LOCK_TIMEOUT_MS", 600_000)
        again = post("a", "taken")
        eventually(lambda: other_connection.execute(_BLOCKED).fetchone() == (2,))
        assert post("a").result(60).status_code == 202
    finally:
        other_connection.execute("ROLLBACK")
    answers = [one.result().json()["duplicate"] for one in (waiting, again)]
    assert sorted(answers) == [False, True]


def test_what_is_inserted_at_once_ends_with_the_transaction_around_it() -> None:
    with transaction.atomic():
        [published] = fan_out.accept_at_once([fan_out.NewEvent("form.submitted", {})])
        assert Event.objects.get().id == published.event_id  # type: ignore[union-attr]
        transaction.set_rollback(True)
    assert not Event.objects.exists()


def test_the_same_key_at_once_is_one_event(
    other_connection: Any, post: Post, transport: LiveServer | None
) -> None:
    with blocked_commit(other_connection, post):
        sent = [post("a", "same") for _ in range(4)]
        queued(4, transport)
    answers = [one.result().json() for one in sent]
    assert len({answer["event_id"] for answer in answers}) == 1
    assert sorted(answer["duplicate"] for answer in answers) == [False, True, True, True]
    assert Event.objects.count() == 2


@pytest.mark.parametrize(
    ("change", "deliveries"),
    [
        ("UPDATE webhooks_webhook SET event_types = '[\"deal.created\"]'", 0),
        ("UPDATE webhooks_webhook SET deleted_at = now()", 0),
        ('UPDATE webhooks_webhook SET filter = \'{"variable":"name","operator":"exists"}\'', 0),
        ("UPDATE webhooks_webhook SET is_active = false, pause_reason = 'person'", 1),
    ],
)
def test_what_another_process_changes_is_seen_by_the_next_event(
    other_connection: Any, post: Post, change: str, deliveries: int
) -> None:
    make_webhook()
    assert post("a").result().json()["deliveries"] == 1
    other_connection.execute(change)
    assert post("a").result().json()["deliveries"] == deliveries
    last = Delivery.objects.order_by("-id").first()
    assert last is not None
    assert last.status == ("held" if "is_active" in change else "pending")


def replace_all() -> None:
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE webhooks_webhook CASCADE")
    assert public.publish("form.submitted", {}).deliveries == 0
    make_webhook()
    make_webhook()


_CHANGES: list[tuple[Callable[[], object], int]] = [
    (make_webhook, 2),
    (replace_all, 2),
    (lambda: Webhook.objects.update(event_types=["deal.created"]), 0),
    (lambda: Webhook.objects.all().delete(), 0),
]


@pytest.mark.parametrize(
    ("change", "deliveries"), _CHANGES, ids=["made", "replaced", "updated", "deleted"]
)
@pytest.mark.parametrize("is_kept", [True, False], ids=["committed", "rolled back"])
def test_what_a_transaction_changes_is_seen_by_its_own_events_and_by_no_others(
    change: Callable[[], object], deliveries: int, is_kept: bool
) -> None:
    items = [public.NewEvent("form.submitted", {}) for _ in range(2)]

    def published() -> list[int]:
        return [one.deliveries for one in public.publish_many(items)]

    make_webhook()
    assert published() == [1, 1]
    with transaction.atomic():
        change()
        assert published() == published() == [deliveries, deliveries]
        transaction.set_rollback(not is_kept)
    with transaction.atomic():
        make_webhook()
        now = deliveries if is_kept else 1
        assert published() == [now + 1, now + 1]
        transaction.set_rollback(True)
    assert published() == [now, now]


def test_a_transaction_that_wrote_something_else_asks_for_no_webhooks() -> None:
    make_webhook()
    # The server counts the changes of a session some seconds after they were made.
    connection.close()
    public.publish("form.submitted", {})
    with transaction.atomic():
        ApiKey.objects.issue("CRM")
        with CaptureQueriesContext(connection) as asked:
            published = public.publish_many([public.NewEvent("form.submitted", {})] * 2)
    assert [one.deliveries for one in published] == [1, 1]
    assert not [query for query in asked.captured_queries if "webhooks_webhook" in query["sql"]]


def test_a_transaction_that_must_roll_back_accepts_no_event() -> None:
    public.publish("form.submitted", {})
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(transaction.TransactionManagementError):
            public.publish("form.submitted", {})


def test_an_error_of_a_batch_is_raised_before_anything_is_inserted() -> None:
    public.publish("form.submitted", {})
    items = [public.NewEvent("form.submitted", payload) for payload in ({}, {"x": object()})]
    with transaction.atomic(), connection.cursor() as cursor:
        with pytest.raises(public.InvalidEventError):
            public.publish_many(items)
        cursor.execute("SELECT pg_current_xact_id_if_assigned()")
        assert cursor.fetchone() == (None,)


def test_a_wait_for_a_key_can_be_interrupted(other_connection: Any) -> None:
    other_connection.execute("BEGIN")
    other_connection.execute(KEY, ["taken", "evt_other"])

    def interrupt() -> None:
        eventually(lambda: other_connection.execute(_BLOCKED).fetchone() == (1,))
        os.kill(os.getpid(), signal.SIGUSR1)

    # Not SIGINT, which a process in the background of a shell ignores.
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '60s'")
            with pytest.raises(KeyboardInterrupt):
                public.publish("form.submitted", {}, idempotency_key="taken")
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
        other_connection.execute("ROLLBACK")
    assert public.publish("form.submitted", {}, idempotency_key="taken").is_duplicate is False


def test_a_commit_that_fails_after_its_rows_came_is_an_error_of_the_database(
    other_connection: Any,
) -> None:
    other_connection.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not this one'; END $$; "
        "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON webhooks_idempotencykey "
        "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail()"
    )
    try:
        with pytest.raises(DatabaseError, match="not this one"):
            public.publish("form.submitted", {}, idempotency_key="k")
    finally:
        other_connection.execute("DROP FUNCTION fail() CASCADE")
    assert not Event.objects.exists()
    assert public.publish("form.submitted", {}, idempotency_key="k").is_duplicate is False


def test_a_failed_publish_leaves_its_transaction_usable() -> None:
    with transaction.atomic():
        ApiKey.objects.issue("CRM")
        item = public.NewEvent("form.submitted", {}, "k")
        with pytest.raises(public.InvalidEventError):
            public.publish_many([item, item._replace(payload={"name": "Ann"})])
        assert not Event.objects.exists()
        assert public.publish("form.submitted", {}, idempotency_key="k").is_duplicate is False
    assert (Event.objects.count(), ApiKey.objects.count()) == (1, 1)


def test_a_webhook_that_is_made_is_seen_by_the_next_event(post: Post) -> None:
    assert post("a").result().json()["deliveries"] == 0
    make_webhook()
    assert post("a").result().json()["deliveries"] == 1


@pytest.mark.parametrize("text", ['a"b', "a\\b", "{a,b}", "NULL", "ї’🙂", " a ", "\\x41", "'; --"])
def test_any_text_is_stored_as_it_is(post: Post, text: str) -> None:
    assert post(text, text).result().status_code == 202
    event = Event.objects.get()
    assert (event.call_id, event.idempotency_key) == (text, text)
    assert json.loads(bytes(event.payload))["call_id"] == text
