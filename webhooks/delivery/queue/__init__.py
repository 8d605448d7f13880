"""The database as the queue: claim due rows under a lease, record what became of them.

This package is the hot path and the one place that steps around ORM instances: a row costs
microseconds here, and building a model instance costs more than sending the request. Every
statement names its columns and runs on Django's own connection. `postgres` and `sqlite` hold the
same functions for the two databases; `rows` the frozen values that go in and out.

Times are the database's own, so a worker with a wrong clock schedules nothing wrongly. Functions
open one short transaction each and never touch the network.
"""

from types import ModuleType

from django.db import connection

from webhooks.delivery.queue.rows import (
    ATTEMPT_COLUMNS,
    Candidate,
    Claimed,
    Expired,
    HourCount,
    NewDelivery,
    NewEventRow,
    Result,
    StateChange,
    Want,
)

__all__ = [
    "ATTEMPT_COLUMNS",
    "Candidate",
    "Claimed",
    "Expired",
    "HourCount",
    "NewDelivery",
    "NewEventRow",
    "Result",
    "StateChange",
    "Want",
    "backend",
]


def backend() -> ModuleType:
    """Return the module whose functions fit the database in use."""
    if connection.vendor == "postgresql":
        from webhooks.delivery.queue import postgres

        return postgres
    from webhooks.delivery.queue import sqlite

    return sqlite
