"""One database, one broker and one receiver to break, and the accounting of all deliveries.

Faults are functions of a `World`. They start workers, publish, break something and repair it; then
`settle` and `verify` check the promises against the records of the receiver and the database.
"""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import redis
from django.apps import apps
from django.db import DatabaseError, connection, transaction

from tests.factories import make_webhook
from tests.faults.processes import Process
from tests.faults.receiver import CountingReceiver, Loop
from tests.services import PostgresServer, RedisServer, free_port
from webhooks import events
from webhooks.delivery.recorder import RECORD_ROWS
from webhooks.models import (
    Attempt,
    AuditEntry,
    Delivery,
    EncryptionCanary,
    Outcome,
    Status,
    Webhook,
)

# After a fault, no row may be stuck for longer than this.
SETTLE_SECONDS = 60.0
EVENT = "call.incoming.after"


class BrokenPromiseError(AssertionError):
    """A promise was not kept; the text says which, with numbers."""


class SkippedFaultError(Exception):
    """The fault cannot be made on this machine; the text says why."""


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BrokenPromiseError(otherwise)


@dataclass
class World:
    database: str
    directory: Path
    loop: Loop
    receiver: CountingReceiver
    redis_server: RedisServer
    # None on SQLite.
    postgres: PostgresServer | None
    # Small file systems that can be filled, for the database and for logs; None without root.
    database_disk: Path | None
    log_disk: Path | None
    # Whether all faults together should take minutes.
    is_quick: bool = False
    # The pool of workers, unless a fault chooses another.
    pool: str = "prefork"
    processes: list[Process] = field(default_factory=list)
    # Ids of all process groups of the run.
    groups: list[int] = field(default_factory=list)
    accepted: int = 0
    allowed: int = 0
    notes: list[str] = field(default_factory=list)

    # Actions of a fault.

    def webhook(self, path: str = "/hook", **fields: object) -> Webhook:
        """Save an active webhook for every call event, with the counting receiver as its URL."""
        given = {
            "name": path,
            "url": self.receiver.url(path),
            "event_types": ["call.*"],
            "timeout_seconds": 2,
            "retry_schedule_seconds": [1, 1, 2, 2, 2, 2, 2, 2],
            **fields,
        }
        return make_webhook(**given)

    def publish(self, count: int, **payload: object) -> list[str]:
        """Publish events in batches and count the deliveries they make; return their ids."""
        ids: list[str] = []
        for start in range(0, count, 100):
            batch = range(start, min(start + 100, count))
            items = [events.NewEvent(EVENT, {"call_id": f"c{n}", **payload}) for n in batch]
            ids += self.accept(lambda items=items: events.publish_many(items))  # type: ignore[misc]
        return ids

    def accept(self, publish: Callable[[], list[events.Published]]) -> list[str]:
        made = publish()
        self.accepted += sum(published.deliveries for published in made)
        return [published.event_id for published in made]

    def worker(
        self,
        *,
        pool: str = "",
        concurrency: int = 2,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        log: Path | None = None,
    ) -> Process:
        """Start a Celery worker."""
        number = len(self.processes)
        log = log or self.directory / f"worker-{number}.log"
        command = ["-m", "celery", "-A", "config", "worker", "-Q", "deliveries,default"]
        command += [
            "-c",
            str(concurrency),
            "--pool",
            pool or self.pool,
            "-n",
            f"w{number}@%h",
            "-l",
            "INFO",
        ]
        process = Process([*command, *arguments], log, environment)
        return self.own(process)

    def one_process(
        self, environment: Mapping[str, str] | None = None, *, log: Path | None = None
    ) -> Process:
        """Start web server, worker and clock in one process without Redis."""
        log = log or self.directory / f"run-{len(self.processes)}.log"
        arguments = ["manage.py", "run", "--port", str(free_port()), "--no-sandbox"]
        process = Process(arguments, log, {"REDIS_URL": "", **(environment or {})})
        return self.own(process)

    def any_worker(
        self, environment: Mapping[str, str] | None = None, *, log: Path | None = None
    ) -> Process:
        """Start this database's usual worker: on SQLite the one-process mode; otherwise, by `pool`,
        compose.yaml's worker with threads and a clock, or Celery's own with pool processes.
        """
        if self.database == "sqlite":
            return self.one_process(environment, log=log)
        if self.pool == "threads":
            log = log or self.directory / f"worker-{len(self.processes)}.log"
            return self.own(Process(["manage.py", "worker"], log, environment))
        return self.worker(environment=environment, log=log)

    def own(self, process: Process) -> Process:
        """End this process too when the fault is over."""
        self.processes.append(process)
        self.groups.append(process.pid)
        return process

    def beat(self) -> Process:
        number = len(self.processes)
        command = ["-m", "celery", "-A", "config", "beat", "-l", "INFO", "--pidfile="]
        process = Process(command, self.directory / f"beat-{number}.log")
        return self.own(process)

    def kill(self, process: Process, *, child: bool = False) -> None:
        """Kill a process while it sends, and count the requests that may be sent twice.

        It is frozen before, so that its requests in flight and its unwritten results can be counted
        while nothing changes.
        """
        process.freeze()
        frozen_at = time.monotonic()
        time.sleep(0.4)
        in_flight, unwritten = self.at_risk(frozen_at)
        if child:
            for pid in process.children:
                os.kill(pid, signal.SIGKILL)
            process.thaw()
        else:
            process.kill()
        self.allowed += in_flight + unwritten
        self.notes.append(f"{in_flight} in flight, {unwritten} unwritten")
        check(unwritten <= RECORD_ROWS, f"{unwritten} answers were not written: more than a batch")

    def at_risk(self, frozen_at: float) -> tuple[int, int]:
        """Return the number of requests without a response, and of responses without a record."""
        with fresh_connection():
            sending = Delivery.objects.filter(status=Status.SENDING)
            rows = set(sending.values_list("webhook__name", "event_id"))
        in_flight = unwritten = 0
        for arrival in self.receiver.arrivals:
            if (arrival.path, arrival.event_id) in rows:
                if arrival.ended_at is None or arrival.ended_at > frozen_at:
                    in_flight += 1
                else:
                    unwritten += 1
        return in_flight, unwritten

    # Waiting.

    def leftovers(self) -> list[int]:
        """Return the processes of the run's groups that still live."""
        return [pid for pid in psutil.pids() if _is_alive(pid, self.groups)]

    def wait(self, until: Callable[[], bool], seconds: float, what: str) -> float:
        """Poll until a condition holds; return the seconds it took."""
        began = time.monotonic()
        while not _holds(until):
            if time.monotonic() - began > seconds:
                raise BrokenPromiseError(
                    f"{what} did not happen in {seconds:.0f} s; {self.described()}"
                )
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_for_arrivals(self, count: int, seconds: float = 30.0) -> None:
        self.wait(lambda: len(self.receiver.arrivals) >= count, seconds, f"{count} arrivals")

    def wait_for_flight(self, count: int, seconds: float = 30.0) -> None:
        """Wait until this many requests are in flight at once."""
        self.wait(lambda: self.receiver.in_flight >= count, seconds, f"{count} in flight")

    def statuses(self) -> Counter[str]:
        with fresh_connection():
            return Counter(Delivery.objects.values_list("status", flat=True))

    def described(self) -> str:
        try:
            found = ", ".join(f"{n} {status}" for status, n in sorted(self.statuses().items()))
        except DatabaseError as error:
            found = f"no database: {error}"
        return f"{self.accepted} accepted: {found}; {len(self.receiver.arrivals)} arrived"

    def settle(self, seconds: float = SETTLE_SECONDS) -> float:
        """Wait until no row is in flight or due; return the seconds it took."""
        return self.wait(self._is_settled, seconds, "Settling")

    def _is_settled(self) -> bool:
        with fresh_connection():
            open_rows = Delivery.objects.filter(status__in=(Status.SENDING, Status.PENDING))
            return not open_rows.exists()

    # The promises.

    def verify(self, *, arrives: bool = True) -> None:
        """Check the counts: nothing lost, no duplicates beyond those allowed, equal bytes."""
        found = self.statuses()
        lost = self.lost()
        check(lost == 0, f"{lost} lost: {self.described()}")
        check(found[Status.SENDING] == 0, f"stuck: {self.described()}")
        check(found[Status.FAILED] == 0, f"given up: {self.described()}")
        if arrives:
            check(found[Status.SUCCEEDED] == self.accepted, f"not all sent: {self.described()}")
        check(self.receiver.has_equal_bytes(), "one webhook-id came with different bytes")
        duplicates = self.duplicates()
        check(
            duplicates <= self.allowed,
            f"{duplicates} duplicates, {self.allowed} allowed: {self.described()}",
        )

    def lost(self) -> int:
        """Return how many accepted deliveries have no row, or succeeded without arriving."""
        with fresh_connection():
            rows = list(Delivery.objects.values_list("status", "webhook__name", "event_id"))
        came = self.receiver.counts()
        never_arrived = sum(
            status == Status.SUCCEEDED and (name, event_id) not in came
            for status, name, event_id in rows
        )
        return max(0, self.accepted - len(rows)) + never_arrived

    def duplicates(self) -> int:
        """Return how many requests came beyond one per delivery, not counting retries.

        A receiver whose response came too late, as on a busy machine, gets another attempt.
        """
        with fresh_connection():
            late = Attempt.objects.filter(outcome=Outcome.TIMEOUT)
            timed_out = Counter(late.values_list("delivery__webhook__name", "delivery__event_id"))
        came = self.receiver.counts()
        return sum(max(0, count - 1 - timed_out[key]) for key, count in came.items())

    # Between faults.

    def clear(self) -> None:
        """End every process, empty every table, and restart servers that were stopped."""
        for process in self.processes:
            process.close()
        self.processes.clear()
        for log in self.directory.glob("*.log"):
            log.unlink()
        connection.close()
        if self.postgres is not None and not self.postgres.is_running:
            self.postgres.start()
        if not self.redis_server.is_running:
            self.redis_server.start()
        with fresh_connection(), transaction.atomic(), connection.cursor() as cursor:
            if self.postgres is not None:
                # Frees the disk at once, as a million rows fill most of it.
                cursor.execute("TRUNCATE webhooks_attempt, webhooks_delivery, webhooks_event")
            # Foreign keys are checked at the end.
            for model in apps.get_app_config("webhooks").get_models():
                # A trigger prevents emptying the audit trail.
                if not model._meta.proxy and model not in (EncryptionCanary, AuditEntry):
                    cursor.execute(f"DELETE FROM {model._meta.db_table}")
        if self.postgres is None:
            # The same for SQLite, which keeps the pages of deleted rows.
            with fresh_connection(), connection.cursor() as cursor:
                cursor.execute("VACUUM")
        self.flush_redis()
        self.receiver.clear()
        self.accepted = self.allowed = 0
        self.notes = []

    def flush_redis(self) -> None:
        with redis.Redis.from_url(self.redis_server.url) as client:
            client.flushall()


def _is_alive(pid: int, groups: list[int]) -> bool:
    try:
        # A zombie that init has not reaped yet does nothing any more.
        return os.getpgid(pid) in groups and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.Error):
        return False


def _holds(until: Callable[[], bool]) -> bool:
    try:
        return until()
    except DatabaseError:
        # Expected during a fault.
        return False


@contextlib.contextmanager
def fresh_connection() -> Iterator[None]:
    """Use a new connection, as an earlier fault may have broken the current one."""
    try:
        connection.close()
        yield
    finally:
        connection.close()
