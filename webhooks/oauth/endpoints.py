"""The addresses of an authorization: which may be used, and which tokens belong to them."""

import hashlib
import ipaddress
import json

from django.conf import settings
from django.urls import reverse
from django.utils.translation import gettext as _

from webhooks import network
from webhooks.models import AuthorizationType, GrantType, Webhook
from webhooks.oauth.errors import Misconfigured


def default_callback_url() -> str:
    """Return this site's callback, from PUBLIC_URL and never from a request."""
    return _callback_urls()[0]


def check_callback_url(url: str) -> None:
    """Raise ValueError, with a sentence, unless the URL is this site's callback, byte for byte."""
    allowed = _callback_urls()
    if url and url not in allowed:
        raise ValueError(
            _("The callback URL must lead back to this site: %(urls)s")
            % {"urls": _(" or ").join(allowed)}
        )
    if not _is_safe(network.parse_url(url or allowed[0])):
        raise ValueError(
            _(
                "The callback URL must start with https://: the authorization code travels in it. "
                "Set PUBLIC_URL to this site's https address."
            )
        )


def callback_url(webhook: Webhook) -> str:
    return webhook.callback_url or default_callback_url()


def _callback_urls() -> list[str]:
    path = reverse("webhooks:oauth_callback")
    return [base + path for base in (settings.PUBLIC_URL, *settings.WEBHOOKS_PUBLIC_URLS)]


def checked_endpoint(url: str, field: str) -> network.Target:
    """Return the target of a provider's endpoint; Misconfigured when no secret may go there.

    Source: RFC 6749 sections 3.1 and 3.2: no fragment, TLS. Loopback needs none (RFC 8252).
    """
    if not url:
        raise Misconfigured(_("Fill in %(field)s.") % {"field": field})
    try:
        target = network.parse_url(url)
    except network.UnsafeURLError as error:
        raise Misconfigured(f"{field}: {error.reason}") from error
    if "#" in url:
        raise Misconfigured(_("%(field)s cannot have a fragment (#).") % {"field": field})
    if not _is_safe(target):
        raise Misconfigured(
            _("%(field)s must start with https://: secrets are sent to it.") % {"field": field}
        )
    return target


def _is_safe(target: network.Target) -> bool:
    return target.scheme == "https" or is_loopback(target.host)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def fingerprint(webhook: Webhook) -> str:
    """Return a digest of everything a stored token belongs to.

    The token endpoint, the client and the receiver's origin; of the other endpoints that get
    tokens only the origins, so that adding one at the same provider keeps the token.
    """
    endpoints = (webhook.token_url, webhook.refresh_url, webhook.revocation_url)
    origins = {_origin(url) for url in endpoints if url}
    return _digest(
        webhook.token_url,
        webhook.client_id,
        webhook.grant_type,
        _origin(webhook.url),
        *sorted(origins),
    )


def client_fingerprint(webhook: Webhook) -> str:
    """Return a digest of what must not change while the browser is at the provider."""
    return _digest(
        webhook.auth_url,
        webhook.token_url,
        webhook.client_id,
        webhook.issuer,
        callback_url(webhook),
        webhook.grant_type,
        _origin(webhook.url),
    )


def uses_authorization_code(webhook: Webhook) -> bool:
    return (
        webhook.authorization_type == AuthorizationType.OAUTH2
        and webhook.grant_type == GrantType.AUTHORIZATION_CODE
    )


def _origin(url: str) -> str:
    try:
        return network.parse_url(url).origin
    except network.UnsafeURLError:
        return url


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def origin_of_issuer(url: str) -> str:
    """Return scheme, host and port of an issuer or endpoint, to compare them."""
    return _origin(url)
