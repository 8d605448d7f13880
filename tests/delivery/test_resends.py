"""Resends: what is resent, how fast, only once, after crashes, by several workers at once."""

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import pytest
from celery import signals
from django.contrib.auth import get_user_model
from django.db import connections
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.services import free_port
from webhooks import events, tasks
from webhooks.delivery import queue, resends
from webhooks.delivery.wakeup import ProcessWakeup, RedisWakeup
from webhooks.models import (
    Delivery,
    HoldReason,
    Resend,
    ResendScope,
    ResendStatus,
    Status,
    Trigger,
    Webhook,
    ids,
)

pytestmark = pytest.mark.django_db


def finished(webhook: Webhook, status: str = Status.FAILED, **fields: Any) -> Delivery:
    delivery = make_delivery(webhook)
    given = {"next_attempt_at": None, "finished_at": timezone.now(), "attempt_count": 1}
    Delivery.objects.filter(pk=delivery.pk).update(status=status, **{**given, **fields})
    delivery.refresh_from_db()
    return delivery


def resend_of(webhook: Webhook | None = None, **fields: Any) -> Resend:
    given: dict[str, Any] = {
        "webhook": webhook,
        "scope": ResendScope.FAILED,
        "since_at": timezone.now() - dt.timedelta(hours=1),
        "rate": 1000,
        **fields,
    }
    # The ids are made within the same millisecond as the end of the range.
    given.setdefault("until_at", timezone.now() + dt.timedelta(milliseconds=2))
    return Resend(**given)


def run(resend: Resend) -> Resend:
    """Start a resend and advance it until it ends, without waiting for its rate."""
    resends.start(resend)
    for _ in range(100):
        resend.refresh_from_db()
        if resend.status != ResendStatus.RUNNING:
            return resend
        resends.advance_all()
        let_pass(resend, 5)
    raise AssertionError("the resend does not end")


def let_pass(resend: Resend, seconds: float) -> None:
    row = Resend.objects.get(pk=resend.pk)
    if row.advanced_at:
        earlier = row.advanced_at - dt.timedelta(seconds=seconds)
        Resend.objects.filter(pk=row.pk).update(advanced_at=earlier)


def sent_again() -> list[str]:
    """Return the event ids that resends sent, in order."""
    rows = Delivery.objects.filter(trigger=Trigger.BULK).order_by("pk")
    return list(rows.values_list("event_id", flat=True))


# What is sent


def test_what_failed_is_sent_again_oldest_first_and_nothing_else() -> None:
    webhook, other = make_webhook(), make_webhook(name="Other", event_types=["sms.*"])
    failed = [finished(webhook) for _ in range(3)]
    for status in (Status.SUCCEEDED, Status.CANCELLED, Status.PARKED):
        finished(webhook, status)
    make_delivery(webhook)
    strange = finished(webhook)
    Delivery.objects.filter(pk=strange.pk).update(webhook=other)
    resend = run(resend_of(webhook))
    assert sent_again() == [one.event_id for one in failed]
    assert (resend.status, resend.total, resend.done) == (ResendStatus.FINISHED, 3, 3)
    copies = Delivery.objects.filter(trigger=Trigger.BULK)
    assert {(one.status, one.webhook_id) for one in copies} == {(Status.PENDING, webhook.pk)}


def test_everything_is_what_ended_and_not_what_waits() -> None:
    webhook = make_webhook()
    ended = [finished(webhook, status) for status in ("succeeded", "failed", "cancelled", "parked")]
    make_delivery(webhook)
    finished(webhook, Status.HELD, hold_reason="paused", finished_at=None)
    run(resend_of(webhook, scope=ResendScope.ALL))
    assert sent_again() == [one.event_id for one in ended]


def test_a_range_of_time_is_a_range_of_ids() -> None:
    webhook = make_webhook()
    rows = [finished(webhook) for _ in range(3)]
    now = timezone.now()
    for row, hours in zip(rows, [5, 3, 1], strict=True):
        made_at = now - dt.timedelta(hours=hours)
        moved = ids.floor("dlv", made_at.timestamp())
        Delivery.objects.filter(pk=row.pk).update(id=moved, created_at=made_at)
    since, until = now - dt.timedelta(hours=4), now - dt.timedelta(hours=2)
    run(resend_of(webhook, since_at=since, until_at=until))
    assert sent_again() == [rows[1].event_id]


def test_tests_are_not_sent_again() -> None:
    webhook = make_webhook()
    test = events.send_test(webhook)
    Delivery.objects.filter(pk=test.pk).update(status=Status.FAILED, next_attempt_at=None)
    assert resends.count(resend_of(webhook)) == 0
    assert resends.count(resend_of(webhook, scope=ResendScope.ALL)) == 0


@pytest.mark.parametrize("later", [Status.SUCCEEDED, Status.PENDING, Status.HELD])
def test_what_was_sent_again_by_hand_since_is_left_out(later: str) -> None:
    webhook = make_webhook()
    failed = finished(webhook)
    events.resend(Delivery.objects.filter(pk=failed.pk))
    again = Delivery.objects.get(trigger=Trigger.RESENT)
    due = timezone.now() if later == Status.PENDING else None
    Delivery.objects.filter(pk=again.pk).update(status=later, next_attempt_at=due)
    assert resends.count(resend_of(webhook)) == 0


def test_an_event_that_failed_twice_is_sent_once() -> None:
    webhook = make_webhook()
    failed = finished(webhook)
    events.resend(Delivery.objects.filter(pk=failed.pk))
    Delivery.objects.filter(trigger=Trigger.RESENT).update(
        status=Status.FAILED, next_attempt_at=None
    )
    for scope in (ResendScope.FAILED, ResendScope.ALL):
        assert resends.count(resend_of(webhook, scope=scope)) == 1
    both = sorted(Delivery.objects.values_list("pk", flat=True))
    run(resend_of(scope=ResendScope.SELECTION, delivery_ids=both, since_at=None))
    assert sent_again() == [failed.event_id]


def test_a_second_resend_after_the_first_finds_nothing_that_failed() -> None:
    webhook = make_webhook()
    finished(webhook)
    assert run(resend_of(webhook)).done == 1
    assert run(resend_of(webhook)).total == 0
    assert len(sent_again()) == 1


def test_a_selection_is_sent_to_the_webhook_of_each() -> None:
    crm, shop = make_webhook(), make_webhook(name="Shop")
    chosen = [finished(crm), finished(shop, Status.SUCCEEDED)]
    finished(crm)
    waiting = make_delivery(crm)
    picked = [*(one.pk for one in chosen), waiting.pk, "dlv_of_nobody"]
    resend = run(resend_of(scope=ResendScope.SELECTION, delivery_ids=picked, since_at=None))
    assert resend.total == 2
    copies = Delivery.objects.filter(trigger=Trigger.BULK).order_by("pk")
    assert [(one.event_id, one.webhook_id) for one in copies] == [
        (one.event_id, one.webhook_id) for one in chosen
    ]


def test_what_failed_of_every_webhook_is_sent_again_to_each() -> None:
    crm, shop, gone = make_webhook(), make_webhook(name="Shop"), make_webhook(name="Gone")
    failed = [finished(crm), finished(shop), finished(crm)]
    finished(shop, Status.SUCCEEDED)
    finished(gone)
    events.delete(gone)
    resend = run(resend_of(None))
    assert (resend.total, resend.done) == (3, 3)
    made = Delivery.objects.filter(trigger=Trigger.BULK).order_by("id")
    assert [(one.event_id, one.webhook_id) for one in made] == [
        (one.event_id, one.webhook_id) for one in failed
    ]


def test_of_every_webhook_one_resend_runs_at_a_time() -> None:
    finished(make_webhook())
    first = resends.start(resend_of(None))
    with pytest.raises(resends.AlreadyRunningError) as error:
        resends.start(resend_of(None))
    assert error.value.resend == first


def test_copies_of_a_paused_webhook_are_held() -> None:
    webhook = make_webhook()
    finished(webhook)
    events.pause(webhook)
    run(resend_of(webhook))
    copy = Delivery.objects.get(trigger=Trigger.BULK)
    assert (copy.status, copy.hold_reason) == (Status.HELD, HoldReason.PAUSED)
    assert copy.next_attempt_at is None
    events.resume(webhook)
    copy.refresh_from_db()
    assert copy.status == Status.PENDING


def test_nothing_is_sent_to_a_deleted_webhook() -> None:
    webhook = make_webhook()
    finished(webhook)
    resend = resends.start(resend_of(webhook))
    events.delete(webhook)
    resends.advance_all()
    resend.refresh_from_db()
    assert (resend.status, resend.done, sent_again()) == (ResendStatus.FINISHED, 0, [])


def test_what_fails_after_the_start_is_not_resent() -> None:
    webhook = make_webhook()
    finished(webhook)
    resend = resends.start(resend_of(webhook))
    late = finished(webhook)
    moved = ids.floor("dlv", timezone.now().timestamp() + 1)
    Delivery.objects.filter(pk=late.pk).update(id=moved)
    for _ in range(3):
        resends.advance_all()
        let_pass(resend, 5)
    assert late.event_id not in sent_again()


# How many, how fast


def test_what_was_under_way_at_the_start_and_fails_is_counted_once_it_is_sent_again() -> None:
    webhook = make_webhook()
    finished(webhook)
    waiting = make_delivery(webhook)
    resend = resends.start(resend_of(webhook))
    assert resend.total == 1
    Delivery.objects.filter(pk=waiting.pk).update(status=Status.FAILED, next_attempt_at=None)
    resends.advance_all()
    resend.refresh_from_db()
    assert (resend.done, resend.total) == (2, 2)


def test_a_page_counts_up_to_a_limit_and_the_worker_counts_the_rest(monkeypatch: Any) -> None:
    monkeypatch.setattr(resends, "COUNT_LIMIT", 4)
    monkeypatch.setattr(resends, "COUNT_CHUNK", 2)
    webhook = make_webhook()
    for _ in range(7):
        finished(webhook)
    assert resends.count(resend_of(webhook)) == 5
    resend = resends.start(resend_of(webhook))
    assert resend.total == 0
    resends.advance_all()
    resend.refresh_from_db()
    assert resend.total == 7


@pytest.mark.parametrize("scope", [ResendScope.ALL, ResendScope.FAILED])
def test_what_a_resend_made_is_not_resent_by_it_on_a_machine_whose_clock_is_behind(
    scope: ResendScope, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 180_000_000_000)
    webhook = make_webhook()
    rows = [finished(webhook) for _ in range(3)]
    monkeypatch.setattr(time, "time_ns", lambda: now - 110_000_000_000)
    resend = resends.start(resend_of(webhook, scope=scope, rate=1, until_at=None))
    for _ in range(8):
        resends.advance_all()
        let_pass(resend, 1)
        sent = Delivery.objects.filter(status=Status.PENDING)
        sent.update(status=Status.FAILED, next_attempt_at=None)
    resend.refresh_from_db()
    assert resend.status == ResendStatus.FINISHED
    assert sent_again() == [row.event_id for row in rows]
    assert resends.results(resend) == {Status.FAILED: 3}


@pytest.mark.parametrize("ahead", [dt.timedelta(days=1), dt.timedelta(days=3653)])
def test_a_resend_goes_on_when_the_clock_of_the_database_was_set_back(ahead: dt.timedelta) -> None:
    webhook = make_webhook()
    for _ in range(3):
        finished(webhook)
    resend = resends.start(resend_of(webhook, rate=1))
    assert resends.advance_all() == 1
    Resend.objects.update(advanced_at=timezone.now() + ahead)
    assert resends.advance_all() == 1
    let_pass(resend, 1)
    assert resends.advance_all() == 1


@pytest.fixture
def still_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the database's clock, so that a slow machine may send no more than a fast one."""
    moment = queue.backend().clock()
    monkeypatch.setattr(queue.backend(), "clock", lambda: moment)


@pytest.mark.usefixtures("still_clock")
@pytest.mark.slow
def test_the_rate_is_kept_by_the_clock_of_the_database() -> None:
    webhook = make_webhook()
    for _ in range(160):
        finished(webhook)
    resend = resends.start(resend_of(webhook, rate=10))
    assert resends.advance_all() == 10
    assert resends.advance_all() == 0
    let_pass(resend, 1.5)
    assert resends.advance_all() in (15, 16)
    # Workers that were away for an hour do not catch up on that hour.
    let_pass(resend, 3600)
    assert resends.advance_all() <= 120
    resend.refresh_from_db()
    assert resend.done == len(sent_again()) <= 145


@pytest.mark.usefixtures("still_clock")
def test_a_slow_rate_gets_there_too() -> None:
    webhook = make_webhook()
    for _ in range(3):
        finished(webhook)
    resend = resends.start(resend_of(webhook, rate=1))
    assert [resends.advance_all() for _ in range(3)] == [1, 0, 0]
    let_pass(resend, 0.6)
    assert resends.advance_all() == 0
    let_pass(resend, 0.6)
    assert resends.advance_all() == 1


def test_what_is_left_out_takes_nothing_of_a_low_rate(monkeypatch: Any) -> None:
    # One step per turn, as with many resends.
    monkeypatch.setattr(resends, "ADVANCE_SECONDS", 0.0)
    webhook = make_webhook()
    again = [finished(webhook) for _ in range(20)]
    for old in again:
        finished(webhook, Status.SUCCEEDED, event_id=old.event_id)
    failed = [finished(webhook) for _ in range(2)]
    resends.start(resend_of(webhook, rate=1))
    assert resends.advance_all() == 1
    assert sent_again() == [failed[0].event_id]
    let_pass(Resend.objects.get(), 1)
    assert resends.advance_all() == 1
    assert sent_again() == [one.event_id for one in failed]


def test_a_big_batch_is_put_in_with_small_commits(monkeypatch: Any) -> None:
    monkeypatch.setattr(resends, "BATCH", 3)
    monkeypatch.setattr(resends, "BATCHES", 2)
    webhook = make_webhook()
    failed = [finished(webhook) for _ in range(8)]
    resends.start(resend_of(webhook))
    assert resends.advance_all() == 6
    assert resends.advance_all() == 2
    assert sent_again() == [one.event_id for one in failed]


def test_many_resends_share_the_time_that_sweeps_need_as_well(monkeypatch: Any) -> None:
    monkeypatch.setattr(resends, "BATCH", 1)
    monkeypatch.setattr(resends, "ADVANCE_SECONDS", 0.0)
    for number in range(3):
        webhook = make_webhook(name=str(number))
        for _ in range(2):
            finished(webhook)
        resends.start(resend_of(webhook))
    # One step of one resend.
    assert resends.advance_all() == 1
    monkeypatch.setattr(resends, "ADVANCE_SECONDS", 5.0)
    assert resends.advance_all() == 5


@pytest.mark.slow
def test_of_many_resends_each_asks_for_its_next_turn_later(
    monkeypatch: Any,
) -> None:
    for number in range(5):
        finished(make_webhook(name=str(number)))
    for webhook in Webhook.objects.all():
        resends.start(resend_of(webhook, rate=1))
    waits: list[float] = []
    monkeypatch.setattr(tasks, "advance_soon", lambda pk, *, seconds: waits.append(seconds))
    monkeypatch.setattr(resends, "advance", lambda pk, *, among: time.sleep(0.5) or 0)
    tasks.advance_resend(resends.running()[0])
    assert waits[0] >= 4.0
    Resend.objects.exclude(pk=resends.running()[0]).delete()
    tasks.advance_resend(resends.running()[0])
    assert waits[1] == 2.0


@pytest.fixture
def requested_turns(monkeypatch: Any) -> Iterator[list[tuple[int, bool]]]:
    """Return the turns requested from the broker: the resend's id and whether it is delayed."""
    found: list[tuple[int, bool]] = []

    def note(body: Any, headers: Any, **_: Any) -> None:
        found.append((body[0][0], headers["eta"] is not None))

    monkeypatch.setattr(tasks, "wakeup", cache(ProcessWakeup))
    signals.before_task_publish.connect(note, sender=tasks.advance_resend.name)
    yield found
    signals.before_task_publish.disconnect(note, sender=tasks.advance_resend.name)


@pytest.mark.usefixtures("still_clock")
def test_a_resend_asks_for_its_turns_until_it_ends(
    requested_turns: list[tuple[int, bool]], django_capture_on_commit_callbacks: Any
) -> None:
    webhook = make_webhook()
    for _ in range(3):
        finished(webhook)
    with django_capture_on_commit_callbacks(execute=True):
        resend = events.start_resend(resend_of(webhook, rate=2))
        assert requested_turns == []
    assert requested_turns == [(resend.pk, False)]
    assert tasks.advance_resend(resend.pk) == 2
    assert requested_turns[1:] == [(resend.pk, True)]
    let_pass(resend, 5)
    assert tasks.advance_resend(resend.pk) == 1
    assert Resend.objects.get().status == ResendStatus.FINISHED
    assert len(requested_turns) == 2


def test_a_resend_waits_for_no_broker_that_is_away(
    requested_turns: list[tuple[int, bool]], monkeypatch: Any
) -> None:
    away = f"redis://127.0.0.1:{free_port()}/0"
    monkeypatch.setattr(tasks, "wakeup", cache(partial(RedisWakeup, away)))
    tasks.advance_soon(1)
    assert requested_turns == []


def test_nothing_to_send_is_finished_at_once() -> None:
    resend = resends.start(resend_of(make_webhook()))
    assert (resend.status, resend.total) == (ResendStatus.FINISHED, 0)
    assert resend.finished_at is not None


# Stopping, double clicks, crashes, several workers


@pytest.mark.usefixtures("still_clock")
def test_a_stopped_resend_puts_nothing_more_in() -> None:
    webhook = make_webhook()
    for _ in range(5):
        finished(webhook)
    resend = resends.start(resend_of(webhook, rate=2))
    assert resends.advance_all() == 2
    assert resends.stop(resend)
    assert not resends.stop(resend)
    let_pass(resend, 60)
    assert resends.advance_all() == 0
    resend.refresh_from_db()
    assert (resend.status, resend.done) == (ResendStatus.STOPPED, 2)
    assert resend.finished_at is not None


def test_a_webhook_has_one_resend_at_a_time() -> None:
    webhook = make_webhook()
    finished(webhook)
    first = resends.start(resend_of(webhook))
    with pytest.raises(resends.AlreadyRunningError) as refused:
        resends.start(resend_of(webhook, scope=ResendScope.ALL))
    assert refused.value.resend == first
    other = make_webhook(name="Other")
    finished(other)
    resends.start(resend_of(other))


def test_a_double_click_makes_one_resend_of_a_selection() -> None:
    user = get_user_model().objects.create_user("ann")
    one = finished(make_webhook())
    made = {"scope": ResendScope.SELECTION, "delivery_ids": [one.pk], "created_by": user}
    first = run(resend_of(**made))
    with pytest.raises(resends.AlreadyRunningError) as refused:
        resends.start(resend_of(**made))
    assert refused.value.resend == first
    assert len(sent_again()) == 1


def test_a_crash_between_insert_and_cursor_undoes_both(monkeypatch: Any) -> None:
    webhook = make_webhook()
    failed = [finished(webhook) for _ in range(4)]
    resend = resends.start(resend_of(webhook))

    class CrashError(Exception):
        pass

    def crash(*_: object, **__: object) -> object:
        raise CrashError

    with monkeypatch.context() as broken:
        broken.setattr(resends, "F", crash)
        with pytest.raises(CrashError):
            resends.advance(resend.pk)
    assert sent_again() == []
    resends.advance_all()
    assert sent_again() == [one.event_id for one in failed]


def test_a_step_that_was_overtaken_is_undone(monkeypatch: Any) -> None:
    webhook = make_webhook()
    finished(webhook)
    resend = resends.start(resend_of(webhook))
    real = resends.following

    def stopped_concurrently(row: Resend, limit: int) -> Any:
        rows = real(row, limit)
        Resend.objects.filter(pk=row.pk).update(cursor="dlv_further")
        return rows

    with monkeypatch.context() as slow:
        slow.setattr(resends, "following", stopped_concurrently)
        assert resends.advance(resend.pk) == 0
    assert sent_again() == []


@pytest.mark.django_db(transaction=True)
def test_several_workers_at_once_put_each_in_once() -> None:
    webhook = make_webhook()
    failed = [finished(webhook) for _ in range(60)]
    resends.start(resend_of(webhook, rate=10_000))
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            start.wait()
            for _ in range(5):
                resends.advance_all()
        except BaseException as failure:
            failures.append(failure)
        finally:
            connections.close_all()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resends, "BATCH", 7)
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
    assert not failures
    assert Counter(sent_again()) == Counter(one.event_id for one in failed)
    resend = Resend.objects.get()
    assert (resend.status, resend.done) == (ResendStatus.FINISHED, 60)


# Positive minutes: the database's clock was set back after the count began.
@pytest.mark.parametrize("minutes", [-2, 2])
def test_a_count_that_was_broken_off_is_taken_up_by_another(
    minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resends, "COUNT_LIMIT", 1)
    webhook = make_webhook()
    for _ in range(3):
        finished(webhook)
    resend = resends.start(resend_of(webhook))
    Resend.objects.filter(pk=resend.pk).update(advanced_at=timezone.now())
    assert resends.advance_all() == 0
    broken_off_at = timezone.now() + dt.timedelta(minutes=minutes)
    Resend.objects.filter(pk=resend.pk).update(advanced_at=broken_off_at)
    assert resends.advance_all() == 3


def test_the_task_notifies_only_when_something_was_put_in(monkeypatch: Any) -> None:
    notified: list[bool] = []
    monkeypatch.setattr(tasks, "notify", lambda: notified.append(True))
    assert tasks.advance_resends() == 0
    assert notified == []
    webhook = make_webhook()
    finished(webhook)
    resends.start(resend_of(webhook))
    assert tasks.advance_resends() == 1
    assert notified == [True]


def test_an_idle_turn_costs_one_query(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        resends.advance_all()


def test_results_are_those_of_the_new_deliveries() -> None:
    webhook = make_webhook()
    for _ in range(3):
        finished(webhook)
    resend = run(resend_of(webhook))
    first = Delivery.objects.filter(trigger=Trigger.BULK).order_by("pk")[0]
    Delivery.objects.filter(pk=first.pk).update(status=Status.SUCCEEDED, next_attempt_at=None)
    assert resends.results(resend) == {"succeeded": 1, "pending": 2}


def test_steps_read_ranges_of_ids(django_assert_max_num_queries: Any) -> None:
    """No COUNT, no OFFSET, no sort except by the key: the length of a resend costs nothing."""
    webhook = make_webhook()
    for _ in range(5):
        finished(webhook)
    resend = resends.start(resend_of(webhook))
    with django_assert_max_num_queries(25) as queries:
        resends.advance(resend.pk)
    for query in queries:
        assert "COUNT(" not in query["sql"].upper()
        assert "OFFSET" not in query["sql"].upper()
