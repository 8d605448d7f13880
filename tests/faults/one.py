"""Run faults on one database and print a JSON line for each; started by `__main__`."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import environment
from tests.faults.report import BROKEN, SKIPPED, SURVIVED, ReportRow, number
from tests.services import PostgresServer, RedisServer, free_port

if TYPE_CHECKING:
    # Importing these makes Django read the environment, which has to be set before.
    from tests.faults.catalogue import Fault
    from tests.faults.world import World

# Large enough for a run's database, with `--quick` too, and for a log; small enough to fill.
_DATABASE_DISK, _QUICK_DATABASE_DISK, _LOG_DISK = "2g", "400m", "8m"
RECEIVER_IDS = [f"R{n}" for n in range(1, 41)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["postgres", "sqlite"], required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="leave out what takes long")
    options = parser.parse_args()
    # Exit normally on SIGTERM, so that everything this run started is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    # The parent may ignore SIGHUP, as nohup does, and processes started here would inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with ExitStack() as stack:
        world = _world(stack, options.database, is_quick=options.quick)
        for row in _rows(world, options):
            print(json.dumps(asdict(row)), flush=True)
        world.clear()
        if left := world.leftovers():
            print(f"Processes were left behind: {left}", file=sys.stderr)
            return 1
    return 0


@contextmanager
def _small_disk(place: Path, size: str) -> Iterator[Path | None]:
    """Mount a file system that can be filled; yield None if that is not allowed."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "faults", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def _world(stack: ExitStack, database: str, *, is_quick: bool) -> "World":
    """Start the servers, set the environment, and only then let Django read it."""
    directory = Path(tempfile.mkdtemp(prefix="webhooks-faults-"))
    directory.chmod(0o755)
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    size = _QUICK_DATABASE_DISK if is_quick else _DATABASE_DISK
    disk = stack.enter_context(_small_disk(directory / "disk", size))
    log_disk = stack.enter_context(_small_disk(directory / "logs", _LOG_DISK))
    postgres: PostgresServer | None = None
    url = f"sqlite:///{(disk or directory) / 'webhooks.sqlite3'}"
    if database == "postgres":
        postgres = _postgres_on(disk)
        stack.callback(postgres.close)
        postgres.start()
        url = postgres.url
    redis = RedisServer()
    stack.callback(redis.close)
    redis.start()
    environment.prepare(directory, database_url=url, redis_url=redis.url, port=free_port())
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from tests.faults.receiver import CountingReceiver, Loop
    from tests.faults.world import World

    loop = Loop()
    stack.callback(loop.close)
    world = World(
        database=database,
        directory=directory,
        loop=loop,
        receiver=CountingReceiver(loop),
        redis_server=redis,
        postgres=postgres,
        database_disk=disk,
        log_disk=log_disk,
        is_quick=is_quick,
    )
    stack.callback(world.clear)
    return world


def _postgres_on(disk: Path | None) -> PostgresServer:
    # The server creates its directory where temporary files are.
    tempfile.tempdir = str(disk) if disk else None
    try:
        return PostgresServer()
    finally:
        tempfile.tempdir = None


def _rows(world: "World", options: argparse.Namespace) -> Iterator[ReportRow]:
    from tests.faults import receivers
    from tests.faults.catalogue import faults

    wanted = set(options.only) or {fault.id for fault in faults()} | {"R"}
    chosen = [
        fault
        for fault in faults()
        if world.database in fault.databases
        and fault.id in wanted
        and not (fault.is_slow and options.quick)
    ]
    for round in range(1, options.rounds + 1):
        # Alternate between pool processes and pool threads.
        world.pool = "prefork" if round % 2 else "threads"
        for fault in chosen:
            yield _one(world, fault, round)
        if any(id.startswith("R") for id in wanted):
            yield from _receivers(world, receivers.run, round)


def _one(world: "World", fault: "Fault", round: int) -> ReportRow:
    from tests.faults.world import SkippedFaultError

    began = time.monotonic()
    result, note = SURVIVED, ""
    lost = duplicates = 0
    try:
        world.clear()
        fault.run(world)
    except SkippedFaultError as reason:
        result, note = SKIPPED, str(reason)
    except Exception as error:
        result, note = BROKEN, _describe_error(world, error)
    try:
        lost, duplicates = world.lost(), world.duplicates()
    except Exception as error:
        result, note = BROKEN, f"{note}; not counted: {error}"
    if result == SURVIVED and (lost or duplicates > world.allowed):
        result, note = BROKEN, world.described()
    return ReportRow(
        id=fault.id,
        title=fault.title,
        database=world.database,
        round=round,
        result=result,
        seconds=time.monotonic() - began,
        lost=lost,
        duplicates=duplicates,
        allowed=world.allowed,
        note="; ".join(filter(None, [note, *world.notes])),
    )


def _receivers(
    world: "World", run: Callable[["World"], dict[str, list[str]]], round: int
) -> Iterator[ReportRow]:
    began = time.monotonic()
    found: dict[str, list[str]]
    try:
        world.clear()
        found = run(world)
    except Exception as error:
        found = {id: [_describe_error(world, error)] for id in RECEIVER_IDS}
    for id in sorted(found, key=number):
        notes = found[id] or (world.notes if id == "R1" else [])
        yield ReportRow(
            id=id,
            title="misbehaving receiver",
            database=world.database,
            round=round,
            result=BROKEN if found[id] else SURVIVED,
            seconds=time.monotonic() - began,
            note="; ".join(notes),
        )


def _describe_error(world: "World", error: Exception) -> str:
    """Print the error and the logs to standard error, and return one line."""
    traceback.print_exception(error)
    for process in world.processes:
        print(f"--- {process.log_path.name}\n{process.log[-6000:]}", file=sys.stderr)
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
