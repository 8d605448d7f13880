"""The first minutes in real Chromium: from an empty list to a delivery that arrived.

Each step is found through what the panel offers, as by a person who has read no documentation.
"""

import re

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Locator, Page, expect

from tests.browser import steps
from tests.browser.steps import OpenPage
from tests.factories import make_delivery, make_webhook
from tests.polling import eventually
from tests.sandbox import Provider, Receiver
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


_OAUTH = (
    *("Token name", "Callback URL", "Auth URL", "Access token URL"),
    *("Client ID", "Client secret", "Scope"),
)


def bottom(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box is not None
    return box["y"] + box["height"]


def test_a_new_form_is_small_and_shows_the_authorization_at_first_sight(
    open_page: OpenPage,
) -> None:
    page = open_page(viewport={"width": 1440, "height": 900})
    page.goto(steps.NEW)
    assert page.evaluate(steps.CONTROLS) <= 25
    assert page.evaluate(steps.WORDS) <= 200
    kind = page.get_by_role("group", name="Authorization type")
    expect(kind).to_be_in_viewport(ratio=1)
    for name in ("Filter", "Content", "Headers", "Delivery", "Signing", "Alerts"):
        section = page.locator("details.fold").filter(has=page.get_by_role("heading", name=name))
        assert section.get_attribute("open") is None
        assert section.locator("summary p").inner_text().strip()
    steps.choose_authorization(page, "OAuth 2.0")
    part = page.get_by_role("group", name="OAuth 2.0")
    places = [bottom(steps.field(part, label)) for label in _OAUTH]
    places.append(bottom(part.get_by_role("group", name="Send credentials as")))
    # In this order; Client ID and Client secret are on one line.
    assert places == sorted(places)
    assert places[-1] - bottom(kind) < 900
    button = page.get_by_role("button", name="Get new access token")
    assert 0 < bottom(button) - places[-1] < 150


def test_on_a_phone_the_token_button_is_below_the_fields_and_nothing_is_wider(
    open_page: OpenPage,
) -> None:
    page = open_page(viewport={"width": 360, "height": 740})
    page.goto(steps.NEW)
    steps.choose_authorization(page, "OAuth 2.0")
    fields = page.get_by_role("group", name="OAuth 2.0")
    button = page.get_by_role("button", name="Get new access token")
    last = bottom(fields.get_by_role("group", name="Send credentials as"))
    assert 0 < bottom(button) - last < 150
    assert steps.overflow(page) == 0
    expect(page.get_by_role("button", name="Save", exact=True).last).to_be_in_viewport()
    expect(page.get_by_role("button", name="Send test").last).to_be_in_viewport()


def test_the_certificate_waits_under_advanced_whatever_the_authorization(page: Page) -> None:
    page.goto(steps.NEW)
    certificate = page.locator("#id_client_certificate")
    expect(certificate).to_be_hidden()
    expect(page.locator("#advanced > summary")).to_contain_text("Default settings")
    steps.unfold(page, "advanced")
    for kind in ("None", "Basic authentication", "OAuth 2.0"):
        steps.choose_authorization(page, kind)
        expect(certificate).to_be_visible()
        expect(page.get_by_role("group", name="Grant type")).to_be_visible(
            visible=kind == "OAuth 2.0"
        )


@pytest.mark.parametrize("has_javascript", [True, False])
def test_ones_own_address_is_put_in_by_a_click(
    open_page: OpenPage, admin: User, has_javascript: bool
) -> None:
    User.objects.filter(pk=admin.pk).update(email="admin@example.com")
    page = open_page(java_script_enabled=has_javascript)
    page.goto(steps.NEW)
    steps.field(page, "Name").fill("CRM")
    steps.unfold(page, "alerts")
    recipients = steps.field(page, "Recipients")
    recipients.fill("ops@example.com")
    for _ in range(2):
        page.get_by_role("button", name="Use my address").click()
        expect(recipients).to_have_value("ops@example.com\nadmin@example.com")
    expect(steps.field(page, "Name")).to_have_value("CRM")
    page.context.watch.expect("beforeunload")  # type: ignore[attr-defined]


def test_an_empty_save_says_each_mistake_once_and_an_untouched_form_none(page: Page) -> None:
    page.goto(steps.NEW)
    expect(page.locator("main .alert:visible, main .field-errors:visible")).to_have_count(0)
    steps.save(page)
    summary = page.get_by_role("alert").first
    expect(summary.get_by_role("link")).to_have_text(["Name", "URL", "Events"])
    expect(page.locator("main .field-errors li")).to_have_count(3)
    summary.get_by_role("link", name="Events").click()
    expect(page.locator("#id_event_types")).to_be_in_viewport()


def test_a_preset_leaves_what_is_ones_own(page: Page) -> None:
    page.goto(steps.NEW)
    steps.choose_authorization(page, "OAuth 2.0")
    steps.field(page, "Provider preset").select_option("google")
    for label in ("Client ID", "Client secret", "Scope"):
        expect(steps.field(page, label)).to_be_visible()
    for label in ("Token name", "Callback URL", "Auth URL", "Access token URL"):
        expect(steps.field(page, label)).to_be_hidden()
    expect(page.get_by_role("link", name="Open it")).to_have_attribute(
        "href", re.compile("console.cloud.google.com")
    )
    page.get_by_text("filled in for Google").click()
    expect(steps.field(page, "Auth URL")).to_have_value(re.compile("accounts.google.com"))
    steps.field(page, "Client secret").fill("seen while it is typed")
    page.get_by_role("button", name="Show").click()
    expect(steps.field(page, "Client secret")).to_have_attribute("type", "text")
    page.context.watch.expect("beforeunload")  # type: ignore[attr-defined]


def test_send_test_saves_what_was_changed_and_shows_the_answer_on_the_form(
    page: Page, engine: None, receiver: Receiver
) -> None:
    webhook = make_webhook(name="CRM", url=f"{receiver.url}/open/")
    page.goto(f"{steps.LIST}{webhook.pk}/edit/")
    steps.field(page, "Method").select_option("PUT")
    page.get_by_role("button", name="Send test").first.click()
    expect(panel(page, "Test").get_by_text("Succeeded")).to_be_visible()
    expect(panel(page, "Test").get_by_text(f"PUT {receiver.url}/open/")).to_be_visible()
    expect(steps.field(page, "Method")).to_have_value("PUT")


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
    expect(next_step(page)).to_contain_text("did not accept the last event")
    expect(next_step(page).get_by_role("link", name="Send a test")).to_be_visible()


def test_the_words_of_a_status_are_explained_where_they_are_read(page: Page) -> None:
    make_webhook(name="CRM")
    page.goto(steps.LIST)
    page.get_by_text("What Active, Paused, On hold, Retrying and Failing mean").click()
    for word in ("Paused", "On hold", "Retrying", "Failing"):
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
