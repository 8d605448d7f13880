"""What webhooks and credentials have in common as rows that people edit."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.security.encryption import SecretField


class EditedRow(models.Model):
    """Mixin: a version, the dates of its secrets, recipients of alerts, and its history."""

    # E-mail addresses told about failures; muting keeps them.
    alert_recipients = models.JSONField(_("Alert recipients"), default=list, blank=True)
    alerts_are_muted = models.BooleanField(_("Mute alerts"), default=False)
    # When muted: until then; None until a person unmutes.
    alerts_muted_until = models.DateTimeField(_("Muted until"), null=True, blank=True)
    # {field name: ISO time} of the last change of each secret, for "set, changed on ...".
    secrets_changed_at = models.JSONField(default=dict, blank=True, editable=False)
    # Counts up with each change; workers cache decrypted settings by it.
    version = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        get_user_model(), null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            # Counted by the database: two saves at once never give the same number.
            self.version = F("version") + 1
        if (fields := kwargs.get("update_fields")) is not None:
            kwargs["update_fields"] = {*fields, "version", "updated_at"}
        super().save(*args, **kwargs)
        self.refresh_from_db(fields=["version"])

    def mutes_alerts(self, now: datetime) -> bool:
        """Return whether the row's own recipients are not to be told."""
        until = self.alerts_muted_until
        return self.alerts_are_muted and (until is None or until > now)

    def set_secret(self, field: str, value: str) -> None:
        """Set or, with an empty value, clear a secret and remember when."""
        setattr(self, field, value)
        changed = {**self.secrets_changed_at, field: timezone.now().isoformat()}
        if not value:
            del changed[field]
        self.secrets_changed_at = changed

    def has_secret(self, field: str) -> bool:
        secret = self._meta.get_field(field)
        assert isinstance(secret, SecretField)
        return secret.is_set(self)

    def copy_columns(self, source: "EditedRow", names: Collection[str]) -> None:
        """Take columns of another row; secrets are opened there, to be sealed for this one."""
        for field in type(source)._meta.concrete_fields:
            if field.name not in names:
                continue
            value = getattr(source, field.attname)
            if not isinstance(field, SecretField):
                setattr(self, field.attname, value)
            elif value:
                self.set_secret(field.name, value)
