"""F20-F24, F27, F28, F42, F52, F58: several workers, clocks, beats; poison; recycled processes."""

import time
from itertools import pairwise
from pathlib import Path

from tests.faults.catalogue import BOTH, fault
from tests.faults.crashes import busy
from tests.faults.environment import LEASE_SECONDS, ROOT
from tests.faults.hooks import POISON
from tests.faults.processes import Process
from tests.faults.world import World, check
from webhooks import events
from webhooks.models import Attempt, Delivery, Outcome, Status

_DAY = 86400
_YEAR = 365 * _DAY
# More steps than the busiest machine needs; an attempt that comes early shows in their gaps.
_EVERY_SECOND = [1] * 60
# 0.8 s with the jitter, without what the receiver's clock may be late by.
_LEAST_GAP_SECONDS = 0.5


@fault("F20", "8 claimers on 500 rows", databases=BOTH)
def many_claimers(world: World) -> None:
    for number in range(5):
        world.webhook(f"/{number}")
    world.publish(100)
    world.worker(concurrency=8, environment={"WEBHOOKS_DRAINS_PER_WORKER": "7"})
    world.settle()
    world.verify()


@fault("F21", "lease runs out while the first worker sends", databases=BOTH)
def outlive_lease(world: World) -> None:
    first = world.worker(concurrency=1)
    busy(world, first, rows=90, arrivals=20)
    first.freeze()
    frozen_at = time.monotonic()
    time.sleep(0.4)
    world.allowed += sum(world.at_risk(frozen_at))
    check(world.allowed > 0, "nothing was in flight")
    world.worker(concurrency=1)
    world.settle()
    rows = dict(Delivery.objects.values_list("id", "attempt_count"))
    first.thaw()
    world.wait(lambda: "leases_lost" in first.log, 20, "The refusal of the first one's record")
    time.sleep(LEASE_SECONDS)
    check(
        rows == dict(Delivery.objects.values_list("id", "attempt_count")),
        "the first worker changed rows that were not its own any more",
    )
    world.verify()


@fault("F52", "every worker stands still for longer than the lease", databases=BOTH)
def suspend_all(world: World) -> None:
    """As when a machine is suspended: workers live on, so no lease is taken and nothing is lost."""
    first = world.any_worker()
    workers = [first, world.any_worker()] if world.database == "postgres" else [first]
    busy(world, first)
    # Longer than a worker without faults waits before it takes back expired leases.
    time.sleep(10)
    world.publish(60)
    world.wait_for_flight(4)
    for worker in workers:
        worker.freeze()
    time.sleep(LEASE_SECONDS + 2)
    for worker in workers:
        worker.thaw()
    world.settle()
    world.verify()
    failed = Attempt.objects.exclude(outcome=Outcome.SUCCEEDED).count()
    check(failed == 0, f"{failed} answers that came meanwhile were not read")


@fault("F22", "two beats")
def two_beats(world: World) -> None:
    world.webhook("/a")
    world.worker()
    beats = [world.beat(), world.beat()]
    world.receiver.delays[""] = 0.1

    def have_both_swept() -> bool:
        world.publish(10)
        time.sleep(1)
        return all("webhooks.tasks.sweep" in beat.log for beat in beats)

    world.wait(have_both_swept, 60, "A sweep of each beat")
    world.settle()
    world.verify()


@fault("F23", "no beat", databases=BOTH)
def no_beat(world: World) -> None:
    # More retries than are needed until each event came once, even on a busy machine.
    world.webhook("/a", retry_schedule_seconds=[2] * 8)
    world.receiver.statuses["/a"] = 503
    world.publish(20)
    # From here on nothing sends a wakeup: neither a publisher nor a beat.
    world.flush_redis()
    world.worker()
    world.wait_for_arrivals(20)
    world.receiver.statuses.clear()
    world.settle()
    world.verify()


@fault("F24", "clock +1 h, -1 h, +10 years on one worker")
def wrong_clock(world: World) -> None:
    world.webhook("/a")
    world.webhook("/flaky", retry_schedule_seconds=_EVERY_SECOND)
    paths = f"{ROOT / 'tests' / 'faults' / 'clock'}:{ROOT}"
    for shift in (3600, -3600, 10 * _YEAR):
        world.receiver.statuses["/flaky"] = 503
        clock = {"PYTHONPATH": paths, "CLOCK_SHIFT_SECONDS": str(shift)}
        wrong = world.worker(environment=clock)
        before = len(world.receiver.arrivals)
        world.publish(20)
        # First alone with the wrong clock, then beside a worker with the right one.
        world.wait_for_arrivals(before + 40)
        right = world.worker()
        time.sleep(3)
        world.receiver.statuses.clear()
        world.publish(20)
        world.settle()
        for worker in (wrong, right):
            worker.terminate()
        _check_gaps(world)
    world.verify()


@fault("F58", "the clock of a worker and its beat is stepped to and fro")
def stepped_clock(world: World) -> None:
    """By up to ten years: nothing is sent early, late or twice, and no log is deleted."""
    world.webhook("/a")
    world.webhook("/flaky", retry_schedule_seconds=_EVERY_SECOND)
    world.webhook("/ordered", is_ordered=True)
    clock = world.directory / "clock"
    _step(clock, 0)
    paths = f"{ROOT / 'tests' / 'faults' / 'clock'}:{ROOT}"
    environment = {"PYTHONPATH": paths, "CLOCK_SHIFT_FILE": str(clock)}
    log = world.directory / "stepped.log"
    worker = world.own(Process(["manage.py", "worker"], log, environment))
    for seconds in (3600, -3600, 40 * _DAY, -40 * _DAY, 10 * _YEAR, -5, 5, 0):
        world.receiver.statuses["/flaky"] = 503
        world.publish(10)
        world.wait_for_arrivals(len(world.receiver.arrivals) + 1)
        _step(clock, seconds)
        world.publish(10)
        time.sleep(1.5)
        world.receiver.statuses.clear()
        time.sleep(0.5)
    world.settle()
    check(worker.is_running, "the worker ended")
    _check_gaps(world)
    check(Attempt.objects.count() >= world.accepted, "attempts were deleted")
    world.verify()


def _check_gaps(world: World) -> None:
    """Check that no attempt came early; the receiver's clock is right."""
    last: dict[str, float] = {}
    for one in list(world.receiver.arrivals):
        if one.path == "/flaky":
            gap = one.started_at - last.get(one.event_id, float("-inf"))
            check(gap > _LEAST_GAP_SECONDS, f"an attempt {gap:.2f} s after the previous one")
            last[one.event_id] = one.started_at


def _step(clock: Path, seconds: float) -> None:
    """Shift the clock by this many seconds from now on."""
    whole = clock.with_suffix(".new")
    whole.write_text(str(seconds))
    whole.replace(clock)


@fault("F42", "the number of shards changes under load", databases=BOTH)
def changed_shards(world: World) -> None:
    """Workers with 3 shards are replaced one by one by workers with 2; one is killed."""
    for number in range(6):
        world.webhook(f"/{number}")
    for number in range(3):
        world.webhook(f"/limited/{number}", concurrency_limit=1)
        world.webhook(f"/ordered/{number}", is_ordered=True)
    world.receiver.delays[""] = 0.05
    workers = [world.worker(concurrency=1, environment=_SHARDS | {"WEBHOOKS_SHARDS": "3"})]
    workers += [world.worker(concurrency=1, environment=_SHARDS | {"WEBHOOKS_SHARDS": "3"})]
    for step in range(12):
        world.publish(10)
        time.sleep(0.1 if step == 7 else 1)
        if step == 3:
            # Until both have ended, either group of workers serves every webhook.
            workers += [world.worker(concurrency=1, environment=_SHARDS | {"WEBHOOKS_SHARDS": "2"})]
        elif step == 5:
            workers[0].terminate()
        elif step == 7:
            workers += [world.worker(concurrency=1, environment=_SHARDS | {"WEBHOOKS_SHARDS": "2"})]
            world.kill(workers[1])
    world.settle()
    world.verify()
    _check_limits(world)


# A drain longer than the 8 s without faults after which a worker takes back expired leases.
_SHARDS = {"WEBHOOKS_DRAIN_SECONDS": "12"}


def _check_limits(world: World) -> None:
    """Check that order and concurrency limits were kept across all workers."""
    for name in ("/limited", "/ordered"):
        for number in range(3):
            seen = [one for one in world.receiver.arrivals if one.path == f"{name}/{number}"]
            at_once = sum(
                after.started_at < before.ended_at
                for before, after in pairwise(seen)
                if before.ended_at is not None
            )
            check(at_once == 0, f"{at_once} requests to {name}/{number} at once")
            firsts = list(dict.fromkeys(one.event_id for one in seen))
            in_order = name == "/limited" or firsts == sorted(firsts)
            check(in_order, f"{name}/{number} was sent out of order")


@fault("F27", "poison row that kills the process each time", databases=BOTH)
def poison(world: World) -> None:
    for path in ("/a", "/b"):
        world.webhook(path)
    world.webhook("/poison", event_types=["form.submitted"])
    # The process dies of the poison before the response comes.
    world.receiver.delays |= {"": 0.05, "/poison": 1.0}
    environment = {"FAULT": "die_of_poison"}
    worker = world.any_worker(environment)
    world.publish(10)
    world.settle()
    world.accept(_publish_poison)
    ends = time.monotonic() + 90
    while not Delivery.objects.filter(status=Status.PARKED).exists():
        check(time.monotonic() < ends, f"not parked in time: {world.described()}")
        world.publish(1)
        time.sleep(0.1)
        if not worker.is_running:
            worker = world.any_worker(environment)
    world.settle()
    found = world.statuses()
    check(found[Status.PARKED] == 1, f"parked: {world.described()}")
    check(found[Status.SUCCEEDED] == world.accepted - 1, f"harmed: {world.described()}")
    unknown = Attempt.objects.filter(outcome=Outcome.UNKNOWN)
    # Each of these was in flight or unrecorded when the process died.
    world.allowed = unknown.count()
    world.verify(arrives=False)


def _publish_poison() -> list[events.Published]:
    return [events.publish("form.submitted", {"call_id": "p", "text": POISON.decode()})]


@fault("F28", "worker recycled by a memory limit")
def recycle(world: World) -> None:
    # Every process is above this limit, so it is replaced after each drain.
    worker = world.worker(
        pool="prefork",
        environment={"WEBHOOKS_DRAIN_SECONDS": "1"},
        arguments=("--max-memory-per-child", "1000"),
    )
    busy(world, worker, rows=60, arrivals=10)
    seen: set[int] = set()
    for _ in range(40):
        world.publish(5)
        seen |= set(worker.children)
        time.sleep(0.2)
    world.settle()
    world.notes.append(f"{len(seen)} processes")
    check(len(seen) > 2, "no process was recycled")
    world.verify()
    check(
        not Attempt.objects.filter(outcome=Outcome.UNKNOWN).exists(),
        "a recycled process left rows behind",
    )
