"""Growth of the CPU time of a piece of work: the same work at two sizes, in one run.

No ruler: an interpreter or library that is faster or slower is so at both sizes.
"""

import time
from collections.abc import Callable

# The larger size, as a multiple of the smaller one.
TIMES = 8
# Linear work takes 8 times as long, quadratic work 64 times.
LINEAR = 20.0
# The cost of work that does not depend on the size.
CONSTANT = 4.0
# Differences of less are noise; work that grows too fast takes far longer.
_NOISE_SECONDS = 5e-3
_ROUNDS = 15

Work = Callable[[], object]


def growth(prepare: Callable[[int], Work], *, limit: float) -> float:
    """Return how many times longer work of `TIMES` times the size takes.

    `prepare` is called with 1 and `TIMES`, and returns work of that many parts. The quickest of
    several runs counts; no more are made once the result is within the limit.
    """
    small, large = prepare(1), prepare(TIMES)
    quick_small, quick_large = _seconds(small), _seconds(large)
    for _ in range(_ROUNDS):
        if quick_large / quick_small < limit:
            break
        quick_small = min(quick_small, _seconds(small))
        quick_large = min(quick_large, _seconds(large))
    return quick_large / quick_small


def _seconds(work: Work) -> float:
    began = time.thread_time()
    work()
    return max(time.thread_time() - began, _NOISE_SECONDS)
