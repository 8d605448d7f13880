"""Prefixed, time-sortable ids as people and receivers see them.

Owns the format `prefix_` + 26 characters of Crockford base 32: 48 bits of Unix milliseconds and
80 random bits, so ids sort by creation and can be made by any process.
"""

import datetime as dt
import secrets
import threading
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_RANDOM_BITS = 80
# A clock that was further ahead than this was wrong: ids do not stay there until it is that late.
_MOST_AHEAD = 60_000 << _RANDOM_BITS
_lock = threading.Lock()
_last = 0


def _next_number() -> int:
    """Return a 128-bit number greater than every one this process returned before.

    But for those made by a clock that was a minute or more ahead.
    """
    global _last
    fresh = time.time_ns() // 1_000_000 << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
    with _lock:
        # A random step keeps ids of one millisecond in order and hard to guess.
        is_fresh = fresh > _last or _last - fresh > _MOST_AHEAD
        _last = fresh if is_fresh else _last + 1 + secrets.randbits(40)
        return _last


def new_id(prefix: str) -> str:
    """Return a new id such as `evt_01K9XJ5Q0T3M7V8W2B4C6D8E9F`."""
    number = _next_number()
    pairs = [_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)]
    return f"{prefix}_{''.join(pairs)}"


def floor(prefix: str, unix_seconds: float) -> str:
    """Return the smallest id that could be made at a moment; older ids sort before it."""
    number = int(unix_seconds * 1000) << _RANDOM_BITS
    return f"{prefix}_{''.join(_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10))}"


def moment(id: str) -> dt.datetime:
    """Return when an id was made, to the millisecond."""
    number = 0
    for character in id.partition("_")[2][:26]:
        number = number << 5 | _ALPHABET.index(character)
    return dt.datetime.fromtimestamp((number >> _RANDOM_BITS) / 1000, dt.UTC)


def event_id() -> str:
    return new_id("evt")


def delivery_id() -> str:
    return new_id("dlv")


def webhook_uid() -> str:
    return new_id("whk")


def credential_uid() -> str:
    return new_id("crd")


def channel_uid() -> str:
    return new_id("chn")
