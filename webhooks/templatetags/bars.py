"""Bars of the last 24 hours in a row of the list: a small picture with the numbers in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django import template
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

register = template.Library()

_HEIGHT, _STEP = 24, 4
# An hour with a single attempt is still seen.
_LEAST = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One hour; failures stand on top of successes. All in units of the picture."""

    x: int
    top: str
    good_top: str
    good_height: str
    bad_height: str


@register.inclusion_tag("webhooks/ui/_day_bars.html")
def day_bars(day: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Draw (succeeded, failed) attempts of each hour, oldest first."""
    good, bad = (sum(column) for column in zip(*day, strict=True)) if day else (0, 0)
    most = max((sum(hour) for hour in day), default=0)
    bars = [_bar(number, hour, most) for number, hour in enumerate(day) if sum(hour)]
    return {
        "bars": bars,
        # One path of each colour: fifty rows of rectangles would double the page.
        "good_path": "".join(_box(bar.x, bar.good_top, bar.good_height) for bar in bars),
        "bad_path": "".join(_box(bar.x, bar.top, bar.bad_height) for bar in bars),
        "width": _STEP * len(day),
        "height": _HEIGHT,
        "sentence": _sentence(good + bad, bad),
    }


def _bar(number: int, hour: tuple[int, int], most: int) -> Bar:
    good, bad = hour
    scale = _HEIGHT / most
    bad_height = max(bad * scale, _LEAST) if bad else 0.0
    good_height = max(good * scale, _LEAST) if good else 0.0
    # A least height may not push the bar out of the picture.
    good_height = min(good_height, _HEIGHT - bad_height)
    return Bar(
        x=number * _STEP,
        top=f"{_HEIGHT - good_height - bad_height:.1f}",
        good_top=f"{_HEIGHT - good_height:.1f}",
        good_height=f"{good_height:.1f}",
        bad_height=f"{bad_height:.1f}",
    )


def _box(x: int, top: str, height: str) -> str:
    return f"M{x} {top}h3v{height}h-3z" if height != "0.0" else ""


def _sentence(total: int, bad: int) -> str:
    if not total:
        return _("Nothing sent in the last 24 hours.")
    text = ngettext(
        "Last 24 hours: %(total)s attempt, %(bad)s failed.",
        "Last 24 hours: %(total)s attempts, %(bad)s failed.",
        total,
    )
    return text % {"total": _number(total), "bad": _number(bad)}


def _number(value: int) -> str:
    return str(number_format(value, force_grouping=True))
