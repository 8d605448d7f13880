"""The Celery application, its Redis broker, and the clock of `manage.py worker` and `run`."""

import logging
import os
from typing import Any

from celery import Celery, beat, bootsteps, signals
from django.db import close_old_connections
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError

logger = logging.getLogger(__name__)

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# A worker throws their answer away; they would load every page and take 4 MiB.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
# What redis:// and rediss:// mean.
for _scheme in ("redis", "rediss"):
    TRANSPORT_ALIASES[_scheme] = f"{__name__}:Transport"
# The clock sleeps until something is due, and for this long at most.
_CLOCK_SECONDS = 60
app = Celery("webhooks")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@signals.task_prerun.connect
def _close_old_connections(**_: Any) -> None:
    # As before a request: Celery keeps a connection that the server ended for hundreds of tasks,
    # each of which fails.
    close_old_connections()


class Scheduler(beat.Scheduler):
    """What is due; it stays in memory, so each entry runs within its period after a start.

    When the clock was set back, Celery's own runs nothing until it is as late again.
    """

    def tick(self, *args: Any, **options: Any) -> float:
        for entry in self.schedule.values():
            now = entry.default_now()
            if entry.last_run_at and entry.last_run_at > now:
                entry.last_run_at = now
                self._heap = None
        seconds: float = super().tick(*args, **options)
        return seconds


class Clock(bootsteps.StartStopStep):
    """Beat as a thread: --beat forks a process, which takes as much memory as the worker."""

    def __init__(self, worker: Any, clock: bool = False, **options: Any) -> None:
        super().__init__(worker, **options)
        self.enabled = clock

    def create(self, worker: Any) -> Any:
        clock: Any = beat.EmbeddedService(worker.app, thread=True, scheduler_cls=Scheduler)
        # As a thread it would look each second whether something is due.
        clock.service.max_interval = _CLOCK_SECONDS
        return clock

    def stop(self, parent: Any) -> None:
        # Not waited for: it sleeps until something is due.
        self.obj.service.stop()

    terminate = stop


app.steps["worker"].add(Clock)


# ---- The broker: what is no message, or no Redis, does not end the worker that meets it ----------

# A key that is never set.
_NOTHING = "webhooks:nothing"


class Channel(redis.Channel):
    def __init__(self, *args: Any, **options: Any) -> None:
        """Connect, and raise unless this Redis takes writes.

        A worker would connect several times a second to one that answers and takes none.
        """
        super().__init__(*args, **options)
        try:
            self.client.delete(_NOTHING)
        except Exception as error:
            self.close()
            raise RedisConnectionError(str(error)) from error

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, RecursionError) as error:
            # Taken out of the queue already: bytes that are no JSON.
            _log(error)
            return True


class Transport(redis.Transport):
    Channel = Channel

    def establish_connection(self) -> Any:
        """Connect; what is no Redis, or takes no writes, is away, so it is tried again, later."""
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
            # JSON, but no message of Celery's, or one whose parts are not what they should be.
            _log(error)
            self._forget(message)

    def _forget(self, message: Any) -> None:
        """Take a message that was read out of what is kept for another worker."""
        properties = message.get("properties") if isinstance(message, dict) else None
        tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
        for channel in self.channels or ():
            if isinstance(tag, str) and tag in (channel.qos._delivered or ()):
                channel.basic_reject(tag, requeue=False)


def _log(error: Exception) -> None:
    logger.error("message_dropped reason=%s", type(error).__name__)
