"""The Celery worker and the clock as threads of this process, for `manage.py run`.

Nothing here touches signal handlers: they belong to the main thread. The queue is rows, so what
these threads had in hand when they ended is found again by the next start.
"""

import logging
import threading

from celery import signals
from django.conf import settings

from config.celery import app
from webhooks.delivery.drains import QUEUE
from webhooks.tasks import sweep

# One thread drains; the others sweep, refresh tokens and delete old rows.
_THREADS = 4
_NAME = "webhooks@run"


class Background:
    """A context manager: the worker and the clock run inside its block."""

    def __init__(self) -> None:
        # One line a task would bury what people should read here.
        level = logging.DEBUG if settings.LOG_LEVEL == "DEBUG" else logging.WARNING
        logging.getLogger("celery").setLevel(level)
        self._worker = app.WorkController(
            app=app,
            hostname=_NAME,
            pool="threads",
            concurrency=_THREADS,
            queues=[settings.CELERY_TASK_DEFAULT_QUEUE, QUEUE],
            # What `celery worker` sends too; the bare controller leaves it out.
            ready_callback=lambda consumer: signals.worker_ready.send(sender=consumer),
            # The step of `config.celery`.
            clock=True,
            # They speak to other workers, of which this one has no need to know.
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        )
        self._worker_thread = threading.Thread(target=self._worker.start, name="worker")

    def __enter__(self) -> "Background":
        self._worker_thread.start()
        # Not only after the first period: what waited for this start goes out now.
        sweep.delay()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop as `celery worker` does on SIGTERM: tasks in hand finish or hand back their rows."""
        signals.worker_shutting_down.send(sender=_NAME, sig="SIGTERM", how="Warm", exitcode=0)
        self._worker.stop()
        self._worker_thread.join()
