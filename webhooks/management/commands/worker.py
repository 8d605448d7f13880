"""`manage.py worker`: deliveries, tasks and the clock in one process, for PostgreSQL and Redis.

It is what `celery worker` starts, without the command line of that program: 9 MiB of shells and
consoles that a worker never shows.
"""

import sys
from typing import Any

from celery.utils.nodenames import default_nodename, host_format
from django.conf import settings

from config.celery import app
from webhooks.delivery.drains import QUEUE
from webhooks.management.printable import PrintableCommand

# One drains; the others sweep, refresh tokens, send alerts and delete old rows.
_THREADS = 4


def worker_options() -> dict[str, Any]:
    return {
        "pool": "threads",
        "concurrency": _THREADS,
        "queues": [settings.CELERY_TASK_DEFAULT_QUEUE, QUEUE],
        # The step of `config.celery`.
        "clock": True,
        # They speak to other workers, of which this one has no need to know.
        "without_gossip": True,
        "without_mingle": True,
        "without_heartbeat": True,
    }


class Command(PrintableCommand):
    help = "Deliver, run tasks and keep the clock. Start it once for each core to use."
    # Their answer comes from `manage.py check`; they would load every page and take 4 MiB.
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        worker = app.Worker(
            hostname=host_format(default_nodename("worker@%h")),
            loglevel="WARNING",
            quiet=True,
            **worker_options(),
        )
        # Returns after SIGTERM, when what was in flight is recorded.
        worker.start()
        sys.exit(worker.exitcode)
