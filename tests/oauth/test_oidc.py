"""Our client against a certified, strict provider: PKCE required, rotation, `iss`, discovery."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.utils import timezone

from tests.oauth_rows import (
    SESSION,
    begin,
    make_credential,
    make_user,
    query_of,
    token_after_refusal,
)
from tests.oidc import CLIENT, ProviderUnavailableError, running_strict_provider
from tests.sandbox import answer_consent, enter_device_code
from webhooks import oauth
from webhooks.models import ClientAuthentication, Credential, HoldReason, OAuthExchange, OAuthToken
from webhooks.oauth.token_requests import basic_authorization

# Run once and by one worker: the first run installs the provider, and others would have to wait.
pytestmark = [
    pytest.mark.django_db,
    pytest.mark.once,
    pytest.mark.together,
    pytest.mark.timeout(300),
]


@pytest.fixture(scope="session")
def key() -> str:
    return oauth.make_key()


@pytest.fixture(scope="session")
def issuer(key: str) -> Iterator[str]:
    """Run the strict provider and yield its issuer; skip the tests where it cannot run."""
    callback_url = f"{settings.PUBLIC_URL}/integrations/webhooks/oauth/callback/"
    keys = oauth.public_keys(Credential(client_key=key))
    try:
        with running_strict_provider(callback_url, json.dumps(keys)) as running:
            yield running
    except ProviderUnavailableError as error:
        pytest.skip(str(error))


def credential_at(issuer: str, **overrides: Any) -> Credential:
    """Return a credential filled by discovery and registered with the provider."""
    fields = {
        **oauth.discover(issuer).fields,
        "client_id": CLIENT.client_id,
        "client_secret": CLIENT.client_secret,
        "scope": "openid offline_access",
        "authorization_parameters": {"prompt": "consent"},
    }
    return make_credential(**{**fields, **overrides})


def answered(credential: Credential, user: Any) -> dict[str, list[str]]:
    """Return the query parameters with which the provider sends the browser back."""
    url, _ = begin(credential, user)
    return query_of(answer_consent(url))


def connect(credential: Credential) -> OAuthToken:
    user = make_user()
    oauth.finish_authorization(answered(credential, user), user=user, session_key=SESSION)
    return OAuthToken.objects.get(credential=credential)


def ask(url: str, **fields: str) -> tuple[int, dict[str, Any]]:
    """Send a request as the client, without our code; return status and response."""
    request = urllib.request.Request(url, urlencode(fields).encode())
    request.add_header("Authorization", basic_authorization(*CLIENT))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, json.loads(response.read() or b"{}")
    except urllib.error.HTTPError as response:
        with response:
            return response.code, json.loads(response.read())


def is_active(credential: Credential, token: str) -> bool:
    status, answer = ask(f"{credential.token_url}/introspection", token=token)
    assert status == 200
    return bool(answer["active"])


def use_refresh_token(credential: Credential, token: str) -> tuple[int, dict[str, Any]]:
    return ask(credential.token_url, grant_type="refresh_token", refresh_token=token)


def test_discovery_fills_the_endpoints(issuer: str) -> None:
    found = oauth.discover(issuer)

    assert found.fields == {
        "issuer": issuer,
        "auth_url": f"{issuer}/auth",
        "token_url": f"{issuer}/token",
        "revocation_url": f"{issuer}/token/revocation",
        "client_authentication": ClientAuthentication.BASIC_HEADER.value,
        "uses_pkce": True,
        "requires_issuer": True,
    }
    assert found.notes == ()
    assert set(found.scopes) == {"openid", "offline_access"}


def test_a_code_with_pkce_becomes_a_token_that_the_provider_knows(issuer: str) -> None:
    credential, user = credential_at(issuer), make_user()
    query = answered(credential, user)
    assert query["iss"] == [issuer]

    oauth.finish_authorization(query, user=user, session_key=SESSION)

    token = OAuthToken.objects.get(credential=credential)
    assert (token.state, token.version, token.token_type) == ("valid", 1, "Bearer")
    assert token.has_refresh_token()
    assert is_active(credential, token.access_token)
    assert oauth.usable_token(credential.pk).access_token == token.access_token


def test_credentials_in_the_body_are_taken_too(issuer: str) -> None:
    token = connect(credential_at(issuer, client_authentication="request_body"))

    assert is_active(token.credential, token.access_token)


def test_without_pkce_the_provider_refuses_and_the_sentence_says_what_to_turn_on(
    issuer: str,
) -> None:
    credential, user = credential_at(issuer, uses_pkce=False), make_user()

    with pytest.raises(oauth.AuthorizationError, match="Turn “Use PKCE” on") as failure:
        oauth.finish_authorization(answered(credential, user), user=user, session_key=SESSION)

    assert failure.value.credential == credential


def test_a_refresh_rotates_and_the_old_refresh_token_is_dead(issuer: str) -> None:
    credential = credential_at(issuer)
    before = connect(credential)

    refreshed = token_after_refusal(credential, before.version)

    after = OAuthToken.objects.get(credential=credential)
    assert refreshed.version == after.version == 2
    assert after.refresh_token != before.refresh_token
    assert is_active(credential, refreshed.access_token)
    assert token_after_refusal(credential, 2).version == 3
    status, answer = use_refresh_token(credential, before.refresh_token)
    assert (status, answer["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("iss", ["https://evil.example", "http://127.0.0.1", ""])
def test_an_answer_of_another_issuer_is_refused(issuer: str, iss: str) -> None:
    credential, user = credential_at(issuer), make_user()
    query = {**answered(credential, user), "iss": [iss]}

    with pytest.raises(oauth.AuthorizationError, match="not the provider"):
        oauth.finish_authorization(query, user=user, session_key=SESSION)

    assert not OAuthToken.objects.exclude(state="none").exists()
    assert not OAuthExchange.objects.filter(kind="token").exists()


def test_a_replayed_answer_is_refused_here_and_the_token_lives_on(issuer: str) -> None:
    credential, user = credential_at(issuer), make_user()
    query = answered(credential, user)
    oauth.finish_authorization(query, user=user, session_key=SESSION)

    with pytest.raises(oauth.AuthorizationError):
        oauth.finish_authorization(query, user=user, session_key=SESSION)

    # A strict provider ends the grant when a code comes twice; it never saw the second one.
    assert is_active(credential, OAuthToken.objects.get(credential=credential).access_token)


def test_clearing_the_token_revokes_it_at_the_provider(issuer: str) -> None:
    credential = credential_at(issuer)
    token = connect(credential)
    assert is_active(credential, token.refresh_token)

    oauth.clear_token(credential)

    assert not is_active(credential, token.refresh_token)
    assert not is_active(credential, token.access_token)
    kinds = OAuthExchange.objects.filter(kind="revocation").values_list("result", flat=True)
    assert list(kinds) == ["ok", "ok"]


def test_a_reused_refresh_token_ends_the_grant_and_we_need_re_authorization(issuer: str) -> None:
    credential = credential_at(issuer)
    stolen = connect(credential).refresh_token
    oauth.refresh(credential)
    # A thief uses the old one, so the provider ends the whole grant (RFC 9700 section 4.14.2).
    assert use_refresh_token(credential, stolen)[0] == 400

    with pytest.raises(oauth.TokenUnavailableError, match="no longer accepts") as failure:
        oauth.refresh(credential)

    assert failure.value.hold_reason == HoldReason.REAUTHORIZATION
    assert OAuthToken.objects.get(credential=credential).state == "needs_reauthorization"


def test_a_grant_revoked_by_the_person_is_regained_with_the_next_approval(issuer: str) -> None:
    credential = credential_at(issuer)
    token = connect(credential)
    ask(credential.revocation_url, token=token.refresh_token)
    with pytest.raises(oauth.TokenUnavailableError) as failure:
        token_after_refusal(credential, token.version)
    assert failure.value.hold_reason == HoldReason.REAUTHORIZATION

    regained = connect(credential)

    assert regained.state == "valid"
    assert is_active(credential, oauth.usable_token(credential.pk).access_token)


@pytest.mark.parametrize(
    "client",
    [
        {
            "client_id": "signing-client",
            "client_authentication": "private_key_jwt",
            "client_secret": "",
        },
        {
            "client_id": "hmac-client",
            "client_authentication": "client_secret_jwt",
            "client_secret": "a-secret-that-is-long-enough-for-hs256",
        },
    ],
    ids=lambda client: client["client_authentication"],
)
def test_a_client_that_signs_gets_a_token(issuer: str, key: str, client: dict[str, Any]) -> None:
    if client["client_authentication"] == "private_key_jwt":
        client = {**client, "client_key": key}
    credential = credential_at(issuer, grant_type="client_credentials", scope="", **client)

    assert is_active(credential, oauth.usable_token(credential.pk).access_token)


def test_a_person_approves_a_device_code(issuer: str) -> None:
    found = oauth.discover(issuer).fields
    credential = credential_at(
        issuer,
        grant_type="device_code",
        auth_url=f"{issuer}/device/auth",
        token_url=found["token_url"],
        client_id="device-client",
    )
    user = make_user()
    who: dict[str, Any] = {"user": user, "session_key": SESSION}
    state = oauth.begin_device_authorization(credential, **who)
    shown = oauth.pending_device(state, **who)
    assert oauth.poll_device(state, **who) is None

    enter_device_code(shown.redirect_uri)
    later = timezone.now() + timedelta(seconds=shown.poll_seconds)

    assert oauth.poll_device(state, **who, now=later) == credential
    token = OAuthToken.objects.get(credential=credential)
    assert is_active(credential, token.access_token)
    assert token.has_refresh_token()
