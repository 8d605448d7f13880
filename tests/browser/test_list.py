"""The list in real Chromium: live search, selecting, bulk actions, export and import.

After each test every page is checked for console errors, exceptions, violations of the content
security policy and failed requests; see tests/browser/fixtures.py.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.factories import make_delivery, make_webhook
from tests.ui.webhook_list.test_bulk import active
from webhooks import events
from webhooks.models import Delivery, Status, Webhook
from webhooks.ui.webhook_list import views as list_views

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def make_some(*names: str, **fields: Any) -> list[Webhook]:
    return [make_webhook(name=name, url="http://127.0.0.1:9/", **fields) for name in names]


def rows(page: Page) -> Any:
    return page.locator("tbody tr")


def bar(page: Page) -> Any:
    return page.get_by_role("form", name="Selected webhooks")


def test_the_list_is_searched_as_one_types(page: Page) -> None:
    make_some("Alpha", "Beta", "Gamma")
    page.goto(steps.LIST)
    page.evaluate("window.isSamePage = true")
    search = page.get_by_label("Name or URL")
    search.press_sequentially("bet")
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_role("status").get_by_text("1 webhook matches")).to_be_visible()
    expect(page).to_have_url(re.compile(r"[?&]q=bet\b"))
    expect(search).to_be_focused()
    search.fill("nothing at all")
    expect(page.get_by_role("heading", name="No webhook matches")).to_be_visible()
    search.fill("")
    expect(rows(page)).to_have_count(3)
    assert page.evaluate("window.isSamePage")
    page.get_by_label("Name or URL").fill("gam")
    expect(rows(page)).to_have_count(1)
    page.reload()
    expect(page.get_by_label("Name or URL")).to_have_value("gam")
    expect(rows(page)).to_have_count(1)


def test_a_search_without_a_network_says_so_and_keeps_the_list(page: Page) -> None:
    page.context.watch.expect("ERR_INTERNET_DISCONNECTED")  # type: ignore[attr-defined]
    make_some("Alpha", "Beta")
    page.goto(steps.LIST)
    page.context.set_offline(True)
    page.get_by_label("Name or URL").fill("bet")
    note = page.get_by_role("alert").get_by_text("Something went wrong.")
    expect(note).to_be_visible()
    expect(rows(page)).to_have_count(2)
    page.context.set_offline(False)
    page.get_by_label("Name or URL").fill("beta")
    expect(rows(page)).to_have_count(1)
    expect(note).to_be_hidden()


def test_a_webhook_that_is_deleted_leads_back_to_the_list_as_it_was_filtered(page: Page) -> None:
    make_some("Alpha", "Alphabet", "Beta")
    page.goto(f"{steps.LIST}?q=alpha&sort=name")
    page.get_by_role("link", name="Delete Alphabet").click()
    page.get_by_role("link", name="Keep it").click()
    expect(rows(page)).to_have_count(2)
    page.get_by_role("link", name="Delete Alphabet").click()
    page.get_by_role("button", name="Delete webhook").click()
    expect(page.get_by_text("“Alphabet” is deleted.")).to_be_visible()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_label("Name or URL")).to_have_value("alpha")


def test_filters_and_order_work_at_once_and_by_their_heads(page: Page) -> None:
    make_some("Alpha", "Beta")
    [gamma] = make_some("Gamma")
    events.pause(gamma)
    page.goto(steps.LIST)
    page.get_by_label("Status", exact=True).select_option("Paused")
    expect(rows(page)).to_have_count(1)
    page.get_by_label("Status", exact=True).select_option("Any status")
    expect(rows(page)).to_have_count(3)
    page.get_by_label("Sort by").select_option("Name, Z to A")
    expect(rows(page).first).to_contain_text("Gamma")
    head = page.get_by_role("columnheader", name="Webhook", exact=True)
    assert head.get_attribute("aria-sort") == "descending"
    head.get_by_role("link").click()
    expect(rows(page).first).to_contain_text("Alpha")


@pytest.mark.parametrize("has_javascript", [True, False])
def test_many_are_chosen_and_paused(open_page: OpenPage, has_javascript: bool) -> None:
    page = open_page(java_script_enabled=has_javascript)
    make_some("Alpha", "Beta", "Gamma")
    page.goto(steps.LIST)
    expect(bar(page)).to_be_hidden()
    page.get_by_label("Select Alpha").check()
    page.get_by_label("Select Gamma").check()
    expect(bar(page)).to_be_visible()
    if has_javascript:
        expect(bar(page).get_by_text("Selected: 2")).to_be_visible()
    bar(page).get_by_role("button", name="Pause").click()
    expect(page.get_by_text("2 webhooks were paused.")).to_be_visible()
    assert active() == {"Beta"}


def test_a_range_is_chosen_with_shift_and_the_page_with_one_tick(page: Page) -> None:
    make_some(*(f"Hook {number}" for number in range(6)))
    page.goto(steps.LIST)
    page.get_by_label("Select Hook 1").click()
    page.get_by_label("Select Hook 4").click(modifiers=["Shift"])
    expect(bar(page).get_by_text("Selected: 4")).to_be_visible()
    whole = page.get_by_label("Select all on this page")
    assert whole.evaluate("box => box.indeterminate")
    whole.check()
    expect(bar(page).get_by_text("Selected: 6")).to_be_visible()
    whole.uncheck()
    expect(bar(page)).to_be_hidden()


def test_everything_that_matches_is_resumed_or_dropped_after_a_question(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Enough for the slowest machine.
    monkeypatch.setattr(list_views, "MAX_SECONDS", 300.0)
    for webhook in make_some(*(f"Hook {number:02}" for number in range(52))):
        events.pause(webhook)
    make_delivery(webhook)
    Delivery.objects.exclude(webhook=webhook).delete()
    page.goto(steps.LIST)
    page.get_by_label("Select Hook 00").check()
    page.get_by_label("All 52 that match").check()
    expect(bar(page).get_by_text("Selected: 52")).to_be_visible()
    page.get_by_label("All 52 that match").uncheck()
    expect(bar(page).get_by_text("Selected: 1")).to_be_visible()
    page.get_by_label("All 52 that match").check()
    bar(page).get_by_role("button", name="Resume").click()
    expect(page.get_by_role("heading", name="Resume 52 webhooks?")).to_be_visible()
    expect(page.get_by_text("Deliveries on hold: 1")).to_be_visible()
    page.get_by_role("radio", name="Cancel them").check()
    page.get_by_role("button", name="Resume 52 webhooks").click()
    expect(page.get_by_text("52 webhooks are active again.")).to_be_visible()
    assert Delivery.objects.get().status == Status.CANCELLED


def test_everything_is_done_by_keyboard(page: Page) -> None:
    make_some("Alpha", "Beta")
    page.goto(steps.LIST)
    page.get_by_label("Select Beta").focus()
    page.keyboard.press("Space")
    expect(bar(page)).to_be_visible()
    button = bar(page).get_by_role("button", name="Delete")
    for _ in range(30):
        if button.evaluate("button => button === document.activeElement"):
            break
        page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Delete 1 webhook?")).to_be_visible()
    page.get_by_role("button", name="Delete 1 webhook").press("Enter")
    expect(page.get_by_text("1 webhook was deleted.")).to_be_visible()
    assert active() == {"Alpha"}


def test_an_export_is_imported_again_after_a_look(page: Page, tmp_path: Path) -> None:
    make_some("Alpha", "Beta")
    page.goto(steps.LIST)
    page.get_by_label("Select all on this page").check()
    with page.expect_download() as downloading:
        bar(page).get_by_role("button", name="Export").click()
    file = tmp_path / "webhooks.json"
    downloading.value.save_as(file)
    names = [entry["name"] for entry in json.loads(file.read_text())["webhooks"]]
    assert names == ["Alpha", "Beta"]
    Webhook.objects.all().delete()
    page.goto(steps.LIST)
    page.get_by_role("link", name="Import").click()
    page.get_by_label("File", exact=True).set_input_files(file)
    page.get_by_role("button", name="Preview import").click()
    expect(page.get_by_text("Nothing is saved yet.")).to_be_visible()
    page.get_by_label("Beta").uncheck()
    page.get_by_role("button", name="Import selected webhooks").click()
    expect(page.get_by_role("status").get_by_text("1 webhook was created.")).to_be_visible()
    page.get_by_role("link", name="Go to the list").click()
    expect(rows(page)).to_have_count(1)
    assert not Webhook.objects.get().is_active


@pytest.mark.parametrize("width", [320, 360])
def test_a_message_keeps_its_buttons_on_one_line(open_page: OpenPage, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    make_some("Alpha", "Beta")
    page.goto(steps.LIST)
    page.get_by_label("Select Alpha").check()
    bar(page).get_by_role("button", name="Pause").click()
    undo = page.get_by_role("button", name="Undo").bounding_box()
    dismiss = page.get_by_role("button", name="Dismiss").bounding_box()
    assert undo
    assert dismiss
    assert undo["x"] + undo["width"] < dismiss["x"]


@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_nothing_is_wider_than_the_window(open_page: OpenPage, width: int) -> None:
    page = open_page(viewport={"width": width, "height": 900})
    make_some("Short", "A name without any space " + "x" * 75)
    make_webhook(name="Long", url="https://crm.example.com/" + "path/" * 80)
    page.goto(steps.LIST)
    assert overflow(page) == 0
    page.get_by_label("Select Short").check()
    assert overflow(page) == 0
    page.goto(steps.LIST + "import/")
    page.locator("summary", has_text="Or paste").click()
    entries = [{"name": "N" * 100}, {"name": "CRM", "x" * 200: 1}]
    page.get_by_label("JSON").fill(json.dumps({"version": 1, "webhooks": entries}))
    page.get_by_role("button", name="Preview import").click()
    expect(page.get_by_text("Nothing is saved yet.")).to_be_visible()
    assert overflow(page) == 0
