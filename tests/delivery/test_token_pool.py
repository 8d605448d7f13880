"""Authorization servers share the threads that wait for them."""

import threading
from collections import Counter

from webhooks.delivery.queue.rows import Candidate
from webhooks.delivery.token_pool import TokenPool


def candidate(webhook_id: int) -> Candidate:
    return Candidate(webhook_id, 1, 0, 0, True, False, False, False)


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
        # Twice each; a good one at first, as its token's row says.
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
