"""Text areas and inputs that hold lists: extra parameters, status codes, words.

Each shows what is stored as text and cleans text to what is stored.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from webhooks import oauth

_MAX_LINES = 30
_MAX_WORDS, _MAX_WORD_LENGTH = 30, 100
_MAX_CODES = 20
# What needs no encoding is typed as it is; spaces and controls never belong into a name.
_NAME = re.compile(r"[\x21-\x3c\x3e-\x7e]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def parameters_text(value: Mapping[str, Any]) -> str:
    """Write parameters as lines of name=value; a list of values repeats the name."""
    pairs = [
        (name, one)
        for name, values in value.items()
        for one in (values if isinstance(values, list) else [values])
    ]
    return "\n".join(f"{name}={one}" for name, one in pairs)


class ParametersField(forms.Field):
    """Lines of name=value; a name may be there several times."""

    def __init__(self, *, reserved: Collection[str], **kwargs: Any) -> None:
        widget = forms.Textarea(
            {"rows": 2, "class": "mono", "autocomplete": "off", "spellcheck": "false"}
        )
        super().__init__(required=False, widget=widget, **kwargs)
        self._reserved = reserved

    def prepare_value(self, value: Any) -> Any:
        return parameters_text(value) if isinstance(value, Mapping) else value

    def to_python(self, value: Any) -> dict[str, Any]:
        if isinstance(value, Mapping):
            return dict(value)
        lines = [line.strip() for line in (value or "").splitlines() if line.strip()]
        if len(lines) > _MAX_LINES:
            raise ValidationError(
                _("At most %(limit)d parameters are allowed."),
                code="too_many",
                params={"limit": _MAX_LINES},
            )
        found: dict[str, Any] = {}
        for name, one in map(_pair, lines):
            if name not in found:
                found[name] = one
            elif isinstance(found[name], list):
                found[name].append(one)
            else:
                found[name] = [found[name], one]
        return found

    def validate(self, value: dict[str, Any]) -> None:
        super().validate(value)
        try:
            oauth.check_parameters(value, self._reserved)
        except oauth.MisconfiguredError as error:
            raise ValidationError(str(error), code="reserved") from error


def _pair(line: str) -> tuple[str, str]:
    name, equals, value = line.partition("=")
    name, value = name.strip(), value.strip()
    if not equals or not _NAME.fullmatch(name) or _CONTROL.search(value):
        raise ValidationError(
            _("“%(line)s” is not a parameter. Write one a line, like access_type=offline."),
            code="invalid",
            params={"line": line[:60]},
        )
    return name, value


class StatusCodesField(forms.Field):
    """Status codes with commas between; cleans to a list, and to [] for the default."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.TextInput(
            {"class": "mono", "autocomplete": "off", "inputmode": "numeric", "placeholder": "401"}
        )
        super().__init__(required=False, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[int]:
        if isinstance(value, list | tuple):
            return list(value)
        typed = [part for part in re.split(r"[\s,;]+", value or "") if part]
        wrong = next((part for part in typed if not re.fullmatch(r"[45][0-9]{2}", part)), None)
        if wrong is not None or len(typed) > _MAX_CODES:
            raise ValidationError(
                _("Status codes are numbers from 400 to 599 with commas between, like 401, 403."),
                code="invalid",
            )
        return list(dict.fromkeys(map(int, typed)))


class WordsField(forms.Field):
    """Words or phrases, one a line."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea({"rows": 2, "autocomplete": "off", "spellcheck": "false"})
        super().__init__(required=False, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[str]:
        if isinstance(value, list | tuple):
            return list(value)
        words = [line.strip() for line in (value or "").splitlines() if line.strip()]
        if len(words) > _MAX_WORDS or any(len(word) > _MAX_WORD_LENGTH for word in words):
            raise ValidationError(
                _("At most %(count)d lines of at most %(length)d characters are allowed."),
                code="too_long",
                params={"count": _MAX_WORDS, "length": _MAX_WORD_LENGTH},
            )
        if wrong := next((word for word in words if len(word) < 3), None):
            raise ValidationError(
                _("“%(word)s” is too short: it would be found in answers that mean other things."),
                code="too_short",
                params={"word": wrong},
            )
        return list(dict.fromkeys(words))
