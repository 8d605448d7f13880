"""Processes of the product in their own process groups, started, frozen and ended by id."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import psutil

from tests.faults.environment import ROOT


class Process:
    """One process and its children, in their own session; `log` is their output."""

    def __init__(
        self, arguments: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log_path = log
        with log.open("ab") as file:
            self._popen = self._start(arguments, file, environment or {})

    @staticmethod
    def _start(
        arguments: list[str], file: BinaryIO, environment: Mapping[str, str]
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def children(self) -> list[int]:
        """Return the ids of pool processes."""
        return [child.pid for child in psutil.Process(self.pid).children(recursive=True)]

    @property
    def rss_bytes(self) -> int:
        return sum(psutil.Process(pid).memory_info().rss for pid in (self.pid, *self.children))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group."""
        if self.is_running:
            os.killpg(self.pid, number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self._popen.wait(30)

    def terminate(self, seconds: float = 40.0) -> float:
        """Send SIGTERM to the main process only; return how many seconds it took to end."""
        began = time.monotonic()
        if self.is_running:
            self._popen.terminate()
        self._popen.wait(seconds)
        return time.monotonic() - began

    def close(self) -> None:
        """Kill all remaining processes of the group."""
        try:
            os.killpg(self.pid, signal.SIGCONT)
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._popen.wait(30)
