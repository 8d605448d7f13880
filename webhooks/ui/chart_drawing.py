"""A chart as numbers that a template can draw: bars, lines, labels, and where a click leads.

Everything is in the units of the SVG: ten for each bucket across, a hundred up. Counts grow evenly
up their axis; durations by a factor from line to line, so that one slow hour flattens no other.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from django.utils.formats import date_format, number_format
from django.utils.timezone import localtime
from django.utils.translation import gettext as _

from webhooks.delivery_log.charts import Bucket, Chart, Kind, Period
from webhooks.templatetags.interface import milliseconds

_BUCKET_UNITS, _BAR_UNITS, _HEIGHT = 10.0, 7.2, 100.0
# One failure among thousands is still seen.
_LEAST_UNITS = 2.5
_ROUND = (1, 2, 3, 4, 5, 6, 8, 10)
# An axis of durations begins at one of these times a power of ten, but not below the shortest, and
# has so many lines at most.
_SHORTEST_MS = 0.1
_DURATION_STARTS = (1, 2, 5)
_DURATION_FACTORS = (2, 4, 10, 100)
_MOST_LINES = 4

# (begin, end, kind or None for all, attempts) -> the log's address, "" for who may not read it.
LogLink = Callable[[datetime, datetime, Kind | None, int], str]
_Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many attempts were of one kind; in a bar also where it is drawn."""

    kind: Kind
    count: int
    text: str
    url: str
    y: str = ""
    height: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One bucket. `tick` is its label on the axis, mostly empty."""

    label: str
    tick: str
    x: str
    shares: list[Share]
    # One for each kind that the whole chart has; those that did not happen here count 0.
    cells: list[Share]
    total: str
    url: str
    p50: str
    p95: str
    is_late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    period: Period
    width: str
    bar_width: str
    columns: list[Column]
    # Everything shown, by kind; those that did not happen are left out.
    shares: list[Share]
    count: int
    total: str
    total_url: str
    success_rate: str
    p50: str
    p95: str
    # The labels of both axes from the top down, evenly apart, and the lines beside them.
    counts: list[str]
    counts_path: str
    durations: list[str]
    durations_path: str
    p50_path: str
    p95_path: str
    band_path: str

    @property
    def filled(self) -> list[Column]:
        """Return the columns that have something to tell, the newest first."""
        return [column for column in reversed(self.columns) if column.shares]


def draw(chart: Chart, log_link: LogLink) -> Drawing:
    buckets = chart.buckets
    most = _round_up(max(bucket.total for bucket in buckets))
    counts = [most, most // 2, 0] if most % 2 == 0 else [most, 0]
    durations = _duration_axis(buckets)
    p50 = _points([bucket.p50_ms for bucket in buckets], durations)
    p95 = _points([bucket.p95_ms for bucket in buckets], durations)
    whole, width = chart.whole, _BUCKET_UNITS * len(buckets)
    return Drawing(
        period=chart.period,
        width=_units(width),
        bar_width=_units(_BAR_UNITS),
        columns=[_column(chart, index, most, log_link) for index in range(len(buckets))],
        shares=list(_shares(whole, log_link)),
        count=whole.total,
        total=_number(whole.total),
        total_url=log_link(whole.begins_at, whole.ends_at, None, whole.total),
        success_rate=_percent(whole.counts[Kind.SUCCEEDED], whole.total),
        p50=milliseconds(whole.p50_ms),
        p95=milliseconds(whole.p95_ms),
        counts=[_number(count) for count in counts],
        counts_path=_lines(len(counts), width),
        durations=[_axis_duration(duration) for duration in durations],
        durations_path=_lines(len(durations), width),
        p50_path=_line(p50),
        p95_path=_line(p95),
        band_path=_band(p50, p95),
    )


def _column(chart: Chart, index: int, most: int, log_link: LogLink) -> Column:
    bucket = chart.buckets[index]
    shares = list(_shares(bucket, log_link))
    by_kind = {share.kind: share for share in shares}
    return Column(
        label=_label(chart.period, bucket),
        tick=_tick(chart.period, index, len(chart.buckets), bucket.begins_at),
        x=_units(_BUCKET_UNITS * index + (_BUCKET_UNITS - _BAR_UNITS) / 2),
        shares=_stack(shares, most),
        cells=[by_kind.get(kind) or _none_of(kind) for kind in Kind if chart.whole.counts[kind]],
        total=_number(bucket.total),
        url=log_link(bucket.begins_at, bucket.ends_at, None, bucket.total),
        p50=milliseconds(bucket.p50_ms),
        p95=milliseconds(bucket.p95_ms),
        is_late=index >= len(chart.buckets) / 2,
    )


def _shares(bucket: Bucket, log_link: LogLink) -> Iterator[Share]:
    for kind in Kind:
        if count := bucket.counts[kind]:
            url = log_link(bucket.begins_at, bucket.ends_at, kind, count)
            yield Share(kind=kind, count=count, text=_number(count), url=url)


def _none_of(kind: Kind) -> Share:
    return Share(kind=kind, count=0, text=_number(0), url="")


def _stack(shares: list[Share], most: int) -> list[Share]:
    """Put shares on top of each other, as high as they are many."""
    placed, top = [], _HEIGHT
    for share in shares:
        height = min(max(_HEIGHT * share.count / most, _LEAST_UNITS), top)
        top -= height
        placed.append(
            Share(
                kind=share.kind,
                count=share.count,
                text=share.text,
                url=share.url,
                y=_units(top),
                height=_units(height),
            )
        )
    return placed


def _duration_axis(buckets: list[Bucket]) -> list[float]:
    """Return the durations at the lines of an axis in milliseconds, the longest first."""
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
    """Place durations between the first and the last line of their axis."""
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
    """Return a path through the points; a gap where one is missing, a dash where one is alone."""
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
    """Return the area between two lines, one closed path for each stretch without a gap."""
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
    """Return a path of `count` level lines, evenly apart; the lowest is the base of the chart."""
    gap = _HEIGHT / (count - 1)
    return "".join(f"M0 {_units(gap * line)}H{_units(width)}" for line in range(count - 1))


def _label(period: Period, bucket: Bucket) -> str:
    begin, end = localtime(bucket.begins_at), localtime(bucket.ends_at)
    day = date_format(begin, "D j N")
    if period == Period.MONTH:
        return day
    if begin.utcoffset() != end.utcoffset():
        # The clock was set meanwhile, so the same hour may come twice.
        return f"{day}, {begin:%H:%M %Z}–{end:%H:%M %Z}"
    return f"{day}, {begin:%H:%M}–{end:%H:%M}"


def _tick(period: Period, index: int, count: int, begins_at: datetime) -> str:
    """Label each sixth hour, each midnight of a week, each seventh day of a month."""
    local = localtime(begins_at)
    if index > count - 2:
        # No room before the edge.
        return ""
    match period:
        case Period.DAY:
            return f"{local:%H:%M}" if local.hour % 6 == 0 else ""
        case Period.WEEK:
            return date_format(local, "D j") if local.hour < 6 else ""
        case Period.MONTH:
            return date_format(local, "j M") if (count - 1 - index) % 7 == 0 else ""


def _round_up(value: float) -> int:
    """Return the next number that is round enough to end an axis."""
    power = 1
    while True:
        for step in _ROUND:
            if value <= step * power:
                return step * power
        power *= 10


def _percent(part: int, whole: int) -> str:
    """Return a share as text, rounded down: only all of it is 100 %."""
    if not whole:
        return ""
    tenths = 1000 * part // whole
    number = number_format(tenths / 10, decimal_pos=1 if tenths % 10 else 0)
    return _("%s %%") % number


def _axis_duration(duration_ms: float) -> str:
    if duration_ms < 1000:
        return _("%s ms") % number_format(f"{duration_ms:g}")
    return _("%s s") % number_format(f"{duration_ms / 1000:g}")


def _number(value: int) -> str:
    return str(number_format(value, force_grouping=True))


def _units(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
