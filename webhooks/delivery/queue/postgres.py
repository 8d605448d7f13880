"""The queue on PostgreSQL: SKIP LOCKED, lateral index reads by ctid, binary COPY.

Plans are pinned by the shape of statements, not by statistics: a table that was empty at the last
ANALYZE makes the planner choose a scan or a nested loop that costs a hundred times more under load.
So each read goes through one partial index inside a LATERAL or by id and ctid, and sequential scans
are disabled in the engine's session. Such a statement has one plan, so it is planned once per
session: with many partitions, planning costs as much as a small claim. A plan made while the log or
a partition was empty would read all of it later, so each session plans again from time to time.
"""

import logging
import math
import select
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import psycopg
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import generators
from psycopg.pq import ConnStatus, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from webhooks.delivery.queue import arrays
from webhooks.delivery.queue import postgres_sql as sql
from webhooks.delivery.queue.rows import (
    DIED,
    MAX_EVENT_BYTES,
    AttemptResult,
    Candidate,
    Claimed,
    ClaimQuota,
    Expired,
    HourCount,
    NewDelivery,
    NewEventRow,
    OpenTransaction,
    Pace,
    Page,
    StateChange,
    affordable,
    bytes_left,
    paced_wait,
)

logger = logging.getLogger(__name__)

# Two connections can write at the same time, each with its own wait for the disk.
WRITES_IN_PARALLEL = True
# This backend has `enqueue_at_once` and a version of the subscriptions.
ACCEPTS_AT_ONCE = True
# The types of the columns of a new event, of an hourly count and of a new delivery, in order.
_Kind = Callable[[Sequence[Any]], Any]
_SOME_TEXTS: list[_Kind] = [arrays.texts] * 8
_OF_EVENT: list[_Kind] = [arrays.texts, arrays.texts, arrays.binaries, arrays.moments]
_OF_EVENT += [arrays.numbers, *_SOME_TEXTS]
_OF_COUNT: list[_Kind] = [arrays.numbers, arrays.moments, arrays.texts, arrays.numbers]
_OF_COUNT += [arrays.numbers]
_OF_DELIVERY: list[_Kind] = [arrays.texts, arrays.texts, arrays.numbers, *_SOME_TEXTS[:3]]
# The name of the statement that inserts at once, and the connections that have prepared it.
INSERT_AT_ONCE_NAME = b"insert_at_once"
_prepared_on: "WeakSet[psycopg.Connection[Any]]" = WeakSet()
# The connections that an engine session uses or has used.
_sessions: "WeakSet[psycopg.Connection[Any]]" = WeakSet()
# The formats of its parameters: a timeout, a version, and the columns of both kinds of rows.
BINARY = [Format.BINARY] * (2 + len(_OF_EVENT) + len(_OF_DELIVERY))
_Key = TypeVar("_Key", int, str)
# Up to this many results are written with one statement.
_FEW_ROWS = 16
# Rows are looked up one by one through an index: while a table is small, a hash or merge join of
# all of it looks cheaper, and costs four times as much.
_PINNED = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    # Wherever an order is wanted, an index has it.
    "enable_sort": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    # The session waits on purpose; ending it would look like a database fault.
    "idle_session_timeout": "0",
    # In ms. What another transaction locked, such as a delivery in flight, is a fault with a log
    # line, and the session goes on with other work. PostgreSQL looks for deadlocks after a second.
    "lock_timeout": "1500",
}
# Settings that statements rely on, whatever a role or a database has by default.
_REQUIRED_SETTINGS = {
    # A row that another transaction changed is read again, and causes no error.
    "default_transaction_isolation": "read committed",
    # psycopg reads timestamps in no other style.
    "DateStyle": "ISO",
    # Otherwise NULL in an array is a text, and a float has fewer digits.
    "array_nulls": "on",
    "extra_float_digits": "1",
    # Otherwise psycopg doubles the backslash before a body's bytes, and their digits are stored.
    "standard_conforming_strings": "on",
}
# How long a task or a request waits for what another transaction locked, in ms, unless the role,
# the database or the connection has a limit: otherwise they fill all slots of a worker, which
# drains need as well, or all threads of a web process.
_LOCK_TIMEOUT = "10000"
# The limit of this process's connections; 0 for none, as for commands.
_lock_timeout = "0"
# Longer than a disk or a checkpoint delays a statement of a page or an event; clients hardly wait
# longer.
ANSWER_SECONDS = 30.0
# Whether the connections of a thread are for requests.
_thread = threading.local()
_SET_LOCK_TIMEOUT = """set_config('lock_timeout',
  COALESCE(NULLIF(current_setting('lock_timeout'), '0'), %s), false)"""
# Errors that only occur with a pooler that gives each transaction any server session.
_NO_STATEMENT = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.DuplicatePreparedStatement)
NO_SESSIONS = (
    "The connection pooler in front of PostgreSQL does not keep sessions: set its pool_mode to "
    "session, or let DATABASE_URL lead to PostgreSQL itself."
)
_TAKES_EVENTS = b"""
SELECT current_setting('transaction_read_only') = 'off'
  AND has_any_column_privilege('webhooks_event', 'INSERT')
  AND has_any_column_privilege('webhooks_delivery', 'INSERT')
"""
# A session plans again after this many rows, then after twice as many each time, and after a while.
_PLANNED_ROWS, _PLANNED_SECONDS = 64, 10.0
# How long before that an idle session plans: longer than the usual poll interval.
_AHEAD_SECONDS = 3.0


class _Planning:
    """How many rows a session was asked to change, and when it plans its statements again."""

    def __init__(self) -> None:
        self.rows = 0
        self.enough_rows = _PLANNED_ROWS
        self.ends_at = time.monotonic() + _PLANNED_SECONDS


_plannings: "WeakKeyDictionary[psycopg.Connection[Any], _Planning]" = WeakKeyDictionary()


def _planning() -> _Planning:
    connection.ensure_connection()
    return _plannings.setdefault(connection.connection, _Planning())


def _plan_again(rows: int) -> None:
    """Make this thread's session plan its statements again if due, before `rows` more rows."""
    planning = _planning()
    now = time.monotonic()
    if planning.rows >= planning.enough_rows or now >= planning.ends_at:
        with _cursor() as cursor:
            cursor.execute("DISCARD PLANS")
        planning.enough_rows = max(_PLANNED_ROWS, 2 * planning.rows)
        planning.ends_at = now + _PLANNED_SECONDS
    planning.rows += rows


@contextmanager
def _cursor(*, has_arrays: bool = False) -> Iterator["psycopg.Cursor[Any]"]:
    """Open a cursor that binds on the server: Django's own would quote every value into the SQL."""
    connection.ensure_connection()
    if has_arrays:
        arrays.register(connection.connection)
    with connection.wrap_database_errors, psycopg.Cursor(connection.connection) as cursor:
        yield cursor


def enqueue(events: Sequence[NewEventRow], deliveries: Sequence[NewDelivery]) -> None:
    """Insert events and their deliveries in the caller's transaction, due at once."""
    of_events = _columns_of(_OF_EVENT, _in_order(events))
    of_deliveries = _columns_of(_OF_DELIVERY, deliveries)
    with _cursor(has_arrays=True) as cursor:
        if events and deliveries:
            cursor.execute(sql.INSERT_BOTH, [*of_events, *of_deliveries])
        elif events:
            cursor.execute(sql.INSERT_EVENTS, of_events)
        elif deliveries:
            cursor.execute(sql.INSERT_DELIVERIES, of_deliveries)


def subscriptions_version() -> int:
    """Return a number that changes whenever a webhook's types, filter or state change.

    It is negative if this transaction may have changed webhooks itself, or if the number was lost.
    """
    connection.validate_no_broken_transaction()
    _drop_closed_connection(connections[DEFAULT_DB_ALIAS])
    with _cursor() as cursor:
        row = cursor.execute(sql.SUBSCRIPTIONS).fetchone()
    return int(row[0]) if row else -1


def enqueue_at_once(
    events: Sequence[NewEventRow],
    deliveries: Sequence[NewDelivery],
    version: int,
    *,
    lock_timeout_ms: int = 0,
) -> tuple[int, set[str]]:
    """Insert with one statement, which is a transaction of its own if the caller has none.

    Returns the version of the subscriptions, and the events that were inserted with their
    deliveries: none unless the version is `version`, and none whose idempotency key is in use.
    """
    parameters = parameters_at_once(events, deliveries, version, lock_timeout_ms)
    # This thread's connection; `connection` looks it up on each use.
    own = connections[DEFAULT_DB_ALIAS]
    own.validate_no_broken_transaction()
    _drop_closed_connection(own)
    own.ensure_connection()
    with own.wrap_database_errors:
        return inserted_at_once(_insert_at_once(own.connection, parameters))


def parameters_at_once(
    events: Sequence[NewEventRow],
    deliveries: Sequence[NewDelivery],
    version: int,
    lock_timeout_ms: int,
) -> list[bytes]:
    parameters = [b"%d" % lock_timeout_ms, *_data_of(_OF_EVENT, _in_order(events))]
    return [*parameters, version.to_bytes(8, signed=True), *_data_of(_OF_DELIVERY, deliveries)]


def inserted_at_once(result: PGresult) -> tuple[int, set[str]]:
    if not result.ntuples:
        return -1, set()
    found, written = result.get_value(0, 0), result.get_value(0, 1)
    return int(found or b""), set((written or b"").decode().split())


def _insert_at_once(opened: "psycopg.Connection[Any]", parameters: list[bytes]) -> PGresult:
    """Execute the statement through libpq, without psycopg's overhead.

    It is planned once for each connection; planning is half the cost of a small one.
    """
    if not opened.autocommit and opened.pgconn.transaction_status == TransactionStatus.IDLE:
        # Lets psycopg begin the transaction.
        opened.execute(b"")
    libpq = opened.pgconn
    # If psycopg prepared statements, it makes the server drop all of them at a rollback.
    is_prepared = opened.prepare_threshold is None and opened not in _sessions
    if is_prepared and opened not in _prepared_on:
        prepare_at_once(opened)
        _prepared_on.add(opened)

    def execute() -> Generator[Any, Any, list[PGresult]]:
        if is_prepared:
            libpq.send_query_prepared(INSERT_AT_ONCE_NAME, parameters, BINARY)
        else:
            libpq.send_query_params(sql.INSERT_AT_ONCE.encode(), parameters, None, BINARY)
        results: list[PGresult] = yield from generators.execute(libpq)
        return results

    # Not libpq's own wait, which no signal interrupts: another session may hold a key for long.
    results = opened.wait(execute())
    # A commit may fail after its rows have come.
    errors = (result for result in results if result.status == ExecStatus.FATAL_ERROR)
    result = next(errors, results[-1])
    _check(libpq, result)
    return result


def prepare_at_once(opened: "psycopg.Connection[Any]") -> None:
    """Prepare the statement, so that the server plans it once for this connection."""
    libpq = opened.pgconn

    def prepare() -> Generator[Any, Any, list[PGresult]]:
        libpq.send_prepare(INSERT_AT_ONCE_NAME, sql.INSERT_AT_ONCE.encode())
        results: list[PGresult] = yield from generators.execute(libpq)
        return results

    _check(libpq, opened.wait(prepare())[-1])


def _check(libpq: PGconn, result: PGresult) -> None:
    """Raise what psycopg would raise for a result that is an error."""
    if libpq.status == ConnStatus.BAD:
        raise psycopg.OperationalError(result.get_error_message())
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)


def _columns_of(kinds: Sequence[_Kind], rows: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Return an array for each column."""
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    return [kind(column) for kind, column in zip(kinds, columns, strict=True)]


def _data_of(kinds: Sequence[_Kind], rows: Sequence[tuple[Any, ...]]) -> list[bytes]:
    return [column.data for column in _columns_of(kinds, rows)]


def _drop_closed_connection(own: BaseDatabaseWrapper) -> None:
    """Close a connection that the server has ended, so that the next use opens a new one."""
    if own.connection is None or own.in_atomic_block:
        return
    if own.connection.closed or has_unsolicited_data(own.connection.fileno()):
        own.close()


def has_unsolicited_data(descriptor: int) -> bool:
    """Return whether a server has sent something unrequested: that it ends the connection."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def _in_order(events: Sequence[NewEventRow]) -> Sequence[NewEventRow]:
    """Return events in the order of their keys, so that no two transactions deadlock."""
    return sorted(events, key=_key_of) if len(events) > 1 else events


def _key_of(event: NewEventRow) -> str:
    return event.idempotency_key or ""


def encoding(using: str = DEFAULT_DB_ALIAS) -> str:
    """Return the name of the database's encoding."""
    with connections[using].cursor() as cursor:
        cursor.execute("SHOW server_encoding")
        return str(cursor.fetchone()[0])


def runs_triggers(using: str = DEFAULT_DB_ALIAS) -> bool:
    """Return whether the tables' triggers run: not in a replication session."""
    with connections[using].cursor() as cursor:
        cursor.execute("SHOW session_replication_role")
        return bool(cursor.fetchone()[0] != "replica")


def partition_count(using: str = DEFAULT_DB_ALIAS) -> int:
    """Return into how many partitions the deliveries are divided; 0 before they have a table."""
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('webhooks_delivery')"
        )
        return int(cursor.fetchone()[0])


def keeps_sessions(using: str = DEFAULT_DB_ALIAS) -> bool:
    """Return whether each connection has a session of its own; poolers may share sessions."""
    first, second = (connections.create_connection(using) for _ in range(2))
    try:
        # The pooler of a busy site may happen to give the second one another session.
        return not any(_backend(first) == _backend(second) for _try in range(5))
    finally:
        first.close()
        second.close()


def _backend(own: BaseDatabaseWrapper) -> int:
    with own.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def on_connection_created(*, connection: BaseDatabaseWrapper, **_: object) -> None:
    """Receive `connection_created`: set what statements rely on."""
    if getattr(_thread, "has_limited_waits", False):
        connection.connection.__class__ = ImpatientConnection
    set_required_settings(connection.connection)


class ImpatientConnection(psycopg.Connection[Any]):
    """A connection that is closed if the server does not respond within ANSWER_SECONDS.

    A server that is suspended acknowledges what it gets, so TCP's own timeouts never end.
    """

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, ANSWER_SECONDS if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise
            # A rollback would wait as well.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {ANSWER_SECONDS:.0f} s") from error


def limit_answer_waits() -> None:
    """Limit how long this thread waits for a response, on connections that it opens from now on."""
    _thread.has_limited_waits = True


def set_required_settings(opened: "psycopg.Connection[Any]") -> None:
    """Set what statements rely on; poolers would refuse it as connection options."""
    settings = ", ".join("set_config(%s, %s, false)" for _ in _REQUIRED_SETTINGS)
    opened.execute(
        f"SELECT {settings}, {_SET_LOCK_TIMEOUT}".encode(),
        [*(text for item in _REQUIRED_SETTINGS.items() for text in item), _lock_timeout],
    )


def limit_lock_waits(milliseconds: str = _LOCK_TIMEOUT) -> None:
    """Limit how long this process waits for a lock, on connections that it opens from now on."""
    global _lock_timeout
    _lock_timeout = milliseconds


def takes_events() -> bool:
    """Return whether an event could be stored: not on a standby or without the privilege."""
    with _cursor() as cursor:
        row = cursor.execute(_TAKES_EVENTS).fetchone()
    assert row is not None
    return bool(row[0])


def oldest_transaction() -> OpenTransaction | None:
    """Return the oldest open transaction that has read or changed anything in this database.

    Until it ends, PostgreSQL keeps all row versions since it began, and some looks for due
    deliveries read past those of finished ones. Our role sees the transactions of other roles only
    if it is a member of `pg_read_all_stats`.
    """
    with _cursor() as cursor:
        row = cursor.execute(sql.OLDEST_TRANSACTION).fetchone()
    return OpenTransaction(*row) if row else None


def described(error: BaseException) -> str:
    """Return the message of a database fault, with advice if a pooler is the cause."""
    return f"{error}. {NO_SESSIONS}" if isinstance(error.__cause__, _NO_STATEMENT) else str(error)


def is_lock_timeout(error: BaseException) -> bool:
    """Return whether a statement waited too long for what another transaction locked."""
    return isinstance(error.__cause__, psycopg.errors.LockNotAvailable)


def short_lock_waits() -> AbstractContextManager[None]:
    """Return a context that changes nothing: rows are locked here, and each wait has its limit."""
    return nullcontext()


def locked_deliveries(ids: Sequence[str]) -> set[str]:
    """Return which of these deliveries another transaction locked, without waiting."""
    return _locked(sql.LOCKED_DELIVERIES, ids)


def locked_states(webhook_ids: Sequence[int]) -> set[int]:
    """Return the webhooks whose health another transaction locked, without waiting."""
    return _locked(sql.LOCKED_STATES, webhook_ids)


def locked_tokens(credential_ids: Sequence[int]) -> set[int]:
    """Return the credentials whose token another transaction locked, without waiting."""
    return _locked(sql.LOCKED_TOKENS, credential_ids)


def locked_counts(counts: Sequence[HourCount]) -> set[HourCount]:
    """Return which of these another transaction locked, without waiting."""
    with _cursor(has_arrays=True) as cursor:
        rows = cursor.execute(sql.LOCKED_COUNTS, _columns_of(_OF_COUNT, counts)[:-1])
        return {counts[number - 1] for (number,) in rows}


def _locked(statement: str, keys: Sequence[_Key]) -> set[_Key]:
    with _cursor() as cursor:
        return {row[0] for row in cursor.execute(statement, {"keys": list(keys)})}


def prepare_session() -> None:
    """Pin the plans of this thread's connection; call it after each new connection.

    From then on each statement is parsed once, and one without parameters planned once.
    """
    with _cursor() as cursor:
        _sessions.add(connection.connection)
        # What an earlier drain counted on this connection does not apply to this one.
        _plannings[connection.connection] = _Planning()
        connection.connection.prepare_threshold = 0
        for name, value in _PINNED.items():
            cursor.execute(f"SET {name} = {value}".encode())


def reset_session() -> None:
    with _cursor() as cursor:
        connection.connection.prepare_threshold = None
        # Not RESET ALL, which would take Django's time zone with it.
        for name in _PINNED:
            cursor.execute(f"RESET {name}".encode())
        cursor.execute(f"SELECT {_SET_LOCK_TIMEOUT}".encode(), [_lock_timeout])


def clock() -> float:
    """Return the database's Unix time in seconds."""
    with _cursor() as cursor:
        row = cursor.execute("SELECT EXTRACT(EPOCH FROM clock_timestamp())::float8").fetchone()
    assert row is not None
    return float(row[0])


def page(
    *,
    after: int = 0,
    limit: int = 1000,
    shards: int = 1,
    numbers: Sequence[int] = (0,),
    since: float = 0.0,
) -> Page:
    """Return the next page of webhooks with waiting rows: those of these shards with due rows.

    Leaves out rows that became due before the Unix time `since`.
    """
    parameters = {"after": after, "limit": limit, "shards": shards, "numbers": list(numbers)}
    with _cursor() as cursor:
        rows = cursor.execute(sql.PAGE, parameters | {"since": since}).fetchall()
    last, looked_at, next_due_seconds = rows[0][:3]
    found = [_candidate(row[3:]) for row in rows if row[3] is not None]
    return Page(found, last if looked_at == limit else None, next_due_seconds)


def walk(
    *, after: int, limit: int, shards: int = 1, numbers: Sequence[int] = (0,)
) -> tuple[list[int], int | None]:
    """Return which of the next webhooks with waiting rows have due ones, and the last of all.

    The last one is None when no others have waiting rows.
    """
    with _cursor() as cursor:
        rows = cursor.execute(_of(sql.WALK, shards, numbers, after=after, limit=limit)).fetchall()
    due = [webhook_id for webhook_id, is_due in rows if is_due]
    return due, max(rows)[0] if len(rows) == limit else None


def candidates(
    webhook_ids: Sequence[int], *, shards: int = 1, numbers: Sequence[int] = (0,)
) -> list[Candidate]:
    """Return those of the webhooks that have due rows."""
    ids = arrays.numbers(webhook_ids)
    parameters = {"ids": ids, "shards": shards, "numbers": list(numbers)}
    with _cursor(has_arrays=True) as cursor:
        rows = cursor.execute(sql.CANDIDATES, parameters, binary=True).fetchall()
    return [_candidate(row) for row in rows]


def became_due(
    since: float, *, limit: int = 20_000, shards: int = 1, numbers: Sequence[int] = (0,)
) -> dict[int, float]:
    """Return webhooks with rows due since a Unix time, each with the time of its newest row."""
    parameters = {"since": since, "limit": limit, "shards": shards, "numbers": list(numbers)}
    with _cursor() as cursor:
        rows = cursor.execute(sql.BECAME_DUE, parameters, binary=True).fetchall()
    newest: dict[int, float] = {}
    for webhook_id, due_at in rows:
        newest.setdefault(webhook_id, due_at)
    return newest


def _of(statement: str, shards: int, numbers: Sequence[int], **others: int) -> bytes:
    """Write the shards into a statement: without parameters it is planned once per session."""
    listed = f"'{{{','.join(map(str, numbers))}}}'"
    return (statement % {"shards": shards, "numbers": listed, **others}).encode()


def _candidate(row: tuple[Any, ...]) -> Candidate:
    if not row[5]:
        return Candidate._make((*row[:8], 0.0, row[-1]))
    *facts, rate, per_seconds, ahead_seconds, room, head_seconds, has_one_row = row
    wait = paced_wait(Pace(rate, per_seconds, ahead_seconds), room=room, head_seconds=head_seconds)
    return Candidate._make([*facts, wait, has_one_row])


def _take(statement: str, parameters: dict[str, Any], max_bytes: int) -> list[Claimed]:
    """Return the claimed rows; the payload is empty where a large event could not be read."""
    return _read_events(_fetch(statement, parameters), parameters["lease"], max_bytes)


def _fetch(statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    # One statement is one transaction; BEGIN and COMMIT would be two more round trips.
    with _cursor(has_arrays=True) as cursor:
        return cursor.execute(statement, parameters, binary=True).fetchall()


def _read_events(
    rows: Sequence[tuple[Any, ...]],
    lease: str,
    max_bytes: int,
    *,
    damaged: set[str] | None = None,
) -> list[Claimed]:
    small: dict[str, bytes] = {}
    try:
        with _cursor() as cursor:
            return _with_events(cursor, rows, lease, max_bytes, small, damaged)
    except DatabaseError as error:
        if damaged is None and _is_damage(error):
            return _read_events(rows, lease, max_bytes, damaged=set())
        logger.warning("events_not_read rows=%d error=%s", len(rows), error)
        return [Claimed._make([*row, small.get(row[2], b"")]) for row in rows]


def _is_damage(error: DatabaseError) -> bool:
    return isinstance(error.__cause__, psycopg.errors.DataCorrupted)


def _claim_in_transaction(
    cursor: "psycopg.Cursor[Any]",
    statement: str,
    parameters: dict[str, Any],
    max_bytes: int,
    damaged: set[str] | None,
) -> list[Claimed]:
    """Return rows that are claimed in the caller's transaction."""
    rows = cursor.execute(statement, parameters, binary=True).fetchall()
    return _with_events(cursor, rows, parameters["lease"], max_bytes, {}, damaged)


def _with_events(
    cursor: "psycopg.Cursor[Any]",
    rows: Sequence[tuple[Any, ...]],
    lease: str,
    max_bytes: int,
    small: dict[str, bytes],
    damaged: set[str] | None,
) -> list[Claimed]:
    """Return claimed rows with their events; rows with events beyond `max_bytes` go back.

    A row whose event is missing is cancelled. Small events are put into `small`, where they stay
    if the large ones cannot be read. Rows whose events are found to be damaged are left to their
    lease, so that they end up parked.
    """
    if not rows:
        return []
    claims: list[Claimed] = []
    large: list[Claimed] = []
    lost: list[str] = []
    sizes: dict[str, int] = {}
    event_ids = list({row[2]: None for row in rows})
    for event_id, payload, size in _read(cursor, sql.SMALL_EVENTS, event_ids, damaged):
        if payload is not None:
            small[event_id] = payload
            max_bytes -= size
        else:
            sizes[event_id] = size
    for pk, webhook_id, event_id, number, failures, trigger in rows:
        payload = small.get(event_id, b"")
        claim = Claimed(pk, webhook_id, event_id, number, failures, trigger, payload)
        if payload:
            claims.append(claim)
        elif event_id in sizes:
            large.append(claim)
        elif event_id not in (damaged or ()):
            lost.append(pk)
    if lost:
        cursor.execute(sql.CANCEL_LOST, [lost, lease])
        logger.error("events_missing deliveries=%s", ",".join(lost))
    if large:
        claims += _with_large_events(cursor, large, sizes, lease, max_bytes, damaged)
    if damaged:
        logger.error("events_damaged events=%s", ",".join(sorted(damaged)))
    return claims


def _read(
    cursor: "psycopg.Cursor[Any]", statement: str, event_ids: list[str], damaged: set[str] | None
) -> list[tuple[Any, ...]]:
    """Return what a statement finds about events.

    One that cannot be read makes all of them fail. With `damaged`, halves are read until it is
    known which those are; they are added to it.
    """
    if damaged is None:
        return cursor.execute(statement, [event_ids], binary=True).fetchall()
    try:
        with transaction.atomic():
            return cursor.execute(statement, [event_ids], binary=True).fetchall()
    except psycopg.errors.DataCorrupted:
        if len(event_ids) == 1:
            damaged.update(event_ids)
            return []
    half = len(event_ids) // 2
    first = _read(cursor, statement, event_ids[:half], damaged)
    return first + _read(cursor, statement, event_ids[half:], damaged)


def _with_large_events(
    cursor: "psycopg.Cursor[Any]",
    claims: list[Claimed],
    sizes: dict[str, int],
    lease: str,
    max_bytes: int,
    damaged: set[str] | None,
) -> list[Claimed]:
    """Read each event once; rows whose events do not fit go back."""
    chosen = affordable(sizes.items(), max_bytes)
    payloads: dict[str, bytes] = dict(_read(cursor, sql.EVENTS, chosen, damaged))
    kept = payloads.keys() | (damaged or ())
    if left := [claim for claim in claims if claim.event_id not in kept]:
        numbers = [claim.number for claim in left]
        cursor.execute(sql.HAND_BACK, [[claim.id for claim in left], numbers, lease])
    return [
        claim._replace(payload=payloads[claim.event_id])
        for claim in claims
        if claim.event_id in payloads
    ]


def claim(
    quotas: Sequence[ClaimQuota],
    *,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    since: float = 0.0,
) -> list[Claimed]:
    """Take due rows of several webhooks, each up to its quota, oldest first.

    Leaves out rows that became due before the Unix time `since`.
    """
    _plan_again(sum(one.quota for one in quotas))
    return _take(
        sql.CLAIM,
        {
            "ids": arrays.numbers([one.webhook_id for one in quotas]),
            "quotas": arrays.numbers([one.quota for one in quotas]),
            "since": since,
            "lease": lease,
            "lease_seconds": lease_seconds,
        },
        max_bytes,
    )


def claim_oldest(
    webhook_ids: Sequence[int],
    *,
    limit: int,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    since: float = 0.0,
) -> tuple[list[Claimed], bool]:
    """Take the rows of these webhooks among the `limit` oldest due ones, but no tests.

    Also return whether other rows were among them; unknown if it took none. Leaves out rows that
    became due before the Unix time `since`.
    """
    rows = _fetch_oldest(sql.CLAIM_OLDEST, webhook_ids, limit, lease, lease_seconds, since)
    claimed = _read_events([row[:-1] for row in rows], lease, max_bytes)
    return claimed, bool(rows) and rows[0][-1]


def claim_few(
    webhook_ids: Sequence[int],
    *,
    limit: int,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    since: float = 0.0,
) -> tuple[list[Claimed], list[Candidate], bool]:
    """Take the rows of these webhooks among the `limit` oldest due ones, but no tests.

    None of a webhook that has a limit or an order by now, or is paused. Also return the webhooks
    of the claimed rows as they are now, and whether nothing else was due; unknown, and False, if it
    took none. Leaves out rows that became due before the Unix time `since`.
    """
    try:
        rows = _fetch_oldest(sql.CLAIM_FEW, webhook_ids, limit, lease, lease_seconds, since)
    except DatabaseError as error:
        if _is_damage(error):
            # A claim that reads the events apart finds out which it is.
            return [], [], False
        raise
    found: dict[int, Candidate] = {}
    claimed: list[Claimed] = []
    unread: list[tuple[Any, ...]] = []
    for *row, version, token_version, refused_version, payload, _count in rows:
        if payload is None:
            unread.append(tuple(row))
        else:
            claimed.append(Claimed._make([*row, payload]))
        versions = version, token_version, refused_version
        found[row[1]] = Candidate(row[1], *versions, True, False, False, False)
    if unread:
        claimed += _read_events(unread, lease, bytes_left(max_bytes, claimed))
    return claimed, [*found.values()], bool(rows) and len(rows) == rows[0][-1] < limit


def plan_ahead() -> None:
    """Plan `claim_few` now if that is soon due, so that no row has to wait for it."""
    planning = _planning()
    if time.monotonic() > planning.ends_at - _AHEAD_SECONDS:
        planning.ends_at = 0.0
        # Reads no entry, not even those that a forgotten transaction keeps.
        claim_few([], limit=1, lease="", lease_seconds=0.0, since=math.inf)


def _fetch_oldest(
    statement: str,
    webhook_ids: Sequence[int],
    limit: int,
    lease: str,
    lease_seconds: float,
    since: float,
) -> list[tuple[Any, ...]]:
    _plan_again(0)
    parameters = {
        "ids": arrays.numbers(webhook_ids),
        "limit": limit,
        "since": since,
        "lease": lease,
        "lease_seconds": lease_seconds,
    }
    rows = _fetch(statement, parameters)
    # Usually far fewer than the limit.
    _planning().rows += len(rows)
    return rows


def claim_tests(
    quotas: Sequence[ClaimQuota],
    *,
    limit: int,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    is_quarantine: bool = False,
) -> list[Claimed]:
    """Take test deliveries of several webhooks, each up to its quota, oldest first.

    The limits of a webhook do not apply to them. With `is_quarantine` only those that were in
    flight at several crashes, otherwise the others.
    """
    terms = {
        "ids": [one.webhook_id for one in quotas],
        "quotas": [one.quota for one in quotas],
        "limit": limit,
        "lease": lease,
        "lease_seconds": lease_seconds,
        "is_quarantine": is_quarantine,
    }
    return _take(sql.CLAIM_TESTS, terms, max_bytes)


def claim_quarantined(
    webhook_ids: list[int], *, lease: str, lease_seconds: float, max_bytes: int = MAX_EVENT_BYTES
) -> list[Claimed]:
    """Take one row that was in flight at several crashes, of the first webhook that has one."""
    terms = {"ids": webhook_ids, "lease": lease, "lease_seconds": lease_seconds}
    return _take(sql.CLAIM_QUARANTINED, terms, max_bytes)


def claim_paced(
    quotas: Sequence[ClaimQuota],
    *,
    lease: str,
    lease_seconds: float,
    max_bytes: int = MAX_EVENT_BYTES,
    is_quarantine: bool = False,
) -> list[Claimed]:
    """Take rows of webhooks with a limit or an order, under the locks of their state rows.

    Of an ordered webhook only the head may go. With `is_quarantine` it takes one row that was in
    flight at several crashes, if possible of the first webhooks. Skips webhooks that another worker
    is claiming from.
    """
    terms: dict[str, Any] = {"lease": lease, "lease_seconds": lease_seconds}
    try:
        return _claim_paced(quotas, terms, max_bytes, is_quarantine, damaged=None)
    except DatabaseError as error:
        if not _is_damage(error):
            raise
        return _claim_paced(quotas, terms, max_bytes, is_quarantine, damaged=set())


def _claim_paced(
    quotas: Sequence[ClaimQuota],
    terms: dict[str, Any],
    max_bytes: int,
    is_quarantine: bool,
    *,
    damaged: set[str] | None,
) -> list[Claimed]:
    places = {one.webhook_id: place for place, one in enumerate(quotas)}
    wanted = {one.webhook_id: one.quota for one in sorted(quotas)}
    _plan_again(sum(wanted.values()))
    with transaction.atomic(), _cursor() as cursor:
        cursor.execute(sql.ADD_STATES, [list(wanted)])
        locked = [row[0] for row in cursor.execute(sql.LOCK_STATES, [list(wanted)])]
        ordered: list[int] = []
        limited: list[ClaimQuota] = []
        paces: dict[int, Pace] = {}
        for pk, rate, per_seconds, concurrency, is_ordered, ahead, sending in cursor.execute(
            sql.PACING, [locked]
        ):
            paces[pk] = Pace(rate, per_seconds, ahead)
            room = wanted[pk] if concurrency is None else min(wanted[pk], concurrency - sending)
            quota = min(room, paces[pk].quota)
            if quota > 0 and not is_ordered:
                limited.append(ClaimQuota(pk, quota))
            elif quota > 0:
                ordered.append(pk)
        ordered.sort(key=places.__getitem__)
        limited.sort(key=lambda one: places[one.webhook_id])
        claimed: list[Claimed] = []
        if ordered:
            most = 1 if is_quarantine else len(ordered)
            parameters = terms | {"ids": ordered, "is_quarantine": is_quarantine, "limit": most}
            claimed += _claim_in_transaction(
                cursor, sql.CLAIM_HEADS, parameters, max_bytes, damaged
            )
        left = bytes_left(max_bytes, claimed)
        if limited and not (claimed and (is_quarantine or left <= 0)):
            ids, counts = map(list, zip(*limited, strict=True))
            statement = sql.CLAIM_QUARANTINED if is_quarantine else sql.CLAIM
            parameters = terms | {"ids": ids, "quotas": counts, "since": 0.0}
            claimed += _claim_in_transaction(cursor, statement, parameters, left, damaged)
        counted = Counter(claim.webhook_id for claim in claimed)
        after = {pk: paces[pk].after(n) for pk, n in counted.items() if paces[pk].rate}
        if after:
            cursor.execute(sql.PACED, [list(after), list(after.values())])
        return claimed


def record(results: Sequence[AttemptResult], *, lease: str, is_repeat: bool = False) -> int:
    """Write attempts and deliveries in one transaction; return how many deliveries were ours.

    A delivery whose lease was lost keeps what its new holder wrote. With `is_repeat` the previous
    try may have been committed before the connection broke, so only attempts of deliveries that
    are still ours are written.
    """
    _plan_again(len(results))
    if len(results) <= _FEW_ROWS:
        return _record_few(results, lease, is_repeat)
    with transaction.atomic(), _cursor() as cursor:
        ours = _finish(cursor, results, lease)
        rows: Iterable[AttemptResult] = results
        if is_repeat:
            rows = [result for result in results if result.delivery_id in ours]
        with cursor.copy(sql.COPY) as copy:
            copy.set_types(sql.ATTEMPT_TYPES)
            for result in rows:
                copy.write_row(result.attempt)
    return len(ours)


def _record_few(results: Sequence[AttemptResult], lease: str, is_repeat: bool) -> int:
    attempts = zip(*(result.attempt for result in results), strict=True)
    with _cursor() as cursor:
        columns = [*_columns(results), lease, *map(list, attempts), is_repeat]
        row = cursor.execute(sql.RECORD_FEW, columns).fetchone()
    assert row is not None
    return int(row[0])


def _columns(results: Sequence[AttemptResult]) -> list[list[Any]]:
    """Return the parameters of `OTHERS`, without the lease."""
    return [
        [result.delivery_id for result in results],
        [result.number for result in results],
        [result.status_code for result in results],
        [result.status for result in results],
        [result.outcome for result in results],
        [result.hold_reason for result in results],
        [int(result.counts) for result in results],
        [result.delay_seconds for result in results],
    ]


def _finish(
    cursor: "psycopg.Cursor[Any]", results: Sequence[AttemptResult], lease: str
) -> set[str]:
    ours: set[str] = set()
    succeeded: list[tuple[str, str, str]] = []
    others: list[AttemptResult] = []
    for result in results:
        if result.status == "succeeded":
            succeeded.append((result.delivery_id, str(result.number), str(result.status_code)))
        else:
            others.append(result)
    if succeeded:
        ids, numbers, codes = map(_array, zip(*succeeded, strict=True))
        cursor.execute(sql.SUCCEEDED, [ids, numbers, codes, lease])
        ours.update(row[0] for row in cursor.fetchall())
    if others:
        cursor.execute(sql.OTHERS, [*_columns(others), lease])
        ours.update(row[0] for row in cursor.fetchall())
    return ours


def _array(values: Iterable[str]) -> str:
    """Write an array of plain ASCII words; psycopg would inspect each value in Python."""
    return f"{{{','.join(values)}}}"


def write_states(changes: Sequence[StateChange]) -> list[tuple[int, float]]:
    """Record the health of webhooks; return those that fail, each with for how many seconds.

    There may be thousands, and nearly all are healthy.
    """
    # Sorted, so that two workers lock the rows in the same order.
    ids, succeeded, codes, errors, failures, had_success, ended_at = zip(
        *sorted(changes), strict=True
    )
    now = time.monotonic()
    columns = [
        _array(map(str, ids)),
        _array("t" if one else "f" for one in succeeded),
        _array("NULL" if code is None else str(code) for code in codes),
        arrays.texts(errors),
        _array(map(str, failures)),
        _array("t" if one else "f" for one in had_success),
        _array(str(now - at) for at in ended_at),
    ]
    with _cursor(has_arrays=True) as cursor:
        return cursor.execute(sql.STATE, columns).fetchall()


def add_counts(counts: Sequence[HourCount]) -> None:
    """Add to the hourly counts, with one statement."""
    # Sorted, so that two workers lock the rows in the same order.
    with _cursor(has_arrays=True) as cursor:
        cursor.execute(sql.ADD_COUNTS, _columns_of(_OF_COUNT, sorted(counts)))


def late(
    before: float, *, held: Sequence[str] = (), limit: int = 5000, since: float = 0.0
) -> list[str]:
    """Return the rows whose lease ended and that are not locked, the oldest first.

    `before` is Unix time by the database's clock; rows in `held` are alive in this process. Returns
    none if no lease ended since the Unix time `since`.
    """
    parameters = {"before": before, "held": list(held), "limit": limit, "since": since}
    with _cursor() as cursor:
        # Usually none is late, and the held rows need not be sent to find that out.
        if not cursor.execute(sql.IS_LATE, parameters).fetchone():
            return []
        return [row[0] for row in cursor.execute(sql.LATE, parameters)]


def expire(ids: Sequence[str], before: float) -> list[Expired]:
    """Take back those of these rows whose lease has ended: pending, or parked after many crashes.

    `before` is Unix time by the database's clock.
    """
    _plan_again(len(ids))
    parameters = {"ids": list(ids), "before": before, "limit": len(ids)}
    with transaction.atomic(), _cursor() as cursor:
        expired = [Expired(*row) for row in cursor.execute(sql.EXPIRE, parameters)]
        if expired:
            cursor.execute(
                "INSERT INTO webhooks_attempt (delivery_id, number, started_at, remote_address, "
                "request_line, request_headers, response_headers, response_body, response_size, "
                "outcome, error) SELECT r.id, r.number, now(), '', '', '', '', '', 0, 'unknown', "
                "%s FROM unnest(%s::text[], %s::int2[]) AS r(id, number)",
                [
                    DIED,
                    [row.id for row in expired],
                    [row.number for row in expired],
                ],
            )
        return expired


def hold(webhook_ids: Sequence[int], reason: str, limit: int = 1000) -> int:
    """Hold waiting deliveries of webhooks, except tests; return how many.

    Those of a deleted webhook are cancelled, tests too, since nothing could release them. Each
    webhook has its share of `limit`, one at least.
    """
    parameters = [list(webhook_ids), max(1, limit // len(webhook_ids)), reason, reason]
    _plan_again(limit)
    with _cursor() as cursor:
        return cursor.execute(sql.HOLD, parameters).rowcount


def hand_back(claims: Sequence[Claimed], *, lease: str) -> int:
    """Hand back rows that were claimed and not sent, as if never claimed; return how many.

    Waits for those that another transaction locked.
    """
    _plan_again(len(claims))
    with _cursor() as cursor:
        cursor.execute(
            sql.HAND_BACK,
            [[row.id for row in claims], [row.number for row in claims], lease],
        )
        return cursor.rowcount


def hand_back_others(held: Sequence[str], *, lease: str) -> int:
    """Hand back rows of a lease that are not in `held`, as if never claimed; return how many.

    The result of their claim was lost, so no process has them. Those that another
    transaction locked are taken back when their lease ends.
    """
    with _cursor() as cursor:
        cursor.execute(sql.HAND_BACK_OTHERS, [lease, list(held)])
        return cursor.rowcount
