"""Custom form fields: write-only secrets, grouped event types, and lists as text."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import ProhibitNullCharactersValidator
from django.utils.datastructures import MultiValueDict
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, oauth
from webhooks.network import UnsafeURLError
from webhooks.security import pem
from webhooks.security.masker import MASK

# Cleaned value of a secret whose Clear checkbox is ticked; never equal to typed text.
CLEAR = object()
# Shown in the empty input of a stored secret, whatever its length.
_STORED = "••••••••"
# Limits of the fields that hold lists as text.
_MAX_LINES = 30
_MAX_WORDS, _MAX_WORD_LENGTH = 30, 100
_MAX_CODES = 20
# A parameter name: visible ASCII without “=”, which ends the name.
_NAME = re.compile(r"[\x21-\x3c\x3e-\x7e]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Actions of the buttons on a row of a list.
MOVES = (("up", _("Move up")), ("down", _("Move down")), ("remove", _("Remove")))


class CopyInput(forms.TextInput):
    """A text input with a button that copies its value."""

    template_name = "webhooks/ui/_field_copy.html"


class SecretInput(forms.PasswordInput):
    """A password input that never renders its value; shows whether it is set, and can clear it."""

    template_name = "webhooks/ui/_field_secret.html"
    input_template = "django/forms/widgets/input.html"
    is_set = False
    is_typed = False
    is_cleared = False
    changed_at: str = ""

    def __init__(self, attrs: dict[str, Any] | None = None) -> None:
        # "new-password" keeps browsers from filling in the user's saved login.
        super().__init__({"autocomplete": "new-password", "spellcheck": "false", **(attrs or {})})

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, None, attrs)
        if self.is_set:
            context["widget"]["attrs"].setdefault("placeholder", _STORED)
        context["widget"].update(
            input_template=self.input_template,
            is_set=self.is_set,
            is_typed=self.is_typed,
            is_cleared=self.is_cleared,
            set_at=parse_datetime(self.changed_at) if self.changed_at else None,
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


class SecretLines(SecretInput):
    """A `SecretInput` for a secret of several lines, such as a PEM key."""

    input_template = "django/forms/widgets/textarea.html"

    def __init__(self) -> None:
        super().__init__({"rows": 3, "class": "mono", "autocomplete": "off"})


# Help of the checkbox that allows secrets to be sent over plain http.
PLAIN_HTTP_HELP = _("Anyone on the network can read them. Only for networks you control.")


def plain_http_refusal(origin: str) -> str:
    """Return why a plain http URL cannot be saved without that checkbox."""
    return gettext(
        "%(origin)s is not encrypted, and secrets would be sent to it. Use an https:// "
        "address, or tick this box."
    ) % {"origin": origin}


class SecretFormField(forms.CharField):
    """Clean to the typed text, `CLEAR`, or an empty string that keeps the stored secret."""

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
                _("Enter a new value or tick “Remove the stored secret”, not both."),
                code="contradiction",
            )
        typed = super().clean(value)
        if typed == MASK:
            # Copied from a preview or a log.
            raise ValidationError(
                _("These asterisks stand for a secret. Enter the secret itself."), code="mask"
            )
        return typed


class SecretLinesField(SecretFormField):
    """A secret of several lines; `check` raises PEMError or MisconfiguredError if it is wrong."""

    # Fits a certificate chain and a 4096-bit key.
    _max_length = 20_000

    def __init__(self, *, check: Callable[[str], object], **kwargs: Any) -> None:
        super().__init__(strip=True, widget=SecretLines, **kwargs)
        self._check = check

    def clean(self, value: Any) -> Any:
        typed = super().clean(value)
        if isinstance(typed, str) and typed:
            try:
                self._check(typed)
            except pem.PEMError as error:
                raise ValidationError(_PEM_SENTENCES[error.code], code=error.code) from error
            except oauth.MisconfiguredError as error:
                raise ValidationError(str(error), code="invalid") from error
        return typed


_PEM_SENTENCES = {
    "no_key": _(
        "There is no RSA or EC private key in it. Paste the whole PEM, from “-----BEGIN” to the "
        "last “-----”."
    ),
    "encrypted_key": _(
        "This key has a password. Remove it, for example with “openssl pkey -in key.pem”."
    ),
    "short_key": _("An RSA key needs 2048 bits or more. Make a new one."),
    "other_curve": _("An EC key needs the curve P-256, P-384 or P-521. Make a new one."),
    "no_certificate": _("There is no certificate in it. Paste it and its private key, both PEM."),
    "other_key": _("The certificate and the private key do not belong together."),
}


def is_visible(name: str) -> bool:
    """Return whether a name has at least one visible character."""
    return any(one.isprintable() and not one.isspace() for one in name)


def require_visible(text: str) -> None:
    """Raise ValidationError for a name without a visible character."""
    if not is_visible(text):
        raise ValidationError(gettext("Enter a name."), code="required")


def focus_mistake(form: forms.BaseForm) -> None:
    """Give the first field with an error the focus when the page opens."""
    if wrong := next(filter(form.errors.__contains__, form.fields), None):
        form.fields[wrong].widget.attrs["autofocus"] = True


class NumberText(forms.TextInput):
    """A text input for a whole number, for forms with `novalidate`.

    In these, an input of type number posts nothing for “1-5”, or in Firefox for “15 s”.
    """

    def __init__(self) -> None:
        super().__init__({"class": "is-number", "inputmode": "numeric", "autocomplete": "off"})


def limit_field(label: Any, most: int, sentence: Any, help_text: Any) -> forms.IntegerField:
    """Return the field of an optional limit from 1 to `most`; `sentence` is its error message."""
    return forms.IntegerField(
        label=label,
        min_value=1,
        max_value=most,
        required=False,
        widget=NumberText(),
        help_text=help_text,
        error_messages=dict.fromkeys(("invalid", "min_value", "max_value"), sentence),
    )


class RowsField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]
    """Rows by primary key; a key too large for SQLite is an invalid choice, as on PostgreSQL."""

    def clean(self, value: Any) -> Any:
        try:
            return super().clean(value)
        except OverflowError:
            largest = {"value": max(value, key=len)[:40]}
            message = self.error_messages["invalid_choice"]
            raise ValidationError(message, code="invalid_choice", params=largest) from None


class EventTypesInput(forms.CheckboxSelectMultiple):
    """Checkboxes by group, each group's wildcard first; collapsed, it shows what is selected."""

    template_name = "webhooks/webhook_form/_field_events.html"

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        widget = context["widget"]
        chosen = set(value or ())
        prefix = widget["attrs"].setdefault("id", f"id_{name}")
        groups = catalogue.groups()
        known = {group.wildcard for group in groups}
        known.update(event.key for group in groups for event in group.types)
        others = sorted(chosen - known)
        widget |= {
            "groups": [
                {
                    "label": group.label,
                    "wildcard": _checkbox(group.wildcard, chosen, prefix),
                    "types": [
                        {
                            **_checkbox(event.key, chosen, prefix),
                            "event": event,
                            "short": _short_label(event),
                        }
                        for event in group.types
                    ],
                }
                for group in groups
            ],
            "others": [_checkbox(pattern, chosen, prefix) for pattern in others],
            "chosen": "; ".join([*filter(None, (_chosen(one, chosen) for one in groups)), *others]),
            "count": len(catalogue.types_for(chosen)),
        }
        return context


def _chosen(group: catalogue.EventGroup, chosen: set[str]) -> str:
    """Summarize the selected types of a group, for example “Incoming calls: all”."""
    words = [_short_label(event) for event in group.types if event.key in chosen]
    if group.wildcard in chosen:
        words = [gettext("all")]
    return f"{group.label}: {', '.join(words)}" if words else ""


def _short_label(event: catalogue.EventType) -> str:
    """Return a type's label without the part that names its group."""
    return str(event.label).rpartition(": ")[2]


class EventTypesField(forms.Field):
    """A list of event type keys and group wildcards, without those another wildcard covers."""

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
        except catalogue.PatternError as error:
            raise ValidationError(str(error), code="unknown") from error

    def clean(self, value: Any) -> list[str]:
        patterns: list[str] = super().clean(value)
        return [pattern for pattern in patterns if not _is_covered(pattern, patterns)]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return set(initial or ()) != set(data or ())


def _is_covered(pattern: str, patterns: list[str]) -> bool:
    if not pattern.endswith("*"):
        return not set(catalogue.patterns_for(pattern)[1:]).isdisjoint(patterns)
    covered = set(catalogue.types_for([pattern]))
    return any(covered < set(catalogue.types_for([other])) for other in patterns)


def _checkbox(value: str, chosen: set[str], prefix: str) -> dict[str, Any]:
    slug = value.replace(".", "-").replace("*", "all")
    return {"value": value, "is_checked": value in chosen, "id": f"{prefix}_{slug}"}


# ---- Lists as text -----------------------------------------------------------------------------


def parameters_text(value: Mapping[str, Any]) -> str:
    """Write parameters as lines of name=value; a list of values repeats the name."""
    pairs = [
        (name, one)
        for name, values in value.items()
        for one in (values if isinstance(values, list) else [values])
    ]
    return "\n".join(f"{name}={one}" for name, one in pairs)


class ParametersField(forms.Field):
    """Lines of name=value; a name may be repeated."""

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
        lines = [line.strip() for line in str(value or "").splitlines() if line.strip()]
        if len(lines) > _MAX_LINES:
            raise ValidationError(
                gettext("At most %(limit)d parameters are allowed."),
                code="too_many",
                params={"limit": _MAX_LINES},
            )
        return oauth.as_mapping(map(_pair, lines))

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
            gettext("“%(line)s” is not a parameter. Enter one per line, like access_type=offline."),
            code="invalid",
            params={"line": line[:60]},
        )
    return name, value


# PostgreSQL cannot store NUL; Django's CharField rejects it already.
_refuse_null = ProhibitNullCharactersValidator()


class ListField(forms.Field):
    """A list typed as text and split at `separators`; cleans to a list."""

    widget: forms.Widget = forms.Textarea({"rows": 2, "autocomplete": "off", "spellcheck": "false"})
    separators = r"[\s,;]+"
    # Maximum number of items, 0 for no limit here, and the error message above it.
    limit = 0
    too_many: Any = ""

    def __init__(self, *, required: bool = False, **kwargs: Any) -> None:
        super().__init__(required=required, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return self.write(value) if isinstance(value, list | tuple) else value

    def write(self, values: Sequence[Any]) -> str:
        return "\n".join(map(str, values))

    def to_python(self, value: Any) -> list[Any]:
        if isinstance(value, list | tuple):
            return list(value)
        text = str(value or "")
        _refuse_null(text)
        parts = re.split(self.separators, text)
        found = self.read([part.strip() for part in parts if part.strip()])
        if self.limit and len(found) > self.limit:
            counts = {"count": len(found), "limit": self.limit}
            raise ValidationError(self.too_many, code="too_many", params=counts)
        return found

    def read(self, typed: list[str]) -> list[Any]:
        """Return the values of the typed items; raise ValidationError that says what to change."""
        raise NotImplementedError


class StatusCodesField(ListField):
    """Comma-separated status codes; cleans to a list, and to [] for the default."""

    widget = forms.TextInput(
        {"class": "mono", "autocomplete": "off", "inputmode": "numeric", "placeholder": "401"}
    )
    pattern = "[45][0-9]{2}"
    mistake = _("Enter status codes from 400 to 599, separated by commas, like 401, 403.")

    def write(self, values: Sequence[int]) -> str:
        return ", ".join(map(str, values))

    def read(self, typed: list[str]) -> list[int]:
        is_right = all(re.fullmatch(self.pattern, part) for part in typed)
        if not is_right or len(typed) > _MAX_CODES:
            raise ValidationError(self.mistake, code="invalid")
        return list(dict.fromkeys(map(int, typed)))


class WordsField(ListField):
    """Words or phrases, one per line."""

    separators = r"[\r\n]+"

    def read(self, words: list[str]) -> list[str]:
        if len(words) > _MAX_WORDS or any(len(word) > _MAX_WORD_LENGTH for word in words):
            raise ValidationError(
                gettext("At most %(count)d lines of at most %(length)d characters are allowed."),
                code="too_long",
                params={"count": _MAX_WORDS, "length": _MAX_WORD_LENGTH},
            )
        if wrong := next((word for word in words if len(word) < 3), None):
            raise ValidationError(
                gettext("“%(word)s” is too short: it would match other responses."),
                code="too_short",
                params={"word": wrong},
            )
        return list(dict.fromkeys(words))


# ---- Addresses ---------------------------------------------------------------------------------


def url_problem(error: UnsafeURLError) -> str:
    """Return why the guard rejected a URL, and the setting that would allow it, if there is one."""
    if error.opened_by:
        advice = gettext("An operator can allow it: WEBHOOKS_ALLOWED_NETWORKS=%(entry)s") % {
            "entry": error.opened_by
        }
    elif error.code in ("private_name", "own_name"):
        advice = gettext("An operator can allow its network with WEBHOOKS_ALLOWED_NETWORKS.")
    else:
        return error.reason
    return f"{error.reason} {advice}"
