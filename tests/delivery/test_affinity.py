"""A busy process keeps to one processor, and to all that it may use as soon as it is not."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from webhooks.delivery.affinity import Affinity

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="this machine has one processor"
)


@pytest.fixture(autouse=True)
def allowed() -> Iterator[set[int]]:
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


@pytest.fixture
def other() -> Iterator[int]:
    """Return the id of another thread that waits."""
    is_over = threading.Event()
    thread = threading.Thread(target=is_over.wait)
    thread.start()
    assert thread.native_id is not None
    yield thread.native_id
    is_over.set()
    thread.join()


def kept() -> tuple[Affinity, float]:
    """Return the affinity of a process that was busy, and the time of its last look."""
    affinity, now = Affinity(), 1000.0
    affinity.look(now)
    used = time.process_time()
    while time.process_time() - used < 0.1:
        pass
    # Of our own clock: this machine may have been busy with others.
    now += 0.2
    affinity.look(now)
    return affinity, now


def processors(*threads: int) -> list[set[int]]:
    return [os.sched_getaffinity(thread) for thread in threads]


def test_a_busy_process_keeps_to_one_processor_and_lets_go_of_it_after_a_while(
    allowed: set[int], other: int
) -> None:
    affinity, now = kept()
    [own, others] = processors(0, other)
    assert own == others
    assert len(own) == 1
    affinity.look(now + 0.5)
    assert processors(0, other) == [own, own]
    affinity.look(now + 1.1)
    assert processors(0, other) == [allowed, allowed]


def test_the_end_of_a_drain_lets_go(allowed: set[int], other: int) -> None:
    kept()[0].release()
    assert processors(0, other) == [allowed, allowed]


def test_a_process_that_waits_runs_where_it_is_put(allowed: set[int]) -> None:
    affinity = Affinity()
    for now in (1000.0, 2000.0):
        affinity.look(now)
    assert processors(0) == [allowed]


def test_what_somebody_else_chose_meanwhile_stays(allowed: set[int]) -> None:
    affinity, _ = kept()
    [one] = processors(0)
    chosen = {min(allowed - one)}
    os.sched_setaffinity(0, chosen)
    affinity.release()
    assert processors(0) == [chosen]


def test_a_process_that_may_use_one_processor_stays_there(allowed: set[int]) -> None:
    one = {min(allowed)}
    os.sched_setaffinity(0, one)
    kept()[0].release()
    assert processors(0) == [one]
