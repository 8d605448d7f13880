"""One line that says how far behind the engine is."""

from typing import Any

from django import template
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from webhooks.delivery.backlog import MAX_COUNT, Report

register = template.Library()


@register.inclusion_tag("webhooks/ui/_backlog.html")
def backlog_line(report: Report) -> dict[str, Any]:
    """Draw the line; the report was read by the view."""
    found = report.backlog
    parts = []
    if found.due:
        oldest = _duration(found.oldest_due_seconds)
        text = ngettext(
            "%(count)s due, for %(oldest)s", "%(count)s due, the oldest for %(oldest)s", found.due
        )
        parts.append(text % {"count": _count(found.due), "oldest": oldest})
    else:
        parts.append(_("Up to date"))
    if found.sending:
        parts.append(_("%s being sent") % _count(found.sending))
    if found.held:
        parts.append(_("%s held") % _count(found.held))
    if found.parked:
        parts.append(_("%s parked") % _count(found.parked))
    if found.sent_per_second:
        parts.append(_("%s sent per second") % _rate(found.sent_per_second))
    elif found.due:
        parts.append(_("nothing sent in the last minute"))
    return {"report": report, "parts": parts}


def _count(count: int) -> str:
    shown = number_format(min(count, MAX_COUNT), force_grouping=True)
    return f"{shown}+" if count >= MAX_COUNT else str(shown)


def _rate(per_second: float) -> str:
    places = 0 if per_second >= 10 else 1
    return str(number_format(max(per_second, 0.1), places, force_grouping=True))


def _duration(seconds: float) -> str:
    """Write a waiting time in one unit."""
    if seconds < 60:
        return _("%d s") % seconds
    if seconds < 3600:
        return _("%d min") % (seconds // 60)
    if seconds < 48 * 3600:
        return _("%d h") % (seconds // 3600)
    return _("%d days") % (seconds // 86400)
