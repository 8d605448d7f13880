"""Calls to Redis, each for a limited time, whatever Redis and its name server do.

A socket's timeout counts for each read, so a response that comes byte by byte takes any time, and
looking up a name has no timeout.
"""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

# Calls whose time is over still run until they end: not more of them, and each keeps a thread.
_AT_MOST = 8


class LimitedCalls:
    """Runs each call in a thread, and waits for its result for this long.

    Threads are kept for later calls: to start one for each would take five times as long.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._begin()

    def _begin(self) -> None:
        self._process_id = os.getpid()
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._idle_threads = threading.Semaphore(0)
        self._new_threads = threading.Semaphore(_AT_MOST)

    def run(self, function: Callable[[], T]) -> T:
        """Return the call's result. Raises TimeoutError, and what the call raises.

        Raises OSError if the machine has no thread left.
        """
        if self._process_id != os.getpid():
            # A forked process has none of the threads.
            self._begin()
        ends = time.monotonic() + self._seconds
        if not self._idle_threads.acquire(blocking=False):
            if self._new_threads.acquire(blocking=False):
                self._start_thread()
            elif not self._idle_threads.acquire(timeout=self._seconds):
                raise TimeoutError
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future.result(max(0.0, ends - time.monotonic()))

    def _start_thread(self) -> None:
        try:
            threading.Thread(target=self._work, name="limited", daemon=True).start()
        except RuntimeError as error:
            self._new_threads.release()
            raise OSError(error) from error

    def _work(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                result = function()
            except BaseException as error:
                self._idle_threads.release()
                future.set_exception(error)
            else:
                self._idle_threads.release()
                future.set_result(result)
                del result
            # Not until the next call: they may be large, or refer to a connection.
            del future, function
