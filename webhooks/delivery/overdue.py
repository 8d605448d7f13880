"""Ends a process whose stop takes too long, as while Redis or the database does not respond.

Celery waits for both without limit, and Python's exit for every thread. What was not recorded or
handed back by then is sent after its lease.
"""

import logging
import multiprocessing
import os
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import Any

import billiard

from webhooks.delivery.limited_calls import LimitedCalls

logger = logging.getLogger(__name__)

# The log may be what keeps the stop waiting.
_log_calls = LimitedCalls(1.0)


def end_after(seconds: float) -> threading.Event:
    """End this process and its pool processes after this long, unless the event is set before."""
    is_over = threading.Event()
    threading.Thread(target=_end, args=(seconds, is_over), name="overdue", daemon=True).start()
    return is_over


def _end(seconds: float, is_over: threading.Event) -> None:
    if is_over.wait(seconds):
        return
    # Celery's pool processes, and those of uvicorn.
    children: list[Any] = [*billiard.active_children(), *multiprocessing.active_children()]
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    with suppress(Exception):
        _log_calls.run(partial(logger.error, "stop_overdue seconds=%d", seconds))
    os._exit(1)
