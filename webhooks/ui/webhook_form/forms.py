"""The webhook form: what people edit, checked and written in one step. Knows no request."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, events, network
from webhooks.models import (
    Delivery,
    HoldReason,
    PauseReason,
    Status,
    Webhook,
    is_plain_http,
    may_be_sent_to,
    origin_of,
)
from webhooks.payloads import Violation
from webhooks.security.drafts import Draft
from webhooks.ui.connections import lifecycle
from webhooks.ui.fields import refusal
from webhooks.ui.webhook_form import authorization, credentials
from webhooks.ui.webhook_form.headers import headers_as_json
from webhooks.ui.webhook_form.layout import WebhookFields


class WebhookForm(WebhookFields):
    """Create or edit a webhook."""

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        instance: Webhook,
        draft: Draft,
        is_checked: bool = True,
    ) -> None:
        self._known_url = instance.url
        super().__init__(data, instance=instance, draft=draft, is_checked=is_checked)
        if not _holds_deliveries(instance):
            del self.fields["held"]
        self._used_id = instance.credential_id

    @property
    def sends_own_credential(self) -> bool:
        return not self.cleaned_data.get("connection")

    def sends_secrets(self) -> bool:
        return super().sends_secrets() or self.has_secret_header()

    def has_secret_header(self) -> bool:
        return any(row["is_secret"].value() and row["name"].value() for row in self.headers.forms)

    def plain_http_origins(self) -> list[str]:
        url = str(self["url"].value() or "").strip()
        return [origin_of(url)] if is_plain_http(url) else []

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

    def check_mapping(self) -> list[Violation]:
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
        if name := authorization.secret_in_url(url, was=self._known_url):
            # Other fields are judged by the address all the same.
            problem = forms.ValidationError(
                _(
                    "The parameter “%(name)s” looks like a secret, and everybody who sees the "
                    "webhook or a log sees its URL. Leave it out and send it as a secret header or "
                    "with Basic authentication; a token from a provider belongs to OAuth 2.0, "
                    "which can also send it as a query parameter."
                ),
                code="secret",
                params={"name": name[:60]},
            )
            self.add_error("url", problem)
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

    def clean(self) -> dict[str, Any]:
        values = super().clean()
        if "held" in self.fields and values.get("is_active") and not values.get("held"):
            self.add_error("held", _("Say what happens to the deliveries that are held."))
        return values

    def _check_authorization(self, values: dict[str, Any]) -> None:
        """Judge the webhook's own credential, or forgive it while a connection is chosen."""
        if not values.get("connection"):
            super()._check_authorization(values)
            return
        self._forgive({name for names in authorization.FIELDS_OF.values() for name in names})
        try:
            credentials.check_receiver(values["connection"], values.get("url", ""))
        except forms.ValidationError as error:
            self.add_error("connection", error)

    def _post_clean(self) -> None:
        super()._post_clean()
        self.instance.credential = self.cleaned_data.get("connection") or self.credential

    def save(self, commit: bool = True) -> Webhook:
        """Write everything at once, drop tokens of another client, and pause or resume."""
        webhook: Webhook = self.instance
        is_new = webhook.pk is None
        fields = {*(self._meta.fields or ()), "credential", *self._write_headers()}
        if self.conditions.changes:
            webhook.filter = self.conditions.tree
            fields.add("filter")
        fields |= self.mapping.write(webhook)
        with transaction.atomic():
            if webhook.credential.is_shared:
                lifecycle.hold(webhook.credential_id)
            if is_new and not self.cleaned_data["is_active"]:
                webhook.pause(PauseReason.PERSON)
            self.save_credential()
            webhook.save(**({} if is_new else {"update_fields": fields}))
            if not is_new:
                is_other = webhook.credential_id != self._used_id
                self.correct_authorization(
                    is_awaited=is_other or self.conditions.changes or self.changes("url")
                )
                self._pause_or_resume()
        self.draft.discard()
        return webhook

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

    def _write_headers(self) -> set[str]:
        """Set the custom headers on the webhook; return the names of its columns."""
        headers = headers_as_json(self.headers.headers()) if self.headers.is_bound else ""
        is_same = headers == self.instance.headers_json and may_be_sent_to(
            self.instance, self.instance.url, "headers_json"
        )
        if not self.headers.is_bound or is_same:
            return set()
        self.instance.set_secret("headers_json", headers)
        return {"headers_json", "secrets_changed_at"}

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
