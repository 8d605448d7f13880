"""Fuzz for a long time: `python -m tests.fuzz --cases 1000000`, in several processes.

The last line is JSON: {"cases": n, "crashes": n}. The exit status is 1 when anything crashed.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.environment import set_up
from tests.security import figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--only", default="", help="the name of one target")
    parser.add_argument("--share", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.share:
        return fuzz(options)
    print(f"seed {options.seed}", flush=True)
    return spread(options)


def spread(options: argparse.Namespace) -> int:
    """Run the given number of processes, each with its own seeds."""
    running = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.processes):
            path = Path(folder) / str(number)
            command = [
                *(sys.executable, "-m", "tests.fuzz", "--share", str(path)),
                *("--cases", str(-(-options.cases // options.processes))),
                *("--seed", str(options.seed + number * 1_000_000), "--only", options.only),
            ]
            running.append((subprocess.Popen(command), path))
        is_bad, cases, crashes = False, 0, 0
        for process, path in running:
            is_bad |= process.wait() != 0
            if path.exists():
                counted = json.loads(path.read_text())
                cases, crashes = cases + counted["cases"], crashes + counted["crashes"]
    # A process that ended with an error counts as a crash.
    crashes = crashes or int(is_bad)
    figures.report("fuzz", cases=cases, crashes=crashes)
    print(json.dumps({"cases": cases, "crashes": crashes}), flush=True)
    return int(crashes > 0 or cases < options.cases)


def fuzz(options: argparse.Namespace) -> int:
    set_up()
    from tests.fuzz.runner import run
    from tests.fuzz.targets import TARGETS
    from tests.security import connect_watch

    connect_watch.begin()
    chosen = [target for target in TARGETS if options.only in ("", target.name)]
    shares = sum(target.share for target in chosen)
    cases, crashes = 0, []
    for target in chosen:
        started = time.monotonic()
        wanted = -(-options.cases * target.share // shares)
        count = run(target, wanted, first_seed=options.seed)
        seconds = time.monotonic() - started
        print(
            f"{target.name}: {count.cases} cases, {count.accepted} taken, {seconds:.0f} s",
            flush=True,
        )
        cases += count.cases
        crashes += count.crashes
    crashes += connect_watch.take_denied()
    for crash in crashes:
        print(crash, flush=True)
    Path(options.share).write_text(json.dumps({"cases": cases, "crashes": len(crashes)}))
    return int(bool(crashes))


if __name__ == "__main__":
    sys.exit(main())
