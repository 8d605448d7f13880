"""Revoking tokens: best effort, refresh token first, and never blocking anything else."""

from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply, token
from tests.oauth_rows import (
    authorize,
    connect,
    make_credential,
    make_token,
    make_user,
)
from tests.sandbox import Provider
from webhooks import oauth
from webhooks.models import Credential, OAuthExchange, OAuthToken
from webhooks.oauth import revocation

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture
def fake(fake: FakeProvider) -> FakeProvider:
    fake.reply(Reply(status=200))
    return fake


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    values = {
        "token_url": fake.token_url,
        "revocation_url": f"{fake.url}/revoke",
        **fields,
    }
    return make_credential(**values)


def is_empty() -> bool:
    row = OAuthToken.objects.get()
    return row.state == "none" and not row.has_access_token() and not row.has_refresh_token()


def test_refresh_token_goes_first_and_then_the_access_token(fake: FakeProvider) -> None:
    credential = credential_at(fake)
    make_token(credential)

    oauth.clear_token(credential)

    assert is_empty()
    assert [asked.path for asked in fake.requests] == ["/revoke"] * 2
    assert [asked.form for asked in fake.requests] == [
        [("token", "a-refresh-token-0001"), ("token_type_hint", "refresh_token")],
        [("token", "an-access-token-0001"), ("token_type_hint", "access_token")],
    ]
    assert all("authorization" in asked.headers for asked in fake.requests)


def test_client_says_who_it_is_as_at_the_token_endpoint(fake: FakeProvider) -> None:
    in_body = credential_at(fake, client_authentication="request_body")
    public = credential_at(fake, client_secret="")
    for credential in (in_body, public):
        make_token(credential, access_token="")
        oauth.clear_token(credential)

    first, second = (asked.fields for asked in fake.requests)
    assert (first["client_id"], first["client_secret"]) == ("sandbox-client", "sandbox-secret")
    assert second["client_id"] == "sandbox-client"
    assert "client_secret" not in second


@pytest.mark.parametrize(
    "reply",
    [
        Reply(status=500),
        Reply(status=400, body={"error": "unsupported_token_type"}),
        Reply(body={"ok": False, "error": "invalid_auth"}),
        Reply(status=307, headers={"Location": "https://evil.example/"}),
        Reply(raw=b""),
    ],
)
def test_provider_that_does_not_revoke_is_not_in_the_way(fake: FakeProvider, reply: Reply) -> None:
    credential = credential_at(fake)
    make_token(credential)
    fake.reply(reply)

    oauth.clear_token(credential)

    assert is_empty()
    kept = OAuthExchange.objects.filter(kind="revocation")
    assert kept.count() == 2
    assert "may still be valid" in oauth.sentence(kept[0].message)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(),
        Reply(body=b"<html></html>"),
        Reply(body={"ok": True, "revoked": True}),
        Reply(body={"status": "success"}),
        # Google, for the access token that ended with the refresh token.
        Reply(status=400, body={"error": "invalid_token", "error_description": "Token expired"}),
    ],
)
def test_provider_whose_token_is_no_longer_valid_has_revoked_it(
    fake: FakeProvider, reply: Reply
) -> None:
    credential = credential_at(fake)
    make_token(credential)
    fake.reply(Reply(), reply)

    assert oauth.clear_token(credential)
    assert {kept.result for kept in OAuthExchange.objects.all()} == {"ok"}


@pytest.mark.parametrize("url", ["", "http://provider.example/revoke", "nonsense"])
def test_nothing_is_sent_without_a_safe_address(fake: FakeProvider, url: str) -> None:
    credential = credential_at(fake, revocation_url=url)
    make_token(credential)

    oauth.clear_token(credential)

    assert is_empty()
    assert fake.requests == []


def test_webhook_without_a_token_has_nothing_to_clear(fake: FakeProvider) -> None:
    oauth.clear_token(credential_at(fake))

    assert fake.requests == []


def test_revoked_tokens_are_kept_masked(fake: FakeProvider) -> None:
    credential = credential_at(fake)
    make_token(credential)

    oauth.clear_token(credential)

    for kept in OAuthExchange.objects.all():
        assert kept.result == "ok"
        assert "-token-0001" not in kept.request


def test_real_provider_takes_the_token_back(provider: Provider) -> None:
    credential = make_credential(provider, revocation_url=provider.revocation_url)
    connect(credential)

    oauth.clear_token(credential)

    assert is_empty()
    assert [one.status for one in provider.revocation_requests()] == [200, 200]


@pytest.mark.parametrize(
    ("reply", "fields", "is_revoked"),
    [
        (Reply(status=200), {}, True),
        (Reply(status=503), {}, False),
        (Reply(status=400, body={"error": "unsupported_token_type"}), {}, False),
        (Reply(raw=b""), {}, False),
        (Reply(status=200), {"revocation_url": ""}, False),
    ],
)
def test_clearing_says_whether_the_provider_did_it_too(
    fake: FakeProvider, reply: Reply, fields: dict[str, str], is_revoked: bool
) -> None:
    credential = credential_at(fake, **fields)
    make_token(credential)
    fake.reply(reply)

    assert oauth.clear_token(credential) is is_revoked
    assert is_empty()


def test_there_is_nothing_left_to_revoke_without_a_token(fake: FakeProvider) -> None:
    credential = credential_at(fake, revocation_url="")

    assert oauth.clear_token(credential) is True


def replace_grant(fake: FakeProvider, credential: Credential, **fields: str) -> list[str]:
    """Get a new token that replaces another; return the tokens that were revoked."""
    make_token(credential)
    fake.reply(token(**fields), Reply(status=200))
    authorize(credential)
    return [asked.fields["token"] for asked in fake.requests if asked.path != "/token"]


def test_new_grant_revokes_the_old_refresh_token(fake: FakeProvider) -> None:
    revoked = replace_grant(fake, credential_at(fake), refresh_token="another")

    assert revoked == ["a-refresh-token-0001"]
    assert OAuthToken.objects.get().refresh_token == "another"


def test_refresh_token_that_the_new_grant_has_too_is_kept(fake: FakeProvider) -> None:
    revoked = replace_grant(fake, credential_at(fake), refresh_token="a-refresh-token-0001")

    assert revoked == []


def test_old_one_that_cannot_be_revoked_is_no_error(fake: FakeProvider) -> None:
    credential = credential_at(fake, revocation_url="http://127.0.0.1:9/revoke")

    assert replace_grant(fake, credential, refresh_token="another") == []
    assert OAuthToken.objects.get().state == "valid"


def test_old_one_stays_where_that_would_end_the_new_one_too(fake: FakeProvider) -> None:
    """At Keycloak a revocation ends every session of this person with this client."""
    path = "/realms/acme/protocol/openid-connect/revoke"
    credential = credential_at(fake, revocation_url=f"{fake.url}{path}")

    assert replace_grant(fake, credential, refresh_token="another") == []


@pytest.mark.parametrize(
    "url",
    [
        "https://oauth2.googleapis.com/revoke",
        "https://acme.eu.auth0.com/oauth/revoke",
        "https://identity.xero.com/connect/revocation",
        "https://discord.com/api/oauth2/token/revoke",
    ],
)
def test_old_one_stays_at_providers_that_end_both(
    fake: FakeProvider, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    credential = credential_at(fake, revocation_url=url)
    revoked: list[object] = []
    monkeypatch.setattr(revocation, "revoke", lambda *given: revoked.append(given))

    replace_grant(fake, credential, refresh_token="another")

    assert revoked == []


def test_real_provider_keeps_the_new_grant(provider: Provider) -> None:
    credential, user = (
        make_credential(provider, revocation_url=provider.revocation_url),
        make_user(),
    )
    for _ in range(2):
        connect(credential, user)

    assert [one.status for one in provider.revocation_requests()] == [200]
    assert oauth.refresh(credential).version == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rotated", ["rotated", ""])
def test_token_that_comes_after_it_was_cleared_is_given_back(
    fake: FakeProvider, rotated: str
) -> None:
    """No row here refers to it, so it would live on at the provider."""
    credential = credential_at(fake)
    make_token(credential, expires_at=timezone.now())

    def clear_concurrently(asked: ReceivedRequest) -> Reply:
        fake.reply(Reply(status=200))
        oauth.clear_token(credential)
        connection.close()
        return token(refresh_token=rotated)

    fake.reply(clear_concurrently)

    with pytest.raises(oauth.TokenUnavailableError):
        oauth.usable_token(credential.pk)

    revoked = [asked.fields["token"] for asked in fake.requests if asked.path == "/revoke"]
    assert revoked[2:] == [*filter(None, [rotated]), "fresh-token"]
    assert is_empty()


@pytest.mark.django_db(transaction=True)
def test_token_that_comes_after_a_newer_grant_is_left(fake: FakeProvider) -> None:
    credential = credential_at(fake)
    make_token(credential, expires_at=timezone.now())

    def grant_concurrently(asked: ReceivedRequest) -> Reply:
        OAuthToken.objects.update(version=2, refresh_lease="", expires_at=None)
        connection.close()
        return token(refresh_token="rotated")

    fake.reply(grant_concurrently)

    assert oauth.usable_token(credential.pk).version == 2
    assert [asked.path for asked in fake.requests] == ["/token"]


@pytest.mark.django_db(transaction=True)
def test_grant_whose_settings_were_changed_concurrently_is_given_back(fake: FakeProvider) -> None:
    credential = credential_at(fake)

    def change_concurrently(asked: ReceivedRequest) -> Reply:
        fake.reply(Reply(status=200))
        Credential.objects.update(client_id="another")
        connection.close()
        return token(refresh_token="granted")

    fake.reply(change_concurrently)

    with pytest.raises(oauth.AuthorizationError):
        authorize(credential)

    revoked = [asked.fields["token"] for asked in fake.requests if asked.path == "/revoke"]
    assert revoked == ["granted", "fresh-token"]
