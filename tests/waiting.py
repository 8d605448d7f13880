"""Wait for what another thread or process does: one condition, read as a whole, and patience."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# No measure of speed: a machine with many other things to do gets there too.
PATIENCE_SECONDS = 30.0


def eventually(
    condition: Callable[[], T],
    *,
    saw: Callable[[], object] | None = None,
    seconds: float = PATIENCE_SECONDS,
    every: float = 0.02,
) -> T:
    """Ask until the answer is true, and return it; fail with the last answer and what `saw` says.

    The condition reads what it needs at once: between two questions things move.
    """
    ends = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > ends:
            told = f"; {saw()}" if saw else ""
            raise AssertionError(f"it did not happen in {seconds:.0f} s: {answer!r}{told}")
        time.sleep(every)
    return answer
