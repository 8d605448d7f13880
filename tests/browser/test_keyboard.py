"""Shortcuts, time zone and language in real Chromium."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.steps import OpenPage
from tests.factories import make_delivery, make_webhook
from webhooks.ui.account import time_zone

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def test_a_question_mark_lists_the_shortcuts(page: Page) -> None:
    page.goto(steps.LIST)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_text("Search everything")).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()


def test_a_visible_button_lists_them_too(page: Page) -> None:
    page.goto(steps.LIST)
    page.get_by_role("button", name="Keyboard shortcuts").click()
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    dialog.get_by_role("link", name="New webhook").click()
    expect(page).to_have_url(re.compile("/new/$"))


@pytest.mark.parametrize(
    ("key", "address"),
    [("n", "/new/$"), ("d", "/deliveries/$"), ("l", "/webhooks/$"), ("e", "/edit/$")],
)
def test_a_key_leads_to_its_page(page: Page, key: str, address: str) -> None:
    page.goto(f"{steps.LIST}{make_webhook().pk}/")
    page.keyboard.press(key)
    expect(page).to_have_url(re.compile(address))


def test_a_slash_goes_to_the_search_and_typing_stays_typing(page: Page) -> None:
    make_webhook()
    page.goto(steps.LIST)
    page.keyboard.press("/")
    search = page.get_by_role("dialog", name="Search").get_by_role("searchbox")
    expect(search).to_be_focused()
    page.keyboard.type("nd?/j")
    expect(search).to_have_value("nd?/j")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_hidden()
    assert page.url.split("?")[0].endswith(steps.LIST)


def test_j_and_k_walk_through_the_rows_and_enter_opens_one(page: Page) -> None:
    for name in ("Alpha", "Beta", "Gamma"):
        make_webhook(name=name)
    page.goto(steps.LIST)
    for key, name in (("j", "Alpha"), ("j", "Beta"), ("j", "Gamma"), ("k", "Beta")):
        page.keyboard.press(key)
        expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Beta")).to_be_visible()


def test_a_key_with_control_is_the_browsers(page: Page) -> None:
    page.goto(steps.LIST)
    page.keyboard.press("Control+d")
    page.keyboard.press("Alt+n")
    page.wait_for_timeout(300)
    assert page.url.endswith(steps.LIST)


def test_the_keys_can_be_turned_off(page: Page) -> None:
    page.goto(steps.LIST)
    page.keyboard.press("?")
    page.get_by_role("checkbox", name="Use single keys").uncheck()
    page.keyboard.press("Escape")
    page.reload()
    page.keyboard.press("n")
    page.wait_for_timeout(300)
    assert page.url.endswith(steps.LIST)
    page.keyboard.press("?")
    expect(page.get_by_role("checkbox", name="Use single keys")).not_to_be_checked()


def test_shortcuts_work_in_django_admin(page: Page) -> None:
    delivery = make_delivery(make_webhook())
    page.goto("/admin/webhooks/delivery/")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(delivery.pk.replace("_", "(_|_5F)")))


# ---- Time zone and language ------------------------------------------------------------------


def test_times_are_in_the_browsers_zone_without_asking(open_page: OpenPage) -> None:
    webhook = make_webhook()
    page = open_page(timezone_id="Asia/Kolkata")
    page.goto(steps.LIST)
    page.goto(f"{steps.LIST}{webhook.pk}/")
    expect(page.locator("time").first).to_have_attribute("datetime", re.compile(r"\+05:30$"))


def test_a_person_chooses_a_zone_and_comes_back(page: Page) -> None:
    webhook = make_webhook()
    page.goto(f"{steps.LIST}{webhook.pk}/")
    page.get_by_role("banner").get_by_text("admin", exact=True).click()
    page.get_by_role("link", name="Time zone").click()
    page.get_by_label("Time zone", exact=True).select_option("Asia/Tokyo")
    page.get_by_role("button", name="Save").click()
    expect(page).to_have_url(re.compile(f"/{webhook.pk}/$"))
    expect(page.locator("time").first).to_have_attribute("datetime", re.compile(r"\+09:00$"))
    assert {one["name"] for one in page.context.cookies() if one["httpOnly"]} >= {
        time_zone.CHOSEN_COOKIE
    }


def test_a_person_changes_the_language_on_any_page(page: Page) -> None:
    page.goto("/admin/")
    page.get_by_role("banner").get_by_text("admin", exact=True).click()
    page.get_by_role("button", name="Українська").click()
    expect(page).to_have_url(re.compile("/admin/$"))
    expect(page.locator("html")).to_have_attribute("lang", "uk")
    page.goto(steps.LIST)
    expect(page.locator("html")).to_have_attribute("lang", "uk")


def test_a_language_is_chosen_before_the_login_without_javascript(open_page: OpenPage) -> None:
    page = open_page(user=None, java_script_enabled=False)
    page.goto("/")
    page.get_by_role("button", name="Українська").click()
    expect(page.locator("html")).to_have_attribute("lang", "uk")
    expect(page).to_have_url(re.compile("/login/"))
