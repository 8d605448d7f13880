"""Calls to Redis, each for a limited time, whatever Redis and its name server do.

A socket's timeout counts for each read, so a response that comes byte by byte takes any time, and
looking up a name has no timeout.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

# Calls whose time is over still run until they end: not more of them, and each keeps a thread.
_AT_MOST = 8


class LimitedCalls:
    """Runs each call in a thread of its own, and waits for its result for this long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(_AT_MOST)

    def run(self, function: Callable[[], T]) -> T:
        """Return the call's result. Raises TimeoutError, and what the call raises.

        Raises OSError if the machine has no thread left.
        """
        ends = time.monotonic() + self._seconds
        if not self._places.acquire(timeout=self._seconds):
            raise TimeoutError
        future: Future[T] = Future()

        def call() -> None:
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)
            finally:
                self._places.release()

        try:
            threading.Thread(target=call, name="limited", daemon=True).start()
        except RuntimeError as error:
            self._places.release()
            raise OSError(error) from error
        return future.result(max(0.0, ends - time.monotonic()))
