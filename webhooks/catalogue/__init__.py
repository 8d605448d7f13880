"""The event catalogue: which event types exist, their variables, and their patterns.

Owns the only dictionary of event types, built from `types`, `variables` and the host project's
setting `WEBHOOKS_EVENT_TYPES`.
"""

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from django.utils.timezone import get_default_timezone
from django.utils.translation import gettext as _

from webhooks.catalogue.types import BUILT_IN, GROUP_LABELS, TEST, EventGroup, EventType
from webhooks.catalogue.variables import (
    ALWAYS,
    CURRENT_NAMES,
    INSTANT,
    OLDER_NAMES,
    VARIABLES,
    Variable,
    VariableType,
    infer,
)

# Only with an offset: text without one may mean anything.
_TIME_WITH_OFFSET = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?[+-]\d\d:?\d\d", re.ASCII
)
_KEY = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")
# The width of Event.type.
_MAX_KEY_LENGTH = 100


class PatternError(ValueError):
    """A list of event types has an entry that cannot be subscribed to."""


def host_types(setting: str | Mapping[str, Any]) -> dict[str, EventType]:
    """Return the event types of `WEBHOOKS_EVENT_TYPES`, a dictionary or the dotted path of one.

    Each value is a label, or a dictionary of `label`, `description` and `sample` (a payload; its
    keys become variables). Raises ImproperlyConfigured that names the wrong key.
    """
    if isinstance(setting, str):
        try:
            setting = import_string(setting)
        except ImportError as error:
            raise ImproperlyConfigured(f"WEBHOOKS_EVENT_TYPES: {error}.") from error
    if not isinstance(setting, Mapping):
        raise ImproperlyConfigured("WEBHOOKS_EVENT_TYPES is a dictionary or the path of one.")
    return {key: _host_type(key, value) for key, value in setting.items()}


def _host_type(key: Any, value: Any) -> EventType:
    if not isinstance(key, str) or not _KEY.fullmatch(key) or len(key) > _MAX_KEY_LENGTH:
        raise ImproperlyConfigured(
            f"WEBHOOKS_EVENT_TYPES: {key!r} is not a key like 'order.paid' in lower case."
        )
    if key.startswith("webhook.") or key in {built_in.key for built_in in BUILT_IN}:
        raise ImproperlyConfigured(f"WEBHOOKS_EVENT_TYPES: {key!r} is the product's own.")
    facts = value if isinstance(value, Mapping) else {"label": value}
    if not facts.get("label") or facts.keys() - {"label", "description", "sample"}:
        raise ImproperlyConfigured(
            f"WEBHOOKS_EVENT_TYPES[{key!r}] has a label and may have a description and a sample."
        )
    sample = facts.get("sample", {})
    if not isinstance(sample, Mapping):
        raise ImproperlyConfigured(f"WEBHOOKS_EVENT_TYPES[{key!r}]: the sample is a dictionary.")
    try:
        written = {name: _as_event(value) for name, value in sample.items()}
        values = json.loads(json.dumps(written, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(
            f"WEBHOOKS_EVENT_TYPES[{key!r}]: the sample is not JSON. {error}."
        ) from error
    return EventType(
        key=key,
        label=facts["label"],
        description=facts.get("description", ""),
        variables=tuple(values),
        sample_values=values,
    )


def _as_event(value: Any) -> Any:
    """Return a sample value as in events: times in UTC, which marks them as times."""
    if isinstance(value, str) and _TIME_WITH_OFFSET.fullmatch(value):
        with suppress(ValueError, OverflowError):
            value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return value
    if value.tzinfo is None:
        value = value.replace(tzinfo=get_default_timezone())
    return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


EVENT_TYPES: dict[str, EventType] = {
    **{built_in.key: built_in for built_in in BUILT_IN},
    **host_types(getattr(settings, "WEBHOOKS_EVENT_TYPES", {})),
}


def groups() -> list[EventGroup]:
    """Return the groups of subscribable event types, in the order of the catalogue."""
    members: dict[str, list[EventType]] = {}
    for event_type in EVENT_TYPES.values():
        if event_type.is_subscribable:
            members.setdefault(event_type.group, []).append(event_type)
    return [
        EventGroup(key=key, label=GROUP_LABELS.get(key, key), types=tuple(types))
        for key, types in members.items()
    ]


def is_known(event_type: str) -> bool:
    return event_type in EVENT_TYPES


def label_of(event_type: str) -> str | Promise:
    """Return the label of an event type, or its key if it is no longer known."""
    known = EVENT_TYPES.get(event_type)
    return known.label if known else event_type


def patterns_for(event_type: str) -> tuple[str, ...]:
    """Return all patterns that match an event type: itself, then wildcards, nearest first."""
    if not is_known(event_type) or not EVENT_TYPES[event_type].is_subscribable:
        return ()
    return _patterns_of(event_type)


# Only known types are cached: other keys may be megabytes of text from a request.
@lru_cache(maxsize=1024)
def _patterns_of(event_type: str) -> tuple[str, ...]:
    parts = event_type.split(".")
    wildcards = (".".join(parts[:size]) + ".*" for size in range(len(parts) - 1, 0, -1))
    return (event_type, *wildcards)


def types_for(patterns: Iterable[str]) -> list[str]:
    """Return the event types that match the patterns, in the order of the catalogue."""
    wanted = set(patterns)
    return [key for key in EVENT_TYPES if not wanted.isdisjoint(patterns_for(key))]


def first_type(patterns: Iterable[str]) -> str:
    """Return the first event type that matches the patterns, or the test event if none does."""
    return next(iter(types_for(patterns)), TEST)


def validate_patterns(patterns: Iterable[object]) -> list[str]:
    """Return the patterns without duplicates. Raise PatternError for an unknown one."""
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise PatternError(_("Event types must be a list of keys."))
    valid = {pattern for event_type in EVENT_TYPES for pattern in patterns_for(event_type)}
    chosen: dict[str, None] = {}
    for pattern in patterns:
        if pattern == TEST:
            raise PatternError(_("The test event is sent by its button and by nothing else."))
        if not isinstance(pattern, str) or pattern not in valid:
            raise PatternError(_("There is no event type “%s”.") % str(pattern)[:100])
        chosen[pattern] = None
    return list(chosen)


def variables_for(event_type: str) -> tuple[Variable, ...]:
    """Return the variables of a known type: those of all events, then its own."""
    known = EVENT_TYPES[event_type]
    return tuple(_variable(name, known) for name in dict.fromkeys((*ALWAYS, *known.variables)))


def _variable(name: str, known: EventType) -> Variable:
    """Return the variable of this name, unless a host project has an object or a list there."""
    common = VARIABLES.get(name)
    has_parts = isinstance(known.sample_values.get(name), dict | list)
    if common is None or (has_parts and common.type is not VariableType.OBJECT):
        return infer(name, known.sample_values[name])
    return common


# The JSON Schema of each type of variable.
_SCHEMAS: dict[VariableType, dict[str, str]] = {
    VariableType.STRING: {"type": "string"},
    VariableType.INTEGER: {"type": "integer"},
    VariableType.NUMBER: {"type": "number"},
    VariableType.BOOLEAN: {"type": "boolean"},
    VariableType.DATETIME: {"type": "string", "format": "date-time"},
    VariableType.URL: {"type": "string", "format": "uri"},
    VariableType.CHOICE: {"type": "string"},
    VariableType.OBJECT: {"type": "object"},
}


def schema(event_type: str) -> dict[str, Any]:
    """Return the JSON Schema of a known type's document; only the common variables are required."""
    properties = {}
    sample = sample_event(event_type)
    for variable in variables_for(event_type):
        if variable.name == "attempt":
            # Not part of the document.
            continue
        found: dict[str, Any] = {**_SCHEMAS[variable.type], "description": str(variable.label)}
        if isinstance(sample[variable.name], list):
            found["type"] = "array"
        elif sample[variable.name] is None:
            # The sample of a host project does not tell which type other values have.
            del found["type"]
        if variable.choices:
            found["enum"] = list(variable.choices)
        properties[variable.name] = found
    properties["event"] = {"const": event_type}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": event_type,
        "type": "object",
        "properties": properties,
        "required": [name for name in ALWAYS if name in properties],
    }


def sample_event(event_type: str) -> dict[str, object]:
    """Return a complete sample document of a known event type, as a receiver gets it."""
    always = {**{name: VARIABLES[name].sample for name in ALWAYS}, "event": event_type}
    # As in a document, these replace fields of the same names.
    document = {**always, **EVENT_TYPES[event_type].sample(), **always}
    # The attempt number is not part of the document, whose bytes never change.
    del document["attempt"]
    return document
