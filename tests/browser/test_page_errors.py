"""What the watch over every page counts as a problem."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def test_a_request_that_a_later_one_replaces_is_no_problem(page: Page) -> None:
    seen: list[str] = []
    page.on("console", lambda message: seen.append(message.text))
    page.goto(steps.NEW)
    steps.unfold(page, "filter")
    steps.unfold(page, "preview-card")
    page.route("**/filter/**", lambda route: None, times=1)
    with page.expect_request("**/filter/**"):
        page.get_by_role("button", name="Missed calls", exact=True).click()
    page.get_by_role("button", name="Missed calls", exact=True).click()
    expect(page.get_by_text("The filter excludes this event")).to_be_visible()
    assert [text for text in seen if text.startswith("htmx:sendAbort")]
    assert page.context.watch.problems() == []  # type: ignore[attr-defined]


def test_an_error_of_a_script_is_one(page: Page) -> None:
    watch = page.context.watch  # type: ignore[attr-defined]
    page.goto(steps.LIST)
    page.evaluate("console.error('It broke.')")
    [problem] = watch.problems()
    watch.expect("It broke")
    assert problem.startswith("console error: It broke.")
