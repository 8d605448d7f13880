"""What another transaction locked, such as a forgotten transaction, keeps nothing else waiting."""

import datetime as dt
import importlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.sessions.models import Session
from django.db import OperationalError, connection
from django.db.models import Count
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from config import wsgi
from tests.alerts.test_notifications import failing
from tests.delivery.test_queue import claim, succeeded
from tests.factories import deliver_all, make_delivery, make_webhook, run_engine
from tests.oauth_fakes import ReceivedRequest, Reply, fake_provider, token
from tests.polling import eventually
from tests.sandbox import Receiver
from webhooks import events, oauth
from webhooks.alerts import notifications
from webhooks.delivery import holds, maintenance, queue, retention
from webhooks.delivery import recorder as recorder_module
from webhooks.delivery.engine import DrainCache, Engine
from webhooks.delivery.queue.rows import ClaimQuota, StateChange
from webhooks.delivery.recorder import Recorder, note_unusable, pause
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import (
    AlertChannel,
    AlertMessage,
    Attempt,
    Delivery,
    Drain,
    HourlyCount,
    Incident,
    OAuthToken,
    Outcome,
    PauseReason,
    Status,
    Webhook,
    WebhookState,
)
from webhooks.models.webhook import bump_version

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.database("postgres")]
Other = "psycopg.Connection[Any]"


@pytest.fixture
def other() -> Iterator[Other]:
    """Return the connection of a transaction that somebody forgot."""
    with psycopg.connect(**connection.get_connection_params()) as opened:
        yield opened
        opened.rollback()


def lock(other: Other, table: str, webhook: Webhook, key: str = "webhook_id") -> None:
    value = webhook.credential_id if key == "credential_id" else webhook.pk
    found = other.execute(
        f"SELECT FROM webhooks_{table} WHERE {key} = %s FOR UPDATE".encode(), [value]
    )
    assert found.rowcount


def of(webhook: Webhook) -> Delivery:
    return Delivery.objects.get(webhook=webhook)


def test_only_the_head_that_is_locked_is_not_claimed(other: Other) -> None:
    locked, free = make_webhook(is_ordered=True), make_webhook(is_ordered=True)
    make_delivery(locked)
    quotas = [ClaimQuota(webhook.pk, 1) for webhook in (locked, free)]
    lock(other, "delivery", locked)
    claim_paced = queue.backend().claim_paced
    claimed = claim_paced(quotas, lease="here", lease_seconds=60)
    assert [row.webhook_id for row in claimed] == [free.pk]
    other.rollback()
    claimed = claim_paced(quotas, lease="here", lease_seconds=60)
    assert [row.webhook_id for row in claimed] == [locked.pk]


def test_counts_that_are_locked_are_written_later(other: Other) -> None:
    recorder = Recorder(queue.backend(), "here")
    locked, free = make_webhook(), make_webhook()
    make_delivery(locked)
    results = [succeeded(row) for one in (locked, free) for row in claim(one.pk)]

    def written() -> list[int]:
        return list(HourlyCount.objects.order_by("webhook").values_list("count", flat=True))

    for result in results:
        recorder.add(result)
    assert recorder.write_rest()
    lock(other, "hourlycount", locked)
    for result in results:
        recorder.add(result)
    left = recorder.write_counts(recorder.take_counts())
    assert written() == [1, 2]
    assert list(left.values()) == [1]
    recorder.add_counts(left)
    # Ends, although some are left, which the next drain's recorder writes.
    assert recorder.write_rest()
    other.rollback()
    following = Recorder(queue.backend(), "there")
    following.add_counts(recorder.take_counts())
    assert following.write_rest()
    assert written() == [2, 2]
    assert recorder.rest == 0


def test_counts_that_a_drain_could_not_write_are_written_by_the_next_one(
    other: Other, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "step_of", lambda _ms: 3)
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    cache = DrainCache()
    for count in (1, 2):
        make_delivery(webhook)
        run_engine(lambda: not Delivery.objects.exclude(status="succeeded").exists(), cache=cache)
        if count == 1:
            assert HourlyCount.objects.get().count == 1
            lock(other, "hourlycount", webhook)
    assert HourlyCount.objects.get().count == 1
    other.rollback()
    run_engine(lambda: True, cache=cache)
    assert sum(HourlyCount.objects.values_list("count", flat=True)) == 2
    cache.close()


def test_only_the_webhook_that_is_locked_is_not_paused(other: Other) -> None:
    locked, free = make_webhook(), make_webhook()
    lock(other, "webhook", locked, "id")
    assert pause([locked.pk, free.pk], PauseReason.FAILING) == 1
    assert set(Webhook.objects.active().values_list("pk", flat=True)) == {locked.pk}


def test_health_that_is_locked_is_not_noted_as_unusable(other: Other) -> None:
    locked, free = make_webhook(), make_webhook()
    make_delivery(locked)
    WebhookState.objects.create(webhook=locked)
    lock(other, "webhookstate", locked)
    note_unusable({locked.pk: "Its port is closed.", free.pk: "Its port is closed."})
    failing = WebhookState.objects.exclude(last_error="")
    assert [state.webhook_id for state in failing] == [free.pk]


def test_a_resume_that_drops_is_not_over_while_rows_are_locked(other: Other) -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    events.pause(webhook)
    soon = timezone.now() + dt.timedelta(seconds=1)
    Webhook.objects.filter(pk=webhook.pk).update(
        is_active=True, pause_reason="", paused_at=None, cancels_before=soon
    )
    lock(other, "delivery", webhook)
    assert holds.stop_overlooked() == 0
    assert Webhook.objects.get().cancels_before
    other.rollback()
    assert holds.stop_overlooked() == 1
    assert Webhook.objects.get().cancels_before is None
    assert of(webhook).pk == delivery.pk
    assert of(webhook).status == Status.CANCELLED


def test_a_webhook_that_is_locked_gets_its_first_health(other: Other, receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    make_delivery(webhook)
    lock(other, "webhook", webhook, "id")
    deliver_all()
    assert WebhookState.objects.get().last_status_code == 200


def test_a_webhook_that_answers_410_and_is_locked_is_paused_later(
    other: Other, receiver: Receiver
) -> None:
    locked = make_webhook(url=f"{receiver.url}/status/410", retry_schedule_seconds=[600])
    free = make_webhook(url=f"{receiver.url}/open/hook")
    make_delivery(locked)
    lock(other, "webhook", locked, "id")
    deliver_all()
    assert of(free).status == Status.SUCCEEDED
    assert (of(locked).status, of(locked).outcome) == (Status.PENDING, Outcome.REFUSED)
    other.rollback()
    Delivery.objects.filter(webhook=locked).update(next_attempt_at=timezone.now())
    run_engine(lambda: of(locked).status == Status.HELD)
    assert Webhook.objects.get(pk=locked.pk).pause_reason == PauseReason.GONE


def test_a_refused_token_that_is_locked_keeps_no_result_waiting(
    other: Other, receiver: Receiver
) -> None:
    with fake_provider() as provider, fake_provider() as refusing:
        provider.reply(token(expires_in=3600))
        webhook = with_token(provider.token_url, url=f"{refusing.url}/hook")

        def refuse_once(asked: ReceivedRequest) -> Reply:
            if len(refusing.requests) > 1:
                return Reply()
            lock(other, "oauthtoken", webhook, "credential_id")
            return Reply(status=401)

        refusing.reply(refuse_once)
        free = make_webhook(url=f"{receiver.url}/open/hook", event_types=["form.submitted"])
        refused = make_delivery(webhook)
        done = Delivery.objects.filter(webhook=free, status=Status.SUCCEEDED)

        def is_done() -> bool:
            if Attempt.objects.filter(delivery=refused).exists() and not of_free():
                events.publish("form.submitted", {"form_id": "f", "page_url": "p"})
            if done.exists():
                # Recorded before the refusal is, and this is sent after that.
                assert OAuthToken.objects.get().refused_version == 0 or released
                other.rollback()
                released.append(1)
            return Delivery.objects.get(pk=refused.pk).status == Status.SUCCEEDED

        def of_free() -> bool:
            return Delivery.objects.filter(webhook=free).exists()

        released: list[int] = []
        run_engine(is_done)
        assert released
        assert len(refusing.requests) == 2


def test_rows_to_hand_back_that_are_locked_stay_until_they_are_free(
    other: Other, receiver: Receiver, settings: Settings
) -> None:
    settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK = 4
    with fake_provider() as slow:
        slow.reply(Reply())
        webhook = make_webhook(url=f"{slow.url}/hook", event_types=["call.incoming.after"])
        make_delivery(webhook)
        # Known to be quick, it gets more rows than are sent at once.
        deliver_all()
        free = make_webhook(url=f"{receiver.url}/open/hook")
        done = Delivery.objects.filter(webhook=free, status=Status.SUCCEEDED)
        waited: list[int] = []
        is_free: list[int] = []
        drain_cache = DrainCache()

        def lock_and_edit(asked: ReceivedRequest) -> Reply:
            if waited and not is_free:
                # Those behind it wait for their turn in that time.
                time.sleep(2.0)
            elif not waited:
                waited.append(1)
                sending = Delivery.objects.filter(webhook=webhook, status=Status.SENDING)
                eventually(lambda: sending.count() > 10)
                lock(other, "delivery", webhook)
                # Requests that wait for their turn are recalled.
                Webhook.objects.filter(pk=webhook.pk).update(**bump_version())
                for number in range(1, 8):
                    eventually(lambda number=number: done.count() >= number)  # type: ignore[misc]
                    make_delivery(free)
                eventually(lambda: len(drain_cache.locked) > 3)
                is_free.append(1)
                other.rollback()
                connection.close()
            return Reply()

        slow.reply(lock_and_edit)
        events.publish_many([events.NewEvent("call.incoming.after", {})] * 100)
        done_all = Delivery.objects.exclude(status=Status.SUCCEEDED)
        run_engine(lambda: not done_all.exists(), cache=drain_cache)
    drain_cache.close()
    twice = Attempt.objects.values("delivery").annotate(n=Count("id")).filter(n__gt=1)
    assert not twice
    assert len(slow.requests) == Delivery.objects.filter(webhook=webhook).count()


def test_the_next_drain_hands_back_what_was_locked_at_the_end_of_one(
    other: Other, settings: Settings
) -> None:
    settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK = 4
    cache = DrainCache()
    with fake_provider() as slow:
        slow.reply(Reply())
        webhook = make_webhook(url=f"{slow.url}/hook")
        make_delivery(webhook)
        run_engine(lambda: of(webhook).status == Status.SUCCEEDED, cache=cache)
        sending = Delivery.objects.filter(webhook=webhook, status=Status.SENDING)

        def lock_and_edit(asked: ReceivedRequest) -> Reply:
            if not waited:
                waited.append(1)
                eventually(lambda: sending.count() > 10)
                lock(other, "delivery", webhook)
                Webhook.objects.filter(pk=webhook.pk).update(**bump_version())
                connection.close()
            elif not is_free:
                time.sleep(2.0)
            return Reply()

        waited: list[int] = []
        is_free: list[int] = []

        slow.reply(lock_and_edit)
        events.publish_many([events.NewEvent("call.incoming.after", {})] * 100)
        Engine(ProcessWakeup(), lambda: False, cache).run(1.0)
        assert len(cache.locked) > 3
        is_free.append(1)
        other.rollback()
        done = Delivery.objects.filter(status=Status.SUCCEEDED)
        run_engine(lambda: done.count() == 101, cache=cache)
        assert not cache.locked
    cache.close()
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {Outcome.SUCCEEDED}
    assert len(slow.requests) == Attempt.objects.count() == 101


def test_a_test_that_is_locked_does_not_keep_the_next_one_waiting(other: Other) -> None:
    webhook = make_webhook()
    events.send_test(webhook)
    lock(other, "delivery", webhook)
    test = events.send_test(webhook)
    quota = [ClaimQuota(webhook.pk, 1)]
    taken = queue.backend().claim_tests(quota, limit=50, lease="here", lease_seconds=60)
    assert [one.id for one in taken] == [test.pk]


def test_health_that_two_drains_could_not_write_counts_in_the_order_of_its_end() -> None:
    failed = StateChange(1, False, 500, "", 2, False, 10.0)
    succeeded = StateChange(1, True, 200, "", 0, True, 20.0)
    for changes in ([failed, succeeded], [succeeded, failed]):
        recorder = Recorder(queue.backend(), "here")
        for change in changes:
            recorder.add_state(change)
        assert recorder.take_states() == [succeeded]


def test_the_next_drain_writes_the_health_that_was_locked_at_the_end_of_one(
    other: Other, receiver: Receiver
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    state = WebhookState.objects.create(webhook=webhook, failures_in_a_row=3)
    make_delivery(webhook)
    lock(other, "webhookstate", webhook)
    cache = DrainCache()
    run_engine(lambda: of(webhook).status == Status.SUCCEEDED, cache=cache)
    assert cache.has_rest()
    other.rollback()
    Engine(ProcessWakeup(), lambda: False, cache).run(0.1)
    assert not cache.has_rest()
    cache.close()
    state.refresh_from_db()
    assert state.last_success_at
    assert state.failures_in_a_row == 0


def test_a_drain_does_not_wait_for_its_registration_or_that_of_a_dead_one(
    other: Other, receiver: Receiver, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.WEBHOOKS_SHARDS = 2
    dead = Drain.objects.create(pk=1, shards=2, seen_at=timezone.now() - dt.timedelta(hours=2))
    own = Drain.objects.exclude(pk=dead.pk)
    other.execute(b"SELECT FROM webhooks_drain FOR UPDATE")
    locked_at: list[float] = []

    def is_done() -> bool:
        if not locked_at and own.exists():
            other.execute(b"SELECT FROM webhooks_drain FOR UPDATE")
            locked_at.append(time.monotonic())
            make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
        is_renewed = locked_at and time.monotonic() > locked_at[0] + 2.5
        return bool(is_renewed) and not Delivery.objects.exclude(status=Status.SUCCEEDED).exists()

    run_engine(is_done)
    assert "database_fault" not in caplog.text
    # Left to the next drain that starts, an hour from now.
    assert Drain.objects.count() == 2


@pytest.mark.usefixtures("calm")
def test_a_result_that_a_lock_kept_out_for_longer_than_its_lease_can_still_be_written(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner looks each second; another worker leaves it the time to."""
    webhook = make_webhook()
    make_delivery(webhook)
    [row] = claim(webhook.pk, lease="there")
    past = timezone.now() - dt.timedelta(seconds=1)
    Delivery.objects.update(next_attempt_at=past)
    lock(other, "delivery", webhook)
    looks: list[list[str]] = []
    late = queue.backend().late

    def look(*args: Any, **options: Any) -> list[str]:
        looks.append(late(*args, **options))
        return looks[-1]

    def is_written() -> bool:
        if looks == [[]]:
            other.rollback()
        if not any(looks):
            return False
        queue.backend().record([succeeded(row)], lease="there")
        return True

    monkeypatch.setattr(queue.backend(), "late", look)
    monkeypatch.setattr(maintenance, "EXPIRE_SECONDS", 0.5)
    monkeypatch.setattr(maintenance, "FREE_SECONDS", 60.0)
    run_engine(is_written)
    assert of(webhook).status == Status.SUCCEEDED
    assert [one.outcome for one in Attempt.objects.all()] == [Outcome.SUCCEEDED]


@pytest.fixture
def _short_waits() -> Iterator[None]:
    """Wait for locks as a worker's tasks do, but not for long."""
    queue.postgres.limit_lock_waits("200")
    connection.close()
    yield
    queue.postgres.limit_lock_waits("0")
    connection.close()


@pytest.mark.usefixtures("_short_waits")
def test_a_task_does_not_wait_for_a_lock_for_long(other: Other) -> None:
    webhook = make_webhook()
    lock(other, "webhook", webhook, "id")
    with pytest.raises(OperationalError, match="lock timeout"):
        Webhook.objects.filter(pk=webhook.pk).update(name="other")
    # The engine's own limit ends with its session.
    queue.backend().prepare_session()
    queue.backend().reset_session()
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("200ms",)
    with queue.unless_locked("rename"):
        Webhook.objects.filter(pk=webhook.pk).update(name="other")
    assert Webhook.objects.get().name != "other"
    with pytest.raises(OperationalError, match="nothing"), queue.unless_locked("nothing"):
        raise OperationalError("nothing")


@pytest.mark.usefixtures("_short_waits")
def test_a_page_says_that_it_could_not_change_what_is_locked(
    other: Other, admin_client: Client
) -> None:
    webhook = make_webhook()
    lock(other, "webhook", webhook, "id")
    admin_client.raise_request_exception = False
    response = admin_client.post(reverse("webhooks:pause", args=[webhook.pk]))
    assert response.status_code == 500
    assert "no data was lost" in response.content.decode()
    importlib.reload(wsgi)
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("10s",)


@pytest.mark.usefixtures("_short_waits")
def test_retention_goes_on_with_what_is_not_locked(other: Other) -> None:
    webhook, deleted = make_webhook(), make_webhook()
    make_delivery(deleted)
    Webhook.objects.filter(pk=deleted.pk).update(deleted_at=timezone.now())
    long_ago = timezone.now() - dt.timedelta(days=365)
    given = {"hour": long_ago, "outcome": "succeeded", "duration_step": 1}
    HourlyCount.objects.create(webhook=webhook, **given)
    Session.objects.create(session_key="old", expire_date=long_ago)
    lock(other, "hourlycount", webhook)
    lock(other, "delivery", deleted)
    retention.delete_old_rows()
    assert HourlyCount.objects.exists()
    assert of(deleted).status == Status.PENDING
    assert not Session.objects.exists()
    other.rollback()
    retention.delete_old_rows()
    assert not HourlyCount.objects.exists()
    assert of(deleted).status == Status.CANCELLED


def with_token(token_url: str, **fields: object) -> Webhook:
    webhook = make_webhook(
        **fields,
        authorization_type="oauth2",
        grant_type="client_credentials",
        token_url=token_url,
        client_id="client",
        client_secret="secret",
    )
    oauth.refresh(webhook.credential)
    return webhook


@pytest.mark.usefixtures("_short_waits")
def test_a_token_that_is_locked_takes_no_time_from_others(other: Other) -> None:
    with fake_provider() as provider:
        provider.reply(token(expires_in=1))
        locked, free = (with_token(provider.token_url) for _ in range(2))
        OAuthToken.objects.update(expires_at=timezone.now())
        lock(other, "oauthtoken", locked, "credential_id")
        assert oauth.refresh_expiring() == 1
    versions = dict(OAuthToken.objects.values_list("credential", "version"))
    assert versions == {locked.credential_id: 1, free.credential_id: 2}


@pytest.mark.usefixtures("_short_waits")
def test_a_token_is_stored_however_long_its_row_is_locked(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.oauth.tokens.STORE_WAITS_SECONDS", ())
    with fake_provider() as provider:
        provider.reply(token(expires_in=3600))
        webhook = with_token(provider.token_url)

        def lock_and_grant(asked: ReceivedRequest) -> Reply:
            lock(other, "oauthtoken", webhook, "credential_id")
            release.start()
            return token(expires_in=3600)

        release = threading.Timer(1.5, other.rollback)
        provider.reply(lock_and_grant)
        assert oauth.refresh(webhook.credential).version == 2
        release.join()


@pytest.mark.usefixtures("_short_waits")
def test_alerts_about_a_webhook_that_is_locked_keep_no_others_waiting(
    other: Other, receiver: Receiver
) -> None:
    locked, free = failing(alert_after_failures=2), failing(alert_after_failures=2)
    channel = AlertChannel.objects.create(
        kind="webhook", name="Ops", secret=f"{receiver.url}/status/200"
    )
    lock(other, "webhook", locked, "id")
    # An accepted message is not sent again because its channel is locked.
    other.execute("SELECT FROM webhooks_alertchannel FOR NO KEY UPDATE")
    now = timezone.now()
    for minutes in (0, 1, 5):
        notifications.run(now + dt.timedelta(minutes=minutes))
    assert set(Incident.objects.values_list("webhook", flat=True)) == {locked.pk, free.pk}
    assert len(receiver.requests()) == 2
    assert not AlertMessage.objects.exists()
    assert AlertChannel.objects.get(pk=channel.pk).sent_at is None


@pytest.mark.usefixtures("_short_waits")
def test_an_alert_whose_channel_is_locked_is_sent_later(other: Other, receiver: Receiver) -> None:
    failing(alert_after_failures=2)
    AlertChannel.objects.create(kind="webhook", name="Ops", secret=f"{receiver.url}/status/200")
    other.execute("SELECT FROM webhooks_alertchannel FOR UPDATE")
    now = timezone.now()
    notifications.run(now)
    assert Incident.objects.get().notified_at is None
    other.rollback()
    notifications.run(now + dt.timedelta(minutes=1))
    notifications.run(now + dt.timedelta(minutes=2))
    assert Incident.objects.get().notified_at is not None
    assert len(receiver.requests()) == 1
