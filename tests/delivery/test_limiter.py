"""Lanes: what one webhook may take of the engine."""

from types import SimpleNamespace
from typing import Any

from webhooks.delivery.limiter import Lane
from webhooks.models import Outcome


def test_a_receiver_nobody_knows_starts_small_and_grows_with_each_success() -> None:
    lane = Lane(most=64)
    first = lane.limit
    assert first < 64
    for _ in range(200):
        lane.note(None, now=0.0)
    assert lane.limit == 64


def test_a_receiver_that_does_not_answer_is_halved_down_to_one() -> None:
    lane = Lane(most=64)
    for _ in range(4):
        lane.note(Outcome.TIMEOUT, now=0.0)
    assert lane.limit == 1


def test_an_answer_of_any_kind_shows_that_the_receiver_lives() -> None:
    lane = Lane(most=64)
    lane.note(Outcome.TIMEOUT, now=0.0)
    lane.note(Outcome.PROTOCOL, now=0.0)
    assert lane.failures == 0


def test_a_lane_closes_after_failures_in_a_row_and_opens_for_one_probe() -> None:
    lane = Lane(most=64)
    for _ in range(5):
        lane.note(Outcome.NETWORK, now=100.0)
    assert lane.quota(now=100.5) == 0
    assert lane.quota(now=102.0) == 1
    lane.claimed = 1
    assert lane.quota(now=102.0) == 0


def test_a_lane_that_keeps_failing_is_closed_longer_each_time_but_not_over_a_minute() -> None:
    lane = Lane(most=64)
    waits = []
    for _ in range(30):
        lane.note(Outcome.NETWORK, now=0.0)
        waits.append(lane.open_until)
    assert waits[5] < waits[7] < waits[9]
    assert max(waits) == 60.0


def test_a_success_opens_the_lane_again() -> None:
    lane = Lane(most=64)
    for _ in range(9):
        lane.note(Outcome.TIMEOUT, now=0.0)
    lane.note(None, now=1.0)
    assert lane.quota(now=1.0) > 0


def test_a_limited_webhook_has_no_more_than_may_be_in_flight() -> None:
    lane = Lane(4)
    for _ in range(10):
        lane.note(None, 0.0)
    assert (lane.quota(0.0), lane.quota(0.0, depth=1)) == (32, 4)


def test_rows_that_are_claimed_already_count_against_the_quota() -> None:
    lane = Lane(most=64)
    free = lane.quota(now=0.0)
    lane.claimed = free
    assert lane.quota(now=0.0) == 0


def waiting(version: int) -> Any:
    return SimpleNamespace(plan=SimpleNamespace(version=version, timeout_seconds=10))


def test_what_waits_for_another_version_or_for_too_long_is_given_back() -> None:
    lane = Lane(most=64)
    changed, late, kept = waiting(1), waiting(2), waiting(2)
    lane.waiting.extend([(changed, 100.0), (late, 59.0), (kept, 100.0)])
    assert lane.take_stale(2, now=50.0) == [changed, late]
    assert list(lane.waiting) == [(kept, 100.0)]
    assert lane.take_stale(2, now=50.0) == []
