"""The database as the queue: claim due rows under a lease, record their outcomes.

This package is the hot path and the only place that bypasses ORM instances. `backend` returns the
module of the database in use, `rows` has the frozen values that go in and out.
"""

import datetime as dt
from types import ModuleType

from django.db import connection

from webhooks.delivery.queue import postgres, sqlite

_BACKENDS = {"postgresql": postgres, "sqlite": sqlite}


def backend() -> ModuleType:
    """Return the module whose functions fit the database in use."""
    return _BACKENDS[connection.vendor]


def now() -> dt.datetime:
    """Return the database's time: the clocks of machines differ."""
    return dt.datetime.fromtimestamp(backend().clock(), dt.UTC)
