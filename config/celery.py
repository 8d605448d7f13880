"""The Celery application, and the clock that `manage.py worker` and `run` keep."""

import os
from typing import Any

from celery import Celery, beat, bootsteps, signals
from django.db import close_old_connections

from config import broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
# A worker throws their answer away; they would load every page and take 4 MiB.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
broker.register()
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
