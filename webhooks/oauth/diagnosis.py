"""Says what the last failure at the provider means, and where to change what.

Reads the flight recorder and the token's row; asks nobody. Its counterpart that asks is
`webhooks.oauth.doctor`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext as _

from webhooks.models import ExchangeKind, GrantType, OAuthExchange, OAuthToken, Webhook
from webhooks.oauth import bodies, endpoints, presets
from webhooks.oauth.verdicts import Result, normalized

_REAL = (ExchangeKind.AUTHORIZATION, ExchangeKind.TOKEN, ExchangeKind.REFRESH)
_GOOD = (Result.OK, Result.OK_WITH_WARNING)
_URL = re.compile(r"https?://[^\s\"'<>“”‘’]+")
_REDIRECT_WORDS = ("redirect_uri", "redirect uri", "redirect url", "callback url", "aadsts50011")
_PKCE_WORDS = ("pkce", "code_verifier", "code_challenge", "code verifier", "code challenge")


class Cause(StrEnum):
    """What a failure is about."""

    REDIRECT = "redirect"
    CLIENT = "client"
    SCOPE = "scope"
    PKCE = "pkce"
    DENIED = "denied"
    GRANT = "grant"
    TRANSIENT = "transient"
    NO_REFRESH_TOKEN = "no_refresh_token"  # noqa: S105 - a name, not a secret.
    OTHER = "other"


# Where to change it: names of our fields; nothing here means at the provider.
_FIELDS = {
    Cause.REDIRECT: ("callback_url",),
    Cause.CLIENT: ("client_id", "client_secret", "client_authentication"),
    Cause.SCOPE: ("scope",),
    Cause.PKCE: ("uses_pkce",),
    Cause.NO_REFRESH_TOKEN: ("scope", "authorization_parameters"),
    Cause.OTHER: ("auth_url", "token_url"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One failure in the words of an admin."""

    cause: Cause
    message: str
    fields: tuple[str, ...] = ()
    # Of a callback URL that does not match: what was sent, and what the provider names.
    sent: str = ""
    named: str = ""
    # When it happened; None for what is no failure of a request.
    exchange: OAuthExchange | None = None

    @property
    def can_try_other_way(self) -> bool:
        return self.cause is Cause.CLIENT


def diagnose(webhook: Webhook) -> Diagnosis | None:
    """Return what is wrong since the last exchange with the provider, or None."""
    last = OAuthExchange.objects.filter(webhook=webhook, kind__in=_REAL).first()
    if last is not None and last.result not in _GOOD:
        return _of_exchange(webhook, last)
    token = OAuthToken.objects.filter(webhook=webhook).first()
    return _missing_refresh_token(webhook, token) if token else None


def _of_exchange(webhook: Webhook, exchange: OAuthExchange) -> Diagnosis:
    error, description = _provider_error(exchange)
    cause = _cause(exchange, error, f"{description} {exchange.message}".lower())
    sent = _sent_redirect(exchange.request) if cause is Cause.REDIRECT else ""
    named = [one.rstrip(".,;)") for one in _URL.findall(description)]
    return Diagnosis(
        cause=cause,
        message=exchange.message,
        fields=_FIELDS.get(cause, ()),
        sent=(sent or endpoints.callback_url(webhook)) if cause is Cause.REDIRECT else "",
        named=next((one for one in named if one != sent), "") if cause is Cause.REDIRECT else "",
        exchange=exchange,
    )


def _cause(exchange: OAuthExchange, error: str, words: str) -> Cause:
    if exchange.result == Result.TRANSIENT:
        return Cause.TRANSIENT
    if error in ("invalid_client", "incorrect_client_credentials") or error.startswith(
        "bad_client"
    ):
        return Cause.CLIENT
    if "redirect" in error or any(one in words for one in _REDIRECT_WORDS):
        return Cause.REDIRECT
    if any(one in words for one in _PKCE_WORDS):
        return Cause.PKCE
    if error == "invalid_scope":
        return Cause.SCOPE
    if error in ("access_denied", "consent_required"):
        return Cause.DENIED
    if exchange.status_code == 401:
        return Cause.CLIENT
    if exchange.result == Result.NEEDS_REAUTHORIZATION:
        return Cause.GRANT
    return Cause.OTHER


def _provider_error(exchange: OAuthExchange) -> tuple[str, str]:
    """Return code and description out of a kept answer."""
    if exchange.kind == ExchangeKind.AUTHORIZATION:
        # What came in the browser is kept as one parameter a line.
        fields = dict(line.partition("=")[::2] for line in exchange.response.splitlines())
    else:
        _head, _blank, body = exchange.response.partition("\n\n")
        try:
            fields = bodies.read(body.encode(), "")
        except bodies.Malformed:
            return "", body
    error = fields.get("error") or ""
    if isinstance(error, dict):
        error = error.get("error") or error.get("status") or error.get("code") or ""
    names = ("error_description", "message", "detail", "hint")
    description = next((fields[name] for name in names if isinstance(fields.get(name), str)), "")
    return normalized(str(error)), description


def _sent_redirect(request: str) -> str:
    for line in request.splitlines():
        name, _equals, value = line.partition("=")
        if name == "redirect_uri":
            return value
    return ""


def _missing_refresh_token(webhook: Webhook, token: OAuthToken) -> Diagnosis | None:
    """Say how to ask for a refresh token when a token that ends came without one."""
    if (
        webhook.grant_type != GrantType.AUTHORIZATION_CODE
        or not token.has_access_token()
        or token.has_refresh_token()
        or token.expires_at is None
    ):
        return None
    # What it leads to is the token's warning already; this is how to change it.
    return Diagnosis(
        cause=Cause.NO_REFRESH_TOKEN,
        message=_("No refresh token came. %s") % presets.refresh_hint(webhook.provider),
        fields=_FIELDS[Cause.NO_REFRESH_TOKEN],
    )
