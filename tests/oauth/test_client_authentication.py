"""Client authentication other than the client secret, and grants that need no browser here.

The provider of these tests checks each JWT with a library, as the RFCs require.
"""

import base64
import json
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone
from joserfc import jwk, jwt

from tests.network.test_sockets import Certificates, certificates  # noqa: F401
from tests.oauth_fakes import FakeProvider, Reply, token
from tests.oauth_rows import SESSION, make_credential, make_token, make_user, token_after_refusal
from webhooks import oauth
from webhooks.models import (
    AuthorizationRequest,
    Credential,
    HoldReason,
    OAuthExchange,
    OAuthToken,
)
from webhooks.oauth import client, token_requests
from webhooks.security import pem

pytestmark = [pytest.mark.django_db, pytest.mark.once]
EC_KEY = jwk.ECKey.generate_key("P-256").as_pem(private=True).decode()
SECRET = "a-client-secret-of-32-characters"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@cache
def rsa_key() -> str:
    # Lazily: at import it would cost each worker 0.6 s of CPU time.
    return oauth.make_key()


@pytest.fixture
def fake(fake: FakeProvider) -> FakeProvider:
    fake.reply(token())
    return fake


def credential_at(fake: FakeProvider, **fields: Any) -> Credential:
    values = {"token_url": fake.token_url, "client_id": "me", "client_secret": SECRET, **fields}
    return make_credential(grant_type=values.pop("grant_type", "client_credentials"), **values)


def fetched(credential: Credential) -> str:
    return oauth.usable_token(credential.pk).access_token


def claims_of(text: str, keys: Any, algorithm: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a JWT that is valid now and has all required claims."""
    read = jwt.decode(text, keys, algorithms=[algorithm])
    jwt.JWTClaimsRegistry(
        iss={"essential": True}, aud={"essential": True}, exp={"essential": True},
        iat={"essential": True}, jti={"essential": True},
    ).validate(read.claims)  # fmt: skip
    assert read.claims["exp"] - time.time() <= 300
    return read.header, read.claims


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(rsa_key, "RS256"), (lambda: EC_KEY, "ES256")],
    ids=["key0-RS256", "key1-ES256"],
)
@pytest.mark.slow
def test_a_private_key_signs_and_its_public_half_checks(
    fake: FakeProvider, key: Callable[[], str], algorithm: str
) -> None:
    credential = credential_at(fake, client_authentication="private_key_jwt", client_key=key())

    assert fetched(credential) == "fresh-token"

    asked = fake.requests[0].fields
    assert "authorization" not in fake.requests[0].headers
    assert "client_secret" not in asked
    assert (asked["client_assertion_type"], asked["client_id"]) == (ASSERTION, "me")
    published = oauth.public_keys(credential)
    header, claims = claims_of(
        asked["client_assertion"], jwk.KeySet.import_key_set(published), algorithm
    )
    assert header["kid"] == published["keys"][0]["kid"]
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("me", "me", fake.token_url)
    # Nothing private is published, and no two requests carry the same JWT.
    assert not {"d", "p", "q", "k"} & published["keys"][0].keys()
    token_after_refusal(credential, 1)
    assert fake.requests[1].fields["client_assertion"] != asked["client_assertion"]


def test_a_client_secret_signs(fake: FakeProvider) -> None:
    credential = credential_at(fake, client_authentication="client_secret_jwt")

    assert fetched(credential) == "fresh-token"

    asked = fake.requests[0]
    key = jwk.OctKey.import_key(SECRET)
    _header, claims = claims_of(asked.fields["client_assertion"], key, "HS256")
    assert claims["aud"] == fake.token_url
    assert SECRET.encode() not in asked.body


def test_raw_basic_sends_both_halves_as_they_are(fake: FakeProvider) -> None:
    odd = "s3cret+with/and=%20"
    credential = credential_at(fake, client_authentication="raw_basic", client_secret=odd)

    fetched(credential)

    sent = fake.requests[0].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == f"me:{odd}"


def test_token_requests_carry_extra_headers_whose_values_no_log_shows(fake: FakeProvider) -> None:
    secret = "subscription-key-0123456789"
    credential = credential_at(
        fake, token_headers=f"X-Tenant: 42\nX-Api-Key: {secret}\nx-tenant: 43"
    )

    fetched(credential)

    headers = fake.requests[0].headers
    assert (headers["x-tenant"], headers["x-api-key"]) == ("42, 43", secret)
    assert "authorization" in headers
    assert secret not in OAuthExchange.objects.get().request


@pytest.mark.parametrize(
    "line", ["no header", "Authorization: Basic x", "Host: example.com", "X-Y: ж", ": x"]
)
def test_a_line_that_is_no_extra_header_is_refused(line: str) -> None:
    with pytest.raises(oauth.MisconfiguredError):
        oauth.check_headers(line)


def test_a_service_account_gets_a_token_for_its_own_jwt(fake: FakeProvider) -> None:
    credential = credential_at(
        fake,
        grant_type="jwt_bearer",
        client_id="robot@project.iam.gserviceaccount.com",
        client_secret="",
        client_key=rsa_key(),
        scope="read write",
        assertion_claims={"sub": "person@example.com", "aud": "https://other", "kid": "k-1"},
    )

    assert fetched(credential) == "fresh-token"

    asked = fake.requests[0].fields
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    keys = jwk.RSAKey.import_key(oauth.public_pem(credential))
    header, claims = claims_of(asked["assertion"], keys, "RS256")
    assert header["kid"] == "k-1"
    assert claims["iss"] == "robot@project.iam.gserviceaccount.com"
    assert (claims["sub"], claims["aud"]) == ("person@example.com", "https://other")
    assert claims["scope"] == asked["scope"] == "read write"
    assert "client_assertion" not in asked


def test_a_provider_finds_the_key_that_the_header_of_the_jwt_names(fake: FakeProvider) -> None:
    """It fetches the keys, and picks one by its ID and algorithm (RFC 7515 section 4.1.4)."""
    credential = credential_at(
        fake,
        client_authentication="private_key_jwt",
        client_key=rsa_key(),
        assertion_claims={"kid": "k-1", "alg": "PS256"},
    )

    fetched(credential)

    (found,) = oauth.public_keys(credential)["keys"]
    assert (found["kid"], found["alg"]) == ("k-1", "PS256")
    assertion = fake.requests[0].fields["client_assertion"]
    header, _claims = claims_of(assertion, jwk.RSAKey.import_key(found), found["alg"])
    assert (header["kid"], header["alg"]) == ("k-1", "PS256")


def test_a_client_with_a_certificate_names_itself_beside_its_jwt(fake: FakeProvider) -> None:
    """RFC 8705 section 2: the certificate is looked up by the client ID."""
    credential = credential_at(
        fake,
        grant_type="jwt_bearer",
        client_authentication="tls_client_auth",
        client_key=rsa_key(),
        client_certificate="P",
    )

    request = token_requests.machine_request(credential)

    assert dict(request.pairs)["client_id"] == credential.client_id


def test_a_jwt_that_is_refused_says_what_to_look_at(fake: FakeProvider) -> None:
    fake.reply(Reply(status=400, body={"error": "invalid_grant"}))
    credential = credential_at(
        fake, grant_type="jwt_bearer", client_secret="", client_key=rsa_key()
    )

    with pytest.raises(oauth.TokenUnavailableError, match="the claims “sub” and “aud”"):
        oauth.usable_token(credential.pk)


def test_a_key_is_read_from_google_json_and_certificates_are_named(
    fake: FakeProvider,
    certificates: Certificates,  # noqa: F811
) -> None:
    both = (certificates.folder / "good.pem").read_text()
    credential = credential_at(fake, client_authentication="private_key_jwt", client_key=both)
    fetched(credential)
    header = jwt.decode(
        fake.requests[0].fields["client_assertion"],
        jwk.ECKey.import_key(oauth.public_pem(credential)),
        algorithms=["ES256"],
    ).header

    assert header["x5t"]
    assert header["x5t#S256"]
    assert pem.private_key(json.dumps({"type": "service_account", "private_key": rsa_key()}))
    assert pem.private_key("\ufeff" + json.dumps({"private_key": rsa_key()}))
    for text in ("x", "{}", "{", '{"a":' * 5000, rsa_key()[:200]):
        with pytest.raises(pem.PEMError, match="no_key"):
            pem.private_key(text)
    with pytest.raises(pem.PEMError, match="other_key"):
        pem.check_certificate(EC_KEY + both[both.index("-----BEGIN CERT") :])


@pytest.mark.parametrize("curve", [ec.SECP256K1(), ec.SECP224R1(), ec.BrainpoolP256R1()])
def test_key_on_a_curve_without_an_algorithm_is_refused(
    fake: FakeProvider, curve: ec.EllipticCurve
) -> None:
    text = (
        ec.generate_private_key(curve)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )
    credential = credential_at(fake, client_authentication="private_key_jwt", client_key=text)

    with pytest.raises(pem.PEMError, match="other_curve"):
        pem.private_key(text)
    with pytest.raises(oauth.TokenUnavailableError) as failure:
        oauth.usable_token(credential.pk)

    assert failure.value.hold_reason == HoldReason.MISCONFIGURED
    assert OAuthToken.objects.get().refresh_lease == ""


def test_secrets_of_every_kind_stay_with_the_origin_they_were_entered_for(
    fake: FakeProvider,
) -> None:
    elsewhere = "http://127.0.0.1:9/token"
    for fields in (
        {"client_authentication": "client_secret_jwt"},
        {"client_authentication": "private_key_jwt", "client_key": rsa_key()},
        {"grant_type": "jwt_bearer", "client_secret": "", "client_key": rsa_key()},
        {"client_secret": "", "token_headers": "X-Api-Key: secret"},
        {"client_authentication": "raw_basic"},
    ):
        credential = credential_at(fake, **fields)
        Credential.objects.filter(pk=credential.pk).update(token_url=elsewhere)

        with pytest.raises(oauth.TokenUnavailableError, match="entered for another address"):
            oauth.usable_token(credential.pk)
    assert not fake.requests


class TestDeviceCode:
    CODES = {
        "device_code": "the-device-code-0123456789abcdef",
        "user_code": "WDJB-MJHT",
        "verification_uri": "https://provider.example/device",
        "expires_in": 600,
        "interval": 5,
    }

    def begun(self, fake: FakeProvider, **fields: Any) -> tuple[Credential, Any, str]:
        fake.reply(Reply(body={**self.CODES, **fields}))
        credential = credential_at(
            fake, grant_type="device_code", auth_url=f"{fake.url}/device", scope="read"
        )
        user = make_user()
        state = oauth.begin_device_authorization(credential, user=user, session_key=SESSION)
        return credential, user, state

    def test_a_person_approves_and_the_token_is_stored(self, fake: FakeProvider) -> None:
        credential, user, state = self.begun(fake)
        pending = Reply(status=400, body={"error": "authorization_pending"})
        slow = Reply(status=400, body={"error": "slow_down"})
        fake.reply(pending, slow, token(refresh_token="r", expires_in=60))
        who = {"user": user, "session_key": SESSION}
        shown = oauth.pending_device(state, **who)
        assert (shown.user_code, shown.redirect_uri) == (
            "WDJB-MJHT",
            self.CODES["verification_uri"],
        )

        start = timezone.now()
        # The provider is not asked before its interval is over, and after slow_down 5 s later.
        asked_at = [0, 1, 6, 11, 17]
        answers = [
            oauth.poll_device(state, **who, now=start + timedelta(seconds=second))
            for second in asked_at
        ]

        assert answers == [None, None, None, None, credential]
        first, *polls = fake.requests
        assert (first.path, first.fields["scope"]) == ("/device", "read")
        assert len(polls) == 3
        grant = "urn:ietf:params:oauth:grant-type:device_code"
        assert {one.fields["grant_type"] for one in polls} == {grant}
        assert polls[0].fields["device_code"] == self.CODES["device_code"]
        row = OAuthToken.objects.get(credential=credential)
        assert (row.access_token, row.refresh_token) == ("fresh-token", "r")
        assert row.granted_by == user
        assert not AuthorizationRequest.objects.exists()
        logged = "".join(f"{one.request}{one.response}" for one in OAuthExchange.objects.all())
        assert self.CODES["device_code"] not in logged

    def test_each_parameter_is_sent_once_with_what_the_token_is_for(
        self, fake: FakeProvider
    ) -> None:
        fake.reply(Reply(body=self.CODES))
        credential = credential_at(
            fake,
            grant_type="device_code",
            auth_url=f"{fake.url}/device",
            client_secret="",
            scope="",
            audience="the-api",
        )

        oauth.begin_device_authorization(credential, user=make_user(), session_key=SESSION)

        assert sorted(fake.requests[0].form) == [("audience", "the-api"), ("client_id", "me")]

    def test_page_may_have_googles_name(self, fake: FakeProvider) -> None:
        page = "https://www.google.com/device"

        self.begun(fake, verification_uri=None, verification_url=page)

        assert AuthorizationRequest.objects.get().redirect_uri == page

    @pytest.mark.parametrize(
        "reply",
        [
            Reply(body=b"<html>Log in</html>"),
            Reply(body=b"[]"),
            Reply(status=404),
            Reply(status=302, headers={"Location": "https://provider.example/login"}),
            Reply(),
        ],
        ids=["page", "list", "missing", "redirect", "empty"],
    )
    def test_wrong_answer_is_one_of_auth_url(self, fake: FakeProvider, reply: Reply) -> None:
        fake.reply(reply)
        credential = credential_at(fake, grant_type="device_code", auth_url=f"{fake.url}/device")

        with pytest.raises(oauth.AuthorizationError, match=r"^Auth URL gave no device code"):
            oauth.begin_device_authorization(credential, user=make_user(), session_key=SESSION)

    @pytest.mark.parametrize("wrong", [{"device_code": "a\ud800b"}, {"user_code": " "}])
    def test_code_that_cannot_be_sent_or_entered_is_none(
        self, fake: FakeProvider, wrong: dict[str, str]
    ) -> None:
        fake.reply(Reply(body={**self.CODES, **wrong}))
        credential = credential_at(fake, grant_type="device_code", auth_url=f"{fake.url}/device")

        with pytest.raises(oauth.AuthorizationError, match=r"^Auth URL gave no device code"):
            oauth.begin_device_authorization(credential, user=make_user(), session_key=SESSION)

    @pytest.mark.parametrize("status", [200, 400])
    @pytest.mark.parametrize(
        ("error", "sentence"),
        [
            ("device_flow_disabled", "refused the request with “device_flow_disabled”"),
            ("unauthorized_client", "the grant “urn:ietf:params:oauth:grant-type:device_code”"),
            ("invalid_scope", "does not know or allow the scope “read”"),
            ("invalid_client", "does not accept the client ID"),
        ],
    )
    def test_a_refusal_says_why_whatever_its_status(
        self, fake: FakeProvider, error: str, sentence: str, status: int
    ) -> None:
        fake.reply(Reply(status=status, body={"error": error, "error_description": "Not here"}))
        credential = credential_at(
            fake, grant_type="device_code", auth_url=f"{fake.url}/device", scope="read"
        )

        with pytest.raises(oauth.AuthorizationError) as failure:
            oauth.begin_device_authorization(credential, user=make_user(), session_key=SESSION)

        assert sentence in str(failure.value)
        assert str(failure.value).endswith("The provider says: “Not here”")
        assert str(failure.value) == oauth.sentence(OAuthExchange.objects.get().message)

    def test_a_refusal_in_words_is_shown(self, fake: FakeProvider) -> None:
        fake.reply(Reply(status=402, body={"message": "Your plan has no devices"}))
        credential = credential_at(fake, grant_type="device_code", auth_url=f"{fake.url}/device")

        with pytest.raises(oauth.AuthorizationError, match="Your plan has no devices"):
            oauth.begin_device_authorization(credential, user=make_user(), session_key=SESSION)

    @pytest.mark.parametrize(
        ("fields", "seconds"),
        [
            ({}, 600),
            ({"expires_in": "600"}, 600),
            ({"expires_in": -1}, 1800),
            ({"expires_in": None}, 1800),
            ({"expires_in": 10**9}, 1800),
            ({"verification_uri": "https://provider.example/#/device"}, 600),
        ],
        ids=str,
    )
    def test_odd_answer_is_taken(
        self, fake: FakeProvider, fields: dict[str, Any], seconds: int
    ) -> None:
        self.begun(fake, **fields)

        pending = AuthorizationRequest.objects.get()
        life = (pending.expires_at - pending.poll_at).total_seconds()
        assert life == seconds
        assert pending.redirect_uri == {**self.CODES, **fields}["verification_uri"]

    @pytest.mark.parametrize(
        ("error", "interval"),
        [
            ("AUTHORIZATION_PENDING", 5),
            ("authorization-pending", 5),
            ("authorizationPending", 5),
            ("Slow_Down", 10),
        ],
    )
    def test_the_provider_is_waited_for_in_any_spelling(
        self, fake: FakeProvider, error: str, interval: int
    ) -> None:
        _credential, user, state = self.begun(fake)
        fake.reply(Reply(status=400, body={"error": error}))

        assert oauth.poll_device(state, user=user, session_key=SESSION) is None

        assert AuthorizationRequest.objects.get().poll_seconds == interval

    @pytest.mark.parametrize(
        ("page", "address"),
        [
            (" https://provider.example/device ", "https://provider.example/device"),
            ("provider.example/device", "https://provider.example/device"),
            ("www.provider.example", "https://www.provider.example"),
            ("/activate?from=here", "{url}/activate?from=here"),
        ],
    )
    def test_page_may_be_written_as_people_do(
        self, fake: FakeProvider, page: str, address: str
    ) -> None:
        self.begun(fake, verification_uri=page)

        found = AuthorizationRequest.objects.get().redirect_uri
        assert found == address.format(url=fake.url)

    def test_answer_may_be_written_in_camel_case_and_its_code_as_a_number(
        self, fake: FakeProvider
    ) -> None:
        codes = {"deviceCode": "the-code", "userCode": 123456, "expiresIn": 60, "interval": 7}
        page = {"verificationUri": "https://provider.example/d"}
        fake.reply(Reply(body={**codes, **page}))
        credential = credential_at(fake, grant_type="device_code", auth_url=f"{fake.url}/device")

        oauth.begin_device_authorization(credential, user=make_user(), session_key=SESSION)

        found = AuthorizationRequest.objects.get()
        assert (found.user_code, found.redirect_uri) == ("123456", "https://provider.example/d")
        assert (found.code_verifier, found.poll_seconds) == ("the-code", 7)
        assert (found.expires_at - found.poll_at).total_seconds() == 60

    def test_limit_of_all_requests_slows_down_too(self, fake: FakeProvider) -> None:
        _credential, user, state = self.begun(fake)
        busy = Reply(status=429, body={"error": "slow_down"}, headers={"Retry-After": "40"})
        fake.reply(busy)
        now = timezone.now()

        assert oauth.poll_device(state, user=user, session_key=SESSION, now=now) is None

        found = AuthorizationRequest.objects.get()
        assert (found.poll_seconds, found.poll_at) == (10, now + timedelta(seconds=40))

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (503, {"error": "server_error"}),
            (400, {"error": "authorization_pending"}),
            # Twitch.
            (400, {"status": 400, "message": "authorization_pending"}),
        ],
    )
    def test_time_that_a_provider_asks_for_is_kept_to(
        self, fake: FakeProvider, status: int, body: dict[str, Any]
    ) -> None:
        _credential, user, state = self.begun(fake)
        fake.reply(Reply(status=status, body=body, headers={"Retry-After": "40"}))
        now = timezone.now()

        assert oauth.poll_device(state, user=user, session_key=SESSION, now=now) is None

        found = AuthorizationRequest.objects.get()
        assert (found.poll_seconds, found.poll_at) == (5, now + timedelta(seconds=40))

    def test_code_is_asked_for_once_more_before_it_expires(self, fake: FakeProvider) -> None:
        _credential, user, state = self.begun(fake, expires_in=900)
        busy = Reply(status=503, body={"error": "busy"}, headers={"Retry-After": "3600"})
        fake.reply(busy)

        assert oauth.poll_device(state, user=user, session_key=SESSION) is None

        found = AuthorizationRequest.objects.get()
        assert found.poll_at == found.expires_at - timedelta(seconds=10)

    @pytest.mark.parametrize(
        ("interval", "seconds"), [(120, 120), (5.9, 6), (0.1, 1), (5000, 225), (900, 225)]
    )
    def test_interval_is_the_least_that_is_waited(
        self, fake: FakeProvider, interval: float, seconds: int
    ) -> None:
        self.begun(fake, interval=interval, expires_in=900)

        assert AuthorizationRequest.objects.get().poll_seconds == seconds

    @pytest.mark.parametrize(
        "body",
        [
            {"error": "expired_token"},
            {"error": "code_expired"},
            {"error": "invalid_grant", "error_description": "The device code has expired"},
        ],
        ids=str,
    )
    def test_code_that_has_expired_at_the_provider_is_reported_as_one(
        self, fake: FakeProvider, body: dict[str, Any]
    ) -> None:
        _credential, user, state = self.begun(fake)
        fake.reply(Reply(status=400, body=body))

        with pytest.raises(oauth.AuthorizationError, match="The device code expired before"):
            oauth.poll_device(state, user=user, session_key=SESSION)

    def test_declining_is_no_mistake_of_the_settings(self, fake: FakeProvider) -> None:
        _credential, user, state = self.begun(fake)
        # Entra ID.
        fake.reply(Reply(status=400, body={"error": "authorization_declined"}))

        with pytest.raises(oauth.AuthorizationError, match="The access was not approved"):
            oauth.poll_device(state, user=user, session_key=SESSION)

    @pytest.mark.parametrize("error", ["access_denied", "expired_token"])
    def test_a_refusal_ends_it(self, fake: FakeProvider, error: str) -> None:
        _credential, user, state = self.begun(fake)
        fake.reply(Reply(status=400, body={"error": error}))

        with pytest.raises(oauth.AuthorizationError):
            oauth.poll_device(state, user=user, session_key=SESSION)
        with pytest.raises(oauth.AuthorizationError, match="used already") as used:
            oauth.poll_device(state, user=user, session_key=SESSION)
        # The provider sets how long a device code lives.
        assert "minutes" not in str(used.value)

    def test_code_that_has_expired_is_reported_as_one(self, fake: FakeProvider) -> None:
        _credential, user, state = self.begun(fake, expires_in=1800)
        who = {"user": user, "session_key": SESSION}
        later = timezone.now() + timedelta(minutes=29)
        assert oauth.pending_device(state, **who, now=later).user_code == "WDJB-MJHT"

        with pytest.raises(oauth.AuthorizationError, match="device code expired") as late:
            oauth.poll_device(state, **who, now=later + timedelta(minutes=2))

        assert "10 minutes" not in str(late.value)

    def test_it_is_bound_to_person_session_and_settings(self, fake: FakeProvider) -> None:
        credential, user, state = self.begun(fake)
        fake.reply(token())

        with pytest.raises(oauth.AuthorizationError, match="another user"):
            oauth.poll_device(state, user=make_user(), session_key=SESSION)
        with pytest.raises(oauth.AuthorizationError, match="another browser"):
            oauth.poll_device(state, user=user, session_key="another")
        Credential.objects.filter(pk=credential.pk).update(client_id="other")
        with pytest.raises(oauth.AuthorizationError, match="settings were changed"):
            oauth.poll_device(state, user=user, session_key=SESSION)
        assert len(fake.requests) == 1

    @pytest.mark.parametrize(
        "wrong",
        [{"device_code": None}, {"user_code": {}}, {"verification_uri": "javascript:alert(1)"}],
    )
    def test_an_answer_without_a_code_says_which_address_to_look_at(
        self, fake: FakeProvider, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(oauth.AuthorizationError, match="Auth URL"):
            self.begun(fake, **wrong)


class TestPastedRefreshToken:
    def test_it_is_used_at_once_in_place_of_what_was_there(self, fake: FakeProvider) -> None:
        fake.reply(token(refresh_token="next", expires_in=60))
        credential, user = credential_at(fake, grant_type="authorization_code"), make_user()
        make_token(credential)

        oauth.store_refresh_token(credential, "pasted-token", user=user)

        assert fake.requests[0].fields["refresh_token"] == "pasted-token"
        row = OAuthToken.objects.get()
        assert (row.access_token, row.refresh_token) == ("fresh-token", "next")
        assert (row.granted_by, row.state) == (user, "valid")

    def test_one_that_is_refused_waits_for_a_person(self, fake: FakeProvider) -> None:
        fake.reply(Reply(status=400, body={"error": "invalid_grant"}))
        credential = credential_at(fake, grant_type="authorization_code")

        with pytest.raises(oauth.TokenUnavailableError):
            oauth.store_refresh_token(credential, "dead", user=make_user())

        assert OAuthToken.objects.get().state == "needs_reauthorization"

    def test_one_that_meets_an_outage_is_used_once_that_is_over(self, fake: FakeProvider) -> None:
        fake.reply(Reply(status=503))
        credential = credential_at(fake, grant_type="authorization_code")

        with pytest.raises(oauth.TokenUnavailableError):
            oauth.store_refresh_token(credential, "pasted-token", user=make_user())

        assert OAuthToken.objects.get().state == "expiring"
        fake.reply(token())
        assert oauth.refresh_expiring(now=timezone.now() + timedelta(minutes=1)) == 1
        assert OAuthToken.objects.get().access_token == "fresh-token"


def test_revocation_authenticates_in_the_same_way(fake: FakeProvider) -> None:
    credential = credential_at(
        fake,
        grant_type="authorization_code",
        revocation_url=f"{fake.url}/revoke",
        client_authentication="private_key_jwt",
        client_key=rsa_key(),
        token_headers="X-Tenant: 42",
    )
    make_token(credential, access_token="")

    assert oauth.clear_token(credential)

    (asked,) = fake.requests
    assert asked.headers["x-tenant"] == "42"
    assert asked.fields["client_assertion_type"] == ASSERTION


def test_a_request_knows_its_certificate(fake: FakeProvider) -> None:
    credential = credential_at(
        fake, client_authentication="tls_client_auth", client_certificate="P"
    )

    request = token_requests.machine_request(credential)

    assert request.certificate == "P"
    assert "Authorization" not in request.headers
    assert dict(request.pairs)["client_id"] == "me"
    assert client.timeout_seconds(request) == client.TOTAL_SECONDS
