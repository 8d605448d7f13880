"""The partitions of the log on PostgreSQL: made ahead, dropped once everything in them is old.

Events, deliveries and attempts are divided by ranges of their ids, which begin with the time;
attempts by the ids of their deliveries. A row that fits no range is in the default partition, so
that none is ever refused. SQLite has whole tables. Why: docs/decisions/0027-partitions.md.

Each change locks its tables for milliseconds and waits only briefly for the locks, as others wait
behind it. A change that did not get them is left to a later run.
"""

import datetime as dt
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection, transaction
from django.db.backends.utils import CursorWrapper

from webhooks.delivery import queue
from webhooks.models import ids

logger = logging.getLogger(__name__)

EVENT, DELIVERY, ATTEMPT = "webhooks_event", "webhooks_delivery", "webhooks_attempt"
_PREFIX = {EVENT: "evt", DELIVERY: "dlv", ATTEMPT: "dlv"}
# Every delivery is updated twice within a second, so pages keep free space and dead rows are
# vacuumed early. Set on each partition, as a partitioned table has no storage of its own.
STORAGE = {
    EVENT: "",
    DELIVERY: "WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, "
    "autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 1)",
    ATTEMPT: "WITH (autovacuum_vacuum_insert_scale_factor = 0.2)",
}
# The tables whose partitions change in one transaction.
_TOGETHER = ((DELIVERY, ATTEMPT), (EVENT,))
# How many partitions there are beyond the current one.
_AHEAD = 1
# How long a change waits for its locks: less than PostgreSQL waits before it looks for deadlocks,
# so that of two transactions that wait for each other, this one gives up.
LOCK_TIMEOUT_MS = 500
# The most rows that are moved out of a partition to drop it; with more it stays.
MOVED_ROWS = 500
_HOUR_SECONDS = 3600
_BOUNDS = re.compile(r"FROM \('(\w+)'\) TO \('(\w+)'\)")

_PARTITIONS = """
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid),
  GREATEST(c.reltuples, pg_stat_get_live_tuples(c.oid))::bigint
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = %s::regclass
"""
# Each status through its partial index.
_OPEN = " UNION ALL ".join(
    f"(SELECT id FROM {{table}} WHERE status = '{status}' LIMIT {{most}})"
    for status in ("pending", "sending", "held", "parked")
)
_IN_USE = """
SELECT DISTINCT event_id FROM webhooks_delivery WHERE event_id >= %s AND event_id < %s LIMIT %s
"""
# Keys of events that some delivery still refers to stay.
_DROP_KEYS = """
DELETE FROM webhooks_idempotencykey WHERE key IN (
  SELECT key FROM webhooks_idempotencykey k WHERE event_id >= %s AND event_id < %s
    AND NOT EXISTS (SELECT FROM webhooks_delivery WHERE event_id = k.event_id)
  ORDER BY event_id LIMIT 5000)
"""


class Partition(NamedTuple):
    table: str
    name: str
    # Its first id, and the first one after it.
    first_id: str
    end_id: str
    # An estimate.
    rows: int

    @property
    def begins_at(self) -> dt.datetime:
        return ids.moment(self.first_id)

    @property
    def ends_at(self) -> dt.datetime:
        return ids.moment(self.end_id)


def partitions(table: str) -> list[Partition]:
    """Return the partitions of a table from the oldest to the newest, without the default one."""
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(_PARTITIONS, [table])
        found = cursor.fetchall()
    ranges = ((name, _BOUNDS.search(bounds), rows) for name, bounds, rows in found)
    named = [Partition(table, name, at[1], at[2], rows) for name, at, rows in ranges if at]
    return sorted(named, key=lambda one: one.first_id)


def on_post_migrate(*, using: str, apps: Any = None, **_: object) -> None:
    """Receive `post_migrate`: after a restore or a long rest, make partitions before events come.

    `apps` is missing when a flush sends the signal.
    """
    is_there = apps is None or "event" in apps.all_models["webhooks"]
    if using == DEFAULT_DB_ALIAS and connection.vendor == "postgresql" and is_there:
        make_ahead(queue.now())


def make_ahead(now: dt.datetime) -> int:
    """Make the current and the coming partitions; return how many were missing."""
    ends_at = now + dt.timedelta(hours=_AHEAD * settings.WEBHOOKS_PARTITION_HOURS)
    return make(now, ends_at)


def make(begins_at: dt.datetime, ends_at: dt.datetime) -> int:
    """Make the partitions that are missing in a span of time; return how many."""
    if connection.vendor != "postgresql":
        return 0
    made = 0
    for tables in _TOGETHER:
        there = partitions(tables[0])
        for begin, end in _missing(there, begins_at.timestamp(), ends_at.timestamp()):
            with _or_later("partition_not_made", tables[0]), transaction.atomic():
                made += _make(tables, begin, end)
    return made


def _missing(
    there: Sequence[Partition], begins: float, ends: float
) -> Iterator[tuple[float, float]]:
    """Return the ranges without a partition, in Unix seconds.

    They begin and end at multiples of WEBHOOKS_PARTITION_HOURS, or where another partition does.
    """
    length = settings.WEBHOOKS_PARTITION_HOURS * _HOUR_SECONDS
    taken = [(one.begins_at.timestamp(), one.ends_at.timestamp()) for one in there]
    # Or where another partition ends, if that is later.
    at = max([begins // length * length, *(end for _, end in taken if end <= begins)])
    while at <= ends:
        following = [end for begin, end in taken if begin <= at < end]
        if following:
            at = following[0]
            continue
        end = min([at // length * length + length, *(begin for begin, _ in taken if begin > at)])
        yield at, end
        at = end


def _make(tables: Sequence[str], begin: float, end: float) -> int:
    """Make a partition of each table; none where the default one has rows of the range."""
    with connection.cursor() as cursor:
        wait_briefly(cursor)
        for table in tables:
            column = "delivery_id" if table == ATTEMPT else "id"
            bounds = [ids.floor(_PREFIX[table], at) for at in (begin, end)]
            cursor.execute(
                f"SELECT EXISTS (SELECT FROM {table}_default "
                f"WHERE {column} >= %s AND {column} < %s)",
                bounds,
            )
            if cursor.fetchone()[0]:
                transaction.set_rollback(True)
                return 0
            cursor.execute(
                f"CREATE TABLE {table}_{dt.datetime.fromtimestamp(begin, dt.UTC):%Y%m%d_%H} "
                f"PARTITION OF {table} FOR VALUES FROM (%s) TO (%s) {STORAGE[table]}",
                bounds,
            )
    return 1


def drop_deliveries(before: dt.datetime, *, at_most: int | None = None) -> int:
    """Drop partitions of deliveries, with their attempts, that end before a time.

    A few open rows are moved to the default partition; with more of them the partition is kept.
    Returns about how many rows were dropped; a partition that would exceed `at_most` is kept.
    """
    dropped = 0
    for partition in partitions(DELIVERY):
        if partition.ends_at > before:
            break
        if at_most is not None and dropped + partition.rows > at_most:
            break
        if at_most is not None and partition.rows <= 0:
            # Not analyzed yet, so its number of rows is unknown.
            continue
        with _or_later("partition_not_dropped", partition.name):
            if _drop_deliveries(partition):
                dropped += partition.rows
                logger.info("partition_dropped name=%s rows=%d", partition.name, partition.rows)
    return dropped


def _drop_deliveries(partition: Partition) -> bool:
    open_rows = _OPEN.format(table=partition.name, most=MOVED_ROWS + 1)
    bounds = [partition.first_id, partition.end_id]
    with transaction.atomic(), connection.cursor() as cursor:
        # Checked before anything is locked.
        cursor.execute(open_rows)
        if len(cursor.fetchall()) > MOVED_ROWS:
            return False
        wait_briefly(cursor)
        _detach(cursor, DELIVERY, partition.name)
        # Checked again: more may have been opened before the lock.
        cursor.execute(open_rows)
        kept = [row[0] for row in cursor.fetchall()]
        if len(kept) > MOVED_ROWS:
            transaction.set_rollback(True)
            return False
        cursor.execute(
            f"INSERT INTO webhooks_delivery SELECT * FROM {partition.name} WHERE id = ANY(%s)",
            [kept],
        )
        for attempts in partitions(ATTEMPT):
            if [attempts.first_id, attempts.end_id] == bounds:
                _detach(cursor, ATTEMPT, attempts.name)
                cursor.execute(
                    f"INSERT INTO webhooks_attempt SELECT * FROM {attempts.name} "
                    "WHERE delivery_id = ANY(%s)",
                    [kept],
                )
                cursor.execute(f"DROP TABLE {attempts.name}")
        cursor.execute(f"DROP TABLE {partition.name}")
    return True


def drop_events(before: dt.datetime) -> None:
    """Drop partitions of events that end before a time; events that deliveries refer to stay."""
    for partition in partitions(EVENT):
        if partition.ends_at > before:
            return
        with _or_later("partition_not_dropped", partition.name):
            if _drop_events(partition):
                logger.info("partition_dropped name=%s rows=%d", partition.name, partition.rows)


def _drop_events(partition: Partition) -> bool:
    bounds = [partition.first_id, partition.end_id]
    with connection.cursor() as cursor:
        cursor.execute(_IN_USE, [*bounds, MOVED_ROWS + 1])
        if len(cursor.fetchall()) > MOVED_ROWS:
            return False
        cursor.execute(_DROP_KEYS, bounds)
        while cursor.rowcount:
            cursor.execute(_DROP_KEYS, bounds)
    with transaction.atomic(), connection.cursor() as cursor:
        wait_briefly(cursor)
        # Waits for a resend that has locked one of the events.
        _detach(cursor, EVENT, partition.name)
        cursor.execute(_IN_USE, [*bounds, MOVED_ROWS + 1])
        kept = [row[0] for row in cursor.fetchall()]
        if len(kept) > MOVED_ROWS:
            transaction.set_rollback(True)
            return False
        cursor.execute(
            f"INSERT INTO webhooks_event SELECT * FROM {partition.name} WHERE id = ANY(%s)", [kept]
        )
        cursor.execute(f"DROP TABLE {partition.name}")
    return True


def wait_briefly(cursor: CursorWrapper) -> None:
    cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")


def _detach(cursor: CursorWrapper, table: str, name: str) -> None:
    cursor.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")


@contextmanager
def _or_later(event: str, name: str) -> Iterator[None]:
    """Leave a change that the database refuses now to a later run; nothing depends on it."""
    try:
        yield
    except DatabaseError as error:
        logger.warning("%s name=%s error=%s", event, name, str(error).partition("\n")[0])
