"""The Celery application, its Redis broker, and the clock of `manage.py worker` and `run`."""

import logging
import math
import os
import time
from queue import Empty
from typing import Any

from celery import Celery, beat, bootsteps, signals
from django.db import close_old_connections
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

logger = logging.getLogger(__name__)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# A worker ignores the result of the system checks, which load every view and take 4 MiB.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
# Use the Transport below for redis:// and rediss:// URLs.
for _scheme in ("redis", "rediss"):
    TRANSPORT_ALIASES[_scheme] = f"{__name__}:Transport"
# The clock sleeps until an entry is due: at most, and at least if it looked too early.
_CLOCK_SECONDS, _EARLY_SECONDS = 60, 0.01
app = Celery("webhooks")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.task_prerun.connect
def _close_old_connections(**_: Any) -> None:
    # As Django does before a request: Celery would keep a connection that the server closed for
    # hundreds of tasks, and each of them would fail.
    close_old_connections()


class Scheduler(beat.Scheduler):
    """Keep the schedule in memory, so each entry runs within its period after a start.

    After the system clock is set back, Celery's scheduler runs nothing until the old time is
    reached again.
    """

    def tick(self, *args: Any, **options: Any) -> float:
        for entry in self.schedule.values():
            now = entry.default_now()
            if entry.last_run_at and entry.last_run_at > now:
                entry.last_run_at = now
                self._heap = None
        seconds: float = super().tick(*args, **options)
        # Celery looks 10 ms too early, and would try again without a pause until then.
        return seconds if seconds >= 0 else _EARLY_SECONDS


class Clock(bootsteps.StartStopStep):
    """Runs beat as a thread: --beat forks a process, which takes as much memory as the worker."""

    def __init__(self, worker: Any, clock: bool = False, **options: Any) -> None:
        super().__init__(worker, **options)
        self.enabled = clock

    def create(self, worker: Any) -> Any:
        clock: Any = beat.EmbeddedService(worker.app, thread=True, scheduler_cls=Scheduler)
        # Celery's beat thread wakes up every second by default.
        clock.service.max_interval = _CLOCK_SECONDS
        return clock

    def stop(self, parent: Any) -> None:
        # The thread is not joined: it may sleep for up to a minute.
        self.obj.service.stop()

    terminate = stop


app.steps["worker"].add(Clock)


# ---- Broker: a malformed message or an unusable Redis does not end the worker --------------------

# A key that is never set; deleting it tests for write access.
_NOTHING = "webhooks:nothing"


class Channel(redis.Channel):
    # When Redis last answered a read of the queues (monotonic seconds).
    read_at = -math.inf

    def __init__(self, *args: Any, **options: Any) -> None:
        """Connect; raise RedisConnectionError unless this Redis accepts writes.

        Otherwise a worker would reconnect several times a second to a read-only Redis.
        """
        super().__init__(*args, **options)
        try:
            self.client.delete(_NOTHING)
        except Exception as error:
            self.close()
            raise RedisConnectionError(str(error)) from error

    def _put(self, *args: Any, **options: Any) -> None:
        try:
            super()._put(*args, **options)
        except ReadOnlyError:
            # After a failover the name leads to another server, while this one still responds.
            self.pool.disconnect(inuse_connections=False)
            raise

    def _brpop_read(self, **options: Any) -> Any:
        try:
            is_read = super()._brpop_read(**options)  # type: ignore[misc]
        except Empty:
            self.read_at = time.monotonic()
            raise
        except (ValueError, RecursionError) as error:
            # Not JSON. The message has already left the queue.
            _log(error)
            is_read = True
        except Exception:
            self.read_at = -math.inf
            raise
        self.read_at = time.monotonic()
        return is_read

    def check_publishing(self, queue: str) -> None:
        """Raise what publishing to this queue would raise; change nothing in it."""
        self._lookup(queue, queue)
        with self.conn_or_acquire() as client:
            client.ltrim(queue, 0, -1)


class Transport(redis.Transport):
    Channel = Channel

    def establish_connection(self) -> Any:
        """Connect; report every failure as a connection error, which Celery retries later."""
        try:
            return super().establish_connection()
        except Exception as error:
            if isinstance(error, (*self.connection_errors, *self.channel_errors)):
                raise
            raise RedisConnectionError(f"No answer of Redis: {type(error).__name__}") from error

    def _deliver(self, message: Any, queue: str | None) -> None:
        try:
            super()._deliver(message, queue)
        except Exception as error:
            is_broken = isinstance(error, (*self.connection_errors, *self.channel_errors))
            if is_broken and not isinstance(error, KeyError):
                raise
            # JSON, but not a Celery message, or one with malformed parts.
            _log(error)
            self._forget(message)

    def _forget(self, message: Any) -> None:
        """Drop a message from the unacknowledged ones, which go to another worker later."""
        properties = message.get("properties") if isinstance(message, dict) else None
        tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
        for channel in self.channels or ():
            if isinstance(tag, str) and tag in (channel.qos._delivered or ()):
                channel.basic_reject(tag, requeue=False)


def _log(error: Exception) -> None:
    logger.error("message_dropped reason=%s", type(error).__name__)
