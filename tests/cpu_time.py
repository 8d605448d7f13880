"""CPU time of a piece of work, as a multiple of what a fixed piece takes on this machine now."""

import json
import time
import unicodedata
from collections.abc import Callable

# What the product does with a text: read and write JSON, compare names, normalize and fold.
_TEXT = json.dumps([{"name": f"значення {n}", "ordinal": n, "é": [n] * 5} for n in range(2_000)])
_MARKS = "a" + "\u0301\u0316" * 1_000
_ROUNDS = 3


def _fixed_piece() -> None:
    for row in json.loads(_TEXT):
        json.dumps(row)
        row["name"].casefold().startswith("v")
    for _ in range(20):
        unicodedata.normalize("NFC", _MARKS)


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def relative_cost(work: Callable[[], object], *, limit: float) -> float:
    """Return the least of three costs, or the first within the limit.

    The fixed piece runs before and after the work, so a processor that is slow for a moment is
    slow for both.
    """
    least = float("inf")
    for _ in range(_ROUNDS):
        before = _seconds(_fixed_piece)
        took = _seconds(work)
        least = min(least, took / max(before, _seconds(_fixed_piece)))
        if least < limit:
            break
    return least
