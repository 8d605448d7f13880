"""The sandbox itself has to be right, because other tests rely on it."""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote_plus, urlencode, urlsplit

import pytest
import requests
from standardwebhooks import Webhook

from tests.sandbox import (
    AUTHORIZATION_CLIENT,
    MACHINE_CLIENT,
    ODD_CLIENT,
    PUBLIC_CLIENT,
    Provider,
    Receiver,
    answer_consent,
    running_provider,
    running_receiver,
)

# Nothing listens there: the test browser stops before requesting it.
CALLBACK = "http://127.0.0.1:9/integrations/webhooks/oauth/callback/"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running_provider([CALLBACK]) as provider:
        yield provider


@pytest.fixture(scope="module")
def receiver(provider: Provider) -> Iterator[Receiver]:
    with running_receiver(provider=provider, secrets=[SECRET]) as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def _clean(provider: Provider, receiver: Receiver) -> None:
    receiver.clear()
    provider.clear_fault()
    provider.clear_requests()
    provider.set_token_seconds(3600)


def send(method: str, url: str, **options: object) -> requests.Response:
    options.setdefault("timeout", 10)
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, allow_redirects=False, **options)


def authorization_url(provider: Provider, client_id: str = "sandbox-client", **more: str) -> str:
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "scope": "events:write offline_access",
        "state": "the-state",
        **more,
    }
    return f"{provider.auth_url}?{urlencode(query)}"


def basic(client_id: str, client_secret: str) -> dict[str, str]:
    credentials = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def get_token(provider: Provider, **more: str) -> dict[str, str]:
    code = answer(answer_consent(authorization_url(provider)))["code"]
    body = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        **more,
    }
    response = send("POST", provider.token_url, data=body, headers=basic(*AUTHORIZATION_CLIENT))
    assert response.status_code == 200, response.text
    return response.json()


def refresh(provider: Provider, refresh_token: str) -> requests.Response:
    body = {"grant_type": "refresh_token", "refresh_token": refresh_token}
    return send("POST", provider.token_url, data=body, headers=basic(*AUTHORIZATION_CLIENT))


def answer(callback_url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(callback_url).query).items()}


def bearer(token: dict[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {token['access_token']}"}


class TestAuthorization:
    def test_code_with_pkce_gives_a_token_the_receiver_takes(
        self, provider: Provider, receiver: Receiver
    ) -> None:
        verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        url = authorization_url(provider, code_challenge=challenge, code_challenge_method="S256")
        parameters = answer(answer_consent(url))
        assert parameters["state"] == "the-state"
        assert parameters["iss"] == provider.issuer
        body = {
            "grant_type": "authorization_code",
            "code": parameters["code"],
            "redirect_uri": CALLBACK,
            "client_id": AUTHORIZATION_CLIENT.client_id,
            "client_secret": AUTHORIZATION_CLIENT.client_secret,
        }

        wrong = send("POST", provider.token_url, data={**body, "code_verifier": "x" * 43})
        right = send("POST", provider.token_url, data={**body, "code_verifier": verifier})

        assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")
        assert right.status_code == 200
        assert right.json()["token_type"] == "Bearer"
        assert right.json()["scope"] == "events:write offline_access"
        sent = send("POST", f"{receiver.url}/bearer/x", headers=bearer(right.json()))
        assert sent.status_code == 200
        methods = [one.client_authentication for one in provider.token_requests()]
        assert methods == ["body", "body"]

    def test_denial_comes_back_with_state_and_issuer(self, provider: Provider) -> None:
        parameters = answer(answer_consent(authorization_url(provider), is_approved=False))

        assert parameters["error"] == "access_denied"
        assert parameters["state"] == "the-state"
        assert parameters["iss"] == provider.issuer

    def test_unknown_redirect_uri_stays_at_the_provider(self, provider: Provider) -> None:
        url = authorization_url(provider, redirect_uri="http://127.0.0.1:9/elsewhere/")

        with pytest.raises(ValueError, match="Mismatching redirect URI"):
            answer_consent(url)

    def test_code_is_used_once(self, provider: Provider) -> None:
        code = answer(answer_consent(authorization_url(provider)))["code"]
        body = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK}
        headers = basic(*AUTHORIZATION_CLIENT)

        answers = [send("POST", provider.token_url, data=body, headers=headers) for _ in range(2)]

        assert [one.status_code for one in answers] == [200, 400]

    def test_public_client_needs_no_secret(self, provider: Provider) -> None:
        url = authorization_url(provider, client_id=PUBLIC_CLIENT.client_id)
        body = {
            "grant_type": "authorization_code",
            "code": answer(answer_consent(url))["code"],
            "redirect_uri": CALLBACK,
            "client_id": PUBLIC_CLIENT.client_id,
        }

        assert send("POST", provider.token_url, data=body).status_code == 200

    def test_metadata_names_the_endpoints(self, provider: Provider) -> None:
        metadata = send("GET", provider.metadata_url).json()

        assert metadata["issuer"] == provider.issuer
        assert metadata["authorization_endpoint"] == provider.auth_url
        assert metadata["token_endpoint"] == provider.token_url
        assert metadata["revocation_endpoint"] == provider.revocation_url
        assert metadata["introspection_endpoint"] == provider.introspection_url
        assert metadata["code_challenge_methods_supported"] == ["S256"]
        assert metadata["authorization_response_iss_parameter_supported"] is True


class TestClientAuthentication:
    body = {"grant_type": "client_credentials", "scope": "events:write"}

    def test_machine_client_is_known_by_header_and_by_body(self, provider: Provider) -> None:
        in_body = {**self.body, **MACHINE_CLIENT._asdict()}

        header = send("POST", provider.token_url, data=self.body, headers=basic(*MACHINE_CLIENT))
        body = send("POST", provider.token_url, data=in_body)

        assert (header.status_code, body.status_code) == (200, 200)
        assert "refresh_token" not in header.json()
        methods = [one.client_authentication for one in provider.token_requests()]
        assert methods == ["basic", "body"]

    def test_both_ways_at_once_are_refused(self, provider: Provider) -> None:
        in_body = {**self.body, **MACHINE_CLIENT._asdict()}

        both = send("POST", provider.token_url, data=in_body, headers=basic(*MACHINE_CLIENT))

        assert (both.status_code, both.json()["error"]) == (401, "invalid_client")

    def test_odd_secret_is_taken_only_form_urlencoded(self, provider: Provider) -> None:
        body = {"grant_type": "refresh_token", "refresh_token": "unknown"}
        raw = base64.b64encode(":".join(ODD_CLIENT).encode()).decode()

        encoded = send("POST", provider.token_url, data=body, headers=basic(*ODD_CLIENT))
        unencoded = send(
            "POST", provider.token_url, data=body, headers={"Authorization": f"Basic {raw}"}
        )
        in_body = send("POST", provider.token_url, data={**body, **ODD_CLIENT._asdict()})

        # The client was authenticated: only the refresh token is invalid.
        assert encoded.json()["error"] == "invalid_grant"
        assert in_body.json()["error"] == "invalid_grant"
        assert unencoded.json()["error"] == "invalid_client"


class TestRefresh:
    def test_refresh_token_works_once_and_its_reuse_ends_the_grant(
        self, provider: Provider
    ) -> None:
        token = get_token(provider)

        first = refresh(provider, token["refresh_token"])
        second = refresh(provider, token["refresh_token"])
        heir = refresh(provider, first.json()["refresh_token"])

        assert first.json()["refresh_token"] != token["refresh_token"]
        assert (first.status_code, second.status_code) == (200, 400)
        assert second.json()["error"] == "invalid_grant"
        assert heir.json()["error"] == "invalid_grant"

    def test_eight_refreshes_at_once_give_one_token(self, provider: Provider) -> None:
        token = get_token(provider)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(refresh, [provider] * 8, [token["refresh_token"]] * 8))

        assert sorted(one.status_code for one in answers) == [200] + [400] * 7

    def test_expired_token_is_refused_and_can_be_refreshed(
        self, provider: Provider, receiver: Receiver
    ) -> None:
        token = get_token(provider)
        provider.expire_tokens()

        expired = send("POST", f"{receiver.url}/bearer/x", headers=bearer(token))
        provider.set_token_seconds(7)
        fresh = refresh(provider, token["refresh_token"]).json()
        renewed = send("POST", f"{receiver.url}/bearer/x", headers=bearer(fresh))

        assert expired.status_code == 401
        assert 'error="invalid_token"' in expired.headers["WWW-Authenticate"]
        assert fresh["expires_in"] == 7
        assert renewed.status_code == 200

    def test_revoked_grant_gives_invalid_grant(self, provider: Provider) -> None:
        token = get_token(provider)
        provider.revoke_grants()

        assert refresh(provider, token["refresh_token"]).json()["error"] == "invalid_grant"

    def test_revocation_ends_the_grant_and_is_recorded(self, provider: Provider) -> None:
        token = get_token(provider)
        body = {"token": token["refresh_token"], "token_type_hint": "refresh_token"}

        revoked = send(
            "POST", provider.revocation_url, data=body, headers=basic(*AUTHORIZATION_CLIENT)
        )

        assert revoked.status_code == 200
        assert refresh(provider, token["refresh_token"]).json()["error"] == "invalid_grant"
        (recorded,) = provider.revocation_requests()
        assert recorded.parameters == [("token", "***"), ("token_type_hint", "refresh_token")]


class TestFaults:
    def test_fault_comes_as_often_as_asked_and_is_recorded(self, provider: Provider) -> None:
        provider.fault(status=500, body="<h1>Oops</h1>", times=1)
        body = {"grant_type": "client_credentials"}

        answers = [
            send("POST", provider.token_url, data=body, headers=basic(*MACHINE_CLIENT))
            for _ in range(2)
        ]

        assert [one.status_code for one in answers] == [500, 200]
        assert answers[0].headers["Content-Type"] == "text/html"
        assert [one.is_fault for one in provider.token_requests()] == [True, False]

    def test_lost_answer_has_used_the_refresh_token(self, provider: Provider) -> None:
        token = get_token(provider)
        provider.fault(status=502, after=True)

        lost = refresh(provider, token["refresh_token"])
        again = refresh(provider, token["refresh_token"])

        assert (lost.status_code, again.status_code) == (502, 400)

    def test_record_holds_no_secret(self, provider: Provider) -> None:
        token = get_token(provider, code_verifier="a-verifier")
        refresh(provider, token["refresh_token"])

        recorded = repr(provider.token_requests())

        for secret in ("a-verifier", token["access_token"], token["refresh_token"]):
            assert secret not in recorded
        assert AUTHORIZATION_CLIENT.client_secret not in recorded


class TestReceiver:
    def test_basic_path_wants_the_right_login(self, receiver: Receiver) -> None:
        url = f"{receiver.url}/basic/x"

        without = send("POST", url)
        wrong = send("POST", url, auth=("demo-login", "wrong"))
        right = send("POST", url, auth=("demo-login", "demo-password"))

        assert [one.status_code for one in (without, wrong, right)] == [401, 401, 200]
        assert without.headers["WWW-Authenticate"].startswith("Basic ")

    def test_request_is_recorded_as_it_came(self, receiver: Receiver) -> None:
        send("PUT", f"{receiver.url}/open/x?a=1", data=b"\x00\xff", headers={"X-One": "1"})

        (received,) = receiver.wait_for(1)

        assert (received.method, received.path, received.query) == ("PUT", "/open/x", "a=1")
        assert received.body == b"\x00\xff"
        assert ("X-One", "1") in received.headers
        assert received.status == 200

    def test_signature_is_judged_by_the_official_package(self, receiver: Receiver) -> None:
        body, now = json.dumps({"test": 1}), datetime.now(UTC)
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(SECRET).sign("evt_1", now, body),
        }

        send("POST", f"{receiver.url}/open/good", data=body, headers=headers)
        send("POST", f"{receiver.url}/open/bad", data=body + " ", headers=headers)

        good, bad = receiver.requests()
        assert good.signature == "valid"
        assert bad.signature == "No matching signature found"

    def test_failures_come_as_often_as_asked(self, receiver: Receiver) -> None:
        receiver.fail("/open/x", 500, 1)
        flaky = {"webhook-id": "evt_1"}

        asked = [send("POST", f"{receiver.url}/open/x").status_code for _ in range(2)]
        counted = [
            send("POST", f"{receiver.url}/flaky/2", headers=flaky).status_code for _ in range(3)
        ]

        assert asked == [500, 200]
        assert counted == [503, 503, 200]

    def test_reset_ends_without_an_answer(self, receiver: Receiver) -> None:
        with pytest.raises(requests.ConnectionError):
            send("POST", f"{receiver.url}/reset")

        assert receiver.requests()[0].status is None

    def test_waiting_in_vain_says_what_came(self, receiver: Receiver) -> None:
        send("POST", f"{receiver.url}/gone")

        with pytest.raises(TimeoutError, match=r"1 of 2 requests.*POST /gone -> 410"):
            receiver.wait_for(2, timeout=0.1)

    def test_page_masks_credentials_and_escapes_the_body(self, receiver: Receiver) -> None:
        send("POST", f"{receiver.url}/open/x", data="<script>", headers=basic("id", "secret"))

        page = send("GET", receiver.url)

        assert "&lt;script&gt;" in page.text
        assert basic("id", "secret")["Authorization"] not in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
