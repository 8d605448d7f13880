"""The figures of `make security`: tests report what they counted, the run adds it up.

Every figure is counted by what ran; nothing here knows how many there should be.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

# Names that end up in the JSON line, with their numbers:
#   urls, encryption, permissions   right, of
#   injection                       executed, of
#   secrets                         found, sinks
#   connects                        denied, seen
#   fuzz                            cases, crashes
FIGURES: dict[str, tuple[str, ...]] = {
    "urls": ("right", "of"),
    "encryption": ("right", "of"),
    "permissions": ("right", "of"),
    "injection": ("executed", "of"),
    "secrets": ("found", "sinks"),
    "connects": ("denied", "seen"),
    "fuzz": ("cases", "crashes"),
}
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


@pytest.fixture
def security_figure() -> Callable[..., None]:
    """Return the function by which a test reports: `security_figure("urls", right=1, of=1)`.

    Numbers of the same name are added up. Without `make security` it does nothing.
    """
    return report
