"""The quick profile of the fuzzing: a second or so for each target, with the same inputs each run.

The long one: `python -m tests.fuzz`, which `make security` runs under strace.
"""

import pytest

from tests.fuzz.runner import run
from tests.fuzz.target import FuzzTarget
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.slow

_CASES = 1500


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_nothing_that_is_written_breaks_what_reads_it(target: FuzzTarget) -> None:
    count = run(target, _CASES, first_seed=1)
    assert count.crashes == []
    assert count.cases >= _CASES
    # Enough inputs got past the first refusal.
    assert count.accepted >= _CASES // 50
