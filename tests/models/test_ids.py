"""Ids are in the order in which they were made, even when the clock steps."""

import time

import pytest

from webhooks.models import ids


def test_ids_of_a_clock_that_steps_back_a_little_stay_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = ids.new_id("evt")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 30_000_000_000)
    assert ids.new_id("evt") > first


def test_ids_do_not_stay_with_a_clock_that_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 3_600_000_000_000)
    ahead = ids.new_id("evt")
    monkeypatch.setattr(time, "time_ns", lambda: now)
    after = ids.new_id("evt")
    assert after < ahead
    assert abs(ids.moment(after).timestamp() - now / 1e9) < 1
    assert ids.new_id("evt") > after


def test_ids_made_together_are_in_order_and_each_is_an_id_of_that_moment() -> None:
    began = time.time()
    before = ids.new_id("dlv")
    made = [before, *ids.new_ids("dlv", 3000), ids.new_id("dlv")]
    assert made == sorted(set(made))
    assert {len(one) for one in made} == {30}
    assert began - 1 < ids.moment(made[-1]).timestamp() < time.time() + 1
