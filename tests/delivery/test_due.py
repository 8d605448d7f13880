"""When very many webhooks have due rows, each is looked at in turn, whatever the others do."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from tests.factories import make_delivery, make_many_webhooks
from webhooks.delivery import due as module
from webhooks.delivery import queue
from webhooks.delivery.due import MIN_WINDOW, WINDOW, DueWebhooks
from webhooks.delivery.queue import postgres, postgres_sql
from webhooks.delivery.queue.rows import Candidate, Page
from webhooks.models import Delivery, Webhook, WebhookState


class FakeQueue:
    """Stand-in for the queries of `DueWebhooks`; its webhooks were all due from the beginning."""

    def __init__(self, webhooks: Sequence[int]) -> None:
        # It is session and clock as well.
        self.clock = self
        self.due = list(webhooks)
        self.now = 1000.0
        self.changes: dict[int, float] = {}
        self.asked_since: list[float] = []
        self.looked_at: Counter[int] = Counter()
        self.own: dict[str, Any] = {}
        # Whether `candidates` fails.
        self.is_faulty = False

    def run(self, work: Callable[[], Any]) -> Any:
        return work()

    def wall(self) -> float:
        return self.now

    def page(self, *, after: int = 0, limit: int, **_own: Any) -> Page:
        found = [pk for pk in self.due if pk > after][:limit]
        last = found[-1] if len(found) == limit else None
        return Page([candidate(pk) for pk in found], last, None)

    def walk(self, *, after: int, limit: int, **_own: Any) -> tuple[list[int], int | None]:
        found, last, _ = self.page(after=after, limit=limit)
        return [one.webhook_id for one in found], last

    def became_due(self, since: float, **_own: Any) -> dict[int, float]:
        self.asked_since.append(since)
        return {pk: at for pk, at in self.changes.items() if at > since}

    def candidates(self, webhook_ids: Sequence[int], **_own: Any) -> list[Candidate] | None:
        if self.is_faulty:
            return None
        self.looked_at.update(webhook_ids)
        known = set(self.due)
        return [candidate(pk) for pk in webhook_ids if pk in known]


def candidate(webhook_id: int) -> Candidate:
    return Candidate(webhook_id, 1, 0, 0, True, False, False, False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [5000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def _due(fake: FakeQueue) -> DueWebhooks:
    due = DueWebhooks(fake, fake, fake)  # type: ignore[arg-type]
    due.look()
    assert due.are_many
    return due


def test_one_that_comes_back_often_is_looked_at_once_for_each_time(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)
    for _ in range(50):
        due.wait(1, None)
        due.wake([1])
        due.look()
        clock[0] += 0.01
    due.wait(1, 0.5)
    fake.looked_at.clear()
    for _ in range(20):
        due.look()
        clock[0] += 0.01
    assert fake.looked_at[1] == 0
    clock[0] += 1.0
    due.look()
    assert fake.looked_at[1] == 1


def test_one_that_is_due_as_the_many_come_to_an_end_waits_for_no_poll(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)
    fake.due = []
    while due.are_many:
        clock[0] += 1.0
        fake.due, fake.now = [7], fake.now + 1.0
        fake.changes = {7: fake.now}
        assert [one.webhook_id for one in due.look() or []] == [7]
        due.note_claimed([7], [7], [], 1)


def test_thousands_that_wait_for_something_keep_none_that_said_when(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    for webhook_id in range(1, 6000):
        due.wait(webhook_id, None)
    due.wait(6000, 0.2)
    clock[0] += 0.25
    fake.looked_at.clear()
    due.look()
    assert fake.looked_at[6000] == 1
    assert fake.looked_at.total() <= WINDOW


def test_those_that_never_may_take_few_turns_of_others(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    others = 0
    for webhook_id in range(1, 3001):
        due.wait(webhook_id, None)
    for _ in range(20):
        clock[0] += 0.3
        for candidate in due.look() or []:
            if candidate.webhook_id <= 3000:
                due.wait(candidate.webhook_id, None)
            else:
                others += 1
    assert others > 20 * (WINDOW - MIN_WINDOW)


def test_those_whose_wait_is_over_leave_turns_for_others(clock: list[float]) -> None:
    """Also while few are looked at because most of them get no slot."""
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    found = [one.webhook_id for one in due.look() or []]
    due.note_claimed(found[:1], found[:1], found[1:], 1)
    for webhook_id in range(1, 2001):
        due.wait(webhook_id, 0.2)
    for webhook_id in range(2001, 6000):
        due.wait(webhook_id, None)
    clock[0] += 1.0
    new = range(9000, 9020)
    fake.changes = dict.fromkeys(new, fake.now)
    fake.due += new
    fake.looked_at.clear()
    due.look()
    assert [fake.looked_at[webhook_id] for webhook_id in new] == [1] * len(new)
    assert fake.looked_at.total() <= MIN_WINDOW


def test_those_without_a_place_are_not_read_again_at_each_walk(clock: list[float]) -> None:
    """While no slot is free, finding more webhooks is not urgent."""
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)
    for _ in range(100):
        found = [one.webhook_id for one in due.look() or []]
        due.note_claimed([], [], found, 0)
        clock[0] += 0.1
    assert not due.has_others
    # They still have their turns.
    assert set(fake.looked_at) == set(fake.due)
    before = fake.looked_at.total()
    due.look()
    assert fake.looked_at.total() - before == MIN_WINDOW


def test_one_that_said_when_is_not_behind_those_that_did_not(clock: list[float]) -> None:
    """A wait of up to a minute, as for a rate limit; longer ones are also looked at before."""
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    for webhook_id in range(1, 6000):
        due.wait(webhook_id, None)
    due.wait(6000, 50.0)
    for _ in range(49):
        clock[0] += 1.0
        for candidate in due.look() or []:
            due.wait(candidate.webhook_id, None if candidate.webhook_id < 6000 else 1.0)
    clock[0] += 1.5
    fake.looked_at.clear()
    due.look()
    assert fake.looked_at[6000] == 1


def test_one_whose_plan_is_made_again_is_not_behind_thousands(clock: list[float]) -> None:
    """Thousands of these do not delay a webhook with a known wait either."""
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    for webhook_id in range(1, 5999):
        due.wait(webhook_id, None)
        if webhook_id > 3000:
            due.look_no_later_than(webhook_id, clock[0] + 20.0)
    due.wait(5999, None)
    due.look_no_later_than(5999, clock[0] + 15.0)
    due.wait(6000, 50.0)

    def turns(seconds: float) -> None:
        for _ in range(round(seconds)):
            clock[0] += 1.0
            fake.looked_at.clear()
            for candidate in due.look() or []:
                due.wait(candidate.webhook_id, None if candidate.webhook_id < 6000 else 1.0)

    turns(15)
    assert fake.looked_at[5999] == 1
    turns(35)
    assert fake.looked_at[6000] == 1


def test_a_long_wait_is_looked_at_before_its_end(clock: list[float]) -> None:
    """A setting may have changed."""
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)
    due.wait(1, 50.0)
    due.wait(2, 500.0)
    clock[0] += 10.5
    fake.looked_at.clear()
    due.look()
    assert fake.looked_at[1] == fake.looked_at[2] == 1


def test_those_whose_turn_a_fault_took_are_not_behind_thousands(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    fake.due.append(9000)
    fake.changes[9000] = fake.now
    fake.is_faulty = True
    assert due.look() is None
    fake.is_faulty = False
    del fake.changes[9000]
    fake.looked_at.clear()
    due.look()
    assert fake.looked_at[9000] == 1


def test_those_whose_claim_failed_are_not_behind_thousands(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    found = [one.webhook_id for one in due.look() or []]
    due.note_fault(found)
    due.note_claimed([], [], [], 0)
    fake.looked_at.clear()
    for _ in range(3):
        again = [one.webhook_id for one in due.look() or []]
        due.note_claimed(again, again, [], len(again))
    assert set(found) <= set(fake.looked_at)


@pytest.mark.parametrize("reason", ["a wait", "no place"])
def test_new_rows_of_those_that_are_blocked_keep_no_others_waiting(
    clock: list[float], reason: str
) -> None:
    """One event is published for thousands of blocked webhooks."""
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    for webhook_id in range(1, 6001) if reason == "a wait" else ():
        due.wait(webhook_id, 60.0)
    while due.has_others:
        due.note_claimed([], [], [one.webhook_id for one in due.look() or []], 0)
        clock[0] += 0.1
    fake.due.append(9000)
    fake.now += 1.0
    # The newest come first; those of the same time come in any order.
    order = [*range(1, 3001), 9000, *range(3001, 6001)]
    fake.changes = dict.fromkeys(order, fake.now)
    fake.looked_at.clear()
    due.look()
    assert fake.looked_at[9000] == 1
    # The blocked webhooks may have a test delivery or a head that was set free.
    assert len(fake.looked_at) > 1


def test_those_that_may_go_after_a_wait_come_by_the_hundred(clock: list[float]) -> None:
    """For a plan or a DNS name: thousands of new webhooks wait for each once."""
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    for webhook_id in range(1, 3001):
        due.wait(webhook_id, None)
    clock[0] += 1.0
    went = looks = 0
    while went < 3000:
        looks += 1
        for candidate in due.look() or []:
            due.clear_wait(candidate.webhook_id)
            went += candidate.webhook_id <= 3000
    assert looks < 16


def test_a_large_backlog_is_not_read_again_at_each_look(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)
    fake.asked_since.clear()
    for _ in range(10):
        clock[0] += 0.01
        fake.now += 0.01
        due.look()
    long = [since for since in fake.asked_since if since < fake.now - 1.0]
    assert len(long) <= 1
    # Rows that a long transaction committed late are still found.
    fake.changes[9000] = fake.now - 1.5
    fake.due.append(9000)
    clock[0] += module.ASK_AGAIN_SECONDS
    due.look()
    assert fake.looked_at[9000] == 1


def test_each_moment_is_asked_for_twice_however_long_asking_takes(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 3001))
    asked: list[tuple[float, float]] = []

    def slow(since: float, **_own: Any) -> dict[int, float]:
        asked.append((since, fake.now))
        clock[0] += 0.2
        fake.now += 0.2
        return {}

    fake.became_due = slow  # type: ignore[method-assign]
    due = _due(fake)
    while len(asked) < 100:
        due.look()
    # Repeated queries for late commits: each begins no later than the last one was made.
    again = [(since, at) for since, at in asked if since < at - 1.0]
    assert len(again) > 10
    assert all(since <= before for (_, before), (since, _) in pairwise(again))


def test_while_rows_are_many_few_webhooks_get_more_each(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)
    for _ in range(4):
        found = due.look(400) or []
        served = [one.webhook_id for one in found]
        due.note_claimed(served, [], [], 4 * len(served))
    fake.looked_at.clear()
    due.look(400)
    assert fake.looked_at.total() == MIN_WINDOW
    # These webhooks have no more rows.
    due.note_claimed(served, served, [], len(served))
    fake.looked_at.clear()
    due.look(400)
    assert fake.looked_at.total() == 400


def test_fewer_are_looked_at_while_most_of_them_get_no_place(clock: list[float]) -> None:
    """Receivers that have not responded yet share a part of the slots."""
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)
    found = [one.webhook_id for one in due.look() or []]
    assert len(found) == WINDOW
    due.note_claimed(found[:80], found[:80], found[80:], 80)
    fake.looked_at.clear()
    again = [one.webhook_id for one in due.look() or []]
    assert len(again) == 160
    assert set(again) & set(found[80:]), "they come before the others"
    due.note_claimed(again, again, [], len(again))
    assert len(due.look() or []) == WINDOW


def test_one_that_has_more_is_not_behind_thousands_that_may_have_to_wait(
    clock: list[float],
) -> None:
    fake = FakeQueue(range(1, 6001))
    due = _due(fake)
    due.note_claimed([1, 2, 3], [3], [], 100)
    for _ in range(5):
        fake.looked_at.clear()
        served = [one.webhook_id for one in due.look() or [] if one.webhook_id <= 2]
        due.note_claimed(served, [], [], 100)
        assert served == [1, 2]
        assert fake.looked_at.total() >= MIN_WINDOW, "the others have their turns as well"


def test_when_all_have_more_each_has_its_turn(clock: list[float]) -> None:
    fake = FakeQueue(range(1, 3001))
    due = _due(fake)

    def turns(count: int) -> None:
        for _ in range(count):
            found = [one.webhook_id for one in due.look() or []]
            due.note_claimed(found, [], [], len(found))
            clock[0] += 0.1

    turns(60)
    assert len(fake.looked_at) == 3000
    assert not due.has_others
    fake.looked_at.clear()
    turns(60)
    assert len(fake.looked_at) == 3000
    counted = fake.looked_at.values()
    assert max(counted) - min(counted) <= 1


@pytest.mark.slow
def test_walking_on_takes_more_of_the_time_while_it_finds_many(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeQueue(range(1, 20_001))
    due = _due(fake)
    pages = [0]

    def walk(*, after: int, limit: int) -> tuple[list[int], int | None]:
        clock[0] += 0.02
        pages[0] += 1
        return FakeQueue.walk(fake, after=after, limit=limit)

    monkeypatch.setattr(fake, "walk", walk)
    walked = []
    for _ in range(2):
        pages[0], ends = 0, clock[0] + 2.0
        while clock[0] < ends:
            due.look()
            clock[0] += 0.01
        walked.append(pages[0])
    # First all pages once, then one now and then.
    assert walked[0] >= 18
    assert walked[1] <= 4


def test_what_was_due_before_a_start_is_found_soon_among_thousands_that_wait_for_time(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of another drain whose shards moved to this one."""
    fake = FakeQueue(range(1, 20_001))
    due = _due(fake)
    have_due = [19_999]

    def walk(*, after: int, limit: int, **_own: Any) -> tuple[list[int], int | None]:
        clock[0] += 0.02
        found, last = FakeQueue.walk(fake, after=after, limit=limit)
        return [pk for pk in found if pk in have_due], last

    def look_for(seconds: float) -> int:
        fake.looked_at.clear()
        ends = clock[0] + seconds
        while clock[0] < ends:
            for candidate in due.look() or []:
                due.note_claimed([candidate.webhook_id], [candidate.webhook_id], [], 1)
            clock[0] += 0.01
        return fake.looked_at[have_due[0]]

    monkeypatch.setattr(fake, "walk", walk)
    assert look_for(2.0)
    have_due[0] = 19_998
    assert not look_for(2.0)
    fake.own = {"shards": 2, "numbers": [0, 1]}
    assert look_for(2.0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_a_walk_names_those_with_due_rows_and_where_it_ended() -> None:
    made = make_many_webhooks(
        Webhook(name=f"Many {n}", url="http://127.0.0.1:9/", event_types=["call.*"])
        for n in range(5)
    )
    # Both events go to all five webhooks.
    for _ in range(2):
        make_delivery(made[0])
    Delivery.objects.filter(webhook=made[4]).delete()
    ids = [webhook.pk for webhook in made]
    later = timezone.now() + timedelta(hours=1)
    Delivery.objects.filter(webhook=ids[1]).update(next_attempt_at=later)
    assert postgres.walk(after=0, limit=3) == ([ids[0], ids[2]], ids[2])
    assert postgres.walk(after=ids[2], limit=3) == ([ids[3]], None)
    assert postgres.walk(after=ids[3], limit=3) == ([], None)
    own = [pk for pk in (ids[0], ids[2], ids[3]) if pk % 3 == 1]
    assert postgres.walk(after=0, limit=9, shards=3, numbers=[1]) == (own, None)


@pytest.mark.django_db(transaction=True)
@pytest.mark.database("postgres")
def test_no_table_is_read_in_whole_for_each_webhook() -> None:
    """Check the planner's choice after ANALYZE, also for a table that was empty at that time."""
    made = make_many_webhooks(
        Webhook(name=f"Many {n}", url="http://127.0.0.1:9/", event_types=["call.*"])
        for n in range(300)
    )
    make_delivery(made[0])
    webhook_ids = [webhook.pk for webhook in made]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    WebhookState.objects.bulk_create(WebhookState(webhook=webhook) for webhook in made)
    postgres.prepare_session()
    terms = {"shards": 1, "numbers": [0]}
    for statement, parameters in (
        (postgres_sql.CANDIDATES, {"ids": webhook_ids, **terms}),
        (postgres_sql.PAGE, {"after": 0, "limit": 1000, "since": 0.0, **terms}),
    ):
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {statement}", parameters)
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert "Join Filter" not in plan
        assert "Materialize" not in plan
    assert len(queue.backend().candidates(webhook_ids)) == 300


@pytest.mark.parametrize(("seconds", "is_complete"), [(0.001, True), (0.5, False)])
def test_a_page_that_takes_long_is_a_complete_one_only_now_and_then(
    clock: list[float], seconds: float, is_complete: bool
) -> None:
    fake = FakeQueue([])
    asked: list[float] = []

    def page(*, since: float, **_others: Any) -> Page:
        asked.append(since)
        clock[0] += seconds
        # The oldest waiting row has been due for five seconds.
        return Page([], None, -5.0)

    fake.page = page  # type: ignore[method-assign]
    due = DueWebhooks(fake, fake, fake)  # type: ignore[arg-type]
    for _ in range(2):
        due.look()
    # Fifteen seconds ago, as transactions may be open for ten.
    assert asked == [0.0, 0.0 if is_complete else 985.0]
    assert due.since == asked[-1]
    assert due.is_cheap
    clock[0] += 60
    due.look()
    assert asked[-1] == due.since == 0.0
    assert due.is_cheap is is_complete
    # Other shards were added.
    fake.own = {"shards": 2}
    due.look()
    assert asked[-1] == 0.0
    # A fault may be a failover.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake, "run", lambda _work: None)
        assert due.look() is None
    due.look()
    assert asked[-1] == 0.0


def test_a_page_that_waited_leaves_out_nothing_that_was_published_since(
    clock: list[float],
) -> None:
    fake = FakeQueue([])
    asked: list[float] = []

    def page(*, since: float, **_others: Any) -> Page:
        asked.append(since)
        # The machine stands still.
        clock[0] += 20
        fake.now += 20
        return Page([], None, None)

    fake.page = page  # type: ignore[method-assign]
    due = DueWebhooks(fake, fake, fake)  # type: ignore[arg-type]
    due.look()
    due.look()
    assert asked == [0.0, 990.0]
    clock[0] += 10
    due.look()
    assert asked[-1] == 0.0


def test_the_engine_waits_no_longer_than_until_a_complete_page(clock: list[float]) -> None:
    fake = FakeQueue([])

    def page(**_terms: Any) -> Page:
        clock[0] += 0.01
        return Page([], None, 300.0)

    fake.page = page  # type: ignore[method-assign]
    due = DueWebhooks(fake, fake, fake)  # type: ignore[arg-type]
    due.look()
    assert due.next_due_seconds == 300.0
    due.look()
    assert due.next_due_seconds == pytest.approx(0.49)
