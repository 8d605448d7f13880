"""How one value of an event is read: its date format and zone, its default, its type."""

import math
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from webhooks.catalogue import INSTANT
from webhooks.payloads.document import instant
from webhooks.payloads.problems import InvalidMapping, Problem
from webhooks.payloads.variables import Fields, as_text, finder, zone_problem

AS_TEXT = "text"
Write = Callable[[datetime], str | int]


class Style(NamedTuple):
    """What is done to a value; empty means as the webhook says."""

    format: str = ""
    time_zone: str = ""
    is_text: bool = False
    has_default: bool = False
    default: Any = None

    def over(self, base: "Style") -> "Style":
        """Return this style with what it leaves open taken from the webhook's."""
        return self._replace(
            format=self.format or base.format, time_zone=self.time_zone or base.time_zone
        )


AS_THE_WEBHOOK = Style()


def make_reader(variable: str, style: Style) -> Callable[[Fields], Any]:
    """Return how to read a variable in a style whose format and zone are set.

    The default stands for a value that is absent, null or empty text.
    """
    find = finder(variable)
    is_as_frozen = (style.format, style.time_zone) == ("iso8601", "UTC")
    write = None if is_as_frozen else date_writer(style.format, style.time_zone)

    def read(fields: Fields) -> Any:
        value = find(fields)
        if style.has_default and (value is None or value == ""):
            value = style.default
        elif write is not None:
            value = rewrite_dates(value, write)
        return as_text(value) if style.is_text else value

    return read


@lru_cache(maxsize=256)
def date_writer(date_format: str, time_zone: str) -> Write:
    """Return how to write an aware moment; raise InvalidMapping for an unknown zone."""
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, OSError, KeyError) as error:
        problem = Problem(sentence=zone_problem(time_zone), field="time_zone")
        raise InvalidMapping(problem) from error
    if date_format == "unix":
        return lambda moment: math.floor(moment.timestamp())
    if date_format == "sql":
        return lambda moment: (
            moment.astimezone(zone).replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
        )
    if time_zone == "UTC":
        return instant
    return lambda moment: moment.astimezone(zone).isoformat()


def rewrite_dates(value: Any, write: Write) -> Any:
    """Write every instant in a value, at any depth, in another way."""
    if isinstance(value, str):
        if not value.endswith("Z") or not INSTANT.fullmatch(value):
            return value
        try:
            return write(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            return value
    if isinstance(value, dict):
        return {key: rewrite_dates(item, write) for key, item in value.items()}
    if isinstance(value, list):
        return [rewrite_dates(item, write) for item in value]
    return value
