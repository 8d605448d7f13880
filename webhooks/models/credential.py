"""Credential: how requests are authorized, private to one webhook or shared under a name.

docs/decisions/0005-credentials.md says why it is a separate row.
"""

from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from webhooks.models import ids
from webhooks.models.edited import EditedRow
from webhooks.models.origins import host_origin, origin_of
from webhooks.security.encryption import SecretField


class AuthorizationType(models.TextChoices):
    NONE = "none", _("None")
    BASIC = "basic", _("Basic authentication")
    OAUTH2 = "oauth2", _("OAuth 2.0")


class GrantType(models.TextChoices):
    AUTHORIZATION_CODE = "authorization_code", _("Authorization code")
    CLIENT_CREDENTIALS = "client_credentials", _("Client credentials")
    JWT_BEARER = "jwt_bearer", _("JWT bearer")
    DEVICE_CODE = "device_code", _("Device code")


# A person approves these grants; tokens of the others are fetched without a person.
BY_PERSON = (GrantType.AUTHORIZATION_CODE, GrantType.DEVICE_CODE)


class ClientAuthentication(models.TextChoices):
    """How the client authenticates in a token request.

    Source: RFC 6749 section 2.3.1, RFC 7523 section 2.2, RFC 8705 section 2.
    """

    BASIC_HEADER = "basic_header", _("Basic Auth header")
    REQUEST_BODY = "request_body", _("Client credentials in body")
    RAW_BASIC = "raw_basic", _("Basic Auth header, raw")
    SECRET_JWT = "client_secret_jwt", _("JWT signed with the client secret")
    KEY_JWT = "private_key_jwt", _("JWT signed with a private key")
    CERTIFICATE = "tls_client_auth", _("TLS client certificate")


class TokenPlacement(models.TextChoices):
    HEADER = "header", _("Header")
    QUERY = "query", _("Query parameter")


class CredentialQuerySet(models.QuerySet["Credential"]):
    def present(self) -> "CredentialQuerySet":
        """Leave out deleted credentials."""
        return self.filter(deleted_at=None)

    def in_use(self) -> "CredentialQuerySet":
        """Leave out deleted ones, and a webhook's own credential while it uses a connection."""
        return self.present().filter(Q(webhook=None) | Q(webhook__credential=F("pk")))

    def shared(self) -> "CredentialQuerySet":
        """Return credentials saved under a name, which are called connections in the UI."""
        return self.present().filter(webhook=None)


class Credential(EditedRow):
    """Everything an admin enters to authorize requests; its token is a separate row."""

    uid = models.CharField(max_length=30, unique=True, default=ids.credential_uid, editable=False)
    # The webhook that owns it, by the uid that is known before its row is saved; None if shared.
    webhook = models.OneToOneField(
        "webhooks.Webhook",
        to_field="uid",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.CASCADE,
        related_name="own_credential",
    )
    # The name by which webhooks choose a shared credential.
    name = models.CharField(_("Name"), max_length=100, blank=True, default="")
    # Where a shared credential may be sent: a host name for https on port 443, else an origin.
    allowed_hosts = models.JSONField(_("Hosts"), default=list, blank=True)

    authorization_type = models.CharField(
        _("Authorization type"),
        max_length=16,
        choices=AuthorizationType.choices,
        default=AuthorizationType.NONE,
    )
    basic_login = models.CharField(_("Login"), max_length=255, blank=True, default="")
    basic_password = SecretField(_("Password"))

    grant_type = models.CharField(
        _("Grant type"),
        max_length=24,
        choices=GrantType.choices,
        default=GrantType.AUTHORIZATION_CODE,
    )
    token_name = models.CharField(_("Token name"), max_length=100, blank=True, default="")
    callback_url = models.CharField(_("Callback URL"), max_length=2048, blank=True, default="")
    auth_url = models.CharField(_("Auth URL"), max_length=2048, blank=True, default="")
    token_url = models.CharField(_("Access token URL"), max_length=2048, blank=True, default="")
    client_id = models.CharField(_("Client ID"), max_length=1024, blank=True, default="")
    client_secret = SecretField(_("Client secret"))
    scope = models.CharField(_("Scope"), max_length=2048, blank=True, default="")
    client_authentication = models.CharField(
        _("Send credentials as"),
        max_length=20,
        choices=ClientAuthentication.choices,
        default=ClientAuthentication.BASIC_HEADER,
    )

    # Advanced OAuth settings; the defaults are the standard's.
    provider = models.CharField(_("Provider"), max_length=32, blank=True, default="")
    issuer = models.CharField(_("Issuer"), max_length=2048, blank=True, default="")
    # Discovery stated that authorization responses have `iss` (RFC 9207).
    requires_issuer = models.BooleanField(_("Responses name the issuer"), default=False)
    uses_pkce = models.BooleanField(_("Use PKCE"), default=True)
    refresh_url = models.CharField(_("Refresh URL"), max_length=2048, blank=True, default="")
    revocation_url = models.CharField(_("Revocation URL"), max_length=2048, blank=True, default="")
    audience = models.CharField(_("Audience"), max_length=2048, blank=True, default="")
    resource = models.CharField(_("Resource"), max_length=2048, blank=True, default="")
    authorization_parameters = models.JSONField(
        _("Extra authorization parameters"), default=dict, blank=True
    )
    token_parameters = models.JSONField(_("Extra token parameters"), default=dict, blank=True)
    refresh_parameters = models.JSONField(_("Extra refresh parameters"), default=dict, blank=True)
    scope_separator = models.CharField(
        _("Scope separator"),
        max_length=1,
        default=" ",
        blank=True,
        choices=[(" ", _("Space")), (",", _("Comma"))],
    )
    # A private key in PEM, which signs JWTs; its public key is at `oauth/keys/`.
    client_key = SecretField(_("Private key"))
    # Claims of those JWTs, and header parameters by their names (RFC 7519, RFC 7515).
    assertion_claims = models.JSONField(_("Claims of the JWT"), default=dict, blank=True)
    # Additional headers of token requests, as lines of "Name: value".
    token_headers = SecretField(_("Headers of token requests"))
    # A certificate and its key in PEM, for the token endpoint and for receivers.
    client_certificate = SecretField(_("TLS client certificate"))
    uses_json_token_request = models.BooleanField(_("JSON token request"), default=False)
    header_prefix = models.CharField(
        _("Header prefix"), max_length=64, blank=True, default="Bearer"
    )
    token_placement = models.CharField(
        _("Send the token in"),
        max_length=8,
        choices=TokenPlacement.choices,
        default=TokenPlacement.HEADER,
    )
    token_header = models.CharField(
        _("Token header"), max_length=64, blank=True, default="Authorization"
    )
    token_query_parameter = models.CharField(
        _("Query parameter"), max_length=64, blank=True, default="access_token"
    )
    token_path = models.CharField(
        _("Path of the token in the response"), max_length=200, blank=True, default=""
    )
    expired_status_codes = models.JSONField(
        _("Status codes that mean the token expired"), default=list, blank=True
    )
    reauthorization_words = models.JSONField(
        _("Words that mean re-authorize"), default=list, blank=True
    )

    objects = CredentialQuerySet.as_manager()

    class Meta:
        verbose_name = _("connection")
        verbose_name_plural = _("connections")
        ordering = ["name", "pk"]
        # For shared credentials; a webhook's own follows the permissions of the webhook.
        default_permissions = ()
        permissions = [
            ("add_connection", "Can add connection"),
            ("change_connection", "Can change connection"),
            ("delete_connection", "Can delete connection"),
            ("view_connection", "Can view connection"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(webhook__isnull=False, name="") | Q(webhook=None) & ~Q(name=""),
                name="credential_own_or_named",
                violation_error_message=_("Enter a name."),
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.uid

    @property
    def is_shared(self) -> bool:
        return self.webhook_id is None

    @property
    def subject(self) -> Any:
        """Return the object shown to people: the webhook that owns it, or the connection itself."""
        return self.webhook or self

    @property
    def receiver_url(self) -> str:
        """Return the URL of its webhook, empty if it is shared or the webhook is not saved yet."""
        try:
            return self.webhook.url if self.webhook else ""
        except ObjectDoesNotExist:
            return ""

    @property
    def receiver_origins(self) -> list[str]:
        """Return the origins requests may go to: its webhook's receiver, or its allowed hosts."""
        if self.is_shared:
            return [host_origin(one) for one in self.allowed_hosts]
        return [origin_of(self.receiver_url)] if self.receiver_url else []

    @property
    def endpoints(self) -> list[str]:
        """Return the URLs of the provider in its settings."""
        urls = [self.token_url, self.revocation_url]
        if not self.is_machine:
            urls += [self.auth_url, self.refresh_url]
        return [url for url in urls if url]

    @property
    def token_origins(self) -> list[str]:
        """Return the origins a token granted now may go to: receivers, and endpoints to refresh."""
        return sorted({*self.receiver_origins, *map(origin_of, self.endpoints)})

    @property
    def is_machine(self) -> bool:
        """Return whether its token is fetched without a person."""
        return self.grant_type not in BY_PERSON

    @property
    def is_oauth(self) -> bool:
        return self.authorization_type == AuthorizationType.OAUTH2

    @property
    def is_basic(self) -> bool:
        return self.authorization_type == AuthorizationType.BASIC

    @property
    def signs_with_key(self) -> bool:
        return self.is_oauth and (
            self.grant_type == GrantType.JWT_BEARER
            or self.client_authentication == ClientAuthentication.KEY_JWT
        )

    @property
    def secrets_used(self) -> list[str]:
        """Return the columns of the secrets that it currently sends or signs with."""
        if self.is_basic:
            return ["basic_password", "client_certificate"]
        if not self.is_oauth:
            return ["client_certificate"]
        by_secret = self.client_authentication not in (
            ClientAuthentication.KEY_JWT,
            ClientAuthentication.CERTIFICATE,
        )
        return [
            *(["client_secret"] if by_secret else []),
            *(["client_key"] if self.signs_with_key else []),
            *("token_headers", "client_certificate"),
        ]

    def secret_destinations(self, field: str, receiver_url: str = "") -> set[str]:
        """Return the origins that receive a secret, or a token fetched with that secret alone."""
        receivers = {origin_of(receiver_url)} if receiver_url else set(self.receiver_origins)
        if field == "basic_password":
            return receivers
        endpoints = {origin_of(url) for url in self.endpoints}
        if field == "client_certificate":
            return endpoints | receivers if self.is_oauth else receivers
        # Without a person's approval these secrets alone get a token that receivers accept.
        return endpoints | receivers if self.is_machine else endpoints

    def secret_binding(self) -> str:
        return self.uid


def may_be_sent_to(row: EditedRow, url: str, secret: str = "") -> bool:
    """Return whether requests to a URL may carry a credential, or one secret of a row.

    Only the origin of the URL counts: scheme, host and port. A secret is sent only to the origins
    it was entered for, however the row changed since; a shared credential also only to its allowed
    hosts.
    """
    origin = origin_of(url)
    if secret:
        return row.is_bound_to(secret, origin)
    assert isinstance(row, Credential)
    if row.is_shared and origin not in row.receiver_origins:
        return False
    if row.is_basic and not row.is_entered("basic_password"):
        # Without a password nothing is sent either; an import may have left it out.
        return False
    return all(
        row.is_bound_to(field, origin)
        for field in row.secrets_used
        if origin in row.secret_destinations(field, origin)
    )


# The columns of the authorization settings, by name.
AUTHORIZATION_FIELDS: dict[str, "models.Field[Any, Any]"] = {
    field.name: field
    for field in Credential._meta.concrete_fields
    if field.name not in {"id", "uid", "webhook", "name", "allowed_hosts"}
    and field.name not in {inherited.name for inherited in EditedRow._meta.fields}
}
# The encrypted columns, which lists do not load.
CREDENTIAL_SECRETS = tuple(
    field.name for field in Credential._meta.fields if isinstance(field, SecretField)
)
