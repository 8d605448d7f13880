"""Variables of an event: found by name, older name or path, and formatted."""

import difflib
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.conf import settings
from django.utils.translation import gettext as _

from webhooks import catalogue
from webhooks.catalogue import (
    ALWAYS,
    CURRENT_NAMES,
    INSTANT,
    OLDER_NAMES,
    VARIABLES,
    Variable,
    VariableType,
)
from webhooks.payloads.document import ENCODER, instant, instant_of_text, read_moment, shown
from webhooks.payloads.errors import MappingError, Violation, megabytes
from webhooks.payloads.json_reader import load_typed
from webhooks.payloads.paths import APPEND, Steps, parse_path

# Maximum bytes sent per byte of a value: in JSON text, quotes and backslashes are escaped by a
# backslash; in a form nearly everything is percent-encoded.
TEXT_WEIGHT, FORM_WEIGHT = 2, 3
# The whole event, as it is sent without a mapping.
WHOLE_EVENT = "*"
ATTEMPT = "attempt"
AS_TEXT = "text"
_SUGGESTIONS = 3
# Comparing takes microseconds for each name, and events may have thousands.
_MAX_COMPARED = 500

Fields = Mapping[str, Any]
Find = Callable[[Fields], Any]
Write = Callable[[datetime], str | int]


def known_names() -> set[str]:
    """Return all variables of the catalogue, by current and by older name."""
    own = {name for kind in catalogue.EVENT_TYPES.values() for name in kind.variables}
    return {*VARIABLES, *CURRENT_NAMES, *own, WHOLE_EVENT}


def finder(name: str) -> Find:
    """Return a function that reads a variable from an event's fields, None if it is missing.

    The name is tried as it is, then the value's other name, then as a path.
    """
    if name == WHOLE_EVENT:
        return lambda fields: {key: value for key, value in fields.items() if key != ATTEMPT}
    names = (name, CURRENT_NAMES.get(name) or OLDER_NAMES.get(name) or name)
    path: Steps
    try:
        path = parse_path(name)
    except ValueError:
        # A filter may go deeper than a row may.
        path = tuple(name.split("."))
    head, steps = str(path[0]), path[1:]
    other_head = CURRENT_NAMES.get(head) or OLDER_NAMES.get(head) or head

    def find(fields: Fields) -> Any:
        for one in names:
            if one in fields:
                return fields[one]
        if not steps:
            # The name has escaped dots or brackets.
            return fields.get(head)
        return _follow(fields.get(head, fields.get(other_head)), steps)

    return find


def _follow(value: Any, steps: Steps) -> Any:
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(str(step))
        elif isinstance(value, list) and str(step).isdecimal():
            value = value[int(str(step))] if int(str(step)) < len(value) else None
        else:
            return None
    return value


def path_problem(name: str) -> str:
    """Return why `finder` can never read anything by this name, or ""."""
    try:
        steps = parse_path(name)
    except ValueError as error:
        is_only_deep = all(name.split(".")) and not any(sign in name for sign in "[]\\")
        return "" if is_only_deep else str(error)
    return _appends() if APPEND in steps else ""


def _appends() -> str:
    return _("[] adds to a list; to read one element write its number, like “items[0]”.")


def variable_problem(name: str, known: Collection[str]) -> str:
    """Return what to do about a variable that no event has, or "" if one may have it."""
    if not name:
        return _("Choose a variable, for example “client_number”.")
    if name in known:
        return ""
    try:
        head, *steps = parse_path(name)
    except ValueError as error:
        return str(error)
    if head not in known:
        return _unknown(name if not steps else str(head), known)
    if APPEND in steps:
        return _appends()
    variable = VARIABLES.get(CURRENT_NAMES.get(str(head), str(head)))
    if steps and variable is not None and not _has_parts(variable):
        return _("“%s” is a single value without parts. Remove what follows it.") % head
    return ""


def _has_parts(variable: Variable) -> bool:
    """Return whether some event type has an object or a list by this name."""
    samples = (kind.sample_values.get(variable.name) for kind in catalogue.EVENT_TYPES.values())
    return variable.type is VariableType.OBJECT or any(
        isinstance(sample, dict | list) for sample in samples
    )


def _unknown(name: str, known: Collection[str]) -> str:
    names = sorted(known if len(known) <= _MAX_COMPARED else known_names())
    near = difflib.get_close_matches(name.lower(), names, n=_SUGGESTIONS, cutoff=0.6)
    if near:
        return _("There is no variable “%(name)s”. Did you mean %(names)s?") % {
            "name": shown(name),
            "names": ", ".join(f"“{one}”" for one in near),
        }
    return _("There is no variable “%s”. Choose one from the list of variables.") % shown(name)


def size_problem(uses: Iterable[tuple[str, int]], *, fixed_bytes: int) -> str:
    """Return why the body for the largest event would be too large, or "".

    `uses` are variables, each with the maximum bytes sent per byte of its value. The largest event
    may consist almost entirely of one variable, so the most used variable decides.
    """
    weights: Counter[str] = Counter()
    for name, weight in uses:
        # The product's own variables are short.
        if (head := _head(name)) not in ALWAYS:
            weights[head] += weight
    whole = weights.pop(WHOLE_EVENT, 0)
    name, weight = next(iter(weights.most_common(1)), (WHOLE_EVENT, 0))
    largest = fixed_bytes + (weight + whole) * settings.WEBHOOKS_MAX_PAYLOAD_BYTES
    if largest <= settings.WEBHOOKS_MAX_BODY_BYTES:
        return ""
    return _(
        "The largest event would make a body of %(size)s MB, more than the %(limit)s MB that are "
        "sent. Use “%(name)s” fewer times."
    ) % {
        "size": megabytes(largest),
        "limit": megabytes(settings.WEBHOOKS_MAX_BODY_BYTES),
        "name": shown(name if weight >= whole else WHOLE_EVENT),
    }


def _head(name: str) -> str:
    """Return the current name of the top-level variable that a name refers to."""
    try:
        head = str(parse_path(name)[0]) if name != WHOLE_EVENT else name
    except ValueError:
        head = name
    return CURRENT_NAMES.get(name) or CURRENT_NAMES.get(head) or head


def zone_problem(name: str) -> str:
    """Return what is wrong with a time zone's name, or "" if it is valid."""
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        return _("There is no time zone “%s”. Write one like “Europe/Kyiv”.") % shown(name)
    return ""


def typed_default(variable: str, text: str) -> Any:
    """Return a typed default in the variable's type if possible, else as text."""
    known = VARIABLES.get(CURRENT_NAMES.get(variable, variable))
    kinds: dict[VariableType, tuple[type, ...]] = {
        VariableType.INTEGER: (int,),
        VariableType.NUMBER: (int, float),
        VariableType.BOOLEAN: (bool,),
    }
    if known is None or known.type not in kinds:
        return text
    try:
        value = load_typed(text)
    except ValueError:
        return text
    # Python reads NaN, and too large a number as infinity; neither is JSON.
    is_finite = not isinstance(value, float) or math.isfinite(value)
    return value if type(value) in kinds[known.type] and is_finite else text


def as_text(value: Any) -> str:
    """Return a value as text for a form, a query string or within text; null is empty."""
    if isinstance(value, str):
        return value
    return "" if value is None else ENCODER.encode(value)


def is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


class Style(NamedTuple):
    """How a value is formatted; empty fields mean the webhook's settings."""

    format: str = ""
    time_zone: str = ""
    is_text: bool = False
    has_default: bool = False
    default: Any = None
    # Whether the format or time zone was chosen for this value rather than for the webhook.
    is_own: bool = False

    def over(self, base: "Style") -> "Style":
        """Return this style with its empty fields taken from the webhook's."""
        return self._replace(
            format=self.format or base.format,
            time_zone=self.time_zone or base.time_zone,
            is_own=bool(self.format or self.time_zone),
        )


AS_THE_WEBHOOK = Style()


def make_reader(variable: str, style: Style) -> Find:
    """Return a function that reads a variable in a style with format and time zone set.

    The default replaces a value that is absent, null or empty text.
    """
    find = finder(variable)
    is_as_frozen = (style.format, style.time_zone) == ("iso8601", "UTC")
    write = None if is_as_frozen else date_writer(style.format, style.time_zone)

    def read(fields: Fields) -> Any:
        value = find(fields)
        if style.has_default and (value is None or value == ""):
            value = style.default
        else:
            if style.is_own and isinstance(value, str):
                # A format was requested explicitly, so times with an offset are converted too.
                value = instant_of_text(value)
            if write is not None:
                value = rewrite_dates(value, write)
        return as_text(value) if style.is_text else value

    return read


@lru_cache(maxsize=256)
def date_writer(date_format: str, time_zone: str) -> Write:
    """Return a function that writes an aware time. Raise MappingError for an unknown zone."""
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, OSError, KeyError) as error:
        problem = Violation(sentence=zone_problem(time_zone), field="time_zone")
        raise MappingError(problem) from error
    if date_format == "unix":
        return lambda moment: math.floor(moment.timestamp())
    if date_format == "sql":
        return lambda moment: (
            moment.astimezone(zone).replace(tzinfo=None).isoformat(sep=" ", timespec="seconds")
        )
    if time_zone == "UTC":
        return instant
    return lambda moment: _local(moment.astimezone(zone)).isoformat()


def _local(moment: datetime) -> datetime:
    """Return a time whose offset has whole minutes, as ISO 8601 requires.

    Local mean times, used before standard time zones, have offsets with seconds.
    """
    minutes = (moment.utcoffset() or timedelta()).total_seconds() / 60
    if minutes.is_integer():
        return moment
    return moment.astimezone(timezone(timedelta(minutes=round(minutes))))


def rewrite_dates(value: Any, write: Write) -> Any:
    """Rewrite every time in a value, at any depth."""
    if isinstance(value, str):
        if not value.endswith("Z") or not INSTANT.fullmatch(value):
            return value
        try:
            return write(read_moment(value))
        except (ValueError, OverflowError):
            return value
    if isinstance(value, dict):
        return {key: rewrite_dates(item, write) for key, item in value.items()}
    if isinstance(value, list):
        return [rewrite_dates(item, write) for item in value]
    return value
