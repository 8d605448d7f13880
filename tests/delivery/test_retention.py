"""What is deleted from the log and what never is, also during a resend."""

import datetime as dt
import threading
import time

import pytest
from django.contrib.sessions.models import Session
from django.db import connection as database
from django.db import transaction
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.ui.connections.test_race import in_thread
from webhooks import events
from webhooks.delivery import queue, resends, retention, trash
from webhooks.models import Delivery, Event, Resend, Status, Trigger, Webhook, ids

pytestmark = pytest.mark.django_db

LONG_AGO = timezone.now() - dt.timedelta(days=60)


def make_old_delivery(webhook: Webhook, status: str = Status.SUCCEEDED) -> Delivery:
    """Make a delivery and its event whose ids are 60 days old."""
    delivery = make_delivery(webhook)
    event_id, delivery_id = (
        ids.floor(prefix, LONG_AGO.timestamp())[:-8] + made[-8:]
        for prefix, made in (("evt", delivery.event_id), ("dlv", delivery.pk))
    )
    Event.objects.filter(pk=delivery.event_id).update(id=event_id)
    Delivery.objects.filter(pk=delivery.pk).update(
        id=delivery_id, event=event_id, status=status, next_attempt_at=None
    )
    return Delivery.objects.get(pk=delivery_id)


def test_events_go_with_their_last_delivery() -> None:
    webhook = make_webhook()
    make_old_delivery(webhook)
    kept = make_old_delivery(webhook, Status.HELD)
    assert retention.delete_old_rows() == 1
    assert list(Event.objects.values_list("pk", flat=True)) == [kept.event_id]


def test_sessions_that_ended_are_deleted() -> None:
    # The second session is still valid on a web server whose clock is behind the database's.
    lives_until = timezone.now() - dt.timedelta(minutes=30)
    for key, expires_at in (("ended", LONG_AGO), ("lives", lives_until)):
        Session.objects.create(session_key=key, expire_date=expires_at)
    retention.delete_old_rows()
    assert [one.session_key for one in Session.objects.all()] == ["lives"]


@pytest.mark.database("postgres")
def test_a_machine_whose_clock_is_ahead_deletes_nothing_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = make_delivery(make_webhook())
    Delivery.objects.update(status=Status.SUCCEEDED, next_attempt_at=None)
    ahead = dt.timedelta(days=365).total_seconds()
    monkeypatch.setattr(time, "time", lambda: ahead + time.clock_gettime(time.CLOCK_REALTIME))
    monkeypatch.setattr(timezone, "now", lambda: dt.datetime.fromtimestamp(time.time(), dt.UTC))
    assert retention.delete_old_rows() == 0
    assert Delivery.objects.filter(pk=delivery.pk).exists()


@pytest.mark.database("postgres")
def test_a_database_whose_clock_is_ahead_deletes_nothing_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery, trashed = make_delivery(make_webhook()), make_webhook(name="Trashed")
    Delivery.objects.update(status=Status.SUCCEEDED, next_attempt_at=None)
    events.delete(trashed)
    ahead = time.time() + dt.timedelta(days=365).total_seconds()
    monkeypatch.setattr(queue.backend(), "clock", lambda: ahead)
    assert retention.delete_old_rows() == 0
    assert Delivery.objects.filter(pk=delivery.pk).exists()
    trashed.refresh_from_db()
    assert trashed.purged_at is None


def test_revocations_that_take_long_take_the_time_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        events.delete(make_webhook(name=str(number)))
    purged: list[Webhook] = []
    monkeypatch.setattr(trash, "PURGE_SECONDS", 0.01)
    monkeypatch.setattr(trash, "purge", lambda webhook: purged.append(webhook) or time.sleep(0.02))
    trash.purge_old(timezone.now() + dt.timedelta(days=31))
    assert len(purged) == 1


@pytest.mark.database("postgres")
def test_what_a_machine_whose_clock_is_behind_deletes_can_be_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook()
    long_ago = timezone.now() - dt.timedelta(days=365)
    with monkeypatch.context() as patched:
        patched.setattr(timezone, "now", lambda: long_ago)
        events.delete(webhook)
    retention.delete_old_rows()
    assert events.restore(webhook.pk)


def test_a_backlog_that_is_held_is_no_surplus(settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.WEBHOOKS_RETENTION_ROWS = 3
    monkeypatch.setattr(retention, "estimated_deliveries", Delivery.objects.count)
    webhook = make_webhook()
    # Ids made within the current millisecond are not deleted yet.
    later = timezone.now() + dt.timedelta(minutes=1)
    finished = [make_delivery(webhook) for _ in range(4)]
    Delivery.objects.update(status=Status.SUCCEEDED, next_attempt_at=None)
    waiting = [make_delivery(webhook) for _ in range(6)]
    for delivery, status in zip(waiting, ["held", "parked"] * 2, strict=False):
        Delivery.objects.filter(pk=delivery.pk).update(status=status, next_attempt_at=None)
    assert retention.delete_old_rows(later) == 1
    assert not Delivery.objects.filter(pk=finished[0].pk).exists()
    assert Delivery.objects.filter(pk__in=[one.pk for one in finished[1:]]).count() == 3
    assert retention.delete_old_rows(later) == 0


@pytest.mark.database("postgres")
@pytest.mark.django_db(transaction=True)
def test_rows_that_were_deleted_since_the_last_analyze_are_no_surplus() -> None:
    webhook = make_webhook()
    for _ in range(20):
        make_delivery(webhook)
    with database.cursor() as cursor:
        cursor.execute("SELECT pg_stat_force_next_flush()")
        cursor.execute("ANALYZE webhooks_delivery")
        assert retention.estimated_deliveries() == 20
        Delivery.objects.all().delete()
        cursor.execute("SELECT pg_stat_force_next_flush()")
    assert retention.estimated_deliveries() == 0


def test_what_a_deleted_webhook_left_is_closed_in_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retention, "BATCH", 2)
    webhook, other = make_webhook(), make_webhook()
    for _ in range(5):
        make_delivery(webhook)
    sending = Delivery.objects.filter(webhook=webhook).last()
    assert sending is not None
    Delivery.objects.filter(pk=sending.pk).update(status=Status.SENDING)
    held = Delivery.objects.filter(webhook=webhook, status=Status.PENDING).last()
    assert held is not None
    Delivery.objects.filter(pk=held.pk).update(
        status=Status.HELD, hold_reason="paused", next_attempt_at=None
    )
    Webhook.objects.filter(pk=webhook.pk).update(deleted_at=timezone.now())
    with monkeypatch.context() as bounded:
        bounded.setattr(retention, "BATCHES", 1)
        assert retention.close_deliveries_of_deleted_webhooks(timezone.now()) == 3
    assert retention.close_deliveries_of_deleted_webhooks(timezone.now()) == 1
    held.refresh_from_db()
    assert (held.status, held.hold_reason) == (Status.CANCELLED, "")
    left = Delivery.objects.exclude(status=Status.CANCELLED)
    assert left.filter(webhook=webhook).get() == sending
    assert left.filter(webhook=other).count() == 5


# SQLite has one writer at a time, and a transaction reads the state at its beginning.
@pytest.mark.database("postgres")
@pytest.mark.django_db(transaction=True)
def test_an_event_that_is_sent_again_outlives_its_first_delivery() -> None:
    """Retention runs after a resend has inserted its delivery and before it commits."""
    webhook = make_webhook()
    event_id = make_old_delivery(webhook).event_id
    is_made, may_commit = threading.Event(), threading.Event()

    def send_again() -> None:
        with transaction.atomic():
            assert events.resend(Delivery.objects.filter(event=event_id)) == 1
            is_made.set()
            assert may_commit.wait(10)

    thread = in_thread(send_again)
    assert is_made.wait(10)
    # The new delivery is not visible yet.
    assert retention.delete_old_rows() == 1
    may_commit.set()
    thread.join()
    assert Delivery.objects.get().trigger == Trigger.RESENT
    assert Event.objects.filter(pk=event_id).exists()
    assert retention.delete_old_rows() == 0


def test_what_retention_deleted_since_is_not_sent_again() -> None:
    """A delivery without its event would stop the drain that claims it."""
    webhook = make_webhook()
    gone, kept = make_delivery(webhook), make_delivery(webhook)
    Delivery.objects.update(status=Status.FAILED, next_attempt_at=None)
    resend = resends.start(
        Resend(
            webhook=webhook,
            scope="failed",
            since_at=timezone.now() - dt.timedelta(hours=1),
            until_at=timezone.now() + dt.timedelta(seconds=1),
            rate=1000,
        )
    )
    lost = Event.objects.filter(pk=gone.event_id)
    lost._raw_delete(lost.db)
    assert events.resend(Delivery.objects.all()) == 1
    Delivery.objects.filter(trigger=Trigger.RESENT).delete()
    assert resends.advance(resend.pk) == 1
    resend.refresh_from_db()
    assert resend.done == 1
    again = Delivery.objects.get(trigger=Trigger.BULK)
    assert again.event_id == kept.event_id


# On SQLite the resume runs before or after the transaction.
@pytest.mark.database("postgres")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", ["resent", "edited", "bulk"])
def test_a_resume_waits_for_what_is_being_sent_again_and_releases_it(how: str) -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    Delivery.objects.update(status=Status.FAILED, next_attempt_at=None)
    events.pause(webhook)
    since = timezone.now() - dt.timedelta(hours=1)
    resend = resends.start(Resend(webhook=webhook, scope="failed", since_at=since, rate=10))
    is_made, is_over = threading.Event(), threading.Event()

    def send_again() -> None:
        with transaction.atomic():
            if how == "resent":
                events.resend(Delivery.objects.filter(pk=delivery.pk))
            elif how == "edited":
                events.resend_edited(Delivery.objects.get(pk=delivery.pk), {"call_id": "2"})
            else:
                assert resends.advance(resend.pk) == 1
            is_made.set()
            is_over.wait(0.5)

    thread = in_thread(send_again)
    assert is_made.wait(10)
    assert events.resume(webhook) == 1
    is_over.set()
    thread.join()
    assert Delivery.objects.exclude(pk=delivery.pk).get().status == Status.PENDING


def test_what_is_sent_again_knows_that_the_webhook_was_resumed_since() -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    events.pause(webhook)
    read_while_paused = Delivery.objects.select_related("webhook", "event").get(pk=delivery.pk)
    events.resume(webhook)
    copy = events.resend_edited(read_while_paused, {"call_id": "2"})
    assert copy.status == Status.PENDING
