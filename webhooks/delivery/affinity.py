"""CPU affinity: the process of a busy drain keeps to one processor at a time.

Its threads share Python's lock. On two processors they hand it back and forth thousands of times a
second, and each time a thread has to be woken (decision 0031).
"""

import math
import os
import sys
import threading
import time
from contextlib import suppress

# How long the threads stay on one processor, and how long the scheduler may then move them, away
# from other busy processes.
_STAY_SECONDS, _MOVE_SECONDS = 1.0, 0.05
# The share of a processor above which the process is busy.
BUSY = 0.3
_THREADS = "/proc/self/task"
# https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html: field 39, in a list that begins with
# field 3, after the name of the program.
_PROCESSOR = 39 - 3


class Affinity:
    """The affinity of this process; drains call `look` all the time and `release` at their end.

    If the system refuses or lacks something (files, rights, /proc), threads run as before.
    """

    def __init__(self) -> None:
        # Only Linux has this call.
        self._look_at = 0.0 if hasattr(os, "sched_setaffinity") else math.inf
        self._looked_at = self._used = 0.0
        # The processor that the threads are pinned to; empty while the scheduler chooses.
        self._kept: set[int] = set()
        # The processors that the scheduler may choose from.
        self._allowed: set[int] = set()
        # A pool of threads may run several drains.
        self._lock = threading.Lock()

    def look(self, now: float) -> None:
        """Pin the threads to a processor, or let the scheduler choose again, when it is time."""
        if now < self._look_at:
            return
        with self._lock, suppress(OSError):
            used = time.process_time()
            is_busy = used - self._used > BUSY * (now - self._looked_at)
            self._looked_at, self._used = now, used
            if self._kept or not is_busy or not _has_gil():
                self._look_at = now + _MOVE_SECONDS
                self._release()
            else:
                self._look_at = now + _STAY_SECONDS
                self._keep()

    def release(self) -> None:
        """Restore the previous affinity, unless something else changed it since."""
        with self._lock, suppress(OSError):
            self._release()

    def _release(self) -> None:
        if self._kept and os.sched_getaffinity(0) == self._kept:
            _allow_all_threads(self._allowed)
        # Only after success, so that a failure is tried again.
        self._kept = set()

    def _keep(self) -> None:
        processor, allowed = _processor(), os.sched_getaffinity(0)
        if len(allowed) > 1:
            self._allowed = _requested_set(allowed)
            self._kept = {processor}
            _allow_all_threads(self._kept)


def _requested_set(allowed: set[int]) -> set[int]:
    """Return the set to ask for so that this thread may use what it is allowed now.

    That is every processor, unless this process was restricted to some: Linux remembers the set
    that was asked for, and a container that gets more processors later could not use them.
    """
    every = allowed.union(range(os.sysconf("SC_NPROCESSORS_CONF")))
    os.sched_setaffinity(0, every)
    return every if os.sched_getaffinity(0) == allowed else allowed


def _has_gil() -> bool:
    is_locking = getattr(sys, "_is_gil_enabled", None)
    return is_locking is None or is_locking()


def _processor() -> int:
    """Return the processor that this thread runs on."""
    with open("/proc/thread-self/stat") as file:
        return int(file.read().rpartition(")")[2].split()[_PROCESSOR])


def _allow_all_threads(processors: set[int]) -> None:
    """Let all threads of this process, and those that they start, run on these processors."""
    done: set[str] = set()
    # Until there are no new ones: a thread that just started has the affinity of its starter.
    while threads := set(os.listdir(_THREADS)) - done:
        for thread in threads:
            # The thread may have ended, or a processor may have been taken away.
            with suppress(OSError):
                os.sched_setaffinity(int(thread), processors)
        done |= threads
