"""The bell: a hint that rows are due. It may be lost, doubled or late without harm.

With Redis the bell is a short list that a waiting drain pops; without Redis it is a condition
inside the one process. A drain that waits says so, so that ringing needs a Celery task only when
nobody listens. Knows neither Celery nor the database; never blocks or fails the one who rings.
"""

import logging
import threading
import time
from functools import cache
from typing import Protocol

import redis
from django.conf import settings

logger = logging.getLogger(__name__)

_BELL = "webhooks:bell"
_LISTENING = "webhooks:listening"
# A listener renews its sign every second; three missed ones mean it is gone.
_LISTENING_SECONDS = 3
# One string per drain is enough; more rings than this are dropped.
_MAX_RINGS = 16
# After a failure Redis is left alone for so long, so that publishing stays quick without it.
_PAUSE_SECONDS = 2.0


class Bell(Protocol):
    @property
    def is_broken(self) -> bool:
        """Say whether the last thing it did failed, and so most likely the broker fails too."""

    def ring(self) -> bool:
        """Wake one listener; return False when none is known to listen."""

    def wait(self, timeout_seconds: float) -> bool:
        """Listen for so long; return whether the bell rang."""


class ProcessBell:
    """The bell of the one-process mode."""

    is_broken = False

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0
        self._listened_at = float("-inf")

    def ring(self) -> bool:
        with self._changed:
            self._rings = min(self._rings + 1, _MAX_RINGS)
            self._changed.notify()
            return time.monotonic() - self._listened_at < _LISTENING_SECONDS

    def wait(self, timeout_seconds: float) -> bool:
        with self._changed:
            self._listened_at = time.monotonic()
            rang = self._changed.wait_for(lambda: self._rings > 0, timeout_seconds)
            # Rings that piled up say the same thing once.
            self._rings = 0
            self._listened_at = time.monotonic()
            return rang


class RedisBell:
    """The bell over Redis, for any number of processes and machines."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(
            url, socket_connect_timeout=0.5, socket_timeout=0.5, retry=None
        )
        # Waiting blocks its socket, so it has a client of its own.
        self._waiting = redis.Redis.from_url(
            url, socket_connect_timeout=1, socket_timeout=5, retry=None
        )
        self._silent_until = 0.0
        self.failures = 0
        self.is_broken = False

    def ring(self) -> bool:
        if time.monotonic() < self._silent_until:
            return False
        try:
            with self._redis.pipeline(transaction=False) as pipe:
                pipe.lpush(_BELL, 1)
                pipe.ltrim(_BELL, 0, _MAX_RINGS - 1)
                pipe.exists(_LISTENING)
                is_heard = bool(pipe.execute()[2])
            self.is_broken = False
            return is_heard
        except (redis.RedisError, OSError) as error:
            self._failed("ring", error)
            return False

    def wait(self, timeout_seconds: float) -> bool:
        try:
            self._waiting.set(_LISTENING, 1, ex=_LISTENING_SECONDS)
            rang = self._waiting.blpop([_BELL], timeout=max(timeout_seconds, 0.05)) is not None
            self.is_broken = False
            return rang
        except (redis.RedisError, OSError) as error:
            self._failed("wait", error)
            time.sleep(timeout_seconds)
            return False

    def _failed(self, what: str, error: Exception) -> None:
        self.failures += 1
        self.is_broken = True
        self._silent_until = time.monotonic() + _PAUSE_SECONDS
        logger.warning("bell_failed action=%s error=%s", what, type(error).__name__)


@cache
def bell() -> Bell:
    """Return this process's bell."""
    return RedisBell(settings.REDIS_URL) if settings.REDIS_URL else ProcessBell()
