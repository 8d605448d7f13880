"""Durations in steps: where each falls, and how well a percentile is estimated from them."""

import random

import pytest

from webhooks.delivery.histogram import (
    EDGES_MS,
    LAST_STEP,
    LONGEST_MS,
    NO_DURATION,
    bounds_ms,
    percentile_ms,
    step_of,
)


@pytest.mark.parametrize(
    ("duration_ms", "step"),
    [(None, NO_DURATION), (-1.0, 1), (0.0, 1), (0.99, 1), (1.0, 2), (1.25, 2), (1.26, 3), (2.0, 5)],
)
def test_a_duration_falls_into_its_step(duration_ms: float | None, step: int) -> None:
    assert step_of(duration_ms) == step


def test_the_longest_timeout_and_anything_beyond_is_in_the_last_step() -> None:
    assert step_of(LONGEST_MS) == step_of(1e9) == LAST_STEP
    assert bounds_ms(LAST_STEP)[1] == LONGEST_MS


def test_steps_follow_each_other_without_a_gap() -> None:
    for step in range(1, LAST_STEP):
        assert bounds_ms(step)[1] == bounds_ms(step + 1)[0]


def test_a_step_ends_at_most_a_quarter_above_its_beginning() -> None:
    ratios = [bounds_ms(step)[1] / bounds_ms(step)[0] for step in range(2, LAST_STEP + 1)]
    assert max(ratios) <= 1.26
    assert EDGES_MS[-1] < LONGEST_MS


def test_nothing_counted_has_no_percentile() -> None:
    assert percentile_ms({}, 0.5) is None
    assert percentile_ms({NO_DURATION: 7}, 0.5) is None


def test_attempts_without_a_duration_do_not_shift_a_percentile() -> None:
    with_blocked = {NO_DURATION: 100, step_of(100.0): 4}
    assert percentile_ms(with_blocked, 0.5) == percentile_ms({step_of(100.0): 4}, 0.5)


@pytest.mark.parametrize("fraction", [0.5, 0.95, 0.99])
def test_an_estimate_is_within_the_documented_error(fraction: float) -> None:
    chance = random.Random(7)
    durations = sorted(min(chance.lognormvariate(5, 1.2), LONGEST_MS) for _ in range(5000))
    counts: dict[int, int] = {}
    for duration in durations:
        counts[step_of(duration)] = counts.get(step_of(duration), 0) + 1
    exact = durations[int(fraction * len(durations)) - 1]
    estimate = percentile_ms(counts, fraction)
    assert estimate is not None
    assert abs(estimate / exact - 1) < 0.05


def test_one_slow_answer_among_many_shows_in_the_tail_and_not_in_the_middle() -> None:
    counts = {step_of(20.0): 90, step_of(9000.0): 10}
    middle, tail = percentile_ms(counts, 0.5), percentile_ms(counts, 0.95)
    assert middle is not None
    assert tail is not None
    assert middle < 26
    assert 8000 < tail < 10500
