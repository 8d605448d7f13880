"""The list to pick variables from: what each means, a sample, and which events have it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from webhooks import catalogue
from webhooks.catalogue import VariableType
from webhooks.payloads.variables import as_text

_SAMPLE_LENGTH = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One variable of the list. `types` are the numbers of the events that have it."""

    name: str
    older_name: str
    label: Any
    description: Any
    type: str
    sample: str
    types: str
    is_offered: bool


def entries(patterns: Iterable[str]) -> list[Entry]:
    """Return every variable; those of no chosen event are there and not offered."""
    numbers = event_numbers()
    carried: dict[str, tuple[Any, list[int]]] = {}
    for key, number in numbers.items():
        for variable in catalogue.variables_for(key):
            carried.setdefault(variable.name, (variable, []))[1].append(number)
    chosen = {numbers[key] for key in catalogue.types_for(patterns)}
    # What only some events have is what people look for; what all have comes last.
    ordered = sorted(carried.values(), key=lambda pair: pair[0].name in catalogue.ALWAYS)
    return [_entry(variable, types, chosen) for variable, types in ordered]


def event_numbers() -> dict[str, int]:
    """Return a short number for each event type that can be chosen."""
    types = [kind for kind in catalogue.EVENT_TYPES.values() if kind.is_subscribable]
    return {kind.key: number for number, kind in enumerate(types)}


def _entry(variable: catalogue.Variable, types: Collection[int], chosen: set[int]) -> Entry:
    sample = as_text(variable.sample)
    if len(sample) > _SAMPLE_LENGTH:
        sample = sample[: _SAMPLE_LENGTH - 1] + "…"
    return Entry(
        name=variable.name,
        older_name=variable.older_name or "",
        label=variable.label,
        description=variable.description or _choices(variable),
        type=type_label(variable.type),
        sample=sample,
        types=" ".join(map(str, types)),
        is_offered=not chosen or bool(chosen.intersection(types)),
    )


def _choices(variable: catalogue.Variable) -> str:
    return ", ".join(variable.choices)


def type_label(kind: VariableType) -> str:
    labels = {
        VariableType.STRING: _("text"),
        VariableType.INTEGER: _("number"),
        VariableType.NUMBER: _("number"),
        VariableType.BOOLEAN: _("true or false"),
        VariableType.DATETIME: _("date"),
        VariableType.URL: _("address"),
        VariableType.CHOICE: _("choice"),
        VariableType.OBJECT: _("object"),
    }
    return labels[kind]
