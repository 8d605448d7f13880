"""What the engine holds, and what the sweep releases, cancels or leaves held for a reason."""

import math
import re
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection as database
from django.db import transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.bench import history
from tests.factories import deliver_all, make_delivery, make_webhook, run_engine
from tests.sandbox import Receiver
from tests.ui.connections.test_race import in_thread
from tests.ui.connections.test_views import make_connection, make_oauth_connection
from webhooks import events, tasks
from webhooks.delivery import holds, maintenance, queue, retention
from webhooks.delivery.engine import Engine
from webhooks.delivery.maintenance import PendingHolds
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import (
    Credential,
    Delivery,
    HoldReason,
    OAuthToken,
    Status,
    TokenState,
    Webhook,
    WebhookState,
)

pytestmark = pytest.mark.django_db

UNREADABLE = {"variable": "disposition", "operator": "no such"}
OAUTH = {"authorization_type": "oauth2", "client_id": "client", "token_url": "http://127.0.0.1:9/t"}


def held(webhook: Webhook, reason: HoldReason) -> Delivery:
    delivery = make_delivery(webhook)
    Delivery.objects.filter(pk=delivery.pk).update(
        status=Status.HELD, hold_reason=reason, next_attempt_at=None
    )
    delivery.refresh_from_db()
    return delivery


def status_of(delivery: Delivery) -> str:
    delivery.refresh_from_db()
    return delivery.status


def give_token(credential: Credential, state: str = TokenState.VALID, **fields: Any) -> None:
    values = {"access_token": "a-token", **fields}
    OAuthToken.objects.create(credential=credential, state=state, **values)


def own_oauth(**fields: Any) -> Webhook:
    return make_webhook(**{**OAUTH, **fields})


@pytest.mark.parametrize("reason", HoldReason.values)
def test_whatever_is_held_at_a_webhook_that_needs_nothing_is_released(reason: str) -> None:
    delivery = held(make_webhook(), HoldReason(reason))
    assert holds.release_overlooked() == 1
    assert (status_of(delivery), delivery.hold_reason) == (Status.PENDING, "")
    assert delivery.next_attempt_at is not None


@pytest.mark.parametrize("how", ["paused", "deleted"])
def test_what_is_held_at_a_webhook_that_does_not_send_stays(how: str) -> None:
    webhook = make_webhook()
    delivery = held(webhook, HoldReason.PAUSED)
    if how == "paused":
        events.pause(webhook)
    else:
        Webhook.objects.filter(pk=webhook.pk).update(deleted_at="2026-01-01T00:00Z")
    assert holds.release_overlooked() == 0
    assert status_of(delivery) == Status.HELD


@pytest.mark.parametrize(
    ("state", "is_released"),
    [
        (TokenState.VALID, True),
        (TokenState.EXPIRING, True),
        (TokenState.NEEDS_REAUTHORIZATION, False),
        (TokenState.MISCONFIGURED, False),
        (None, False),
    ],
)
@pytest.mark.parametrize("is_shared", [False, True])
def test_what_waits_for_a_token_goes_when_there_is_one(
    state: str | None, is_shared: bool, *, is_released: bool
) -> None:
    webhook = make_webhook(credential=make_oauth_connection()) if is_shared else own_oauth()
    if state:
        give_token(webhook.credential, state)
    delivery = held(webhook, HoldReason.REAUTHORIZATION)
    assert holds.release_overlooked() == is_released
    assert status_of(delivery) == (Status.PENDING if is_released else Status.HELD)


def test_a_state_without_a_token_is_no_token() -> None:
    webhook = make_webhook(**OAUTH)
    give_token(webhook.credential, access_token="")
    held(webhook, HoldReason.NO_TOKEN)
    assert holds.release_overlooked() == 0


def test_the_first_token_of_client_credentials_waits_for_no_one() -> None:
    webhook = make_webhook(**OAUTH, grant_type="client_credentials")
    held(webhook, HoldReason.NO_TOKEN)
    assert holds.release_overlooked() == 1


@pytest.mark.parametrize("kind", [make_connection, make_oauth_connection])
def test_what_may_not_be_sent_to_its_host_goes_neither_to_nor_fro(kind: Any) -> None:
    connection = kind(allowed_hosts=["crm.example.com"])
    if connection.authorization_type == "oauth2":
        give_token(connection)
    webhook = make_webhook(credential=connection)
    delivery = held(webhook, HoldReason.MISCONFIGURED)
    assert holds.release_overlooked() == 0
    Credential.objects.filter(pk=connection.pk).update(
        allowed_hosts=["http://127.0.0.1:9"],
        secret_origins={"basic_password": ["http://127.0.0.1:9"]},
    )
    assert holds.release_overlooked() == 1
    assert status_of(delivery) == Status.PENDING


def test_what_waits_for_a_readable_filter_stays_and_the_rest_goes() -> None:
    webhook = make_webhook()
    unjudged, paused = held(webhook, HoldReason.MISCONFIGURED), held(webhook, HoldReason.PAUSED)
    Webhook.objects.filter(pk=webhook.pk).update(filter=UNREADABLE)
    assert holds.release_overlooked() == 1
    assert (status_of(unjudged), status_of(paused)) == (Status.HELD, Status.PENDING)
    assert events.release_held(webhook.credential) == 0
    Webhook.objects.filter(pk=webhook.pk).update(filter={})
    assert holds.release_overlooked() == 1
    assert status_of(unjudged) == Status.PENDING


def test_one_look_releases_only_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "BATCH", 2)
    monkeypatch.setattr(holds, "ROWS_AT_A_LOOK", 5)
    webhooks = [make_webhook(name=name) for name in ("One", "Two")]
    for _ in range(4):
        make_delivery(webhooks[0])
    Delivery.objects.update(status=Status.HELD, hold_reason="paused", next_attempt_at=None)
    assert [holds.release_overlooked() for _ in range(3)] == [5, 3, 0]


@pytest.mark.parametrize("is_released", [True, False])
def test_a_look_moves_rows_of_each_webhook(
    monkeypatch: pytest.MonkeyPatch, is_released: bool
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_A_LOOK", 6)
    webhooks = [make_webhook(name=name) for name in ("One", "Two")]
    for _ in range(10):
        make_delivery(webhooks[0])
    if is_released:
        Delivery.objects.update(status=Status.HELD, hold_reason="paused", next_attempt_at=None)
        assert holds.release_overlooked() == 6
    else:
        Webhook.objects.update(is_active=False, pause_reason="person")
        assert holds.stop_overlooked() == 6
    moved = Status.PENDING if is_released else Status.HELD
    counts = [Delivery.objects.filter(webhook=one, status=moved).count() for one in webhooks]
    assert counts == [3, 3]


def test_two_sweeps_may_come_to_the_end_of_a_drop_at_once() -> None:
    webhook = make_webhook()
    WebhookState.objects.create(webhook=webhook)
    assert holds.cancel_paused(webhook.pk, 3) == 0


def test_the_sweep_releases_and_notifies(monkeypatch: pytest.MonkeyPatch) -> None:
    notified: list[str] = []
    monkeypatch.setattr(tasks, "notify", lambda: notified.append("notify"))
    tasks.sweep()
    assert notified == ["notify"]
    delivery = held(make_webhook(), HoldReason.PAUSED)
    tasks.sweep()
    assert (notified, status_of(delivery)) == (["notify"] * 3, Status.PENDING)


def test_nothing_held_costs_one_statement(django_assert_num_queries: Any) -> None:
    make_delivery(make_webhook())
    with django_assert_num_queries(1):
        assert holds.release_overlooked() == 0


# On SQLite the resume waits for the commit, and then finds the row.
@pytest.mark.database("postgres")
@pytest.mark.django_db(transaction=True)
def test_an_event_committed_after_a_resume_is_not_held_for_ever() -> None:
    webhook = make_webhook()
    events.pause(webhook)
    may_commit, is_published = threading.Event(), threading.Event()

    def publish() -> None:
        with transaction.atomic():
            events.publish("call.incoming.after", {})
            is_published.set()
            assert may_commit.wait(10)

    thread = in_thread(publish)
    assert is_published.wait(10)
    assert events.resume(webhook) == 0
    may_commit.set()
    thread.join()
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.hold_reason) == (Status.HELD, HoldReason.PAUSED)
    assert holds.release_overlooked() == 1


@pytest.mark.django_db(transaction=True)
def test_what_still_cannot_go_is_held_again_once() -> None:
    connection = make_connection(allowed_hosts=["crm.example.com"])
    delivery = held(make_webhook(credential=connection), HoldReason.MISCONFIGURED)
    assert events.release_held(connection) == 1
    deliver_all()
    assert (status_of(delivery), delivery.hold_reason) == (Status.HELD, HoldReason.MISCONFIGURED)
    assert holds.release_overlooked() == 0


@pytest.mark.database("postgres")
@pytest.mark.django_db(transaction=True)
def test_a_large_log_is_not_scanned() -> None:
    webhooks = [make_webhook(name=f"Webhook {number}", **OAUTH) for number in range(20)]
    history.make_partitions()
    with database.cursor() as cursor:
        for _ in history.fill(cursor.connection, [one.pk for one in webhooks], 100_000):
            pass
        # Half of the webhooks have a backlog that waits for tokens, the others have none.
        cursor.execute(
            "UPDATE webhooks_delivery SET status = 'held', hold_reason = 'reauthorization', "
            "next_attempt_at = NULL, finished_at = NULL WHERE webhook_id % 2 = 0"
        )
        history.settle(cursor.connection)
    # Not the first webhooks, which have more rows than are released at a time.
    with_tokens = webhooks[10:12]
    for webhook in with_tokens:
        give_token(webhook.credential)
    expected = Delivery.objects.filter(webhook__in=with_tokens, status=Status.HELD).count()
    assert expected
    with CaptureQueriesContext(database) as queries:
        assert holds.release_overlooked() == expected
        assert retention.close_deliveries_of_deleted_webhooks(timezone.now()) == 0
    reads = [query["sql"] for query in queries if query["sql"].lstrip().startswith(("SEL", "WITH"))]
    plans = [plan_of(sql) for sql in reads if "webhooks_delivery" in sql]
    assert plans
    assert [plan for plan in plans if history.has_scan(plan)] == []
    assert "webhook_id_id_idx" in plans[0]


def plan_of(sql: str) -> str:
    with database.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        return "\n".join(row[0] for row in cursor.fetchall())


@pytest.mark.database("sqlite")
def test_the_look_goes_through_the_index_of_what_is_held() -> None:
    with database.cursor() as cursor:
        cursor.execute("EXPLAIN QUERY PLAN " + holds.WITH_ROWS.format(status="held"))
        steps = [row[3] for row in cursor.fetchall()]
    reads = [step for step in steps if "webhooks_delivery" in step or " d " in f"{step} "]
    assert reads
    assert [step for step in reads if "delivery_held" not in step] == []


def held_of(webhook: Webhook) -> int:
    return Delivery.objects.filter(webhook=webhook, status=Status.HELD).count()


def test_a_pause_holds_the_first_rows_and_the_sweep_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    webhook, other = make_webhook(), make_webhook(name="Other")
    for _ in range(8):
        make_delivery(webhook)
    # Retries that are due much later.
    Delivery.objects.update(next_attempt_at=timezone.now() + timedelta(hours=5))
    events.pause(webhook)
    assert held_of(webhook) == 3
    tasks.sweep()
    assert held_of(webhook) == 8
    assert held_of(other) == 0


def test_a_deletion_cancels_the_first_rows_and_the_sweep_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook()
    for _ in range(8):
        make_delivery(webhook)
    events.pause(webhook)
    for _ in range(2):
        make_delivery(webhook)
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    events.delete(webhook)
    cancelled = Delivery.objects.filter(status=Status.CANCELLED)
    assert cancelled.count() == 3
    tasks.sweep()
    assert cancelled.count() == 10


def test_a_resume_releases_the_first_rows_and_the_sweep_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    webhook = make_webhook()
    events.pause(webhook)
    for _ in range(8):
        make_delivery(webhook)
    assert events.resume(webhook) == 3
    assert held_of(webhook) == 5
    tasks.sweep()
    assert held_of(webhook) == 0


def test_a_new_token_releases_the_first_rows_and_the_sweep_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    webhook = own_oauth()
    for _ in range(8):
        held(webhook, HoldReason.REAUTHORIZATION)
    give_token(webhook.credential)
    assert events.release_held(webhook.credential) == 3
    assert held_of(webhook) == 5
    tasks.sweep()
    assert held_of(webhook) == 0


def test_a_resume_drops_the_first_rows_and_the_sweep_the_rest(
    monkeypatch: pytest.MonkeyPatch, admin_client: Client
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    webhook = make_webhook()
    events.pause(webhook)
    for _ in range(8):
        make_delivery(webhook)
    # SQLite's clock has milliseconds, and a row of the same one would count as later.
    time.sleep(0.002)
    assert events.resume(webhook, cancels_held=True) == 3
    page = admin_client.get(reverse("webhooks:detail", args=[webhook.pk])).content.decode()
    assert "Cancelling deliveries: 5 left." in page
    tasks.sweep()
    assert Delivery.objects.filter(status=Status.CANCELLED).count() == 8
    # Deliveries held by a later pause stay held.
    events.pause(webhook)
    late = held(webhook, HoldReason.PAUSED)
    tasks.sweep()
    assert status_of(late) == Status.HELD


@pytest.mark.django_db(transaction=True)
def test_a_resume_drops_what_its_pause_did_not_hold_yet(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, admin_client: Client
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    for _ in range(12):
        make_delivery(webhook)
    events.pause(webhook)
    assert events.resume(webhook, cancels_held=True) == 3
    late = make_delivery(webhook)
    page = admin_client.get(reverse("webhooks:detail", args=[webhook.pk])).content.decode()
    assert "Cancelling deliveries: 10 left." in page
    assert "New events are sent after that." in page
    deliver_all()
    assert receiver.requests() == []
    tasks.sweep()
    deliver_all()
    assert Delivery.objects.filter(status=Status.CANCELLED).count() == 12
    assert status_of(late) == Status.SUCCEEDED
    assert len(receiver.requests()) == 1


def test_a_drop_that_is_through_keeps_no_later_rows_on_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    webhook = make_webhook()
    events.pause(webhook)
    make_delivery(webhook)
    assert events.resume(webhook, cancels_held=True) == 1
    events.pause(webhook)
    for _ in range(5):
        make_delivery(webhook)
    assert events.resume(webhook) == 3
    assert holds.release_overlooked() == 2


def test_what_a_resume_dropped_is_not_sent_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 3)
    webhook = make_webhook()
    events.pause(webhook)
    for _ in range(8):
        make_delivery(webhook)
    events.resume(webhook, cancels_held=True)
    events.pause(webhook)
    late = make_delivery(webhook)
    assert events.resume(webhook) == 1
    tasks.sweep()
    assert status_of(late) == Status.PENDING
    assert Delivery.objects.filter(status=Status.CANCELLED).count() == 8


@pytest.fixture
def engine() -> Engine:
    return Engine(ProcessWakeup(), lambda: False)


def hold_all(pending: PendingHolds, engine: Engine, *, all_at_once: bool = False) -> int:
    """Hold rows of every webhook; return how many are held then."""
    for pk in Webhook.objects.values_list("pk", flat=True):
        pending.add(pk, HoldReason.NO_TOKEN)
    pending.hold(engine.session, queue.backend(), all_at_once=all_at_once)
    return Delivery.objects.filter(status=Status.HELD).count()


def test_a_backlog_is_held_some_rows_at_a_time_with_a_pause_after_each(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it delays no others."""
    monkeypatch.setattr(maintenance, "HOLD_ROWS", 2)
    monkeypatch.setattr(maintenance, "HOLD_PAUSES", 1e9)
    monkeypatch.setattr(maintenance, "LONGEST_HOLD_PAUSE", 3600.0)
    webhook = make_webhook()
    for _ in range(7):
        make_delivery(webhook)
    pending = PendingHolds()
    assert hold_all(pending, engine) == 2
    assert hold_all(pending, engine) == 2
    assert 3000 < pending.look_at - time.monotonic() <= 3600
    # With very many webhooks, these may have their next turn much later.
    assert hold_all(pending, engine, all_at_once=True) == 4
    monkeypatch.setattr(maintenance, "LONGEST_HOLD_PAUSE", 0.0)
    another = PendingHolds()
    assert hold_all(another, engine) == 6
    assert another.takes_look(time.monotonic())
    assert not another.takes_look(time.monotonic())
    assert [hold_all(another, engine) for _ in range(2)] == [7, 7]
    assert another.look_at == math.inf


@pytest.mark.django_db(transaction=True)
def test_the_engine_looks_for_the_rest_of_a_backlog_to_hold(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it, scans would come less and less often."""
    settings.WEBHOOKS_POLL_SECONDS = 3600.0
    monkeypatch.setattr(maintenance, "HOLD_ROWS", 1)
    webhook = make_webhook(**OAUTH)
    for _ in range(15):
        make_delivery(webhook)
    held = Delivery.objects.filter(hold_reason=HoldReason.NO_TOKEN)
    with caplog.at_level("INFO", logger="webhooks.delivery.maintenance"):
        run_engine(lambda: held.count() == 15)
    logged = re.findall(rf"held rows=(\d+) first_webhook={webhook.pk} reason=no_token", caplog.text)
    assert sum(map(int, logged)) == 15
