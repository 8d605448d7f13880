"""Rows that an engine has claimed: bounded in rows and bytes, within limits, one suspect at a time.

Rows are claimed while the previous batch is prepared; rows that come too late are handed back.
"""

import datetime as dt
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
from django.db import OperationalError, connection
from django.db.models import F
from django.utils import timezone
from pytest_django import Settings

from tests.factories import PATIENCE_SECONDS, make_delivery, make_webhook, run_engine
from tests.polling import eventually
from tests.sandbox import Receiver
from webhooks import events, network
from webhooks.delivery import claims as module
from webhooks.delivery import db_session, queue
from webhooks.delivery import due as due_module
from webhooks.delivery import engine as engine_module
from webhooks.delivery.claims import ClaimBatch, Claims
from webhooks.delivery.engine import DrainCache, Engine
from webhooks.delivery.limiter import Limiters
from webhooks.delivery.queue import postgres, postgres_sql
from webhooks.delivery.queue.rows import Claimed, ClaimQuota
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import Attempt, Credential, Delivery, Outcome, Status, Webhook, WebhookState

pytestmark = pytest.mark.django_db(transaction=True)


def make_claims(limiters: Limiters | None = None) -> Claims:
    """Return the claims of an engine that knows every receiver to respond quickly by default."""
    if limiters is not None:
        return Claims(queue.backend(), "here", limiters)
    limiters = Limiters(64)
    for pk in Webhook.objects.values_list("pk", flat=True):
        limiters.begin(pk, failures=0)
    return Claims(queue.backend(), "here", limiters)


def take(claims: Claims) -> list[Claimed]:
    taken: list[Claimed] = []
    if (ready := queue.backend().page().candidates) and claims.has_room:
        claims.claim(ready, taken)
    return [claims.add(claim) for claim in taken]


def release(claims: Claims, taken: list[Claimed]) -> None:
    claims.release((claim.id, claim.webhook_id, claim.number) for claim in taken)


def give_back(claims: Claims, taken: list[Claimed]) -> None:
    release(claims, taken)
    queue.backend().hand_back(taken, lease="here")
    past = timezone.now() - dt.timedelta(seconds=1)
    Delivery.objects.filter(status=Status.PENDING).update(next_attempt_at=past)


def fill(webhook: Webhook, count: int, **payload: Any) -> None:
    for _ in range(count):
        make_delivery(webhook, **payload)


def test_large_events_are_claimed_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIMED_BYTES", 1_000_000)
    monkeypatch.setattr(module, "FIRST_MEAN_BYTES", 100_000)
    fill(make_webhook(), 30, note="x" * 100_000)
    claims = make_claims()
    first = take(claims)
    assert 1 <= len(first) <= 10
    while taken := take(claims):
        assert len(taken) <= 10
    assert len(claims) < 20
    release(claims, first)
    assert take(claims)


def test_large_events_after_small_ones_are_bounded_by_their_own_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLAIMED_BYTES", 1_000_000)
    monkeypatch.setattr(module, "FIRST_MEAN_BYTES", 100)
    fill(make_webhook(), 30, note="x" * 300_000)
    claims = make_claims()
    first = take(claims)
    assert 1 <= len(first) <= 4
    # Rows over the limit look as if they had never been claimed.
    waiting = Delivery.objects.filter(status=Status.PENDING)
    assert set(waiting.values_list("attempt_count", "lease")) == {(0, "")}
    assert waiting.count() == 30 - len(first)
    # The engine does not rest until the next poll.
    assert not claims.is_all
    assert claims.exhausted == []
    release(claims, first)
    assert take(claims)


@pytest.mark.database("postgres")
def test_a_claim_of_the_only_row_of_a_webhook_leaves_nothing_to_look_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLAIM_ROWS", 2)
    two, one = make_webhook(), make_webhook(event_types=["form.submitted"])
    fill(two, 2)
    published = events.publish("form.submitted", {"form_id": "f", "page_url": "p"})
    Delivery.objects.filter(event_id=published.event_id).exclude(webhook=one).delete()
    claims, taken = make_claims(), list[Claimed]()
    claims.claim(postgres.candidates([two.pk, one.pk]), taken)
    assert sorted(claim.webhook_id for claim in taken) == [two.pk, one.pk]
    assert claims.exhausted == [one.pk]


@pytest.mark.parametrize("limit", [{"concurrency_limit": 3}, {"is_ordered": True}])
def test_large_events_of_webhooks_with_a_limit_or_an_order_are_bounded_together(
    limit: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIMED_BYTES", 1_000_000)
    monkeypatch.setattr(module, "FIRST_MEAN_BYTES", 100)
    types = ["before", "answered", "forwarded", "after", "rated"]
    for type in types:
        make_webhook(event_types=[f"call.incoming.{type}"], **limit)
    for type in types:
        events.publish(f"call.incoming.{type}", {"note": "x" * 300_000})
    assert sum(len(claim.payload) for claim in take(make_claims())) < 1_500_000


def test_an_event_is_held_once_for_all_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIMED_BYTES", 1_000_000)
    webhooks = [make_webhook(name=str(number)) for number in range(20)]
    fill(webhooks[0], 1, note="x" * 300_000)
    claims = make_claims()
    taken: list[Claimed] = []
    while more := take(claims):
        taken += more
    assert len(taken) == 20
    assert len({id(claim.payload) for claim in taken}) == 1
    assert claims.has_room


def test_small_events_fill_the_whole_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIM_ROWS", 50)
    webhooks = [make_webhook(name=name) for name in "ABCDEFG"]
    for webhook in webhooks:
        fill(webhook, 10)
    assert len(take(make_claims())) == 50


def test_a_blocked_webhook_costs_nothing_until_something_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook(is_ordered=True)
    fill(webhook, 2)
    claims = make_claims()
    head = take(claims)
    asked: list[object] = []
    backend = queue.backend()
    claim_paced = backend.claim_paced

    def counted(quotas: object, **terms: Any) -> Any:
        asked.append(quotas)
        return claim_paced(quotas, **terms)

    monkeypatch.setattr(backend, "claim_paced", counted)
    for _ in range(20):
        assert take(claims) == []
    assert asked == []
    Delivery.objects.filter(pk=head[0].id).update(status="succeeded", next_attempt_at=None)
    assert claims.release([(head[0].id, webhook.pk, 1)])
    assert len(take(claims)) == 1
    assert len(asked) == 1


def test_a_suspect_is_no_matter_of_other_shards() -> None:
    webhooks = [make_webhook(), make_webhook()]
    for webhook in webhooks:
        fill(webhook, 1)
    suspicious, other = (webhook.pk % 2 for webhook in webhooks)
    Delivery.objects.filter(webhook=webhooks[0]).update(unknown_count=2)

    def has_suspects(*numbers: int) -> list[bool]:
        found = queue.backend().page(shards=2, numbers=numbers)
        return [one.has_suspects for one in found.candidates]

    assert has_suspects(suspicious) == [True]
    assert has_suspects(other) == [False]
    assert has_suspects(0, 1) == [True, True]


@pytest.mark.parametrize("limit", [{"concurrency_limit": 1}, {"rate_limit": 1}])
def test_a_suspect_keeps_to_the_limit_of_its_webhook(limit: dict[str, int]) -> None:
    webhook = make_webhook(rate_limit_seconds=60, **limit)
    fill(webhook, 3)
    suspect = Delivery.objects.order_by("-id")[0]
    Delivery.objects.filter(pk=suspect.pk).update(unknown_count=2)
    assert len(take(make_claims())) == 1


def test_a_suspect_does_not_pass_the_head_of_an_ordered_webhook() -> None:
    webhook = make_webhook(is_ordered=True)
    fill(webhook, 3)
    Delivery.objects.update(unknown_count=2)
    claims = make_claims()
    head = Delivery.objects.order_by("id")[0]
    assert [claim.id for claim in take(claims)] == [head.pk]
    assert take(claims) == []


def test_heads_and_tests_that_are_suspects_go_one_at_a_time_as_well() -> None:
    """Otherwise the next crash would be counted against all of them."""
    ordered = [make_webhook(name=str(number), is_ordered=True) for number in range(3)]
    paused = make_webhook(name="Paused", is_active=False, pause_reason="person")
    fill(make_webhook(), 1)
    events.send_test(paused)
    events.send_test(ordered[0])
    suspects = Delivery.objects.filter(status=Status.PENDING)
    assert suspects.update(unknown_count=2) == 6
    claims = make_claims()
    seen: list[Claimed] = []
    for _ in range(6):
        [one] = take(claims)
        assert take(claims) == []
        release(claims, [one])
        Delivery.objects.filter(pk=one.id).update(status=Status.SUCCEEDED, next_attempt_at=None)
        seen.append(one)
    assert len({claim.id for claim in seen}) == 6


def test_one_suspect_is_in_hand_at_a_time_whatever_limits_its_webhook() -> None:
    free, limited = make_webhook(), make_webhook(name="Limited", concurrency_limit=5)
    fill(free, 2)
    Delivery.objects.update(unknown_count=2)
    claims = make_claims()
    first = take(claims)
    assert len(first) == 1
    assert take(claims) == []
    seen = [*first]
    while len(seen) < 4:
        release(claims, seen[-1:])
        [one] = take(claims)
        seen.append(one)
    assert {claim.webhook_id for claim in seen} == {free.pk, limited.pk}


@pytest.mark.parametrize("limit", [{}, {"concurrency_limit": 5}], ids=["free", "limited"])
def test_the_suspect_of_a_receiver_that_hangs_comes_last(limit: dict[str, Any]) -> None:
    """It keeps the only place until its timeout."""
    limiters = Limiters(64)
    hangs, new, slow, *quick = [make_webhook(name=str(number), **limit) for number in range(6)]
    limiters.begin(hangs.pk, failures=3)
    for webhook in (slow, *quick):
        limiters.begin(webhook.pk, failures=0)
    limiters.get(slow.pk).mean_seconds = 1.2
    for _ in range(2):
        events.publish("call.incoming.after", {"call_id": "1"})
    Delivery.objects.update(unknown_count=2)
    claims = make_claims(limiters)
    seen: list[int] = []
    for _ in range(11):
        [one] = take(claims)
        release(claims, [one])
        Delivery.objects.filter(pk=one.id).update(status=Status.SUCCEEDED, next_attempt_at=None)
        seen.append(one.webhook_id)
    assert Counter(seen[:6]) == {webhook.pk: 2 for webhook in quick}
    assert seen[6:] == [new.pk, new.pk, slow.pk, slow.pk, hangs.pk]
    for _ in range(5):
        limiters.get(hangs.pk).note(Outcome.TIMEOUT, time.monotonic(), 10.0)
    assert take(claims) == [], "its circuit breaker is open"


def until_ready(engine: Engine) -> None:
    """Look until the webhook's plan is ready; another thread makes it."""

    def look() -> object:
        engine.look_at = 0.0
        return engine.look(time.monotonic())

    eventually(look)


def test_the_next_rows_are_claimed_while_the_last_are_prepared(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIM_ROWS", 5)
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    for _ in range(20):
        make_delivery(webhook)
    asked_before: list[bool] = []
    submit = Engine.submit

    def watched(engine: Engine, batch: ClaimBatch) -> None:
        if batch.is_full:
            asked_before.append(engine.claimer.is_busy)
        submit(engine, batch)

    monkeypatch.setattr(Engine, "submit", watched)
    run_engine(lambda: Delivery.objects.filter(status=Status.SUCCEEDED).count() == 20)
    assert asked_before
    assert asked_before[0]


def test_a_wakeup_while_rows_are_claimed_is_not_spun_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(ProcessWakeup(), lambda: False)
    waited: list[float] = []
    monkeypatch.setattr(engine.event, "wait", waited.append)
    engine.maintenance.look_at = time.monotonic() + 30
    engine.claimer.is_busy = True
    engine.notify()
    engine.rest()
    assert waited == [1.0]
    engine.claimer.batches.append(ClaimBatch([], {}, 0.0))
    engine.rest()
    assert waited == [1.0]


def test_a_wakeup_too_soon_after_a_look_is_not_left_to_the_next_scan(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As beside a webhook that is at its limit, whose rows are looked for less and less often."""
    monkeypatch.setattr(engine_module, "FIRST_SCAN_SECONDS", 3600.0)
    monkeypatch.setattr(engine_module, "BLOCKED_SCAN_SECONDS", 3600.0)
    limited = make_webhook(url=f"{receiver.url}/open/hook", concurrency_limit=1)
    fill(limited, 2)
    in_an_hour = timezone.now() + dt.timedelta(hours=1)
    first = Delivery.objects.order_by("pk")[:1].values("pk")
    Delivery.objects.filter(pk__in=first).update(
        status=Status.SENDING, lease="another", next_attempt_at=in_an_hour
    )
    other = make_webhook(url=f"{receiver.url}/open/hook", event_types=["deal.created"])
    backend, wakeup, ends = queue.backend(), ProcessWakeup(), time.monotonic() + 30
    made: list[Delivery] = []
    own_page = backend.page

    def page(**terms: Any) -> Any:
        found = own_page(**terms)
        if made:
            return found
        if engine.candidates:
            # After the page was read.
            made.append(make_delivery(other))
        wakeup.notify()
        time.sleep(0.2)
        return found

    def is_done() -> bool:
        return Delivery.objects.filter(webhook=other, status=Status.SUCCEEDED).exists()

    monkeypatch.setattr(backend, "page", page)
    engine = Engine(wakeup, lambda: is_done() or time.monotonic() > ends)
    engine.run(60.0)
    assert made
    assert is_done()


def test_a_new_receiver_comes_before_hundreds_that_hang(settings: Settings) -> None:
    """Both while the hanging receivers have all the slots they may have and when one is freed."""
    settings.WEBHOOKS_MAX_IN_FLIGHT = 16
    hanging = [make_webhook(name=str(number)) for number in range(40)]
    for webhook in hanging:
        fill(webhook, 1)
    claims = make_claims()
    for webhook in hanging:
        claims.limiters.get(webhook.pk).note(Outcome.TIMEOUT, time.monotonic(), 2.0)
    taken = take(claims)
    assert len(taken) == 10
    new = make_webhook(name="New")
    claims.limiters.current.pop(new.pk, None)
    fill(new, 1)
    assert [claim.webhook_id for claim in take(claims)] == [new.pk]
    release(claims, taken[:1])
    assert len(take(claims)) == 1


def test_webhooks_with_large_bodies_get_few_at_a_time_and_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine thread builds the bodies, and all other webhooks wait for it."""
    monkeypatch.setattr(module, "MADE_BYTES", 1_000_000)
    large, other = [make_webhook(name=name) for name in "AB"], make_webhook(name="C")
    for webhook in (*large, other):
        fill(webhook, 5)
    claims = make_claims()
    for webhook in large:
        claims.limiters.get(webhook.pk).note_made(600_000)
    served: set[int] = set()
    for _ in range(30):
        taken = take(claims)
        counted = Counter(claim.webhook_id for claim in taken)
        assert sum(counted[webhook.pk] for webhook in large) <= 3
        served |= set(counted)
        give_back(claims, taken)
        assert counted[other.pk] == 5 * 3
    assert len(served) == 3


def test_nothing_is_claimed_of_a_webhook_whose_answers_take_long_to_judge() -> None:
    webhooks = [make_webhook(name=name) for name in "AB"]
    fill(webhooks[0], 2)
    claims = make_claims()
    claims.slow_to_judge = {webhooks[0].pk}
    assert {claim.webhook_id for claim in take(claims)} == {webhooks[1].pk}


def test_large_bodies_that_a_claim_did_not_expect_go_back(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("webhooks.delivery.engine.MADE_BYTES", 10_000)
    large = make_webhook(url=f"{receiver.url}/open/a", date_format="unix")
    small = make_webhook(url=f"{receiver.url}/open/b", name="Small")
    fill(large, 4, note="x" * 20_000)
    made: list[int] = []
    submit = Engine.submit

    def counted(engine: Engine, batch: ClaimBatch) -> None:
        count = sum(claim.webhook_id == large.pk for claim in batch.claims)
        submit(engine, batch)
        back = [claim.webhook_id for claim in engine.sender.unsent]
        assert small.pk not in back
        made.append(count - len(back))

    monkeypatch.setattr(Engine, "submit", counted)
    cache = DrainCache()
    for webhook in (large, small):
        cache.limiters.begin(webhook.pk, failures=0)
    done = Delivery.objects.filter(status=Status.SUCCEEDED)
    run_engine(lambda: done.count() == 8, cache=cache)
    assert max(made) == 1
    assert cache.limiters.get(large.pk).mean_made_bytes > 40_000
    cache.close()


def test_bodies_of_receivers_that_hang_leave_memory_to_those_that_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BODY_BYTES", 1_000_000)
    hanging, quick = make_webhook(name="A"), make_webhook(name="B")
    fill(hanging, 4)
    claims = make_claims()
    for webhook in (hanging, quick):
        claims.limiters.get(webhook.pk).note_made(300_000)
    limiter = claims.limiters.get(hanging.pk)
    limiter.limit = 8
    limiter.note(Outcome.TIMEOUT, time.monotonic(), 2.0)
    taken = take(claims)
    first = next(one for one in taken if one.webhook_id == hanging.pk)
    claims.add_body(first, 300_000)
    give_back(claims, [one for one in taken if one is not first])
    assert {claim.webhook_id for claim in take(claims)} == {quick.pk}
    release(claims, [first])
    assert claims.body_bytes == 0


def test_what_is_claimed_while_the_drain_ends_goes_back() -> None:
    delivery = make_delivery(make_webhook())
    engine = Engine(ProcessWakeup(), lambda: False)
    until_ready(engine)
    for part in (engine.sender, engine.claimer, engine.writer):
        part.start()
    engine.claimer.request(engine.candidates, engine.ready)
    engine.finish()
    after = Delivery.objects.get(pk=delivery.pk)
    assert (after.status, after.attempt_count, after.lease) == (Status.PENDING, 0, "")
    assert len(engine.claims) == 0


def started(webhook: Webhook) -> Engine:
    """Start the threads of an engine that may claim several rows of a webhook at a time."""
    engine = Engine(ProcessWakeup(), lambda: False)
    engine.limiters.begin(webhook.pk, failures=0)
    until_ready(engine)
    for part in (engine.sender, engine.claimer, engine.writer):
        part.start()
    return engine


def test_an_error_between_a_claim_and_its_requests_gives_the_rows_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All but the row that may have caused it, which is parked if that happens every time."""
    webhook = make_webhook()
    fill(webhook, 3)
    engine = started(webhook)
    engine.claimer.request(engine.candidates, engine.ready)
    batch = eventually(engine.claimer.batch)
    assert batch is not None
    engine.note_claimed(batch)
    assert len(batch.claims) == 3

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(engine, "check", fail)
    with pytest.raises(RuntimeError):
        engine.submit(batch)
    engine.finish()
    statuses = Delivery.objects.order_by("id").values_list("status", "attempt_count")
    assert sorted(statuses) == [(Status.PENDING, 0), (Status.PENDING, 0), (Status.SENDING, 1)]


def test_rows_whose_events_cannot_be_read_go_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite claims and reads in one transaction.")
    webhook = make_webhook()
    small, large = make_delivery(webhook), make_delivery(webhook, note="x" * 20_000)
    engine = started(webhook)
    monkeypatch.setattr(postgres_sql, "EVENTS", "SELECT 1 / 0, %s::text[]")
    engine.claimer.request(engine.candidates, engine.ready)
    batch = eventually(engine.claimer.batch)
    assert batch is not None
    engine.note_claimed(batch)
    assert [claim.id for claim in batch.claims] == [small.pk]
    engine.hand_back()
    after = Delivery.objects.get(pk=large.pk)
    assert (after.status, after.attempt_count, after.lease) == (Status.PENDING, 0, "")
    engine.finish()


@pytest.mark.database("postgres")
@pytest.mark.parametrize("limits", [{}, {"rate_limit": 100}, {"is_ordered": True}])
@pytest.mark.parametrize("size", [10, 20_000])
def test_an_event_that_cannot_be_read_stops_no_others_and_is_parked(
    monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any], size: int
) -> None:
    """As with a lost chunk of a large value, PostgreSQL fails at each statement that reads it."""
    webhook = make_webhook(**limits)
    other = make_webhook(event_types=["form.submitted"], **limits)
    damaged, *behind = [make_delivery(webhook, note="x" * size) for _ in range(3)]
    free = [make_delivery(other, note="x" * size) for _ in range(3)]
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION pg_temp.payload_of(text, bytea) RETURNS bytea LANGUAGE plpgsql AS $$"
            f"BEGIN IF $1 = '{damaged.event_id}' THEN RAISE data_corrupted; END IF;"
            "RETURN $2; END $$"
        )
    reads = {
        "SMALL_EVENTS": ("THEN e.payload", "THEN pg_temp.payload_of(wanted.id, e.payload)"),
        "EVENTS": ("id, payload", "id, pg_temp.payload_of(id, payload)"),
    }
    for name, (before, after) in reads.items():
        statement = getattr(postgres_sql, name)
        assert before in statement
        monkeypatch.setattr(postgres_sql, name, statement.replace(before, after))
    claims = make_claims()
    sent: set[str] = set()
    for _ in range(4):
        taken = take(claims)
        assert damaged.pk not in {one.id for one in taken}
        sent |= {one.id for one in taken}
        Delivery.objects.filter(pk__in=sent).update(
            status=Status.SUCCEEDED, next_attempt_at=None, finished_at=timezone.now()
        )
        release(claims, taken)
        waiting = Delivery.objects.filter(pk=damaged.pk).exclude(status=Status.PARKED)
        waiting.update(next_attempt_at=timezone.now())
        queue.backend().expire([damaged.pk], time.time() + 1)
    assert sent >= {one.pk for one in free}
    assert Delivery.objects.get(pk=damaged.pk).status == Status.PARKED
    if not limits.get("is_ordered"):
        assert sent == {one.pk for one in (*free, *behind)}


def test_what_becomes_slow_while_a_drain_ends_goes_back_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook()
    fill(webhook, 3)
    engine = started(webhook)
    hold_a_slow_row(engine)
    limiter = engine.limiters.get(webhook.pk)
    engine.claimer.request(engine.candidates, engine.ready)
    batch = eventually(engine.claimer.batch)
    assert batch is not None
    engine.note_claimed(batch)
    limiter.limit = 0
    engine.submit(batch)
    eventually(lambda: len(limiter.waiting) == 3)
    recalled: list[int] = []
    monkeypatch.setattr(engine.sender, "recall", lambda pk, _version: recalled.append(pk))
    engine.note_end(1.0)
    assert recalled == []
    limiter.mean_seconds = 5.0
    engine.note_end(1.1)
    assert recalled == [webhook.pk]
    engine.finish()


def hold_a_slow_row(engine: Engine) -> None:
    engine.claims.add(Claimed("dlv_slow", 10**6, "evt_slow", 1, 0, "event", b"{}"))


def test_only_webhooks_with_rows_here_are_asked_each_second_whether_something_waits() -> None:
    """A drain keeps a limiter for each of a hundred thousand webhooks."""
    webhook = make_webhook()
    fill(webhook, 2)
    for number in range(20):
        make_webhook(name=str(number))
    claims = make_claims()
    taken = take(claims)
    assert claims.waiting_webhooks() == []
    request: Any = SimpleNamespace(claim=taken[0])
    for limiter in claims.limiters.in_use():
        limiter.add(request, 100.0)
    assert claims.waiting_webhooks() == [webhook.pk]
    release(claims, taken)
    assert claims.waiting_webhooks() == []


def test_a_drain_that_ends_claims_at_last_nothing_even_for_quick_receivers() -> None:
    make_delivery(make_webhook())
    engine = Engine(ProcessWakeup(), lambda: False)
    claims = engine.claims = make_claims()
    ready = queue.backend().page().candidates
    engine.note_end(3600.0)
    taken: list[Claimed] = []
    claims.claim(ready, taken)
    assert taken == []
    assert engine.may_end()
    # Nor once nothing slow is in hand.
    engine.note_end(1.0)
    claims.claim(ready, taken)
    assert taken == []
    hold_a_slow_row(engine)
    engine.note_end(1.0)
    claims.claim(ready, taken)
    assert len(taken) == 1


def test_a_drain_that_ends_beside_a_slow_row_goes_on_with_quick_and_new_receivers() -> None:
    webhooks = {name: make_webhook(name=name) for name in ("quick", "new", "slow", "failing")}
    engine = Engine(ProcessWakeup(), lambda: False)
    claims = engine.claims = make_claims()
    for webhook in webhooks.values():
        make_delivery(webhook)
    means = {"quick": 0.1, "new": None, "slow": 5.0, "failing": 0.1}
    for name, mean_seconds in means.items():
        claims.limiters.get(webhooks[name].pk).mean_seconds = mean_seconds
    claims.limiters.get(webhooks["failing"].pk).failures = 1
    hold_a_slow_row(engine)
    engine.note_end(1.0)
    taken: list[Claimed] = []
    claims.claim(queue.backend().page().candidates, taken)
    assert {one.webhook_id for one in taken} == {webhooks["quick"].pk, webhooks["new"].pk}


def test_a_claim_that_fails_brings_nothing_and_the_next_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_delivery(make_webhook())
    engine = Engine(ProcessWakeup(), lambda: False)
    until_ready(engine)
    monkeypatch.setattr("webhooks.delivery.db_session.BACKOFF_SECONDS", (0.05, 0.05))
    backend = queue.backend()
    claim = backend.claim
    failures = iter([True])

    def fails_once(*args: object, **terms: object) -> list[object]:
        if next(failures, False):
            raise OperationalError("the server closed the connection unexpectedly")
        return claim(*args, **terms)  # type: ignore[no-any-return]

    monkeypatch.setattr(backend, "claim", fails_once)
    for part in (engine.sender, engine.claimer, engine.writer):
        part.start()
    brought = []
    for _ in range(2):
        engine.claimer.request(engine.candidates, engine.ready)
        batch = eventually(engine.claimer.batch)
        assert batch is not None
        assert not engine.claimer.is_busy
        assert list(batch.failed) == ([] if brought else [engine.candidates[0].webhook_id])
        brought.append(len(batch.claims))
        time.sleep(0.1)
    assert brought == [0, 1]
    engine.finish()


def test_a_hand_back_whose_answer_was_lost_takes_nothing_from_the_next_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = make_delivery(make_webhook())
    engine = Engine(ProcessWakeup(), lambda: False)
    # Allow more than one row at a time.
    engine.limiters.begin(delivery.webhook_id, failures=0)
    until_ready(engine)
    for part in (engine.sender, engine.claimer, engine.writer):
        part.start()
    backend = queue.backend()
    hand_back = backend.hand_back
    losses = iter([True])

    def loses_its_answer(*args: Any, **terms: Any) -> Any:
        done = hand_back(*args, **terms)
        if next(losses, False):
            raise OperationalError("the server closed the connection unexpectedly")
        return done

    monkeypatch.setattr(backend, "hand_back", loses_its_answer)
    for _ in range(2):
        engine.claimer.request(engine.candidates, engine.ready)
        batch = eventually(engine.claimer.batch)
        assert batch is not None
        assert len(batch.claims) == 1
        engine.note_claimed(batch)
        if not engine.is_hand_back_open:
            engine.sender.unsent.extend(batch.claims)
        engine.hand_back()
        time.sleep(0.2)
    assert Delivery.objects.get(pk=delivery.pk).status == Status.SENDING
    assert len(engine.claims) == 1
    engine.finish()


@pytest.mark.database("postgres")
@pytest.mark.parametrize("is_recorded", [False, True])
def test_an_attempt_that_is_claimed_twice_is_sent_once(is_recorded: bool) -> None:
    """A crash of the database server lost the first claim."""
    delivery = make_delivery(make_webhook())
    engine = Engine(ProcessWakeup(), lambda: False)
    assert note_claimed_rows(engine) == 1
    if is_recorded:
        engine.claimer.is_busy = True
        result: Any = SimpleNamespace(
            delivery_id=delivery.pk,
            webhook_id=delivery.webhook_id,
            number=1,
            delay_seconds=None,
        )
        engine.writer.written.append([result])
        engine.record(time.monotonic())
    lose_claim(delivery)
    assert note_claimed_rows(engine) == 0


@pytest.mark.database("postgres")
def test_what_a_crash_of_the_server_gave_back_is_not_handed_back_from_its_next_claim() -> None:
    delivery = make_delivery(make_webhook())
    engine = Engine(ProcessWakeup(), lambda: False)
    # As if its event could not be read.
    engine.sender.unsent.extend(claim_rows(engine))
    engine.claimer.is_busy = True
    engine.hand_back()
    assert len(engine.sender.unsent) == 1, "a new session may follow a crash"
    lose_claim(delivery)
    assert note_claimed_rows(engine) == 1
    engine.claimer.is_busy = False
    engine.hand_back()
    assert Delivery.objects.get(pk=delivery.pk).status == Status.SENDING


def note_claimed_rows(engine: Engine) -> int:
    """Give an engine the rows claimed for it; return how many are to be sent."""
    batch = ClaimBatch(claim_rows(engine), {}, 0.0)
    assert len(batch.claims) == 1
    engine.note_claimed(batch)
    return len(batch.claims)


def claim_rows(engine: Engine) -> list[Claimed]:
    quotas = [ClaimQuota(pk, 10) for pk in Webhook.objects.values_list("pk", flat=True)]
    taken: list[Claimed] = queue.backend().claim(quotas, **engine.claims.terms)
    return taken


def lose_claim(delivery: Delivery) -> None:
    Delivery.objects.filter(pk=delivery.pk).update(
        status="pending", lease="", attempt_count=0, next_attempt_at=timezone.now()
    )


def test_a_row_that_is_claimed_again_while_it_is_held_counts_once() -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    claims = make_claims()
    [taken] = take(claims)
    later = claims.add(taken._replace(number=taken.number + 1))
    assert len(claims) == 1
    # The end of the earlier attempt does not release this one.
    release(claims, [taken])
    assert claims.held() == [later.id]
    release(claims, [later])
    assert (len(claims), claims.slow_webhooks()) == (0, [])


def test_one_webhook_whose_settings_cannot_be_read_keeps_no_plan_from_others(
    receiver: Receiver,
) -> None:
    odd = make_webhook(authorization_type="oauth2", client_id="x", token_url="https://a.example/")
    Credential.objects.filter(pk=odd.credential_id).update(token_url="https://[x]/")
    make_delivery(odd)
    good = make_delivery(make_webhook(url=f"{receiver.url}/open/"))
    run_engine(lambda: Delivery.objects.get(pk=good.pk).status == Status.SUCCEEDED)
    assert Delivery.objects.filter(webhook=odd).exclude(status=Status.SUCCEEDED).exists()


def test_large_events_of_quick_receivers_leave_a_turn_to_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CLAIMED_BYTES", 250_000)
    monkeypatch.setattr(module, "FIRST_MEAN_BYTES", 200_000)
    fill(make_webhook(event_types=["call.incoming.after"]), 40, note="x" * 200_000)
    claims = make_claims()
    new = make_webhook(event_types=["deal.created"])
    events.publish("deal.created", {"deal_id": "1"})
    # There is always room for one row, and the quick receiver always has one waiting.
    for _turn in range(40):
        taken = take(claims)
        if new.pk in {claim.webhook_id for claim in taken}:
            return
        release(claims, taken)
    raise AssertionError("a receiver that nobody knows yet gets nothing")


@pytest.mark.parametrize("places", [2, 4])
def test_where_few_connections_fit_receivers_that_hang_leave_some_to_the_others(
    receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch, places: int
) -> None:
    monkeypatch.setattr("webhooks.network.affordable_connections", lambda _wanted: places)
    # Do not wait for the hanging requests at the end.
    settings.WEBHOOKS_GRACE_SECONDS = 0
    for _ in range(20):
        make_webhook(url=f"{receiver.url}/slow/20", event_types=["deal.created"])
    good = make_webhook(url=f"{receiver.url}/open/hook", event_types=["call.*"])
    WebhookState.objects.create(webhook=good, last_attempt_at=timezone.now(), last_status_code=200)
    events.publish("deal.created", {"deal_id": "1"})
    hanging = Delivery.objects.filter(status=Status.SENDING).exclude(webhook=good)
    sent = Delivery.objects.filter(webhook=good, status=Status.SUCCEEDED)
    began: list[float] = []

    def is_good_sent() -> bool:
        if not began and hanging.count() >= places - 1:
            began.append(time.monotonic())
            fill(good, 5)
        return sent.count() == 5

    run_engine(is_good_sent)
    assert time.monotonic() - began[0] < 10


def test_receivers_that_hang_do_not_fill_the_memory_where_more_may_be_in_flight_than_fit(
    settings: Settings,
) -> None:
    settings.WEBHOOKS_MAX_IN_FLIGHT = 80
    for _ in range(50):
        make_webhook(event_types=["deal.created"])
    events.publish("deal.created", {"deal_id": "1"})
    claims = Claims(queue.backend(), "here", Limiters(64))
    claims.most_rows = 40
    while take(claims):
        pass
    assert claims.has_room


@pytest.mark.parametrize("count", [20, 1], ids=["many that never answered", "one that did"])
def test_large_events_to_receivers_that_hang_leave_memory_to_the_others(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLAIMED_BYTES", 1_000_000)
    limiters = Limiters(64)
    for number in range(count):
        condition = {"variable": "deal_id", "operator": "equals", "value": str(number)}
        hanging = make_webhook(event_types=["deal.created"], filter=condition)
        for _ in range(20 // count):
            events.publish("deal.created", {"deal_id": str(number), "note": "x" * 100_000})
    if count == 1:
        limiters.begin(hanging.pk, failures=0)
    claims = Claims(queue.backend(), "here", limiters)
    for _ in range(20):
        take(claims)
    quick = make_webhook(event_types=["call.*"])
    limiters.begin(quick.pk, failures=0)
    make_delivery(quick)
    claimed = [claim.webhook_id for _ in range(20) for claim in take(claims)]
    assert quick.pk in claimed


def test_rows_of_a_claim_whose_answer_was_lost_go_out_at_once(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(make_webhook(url=f"{receiver.url}/open/hook"), 1)
    backend = queue.backend()
    claim = backend.claim
    losses = iter([True])

    def loses_its_answer(*args: Any, **terms: Any) -> Any:
        claimed = claim(*args, **terms)
        if next(losses, False):
            raise OperationalError("the server closed the connection unexpectedly")
        return claimed

    monkeypatch.setattr(backend, "claim", loses_its_answer)
    done = Delivery.objects.filter(status=Status.SUCCEEDED)
    run_engine(done.exists, seconds=20)
    # It was sent once, and is not counted as in flight when a process died.
    assert list(done.values_list("attempt_count", "unknown_count")) == [(1, 0)]
    assert len(receiver.requests()) == 1


def test_rows_of_a_claim_whose_answer_was_lost_go_back_when_the_drain_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    delivery = make_delivery(make_webhook())
    backend = queue.backend()
    claim, lost = backend.claim, []

    def loses_its_answer(*args: Any, **terms: Any) -> Any:
        lost.extend(claim(*args, **terms))
        raise OperationalError("the server closed the connection unexpectedly")

    monkeypatch.setattr(backend, "claim", loses_its_answer)
    run_engine(lambda: bool(lost))
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempt_count) == (Status.PENDING, 0)


def test_a_suspect_whose_event_could_not_be_read_leaves_its_turn() -> None:
    fill(make_webhook(), 1)
    Delivery.objects.update(unknown_count=2)
    claims = make_claims()
    for _ in range(2):
        taken: list[Claimed] = []
        claims.claim(queue.backend().page().candidates, taken)
        assert len(taken) == 1
        # The row goes back without having been added to the held ones.
        queue.backend().hand_back(taken, lease="here")
        release(claims, taken)


@pytest.mark.database("postgres")
def test_what_goes_back_goes_before_the_next_claim(
    receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fault no row goes back while a claim is under way, and claims may never pause."""
    monkeypatch.setattr(db_session, "CALM_SECONDS", 3600.0)
    settings.WEBHOOKS_GRACE_SECONDS = 0
    slow = make_webhook(url=f"{receiver.url}/slow/20", event_types=["deal.created"])
    other = make_webhook(event_types=["call.*"])
    for number in range(50):
        events.publish("deal.created", {"deal_id": str(number)})
    wakeup, ends = ProcessWakeup(), time.monotonic() + 30
    # Wakeups never stop.
    monkeypatch.setattr(wakeup, "wait", lambda _seconds: time.sleep(0.001) or True)
    engine = Engine(wakeup, lambda: has_gone_back() or time.monotonic() > ends)
    sending = Delivery.objects.filter(webhook=slow, status=Status.SENDING)
    claim, claimed = engine.claims.claim, [0]
    monkeypatch.setattr(engine.claims, "claim", lambda *args: claimed.append(0) or claim(*args))
    before: list[int] = []

    def has_gone_back() -> bool:
        if not before and sending.exists():
            make_delivery(other)
            quota = [ClaimQuota(other.pk, 1)]
            # As if its event could not be read.
            engine.sender.unsent.extend(queue.backend().claim(quota, **engine.claims.terms))
            before.append(len(claimed))
        return bool(before) and not engine.sender.unsent

    engine.run(60.0)
    assert not engine.sender.unsent
    assert len(claimed) - before[0] <= 2


def test_only_quick_webhooks_with_light_rows_and_room_may_have_all_of_the_oldest() -> None:
    names = ["quick", "new", "failing", "busy", "heavy"]
    webhooks = {name: make_webhook(name=name).pk for name in names}
    claims = make_claims()
    limiters = {name: claims.limiters.get(pk) for name, pk in webhooks.items()}
    for limiter in limiters.values():
        limiter.limit = 64
    limiters["new"].mean_seconds = None
    limiters["failing"].failures = 1
    limiters["busy"].claimed = 400
    limiters["heavy"].mean_made_bytes = 20_000
    assert claims.may_have_oldest(webhooks.values()) == [webhooks["quick"]]
    claims.slow_to_judge = {webhooks["heavy"]}
    assert not claims.may_have_oldest(webhooks.values())
    claims.slow_to_judge = ()
    claims.most_rows = 100
    assert not claims.may_have_oldest(webhooks.values())
    claims.most_rows = 1000
    claims.is_ending = True
    assert not claims.may_have_oldest(webhooks.values())


@pytest.mark.database("postgres")
@pytest.mark.parametrize("failing", ["nothing", "claim", "page", "name"])
def test_what_becomes_due_a_moment_after_a_look_is_claimed_without_another(
    failing: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is of a webhook that the look did not find, which the next one does."""
    monkeypatch.setattr(engine_module, "WOKEN_LOOK_SECONDS", 3600.0)
    # Otherwise the memory of a webhook ends before a slow machine comes to it.
    monkeypatch.setattr(engine_module, "LOOK_SECONDS", 3600.0)
    backend = queue.backend()
    steps: list[str] = []

    def page(**terms: Any) -> Any:
        steps.append("look")
        if failing == "page" and steps.count("look") == 2:
            raise OperationalError("gone")
        return own_page(**terms)

    def claim_oldest(webhook_ids: list[int], **terms: Any) -> Any:
        steps.append("claim")
        if failing == "claim" and steps.count("claim") == 2:
            raise OperationalError("gone")
        return own_claim(webhook_ids, **terms)

    def check(self: Engine, target: network.Target) -> network.Resolution | None:
        if failing == "name" and steps[-1] == "claim" and "name expired" not in steps:
            steps.append("name expired")
            return None
        return own_check(self, target)

    own_page, own_claim, own_check = backend.page, backend.claim_oldest, Engine.check
    monkeypatch.setattr(backend, "page", page)
    monkeypatch.setattr(backend, "claim_oldest", claim_oldest)
    monkeypatch.setattr(Engine, "check", check)
    url = f"{receiver.url}/open/hook"
    known = make_webhook(url=url, event_types=["call.incoming.after"])
    unknown = make_webhook(url=url, event_types=["call.outgoing.after"])
    cache = DrainCache()
    for webhook in (known, unknown):
        limiter = cache.limiters.get(webhook.pk)
        limiter.limit, limiter.mean_seconds = 64, 0.0
    left = [known, known, known, unknown, known, unknown]
    count = len(left)

    def is_done() -> bool:
        if Delivery.objects.exclude(status=Status.SUCCEEDED).exists():
            return False
        if left:
            make_delivery(left.pop(0))
        return Delivery.objects.filter(status=Status.SUCCEEDED).count() == count

    run_engine(is_done, cache=cache)
    cache.close()
    assert Attempt.objects.count() == count
    assert steps.count("claim") > 1
    if failing == "name":
        assert steps[steps.index("name expired") + 1] == "look"


@pytest.mark.database("postgres")
def test_what_a_wakeup_announces_between_two_looks_is_claimed_without_one(
    receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is of a webhook that no look found, or that was changed since."""
    settings.WEBHOOKS_POLL_SECONDS = 3600.0
    # No claims of the oldest rows, which may take any number of them just after a look.
    monkeypatch.setattr(engine_module, "WOKEN_LOOK_SECONDS", 0.0)
    # On a slow machine, a look may take long enough for the engine to expect that of a claim too.
    monkeypatch.setattr(due_module, "CHEAP_SECONDS", 3600.0)
    backend = queue.backend()
    steps: list[str] = []

    def watch(name: str) -> None:
        own = getattr(backend, name)

        def watched(*values: Any, **terms: Any) -> Any:
            steps.append(name)
            return own(*values, **terms)

        monkeypatch.setattr(backend, name, watched)

    for name in ("page", "claim", "claim_tests", "claim_few"):
        watch(name)
    url = f"{receiver.url}/open"
    known = make_webhook(url=f"{url}/a", event_types=["call.incoming.after"])
    other = make_webhook(url=f"{url}/b", event_types=["call.outgoing.after"])
    cache = DrainCache()
    for webhook in (known, other):
        limiter = cache.limiters.get(webhook.pk)
        limiter.limit, limiter.mean_seconds = 64, 0.0

    def publish(webhook: Webhook) -> Callable[[], object]:
        return lambda: make_delivery(webhook)

    def change() -> None:
        Webhook.objects.filter(pk=known.pk).update(url=f"{url}/c", version=F("version") + 1)
        make_delivery(known)

    begun: list[str] = []
    turns: list[tuple[str, Callable[[], object]]] = [
        ("first", publish(known)),
        ("known", publish(known)),
        ("several", lambda: [make_delivery(known) for _ in range(5)]),
        ("new", publish(other)),
        ("both", lambda: [make_delivery(webhook) for webhook in (other, known, other)]),
        ("changed", change),
        ("same", publish(known)),
        ("test", lambda: events.send_test(known, "webhook.test")),
        ("after the test", publish(known)),
        ("more", lambda: [make_delivery(known) for _ in range(40)]),
        ("again", publish(known)),
    ]
    ends = time.monotonic() + PATIENCE_SECONDS

    def should_stop() -> bool:
        if Delivery.objects.exclude(status=Status.SUCCEEDED).exists():
            return time.monotonic() > ends
        if len(begun) == len(turns):
            return True
        name, act = turns[len(begun)]
        begun.append(name)
        steps.append(name)
        act()
        engine.notify()
        return False

    engine = Engine(ProcessWakeup(), should_stop, cache)
    engine.run(2 * PATIENCE_SECONDS)
    cache.close()
    taken = {
        name: steps[steps.index(name) + 1 : [*steps, following].index(following)]
        for (name, _), (following, _) in zip(turns, [*turns[1:], ("end", None)], strict=True)
    }
    # A plan that was made a moment after a look found it may cause one more.
    for name in ("known", "several", "both", "same", "again"):
        assert (taken[name][0], "claim" in taken[name]) == ("claim_few", False), taken
    for name in ("first", "new", "changed", "test", "more"):
        assert taken[name].index("page") < taken[name].index("claim"), taken
    assert not Delivery.objects.exclude(attempt_count=1).exists()
    assert {attempt.number for attempt in Attempt.objects.all()} == {1}
    paths = Counter(request.path for request in receiver.requests())
    assert paths == {"/open/a": 8, "/open/b": 3, "/open/c": 45}


@pytest.mark.database("postgres")
def test_an_idle_drain_plans_the_next_claims(
    receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOKS_POLL_SECONDS = 0.02
    backend = queue.backend()
    plan, planned_for = backend.plan_ahead, []

    def plan_ahead() -> None:
        plan()
        planned_for.append(Delivery.objects.filter(attempt_count=1).count())

    monkeypatch.setattr(backend, "plan_ahead", plan_ahead)
    webhook = make_webhook(url=f"{receiver.url}/open")
    begun_at = time.monotonic()
    run_engine(lambda: time.monotonic() > begun_at + 0.2)
    # It has sent nothing yet, so it claims nothing without a look.
    assert planned_for == []
    make_delivery(webhook)
    run_engine(lambda: bool(planned_for))
    assert set(planned_for) == {1}


@pytest.mark.database("postgres")
def test_the_oldest_are_not_claimed_while_due_rows_have_to_wait(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "WOKEN_LOOK_SECONDS", 3600.0)

    def claim_oldest(*_: object, **__: object) -> NoReturn:
        raise AssertionError

    monkeypatch.setattr(queue.backend(), "claim_oldest", claim_oldest)
    free = make_webhook(url=f"{receiver.url}/open/a", event_types=["call.incoming.after"])
    ordered = make_webhook(is_ordered=True, event_types=["call.outgoing.after"])
    cache = DrainCache()
    limiter = cache.limiters.get(free.pk)
    limiter.limit, limiter.mean_seconds = 64, 0.0
    # Its head waits for its next attempt, and the row behind it for the head.
    head = make_delivery(ordered)
    make_delivery(ordered)
    later = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.filter(pk=head.pk).update(next_attempt_at=later)
    left = 3

    def is_done() -> bool:
        nonlocal left
        done = Delivery.objects.filter(webhook=free)
        if left and not done.exclude(status=Status.SUCCEEDED).exists():
            left -= 1
            make_delivery(free)
        return done.filter(status=Status.SUCCEEDED).count() == 3

    run_engine(is_done, cache=cache)
    cache.close()


@pytest.mark.database("postgres")
@pytest.mark.parametrize(
    "change",
    [
        {"is_active": False, "pause_reason": "person", "paused_at": timezone.now()},
        {"is_ordered": True},
        {"rate_limit": 5},
        {"cancels_before": timezone.now()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_webhook_that_has_to_wait_by_now_gets_none_of_the_oldest(change: dict[str, Any]) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    engine = started(webhook)
    assert webhook.pk in engine.sendable
    assert engine.oldest_until
    Webhook.objects.filter(pk=webhook.pk).update(version=F("version") + 1, **change)
    engine.look_at = 0.0
    engine.look(time.monotonic())
    assert not engine.sendable
    assert not engine.oldest_until
    engine.finish()


@pytest.mark.database("postgres")
def test_a_drain_of_some_shards_and_a_backlog_leave_the_oldest_alone(settings: Settings) -> None:
    settings.WEBHOOKS_SHARDS = 2
    webhook = make_webhook()
    fill(webhook, 2)
    engine = started(webhook)
    assert engine.oldest_until
    # As after a claim that left some.
    engine.note_claimed(ClaimBatch([], {}, time.monotonic()))
    assert not engine.oldest_until
    engine.look_at = 0.0
    engine.look(time.monotonic())
    assert engine.oldest_until
    engine.shards.numbers = [webhook.pk % 2]
    engine.look_at = 0.0
    engine.look(time.monotonic())
    assert not engine.oldest_until
    engine.finish()


def test_many_tests_to_a_receiver_that_hangs_leave_the_places_to_others() -> None:
    hanging = make_webhook(event_types=["deal.*"])
    for _ in range(10):
        events.send_test(hanging)
    claims = Claims(queue.backend(), "here", Limiters(64))
    taken: list[Claimed] = []
    for _ in range(5):
        taken += take(claims)
    # As many as its limit allows, by each of the two statements that claim tests.
    assert 1 <= len(taken) <= 2
    other = make_webhook(event_types=["call.*"])
    fill(other, 1)
    assert [one.webhook_id for one in take(claims)] == [other.pk]
    release(claims, taken)
    assert {one.webhook_id for one in take(claims)} == {hanging.pk}


def test_a_test_goes_although_deliveries_use_the_whole_limit() -> None:
    busy = make_webhook()
    claims = Claims(queue.backend(), "here", Limiters(64))
    fill(busy, 5)
    assert len(take(claims)) == 1
    test = events.send_test(busy)
    assert [one.id for one in take(claims)] == [test.pk]
    events.send_test(busy)
    assert take(claims) == []
