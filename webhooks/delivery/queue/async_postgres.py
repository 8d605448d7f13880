"""Inserts events from an event loop, over one connection that no thread has to wait for."""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, DatabaseError, OperationalError, connections
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.sql import SQL, Identifier

from webhooks.delivery.queue import postgres
from webhooks.delivery.queue.rows import NewDelivery, NewEventRow

Opened = psycopg.Connection[Any]
_LATE = psycopg.OperationalError(f"no answer within {postgres.ANSWER_SECONDS:.0f} s")


class AsyncInserts:
    """Sends one statement at a time; connects in a thread, and again if lost or old."""

    def __init__(self) -> None:
        self._opened: Opened | None = None
        # A copy of its socket's descriptor for the loop: libpq closes its own once it is lost.
        self._socket = -1
        # Monotonic seconds.
        self._opened_at = 0.0
        self._opening: asyncio.Task[None] | None = None
        self._is_closed = False
        # A newer connection, for the next statement.
        self._next: Opened | None = None
        self._answer: asyncio.Future[PGresult] | None = None
        # The newest result of the statement: its commit may fail after its rows have come.
        self._result: PGresult | None = None

    @property
    def is_connected(self) -> bool:
        return self._opened is not None

    def is_ready(self) -> bool:
        """Return whether it can insert; if not, or if the connection is old, start to connect."""
        if self._answer is None:
            self._take_next()
        is_wanted = self._opened is None or self._is_old()
        if is_wanted and self._opening is None and self._next is None and not self._is_closed:
            self._opening = asyncio.get_running_loop().create_task(self._open())
        return self.is_connected

    def _is_old(self) -> bool:
        # Like Django's own connections: a failover leaves one at a server that is read-only.
        age = connections.settings[DEFAULT_DB_ALIAS]["CONN_MAX_AGE"]
        return age is not None and time.monotonic() - self._opened_at >= max(age, 1)

    async def _open(self) -> None:
        try:
            self._next = await asyncio.get_running_loop().run_in_executor(None, _connect)
        except (psycopg.Error, DatabaseError):
            # Until one opens, requests use their own connections, and report the problem.
            return
        finally:
            self._opening = None
        if self._answer is None and not self._is_closed:
            self._take_next()

    def _take_next(self) -> None:
        if self._next is None:
            return
        opened, self._next = self._next, None
        try:
            socket = os.dup(opened.fileno())
        except (OSError, psycopg.Error):
            # No descriptor is left, or the server has ended the connection.
            opened.close()
            return
        self._drop()
        self._opened, self._opened_at, self._socket = opened, time.monotonic(), socket
        asyncio.get_running_loop().add_reader(socket, self._read)

    async def close(self) -> None:
        """Close the connection permanently."""
        self._is_closed = True
        if self._opening is not None:
            await self._opening
        if self._next is not None:
            self._next.close()
        self._drop()

    def _drop(self) -> None:
        if self._opened is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            os.close(self._socket)
            self._opened.close()
            self._opened, self._socket = None, -1

    async def insert(
        self,
        events: Sequence[NewEventRow],
        deliveries: Sequence[NewDelivery],
        version: int,
        *,
        lock_timeout_ms: int,
    ) -> tuple[int, set[str]]:
        """Insert as `postgres.enqueue_at_once` does; requires `is_ready`.

        Raises Django's DatabaseError for a refused statement. If it is not known what was
        committed, it raises OperationalError and is not connected any more.
        """
        self._take_next()
        parameters = postgres.parameters_at_once(events, deliveries, version, lock_timeout_ms)
        if self._opened is not None and postgres.has_unsolicited_data(self._socket):
            # The server has ended the connection, and the loop has not seen that yet.
            self._drop()
        if self._opened is None or self._answer is not None:
            raise DatabaseError("The connection is not free.")
        self._answer = asyncio.get_running_loop().create_future()
        late = asyncio.get_running_loop().call_later(postgres.ANSWER_SECONDS, self._lose, _LATE)
        try:
            self._send(self._opened, parameters)
            result = await self._answer
        finally:
            late.cancel()
            self._answer, self._result = None, None
        if result.status == ExecStatus.TUPLES_OK:
            return postgres.inserted_at_once(result)
        error = psycopg.errors.error_from_result(result)
        if result.error_field(DiagnosticField.SEVERITY_NONLOCALIZED) != b"ERROR":
            self._drop()
            raise OperationalError(str(error)) from error
        raise DatabaseError(str(error)) from error

    def _send(self, opened: Opened, parameters: Sequence[bytes]) -> None:
        try:
            opened.pgconn.send_query_prepared(
                postgres.INSERT_AT_ONCE_NAME, parameters, postgres.BINARY
            )
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    def _flush(self) -> None:
        """Send what the socket takes, and the rest when it takes more."""
        opened, loop = self._opened, asyncio.get_running_loop()
        if opened is None:
            return
        try:
            if opened.pgconn.flush():
                loop.add_writer(self._socket, self._flush)
            else:
                loop.remove_writer(self._socket)
        except psycopg.Error as error:
            self._lose(error)

    def _read(self) -> None:
        """Read what the server sent: results, or the end of the connection."""
        if self._opened is None:
            return
        libpq = self._opened.pgconn
        try:
            # Read everything: uvloop reports a connection that was reset only once.
            is_left = True
            while is_left:
                libpq.consume_input()
                self._take_results(libpq)
                if libpq.status == ConnStatus.BAD:
                    raise psycopg.OperationalError(libpq.get_error_message())
                is_left = postgres.has_unsolicited_data(self._socket)
        except psycopg.Error as error:
            self._lose(error)

    def _take_results(self, libpq: PGconn) -> None:
        while self._answer is not None and not libpq.is_busy():
            result = libpq.get_result()
            if result is not None:
                self._result = result
                continue
            if self._result is not None and not self._answer.done():
                self._answer.set_result(self._result)
            return

    def _lose(self, error: psycopg.Error) -> None:
        self._drop()
        if self._answer is not None and not self._answer.done():
            lost = OperationalError(str(error))
            lost.__cause__ = error
            self._answer.set_exception(lost)


def _connect() -> Opened:
    wrapper = connections.create_connection(DEFAULT_DB_ALIAS)
    opened: Opened = wrapper.get_new_connection(wrapper.get_connection_params())
    opened.__class__ = postgres.ImpatientConnection
    try:
        opened.autocommit = True
        if role := wrapper.settings_dict["OPTIONS"].get("assume_role"):
            opened.execute(SQL("SET ROLE {}").format(Identifier(role)))
        postgres.set_required_settings(opened)
        postgres.prepare_at_once(opened)
    except psycopg.Error:
        opened.close()
        raise
    opened.pgconn.nonblocking = 1
    return opened
