"""F14-F19, F25, F26, F39, F51, F57, F59, F61: the database stopped, pooled, locked, full."""

import datetime as dt
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
from django.conf import settings
from django.core.cache import cache
from django.db import DatabaseError, connection
from django.utils import timezone

from tests.faults.catalogue import BOTH, POSTGRES, SQLITE, fault
from tests.faults.crashes import busy
from tests.faults.environment import LEASE_SECONDS, ROOT
from tests.faults.processes import Process
from tests.faults.world import SkippedFaultError, World, check, fresh_connection
from tests.services import PostgresServer, free_port
from webhooks.delivery import backlog, retention
from webhooks.delivery.queue import partitions, postgres
from webhooks.models import Delivery, Webhook, ids


def _server(world: World) -> PostgresServer:
    assert world.postgres is not None
    return world.postgres


def _recovers(world: World, worker: Process) -> None:
    """Check that the same worker, without a restart, delivers old and new rows."""
    world.settle()
    world.publish(5)
    world.settle()
    check(worker.is_running, "the worker ended")
    world.verify()


@fault("F14", "PostgreSQL fast restart in mid-send")
def restart_fast(world: World) -> None:
    worker = world.worker()
    busy(world, worker)
    _server(world).restart("fast")
    _recovers(world, worker)


@fault("F15", "PostgreSQL crash in mid-send")
def crash(world: World) -> None:
    worker = world.worker()
    busy(world, worker)
    _server(world).restart("immediate")
    _recovers(world, worker)
    world.receiver.delays[""] = 0.3
    world.publish(60)
    world.wait_for_flight(4)
    _server(world).kill()
    _server(world).start()
    _recovers(world, worker)


@fault("F16", "PostgreSQL down for 60 s")
def stay_down(world: World) -> None:
    worker = world.worker()
    busy(world, worker)
    _server(world).stop("fast")
    before = worker.log.count("database_fault")
    time.sleep(60)
    tries = worker.log.count("database_fault") - before
    world.notes.append(f"{tries} tries in 60 s")
    check(tries < 400, f"{tries} tries in 60 s: no back-off")
    _server(world).start()
    _recovers(world, worker)


@fault("F17", "every worker's connection terminated")
def terminate(world: World) -> None:
    worker = world.worker()
    busy(world, worker)
    for _ in range(5):
        _terminate_others(world)
        time.sleep(0.2)
    _recovers(world, worker)


def _terminate_others(world: World) -> None:
    with psycopg.connect(_server(world).url, autocommit=True) as own:
        own.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


@fault("F18", "connections exhausted")
def exhaust(world: World) -> None:
    server = _server(world)
    before = dict(server.settings)
    connection.close()
    server.settings |= {"max_connections": "15", "superuser_reserved_connections": "0"}
    server.restart()
    try:
        worker = world.worker()
        busy(world, worker)
        _take_all_connections(server, seconds=6)
        world.wait(lambda: "too many clients" in worker.log, 5, "A refused connection")
        _recovers(world, worker)
    finally:
        connection.close()
        server.settings = before
        server.restart()


def _take_all_connections(server: PostgresServer, *, seconds: float) -> None:
    """Take all connections, end those of other clients, and keep them for this long."""
    taken: list[psycopg.Connection[tuple[object, ...]]] = []
    ends = time.monotonic() + seconds
    try:
        while time.monotonic() < ends:
            try:
                taken.append(psycopg.connect(server.url, autocommit=True))
            except psycopg.OperationalError:
                mine = [own.info.backend_pid for own in taken]
                taken[0].execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE backend_type = 'client backend' AND NOT pid = ANY(%s)",
                    [mine],
                )
                time.sleep(0.02)
    finally:
        for own in taken:
            own.close()


_SLOW_CLAIM = """
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_sleep(0.0005); RETURN NEW; END $$;
CREATE TRIGGER wait BEFORE UPDATE ON webhooks_delivery FOR EACH ROW EXECUTE FUNCTION wait()
"""


@fault("F59", "drains change rows that others are about to lock, and freed memory is overwritten")
def collide(world: World) -> None:
    """In this case PostgreSQL 18.6 read freed memory in a claim and crashed (decision 0032)."""
    server = _server(world)
    connection.close()
    with _overwritten_memory(server), psycopg.connect(server.url, autocommit=True) as own:
        own.execute(_SLOW_CLAIM)
        try:
            for number in range(20):
                world.webhook(f"/{number}")
            world.publish(30)
            workers = [world.worker() for _ in range(3)]
            world.settle()
        finally:
            own.execute("DROP FUNCTION wait() CASCADE")
        check("terminated by signal" not in server.log, "PostgreSQL crashed")
        check(all(worker.is_running for worker in workers), "a worker ended")
        world.verify()


@contextmanager
def _overwritten_memory(server: PostgresServer) -> Iterator[None]:
    """Let the C library overwrite the memory that PostgreSQL frees."""
    os.environ["MALLOC_PERTURB_"] = "165"
    try:
        server.restart()
        del os.environ["MALLOC_PERTURB_"]
        yield
    finally:
        os.environ.pop("MALLOC_PERTURB_", None)
        connection.close()
        server.restart()


@fault("F57", "a connection pooler between the product and PostgreSQL")
def pool(world: World) -> None:
    """A session pooler is restarted while sending; a transaction pooler is rejected by name."""
    with _pooler(world, "transaction") as (url, _restart):
        check(_problem(url) == postgres.NO_SESSIONS, "sessions that others get were not noticed")
    with _pooler(world, "session") as (url, restart):
        check(_problem(url) == "", f"sessions that are kept were refused: {_problem(url)}")
        worker = world.any_worker({"DATABASE_URL": url})
        busy(world, worker)
        restart()
        _recovers(world, worker)
        check("database_fault" in worker.log, "the worker never met the restart")


def _problem(url: str) -> str:
    """Return what the system checks report about a database's sessions."""
    command = ["manage.py", "check", "--database", "default"]
    environment = {**os.environ, "DATABASE_URL": url}
    asked = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    return postgres.NO_SESSIONS if "webhooks.E013" in asked.stderr else asked.stderr[-500:]


@contextmanager
def _pooler(world: World, mode: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Start PgBouncer in front of the database; yield its URL and a function that restarts it."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise SkippedFaultError("PgBouncer is not installed")
    port, server = free_port(), _server(world)
    settings = world.directory / f"{mode}.ini"
    settings.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=postgres\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\n"
        f"auth_type=any\npool_mode={mode}\n"
    )
    command = [program, "--quiet", *(["--user=nobody"] if os.geteuid() == 0 else []), str(settings)]
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        world.wait(lambda: _listens(port), 20, "A start of PgBouncer")

    def end() -> None:
        running[-1].kill()
        running[-1].wait(20)

    def restart() -> None:
        end()
        time.sleep(1)
        start()

    try:
        start()
        yield f"postgres://postgres@127.0.0.1:{port}/postgres", restart
    finally:
        end()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@fault("F61", "the role of the workers may not write attempts for a while")
def revoke(world: World) -> None:
    server = _server(world)
    cache.delete(backlog.MACHINE_LACKS)
    with psycopg.connect(server.url, autocommit=True) as own:
        own.execute(_ROLE)
        worker = world.any_worker({"DATABASE_URL": server.url.replace("postgres@", "engine@")})
        try:
            busy(world, worker)
            own.execute("REVOKE INSERT ON webhooks_attempt FROM engine")
            world.wait(lambda: bool(cache.get(backlog.MACHINE_LACKS)), 20, "A word in /readyz")
            own.execute("GRANT INSERT ON webhooks_attempt TO engine")
            _recovers(world, worker)
            check("permission denied for table" in worker.log, "the worker never met it")
        finally:
            worker.close()
            own.execute("DROP OWNED BY engine; DROP ROLE engine")


_ROLE = """
CREATE ROLE engine LOGIN;
GRANT ALL ON ALL TABLES IN SCHEMA public TO engine;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO engine
"""


@fault("F19", "SQLite locked by a long writer", databases=(SQLITE,))
def lock(world: World) -> None:
    worker = world.any_worker()
    busy(world, worker)
    path = settings.DATABASES["default"]["NAME"]
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.execute("BEGIN IMMEDIATE")
        publishing = threading.Thread(target=_publish_until_accepted, args=(world,))
        publishing.start()
        # Longer than the lock timeout of Django and of the worker.
        time.sleep(23)
        writer.execute("ROLLBACK")
    writer.close()
    publishing.join(60)
    check("database_fault" in worker.log, "the worker never met the lock")
    _recovers(world, worker)


@fault("F39", "the database waits for three leases, without an error", databases=BOTH)
def freeze(world: World) -> None:
    world.webhook("/a")
    worker = world.any_worker()
    world.receiver.delays[""] = 1.0
    world.publish(120)
    world.wait_for_flight(8)
    with _writes_blocked(world):
        # All requests in flight get their response, and no result can be written.
        time.sleep(3 * LEASE_SECONDS)
    world.receiver.delays.clear()
    _recovers(world, worker)
    check("leases_expired" not in worker.log, "rows of a living process were taken back")


@contextmanager
def _writes_blocked(world: World) -> Iterator[None]:
    """Block every write, for less time than the lock timeout of Django and of the worker."""
    if world.postgres is not None:
        with psycopg.connect(world.postgres.url) as locking:
            locking.execute("LOCK TABLE webhooks_delivery IN EXCLUSIVE MODE")
            yield
        return
    path = settings.DATABASES["default"]["NAME"]
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        yield
        writer.execute("ROLLBACK")


def _publish_until_accepted(world: World) -> None:
    for _ in range(10):
        try:
            with fresh_connection():
                world.publish(5)
            return
        except DatabaseError:
            time.sleep(0.5)


class _Ballast:
    """Fills a disk to the last byte, and frees it again."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def __enter__(self) -> "_Ballast":
        self.fill()
        return self

    def fill(self) -> None:
        with self._path.open("ab", buffering=0) as file:
            for size in (2**20, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass

    def __exit__(self, *_: object) -> None:
        self._path.unlink()


def _mounted(disk: Path | None) -> Path:
    if disk is None:
        raise SkippedFaultError("a file system to fill can be mounted by root only")
    return disk


@fault("F25", "disk full under the database", databases=BOTH)
def fill_database_disk(world: World) -> None:
    disk = _mounted(world.database_disk)
    worker = world.any_worker()
    busy(world, worker)
    refused = 0
    with _Ballast(disk) as ballast:
        ends = time.monotonic() + 6
        while time.monotonic() < ends:
            ballast.fill()
            try:
                # A large event needs more room than is left.
                with fresh_connection():
                    world.publish(10, padding="x" * 100_000)
            except DatabaseError:
                refused += 1
            time.sleep(0.2)
    check(refused > 0, "no publish was refused: the disk was not full")
    if world.postgres is not None and not world.postgres.is_running:
        # PostgreSQL ends when it cannot write its log; a supervisor would restart it.
        world.notes.append("the server ended and was started again")
        world.postgres.start()
    _recovers(world, worker)
    _is_intact(world)


def _is_intact(world: World) -> None:
    with fresh_connection(), connection.cursor() as cursor:
        if world.database == POSTGRES:
            cursor.execute("SELECT count(*), sum(length(payload)) FROM webhooks_event")
            return
        cursor.execute("PRAGMA integrity_check")
        [(answer,)] = cursor.fetchall()
        check(answer == "ok", f"the file is damaged: {answer}")


@fault("F26", "disk full under the logs", databases=BOTH)
def fill_log_disk(world: World) -> None:
    disk = _mounted(world.log_disk)
    log = disk / "worker.log"
    worker = world.any_worker({"LOG_LEVEL": "DEBUG"}, log=log)
    busy(world, worker)
    with _Ballast(disk) as ballast:
        before = log.stat().st_size
        for _ in range(6):
            ballast.fill()
            world.publish(20)
            time.sleep(0.5)
        world.settle()
        check(log.stat().st_size - before < 4096, "the log grew: the disk was not full")
    _recovers(world, worker)


@fault("F51", "retention drops partitions whose last rows are being sent")
def drop_partitions(world: World) -> None:
    old = world.webhook("/old")
    world.webhook("/new")
    world.receiver.delays[""] = 0.1
    world.publish(400)
    weeks = [timezone.now() - dt.timedelta(weeks=30 - week) for week in range(10)]
    with fresh_connection():
        check(partitions.make(weeks[0], weeks[-1]) == 20, "there were old partitions")
        aged = _age(old, weeks)
    worker = world.worker()
    world.wait_for_flight(4)
    world.wait(lambda: _drop(world, weeks[-1]), 60, "Dropping all partitions")
    world.settle()
    with fresh_connection():
        retention.delete_old_rows()
        left = Delivery.objects.filter(id__lt=ids.floor("dlv", weeks[-1].timestamp() + 1)).count()
    check(left == 0, f"{left} finished rows outlived their partition")
    arrived = sum(path == "/old" and event in aged for path, event in world.receiver.counts())
    check(arrived == len(aged), f"{arrived} of {len(aged)} old deliveries arrived")
    # These rows were finished and expired, so they are deleted.
    world.accepted -= len(aged)
    _recovers(world, worker)


def _age(webhook: Webhook, weeks: list[dt.datetime]) -> set[str]:
    """Spread a webhook's deliveries over past weeks; return the ids of their events."""
    rows = list(Delivery.objects.filter(webhook=webhook).values_list("id", "event_id"))
    for number, (key, _event) in enumerate(rows):
        first = ids.floor("dlv", weeks[number % len(weeks)].timestamp())
        Delivery.objects.filter(id=key).update(id=first[:14] + key[14:])
    return {event for _key, event in rows}


def _drop(world: World, newest: dt.datetime) -> bool:
    """Run retention while publishing; return whether no old partition is left."""
    world.publish(10)
    with fresh_connection():
        retention.delete_old_rows()
        return partitions.partitions(partitions.DELIVERY)[0].begins_at > newest
