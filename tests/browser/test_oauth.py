"""Get, use, lose and regain an access token in real Chromium, at a real OAuth 2.0 provider.

Every page is watched for problems; see tests/browser/fixtures.py.
"""

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect
from pytest_django import Settings

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.factories import make_delivery, make_webhook
from tests.polling import eventually
from tests.sandbox import AUTHORIZATION_CLIENT, Provider, Receiver
from webhooks.models import Delivery, Status, Webhook

pytest_plugins = ["tests.browser.fixtures"]


def make_oauth(provider: Provider, receiver: Receiver, **fields: object) -> Webhook:
    """Save a webhook that lacks only its token."""
    return make_webhook(
        **{
            "url": f"{receiver.url}/bearer/",
            "authorization_type": "oauth2",
            "token_name": "Sandbox token",
            "auth_url": provider.auth_url,
            "token_url": provider.token_url,
            "revocation_url": provider.revocation_url,
            "client_id": AUTHORIZATION_CLIENT.client_id,
            "client_secret": AUTHORIZATION_CLIENT.client_secret,
            "scope": "events:write offline_access",
            **fields,
        }
    )


def open_form(page: Page, webhook: Webhook) -> None:
    page.goto(reverse("webhooks:edit", args=[webhook.pk]))


def authorize(page: Page, webhook: Webhook) -> None:
    """Get a token with the button on the webhook's form."""
    open_form(page, webhook)
    steps.get_token(page)
    steps.answer_provider(page)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()


def test_a_token_is_got_used_lost_and_regained_and_nothing_is_lost(
    page: Page, engine: None, provider: Provider, receiver: Receiver
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.fill_oauth(page, provider)
    steps.get_token(page)
    steps.answer_provider(page)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    panel = steps.token_panel(page)
    for text in (
        "Valid",
        "Sandbox token",
        "events:write",
        "offline_access",
        "in 59 minutes",
        "admin",
    ):
        expect(panel).to_contain_text(text)
    result = steps.send_test(page)
    expect(result.get_by_text("Succeeded")).to_be_visible()
    [first] = receiver.requests("/bearer/")
    token = (first.header("authorization") or "").removeprefix("Bearer ")
    assert first.status == 200
    assert token
    assert token not in page.content()

    webhook = Webhook.objects.get()
    provider.expire_tokens()
    make_delivery(webhook)
    eventually(lambda: Delivery.objects.filter(status=Status.SUCCEEDED).count() == 2)
    assert [one.status for one in receiver.requests("/bearer/")] == [200, 401, 200]
    assert [one.grant_type for one in provider.token_requests()] == [
        "authorization_code",
        "refresh_token",
    ]

    provider.revoke_grants()
    held = [make_delivery(webhook, call_id=f"held-{number}") for number in range(3)]
    eventually(lambda: Delivery.objects.filter(status=Status.HELD).count() == 3)
    page.goto(steps.LIST)
    expect(page.get_by_text("Needs re-authorization", exact=True)).to_be_visible()
    page.get_by_role("link", name="CRM", exact=True).click()
    expect(
        page.get_by_text("Deliveries are on hold until the webhook is authorized")
    ).to_be_visible()
    expect(
        page.get_by_text(
            "The provider no longer accepts the authorization code or refresh token"
        ).first
    ).to_be_visible()
    page.get_by_role("link", name="Manage authorization").click()
    expect(steps.token_panel(page)).to_contain_text("deliveries are on hold")
    page.go_back()
    before = len(receiver.requests("/bearer/"))
    steps.get_token(page)
    steps.answer_provider(page)
    expect(page.get_by_text("3 deliveries that waited for it are being sent.")).to_be_visible()
    received = receiver.wait_for(before + 3, path_prefix="/bearer/")[before:]
    assert sorted(one.header("webhook-id") or "" for one in received) == [
        one.event_id for one in held
    ]
    assert {one.status for one in received} == {200}
    page.goto(steps.LIST)
    expect(page.get_by_text("Valid", exact=True)).to_be_visible()


@pytest.mark.once
@pytest.mark.parametrize(
    ("send_as", "authentication"),
    [("Basic Auth header", "basic"), ("Client credentials in body", "body")],
)
def test_credentials_are_sent_as_chosen_also_without_javascript(
    plain_page: Page,
    engine: None,
    provider: Provider,
    receiver: Receiver,
    send_as: str,
    authentication: str,
) -> None:
    page = plain_page
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.fill_oauth(page, provider, send_as=send_as)
    steps.get_token(page)
    steps.answer_provider(page)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    [request] = provider.token_requests()
    assert (request.client_authentication, request.status) == (authentication, 200)

    page.get_by_role("button", name="Refresh", exact=True).click()
    expect(page.get_by_text("The access token was refreshed.")).to_be_visible()
    assert provider.token_requests()[-1].grant_type == "refresh_token"
    page.get_by_role("button", name="Send test").first.click()
    expect(page.get_by_text("Succeeded")).to_be_visible()
    page.get_by_role("link", name="Edit").click()
    page.get_by_text("Clear the token…").click()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_text("The access token was cleared.")).to_be_visible()
    expect(steps.token_panel(page).get_by_text("No token", exact=True)).to_be_visible()


@pytest.mark.once
def test_refresh_and_clear_change_the_panel_without_a_reload(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    webhook = make_oauth(provider, receiver)
    authorize(page, webhook)
    page.evaluate("window.isSamePage = true")
    steps.field(page, "Name").fill("Typed and not saved")
    panel = steps.token_panel(page)
    panel.get_by_role("button", name="Refresh").click()
    expect(panel.get_by_text("The access token was refreshed.")).to_be_visible()
    panel.get_by_text("Clear the token…").click()
    panel.get_by_role("button", name="Clear", exact=True).click()
    expect(panel.get_by_text("No token", exact=True)).to_be_visible()
    assert len(provider.revocation_requests()) >= 1
    expect(steps.field(page, "Name")).to_have_value("Typed and not saved")
    assert page.evaluate("window.isSamePage")
    page.get_by_role("button", name="Save", exact=True).first.click()
    expect(page.get_by_text("The changes were saved.")).to_be_visible()
    page.get_by_role("button", name="Send test").first.click()
    expect(page.get_by_text("No test was sent: there is no access token.")).to_be_visible()
    page.context.watch.expect("beforeunload")


@pytest.mark.once
def test_a_denial_ends_on_the_form_with_what_to_do(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.fill_oauth(page, provider)
    steps.get_token(page)
    steps.answer_provider(page, answer="Deny")
    panel = steps.token_panel(page)
    expect(panel.get_by_role("alert")).to_be_visible()
    expect(panel.get_by_text("No token", exact=True)).to_be_visible()
    expect(steps.field(page, "Client ID")).to_have_value("sandbox-client")
    assert provider.token_requests() == []
    steps.get_token(page)
    steps.answer_provider(page)
    expect(panel.get_by_text("Valid", exact=True)).to_be_visible()


@pytest.mark.once
def test_a_wrong_client_secret_is_named_and_its_correction_works(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    webhook = make_oauth(provider, receiver, client_secret="wrong")
    open_form(page, webhook)
    steps.get_token(page)
    steps.answer_provider(page)
    alert = steps.token_panel(page).get_by_role("alert")
    expect(alert).to_contain_text("does not accept the client ID or client secret")
    expect(alert).to_contain_text("“Send credentials as”")
    # The fields in question are marked, in the color of the message.
    color = alert.locator(".icon").first.evaluate("icon => getComputedStyle(icon).color")
    for label in ("Client ID", "Client secret"):
        expect(steps.field(page, label)).to_have_css("border-top-color", color)
    expect(steps.field(page, "Auth URL")).not_to_have_css("border-top-color", color)
    expect(steps.field(page, "Token name")).to_have_value("Sandbox token")
    steps.field(page, "Client secret").fill(AUTHORIZATION_CLIENT.client_secret)
    steps.get_token(page)
    steps.answer_provider(page)
    expect(steps.token_panel(page).get_by_text("Valid", exact=True)).to_be_visible()


@pytest.mark.once
def test_a_wrong_callback_url_is_refused_here_or_at_the_provider(
    page: Page, provider: Provider, receiver: Receiver, settings: Settings
) -> None:
    webhook = make_oauth(provider, receiver)
    open_form(page, webhook)
    own = steps.field(page, "Callback URL").input_value()
    assert own == settings.PUBLIC_URL + reverse("webhooks:oauth_callback")
    steps.field(page, "Callback URL").fill("https://evil.example/callback/")
    steps.get_token(page)
    expect(page.get_by_role("alert").filter(has_text="Not saved.")).to_contain_text("Callback URL")
    expect(page.get_by_text("must lead back to this site")).to_be_visible()
    assert Webhook.objects.get().credential.callback_url == ""

    # Another URL of this site, which the provider does not know.
    settings.WEBHOOKS_PUBLIC_URLS = [settings.PUBLIC_URL.replace("127.0.0.1", "localhost")]
    unknown = own.replace("127.0.0.1", "localhost")
    steps.field(page, "Callback URL").fill(unknown)
    page.context.watch.expect("400")
    steps.get_token(page)
    steps.log_in_at_provider(page)
    expect(page.get_by_text("This request cannot be authorized")).to_be_visible()
    page.goto(reverse("webhooks:edit", args=[webhook.pk]))
    expect(steps.field(page, "Callback URL")).to_have_value(unknown)
    steps.field(page, "Callback URL").fill(own)
    steps.get_token(page)
    steps.answer_provider(page)
    expect(steps.token_panel(page).get_by_text("Valid", exact=True)).to_be_visible()


@pytest.mark.once
@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (503, "Maintenance", "The provider is not working (503)"),
        (200, "<html>Log in</html>", "answered with a web page instead of a token"),
    ],
)
def test_a_provider_that_is_down_or_answers_garbage_is_named(
    page: Page, provider: Provider, receiver: Receiver, status: int, body: str, sentence: str
) -> None:
    webhook = make_oauth(provider, receiver)
    provider.fault(status=status, body=body, times=None)
    open_form(page, webhook)
    steps.get_token(page)
    steps.answer_provider(page)
    expect(steps.token_panel(page).get_by_role("alert")).to_contain_text(sentence)
    expect(steps.token_panel(page).get_by_text("No token", exact=True)).to_be_visible()
    provider.clear_fault()
    steps.get_token(page)
    steps.answer_provider(page)
    expect(steps.token_panel(page).get_by_text("Valid", exact=True)).to_be_visible()


@pytest.mark.once
def test_the_callback_url_is_copied_by_its_button(
    open_page: OpenPage, provider: Provider, receiver: Receiver
) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    open_form(page, make_oauth(provider, receiver))
    page.get_by_role("group", name="OAuth 2.0").get_by_role("button", name="Copy").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == steps.field(page, "Callback URL").input_value()


@pytest.mark.once
def test_no_oauth_screen_scrolls_sideways_on_a_phone(
    open_page: OpenPage, provider: Provider, receiver: Receiver
) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    webhook = make_oauth(provider, receiver, name="A name that is long: " + "x" * 70)
    authorize(page, webhook)
    assert overflow(page) == 0
    for address in (steps.LIST, reverse("webhooks:detail", args=[webhook.pk])):
        page.goto(address)
        assert overflow(page) == 0, address
