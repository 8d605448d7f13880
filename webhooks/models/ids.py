"""Prefixed, time-sortable ids, shown to people and receivers.

Owns the format `prefix_` + 26 characters of Crockford base 32: 48 bits of Unix milliseconds and 80
random bits, so ids sort by creation and any process can make them.
"""

import datetime as dt
import os
import secrets
import threading
import time
from functools import lru_cache
from itertools import accumulate

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_RANDOM_BITS = 80
# Ids made in the same millisecond are apart by a random step of this size.
_STEP_BITS = 40
# If the last id is further ahead than this, its clock was wrong: new ids use the current time.
_MAX_CLOCK_LEAD_MS = 60_000
_lock = threading.Lock()
_last = 0


def _next_numbers(count: int) -> list[int]:
    """Return ascending 128-bit numbers, greater than all that this process returned before.

    Except for those made while the clock was more than a minute ahead.
    """
    global _last
    size = _STEP_BITS // 8
    random = os.urandom(count * size)
    # Random steps keep ids of one millisecond in order and hard to guess.
    steps = [1 + int.from_bytes(random[at : at + size]) for at in range(0, len(random), size)]
    now = time.time_ns() // 1_000_000
    with _lock:
        milliseconds = _last >> _RANDOM_BITS
        if now > milliseconds or milliseconds - now > _MAX_CLOCK_LEAD_MS:
            _last = now << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        steps[0] += _last
        numbers = steps if count == 1 else list(accumulate(steps))
        _last = numbers[-1]
    return numbers


def new_id(prefix: str) -> str:
    """Return a new id such as `evt_01K9XJ5Q0T3M7V8W2B4C6D8E9F`."""
    return new_ids(prefix, 1)[0]


def new_ids(prefix: str, count: int) -> list[str]:
    """Return new ids in ascending order; each costs a fraction of a single one."""
    return [
        f"{_head(prefix, number >> 50)}{_PAIRS[number >> 40 & 1023]}{_PAIRS[number >> 30 & 1023]}"
        f"{_PAIRS[number >> 20 & 1023]}{_PAIRS[number >> 10 & 1023]}{_PAIRS[number & 1023]}"
        for number in (_next_numbers(count) if count else ())
    ]


@lru_cache(maxsize=16)
def _head(prefix: str, number: int) -> str:
    """Return the first part of ids, nearly always the same within a millisecond."""
    return _text(prefix, number << 50)[:-10]


def _text(prefix: str, number: int) -> str:
    pairs = [_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)]
    return f"{prefix}_{''.join(pairs)}"


def floor(prefix: str, unix_seconds: float) -> str:
    """Return the smallest id that could be made at a time; older ids sort before it."""
    return _text(prefix, int(max(unix_seconds, 0) * 1000) << _RANDOM_BITS)


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
