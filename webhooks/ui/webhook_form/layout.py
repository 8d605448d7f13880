"""The fields of the webhook form: how each is drawn, what it says, and in which order.

Whether what was entered is right, and what saving does, is `webhooks.ui.webhook_form.forms`.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from django import forms
from django.utils.translation import gettext_lazy as _

from webhooks import oauth
from webhooks.models import AuthorizationType, ClientAuthentication, Webhook
from webhooks.security.drafts import Draft
from webhooks.ui.fields import CLEAR, CopyInput, EventTypesField, SecretFormField
from webhooks.ui.webhook_form import alerts, authorization, delivery
from webhooks.ui.webhook_form.alerts import AlertFields
from webhooks.ui.webhook_form.credentials import CONNECTION, CredentialFields, connections
from webhooks.ui.webhook_form.delivery import DeliveryFields
from webhooks.ui.webhook_form.filter_section import FilterSection
from webhooks.ui.webhook_form.headers import header_rows
from webhooks.ui.webhook_form.mapping import MappingSection
from webhooks.ui.webhook_form.oauth_fields import OAuthFields

if TYPE_CHECKING:
    _WebhookModelForm = forms.ModelForm[Webhook]
else:
    _WebhookModelForm = forms.ModelForm

# The sentence under each field, and that for an empty one.
HELP = {
    "name": _("Shown in the list and in the log, for example “CRM: missed calls”."),
    "url": _("Where the events are sent, for example “https://example.com/hooks/calls”."),
    "body_format": _("GET has no body: with GET everything goes into the query string."),
    "date_format": _(
        "How dates are written in every event, for example “2026-03-02T09:14:05Z” in ISO 8601."
    ),
    "uses_older_names": _(
        "For receivers built for the previous platform, which expect “billsec” instead of "
        "“talk_seconds”."
    ),
    "basic_login": _(
        "Sent with the password in the Authorization header of every request, for example “pbx”."
    ),
    "token_name": _("Your own word for this token, for example “CRM of the Kyiv office”."),
    "callback_url": _("It must match the one registered with the provider, letter by letter."),
    "auth_url": _(
        "Where you log in and approve, for example “https://provider.example/oauth/authorize”."
    ),
    "token_url": _(
        "Where the approval becomes a token, for example “https://provider.example/oauth/token”."
    ),
    "client_id": _(
        "The provider showed it when you registered this site there, for example “crm-4f21”."
    ),
    "scope": _("What the token may do, with spaces between, for example “read write”."),
    "client_authentication": _("The provider's documentation says which one it expects."),
}
REQUIRED = {
    "name": _("Enter a name, for example “CRM: missed calls”."),
    "url": _(
        "Enter the address that receives the events, for example “https://example.com/hooks/calls”."
    ),
}
SECRETS = ("basic_password", "client_secret")
_FORMAT_DEFAULTS = {"date_format": "iso8601", "time_zone": "UTC", "uses_older_names": False}
_PAGE_ORDER = (
    *("is_active", "held", "name", "allowed_hosts", "method", "url", "event_types", "body_format"),
    *("date_format", "time_zone", "uses_older_names", "connection"),
    "authorization_type",
    *authorization.BASIC_FIELDS,
    *authorization.OAUTH_FIELDS,
)


_PAGE_END = ("timeout_seconds", *delivery.FIELDS, *alerts.FIELDS, *alerts.THRESHOLDS)


class WebhookFields(CredentialFields, OAuthFields, DeliveryFields, AlertFields, _WebhookModelForm):
    """Everything of the form that the page shows."""

    use_required_attribute = False

    # Compared with what was shown, so that a save does not resume what was paused since.
    is_active = forms.BooleanField(
        label=_("Active"),
        required=False,
        initial=True,
        show_hidden_initial=True,
        help_text=_("A paused webhook keeps its events and sends them when it is resumed."),
    )
    # Asked for when a paused webhook holds deliveries, and is made active here.
    held = forms.ChoiceField(
        label=_("Held deliveries, when it becomes active"),
        required=False,
        choices=[("send", _("Send them, in order")), ("drop", _("Drop them"))],
        widget=forms.RadioSelect,
        help_text=_("What is dropped stays in the log, and the receiver never hears of it."),
    )
    event_types = EventTypesField(label=_("Event types"))
    timeout_seconds = forms.IntegerField(
        label=_("Timeout (seconds)"),
        min_value=1,
        max_value=60,
        initial=15,
        help_text=_("How long one request may take, from 1 to 60 seconds; for example 15."),
        error_messages={
            key: _("The timeout is a whole number from 1 to 60 seconds.")
            for key in ("required", "invalid", "min_value", "max_value")
        },
    )
    time_zone = forms.ChoiceField(
        label=_("Time zone"),
        initial="UTC",
        required=False,
        help_text=_("The zone of dates in events, for example Europe/Kyiv."),
    )
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
            "connection",
            "authorization_type",
            "basic_login",
            *(field for field in authorization.OAUTH_FIELDS if field not in SECRETS),
            *delivery.FIELDS,
            *alerts.FIELDS,
            *alerts.THRESHOLDS,
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
        error_messages = {name: {"required": REQUIRED[name]} for name in ("name", "url")}
        help_texts = HELP

    def __init__(
        self,
        data: Mapping[str, Any] | None,
        *,
        instance: Webhook,
        draft: Draft,
        is_checked: bool,
    ) -> None:
        initial = {
            "is_active": instance.is_active,
            "callback_url": instance.callback_url or oauth.default_callback_url(),
            **alerts.mute_shown(instance),
        }
        super().__init__(data, instance=instance, initial=initial)
        self.draft = draft
        self.headers = header_rows(instance, draft=draft, data=data, is_checked=is_checked)
        self.conditions = FilterSection(
            instance.filter,
            data,
            patterns=self["event_types"].value() or () if "event_types" in self.fields else (),
            is_checked=is_checked,
        )
        self.mapping = MappingSection(instance, data)
        self._set_choices()
        self.offer_connections(connections())
        self.fields["retry_schedule_seconds"].help_text = delivery.default_schedule_help()
        for field in SECRETS:
            self._keep_typed(field)

    @property
    def chosen_type(self) -> str:
        """Return the authorization type whose fields are shown; a connection hides them all."""
        if self.chosen_connection:
            return CONNECTION
        value = str(self["authorization_type"].value())
        return value if value in AuthorizationType.values else AuthorizationType.NONE

    @property
    def has_format_open(self) -> bool:
        """Return whether the folded Format section holds something worth seeing."""
        return any(
            self[field].errors or self[field].value() not in (default, None)
            for field, default in _FORMAT_DEFAULTS.items()
        )

    def problems(self) -> list[dict[str, Any]]:
        """Return every error with its field's label and id, in the order of the page."""
        fields = [
            *(self[name] for name in _PAGE_ORDER if name in self.fields),
            *(row[name] for row in self.headers for name in ("name", "value")),
            *(self[name] for name in _PAGE_END if name in self.fields),
        ]
        problems = [
            {"target": field.auto_id, "label": field.label, "sentence": sentence}
            for field in fields
            for sentence in field.errors
        ]
        problems += self.conditions.problems()
        problems += self.mapping.page_problems()
        return problems + [
            {"target": "headers", "label": _("Headers"), "sentence": sentence}
            for sentence in self.headers.non_form_errors()
        ]

    def _keep_typed(self, field: str) -> None:
        """Move a typed secret into the draft and let the widget show what is there."""
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


@lru_cache(maxsize=16)
def _time_zones(current: str) -> list[tuple[str, str]]:
    names = {"UTC", current}
    names |= {name for name in available_timezones() if "/" in name and not name.startswith("Etc/")}
    return [(name, name.replace("_", " ")) for name in sorted(names, key=lambda n: (n != "UTC", n))]
