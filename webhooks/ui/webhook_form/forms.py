"""The webhook form: its fields, their validation, and saving them in one transaction."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, events, network
from webhooks.models import (
    Credential,
    Delivery,
    HoldReason,
    PauseReason,
    Status,
    Webhook,
    headers_as_json,
    is_plain_http,
    may_be_sent_to,
    origin_of,
)
from webhooks.payloads import Violation
from webhooks.security.drafts import Draft
from webhooks.ui import event_limit, shared_credentials
from webhooks.ui.fields import EventTypesField, NumberText, require_visible, url_problem
from webhooks.ui.webhook_form import authorization, success
from webhooks.ui.webhook_form.credential_form import CredentialForm, field_errors
from webhooks.ui.webhook_form.filter import FilterSection
from webhooks.ui.webhook_form.headers import header_rows
from webhooks.ui.webhook_form.mapping import EVERYTHING, MappingSection
from webhooks.ui.webhook_form.sections import (
    ALERT_FIELDS,
    ALERT_THRESHOLDS,
    DELIVERY_FIELDS,
    DeliveryFields,
    default_schedule_help,
)
from webhooks.ui.webhook_form.success import SuccessFields

# Help for fields that are easily misunderstood, and the error messages of empty fields.
HELP = {
    "accepts_secret_in_url": _(
        "Everyone who may see the webhook can read it. Only for receivers that take it in no other "
        "way."
    ),
    "body_format": _("GET sends everything in the query string."),
    "uses_older_names": _("For receivers that expect “billsec” instead of “talk_seconds”."),
}
REQUIRED = {
    "name": _("Enter a name, for example “CRM: missed calls”."),
    "url": _(
        "Enter the URL that receives the events, for example “https://example.com/hooks/calls”."
    ),
}
# Used instead of an authorization type while a connection is chosen.
CONNECTION = "connection"
# The label of a connection names this many of its hosts.
_HOSTS_SHOWN = 2
_FORMAT_DEFAULTS = {"date_format": "iso8601", "time_zone": "UTC", "uses_older_names": False}


class ConnectionSelect(forms.Select):
    """A select that disables the connections for other receivers, except the selected one."""

    origin = ""

    def create_option(self, name: str, value: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        option: dict[str, Any] = super().create_option(name, value, *args, **kwargs)
        connection = getattr(value, "instance", None)
        if connection is not None:
            option["attrs"]["data-origins"] = " ".join(connection.receiver_origins)
            is_allowed = not self.origin or may_be_sent_to(connection, self.origin)
            if not is_allowed and not option["selected"]:
                option["attrs"]["disabled"] = True
        return option


class ConnectionField(forms.ModelChoiceField):  # type: ignore[type-arg]
    """One of the connections, or none for the webhook's own credentials."""

    widget = ConnectionSelect

    def label_from_instance(self, connection: Any) -> str:
        hosts = ", ".join(connection.allowed_hosts[:_HOSTS_SHOWN])
        if len(connection.allowed_hosts) > _HOSTS_SHOWN:
            hosts += ", …"
        return gettext("%(name)s (%(type)s, only for %(hosts)s)") % {
            "name": connection.name,
            "type": connection.get_authorization_type_display(),
            "hosts": hosts,
        }


class WebhookForm(DeliveryFields, SuccessFields, CredentialForm):
    """Create or edit a webhook."""

    page_end = (
        *("timeout_seconds", *DELIVERY_FIELDS, *success.FIELDS),
        *(*ALERT_FIELDS, *ALERT_THRESHOLDS),
    )

    # Compared with the value shown, so that a save does not resume a webhook paused since then.
    is_active = forms.BooleanField(
        label=_("Active"),
        required=False,
        initial=True,
        show_hidden_initial=True,
        help_text=_("Events are kept and sent when it is resumed."),
    )
    # Required when a paused webhook with deliveries on hold is made active here.
    held = forms.ChoiceField(
        label=_("Deliveries on hold, when it becomes active"),
        required=False,
        choices=[("send", _("Send them, in order")), ("cancel", _("Cancel them"))],
        widget=forms.RadioSelect,
    )
    event_types = EventTypesField(label=_("Events"))
    timeout_seconds = forms.IntegerField(
        label=_("Timeout (seconds)"),
        min_value=1,
        max_value=60,
        initial=15,
        widget=NumberText(),
        error_messages={
            key: _("Enter a whole number from 1 to 60.")
            for key in ("required", "invalid", "min_value", "max_value")
        },
    )
    time_zone = forms.ChoiceField(
        label=_("Time zone"),
        initial="UTC",
        required=False,
    )

    connection = ConnectionField(
        label=_("Credentials"),
        queryset=Credential.objects.none(),
        required=False,
        empty_label=_("This webhook's own"),
        widget=ConnectionSelect({"data-connection": True}),
        help_text=_("Connections that may be sent to the URL's host can be chosen."),
        error_messages={
            "invalid_choice": _("This connection no longer exists. Choose another one.")
        },
    )

    class Meta:
        model = Webhook
        fields = [
            "name",
            "url",
            "accepts_secret_in_url",
            "accepts_plain_http",
            "method",
            "body_format",
            "event_types",
            "timeout_seconds",
            "date_format",
            "time_zone",
            "uses_older_names",
            *DELIVERY_FIELDS,
            *success.FIELDS,
            *ALERT_FIELDS,
            *ALERT_THRESHOLDS,
        ]
        widgets = {
            "name": forms.TextInput({"placeholder": _("CRM: missed calls")}),
            "url": forms.TextInput(
                {
                    "inputmode": "url",
                    "spellcheck": "false",
                    "placeholder": "https://example.com/hooks/calls",
                }
            ),
        }
        error_messages = {name: {"required": REQUIRED[name]} for name in ("name", "url")}
        help_texts = HELP

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        instance: Webhook,
        draft: Draft,
        is_checked: bool = True,
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
        self.fields["name"].validators.append(require_visible)
        zone: Any = self.fields["time_zone"]
        zone.choices = _time_zones(instance.time_zone)
        self.offer_connections(shared_credentials.connections())
        self.fields["retry_schedule_seconds"].help_text = default_schedule_help()
        if not _holds_deliveries(instance):
            del self.fields["held"]
        self._used_id = instance.credential_id

    # Whether DNS does not know the host of the URL; such a webhook can be saved as paused.
    is_name_unknown = False

    def offer_connections(self, found: QuerySet[Credential]) -> None:
        field: Any = self.fields["connection"]
        field.queryset = found
        field.widget.origin = shared_credentials.known_origin(self["url"].value())
        field.widget.attrs |= {
            "hx-get": reverse("webhooks:connection_panel"),
            "hx-target": "#connection-panel",
        }

    def keep_connection(self) -> None:
        """Offer only the connection in use, for a user who may not see the others."""
        current: Any = self.initial.get("connection")
        self.offer_connections(shared_credentials.connections().filter(pk=current))

    @property
    def has_connections(self) -> bool:
        """Return whether there is a connection to choose; most sites have none."""
        field: Any = self.fields["connection"]
        return len(field.choices) > 1

    @cached_property
    def chosen_connection(self) -> Credential | None:
        try:
            found: Credential | None = self.fields["connection"].clean(self["connection"].value())
        except ValidationError:
            return None
        return found

    @property
    def chosen_type(self) -> str:
        """Return the authorization type whose fields are shown; a connection hides them all."""
        return CONNECTION if self.chosen_connection else super().chosen_type

    @property
    def sends_own_credential(self) -> bool:
        return not self.cleaned_data.get("connection")

    def sends_secrets(self) -> bool:
        return super().sends_secrets() or self.has_secret_header()

    def has_secret_header(self) -> bool:
        return any(row["is_secret"].value() and row["name"].value() for row in self.headers.forms)

    @property
    def asks_secret_in_url(self) -> bool:
        """Return whether the page shows the checkbox for a secret in the URL."""
        field = self["accepts_secret_in_url"]
        return bool(field.errors or field.value())

    def plain_http_origins(self) -> list[str]:
        url = str(self["url"].value() or "").strip()
        return [origin_of(url)] if is_plain_http(url) else []

    @property
    def has_content_open(self) -> bool:
        """Return whether a field is set, has an error or is being edited."""
        is_set = self.mapping.mode != EVERYTHING or self.mapping.is_edited
        return is_set or self.has_format_open or bool(self["body_format"].errors)

    @property
    def content_state(self) -> str:
        """Return one line for the closed section."""
        formats: Any = self.fields["body_format"]
        body_format = str(self["body_format"].value())
        return f"{self.mapping.state}, {dict(formats.choices).get(body_format, body_format)}"

    @property
    def delivery_state(self) -> str:
        """Return one line for the closed section."""
        rule = self.success_summary if self.has_success_open else ""
        return ", ".join(filter(None, (self.delivery_summary, rule)))

    @property
    def has_format_open(self) -> bool:
        """Return whether a field of the Format section has an error or is not its default."""
        return any(
            self[field].errors or self[field].value() not in (default, None)
            for field, default in _FORMAT_DEFAULTS.items()
        )

    def part_problems(self) -> list[dict[str, Any]]:
        return [
            *self.conditions.problems(),
            *field_errors(self[name] for name in ("body_format", *_FORMAT_DEFAULTS)),
            *self.mapping.page_problems(),
            *field_errors(row[name] for row in self.headers for name in ("name", "value")),
            *(
                {"target": "headers", "label": _("Headers"), "sentence": sentence}
                for sentence in self.headers.non_form_errors()
            ),
        ]

    def is_valid(self) -> bool:
        # All parts are validated, so that every error is shown at once.
        are_headers_valid = not self.headers.is_bound or self.headers.is_valid()
        is_mapping_valid = not self.check_mapping()
        self.mapping.is_refused = not is_mapping_valid
        return (
            super().is_valid()
            and are_headers_valid
            and is_mapping_valid
            and self.conditions.is_valid
        )

    def check_mapping(self) -> list[Violation]:
        """Validate the parameters for the chosen method and body format."""
        if not self.mapping.is_posted:
            return []
        return self.mapping.check(
            method=str(self["method"].value()), body_format=str(self["body_format"].value())
        )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        if url.split()[:1] == ["curl"]:
            raise ValidationError(
                _("This is a cURL command. Put it into “Paste a cURL command” below."), code="curl"
            )
        try:
            self.check_url(url)
        except network.UnsafeURLError as error:
            raise ValidationError(url_problem(error), code=error.code) from error
        except network.NameNotResolvedError as error:
            self.is_name_unknown = url != self.trusted_addresses["url"]
            if self.is_name_unknown and self["is_active"].value():
                sentence = _("%(reason)s To save it now, untick Active: it is saved as paused.")
                raise ValidationError(
                    sentence, code=error.code, params={"reason": error.reason}
                ) from error
        return url

    def clean_event_types(self) -> list[str]:
        patterns: list[str] = self.cleaned_data["event_types"]
        gained = self.gained_types(patterns)
        if gained and (full := event_limit.exceeded(gained, self._webhook_counts())):
            raise ValidationError(
                _(
                    "%(types)s already has %(limit)d webhooks, the limit for one event "
                    "type. Delete one or choose another event type."
                ),
                code="too_many",
                params=full,
            )
        return patterns

    def clean_time_zone(self) -> str:
        return str(self.cleaned_data["time_zone"] or "UTC")

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        is_resumed = values.get("is_active") and "is_active" in self.changed_data
        if "held" in self.fields and is_resumed and not values.get("held"):
            self.add_error("held", _("Choose what happens to the deliveries on hold."))
        self._check_secret_in_url(values)
        self.check_rule(values)
        return values

    def _check_secret_in_url(self, values: dict[str, Any]) -> None:
        # Even if the URL has another error, so that both are shown.
        name = authorization.secret_in_url(str(self["url"].value() or ""))
        if name and not values.get("accepts_secret_in_url"):
            problem = _(
                "The parameter “%(name)s” in the URL looks like a secret, and everyone who may see "
                "the webhook sees its URL. Send it as a secret header or with Basic "
                "authentication. For a token from a provider use OAuth 2.0, which can also send it "
                "as a query parameter. If the receiver takes it only in the URL, tick this box."
            )
            self.add_error("accepts_secret_in_url", problem % {"name": name[:60]})

    def _check_authorization(self, values: dict[str, Any]) -> None:
        """Validate the webhook's own credential, or only the connection if one is chosen."""
        if not values.get("connection"):
            super()._check_authorization(values)
            return
        hidden = {name for names in authorization.FIELDS_OF.values() for name in names}
        self._drop_errors({*hidden, authorization.CERTIFICATE})
        try:
            shared_credentials.check_receiver(values["connection"], values.get("url", ""))
        except ValidationError as error:
            self.add_error("connection", error)

    def _post_clean(self) -> None:
        super()._post_clean()
        self.instance.credential = self.cleaned_data.get("connection") or self.credential

    def save(self, commit: bool = True) -> Webhook:
        """Save all in one transaction, drop tokens of another client, and pause or resume."""
        webhook: Webhook = self.instance
        is_new = webhook.pk is None
        fields = {*(self._meta.fields or ()), "credential", *self._write_headers()}
        if self.conditions.changes:
            webhook.filter = self.conditions.tree
            fields.add("filter")
        fields |= self.mapping.write(webhook)
        with transaction.atomic():
            if webhook.credential.is_shared:
                shared_credentials.lock_connection(webhook.credential_id)
            if is_new and not self.cleaned_data["is_active"]:
                webhook.pause(PauseReason.PERSON)
            self.save_credential()
            webhook.save(**({} if is_new else {"update_fields": fields}))
            if not is_new:
                is_other = webhook.credential_id != self._used_id
                self.correct_authorization(
                    has_other_changes=is_other
                    or self.conditions.changes
                    or self.differs_from_stored("url")
                )
                self._pause_or_resume()
        self.draft.discard()
        return webhook

    @property
    def cancels_held(self) -> bool:
        return self.cleaned_data.get("held") == "cancel"

    def _pause_or_resume(self) -> None:
        wants_active = self.cleaned_data["is_active"]
        if "is_active" not in self.changed_data or wants_active == self.instance.is_active:
            return
        if wants_active:
            events.resume(self.instance, cancels_held=self.cancels_held)
        else:
            events.pause(self.instance)

    def _write_headers(self) -> set[str]:
        """Set the custom headers on the webhook; return the names of the columns that changed."""
        if not self.headers.is_bound:
            return set()
        headers = headers_as_json(self.headers.headers())
        if self.headers.is_unreadable:
            # Kept until others are entered: the key that decrypts them may come back.
            is_same = not headers
        else:
            is_same = headers == self.instance.headers_json and may_be_sent_to(
                self.instance, self.instance.url, "headers_json"
            )
        if is_same:
            return set()
        self.instance.set_secret("headers_json", headers)
        return {"headers_json", "secrets_changed_at"}

    def gained_types(self, patterns: Iterable[str]) -> set[str]:
        """Return the event types that the webhook did not have before."""
        before = self._stored["event_types"] if self.instance.pk else []
        return set(catalogue.types_for(patterns)) - set(catalogue.types_for(before))

    def _webhook_counts(self) -> Mapping[str, int]:
        return event_limit.count_webhooks()


@lru_cache(maxsize=16)
def _time_zones(current: str) -> list[tuple[str, str]]:
    names = {"UTC", current}
    names |= {name for name in available_timezones() if "/" in name and not name.startswith("Etc/")}
    return [(name, name.replace("_", " ")) for name in sorted(names, key=lambda n: (n != "UTC", n))]


def _holds_deliveries(webhook: Webhook) -> bool:
    """Return whether a resume would release deliveries, so that the user has to choose."""
    if webhook.pk is None or webhook.is_active:
        return False
    held = Delivery.objects.filter(webhook=webhook, status=Status.HELD)
    return held.filter(hold_reason=HoldReason.PAUSED).exists()
