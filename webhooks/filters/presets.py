"""Filters chosen by one click."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext_lazy

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A filter that is chosen by one click, for the event types it makes sense for."""

    key: str
    label: "StrOrPromise"
    event_types: tuple[str, ...]
    tree: Mapping[str, Any]


def _preset(key: str, label: "StrOrPromise", variable: str, value: str) -> Preset:
    return Preset(
        key=key,
        label=label,
        event_types=("call.incoming.after", "call.outgoing.after"),
        tree={"all": [{"variable": variable, "operator": "equals", "value": value}]},
    )


PRESETS: tuple[Preset, ...] = (
    _preset("missed", gettext_lazy("Missed calls"), "disposition", "NO ANSWER"),
    _preset("busy", gettext_lazy("Busy"), "disposition", "BUSY"),
    _preset("failed", gettext_lazy("Failed calls"), "disposition", "FAILED"),
    _preset("voicemail", gettext_lazy("Voicemail"), "disposition", "VOICEMAIL"),
    _preset("callback", gettext_lazy("Callbacks"), "insertion_type", "callback"),
)
