"""A form whose session ends while it is filled in, in real Chromium: nothing typed is lost."""

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser import steps
from tests.factories import make_webhook
from webhooks.models import Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once

URL = "http://127.0.0.1:9/hook"


def end_session(context: BrowserContext) -> None:
    context.clear_cookies(name="sessionid")


def log_in_elsewhere(page: Page) -> None:
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Log in (in another tab)").click()
    elsewhere = opened.value
    steps.log_in(elsewhere, "admin", "a password")
    expect(elsewhere.get_by_role("heading", name="Webhooks 2.0")).to_be_visible()
    elsewhere.close()


def test_typing_after_the_session_ended_keeps_the_form_and_saves_after_a_login(page: Page) -> None:
    # A preview requested between the login and the page's next check has the old CSRF token.
    page.context.watch.expect("/preview/")  # type: ignore[attr-defined]
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=URL)
    steps.fill_basic(page, "shared", "hush-hush")
    end_session(page.context)
    steps.field(page, "Name").press_sequentially(" 2")
    expect(page.get_by_text("You were logged out.")).to_be_in_viewport()
    assert page.url.endswith(steps.NEW)
    log_in_elsewhere(page)
    steps.save(page)
    expect(page.get_by_text("was created.")).to_be_visible()
    webhook = Webhook.objects.get()
    assert (webhook.url, webhook.credential.basic_password) == (URL, "hush-hush")


def test_a_save_after_the_session_ended_stays_on_the_page(page: Page) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=URL)
    expect(page.locator("[data-preview]")).to_contain_text("127.0.0.1")
    end_session(page.context)
    steps.save(page)
    expect(page.get_by_text("You were logged out.")).to_be_in_viewport()
    expect(steps.field(page, "URL")).to_have_value(URL)
    log_in_elsewhere(page)
    steps.save(page)
    expect(page.get_by_text("was created.")).to_be_visible()


def test_without_a_network_a_save_stays_on_the_page(page: Page) -> None:
    page.context.watch.expect("ERR_INTERNET_DISCONNECTED")  # type: ignore[attr-defined]
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=URL)
    expect(page.locator("[data-preview]")).to_contain_text("127.0.0.1")
    note = page.get_by_text("You are offline.")
    page.context.set_offline(True)
    steps.save(page)
    expect(note).to_be_in_viewport()
    expect(steps.field(page, "URL")).to_have_value(URL)
    page.context.set_offline(False)
    expect(note).to_be_hidden()
    steps.save(page)
    expect(page.get_by_text("was created.")).to_be_visible()


def test_without_javascript_what_was_typed_is_back_after_the_login(plain_page: Page) -> None:
    plain_page.goto(steps.NEW)
    steps.fill_request(plain_page, name="CRM", url=URL)
    end_session(plain_page.context)
    steps.save(plain_page)
    steps.log_in(plain_page, "admin", "a password")
    expect(steps.field(plain_page, "URL")).to_have_value(URL)
    steps.save(plain_page)
    expect(plain_page.get_by_text("was created.")).to_be_visible()


def test_the_search_after_the_session_ended_leads_to_the_login_and_back(page: Page) -> None:
    page.goto(steps.LIST)
    end_session(page.context)
    page.keyboard.press("/")
    expect(page).to_have_url(re.compile("/login/"))
    steps.log_in(page, "admin", "a password")
    expect(page).to_have_url(re.compile(f"{steps.LIST}$"))


def test_the_search_after_the_session_ended_keeps_a_form_and_says_so(page: Page) -> None:
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url=URL)
    expect(page.locator("[data-preview]")).to_contain_text("127.0.0.1")
    end_session(page.context)
    page.keyboard.press("Control+k")
    expect(page.get_by_text("You were logged out.")).to_be_in_viewport()
    expect(steps.field(page, "URL")).to_have_value(URL)


@pytest.mark.parametrize("address", [steps.LIST, "/admin/webhooks/delivery/"])
def test_a_part_that_is_asked_for_after_the_session_ended_leads_to_the_login(
    page: Page, address: str
) -> None:
    make_webhook()
    page.goto(address)
    end_session(page.context)
    if address == steps.LIST:
        page.get_by_label("Name or URL").fill("crm")
    else:
        page.evaluate("htmx.trigger('#log-results', 'refresh')")
    expect(page).to_have_url(re.compile("/login/"))
    steps.log_in(page, "admin", "a password")
    expect(page).to_have_url(re.compile(f"{address}$"))
