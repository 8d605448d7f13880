"""OAuth 2.0 rows: access tokens, pending authorizations, and recorded exchanges."""

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.models.credential import Credential
from webhooks.security.encryption import SecretField


class TokenState(models.TextChoices):
    NONE = "none", _("No token")
    VALID = "valid", _("Valid")
    EXPIRING = "expiring", _("Expiring")
    REFRESHING = "refreshing", _("Refreshing")
    NEEDS_REAUTHORIZATION = "needs_reauthorization", _("Needs re-authorization")
    MISCONFIGURED = "misconfigured", _("Misconfigured")


# States in which a person must act before a token is used or refreshed again.
BLOCKED_STATES = (TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)


class OAuthToken(models.Model):
    """The access token of a credential. Workers write it; people get, refresh and clear it."""

    credential = models.OneToOneField(
        Credential, primary_key=True, on_delete=models.CASCADE, related_name="token"
    )
    state = models.CharField(max_length=24, choices=TokenState.choices, default=TokenState.NONE)
    access_token = SecretField()
    refresh_token = SecretField()
    # The client secret that the token was obtained with, kept after another one was saved.
    replaced_secret = SecretField()
    # The origins it was entered for; if it is restored, it is sent to no others.
    replaced_secret_origins = models.JSONField(default=list, blank=True)
    # Values that extra parameters take from the provider's response in the browser: a JSON object.
    placeholder_values = SecretField()
    token_type = models.CharField(max_length=32, blank=True, default="")
    # None until a refresh has shown whether a refresh token works only once.
    is_single_use = models.BooleanField(null=True, blank=True)
    # Space-separated, as granted; may differ from the requested scope.
    granted_scope = models.CharField(max_length=4096, blank=True, default="")
    obtained_at = models.DateTimeField(null=True, blank=True)
    # None if the provider does not state it: then only a 401 leads to a refresh.
    expires_at = models.DateTimeField(null=True, blank=True)
    refresh_token_expires_at = models.DateTimeField(null=True, blank=True)
    # Each refresh extends refresh_token_expires_at, which is the time allowed without a refresh.
    refresh_end_moves = models.BooleanField(default=False)
    refreshed_at = models.DateTimeField(null=True, blank=True)
    granted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    # The account, as the provider names it in an ID token.
    account = models.CharField(max_length=255, blank=True, default="")
    # Incremented with each token stored or dropped; one refresh per version.
    version = models.PositiveIntegerField(default=0)
    refresh_lease = models.CharField(max_length=32, blank=True, default="")
    refresh_lease_until = models.DateTimeField(null=True, blank=True)
    # After a transient failure, no refresh before this time.
    retry_refresh_at = models.DateTimeField(null=True, blank=True)
    refresh_failures = models.PositiveIntegerField(default=0)
    # When a refresh got no response: the provider may count the refresh token as used.
    response_lost_at = models.DateTimeField(null=True, blank=True)
    # The version that receivers refused last, and their webhooks. The version is reset to 0 once
    # the token proved valid, by an accepted request or by the provider; a webhook that is still
    # listed then has a problem of its own.
    refused_version = models.PositiveIntegerField(default=0)
    refused_by = models.JSONField(default=list, blank=True)
    # Stored messages for the panel: what went wrong and what to change.
    last_error = models.CharField(max_length=1000, blank=True, default="")
    warning = models.CharField(max_length=1000, blank=True, default="")
    # The origins that the access and refresh token may be sent to: the receivers and endpoints of
    # the credential when it was granted, whatever changed since.
    bound_origins = models.JSONField(default=list, blank=True)

    class Meta:
        verbose_name = _("access token")

    def __str__(self) -> str:
        return f"Token of credential {self.credential_id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding and not self.bound_origins:
            self.bound_origins = self.credential.token_origins
        super().save(*args, **kwargs)

    def secret_binding(self) -> str:
        return str(self.credential_id)

    def has_access_token(self) -> bool:
        return self._is_set("access_token")

    def has_refresh_token(self) -> bool:
        return self._is_set("refresh_token")

    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()

    def has_replaced_secret(self) -> bool:
        return self._is_set("replaced_secret")

    def _is_set(self, field: str) -> bool:
        secret: Any = self._meta.get_field(field)
        return bool(secret.is_set(self))


def token_of(credential: Credential) -> OAuthToken | None:
    """Return a credential's token row, if there is one. Use with select_related."""
    return getattr(credential, "token", None)


# The encrypted columns, which lists do not load.
TOKEN_SECRETS = tuple(
    field.name for field in OAuthToken._meta.fields if isinstance(field, SecretField)
)


class AuthorizationRequest(models.Model):
    """A pending authorization by a person: single use, bound to session, user and credential."""

    state_hash = models.CharField(primary_key=True, max_length=64)
    credential = models.ForeignKey(Credential, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    session_hash = models.CharField(max_length=64)
    code_verifier = SecretField()
    # With a device code (stored in `code_verifier`): the page at which to enter `user_code`.
    redirect_uri = models.CharField(max_length=2048)
    user_code = models.CharField(max_length=64, blank=True, default="")
    # For a device code: the interval of token requests, and the time of the next one.
    poll_seconds = models.PositiveSmallIntegerField(default=5)
    poll_at = models.DateTimeField(null=True, blank=True)
    issuer = models.CharField(max_length=2048, blank=True, default="")
    # The server announced that its response has `iss` (RFC 9207); one without it is refused.
    requires_issuer = models.BooleanField(default=False)
    # The client and endpoints at the time of the redirect, to refuse a mix-up.
    client_fingerprint = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = _("authorization request")

    def __str__(self) -> str:
        return f"Authorization request of credential {self.credential_id}"

    def secret_binding(self) -> str:
        return self.state_hash


class ExchangeKind(models.TextChoices):
    AUTHORIZATION = "authorization", _("Authorization")
    TOKEN = "token", _("Token")
    REFRESH = "refresh", _("Refresh")
    REVOCATION = "revocation", _("Revocation")
    CHECK = "check", _("Check")


class OAuthExchange(models.Model):
    """One recorded and redacted exchange with an authorization server."""

    credential = models.ForeignKey(
        Credential, on_delete=models.CASCADE, related_name="oauth_exchanges"
    )
    kind = models.CharField(_("Kind"), max_length=16, choices=ExchangeKind.choices)
    started_at = models.DateTimeField()
    duration_ms = models.FloatField(null=True, blank=True)
    url = models.CharField(_("URL"), max_length=2048)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    # One of ok, ok_with_warning, transient, needs_reauthorization, misconfigured.
    result = models.CharField(max_length=24)
    # Both redacted: only the last four characters of codes, secrets and tokens are shown.
    request = models.TextField(blank=True, default="")
    response = models.TextField(blank=True, default="")
    message = models.CharField(max_length=1000, blank=True, default="")

    class Meta:
        verbose_name = _("OAuth exchange")
        verbose_name_plural = _("OAuth exchanges")
        ordering = ["-pk"]
        indexes = [models.Index(fields=["credential", "-id"], name="exchange_by_credential")]

    def __str__(self) -> str:
        return f"{self.kind} {self.result}"
