"""Writes results on a connection of its own, so that claims and writes wait for the disk together.

On PostgreSQL a claim and a record each wait for a commit; one after the other they leave the
network idle. On SQLite, where one transaction writes at a time anyway, they share the keeper's
connection and thread. Owns when a batch goes out; what goes into it is the recorder's.
"""

import time
from collections import deque
from collections.abc import Callable
from types import ModuleType

from webhooks.delivery.db_session import Session, SessionThread
from webhooks.delivery.queue import Result
from webhooks.delivery.recorder import RECORD_SECONDS, Recorder

_LONGEST_WAIT_SECONDS = 1.0


class Writer(SessionThread):
    """The thread, where there is one. `written` is filled by it and emptied by the keeper."""

    def __init__(
        self,
        recorder: Recorder,
        queue: ModuleType,
        keepers_session: Session,
        on_written: Callable[[], None],
    ) -> None:
        super().__init__("writer", queue, keepers_session)
        self._recorder = recorder
        self._on_written = on_written
        # Batches that are safe in the database and whose rows are no longer ours.
        self.written: deque[list[Result]] = deque()

    def is_calm(self, now: float) -> bool:
        """Say whether nothing that was sent waits for a database that had a fault."""
        return self._session.is_calm(now)

    def write_due(self, now: float) -> None:
        """Write what is due, here or in the thread; `now` is monotonic, or inf for everything."""
        if not self._in_parallel:
            self._write(now)
        elif self._recorder.waiting and not self._event.is_set():
            self._event.set()

    def finish(self, ends: float) -> None:
        """Write everything, until `ends` on the monotonic clock if the database does not answer."""
        if self._in_parallel:
            self._end(ends)
            return
        while self._recorder.waiting and time.monotonic() < ends:
            self._write(float("inf"))
            time.sleep(self._session.backoff_seconds)

    def _write(self, now: float) -> None:
        """Write batches until none is due, or until the database has a fault."""
        while batch := self._recorder.batch(now):
            if self._session.run(lambda: self._recorder.write(batch)) is None:
                return
            self.written.append(batch)
            self._on_written()

    # The thread.

    def _has_work(self) -> bool:
        return bool(self._recorder.waiting)

    def _turn(self) -> None:
        self._write(float("inf") if self._is_closing else time.monotonic())
        self._rest()

    def _rest(self) -> None:
        """Wait until the oldest result is due, until there is one, or until the fault is over."""
        away = self._session.resume_at - time.monotonic()
        if away > 0:
            time.sleep(away)
        elif self._recorder.waiting:
            time.sleep(RECORD_SECONDS / 4)
        elif not self._is_closing:
            self._event.wait(_LONGEST_WAIT_SECONDS)
            self._event.clear()
