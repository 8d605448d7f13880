"""Authorization servers share the threads that wait for them."""

import os
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.commands import ROOT
from tests.delivery.test_due import candidate
from tests.polling import eventually
from webhooks import network
from webhooks.delivery.queue.rows import Candidate
from webhooks.delivery.token_pool import TokenPool


def test_servers_that_hang_leave_threads_to_those_that_gave_a_token() -> None:
    released, done = threading.Event(), threading.Event()
    at_once: Counter[int] = Counter()

    def work(one: Candidate) -> bool:
        if one.webhook_id == 0:
            done.set()
            return True
        at_once[one.webhook_id] += 1
        released.wait(30)
        return False

    pool = TokenPool(work)
    for number in range(1, 41):
        # Two requests each; half of the servers count as good at first, as their token rows say.
        for _ in range(2):
            pool.submit(f"hangs-{number}", candidate(number), is_good=number % 2 == 0 or None)
    pool.submit("answers", candidate(0), is_good=True)
    try:
        assert done.wait(10)
        unknown = [count for number, count in at_once.items() if number % 2]
        assert max(unknown, default=1) == 1, "a server without a token has one request at a time"
    finally:
        released.set()
        pool.close()


def test_no_more_servers_are_asked_while_two_are_not_asked_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until it waits for the network, a request takes interpreter time from tokens and engine."""
    monkeypatch.setattr("webhooks.delivery.token_pool.STARTING_SECONDS", 60.0)
    released, goes_on, all_began = threading.Event(), threading.Event(), threading.Event()
    began: list[int] = []

    def work(one: Candidate) -> bool:
        began.append(one.webhook_id)
        if len(began) == 6:
            all_began.set()
        goes_on.wait(30)
        # The session does this before it waits for the server.
        network.before_waiting.get()()
        released.wait(30)
        return False

    pool = TokenPool(work)
    try:
        for number in range(6):
            pool.submit(f"hangs-{number}", candidate(number))
        # Otherwise the others would begin after a tenth of a second.
        assert not all_began.wait(0.5)
        assert len(began) == 2
        goes_on.set()
        assert all_began.wait(30)
    finally:
        goes_on.set()
        released.set()
        pool.close()


def test_what_waits_long_before_it_asks_keeps_others_for_a_second_alone() -> None:
    """For example to wait for another process that requests the same token."""
    released, all_began = threading.Event(), threading.Event()
    began: list[int] = []

    def work(one: Candidate) -> bool:
        began.append(one.webhook_id)
        if len(began) == 4:
            all_began.set()
        released.wait(30)
        return False

    pool = TokenPool(work)
    try:
        for number in range(4):
            pool.submit(f"waits-{number}", candidate(number))
        assert all_began.wait(30)
    finally:
        released.set()
        pool.close()


_ENDS_WHILE_ONE_WAITS = """
import time, django
django.setup()
from tests.delivery.test_due import candidate
from webhooks.delivery.token_pool import TokenPool
pool = TokenPool(lambda _: bool(time.sleep(0.5)))
pool.submit("slow", candidate(1))
pool.submit("slow", candidate(2))
time.sleep(0.2)
"""


def test_a_process_that_ends_while_a_token_waits_says_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _ENDS_WHILE_ONE_WAITS],
        cwd=ROOT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_machine_without_a_thread_left_keeps_no_token_waiting_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, has_none = threading.Thread.start, threading.Event()

    def start_unless_full(self: threading.Thread) -> None:
        if self.name == "token" and not has_none.is_set():
            has_none.set()
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_unless_full)
    fetched: list[int] = []
    pool = TokenPool(lambda one: bool(fetched.append(one.webhook_id)))
    try:
        pool.submit("first", candidate(1), is_good=True)
        assert has_none.wait(10)
        pool.submit("second", candidate(2), is_good=True)
        eventually(lambda: sorted(fetched) == [1, 2])
    finally:
        pool.close()
