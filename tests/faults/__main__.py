"""`make faults`: break everything on both databases, count, and print a table and one JSON line.

python -m tests.faults                        all faults, three rounds
python -m tests.faults --only F2 F14 R        two process faults and the receivers
python -m tests.faults --database sqlite --rounds 1
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.faults.environment import ROOT
from tests.faults.report import BROKEN, ReportRow, is_broken, number, summary, table
from tests.services import ServiceUnavailableError, postgres_binaries, redis_binary

DATABASES = ("postgres", "sqlite")


def main() -> int:
    options = _options()
    # Exit normally on SIGTERM, so that the run's workers and servers are stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        postgres_binaries()
        redis_binary()
    except ServiceUnavailableError as error:
        print(error, file=sys.stderr)
        return 2
    rows: list[ReportRow] = []
    was_clean = True
    for database in options.database or DATABASES:
        command = ["--database", database, "--rounds", str(options.rounds)]
        command += ["--only", *options.only] if options.only else []
        was_clean &= _run(command, rows)
    print()
    print(table(rows))
    print()
    print(summary(rows))
    return 1 if is_broken(rows) or not was_clean else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="F2, R or more of them")
    parser.add_argument("--database", action="append", choices=DATABASES)
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS", "3")))
    return parser.parse_args()


def _run(command: list[str], rows: list[ReportRow]) -> bool:
    """Run one database's faults, show each row as it comes; return whether the run succeeded."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults.one", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        try:
            for row in _read(child.stdout):
                rows.append(row)
                if row.id[0] == "F" or row.result == BROKEN or number(row.id) == ("R", 1):
                    _show(row)
        except BaseException:
            child.terminate()
            raise
    if child.returncode:
        print(f"The faults on {command[1]} ended with {child.returncode}.", file=sys.stderr)
    return child.returncode == 0


def _show(row: ReportRow) -> None:
    print(
        f"{row.id:4} {row.database:8} round {row.round}  {row.result:8} "
        f"{row.seconds:5.1f} s  {row.title}  {row.note}".rstrip(),
        flush=True,
    )


def _read(lines: Iterator[str]) -> Iterator[ReportRow]:
    for line in lines:
        if line.startswith("{"):
            yield ReportRow(**json.loads(line))


if __name__ == "__main__":
    sys.exit(main())
