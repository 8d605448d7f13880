"""Charts as numbers for a template to draw: bars, lines, labels and links.

Everything is in SVG units: ten per bucket across, a hundred up. Counts have a linear axis;
durations a logarithmic one, so that a slow hour does not flatten the others.
"""

import math
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.urls import reverse
from django.utils.formats import date_format, number_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from webhooks.delivery_log.charts import Bucket, Chart, Period, ResultKind
from webhooks.delivery_log.figures import milliseconds, number
from webhooks.models import Status

_BUCKET_UNITS, _BAR_UNITS, _HEIGHT = 10.0, 7.2, 100.0
# The minimum height, which keeps one failure among thousands visible.
_LEAST_UNITS = 2.5
_ROUND = (1, 2, 3, 4, 5, 6, 8, 10)
# An axis of durations begins at one of these numbers times a power of ten, but not below the
# shortest duration, and has at most this many steps.
_SHORTEST_MS = 0.1
_DURATION_STARTS = (1, 2, 5)
_DURATION_FACTORS = (2, 4, 10, 100)
_MOST_LINES = 4
# The log filters deliveries by their last response, which is the closest to a kind of attempt. No
# index finds attempts by time, so the log shows the chart's count and explains the difference.
_FILTER_OF: dict[ResultKind, dict[str, str]] = {
    ResultKind.SUCCEEDED: {"status": Status.SUCCEEDED},
    ResultKind.REFUSED: {"code": "4xx"},
    ResultKind.FAILED: {"code": "5xx"},
    ResultKind.UNANSWERED: {"code": "none"},
}

# (begin, end, kind or None for all, attempts) -> URL of the log; empty without the permission.
LogLink = Callable[[datetime, datetime, ResultKind | None, int], str]
_Point = tuple[float, float]


def log_url(webhook_id: int, **filters: Any) -> str:
    """Return the URL of one webhook's log; times are to the minute in the current time zone."""
    words = {name: _word(value) for name, value in filters.items() if value}
    return f"{reverse('webhooks:deliveries')}?{urlencode({'webhook': webhook_id, **words})}"


def _word(value: Any) -> str:
    # With the offset: when clocks go back, the same minute occurs twice.
    is_moment = isinstance(value, datetime)
    return localtime(value).isoformat(timespec="minutes") if is_moment else str(value)


def chart_link(webhook_id: int, user: AbstractBaseUser | AnonymousUser) -> LogLink:
    """Return the function that returns the log's URL for a time span of a chart."""
    may_read = user.has_perm("webhooks.view_delivery")  # type: ignore[union-attr]
    return partial(_span_url, webhook_id) if may_read else lambda *_span: ""


def _span_url(
    webhook_id: int, begin: datetime, end: datetime, kind: ResultKind | None, count: int
) -> str:
    filters = _FILTER_OF[kind] if kind else {}
    return log_url(webhook_id, since=begin, until=end, counted=count, **filters)


def draw(chart: Chart, log_link: LogLink) -> dict[str, Any]:
    """Return the data of `webhook_detail/_charts.html`; `shares` has no empty kinds."""
    buckets = chart.buckets
    most = _round_up(max(bucket.total for bucket in buckets))
    counts = [most, most // 2, 0] if most % 2 == 0 else [most, 0]
    durations = duration_axis(buckets)
    p50 = _points([bucket.p50_ms for bucket in buckets], durations)
    p95 = _points([bucket.p95_ms for bucket in buckets], durations)
    whole, width = chart.whole, _BUCKET_UNITS * len(buckets)
    columns = [_column(chart, index, most, log_link) for index in range(len(buckets))]
    return {
        "period": chart.period,
        "width": _units(width),
        "bar_width": _units(_BAR_UNITS),
        "columns": columns,
        # Columns with data, newest first.
        "filled": [column for column in reversed(columns) if column["shares"]],
        "shares": _shares(whole, log_link),
        "count": whole.total,
        "total": number(whole.total),
        "total_url": log_link(whole.begins_at, whole.ends_at, None, whole.total),
        "success_rate": _percent(whole.counts[ResultKind.SUCCEEDED], whole.total),
        "p50": milliseconds(whole.p50_ms),
        "p95": milliseconds(whole.p95_ms),
        # Labels of both axes from top to bottom, evenly spaced, and their grid lines.
        "counts": [number(count) for count in counts],
        "counts_path": _lines(len(counts), width),
        "durations": [axis_duration(duration) for duration in durations],
        "durations_path": _lines(len(durations), width),
        "p50_path": _line(p50),
        "p95_path": _line(p95),
        "band_path": _band(p50, p95),
    }


def _column(chart: Chart, index: int, most: int, log_link: LogLink) -> dict[str, Any]:
    """Return one bucket; `cells` has a share for each kind that occurs in the chart."""
    bucket = chart.buckets[index]
    shares = _shares(bucket, log_link)
    by_kind = {share["kind"]: share for share in shares}
    return {
        "label": bucket_label(chart.period, bucket),
        # The label on the axis; empty for most columns.
        "tick": _tick(chart.period, index, len(chart.buckets), bucket.begins_at),
        "x": _units(_BUCKET_UNITS * index + (_BUCKET_UNITS - _BAR_UNITS) / 2),
        "shares": _stack(shares, most),
        "cells": [
            by_kind.get(kind, {"kind": kind, "text": number(0), "url": ""})
            for kind in ResultKind
            if chart.whole.counts[kind]
        ],
        "total": number(bucket.total),
        "url": log_link(bucket.begins_at, bucket.ends_at, None, bucket.total),
        "p50": milliseconds(bucket.p50_ms),
        "p95": milliseconds(bucket.p95_ms),
        "is_late": index >= len(chart.buckets) / 2,
    }


def _shares(bucket: Bucket, log_link: LogLink) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "count": count,
            "text": number(count),
            "url": log_link(bucket.begins_at, bucket.ends_at, kind, count),
        }
        for kind in ResultKind
        if (count := bucket.counts[kind])
    ]


def _stack(shares: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Stack shares, each with a height in proportion to its count."""
    stacked, top = [], _HEIGHT
    for share in shares:
        height = min(max(_HEIGHT * share["count"] / most, _LEAST_UNITS), top)
        top -= height
        stacked.append({**share, "y": _units(top), "height": _units(height)})
    return stacked


def duration_axis(buckets: list[Bucket]) -> list[float]:
    """Return the durations at the grid lines of an axis in milliseconds, the longest first."""
    least = min((bucket.p50_ms for bucket in buckets if bucket.p50_ms), default=1.0)
    shortest = max(least, _SHORTEST_MS)
    longest = max((bucket.p95_ms or 0.0 for bucket in buckets), default=1.0)
    power = 10 ** math.floor(math.log10(shortest))
    start = float(max(step * power for step in _DURATION_STARTS if step * power <= shortest))
    for factor in _DURATION_FACTORS:
        lines = max(math.ceil(math.log(max(longest / start, 1.0), factor)), 1)
        if lines <= _MOST_LINES:
            break
    return [start * factor**line for line in range(lines, -1, -1)]


def _points(values: list[float | None], axis: list[float]) -> list[_Point | None]:
    """Return the points of durations on their logarithmic axis."""
    longest, start = axis[0], axis[-1]
    points: list[_Point | None] = []
    for index, value in enumerate(values):
        if value is None:
            points.append(None)
            continue
        share = math.log(max(value, start) / start) / math.log(longest / start)
        points.append((_BUCKET_UNITS * (index + 0.5), _HEIGHT * (1 - share)))
    return points


def _line(points: list[_Point | None]) -> str:
    """Return a path through the points, with gaps for missing ones; a lone point is a dash."""
    path = []
    around = zip([None, *points], points, [*points[1:], None], strict=False)
    for before, point, after in around:
        if point is None:
            continue
        x, y = point
        if before is not None:
            path.append(f"L{_units(x)} {_units(y)}")
        elif after is not None:
            path.append(f"M{_units(x)} {_units(y)}")
        else:
            half = 0.3 * _BUCKET_UNITS
            path.append(f"M{_units(x - half)} {_units(y)}h{_units(2 * half)}")
    return "".join(path)


def _band(lower: list[_Point | None], upper: list[_Point | None]) -> str:
    """Return the area between two lines: a closed path for each stretch without gaps."""
    path = []
    stretch: list[tuple[_Point, _Point]] = []
    for low, high in [*zip(lower, upper, strict=True), (None, None)]:
        if low is not None and high is not None:
            stretch.append((low, high))
            continue
        if len(stretch) > 1:
            around = [pair[0] for pair in stretch] + [pair[1] for pair in reversed(stretch)]
            path.append("M" + "L".join(f"{_units(x)} {_units(y)}" for x, y in around) + "Z")
        stretch = []
    return "".join(path)


def _lines(count: int, width: float) -> str:
    """Return a path of evenly spaced horizontal lines, without the base line of the chart."""
    gap = _HEIGHT / (count - 1)
    return "".join(f"M0 {_units(gap * line)}H{_units(width)}" for line in range(count - 1))


def bucket_label(period: Period, bucket: Bucket) -> str:
    begin, end = localtime(bucket.begins_at), localtime(bucket.ends_at)
    day = date_format(begin, "D j N")
    if period == Period.MONTH:
        return day
    if begin.utcoffset() != end.utcoffset():
        # The clock changed in between, so the same hour may occur twice.
        return f"{day}, {begin:%H:%M %Z}–{end:%H:%M %Z}"
    return f"{day}, {begin:%H:%M}–{end:%H:%M}"


def _tick(period: Period, index: int, count: int, begins_at: datetime) -> str:
    """Return the label of each sixth hour, each midnight of a week, each seventh day of a month."""
    local = localtime(begins_at)
    if index > count - 2:
        # No room at the edge.
        return ""
    match period:
        case Period.DAY:
            return f"{local:%H:%M}" if local.hour % 6 == 0 else ""
        case Period.WEEK:
            return date_format(local, "D j") if local.hour < 6 else ""
        case Period.MONTH:
            return date_format(local, "j M") if (count - 1 - index) % 7 == 0 else ""


def _round_up(value: float) -> int:
    """Return the next round number, for the end of an axis."""
    power = 1
    while True:
        for step in _ROUND:
            if value <= step * power:
                return step * power
        power *= 10


def _percent(part: int, whole: int) -> str:
    """Return a percentage rounded down, so that only a complete share is 100 %."""
    if not whole:
        return ""
    tenths = 1000 * part // whole
    number = number_format(tenths / 10, decimal_pos=1 if tenths % 10 else 0)
    return _("%s%%") % number


def axis_duration(duration_ms: float) -> str:
    if duration_ms < 1000:
        return _("%s ms") % number_format(f"{duration_ms:g}")
    return _("%s s") % number_format(f"{duration_ms / 1000:g}")


def _units(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
