"""The table of OAuth errors, and the exceptions that carry one of its codes.

An entry says what an error means, what to change, and in which field. Token rows and the exchange
log store its code with parameters; `sentence` renders it in the reader's language. The sentences
name the button “Get new access token” and the fields as on the form.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from webhooks import network
from webhooks.models import Credential, HoldReason, messages
from webhooks.oauth.providers import refresh_hint


class TokenResult(StrEnum):
    """The classes of responses; every response gets exactly one."""

    OK = "ok"
    OK_WITH_WARNING = "ok_with_warning"
    TRANSIENT = "transient"
    NEEDS_REAUTHORIZATION = "needs_reauthorization"
    MISCONFIGURED = "misconfigured"


class Grant(StrEnum):
    """The grant that a token request presents, as its `grant_type`."""

    CODE = "authorization_code"
    REFRESH = "refresh_token"
    CLIENT_CREDENTIALS = "client_credentials"
    JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class OAuthErrorKind:
    """An entry: class, sentence, and form fields to check; no fields: change it at the provider."""

    result: TokenResult
    text: str | Promise
    fields: tuple[str, ...] = ()

    def names(self, parameter: str) -> bool:
        """Return whether the sentence has a placeholder for this parameter."""
        return f"%({parameter})" in str(self.text)


_CLIENT = ("client_id", "client_secret", "client_authentication")
_REFRESHING = ("scope", "authorization_parameters")
# Retried automatically.
_TRANSIENT = {
    "temporarily_unavailable": _("The provider asks to try again later."),
    "not_expired": _("The provider refreshes an access token only after it has expired."),
    "rate_limited": _("The provider asks to slow down (429)."),
    "unavailable": _("The provider is not working (%(status)s)."),
    "no_answer": _("The request to the provider failed: %(reason)s."),
    "cut_off": _("The provider's response ends in the middle."),
    "web_page": _("A web page with status %(status)s came instead of the provider's response."),
    "being_refreshed": _("The access token is being refreshed."),
}
# A person has to authorize again.
_NEEDS_REAUTHORIZATION = {
    "invalid_grant": _(
        "The provider no longer accepts the authorization code or refresh token: it has expired, "
        "was used or was revoked. Press “Get new access token”."
    ),
    "response_lost_and_used": _(
        "The response of %(time)s was lost, and the provider counts the refresh token as used, so "
        "the grant has ended. Press “Get new access token”. So that a lost response costs no "
        "grant, let the provider accept a refresh token again: Keycloak, Refresh Token Max Reuse; "
        "Ory Hydra, rotation grace period; Auth0 and Okta, leeway or grace period."
    ),
    "access_denied": _(
        "The access was not approved. Press “Get new access token” and approve it; if you did, "
        "an administrator at the provider has to allow this client."
    ),
    "interaction_required": _(
        "The provider wants you to log in or to confirm something. Press “Get new access token” "
        "again."
    ),
    "no_token_yet": _("There is no access token yet. Press “Get new access token”."),
    "granted_elsewhere": _(
        "The token was granted for other addresses than %(origin)s, so it does not go there. Press "
        "“Get new access token”."
    ),
    "token_expired": _(
        "The access token has expired, and there is no refresh token. Press “Get new access "
        "token”. %(hint)s"
    ),
    "token_refused": _(
        "The receiver refused the access token, and there is no refresh token. Press “Get new "
        "access token”. %(hint)s"
    ),
}
# A person has to correct the settings, here or at the provider.
_MISCONFIGURED = {
    # The authorization or token endpoint returned an error code.
    "invalid_client": _(
        "The provider does not accept the client ID or client secret. Check both, and “Send "
        "credentials as”."
    ),
    "client_key_needed": _(
        "The provider wants this client to authenticate with “%(method)s”. Choose that as “Send "
        "credentials as”, or a client secret (client_secret_basic or client_secret_post) there."
    ),
    "certificate_refused": _(
        "The provider does not accept the TLS client certificate. Check Client ID, that the "
        "certificate is registered for it at the provider, and that it has not expired."
    ),
    "dpop_needed": _(
        "The provider wants requests that are bound to a key (DPoP), which is not supported here. "
        "Turn DPoP off for this client at the provider."
    ),
    "par_needed": _(
        "The provider wants the authorization request to be pushed to it first (PAR), which is not "
        "supported here. Turn pushed authorization requests off for this client at the provider."
    ),
    "client_or_grant": _(
        "The provider refuses this client without saying why. Either it does not accept the "
        "client ID, the client secret or the way they are sent, or it does not allow this client "
        "the grant “%(grant)s”. Press “Check”, then “Try the other way”, to see which."
    ),
    "redirect_uri_mismatch": _(
        "The callback URL is not the one registered with the provider. Register exactly this one "
        "there: %(url)s"
    ),
    "single_page_callback": _(
        "Entra ID has the callback URL under the platform “Single-page application”, whose tokens "
        "only a browser may fetch. Remove it there, and register it under the platform “Web”."
    ),
    "public_client": _(
        "The provider knows this client as public, so it takes neither a client secret nor a "
        "signed JWT. Clear Client secret, or make the client confidential at the provider."
    ),
    "unauthorized_client": _(
        "The provider does not allow this client the grant “%(grant)s”. Allow it in the settings "
        "of the client at the provider."
    ),
    "invalid_scope": _(
        "The provider does not know or allow the scope “%(scope)s”. Correct Scope, or allow it "
        "for this client at the provider."
    ),
    "missing_scope": _("The provider wants a scope. Its documentation lists them: fill in Scope."),
    "invalid_target": _("The provider does not know the resource. Correct Resource or Audience."),
    "invalid_request": _(
        "The provider could not read the request. Check the addresses, “Send credentials as” and "
        "the extra parameters against its documentation."
    ),
    "pkce_refused": _(
        "The provider refused PKCE. Press “Get new access token” again; if that does not help, "
        "turn “Use PKCE” off."
    ),
    "pkce_mismatch": _(
        "The code verifier (PKCE) is not the one that this authorization began with. Press “Get "
        "new access token” again and finish in the same tab."
    ),
    "pkce_required": _("The provider requires PKCE. Turn “Use PKCE” on."),
    "application_suspended": _("The provider has suspended the application."),
    "provider_error": _(
        "The provider refused the request with “%(error)s”. Check the settings of the client at "
        "the provider and the OAuth fields here."
    ),
    # The response is not one of a token endpoint.
    "unsafe_url": _("Access token URL cannot be used: %(reason)s."),
    "redirected": _(
        "Access token URL answers with a redirect to “%(location)s”, which is not followed: "
        "secrets go only where you say. If that is right, enter it as Access token URL."
    ),
    "redirected_unsafely": _(
        "Access token URL answers with a redirect to “%(location)s”, which is not followed: "
        "secrets go only where you say. Copy the token endpoint from the provider's documentation."
    ),
    "no_endpoint": _(
        "There is no token endpoint at Access token URL: it answered %(status)s. Copy the "
        "address from the provider's documentation."
    ),
    "other_format": _(
        "The provider does not take the token request in this format. Choose the other one as "
        "“Token request as”: Form is the standard, some take only JSON."
    ),
    "refused_without_code": _(
        "The token endpoint refused the request with %(status)s and without a reason. Check "
        "Access token URL, Client ID, Client secret and “Send credentials as”."
    ),
    "html": _(
        "Access token URL answered with a web page instead of a token: it may be the address of "
        "a login page. Copy the token endpoint from the provider's documentation."
    ),
    "empty": _(
        "Access token URL answered without any content. Check the address against the provider's "
        "documentation."
    ),
    "too_large": _("Access token URL answered with more than 64 KiB: that is no token."),
    "duplicate_keys": _(
        "The provider's response names a field twice, so it is not clear which one counts. Nothing "
        "was stored. Report it to the provider."
    ),
    "truncated": _("The provider's response ends in the middle, twice in a row."),
    "no_token_answer": _(
        "The response of Access token URL is not a token response. Check the address against the "
        "provider's documentation."
    ),
    "only_refresh_token": _(
        "The provider gave a refresh token but no access token, which OAuth 2.0 requires. The "
        "refresh token was stored, so the grant goes on: press “Refresh”. If it happens again, "
        "report it to the provider."
    ),
    "only_identity_token": _(
        "The provider gave an identity token (id_token) but no access token. Fill in, as Scope, a "
        "scope of the API that the token is for: “openid” alone asks only who you are."
    ),
    "token_elsewhere": _(
        "The response has no access token where it was looked for, but one at “%(path)s”: enter "
        "that as “Path of the token in the response”."
    ),
    "no_token_at_path": _(
        "The response has no access token at “%(path)s”. Correct “Path of the token in the "
        "response”."
    ),
    "unsafe_token": _(
        "The provider's access token has characters that cannot be sent in a header, so it was "
        "not stored. Report it to the provider."
    ),
    "unsupported_token_type": _(
        "The provider gave a token of the type “%(type)s”, which cannot be sent as a bearer "
        "token. Turn sender-constrained tokens off for this client at the provider."
    ),
    "unknown_token_type": _(
        "The provider gave a token of the type “%(type)s”, not a bearer token. If its "
        "documentation says to send it with that word, “Authorization: %(type)s …”, enter the word "
        "as Header prefix; otherwise ask the provider for bearer tokens."
    ),
    # The authorization response cannot be used.
    "not_interactive": _("This grant needs no approval in the browser."),
    "no_session": _("Your browser keeps no session. Allow cookies for this site and log in again."),
    "callback_too_long": _("The provider's response is too long, so nothing in it was used."),
    "callback_repeats": _(
        "The provider's response names “%(name)s” more than once, so nothing in it was used. Press "
        "“Get new access token” again."
    ),
    "no_state": _(
        "The provider's response has no state, so it cannot be matched to a request. Press “Get "
        "new access token” again; if it happens again, the provider does not support the "
        "authorization code grant."
    ),
    "unknown_state": _(
        "This response belongs to no authorization that was begun here, or it was used already. "
        "Press “Get new access token” again."
    ),
    "other_user": _("This authorization was begun by another user, who has to finish it."),
    "other_browser": _(
        "This authorization was begun in another browser or before you logged in again. Press "
        "“Get new access token” here."
    ),
    "state_expired": _("More than 10 minutes passed. Press “Get new access token” again."),
    "device_code_expired": _(
        "The device code expired before it was approved. Press “Get new access token” again."
    ),
    "deleted": _("The webhook was deleted in the meantime."),
    "settings_changed": _(
        "The OAuth settings were changed before the token came, so it was not stored. Press “Get "
        "new access token” again."
    ),
    "no_issuer": _(
        "The provider promises to name itself in its response, and this one has no name, so "
        "nothing in it was used. If the provider stopped doing that, set “Responses name the "
        "issuer” to No under Advanced."
    ),
    "other_issuer": _(
        "The response comes from “%(issuer)s”, which is not the provider the browser was sent to, "
        "so nothing in it was used. If it is the right one, enter it as Issuer."
    ),
    "other_data_center": _(
        "The account lives at “%(server)s”. If that is right, choose that data center or account "
        "for Auth URL and Access token URL, then press “Get new access token” again."
    ),
    "other_nonce": _(
        "The provider's identity token belongs to another authorization (its nonce is not the one "
        "that was sent), so nothing was stored. Press “Get new access token” again."
    ),
    "other_audience": _(
        "The provider's identity token is meant for another client, so nothing was stored. Check "
        "Client ID, then press “Get new access token” again."
    ),
    "code_and_error": _(
        "The provider's response has a code and an error at once, so neither was used. Press “Get "
        "new access token” again."
    ),
    "no_code": _(
        "The provider's response has no authorization code. Check Auth URL, then press “Get new "
        "access token” again."
    ),
    # The settings cannot be used for a request, so nothing was sent.
    "missing_field": _("Fill in %(field)s."),
    "bad_url": _("%(field)s: %(reason)s."),
    "has_fragment": _("%(field)s cannot have a fragment (#)."),
    "secret_elsewhere": _(
        "%(field)s: it was entered for another address than %(origin)s. Enter it again."
    ),
    "no_device_code": _(
        "Auth URL gave no device code. For this grant it is the provider's device authorization "
        "endpoint: copy that from its documentation."
    ),
    "assertion_refused": _(
        "The provider does not accept the JWT. Check that it knows the public key, Client ID, the "
        "claims “sub” and “aud”, and the clock of this machine."
    ),
    "consent_missing": _(
        "The person that the JWT acts for (“sub”) has not agreed to it yet. Let them, or an "
        "administrator, approve this client at the provider once, then press “Get new access "
        "token”."
    ),
    "not_signed": _(
        "The JWT could not be signed. Check Private key and Claims of the JWT: “alg” has to fit "
        "the key."
    ),
    "no_header_line": _("“%(line)s” is not a header. Write one a line, like X-Tenant: 42."),
    "no_header_value": _(
        "A header value is one line of plain ASCII, without line breaks or control "
        "characters. Percent-encode other letters."
    ),
    "reserved_header": _("“%(name)s” cannot be an extra header: it is set from the other fields."),
    "no_tls": _("%(field)s must start with https://: secrets are sent to it."),
    "callback_elsewhere": _("The callback URL must lead back to this site: %(urls)s"),
    "callback_no_tls": _(
        "The callback URL must start with https://: the authorization code travels in it. Set "
        "PUBLIC_URL to this site's https address."
    ),
    "parameters_no_mapping": _("Extra parameters are names with values."),
    "reserved_parameter": _(
        "“%(name)s” cannot be an extra parameter: it is set from the other fields."
    ),
    "reserved_in_query": _("Remove “%(name)s” from %(field)s: it is set from the other fields."),
    "parameter_no_text": _("The extra parameter “%(name)s” must be text."),
    "no_callback_value": _(
        "The provider sent no “%(name)s” back to the callback URL, which an extra parameter takes "
        "as {callback.%(name)s}. Correct that, then press “Get new access token”."
    ),
    "secret_not_in_body": _(
        "{client_secret} in an extra parameter needs “Client credentials in body” as “Send "
        "credentials as”."
    ),
    "parameter_length": _("The extra parameter “%(name)s” is empty or too long."),
}
# Warnings about a stored token.
_WARNINGS = {
    "no_refresh_token": _(
        "The provider gave no refresh token, so someone must authorize again before the access "
        "token expires. %(hint)s"
    ),
    "bad_refresh_token": _("The provider's refresh token cannot be used and was not stored."),
    "no_nonce": _(
        "The provider's identity token does not repeat the nonce that was sent, and PKCE is off. "
        "Check that the account is the one you approved with."
    ),
    "scope_missing": _("Not granted of the scopes asked for: %(scope)s."),
    "scope_added": _("More scopes were granted than asked for: %(scope)s."),
    "always_expired": _(
        "The provider says that its new tokens have expired already, so they are used until the "
        "receiver refuses them."
    ),
    "response_lost": _(
        "The response of %(time)s was lost, so the provider may count the refresh token as used. "
        "It is sent once more as soon as the provider answers again."
    ),
    "short_idle_time": _(
        "The provider ends this grant when it is not refreshed for %(minutes)s minutes. With the "
        "scope “offline_access” most providers keep it longer."
    ),
    "not_revoked": _("The token may still be valid at the provider."),
    "only_checked": _("A check, not a request for a token."),
}
# Form fields to check; errors without an entry are corrected at the provider.
_FIELDS: dict[str, tuple[str, ...]] = {
    "invalid_client": _CLIENT,
    "client_key_needed": ("client_authentication",),
    "certificate_refused": ("client_certificate", "client_id"),
    "client_or_grant": _CLIENT,
    "secret_elsewhere": ("client_secret",),
    "not_signed": ("client_key", "assertion_claims"),
    "assertion_refused": ("client_key", "client_id", "assertion_claims"),
    "consent_missing": ("assertion_claims",),
    "no_device_code": ("auth_url",),
    "redirect_uri_mismatch": ("callback_url",),
    "single_page_callback": ("callback_url",),
    "public_client": ("client_secret", "client_authentication"),
    "invalid_scope": ("scope",),
    "missing_scope": ("scope",),
    "invalid_target": ("resource", "audience"),
    "invalid_request": ("auth_url", "token_url"),
    "pkce_refused": ("uses_pkce",),
    "pkce_required": ("uses_pkce",),
    "provider_error": ("auth_url", "token_url"),
    "unsafe_url": ("token_url",),
    "redirected": ("token_url",),
    "redirected_unsafely": ("token_url",),
    "no_endpoint": ("token_url",),
    "refused_without_code": ("token_url", *_CLIENT),
    "html": ("token_url",),
    "empty": ("token_url",),
    "too_large": ("token_url",),
    "no_token_answer": ("token_url",),
    "token_elsewhere": ("token_path",),
    "no_token_at_path": ("token_path",),
    "unknown_token_type": ("header_prefix",),
    "no_issuer": ("issuer",),
    "other_issuer": ("issuer",),
    "other_data_center": ("auth_url", "token_url"),
    "no_code": ("auth_url",),
    "other_audience": ("client_id",),
    "only_identity_token": ("scope",),
    "other_format": ("uses_json_token_request",),
    "callback_elsewhere": ("callback_url",),
    "secret_not_in_body": ("client_authentication",),
    "no_callback_value": ("token_parameters", "refresh_parameters"),
    "callback_no_tls": ("callback_url",),
    "token_expired": _REFRESHING,
    "token_refused": _REFRESHING,
    "no_refresh_token": _REFRESHING,
    "scope_missing": ("scope",),
    "scope_added": ("scope",),
    "short_idle_time": ("scope",),
}
# Standard error codes, each with the names that providers use for the same error.
_VARIANTS = {
    "invalid_client": """
        incorrect_client_credentials bad_client_id bad_client_secret invalid_client_id
        invalid_client_secret
    """,
    "redirect_uri_mismatch": "bad_redirect_uri invalid_redirect_uri",
    "unauthorized_client": "unsupported_grant_type unsupported_response_type",
    "invalid_scope": """
        insufficient_scope invalid_scopes invalid_oauthscope invalid_oauth_scope scope_mismatch
        scope_not_allowed no_scopes unauthorized_scope_error
    """,
    "invalid_target": "invalid_resource invalid_audience",
    "invalid_request": "",
    "application_suspended": "",
    "invalid_grant": """
        invalid_token expired_token token_expired token_revoked revoked_token
        invalid_refresh_token bad_refresh_token refresh_token_expired expired_refresh_token
        refresh_token_revoked invalid_oauthtoken invalid_oauth_token invalid_code bad_code
        code_expired expired_code code_already_used bad_verification_code bad_auth_code
        authorization_code_expired expired_authentication account_inactive inactive_user
        token_inactive
        user_disabled inactive_org app_uninstalled
        user_not_found user_deleted user_suspended account_not_found account_deleted
        account_disabled account_suspended
    """,
    "access_denied": """
        invalid_app_access app_access_denied team_access_not_granted user_access_error
        consent_required admin_policy_enforced authorization_denied authorization_declined
        login_cancelled
        user_cancelled user_cancelled_authorize user_cancelled_login user_denied
    """,
    "interaction_required": """
        login_required need_login org_login_required account_selection_required mfa_required
        reauth_required reauthorization_required reauthentication_required
        unmet_authentication_requirements insufficient_user_authentication
    """,
    "temporarily_unavailable": """
        server_error authorization_pending slow_down too_many_requests rate_limit_exceeded
        rate_limited ratelimited throttled internal_error internal_server_error service_unavailable
        fatal_error request_timeout timeout unavailable try_again backend_error bad_gateway
        deadline_exceeded gateway_timeout internal_failure overloaded resource_exhausted server_busy
        server_unavailable service_temporarily_unavailable system_error throttling team_added_to_org
    """,
}
ERRORS: dict[str, OAuthErrorKind] = {
    code: OAuthErrorKind(result, text, _FIELDS.get(code, ()))
    for result, texts in (
        (TokenResult.TRANSIENT, _TRANSIENT),
        (TokenResult.NEEDS_REAUTHORIZATION, _NEEDS_REAUTHORIZATION),
        (TokenResult.MISCONFIGURED, _MISCONFIGURED),
        (TokenResult.OK_WITH_WARNING, _WARNINGS),
    )
    for code, text in texts.items()
}
# Provider's code -> code in ERRORS.
PROVIDER_CODES = {
    name: code for code, others in _VARIANTS.items() for name in (code, *others.split())
}
# Labels of the fields that the parameter `field` names, as on the form.
_LABELS = {
    "auth_url": _("Auth URL"),
    "client_certificate": _("TLS client certificate"),
    "client_id": _("Client ID"),
    "client_key": _("Private key"),
    "client_secret": _("Client secret"),
    "issuer": _("Issuer"),
    "refresh_url": _("Refresh URL"),
    "revocation_url": _("Revocation URL"),
    "token_headers": _("Headers of token requests"),
    "token_url": _("Access token URL"),
}
# Reasons for a missing response: the parameter `reason` is stored with one of these codes.
_REASONS: dict[str, messages.Sentence] = {
    **network.SENTENCES,
    "tls_failed": _("its TLS certificate is not valid for this address, or TLS failed"),
    "connection_refused": _("the connection was refused"),
    "connection_closed": _("the connection was closed"),
    "connection_failed": _("the connection failed"),
}
# Length of the database columns that store errors.
MAX_STORED = 1000


def stored(code: str, **params: str | int) -> str:
    """Return an error as it is stored; long parameters are cut until it fits the column."""
    for limit in (500, 200, 80, 20):
        cut = {name: _cut(value, limit) for name, value in params.items()}
        if len(text := messages.dump(code, **cut)) <= MAX_STORED:
            break
    return text


def sentence(text: str) -> str:
    """Return stored errors, one a line, as sentences in the reader's language."""
    return messages.render(text, SENTENCES)


def joined(*texts: str) -> str:
    """Return stored errors as one text, one a line; errors that no longer fit are left out."""
    lines: list[str] = []
    for text in filter(None, texts):
        if sum(len(line) + 1 for line in (*lines, text)) <= MAX_STORED:
            lines.append(text)
    return "\n".join(lines)


def _cut(value: str | int, limit: int) -> str | int:
    if not isinstance(value, str) or len(value) <= limit or messages.load(value):
        return value
    return f"{value[: limit - 1]}…"


def reason_of(error: network.NetworkError) -> str:
    """Return a failed or refused transfer as a stored reason."""
    return messages.dump(error.failure.code, **error.failure.params)


def render_reason(reason: str) -> str:
    """Return the sentence of a stored reason, without its final period."""
    return messages.render(reason, _REASONS).rstrip(".")


def _render(kind: OAuthErrorKind, said: str = "", provider: str = "", **params: str | int) -> str:
    """Return an entry's sentence, what happens next, and the provider's own description."""
    params = {name: "…" if value == "" else value for name, value in params.items()}
    if "field" in params:
        params["field"] = str(_LABELS.get(str(params["field"]), params["field"]))
    if "reason" in params:
        params["reason"] = render_reason(str(params["reason"]))
    params["hint"] = refresh_hint(provider)
    parts = [str(kind.text) % params]
    if kind.result is TokenResult.TRANSIENT:
        parts.append(
            gettext(
                "A refresh is retried automatically; otherwise press “Get new access token” again."
            )
        )
    if said:
        parts.append(f"{gettext('The provider says:')} “{said}”")
    return " ".join(parts)


SENTENCES: dict[str, messages.Sentence] = {
    code: partial(_render, kind) for code, kind in ERRORS.items()
}


class OAuthError(Exception):
    """Base of the package's errors: `message` is the stored code, str() its sentence."""

    permanent = True

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return sentence(self.message)


class AuthorizationError(OAuthError):
    """An authorization gave no new token; the sentence says what to change and where."""

    def __init__(self, message: str, credential: Credential | None = None) -> None:
        super().__init__(message)
        # None if the response does not belong to an authorization that this person began.
        self.credential = credential

    @property
    def result(self) -> TokenResult:
        """Return the class of the error."""
        found = messages.load(self.message)
        return ERRORS[found.code].result if found else TokenResult.MISCONFIGURED


class TokenUnavailableError(OAuthError):
    """No token is available now. With `hold_reason` a person must act; without it, retry later."""

    def __init__(
        self,
        message: str,
        *,
        hold_reason: HoldReason | None = None,
        retry_at: datetime | None = None,
    ) -> None:
        super().__init__(message)
        self.hold_reason = hold_reason
        self.retry_at = retry_at
        self.permanent = hold_reason is not None


class MisconfiguredError(OAuthError, ValueError):
    """The settings cannot be used for a request; nothing was sent."""


class UnusableResponseError(OAuthError):
    """A response contains no usable token; `reason` is machine-readable."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or stored(reason if reason in ERRORS else "no_token_answer"))
        self.reason = reason
