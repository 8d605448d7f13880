"""The public functions: which events are accepted or rejected, and what publishing stores."""

import datetime as dt
import json
import time
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from tests.factories import make_delivery, make_webhook
from webhooks import events, tasks
from webhooks.delivery import fan_out, queue, retention
from webhooks.delivery.auth import NoAuthorization
from webhooks.delivery.queue.rows import StateChange
from webhooks.delivery.recorder import Recorder
from webhooks.delivery.requests import make_plan
from webhooks.models import (
    Attempt,
    Delivery,
    Event,
    HoldReason,
    OAuthToken,
    PauseReason,
    Status,
    Trigger,
    Webhook,
    WebhookState,
    ids,
)
from webhooks.security import signatures

pytestmark = pytest.mark.django_db


@pytest.fixture
def notified(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    heard: list[str] = []
    monkeypatch.setattr(tasks, "notify", lambda: heard.append("notify"))
    return heard


def test_an_event_becomes_one_delivery_for_each_webhook_that_wants_it() -> None:
    wanting = [make_webhook(), make_webhook(event_types=["call.incoming.after"])]
    make_webhook(event_types=["deal.*"])
    published = events.publish("call.incoming.after", {"call_id": "c-1"})
    deliveries = Delivery.objects.filter(event_id=published.event_id)
    assert published.deliveries == 2
    assert {delivery.webhook_id for delivery in deliveries} == {hook.pk for hook in wanting}
    assert {delivery.status for delivery in deliveries} == {Status.PENDING}


def test_the_document_is_frozen_with_the_event() -> None:
    published = events.publish("call.incoming.after", {"call_id": "c-1"})
    event = Event.objects.get(pk=published.event_id)
    document = json.loads(bytes(event.payload))
    assert document["event"] == "call.incoming.after"
    assert document["event_id"] == event.pk
    assert document["call_id"] == event.call_id == "c-1"


def test_a_filter_refuses_events_and_the_refusal_is_counted() -> None:
    tree = {"variable": "disposition", "operator": "equals", "value": "ANSWERED"}
    make_webhook(filter=tree)
    published = events.publish("call.incoming.after", {"disposition": "BUSY"})
    assert (published.deliveries, published.filtered) == (0, 1)
    assert Event.objects.get(pk=published.event_id).filtered_count == 1
    assert events.publish("call.incoming.after", {"disposition": "ANSWERED"}).deliveries == 1


def test_a_filter_that_cannot_be_read_holds_its_own_events_and_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # SQLite reuses the ids of earlier tests.
    fan_out.filter_of.cache_clear()
    broken = make_webhook(filter={"variable": "disposition", "operator": "no such"})
    fine = make_webhook()
    for _ in range(2):
        published = events.publish("call.incoming.after", {})
        assert (published.deliveries, published.filtered) == (2, 0)
    of_broken = Delivery.objects.filter(webhook=broken).values_list("status", "hold_reason")
    assert list(of_broken) == [(Status.HELD, HoldReason.MISCONFIGURED)] * 2
    assert {one.status for one in Delivery.objects.filter(webhook=fine)} == {Status.PENDING}
    said = [one.getMessage() for one in caplog.records if "filter_unreadable" in one.getMessage()]
    assert len(said) == 1
    assert f"webhook={broken.pk} " in said[0]


def test_resuming_sends_nothing_that_a_filter_could_not_judge() -> None:
    webhook = make_webhook(filter={"variable": "disposition", "operator": "no such"})
    events.pause(webhook)
    delivery = make_delivery(webhook)
    assert events.resume(webhook) == 0
    delivery.refresh_from_db()
    assert (delivery.status, delivery.hold_reason) == (Status.HELD, HoldReason.MISCONFIGURED)


@pytest.mark.parametrize(
    ("type", "payload", "key", "code"),
    [
        ("no.such", {}, None, "unknown_type"),
        ("webhook.failing", {}, None, "reserved_type"),
        ("webhook.test", {}, None, "reserved_type"),
        ("call.incoming.after", {"x": object()}, None, "invalid_payload"),
        ("call.incoming.after", {"x": float("nan")}, None, "invalid_payload"),
        ("call.incoming.after", {"x": "y" * 1_100_000}, None, "too_large"),
        ("call.incoming.after", {}, "", "invalid_key"),
        ("call.incoming.after", {}, "k" * 256, "invalid_key"),
        ("call.incoming.after", {}, "a\nb", "invalid_key"),
    ],
)
def test_bad_events_are_refused_with_a_sentence_and_leave_nothing(
    type: str, payload: dict[str, object], key: str | None, code: str
) -> None:
    make_webhook()
    with pytest.raises(events.InvalidEventError, match=r"\.$") as refused:
        events.publish(type, payload, idempotency_key=key)
    assert refused.value.code == code
    assert not Event.objects.exists()


def test_the_same_idempotency_key_twice_is_one_event() -> None:
    make_webhook()
    first = events.publish("call.incoming.after", {"call_id": "1"}, idempotency_key="k")
    again = events.publish("call.incoming.after", {"call_id": "1"}, idempotency_key="k")
    assert (again.event_id, again.is_duplicate, again.deliveries) == (first.event_id, True, 1)
    assert Delivery.objects.count() == 1


def test_a_key_used_for_other_content_is_refused() -> None:
    events.publish("call.incoming.after", {"call_id": "1"}, idempotency_key="k")
    with pytest.raises(events.InvalidEventError) as refused:
        events.publish("call.incoming.after", {"call_id": "2"}, idempotency_key="k")
    assert refused.value.code == "key_reused"


@pytest.mark.django_db(transaction=True)
def test_an_event_published_in_no_transaction_keeps_to_the_same_rules() -> None:
    assert events.publish("call.incoming.after", {"call_id": "0"}).deliveries == 0
    # The webhooks cached a moment ago must not be used any more.
    webhook = make_webhook(name='Quoted, "braced" {and} \\ more')
    first = events.publish(
        "call.incoming.after", {"call_id": '"1", {2}', "caller": "+380441234567"},
        idempotency_key="k",
    )  # fmt: skip
    assert Delivery.objects.get().webhook == webhook
    event = Event.objects.get(pk=first.event_id)
    assert (event.call_id, event.callee_digits) == ('"1", {2}', None)
    assert abs(event.occurred_at - timezone.now()) < dt.timedelta(minutes=1)
    again = {"call_id": '"1", {2}', "caller": "+380441234567"}
    repeated = events.publish("call.incoming.after", again, idempotency_key="k")
    assert (repeated.event_id, repeated.is_duplicate) == (first.event_id, True)
    with pytest.raises(events.InvalidEventError) as refused:
        events.publish("call.incoming.after", {"call_id": "2"}, idempotency_key="k")
    assert refused.value.code == "key_reused"
    with pytest.raises(events.InvalidEventError):
        events.publish("call.incoming.after", {"call_id": "2", "bad": float("nan")})
    assert Event.objects.count() == 2


def test_others_may_use_one_key_after_another_while_a_batch_is_written() -> None:
    others = ["a", "b"]
    by_others: dict[str, events.Published] = {}
    is_other = False

    def publish_another(execute: Any, statement: str, *arguments: Any) -> Any:
        nonlocal is_other
        if statement.startswith("SAVEPOINT") and others and not is_other:
            is_other = True
            key = others.pop()
            by_others[key] = events.publish("call.incoming.after", {}, idempotency_key=key)
            is_other = False
        return execute(statement, *arguments)

    items = [events.NewEvent("call.incoming.after", {}, key) for key in "abc"]
    with connection.execute_wrapper(publish_another):
        published = dict(zip("abc", events.publish_many(items), strict=True))
    assert by_others.keys() == {"a", "b"}
    for key, by_other in by_others.items():
        assert published[key].event_id == by_other.event_id
        assert published[key].is_duplicate != by_other.is_duplicate
    assert not published["c"].is_duplicate
    assert Event.objects.count() == 3


def test_a_key_whose_event_was_deleted_by_hand_is_free() -> None:
    before = events.publish("call.incoming.after", {}, idempotency_key="k")
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM webhooks_event")
    items = [events.NewEvent("call.incoming.after", {"n": key}, key) for key in "ak"]
    published = events.publish_many(items)
    assert [one.is_duplicate for one in published] == [False, False]
    assert published[1].event_id != before.event_id
    assert events.publish_many(items)[1] == published[1]._replace(is_duplicate=True)


def test_a_batch_with_a_repeated_key_makes_one_event() -> None:
    item = events.NewEvent("call.incoming.after", {"call_id": "1"}, "k")
    make_webhook()
    first, second = events.publish_many([item, item])
    assert first.event_id == second.event_id
    assert (first.deliveries, second.deliveries, second.is_duplicate) == (1, 1, True)
    assert Event.objects.count() == 1


def test_one_bad_event_refuses_the_whole_batch() -> None:
    good = events.NewEvent("call.incoming.after", {})
    with pytest.raises(events.InvalidEventError):
        events.publish_many([good, events.NewEvent("no.such", {})])
    assert not Event.objects.exists()


def test_a_rolled_back_publish_sends_and_notifies_nothing(
    notified: list[str], django_capture_on_commit_callbacks
) -> None:
    make_webhook()

    def publish_and_fail() -> None:
        with transaction.atomic():
            events.publish("call.incoming.after", {})
            raise ZeroDivisionError

    with (
        django_capture_on_commit_callbacks(execute=True) as callbacks,
        pytest.raises(ZeroDivisionError),
    ):
        publish_and_fail()
    assert callbacks == []
    assert notified == []
    assert not Event.objects.exists()


def test_a_publish_notifies_once_after_the_commit(
    notified: list[str], django_capture_on_commit_callbacks
) -> None:
    make_webhook()
    with django_capture_on_commit_callbacks(execute=True):
        events.publish_many([events.NewEvent("call.incoming.after", {}) for _ in range(50)])
    assert notified == ["notify"]


def test_fan_out_to_a_thousand_webhooks_takes_a_handful_of_statements(
    django_assert_max_num_queries,
) -> None:
    for _ in range(30):
        make_webhook()
    with django_assert_max_num_queries(8):
        events.publish("call.incoming.after", {})


def test_events_for_a_paused_webhook_are_held() -> None:
    webhook = make_webhook()
    events.pause(webhook)
    delivery = make_delivery(webhook)
    assert (delivery.status, delivery.hold_reason) == (Status.HELD, HoldReason.PAUSED)
    assert events.resume(webhook) == 1
    delivery.refresh_from_db()
    assert delivery.status == Status.PENDING


def test_a_resumed_webhook_is_not_paused_by_its_first_failure() -> None:
    webhook = make_webhook()
    long_ago = timezone.now() - dt.timedelta(days=30)
    WebhookState.objects.create(webhook=webhook, failing_since_at=long_ago, failures_in_a_row=99)
    events.pause(webhook, PauseReason.FAILING)
    events.resume(webhook)
    recorder = Recorder(queue.backend(), "lease")
    failed = StateChange(webhook.pk, False, 500, "It failed.", 1, False, time.monotonic())
    recorder.write_states([failed])
    assert Webhook.objects.get(pk=webhook.pk).is_active
    assert WebhookState.objects.get().failures_in_a_row == 1


def test_pausing_holds_what_waits() -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    events.pause(webhook)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.next_attempt_at) == (Status.HELD, None)


def test_release_held_frees_only_what_waited_for_a_token() -> None:
    webhook = make_webhook()
    waiting, paused = make_delivery(webhook), make_delivery(webhook)
    held = {"status": "held", "next_attempt_at": None}
    Delivery.objects.filter(pk=waiting.pk).update(hold_reason="reauthorization", **held)
    Delivery.objects.filter(pk=paused.pk).update(hold_reason="paused", **held)
    assert events.release_held(webhook.credential) == 1
    assert Delivery.objects.get(pk=waiting.pk).status == Status.PENDING
    assert Delivery.objects.get(pk=paused.pk).status == Status.HELD


def test_a_test_event_is_about_the_webhook_it_is_sent_to() -> None:
    webhook = make_webhook(name="My CRM")
    delivery = events.send_test(webhook, "webhook.test")
    document = json.loads(bytes(delivery.event.payload))
    assert document["webhook_name"] == "My CRM"
    assert document["webhook_id"] == webhook.uid


def test_a_resend_is_a_new_delivery_of_the_same_event() -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    Delivery.objects.update(status="failed", next_attempt_at=None)
    assert events.resend(Delivery.objects.filter(pk=delivery.pk)) == 1
    copy = Delivery.objects.exclude(pk=delivery.pk).get()
    assert (copy.event_id, copy.trigger) == (delivery.event_id, Trigger.RESENT)
    assert copy.status == Status.PENDING


def test_nothing_is_resent_to_a_deleted_webhook() -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    events.delete(webhook)
    assert events.resend(Delivery.objects.filter(pk=delivery.pk)) == 0


def test_purging_erases_secrets_and_token_and_keeps_the_log() -> None:
    webhook = make_webhook(authorization_type="basic", basic_login="u", basic_password="hush")
    OAuthToken.objects.create(credential=webhook.credential)
    delivery = make_delivery(webhook)
    events.delete(webhook)
    assert Webhook.objects.get(pk=webhook.pk).has_secret("signing_secret")
    events.purge(webhook)
    gone = Webhook.objects.get(pk=webhook.pk)
    assert not gone.credential.has_secret("basic_password")
    assert not gone.has_secret("signing_secret")
    assert not OAuthToken.objects.exists()
    assert Delivery.objects.get(pk=delivery.pk).status == Status.CANCELLED
    assert gone not in Webhook.objects.present()


def test_cancel_leaves_what_is_being_sent() -> None:
    webhook = make_webhook()
    sending, waiting = make_delivery(webhook), make_delivery(webhook)
    Delivery.objects.filter(pk=sending.pk).update(status="sending")
    assert events.cancel(Delivery.objects.all()) == 1
    assert Delivery.objects.get(pk=sending.pk).status == Status.SENDING
    assert Delivery.objects.get(pk=waiting.pk).status == Status.CANCELLED


def test_a_rotated_signing_secret_keeps_the_old_one_for_a_day() -> None:
    webhook = make_webhook()
    old = webhook.signing_secret
    new = events.rotate_signing_secret(webhook)
    webhook = Webhook.objects.get(pk=webhook.pk)
    assert (webhook.signing_secret, webhook.previous_signing_secrets) == (new, old)
    assert webhook.previous_signing_secrets_until is not None
    left = webhook.previous_signing_secrets_until - timezone.now()
    assert dt.timedelta(hours=23) < left <= dt.timedelta(hours=24)


def test_a_rotation_soon_after_another_keeps_every_secret_that_is_valid() -> None:
    webhook = make_webhook()
    # Each was read before the first rotation, as after double clicks.
    read = [Webhook.objects.get(pk=webhook.pk) for _ in range(4)]
    secrets = [events.rotate_signing_secret(one) for one in read]
    newest_first = [*reversed(secrets), webhook.signing_secret]
    assert signing_keys(webhook) == [signatures.secret_key(one) for one in newest_first]
    events.rotate_signing_secret(webhook)
    events.rotate_signing_secret(webhook)
    assert len(signing_keys(webhook)) == 6
    assert signatures.secret_key(newest_first[-1]) not in signing_keys(webhook)


def test_a_rotation_long_after_another_keeps_only_the_secret_that_it_replaces() -> None:
    webhook = make_webhook()
    replaced = events.rotate_signing_secret(webhook)
    Webhook.objects.update(previous_signing_secrets_until=timezone.now() - dt.timedelta(seconds=1))
    assert signing_keys(webhook) == [signatures.secret_key(replaced)]
    new = events.rotate_signing_secret(webhook)
    assert signing_keys(webhook) == [signatures.secret_key(one) for one in (new, replaced)]


def signing_keys(webhook: Webhook) -> list[bytes]:
    plan = make_plan(Webhook.objects.get(pk=webhook.pk), NoAuthorization())
    return list(plan.signing_keys)


def test_every_save_of_a_webhook_counts_its_version_up() -> None:
    webhook = make_webhook()
    before = webhook.version
    webhook.save(update_fields=["name"])
    assert Webhook.objects.get(pk=webhook.pk).version == before + 1


def old_delivery(webhook: Webhook, status: str, **fields: object) -> Delivery:
    """Make a finished delivery that is 60 days old by its id."""
    delivery = make_delivery(webhook)
    stamp = (timezone.now() - dt.timedelta(days=60)).timestamp()
    new_id = ids.floor("dlv", stamp)[:-8] + delivery.pk[-8:]
    Delivery.objects.filter(pk=delivery.pk).update(id=new_id, status=status, **fields)
    old = Delivery.objects.get(pk=new_id)
    Attempt.objects.create(delivery=old, number=1, started_at=timezone.now(), request_line="")
    return old


def test_retention_deletes_old_finished_deliveries_and_their_attempts() -> None:
    webhook = make_webhook()
    old_delivery(webhook, "succeeded", next_attempt_at=None)
    recent = make_delivery(webhook)
    assert retention.delete_old_rows() == 1
    assert list(Delivery.objects.all()) == [recent]
    assert not Attempt.objects.exists()


@pytest.mark.parametrize("status", ["held", "parked"])
def test_retention_never_deletes_what_still_waits(status: str) -> None:
    old_delivery(make_webhook(), status, next_attempt_at=None)
    assert retention.delete_old_rows() == 0
    assert Delivery.objects.count() == 1


def test_retention_also_keeps_the_log_below_a_number_of_rows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOKS_RETENTION_ROWS = 0
    settings.WEBHOOKS_RETENTION_DAYS = 365
    # PostgreSQL's estimate counts what other transactions insert, and is late.
    monkeypatch.setattr(retention, "estimated_deliveries", Delivery.objects.count)
    webhook = make_webhook()
    for _ in range(3):
        old_delivery(webhook, "succeeded", next_attempt_at=None)
    assert retention.delete_old_rows() == 3


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_an_event_of_another_age_is_refused(year: int) -> None:
    moment = dt.datetime(year, 12, 31, tzinfo=dt.UTC)
    with pytest.raises(events.InvalidEventError) as caught:
        events.publish("call.incoming.after", {}, occurred_at=moment)
    assert (caught.value.code, caught.value.field) == ("invalid_time", "occurred_at")
    assert not Event.objects.exists()


@pytest.mark.parametrize("year", [1970, 9998])
def test_an_event_may_be_as_old_or_new_as_every_zone_can_show(year: int) -> None:
    moment = dt.datetime(year, 6, 1, tzinfo=dt.UTC)
    assert events.publish("call.incoming.after", {}, occurred_at=moment).event_id


def test_a_moment_without_an_offset_is_of_the_sites_time_zone(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Kyiv"
    moment = dt.datetime(2026, 5, 14, 12, 28, 49)
    published = events.publish("call.incoming.after", {}, occurred_at=moment)
    event = Event.objects.get(pk=published.event_id)
    assert event.occurred_at == dt.datetime(2026, 5, 14, 9, 28, 49, tzinfo=dt.UTC)
    assert json.loads(bytes(event.payload))["occurred_at"] == "2026-05-14T09:28:49Z"
