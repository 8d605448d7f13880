"""Partitions of the log: made ahead, refusing no row, dropped without losing open rows."""

import datetime as dt
import importlib
import re
from collections.abc import Iterator

import psycopg
import pytest
from django.core.management import call_command
from django.db import connection
from django.db.backends.utils import CursorWrapper
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from tests.factories import deliver_all, make_delivery, make_webhook
from tests.sandbox import Receiver
from webhooks import events
from webhooks.delivery import retention
from webhooks.delivery.queue import partitions
from webhooks.models import (
    Attempt,
    Delivery,
    Event,
    IdempotencyKey,
    Status,
    Webhook,
    ids,
)

pytestmark = [pytest.mark.database("postgres"), pytest.mark.django_db]

WEEK = dt.timedelta(hours=168)
LONG_AGO = timezone.now() - dt.timedelta(days=60)
TABLES = (partitions.EVENT, partitions.DELIVERY, partitions.ATTEMPT)


@pytest.fixture(autouse=True)
def _vacuum_gives_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for locks long enough (over 1 s) that an autovacuum holding one is cancelled."""
    if "other" not in request.fixturenames:
        monkeypatch.setattr(partitions, "LOCK_TIMEOUT_MS", 30_000)


@pytest.fixture
def old_partitions() -> None:
    """Make partitions older than every retention limit."""
    assert partitions.make(LONG_AGO, LONG_AGO) == 2


def make_old_delivery(
    webhook: Webhook, status: Status = Status.SUCCEEDED, *, at: dt.datetime = LONG_AGO
) -> str:
    """Make an event, a delivery and an attempt whose ids carry another time."""
    made = make_delivery(webhook)
    event_id, delivery_id = (
        ids.floor(prefix, at.timestamp())[:-8] + before[-8:]
        for prefix, before in (("evt", made.event_id), ("dlv", made.pk))
    )
    Event.objects.filter(pk=made.event_id).update(id=event_id, idempotency_key=event_id)
    IdempotencyKey.objects.create(key=event_id, event_id=event_id)
    due_at = timezone.now() if status in (Status.PENDING, Status.SENDING) else None
    Delivery.objects.filter(pk=made.pk).update(
        id=delivery_id, event=event_id, status=status, next_attempt_at=due_at
    )
    Attempt.objects.create(
        delivery_id=delivery_id, number=1, started_at=at, request_line="", outcome="timeout"
    )
    return delivery_id


def partition_of(table: str, key: str) -> str:
    """Return the partition that holds a row."""
    column = "delivery_id" if table == partitions.ATTEMPT else "id"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass::text FROM {table} WHERE {column} = %s", [key])
        return str(cursor.fetchone()[0])


def is_old_one(partition: partitions.Partition) -> bool:
    return partition.begins_at <= LONG_AGO < partition.ends_at


def old_partition_names() -> list[str]:
    return [
        one.table for table in TABLES for one in partitions.partitions(table) if is_old_one(one)
    ]


@pytest.mark.parametrize("table", TABLES)
def test_the_present_and_what_comes_have_partitions(table: str) -> None:
    now = timezone.now()
    there = [one for one in partitions.partitions(table) if one.ends_at > now]
    assert there[0].begins_at <= now < there[0].ends_at
    assert there[-1].begins_at <= now + WEEK < there[-1].ends_at
    assert [one.begins_at for one in there[1:]] == [one.ends_at for one in there[:-1]]
    assert partitions.make_ahead(now) == 0


def test_what_comes_later_is_made_when_it_is_near() -> None:
    assert partitions.make_ahead(timezone.now() + WEEK) == 2
    assert retention.delete_old_rows() == 0


def test_migrate_makes_what_a_restored_backup_lacks() -> None:
    """Rows stored before the schedule's first run would leave this week without a partition."""
    now = timezone.now()
    with connection.cursor() as cursor:
        for table in TABLES:
            for one in partitions.partitions(table):
                cursor.execute(f"DROP TABLE {one.name}")
    call_command("migrate", verbosity=0)
    for table in TABLES:
        there = partitions.partitions(table)
        assert there[0].begins_at <= now < there[0].ends_at
        assert len(there) == 2


def test_another_length_begins_where_the_last_partition_ends(settings) -> None:
    before = partitions.partitions(partitions.EVENT)
    settings.WEBHOOKS_PARTITION_HOURS = 24
    assert partitions.make_ahead(before[-1].begins_at + dt.timedelta(hours=1)) == 0
    assert partitions.make_ahead(before[-1].ends_at) == 4
    there = partitions.partitions(partitions.EVENT)
    assert [one.begins_at for one in there[1:]] == [one.ends_at for one in there[:-1]]
    assert there[-1].ends_at - there[-1].begins_at == dt.timedelta(days=1)


def test_a_clock_that_was_wrong_once_is_no_obstacle() -> None:
    """Partitions made for a wrong time stay, and the present gets its own."""
    year_2100 = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    assert partitions.make_ahead(year_2100) == 4
    later = timezone.now() + 10 * WEEK
    assert partitions.make_ahead(later) == 4
    assert any(
        one.begins_at <= later < one.ends_at for one in partitions.partitions("webhooks_event")
    )


@pytest.mark.django_db(transaction=True)
def test_a_row_of_no_partition_is_accepted_and_sent(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    far = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)
    made = [
        make_old_delivery(webhook, Status.PENDING, at=at) for at in (LONG_AGO, timezone.now(), far)
    ]
    assert partition_of(partitions.DELIVERY, made[0]) == "webhooks_delivery_default"
    assert partition_of(partitions.DELIVERY, made[1]) != "webhooks_delivery_default"
    assert partition_of(partitions.ATTEMPT, made[2]) == "webhooks_attempt_default"
    deliver_all()
    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.SUCCEEDED}
    assert Attempt.objects.filter(outcome="succeeded").count() == 3


def test_rows_that_came_while_there_was_no_partition_stay_where_they_are() -> None:
    """The schedule was not running; from the next time span on there are partitions again."""
    make_old_delivery(make_webhook())
    assert partitions.make(LONG_AGO, LONG_AGO + WEEK) == 2
    assert old_partition_names() == []


@pytest.mark.usefixtures("old_partitions")
def test_what_is_too_old_goes_with_its_partition() -> None:
    webhook = make_webhook()
    gone = [make_old_delivery(webhook, status) for status in (Status.SUCCEEDED, Status.FAILED)]
    kept = make_delivery(webhook)
    with CaptureQueriesContext(connection) as queries:
        retention.delete_old_rows()
    deletes = ('DELETE FROM "webhooks_delivery', 'DELETE FROM "webhooks_attempt')
    assert [one["sql"] for one in queries if one["sql"].startswith(deletes)] == []
    assert old_partition_names() == []
    assert not Attempt.objects.filter(delivery__in=gone).exists()
    assert Delivery.objects.get() == kept
    assert Event.objects.get() == kept.event
    assert not IdempotencyKey.objects.exists()


@pytest.mark.usefixtures("old_partitions")
@pytest.mark.parametrize("status", [Status.PENDING, Status.SENDING, Status.HELD, Status.PARKED])
def test_what_is_open_outlives_its_partition(status: Status) -> None:
    webhook = make_webhook()
    gone, kept = make_old_delivery(webhook), make_old_delivery(webhook, status)
    retention.delete_old_rows()
    assert old_partition_names() == []
    delivery = Delivery.objects.get()
    assert (delivery.pk, delivery.status) == (kept, status)
    assert delivery.event.idempotency_key == IdempotencyKey.objects.get().key
    assert delivery.attempts.count() == Attempt.objects.count() == 1
    assert not Delivery.objects.filter(pk=gone).exists()
    # Once finished, it is deleted like any other row.
    Delivery.objects.update(status=Status.CANCELLED, next_attempt_at=None)
    assert retention.delete_old_rows() == 1
    assert not any(model.objects.exists() for model in (Attempt, Event, IdempotencyKey))


@pytest.mark.usefixtures("old_partitions")
def test_many_open_rows_keep_their_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "MOVED_ROWS", 1)
    webhook = make_webhook()
    make_old_delivery(webhook)
    waiting = {make_old_delivery(webhook, Status.HELD) for _ in range(2)}
    assert retention.delete_old_rows() == 1
    assert old_partition_names() == list(TABLES)
    assert set(Delivery.objects.values_list("pk", flat=True)) == waiting
    assert {partition_of(partitions.DELIVERY, key) for key in waiting} != {
        "webhooks_delivery_default"
    }


@pytest.mark.usefixtures("old_partitions")
def test_rows_that_are_opened_before_the_lock_keep_their_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook()
    rows = [make_old_delivery(webhook) for _ in range(3)]
    wait_briefly = partitions.wait_briefly

    def open_all_first(cursor: CursorWrapper) -> None:
        Delivery.objects.filter(pk__in=rows).update(
            status=Status.PENDING, next_attempt_at=timezone.now()
        )
        wait_briefly(cursor)

    monkeypatch.setattr(partitions, "MOVED_ROWS", 1)
    monkeypatch.setattr(partitions, "wait_briefly", open_all_first)
    assert partitions.drop_deliveries(timezone.now() - WEEK) == 0
    assert Delivery.objects.filter(pk__in=rows).count() == 3
    assert Attempt.objects.filter(delivery_id__in=rows).count() == 3


@pytest.mark.usefixtures("old_partitions")
def test_an_event_that_was_sent_again_outlives_its_partition() -> None:
    webhook = make_webhook()
    first = make_old_delivery(webhook)
    assert events.resend(Delivery.objects.filter(pk=first)) == 1
    retention.delete_old_rows()
    assert old_partition_names() == []
    again = Delivery.objects.get()
    assert again.event == Event.objects.get()
    # Its idempotency key stays as well: a repeated call gets this event.
    assert IdempotencyKey.objects.get().event == again.event


@pytest.mark.usefixtures("old_partitions")
def test_the_limit_of_rows_drops_a_partition_that_is_too_many(
    settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOKS_RETENTION_DAYS = 365
    settings.WEBHOOKS_RETENTION_ROWS = 2
    monkeypatch.setattr(retention, "estimated_deliveries", Delivery.objects.count)
    webhook = make_webhook()
    for _ in range(3):
        make_old_delivery(webhook)
    make_delivery(webhook)
    Delivery.objects.update(status=Status.SUCCEEDED, next_attempt_at=None)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE webhooks_delivery")
    # The partition stays: dropping its three rows would exceed the surplus of two.
    assert retention.delete_old_rows() == 2
    assert old_partition_names() == list(TABLES)
    settings.WEBHOOKS_RETENTION_ROWS = 0
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE webhooks_delivery")
    assert retention.delete_old_rows(timezone.now() + dt.timedelta(minutes=1)) == 2
    # The partition of events stays: they are deleted by age, after 365 days.
    assert old_partition_names() == [partitions.EVENT]


@pytest.mark.usefixtures("old_partitions")
def test_the_limit_of_rows_drops_no_partition_of_unknown_size(
    settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOKS_RETENTION_DAYS = 365
    settings.WEBHOOKS_RETENTION_ROWS = 2
    monkeypatch.setattr(retention, "estimated_deliveries", Delivery.objects.count)
    webhook = make_webhook()
    rows = [make_old_delivery(webhook) for _ in range(3)]
    assert retention.delete_old_rows() == 1
    assert Delivery.objects.filter(pk__in=rows).count() == 2


@pytest.fixture
def other() -> Iterator[psycopg.Connection]:
    parameters = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    given = {name: parameters[name] for name in names if name in parameters}
    with psycopg.connect(**given) as made:
        yield made


@pytest.mark.django_db(transaction=True)
def test_who_reads_for_long_is_not_waited_for(
    other: psycopg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A dump reads for hours, and everyone else would queue behind the lock of retention."""
    partitions.make(LONG_AGO, LONG_AGO)
    webhook = make_webhook()
    gone = make_old_delivery(webhook)
    other.execute("SELECT count(*) FROM webhooks_delivery")
    retention.delete_old_rows()
    assert "partition_not_dropped" in caplog.text
    assert len(old_partition_names()) >= 2
    other.rollback()
    retention.delete_old_rows()
    assert old_partition_names() == []
    assert not Delivery.objects.filter(pk=gone).exists()


@pytest.mark.usefixtures("old_partitions")
def test_a_key_is_used_once_whatever_the_partition() -> None:
    make_webhook()
    first = events.publish("call.incoming.after", {"call_id": "1"}, idempotency_key="k")
    old_id = ids.floor("evt", LONG_AGO.timestamp())
    Event.objects.filter(pk=first.event_id).update(id=old_id)
    Delivery.objects.update(event=old_id)
    IdempotencyKey.objects.update(event=old_id)
    again = events.publish("call.incoming.after", {"call_id": "1"}, idempotency_key="k")
    assert (again.event_id, again.is_duplicate, again.deliveries) == (old_id, True, 1)
    with pytest.raises(events.InvalidEventError):
        events.publish("call.incoming.after", {"call_id": "2"}, idempotency_key="k")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM webhooks_delivery WHERE id = '{dlv}'",
        "SELECT * FROM webhooks_event WHERE id = '{evt}'",
        "SELECT * FROM webhooks_attempt WHERE delivery_id = '{dlv}'",
        "SELECT id FROM webhooks_delivery WHERE id < '{dlv}' AND id > '{before}'",
    ],
)
def test_an_id_chooses_its_partition(sql: str) -> None:
    now = timezone.now().timestamp()
    values = {"dlv": ids.floor("dlv", now), "evt": ids.floor("evt", now)}
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + sql.format(**values, before=ids.floor("dlv", now - 0.001)))
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert len(set(re.findall(r"\bon webhooks_[a-z]+_(default|\d+_\d+)", plan))) == 1, plan


def test_every_partition_has_the_room_for_updates_in_place() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' "
            "AND relname LIKE 'webhooks\\_delivery%' AND NOT 'fillfactor=70' = ANY(reloptions)"
        )
        assert cursor.fetchall() == []


def test_a_second_installation_in_another_schema_is_partitioned_too() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA second")
        cursor.execute("SET LOCAL search_path TO second")
    with connection.schema_editor() as editor:
        for model in (Event, IdempotencyKey, Delivery, Attempt):
            editor.create_model(model)
    migration = importlib.import_module("webhooks.migrations.0002_partition_log_on_postgresql")
    with connection.schema_editor() as editor:
        migration.divide(None, editor)
    for table in TABLES:
        first, second = indexes("public", table), indexes("second", table)
        assert first == second
        assert len(second) > 1
        assert len(partitions.partitions(table)) == 2


def test_migrating_back_and_forth_leaves_the_log_as_it_is() -> None:
    make_old_delivery(make_webhook(), at=timezone.now())
    migration = importlib.import_module("webhooks.migrations.0002_partition_log_on_postgresql")
    with connection.schema_editor() as editor:
        migration.divide(None, editor)
    assert Delivery.objects.count() == 1


def indexes(schema: str, table: str) -> set[str]:
    """Return the index definitions of a table without the schema name."""
    found = "SELECT indexdef FROM pg_indexes WHERE schemaname = %s AND tablename = %s"
    with connection.cursor() as cursor:
        cursor.execute(found, [schema, table])
        return {row[0].replace(f" {schema}.", " ") for row in cursor.fetchall()}
