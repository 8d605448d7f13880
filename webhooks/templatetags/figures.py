"""Figures of the log's pages: grouped digits, rough times."""

from django import template
from django.utils.formats import number_format
from django.utils.translation import ngettext

register = template.Library()

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


@register.filter
def group_digits(number: int) -> str:
    """Write 1,234,567 as the person's language does."""
    return number_format(number, force_grouping=True)


@register.filter
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
