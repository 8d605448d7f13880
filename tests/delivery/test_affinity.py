"""A busy process keeps to one processor and may use all allowed ones again once it is idle."""

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from webhooks.delivery import affinity as module
from webhooks.delivery.affinity import Affinity
from webhooks.delivery.engine import DrainCache, Engine
from webhooks.delivery.shards import Shards
from webhooks.delivery.wakeup import ProcessWakeup

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="this machine has one processor"
)


@pytest.fixture(autouse=True)
def allowed() -> Iterator[set[int]]:
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


@pytest.fixture
def start_thread() -> Iterator[Callable[[], int]]:
    """Return a function that starts a waiting thread and returns its native id."""
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    def begin() -> int:
        threads.append(threading.Thread(target=is_over.wait))
        threads[-1].start()
        assert threads[-1].native_id is not None
        return threads[-1].native_id

    yield begin
    is_over.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def other(start_thread: Callable[[], int]) -> int:
    """Return the native id of another thread, which waits."""
    return start_thread()


@contextmanager
def no_files() -> Iterator[None]:
    """Let this process open no more files, as if it had used up its descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def busy_affinity() -> tuple[Affinity, float]:
    """Return the affinity of a process that was busy, and the time of its last look."""
    affinity, now = Affinity(), 1000.0
    affinity.look(now)
    used = time.process_time()
    while time.process_time() - used < 0.1:
        pass
    # Simulated time: on a loaded machine the loop above takes longer.
    now += 0.2
    affinity.look(now)
    return affinity, now


def processors(*threads: int) -> list[set[int]]:
    return [os.sched_getaffinity(thread) for thread in threads]


def test_a_busy_process_keeps_to_one_processor_and_lets_go_of_it_after_a_while(
    allowed: set[int], other: int
) -> None:
    affinity, now = busy_affinity()
    [own, others] = processors(0, other)
    assert own == others
    assert len(own) == 1
    affinity.look(now + 0.5)
    assert processors(0, other) == [own, own]
    affinity.look(now + 1.1)
    assert processors(0, other) == [allowed, allowed]


def test_the_end_of_a_drain_lets_go(allowed: set[int], other: int) -> None:
    busy_affinity()[0].release()
    assert processors(0, other) == [allowed, allowed]


def test_a_process_that_waits_runs_where_it_is_put(allowed: set[int]) -> None:
    affinity = Affinity()
    for now in (1000.0, 2000.0):
        affinity.look(now)
    assert processors(0) == [allowed]


def test_what_somebody_else_chose_since_stays(allowed: set[int]) -> None:
    affinity, _ = busy_affinity()
    [one] = processors(0)
    chosen = {min(allowed - one)}
    os.sched_setaffinity(0, chosen)
    affinity.release()
    assert processors(0) == [chosen]


def test_a_process_that_may_use_one_processor_stays_there(allowed: set[int]) -> None:
    one = {min(allowed)}
    os.sched_setaffinity(0, one)
    busy_affinity()[0].release()
    assert processors(0) == [one]


def test_a_process_without_files_goes_on_and_lets_go_as_soon_as_it_has_some(
    allowed: set[int], other: int
) -> None:
    with no_files():
        affinity, now = busy_affinity()
    assert processors(0, other) == [allowed, allowed]
    affinity, now = busy_affinity()
    [one] = processors(0)
    with no_files():
        affinity.look(now + 1.1)
        affinity.release()
    assert processors(0, other) == [one, one]
    affinity.look(now + 1.2)
    assert processors(0, other) == [allowed, allowed]


def test_a_thread_that_starts_while_the_others_are_let_go_is_let_go_too(
    allowed: set[int], start_thread: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    affinity, _ = busy_affinity()
    listed, started = os.listdir, list[int]()

    def listdir(path: str) -> list[str]:
        found = listed(path)
        if not started:
            started.append(start_thread())
        return found

    monkeypatch.setattr(os, "listdir", listdir)
    affinity.release()
    assert processors(0, *started) == [allowed, allowed]


@pytest.mark.django_db(transaction=True)
def test_a_drain_that_ends_by_an_error_lets_go(
    allowed: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_shards: Shards) -> None:
        raise RuntimeError("the end failed")

    monkeypatch.setattr(module, "BUSY", -1.0)
    monkeypatch.setattr(Shards, "leave", fail)
    cache = DrainCache()
    engine = Engine(ProcessWakeup(), lambda: len(os.sched_getaffinity(0)) == 1, cache)
    with pytest.raises(RuntimeError, match="the end failed"):
        engine.run(60)
    cache.close()
    assert processors(0) == [allowed]


def test_drains_that_run_at_once_share_it() -> None:
    """Two separate ones could pin each other's threads, and neither would release them."""
    first, second = DrainCache(), DrainCache()
    assert first.affinity is second.affinity
    first.close()
    second.close()


class Container:
    """Linux as far as it reports and sets the processors that a thread may run on."""

    def __init__(self, *given: int) -> None:
        self.given = set(given)
        self.asked_for = set(range(8))

    def ask(self, _thread: int, processors: set[int]) -> None:
        if not processors & self.given:
            raise OSError
        self.asked_for = set(processors)

    def allowed(self, _thread: int = 0) -> set[int]:
        return self.asked_for & self.given


@pytest.mark.parametrize(("chosen", "later"), [(range(8), {0, 1, 2, 3}), (range(2), {0, 1})])
def test_processors_that_a_container_is_given_later_are_used_unless_somebody_chose_some(
    chosen: range, later: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    container = Container(0, 1)
    container.ask(0, set(chosen))
    if len(chosen) < 8:
        # The restriction counts as chosen only while the container has more processors.
        container.given |= {2, 3}
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_setaffinity", container.ask)
        patch.setattr(os, "sched_getaffinity", container.allowed)
        patch.setattr(os, "sysconf", {"SC_NPROCESSORS_CONF": 8}.__getitem__)
        patch.setattr(module, "_processor", lambda: 1)
        affinity, _ = busy_affinity()
        assert container.allowed() == {1}
        affinity.release()
    container.given |= {2, 3}
    assert container.allowed() == later


def test_a_system_that_has_no_such_thing_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(os, "sched_setaffinity")
        patch.delattr(os, "sched_getaffinity")
        busy_affinity()[0].release()
