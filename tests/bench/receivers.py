"""The receiver servers of the bench: nginx for throughput, our own for times and silence."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

from tests.services import HOST, Server, free_port

_CONFIGURATION = """
daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 64k;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen {host}:{port} backlog=4096;
    location = /status {{ stub_status; }}
    location / {{ return 204; }}
  }}
}}
"""


class TimedArrival(NamedTuple):
    # Unix seconds.
    moment: float
    event_id: str
    path: str


class Nginx(Server):
    """One nginx worker that responds with 204 to everything."""

    name = "nginx"

    def __init__(self, program: Path) -> None:
        super().__init__()
        self._program = program

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def description(self) -> str:
        said = subprocess.run([self._program, "-v"], capture_output=True, text=True, check=True)
        return f"{said.stderr.split(': ')[1].strip()}, one worker"

    def _run(self) -> None:
        text = _CONFIGURATION.format(home=self.directory, host=HOST, port=self.port)
        configuration = self.directory / "nginx.conf"
        configuration.write_text(text)
        self._spawn([str(self._program), "-p", str(self.directory), "-c", str(configuration)])

    def count(self) -> int:
        """Return how many requests came so far, without the requests of this method."""
        self._asked = getattr(self, "_asked", 0) + 1
        text = _get(f"{self.url}/status").decode()
        found = re.search(r"^ *\d+ +\d+ +(\d+)", text, re.MULTILINE)
        assert found
        return int(found[1]) - self._asked

    def _answers(self) -> bool:
        try:
            self.count()
        except OSError:
            self._asked = 0
            return False
        return True


class OwnReceiver(Server):
    """`tests.bench.receiver` in its own process."""

    name = "receiver"
    description = "tests/bench/receiver.py, one process"

    def __init__(self) -> None:
        super().__init__()
        self._silent_port = free_port()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def silent_url(self) -> str:
        return f"http://{HOST}:{self._silent_port}"

    def _run(self) -> None:
        program = Path(__file__).with_name("receiver.py")
        self._spawn([sys.executable, str(program), str(self.port), str(self._silent_port)])

    def arrivals(self) -> list[TimedArrival]:
        """Return the arrivals since the last call."""
        lines = _get(f"{self.url}/arrivals").decode().splitlines()
        parts = (line.split(" ") for line in lines)
        return [TimedArrival(float(moment), event_id, path) for moment, event_id, path in parts]

    def count(self) -> int:
        self._counted = getattr(self, "_counted", 0) + len(self.arrivals())
        return self._counted

    def _answers(self) -> bool:
        try:
            self.arrivals()
        except OSError:
            return False
        return True


def fast_receiver() -> Nginx | OwnReceiver:
    """Return nginx if it is installed or can be fetched without installing, else our own."""
    program = _installed() or _fetched(Path(tempfile.gettempdir()) / "webhooks-bench-nginx")
    return Nginx(program) if program else OwnReceiver()


def _installed() -> Path | None:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def _fetched(home: Path) -> Path | None:
    """Unpack Debian's package into our own directory, without changing the machine."""
    program = home / "usr" / "sbin" / "nginx"
    if not program.exists() and shutil.which("apt-get") and shutil.which("dpkg"):
        home.mkdir(exist_ok=True)
        try:
            _run(["apt-get", "download", "nginx"], home)
            _run(["dpkg", "-x", str(next(home.glob("nginx_*.deb"))), str(home)], home)
        except (subprocess.SubprocessError, OSError, StopIteration):
            return None
    try:
        _run([str(program), "-v"], home)
    except (subprocess.SubprocessError, OSError):
        return None
    return program


def _run(command: list[str], directory: Path) -> None:
    subprocess.run(command, cwd=directory, check=True, capture_output=True, timeout=60)


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body
