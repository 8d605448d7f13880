"""Faults inside a worker: the environment names where it dies; all other code is as shipped.

`FAULT` names one of the functions below, `FAULT_MARKER` a file that is created when the fault
strikes, so that it strikes once. `FAULT_CA` is a file with the only certificates to trust,
`FAULT_DNS_PORT` the port of the only name server, `FAULT_FILES` the limit of open files,
`FAULT_FEW_PORTS` the port of a receiver to which connections begin at two ports only.
"""

import os
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.apps import AppConfig

POISON = b"poison"


class Hooks(AppConfig):
    name = "tests.faults"
    label = "faults"

    def ready(self) -> None:
        if path := os.environ.get("FAULT_CA"):
            from webhooks.network import guard

            setattr(guard, "ca_bundle", lambda: path)  # noqa: B010 - mypy rejects an assignment.
        if port := os.environ.get("FAULT_DNS_PORT"):
            from webhooks.network import resolver

            ports = {"udp_port": int(port), "tcp_port": int(port)}
            resolver.DNS_OPTIONS |= {"servers": ["127.0.0.1"], **ports}
        if limit := os.environ.get("FAULT_FILES"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), int(limit)))
        if port := os.environ.get("FAULT_FEW_PORTS"):
            _limit_ports_to(int(port))
        if fault := os.environ.get("FAULT"):
            _FAULTS[fault]()


# Not in Python's `socket` yet; Linux has it since 6.3.
IP_LOCAL_PORT_RANGE = 51


def two_ports() -> bytes:
    """Return the value of this option for two free ports of those for outgoing connections."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    pairs = ((port, port + 1) for port in range(low + 5000, high, 2))
    first, second = next(pair for pair in pairs if all(map(_is_free, pair)))
    return struct.pack("=I", second << 16 | first)


def _is_free(port: int) -> bool:
    """Return whether no process of this machine listens or sends at a port."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _limit_ports_to(port: int) -> None:
    """Let connections to this port begin at two ports, as if all others were in use."""
    from webhooks.network import SocketOpener

    opened, few = SocketOpener.open, two_ports()

    def open_with_few(self: Any, family: int, kind: int, protocol: int, where: Any) -> Any:
        made: Any = opened(self, family, kind, protocol, where)
        if where[1] == port:
            made.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, few)
        return made

    setattr(SocketOpener, "open", open_with_few)  # noqa: B010 - mypy rejects an assignment.


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _is_first_strike() -> bool:
    """Return whether this is the first call, over all processes of the run."""
    try:
        Path(os.environ["FAULT_MARKER"]).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _before(owner: Any, name: str, strike: Callable[..., None]) -> None:
    """Call `strike` with the same arguments before each call of `owner.name`."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        strike(*args, **kwargs)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def _die_before_record() -> None:
    from webhooks.delivery import queue

    def strike(*_: object, **__: object) -> None:
        if _is_first_strike():
            _die()

    _before(queue.backend(), "record", strike)


def _die_after_claim() -> None:
    from webhooks.delivery.sender import Sender

    def strike(*_: object, **__: object) -> None:
        if _is_first_strike():
            _die()

    _before(Sender, "submit", strike)


def _die_of_poison() -> None:
    """Die a moment after each time a poisoned body is submitted."""
    from webhooks.delivery.sender import Sender

    def strike(sender: Sender, requests: Any, **_: object) -> None:
        if any(POISON in request.body for request in requests):
            threading.Timer(0.1, _die).start()

    _before(Sender, "submit", strike)


def _lose_wakeups() -> None:
    """Die between the commit of an event and its wakeup."""
    from webhooks import tasks

    tasks.notify = _die


def _slow_record() -> None:
    """Slow down each write, so that a lease can expire between response and record."""
    from webhooks.delivery import queue

    _before(queue.backend(), "record", lambda *_, **__: time.sleep(0.2))


_FAULTS: dict[str, Callable[[], None]] = {
    "die_before_record": _die_before_record,
    "die_after_claim": _die_after_claim,
    "die_of_poison": _die_of_poison,
    "lose_wakeups": _lose_wakeups,
    "slow_record": _slow_record,
}
