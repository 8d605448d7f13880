"""The definition of a fuzz target."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st


@dataclass(frozen=True, kw_only=True)
class FuzzTarget:
    """Inputs of plain Python values, and the check of one of them.

    `check` fails by raising anything, and returns whether the input was accepted: a target that
    rejects every input tests nothing. `around` is the context it needs. `share` is its weight among
    the targets of a long run.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any], bool]
    around: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    share: int = 4
