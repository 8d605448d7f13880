"""Numbers and durations as people read them, in their language."""

from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def number(value: int) -> str:
    """Write 1,234,567 as the reader's language does."""
    return str(number_format(value, force_grouping=True))


def counted(count: int, most: int) -> str:
    """Write a count that stopped above `most`: "1,000+"."""
    return f"{number(most)}+" if count > most else number(count)


def milliseconds(value: float | None) -> str:
    """Write a duration in milliseconds or seconds; empty when there is none."""
    if value is None:
        return ""
    if value >= 1000:
        return _("%s s") % number_format(f"{value / 1000:.2f}")
    return _("%s ms") % number_format(f"{value:.0f}" if value >= 10 else f"{value:.1f}")


def rough_duration(seconds: float) -> str:
    """Write a duration in its largest unit."""
    if seconds < _MINUTE:
        count = max(round(seconds), 1)
        return ngettext("%d second", "%d seconds", count) % count
    if seconds < _HOUR:
        count = round(seconds / _MINUTE)
        return ngettext("%d minute", "%d minutes", count) % count
    if seconds < _DAY:
        count = round(seconds / _HOUR)
        return ngettext("%d hour", "%d hours", count) % count
    count = round(seconds / _DAY)
    return ngettext("%d day", "%d days", count) % count
