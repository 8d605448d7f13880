"""What a page may weigh, and that it fits every screen from a phone to a wall."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.pages import PAGES, Page
from tests.scenes import scene as make_scene
from webhooks.models import Incident, IncidentKind

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = [pytest.mark.once, pytest.mark.django_db]

BUDGET_BYTES = 100_000
SCREENS = [page for page in PAGES if not page.is_part]
_OWN = [Path(folder) for folder in settings.STATICFILES_DIRS]
_LONGEST_MOTION = """
[...document.querySelectorAll("*")]
  .flatMap((one) => [null, "::before", "::after"].map((part) => getComputedStyle(one, part)))
  .map((style) => Math.max(parseFloat(style.animationDuration) || 0,
                           parseFloat(style.transitionDuration) || 0))
  .reduce((longest, one) => Math.max(longest, one), 0)
"""
_UNFOLD = "document.querySelectorAll('main details').forEach(one => { one.open = true; })"


def own_files(html: str) -> dict[str, int]:
    """Return our own style sheets and scripts of a page with their sizes."""
    linked = re.findall(r'<(?:link|script)\b[^>]*\b(?:href|src)="([^"]+\.(?:css|js))"', html)
    names = {address.removeprefix("/" + settings.STATIC_URL.strip("/") + "/") for address in linked}
    found = {name: folder / name for name in names for folder in _OWN if (folder / name).exists()}
    return {name: path.stat().st_size for name, path in found.items()}


@pytest.mark.parametrize("screen", SCREENS, ids=str)
def test_a_page_loads_less_than_100_kb_of_our_css_and_scripts(screen: Page) -> None:
    browser = Client()
    if screen.name != "login":
        browser.force_login(User.objects.create_superuser("admin", password="p"))
    files = own_files(browser.get(screen.address(make_scene())).text)
    assert "ui/tokens.css" in files
    assert sum(files.values()) < BUDGET_BYTES, sorted(files.items(), key=lambda one: -one[1])


@pytest.mark.parametrize("screen", SCREENS, ids=str)
def test_a_page_scrolls_sideways_on_no_screen(screen: Page, open_page: OpenPage) -> None:
    options = {"user": None} if screen.name == "login" else {}
    # In Ukrainian, whose words are longer than the English ones.
    page = open_page(locale="uk-UA", **options)
    page.goto(screen.address(make_scene()))
    page.evaluate(_UNFOLD)
    for width in (360, 768, 1280, 3840):
        page.set_viewport_size({"width": width, "height": 900})
        assert overflow(page) == 0, f"{width} px"
    # On a wall, a line of text is no longer than a person can follow.
    paragraphs = page.locator("main p:visible").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().width / "
        "parseFloat(getComputedStyle(one).fontSize))"
    )
    assert max(paragraphs, default=0) < 130


def test_a_long_choice_wraps_on_a_phone(open_page: OpenPage) -> None:
    webhook = make_scene().webhook
    now = timezone.now()
    Incident.objects.create(webhook_id=webhook, kind=IncidentKind.FAILING, opened_at=now)
    page = open_page(locale="uk-UA", viewport={"width": 360, "height": 900})
    page.goto(reverse("webhooks:resend_create", args=[webhook]))
    expect(page.locator("[name=since][value=incident]")).to_be_checked()
    assert overflow(page) == 0


def test_a_long_reason_leaves_room_for_the_event_on_a_phone(open_page: OpenPage) -> None:
    make_scene()
    page = open_page(locale="uk-UA", viewport={"width": 360, "height": 900})
    page.goto(reverse("webhooks:deliveries"))
    expect(page.get_by_text("Вебхук потребує повторної авторизації")).to_be_visible()
    widths = page.locator(".log-event").evaluate_all("all => all.map(one => one.offsetWidth)")
    assert min(widths) > 120


def test_the_skip_link_is_first_and_leads_past_the_head(open_page: OpenPage) -> None:
    page = open_page()
    page.goto(steps.LIST)
    page.keyboard.press("Tab")
    link = page.get_by_role("link", name="Skip to the content")
    expect(link).to_be_focused()
    expect(link).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


def test_every_stop_of_the_tab_key_is_seen(open_page: OpenPage) -> None:
    page = open_page()
    page.goto(f"{steps.LIST}{make_scene().webhook}/")
    for _ in range(25):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            "(() => { const style = getComputedStyle(document.activeElement);"
            " return [style.outlineStyle, parseFloat(style.outlineWidth), style.boxShadow]; })()"
        )
        assert (outline[0] != "none" and outline[1] >= 2) or outline[2] != "none", outline


def test_nothing_moves_for_who_wants_less_motion(open_page: OpenPage) -> None:
    page = open_page(reduced_motion="reduce")
    page.goto(f"{steps.LIST}{make_scene().webhook}/")
    seconds = page.evaluate(_LONGEST_MOTION)
    assert seconds <= 0.001


def test_a_mistake_is_tied_to_its_field_and_announced(open_page: OpenPage) -> None:
    page = open_page()
    page.goto(steps.NEW)
    steps.field(page, "URL").fill("http://10.0.0.1/hook")
    steps.save(page)
    expect(page.get_by_role("alert").first).to_be_visible()
    field = steps.field(page, "URL")
    expect(field).to_have_attribute("aria-invalid", "true")
    described = (field.get_attribute("aria-describedby") or "").split()
    assert any("error" in name for name in described)
    assert all(page.locator(f"#{name}").count() == 1 for name in described)
