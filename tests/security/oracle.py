"""What the tests trust instead of the guard: Python's own tables, and calls seen by the kernel.

Shares no code with `webhooks.network.addresses`.
"""

import ipaddress
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.programs import need

# Addresses that Python calls global although nothing should be sent there.
_MISSED = [
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "192.31.196.0/24", "192.52.193.0/24",
        "192.175.48.0/24", "2001::/23", "2002::/16", "3fff::/20",
    )
]  # fmt: skip
_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
# The network of the tests' own servers.
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
# Loopback target of the tests' attacks; no server that may be reached listens there.
TRAP_ADDRESS = "127.0.0.6"
_TRAP_PORTS = frozenset({80, 443, 5432, 6379, 8443, 11211})
_CONNECT = re.compile(
    r"connect\(\d+<(?P<kind>TCP|UDP|socket)[^\n]*?, \{sa_family=AF_INET6?, "
    r"sin6?_port=htons\((?P<port>\d+)\)"
    r"[^\n]*?(?:inet_addr\(|inet_pton\(AF_INET6, )\"(?P<address>[0-9a-fA-F.:]+)\""
)


class Connect(NamedTuple):
    kind: str
    address: str
    port: int


def is_public(address: str) -> bool:
    """Return whether an address is public, by Python's own tables and their known gaps."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6 and ip not in _GLOBAL_IPV6:
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _MISSED)


def is_denied(
    address: str, *, allowed: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network] = LOOPBACK
) -> bool:
    """Return whether connecting to an address is forbidden, unless a network allows it."""
    if "%" in address:
        return True
    ip = ipaddress.ip_address(address)
    if (four := getattr(ip, "ipv4_mapped", None)) is not None:
        ip = four
    return not is_public(str(ip)) and not any(ip in network for network in allowed)


def need_strace() -> None:
    """Skip the running test where strace is not installed or may not trace."""
    need("strace")
    if problem := strace_problem():
        pytest.skip(problem)


def strace_problem() -> str:
    """Return "" if strace can be used here, else a sentence with the reason."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(
        [*strace(Path(os.devnull)), sys.executable, "-c", ""],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr[:200]}"


def strace(trace: Path) -> Sequence[str]:
    """Return the command that records every connect of a program and its children."""
    quiet = ["-qq", "-e", "signal=none"]
    return ["strace", "-f", "-yy", "--seccomp-bpf", *quiet, "-e", "trace=connect", "-o", str(trace)]


def connects(trace: str) -> list[Connect]:
    """Return the connects of a trace, except those of Unix sockets."""
    return [
        Connect(found["kind"], found["address"], int(found["port"]))
        for found in _CONNECT.finditer(trace)
    ]


def denied(found: Iterable[Connect]) -> list[Connect]:
    """Return the forbidden connects: to neither public addresses nor the tests' own servers."""
    return [
        connect
        for connect in tcp(found)
        if is_denied(connect.address)
        or connect.address == TRAP_ADDRESS
        or (not is_public(connect.address) and connect.port in _TRAP_PORTS)
    ]


def tcp(found: Iterable[Connect]) -> list[Connect]:
    """Leave out UDP, which the C library uses to query name servers and to sort addresses."""
    return [connect for connect in found if connect.kind != "UDP"]
