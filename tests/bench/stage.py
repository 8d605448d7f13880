"""The servers, workers and rows that the parts of the bench share.

`Stage` sets the environment and starts Django, so modules that import models must be imported
after `Stage.__enter__()`.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.bench import machine
from tests.bench.history import TIME_KEY
from tests.bench.receivers import OwnReceiver, fast_receiver
from tests.services import PostgresServer, RedisServer

ROOT = Path(__file__).resolve().parents[2]
WEBHOOKS = 100
LOGIN, PASSWORD = "bench-login", "bench-password"
# Pads the event document to 1 KB.
PAYLOAD = {"call_id": "1700000000.1", "caller": "+380441234567", "note": "x" * 810}
# As in compose.yaml; fsync and synchronous_commit stay on.
POSTGRES = {"shared_buffers": "512MB", "max_wal_size": "4GB", "min_wal_size": "2GB"}
_START_SECONDS = 60.0
# The most lines of a worker's log that are shown.
_WARNINGS = 20
_IS_WARNING = re.compile(r" (WARNING|ERROR|CRITICAL) ")

_DUE = f"""
WITH r AS MATERIALIZED (
  SELECT i, {TIME_KEY} || lpad(i::text, 16, '0') AS id FROM (
    SELECT i, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000)::bigint AS ms
    FROM generate_series(0, %(rows)s - 1) i) s
), e AS (
  INSERT INTO webhooks_event (id, type, payload, occurred_at, filtered_count, fingerprint, source,
                              call_id, created_at)
  SELECT 'evt_' || id, 'call.incoming.after',
    convert_to(replace(%(document)s, 'EVENT_ID', 'evt_' || id), 'UTF8'), now(), 0, '', 'bench', '',
    now() FROM r WHERE i = 0 OR NOT %(one_event)s
)
INSERT INTO webhooks_delivery (id, event_id, webhook_id, status, trigger, hold_reason,
    next_attempt_at, attempt_count, failure_count, unknown_count, lease, outcome, created_at)
SELECT 'dlv_' || id,
  'evt_' || CASE WHEN %(one_event)s THEN (SELECT id FROM r WHERE i = 0) ELSE id END,
  (%(webhooks)s::bigint[])[1 + i %% %(count)s], %(status)s,
  'event', '', now() + %(after)s * interval '1 second', 0, 0, 0, '', '', now() FROM r
"""

_OPEN = "SELECT EXISTS (SELECT FROM webhooks_delivery WHERE status = %s{})"
_BUSY = """
SELECT count(*) FROM pg_stat_activity
WHERE backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()
"""
# From the first request until the last result is in the database.
_SPAN = """
SELECT count(*), EXTRACT(EPOCH FROM max(d.finished_at) - min(a.started_at))::float8
FROM webhooks_attempt a JOIN webhooks_delivery d ON d.id = a.delivery_id
WHERE d.webhook_id = ANY(%s) AND a.outcome = 'succeeded'
"""


class Stage:
    """A context manager that owns all servers and stops them at its end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.directory = Path(tempfile.mkdtemp(prefix="webhooks-bench-"))
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self.postgres = PostgresServer(settings=POSTGRES)
        self.redis = RedisServer()
        # One counts and responds as fast as possible; the other notes times and can stay silent.
        self.receiver = fast_receiver()
        self.timing_receiver = OwnReceiver()

    def __enter__(self) -> Self:
        machine.allow_many_files()
        try:
            for server in (self.postgres, self.redis, self.receiver, self.timing_receiver):
                self._stack.enter_context(server)
            _set_environment(self.postgres.url, self.redis.url, self.directory)
            import django
            from django.core.management import call_command

            django.setup()
            call_command("migrate", verbosity=0)
            # A generic plan would cast an array parameter again for each row.
            self.database: psycopg.Connection[Any] = self._stack.enter_context(
                psycopg.connect(self.postgres.url, autocommit=True, prepare_threshold=None)
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def servers(self) -> list[int]:
        return [self.postgres.pid, self.redis.pid, self.receiver.pid, self.timing_receiver.pid]

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep the servers off the core of the measured process while the context is open."""
        machine.pin(self.servers, machine.SERVER_CORES)
        try:
            yield
        finally:
            machine.pin(self.servers)

    def query(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        return self.database.execute(sql.encode(), parameters).fetchall()

    def fill_wal(self, wal_mib: int) -> None:
        """Fill this much write-ahead log, so that PostgreSQL reuses its files like an older server.

        A new server fills each file with zeros before its first use: a sixth of its CPU.
        """
        self.database.execute(
            "SELECT pg_logical_emit_message(false, 'bench', repeat('x', 1048576)) "
            "FROM generate_series(1, %s)",
            [wal_mib],
        )
        self.database.execute("CHECKPOINT")

    def empty(self) -> None:
        """Delete every event, delivery and attempt; a checkpoint frees their write-ahead log."""
        self.database.execute("TRUNCATE webhooks_event, webhooks_delivery, webhooks_attempt")
        self.database.execute("CHECKPOINT")

    def clear(self) -> None:
        """Delete the webhooks too, or events of the next part would be delivered to them."""
        self.database.execute("TRUNCATE webhooks_webhook, webhooks_credential CASCADE")
        self.empty()

    def forget(self, webhooks: Sequence[int]) -> None:
        """Delete webhooks as the product does: their names stay in the log."""
        from webhooks import events
        from webhooks.models import Webhook

        for webhook in Webhook.objects.filter(pk__in=webhooks):
            events.delete(webhook)

    def fill(
        self,
        rows: int,
        webhooks: Sequence[int],
        *,
        status: str = "pending",
        one_event: bool = False,
    ) -> None:
        """Insert an event of 1 KB per delivery (or one for all) in one commit, webhooks in turn."""
        parameters = {
            "rows": rows,
            "document": self.document(),
            "webhooks": list(webhooks),
            "count": len(webhooks),
            "status": status,
            "one_event": one_event,
            # Rows that are not pending belong to the naive worker; the engine must not claim them.
            "after": 0 if status == "pending" else 86400,
        }
        self.database.execute(_DUE.encode(), parameters)

    def document(self) -> str:
        """Return the JSON of an event, with a placeholder for its id."""
        from django.utils import timezone

        from webhooks import payloads

        now = timezone.now()
        return payloads.build_document(
            "call.incoming.after", "EVENT_ID", now, "default", PAYLOAD
        ).decode()

    def wait(self, webhooks: Sequence[int] | None, seconds: float) -> None:
        """Wait until no delivery of these webhooks, or of any webhook, is due or in flight."""
        deadline = time.monotonic() + seconds
        asked = _OPEN.format(" AND webhook_id = ANY(%s)" if webhooks else "")
        named = [list(webhooks)] if webhooks else []
        while any(self.query(asked, [status, *named])[0][0] for status in ("pending", "sending")):
            if time.monotonic() > deadline:
                raise TimeoutError(f"Deliveries were still open after {seconds:.0f} s.")
            # Polls rarely, because PostgreSQL reads through the finished rows each time.
            time.sleep(0.5)

    def rate(self, webhooks: Sequence[int]) -> tuple[int, float]:
        """Return how many requests succeeded, and their rate per second."""
        count, seconds = self.query(_SPAN, [list(webhooks)])[0]
        return count, count / seconds if seconds else 0.0

    @contextmanager
    def paused(self, workers: Sequence["BenchWorker"]) -> Iterator[None]:
        """Pause workers while the context is open."""
        for worker in workers:
            worker.pause(self)
        try:
            yield
        finally:
            for worker in workers:
                worker.go_on()

    @contextmanager
    def worker(
        self, *, app: str = "config", queue: str = "deliveries", cores: Iterable[int] | None = None
    ) -> Iterator["BenchWorker"]:
        """Run a real Celery worker with one pool process."""
        worker = BenchWorker(self.directory, app, queue)
        try:
            if cores is not None:
                machine.pin([worker.pid], cores)
            worker.wait_until_ready()
            yield worker
        finally:
            worker.stop()
            # What explains an odd figure, such as a machine that stood still.
            for line in worker.warnings[-_WARNINGS:]:
                print(f"\n  {line}", file=sys.stderr, end="", flush=True)


class BenchWorker:
    """`celery -A config worker -Q deliveries -c 1 --pool prefork`."""

    def __init__(self, directory: Path, app: str, queue: str) -> None:
        self._log = directory / f"worker-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queue, "-c", "1"]
        command += ["--pool", "prefork", "-l", "INFO", "-n", f"bench-{time.monotonic_ns()}@%h"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid

    @property
    def pool_pid(self) -> int:
        """Return the pid of the process that runs the tasks."""
        return machine.tree(self.pid)[1]

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.log.splitlines() if _IS_WARNING.search(line)]

    def pause(self, stage: Stage) -> None:
        """Stop the worker's processes, but not within a transaction that others wait for."""
        while True:
            self._signal(signal.SIGSTOP)
            # A statement ends without its client, a transaction does not.
            for _ in range(20):
                if not stage.query(_BUSY)[0][0]:
                    return
                time.sleep(0.005)
            self.go_on()
            time.sleep(random.uniform(0.01, 0.05))

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in machine.tree(self.pid):
            os.kill(pid, number)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while "ready." not in self.log:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The Celery worker did not start:\n{self.log[-3000:]}")
            time.sleep(0.1)
        # The first drain begins within one polling interval of webhooks.delivery.drains.
        time.sleep(1.0)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()


def make_webhooks(count: int, url: str, **columns: object) -> list[int]:
    """Make webhooks with Basic authorization and a signing secret; return their ids."""
    from webhooks.models import AuthorizationType, Webhook

    made = []
    for number in range(count):
        webhook = Webhook(
            name=f"Bench {number}",
            url=f"{url}/hook/{number}",
            **columns,
        )
        webhook.credential.authorization_type = AuthorizationType.BASIC
        webhook.credential.basic_login = LOGIN
        webhook.credential.set_secret("basic_password", PASSWORD)
        webhook.save()
        made.append(webhook.pk)
    return made


def notify() -> None:
    from webhooks import tasks

    tasks.notify()


def _set_environment(database_url: str, redis_url: str, directory: Path) -> None:
    for name in [name for name in os.environ if name.startswith("WEBHOOKS_")]:
        del os.environ[name]
    os.environ |= environment(database_url, redis_url, directory)


def environment(database_url: str, redis_url: str, directory: Path) -> Mapping[str, str]:
    """Return the environment of the product's processes; loopback is the only extra network."""
    return {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATA_DIR": str(directory),
        "DEBUG": "0",
        "SECRET_KEY": "a-key-of-the-bench-with-fifty-or-more-characters-in-it-0123456789",
        "FIELD_ENCRYPTION_KEY": "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "WEBHOOKS_ALLOWED_NETWORKS": "127.0.0.0/8,::1/128",
        "LOG_LEVEL": "INFO",
    }
