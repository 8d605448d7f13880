"""Run a target for a number of cases; failures are shrunk and reported instead of raised."""

import traceback
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.mutations import variations
from tests.fuzz.target import FuzzTarget

# Hypothesis keeps what it generated in memory until the end of a round.
ROUND_EXAMPLES = 2000
# Number of variations of each input that Hypothesis generates.
VARIATIONS = 9
_PER_EXAMPLE = 1 + VARIATIONS


@dataclass(kw_only=True)
class CaseCount:
    cases: int = 0
    # Number of accepted inputs.
    accepted: int = 0
    crashes: list[str] = field(default_factory=list)


def run(target: FuzzTarget, cases: int, *, first_seed: int) -> CaseCount:
    """Check at least this many inputs; stop after three crashes."""
    count, round_number = CaseCount(), first_seed
    with target.around():
        while count.cases < cases and len(count.crashes) < 3:
            left = -(-(cases - count.cases) // _PER_EXAMPLE)
            _round(target, min(left, ROUND_EXAMPLES), round_number, count)
            round_number += 1
    return count


def _round(target: FuzzTarget, examples: int, number: int, count: CaseCount) -> None:
    has_failed = False

    def check(one: Any) -> None:
        nonlocal has_failed
        try:
            check_with_variations(target, one, count)
        except BaseException:
            has_failed = True
            raise

    run_settings = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    before = count.cases
    try:
        seed(number)(run_settings(given(target.inputs)(check)))()
    except Exception as error:
        where = f"{target.name}, round {number}"
        count.crashes.append(f"{where}:\n{''.join(traceback.format_exception(error))[-4000:]}")
    if not has_failed and count.cases == before:
        count.crashes.append(f"{target.name}: no case ran")


class FailedCaseError(AssertionError):
    """An input that was handled wrongly."""


def check_with_variations(target: FuzzTarget, one: Any, count: CaseCount) -> None:
    for case in (one, *variations(one, VARIATIONS)):
        count.cases += 1
        try:
            count.accepted += target.check(case)
        except Exception as error:
            raise FailedCaseError(f"{target.name}: {case!r}") from error
