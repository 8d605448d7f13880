"""Limiters: how much of the engine one webhook may use."""

from types import SimpleNamespace
from typing import Any

import pytest

from webhooks.delivery.limiter import Limiter, Limiters, shares
from webhooks.models import Outcome


def test_a_receiver_no_one_knows_starts_small_and_grows_with_each_success() -> None:
    limiter = Limiter(max_limit=64)
    first = limiter.limit
    assert first < 64
    for _ in range(200):
        limiter.note(None, now=0.0, seconds=0.1)
    assert limiter.limit == 64


def test_a_receiver_that_does_not_answer_is_halved_down_to_one() -> None:
    limiter = Limiter(max_limit=64)
    for _ in range(4):
        limiter.note(Outcome.TIMEOUT, now=0.0, seconds=0.1)
    assert limiter.limit == 1


def test_an_answer_of_any_kind_shows_that_the_receiver_lives() -> None:
    limiter = Limiter(max_limit=64)
    limiter.note(Outcome.TIMEOUT, now=0.0, seconds=0.1)
    limiter.note(Outcome.PROTOCOL, now=0.0, seconds=0.1)
    assert limiter.failures == 0


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_probe_through() -> None:
    limiter = Limiter(max_limit=64)
    for _ in range(5):
        limiter.note(Outcome.NETWORK, now=100.0, seconds=0.1)
    assert limiter.quota(now=100.5) == 0
    assert limiter.quota(now=102.0) == 1
    limiter.claimed = 1
    assert limiter.quota(now=102.0) == 0


def test_the_breaker_stays_open_longer_each_time_but_not_over_a_minute() -> None:
    limiter = Limiter(max_limit=64)
    waits, now = [], 0.0
    for _ in range(15):
        limiter.note(Outcome.NETWORK, now=now, seconds=0.1)
        waits.append(limiter.open_until - now)
        now = max(now, limiter.open_until)
    assert waits[4:] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0, 60.0]


def test_what_was_in_flight_when_the_breaker_opened_keeps_it_open_no_longer() -> None:
    limiter = Limiter(max_limit=64)
    for _ in range(36):
        limiter.note(Outcome.NETWORK, now=0.0, seconds=0.1)
    assert limiter.quota(now=1.0) == 1
    limiter.note(Outcome.NETWORK, now=1.0, seconds=0.1)
    assert limiter.open_until == 3.0


def test_a_success_closes_the_breaker() -> None:
    limiter = Limiter(max_limit=64)
    for _ in range(9):
        limiter.note(Outcome.TIMEOUT, now=0.0, seconds=0.1)
    limiter.note(None, now=1.0, seconds=0.1)
    assert limiter.quota(now=1.0) > 0


def test_a_limited_webhook_has_no_more_than_may_be_in_flight() -> None:
    limiter = Limiter(4)
    for _ in range(10):
        limiter.note(None, 0.0, 0.1)
    assert (limiter.quota(0.0), limiter.quota(0.0, is_paced=True)) == (32, 4)


def test_a_receiver_no_one_knows_gets_one_request_and_one_row() -> None:
    limiter = Limiter(max_limit=64)
    assert (limiter.limit, limiter.quota(now=0.0)) == (1, 1)


def test_a_receiver_that_answered_another_process_starts_with_more() -> None:
    limiter = Limiter(max_limit=64, failures=0)
    assert limiter.is_quick
    assert limiter.quota(now=0.0) == 64


def test_a_receiver_that_failed_in_another_process_starts_with_a_probe() -> None:
    limiter = Limiter(max_limit=64, failures=7)
    assert not limiter.is_quick
    assert limiter.quota(now=0.0) == 1


def test_a_receiver_that_answers_late_is_not_quick_and_no_rows_wait_for_it() -> None:
    limiter = Limiter(max_limit=4)
    for _ in range(10):
        limiter.note(None, now=0.0, seconds=3.0)
    assert not limiter.is_quick
    assert limiter.quota(now=0.0) == 4
    for _ in range(10):
        limiter.note(None, now=0.0, seconds=0.1)
    assert limiter.is_quick


def test_the_next_drain_knows_what_the_one_before_learned() -> None:
    limiters = Limiters(64)
    for number in range(9):
        limiters.get(1).note(Outcome.TIMEOUT, now=100.0 * number, seconds=2.0)
    limiters.get(1).claimed = 5
    open_until = limiters.get(1).open_until
    limiters = limiters.successor(forgets=True)
    limiters.begin(1, failures=0)
    again = limiters.get(1)
    assert (again.failures, again.open_until, again.claimed) == (9, open_until, 0)


def test_what_waits_in_one_drain_is_not_the_next_ones() -> None:
    before = Limiters(64)
    before.get(1).claimed = 5
    after = before.successor(forgets=True)
    after.get(2).claimed = 1
    assert [limiter.claimed for limiter in before.in_use()] == [5]
    assert [limiter.claimed for limiter in after.in_use()] == [1]


def test_what_a_whole_drain_did_not_use_is_forgotten() -> None:
    limiters = Limiters(64)
    limiters.get(1).note(Outcome.TIMEOUT, now=0.0, seconds=2.0)
    limiters = limiters.successor(forgets=True)
    limiters = limiters.successor(forgets=True)
    assert limiters.get(1).failures == 0


def test_a_short_drain_between_two_makes_nothing_forgotten() -> None:
    limiters = Limiters(64)
    limiters.get(1).note(Outcome.TIMEOUT, now=0.0, seconds=2.0)
    for _ in range(3):
        limiters = limiters.successor(forgets=False)
        limiters.get(2).note(Outcome.TIMEOUT, now=0.0, seconds=2.0)
    assert (limiters.get(1).failures, limiters.get(2).failures) == (1, 3)


def test_room_for_too_few_webhooks_is_given_to_others_each_time() -> None:
    quotas = dict.fromkeys(range(100), 5)
    served = {one.webhook_id for _ in range(200) for one in shares(quotas, 10)}
    assert served == set(quotas)


def test_room_is_divided_equally_and_the_rest_goes_to_who_can_take_more() -> None:
    divided = {one.webhook_id: one.quota for one in shares({1: 2, 2: 50, 3: 50}, 42)}
    assert divided == {1: 2, 2: 20, 3: 20}


def test_rows_that_are_claimed_already_count_against_the_quota() -> None:
    limiter = Limiter(max_limit=64)
    free = limiter.quota(now=0.0)
    limiter.claimed = free
    assert limiter.quota(now=0.0) == 0


@pytest.mark.parametrize(("hanging_limit", "quota"), [(0, 64), (256, 8), (3, 3)])
def test_few_rows_are_claimed_for_a_quick_receiver_that_hangs(
    hanging_limit: int, quota: int
) -> None:
    limiter = Limiter(max_limit=64, failures=0)
    limiter.hanging_limit = hanging_limit
    assert limiter.quota(now=0.0) == quota


def test_a_slow_receiver_has_as_many_in_flight_as_it_answers() -> None:
    limiter = Limiter(max_limit=64, failures=0)
    limiter.note(None, now=0.0, seconds=9.0)
    limiter.hanging_limit = 3
    assert not limiter.is_quick
    assert limiter.quota(now=0.0) == limiter.limit == 9


def waiting(version: int, token_version: int = 0) -> Any:
    plan = SimpleNamespace(version=version, token_version=token_version, timeout_seconds=10)
    return SimpleNamespace(plan=plan)


def test_what_waits_for_another_version_or_for_too_long_is_given_back() -> None:
    limiter = Limiter(max_limit=64)
    changed, refreshed, late = waiting(1), waiting(2, 4), waiting(2)
    kept = waiting(2), waiting(2, 5)
    for request, lease_ends in ((changed, 100.0), (refreshed, 100.0), (late, 59.0)):
        limiter.add(request, lease_ends)
    for request in kept:
        limiter.add(request, 100.0)
    assert limiter.take_stale(2, 5, now=50.0) == [changed, refreshed, late]
    assert [request for request, _ in limiter.waiting] == [*kept]
    assert limiter.take_stale(2, 5, now=50.0) == []
