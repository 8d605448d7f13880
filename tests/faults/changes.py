"""F33, F34: webhooks changed between attempts, and wrong encryption keys."""

import time

from cryptography.fernet import Fernet
from django.db import connection

from tests.faults.catalogue import BOTH, fault
from tests.faults.world import World, check, fresh_connection
from webhooks import events
from webhooks.models import Delivery, Status, Webhook


@fault("F33", "webhook deleted, paused or edited between attempts", databases=BOTH)
def change(world: World) -> None:
    paths = ("/deleted", "/paused", "/edited")
    deleted, paused, edited = (
        world.webhook(path, retry_schedule_seconds=[3, 3, 3, 3, 3]) for path in paths
    )
    world.receiver.statuses[""] = 500
    # A realistic lease: claimed rows may wait in a worker's memory for a long time.
    world.any_worker({"WEBHOOKS_LEASE_SECONDS": "60"})
    world.publish(10)
    world.wait(lambda: Delivery.objects.filter(failure_count=1).count() == 30, 30, "Failures")
    events.delete(deleted)
    events.pause(paused)
    edited.name, edited.url = "/new", world.receiver.url("/new")
    edited.save()
    world.receiver.statuses.clear()
    world.wait(lambda: _count(edited, Status.SUCCEEDED) == 10, 30, "The edited one's retries")
    came = [arrival.path for arrival in world.receiver.arrivals]
    check(all(came.count(path) == 10 for path in paths), "something went to the old place")
    check(came.count("/new") == 10, f"{came.count('/new')} came to the new place")
    check(_count(deleted, Status.CANCELLED) == 10, f"not cancelled: {world.described()}")
    check(_count(paused, Status.HELD) == 10, f"not held: {world.described()}")
    _change_under_load(world)


def _count(webhook: Webhook, status: Status) -> int:
    return Delivery.objects.filter(webhook=webhook, status=status).count()


def _change_under_load(world: World) -> None:
    """Pause and delete while hundreds of rows are claimed and wait for a slow receiver."""
    slow = [world.webhook("/slow-paused"), world.webhook("/slow-deleted")]
    # Below 1 s the receiver still counts as quick, so rows are claimed ahead and wait in memory.
    world.receiver.delays |= {"/slow-paused": 0.8, "/slow-deleted": 0.8}
    world.publish(600)
    world.wait_for_flight(8)
    time.sleep(1)
    events.pause(slow[0])
    events.delete(slow[1])
    # Requests in flight finish; after a moment none may start any more.
    time.sleep(2)
    before = len(_to(world, "/slow"))
    check(before < 900, "too much was sent before to see anything")
    time.sleep(3)
    after = len(_to(world, "/slow"))
    check(after == before, f"{after - before} were sent after the webhook was stopped")
    for webhook, status in zip(slow, (Status.HELD, Status.CANCELLED), strict=True):
        found = Delivery.objects.filter(webhook=webhook).exclude(status=Status.SUCCEEDED)
        wrong = found.exclude(status=status).count()
        check(wrong == 0, f"{wrong} of {webhook} are not {status}: {world.described()}")
    world.settle()
    world.verify(arrives=False)


def _to(world: World, prefix: str) -> list[str]:
    return [a.path for a in world.receiver.arrivals if a.path.startswith(prefix)]


@fault("F34", "encryption key removed or wrong", databases=BOTH)
def wrong_key(world: World) -> None:
    world.webhook("/a", authorization_type="basic", basic_login="u", basic_password="p")
    before = _stored()
    world.publish(10)
    for key in (Fernet.generate_key().decode(), "", "not-a-key"):
        worker = world.any_worker({"FIELD_ENCRYPTION_KEY": key})
        world.wait(lambda worker=worker: _says_why(worker.log), 30, "A clear error")  # type: ignore[misc]
        time.sleep(1)
        worker.terminate()
        check(not world.receiver.arrivals, "something was sent")
        check(_stored() == before, "stored secrets were changed")
    world.any_worker()
    world.settle()
    world.verify()


def _says_why(log: str) -> bool:
    return "FIELD_ENCRYPTION_KEY" in log


def _stored() -> list[tuple[object, ...]]:
    with fresh_connection(), connection.cursor() as cursor:
        found: list[tuple[object, ...]] = []
        for table in ("webhooks_webhook", "webhooks_credential"):
            cursor.execute(f"SELECT * FROM {table} ORDER BY id")
            found += map(tuple, cursor.fetchall())
        return found
