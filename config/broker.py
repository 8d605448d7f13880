"""The Redis broker: what is no message, or no Redis, does not end the worker that meets it."""

import logging
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ConnectionError as RedisConnectionError

logger = logging.getLogger(__name__)

# A key that is never set.
_NOTHING = "webhooks:nothing"


class Channel(redis.Channel):
    def __init__(self, *args: Any, **options: Any) -> None:
        """Connect, and raise unless this Redis takes writes.

        A worker would connect several times a second to one that answers and takes none.
        """
        super().__init__(*args, **options)
        try:
            self.client.delete(_NOTHING)
        except Exception as error:
            self.close()
            raise RedisConnectionError(str(error)) from error

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, RecursionError) as error:
            # Taken out of the queue already: bytes that are no JSON.
            _log(error)
            return True


class Transport(redis.Transport):
    Channel = Channel

    def establish_connection(self) -> Any:
        """Connect; what is no Redis, or takes no writes, is away, so it is tried again, later."""
        try:
            return super().establish_connection()
        except Exception as error:
            if isinstance(error, (*self.connection_errors, *self.channel_errors)):
                raise
            raise RedisConnectionError(f"No answer of Redis: {type(error).__name__}") from error

    def _deliver(self, message: Any, queue: str | None) -> None:
        try:
            super()._deliver(message, queue)
        except Exception as error:
            is_broken = isinstance(error, (*self.connection_errors, *self.channel_errors))
            if is_broken and not isinstance(error, KeyError):
                raise
            # JSON, but no message of Celery's, or one whose parts are not what they should be.
            _log(error)
            self._forget(message)

    def _forget(self, message: Any) -> None:
        """Take a message that was read out of what is kept for another worker."""
        properties = message.get("properties") if isinstance(message, dict) else None
        tag = properties.get("delivery_tag") if isinstance(properties, dict) else None
        for channel in self.channels or ():
            if isinstance(tag, str) and tag in (channel.qos._delivered or ()):
                channel.basic_reject(tag, requeue=False)


def _log(error: Exception) -> None:
    logger.error("message_dropped reason=%s", type(error).__name__)


def register() -> None:
    """Let redis:// and rediss:// mean this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
