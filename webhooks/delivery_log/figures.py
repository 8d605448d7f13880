"""Format numbers, durations and times in the reader's language."""

from datetime import datetime

from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

_UNITS = (
    (86_400, gettext_lazy("%d d")),
    (3600, gettext_lazy("%d h")),
    (60, gettext_lazy("%d min")),
    (1, gettext_lazy("%d s")),
)


def number(value: int) -> str:
    """Return a number with digit groups, such as 1,234,567, in the reader's language."""
    return str(number_format(value, force_grouping=True))


def counted(count: int, most: int) -> str:
    """Return a count; one above the limit `most` as "1,000+"."""
    return f"{number(most)}+" if count > most else number(count)


def milliseconds(value: float | None) -> str:
    """Return a duration in milliseconds or seconds; empty for None."""
    if value is None:
        return ""
    if value >= 1000:
        return _("%s s") % number_format(f"{value / 1000:.2f}")
    return _("%s ms") % number_format(f"{value:.0f}" if value >= 10 else f"{value:.1f}")


def rough_duration(seconds: float) -> str:
    """Return a duration with at most two units: "3 d 4 h"."""
    left, parts = max(int(seconds), 1), []
    for size, text in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(text % count)
    return " ".join(parts[:2])


def minute(moment: datetime) -> str:
    """Return a time in the reader's time zone: "2026-05-14 09:30"."""
    return f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"


def time_or_day(moment: datetime) -> str:
    """Return a time of today as "09:30", an earlier one as "14 May, 09:30"."""
    local = timezone.localtime(moment)
    is_today = local.date() == timezone.localdate()
    return f"{local:%H:%M}" if is_today else date_format(local, "j M, H:i")
