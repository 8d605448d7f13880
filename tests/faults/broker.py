"""F8-F13, F53, F71, F72: Redis stopped, killed, emptied, frozen, full, refusing, or not Redis."""

import itertools
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

from tests.faults.catalogue import fault
from tests.faults.environment import GRACE_SECONDS
from tests.faults.processes import Process
from tests.faults.world import World, check
from tests.services import HOST, free_port
from webhooks import events
from webhooks.delivery.wakeup import RedisWakeup, wakeup
from webhooks.models import Attempt

# Publishing must not wait longer than this for an unreachable broker.
PUBLISH_SECONDS = 2.0
# Short drains, so that the next one has to start through the broker.
_SHORT_DRAINS = {"WEBHOOKS_DRAIN_SECONDS": "2"}


def _worker(world: World) -> Process:
    """Start a worker and let it deliver something, so that all its connections are open."""
    world.webhook("/a")
    world.webhook("/b")
    worker = world.worker(environment=_SHORT_DRAINS)
    world.publish(5)
    world.settle()
    return worker


def _publish_timed(world: World, count: int) -> None:
    """Publish one by one; no call may fail or take too long."""
    slowest = 0.0
    for number in range(count):
        began = time.monotonic()
        payload = {"call_id": f"t{number}"}
        world.accept(lambda payload=payload: [events.publish("call.incoming.after", payload)])  # type: ignore[misc]
        slowest = max(slowest, time.monotonic() - began)
    world.notes.append(f"slowest publish {slowest:.2f} s")
    check(slowest < PUBLISH_SECONDS, f"a publish took {slowest:.1f} s")


def _works_again(world: World, worker: Process) -> None:
    """Publish, and check that it is delivered by a drain that started after the fault."""
    seen = worker.log.count("drain[")
    world.publish(5)
    world.wait(lambda: worker.log.count("drain[") > seen, 60, "A new drain")
    world.settle()
    check(worker.is_running, "the worker ended")
    world.verify()


@fault("F8", "Redis stopped while events are published")
def stop(world: World) -> None:
    worker = _worker(world)
    world.redis_server.stop()
    _publish_timed(world, 40)
    time.sleep(5)
    world.redis_server.start()
    _works_again(world, worker)


@fault("F9", "Redis killed without persistence, restarted")
def kill(world: World) -> None:
    worker = _worker(world)
    world.receiver.delays[""] = 0.3
    world.publish(60)
    world.wait_for_arrivals(30)
    world.redis_server.kill()
    time.sleep(1)
    world.redis_server.start()
    _works_again(world, worker)


@fault("F10", "FLUSHALL with due and future rows")
def flush(world: World) -> None:
    worker = _worker(world)
    # Retried a second later, so that there are rows due in the future.
    world.receiver.statuses["/b"] = 500
    world.receiver.delays["/a"] = 0.3
    world.publish(40)
    world.wait(lambda: Attempt.objects.filter(status_code=500).count() >= 8, 20, "A failure")
    world.flush_redis()
    del world.receiver.statuses["/b"]
    _works_again(world, worker)


@fault("F11", "Redis frozen for 30 s")
def freeze(world: World) -> None:
    worker = _worker(world)
    world.redis_server.freeze()
    began = time.monotonic()
    try:
        _publish_timed(world, 20)
        time.sleep(max(0.0, 30 - (time.monotonic() - began)))
    finally:
        world.redis_server.thaw()
    _works_again(world, worker)


def _client(world: World) -> "redis.Redis":
    return redis.Redis.from_url(world.redis_server.url)


@fault("F12", "Redis full, noeviction")
def fill(world: World) -> None:
    worker = _worker(world)
    with _client(world) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            woken = wakeup()
            assert isinstance(woken, RedisWakeup)
            before = woken.failures
            # Long enough for every drain that started before to end.
            for _ in range(5):
                world.publish(4)
                time.sleep(1)
            world.settle()
            world.verify()
            check(woken.failures > before, "no wakeup failed: Redis was not full")
        finally:
            client.config_set("maxmemory", 0)
    _works_again(world, worker)


@fault("F13", "Redis read-only, or wrong password")
def refuse(world: World) -> None:
    worker = _worker(world)
    with _client(world) as client:
        client.replicaof("127.0.0.1", str(free_port()))
        try:
            _publish_timed(world, 10)
            time.sleep(4)
        finally:
            client.replicaof("NO", "ONE")
        _works_again(world, worker)
        client.config_set("requirepass", "secret")
        try:
            client.client_kill_filter(_type="normal", skipme=True)
            _publish_timed(world, 10)
            late = world.worker()
            world.wait(
                lambda: "uthenticat" in late.log or "NOAUTH" in late.log, 20, "A clear error"
            )
            check("secret" not in late.log, "the password is in the log")
        finally:
            client.config_set("requirepass", "")
    _works_again(world, worker)


# Replies of a program other than Redis; the fourth has text where a number is required.
_STRANGE = (
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"\0\xff" * 50,
    b"*-5\r\n",
    b":abc\r\n",
    b"+OK\r\n" * 50,
)


@fault("F53", "something that is no Redis answers at its port")
def answer_strangely(world: World) -> None:
    worker = _worker(world)
    port = world.redis_server.port
    world.redis_server.stop()
    answers = itertools.cycle(_STRANGE)

    class ForeignServer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(0.2)
            with suppress(OSError):
                self.request.recv(1000)
                self.request.sendall(next(answers))

    with _Server((HOST, port), ForeignServer) as stranger:
        serving = threading.Thread(target=stranger.serve_forever, args=(0.05,))
        serving.start()
        _publish_timed(world, 30)
        time.sleep(8)
        stranger.shutdown()
        serving.join()
    world.redis_server.start()
    _works_again(world, worker)


@fault("F71", "Redis takes wakeups, but not what Celery needs")
def refuse_celery(world: World) -> None:
    """Drains are short: each that ended in this time would leave nothing to deliver."""
    world.webhook("/a")
    world.webhook("/b")
    worker = world.any_worker(_SHORT_DRAINS)
    world.publish(5)
    world.settle()
    for refusal in (_without_connections, _without_keys, _without_queue):
        with _client(world) as client, refusal(client):
            _deliver_for(world, seconds=10)
        world.settle()
    check(worker.is_running, "the worker ended")
    # Started by the drain of this worker, which logs no task.
    world.publish(5)
    world.settle()
    world.verify()


def _deliver_for(world: World, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        before = len(world.receiver.arrivals)
        world.publish(1)
        world.wait_for_arrivals(before + 2, PUBLISH_SECONDS + 3)
        time.sleep(0.2)


@contextmanager
def _without_connections(client: "redis.Redis") -> Iterator[None]:
    """Close what reads the queue, and let nothing connect."""
    readers = [one for one in client.client_list() if one["cmd"].lower() == "brpop"]
    client.config_set("maxclients", 1)
    try:
        for reader in readers:
            client.client_kill_filter(_id=reader["id"])
        yield
    finally:
        client.config_set("maxclients", 10_000)


@contextmanager
def _without_keys(client: "redis.Redis") -> Iterator[None]:
    client.acl_setuser("default", enabled=True, reset_keys=True, keys=["webhooks:*"])
    try:
        yield
    finally:
        client.execute_command("ACL", "SETUSER", "default", "allkeys")


@contextmanager
def _without_queue(client: "redis.Redis") -> Iterator[None]:
    """Put something at the key of the queue that is no list."""
    client.delete("deliveries")
    client.set("deliveries", "text")
    try:
        yield
    finally:
        client.delete("deliveries")


@fault("F72", "SIGTERM while Redis is silent")
def stop_without_answer(world: World) -> None:
    """Celery's own worker sends its heartbeats to Redis, and waits for it without limit."""
    worker = _worker(world)
    world.redis_server.freeze()
    try:
        # Until Celery has noticed.
        time.sleep(30)
        world.publish(5)
        world.settle()
        seconds = worker.terminate(GRACE_SECONDS + 20)
    finally:
        world.redis_server.thaw()
    world.notes.append(f"ended after {seconds:.1f} s")
    check(not world.leftovers(), "a pool process outlived its worker")
    _works_again(world, world.worker(environment=_SHORT_DRAINS))


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
