"""A part of `make faults` in under two minutes: real workers and servers, broken once each."""

import json
import subprocess
import sys
from functools import cache

import pytest

from tests.faults.environment import ROOT
from tests.faults.report import BROKEN, ReportRow

# Quick faults that cover each kind: death, a clean stop, the broker, the database, keys.
POSTGRES = ("F2", "F3", "F6", "F9", "F14", "F17", "F20", "F50", "F52")
SQLITE = ("F2", "F3", "F4", "F5", "F6", "F7", "F33", "F34", "F54")
RECEIVERS = tuple(f"R{number}" for number in range(1, 41))
# All of a database's faults run in one process before its first test is judged.
pytestmark = [pytest.mark.timeout(300), pytest.mark.together]


def row_of(fault: str, database: str) -> ReportRow:
    found, problem, errors = _results(database)
    assert not problem, problem
    if found[fault].result == BROKEN:
        # Pytest shows this with the failed test: the logs of the workers.
        print(errors[-20_000:])
    return found[fault]


@cache
def _results(database: str) -> tuple[dict[str, ReportRow], str, str]:
    """Run the database's part once; return its rows, the errors of the run itself, and its log."""
    wanted = POSTGRES if database == "postgres" else SQLITE
    command = ["-m", "tests.faults.one", "--database", database, "--quick"]
    command += ["--only", *wanted, "R"]
    output, errors, code = _run(command)
    found = [ReportRow(**json.loads(line)) for line in output.splitlines() if line[:1] == "{"]
    return {row.id: row for row in found}, errors[-5000:] if code else "", errors


def _run(command: list[str]) -> tuple[str, str, int]:
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            output, errors = run.communicate()
        finally:
            # On SIGTERM the run stops its workers and servers; killed, it could not.
            run.terminate()
    return output, errors, run.returncode


@pytest.mark.database("postgres")
@pytest.mark.parametrize("fault", POSTGRES + RECEIVERS)
def test_a_fault_on_postgresql_is_survived(fault: str) -> None:
    row = row_of(fault, "postgres")
    assert row.result != BROKEN, row.note


@pytest.mark.database("sqlite")
@pytest.mark.parametrize("fault", SQLITE + RECEIVERS)
def test_a_fault_on_sqlite_is_survived(fault: str) -> None:
    row = row_of(fault, "sqlite")
    assert row.result != BROKEN, row.note
