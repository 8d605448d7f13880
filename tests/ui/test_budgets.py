"""How much a page may weigh, and that it fits every screen from a phone to a wall display."""

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.scenes import scene as make_scene
from webhooks.models import Incident, IncidentKind

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = [pytest.mark.once, pytest.mark.django_db]

_LONGEST_MOTION = """
[...document.querySelectorAll("*")]
  .flatMap((one) => [null, "::before", "::after"].map((part) => getComputedStyle(one, part)))
  .map((style) => Math.max(parseFloat(style.animationDuration) || 0,
                           parseFloat(style.transitionDuration) || 0))
  .reduce((longest, one) => Math.max(longest, one), 0)
"""


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
    expect(page.get_by_role("table").get_by_text("Потребує повторної авторизації")).to_be_visible()
    widths = page.locator(".log-event").evaluate_all("all => all.map(one => one.offsetWidth)")
    assert min(widths) > 120


def test_the_actions_of_an_admin_list_are_not_cut_off_on_a_phone(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 390, "height": 900})
    page.goto(reverse("admin:auth_user_changelist"))
    panel = page.locator("#changelist").bounding_box()
    button = page.get_by_role("button", name="Go", exact=True).bounding_box()
    assert panel
    assert button
    assert button["x"] + button["width"] < panel["x"] + panel["width"] - 10


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
