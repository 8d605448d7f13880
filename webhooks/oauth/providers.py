"""Presets of known providers: values for the credential's fields, as data.

The tests run each preset against a fake provider that behaves as described in `docs/oauth.md`.
"""

from dataclasses import dataclass, field
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks.models import ClientAuthentication, GrantType

Text = str | Promise
_BODY = ClientAuthentication.REQUEST_BODY.value
_JWT_BEARER = GrantType.JWT_BEARER.value
_ID_AND_SECRET = _("Copy the client ID and the client secret into the fields below.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A value the URLs depend on, such as a tenant; it replaces `{name}` in the preset's fields."""

    name: str
    label: Text
    default: str = ""
    example: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderPreset:
    """One provider."""

    key: str
    label: Text
    # Where to register this client, and what to enter there besides the callback URL.
    instructions: Text
    # Values by name of the credential's field; a text may contain `{question}` placeholders.
    fields: dict[str, Any]
    questions: tuple[Question, ...] = ()
    # Link to the provider's page for registering a client.
    console_url: str = ""
    # How to get a refresh token, shown when the provider returned none.
    refresh_hint: Text = ""
    # Token types other than bearer that the provider returns and accepts as bearer tokens.
    token_types: tuple[str, ...] = ()
    # What to copy from the provider into the form.
    copied: Text = _ID_AND_SECRET
    # Limits of the provider that an admin should know and that no field expresses.
    notes: tuple[Text, ...] = field(default_factory=tuple)


PROVIDERS = (
    ProviderPreset(
        key="google",
        label="Google",
        instructions=_(
            "Google Cloud console, APIs & Services, Credentials: create an OAuth client ID of the "
            "type “Web application” and add the callback URL to the authorized redirect URIs."
        ),
        console_url="https://console.cloud.google.com/apis/credentials",
        fields={
            "issuer": "https://accounts.google.com",
            "auth_url": "https://accounts.google.com/o/oauth2/v2/auth",
            "token_url": "https://oauth2.googleapis.com/token",
            "revocation_url": "https://oauth2.googleapis.com/revoke",
            "client_authentication": _BODY,
            "authorization_parameters": {"access_type": "offline", "prompt": "consent"},
        },
        refresh_hint=_(
            "Google gives a refresh token only with the authorization parameters "
            "“access_type=offline” and “prompt=consent”."
        ),
        notes=(
            _("While the consent screen is in testing, Google ends every grant after 7 days."),
            _("People can grant a part of the scopes only; the panel then shows a warning."),
        ),
    ),
    # https://developers.google.com/identity/protocols/oauth2/service-account
    ProviderPreset(
        key="google_service_account",
        label=_("Google service account"),
        instructions=_(
            "Google Cloud console, IAM & Admin, Service accounts: open the account, then Keys, Add "
            "key, and let Google make a key of the type JSON."
        ),
        copied=_(
            "Paste the whole JSON file as Private key, and copy its “client_email” as Client ID. "
            "Fill in Scope, and leave Client secret empty."
        ),
        console_url="https://console.cloud.google.com/iam-admin/serviceaccounts",
        fields={
            "grant_type": _JWT_BEARER,
            "token_url": "https://oauth2.googleapis.com/token",
        },
        notes=(
            _(
                "To act for a person of your domain let an administrator of Google Workspace allow "
                "it (domain-wide delegation), and add “sub=person@example.com” to Claims of the "
                "JWT."
            ),
        ),
    ),
    ProviderPreset(
        key="microsoft",
        label="Microsoft",
        instructions=_(
            "Microsoft Entra admin center, App registrations: add the callback URL as a redirect "
            "URI of the platform “Web”, then make a client secret and note when it ends."
        ),
        questions=(
            Question(
                name="tenant",
                label=_("Tenant"),
                default="organizations",
                example="contoso.onmicrosoft.com",
            ),
        ),
        console_url="https://entra.microsoft.com/#view/Microsoft_AAD_RegisteredApps/ApplicationsListBlade",
        fields={
            "auth_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/authorize",
            "token_url": "https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token",
            "client_authentication": _BODY,
            "scope": "offline_access",
        },
        refresh_hint=_("Microsoft gives a refresh token only with the scope “offline_access”."),
        notes=(_("A Microsoft client secret expires after 24 months at most."),),
    ),
    ProviderPreset(
        key="github",
        label="GitHub",
        instructions=_(
            "GitHub, Settings, Developer settings, OAuth Apps: register an application and enter "
            "the callback URL as the authorization callback URL."
        ),
        console_url="https://github.com/settings/developers",
        fields={
            "auth_url": "https://github.com/login/oauth/authorize",
            "token_url": "https://github.com/login/oauth/access_token",
            "client_authentication": _BODY,
        },
        refresh_hint=_(
            "Tokens of GitHub's OAuth Apps do not expire. A GitHub App gives refresh tokens when "
            "“Expire user authorization tokens” is on."
        ),
    ),
    ProviderPreset(
        key="slack",
        label="Slack",
        instructions=_(
            "api.slack.com, Your Apps, OAuth & Permissions: add the callback URL to the redirect "
            "URLs and the scopes to the bot token scopes."
        ),
        console_url="https://api.slack.com/apps",
        fields={
            "auth_url": "https://slack.com/oauth/v2/authorize",
            "token_url": "https://slack.com/api/oauth.v2.access",
            "client_authentication": _BODY,
            "scope_separator": ",",
            # Once an app uses PKCE, Slack treats it as a public client permanently.
            "uses_pkce": False,
            "reauthorization_words": ["token_revoked", "account_inactive", "invalid_refresh_token"],
        },
        token_types=("bot", "user"),
        refresh_hint=_(
            "Slack gives refresh tokens when token rotation is on; without it a token does not "
            "expire."
        ),
        notes=(
            _(
                "For a user's token enter “authed_user.access_token” as the path of the token and "
                "the scopes as the authorization parameter “user_scope”."
            ),
        ),
    ),
    ProviderPreset(
        key="salesforce",
        label="Salesforce",
        instructions=_(
            "Salesforce Setup, External Client Apps: enable OAuth, enter the callback URL, and "
            "select the scopes “api” and “refresh_token”."
        ),
        questions=(
            Question(
                name="host",
                label=_("Login host"),
                default="login.salesforce.com",
                example="acme.my.salesforce.com",
            ),
        ),
        console_url="https://login.salesforce.com/",
        fields={
            "auth_url": "https://{host}/services/oauth2/authorize",
            "token_url": "https://{host}/services/oauth2/token",
            "revocation_url": "https://{host}/services/oauth2/revoke",
            "client_authentication": _BODY,
            "scope": "api refresh_token",
            "expired_status_codes": [401],
        },
        refresh_hint=_("Salesforce gives a refresh token only with the scope “refresh_token”."),
        notes=(
            _(
                "Salesforce tells no expiry, so the token is refreshed when the receiver refuses "
                "it. With a sixth grant for the same person and app the oldest one ends."
            ),
        ),
    ),
    ProviderPreset(
        key="hubspot",
        label="HubSpot",
        instructions=_(
            "HubSpot developer account, Apps, Auth: add the callback URL to the redirect URLs and "
            "select the scopes you enter here."
        ),
        console_url="https://app.hubspot.com/developer",
        fields={
            "auth_url": "https://app.hubspot.com/oauth/authorize",
            "token_url": "https://api.hubapi.com/oauth/v1/token",
            "client_authentication": _BODY,
            "scope": "oauth",
            "uses_pkce": False,
            "reauthorization_words": ["BAD_REFRESH_TOKEN", "EXPIRED_AUTHENTICATION"],
        },
        notes=(_("HubSpot's access tokens last 30 minutes; they are refreshed in time."),),
    ),
    ProviderPreset(
        key="zoho",
        label="Zoho",
        instructions=_(
            "api-console.zoho.com: add a client of the type “Server-based Applications” and enter "
            "the callback URL as an authorized redirect URI."
        ),
        questions=(
            Question(
                name="domain",
                label=_("Data center"),
                default="zoho.com",
                choices=(
                    "zoho.com",
                    "zoho.eu",
                    "zoho.in",
                    "zoho.com.au",
                    "zoho.com.cn",
                    "zoho.jp",
                    "zohocloud.ca",
                    "zoho.sa",
                    "zoho.ae",
                    "zoho.uk",
                ),
            ),
        ),
        console_url="https://api-console.zoho.com/",
        fields={
            "auth_url": "https://accounts.{domain}/oauth/v2/auth",
            "token_url": "https://accounts.{domain}/oauth/v2/token",
            "revocation_url": "https://accounts.{domain}/oauth/v2/token/revoke",
            "client_authentication": _BODY,
            "scope_separator": ",",
            "header_prefix": "Zoho-oauthtoken",
            "uses_pkce": False,
            "authorization_parameters": {"access_type": "offline", "prompt": "consent"},
        },
        refresh_hint=_(
            "Zoho gives a refresh token only with the authorization parameters "
            "“access_type=offline” and “prompt=consent”."
        ),
        notes=(_("Zoho blocks a client that asks for more than 10 tokens in 10 minutes."),),
    ),
    ProviderPreset(
        key="bitrix24",
        label="Bitrix24",
        instructions=_(
            "Bitrix24, Developer resources, Local application: choose “Server”, enter the callback "
            "URL as the handler path, and copy the application's ID and key."
        ),
        questions=(Question(name="portal", label=_("Portal"), example="acme.bitrix24.com"),),
        fields={
            "auth_url": "https://{portal}/oauth/authorize/",
            "token_url": "https://oauth.bitrix.info/oauth/token/",
            "client_authentication": _BODY,
            "uses_pkce": False,
            "token_placement": "query",
            "token_query_parameter": "auth",
            "reauthorization_words": ["invalid_grant", "expired_token", "application not found"],
        },
        notes=(
            _(
                "Bitrix24 changes the refresh token at each refresh and ends it after a month "
                "without one."
            ),
        ),
    ),
    ProviderPreset(
        key="kommo",
        label="Kommo (amoCRM)",
        instructions=_(
            "Kommo, Settings, Integrations: create a private integration and enter the callback "
            "URL as the redirect URL."
        ),
        questions=(
            Question(name="account", label=_("Account address"), example="acme.kommo.com"),
            Question(
                name="site",
                label=_("Site"),
                default="www.kommo.com",
                choices=("www.kommo.com", "www.amocrm.ru"),
            ),
        ),
        console_url="https://www.kommo.com/",
        fields={
            "auth_url": "https://{site}/oauth",
            "token_url": "https://{account}/oauth2/access_token",
            "client_authentication": _BODY,
            "uses_json_token_request": True,
            "uses_pkce": False,
            "refresh_parameters": {"redirect_uri": "{callback_url}"},
            "reauthorization_words": [
                "Token has been revoked",
                "Token has expired",
                "refresh token is invalid",
                "Cannot decrypt the refresh token",
            ],
        },
        notes=(_("Kommo's refresh tokens work once and end after three months without use."),),
    ),
    # https://developers.docusign.com/platform/auth/jwt-get-token/
    ProviderPreset(
        key="docusign",
        label="DocuSign",
        instructions=_(
            "DocuSign Admin, Apps and Keys: add an app. When you have saved this form, paste the "
            "public key that it then shows there, under RSA Keypairs."
        ),
        copied=_(
            "Copy the integration key as Client ID. Leave Private key empty: a key is made when "
            "you save."
        ),
        questions=(
            Question(
                name="host",
                label=_("Environment"),
                default="account.docusign.com",
                choices=("account.docusign.com", "account-d.docusign.com"),
            ),
            Question(
                name="user", label=_("User ID"), example="4799e5e9-0000-0000-0000-000000000000"
            ),
        ),
        console_url="https://apps.docusign.com/admin/apps-and-keys",
        fields={
            "grant_type": _JWT_BEARER,
            "token_url": "https://{host}/oauth/token",
            "scope": "signature impersonation",
            "assertion_claims": {"aud": "{host}", "sub": "{user}"},
        },
        notes=(
            _(
                "The user has to agree once that this app acts for them, or an administrator for "
                "everybody: “consent_required” means that this is missing."
            ),
            _("account-d.docusign.com is the environment of developers."),
        ),
    ),
    ProviderPreset(
        key="openid",
        label="OpenID Connect",
        instructions=_(
            "Register a confidential web client with the callback URL at your provider, enter its "
            "issuer, and let the other addresses be discovered."
        ),
        fields={"scope": "openid offline_access"},
        refresh_hint=_(
            "Most OpenID providers give a refresh token only with the scope “offline_access”."
        ),
    ),
)


PRESETS: dict[str, ProviderPreset] = {preset.key: preset for preset in PROVIDERS}


def token_types(provider: str) -> tuple[str, ...]:
    """Return the token types other than bearer that a provider returns."""
    return PRESETS[provider].token_types if provider in PRESETS else ()


def refresh_hint(provider: str) -> str:
    """Return how to get a refresh token from a provider."""
    if provider in PRESETS and (hint := PRESETS[provider].refresh_hint):
        return str(hint)
    return gettext(
        "Many providers give a refresh token only for a scope such as “offline_access” or an "
        "authorization parameter such as “access_type=offline”."
    )
