"""The first minutes in real Chromium: from an empty list to a delivery that arrived.

Each step is found by what the panel offers, as a person who has read nothing would find it.
"""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser import steps
from tests.browser.steps import OpenPage
from tests.factories import make_delivery, make_webhook
from tests.sandbox import Provider, Receiver
from tests.waiting import eventually
from webhooks.models import Delivery, Status, Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def panel(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title)


def next_step(page: Page) -> Locator:
    return page.locator('[aria-current="step"]')


def test_an_empty_list_leads_to_a_delivery_that_arrived(
    page: Page, engine: None, receiver: Receiver
) -> None:
    page.goto(steps.LIST)
    first = panel(page, "Send the first event to your system")
    expect(first.get_by_role("link")).to_have_count(1)
    expect(next_step(page)).to_contain_text("https://example.com/hooks/calls")
    first.get_by_role("link").click()
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/basic/")
    steps.fill_basic(page)
    steps.save(page)
    expect(page.get_by_text("“CRM” was created.")).to_be_visible()

    page.goto(steps.LIST)
    almost = panel(page, "Almost there")
    expect(next_step(page)).to_contain_text("Test")
    almost.get_by_role("link", name="Send a test").click()
    expect(page).to_have_url(re.compile("/edit/#test$"))
    result = steps.send_test(page)
    expect(result.get_by_text("Succeeded")).to_be_visible()

    page.goto(steps.LIST)
    expect(page.get_by_role("table")).to_be_visible()
    expect(next_step(page)).to_have_count(0)
    make_delivery(Webhook.objects.get())
    eventually(lambda: Delivery.objects.filter(status=Status.SUCCEEDED).count() == 2)


def test_a_webhook_without_its_token_leads_to_the_button(
    page: Page, engine: None, receiver: Receiver, provider: Provider
) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/bearer/")
    steps.fill_oauth(page, provider)
    steps.save(page)
    expect(page.get_by_text("“CRM” was created.")).to_be_visible()
    page.goto(steps.LIST)
    expect(next_step(page)).to_contain_text("The provider has to approve once.")
    next_step(page).get_by_role("link", name="Get an access token").click()
    expect(page).to_have_url(re.compile("/edit/#token$"))
    expect(page.get_by_role("button", name="Get new access token")).to_be_in_viewport()
    steps.get_token(page)
    steps.answer_provider(page)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    page.goto(steps.LIST)
    expect(next_step(page)).to_contain_text("Test")


def test_a_failed_test_says_so_and_offers_the_test_again(
    page: Page, engine: None, receiver: Receiver
) -> None:
    webhook = make_webhook(name="CRM", url=f"{receiver.url}/status/503")
    delivery = make_delivery(webhook)
    eventually(lambda: delivery.attempts.exists())
    page.goto(steps.LIST)
    expect(next_step(page)).to_contain_text("did not take the last event")
    expect(next_step(page).get_by_role("link", name="Send a test")).to_be_visible()


def test_the_words_of_a_status_are_explained_where_they_are_read(page: Page) -> None:
    make_webhook(name="CRM")
    page.goto(steps.LIST)
    page.get_by_text("What Active, Paused, On hold, Failing and Held mean").click()
    for word in ("Paused", "On hold", "Held"):
        expect(page.locator("details.words dt", has_text=word).first).to_be_visible()


@pytest.mark.parametrize("has_javascript", [True, False])
def test_the_panel_works_on_a_phone_without_javascript_too(
    open_page: OpenPage, has_javascript: bool
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "java_script_enabled": has_javascript}
    page = open_page(**phone)
    page.goto(steps.LIST)
    link = page.get_by_role("link", name="Create a webhook")
    expect(link).to_be_in_viewport()
    assert steps.overflow(page) == 0
    link.click()
    expect(steps.field(page, "URL")).to_be_visible()
