"""The queue: claims are exclusive, fair and leased; a record counts only with its lease."""

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models import F, Min
from django.utils import timezone
from pytest_django import Settings

from tests.factories import make_credential, make_delivery, make_webhook
from webhooks import events
from webhooks.delivery import queue
from webhooks.delivery.plans import present_versions
from webhooks.delivery.queue.rows import AttemptResult, Claimed, ClaimQuota, StateChange
from webhooks.models import Attempt, Delivery, Event, Status, Webhook, WebhookState

pytestmark = pytest.mark.django_db(transaction=True)
TERMS = {"lease": "here", "lease_seconds": 60.0}


def claim(webhook_id: int, quota: int = 100, lease: str = "here") -> list[Claimed]:
    return queue.backend().claim([ClaimQuota(webhook_id, quota)], lease=lease, lease_seconds=60.0)


def succeeded(row: Claimed) -> AttemptResult:
    attempt = (
        row.id, row.number, timezone.now(), None, None, None, None, 1.0, "127.0.0.1", "POST /",
        "", None, 204, "", b"", 0, "succeeded", "",
    )  # fmt: skip
    return AttemptResult(
        row.id, row.webhook_id, row.number, "succeeded", None, "", "succeeded", 204, False, attempt
    )


@pytest.mark.database("postgres")
def test_a_claim_of_the_oldest_takes_no_row_of_others_and_reports_them() -> None:
    types = ("call.incoming.after", "call.incoming.before", "call.outgoing.after")
    first, second, other = (make_webhook(event_types=[one]) for one in types)
    ids = [first.pk, second.pk]

    def oldest(limit: int, **terms: Any) -> tuple[list[str], bool]:
        found, has_others = queue.backend().claim_oldest(ids, limit=limit, **terms, **TERMS)
        assert all(row.payload and row.number == 1 for row in found)
        return [row.id for row in found], has_others

    rows = [make_delivery(webhook).pk for webhook in (first, second, first, other, second)]
    assert oldest(2) == (rows[:2], False)
    # Of the other one's rows it only tells, if it took any.
    assert oldest(3) == ([rows[2], rows[4]], True)
    assert oldest(3) == ([], False)
    leased = Delivery.objects.filter(status=Status.SENDING, lease="here", attempt_count=1)
    assert set(leased.values_list("pk", flat=True)) == {*rows[:3], rows[4]}
    test = events.send_test(first, "webhook.test")
    suspect, later, new = make_delivery(first), make_delivery(second), make_delivery(first)
    Delivery.objects.filter(pk=suspect.pk).update(unknown_count=2)
    tomorrow = timezone.now() + dt.timedelta(days=1)
    Delivery.objects.filter(pk=later.pk).update(next_attempt_at=tomorrow)
    assert oldest(9) == ([new.pk], True)
    assert Delivery.objects.get(pk=test.pk).status == Status.PENDING
    # Only those that became due since.
    of_second = make_delivery(second).pk
    assert oldest(9, since=time.time() + 60) == ([], False)
    assert oldest(9) == ([of_second], True)


@pytest.mark.database("postgres")
def test_a_claim_of_a_few_takes_rows_of_webhooks_that_need_not_wait_with_what_their_plans_need(
    settings: Settings,
) -> None:
    types = ("call.incoming.after", "call.incoming.before", "call.outgoing.after")
    first, second, other = (make_webhook(event_types=[one]) for one in types)
    ids = [first.pk, second.pk]
    looked = {one.webhook_id: one for one in queue.backend().candidates(ids)}
    assert not looked

    def few(limit: int, **terms: Any) -> tuple[list[str], list[int], bool]:
        claimed, found, is_whole = queue.backend().claim_few(ids, limit=limit, **terms, **TERMS)
        assert all(row.payload and row.number == 1 for row in claimed)
        for one in found:
            assert one == looked[one.webhook_id]._replace(has_suspects=False, has_one_row=False)
        return [row.id for row in claimed], [one.webhook_id for one in found], is_whole

    rows = [make_delivery(webhook).pk for webhook in (first, second, first)]
    looked |= {one.webhook_id: one for one in queue.backend().candidates(ids)}
    assert few(2) == (rows[:2], [first.pk, second.pk], False)
    assert few(2) == (rows[2:], [first.pk], True)
    assert few(2) == ([], [], False)
    # A large event is read apart from its row.
    settings.WEBHOOKS_MAX_PAYLOAD_BYTES = 100_000
    large = events.publish("call.incoming.after", {"call_id": "1", "note": "x" * 50_000})
    assert len(few(2)[0]) == 1
    assert Delivery.objects.get(event=large.event_id).status == Status.SENDING
    # Other rows stay, and it tells that there are some.
    left = make_delivery(other)
    suspect, mine = make_delivery(first), make_delivery(second)
    Delivery.objects.filter(pk=suspect.pk).update(unknown_count=2)
    test = events.send_test(first, "webhook.test")
    assert few(9) == ([mine.pk], [second.pk], False)
    assert few(9, since=time.time() + 60) == ([], [], False)
    waiting = Delivery.objects.filter(pk__in=[left.pk, suspect.pk, test.pk])
    assert waiting.filter(status=Status.PENDING).count() == 3
    waiting.delete()
    # So do those of a webhook that has to wait by now.
    for change in (
        {"is_active": False, "pause_reason": "person", "paused_at": timezone.now()},
        {"is_ordered": True},
        {"rate_limit": 5},
        {"concurrency_limit": 5},
        {"deleted_at": timezone.now()},
        {"cancels_before": timezone.now()},
    ):
        row = make_delivery(first)
        before = Webhook.objects.filter(pk=first.pk).values(*change).get()
        Webhook.objects.filter(pk=first.pk).update(**change)
        mine = make_delivery(second)
        assert few(9) == ([mine.pk], [second.pk], False)
        Webhook.objects.filter(pk=first.pk).update(**before)
        row.delete()
    # And it reports every change that a plan has to be made again for.
    Webhook.objects.filter(pk=second.pk).update(version=F("version") + 1)
    make_delivery(second)
    looked = {one.webhook_id: one for one in queue.backend().candidates(ids)}
    assert len(few(9)[0]) == 1


def test_a_claim_takes_due_rows_oldest_first_up_to_the_quota() -> None:
    webhook = make_webhook()
    made = [make_delivery(webhook).pk for _ in range(5)]
    taken = claim(webhook.pk, quota=3)
    assert [row.id for row in taken] == made[:3]
    assert {row.number for row in taken} == {1}
    assert Delivery.objects.filter(status=Status.SENDING).count() == 3


def test_a_claimed_row_is_not_claimed_again() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    assert len(claim(webhook.pk)) == 1
    assert claim(webhook.pk) == []


def test_a_row_that_is_due_later_is_left() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    Delivery.objects.update(next_attempt_at=timezone.now() + dt.timedelta(seconds=30))
    assert claim(webhook.pk) == []
    assert queue.backend().page().candidates == []


@pytest.mark.database("postgres")
def test_rows_that_were_due_before_are_left_out_if_asked() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    backend = queue.backend()
    now = backend.clock()
    quotas, terms = [ClaimQuota(webhook.pk, 5)], {"lease": "here", "lease_seconds": 0.0}
    assert backend.page(since=now + 60).candidates == []
    assert backend.page(since=now + 60).next_due_seconds is None
    assert backend.claim(quotas, since=now + 60, **terms) == []
    assert len(backend.page(since=now - 60).candidates) == 1
    assert len(backend.claim(quotas, since=now - 60, **terms)) == 1
    assert backend.late(now + 3600, since=now + 60) == []
    assert len(backend.late(now + 3600, since=now - 60)) == 1


def test_a_page_says_when_the_next_row_of_its_shards_is_due() -> None:
    assert queue.backend().page().next_due_seconds is None
    first, second = make_webhook(), make_webhook(event_types=["deal.*"])
    make_delivery(first)
    make_row(second.pk)
    in_seconds = {first.pk: 300, second.pk: 3000}
    for pk, seconds in in_seconds.items():
        due_at = timezone.now() + dt.timedelta(seconds=seconds)
        Delivery.objects.filter(webhook=pk).update(next_attempt_at=due_at)
    # Primary keys may have gaps.
    shards = second.pk - first.pk + 1
    for pk, seconds in in_seconds.items():
        found = queue.backend().page(shards=shards, numbers=[pk % shards]).next_due_seconds
        assert found is not None
        assert seconds - 250 < found <= seconds


def test_candidates_are_the_webhooks_with_due_rows_whatever_their_number() -> None:
    busy, quiet = make_webhook(), make_webhook(event_types=["deal.*"], concurrency_limit=1)
    make_webhook(event_types=["deal.*"])
    for _ in range(20):
        make_delivery(busy)
    make_row(quiet.pk)
    found = {candidate.webhook_id: candidate for candidate in queue.backend().page().candidates}
    assert set(found) == {busy.pk, quiet.pk}
    assert (found[busy.pk].is_paced, found[quiet.pk].is_paced) == (False, True)
    assert found[busy.pk].version == busy.version_sent


def make_row(webhook_id: int) -> Delivery:
    event = Delivery.objects.select_related("event").first()
    assert event is not None
    return Delivery.objects.create(
        webhook_id=webhook_id, event=event.event, next_attempt_at=timezone.now()
    )


def test_a_record_needs_the_lease_and_the_number_of_its_claim() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    [row] = claim(webhook.pk)
    record = queue.backend().record
    assert record([succeeded(row)], lease="another") == 0
    assert record([succeeded(row._replace(number=2))], lease="here") == 0
    assert Delivery.objects.get().status == Status.SENDING
    assert record([succeeded(row)], lease="here") == 1
    assert Delivery.objects.get().status == Status.SUCCEEDED


def test_a_record_that_may_have_been_written_is_not_written_twice() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    [row] = claim(webhook.pk)
    record = queue.backend().record
    record([succeeded(row)], lease="here")
    record([succeeded(row)], lease="here", is_repeat=True)
    assert Attempt.objects.count() == 1


@pytest.mark.database("postgres")
@pytest.mark.parametrize("count", [1, 40])
def test_a_result_is_recorded_though_a_crash_of_the_server_lost_its_claim(count: int) -> None:
    webhook = make_webhook()
    for _ in range(count):
        make_delivery(webhook)
    taken = claim(webhook.pk)
    Delivery.objects.update(
        status="pending", lease="", attempt_count=0, next_attempt_at=timezone.now()
    )
    failed = [succeeded(row)._replace(status="pending", delay_seconds=5.0) for row in taken[1:]]
    results = [succeeded(taken[0]), *failed]
    assert queue.backend().record(results, lease="here") == count
    assert set(Delivery.objects.values_list("lease", "attempt_count")) == {("", 1)}
    assert Delivery.objects.filter(status="succeeded").count() == 1
    assert queue.backend().record(results, lease="here", is_repeat=True) == 0
    assert Attempt.objects.count() == count


@pytest.mark.database("postgres")
@pytest.mark.parametrize(
    "now",
    [
        {"status": "sending", "lease": "another", "attempt_count": 1},
        {"status": "held", "lease": "", "attempt_count": 0, "next_attempt_at": None},
        {"status": "cancelled", "lease": "", "attempt_count": 0, "next_attempt_at": None},
        {"status": "pending", "lease": "", "attempt_count": 1},
    ],
    ids=lambda now: now["status"],
)
def test_a_result_whose_row_is_somebody_elses_by_now_changes_nothing(now: dict[str, Any]) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    [row] = claim(webhook.pk)
    Delivery.objects.update(**now)
    assert queue.backend().record([succeeded(row)], lease="here") == 0
    assert Delivery.objects.values_list(*now).get() == tuple(now.values())


def test_rows_handed_back_are_as_if_they_had_not_been_claimed() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    taken = claim(webhook.pk)
    queue.backend().hand_back(taken, lease="here")
    row = Delivery.objects.get()
    assert (row.status, row.attempt_count, row.lease) == (Status.PENDING, 0, "")
    assert len(claim(webhook.pk)) == 1


def test_an_ordered_webhook_gives_only_its_oldest_open_row() -> None:
    webhook = make_webhook(is_ordered=True)
    made = [make_delivery(webhook).pk for _ in range(3)]
    paced = queue.backend().claim_paced
    assert [row.id for row in paced([ClaimQuota(webhook.pk, 10)], **TERMS)] == made[:1]
    assert paced([ClaimQuota(webhook.pk, 10)], **TERMS) == []
    later = timezone.now() + dt.timedelta(minutes=1)
    Delivery.objects.filter(pk=made[0]).update(status="pending", next_attempt_at=later, lease="")
    assert paced([ClaimQuota(webhook.pk, 10)], **TERMS) == []


def test_a_rate_limit_gives_a_burst_and_then_nothing() -> None:
    webhook = make_webhook(rate_limit=3, rate_limit_seconds=60)
    for _ in range(10):
        make_delivery(webhook)
    paced = queue.backend().claim_paced
    taken = len(paced([ClaimQuota(webhook.pk, 100)], **TERMS))
    assert taken == 1
    assert paced([ClaimQuota(webhook.pk, 100)], **TERMS) == []


def test_a_concurrency_limit_counts_what_every_worker_sends() -> None:
    webhook = make_webhook(concurrency_limit=2)
    for _ in range(5):
        make_delivery(webhook)
    paced = queue.backend().claim_paced
    assert len(paced([ClaimQuota(webhook.pk, 100)], lease="one", lease_seconds=60.0)) == 2
    assert paced([ClaimQuota(webhook.pk, 100)], lease="two", lease_seconds=60.0) == []


@pytest.mark.slow
def test_eight_claimers_never_take_the_same_row() -> None:
    webhook = make_webhook()
    made = {make_delivery(webhook).pk for _ in range(200)}
    taken: list[str] = []

    def work(number: int) -> None:
        try:
            while rows := claim(webhook.pk, quota=7, lease=str(number)):
                taken.extend(row.id for row in rows)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(Counter(taken).values()) == 1
    assert set(taken) == made


def test_expired_leases_come_back_and_are_parked_after_three() -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    past = timezone.now() - dt.timedelta(seconds=1)
    for count, status in enumerate([Status.PENDING, Status.PENDING, Status.PARKED], start=1):
        Delivery.objects.update(status="sending", next_attempt_at=past, lease="x")
        [row] = queue.backend().expire([delivery.pk], time.time())
        assert (row.id, row.status) == (delivery.pk, status)
        assert Delivery.objects.get().unknown_count == count
    assert Attempt.objects.filter(outcome="unknown").count() == 3


def test_a_held_row_keeps_those_behind_it_back_in_an_ordered_webhook() -> None:
    webhook = make_webhook(is_ordered=True)
    older, newer = make_delivery(webhook), make_delivery(webhook)
    held = {"status": "held", "hold_reason": "no_token", "next_attempt_at": None}
    Delivery.objects.filter(pk=older.pk).update(**held)
    paced = queue.backend().claim_paced
    assert paced([ClaimQuota(webhook.pk, 10)], **TERMS) == []
    released = {"status": "pending", "hold_reason": "", "next_attempt_at": timezone.now()}
    Delivery.objects.filter(pk=older.pk).update(**released)
    assert [row.id for row in paced([ClaimQuota(webhook.pk, 10)], **TERMS)] == [older.pk]
    assert Delivery.objects.get(pk=newer.pk).status == Status.PENDING


@pytest.mark.parametrize("limit", [(10, 1), (1, 60)])
def test_a_schedule_that_lies_too_far_ahead_stops_nothing(limit: tuple[int, int]) -> None:
    webhook = make_webhook(rate_limit=limit[0], rate_limit_seconds=limit[1])
    for _ in range(3):
        make_delivery(webhook)
    # Set by a wrong clock, or under a slower limit.
    far = timezone.now() + dt.timedelta(days=3650)
    WebhookState.objects.create(webhook=webhook, next_send_at=far)
    taken = queue.backend().claim_paced([ClaimQuota(webhook.pk, 1)], **TERMS)
    assert len(taken) == 1
    state = WebhookState.objects.get()
    assert state.next_send_at is not None
    assert state.next_send_at < timezone.now() + dt.timedelta(seconds=61)


@pytest.mark.slow
def test_two_claimers_never_exceed_a_concurrency_limit() -> None:
    webhook = make_webhook(concurrency_limit=1)
    for _ in range(3):
        make_delivery(webhook)
    seen: list[int] = []
    ends = time.monotonic() + 2.0

    def work(lease: str) -> None:
        try:
            while time.monotonic() < ends:
                mine = queue.backend().claim_paced(
                    [ClaimQuota(webhook.pk, 5)], lease=lease, lease_seconds=60.0
                )
                if mine:
                    seen.append(Delivery.objects.filter(status=Status.SENDING).count())
                    queue.backend().hand_back(mine, lease=lease)
        finally:
            connection.close()

    threads = [threading.Thread(target=work, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1}


def test_a_row_whose_event_was_deleted_is_cancelled_and_stops_no_one() -> None:
    webhook = make_webhook()
    lost, kept = make_delivery(webhook), make_delivery(webhook)
    Event.objects.filter(pk=lost.event_id)._raw_delete("default")
    assert [row.id for row in claim(webhook.pk)] == [kept.pk]
    assert Delivery.objects.get(pk=lost.pk).status == Status.CANCELLED


def test_another_connection_of_the_same_age_is_another_version() -> None:
    one, two = (make_credential(name=name) for name in "AB")
    webhook = make_webhook(credential=one)
    make_delivery(webhook)
    versions = set()
    for credential in (one, two, webhook.own_credential):
        Webhook.objects.filter(pk=webhook.pk).update(credential=credential)
        [candidate] = queue.backend().page().candidates
        present = Webhook.objects.select_related("credential").get(pk=webhook.pk)
        assert candidate.version == present.version_sent
        assert present_versions([webhook.pk]) == {webhook.pk: (candidate.version, 0)}
        versions.add(candidate.version)
    assert len(versions) == 3


def test_health_is_written_for_all_and_those_that_fail_are_named() -> None:
    well, timed_out, refused = (make_webhook().pk for _ in range(3))
    since = timezone.now() - dt.timedelta(minutes=2)
    WebhookState.objects.create(webhook_id=refused, failing_since_at=since, failures_in_a_row=3)
    error = '{"code":"http_client_error","status":400,"text":"a, b\\\\ and \'ї\'"}'
    now = time.monotonic()
    failing = dict(
        queue.backend().write_states(
            [
                StateChange(refused, False, 400, error, 2, False, now),
                StateChange(well, True, 204, "", 0, True, now),
                StateChange(timed_out, False, None, "", 1, True, now),
            ]
        )
    )
    assert failing.keys() == {timed_out, refused}
    assert failing[timed_out] < 60 <= failing[refused]
    states = WebhookState.objects.in_bulk()
    assert [states[pk].last_status_code for pk in (well, timed_out, refused)] == [204, None, 400]
    assert [states[pk].failures_in_a_row for pk in (well, timed_out, refused)] == [0, 1, 5]
    assert states[refused].last_error == error
    assert states[refused].last_success_at is None
    assert None not in (states[well].last_success_at, states[timed_out].last_success_at)


def test_what_is_older_than_what_another_drain_wrote_is_not_news() -> None:
    webhook = make_webhook().pk
    now = time.monotonic()

    def write(succeeded: bool, ended_at: float) -> WebhookState:
        code = 204 if succeeded else 503
        change = StateChange(webhook, succeeded, code, "", int(not succeeded), succeeded, ended_at)
        queue.backend().write_states([change])
        return WebhookState.objects.get()

    written = write(True, now - 60)
    after = write(False, now - 120)
    assert (after.failing_since_at, after.failures_in_a_row) == (None, 0)
    assert (after.last_status_code, after.last_attempt_at) == (204, written.last_attempt_at)
    after = write(False, now)
    assert (after.failures_in_a_row, after.last_status_code) == (1, 503)
    assert after.failing_since_at
    assert write(True, now - 5).failing_since_at
    WebhookState.objects.update(last_attempt_at=timezone.now() + dt.timedelta(hours=1))
    # A clock was set back.
    assert write(True, now).failing_since_at is None


def test_an_answer_ends_the_count_of_crashes() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    Delivery.objects.update(unknown_count=1)
    [row] = claim(webhook.pk)
    later = succeeded(row)._replace(status="pending", delay_seconds=5.0, outcome="server_error")
    queue.backend().record([later], lease="here")
    assert Delivery.objects.get().unknown_count == 0


def test_nothing_is_held_for_a_pause_that_is_over() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    assert queue.backend().hold([webhook.pk], "paused") == 0
    assert queue.backend().hold([webhook.pk], "no_token") == 1


def test_holding_leaves_tests_alone() -> None:
    webhook = make_webhook()
    rows = [make_delivery(webhook).pk for _ in range(3)]
    Delivery.objects.filter(pk=rows[0]).update(trigger="test")
    assert queue.backend().hold([webhook.pk], "no_token") == 2
    assert Delivery.objects.get(pk=rows[0]).status == Status.PENDING


def test_a_test_that_comes_back_after_its_webhook_was_deleted_is_cancelled() -> None:
    webhook, other = make_webhook(), make_webhook()
    test = events.send_test(webhook)
    assert [row.has_tests for row in queue.backend().page().candidates] == [True]
    Webhook.objects.filter(pk=webhook.pk).update(deleted_at=timezone.now())
    assert [row.has_tests for row in queue.backend().page().candidates] == [False]
    kept = events.send_test(other)
    assert queue.backend().hold([webhook.pk, other.pk], "paused") == 1
    assert Delivery.objects.get(pk=test.pk).status == Status.CANCELLED
    assert Delivery.objects.get(pk=kept.pk).status == Status.PENDING


def test_no_backlog_keeps_the_rows_of_another_webhook_from_being_held() -> None:
    webhook, other = make_webhook(), make_webhook(event_types=["form.submitted"])
    for _ in range(5):
        make_delivery(webhook)
    last = make_delivery(other, form_id="f", page_url="p").pk
    assert queue.backend().hold([webhook.pk, other.pk], "no_token", 4) == 3
    assert Delivery.objects.get(pk=last).status == Status.HELD
    assert queue.backend().hold([webhook.pk, other.pk], "no_token", 1) == 1


def test_a_thread_whose_drain_ended_publishes_after_a_rollback() -> None:
    """Tasks run in such threads and publish too: incident notices are events."""
    webhook = make_webhook()
    events.publish("call.incoming.after", {"call_id": "1"})
    queue.backend().prepare_session()
    assert len(claim(webhook.pk)) == 1
    queue.backend().reset_session()
    with transaction.atomic():
        make_webhook()
        transaction.set_rollback(True)
    assert events.publish("call.incoming.after", {"call_id": "2"}).deliveries == 1
    several = [events.NewEvent("call.incoming.after", {"call_id": number}) for number in "345"]
    assert [one.deliveries for one in events.publish_each(several)] == [1, 1, 1]
    assert len(claim(webhook.pk)) == 4


def test_the_clock_is_the_databases() -> None:
    assert abs(queue.backend().clock() - timezone.now().timestamp()) < 60


def test_a_row_that_is_held_here_or_whose_lease_ended_during_the_call_is_not_taken_back() -> None:
    webhook = make_webhook()
    held, gone = make_delivery(webhook), make_delivery(webhook)
    past = timezone.now() - dt.timedelta(seconds=1)
    Delivery.objects.update(status="sending", next_attempt_at=past, lease="x")
    backend, before = queue.backend(), past.timestamp() - 1
    assert backend.late(before) == []
    assert backend.expire([held.pk, gone.pk], before) == []
    assert backend.late(time.time(), held=[held.pk]) == [gone.pk]
    assert [row.id for row in backend.expire([gone.pk], time.time())] == [gone.pk]
    assert Delivery.objects.get(pk=held.pk).status == Status.SENDING


@pytest.mark.database("postgres")
def test_a_lease_counts_from_the_end_of_a_claim_that_waited() -> None:
    delivery = make_delivery(make_webhook())
    quotas = [ClaimQuota(delivery.webhook_id, 1)]
    with transaction.atomic():
        with connection.cursor() as cursor:
            # now() stays the same within the transaction while it waits.
            cursor.execute("SELECT clock_timestamp() FROM pg_sleep(1.2)")
            (waited_until,) = cursor.fetchone()
        queue.backend().claim(quotas, lease="x", lease_seconds=1.0)
    claimed = Delivery.objects.get(pk=delivery.pk)
    assert claimed.next_attempt_at is not None
    assert claimed.next_attempt_at >= waited_until + dt.timedelta(seconds=1)


def wait_of(webhook: Webhook) -> float | None:
    return {one.webhook_id: one.wait_seconds for one in queue.backend().page().candidates}[
        webhook.pk
    ]


def test_an_ordered_webhook_waits_until_its_head_is_due() -> None:
    webhook = make_webhook(is_ordered=True)
    head = make_delivery(webhook)
    make_delivery(webhook)
    assert wait_of(webhook) == 0.0
    Delivery.objects.filter(pk=head.pk).update(status="sending", lease="x")
    assert wait_of(webhook) is None
    later = timezone.now() + dt.timedelta(minutes=1)
    Delivery.objects.filter(pk=head.pk).update(status="pending", lease="", next_attempt_at=later)
    assert wait_of(webhook) == pytest.approx(60, abs=5)


def test_a_webhook_with_a_concurrency_limit_waits_while_it_is_full() -> None:
    webhook = make_webhook(concurrency_limit=1)
    sent = make_delivery(webhook)
    make_delivery(webhook)
    assert wait_of(webhook) == 0.0
    Delivery.objects.filter(pk=sent.pk).update(status="sending", lease="x")
    assert wait_of(webhook) is None


def test_a_webhook_with_a_rate_limit_waits_for_its_next_turn() -> None:
    webhook = make_webhook(rate_limit=1, rate_limit_seconds=60)
    for _ in range(3):
        make_delivery(webhook)
    assert wait_of(webhook) == 0.0
    queue.backend().claim_paced([ClaimQuota(webhook.pk, 1)], **TERMS)
    assert wait_of(webhook) == pytest.approx(60, abs=5)


def test_heads_of_many_webhooks_are_claimed_at_once() -> None:
    webhooks = [make_webhook(name=str(number), is_ordered=True) for number in range(30)]
    for _ in range(2):
        make_delivery(webhooks[0])
    firsts = Delivery.objects.values("webhook").annotate(head=Min("id"))
    heads = set(firsts.values_list("head", flat=True))
    quotas = [ClaimQuota(webhook.pk, 1) for webhook in webhooks]
    taken = queue.backend().claim_paced(quotas, **TERMS)
    assert {row.id for row in taken} == heads


@pytest.mark.database("sqlite")
@pytest.mark.slow
def test_a_head_is_found_without_reading_what_waits_behind_it_or_was_sent() -> None:
    """For PostgreSQL see `test_query_plans`."""
    webhook = make_webhook(is_ordered=True)
    head = make_delivery(webhook)
    quotas = [ClaimQuota(webhook.pk, 1)]

    def steps(work: Callable[[], object]) -> int:
        counted = [0]

        def count() -> None:
            counted[0] += 1

        connection.connection.set_progress_handler(count, 10)
        try:
            work()
        finally:
            connection.connection.set_progress_handler(None, 0)
        return counted[0]

    few = steps(queue.backend().page)
    done, waiting = (
        {"status": "succeeded"},
        {"status": "pending", "next_attempt_at": timezone.now()},
    )
    for order, fields in (("0", done), ("z", waiting)):
        Delivery.objects.bulk_create(
            Delivery(
                pk=f"dlv_{order}{number:025}", event_id=head.event_id, webhook=webhook, **fields
            )
            for number in range(3000)
        )
    assert steps(queue.backend().page) < 2 * few
    taken: list[Claimed] = []
    assert steps(lambda: taken.extend(queue.backend().claim_paced(quotas, **TERMS))) < 3 * few
    assert [row.id for row in taken] == [head.pk]
    # While the head is being sent, and while it is held, the others wait.
    assert queue.backend().claim_paced(quotas, **TERMS) == []
    Delivery.objects.filter(pk=head.pk).update(status="held", lease="", next_attempt_at=None)
    assert queue.backend().claim_paced(quotas, **TERMS) == []
    Delivery.objects.filter(pk=head.pk).update(status="succeeded")
    [second] = queue.backend().claim_paced(quotas, **TERMS)
    assert second.id == f"dlv_z{0:025}"
