"""gunicorn's worker with threads, whose threads stay with a connection that is kept open.

gunicorn's own gives a connection back to its poller after each answer and to a thread with each
request: two changes of threads and a dozen system calls, of which a client waits for half.
"""

import os
import select
from concurrent.futures import Future
from typing import Any

from gunicorn.workers.gthread import TConn, ThreadWorker

# How long a thread waits for the next request of its connection. The poller has it after that.
_STAY_MS = 1000


class StayingWorker(ThreadWorker):  # type: ignore[misc]
    """A thread waits for its connection's next request itself, until others need the thread."""

    def init_process(self) -> None:
        # Of the thread of the poller alone: connections that are with a thread or wait for one.
        self._with_threads = 0
        # Readable while there are more of them than threads.
        self._needed, self._note = os.pipe()
        # gunicorn looks its settings up by name, twenty times a request; they change no more.
        self.cfg.__dict__.update({name: one.get() for name, one in self.cfg.settings.items()})
        super().init_process()

    def enqueue_req(self, conn: TConn) -> None:
        self._with_threads += 1
        if self._with_threads == self.cfg.threads + 1:
            os.write(self._note, b"\0")
        super().enqueue_req(conn)

    def finish_request(self, conn: TConn, fs: "Future[Any]") -> None:
        self._with_threads -= 1
        if self._with_threads == self.cfg.threads:
            os.read(self._needed, 1)
        super().finish_request(conn, fs)

    def handle(self, conn: TConn) -> Any:
        is_kept = super().handle(conn)
        while is_kept is True and self._has_next(conn):
            is_kept = super().handle(conn)
        return is_kept

    def _has_next(self, conn: TConn) -> bool:
        """Return whether this thread shall go on with a connection, after a wait at most."""
        # What was read ahead, by the parser or of TLS, is not seen by waiting.
        if not self.alive or self.cfg.is_ssl or conn.parser.unreader.buf.getvalue():
            return False
        waiting = select.poll()
        waiting.register(self._needed, select.POLLIN)
        waiting.register(conn.sock, select.POLLIN)
        return [descriptor for descriptor, _ in waiting.poll(_STAY_MS)] == [conn.sock.fileno()]
