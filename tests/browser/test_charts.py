"""The webhook's page in real Chromium: its charts, their table, and automatic refreshes."""

import re
from itertools import pairwise

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.factories import make_delivery, make_webhook
from tests.ui.webhook_detail.test_charts import count
from webhooks.models import Delivery, Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def busy(**fields: object) -> Webhook:
    webhook = make_webhook(**fields)
    count(webhook, 40)
    count(webhook, 3, outcome="server_error")
    count(webhook, 500, hours_ago=50)
    make_delivery(webhook)
    return webhook


def open_webhook(page: Page, webhook: Webhook, query: str = "") -> None:
    page.goto(f"{steps.LIST}{webhook.pk}/{query}")


def test_a_period_is_switched_in_place_and_kept_in_the_address(page: Page) -> None:
    open_webhook(page, busy())
    page.evaluate("window.isSamePage = true")
    requests = page.get_by_role("region", name="Requests", exact=True)
    head = requests.locator("figcaption").first
    expect(head).to_contain_text("43 requests")
    for label, period in (("7 days", "7d"), ("30 days", "30d")):
        requests.get_by_role("link", name=label).click()
        expect(requests.get_by_role("link", name=label)).to_have_attribute("aria-current", "true")
        expect(head).to_contain_text("543 requests")
        expect(page).to_have_url(re.compile(rf"\?period={period}$"))
    assert page.evaluate("window.isSamePage") is True
    page.reload()
    expect(requests.get_by_role("link", name="30 days")).to_have_attribute("aria-current", "true")


def test_a_switch_by_keyboard_keeps_the_focus(page: Page) -> None:
    open_webhook(page, busy())
    page.get_by_role("link", name="7 days").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="7 days")).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("link", name="7 days")).to_be_focused()


def test_a_period_is_switched_without_javascript(plain_page: Page) -> None:
    open_webhook(plain_page, busy())
    plain_page.get_by_role("link", name="7 days").click()
    expect(plain_page.get_by_text("543", exact=True).first).to_be_visible()


def test_each_chart_has_a_name_a_description_and_a_table(page: Page) -> None:
    open_webhook(page, busy())
    volume = page.get_by_role("img", name=re.compile("^Requests by outcome, 24 hours"))
    expect(volume).to_be_visible()
    assert "Succeeded: 40. Receiver failed: 3." in (volume.locator("desc").text_content() or "")
    expect(page.get_by_role("img", name=re.compile("^Response time"))).to_be_visible()
    page.get_by_text("Show as a table").click()
    table = page.get_by_role("table", name=re.compile("^Requests by outcome and response time"))
    expect(table.get_by_role("row")).to_have_count(2)
    expect(table.get_by_role("link", name="43")).to_be_visible()


def test_a_bar_says_its_numbers_under_the_mouse_and_leads_to_the_log(page: Page) -> None:
    open_webhook(page, busy())
    bar = page.locator(".chart-hit").nth(23)
    bar.hover()
    expect(bar.get_by_text("Receiver failed")).to_be_visible()
    bar.click()
    expect(page).to_have_url(re.compile(r"webhook=\d+.*since="))


def test_a_new_delivery_appears_without_a_reload_and_is_announced(page: Page) -> None:
    webhook = busy()
    open_webhook(page, webhook)
    recent = page.get_by_role("region", name="Recent deliveries")
    expect(recent.get_by_role("row")).to_have_count(2)
    new = make_delivery(webhook)
    finished = {"status": "succeeded", "status_code": 200, "next_attempt_at": None}
    Delivery.objects.filter(pk=new.pk).update(**finished)
    expect(recent.get_by_role("row")).to_have_count(3)
    expect(page.locator("#announcer")).to_have_text(
        "Newest delivery: call.incoming.after, Succeeded."
    )
    expect(recent.locator("tr.is-new")).to_have_count(1)


def test_a_refresh_waits_while_the_keyboard_is_in_the_list(page: Page) -> None:
    webhook = busy()
    open_webhook(page, webhook)
    recent = page.get_by_role("region", name="Recent deliveries")
    link = recent.get_by_role("link", name="call.incoming.after")
    # With the keyboard: focus by a mouse click does not stop a refresh.
    page.keyboard.press("Tab")
    link.focus()
    make_delivery(webhook)
    page.wait_for_timeout(6000)
    expect(link).to_be_focused()
    expect(recent.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="7 days").focus()
    expect(recent.get_by_role("row")).to_have_count(3)
    expect(page.get_by_role("link", name="7 days")).to_be_focused()


@pytest.mark.parametrize("width", [360, 3840])
def test_the_page_fits_a_phone_and_a_wall(open_page: OpenPage, width: int) -> None:
    webhook = busy(name="A name " * 12, url="http://127.0.0.1:9/" + "long" * 80)
    page = open_page(viewport={"width": width, "height": 900})
    for period in ("24h", "7d", "30d"):
        open_webhook(page, webhook, f"?period={period}")
        page.get_by_text("Show as a table").click()
        assert overflow(page) == 0


def test_the_labels_of_a_months_axis_do_not_touch_on_a_phone(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 360, "height": 900})
    open_webhook(page, busy(), "?period=30d")
    boxes = page.locator(".chart-x").first.evaluate(
        """axis => [...axis.children].filter(tick => tick.textContent).map(tick => {
          const range = document.createRange(); range.selectNodeContents(tick);
          const box = range.getBoundingClientRect(); return [box.left, box.right]; })"""
    )
    assert len(boxes) >= 4
    assert all(one[1] + 2 < other[0] for one, other in pairwise(boxes))
