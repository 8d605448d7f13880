"""`manage.py worker`: deliveries, tasks and the clock in one process, for PostgreSQL and Redis.

It starts the same worker as `celery worker`, without that program's command line modules, which
take 9 MiB and which a worker never uses.
"""

import logging
import sys
from typing import Any

from celery.utils.nodenames import default_nodename, host_format
from django.conf import settings

from config.celery import app
from webhooks.delivery.drains import QUEUE
from webhooks.management.printable import PrintableCommand

# One thread drains; the others sweep, refresh tokens, send alerts and delete old rows.
_THREADS = 4


def worker_options() -> dict[str, Any]:
    return {
        "pool": "threads",
        "concurrency": _THREADS,
        "queues": [settings.CELERY_TASK_DEFAULT_QUEUE, QUEUE],
        # Enables the Clock step of `config.celery`.
        "clock": True,
        # Gossip, mingle and heartbeats are for contact between workers, which is not needed here.
        "without_gossip": True,
        "without_mingle": True,
        "without_heartbeat": True,
    }


def quiet_celery() -> None:
    """Keep Celery from logging each task, which would bury the lines that people should read."""
    is_loud = settings.LOG_LEVEL == "INFO"
    logging.getLogger("celery").setLevel("WARNING" if is_loud else settings.LOG_LEVEL)


class Command(PrintableCommand):
    help = "Deliver, run tasks and keep the clock. Start it once for each core to use."
    # Run by `manage.py check` instead; here they would load every view and take 4 MiB.
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        quiet_celery()
        worker = app.Worker(
            hostname=host_format(default_nodename("worker@%h")),
            # Celery sets it on the root logger.
            loglevel=settings.LOG_LEVEL,
            quiet=True,
            **worker_options(),
        )
        # Returns after SIGTERM, once the requests in flight are recorded.
        worker.start()
        sys.exit(worker.exitcode)
