"""The identity token: bound to its authorization request, and naming the account."""

import base64
import json
from typing import Any

import pytest

from tests.oauth_fakes import FakeProvider, token
from tests.oauth_rows import SESSION, begin, make_credential, make_user
from webhooks import oauth
from webhooks.models import Credential, OAuthExchange, OAuthToken

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def jwt(**claims: Any) -> str:
    return f"{part({'alg': 'RS256'})}.{part(claims)}.c2lnbmF0dXJl"


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    return make_credential(token_url=fake.token_url, **{"scope": "openid email", **fields})


def authorize(
    fake: FakeProvider, credential: Credential, id_token: Any, **more: str
) -> dict[str, str]:
    """Run an authorization; `id_token` may be a function of the parameters that were sent."""
    user = make_user()
    _, sent = begin(credential, user)
    text = id_token(sent) if callable(id_token) else id_token
    fake.reply(token(**({} if text is None else {"id_token": text}), **more))
    query = {"code": ["c"], "state": [sent["state"]]}
    oauth.finish_authorization(query, user=user, session_key=SESSION)
    return sent


def right(**more: Any) -> Any:
    return lambda sent: jwt(**{"nonce": sent["nonce"], "aud": sent["client_id"], **more})


def stored() -> OAuthToken:
    return OAuthToken.objects.get()


@pytest.mark.parametrize("scope", ["openid", "email openid profile", "openid,email"])
def test_nonce_is_sent_with_openid(fake: FakeProvider, scope: str) -> None:
    credential, user = credential_at(fake, scope=scope), make_user()

    nonces = [begin(credential, user)[1]["nonce"] for _ in range(2)]

    assert all(len(one) >= 32 for one in nonces)
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize("scope", ["", "email", "openid2"])
def test_no_nonce_is_sent_without_openid(fake: FakeProvider, scope: str) -> None:
    assert "nonce" not in begin(credential_at(fake, scope=scope), make_user())[1]


def test_own_nonce_of_the_settings_goes_and_is_expected(fake: FakeProvider) -> None:
    credential = credential_at(fake, authorization_parameters={"nonce": "always-this"})

    sent = authorize(fake, credential, right(email="a@example.com"))

    assert sent["nonce"] == "always-this"
    assert stored().account == "a@example.com"


@pytest.mark.parametrize(
    ("claims", "account"),
    [
        ({"email": "anna@example.com", "sub": "1"}, "anna@example.com"),
        ({"preferred_username": "anna", "name": "Anna", "sub": "1"}, "anna"),
        ({"name": "Анна Коваль", "sub": "1"}, "Анна Коваль"),
        ({"sub": "248289761001"}, "248289761001"),
        ({"email": None, "sub": 5}, ""),
        ({"email": "a\u202eb\n@example.com"}, "a b @example.com"),
        ({"email": "x" * 2000}, "x" * 254 + "…"),
    ],
)
def test_account_is_kept_as_the_provider_names_it(
    fake: FakeProvider, claims: dict[str, Any], account: str
) -> None:
    authorize(fake, credential_at(fake), right(**claims))

    assert stored().account == account


@pytest.mark.parametrize(
    ("id_token", "words"),
    [
        (lambda sent: jwt(nonce="another", aud=sent["client_id"]), "nonce is not the one"),
        (lambda sent: jwt(nonce="", aud=sent["client_id"]), "nonce is not the one"),
        (lambda sent: jwt(aud="another-client"), "another client"),
        (lambda sent: jwt(nonce="\ud800", aud=sent["client_id"]), "nonce is not the one"),
        (
            lambda sent: jwt(nonce="another", aud=sent["client_id"], groups="g" * 40_000),
            "nonce is not the one",
        ),
        (lambda sent: jwt(nonce=["x"], aud=sent["client_id"]), "nonce is not the one"),
        (right(aud="another-client"), "another client"),
        (right(aud=["one", "two"]), "another client"),
        (right(aud=None), "another client"),
    ],
)
def test_identity_token_of_something_else_stores_nothing(
    fake: FakeProvider, id_token: Any, words: str
) -> None:
    credential = credential_at(fake)

    with pytest.raises(oauth.AuthorizationError, match=words):
        authorize(fake, credential, id_token)

    assert not OAuthToken.objects.exists()
    assert OAuthExchange.objects.filter(kind="token").get().result == "misconfigured"


@pytest.mark.parametrize("uses_pkce", [True, False])
@pytest.mark.parametrize("claims", [{}, {"nonce": None}])
def test_without_a_nonce_pkce_binds_the_answer_and_else_the_person_is_warned(
    fake: FakeProvider, claims: dict[str, Any], uses_pkce: bool
) -> None:
    """LinkedIn never repeats the nonce."""
    credential = credential_at(fake, uses_pkce=uses_pkce)

    authorize(fake, credential, lambda sent: jwt(aud=sent["client_id"], sub="me", **claims))

    assert (stored().account, stored().state) == ("me", "valid")
    assert ("does not repeat the nonce" in oauth.sentence(stored().warning)) is not uses_pkce


def test_warning_about_the_nonce_outlives_a_refresh(fake: FakeProvider) -> None:
    credential = credential_at(fake, uses_pkce=False)
    unbound = jwt(aud=credential.client_id, sub="me")
    authorize(fake, credential, unbound, refresh_token="a-refresh-token")
    fake.reply(token())

    oauth.refresh(credential)
    oauth.refresh(credential)

    assert oauth.sentence(stored().warning).count("does not repeat the nonce") == 1


@pytest.mark.parametrize(
    "id_token",
    [
        None,
        "",
        "a.b.c.d.e",
        "nonsense",
        "a.b",
        "a.b.c",
        f"a.{part([1])}.c",
        "a." + "W" * 50_000 + ".c",
        f"a.{base64.urlsafe_b64encode(b'[' * 9000).decode()}.c",
    ],
)
def test_identity_token_that_is_missing_or_cannot_be_read_names_no_one(
    fake: FakeProvider, id_token: str | None
) -> None:
    authorize(fake, credential_at(fake), id_token)

    assert (stored().account, stored().state) == ("", "valid")


def test_audience_may_be_a_list(fake: FakeProvider) -> None:
    credential = credential_at(fake)

    authorize(fake, credential, right(aud=["api", credential.client_id], sub="me"))

    assert stored().account == "me"


def test_without_openid_nothing_is_checked(fake: FakeProvider) -> None:
    authorize(fake, credential_at(fake, scope="email"), "nonsense")

    assert stored().state == "valid"


def test_transcript_shows_no_identity_token(fake: FakeProvider) -> None:
    authorize(fake, credential_at(fake), right(email="anna@example.com"))

    shown = OAuthExchange.objects.get(kind="token").response
    assert part({"alg": "RS256"}) not in shown
    assert "id_token" in shown
