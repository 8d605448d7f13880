"""Each preset against a small fake of its provider: get a token, refresh it, lose it, regain it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
from django.utils import timezone
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply
from tests.oauth_rows import (
    SESSION,
    authorize,
    begin,
    make_credential,
    make_user,
    token_after_refusal,
)
from webhooks import oauth
from webhooks.delivery.auth import BearerAuthorization
from webhooks.models import AuthorizationRequest, Credential, HoldReason, OAuthToken
from webhooks.oauth import callback

pytestmark = [pytest.mark.django_db, pytest.mark.once]
HTML = {"Content-Type": "text/html; charset=utf-8"}
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


def refuse(code: str, status: int = 400, /, **more: Any) -> Reply:
    return Reply(status=status, body={"error": code, **more})


@dataclass
class Rotating:
    """A token endpoint with single-use refresh tokens, unless `keeps` is set."""

    fields: dict[str, Any]
    ended: Reply
    keeps: bool = False
    returns_refresh_token: bool = True
    is_ended: bool = False
    current: str = "refresh-0"
    count: int = 0
    seen: list[dict[str, str]] = field(default_factory=list)

    def read(self, asked: ReceivedRequest) -> dict[str, str]:
        return asked.fields

    def __call__(self, asked: ReceivedRequest) -> Reply:
        sent = self.read(asked)
        self.seen.append(sent)
        is_known = (sent.get("client_id"), sent.get("client_secret")) == ("the-id", "the-secret")
        if not is_known or "authorization" in asked.headers:
            return refuse("invalid_client", 401)
        if sent["grant_type"] == "authorization_code":
            self.is_ended = False
        elif self.is_ended or sent["refresh_token"] != self.current:
            return self.ended
        return self.grant(is_refresh=sent["grant_type"] == "refresh_token")

    def grant(self, *, is_refresh: bool) -> Reply:
        self.count += 1
        body = {"access_token": f"access-{self.count}", **self.fields}
        if not self.keeps:
            self.current = f"refresh-{self.count}"
        if self.returns_refresh_token or not is_refresh:
            body["refresh_token"] = self.current
        return self.shape(body, is_refresh=is_refresh)

    def shape(self, body: dict[str, Any], *, is_refresh: bool) -> Reply:
        return Reply(body=body)


class GitHub(Rotating):
    """Form-encoded unless JSON is asked for; errors come with 200."""

    def __call__(self, asked: ReceivedRequest) -> Reply:
        reply = super().__call__(asked)
        if asked.headers["accept"] == "application/json":
            return Reply(body=reply.body)
        return Reply(body=urlencode(reply.body).encode(), headers=FORM)


class SlackUser(Rotating):
    """A person's token is nested in the first response and at the top level of a refresh."""

    def shape(self, body: dict[str, Any], *, is_refresh: bool) -> Reply:
        if is_refresh:
            return Reply(body={"ok": True, **body})
        bot = {"access_token": "the-bots", "refresh_token": "the-bots", "token_type": "bot"}
        return Reply(body={"ok": True, **bot, "authed_user": {"id": "U1", **body}})


class Kommo(Rotating):
    """Takes JSON only, with the callback URL in every request."""

    def read(self, asked: ReceivedRequest) -> dict[str, str]:
        if asked.headers["content-type"] != "application/json":
            return {"grant_type": ""}
        fields: dict[str, str] = asked.json
        return fields if fields.get("redirect_uri") else {"grant_type": ""}


def google() -> Rotating:
    fields = {"token_type": "Bearer", "expires_in": 3599, "scope": "a"}
    ended = refuse("invalid_grant", error_description="Token has been expired or revoked.")
    return Rotating(fields, ended, keeps=True, returns_refresh_token=False)


def microsoft() -> Rotating:
    fields = {"token_type": "Bearer", "expires_in": 4799, "ext_expires_in": 4799, "scope": "a"}
    words = "AADSTS700082: The refresh token has expired due to inactivity. Trace ID: 1"
    ended = refuse("invalid_grant", error_description=words, error_codes=[700082])
    return Rotating(fields, ended)


def github() -> Rotating:
    fields = {
        "token_type": "bearer",
        "expires_in": 28800,
        "refresh_token_expires_in": 15811200,
        "scope": "",
    }
    return GitHub(fields, refuse("bad_refresh_token", 200, error_description="Is incorrect."))


def slack() -> Rotating:
    fields = {"ok": True, "token_type": "bot", "expires_in": 43200, "scope": "chat:write,users"}
    return Rotating(fields, Reply(body={"ok": False, "error": "invalid_refresh_token"}))


def slack_user() -> Rotating:
    fields = {"token_type": "user", "expires_in": 43200, "scope": "chat:write"}
    return SlackUser(fields, Reply(body={"ok": False, "error": "token_revoked"}))


def salesforce() -> Rotating:
    fields = {
        "token_type": "Bearer",
        "instance_url": "https://acme.my.salesforce.com",
        "issued_at": "1764032400000",
        "signature": "x=",
        "scope": "refresh_token api",
    }
    ended = refuse("invalid_grant", error_description="expired access/refresh token")
    return Rotating(fields, ended, keeps=True, returns_refresh_token=False)


def hubspot() -> Rotating:
    body = {
        "status": "BAD_REFRESH_TOKEN",
        "message": "missing or invalid refresh token",
        "category": "VALIDATION_ERROR",
    }
    ended = Reply(status=400, body=body)
    return Rotating({"token_type": "bearer", "expires_in": 1800}, ended, keeps=True)


def zoho() -> Rotating:
    fields = {"token_type": "Bearer", "expires_in": 3600, "api_domain": "https://www.zohoapis.com"}
    return Rotating(fields, refuse("invalid_code", 200), keeps=True, returns_refresh_token=False)


def bitrix24() -> Rotating:
    fields = {
        "expires_in": 3600,
        "expires": 1_900_000_000,
        "scope": "crm",
        "domain": "oauth.bitrix.info",
        "status": "L",
    }
    return Rotating(fields, refuse("invalid_grant", 400, error_description="Wrong"))


def kommo() -> Rotating:
    body = {
        "hint": "Token has been revoked",
        "title": "Некорректный запрос",
        "type": "https://developers.kommo.com/",
        "status": 401,
        "detail": "The refresh token is invalid.",
    }
    fields = {"token_type": "Bearer", "expires_in": 86400, "server_time": 1}
    return Kommo(fields, Reply(status=401, body=body))


def openid() -> Rotating:
    fields = {"token_type": "Bearer", "expires_in": 300, "id_token": "eyJ.e.x", "scope": "openid"}
    return Rotating(fields, refuse("invalid_grant"))


@dataclass(frozen=True, kw_only=True)
class ProviderCase:
    """A preset, the answers to its questions, and what must be observed."""

    key: str
    provider: Callable[[], Rotating]
    answers: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    # Parameters of the URL that the browser is sent to.
    sent: dict[str, str] = field(default_factory=dict)
    header: str = "Bearer T"
    has_pkce: bool = True
    has_expiry: bool = True


CASES = {
    "google": ProviderCase(
        key="google", provider=google, sent={"access_type": "offline", "prompt": "consent"}
    ),
    "microsoft": ProviderCase(
        key="microsoft", provider=microsoft, sent={"scope": "offline_access"}
    ),
    "github": ProviderCase(key="github", provider=github),
    "slack": ProviderCase(
        key="slack",
        provider=slack,
        overrides={"scope": "chat:write users"},
        sent={"scope": "chat:write,users"},
        has_pkce=False,
    ),
    "slack user": ProviderCase(
        key="slack",
        provider=slack_user,
        overrides={
            "token_path": "authed_user.access_token",
            "authorization_parameters": {"user_scope": "chat:write"},
            "scope": "",
        },
        sent={"user_scope": "chat:write"},
        has_pkce=False,
    ),
    "salesforce": ProviderCase(key="salesforce", provider=salesforce, has_expiry=False),
    "hubspot": ProviderCase(key="hubspot", provider=hubspot, has_pkce=False),
    "zoho": ProviderCase(
        key="zoho",
        provider=zoho,
        answers={"domain": "zoho.eu"},
        overrides={"scope": "ZohoCRM.modules.ALL ZohoCRM.users.READ"},
        sent={
            "access_type": "offline",
            "prompt": "consent",
            "scope": "ZohoCRM.modules.ALL,ZohoCRM.users.READ",
        },
        header="Zoho-oauthtoken T",
        has_pkce=False,
    ),
    "bitrix24": ProviderCase(
        key="bitrix24", provider=bitrix24, answers={"portal": "acme.bitrix24.com"}, has_pkce=False
    ),
    "kommo": ProviderCase(
        key="kommo", provider=kommo, answers={"account": "acme.kommo.com"}, has_pkce=False
    ),
    "openid": ProviderCase(
        key="openid", provider=openid, overrides={"client_authentication": "request_body"}
    ),
}


def made(case: ProviderCase, fake: FakeProvider) -> Credential:
    """Return a credential with the preset's fields, its provider moved to the fake."""
    fields = {**oauth.fill(case.key, case.answers), **case.overrides}
    for name in ("auth_url", "token_url", "revocation_url"):
        if url := fields.get(name, ""):
            assert url.startswith("https://")
            fields[name] = fake.url + urlsplit(url).path
    fields.pop("issuer", None)
    defaults = {"token_url": fake.token_url, "scope": "", "client_id": "the-id"}
    return make_credential(client_secret="the-secret", **{**defaults, **fields})


@pytest.mark.parametrize("name", CASES)
def test_token_is_got_refreshed_lost_and_regained(fake: FakeProvider, name: str) -> None:
    case = CASES[name]
    credential, provider = made(case, fake), case.provider()
    fake.reply(provider)
    later = timezone.now() + timedelta(days=2)

    def renewed(version: int) -> oauth.UsableToken:
        if case.has_expiry:
            return oauth.usable_token(credential.pk, now=later)
        return token_after_refusal(credential, version)

    sent = authorize(credential)
    row = OAuthToken.objects.get()
    assert case.sent.items() <= sent.items()
    assert ("code_challenge" in sent) is case.has_pkce
    assert (row.state, row.access_token, row.warning) == ("valid", "access-1", "")
    assert (row.expires_at is not None) is case.has_expiry
    assert BearerAuthorization("T", credential.header_prefix).header == case.header

    assert renewed(1).access_token == "access-2"
    later += timedelta(days=2)
    assert renewed(2).access_token == "access-3"

    provider.is_ended = True
    later += timedelta(days=2)
    with pytest.raises(oauth.TokenUnavailableError) as ended:
        renewed(3)
    assert ended.value.hold_reason == HoldReason.REAUTHORIZATION
    assert OAuthToken.objects.get().state == "needs_reauthorization"

    authorize(credential)
    assert OAuthToken.objects.get().state == "valid"
    grants = [one["grant_type"] for one in provider.seen]
    assert grants == [
        "authorization_code",
        "refresh_token",
        "refresh_token",
        "refresh_token",
        "authorization_code",
    ]


@pytest.mark.parametrize("name", CASES)
def test_wrong_secret_is_a_mistake_of_the_settings(fake: FakeProvider, name: str) -> None:
    case = CASES[name]
    credential = made(case, fake)
    fake.reply(case.provider())
    credential.set_secret("client_secret", "wrong")
    credential.save()

    with pytest.raises(oauth.AuthorizationError, match="does not accept the client ID"):
        authorize(credential)


class TestProviders:
    def test_google_without_consent_says_how_to_get_a_refresh_token(
        self, fake: FakeProvider
    ) -> None:
        credential = made(CASES["google"], fake)
        fake.reply(Reply(body={"access_token": "T", "expires_in": 3599}))

        authorize(credential)

        assert "“access_type=offline” and “prompt=consent”" in oauth.sentence(
            OAuthToken.objects.get().warning
        )

    def test_google_with_a_part_of_the_scopes_is_a_warning(self, fake: FakeProvider) -> None:
        credential = made(CASES["google"], fake)
        credential.scope = "https://www.googleapis.com/auth/calendar email"
        credential.save()
        granted = "https://www.googleapis.com/auth/userinfo.email"
        fake.reply(Reply(body={"access_token": "T", "scope": granted}))

        authorize(credential)

        row = OAuthToken.objects.get()
        assert row.granted_scope == granted
        assert "https://www.googleapis.com/auth/calendar" in row.warning

    @pytest.mark.parametrize(
        ("number", "state"),
        [
            (50173, "needs_reauthorization"),
            (50076, "needs_reauthorization"),
            (7000222, "misconfigured"),
            (700016, "misconfigured"),
            (90033, "expiring"),
        ],
    )
    def test_microsoft_says_by_a_number_what_to_do(
        self, fake: FakeProvider, number: int, state: str
    ) -> None:
        credential = made(CASES["microsoft"], fake)
        fake.reply(microsoft())
        authorize(credential)
        words = f"AADSTS{number}: Because. Trace ID: 00000000"
        fake.reply(refuse("invalid_grant", error_description=words))

        with pytest.raises(oauth.TokenUnavailableError):
            oauth.refresh(credential)

        row = OAuthToken.objects.get()
        assert row.state == state
        assert str(number) in row.last_error

    def test_token_of_a_classic_github_app_does_not_expire(self, fake: FakeProvider) -> None:
        credential = made(CASES["github"], fake)
        body = {"access_token": "gho_1", "token_type": "bearer", "scope": "repo,gist"}
        fake.reply(Reply(body=body))

        authorize(credential)

        row = OAuthToken.objects.get()
        assert (row.expires_at, row.granted_scope, row.warning) == (None, "repo gist", "")

    def test_github_refuses_a_code_with_status_200(self, fake: FakeProvider) -> None:
        credential = made(CASES["github"], fake)
        words = "The code passed is incorrect or expired."
        fake.reply(refuse("bad_verification_code", 200, error_description=words))

        with pytest.raises(oauth.AuthorizationError, match=r"incorrect or expired\."):
            authorize(credential)

    def test_zoho_that_blocks_is_asked_again_later(self, fake: FakeProvider) -> None:
        credential = made(CASES["zoho"], fake)
        fake.reply(zoho())
        authorize(credential)
        words = "You have made too many requests continuously. Please try again later."
        fake.reply(refuse("Access Denied", 400, error_description=words, status="failure"))

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            oauth.refresh(credential)

        assert failure.value.hold_reason is None

    def test_account_in_another_data_center_of_zoho_gets_no_secret(
        self, fake: FakeProvider
    ) -> None:
        credential, user = made(CASES["zoho"], fake), make_user()
        fake.reply(zoho())
        _, sent = begin(credential, user)
        query = {
            "code": ["the-code"],
            "state": [sent["state"]],
            "location": ["in"],
            "accounts-server": ["https://accounts.zoho.in"],
        }

        with pytest.raises(
            oauth.AuthorizationError, match=r"lives at “https://accounts\.zoho\.in”"
        ):
            oauth.finish_authorization(query, user=user, session_key=SESSION)

        assert fake.requests == []

    @pytest.mark.parametrize(
        ("referer", "is_there"),
        [("acme.kommo.com", True), ("other.kommo.com", False), ("evil.example", True)],
    )
    def test_code_of_another_account_of_kommo_is_not_sent_to_this_one(
        self, referer: str, is_there: bool
    ) -> None:
        credential = make_credential(token_url="https://acme.kommo.com/oauth2/access_token")
        found = AuthorizationRequest(credential=credential)

        if is_there:
            callback.check_data_center({"referer": referer}, found)
        else:
            with pytest.raises(oauth.AuthorizationError, match=r"lives at “https://other\.kommo"):
                callback.check_data_center({"referer": referer}, found)

    def test_token_of_bitrix24_goes_into_the_query(self) -> None:
        fields = oauth.fill("bitrix24", {"portal": "https://acme.bitrix24.com/"})

        assert fields["token_placement"] == "query"
        assert fields["token_query_parameter"] == "auth"
        assert fields["auth_url"] == "https://acme.bitrix24.com/oauth/authorize/"


USER = "4799e5e9-0000-4000-8000-00805f9b34fb"
SIGNED = {
    "google_service_account": ({}, {"aud": "https://oauth2.googleapis.com/token"}),
    "docusign": (
        {"host": "account-d.docusign.com", "user": USER},
        {"aud": "account-d.docusign.com", "sub": USER, "scope": "signature impersonation"},
    ),
}


@dataclass
class Signed:
    """A token endpoint that exchanges JWTs signed with one key."""

    key: jwk.RSAKey
    audience: str
    claims: list[dict[str, Any]] = field(default_factory=list)
    fields: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, asked: ReceivedRequest) -> Reply:
        self.fields.append(asked.fields)
        if asked.fields.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return refuse("unsupported_grant_type")
        try:
            decoded = jwt.decode(asked.fields["assertion"], self.key, algorithms=["RS256"])
        except JoseError:
            return refuse("invalid_grant", error_description="no_valid_keys_or_signatures")
        self.claims.append(decoded.claims)
        if decoded.header["typ"] != "JWT" or decoded.claims["aud"] != self.audience:
            return refuse("invalid_grant", error_description="Invalid JWT: wrong audience.")
        body = {"access_token": "T", "token_type": "Bearer", "expires_in": 3600}
        return Reply(body=body)


def signing(key: str, fake: FakeProvider, private_key: str) -> Credential:
    """Return a credential with a preset's fields, its token endpoint moved to the fake."""
    filled = oauth.fill(key, SIGNED[key][0])
    assert filled["token_url"].startswith("https://")
    claims = {"aud": filled["token_url"], **filled.get("assertion_claims", {})}
    moved = {"token_url": fake.token_url, "assertion_claims": claims}
    return make_credential(
        **{"scope": "a", **filled, **moved}, client_secret="", client_key=private_key, auth_url=""
    )


@pytest.mark.parametrize("key", SIGNED)
class TestSigned:
    @pytest.mark.slow
    def test_token_is_fetched_with_a_jwt_as_the_provider_wants_it(
        self, fake: FakeProvider, key: str
    ) -> None:
        private_key, wanted = oauth.make_key(), SIGNED[key][1]
        credential = signing(key, fake, private_key)
        provider = Signed(jwk.RSAKey.import_key(private_key), wanted["aud"])
        fake.reply(provider)

        assert oauth.usable_token(credential.pk).access_token == "T"

        [claims], [sent] = provider.claims, provider.fields
        assert wanted.items() <= claims.items()
        assert (claims["iss"], claims["scope"]) == (credential.client_id, credential.scope)
        assert 0 < claims["exp"] - claims["iat"] <= 3600
        assert not {"client_id", "client_secret"} & sent.keys()

    @pytest.mark.slow
    def test_another_key_is_a_mistake_of_the_settings(self, fake: FakeProvider, key: str) -> None:
        credential = signing(key, fake, oauth.make_key())
        fake.reply(Signed(jwk.RSAKey.import_key(oauth.make_key()), SIGNED[key][1]["aud"]))

        with pytest.raises(oauth.TokenUnavailableError, match="does not accept the JWT") as failure:
            oauth.usable_token(credential.pk)

        assert failure.value.hold_reason == HoldReason.MISCONFIGURED

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            ("consent_required", ""),
            ("invalid_grant", "user hasn't approved this consumer"),
            ("invalid_grant", "consent_required"),
        ],
    )
    def test_who_has_not_agreed_yet_is_named(
        self, fake: FakeProvider, key: str, code: str, words: str
    ) -> None:
        credential = signing(key, fake, oauth.make_key())
        fake.reply(refuse(code, error_description=words))

        with pytest.raises(oauth.TokenUnavailableError, match="once, then press “Get new access"):
            oauth.usable_token(credential.pk)

    def test_a_client_without_the_right_is_no_bad_jwt(self, fake: FakeProvider, key: str) -> None:
        credential = signing(key, fake, oauth.make_key())
        words = (
            "Client is unauthorized to retrieve access tokens using this method, or client not "
            "authorized for any of the scopes requested."
        )
        fake.reply(refuse("unauthorized_client", 401, error_description=words))

        with pytest.raises(oauth.TokenUnavailableError) as failure:
            oauth.usable_token(credential.pk)

        assert failure.value.hold_reason == HoldReason.MISCONFIGURED


def _texts(values: Iterable[Any]) -> Iterator[Any]:
    """Return the values, including those within lists and mappings."""
    for value in values:
        if isinstance(value, dict):
            yield from _texts(value.values())
        else:
            yield value


class TestFill:
    def test_every_preset_fills_real_fields_and_says_where_to_register(self) -> None:
        names = {column.name for column in Credential._meta.get_fields()}
        for key, preset in oauth.PRESETS.items():
            examples = {one.name: one.example or one.default for one in preset.questions}
            fields = oauth.fill(key, examples)
            assert fields.keys() <= names
            assert fields["provider"] == key
            texts = "".join(map(str, _texts(fields.values())))
            # The placeholder for the callback URL, whatever that is when a token is refreshed.
            assert "{" not in texts.replace("{callback_url}", "")
            assert len(str(preset.instructions)) > 40

    def test_all_are_there(self) -> None:
        assert list(oauth.PRESETS) == [
            "google",
            "google_service_account",
            "microsoft",
            "github",
            "slack",
            "salesforce",
            "hubspot",
            "zoho",
            "bitrix24",
            "kommo",
            "docusign",
            "openid",
        ]

    @pytest.mark.parametrize(
        "answer",
        [
            "",
            " ",
            "evil.example/path?x=",
            "a b",
            "user@evil.example",
            "..",
            "-",
            "a:80",
            "ä.example",
        ],
    )
    def test_answer_that_is_no_host_is_refused(self, answer: str) -> None:
        with pytest.raises(oauth.MisconfiguredError, match=r"for example “acme\.bitrix24\.com”"):
            oauth.fill("bitrix24", {"portal": answer})

    @pytest.mark.parametrize("domain", ["zoho.com.cn", "zoho.ae"])
    def test_every_data_center_of_zoho_can_be_chosen(self, domain: str) -> None:
        filled = oauth.fill("zoho", {"domain": domain})

        assert filled["token_url"] == f"https://accounts.{domain}/oauth/v2/token"

    def test_answer_outside_of_the_choices_is_refused(self) -> None:
        with pytest.raises(oauth.MisconfiguredError, match="Data center"):
            oauth.fill("zoho", {"domain": "evil.example"})

    def test_unknown_provider_is_refused(self) -> None:
        with pytest.raises(oauth.MisconfiguredError, match="is not a known provider"):
            oauth.fill("nobody", {})

    def test_presets_are_not_changed_by_who_uses_them(self) -> None:
        oauth.fill("google", {})["authorization_parameters"]["prompt"] = "none"

        assert oauth.fill("google", {})["authorization_parameters"]["prompt"] == "consent"
