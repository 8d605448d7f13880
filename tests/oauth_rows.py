"""OAuth rows for tests: plain functions with keyword overrides."""

import itertools
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.contrib.auth import get_user_model
from django.utils import timezone

from tests import factories
from tests.sandbox import AUTHORIZATION_CLIENT, MACHINE_CLIENT, Provider, answer_consent
from webhooks import oauth
from webhooks.models import AuthorizationType, Credential, OAuthToken, TokenState, Webhook

SESSION = "a-session-key-of-a-browser"
_numbers = itertools.count(1)


def make_user(**overrides: Any) -> Any:
    values = {"username": f"person{next(_numbers)}", **overrides}
    return get_user_model().objects.create(**values)


def make_credential(server: Provider | None = None, /, **overrides: Any) -> Credential:
    """Return the saved OAuth credential of a webhook, registered with `server` if given."""
    return make_webhook(server, **overrides).credential


def make_machine_credential(provider: Provider, **overrides: Any) -> Credential:
    """Return a saved credential with the client credentials grant."""
    return make_machine_webhook(provider, **overrides).credential


def make_webhook(server: Provider | None = None, /, **overrides: Any) -> Webhook:
    """Return a saved OAuth webhook, registered with `server` if given."""
    base = server.url if server else "https://provider.example"
    values = {
        "name": "CRM",
        "url": "https://receiver.example/hooks",
        "authorization_type": AuthorizationType.OAUTH2,
        "auth_url": server.auth_url if server else f"{base}/authorize",
        "token_url": server.token_url if server else f"{base}/token",
        "client_id": AUTHORIZATION_CLIENT.client_id,
        "client_secret": AUTHORIZATION_CLIENT.client_secret,
        "scope": "events:write",
        **overrides,
    }
    return factories.make_webhook(**{"event_types": [], **values})


def make_machine_webhook(provider: Provider, **overrides: Any) -> Webhook:
    """Return a webhook with the client credentials grant."""
    return make_webhook(
        provider,
        grant_type="client_credentials",
        client_id=MACHINE_CLIENT.client_id,
        client_secret=MACHINE_CLIENT.client_secret,
        **overrides,
    )


def make_token(
    credential: Credential, *, now: datetime | None = None, **overrides: Any
) -> OAuthToken:
    """Return a saved token that was obtained now, is valid for an hour and has a refresh token."""
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
    return OAuthToken.objects.create(credential=credential, **values)


def begin(credential: Credential, user: Any, **overrides: Any) -> tuple[str, dict[str, str]]:
    """Return the authorization URL that the browser is redirected to, and its parameters."""
    url = oauth.begin_authorization(credential, user=user, **{"session_key": SESSION, **overrides})
    return url, {name: values[0] for name, values in query_of(url).items()}


def authorize(
    credential: Credential, user: Any = None, *, code: str = "the-code"
) -> dict[str, str]:
    """Return from a provider that approved; return the parameters of the authorization request."""
    user = user or make_user()
    _, sent = begin(credential, user)
    query = {"code": [code], "state": [sent["state"]]}
    oauth.finish_authorization(query, user=user, session_key=SESSION)
    return sent


def connect(credential: Credential, user: Any = None) -> None:
    """Get a token from the sandbox's provider, giving consent as a person does."""
    user = user or make_user()
    back = answer_consent(begin(credential, user)[0])
    oauth.finish_authorization(query_of(back), user=user, session_key=SESSION)


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True)


def token_after_refusal(
    credential: Credential, version: int, *, now: datetime | None = None
) -> oauth.UsableToken:
    """Return the token that replaces a refused one, as a delivery gets it."""
    oauth.record_refusal(credential.pk, version)
    return oauth.usable_token(credential.pk, now=now)
