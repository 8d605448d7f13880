"""What a target is."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True, kw_only=True)
class Target:
    """Inputs of plain Python values, and the check of one of them.

    `check` fails by raising anything, and says whether the input was taken: a target that refuses
    everything it is given tests nothing. `around` holds what it needs while it runs. `share` is the
    part of a long run's cases that it gets, as a weight.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], bool]
    around: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    share: int = 4
