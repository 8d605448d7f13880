"""Earlier versions of a webhook: what it was like after a change. Never a secret."""

import json
from collections.abc import Iterable
from typing import Any

from django.db import models

from webhooks.models import AUTHORIZATION_FIELDS, AuditEntry, Webhook, WebhookVersion
from webhooks.security.encryption import SecretField, SecretUnreadableError

# How many a webhook keeps.
_KEPT = 50
_COLUMNS: dict[str, "models.Field[Any, Any]"] = {
    field.name: field
    for field in (*AUTHORIZATION_FIELDS.values(), *Webhook._meta.concrete_fields)
    # What an import reads, by the same names; state and identity are not settings.
    if not isinstance(field, SecretField | models.DateTimeField | models.ForeignKey)
    and field.editable
    and field.name not in {"id", "is_active", "pause_reason"}
}


def keep(entries: Iterable[AuditEntry], webhooks: Iterable[Webhook]) -> None:
    """Keep what each webhook is like now as the version of its entry."""
    for entry, webhook in zip(entries, webhooks, strict=True):
        try:
            content = _settings(webhook)
        except SecretUnreadableError:
            # Sealed under another key: there is nothing whole to go back to.
            continue
        WebhookVersion.objects.create(entry=entry, webhook=webhook, settings=json.dumps(content))
        kept = WebhookVersion.objects.filter(webhook=webhook).order_by("-pk")
        if oldest := kept.values_list("pk", flat=True)[_KEPT - 1 : _KEPT].first():
            kept.filter(pk__lt=oldest).delete()


def _settings(webhook: Webhook) -> dict[str, Any]:
    own = webhook.private_credential
    found = {
        name: getattr(own if name in AUTHORIZATION_FIELDS else webhook, name) for name in _COLUMNS
    }
    headers = json.loads(webhook.headers_json or "[]")
    found["headers"] = [
        {"name": one["name"], "secret": True}
        if one.get("secret")
        else {"name": one["name"], "value": one["value"]}
        for one in headers
    ]
    found["connection"] = webhook.credential.name if webhook.credential.is_shared else None
    return found


def settings_of(version: WebhookVersion) -> dict[str, Any]:
    """Return the settings of a version, as a file of webhooks has them."""
    found: dict[str, Any] = json.loads(version.settings)
    return {**found, "uid": version.webhook.uid}
