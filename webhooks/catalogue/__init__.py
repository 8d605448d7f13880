"""The event catalogue: which types exist, what they carry, and which pattern means which type.

Owns the one dictionary of event types, built from `types`, `variables` and the host project's
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

# With an offset: the text of another one may be anything.
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d{1,9})?[+-]\d\d:?\d\d", re.ASCII)
_KEY = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)+")
# The width of Event.type.
_MAX_KEY_LENGTH = 100


class PatternError(ValueError):
    """A list of event types names something that cannot be subscribed to."""


def host_types(setting: str | Mapping[str, Any]) -> dict[str, EventType]:
    """Return the event types of `WEBHOOKS_EVENT_TYPES`, a dictionary or the dotted path of one.

    Each value is a label, or a dictionary of `label`, `description` and `sample` (a payload; its
    keys become variables). Raises ImproperlyConfigured with the key that is wrong.
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
    """Return a sample value as events have it: a moment is in UTC, which shows that it is one."""
    if isinstance(value, str) and _MOMENT.fullmatch(value):
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
    """Return what can be subscribed to, group by group, in the order of the catalogue."""
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
    """Return the label of a type; of one that is no longer known, its key."""
    known = EVENT_TYPES.get(event_type)
    return known.label if known else event_type


def patterns_for(event_type: str) -> tuple[str, ...]:
    """Return every pattern that covers the type: itself, then its wildcards, nearest first."""
    if not is_known(event_type) or not EVENT_TYPES[event_type].is_subscribable:
        return ()
    return _patterns_of(event_type)


# Of known types alone: what is asked for may be any text of a request, of megabytes.
@lru_cache(maxsize=1024)
def _patterns_of(event_type: str) -> tuple[str, ...]:
    parts = event_type.split(".")
    wildcards = (".".join(parts[:size]) + ".*" for size in range(len(parts) - 1, 0, -1))
    return (event_type, *wildcards)


def types_for(patterns: Iterable[str]) -> list[str]:
    """Return the event types that patterns cover, in the order of the catalogue."""
    wanted = set(patterns)
    return [key for key in EVENT_TYPES if not wanted.isdisjoint(patterns_for(key))]


def first_type(patterns: Iterable[str]) -> str:
    """Return the first event type that the patterns cover; the test event when none."""
    return next(iter(types_for(patterns)), TEST)


def validate_patterns(patterns: Iterable[object]) -> list[str]:
    """Return the patterns without repetitions; raise PatternError for one that means nothing."""
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
    """Return the variables of a known type: those of every event, then its own."""
    known = EVENT_TYPES[event_type]
    return tuple(
        VARIABLES.get(name) or infer(name, known.sample_values[name])
        for name in dict.fromkeys((*ALWAYS, *known.variables))
    )


# Of JSON Schema: how a variable of each type is written.
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
    """Return the JSON Schema of the document of a known type; only what each has is required."""
    properties = {}
    for variable in variables_for(event_type):
        if variable.name == "attempt":
            # No part of the document.
            continue
        found: dict[str, Any] = {**_SCHEMAS[variable.type], "description": str(variable.label)}
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
    """Return a whole event document of a known type, as a receiver gets it."""
    # The number of the attempt is no part of the document: its bytes never change.
    always = {name: VARIABLES[name].sample for name in ALWAYS if name != "attempt"}
    return {**always, **EVENT_TYPES[event_type].sample(), "event": event_type}
