"""Limits, alerts, order and pauses in real Chromium: what a person sees and presses."""

import datetime as dt

import pytest
from django.core import mail
from django.utils import timezone
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.factories import make_delivery, make_webhook
from tests.sandbox import Receiver
from webhooks import events
from webhooks.models import Delivery, PauseReason, Status, Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def edit(webhook: Webhook) -> str:
    return f"{steps.LIST}{webhook.pk}/edit/"


def test_limits_are_set_in_a_folded_section_that_says_what_is_set(page: Page) -> None:
    webhook = make_webhook()
    page.goto(edit(webhook))
    section = page.locator("#delivery")
    expect(section.get_by_text("no limits, default retries")).to_be_visible()
    expect(steps.field(page, "Rate limit")).to_be_hidden()
    steps.unfold(page, "delivery")
    steps.field(page, "Rate limit").fill("30")
    steps.field(page, "Per").select_option("minute")
    steps.field(page, "Retry schedule").fill("5s, 5")
    expect(section.get_by_text("changed, not saved yet")).to_be_visible()
    steps.save(page)
    expect(section.get_by_text("“5” has no unit")).to_be_visible()
    steps.field(page, "Retry schedule").fill("5s, 5m")
    steps.save(page)
    expect(section.get_by_text("At most 30 per minute, 2 retries within 5 min 5 s")).to_be_visible()
    webhook.refresh_from_db()
    assert webhook.retry_schedule_seconds == [5, 300]


def test_a_test_mail_is_sent_without_leaving_or_saving_the_form(page: Page) -> None:
    webhook = make_webhook()
    page.goto(edit(webhook) + "#id_alert_recipients")
    steps.field(page, "Name").fill("Changed")
    steps.field(page, "Recipients").fill("ops@example.com")
    page.get_by_role("button", name="Send test email").click()
    expect(page.get_by_text("A test email was sent to ops@example.com.")).to_be_visible()
    expect(steps.field(page, "Name")).to_have_value("Changed")
    assert [message.to for message in mail.outbox] == [["ops@example.com"]]
    webhook.refresh_from_db()
    assert webhook.alert_recipients == []


def test_a_button_that_asks_for_something_keeps_the_focus(page: Page) -> None:
    page.goto(edit(make_webhook(alert_recipients=["ops@example.com"])))
    steps.unfold(page, "alerts")
    button = page.get_by_role("button", name="Send test email")
    button.press("Enter")
    expect(page.get_by_text("A test email was sent to ops@example.com.")).to_be_visible()
    expect(button).to_be_focused()
    section = steps.unfold(page, "signing")
    section.get_by_text("Rotate the secret…").click()
    section.get_by_role("button", name="Rotate", exact=True).press("Enter")
    # The response replaces the button.
    expect(page.get_by_role("status").filter(has_text="Copy the secret")).to_be_focused()


def test_a_test_mail_without_javascript_keeps_everything_typed(plain_page: Page) -> None:
    plain_page.goto(edit(make_webhook()))
    steps.field(plain_page, "Name").fill("Changed")
    plain_page.locator("#alerts > summary").click()
    steps.field(plain_page, "Recipients").fill("ops@example.com")
    plain_page.get_by_role("button", name="Send test email").click()
    expect(plain_page.get_by_text("A test email was sent to")).to_be_visible()
    expect(steps.field(plain_page, "Name")).to_have_value("Changed")


def test_a_blocking_head_is_cancelled_and_the_rest_arrives_in_order(
    page: Page, engine: None, receiver: Receiver
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/", is_ordered=True, is_active=True)
    # Hold the rows while the head is made to look failed.
    events.pause(webhook)
    rows = [make_delivery(webhook, number=number) for number in range(3)]
    Delivery.objects.filter(pk=rows[0].pk).update(
        status=Status.PENDING,
        hold_reason="",
        next_attempt_at=timezone.now() + dt.timedelta(hours=1),
        failure_count=1,
        attempt_count=1,
        outcome="server_error",
        status_code=500,
    )
    events.resume(webhook)
    page.goto(f"{steps.LIST}{webhook.pk}/")
    expect(page.get_by_text(f"Delivery {rows[0].pk} blocks the 2 behind it.")).to_be_visible()
    assert receiver.requests("/open/") == []
    page.get_by_role("button", name="Cancel it").click()
    expect(page.get_by_text("The deliveries behind it are sent now.")).to_be_visible()
    received = receiver.wait_for(2, path_prefix="/open/")
    assert [request.json()["number"] for request in received] == [1, 2]


def test_a_webhook_paused_by_410_is_tested_then_resumed(
    page: Page, engine: None, receiver: Receiver
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/")
    events.pause(webhook, PauseReason.GONE)
    for _ in range(2):
        make_delivery(webhook)
    page.goto(f"{steps.LIST}{webhook.pk}/")
    page.get_by_role("button", name="Send test").click()
    expect(page.get_by_text("Succeeded", exact=True)).to_be_visible()
    page.goto(f"{steps.LIST}{webhook.pk}/")
    expect(page.get_by_text("The receiver accepted a test")).to_be_visible()
    page.get_by_text("Cancel them instead…").click()
    page.get_by_role("button", name="Cancel the 2 and resume").click()
    expect(page.get_by_text("2 deliveries on hold were cancelled").first).to_be_visible()
    assert len(receiver.requests("/open/")) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_new_parts_fit_a_phone(open_page: OpenPage, scheme: str) -> None:
    webhook = make_webhook(is_ordered=True, alert_recipients=["a" * 60 + "@example.com"])
    make_delivery(webhook)
    events.pause(webhook, PauseReason.FAILING)
    page = open_page(viewport={"width": 360, "height": 780}, color_scheme=scheme)
    for address in (f"{steps.LIST}{webhook.pk}/", edit(webhook), steps.LIST):
        page.goto(address)
        for summary in page.locator("details.fold > summary").all():
            summary.click()
        assert overflow(page) == 0, address


@pytest.mark.once
def test_alerts_are_set_and_muted_for_a_while(page: Page) -> None:
    webhook = make_webhook(name="CRM", alert_recipients=["ops@example.com"])
    page.goto(edit(webhook) + "#alerts")
    card = steps.unfold(page, "alerts")
    card.get_by_label("Failures in a row").fill("0")
    steps.save(page)
    expect(card.get_by_text("a whole number from 1 to 10,000")).to_be_visible()
    card.get_by_label("Failures in a row").fill("5")
    card.get_by_label("Mute alerts").check()
    card.get_by_label("Muted for").select_option("8 hours")
    steps.save(page)
    expect(page.get_by_text("The changes were saved.")).to_be_visible()
    expect(card.locator("summary")).to_contain_text("Muted until")
    webhook.refresh_from_db()
    assert webhook.alert_after_failures == 5
    assert webhook.alerts_muted_until is not None
