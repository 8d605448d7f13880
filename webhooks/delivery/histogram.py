"""Durations in log-scaled steps: small enough to count by the million, fine enough for p50 and p95.

Three steps double the time, so a step's end is 1.26 times its beginning. A percentile lies inside
the right step and is interpolated there: it is never off by more than 26 %, and by a few percent
when a step holds many different durations.
"""

from bisect import bisect_right
from collections.abc import Mapping

# For an attempt without a duration: refused by the guard, or an unknown name.
NO_DURATION = 0
# The longest timeout a webhook can have.
LONGEST_MS = 60_000.0
_STEPS_PER_DOUBLING = 3
# Where step 1, 2, ... begin, in milliseconds; step 1 is everything below one.
EDGES_MS = (0.0, *(2 ** (step / _STEPS_PER_DOUBLING) for step in range(48)))
LAST_STEP = len(EDGES_MS)


def step_of(duration_ms: float | None) -> int:
    """Return the step a duration falls into, from 1 to LAST_STEP, or NO_DURATION."""
    if duration_ms is None:
        return NO_DURATION
    return bisect_right(EDGES_MS, duration_ms) or 1


def bounds_ms(step: int) -> tuple[float, float]:
    """Return where a step begins and ends, in milliseconds."""
    return EDGES_MS[step - 1], EDGES_MS[step] if step < LAST_STEP else LONGEST_MS


def percentile_ms(counts: Mapping[int, int], fraction: float) -> float | None:
    """Estimate the duration that `fraction` of the counted ones do not exceed.

    `counts` maps steps to numbers of durations; attempts without a duration are left out. None when
    nothing is left.
    """
    steps = sorted(step for step, count in counts.items() if step != NO_DURATION and count > 0)
    rank = fraction * sum(counts[step] for step in steps)
    for step in steps:
        if rank <= counts[step] or step == steps[-1]:
            begin, end = bounds_ms(step)
            return begin + (end - begin) * min(rank / counts[step], 1.0)
        rank -= counts[step]
    return None
