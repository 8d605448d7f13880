"""The URLs of an authorization: which are allowed, and which tokens belong to them."""

import hashlib
import json
from typing import Any

from django.conf import settings
from django.urls import reverse

from webhooks import network
from webhooks.models import (
    Credential,
    GrantType,
    is_plain_http,
    may_be_sent_to,
    origin_of,
)
from webhooks.oauth.errors import MisconfiguredError, reason_of, stored

# Not from `reverse`, which would import the URL configuration with all views into a worker: half a
# second in its first token request, and megabytes of memory.
CALLBACK_PATH = "/integrations/webhooks/oauth/callback/"


def default_callback_url() -> str:
    """Return this site's callback URL, built from PUBLIC_URL and never from a request."""
    return _callback_urls()[0]


def check_callback_url(url: str) -> None:
    """Raise MisconfiguredError unless the URL equals a callback URL of this site and uses TLS."""
    allowed = _callback_urls()
    if url and url not in allowed:
        raise MisconfiguredError(stored("callback_elsewhere", urls=", ".join(allowed)))
    if is_plain_http(network.parse_url(url or allowed[0]).url):
        raise MisconfiguredError(stored("callback_no_tls"))


def callback_url(credential: Credential) -> str:
    return credential.callback_url or default_callback_url()


def _callback_urls() -> list[str]:
    return [base + CALLBACK_PATH for base in (settings.PUBLIC_URL, *settings.WEBHOOKS_PUBLIC_URLS)]


def public_keys_url(credential: Credential) -> str:
    """Return the URL where a provider can fetch this client's public keys (its `jwks_uri`)."""
    path = reverse("webhooks:public_key", args=[credential.uid, "json"])
    return f"{settings.PUBLIC_URL}{path}"


def checked_endpoint(url: str, field: str, *, may_have_fragment: bool = False) -> network.Target:
    """Return the target of a provider's endpoint; raise MisconfiguredError if it is not allowed.

    Source: RFC 6749 sections 3.1 and 3.2: no fragment, and TLS except on loopback (RFC 8252).
    """
    if not url:
        raise MisconfiguredError(stored("missing_field", field=field))
    try:
        target = network.parse_url(url)
    except network.UnsafeURLError as error:
        message = stored("bad_url", field=field, reason=reason_of(error))
        raise MisconfiguredError(message) from error
    if "#" in url and not may_have_fragment:
        raise MisconfiguredError(stored("has_fragment", field=field))
    if is_plain_http(target.url):
        raise MisconfiguredError(stored("no_tls", field=field))
    return target


def check_secrets(credential: Credential, url: str) -> None:
    """Raise MisconfiguredError if a secret of the credential was entered for another origin."""
    for field in credential.secrets_used:
        if not may_be_sent_to(credential, url, field):
            raise MisconfiguredError(stored("secret_elsewhere", field=field, origin=origin_of(url)))


def fingerprint(credential: Credential, receiver_url: str) -> str:
    """Return a digest of the settings that a stored token belongs to.

    Token URL, client ID, grant type and the receiver's origin. Only the origins of the refresh and
    revocation URLs count, so adding one at the same provider keeps the token.
    """
    endpoints = (credential.token_url, credential.refresh_url, credential.revocation_url)
    origins = {origin_of(url) for url in endpoints if url}
    return _digest(
        credential.token_url,
        credential.client_id,
        credential.grant_type,
        origin_of(receiver_url),
        *sorted(origins),
    )


def client_fingerprint(credential: Credential) -> str:
    """Return a digest of the settings that must not change while an authorization is pending."""
    return _digest(
        credential.auth_url,
        credential.token_url,
        credential.refresh_url,
        credential.revocation_url,
        credential.client_id,
        credential.issuer,
        callback_url(credential),
        credential.authorization_type,
        credential.grant_type,
        credential.scope,
        credential.authorization_parameters,
        credential.receiver_origins,
    )


def uses_authorization_code(credential: Credential) -> bool:
    return credential.is_oauth and credential.grant_type == GrantType.AUTHORIZATION_CODE


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
