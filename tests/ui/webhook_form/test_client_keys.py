"""Client keys, certificates and headers on the form, the public key, and the device code page."""

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.network.test_sockets import Certificates, certificates  # noqa: F401
from tests.oauth_fakes import FakeProvider, Reply, token
from tests.oauth_rows import make_token
from tests.ui.webhook_form.test_forms import OAUTH, bound, error, posted, saved
from tests.ui.webhook_form.test_oauth_fields import MACHINE
from tests.ui.webhook_form.test_views import CREATE, edit_url
from webhooks import oauth
from webhooks.models import AuthorizationRequest, OAuthToken, Webhook
from webhooks.security.drafts import Draft

pytestmark = [pytest.mark.django_db, pytest.mark.once]
SIGNING = {**MACHINE, "client_secret": "", "client_authentication": "private_key_jwt"}
HTMX = {"HX-Request": "true"}


@pytest.mark.slow
def test_a_key_is_made_once_and_its_public_half_is_for_everybody(browser: Client) -> None:
    webhook = saved(**SIGNING)
    key = webhook.credential.client_key
    webhook = saved(webhook, **SIGNING, name="Renamed")
    assert webhook.credential.client_key == key

    page = browser.get(edit_url(webhook)).content.decode()
    anybody, uid = Client(), webhook.credential.uid
    address = reverse("webhooks:public_key", args=[uid, "json"])
    answer = anybody.get(address)

    assert address in page
    assert "private key" in page
    assert "PRIVATE" not in page
    assert answer.json() == oauth.public_keys(webhook.credential)
    assert answer["Content-Type"] == "application/jwk-set+json"
    pem = anybody.get(reverse("webhooks:public_key", args=[uid, "pem"])).content.decode()
    assert pem.startswith("-----BEGIN PUBLIC KEY-----")
    for wrong in ([uid, "txt"], ["crd_x", "json"], [saved(**MACHINE).credential.uid, "json"]):
        assert anybody.get(reverse("webhooks:public_key", args=wrong)).status_code == 404


@pytest.mark.parametrize(
    ("fields", "field", "sentence"),
    [
        ({**SIGNING, "client_key": "a key"}, "client_key", "no RSA or EC private key"),
        ({**OAUTH, "token_headers": "Host: x"}, "token_headers", "cannot be an extra header"),
        ({**OAUTH, "token_headers": "X-A: “b”"}, "token_headers", "one line of plain ASCII"),
        ({**OAUTH, "client_certificate": "x"}, "client_certificate", "no certificate"),
        ({**SIGNING, "assertion_claims": "exp=1"}, "assertion_claims", "set from the other"),
        ({**SIGNING, "client_authentication": "tls_client_auth"}, "client_certificate", "Paste"),
        ({**SIGNING, "client_authentication": "client_secret_jwt"}, "client_secret", "Enter the"),
        ({**OAUTH, "grant_type": "device_code", "auth_url": ""}, "auth_url", "Enter the"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    fields: dict[str, Any], field: str, sentence: str
) -> None:
    assert sentence in error(field, **fields)


@pytest.mark.parametrize(
    "wrong", [{"client_key": "a key"}, {"client_certificate": "x"}, {"token_headers": "Host: x"}]
)
def test_a_wrong_secret_of_several_lines_stays_wrong_on_the_next_try(
    wrong: dict[str, str],
) -> None:
    session: dict[str, Any] = {}
    (field,) = wrong
    first = bound(session=session, **{**SIGNING, **wrong})
    draft = Draft(session, draft_id=first.draft.id)

    assert first.errors[field] == bound(draft=draft, **{**SIGNING, field: ""}).errors[field]


def test_secrets_of_several_lines_are_kept_cleared_and_never_shown(
    browser: Client,
    certificates: Certificates,  # noqa: F811
) -> None:
    text = (certificates.folder / "good.pem").read_text()
    fields = {**SIGNING, "client_key": text, "client_certificate": text, "token_headers": "X-A: b"}
    webhook = saved(**fields)
    assert webhook.credential.client_key.strip() == text.strip()
    # Typed, kept through an error elsewhere on the form, and saved.
    again = browser.post(CREATE, posted(**{**fields, "name": ""}))
    assert "BEGIN" not in again.content.decode()
    draft = again.context["form"].draft.id
    later = {**SIGNING, "draft": draft, "name": "Second"}
    assert browser.post(CREATE, posted(**later)).status_code == 302
    second = Webhook.objects.latest("pk").credential
    assert second.client_certificate.strip() == text.strip()
    assert second.token_headers == "X-A: b"

    webhook = saved(webhook, **SIGNING, **{"token_headers-clear": "on"})

    assert webhook.credential.token_headers == ""
    assert webhook.credential.client_certificate


def saved_with_certificate(kind: str, text: str) -> tuple[Webhook, dict[str, str]]:
    """Return a webhook with a client certificate and key, and its other fields as posted."""
    basic = {"basic_login": "l", "basic_password": "p"} if kind == "basic" else {}
    fields = {**SIGNING, "authorization_type": kind, "client_key": text, **basic}
    return saved(**fields, client_certificate=text), fields


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("oauth2", "Private key, TLS client certificate"),
        ("none", "TLS client certificate"),
        ("basic", "TLS client certificate"),
    ],
)
def test_the_closed_settings_say_what_they_hold(
    kind: str,
    said: str,
    browser: Client,
    certificates: Certificates,  # noqa: F811
) -> None:
    webhook, _ = saved_with_certificate(kind, (certificates.folder / "good.pem").read_text())

    page = browser.get(reverse("webhooks:edit", args=[webhook.pk]))

    assert page.context["form"].advanced_summary == said
    assert not page.context["form"].has_advanced_open


@pytest.mark.parametrize("kind", ["oauth2", "none", "basic"])
def test_a_stored_certificate_or_key_is_asked_for_again_at_another_origin(
    kind: str,
    certificates: Certificates,  # noqa: F811
) -> None:
    text = (certificates.folder / "good.pem").read_text()
    webhook, fields = saved_with_certificate(kind, text)
    stored = {name: one for name, one in fields.items() if name not in ("client_key",)}

    moved = bound(webhook, **{**stored, "url": "http://127.0.0.1:8/hook"})
    assert "Enter it again" in str(moved.errors["client_certificate"])
    if kind == "oauth2":
        endpoint = bound(webhook, **{**stored, "token_url": "http://127.0.0.1:8/token"})
        assert "Enter it again" in str(endpoint.errors["client_key"])


class TestTokens:
    def webhook_at(self, fake: FakeProvider, **fields: Any) -> Webhook:
        values = {**OAUTH, "token_url": fake.token_url, "auth_url": f"{fake.url}/device", **fields}
        return saved(**values)

    @pytest.mark.parametrize("series", [{}, {"series": "1"}], ids=["one", "of several"])
    def test_a_device_code_is_shown_and_its_token_leads_back(
        self, browser: Client, fake: FakeProvider, series: dict[str, str]
    ) -> None:
        codes = {
            "device_code": "d" * 40,
            "user_code": "WDJB-MJHT",
            "verification_uri": "https://provider.example/device",
            "interval": 1,
        }
        fake.reply(
            Reply(body=codes), Reply(status=400, body={"error": "authorization_pending"}), token()
        )
        webhook = self.webhook_at(fake, grant_type="device_code")
        pk = webhook.credential_id
        begun = browser.post(reverse("webhooks:authorize", args=[pk]), series)
        address = reverse("webhooks:device", args=[pk])
        assert begun["Location"] == address

        page = browser.get(address).content.decode()
        assert "WDJB-MJHT" in page
        assert 'href="https://provider.example/device"' in page
        assert "every 1s" in page
        waiting = browser.post(address, headers=HTMX).content.decode()
        assert waiting.lstrip().startswith("<section")
        rows = oauth.pending_device(
            browser.session["webhook_device_states"][str(pk)],
            user=get_user_model().objects.get(pk=browser.session["_auth_user_id"]),
            session_key=browser.session.session_key or "",
        )
        rows.poll_at = rows.created_at
        rows.save(update_fields=["poll_at"])

        done = browser.post(address, headers=HTMX)

        assert done["HX-Redirect"] == (
            reverse("webhooks:grants") if series else edit_url(webhook) + "#token"
        )
        assert OAuthToken.objects.get(pk=pk).access_token == "fresh-token"
        # The code is used up: the Back button and a poll that waited for the last lead back.
        assert browser.get(address).status_code == 303
        assert browser.post(address, headers=HTMX)["HX-Redirect"] == edit_url(webhook) + "#token"
        panel = browser.get(edit_url(webhook)).content.decode()
        assert "The access token was stored." in panel
        assert "token-error" not in panel

    def test_two_tabs_show_one_device_code_and_its_token(
        self, browser: Client, fake: FakeProvider
    ) -> None:
        page = "https://provider.example/device"
        codes = {"device_code": "d" * 40, "user_code": "WDJB-MJHT", "verification_uri": page}
        fake.reply(Reply(body=codes))
        webhook = self.webhook_at(fake, grant_type="device_code")
        authorize = reverse("webhooks:authorize", args=[webhook.credential_id])
        address = browser.post(authorize)["Location"]
        assert browser.post(authorize)["Location"] == address
        assert len(fake.requests) == 1

        # The poll of the other tab has used up the code, and its session is not saved yet.
        AuthorizationRequest.objects.all().delete()
        user = browser.session["_auth_user_id"]
        make_token(webhook.credential, granted_by_id=user)

        assert browser.post(address, headers=HTMX)["HX-Redirect"] == edit_url(webhook) + "#token"
        assert not browser.get(edit_url(webhook)).context["token_failure"]

    def test_a_device_page_of_a_session_that_ended_says_so(
        self, browser: Client, fake: FakeProvider
    ) -> None:
        webhook = self.webhook_at(fake, grant_type="device_code")

        browser.get(reverse("webhooks:device", args=[webhook.credential_id]))

        failure = browser.get(edit_url(webhook)).context["token_failure"]
        assert "before you logged in again" in failure

    def test_a_pasted_refresh_token_is_used_and_never_shown(
        self, browser: Client, fake: FakeProvider
    ) -> None:
        webhook = self.webhook_at(fake)
        address = reverse("webhooks:paste_token", args=[webhook.credential_id])
        fake.reply(Reply(status=400, body={"error": "invalid_grant"}), token(refresh_token="n"))

        refused = browser.post(address, {"refresh_token": "a-pasted-token"}, headers=HTMX)
        assert "no longer accepts" in refused.content.decode()
        assert "a-pasted-token" not in refused.content.decode()
        stored = browser.post(address, {"refresh_token": " a-pasted-token "}, headers=HTMX)

        assert "The access token was stored." in stored.content.decode()
        assert fake.requests[-1].fields["refresh_token"] == "a-pasted-token"
        for wrong in ("", "two\nlines", "x" * 9000):
            answer = browser.post(address, {"refresh_token": wrong}, headers=HTMX)
            assert "not a refresh token" in answer.content.decode()
        assert len(fake.requests) == 2


def test_a_file_names_the_new_secrets_and_holds_none(
    browser: Client,
    certificates: Certificates,  # noqa: F811
) -> None:
    text = (certificates.folder / "good.pem").read_text()
    webhook = saved(**SIGNING, client_key=text, client_certificate=text, token_headers="X-A: b")
    make_token(webhook.credential)

    exported = browser.post(reverse("webhooks:export"), {"is_all": "1"}).content.decode()

    (entry,) = json.loads(exported)["webhooks"]
    assert entry["secrets"] == ["client_key", "token_headers", "client_certificate"]
    assert "BEGIN" not in exported
    assert entry["client_authentication"] == "private_key_jwt"
