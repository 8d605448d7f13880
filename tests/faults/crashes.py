"""F1-F7, F55: processes that die or end at the worst moment."""

import os
import signal
import time

from django.db import transaction

from tests.faults.catalogue import BOTH, fault
from tests.faults.environment import GRACE_SECONDS
from tests.faults.processes import Process
from tests.faults.world import World, check
from webhooks import events
from webhooks.models import Attempt, Outcome, Status

PATHS = ("/a", "/b", "/c")
_ROWS = 300


def busy(world: World, process: Process, *, rows: int = _ROWS, arrivals: int = 60) -> None:
    """Publish to three slow receivers, and return while requests are in flight."""
    for path in PATHS:
        world.webhook(path)
    world.receiver.delays[""] = 0.3
    world.publish(rows // len(PATHS))
    world.wait_for_arrivals(arrivals)
    world.wait_for_flight(4)
    check(process.is_running, f"the worker ended: {process.log[-500:]}")


@fault("F1", "pool child killed in mid-send")
def kill_child(world: World) -> None:
    worker = world.worker(pool="prefork")
    busy(world, worker)
    world.kill(worker, child=True)
    world.settle()
    check(worker.is_running, "the worker ended with its child")
    world.verify()


@fault("F2", "worker group killed in mid-send", databases=BOTH)
def kill_group(world: World) -> None:
    worker = world.any_worker()
    busy(world, worker)
    world.kill(worker)
    world.any_worker()
    world.settle()
    world.verify()
    check(_unknowns() > 0, "no attempt was recorded as unknown")


def _unknowns() -> int:
    return Attempt.objects.filter(outcome=Outcome.UNKNOWN).count()


@fault("F3", "SIGTERM while sending", databases=BOTH)
def stop_gently(world: World) -> None:
    worker = world.any_worker()
    busy(world, worker)
    seconds = worker.terminate()
    world.notes.append(f"ended in {seconds:.1f} s")
    check(seconds < GRACE_SECONDS + 15, f"took {seconds:.0f} s to end")
    left = world.statuses()[Status.SENDING]
    check(left == 0, f"{left} rows were neither finished nor handed back")
    # Again with a signal to the whole group at once, as systemd and a terminal send it.
    again = world.any_worker()
    world.publish(_ROWS // len(PATHS))
    world.wait_for_arrivals(len(world.receiver.arrivals) + 20)
    again.signal(signal.SIGTERM)
    again.terminate()
    left = world.statuses()[Status.SENDING]
    check(left == 0, f"{left} rows were left when the whole group was told to end")
    world.any_worker()
    world.settle()
    world.verify()
    check(_unknowns() == 0, "an attempt is unknown although nothing was killed")


@fault("F55", "SIGHUP while sending, as of a terminal that is closed", databases=BOTH)
def hang_up(world: World) -> None:
    """Celery restarts its worker; the one-process mode ends as it does on SIGTERM."""
    worker = world.any_worker()
    busy(world, worker)
    os.kill(worker.pid, signal.SIGHUP)
    if world.database == "sqlite":
        world.wait(lambda: not worker.is_running, GRACE_SECONDS + 15, "The end")
        left = world.statuses()[Status.SENDING]
        check(left == 0, f"{left} rows were neither finished nor handed back")
        worker = world.any_worker()
    world.settle()
    world.verify()
    check(worker.is_running, "the worker ended")
    check(_unknowns() == 0, "an attempt is unknown although nothing was killed")


@fault("F3", "SIGTERM while a receiver outlasts the grace time", databases=BOTH, is_slow=True)
def stop_while_slow(world: World) -> None:
    """Stop while a receiver takes longer than the grace time: only requests in flight are cut."""
    # An unknown receiver starts with one request in flight.
    for number in range(8):
        path = f"/slow/{number}"
        world.webhook(path, timeout_seconds=10, event_types=["deal.*"])
        world.receiver.delays[path] = GRACE_SECONDS + 3
    patient = {"WEBHOOKS_LEASE_SECONDS": "14"}
    worker = world.any_worker(patient)
    items = [events.NewEvent("deal.created", {"number": number}) for number in range(12)]
    world.accept(lambda: events.publish_many(items))
    world.wait_for_flight(8)
    seconds = worker.terminate()
    check(seconds < GRACE_SECONDS + 15, f"took {seconds:.0f} s to end")
    on_wire = sum(arrival.path.startswith("/slow") for arrival in world.receiver.arrivals)
    left = world.statuses()[Status.SENDING]
    check(left == on_wire, f"{left} rows stay leased, {on_wire} were on the wire")
    world.receiver.delays.clear()
    world.allowed += on_wire
    world.any_worker(patient)
    world.settle()
    world.verify()


def _die_once(world: World, name: str) -> None:
    """Let the worker die once at a named place while it sends a delivery, then let it recover."""
    world.webhook("/a")
    marker = world.directory / f"struck-{time.monotonic_ns()}"
    worker = world.any_worker({"FAULT": name, "FAULT_MARKER": str(marker)})
    world.publish(1)
    world.wait(marker.exists, 30, "The crash")
    time.sleep(1)
    if not worker.is_running:
        # Only a worker with pool processes survives the death of one.
        world.any_worker()
    world.settle()


@fault("F4", "crash after a 2xx, before the record", databases=BOTH)
def die_before_record(world: World) -> None:
    _die_once(world, "die_before_record")
    world.allowed = 1
    world.verify()
    check(world.duplicates() == 1, f"{world.duplicates()} duplicates, not 1")


@fault("F5", "crash after the claim, before connecting", databases=BOTH)
def die_after_claim(world: World) -> None:
    _die_once(world, "die_after_claim")
    world.verify()
    check(_unknowns() == 1, "the crash is not in the log")


@fault("F6", "crash between commit and wakeup", databases=BOTH)
def die_before_wakeup(world: World) -> None:
    world.webhook("/a")
    worker = world.any_worker()
    world.publish(1)
    world.settle()
    log = world.directory / "publisher.log"
    command = ["-m", "tests.faults.publisher", "20"]
    publisher = world.own(Process(command, log, {"FAULT": "lose_wakeups"}))
    world.accepted += 20
    world.wait(lambda: not publisher.is_running, 30, "The death of the publisher")
    world.wait(lambda: sum(world.statuses().values()) == 21, 5, "The commit")
    seconds = world.settle()
    world.notes.append(f"found after {seconds:.1f} s")
    check(worker.is_running, "the worker ended")
    world.verify()


class _RollbackError(Exception):
    pass


@fault("F7", "business transaction rolls back", databases=BOTH)
def roll_back(world: World) -> None:
    world.webhook("/a")
    world.any_worker()
    world.publish(5)
    world.settle()
    try:
        with transaction.atomic():
            world.publish(20)
            world.accepted -= 20
            raise _RollbackError
    except _RollbackError:
        pass
    time.sleep(2.0)
    world.settle()
    world.verify()
    check(len(world.receiver.arrivals) == 5, "something was sent")
