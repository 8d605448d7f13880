"""`manage.py` in its own process."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def manage(
    *arguments: str, environment: Mapping[str, str], given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, with only these variables, and return the finished process."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
