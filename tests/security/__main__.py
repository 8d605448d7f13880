"""`make security`: attack everything, count, and print one line of JSON last.

Three parts: the tests marked `security`, every sender's tests under strace, and the fuzzing under
strace. `FUZZ_CASES` changes the number of inputs, `--only PART` runs one part. The exit status is
1 when a figure is wrong, or missing, or a part failed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests import programs
from tests.security import figures, oracle, strace

_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
# Tests of everything that sends: through libcurl, through requests, and their callers.
_SENDERS = (
    "network/test_guard.py", "network/test_sockets.py", "network/test_senders.py",
    "network/test_proxy.py", "delivery/test_engine.py", "delivery/test_db_session.py",
    "oauth/test_client.py", "oauth/test_discovery.py", "oauth/test_troubleshoot.py",
    "oauth/test_revocation.py", "oauth/test_authorize.py",
)  # fmt: skip
_DEFAULT_CASES = 1_000_000


def attack() -> str:
    """Run the tests that count something, on both cores."""
    command = [*_PYTEST, "-m", "security", "-n", "2", "--dist", "worksteal", "tests"]
    status = subprocess.run(command, env=os.environ | _ON_SQLITE, check=False).returncode
    return "" if status == 0 else "a test marked security failed"


def trace_senders() -> str:
    files = [f"tests/{name}" for name in _SENDERS]
    return _traced("the senders' tests", [*_PYTEST, *files], oracle.denied)


def fuzz() -> str:
    """Fuzz under strace. Every connect is a fault: each should be stopped before."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", str(_cases())]
    return _traced("the fuzzing", command, list)


def _cases() -> int:
    return int(os.environ.get("FUZZ_CASES") or _DEFAULT_CASES)


def _traced(
    what: str,
    command: list[str],
    denied: Callable[[list[oracle.Connect]], list[oracle.Connect]],
) -> str:
    if problem := oracle.strace_problem():
        return problem
    traced = strace.run_traced(command, _ON_SQLITE)
    found = denied(traced.connects)
    figures.report("connects", seen=len(traced.connects), denied=len(found))
    for connect in found[:20]:
        print(f"denied: {connect}")
    print(
        f"{what}: {len(traced.connects)} connects seen by strace, {len(found)} denied", flush=True
    )
    if found:
        return f"{what} connected to {len(found)} denied addresses"
    if not traced.is_sound:
        return f"the trace of {what} does not show what it should"
    return "" if traced.status == 0 else f"{what} failed"


_ON_SQLITE = {"TEST_DATABASES": "sqlite"}
_PARTS = {"attacks": attack, "senders": trace_senders, "fuzz": fuzz}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.security", description=__doc__)
    parser.add_argument("--only", choices=_PARTS, help="run one part; its figures alone are there")
    options = parser.parse_args()
    programs.install_optional("strace")
    programs.find_required()
    problems = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures"
        path.touch()
        os.environ[figures.FILE_VARIABLE] = str(path)
        for name in [options.only] if options.only else list(_PARTS):
            began = time.monotonic()
            if problem := _PARTS[name]():
                problems.append(problem)
            print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        sums = figures.add_up(path)
    line = figures.as_line(sums)
    if not options.only:
        problems += figures.problems(line, sums, fuzz_cases=_cases())
    for problem in problems:
        print(f"WRONG: {problem}")
    print(json.dumps(line), flush=True)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
