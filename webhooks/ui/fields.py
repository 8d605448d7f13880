"""Form fields of our own: the write-only secret and the grouped event types."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.datastructures import MultiValueDict
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue

# What the Clear checkbox turns a secret into, apart from text that was typed.
CLEAR = object()


class CopyInput(forms.TextInput):
    """A text input with a button that copies its value."""

    template_name = "webhooks/ui/_field_copy.html"


class SecretInput(forms.PasswordInput):
    """A password input that never holds a value, with what is stored and a Clear checkbox."""

    template_name = "webhooks/ui/_field_secret.html"
    is_set = False
    is_typed = False
    is_cleared = False
    changed_at: str = ""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        # "new-password" keeps browsers from filling in the person's own login.
        super().__init__({"autocomplete": "new-password", "spellcheck": "false", **(attrs or {})})

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, None, attrs)
        context["widget"].update(
            is_set=self.is_set,
            is_typed=self.is_typed,
            is_cleared=self.is_cleared,
            changed_at=parse_datetime(self.changed_at) if self.changed_at else None,
            clear_name=f"{name}-clear",
            clear_id=f"{context['widget']['attrs'].get('id', name)}-clear",
        )
        return context

    def value_from_datadict(
        self, data: Mapping[str, Any], files: MultiValueDict[str, Any], name: str
    ) -> Any:
        typed = super().value_from_datadict(data, files, name)
        if not data.get(f"{name}-clear"):
            return typed
        return (CLEAR, typed) if typed else CLEAR

    def value_omitted_from_data(
        self, data: Mapping[str, Any], files: MultiValueDict[str, Any], name: str
    ) -> bool:
        return name not in data and f"{name}-clear" not in data


class SecretFormField(forms.CharField):
    """Clean to the typed text, `CLEAR`, or an empty string that keeps what is stored."""

    widget = SecretInput
    # Generous: some providers' client secrets are whole keys.
    _max_length = 4096

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False, strip=kwargs.pop("strip", False), max_length=self._max_length, **kwargs
        )

    def clean(self, value: Any) -> Any:
        if value is CLEAR:
            return CLEAR
        if isinstance(value, tuple):
            raise ValidationError(
                _("Either type a new value or tick Clear, not both."), code="contradiction"
            )
        return super().clean(value)


def limit_field(label: Any, most: int, sentence: Any, help_text: Any) -> forms.IntegerField:
    """Make the field of a limit from 1 to `most`, or none; `sentence` says both when refused."""
    return forms.IntegerField(
        label=label,
        min_value=1,
        max_value=most,
        required=False,
        help_text=help_text,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), sentence),
    )


class EventTypesInput(forms.CheckboxSelectMultiple):
    """Checkboxes by group, each group with its wildcard first."""

    template_name = "webhooks/webhook_form/_field_events.html"

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        chosen = set(value or ())
        prefix = context["widget"]["attrs"].get("id", f"id_{name}")
        context["widget"]["groups"] = [
            {
                "label": group.label,
                "wildcard": _box(group.wildcard, chosen, prefix),
                "types": [
                    {**_box(event.key, chosen, prefix), "event": event} for event in group.types
                ],
            }
            for group in catalogue.groups()
        ]
        known = {key for group in catalogue.groups() for key in _keys(group)}
        context["widget"]["others"] = [
            _box(pattern, chosen, prefix) for pattern in sorted(chosen - known)
        ]
        return context


class EventTypesField(forms.Field):
    """A list of event type keys and group wildcards, without what a wildcard already covers."""

    widget = EventTypesInput
    default_error_messages = {
        "required": _(
            "Choose at least one event type, for example “Incoming call: after the call”."
        ),
    }

    def to_python(self, value: Any) -> list[str]:
        return list(dict.fromkeys(value or ()))

    def validate(self, value: list[str]) -> None:
        super().validate(value)
        try:
            catalogue.validate_patterns(value)
        except catalogue.InvalidPattern as error:
            raise ValidationError(str(error), code="unknown") from error

    def clean(self, value: Any) -> list[str]:
        patterns: list[str] = super().clean(value)
        return [pattern for pattern in patterns if not _is_covered(pattern, patterns)]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return set(initial or ()) != set(data or ())


def _is_covered(pattern: str, patterns: list[str]) -> bool:
    if not pattern.endswith("*"):
        return any(other.endswith("*") and catalogue.matches(other, pattern) for other in patterns)
    covered = set(catalogue.types_for([pattern]))
    return any(covered < set(catalogue.types_for([other])) for other in patterns)


def _keys(group: catalogue.Group) -> set[str]:
    return {group.wildcard, *(event.key for event in group.types)}


def _box(value: str, chosen: set[str], prefix: str) -> dict[str, Any]:
    slug = value.replace(".", "-").replace("*", "all")
    return {"value": value, "is_checked": value in chosen, "id": f"{prefix}_{slug}"}
