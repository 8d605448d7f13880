"""Durations as people type and read them: `90`, `1:30`, `1m 30s`; stored as seconds."""

import math
import re
from decimal import Decimal

from django.utils.translation import gettext as _

# English and Ukrainian, because the product speaks both and people type what they read.
UNITS = {
    **dict.fromkeys(("d", "day", "days", "д", "дн", "день", "дні", "днів"), 86_400),
    **dict.fromkeys(("h", "hr", "hour", "hours", "год", "г"), 3600),
    **dict.fromkeys(("година", "години", "годин", "годину"), 3600),
    **dict.fromkeys(("m", "min", "minute", "minutes", "хв"), 60),
    **dict.fromkeys(("хвилина", "хвилини", "хвилин", "хвилину"), 60),
    **dict.fromkeys(("s", "sec", "second", "seconds", "с", "сек"), 1),
    **dict.fromkeys(("секунда", "секунди", "секунд", "секунду"), 1),
}
# More hours than `parse_duration` reads. Numbers of hundreds of digits do not fit a float either.
_TOO_LONG = 3600 * 10**9
_MAX_SHOWN = 100
_PLAIN = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):(\d{1,2})", re.ASCII)
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([^\W\d_]+)\.?\s*", re.UNICODE)


def parse_duration(text: str) -> int | float | None:
    """Return the seconds of a typed duration, or None when it is not one."""
    typed = text.strip().lower().replace(",", ".")
    if _PLAIN.fullmatch(typed):
        return _whole(float(typed))
    if clock := _CLOCK.fullmatch(typed):
        hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return hours * 3600 + minutes * 60 + seconds if seconds < 60 else None
    total, position = 0.0, 0
    while position < len(typed):
        part = _PART.match(typed, position)
        if part is None or part[2] not in UNITS:
            return None
        total += float(part[1]) * UNITS[part[2]]
        position = part.end()
    return _whole(total) if position else None


def duration_text(seconds: float) -> str:
    """Return seconds as text that `parse_duration` reads: "1 min 30 s"."""
    if not 0 <= seconds < _TOO_LONG or seconds != int(seconds):
        return _("%s s") % _plain(seconds)
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [_("%d h") % hours] if hours else []
    if minutes:
        parts.append(_("%d min") % minutes)
    if rest or not parts:
        parts.append(_("%d s") % rest)
    return " ".join(parts)


def _plain(number: float) -> str:
    """Return a number without an exponent, however large or small."""
    if isinstance(number, float) and not math.isfinite(number):
        return str(number)
    text = f"{Decimal(repr(number)):f}" if isinstance(number, float) else str(number)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _whole(number: float) -> int | float:
    return int(number) if number == int(number) else number
