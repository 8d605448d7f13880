"""The base of the rows that people edit: webhooks and credentials."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import models
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.security.encryption import Sealed, SecretField


class EditedRow(models.Model):
    """Base with a version, the dates of secrets, recipients of alerts, and the history."""

    # Email addresses notified of failures; muting keeps them.
    alert_recipients = models.JSONField(_("Alert recipients"), default=list, blank=True)
    alerts_are_muted = models.BooleanField(_("Mute alerts"), default=False)
    # When muted: the end of the muting; None until a person unmutes.
    alerts_muted_until = models.DateTimeField(_("Muted until"), null=True, blank=True)
    # {field name: ISO time} of the last change of each secret, for "set, changed on ...".
    secrets_changed_at = models.JSONField(default=dict, blank=True, editable=False)
    # {field name: origins} that each secret was entered for, the only ones it may be sent to
    # (`may_be_sent_to`).
    secret_origins = models.JSONField(default=dict, blank=True, editable=False)
    # Without it no form saves a setting that sends secrets over plain http.
    accepts_plain_http = models.BooleanField(_("Send secrets over plain http"), default=False)
    # Incremented with each change; workers cache decrypted settings by it.
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
            # Incremented by the database, so that concurrent saves never give the same number.
            self.version = F("version") + 1
        self.bind_secrets()
        if (fields := kwargs.get("update_fields")) is not None:
            written = {*fields, "version", "updated_at"}
            if written & {field.name for field in self.secret_fields()}:
                written.add("secret_origins")
            kwargs["update_fields"] = written
        super().save(*args, **kwargs)
        self.refresh_from_db(fields=["version"])

    def mutes_alerts(self, now: datetime) -> bool:
        """Return whether alerts to the row's own recipients are muted."""
        until = self.alerts_muted_until
        return self.alerts_are_muted and (until is None or until > now)

    def secret_destinations(self, field: str, receiver_url: str = "") -> Collection[str]:
        """Return the origins that the row now sends a secret to; empty if it is not sent.

        `receiver_url` is the URL of a webhook that is not saved yet.
        """
        raise NotImplementedError

    def bind_secrets(self, receiver_url: str = "") -> None:
        """Bind each secret set since the last save to the origins it would be sent to now."""
        for field in self.secret_fields():
            if self._is_new(field.name) and field.name not in self.secret_origins:
                found = sorted(set(self.secret_destinations(field.name, receiver_url)))
                self.secret_origins = {**self.secret_origins, field.name: found}

    def is_bound_to(self, field: str, origin: str) -> bool:
        """Return whether a secret may be sent to an origin; an unsaved secret may.

        A stored secret without recorded origins may not, if the row was loaded with it.
        """
        if (origins := self.secret_origins.get(field)) is not None:
            return origin in origins
        return self._is_new(field) or not self.__dict__.get(field)

    def is_entered(self, field: str) -> bool:
        """Return whether a secret is set, without a query."""
        return field in self.secret_origins or self._is_new(field)

    def _is_new(self, field: str) -> bool:
        """Return whether a secret is plain text set by this process, not a stored value."""
        value = self.__dict__.get(field)
        return bool(value) and not isinstance(value, Sealed)

    def secret_fields(self) -> list[SecretField]:
        return [field for field in self._meta.concrete_fields if isinstance(field, SecretField)]

    def set_secret(self, field: str, value: str) -> None:
        """Set a secret, or clear it with an empty value, and record when.

        The next save binds it to the origins it is sent to then.
        """
        setattr(self, field, value)
        self.secret_origins = {
            name: of for name, of in self.secret_origins.items() if name != field
        }
        changed = {**self.secrets_changed_at, field: timezone.now().isoformat()}
        if not value:
            del changed[field]
        self.secrets_changed_at = changed

    def has_secret(self, field: str) -> bool:
        secret = self._meta.get_field(field)
        assert isinstance(secret, SecretField)
        return secret.is_set(self)

    def copy_columns(self, source: "EditedRow", names: Collection[str]) -> None:
        """Copy columns of another row; its secrets are decrypted, to be encrypted for this one.

        They stay bound to the origins that they were entered for.
        """
        for field in type(source)._meta.concrete_fields:
            if field.name not in names:
                continue
            value = getattr(source, field.attname)
            if not isinstance(field, SecretField):
                setattr(self, field.attname, value)
            elif value:
                self.set_secret(field.name, value)
                origins = source.secret_origins.get(field.name, [])
                self.secret_origins = {**self.secret_origins, field.name: origins}
