"""The audit trail: who changed what and when. Rows are added and never changed.

Database triggers enforce it (migration 0003). SQLite loses them when it rebuilds a table to alter a
column, so a migration that does so must create them again.
"""

from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from webhooks.models.errors import ModelError
from webhooks.models.webhook import Webhook
from webhooks.security.encryption import SecretField


class Action(models.TextChoices):
    CREATED = "created", _("Created")
    CHANGED = "changed", _("Changed")
    DELETED = "deleted", _("Deleted")
    RESTORED = "restored", _("Restored")
    PURGED = "purged", _("Deleted permanently")
    REVERTED = "reverted", _("Reverted")
    PAUSED = "paused", _("Paused")
    RESUMED = "resumed", _("Resumed")
    SECRET_ROTATED = "secret_rotated", _("Signing secret rotated")
    SECRET_REVEALED = "secret_revealed", _("Signing secret revealed")
    AUTHORIZED = "authorized", _("Access token obtained")
    TOKEN_REFRESHED = "token_refreshed", _("Access token refreshed")
    TOKEN_CLEARED = "token_cleared", _("Access token cleared")
    AUTHORIZATION_LOST = "authorization_lost", _("Authorization lost")
    TESTED = "tested", _("Test sent")
    RESENT = "resent", _("Resent")
    EDITED_AND_RESENT = "edited_and_resent", _("Edited and resent")
    CANCELLED = "cancelled", _("Deliveries cancelled")
    RESEND_STARTED = "resend_started", _("Resend started")
    RESEND_STOPPED = "resend_stopped", _("Resend stopped")
    EXPORTED = "exported", _("Exported")
    IMPORTED = "imported", _("Imported")
    KEY_ISSUED = "key_issued", _("API key issued")
    KEY_REVOKED = "key_revoked", _("API key revoked")


class AppendOnlyError(ModelError, TypeError):
    """An entry of the audit trail cannot be changed or deleted."""


class AuditQuerySet(models.QuerySet["AuditEntry"]):
    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError("Entries of the audit trail are never changed.")

    def delete(self) -> NoReturn:
        raise AppendOnlyError("Entries of the audit trail are never deleted.")


class AuditEntry(models.Model):
    """One change by a person or by the product itself: names of fields, never their values."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(_("Time"), auto_now_add=True)
    # Kept when the account is deleted: no constraint, no cascade.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="+",
    )
    # Empty for the product itself, such as the engine that paused a webhook.
    username = models.CharField(_("Person"), max_length=150, blank=True, default="")
    action = models.CharField(_("Action"), max_length=24, choices=Action.choices)
    # A model's name in lower case: webhook, connection, apikey, delivery, resend.
    object_type = models.CharField(_("Kind"), max_length=24)
    object_id = models.CharField(_("Object id"), max_length=40)
    object_name = models.CharField(_("Name"), max_length=100, blank=True, default="")
    # The webhook on whose page the entry is shown, also for a delivery or resend.
    webhook = models.ForeignKey(
        Webhook,
        null=True,
        blank=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
        verbose_name=_("Webhook"),
    )
    # The names of the changed fields, sorted.
    fields = models.JSONField(_("Fields"), default=list, blank=True)
    # A code of `audit.SENTENCES` with its parameters, or a value such as an id; never a secret.
    note = models.CharField(_("Note"), max_length=300, blank=True, default="")

    objects = AuditQuerySet.as_manager()

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit trail")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["object_type", "object_id", "-id"], name="audit_by_object"),
            models.Index(fields=["webhook", "-id"], name="audit_by_webhook"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.object_type} {self.object_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError("Entries of the audit trail are never changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError("Entries of the audit trail are never deleted.")


class WebhookVersion(models.Model):
    """The settings of a webhook after one audit entry, to revert to; without secrets."""

    entry = models.OneToOneField(
        AuditEntry, primary_key=True, on_delete=models.PROTECT, related_name="version"
    )
    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="versions")
    # A JSON object by column. Encrypted, because URLs and values are often keys.
    settings = SecretField()

    class Meta:
        verbose_name = _("webhook version")
        default_permissions = ()

    def __str__(self) -> str:
        return f"Webhook {self.webhook_id} after entry {self.entry_id}"

    def secret_binding(self) -> str:
        return str(self.entry_id)
