"""The product as `make run` starts it, on free ports and with temporary data."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.sandbox import Provider, Receiver
from tests.services import free_ports

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProduct:
    """A running product and its sandbox."""

    url: str
    password: str = field(repr=False)
    receiver: Receiver
    provider: Provider
    environment: dict[str, str] = field(repr=False)

    def write_history(self) -> None:
        """Give every webhook past hourly counts, so that its charts show some."""
        command = [sys.executable, "-m", "tests.screenshots.history"]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True)


@contextmanager
def running_product() -> Iterator[RunningProduct]:
    """Run the product until the context ends, also on errors."""
    port = free_ports(3)
    with tempfile.TemporaryDirectory(prefix="webhooks-screenshots-") as directory:
        environment = {
            "PATH": os.environ["PATH"],
            "ENV_FILE": os.devnull,
            "DATA_DIR": directory,
        }
        with (Path(directory) / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "run", "--port", str(port), "--sandbox"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        with process:
            try:
                yield RunningProduct(
                    url=f"http://127.0.0.1:{port}",
                    password=_announced_password(process, Path(directory) / "errors"),
                    receiver=Receiver(f"http://127.0.0.1:{port + 1}"),
                    provider=Provider(f"http://127.0.0.1:{port + 2}"),
                    environment=environment,
                )
            finally:
                process.terminate()


def _announced_password(process: "subprocess.Popen[str]", errors: Path) -> str:
    assert process.stdout is not None
    password = ""
    for line in process.stdout:
        if found := re.match(r"  Password  (\S+)$", line):
            password = found[1]
        if "arrives at" in line:
            return password
    raise RuntimeError(f"The product did not start:\n{errors.read_text()}")
