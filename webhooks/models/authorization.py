"""How a request is authorized: the fields of Basic and OAuth 2.0, shared by their owners."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from webhooks.security.encryption import SecretField


class AuthorizationType(models.TextChoices):
    NONE = "none", _("None")
    BASIC = "basic", _("Basic authentication")
    OAUTH2 = "oauth2", _("OAuth 2.0")


class GrantType(models.TextChoices):
    AUTHORIZATION_CODE = "authorization_code", _("Authorization code")
    CLIENT_CREDENTIALS = "client_credentials", _("Client credentials")


class ClientAuthentication(models.TextChoices):
    """Where the client credentials go in a token request (RFC 6749 section 2.3.1)."""

    BASIC_HEADER = "basic_header", _("Basic Auth header")
    REQUEST_BODY = "request_body", _("Client credentials in body")


class TokenPlacement(models.TextChoices):
    HEADER = "header", _("Authorization header")
    QUERY = "query", _("Query parameter")


class AuthorizationFields(models.Model):
    """Mixin: everything an admin enters to authorize requests; tokens are rows of their own."""

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
        max_length=16,
        choices=ClientAuthentication.choices,
        default=ClientAuthentication.BASIC_HEADER,
    )

    # Advanced OAuth settings; the defaults are the standard's.
    provider = models.CharField(_("Provider"), max_length=32, blank=True, default="")
    issuer = models.CharField(_("Issuer"), max_length=2048, blank=True, default="")
    # Discovery said that answers carry `iss` (RFC 9207).
    requires_issuer = models.BooleanField(_("Answers name the issuer"), default=False)
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
    token_query_parameter = models.CharField(
        _("Query parameter"), max_length=64, blank=True, default="access_token"
    )
    token_path = models.CharField(
        _("Path of the token in the answer"), max_length=200, blank=True, default=""
    )
    expired_status_codes = models.JSONField(
        _("Status codes that mean the token expired"), default=list, blank=True
    )
    reauthorization_words = models.JSONField(
        _("Words that mean re-authorize"), default=list, blank=True
    )

    class Meta:
        abstract = True
