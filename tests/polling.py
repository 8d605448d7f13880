"""Wait for the effect of another thread or process."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Not a measure of speed: long enough for a very busy machine.
PATIENCE_SECONDS = 90.0


def eventually(
    condition: Callable[[], T],
    *,
    saw: Callable[[], object] | None = None,
    seconds: float = PATIENCE_SECONDS,
    every: float = 0.02,
) -> T:
    """Poll until the condition is true and return its value; fail with the last value and `saw()`.

    The condition should read all it needs at once: the state changes between two reads.
    """
    ends = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > ends:
            observed = f"; {saw()}" if saw else ""
            raise AssertionError(f"it did not happen in {seconds:.0f} s: {answer!r}{observed}")
        time.sleep(every)
    return answer
