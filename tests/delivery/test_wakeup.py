"""The bell: heard when it can be, harmless when it cannot."""

import threading
import time
from collections.abc import Callable

from tests.services import RedisServer, free_port
from webhooks.delivery.wakeup import Bell, ProcessBell, RedisBell


def heard_by(bell: Bell, ring: Callable[[], object]) -> bool:
    """Listen in another thread, ring, and say whether that thread woke for it."""
    heard: list[bool] = []
    listener = threading.Thread(target=lambda: heard.append(bell.wait(5.0)))
    listener.start()
    time.sleep(0.1)
    ring()
    listener.join()
    return heard == [True]


def test_a_ring_wakes_a_listener_in_the_same_process() -> None:
    bell = ProcessBell()
    assert heard_by(bell, bell.ring)


def test_a_ring_before_anybody_listens_is_kept() -> None:
    bell = ProcessBell()
    assert not bell.ring(), "nobody listens yet"
    assert bell.wait(0.0)
    assert bell.ring(), "somebody listened a moment ago"


def test_a_ring_wakes_a_listener_of_another_process(redis_url: str) -> None:
    here, there = RedisBell(redis_url), RedisBell(redis_url)
    assert heard_by(there, here.ring)


def test_many_rings_make_few_strings(redis_url: str) -> None:
    bell = RedisBell(redis_url)
    for _ in range(100):
        bell.ring()
    woken = sum(bell.wait(0.05) for _ in range(40))
    assert 1 <= woken <= 16
    assert not bell.wait(0.05)


def test_ringing_without_redis_neither_fails_nor_waits() -> None:
    bell = RedisBell(f"redis://127.0.0.1:{free_port()}/0")
    started = time.monotonic()
    assert not any(bell.ring() for _ in range(100))
    assert time.monotonic() - started < 20
    assert bell.failures == 1


def test_a_frozen_redis_delays_a_ring_only_once(redis_server: RedisServer) -> None:
    bell = RedisBell(redis_server.url)
    bell.ring()
    redis_server.freeze()
    started = time.monotonic()
    assert not any(bell.ring() for _ in range(100))
    # A hundred waits of half a second are more.
    assert time.monotonic() - started < 20
    redis_server.thaw()


def test_a_full_redis_counts_a_lost_ring() -> None:
    with RedisServer(arguments=["--maxmemory", "1", "--maxmemory-policy", "noeviction"]) as server:
        bell = RedisBell(server.url)
        assert not bell.ring()
        assert bell.failures == 1


def test_the_bell_comes_back_with_redis(redis_server: RedisServer) -> None:
    bell = RedisBell(redis_server.url)
    redis_server.stop()
    assert not bell.wait(0.01)
    redis_server.start()
    time.sleep(2.1)
    assert heard_by(RedisBell(redis_server.url), bell.ring)
