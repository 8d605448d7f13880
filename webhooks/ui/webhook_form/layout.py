"""The fields of the webhook form: how each is drawn, what it says, and in which order.

Whether what was entered is right, and what saving does, is `webhooks.ui.webhook_form.forms`.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.utils.translation import gettext_lazy as _

from webhooks.models import Webhook
from webhooks.security.drafts import Draft
from webhooks.ui.fields import EventTypesField
from webhooks.ui.webhook_form import alerts, delivery
from webhooks.ui.webhook_form.credential_form import CredentialForm, problems_of
from webhooks.ui.webhook_form.credentials import CONNECTION, ConnectionChoice, connections
from webhooks.ui.webhook_form.delivery import DeliveryFields
from webhooks.ui.webhook_form.filter_section import FilterSection
from webhooks.ui.webhook_form.headers import header_rows
from webhooks.ui.webhook_form.mapping import MappingSection

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
}
REQUIRED = {
    "name": _("Enter a name, for example “CRM: missed calls”."),
    "url": _(
        "Enter the address that receives the events, for example “https://example.com/hooks/calls”."
    ),
}
_FORMAT_DEFAULTS = {"date_format": "iso8601", "time_zone": "UTC", "uses_older_names": False}


class WebhookFields(ConnectionChoice, DeliveryFields, CredentialForm):
    """Everything of the form that the page shows."""

    page_end = ("timeout_seconds", *delivery.FIELDS, *alerts.FIELDS, *alerts.THRESHOLDS)

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

    class Meta:
        model = Webhook
        fields = [
            "name",
            "url",
            "accepts_plain_http",
            "method",
            "body_format",
            "event_types",
            "timeout_seconds",
            "date_format",
            "time_zone",
            "uses_older_names",
            *delivery.FIELDS,
            *alerts.FIELDS,
            *alerts.THRESHOLDS,
        ]
        widgets = {"url": forms.TextInput({"inputmode": "url", "spellcheck": "false"})}
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
        used = instance.credential
        super().__init__(
            data,
            instance=instance,
            credential=instance.private_credential,
            draft=draft,
            is_checked=is_checked,
            is_active=instance.is_active,
            connection=used.pk if used.is_shared else None,
        )
        self.headers = header_rows(instance, draft=draft, data=data, is_checked=is_checked)
        self.conditions = FilterSection(
            instance.filter,
            data,
            patterns=self["event_types"].value() or (),
            is_checked=is_checked,
        )
        self.mapping = MappingSection(instance, data)
        self._set_choices()
        self.offer_connections(connections())
        self.fields["retry_schedule_seconds"].help_text = delivery.default_schedule_help()

    @property
    def chosen_type(self) -> str:
        """Return the authorization type whose fields are shown; a connection hides them all."""
        return CONNECTION if self.chosen_connection else super().chosen_type

    @property
    def has_format_open(self) -> bool:
        """Return whether the folded Format section holds something worth seeing."""
        return any(
            self[field].errors or self[field].value() not in (default, None)
            for field, default in _FORMAT_DEFAULTS.items()
        )

    def row_problems(self) -> list[dict[str, Any]]:
        return problems_of(row[name] for row in self.headers for name in ("name", "value"))

    def problems(self) -> list[dict[str, Any]]:
        problems = super().problems()
        problems += self.conditions.problems()
        problems += self.mapping.page_problems()
        return problems + [
            {"target": "headers", "label": _("Headers"), "sentence": sentence}
            for sentence in self.headers.non_form_errors()
        ]

    def _set_choices(self) -> None:
        zone: Any = self.fields["time_zone"]
        zone.choices = _time_zones(self.instance.time_zone)


@lru_cache(maxsize=16)
def _time_zones(current: str) -> list[tuple[str, str]]:
    names = {"UTC", current}
    names |= {name for name in available_timezones() if "/" in name and not name.startswith("Etc/")}
    return [(name, name.replace("_", " ")) for name in sorted(names, key=lambda n: (n != "UTC", n))]
