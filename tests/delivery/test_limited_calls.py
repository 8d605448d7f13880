"""Calls that are waited for, whatever they wait for."""

import os
import threading
import time

import pytest

from webhooks.delivery.limited_calls import LimitedCalls


def test_the_result_or_the_error_of_a_call_arrives() -> None:
    calls = LimitedCalls(5.0)
    assert calls.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        calls.run(lambda: 1 // 0)


def test_calls_one_after_the_other_share_a_thread() -> None:
    calls = LimitedCalls(5.0)
    assert len({calls.run(threading.get_ident) for _ in range(50)}) <= 2


def test_calls_that_hang_take_eight_threads_and_then_no_more() -> None:
    calls, ended = LimitedCalls(0.05), threading.Event()
    before = threading.active_count()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            calls.run(ended.wait)
    assert threading.active_count() - before <= 8
    ended.set()
    time.sleep(0.2)
    assert LimitedCalls(5.0).run(lambda: 7) == calls.run(lambda: 7) == 7


def test_calls_work_in_a_forked_process() -> None:
    calls = LimitedCalls(5.0)
    calls.run(lambda: None)
    process_id = os.fork()
    if not process_id:
        # No test may continue here, whatever happens.
        try:
            os._exit(calls.run(lambda: 7))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process_id, 0)[1]) == 7
