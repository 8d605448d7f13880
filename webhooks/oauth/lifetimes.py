"""How long a token lives: read from whatever a provider wrote, and when to refresh it. Pure."""

import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

# Ten years: longer is a mistake or "never", and dates must stay within a database's range.
MAX_SECONDS = 10 * 365 * 86_400.0
# A token is refreshed a tenth of its life before the end, and at most a minute (O13).
_MARGIN_SHARE, _MAX_MARGIN_SECONDS = 0.1, 60.0
# Unix times in milliseconds are larger than any in seconds before the year 5138.
_MILLISECONDS_FROM = 1e11
# A smaller number is no moment of this century but a duration.
_UNIX_FROM = 1e9
# float() reads more: "1_000", and the digits of every script.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


def expires_in(fields: dict[str, Any], now: datetime) -> float | None:
    """Return the seconds a token lives from now, negative when it is over, None when unknown.

    Source: RFC 6749 section 5.1; zero is what some providers say for "never".
    """
    seconds = number(fields.get("expires_in"))
    if seconds:
        return _clamped(seconds)
    for name in ("expires_at", "expires_on", "expires"):
        moment = _moment(fields.get(name))
        if moment is not None:
            return _clamped(moment - now.timestamp() or -1.0)
    return None


def refresh_expires_in(fields: dict[str, Any]) -> float | None:
    """Return how long the refresh token lives, if the provider tells."""
    for name in ("refresh_token_expires_in", "refresh_expires_in", "x_refresh_token_expires_in"):
        seconds = number(fields.get(name))
        if seconds is not None and seconds > 0:
            return _clamped(seconds)
    return None


def refresh_at(issued_at: datetime | None, expires_at: datetime | None) -> datetime | None:
    """Return when to refresh a token, or None when its end is unknown."""
    if issued_at is None or expires_at is None:
        return expires_at
    life = max(0.0, (expires_at - issued_at).total_seconds())
    return expires_at - timedelta(seconds=min(_MAX_MARGIN_SECONDS, life * _MARGIN_SHARE))


def is_over(issued_at: datetime | None, expires_at: datetime | None) -> bool:
    """Say whether a token had expired already when it was issued."""
    return issued_at is not None and expires_at is not None and expires_at <= issued_at


def number(value: Any) -> float | None:
    """Return a finite number, also from text, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    try:
        result = float(value)
    except (ValueError, OverflowError):
        return None
    # "1e999" overflows to infinity: it is no number a provider meant.
    return result if math.isfinite(result) else None


def _clamped(seconds: float) -> float | None:
    return None if seconds == 0 else max(-MAX_SECONDS, min(seconds, MAX_SECONDS))


def _moment(value: Any) -> float | None:
    """Return Unix seconds from Unix seconds, milliseconds or an ISO 8601 time with an offset."""
    unix = number(value)
    if unix is not None:
        unix = unix / 1000 if unix >= _MILLISECONDS_FROM else unix
        return unix if unix >= _UNIX_FROM else None
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
