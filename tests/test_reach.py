"""The tests that `make quick` leaves out are found from the tests' own code."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests import chromium, reach
from tests.reach import starts_a_process
from tests.sandbox import Provider, Receiver
from tests.services import RedisServer, free_port


def start() -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


class Starter:
    @property
    def starts(self) -> None:
        return start()


@pytest.fixture
def started() -> None:
    Starter().starts  # noqa: B018 - the property starts a process.


@pytest.fixture
def is_marked(request: pytest.FixtureRequest) -> bool:
    is_marked = request.node.get_closest_marker("process") is not None
    assert is_marked == starts_a_process(request.node)
    return is_marked


def test_a_test_that_starts_nothing_is_quick(is_marked: bool) -> None:
    assert free_port()
    assert not is_marked


def test_a_command_far_down_is_seen(is_marked: bool) -> None:
    assert is_marked
    inner: Callable[[], None] = lambda: Starter().starts  # noqa: E731
    inner()


def test_a_fixture_s_command_is_seen(started: None, is_marked: bool) -> None:
    assert is_marked


def test_a_server_of_the_sandbox_is_seen(
    provider: Provider, receiver: Receiver, is_marked: bool
) -> None:
    assert is_marked


def test_a_server_of_this_test_alone_is_seen(is_marked: bool) -> None:
    assert is_marked
    assert RedisServer.name == "Redis"


def test_a_browser_is_seen(is_marked: bool) -> None:
    assert is_marked
    assert chromium.find


def test_a_process_that_no_code_shows_fails_its_test(request: pytest.FixtureRequest) -> None:
    hidden = __import__("subprocess")
    hidden.run([sys.executable, "-c", ""], check=True)
    assert request.node.get_closest_marker("process") is None
    assert reach.take_started()
