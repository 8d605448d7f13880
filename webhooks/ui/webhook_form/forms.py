"""The webhook form: what people edit, checked and written in one step.

Typed secrets wait in a `Draft` while the form is shown again. Knows no request.
"""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.db import transaction
from django.forms.utils import ErrorDict
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, events, network, oauth
from webhooks.models import (
    AuditEntry,
    AuthorizationType,
    Delivery,
    HoldReason,
    OAuthToken,
    PauseReason,
    Status,
    TokenState,
    Webhook,
)
from webhooks.models.authorization import AuthorizationFields
from webhooks.payloads import Problem
from webhooks.security.drafts import Draft
from webhooks.ui.connections import lifecycle
from webhooks.ui.fields import CLEAR, refusal
from webhooks.ui.webhook_form import authorization, credentials
from webhooks.ui.webhook_form.headers import headers_as_json
from webhooks.ui.webhook_form.layout import SECRETS, WebhookFields
from webhooks.ui.webhook_form.pasted_curl import Pasted

# What the guard judges, as it was typed: a space around it is refused here as everywhere else.
_ADDRESSES = ("url", "issuer", "auth_url", "token_url", "refresh_url", "revocation_url")
# What a delivery may be held for until it is changed, beside the filter.
_AWAITED = {
    *("url", "connection", "allowed_hosts"),
    *(field.name for field in AuthorizationFields._meta.get_fields()),
}


class WebhookForm(WebhookFields):
    """Create or edit a webhook.

    `is_checked=False` shows what was posted again without judging it: the person asked for another
    authorization type or one more header, not to save.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        instance: Webhook,
        draft: Draft,
        is_checked: bool = True,
    ) -> None:
        super().__init__(data, instance=instance, draft=draft, is_checked=is_checked)
        for name in _ADDRESSES:
            address: Any = self.fields[name]
            address.strip = False
        self._is_checked = is_checked
        # The newest entry of the audit trail that the values include, and what came after it.
        self.seen = ""
        # What a pasted cURL command filled in, when one was.
        self.pasted: Pasted | None = None
        self.conflicts: list[AuditEntry] = []
        # As they were: validation writes into the instance.
        self._fingerprint = oauth.fingerprint(instance) if instance.pk else ""
        if not _holds_deliveries(instance):
            del self.fields["held"]
        self._stored = {name: getattr(instance, name) for name in self._meta.fields or ()}

    def full_clean(self) -> None:
        if self._is_checked:
            super().full_clean()
            return
        self._errors, self.cleaned_data = ErrorDict(), {}

    def is_valid(self) -> bool:
        # Both, so that every error is shown at once.
        are_headers_valid = not self.headers.is_bound or self.headers.is_valid()
        is_mapping_valid = not self.check_mapping()
        self.mapping.is_refused = not is_mapping_valid
        return (
            super().is_valid()
            and are_headers_valid
            and is_mapping_valid
            and self.conditions.is_valid
        )

    def check_mapping(self) -> list[Problem]:
        """Judge the parameters by the method and the format that are chosen."""
        if not self.mapping.is_posted:
            return []
        return self.mapping.check(
            method=str(self["method"].value()), body_format=str(self["body_format"].value())
        )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"]
        try:
            network.check_url(url)
        except network.UnsafeURLError as error:
            raise forms.ValidationError(refusal(error), code=error.code) from error
        except network.NameNotResolvedError as error:
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
        url: str = self.cleaned_data["callback_url"] or oauth.default_callback_url()
        # The page fills in the default where none is stored: sent back, it is no change.
        was_empty = self.instance.pk and not self._stored["callback_url"]
        return "" if was_empty and url == oauth.default_callback_url() else url

    def clean_basic_password(self) -> Any:
        return self._clean_secret("basic_password")

    def clean_client_secret(self) -> Any:
        return self._clean_secret("client_secret")

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        if "held" in self.fields and values.get("is_active") and not values.get("held"):
            self.add_error("held", _("Say what happens to the deliveries that are held."))
        # Radios that are left out keep what is stored.
        for field in ("authorization_type", "grant_type", "token_placement"):
            values[field] = values.get(field) or self._stored[field]
        if values.get("connection"):
            self._check_connection(values)
            return values
        chosen = values["authorization_type"]
        self._forgive(authorization.unchosen_fields(chosen, values["grant_type"]))
        errors: dict[str, Any] = {}
        if chosen == AuthorizationType.BASIC:
            errors = authorization.basic_errors(
                values, has_password=self.secret_is_set("basic_password")
            )
        elif chosen == AuthorizationType.OAUTH2:
            errors = authorization.oauth_errors(
                values, stored=self._stored, has_secret=self.secret_is_set("client_secret")
            )
        for field, sentence in errors.items():
            if field not in self.errors:
                self.add_error(field, sentence)
        return values

    def _check_connection(self, values: dict[str, Any]) -> None:
        """Forgive the webhook's own credentials, which stay as typed, and check the host."""
        self._forgive({name for names in authorization.FIELDS_OF.values() for name in names})
        try:
            credentials.check_host(values["connection"], values.get("url", ""))
        except forms.ValidationError as error:
            self.add_error("connection", error)

    def secret_is_set(self, field: str) -> bool:
        """Return whether the webhook will have this secret after saving."""
        typed = self.cleaned_data.get(field)
        if typed is CLEAR:
            return False
        return bool(typed or self.instance.has_secret(field))

    def save(self, commit: bool = True) -> Webhook:
        """Write everything at once, drop tokens of another client, and pause or resume."""
        webhook = self.instance
        is_new = webhook.pk is None
        fields = {*(self._meta.fields or ()), *self._write_secrets()}
        if self.conditions.changes:
            webhook.filter = self.conditions.tree
            fields.add("filter")
        fields |= self.mapping.write(webhook)
        with transaction.atomic():
            if webhook.connection_id:
                lifecycle.hold(webhook.connection_id)
            if is_new and not self.cleaned_data["is_active"]:
                webhook.pause(PauseReason.PERSON)
            webhook.save(**({} if is_new else {"update_fields": fields}))
            if not is_new:
                self._correct_authorization()
                self._pause_or_resume()
        self.draft.discard()
        return webhook

    def _correct_authorization(self) -> None:
        """Drop tokens of another client, and release what waited for what was changed.

        What still cannot be sent is held again.
        """
        webhook = self.instance
        was_misconfigured = _is_misconfigured(webhook)
        oauth.drop_if_changed(self._fingerprint, webhook)
        changed = {name for name, old in self._stored.items() if getattr(webhook, name) != old}
        if was_misconfigured or self.conditions.changes or _AWAITED & changed:
            events.release_held(webhook)

    @property
    def drops_held(self) -> bool:
        return self.cleaned_data.get("held") == "drop"

    def _pause_or_resume(self) -> None:
        wants_active = self.cleaned_data["is_active"]
        if "is_active" not in self.changed_data or wants_active == self.instance.is_active:
            return
        if wants_active:
            events.resume(self.instance, drop_held=self.drops_held)
        else:
            events.pause(self.instance)

    def _write_secrets(self) -> set[str]:
        """Set what was typed or cleared on the webhook; return the names of its columns."""
        written = set()
        for field in SECRETS:
            typed = self.cleaned_data.get(field)
            if typed:
                self.instance.set_secret(field, "" if typed is CLEAR else typed)
                written |= {field, "secrets_changed_at"}
        if self.headers.is_bound:
            headers = headers_as_json(self.headers.headers())
            if headers != self.instance.headers_json:
                self.instance.set_secret("headers_json", headers)
                written |= {"headers_json", "secrets_changed_at"}
        return written

    def _clean_secret(self, field: str) -> Any:
        """Return what was typed now or, when nothing was, on an earlier showing of this form."""
        return self.cleaned_data[field] or self.fields[field].clean(self.draft.get(field))

    def _forgive(self, fields: set[str]) -> None:
        """Drop the errors of types that were not chosen; what cannot be stored stays as it was."""
        for field in fields & self.errors.keys():
            del self.errors[field]
            if field not in SECRETS:
                self.cleaned_data[field] = self._stored[field]

    def _full_types(self, patterns: list[str]) -> list[str]:
        """Return the newly chosen types that have as many webhooks as are allowed."""
        before = self._stored["event_types"] if self.instance.pk else []
        wanted = set(catalogue.types_for(patterns)) - set(catalogue.types_for(before))
        counts = dict.fromkeys(wanted, 0)
        others = Webhook.objects.present().exclude(pk=self.instance.pk)
        for chosen in others.values_list("event_types", flat=True):
            for key in wanted.intersection(catalogue.types_for(chosen)):
                counts[key] += 1
        limit = settings.WEBHOOKS_MAX_PER_EVENT_TYPE
        return sorted(key for key, count in counts.items() if count >= limit)


def _holds_deliveries(webhook: Webhook) -> bool:
    """Return whether a resume would release anything, which a person decides about."""
    if webhook.pk is None or webhook.is_active:
        return False
    held = Delivery.objects.filter(webhook=webhook, status=Status.HELD)
    return held.filter(hold_reason=HoldReason.PAUSED).exists()


def _is_misconfigured(webhook: Webhook) -> bool:
    tokens = OAuthToken.objects.filter(webhook=webhook, state=TokenState.MISCONFIGURED)
    return tokens.exists()
