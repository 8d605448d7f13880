"""Group commit: items written at the same moment go into one transaction.

The first thread writes at once. Items that come during its commit are the next group, which the
first of its threads writes for all. Each thread returns after the commit of its own item. The
tasks of an event loop do the same.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# Measured with eight clients: 0.4 ms is too short for them to send again, 1.5 ms is no better.
_COMMIT_DELAY_SECONDS = 0.001


class _Waiting(Generic[Item, Result]):
    """One item; its thread sleeps until `turn` is free: written, failed, or first of a group."""

    __slots__ = ("error", "item", "result", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.turn = threading.Lock()
        self.result: list[Result] = []
        self.error: Exception | None = None


class GroupCommit(Generic[Item, Result]):
    """Calls `write` with the items of one group; it returns a result for each.

    An exception that it raises is raised for each item of the group. `at_most` limits a group.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Sequence[Result]], at_most: int) -> None:
        self._write = write
        self._at_most = at_most
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._is_led = False

    def submit(self, item: Item) -> Result:
        """Write an item with those of other threads; return its result after the commit."""
        mine: _Waiting[Item, Result] = _Waiting(item)
        with self._lock:
            self._waiting.append(mine)
            if leads := not self._is_led:
                self._is_led = True
            else:
                mine.turn.acquire()
        if not leads:
            mine.turn.acquire()
        if not mine.result and mine.error is None:
            self._lead()
        if mine.error is not None:
            raise mine.error
        return mine.result[0]

    def _lead(self) -> None:
        """Write the waiting items, then wake their threads and the first of the next group."""
        with self._lock:
            size = min(len(self._waiting), self._at_most)
            group = [self._waiting.popleft() for _ in range(size)]
        try:
            results = self._write([one.item for one in group])
            for one, result in zip(group, results, strict=True):
                one.result.append(result)
        except Exception as error:
            for one in group:
                one.error = error
        except BaseException:
            for one in group[1:]:
                one.error = RuntimeError("The thread that wrote for this one was ended.")
            raise
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._is_led = following is not None
            woken = [*group[1:], following] if following else group[1:]
            for one in woken:
                one.turn.release()


class AsyncGroupCommit(Generic[Item, Result]):
    """`GroupCommit` for the tasks of one event loop; `write` is a coroutine function.

    After a group of several it waits for a moment: the clients that just got a response send
    again, and fewer commits save more time than the wait takes.
    """

    def __init__(
        self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], at_most: int
    ) -> None:
        self._write = write
        self._at_most = at_most
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """Write an item with those of other tasks; return its result after the commit."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, mine))
        if self._writer is None:
            self._writer = loop.create_task(self._write_all())
        return await mine

    async def _write_all(self) -> None:
        size = 0
        while self._waiting:
            if size > 1 and len(self._waiting) < self._at_most:
                await asyncio.sleep(_COMMIT_DELAY_SECONDS)
            size = min(len(self._waiting), self._at_most)
            group = [self._waiting.popleft() for _ in range(size)]
            try:
                results = await self._write([item for item, _ in group])
                for (_, future), result in zip(group, results, strict=True):
                    # The task may have been cancelled.
                    if not future.done():
                        future.set_result(result)
            except Exception as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
        self._writer = None


class Throttle:
    """Calls a function at once, up to a burst, then at most every `every_seconds`."""

    def __init__(self, function: Callable[[], object], *, every_seconds: float, burst: int) -> None:
        self._function = function
        self._every_seconds = every_seconds
        self._burst_seconds = burst * every_seconds
        self._lock = threading.Lock()
        # GCRA: the monotonic time of the next call on schedule.
        self._next_at = float("-inf")
        self._is_to_come = False

    @property
    def is_to_come(self) -> bool:
        """Return whether a call is scheduled already, so that another one would do nothing."""
        return self._is_to_come

    def call(self) -> None:
        with self._lock:
            if self._is_to_come:
                return
            now = time.monotonic()
            self._next_at = max(self._next_at, now) + self._every_seconds
            wait = self._next_at - self._burst_seconds - now
            self._is_to_come = wait > 0
        if wait <= 0:
            self._function()
            return
        timer = threading.Timer(wait, self._late)
        timer.daemon = True
        try:
            timer.start()
        except RuntimeError:
            # The machine has no thread left: call now, or no call would ever follow.
            self._late()

    def _late(self) -> None:
        self._is_to_come = False
        self._function()
