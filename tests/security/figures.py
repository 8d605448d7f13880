"""The figures of `make security`: tests report what they counted, the run adds it up.

Every figure is counted by the tests that ran; this module only knows the least to expect.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

# Names that end up in the JSON line, with their numbers:
#   urls, encryption, permissions   right, of
#   linear                          right, of: inputs whose time stays small
#   injection                       executed, of
#   secrets                         found, sinks
#   connects                        denied, seen
#   fuzz                            cases, crashes
#   exfiltration                    refused, of
FIGURES: dict[str, tuple[str, ...]] = {
    "urls": ("right", "of"),
    "encryption": ("right", "of"),
    "permissions": ("right", "of"),
    "linear": ("right", "of"),
    "injection": ("executed", "of"),
    "secrets": ("found", "sinks"),
    "connects": ("denied", "seen"),
    "fuzz": ("cases", "crashes"),
    "exfiltration": ("refused", "of"),
}
# Rows of the shared table, strings of the corpus, and sinks that are searched.
LEAST_URLS, LEAST_INJECTIONS, LEAST_SINKS = 203, 200, 14
# Parsers with their worst texts, and ways to move a stored secret.
LEAST_LINEAR, LEAST_EXFILTRATION = 200, 40
FILE_VARIABLE = "SECURITY_FIGURES"


def report(name: str, **numbers: int) -> None:
    """Add numbers to a figure, if this run collects figures.

    Errors: ValueError for a name or a number that no figure has.
    Concurrency: one short appended line, so processes may share the file.
    """
    if unknown := numbers.keys() - set(FIGURES.get(name, ())):
        raise ValueError(f"The figure {name} has no {', '.join(sorted(unknown))}.")
    if not (path := os.environ.get(FILE_VARIABLE)):
        return
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"name": name, **numbers}) + "\n")


def add_up(path: Path) -> dict[str, Counter[str]]:
    """Return the sums of a file of figures; a figure that nothing reported is absent."""
    sums: dict[str, Counter[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        sums.setdefault(entry.pop("name"), Counter()).update(entry)
    return sums


def as_line(sums: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Return the last line of `make security`; figures that nothing reported are 0."""
    count = {
        name: {key: sums.get(name, {}).get(key, 0) for key in FIGURES[name]} for name in FIGURES
    }
    return {
        "urls": count["urls"],
        "connects_to_denied": count["connects"]["denied"],
        "secrets_found": count["secrets"]["found"],
        "sinks": count["secrets"]["sinks"],
        "encryption": count["encryption"],
        "injection": count["injection"],
        "permissions": count["permissions"],
        "linear": count["linear"],
        "fuzz_cases": count["fuzz"]["cases"],
        "crashes": count["fuzz"]["crashes"],
        "exfiltration": count["exfiltration"],
    }


def problems(line: Mapping[str, Any], sums: Mapping[str, object], *, fuzz_cases: int) -> list[str]:
    """Return what is wrong with the line: a figure that is bad, too small, or was not counted."""
    found = [f"nothing reported the figure {name}" for name in FIGURES if name not in sums]
    for name, good in (
        ("urls", "right"),
        ("encryption", "right"),
        ("permissions", "right"),
        ("linear", "right"),
        ("exfiltration", "refused"),
    ):
        if line[name][good] != line[name]["of"]:
            found.append(f"{name} has {line[name]['of'] - line[name][good]} wrong")
    for name, number in (
        ("connects_to_denied", line["connects_to_denied"]),
        ("secrets_found", line["secrets_found"]),
        ("injection executed", line["injection"]["executed"]),
        ("crashes", line["crashes"]),
    ):
        if number:
            found.append(f"{name} is {number}")
    for name, number, least in (
        ("urls", line["urls"]["of"], LEAST_URLS),
        ("injection", line["injection"]["of"], LEAST_INJECTIONS),
        ("fuzz_cases", line["fuzz_cases"], fuzz_cases),
        ("sinks", line["sinks"], LEAST_SINKS),
        ("encryption", line["encryption"]["of"], 1),
        ("permissions", line["permissions"]["of"], 1),
        ("linear", line["linear"]["of"], LEAST_LINEAR),
        ("exfiltration", line["exfiltration"]["of"], LEAST_EXFILTRATION),
    ):
        if number < least:
            found.append(f"{name} counts {number}, which is fewer than {least}")
    return found


@pytest.fixture
def security_figure() -> Callable[..., None]:
    """Return the function with which a test reports: `security_figure("urls", right=1, of=1)`.

    Numbers of the same name are added up. Without `make security` it does nothing.
    """
    return report
