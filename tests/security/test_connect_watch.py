"""The oracle itself: it sees what it should, and does not rely on the guard."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security import connect_watch, oracle, strace


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "fd00::1", "::ffff:10.0.0.1"])
def test_a_connect_to_a_denied_address_is_stopped_and_remembered(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.socket(family) as tried,
        pytest.raises(ConnectionRefusedError, match="is denied"),
    ):
        tried.connect((address, 8080))
    assert connect_watch.take_denied() == [f"{address} port 8080"]


def test_a_name_given_to_a_socket_is_denied_silently() -> None:
    with socket.socket() as tried, pytest.raises(ConnectionRefusedError, match="is denied"):
        sys.audit("socket.connect", tried, ("receiver.example.com", 443))
    assert len(connect_watch.take_denied()) == 1


def test_the_tests_own_network_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as tried:
        tried.connect(listener.getsockname())
    assert connect_watch.take_denied() == []


@pytest.mark.parametrize(
    ("address", "is_denied"),
    [
        ("93.184.215.14", False),
        ("2606:2800:21f::1", False),
        ("127.0.0.1", True),
        ("::ffff:127.0.0.1", True),
        ("64:ff9b::a00:1", True),
        ("2002:a00:1::", True),
        ("100.64.0.1", True),
        ("168.63.129.16", True),
        ("fe80::1%2", True),
    ],
)
def test_the_oracle_judges_by_tables_of_its_own(address: str, is_denied: bool) -> None:
    assert oracle.is_denied(address, allowed=()) is is_denied


_PROGRAM = """
import socket
for family, kind, where in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 1)),
    (socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.2", 2)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)),
):
    with socket.socket(family, kind) as one:
        one.connect_ex(where)
"""


def test_strace_shows_every_connect_of_a_program_and_its_children(tmp_path: Path) -> None:
    oracle.need_strace()
    trace = tmp_path / "trace"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_PROGRAM!r}])"
    subprocess.run([*oracle.strace(trace), sys.executable, "-c", child], check=True)
    seen = oracle.connects(trace.read_text())
    assert seen == [
        ("TCP", "127.0.0.1", 1),
        ("TCP", "::ffff:127.0.0.2", 2),
        ("UDP", "127.0.0.1", 53),
    ]
    assert oracle.tcp(seen) == seen[:2]


@pytest.mark.parametrize(
    ("connect", "is_denied"),
    [
        (("TCP", "10.0.0.1", 8080), True),
        (("TCP", "::ffff:10.0.0.1", 8080), True),
        (("TCP", "127.0.0.1", 6379), True),
        (("TCP", "::1", 8443), True),
        (("TCP", oracle.TRAP_ADDRESS, 40_000), True),
        (("TCP", "127.0.0.1", 40_000), False),
        (("TCP", "93.184.215.14", 443), False),
        (("UDP", "10.0.0.1", 53), False),
    ],
)
def test_of_a_trace_only_the_tests_own_servers_may_be_inside(
    connect: tuple[str, str, int], is_denied: bool
) -> None:
    found = [oracle.Connect(*connect)]
    assert oracle.denied(found) == (found if is_denied else [])


def test_a_traced_program_shows_its_connects_and_its_status() -> None:
    oracle.need_strace()
    program = f"{_PROGRAM}\nraise SystemExit(3)"
    traced = strace.run_traced([sys.executable, "-c", program], {})
    assert traced == (
        3,
        [("TCP", "127.0.0.1", 1), ("TCP", "::ffff:127.0.0.2", 2)],
        True,
    )
