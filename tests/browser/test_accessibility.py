"""Every screen for everyone: axe-core finds nothing, light and dark, everything unfolded."""

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import expect

from tests.browser import steps
from tests.browser.steps import OpenPage
from tests.pages import PAGES, Page
from tests.scenes import scene as make_scene

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once

SCREENS = [page for page in PAGES if not page.is_part]
# Of the standard that the others are of: axe has stricter ones about colors, which are off.
_COLOR_RULES = ["color-contrast", "link-in-text-block"]
_UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true; })"


def violations(page: BrowserPage, **options: Any) -> list[str]:
    """Return what axe-core finds, one line for each element."""
    # What axe would preload it would put in as inline style, which the pages refuse.
    found: dict[str, Any] = Axe().run(page, options={"preload": False, **options}).response
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def violations_in_both_themes(page: BrowserPage) -> list[str]:
    """Return what is found in light by every rule, and in dark by those about colors.

    A theme is nothing but other colors, as the test below holds.
    """
    page.emulate_media(color_scheme="light", reduced_motion="reduce")
    found = [f"light: {violation}" for violation in violations(page)]
    page.emulate_media(color_scheme="dark")
    return found + [f"dark: {violation}" for violation in violations(page, runOnly=_COLOR_RULES)]


def test_a_theme_is_nothing_but_other_colors() -> None:
    folder = Path(settings.STATICFILES_DIRS[0])
    written = "".join(path.read_text() for path in folder.rglob("*.css"))
    styles = re.sub(r"/\*.*?\*/", "", written, flags=re.DOTALL)
    assert "prefers-color-scheme" not in styles
    about_themes = re.findall(r"\[data-theme[^}]*}", styles)
    assert about_themes == [
        f'[data-theme="{theme}"] {{ color-scheme: {theme}; }}' for theme in ("light", "dark")
    ]
    for name in re.findall(r"([\w-]+):[^;{]*light-dark\(", styles):
        assert name.startswith("--") or "color" in name, name


@pytest.mark.parametrize("screen", SCREENS, ids=str)
def test_axe_finds_nothing_on_a_screen(screen: Page, open_page: OpenPage) -> None:
    page = open_page(user=None) if screen.name == "login" else open_page()
    page.goto(screen.address(make_scene()))
    page.evaluate(_UNFOLD)
    assert violations_in_both_themes(page) == []


def test_axe_finds_nothing_on_a_form_with_mistakes(page: BrowserPage) -> None:
    page.goto(steps.NEW)
    steps.field(page, "URL").fill("http://10.0.0.1/hook")
    steps.save(page)
    expect(page.get_by_role("alert").first).to_be_visible()
    page.evaluate(_UNFOLD)
    assert violations_in_both_themes(page) == []


def test_axe_finds_nothing_on_the_list_of_shortcuts(page: BrowserPage) -> None:
    page.goto(steps.LIST)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations_in_both_themes(page) == []


def test_axe_finds_nothing_on_a_page_that_is_not_there(page: BrowserPage) -> None:
    page.context.watch.expect("404")  # type: ignore[attr-defined]
    page.goto(f"{steps.LIST}999999/")
    assert violations_in_both_themes(page) == []
