"""Wakeups: received when possible, harmless when not."""

import socketserver
import threading
import time
from collections.abc import Callable

import pytest
import redis
from pytest_django import Settings

from tests.polling import eventually
from tests.relay import Relay
from tests.services import RedisServer, free_port
from webhooks.delivery.wakeup import ProcessWakeup, RedisWakeup, Wakeup


def heard_by(wakeup: Wakeup, notify: Callable[[], object]) -> bool:
    """Listen in another thread, notify, and return whether that thread woke for it."""
    heard: list[bool] = []
    listener = threading.Thread(target=lambda: heard.append(wakeup.wait(5.0)))
    listener.start()
    time.sleep(0.1)
    notify()
    listener.join()
    return heard == [True]


def test_a_wakeup_wakes_a_listener_in_the_same_process() -> None:
    wakeup = ProcessWakeup()
    assert heard_by(wakeup, wakeup.notify)


def test_a_wakeup_before_anybody_listens_is_kept() -> None:
    wakeup = ProcessWakeup()
    assert not wakeup.notify(), "nobody listens yet"
    assert wakeup.wait(0.0)
    assert wakeup.notify(), "somebody listened a moment ago"


def test_a_wakeup_wakes_a_listener_of_another_process(redis_url: str) -> None:
    here, there = RedisWakeup(redis_url), RedisWakeup(redis_url)
    assert heard_by(there, here.notify)


def test_many_wakeups_make_few_strings(redis_url: str) -> None:
    wakeup = RedisWakeup(redis_url)
    for _ in range(100):
        wakeup.notify()
    woken = sum(wakeup.wait(0.05) for _ in range(40))
    assert 1 <= woken <= 16
    assert not wakeup.wait(0.05)


def test_notifying_without_redis_neither_fails_nor_waits() -> None:
    wakeup = RedisWakeup(f"redis://127.0.0.1:{free_port()}/0")
    started = time.monotonic()
    assert not any(wakeup.notify() for _ in range(100))
    assert time.monotonic() - started < 20
    assert wakeup.failures == 1


def test_a_frozen_redis_delays_a_wakeup_only_once(redis_server: RedisServer) -> None:
    wakeup = RedisWakeup(redis_server.url)
    wakeup.notify()
    redis_server.freeze()
    started = time.monotonic()
    assert not any(wakeup.notify() for _ in range(100))
    # A hundred waits of half a second would take longer.
    assert time.monotonic() - started < 20
    redis_server.thaw()


def test_a_redis_that_answers_byte_by_byte_delays_a_wakeup_only_once(
    redis_server: RedisServer,
) -> None:
    """Each byte comes within the socket's timeout; all of them would take a minute."""
    with Relay(redis_server.port, byte_seconds=0.4) as relay:
        wakeup = RedisWakeup(f"redis://127.0.0.1:{relay.port}/0")
        started = time.monotonic()
        assert not any(wakeup.notify() for _ in range(100))
        assert time.monotonic() - started < 10
        assert wakeup.is_broken
        # The call was ended with its connection.
        eventually(lambda: not relay.open_connections)


def test_a_full_redis_counts_a_lost_wakeup() -> None:
    with RedisServer(arguments=["--maxmemory", "1", "--maxmemory-policy", "noeviction"]) as server:
        wakeup = RedisWakeup(server.url)
        assert not wakeup.notify()
        assert wakeup.failures == 1


def test_wakeups_come_back_with_redis(redis_server: RedisServer) -> None:
    wakeup = RedisWakeup(redis_server.url)
    redis_server.stop()
    assert not wakeup.wait(0.01)
    redis_server.start()
    time.sleep(2.1)
    assert heard_by(RedisWakeup(redis_server.url), wakeup.notify)


def test_wakeups_follow_the_name_of_redis_after_a_failover(redis_server: RedisServer) -> None:
    """The old primary stays up as a replica, which refuses writes."""
    with RedisServer() as after, Relay(redis_server.port) as relay:
        wakeup, listener = (RedisWakeup(f"redis://127.0.0.1:{relay.port}/0") for _ in range(2))
        assert heard_by(listener, wakeup.notify)
        with redis.Redis(port=redis_server.port) as client:
            client.replicaof("127.0.0.1", "1")
        relay.target = after.port
        assert not wakeup.notify()
        assert not listener.wait(0.01)
        time.sleep(2.1)
        assert heard_by(listener, wakeup.notify)
        assert not wakeup.is_broken


def test_notifying_that_failed_stays_broken_although_wakeups_still_come(
    redis_server: RedisServer,
) -> None:
    """A drain whose listener works must not end while its process cannot notify others."""
    wakeup = RedisWakeup(redis_server.url)
    assert not wakeup.wait(0.01)
    with redis.Redis(port=redis_server.port) as client:
        client.config_set("maxclients", 1)
        assert not wakeup.notify()
        assert not wakeup.wait(0.01)
        assert wakeup.is_broken
        client.config_set("maxclients", 100)
    eventually(lambda: wakeup.notify() and not wakeup.is_broken)


@pytest.mark.parametrize(
    "answer", [b":abc\r\n", b"\0\xff" * 50, b"*-5\r\n", b"$9\r\nabc", b"+OK\r\n" * 9]
)
def test_what_is_no_redis_is_a_broker_that_is_away(answer: bytes) -> None:
    class Stranger(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        wakeup = RedisWakeup(f"redis://127.0.0.1:{server.server_address[1]}/0")
        try:
            assert not wakeup.notify()
            assert not wakeup.wait(0.01)
        finally:
            server.shutdown()
    assert wakeup.failures == 2
    assert wakeup.is_broken


def test_each_drain_that_has_a_part_of_the_webhooks_is_woken(
    redis_url: str, settings: Settings
) -> None:
    """A woken drain that does not serve the webhooks with new rows must not be the only one."""
    settings.WEBHOOKS_SHARDS = 4
    heard: list[bool] = []
    drains = [RedisWakeup(redis_url) for _ in range(3)]
    listeners = [
        threading.Thread(target=lambda one=one: heard.append(one.wait(4.0))) for one in drains
    ]
    for listener in listeners:
        listener.start()
    time.sleep(0.5)
    RedisWakeup(redis_url).notify()
    for listener in listeners:
        listener.join()
    assert heard == [True, True, True]
