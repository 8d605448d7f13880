"""The Celery worker that needs one process: a drain, tasks and the clock in threads."""

from typing import Any

from django.conf import settings

from webhooks.delivery.drains import QUEUE

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
    }
