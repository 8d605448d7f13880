"""Runs a program under strace; returns what it and its children asked the kernel to connect to."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.security import oracle

# Connects once to the control, then becomes the program.
_WITH_CONTROL = """
import os, socket, sys
socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Traced(NamedTuple):
    status: int
    # TCP only, without the connect to the control.
    connects: list[oracle.Connect]
    # False if the trace does not even show the control, so it proves nothing.
    is_sound: bool


def run_traced(command: Sequence[str], environment: Mapping[str, str]) -> Traced:
    """Run to the end. Errors: none; a program that fails has a status."""
    with tempfile.TemporaryDirectory() as folder, _control() as port:
        trace = Path(folder) / "trace"
        control = [sys.executable, "-c", _WITH_CONTROL, str(port)]
        status = subprocess.run(
            [*oracle.strace(trace), *control, *command], env=os.environ | environment, check=False
        ).returncode
        seen = oracle.tcp(oracle.connects(trace.read_text()))
    others = [connect for connect in seen if connect[1:] != ("127.0.0.1", port)]
    return Traced(status, others, len(others) == len(seen) - 1)


@contextlib.contextmanager
def _control() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
