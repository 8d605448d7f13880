"""API keys, and the canary that proves the encryption key is the right one."""

import hashlib
import secrets
from collections.abc import Collection

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models
from django.utils.translation import gettext_lazy as _

from webhooks.models.errors import ModelError
from webhooks.security.encryption import SecretField


class ApiScope(models.TextChoices):
    """What an API key may do; a key without the scope is refused (RFC 6750 section 3.1)."""

    EVENTS_WRITE = "events:write", _("Send events")
    HEALTH_READ = "health:read", _("Read figures of /readyz")


class MissingScopeError(ModelError):
    """The key is valid but lacks the required scope."""

    def __init__(self, scope: ApiScope) -> None:
        super().__init__(scope.value)
        self.scope = scope


class ApiKeyManager(models.Manager["ApiKey"]):
    def issue(
        self,
        name: str,
        created_by: User | None = None,
        *,
        scopes: Collection[str] = (ApiScope.EVENTS_WRITE,),
    ) -> tuple["ApiKey", str]:
        """Make a key and return it with its plain text, which is shown once and not stored."""
        plain = "whapi_" + secrets.token_urlsafe(32)
        key = self.create(
            name=name,
            prefix=plain[:12],
            key_hash=hash_key(plain),
            created_by=created_by,
            scopes=sorted(scopes),
        )
        return key, plain

    def verify(self, plain: str, scope: ApiScope = ApiScope.EVENTS_WRITE) -> "ApiKey | None":
        """Return the key, or None if unknown or revoked. Errors: MissingScopeError."""
        return self.verify_hash(hash_key(plain), scope)

    def verify_hash(
        self, key_hash: str, scope: ApiScope = ApiScope.EVENTS_WRITE
    ) -> "ApiKey | None":
        key = self.filter(key_hash=key_hash, revoked_at=None).first()
        if key is not None and scope not in key.scopes:
            raise MissingScopeError(scope)
        return key


class ApiKey(models.Model):
    """A bearer key of the API. Only its SHA-256 is kept: the key has 256 random bits."""

    name = models.CharField(_("Name"), max_length=100)
    prefix = models.CharField(_("Starts with"), max_length=16, editable=False)
    scopes = models.JSONField(_("May"), default=list)
    key_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(_("Created"), auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    last_used_at = models.DateTimeField(_("Last used"), null=True, blank=True, editable=False)
    revoked_at = models.DateTimeField(_("Revoked"), null=True, blank=True, editable=False)

    objects = ApiKeyManager()

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        ordering = ["-pk"]

    def __str__(self) -> str:
        return self.name


def hash_key(plain: str) -> str:
    return hashlib.sha256(plain.encode()).hexdigest()


class EncryptionCanary(models.Model):
    """One row with a known secret: when it cannot be read, the key is wrong and nothing is sent."""

    TEXT = "webhooks"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    canary = SecretField()

    class Meta:
        verbose_name = _("encryption canary")

    def __str__(self) -> str:
        return "Encryption canary"

    def secret_binding(self) -> str:
        return str(self.pk)
