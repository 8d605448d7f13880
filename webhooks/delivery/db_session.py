"""A thread's database connection: pinned plans, backoff after faults, and the database's clock.

Also the base class of the threads that work beside the engine thread, with one connection each.
"""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

logger = logging.getLogger(__name__)
_T = TypeVar("_T")

# To open a connection, psycopg needs files and memory of this machine.
_FAULTS = (DatabaseError, OSError, MemoryError)
# The first and the longest wait while the database does not respond.
BACKOFF_SECONDS = (0.1, 2.0)
_CLOCK_SECONDS = 10.0
# A clock that gains more than this between two comparisons was stepped, or its machine suspended.
_STEP_SECONDS = 2.0
# After a fault or a start, other workers may be about to write results that they held during an
# outage: longer than the longest wait plus the time to connect.
CALM_SECONDS = 8.0
# A longer call waits for a lock, a disk or a machine that stands still: that raises no error, but
# others wait as well, with results that they could not write.
_SLOW_SECONDS = 1.0


class DatabaseClock:
    """What a process knows about the database's clock; its drains hand it on to each other."""

    def __init__(self) -> None:
        # Unix time minus the monotonic clock; None before the first comparison.
        self._offset: float | None = None
        # By how much the clock was stepped forward, and until when (monotonic) leases from before
        # that may be live.
        self._step_seconds, self._step_ends_at = 0.0, float("-inf")

    def wall(self) -> float:
        """Return Unix time by the database's clock, in seconds; at first by the process's own."""
        return time.time() if self._offset is None else self._offset + time.monotonic()

    def lease_wall(self) -> float:
        """Return until when leases are over, as Unix time by the database's clock.

        For the length of a lease, a step forward does not count: live leases would look over.
        """
        is_step_recent = time.monotonic() < self._step_ends_at
        return self.wall() - (self._step_seconds if is_step_recent else 0.0)

    def compare(self, seconds: float) -> None:
        """Take Unix time as the database just returned it."""
        now = time.monotonic()
        before, self._offset = self._offset, seconds - now
        if before is not None and (step := self._offset - before) > _STEP_SECONDS:
            earlier = self._step_seconds if now < self._step_ends_at else 0.0
            self._step_seconds = earlier + step
            self._step_ends_at = now + settings.WEBHOOKS_LEASE_SECONDS
            logger.warning("database_clock_stepped seconds=%.0f", step)


class DatabaseSession:
    """One thread's connection; everything that uses it goes through `run`."""

    def __init__(self, queue: ModuleType, clock: DatabaseClock | None = None) -> None:
        self._queue = queue
        self._prepared: object = None
        self._clock_at = 0.0
        self.clock = clock or DatabaseClock()
        self.backoff_seconds = 0.0
        # Monotonic seconds; nothing is run before that.
        self.resume_at = 0.0
        self._fault_at = time.monotonic()
        # When the current call began.
        self._began_at = float("inf")

    def run(self, work: Callable[[], _T]) -> _T | None:
        """Run one transaction; on a database fault set `resume_at` and return None.

        Until then nothing is run, and the result is None as well.
        """
        if time.monotonic() < self.resume_at:
            return None
        self._began_at = time.monotonic()
        try:
            if connection.connection is None or connection.connection is not self._prepared:
                connection.ensure_connection()
                self._queue.prepare_session()
                self._prepared = connection.connection
            done = work()
        except _FAULTS as error:
            shortest, longest = BACKOFF_SECONDS
            self.backoff_seconds = min(longest, max(shortest, self.backoff_seconds * 2))
            self.note_fault()
            self.resume_at = self._fault_at + self.backoff_seconds
            text = self._queue.described(error)
            logger.warning("database_fault wait=%.1f error=%s", self.backoff_seconds, text)
            connection.close()
            return None
        finally:
            ended_at = time.monotonic()
            if ended_at - self._began_at > _SLOW_SECONDS:
                self._fault_at = ended_at
            self._began_at = float("inf")
        self.backoff_seconds = 0.0
        return done

    @property
    def is_failing(self) -> bool:
        """Return whether calls have been failing, one after another, for some seconds."""
        return self.backoff_seconds == BACKOFF_SECONDS[1]

    def note_fault(self) -> None:
        """Start the calm period again: others may hold results that they could not write."""
        self._fault_at = time.monotonic()

    def is_calm(self, now: float) -> bool:
        """Return whether the database worked long enough for a lease that ended to mean a death."""
        is_waiting = now - self._began_at > _SLOW_SECONDS
        return not is_waiting and now - self._fault_at > CALM_SECONDS

    def sync_clock(self, now: float) -> None:
        """Compare with the database's clock every few seconds; `now` is monotonic."""
        if now < self._clock_at:
            return
        self._clock_at = now + _CLOCK_SECONDS
        if (seconds := self.run(self._queue.clock)) is not None:
            self.clock.compare(seconds)

    def close(self) -> None:
        """Close this thread's connection, at the end of the thread that called `run`."""
        connection.close()


class SessionThread(ABC):
    """A thread that works beside the engine thread, on a connection of its own.

    SQLite has one writer at a time, so there no thread is started: the engine thread does the
    work, in its own session.
    """

    def __init__(self, name: str, queue: ModuleType, engine_session: DatabaseSession) -> None:
        self._in_parallel: bool = queue.WRITES_IN_PARALLEL
        self._session = DatabaseSession(queue) if self._in_parallel else engine_session
        self._event = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        if self._in_parallel:
            self._thread.start()

    def is_calm(self, now: float) -> bool:
        """Return whether no call waits for the database, nor waited or failed a moment ago."""
        return self._session.is_calm(now)

    @property
    def is_failing(self) -> bool:
        return self._session.is_failing

    @property
    def is_alive(self) -> bool:
        return not self._in_parallel or self._thread.is_alive()

    def _end(self, ends: float) -> None:
        """Let the thread finish its work, and wait for it until `ends` on the monotonic clock."""
        self._is_closing = True
        self._event.set()
        if self._thread.ident is not None:
            self._thread.join(max(0.0, ends - time.monotonic()))

    def _run(self) -> None:
        try:
            # Connects now: requests may take all descriptors later.
            self._session.run(lambda: True)
            while not self._is_closing or self._has_work():
                self._turn()
        finally:
            self._session.close()

    @abstractmethod
    def _has_work(self) -> bool:
        """Return whether something is left to do before the thread may end."""

    @abstractmethod
    def _turn(self) -> None:
        """Do the work that is due, or wait for some."""
