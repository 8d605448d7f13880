"""From the POST to the stored result, with the processes that compose.yaml starts.

CPU and memory include the product's processes and PostgreSQL, not Redis, the receiver or the
client. The client is one thread of this process that keeps `_CLIENTS` connections busy.
"""

import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.bench import machine
from tests.bench.scale import Scale
from tests.bench.stage import PAYLOAD, ROOT, Stage, make_webhooks
from tests.services import free_port

_CLIENTS = 8
_BATCH = 500
_FAN_OUT = 100
_TYPE = "deal.created"
_WIDE_TYPE = "dialog.closed"
_START_SECONDS = 60.0
_PATIENCE_SECONDS = 120.0


@dataclass(slots=True)
class FrontDoor:
    """Events (or deliveries) per CPU second, milliseconds of single POSTs, and MiB."""

    single: list[float] = field(default_factory=list)
    single_rate: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    idle_ms: list[float] = field(default_factory=list)
    end_to_end: list[float] = field(default_factory=list)
    pss_mib: float = 0.0
    # Microseconds of CPU per event (or delivery) in the last round, by process.
    single_us: dict[str, float] = field(default_factory=dict)
    batch_us: dict[str, float] = field(default_factory=dict)
    end_to_end_us: dict[str, float] = field(default_factory=dict)

    def idle_percentile(self, percent: int) -> float:
        return statistics.quantiles(self.idle_ms, n=100, method="inclusive")[percent - 1]


def measure(stage: Stage, scale: Scale) -> FrontDoor:
    from webhooks.models import ApiKey

    hooks = make_webhooks(1, stage.receiver.url, event_types=[_TYPE])
    hooks += make_webhooks(_FAN_OUT, stage.receiver.url, event_types=[_WIDE_TYPE])
    key = ApiKey.objects.issue("bench")[1]
    found = FrontDoor()
    with running(stage) as compose:
        client = KeptConnection(compose.port, key)
        stage.empty()
        client.send(50, _TYPE)
        for _ in range(scale.rounds):
            stage.wait(hooks, _PATIENCE_SECONDS)
            stage.empty()
            found.idle_ms += client.lone(scale.idle_publishes, _TYPE)
            stage.wait(hooks, _PATIENCE_SECONDS)
            began = time.monotonic()
            count, spent = _spent(stage, compose, hooks, lambda: client.send(scale.posts, _TYPE))
            found.single.append(count / sum(spent.values()))
            found.single_us = _each(spent, count)
            found.single_rate.append(count / (client.ended_at - began))
            stage.empty()
            batches = partial(client.send, scale.publish_events // _BATCH, _TYPE, batch=_BATCH)
            count, spent = _spent(stage, compose, hooks, batches)
            found.batch.append(count / sum(spent.values()))
            found.batch_us = _each(spent, count)
            stage.empty()
            count, spent = _spent(
                stage, compose, hooks, lambda: client.send(scale.posts // 10, _WIDE_TYPE)
            )
            found.end_to_end.append(count * _FAN_OUT / sum(spent.values()))
            found.end_to_end_us = _each(spent, count * _FAN_OUT)
            found.pss_mib = max(found.pss_mib, compose.pss_mib())
    return found


def _each(spent: dict[str, float], count: int) -> dict[str, float]:
    return {name: used / count * 1e6 for name, used in spent.items()}


def _spent(
    stage: Stage, compose: "Compose", hooks: Sequence[int], send: Any
) -> tuple[int, dict[str, float]]:
    """Return the number of accepted events, and the CPU seconds each process spent on them."""
    before = compose.cpu_seconds() | {"postgres": machine.cpu_seconds([stage.postgres.pid])}
    count = send()
    stage.wait(hooks, _PATIENCE_SECONDS)
    after = compose.cpu_seconds() | {"postgres": machine.cpu_seconds([stage.postgres.pid])}
    return count, {name: after[name] - before[name] for name in after}


class Compose:
    """The project's services in compose.yaml, run with the commands written there."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
        for name, service in services.items():
            if "build" in service and name != "migrate":
                for number in range(service.get("deploy", {}).get("replicas", 1)):
                    self._start(f"{name}{number or ''}", service)

    def _start(self, name: str, service: dict[str, Any]) -> None:
        program, *rest = service["command"]
        words = [word.replace("0.0.0.0:8000", f"127.0.0.1:{self.port}") for word in rest]
        words = [word.replace("@%h", f"-{name}@%h") for word in words]
        found = Path(sys.executable).parent / program
        command = [str(found) if program != "python" else sys.executable, *words]
        # Only fixed values; the others are chosen by the operator.
        fixed = {
            key: value
            for key, value in service.get("environment", {}).items()
            if "$" not in str(value)
        }
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | fixed, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as one:
                    one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                    if b" 200 " in one.recv(100):
                        # Drains start within one polling interval of webhooks.delivery.drains.
                        time.sleep(3)
                        return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError("The web server did not start.")

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._processes.values()]

    def cpu_seconds(self) -> dict[str, float]:
        return {name: machine.cpu_seconds([one.pid]) for name, one in self._processes.items()}

    def pss_mib(self) -> float:
        return sum(machine.pss_mib(one.pid) for one in self._processes.values())

    def stop(self) -> None:
        for one in self._processes.values():
            one.terminate()
        for one in self._processes.values():
            try:
                one.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(one.pid, signal.SIGKILL)
                one.wait()


@contextmanager
def running(stage: Stage) -> Iterator[Compose]:
    compose = Compose(stage.directory)
    try:
        compose.wait_until_ready()
        yield compose
    finally:
        compose.stop()


class KeptConnection:
    """Posts events over open connections; each sends its next request after the response."""

    def __init__(self, port: int, key: str) -> None:
        self._address = ("127.0.0.1", port)
        self._key = key
        self.ended_at = 0.0

    def send(self, requests: int, type: str, *, batch: int = 0) -> int:
        """Send this many requests; return the number of accepted events."""
        request = self._request(type, batch)
        left = requests - _CLIENTS
        with selectors.DefaultSelector() as selector:
            for _ in range(min(_CLIENTS, requests)):
                connection = _Connection(self._address)
                selector.register(connection.socket, selectors.EVENT_READ, connection)
                connection.ask(request)
            while selector.get_map():
                for event, _ in selector.select():
                    if not event.data.is_answered():
                        continue
                    if left > 0:
                        left -= 1
                        event.data.ask(request)
                    else:
                        selector.unregister(event.data.socket)
                        event.data.socket.close()
        self.ended_at = time.monotonic()
        return requests * (batch or 1)

    def lone(self, requests: int, type: str) -> list[float]:
        """Send requests one after the other with pauses; return the milliseconds of each."""
        request = self._request(type, 0)
        connection = _Connection(self._address)
        times = []
        for _ in range(requests):
            time.sleep(0.05)
            began = time.perf_counter()
            connection.ask(request)
            while not connection.is_answered():
                pass
            times.append((time.perf_counter() - began) * 1000)
        connection.socket.close()
        return times

    def _request(self, type: str, batch: int) -> bytes:
        event = {"type": type, "payload": PAYLOAD}
        body = json.dumps([event] * batch if batch else event).encode()
        return (
            f"POST /api/v1/events{'/batch' if batch else ''} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self._key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body


class _Connection:
    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, 30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""

    def ask(self, request: bytes) -> None:
        self._answer = b""
        self.socket.sendall(request)

    def is_answered(self) -> bool:
        """Read from the socket; return whether the response is complete."""
        chunk = self.socket.recv(262_144)
        self._answer += chunk
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not chunk:
            raise RuntimeError(f"The server hung up after {self._answer[:500]!r}")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 202"):
            raise RuntimeError(f"The answer was {self._answer[:500]!r}")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return len(body) >= int(length)
