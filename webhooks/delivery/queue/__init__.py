"""The database as the queue: claim due rows under a lease, record their outcomes.

This package is the hot path and the only place that bypasses ORM instances. `backend` returns the
module of the database in use, `rows` has the frozen values that go in and out.
"""

import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from django.db import Error as DatabaseError
from django.db import InterfaceError, InternalError, OperationalError, connection

from webhooks.delivery.queue import postgres, sqlite

logger = logging.getLogger(__name__)

_BACKENDS = {"postgresql": postgres, "sqlite": sqlite}
# PostgreSQL's SQLSTATEs that are not the statement's fault: the role lost a privilege, or a
# connection pooler mixed up prepared statements.
_UNAVAILABLE_STATES = frozenset({"42501", "26000", "42P05"})
# A transaction that may only read.
_READ_ONLY_STATE = "25006"


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


def is_unavailable(error: BaseException | None) -> bool:
    """Return whether the reason for a database error is the database, not what it was asked."""
    # A read-only PostgreSQL, after a failover or in a standby, causes an InternalError.
    is_lost = isinstance(error, OperationalError | InternalError | InterfaceError)
    return is_lost or _sqlstate(error) in _UNAVAILABLE_STATES


def leave_read_only(error: BaseException | None) -> None:
    """Close a connection that a failover may have left at a server that stays read-only."""
    if _sqlstate(error) == _READ_ONLY_STATE:
        connection.close()


def _sqlstate(error: BaseException | None) -> str | None:
    """Return PostgreSQL's code of a database error, if it has one."""
    return getattr(error.__cause__, "sqlstate", None) if isinstance(error, DatabaseError) else None
