"""Wakeups: a hint that rows are due. It may be lost, doubled or late without harm.

With Redis it is a short list that a waiting drain pops; without Redis it is a condition variable
inside the one process. A waiting drain sets a sign, so that notifying needs a Celery task only
while no drain listens. `notify` neither blocks nor fails.
"""

import logging
import threading
import time
from functools import cache

import redis
from django.conf import settings

from webhooks.delivery.limited_calls import LimitedCalls

logger = logging.getLogger(__name__)

_LIST = "webhooks:wakeup"
_LISTENING = "webhooks:listening"
# For how long a drain listens at a time. It renews its sign each time, and has ended if that is
# twice as old.
LISTEN_SECONDS = 2.0
_LISTENING_SECONDS = 4
# A listener that is woken often renews the sign no more often than this.
_SIGN_SECONDS = 0.5
# One entry per drain is enough; more than this are dropped.
_MAX_WAITING = 16
# How long notifying may take, and how long Redis is not used after a failure, so that publishing
# stays fast without it.
_NOTIFY_SECONDS, _PAUSE_SECONDS = 0.5, 2.0


class ProcessWakeup:
    """Wakeups inside one process."""

    # Whether the last operation failed, in which case the broker most likely fails too.
    is_broken = False

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = 0
        self._listened_at = float("-inf")

    def notify(self) -> bool:
        """Wake one listener; return False when none is known to listen."""
        with self._changed:
            self._waiting = min(self._waiting + 1, _MAX_WAITING)
            self._changed.notify()
            return time.monotonic() - self._listened_at < _LISTENING_SECONDS

    def wait(self, timeout_seconds: float) -> bool:
        """Listen for this long; return whether there was a wakeup."""
        with self._changed:
            self._listened_at = time.monotonic()
            is_woken = self._changed.wait_for(lambda: self._waiting > 0, timeout_seconds)
            # Several wakeups mean the same as one.
            self._waiting = 0
            self._listened_at = time.monotonic()
            return is_woken


class RedisWakeup:
    """The same over Redis, for any number of processes and machines."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_connect_timeout=_NOTIFY_SECONDS, socket_timeout=_NOTIFY_SECONDS, retry=None
        )
        self._calls = LimitedCalls(_NOTIFY_SECONDS)
        # Waiting blocks its socket, so it has a client of its own.
        self._listener = redis.Redis.from_url(
            url, socket_connect_timeout=1, socket_timeout=5, retry=None
        )
        self._silent_until = 0.0
        # When the sign is due again, on the monotonic clock.
        self._sign_at = 0.0
        self.failures = 0
        # What failed last: a listener may still hear where nothing can be notified.
        self._broken: set[str] = set()

    @property
    def is_broken(self) -> bool:
        return bool(self._broken)

    def notify(self) -> bool:
        if time.monotonic() < self._silent_until:
            return False
        try:
            is_heard = self._calls.run(self._push)
            self._broken.clear()
            return is_heard
        except Exception as error:
            # Not only errors of redis-py: another service may answer at its port.
            self._failed("notify", error, self._redis)
            return False

    def _push(self) -> bool:
        """Push a wakeup; return whether a drain listens."""
        with self._redis.pipeline(transaction=False) as pipe:
            # One for each shard, as drains that divide the shards serve different webhooks.
            pipe.lpush(_LIST, *[1] * min(settings.WEBHOOKS_SHARDS, _MAX_WAITING))
            pipe.ltrim(_LIST, 0, _MAX_WAITING - 1)
            pipe.exists(_LISTENING)
            return bool(pipe.execute()[2])

    def wait(self, timeout_seconds: float) -> bool:
        try:
            with self._listener.pipeline(transaction=False) as pipe:
                if time.monotonic() >= self._sign_at:
                    pipe.set(_LISTENING, 1, ex=_LISTENING_SECONDS)
                    self._sign_at = time.monotonic() + _SIGN_SECONDS
                pipe.blpop([_LIST], timeout=max(timeout_seconds, 0.05))
                is_woken = pipe.execute()[-1] is not None
            self._broken.discard("wait")
            return is_woken
        except Exception as error:
            # Not raised: a drain ends with its listener.
            self._failed("wait", error, self._listener)
            time.sleep(timeout_seconds)
            return False

    def _failed(self, what: str, error: Exception, client: redis.Redis) -> None:
        # After a failover its name leads to another server, while this one may still respond. A
        # call whose time is over ends with its connection.
        client.connection_pool.disconnect(inuse_connections=isinstance(error, TimeoutError))
        self._sign_at = 0.0
        self.failures += 1
        self._broken.add(what)
        self._silent_until = time.monotonic() + _PAUSE_SECONDS
        logger.warning("wakeup_failed action=%s error=%s", what, type(error).__name__)


Wakeup = ProcessWakeup | RedisWakeup


@cache
def wakeup() -> Wakeup:
    """Return the wakeup of this process."""
    return RedisWakeup(settings.REDIS_URL) if settings.REDIS_URL else ProcessWakeup()
