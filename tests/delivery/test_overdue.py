"""A stop that takes too long is ended, with the pool processes."""

import subprocess
import sys
import threading

import psutil
import pytest

from tests.faults.environment import ROOT
from webhooks.delivery import overdue

# Neither the main process nor its child processes would end.
_HANGING = """
import billiard, multiprocessing, signal, sys, time
from webhooks.delivery import overdue

def hang():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

children = [billiard.Process(target=hang)]
children.append(multiprocessing.get_context("fork").Process(target=hang))
for child in children:
    child.start()
    print(child.pid, flush=True)
overdue.end_after(0.5)
{blocked}
hang()
"""
# Somebody else, such as a thread that writes to a full pipe, holds the log.
_BLOCKED_LOG = """
import logging, threading
holder = threading.Thread(target=lambda: (logging.lastResort.acquire(), time.sleep(600)))
holder.daemon = True
holder.start()
"""


@pytest.mark.once
@pytest.mark.parametrize("blocked", ["", _BLOCKED_LOG], ids=["free log", "blocked log"])
def test_a_stop_that_hangs_is_ended_with_its_processes(blocked: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HANGING.format(blocked=blocked)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert ("stop_overdue" in done.stderr) == (not blocked)
    children = [int(line) for line in done.stdout.split()]
    assert len(children) == 2
    assert not any(map(_is_running, children))


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_stop_that_is_over_ends_nothing() -> None:
    overdue.end_after(0.2).set()
    for one in threading.enumerate():
        if one.name == "overdue":
            one.join(10)
            assert not one.is_alive()
