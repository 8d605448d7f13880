"""Where a number on a page leads: the delivery log, narrowed to what the number counts."""

from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from webhooks.delivery_log.charts import Kind
from webhooks.models import Status
from webhooks.ui.chart_drawing import LogLink

# The log filters deliveries by their last answer; that is the nearest to a kind of attempt. No
# index finds attempts by their time, so the log says what was counted, and what it lists instead.
_FILTER_OF: dict[Kind, dict[str, str]] = {
    Kind.SUCCEEDED: {"status": Status.SUCCEEDED},
    Kind.REFUSED: {"code": "4xx"},
    Kind.FAILED: {"code": "5xx"},
    Kind.UNANSWERED: {"code": "none"},
}
_MAX_DIGITS = 15


def log_url(webhook_id: int, **filters: Any) -> str:
    """Return the log's address for one webhook; times become minutes of the current zone."""
    words = {name: _word(value) for name, value in filters.items() if value}
    return f"{_log()}?{urlencode({'webhook': webhook_id, **words})}"


def _log() -> str:
    try:
        return reverse("webhooks:deliveries")
    except NoReverseMatch:
        return reverse("admin:webhooks_delivery_changelist")


def _word(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{timezone.localtime(value):%Y-%m-%dT%H:%M}"
    return str(value)


def may_read_log(user: AbstractBaseUser | AnonymousUser) -> bool:
    may = user.has_perm("webhooks.view_delivery")  # type: ignore[union-attr]
    return bool(may and (user.is_staff or "/admin/" not in _log()))  # type: ignore[union-attr]


def chart_link(webhook_id: int, user: AbstractBaseUser | AnonymousUser) -> LogLink:
    """Return what gives a span of a chart its address; nothing for who may not read the log."""
    return partial(_span_url, webhook_id) if may_read_log(user) else _nowhere


def _span_url(
    webhook_id: int, begin: datetime, end: datetime, kind: Kind | None, count: int
) -> str:
    filters = _FILTER_OF[kind] if kind else {}
    return log_url(webhook_id, since=begin, until=end, counted=count, **filters)


def counted_by_chart(text: str) -> int:
    """Return how many requests a chart counted whose number was followed here; 0 for none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else 0


def _nowhere(begin: datetime, end: datetime, kind: Kind | None, count: int) -> str:
    return ""
