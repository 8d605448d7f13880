"""docs/events.md: every event type with a sample, and every variable, from the catalogue."""

import json
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from django.utils.translation import override

from tests.docs.page import ROOT, GeneratedPage, table
from webhooks import catalogue
from webhooks.catalogue import EVENT_TYPES, VARIABLES, EventType, Variable

_SAMPLE_WIDTH = 98


def types_with(variable: str) -> tuple[str, ...]:
    """Return the keys of the event types that carry a variable."""
    return tuple(
        key
        for key in EVENT_TYPES
        if variable in {found.name for found in catalogue.variables_for(key)}
    )


def _generate() -> str:
    with override("en"):
        return "\n".join([*_types(), *_variables()])


def _types() -> Iterator[str]:
    yield f"## Event types\n\nThere are {len(EVENT_TYPES)}.\n"
    yield table(["type", "when"], [[_link(one), _moment(one)] for one in EVENT_TYPES.values()])
    for group in catalogue.groups():
        yield f"### {group.label}: `{group.wildcard}`\n"
        for event_type in EVENT_TYPES.values():
            if event_type.group == group.key:
                sample = _wrapped(catalogue.sample_event(event_type.key))
                yield f"#### `{event_type.key}`\n\n```json\n{sample}\n```\n"


def _link(event_type: EventType) -> str:
    # The anchor that GitHub and others give to the heading of a type.
    return f"[`{event_type.key}`](#{event_type.key.replace('.', '')})"


def _moment(event_type: EventType) -> str:
    return f"{event_type.label}. {event_type.description}".strip()


def _wrapped(document: dict[str, object]) -> str:
    """Return JSON with as many fields per line as fit."""
    # Spaces within a field are replaced, so that no field is wrapped in the middle.
    fields = [
        f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}".replace(" ", "\0")
        for name, value in document.items()
    ]
    lines = textwrap.wrap(
        ", ".join(fields),
        _SAMPLE_WIDTH,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(["{", *lines, "}"]).replace("\0", " ")


def _variables() -> Iterator[str]:
    yield f"## Variables\n\nThere are {len(VARIABLES)}, here by the events that carry them.\n"
    together: dict[tuple[str, ...], list[Variable]] = {}
    for variable in VARIABLES.values():
        together.setdefault(types_with(variable.name), []).append(variable)
    for keys, variables in together.items():
        yield f"### In {_shortened(keys)}\n"
        yield table(["variable", "meaning", "type", "example", "older name"], map(_row, variables))


def _shortened(keys: Sequence[str]) -> str:
    """Return the names of event types, with a wildcard for a whole group."""
    if len(keys) == len(EVENT_TYPES):
        return "every event"
    names = []
    for group, found in groupby(keys, key=lambda key: EVENT_TYPES[key].group):
        members = list(found)
        whole = [key for key, one in EVENT_TYPES.items() if one.group == group]
        names += [f"{group}.*"] if members == whole and len(whole) > 1 else members
    return ", ".join(f"`{name}`" for name in names)


def _row(variable: Variable) -> list[str]:
    meaning = f"{variable.label}. {variable.description}".strip()
    if variable.choices:
        meaning += f" One of {', '.join(f'`{one}`' for one in variable.choices)}."
    return [
        f"`{variable.name}`",
        meaning,
        variable.type.value + ", phone number" * variable.is_phone,
        f"`{json.dumps(variable.sample, ensure_ascii=False)}`",
        f"`{variable.older_name}`" if variable.older_name else "",
    ]


PAGE = GeneratedPage(ROOT / "docs" / "events.md", _generate)
