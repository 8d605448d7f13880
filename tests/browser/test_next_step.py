"""After the first save, in real Chromium: the next step is visible on the screen."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.sandbox import Provider, Receiver
from webhooks.models import Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def test_after_the_first_save_the_test_is_seen_and_leads_on(
    page: Page, engine: None, receiver: Receiver
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/basic/")
    steps.fill_basic(page)
    steps.save(page)
    expect(page.get_by_text("“CRM” was created. Now send a test.")).to_be_in_viewport()
    secret = page.get_by_role("region", name="Signing secret").locator("code").first
    expect(secret).to_be_in_viewport()
    expect(page.get_by_role("button", name="Send test").first).to_be_in_viewport(ratio=1)
    expect(page.get_by_role("link", name="Open the webhook")).to_have_count(0)
    steps.send_test(page)
    page.get_by_role("link", name="Open the webhook").click()
    expect(page).to_have_url(re.compile(f"/webhooks/{Webhook.objects.get().pk}/$"))


def test_a_test_that_failed_does_not_say_done(page: Page, engine: None, receiver: Receiver) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/status/404")
    steps.save(page)
    steps.send_test(page)
    expect(page.get_by_text("Open the webhook")).to_have_count(0)


def test_with_oauth_the_token_is_what_comes_next(
    page: Page, receiver: Receiver, provider: Provider
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.fill_oauth(page, provider)
    steps.save(page)
    expect(page.get_by_text("“CRM” was created. Next, get an access token.")).to_be_in_viewport()
    expect(page.get_by_role("button", name="Get new access token").first).to_be_in_viewport(ratio=1)
