"""Accessibility of every page: axe-core finds nothing, and nothing is wider than its window."""

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from django.conf import settings
from playwright.sync_api import Page as BrowserPage
from playwright.sync_api import expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.pages import PAGES
from tests.scenes import scene as make_scene

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once

SCREENS = [page for page in PAGES if not page.is_part]
# Pages per test; the browser, rows and session are made once for them.
_AT_ONCE = 8
# The color rules of the same standard as the others; axe's stricter color rules are off.
_COLOR_RULES = ["color-contrast", "link-in-text-block"]
_VIOLATIONS = "options => axe.run(options).then(results => results.violations)"
# In letters; 0 for a paragraph that is not shown.
_LINE_WIDTHS = """
[...document.querySelectorAll("main p")].map((one) =>
  one.getBoundingClientRect().width / parseFloat(getComputedStyle(one).fontSize))
"""
_UNFOLD = "document.querySelectorAll('details').forEach(one => { one.open = true; })"


def violations(page: BrowserPage, **options: Any) -> list[str]:
    """Return the findings of axe-core, which the page has loaded: one line for each element."""
    # axe would insert preloaded assets as inline style, which the pages' policy refuses; describing
    # and transferring what passed would take longer than finding it.
    options = {"preload": False, "resultTypes": ["violations"], **options}
    found: list[dict[str, Any]] = page.evaluate(_VIOLATIONS, options)
    return [
        f"{rule['id']}: {node['html'][:160]} ({node['failureSummary'][:200]})"
        for rule in found
        for node in rule["nodes"]
    ]


def violations_in_both_themes(page: BrowserPage) -> list[str]:
    """Return what is found in light mode by every rule, and in dark mode by the color rules.

    A theme only changes colors, as the test below checks.
    """
    page.evaluate(AXE_SCRIPT)
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


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(SCREENS), _AT_ONCE))
def test_screens_are_for_everyone_and_fit_from_a_phone_to_a_wall(
    first: int, open_page: OpenPage
) -> None:
    scene = make_scene()
    # In Ukrainian, whose words are longer than the English ones.
    known, unknown = (open_page(locale="uk-UA", **who) for who in ({}, {"user": None}))
    wrong = {}
    for screen in SCREENS[first : first + _AT_ONCE]:
        page = unknown if screen.name == "login" else known
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(screen.address(scene))
        page.evaluate(_UNFOLD)
        if found := [*violations_in_both_themes(page), *misfits(page)]:
            wrong[str(screen)] = found
    assert wrong == {}


def misfits(page: BrowserPage) -> list[str]:
    """Return where a page scrolls sideways, or has lines too long to read comfortably."""
    found = []
    for width in (1280, 768, 360, 3840):
        page.set_viewport_size({"width": width, "height": 900})
        if pixels := overflow(page):
            found.append(f"{pixels} pixels too wide for {width}")
    widths = page.evaluate(_LINE_WIDTHS)
    return found + [f"a line of {width} letters" for width in widths if width >= 130]


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


def test_forced_colors_show_what_is_chosen(open_page: OpenPage) -> None:
    page = open_page(forced_colors="active")
    page.goto(steps.NEW)
    for chosen, other in (
        (".segmented input:checked + span", ".segmented input:not(:checked) + span"),
        (".shell-nav [aria-current]", ".shell-nav a:not([aria-current])"),
    ):
        colors = [
            page.locator(one).first.evaluate("one => getComputedStyle(one).backgroundColor")
            for one in (chosen, other)
        ]
        assert colors[0] != colors[1]


_IS_COVERED = """
() => {
  const box = document.activeElement.getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  return Boolean(top?.closest(".form-bar, .shell-header")) && !top.contains(document.activeElement)
    && !document.activeElement.closest(".form-bar, .shell-header");
}
"""


def test_nothing_covers_the_field_with_the_focus_at_400_percent(open_page: OpenPage) -> None:
    # A window of 1280 by 1024 pixels at 400 % zoom.
    page = open_page(viewport={"width": 320, "height": 256})
    page.goto(steps.NEW)
    page.evaluate(_UNFOLD)
    steps.field(page, "Name").focus()
    covered = []
    for _step in range(25):
        page.keyboard.press("Tab")
        if page.evaluate(_IS_COVERED):
            covered.append(page.evaluate("document.activeElement.outerHTML"))
    assert covered == []


def test_the_tab_of_the_page_is_in_sight_on_a_phone(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 360, "height": 780})
    for address, name in ((steps.LIST, "Webhooks 2.0"), ("/admin/webhooks/apikey/", "API keys")):
        page.goto(address)
        tab = page.get_by_role("banner").get_by_role("link", name=name, exact=True)
        expect(tab).to_be_in_viewport(ratio=1)
