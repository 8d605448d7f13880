"""The database as the queue: claim due rows under a lease, record their outcomes.

This package is the hot path and the only place that bypasses ORM instances. `backend` returns the
module of the database in use, `rows` has the frozen values that go in and out.
"""

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from django.db import OperationalError, connection

from webhooks.delivery.queue import postgres, sqlite

logger = logging.getLogger(__name__)

_BACKENDS = {"postgresql": postgres, "sqlite": sqlite}


def backend() -> ModuleType:
    """Return the module whose functions fit the database in use."""
    return _BACKENDS[connection.vendor]


def now() -> dt.datetime:
    """Return the database's time: the clocks of machines differ."""
    return dt.datetime.fromtimestamp(backend().clock(), dt.UTC)


@contextmanager
def unless_locked(step: str) -> Iterator[None]:
    """Leave a step of a task for its next run if another transaction locked what it changes."""
    try:
        yield
    except OperationalError as error:
        if not backend().is_lock_timeout(error):
            raise
        logger.warning("locked step=%s error=%s", step, backend().described(error))
