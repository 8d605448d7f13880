"""Rows of OAuth for tests: plain functions with keyword overrides."""

import itertools
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.contrib.auth import get_user_model
from django.utils import timezone

from tests.sandbox import AUTHORIZATION_CLIENT, MACHINE_CLIENT, Provider
from webhooks import oauth
from webhooks.models import AuthorizationType, OAuthToken, TokenState, Webhook

SESSION = "a-session-key-of-a-browser"
_numbers = itertools.count(1)


def make_user(**overrides: Any) -> Any:
    values = {"username": f"person{next(_numbers)}", **overrides}
    return get_user_model().objects.create(**values)


def make_webhook(server: Provider | None = None, /, **overrides: Any) -> Webhook:
    """Return a saved OAuth webhook; with a provider, one that is registered there."""
    base = server.url if server else "https://provider.example"
    secret = overrides.pop("client_secret", AUTHORIZATION_CLIENT.client_secret)
    values = {
        "name": "CRM",
        "url": "https://receiver.example/hooks",
        "authorization_type": AuthorizationType.OAUTH2,
        "auth_url": server.auth_url if server else f"{base}/authorize",
        "token_url": server.token_url if server else f"{base}/token",
        "client_id": AUTHORIZATION_CLIENT.client_id,
        "scope": "events:write",
        **overrides,
    }
    webhook = Webhook(**values)
    webhook.set_secret("client_secret", secret)
    webhook.save()
    return webhook


def make_machine_webhook(provider: Provider, **overrides: Any) -> Webhook:
    """Return a webhook with the client credentials grant."""
    return make_webhook(
        provider,
        grant_type="client_credentials",
        client_id=MACHINE_CLIENT.client_id,
        client_secret=MACHINE_CLIENT.client_secret,
        **overrides,
    )


def make_token(webhook: Webhook, *, now: datetime | None = None, **overrides: Any) -> OAuthToken:
    """Return a saved token: an hour long, obtained now, with a refresh token."""
    now = now or timezone.now()
    values = {
        "state": TokenState.VALID,
        "access_token": "an-access-token-0001",
        "refresh_token": "a-refresh-token-0001",
        "token_type": "Bearer",
        "obtained_at": now,
        "expires_at": now + timedelta(hours=1),
        "version": 1,
        **overrides,
    }
    return OAuthToken.objects.create(webhook=webhook, **values)


def begin(webhook: Webhook, user: Any, **overrides: Any) -> tuple[str, dict[str, str]]:
    """Return the address the browser is sent to, and its parameters."""
    url = oauth.begin_authorization(webhook, user=user, **{"session_key": SESSION, **overrides})
    return url, {name: values[0] for name, values in query_of(url).items()}


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)
