"""The webhook form: what people edit, checked and written in one step.

Typed secrets wait in a `Draft` while the form is shown again. Knows no request.
"""

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.db import transaction
from django.forms.utils import ErrorDict
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, events, network, oauth
from webhooks.forms import authorization, texts
from webhooks.forms.drafts import Draft
from webhooks.forms.fields import CLEAR, CopyInput, EventTypesField, SecretFormField, types_of
from webhooks.forms.headers import header_rows, headers_as_json
from webhooks.models import AuthorizationType, ClientAuthentication, PauseReason, Webhook

if TYPE_CHECKING:
    _WebhookModelForm = forms.ModelForm[Webhook]
else:
    _WebhookModelForm = forms.ModelForm

SECRETS = ("basic_password", "client_secret")
_FORMAT_DEFAULTS = {"date_format": "iso8601", "time_zone": "UTC", "uses_older_names": False}
_PAGE_ORDER = (
    *("is_active", "name", "method", "url", "body_format", "timeout_seconds"),
    *("date_format", "time_zone", "uses_older_names", "event_types", "authorization_type"),
    *authorization.BASIC_FIELDS,
    *authorization.OAUTH_FIELDS,
)


class WebhookForm(_WebhookModelForm):
    """Create or edit a webhook.

    `is_checked=False` shows what was posted again without judging it: the person asked for another
    authorization type or one more header, not to save.
    """

    use_required_attribute = False

    # Compared with what was shown, so that a webhook paused meanwhile is not resumed by a save.
    is_active = forms.BooleanField(
        label=_("Active"),
        required=False,
        initial=True,
        show_hidden_initial=True,
        help_text=_("A paused webhook keeps its events and sends them when it is resumed."),
    )
    event_types = EventTypesField(label=_("Event types"))
    timeout_seconds = forms.IntegerField(
        label=_("Timeout (seconds)"),
        min_value=1,
        max_value=60,
        initial=15,
        help_text=_("How long one request may take, from 1 to 60 seconds."),
        error_messages={
            key: _("The timeout is a whole number from 1 to 60 seconds.")
            for key in ("required", "invalid", "min_value", "max_value")
        },
    )
    time_zone = forms.ChoiceField(label=_("Time zone"), initial="UTC", required=False)
    basic_password = SecretFormField(label=_("Password"))
    client_secret = SecretFormField(
        label=_("Client secret"),
        strip=True,
        help_text=_("Leave it empty only when the provider registered a public client."),
    )

    class Meta:
        model = Webhook
        fields = [
            "name",
            "url",
            "method",
            "body_format",
            "event_types",
            "timeout_seconds",
            "date_format",
            "time_zone",
            "uses_older_names",
            "authorization_type",
            "basic_login",
            "token_name",
            "callback_url",
            "auth_url",
            "token_url",
            "client_id",
            "scope",
            "client_authentication",
        ]
        widgets = {
            "authorization_type": forms.RadioSelect,
            "client_authentication": forms.RadioSelect,
            "basic_login": forms.TextInput({"autocomplete": "off", "spellcheck": "false"}),
            "client_id": forms.TextInput({"autocomplete": "off", "spellcheck": "false"}),
            **{
                field: forms.TextInput({"inputmode": "url", "spellcheck": "false"})
                for field in ("url", "auth_url", "token_url")
            },
            "callback_url": CopyInput({"inputmode": "url", "spellcheck": "false"}),
        }
        error_messages = {name: {"required": texts.REQUIRED[name]} for name in ("name", "url")}
        help_texts = texts.HELP

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        instance: Webhook,
        draft: Draft,
        is_checked: bool = True,
    ) -> None:
        initial = {
            "is_active": instance.is_active,
            "callback_url": instance.callback_url or oauth.default_callback_url(),
        }
        super().__init__(data, instance=instance, initial=initial)
        self.draft = draft
        self._is_checked = is_checked
        self._fingerprint = oauth.fingerprint(instance) if instance.pk else ""
        self._stored = {name: getattr(instance, name) for name in self._meta.fields or ()}
        self.headers = header_rows(instance, draft=draft, data=data, is_checked=is_checked)
        self._set_choices()
        for field in SECRETS:
            self._keep_typed(field)

    @property
    def chosen_type(self) -> str:
        value = str(self["authorization_type"].value())
        return value if value in AuthorizationType.values else AuthorizationType.NONE

    @property
    def has_format_open(self) -> bool:
        """Say whether the folded Format section holds something worth seeing."""
        return any(
            self[field].errors or self[field].value() not in (default, None)
            for field, default in _FORMAT_DEFAULTS.items()
        )

    def problems(self) -> list[dict[str, Any]]:
        """Return every error with its field's label and id, in the order of the page."""
        fields = [
            *(self[name] for name in _PAGE_ORDER),
            *(row[name] for row in self.headers for name in ("name", "value")),
        ]
        return [
            {"target": field.auto_id, "label": field.label, "sentence": sentence}
            for field in fields
            for sentence in field.errors
        ]

    def full_clean(self) -> None:
        if self._is_checked:
            super().full_clean()
            return
        self._errors, self.cleaned_data = ErrorDict(), {}

    def is_valid(self) -> bool:
        # Both, so that every error is shown at once.
        are_headers_valid = not self.headers.is_bound or self.headers.is_valid()
        return super().is_valid() and are_headers_valid

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        try:
            network.check_url(url)
        except network.UnsafeURL as error:
            raise forms.ValidationError(error.reason, code=error.code) from error
        except network.NameNotResolved as error:
            # A name server that is down for a moment does not stop other changes.
            if url != self._stored["url"]:
                raise forms.ValidationError(error.reason, code=error.code) from error
        return url

    def clean_event_types(self) -> list[str]:
        patterns: list[str] = self.cleaned_data["event_types"]
        if full := self._full_types(patterns):
            raise forms.ValidationError(
                _(
                    "%(types)s already has %(limit)d webhooks, the most allowed for one event "
                    "type. Delete one of them or choose another event type."
                ),
                code="too_many",
                params={
                    "types": ", ".join(f"“{catalogue.EVENT_TYPES[key].label}”" for key in full),
                    "limit": settings.WEBHOOKS_MAX_PER_EVENT_TYPE,
                },
            )
        return patterns

    def clean_time_zone(self) -> str:
        return str(self.cleaned_data["time_zone"] or "UTC")

    def clean_callback_url(self) -> str:
        return self.cleaned_data["callback_url"] or oauth.default_callback_url()

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        chosen = values.get("authorization_type")
        if chosen is not None:
            self._forgive(authorization.unchosen_fields(chosen))
        errors: dict[str, Any] = {}
        if chosen == AuthorizationType.BASIC:
            errors = authorization.basic_errors(
                values, has_password=self.secret_is_set("basic_password")
            )
        elif chosen == AuthorizationType.OAUTH2:
            errors = authorization.oauth_errors(values, stored=self._stored)
        for field, sentence in errors.items():
            if field not in self.errors:
                self.add_error(field, sentence)
        return values

    def secret_is_set(self, field: str) -> bool:
        """Say whether the webhook will have this secret after saving."""
        typed = self.cleaned_data.get(field)
        if typed is CLEAR:
            return False
        return bool(typed or self.draft.get(field) or self.instance.has_secret(field))

    def save(self, commit: bool = True) -> Webhook:
        """Write everything at once, drop tokens of another client, and pause or resume."""
        webhook = self.instance
        is_new = webhook.pk is None
        fields = {*(self._meta.fields or ()), *self._write_secrets()}
        with transaction.atomic():
            if is_new and not self.cleaned_data["is_active"]:
                webhook.pause(PauseReason.PERSON)
            webhook.save(**({} if is_new else {"update_fields": fields}))
            if not is_new:
                oauth.drop_if_changed(self._fingerprint, webhook)
                self._pause_or_resume()
        self.draft.discard()
        return webhook

    def _pause_or_resume(self) -> None:
        wants_active = self.cleaned_data["is_active"]
        if "is_active" not in self.changed_data or wants_active == self.instance.is_active:
            return
        if wants_active:
            events.resume(self.instance)
        else:
            events.pause(self.instance)

    def _write_secrets(self) -> set[str]:
        """Set what was typed or cleared on the webhook; return the names of its columns."""
        written = set()
        for field in SECRETS:
            typed = self.cleaned_data.get(field)
            value = "" if typed is CLEAR else typed or self.draft.get(field)
            if value or typed is CLEAR:
                self.instance.set_secret(field, value)
                written |= {field, "secrets_changed_at"}
        if self.headers.is_bound:
            headers = headers_as_json(self.headers.headers())
            if headers != self.instance.headers_json:
                self.instance.set_secret("headers_json", headers)
                written |= {"headers_json", "secrets_changed_at"}
        return written

    def _forgive(self, fields: set[str]) -> None:
        """Drop the errors of types that were not chosen; what cannot be stored stays as it was."""
        for field in fields & self.errors.keys():
            del self.errors[field]
            if field not in SECRETS:
                self.cleaned_data[field] = self._stored[field]

    def _keep_typed(self, field: str) -> None:
        """Move a typed secret into the draft and tell the widget what is there."""
        widget: Any = self.fields[field].widget
        value = self[field].data if self.is_bound else ""
        widget.is_cleared = value is CLEAR or isinstance(value, tuple)
        if isinstance(value, tuple):
            value = value[1]
        if value is CLEAR:
            self.draft.keep(field, "")
        elif value:
            self.draft.keep(field, value)
        widget.is_typed = bool(self.draft.get(field))
        widget.is_set = self.instance.has_secret(field)
        if widget.is_set or widget.is_typed:
            # The advice about an empty field is for a secret that was never set.
            self.fields[field].help_text = ""
        widget.changed_at = self.instance.secrets_changed_at.get(field, "")

    def _full_types(self, patterns: list[str]) -> list[str]:
        """Return the newly chosen types that have as many webhooks as are allowed."""
        before = self._stored["event_types"] if self.instance.pk else []
        wanted = _types_of_all(patterns) - _types_of_all(before)
        counts = dict.fromkeys(wanted, 0)
        others = Webhook.objects.present().exclude(pk=self.instance.pk)
        for chosen in others.values_list("event_types", flat=True):
            for key in wanted & _types_of_all(chosen):
                counts[key] += 1
        limit = settings.WEBHOOKS_MAX_PER_EVENT_TYPE
        return sorted(key for key, count in counts.items() if count >= limit)

    def _set_choices(self) -> None:
        zone: Any = self.fields["time_zone"]
        zone.choices = _time_zones(self.instance.time_zone)
        # Radios without the empty choice a select has.
        for field, choices in (
            ("authorization_type", AuthorizationType.choices),
            ("client_authentication", ClientAuthentication.choices),
        ):
            radio: Any = self.fields[field]
            radio.choices = choices
            # Left out, it is the model's default; radios are never empty on the page.
            radio.required = False


def _types_of_all(patterns: list[str]) -> set[str]:
    return set().union(*map(types_of, patterns))


@cache
def _time_zones(current: str) -> list[tuple[str, str]]:
    names = {"UTC", current}
    names |= {name for name in available_timezones() if "/" in name and not name.startswith("Etc/")}
    return [(name, name.replace("_", " ")) for name in sorted(names, key=lambda n: (n != "UTC", n))]
