"""The settings of a webhook by column name, without secrets, for versions and exported files."""

import json
from collections.abc import Iterable
from typing import Any

from django.db import models

from webhooks.models import AUTHORIZATION_FIELDS, AuditEntry, Webhook, WebhookVersion
from webhooks.security.encryption import SecretField, SecretUnreadableError

# How many versions of a webhook are stored.
_KEPT = 50
# Columns that belong to one row alone: identity, history, dates of secrets.
NOT_PORTABLE = frozenset(
    {
        *("id", "uid", "version", "created_at", "created_by", "updated_at", "deleted_at"),
        *("purged_at", "credential", "pause_reason", "paused_at", "cancels_before"),
        *("previous_signing_secrets_until", "secrets_changed_at", "secret_origins"),
        "alerts_muted_until",
    }
)
# New columns are portable by default.
FIELDS: dict[str, "models.Field[Any, Any]"] = {
    field.name: field
    for field in (*AUTHORIZATION_FIELDS.values(), *Webhook._meta.concrete_fields)
    if field.name not in NOT_PORTABLE and not isinstance(field, SecretField)
}


def as_settings(webhook: Webhook) -> dict[str, Any]:
    """Return the value of every portable column."""
    own = webhook.private_credential
    return {
        name: getattr(own if name in AUTHORIZATION_FIELDS else webhook, name) for name in FIELDS
    }


def lasting_settings(webhook: Webhook) -> dict[str, Any]:
    """Return the settings to store or export: without a mute of alerts for some hours.

    Its end belongs to one row alone; without the end, it would last until a person unmutes.
    """
    found = as_settings(webhook)
    if webhook.alerts_muted_until:
        del found["alerts_are_muted"]
    return found


def portable_headers(webhook: Webhook) -> list[dict[str, Any]]:
    """Return the custom headers, secret ones without their value. Errors: SecretUnreadableError."""
    return [
        {"name": one.name, "secret": True}
        if one.is_secret
        else {"name": one.name, "value": one.value}
        for one in webhook.read_headers()
    ]


def connection_of(webhook: Webhook) -> str | None:
    """Return the name of the connection that a webhook uses, None if it has its own credential."""
    return webhook.credential.name if webhook.credential.is_shared else None


def store_versions(entries: Iterable[AuditEntry], webhooks: Iterable[Webhook]) -> None:
    """Store the current settings of each webhook as the version of its entry."""
    for entry, webhook in zip(entries, webhooks, strict=True):
        try:
            headers = portable_headers(webhook)
        except SecretUnreadableError:
            # The headers were encrypted with another key; a version without them is incomplete.
            continue
        settings = lasting_settings(webhook)
        content = {**settings, "headers": headers, "connection": connection_of(webhook)}
        WebhookVersion.objects.create(entry=entry, webhook=webhook, settings=json.dumps(content))
        kept = WebhookVersion.objects.filter(webhook=webhook).order_by("-pk")
        if oldest := kept.values_list("pk", flat=True)[_KEPT - 1 : _KEPT].first():
            kept.filter(pk__lt=oldest).delete()


def settings_of(version: WebhookVersion) -> dict[str, Any]:
    """Return the settings of a version in the format of an exported file."""
    found: dict[str, Any] = json.loads(version.settings)
    return {**found, "uid": version.webhook.uid}
