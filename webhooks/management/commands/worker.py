"""`manage.py worker`: deliveries, tasks and the clock in one process, for PostgreSQL and Redis.

It is what `celery worker` starts, without the command line of that program: 9 MiB of shells and
consoles that a worker never shows.
"""

import sys
from typing import Any

from celery.utils.nodenames import default_nodename, host_format

from config.celery import app
from webhooks.management.printable import PrintableCommand
from webhooks.management.threads import worker_options


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
