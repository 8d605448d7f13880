"""Presets, discovery, grants and checks on the OAuth form in real Chromium."""

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.steps import CONTROLS, WORDS, field, overflow
from tests.browser.test_oauth import make_oauth, open_form
from tests.sandbox import AUTHORIZATION_CLIENT, MACHINE_CLIENT, Provider, Receiver
from webhooks.models import Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def test_a_marketing_admin_needs_what_the_provider_gave_and_three_presses(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.choose_authorization(page, "OAuth 2.0")
    given = {
        "Auth URL": provider.auth_url,
        "Access token URL": provider.token_url,
        "Client ID": AUTHORIZATION_CLIENT.client_id,
        "Client secret": AUTHORIZATION_CLIENT.client_secret,
        "Scope": "events:write offline_access",
    }
    for label, text in given.items():
        field(page, label).fill(text)
    page.get_by_role("button", name="Get new access token").click()
    steps.log_in_at_provider(page)
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    # The same page, with the next step in its head: the secret is shown there once.
    expect(page.get_by_role("region", name="Signing secret")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Send test").first).to_be_in_viewport()
    page.goto(page.url.partition("#")[0])
    assert page.evaluate(CONTROLS) <= 55
    # Including the request in the preview.
    assert page.evaluate(WORDS) <= 500


def test_a_chosen_provider_fills_in_at_once_and_can_be_taken_back(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    open_form(page, make_oauth(provider, receiver))
    before = field(page, "Auth URL").input_value()
    field(page, "Provider preset").select_option("microsoft")
    expect(page.get_by_role("heading", name="Connect Microsoft")).to_be_visible()
    expect(field(page, "Auth URL")).to_have_value(
        "https://login.microsoftonline.com/organizations/oauth2/v2.0/authorize"
    )
    sent_as = page.locator("summary", has_text="Send credentials as")
    expect(sent_as).to_contain_text("Client credentials in body")
    field(page, "Tenant").fill("https://contoso.com/")
    field(page, "Tenant").blur()
    expect(field(page, "Access token URL")).to_have_value(
        "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token"
    )
    # A scope that a person typed is kept.
    expect(field(page, "Scope")).to_have_value("events:write offline_access")
    field(page, "Provider preset").select_option("")
    expect(page.get_by_role("heading", name="Connect Microsoft")).to_be_hidden()
    field(page, "Provider preset").select_option("bitrix24")
    expect(field(page, "Auth URL")).to_have_value("")
    page.get_by_role("button", name="Undo").click()
    expect(field(page, "Auth URL")).to_have_value(
        "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/authorize"
    )
    assert before == provider.auth_url
    expect(page.get_by_text("Not saved yet").first).to_be_visible()
    assert overflow(page) == 0
    page.context.watch.expect("beforeunload")  # type: ignore[attr-defined]


def test_a_preset_that_signs_with_a_key_asks_for_it(page: Page) -> None:
    page.goto(steps.NEW)
    steps.choose_authorization(page, "OAuth 2.0")
    preset, key = steps.field(page, "Provider preset"), steps.field(page, "Private key")
    expect(key).to_be_hidden()
    preset.select_option("google_service_account")
    expect(key).to_be_visible()
    assert page.locator("#advanced").get_attribute("open") is None
    preset.select_option("google")
    expect(key).to_be_hidden()
    steps.unfold(page, "advanced")
    page.get_by_role("radio", name="JWT signed with a private key").check()
    expect(key).to_be_visible()
    page.context.watch.expect("beforeunload")  # type: ignore[attr-defined]


def test_a_preset_brings_its_grant_and_takes_it_away(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    open_form(page, make_oauth(provider, receiver))
    field(page, "Provider preset").select_option("docusign")
    expect(field(page, "Access token URL")).to_have_value(
        "https://account.docusign.com/oauth/token"
    )
    steps.unfold(page, "advanced")
    expect(page.get_by_role("radio", name="JWT bearer", exact=True)).to_be_checked()
    # The claims wait for the answer to the preset's question.
    expect(field(page, "Claims of the JWT")).to_have_value("")
    field(page, "User ID").fill("4799e5e9-0")
    field(page, "User ID").blur()
    expect(field(page, "Claims of the JWT")).to_have_value(
        "aud=account.docusign.com\nsub=4799e5e9-0"
    )
    field(page, "Provider preset").select_option("github")
    expect(page.get_by_role("radio", name="Authorization code", exact=True)).to_be_checked()
    page.context.watch.expect("beforeunload")  # type: ignore[attr-defined]


def test_found_endpoints_are_shown_first_and_used_by_a_button(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.choose_authorization(page, "OAuth 2.0")
    page.get_by_text("Look up addresses").click()
    field(page, "Issuer").fill(provider.issuer)
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_text("Found at the provider, not used yet")).to_be_visible()
    expect(field(page, "Auth URL")).to_have_value("")
    page.get_by_role("button", name="Use these").click()
    expect(field(page, "Auth URL")).to_have_value(provider.auth_url)
    expect(page.get_by_text("Filled in:")).to_contain_text("Access token URL")
    field(page, "Client ID").fill("sandbox-client")
    steps.save(page)
    expect(page.get_by_text("was created.")).to_be_visible()
    assert Webhook.objects.get().credential.revocation_url == provider.revocation_url


def test_client_credentials_have_fields_of_their_own_and_get_a_token_at_once(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.fill_oauth(page, provider, client=MACHINE_CLIENT)
    steps.unfold(page, "advanced")
    page.get_by_role("radio", name="Client credentials", exact=True).check()
    expect(field(page, "Auth URL")).to_be_hidden()
    expect(field(page, "Callback URL")).to_be_hidden()
    expect(steps.token_panel(page)).to_contain_text("gets the token at once")
    field(page, "Scope").fill("events:write")
    steps.get_token(page)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    expect(steps.token_panel(page).get_by_text("Valid", exact=True)).to_be_visible()
    expect(field(page, "Auth URL")).to_be_hidden()


def test_a_wrong_secret_is_diagnosed_and_both_ways_are_tried(
    page: Page, provider: Provider, receiver: Receiver
) -> None:
    open_form(page, make_oauth(provider, receiver, client_secret="wrong"))
    steps.get_token(page)
    steps.answer_provider(page)
    panel = steps.token_panel(page)
    panel.get_by_role("button", name="Check").click()
    expect(panel.get_by_text("Answers like a token endpoint.")).to_be_visible()
    panel.get_by_role("link", name="Client secret").click()
    expect(field(page, "Client secret")).to_be_in_viewport()
    panel.get_by_role("button", name="Try the other way").click()
    expect(panel.get_by_text("in neither way")).to_be_visible()
    panel.get_by_text("Last exchanges").click()
    panel.get_by_text("Misconfigured").last.click()
    expect(panel.get_by_text("invalid_client").last).to_be_visible()


def test_everything_works_without_javascript(
    plain_page: Page, provider: Provider, receiver: Receiver
) -> None:
    page = plain_page
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.choose_authorization(page, "OAuth 2.0")
    field(page, "Provider preset").select_option("google")
    page.get_by_role("button", name="Use preset").click()
    expect(page.get_by_role("heading", name="Connect Google")).to_be_visible()
    page.get_by_text("Look up addresses").click()
    field(page, "Issuer").fill(provider.issuer)
    page.get_by_role("button", name="Look up").click()
    page.get_by_role("button", name="Use these").click()
    expect(field(page, "Access token URL")).to_have_value(provider.token_url)
    steps.unfold(page, "advanced")
    page.get_by_role("radio", name="Client credentials", exact=True).check()
    page.get_by_role("button", name="Change grant").click()
    expect(field(page, "Auth URL")).to_be_hidden()
    field(page, "Client ID").fill(MACHINE_CLIENT.client_id)
    field(page, "Client secret").fill(MACHINE_CLIENT.client_secret)
    steps.get_token(page)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_role("heading", name="Check of the OAuth settings")).to_be_visible()
    expect(page.get_by_text("Answers like a token endpoint.")).to_be_visible()
    page.get_by_role("link", name="Access token URL").click()
    expect(page).to_have_url(
        page.url.partition("/integrations")[0]
        + reverse("webhooks:edit", args=[Webhook.objects.get().pk])
        + "#id_token_url"
    )
