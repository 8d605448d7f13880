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
    # The value is a suggestion that most people change.
    asks_value: bool = False

    @property
    def conditions(self) -> list[Mapping[str, Any]]:
        return list(self.tree["all"])


_AFTER = ("call.incoming.after", "call.outgoing.after")


def _preset(
    key: str, label: "StrOrPromise", variable: str, value: object, operator: str = "equals"
) -> Preset:
    return Preset(
        key=key,
        label=label,
        event_types=_AFTER[:1] if variable == "insertion_type" else _AFTER,
        tree={"all": [{"variable": variable, "operator": operator, "value": value}]},
        asks_value=operator != "equals",
    )


PRESETS: tuple[Preset, ...] = (
    _preset("missed", gettext_lazy("Missed calls"), "disposition", "NO ANSWER"),
    _preset("busy", gettext_lazy("Busy"), "disposition", "BUSY"),
    _preset("failed", gettext_lazy("Failed calls"), "disposition", "FAILED"),
    _preset("voicemail", gettext_lazy("Voicemail"), "disposition", "VOICEMAIL"),
    _preset("answered", gettext_lazy("Answered calls"), "disposition", "ANSWERED"),
    _preset("callback", gettext_lazy("Callbacks"), "insertion_type", "callback"),
    # Half a minute tells a conversation from a wrong number.
    _preset("longer", gettext_lazy("Longer than …"), "duration_seconds", 30, "greater_than"),
    _preset("repeated", gettext_lazy("Repeated calls"), "is_repeated", True),
    _preset("first", gettext_lazy("First calls"), "call_counter", 1),
    _preset("target", gettext_lazy("Target calls"), "is_proper", True),
    _preset("recorded", gettext_lazy("With a recording"), "has_recording", True),
)
