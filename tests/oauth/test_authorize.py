"""The authorization code grant: the redirect, the callback and its attacks, the exchange."""

import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import LazySettings
from django.urls import reverse
from django.utils import timezone

from tests.oauth_fakes import FakeProvider, Reply, token
from tests.oauth_rows import SESSION, begin, make_credential, make_token, make_user, query_of
from tests.sandbox import ODD_CLIENT, PUBLIC_CLIENT, Provider, answer_consent
from webhooks import oauth
from webhooks.delivery.retention import delete_old_rows
from webhooks.models import AuthorizationRequest, Credential, OAuthExchange, OAuthToken, Webhook

pytestmark = pytest.mark.django_db

Query = dict[str, list[str]]
ISSUER = "https://provider.example"


@pytest.fixture
def fake(fake: FakeProvider) -> FakeProvider:
    fake.reply(token(refresh_token="fresh-refresh", scope="events:write"))
    return fake


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    values = {"auth_url": f"{ISSUER}/authorize", "token_url": fake.token_url, **fields}
    return make_credential(**values)


def finish(query: Query, user: Any, **overrides: Any) -> Credential:
    return oauth.finish_authorization(query, user=user, **{"session_key": SESSION, **overrides})


def started(fake: FakeProvider, **fields: Any) -> tuple[Credential, Any, Query]:
    """Return a credential, its user and the provider's honest response to a started redirect."""
    credential, user = credential_at(fake, **fields), make_user()
    _, sent = begin(credential, user)
    return credential, user, {"code": ["the-code"], "state": [sent["state"]]}


class TestRedirect:
    def test_address_is_that_of_the_rfc(self) -> None:
        credential = make_credential(scope="read write")

        url, sent = begin(credential, make_user())

        assert url.startswith("https://provider.example/authorize?")
        assert sent.keys() == {
            "response_type",
            "client_id",
            "redirect_uri",
            "scope",
            "state",
            "code_challenge",
            "code_challenge_method",
        }
        assert sent["response_type"] == "code"
        assert sent["client_id"] == "sandbox-client"
        assert sent["redirect_uri"] == oauth.default_callback_url()
        assert sent["scope"] == "read write"
        assert sent["code_challenge_method"] == "S256"

    def test_state_has_256_random_bits_and_only_its_digest_is_stored(self) -> None:
        credential, user = make_credential(), make_user()

        states = [begin(credential, user)[1]["state"] for _ in range(20)]

        assert len(set(states)) == 20
        assert all(len(base64.urlsafe_b64decode(one + "=")) == 32 for one in states)
        stored = set(AuthorizationRequest.objects.values_list("state_hash", flat=True))
        assert stored == {hashlib.sha256(one.encode()).hexdigest() for one in states}

    def test_challenge_is_the_digest_of_a_verifier_stored_encrypted(self) -> None:
        credential, user = make_credential(), make_user()

        _, sent = begin(credential, user)

        request = AuthorizationRequest.objects.get()
        digest = hashlib.sha256(request.code_verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        assert sent["code_challenge"] == challenge
        assert 43 <= len(request.code_verifier) <= 128
        raw = AuthorizationRequest.objects.values_list("code_verifier", flat=True).get()
        assert request.code_verifier not in str(raw)

    def test_the_browser_is_sent_to_the_address_that_was_checked(self) -> None:
        credential = make_credential(auth_url="HTTPS://BÜCHER.example.:443/ä?ü=1")

        location, _ = begin(credential, make_user())

        assert location.startswith("https://xn--bcher-kva.example/%C3%A4?%C3%BC=1&")

    def test_pkce_can_be_switched_off(self) -> None:
        _, sent = begin(make_credential(uses_pkce=False), make_user())

        assert not {"code_challenge", "code_challenge_method"} & sent.keys()

    def test_request_is_bound_and_lasts_ten_minutes(self) -> None:
        credential, user, now = make_credential(issuer=ISSUER), make_user(), timezone.now()

        begin(credential, user, now=now)

        request = AuthorizationRequest.objects.get()
        assert (request.credential, request.user_id, request.issuer) == (
            credential,
            user.pk,
            ISSUER,
        )
        assert request.session_hash == hashlib.sha256(SESSION.encode()).hexdigest()
        assert request.expires_at == now + timedelta(minutes=10)

    def test_own_query_and_extra_parameters_are_kept_and_may_repeat(self) -> None:
        credential = make_credential(
            auth_url="https://provider.example/authorize?tenant=a%26b&x=",
            authorization_parameters={"prompt": "consent", "acr": ["1", "2"]},
            audience="the-api",
            resource="https://a.example https://b.example",
        )

        url, _ = begin(credential, make_user())

        query = query_of(url)
        assert query["tenant"] == ["a&b"]
        assert query["x"] == [""]
        assert query["prompt"] == ["consent"]
        assert query["acr"] == ["1", "2"]
        assert query["audience"] == ["the-api"]
        assert query["resource"] == ["https://a.example", "https://b.example"]

    def test_extra_parameter_replaces_that_of_the_endpoint(self) -> None:
        credential = make_credential(
            auth_url="https://provider.example/authorize?prompt=login&tenant=a&prompt=none&audience=x",
            authorization_parameters={"prompt": "consent"},
            audience="the-api",
        )

        query = query_of(begin(credential, make_user())[0])

        assert (query["prompt"], query["tenant"]) == (["consent"], ["a"])
        assert query["audience"] == ["the-api"]

    @pytest.mark.once
    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"auth_url": ""}, "Fill in Auth URL"),
            ({"token_url": ""}, "Fill in Access token URL"),
            ({"client_id": ""}, "Fill in Client ID"),
            ({"auth_url": "http://provider.example/authorize"}, "must start with https://"),
            ({"token_url": "http://provider.example/token"}, "must start with https://"),
            ({"auth_url": "javascript:alert(1)"}, "http"),
            ({"auth_url": "https://provider.example/a#b"}, "fragment"),
            ({"auth_url": "https://u:p@provider.example/a"}, "login or password"),
            ({"auth_url": "https://provider.example/a?client_id=x"}, "Remove “client_id”"),
            ({"auth_url": "https://provider.example/a?STATE=x"}, "Remove “STATE”"),
            ({"auth_url": "https://provider.example/a?nonce=x"}, "Remove “nonce”"),
            ({"authorization_parameters": {"state": "x"}}, "“state” cannot be"),
            ({"authorization_parameters": {"redirect_uri": "x"}}, "“redirect_uri” cannot be"),
            ({"authorization_parameters": {"request_uri": "x"}}, "“request_uri” cannot be"),
            ({"authorization_parameters": {"a": {}}}, "must be text"),
            ({"authorization_parameters": {"a": "b\nc"}}, "must be text"),
            ({"authorization_parameters": {"a\tb": "c"}}, "“a b” must be text"),
            ({"authorization_parameters": {"a": 10**40}}, "must be text"),
            ({"authorization_parameters": {"a": "b" * 4096}}, "too long"),
            ({"authorization_parameters": ["a"]}, "names with values"),
            ({"callback_url": "https://elsewhere.example/callback/"}, "lead back to this site"),
            ({"grant_type": "client_credentials"}, "needs no approval"),
            ({"authorization_type": "basic"}, "needs no approval"),
        ],
    )
    def test_settings_that_cannot_work_are_refused_with_a_sentence(
        self, fields: dict[str, Any], words: str
    ) -> None:
        credential = make_credential(**fields)

        with pytest.raises(oauth.AuthorizationError, match=words) as failure:
            begin(credential, make_user())

        assert failure.value.credential == credential
        assert not AuthorizationRequest.objects.exists()

    def test_browser_without_a_session_is_refused(self) -> None:
        with pytest.raises(oauth.AuthorizationError, match="Allow cookies"):
            begin(make_credential(), make_user(), session_key="")

    def test_loopback_provider_may_be_http(self) -> None:
        credential = make_credential(auth_url="http://127.0.0.1:8002/authorize/")

        url, _ = begin(credential, make_user())

        assert url.startswith("http://127.0.0.1:8002/authorize/?")


class TestCallbackUrl:
    def test_it_comes_from_the_settings(self, settings: LazySettings) -> None:
        settings.PUBLIC_URL = "https://hooks.example"

        url = oauth.default_callback_url()

        assert url == "https://hooks.example" + reverse("webhooks:oauth_callback")
        oauth.check_callback_url(url)

    def test_another_public_name_is_allowed(self, settings: LazySettings) -> None:
        settings.PUBLIC_URL = "https://hooks.example"
        settings.WEBHOOKS_PUBLIC_URLS = ["https://second.example"]

        oauth.check_callback_url("https://second.example/integrations/webhooks/oauth/callback/")

    @pytest.mark.once
    @pytest.mark.parametrize(
        "url",
        [
            "https://elsewhere.example/integrations/webhooks/oauth/callback/",
            "https://hooks.example/",
            "https://hooks.example/integrations/webhooks/oauth/callback",
            "https://hooks.example/integrations/webhooks/oauth/callback/?next=x",
            "https://hooks.example/integrations/webhooks/oauth/callback/#x",
            "https://hooks.example/integrations/webhooks/oauth/callback/../",
            "https://HOOKS.example/integrations/webhooks/oauth/callback/",
            "http://hooks.example/integrations/webhooks/oauth/callback/",
            "https://hooks.example@evil.example/integrations/webhooks/oauth/callback/",
            "https://hooks.example.evil.example/integrations/webhooks/oauth/callback/",
            "javascript:alert(1)",
        ],
    )
    def test_every_other_address_is_refused(self, settings: LazySettings, url: str) -> None:
        settings.PUBLIC_URL = "https://hooks.example"

        with pytest.raises(ValueError, match="must lead back to this site"):
            oauth.check_callback_url(url)

    def test_public_site_needs_https(self, settings: LazySettings) -> None:
        settings.PUBLIC_URL = "http://hooks.example"

        with pytest.raises(ValueError, match="must start with https://"):
            oauth.check_callback_url(oauth.default_callback_url())


class TestExchange:
    def test_code_becomes_a_stored_token(self, provider: Provider) -> None:
        credential, user = make_credential(provider), make_user()
        url, sent = begin(credential, user)

        returned = finish(query_of(answer_consent(url)), user)

        row = OAuthToken.objects.get(credential=returned)
        assert returned == credential
        assert (row.state, row.version, row.granted_by) == ("valid", 1, user)
        assert (row.token_type, row.granted_scope) == ("Bearer", "events:write")
        assert (row.last_error, row.warning) == ("", "")
        assert row.has_refresh_token()
        assert row.expires_at is not None
        assert abs(row.expires_at - timezone.now() - timedelta(hours=1)) < timedelta(seconds=20)
        assert oauth.usable_token(credential.pk).access_token == row.access_token
        assert not AuthorizationRequest.objects.exists()
        (request,) = provider.token_requests()
        assert (request.client_authentication, request.status) == ("basic", 200)
        # Both requests carry the same bytes.
        assert ("redirect_uri", sent["redirect_uri"]) in request.parameters

    @pytest.mark.parametrize("method", ["basic_header", "request_body"])
    def test_odd_client_gets_a_token_in_both_ways(self, provider: Provider, method: str) -> None:
        credential = make_credential(
            provider,
            client_id=ODD_CLIENT.client_id,
            client_secret=ODD_CLIENT.client_secret,
            client_authentication=method,
        )
        user = make_user()

        finish(query_of(answer_consent(begin(credential, user)[0])), user)

        expected = "basic" if method == "basic_header" else "body"
        assert provider.token_requests()[0].client_authentication == expected

    def test_public_client_gets_a_token(self, provider: Provider) -> None:
        credential = make_credential(provider, client_id=PUBLIC_CLIENT.client_id, client_secret="")
        user = make_user()

        finish(query_of(answer_consent(begin(credential, user)[0])), user)

        assert OAuthToken.objects.get().state == "valid"

    def test_denial_says_what_to_do(self, provider: Provider) -> None:
        credential, user = make_credential(provider), make_user()
        callback = answer_consent(begin(credential, user)[0], is_approved=False)

        with pytest.raises(oauth.AuthorizationError, match="was not approved") as failure:
            finish(query_of(callback), user)

        assert failure.value.credential == credential
        assert provider.token_requests() == []

    def test_wrong_secret_names_the_fields(self, provider: Provider) -> None:
        credential, user = make_credential(provider, client_secret="wrong"), make_user()
        callback = answer_consent(begin(credential, user)[0])

        with pytest.raises(oauth.AuthorizationError, match="does not accept the client ID"):
            finish(query_of(callback), user)

        assert not OAuthToken.objects.filter(credential=credential, state="valid").exists()

    def test_refused_exchange_leaves_the_token_that_is_there(self, fake: FakeProvider) -> None:
        credential, user, query = started(fake)
        make_token(credential)
        fake.reply(Reply(status=400, body={"error": "invalid_grant"}))

        with pytest.raises(oauth.AuthorizationError, match="authorization code"):
            finish(query, user)

        row = OAuthToken.objects.get()
        assert (row.state, row.version, row.access_token) == ("valid", 1, "an-access-token-0001")

    @pytest.mark.parametrize(
        ("reply", "words"),
        [
            (Reply(status=503), "not working"),
            (Reply(status=429), "slow down"),
            (Reply(body=b"<html>", headers={"Content-Type": "text/html"}), "web page"),
            (Reply(status=404, body=b"no"), "no token endpoint"),
            (Reply(raw=b""), "connection"),
            (Reply(body=b"{"), "ends in the middle"),
            (Reply(status=307, headers={"Location": "https://other.example/"}), "other.example"),
            (Reply(status=400, body={"error": "redirect_uri_mismatch"}), "Register exactly"),
            (Reply(body={"error": "bad_verification_code"}), "authorization code"),
            (Reply(body={"access_token": "a\r\nb"}), "cannot be sent in a header"),
        ],
    )
    def test_every_failure_ends_in_a_sentence_for_the_form(
        self, fake: FakeProvider, reply: Reply, words: str
    ) -> None:
        credential, user, query = started(fake)
        fake.reply(reply)

        with pytest.raises(oauth.AuthorizationError, match=words) as failure:
            finish(query, user)

        assert failure.value.credential == credential
        assert not OAuthToken.objects.exclude(state="none").exists()
        assert len(fake.requests) == 1

    def test_new_grant_ends_what_was_wrong_and_counts_the_version_up(
        self, fake: FakeProvider
    ) -> None:
        credential, user, query = started(fake)
        make_token(
            credential,
            state="needs_reauthorization",
            last_error="The grant ended.",
            version=7,
            refresh_lease="taken",
            refresh_failures=3,
            retry_refresh_at=timezone.now(),
            refresh_token_expires_at=timezone.now(),
        )

        finish(query, user)

        row = OAuthToken.objects.get()
        assert (row.state, row.version, row.last_error) == ("valid", 8, "")
        assert (row.refresh_lease, row.refresh_failures, row.retry_refresh_at) == ("", 0, None)
        assert (row.access_token, row.refresh_token) == ("fresh-token", "fresh-refresh")
        assert row.refresh_token_expires_at is None

    def test_grant_without_a_refresh_token_forgets_the_old_one(self, fake: FakeProvider) -> None:
        credential, user, query = started(fake)
        make_token(credential)
        fake.reply(token())

        finish(query, user)

        assert not OAuthToken.objects.get().has_refresh_token()

    @pytest.mark.parametrize(
        "reported", [{}, {"scopes": []}, {"scopes": [{"n": 1}]}, {"scopes": ""}]
    )
    def test_scope_that_is_not_in_the_response_is_the_one_asked_for(
        self, fake: FakeProvider, reported: dict[str, Any]
    ) -> None:
        _, user, query = started(fake, scope="read write")
        fake.reply(token(**reported))

        finish(query, user)

        assert OAuthToken.objects.get().granted_scope == "read write"

    def test_other_scope_is_stored_with_a_warning(self, fake: FakeProvider) -> None:
        _, user, query = started(fake, scope="read write")
        fake.reply(token(scope="read"))

        finish(query, user)

        row = OAuthToken.objects.get()
        assert (row.state, row.granted_scope) == ("valid", "read")
        assert oauth.sentence(row.warning) == "Not granted of the scopes asked for: write."

    @pytest.mark.parametrize(
        ("answered", "reported", "granted", "missing"),
        [
            # Strava, with commas.
            ("read", {}, "read", "write"),
            ("read,write", {}, "read write", ""),
            # Repeated as requested.
            ("read write", {}, "read write", ""),
            ("", {}, "read write", ""),
            # The token response counts first, even with an empty scope.
            ("read", {"scope": "read write"}, "read write", ""),
            ("read write", {"scope": "write"}, "write", "read"),
            ("read write", {"scope": ""}, "", "read write"),
        ],
    )
    def test_scope_of_the_callback_counts_if_the_token_has_none(
        self,
        fake: FakeProvider,
        answered: str,
        reported: dict[str, str],
        granted: str,
        missing: str,
    ) -> None:
        _, user, query = started(fake, scope="read write")
        fake.reply(token(**reported))

        finish({**query, "scope": [answered]}, user)

        row = OAuthToken.objects.get()
        words = f"Not granted of the scopes asked for: {missing}." if missing else ""
        assert (row.state, row.granted_scope) == ("valid", granted)
        assert oauth.sentence(row.warning) == words
        kept = OAuthExchange.objects.get(kind="token")
        assert kept.result == ("ok_with_warning" if words else "ok")


Attack = Callable[[Credential, Any, Query], tuple[Query, Any, str]]


def attack(change: Callable[[Query], Any]) -> Attack:
    """Return an attack that only changes the query."""

    def apply(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
        query = {name: list(values) for name, values in query.items()}
        changed = change(query)
        return (changed if isinstance(changed, dict) else query), user, SESSION

    return apply


def other_session(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    return query, user, "another-session"


def no_session(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    return query, user, ""


def other_user(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    return query, make_user(), SESSION


def login_csrf(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    """The attacker starts, and the victim's browser is led to the attacker's callback."""
    attacker = make_user()
    _, sent = begin(credential, attacker, session_key="the-attackers-session")
    return {"code": ["attackers-code"], "state": [sent["state"]]}, user, SESSION


def changed_client(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    Credential.objects.filter(pk=credential.pk).update(client_id="another-client")
    return query, user, SESSION


def changed_token_url(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    Credential.objects.filter(pk=credential.pk).update(token_url="https://evil.example/token")
    return query, user, SESSION


def changed(**fields: Any) -> Attack:
    def change(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
        Credential.objects.filter(pk=credential.pk).update(**fields)
        return query, user, SESSION

    return change


def changed_receiver(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    Webhook.objects.filter(own_credential=credential).update(url="https://evil.example/hook")
    return query, user, SESSION


def changed_grant(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    Credential.objects.filter(pk=credential.pk).update(grant_type="client_credentials")
    return query, user, SESSION


def deleted_webhook(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    Credential.objects.filter(pk=credential.pk).update(deleted_at=timezone.now())
    return query, user, SESSION


def expired(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    AuthorizationRequest.objects.update(expires_at=timezone.now())
    return query, user, SESSION


def state_of_the_digest(credential: Credential, user: Any, query: Query) -> tuple[Query, Any, str]:
    """Someone who can read the table still cannot respond: it holds digests only."""
    return {**query, "state": [AuthorizationRequest.objects.get().state_hash]}, user, SESSION


LONG = "x" * 4097
ATTACKS: dict[str, tuple[Attack, str]] = {
    "no state": (attack(lambda q: q.pop("state")), "has no state"),
    "empty state": (attack(lambda q: q.update(state=[""])), "has no state"),
    "foreign state": (attack(lambda q: q.update(state=["made-up"])), "belongs to no"),
    "state in other case": (
        attack(lambda q: q.update(state=[q["state"][0].swapcase()])),
        "belongs to no",
    ),
    "state with a space": (
        attack(lambda q: q.update(state=[q["state"][0] + " "])),
        "belongs to no",
    ),
    "state with a NUL": (
        attack(lambda q: q.update(state=[q["state"][0] + "\0"])),
        "belongs to no",
    ),
    "state as SQL": (attack(lambda q: q.update(state=["' OR 1=1 --"])), "belongs to no"),
    "state of surrogates": (attack(lambda q: q.update(state=["\udcff"])), "belongs to no"),
    "stolen digest as state": (state_of_the_digest, "belongs to no"),
    "state twice": (attack(lambda q: q.update(state=q["state"] * 2)), "“state” more than once"),
    "state and a foreign one": (
        attack(lambda q: q.update(state=[*q["state"], "made-up"])),
        "“state” more than once",
    ),
    "code twice": (attack(lambda q: q.update(code=["a", "b"])), "“code” more than once"),
    "error twice": (attack(lambda q: q.update(error=["a", "b"])), "“error” more than once"),
    "issuer twice": (
        attack(lambda q: q.update(iss=[ISSUER, "https://evil.example"])),
        "“iss” more than once",
    ),
    "unknown parameter twice": (
        attack(lambda q: q.update(session_state=["a", "b"])),
        "“session_state” more than once",
    ),
    "parameter without a value": (attack(lambda q: q.update(code=[])), "“code” more than once"),
    "code with error": (
        attack(lambda q: q.update(error=["access_denied"])),
        "a code and an error at once",
    ),
    "code with an empty error twice": (
        attack(lambda q: q.update(error=["", ""])),
        "“error” more than once",
    ),
    "neither code nor error": (attack(lambda q: q.pop("code")), "no authorization code"),
    "two codes by other names": (
        attack(lambda q: q.update(auth_code=q.pop("code"), oauth_code=["x"])),
        "no authorization code",
    ),
    "code by another name with error": (
        attack(lambda q: q.update(auth_code=q.pop("code"), error=["access_denied"])),
        "a code and an error at once",
    ),
    "code of something else": (
        attack(lambda q: q.update(country_code=q.pop("code"))),
        "no authorization code",
    ),
    "code by another name beside an empty one": (
        attack(lambda q: q.update(auth_code=["x"], code=[""])),
        "no authorization code",
    ),
    "code by another name without state": (
        attack(lambda q: {"auth_code": q["code"]}),
        "has no state",
    ),
    "empty code": (attack(lambda q: q.update(code=[""])), "no authorization code"),
    "code with a line break": (
        attack(lambda q: q.update(code=["a\r\nX-Evil: 1"])),
        "no authorization code",
    ),
    "code that is not ASCII": (attack(lambda q: q.update(code=["ä"])), "no authorization code"),
    "token instead of a code": (
        attack(lambda q: {"access_token": ["T"], "state": q["state"]}),
        "no authorization code",
    ),
    "wrong issuer": (
        attack(lambda q: q.update(iss=["https://evil.example"])),
        "not the provider the browser was sent to",
    ),
    "issuer with a path more": (
        attack(lambda q: q.update(iss=[f"{ISSUER}/"])),
        "not the provider",
    ),
    "issuer in other case": (
        attack(lambda q: q.update(iss=[ISSUER.upper()])),
        "not the provider",
    ),
    "empty issuer": (attack(lambda q: q.update(iss=[""])), "not the provider"),
    "issuer that is no address": (attack(lambda q: q.update(iss=["ä\r\n"])), "not the provider"),
    "other session": (other_session, "begun in another browser"),
    "no session": (no_session, "begun in another browser"),
    "other user": (other_user, "begun by another user"),
    "login CSRF": (login_csrf, "begun by another user"),
    "expired": (expired, "More than 10 minutes"),
    "client changed": (changed_client, "settings were changed"),
    "token URL changed": (changed_token_url, "settings were changed"),
    "refresh URL changed": (changed(refresh_url="https://evil.example/"), "settings were changed"),
    "revocation URL changed": (
        changed(revocation_url="https://evil.example/"),
        "settings were changed",
    ),
    "scope changed": (changed(scope="everything"), "settings were changed"),
    "parameters changed": (
        changed(authorization_parameters={"nonce": "x"}),
        "settings were changed",
    ),
    "receiver changed": (changed_receiver, "settings were changed"),
    "grant changed": (changed_grant, "settings were changed"),
    "webhook deleted": (deleted_webhook, "was deleted"),
    "long code": (attack(lambda q: q.update(code=[LONG])), "too long"),
    "long state": (attack(lambda q: q.update(state=[LONG])), "too long"),
    "long description": (attack(lambda q: q.update(error_description=[LONG])), "too long"),
    "long name": (attack(lambda q: q.update({"n" * 300: ["x"]})), "too long"),
    "many parameters": (
        attack(lambda q: q.update({f"p{n}": ["x"] for n in range(50)})),
        "too long",
    ),
    "nothing at all": (attack(lambda q: {}), "has no state"),
}


class TestAttacks:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_attack_is_refused_and_nothing_is_sent_or_stored(
        self, fake: FakeProvider, name: str
    ) -> None:
        apply, words = ATTACKS[name]
        credential, user, query = started(fake, issuer=ISSUER)
        query, user, session_key = apply(credential, user, query)

        with pytest.raises(oauth.AuthorizationError, match=words) as failure:
            finish(query, user, session_key=session_key)

        assert fake.requests == []
        assert not OAuthToken.objects.exists()
        assert failure.value.message.isprintable()

    def test_answer_is_used_once(self, fake: FakeProvider) -> None:
        _, user, query = started(fake)
        finish(query, user)

        with pytest.raises(oauth.AuthorizationError, match="used already"):
            finish(query, user)

        assert len(fake.requests) == 1

    def test_refused_answer_uses_the_state_up(self, fake: FakeProvider) -> None:
        _, user, query = started(fake)
        with pytest.raises(oauth.AuthorizationError):
            finish({"error": ["access_denied"], "state": query["state"]}, user)

        with pytest.raises(oauth.AuthorizationError, match="used already"):
            finish(query, user)

        assert fake.requests == []

    @pytest.mark.parametrize("thief", [other_session, other_user, no_session])
    def test_stranger_cannot_use_a_state_up(self, fake: FakeProvider, thief: Attack) -> None:
        credential, user, query = started(fake)
        stolen, stranger, session_key = thief(credential, user, query)
        with pytest.raises(oauth.AuthorizationError) as failure:
            finish(stolen, stranger, session_key=session_key)

        # The error does not name the credential: it is not the stranger's.
        assert failure.value.credential is None
        assert finish(query, user) == credential

    def test_state_belongs_to_its_webhook(self, fake: FakeProvider) -> None:
        first, user, query = started(fake)
        second = credential_at(fake, name="Other")
        begin(second, user)

        assert finish(query, user) == first
        assert not OAuthToken.objects.filter(credential=second).exists()

    def test_code_of_another_flow_fails_at_the_verifier(self, provider: Provider) -> None:
        """Code injection: the code belongs to another credential, the state to the attacker."""
        user = make_user()
        victim, mine = make_credential(provider), make_credential(provider)
        stolen = query_of(answer_consent(begin(victim, user)[0]))["code"]
        query = query_of(answer_consent(begin(mine, user)[0]))

        with pytest.raises(oauth.AuthorizationError):
            finish({**query, "code": stolen}, user)

        assert not OAuthToken.objects.filter(state="valid").exists()

    def test_mix_up_between_two_providers_is_refused(self, fake: FakeProvider) -> None:
        """RFC 9700 section 4.4: the evil provider led the browser on to the honest one."""
        user = make_user()
        evil = make_credential(auth_url="https://evil.example/authorize", token_url=fake.token_url)
        _, sent = begin(evil, user)
        query = {"code": ["honest-code"], "state": [sent["state"]], "iss": [ISSUER]}

        with pytest.raises(oauth.AuthorizationError, match="not the provider"):
            finish(query, user)

        assert fake.requests == []

    def test_right_issuer_passes(self, fake: FakeProvider) -> None:
        credential, user, query = started(fake, issuer=ISSUER)

        assert finish({**query, "iss": [ISSUER]}, user) == credential

    @pytest.mark.parametrize("fields", [{}, {"issuer": ISSUER}], ids=["no issuer", "issuer"])
    def test_answer_without_the_promised_issuer_is_refused(
        self, fake: FakeProvider, fields: dict[str, str]
    ) -> None:
        """RFC 9207 section 2.4: error responses carry it as well."""
        for answer in ({}, {"error": ["access_denied"]}):
            credential, user = credential_at(fake, requires_issuer=True, **fields), make_user()
            _, sent = begin(credential, user)
            query = answer or {"code": ["the-code"]}

            with pytest.raises(oauth.AuthorizationError, match="promises to name itself"):
                finish({**query, "state": [sent["state"]]}, user)
            user.delete()

        assert fake.requests == []

    def test_promised_issuer_passes(self, fake: FakeProvider) -> None:
        credential, user, query = started(fake, issuer=ISSUER, requires_issuer=True)

        assert finish({**query, "iss": [ISSUER]}, user) == credential

    def test_issuer_at_home_passes_when_none_was_entered(self, fake: FakeProvider) -> None:
        credential, user, query = started(fake)

        assert finish({**query, "iss": [f"{ISSUER}/tenant/v2.0"]}, user) == credential

    @pytest.mark.parametrize(
        "name", ["auth_code", "authCode", "spapi_oauth_code", "authorization_code", "oauth_code"]
    )
    def test_code_by_another_name_is_exchanged(self, fake: FakeProvider, name: str) -> None:
        credential, user, query = started(fake)
        code = query.pop("code")

        assert finish({**query, name: code, "country_code": ["UA"]}, user) == credential
        assert fake.requests[-1].fields["code"] == code[0]
        kept = OAuthExchange.objects.get(kind="authorization")
        assert f"{name}=…" in kept.response
        assert code[0] not in kept.response

    def test_code_counts_before_other_names(self, fake: FakeProvider) -> None:
        credential, user, query = started(fake)

        assert finish({**query, "auth_code": ["another"]}, user) == credential
        assert fake.requests[-1].fields["code"] == query["code"][0]

    @pytest.mark.parametrize("name", ["code", "auth_code"])
    def test_error_without_a_value_is_absent(self, fake: FakeProvider, name: str) -> None:
        """RFC 6749 section 3.1."""
        credential, user, query = started(fake)
        code, empty = query.pop("code"), {"error": [""], "error_description": [""]}

        assert finish({**query, **empty, name: code}, user) == credential
        assert fake.requests[-1].fields["code"] == code[0]

    def test_other_parameters_do_not_matter(self, fake: FakeProvider) -> None:
        credential, user, query = started(fake)
        more = {"session_state": ["x"], "next": ["https://evil.example"], "scope": ["a"]}

        assert finish({**query, **more}, user) == credential
        assert "evil" not in repr(fake.requests)

    def test_markup_and_line_breaks_of_an_error_stay_one_plain_line(
        self, fake: FakeProvider
    ) -> None:
        credential, user, query = started(fake)
        words = "<img src=x onerror=alert(1)>\r\nSet-Cookie: a=b\x00\u202e" + "y" * 3000
        refused = {"error": ["x<b>\r\n"], "error_description": [words], "state": query["state"]}

        with pytest.raises(oauth.AuthorizationError) as failure:
            finish(refused, user)

        message = failure.value.message
        assert message.isprintable()
        assert len(message) < 800
        assert OAuthExchange.objects.get(credential=credential).message == message

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            ("access_denied", "was not approved"),
            ("user_cancelled_login", "was not approved"),
            ("admin_policy_enforced", "an administrator at the provider"),
            ("invalid_scope", "“events:write”"),
            ("unauthorized_client", "does not allow this client"),
            ("unsupported_response_type", "the grant “authorization_code”"),
            ("redirect_uri_mismatch", "Register exactly this one"),
            ("server_error", "try again later"),
            ("temporarily_unavailable", "try again later"),
            ("interaction_required", "log in or to confirm"),
            ("invalid_request", "Check the addresses"),
            ("made_up", "“made_up”"),
        ],
    )
    def test_error_of_the_provider_says_what_to_change(
        self, fake: FakeProvider, error: str, words: str
    ) -> None:
        credential, user, query = started(fake)

        with pytest.raises(oauth.AuthorizationError, match=words) as failure:
            finish({"error": [error], "state": query["state"]}, user)

        assert failure.value.credential == credential

    @pytest.mark.parametrize(
        ("error", "description", "words"),
        [
            ("unauthorized_client", "AADSTS700016: Application with identifier 'x' was not found",
             "does not accept the client ID"),
            ("OAUTH_APPROVAL_ERROR_GENERIC", "An unexpected error has occurred. Please try again.",
             "try again later"),
            ("Access Denied", "You have made too many requests", "try again later"),
            ("unauthorized_client", "Standard flow is disabled for the client.",
             "does not allow this client"),
        ],
    )  # fmt: skip
    def test_description_says_what_a_general_error_means(
        self, fake: FakeProvider, error: str, description: str, words: str
    ) -> None:
        _, user, query = started(fake)
        refused = {"error": [error], "error_description": [description], "state": query["state"]}

        with pytest.raises(oauth.AuthorizationError, match=words):
            finish(refused, user)

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            ("access_denied", "access_denied"),
            ("Invalid_Scope", "Invalid_Scope"),
            # Anyone can send such a response, with any words.
            ("Call 555 0100 and read out your password", ""),
            ("made_up", ""),
        ],
    )
    @pytest.mark.parametrize("state", [{}, {"state": [""]}])
    def test_known_error_without_a_state_is_named(
        self, fake: FakeProvider, error: str, shown: str, state: dict[str, list[str]]
    ) -> None:
        _, user, _query = started(fake)
        answer = {"error": [error], "error_description": ["Call 555 0100"], **state}

        with pytest.raises(oauth.AuthorizationError, match="has no state") as failure:
            finish(answer, user)

        assert str(failure.value).endswith(f"The provider says: “{shown}”") is bool(shown)
        assert "555" not in str(failure.value)
        # Without a state no request is used up, so the user who started can still finish.
        assert AuthorizationRequest.objects.count() == 1

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            ({"error_code": "1349048", "error_message": "Can't load URL"}, "Can't load URL"),
            ({"error": "access_denied", "error_reason": "user_denied"}, "user_denied"),
            ({"error": "server_error", "error_message": "Try later"}, "Try later"),
            ({"errCode": "10006", "error_message": "Wrong redirect"}, "Wrong redirect"),
            ({"oauth_error": "access_denied"}, "access_denied"),
            ({"err": "denied"}, "denied"),
            # Neither an error nor a code.
            ({"error_message": "Something broke"}, "Something broke"),
            ({"error": "", "error_description": "Something broke"}, "Something broke"),
        ],
    )
    def test_error_under_names_of_providers_is_reported(
        self, fake: FakeProvider, answer: dict[str, str], words: str
    ) -> None:
        _, user, query = started(fake)
        values = {name: [value] for name, value in answer.items()}

        with pytest.raises(oauth.AuthorizationError, match=f"says: “{words}”"):
            finish({**values, "state": query["state"]}, user)

    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("The+user+cancelled", "The user cancelled"),
            ("The%20user%20cancelled", "The user cancelled"),
            ("Scope &quot;a&quot; is unknown", 'Scope "a" is unknown'),
            ("%3Cb%3E%0D%0Acancelled", "<b> cancelled"),
            ("1 + 1 is 50%25 of 4", "1 + 1 is 50%25 of 4"),
            ("Скасовано", "Скасовано"),
            ("Ungültig%FC", "Ungültig\ufffd"),
            ("secret%3Da-secret-0123456789", "secret=…6789"),
        ],
    )
    def test_description_that_was_encoded_twice_is_readable(
        self, fake: FakeProvider, written: str, meant: str
    ) -> None:
        """LinkedIn writes "The+user+cancelled+LinkedIn+login"."""
        _, user, query = started(fake, client_secret="a-secret-0123456789")
        refused = {"error": ["access_denied"], "error_description": [written]}

        with pytest.raises(oauth.AuthorizationError) as failure:
            finish({**refused, "state": query["state"]}, user)

        assert str(failure.value).endswith(f"says: “{meant}”")

    def test_error_beside_an_empty_code_is_reported(self, fake: FakeProvider) -> None:
        _, user, query = started(fake)
        denied = {"code": [""], "error": ["access_denied"], "state": query["state"]}

        with pytest.raises(oauth.AuthorizationError, match="was not approved"):
            finish(denied, user)

    def test_forgotten_requests_are_deleted(self) -> None:
        credential, user, now = make_credential(), make_user(), timezone.now()
        begin(credential, user, now=now - timedelta(hours=2))
        # Started by a web server whose clock is half an hour behind the database.
        begin(credential, user, now=now - timedelta(minutes=30))

        delete_old_rows(now)
        assert AuthorizationRequest.objects.count() == 1


def test_callback_is_not_at_the_provider(fake: FakeProvider) -> None:
    """The redirect URI comes from the settings, whatever host the request was sent to."""
    _, sent = begin(credential_at(fake), make_user())

    assert urlsplit(sent["redirect_uri"]).netloc != urlsplit(fake.url).netloc
