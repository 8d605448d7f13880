"""Facts about the machine, and the CPU, memory and cores of processes.

Everything is read from /proc, so that the measured processes run no extra code.
"""

import os
import platform
import resource
import subprocess
from collections.abc import Iterable
from pathlib import Path

import celery
import django
import psycopg
import pycurl

from tests.services import redis_binary

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_CORES = tuple(sorted(os.sched_getaffinity(0)))
# The measured process has one core to itself; the servers have the others.
CLIENT_CORES = _CORES[:1]
SERVER_CORES = _CORES[1:] or _CORES


def tree(pid: int) -> list[int]:
    """Return a process and all its living descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time of these process trees, including ended children."""
    ticks = 0
    for root in pids:
        for pid in tree(root):
            try:
                stat = Path(f"/proc/{pid}/stat").read_text()
            except OSError:
                continue
            # After the name, which may hold spaces: utime, stime, cutime, cstime.
            ticks += sum(int(field) for field in stat.rpartition(")")[2].split()[11:15])
    return ticks / _TICKS_PER_SECOND


def stolen_seconds() -> float:
    """Return the CPU time that other machines of this host took from this one, since its start."""
    # "cpu", then user, nice, system, idle, iowait, irq, softirq, steal, in ticks of all cores.
    fields = Path("/proc/stat").read_text().split(maxsplit=9)
    return int(fields[8]) / _TICKS_PER_SECOND / (os.cpu_count() or 1)


def pin(pids: Iterable[int], cores: Iterable[int] = _CORES) -> None:
    """Restrict every thread of these process trees to these cores; new children inherit this."""
    wanted = set(cores)
    for root in pids:
        for pid in tree(root):
            for task in Path(f"/proc/{pid}/task").glob("*"):
                try:
                    os.sched_setaffinity(int(task.name), wanted)
                except ProcessLookupError:
                    continue


def memory_mib(pid: int) -> float:
    """Return the resident memory of one process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def pss_mib(pid: int) -> float:
    """Return the memory of a process tree, with shared pages divided between their processes."""
    kilobytes = 0
    for one in tree(pid):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        kilobytes += int(text.partition("\nPss:")[2].split()[0])
    return kilobytes / 1024


def allow_many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def describe(postgres: str, receiver: str) -> list[tuple[str, str]]:
    """Return the facts needed to compare the figures with those of another machine."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = Path("/proc/meminfo").read_text().split()[1]
    redis = subprocess.run([redis_binary(), "--version"], capture_output=True, text=True)
    return [
        ("CPU", f"{model}, {len(_CORES)} cores, {int(memory) / 1048576:.0f} GiB"),
        ("System", f"{platform.system()} {platform.release()}, Python {platform.python_version()}"),
        (
            "Libraries",
            f"Django {django.__version__}, Celery {celery.__version__}, "
            f"psycopg {psycopg.__version__}, {pycurl.version.split()[0]}, "
            f"{pycurl.version.split()[1]}",
        ),
        ("PostgreSQL", postgres),
        ("Redis", " ".join(redis.stdout.split()[2:3]).removeprefix("v=")),
        ("Receiver", receiver),
        ("Load", f"{os.getloadavg()[0]:.2f} before the run"),
    ]
