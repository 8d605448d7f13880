"""The delivery log, a delivery's page and resends in real Chromium."""

import datetime as dt
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.factories import make_delivery, make_webhook
from tests.log_rows import make_attempt
from tests.sandbox import Receiver
from webhooks import events
from webhooks.delivery import resends
from webhooks.models import Attempt, Delivery, Outcome, Resend, ResendStatus, Status, Trigger

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once

LOG = "/integrations/webhooks/deliveries/"
ANSWER = b'{"ok":false,"items":[{"n":1,"deep":{"er":[true,null]}}],"text":"a\\"b\xe2\x80\xae"}'


def page_of(delivery: Delivery) -> str:
    return reverse("webhooks:delivery", args=[delivery.pk])


def settle(delivery: Delivery, status: str = Status.FAILED, **fields: Any) -> Delivery:
    given = {"next_attempt_at": None, "finished_at": timezone.now(), "attempt_count": 1, **fields}
    Delivery.objects.filter(pk=delivery.pk).update(status=status, **given)
    return delivery


def attempt_of(delivery: Delivery, number: int = 1, **fields: Any) -> Attempt:
    """Save an attempt with a JSON response; each starts a minute after the one before."""
    given = {
        "started_at": timezone.now() - dt.timedelta(minutes=9 - number),
        "response_headers": "HTTP/1.1 503 Busy\nContent-Type: application/json",
        "response_body": ANSWER,
        "response_size": len(ANSWER),
        **fields,
    }
    return make_attempt(delivery, number, **given)


def response(page: Page) -> Any:
    return page.get_by_role("region", name="Response").first


# A delivery


def test_json_is_coloured_and_folded_by_keyboard(page: Page) -> None:
    delivery = settle(make_delivery(make_webhook()))
    attempt_of(delivery)
    page.goto(page_of(delivery))
    body = response(page).get_by_role("group", name="Body")
    expect(body.locator(".json-key").first).to_have_text('"ok"')
    expect(body.locator(".json-literal").first).to_have_text("false")
    expect(body.get_by_text('"deep"')).to_be_visible()
    items = body.locator("summary", has_text='"items"')
    items.focus()
    page.keyboard.press("Enter")
    expect(body.get_by_text('"deep"')).to_be_hidden()
    expect(body.get_by_text('"text"')).to_be_visible()


def test_json_without_javascript_is_the_same_text(page: Page, plain_page: Page) -> None:
    delivery = settle(make_delivery(make_webhook()))
    attempt_of(delivery)
    texts = []
    for one in (page, plain_page):
        one.goto(page_of(delivery))
        texts.append(response(one).get_by_role("group", name="Body").first.text_content())
    assert texts[0] == texts[1]
    assert '"deep": {\n' in (texts[0] or "")


def test_hostile_content_is_shown_as_text_with_its_tricks_as_escapes(page: Page) -> None:
    webhook = make_webhook(name="<img src=x onerror=alert(1)>")
    delivery = settle(make_delivery(webhook, note="<script>alert(2)</script>"))
    attempt_of(
        delivery,
        response_headers="HTTP/1.1 500 \x1b[2J\nX-<b>: \u202eevil",
        response_body=b"<script>alert(3)</script>\x1b[31m\xe2\x80\xae\xff text of a receiver",
        error="<script>alert(4)</script>",
    )
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(page_of(delivery))
    shown = response(page)
    for escape in ("\\x1b", "\\u202e", "\\xff"):
        expect(shown.locator(".escape", has_text=escape).first).to_be_visible()
    expect(page.get_by_text("<script>alert(3)</script>")).to_be_visible()
    assert "\u202e" not in page.content()
    assert page.locator("main script").count() == 0


def test_an_attempt_is_copied_as_curl(open_page: OpenPage) -> None:
    webhook = make_webhook(authorization_type="basic", basic_login="svc", basic_password="pw")
    delivery = settle(make_delivery(webhook))
    attempt_of(delivery)
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(page_of(delivery))
    page.get_by_text("Copy as cURL").click()
    page.get_by_role("button", name="Copy the command").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("curl --globoff --path-as-is --request POST")
    assert "https://crm.example/hook" in copied
    assert "pw" not in copied.replace("password", "")


def test_two_attempts_are_compared(page: Page) -> None:
    delivery = settle(make_delivery(make_webhook()), attempt_count=3)
    attempt_of(delivery, 1)
    attempt_of(delivery, 2, status_code=None, outcome=Outcome.TIMEOUT, response_body=b"")
    attempt_of(delivery, 3, response_body=ANSWER.replace(b"false", b"true"), total_ms=900.0)
    page.goto(page_of(delivery))
    page.get_by_label("Compare attempt").select_option("3")
    page.get_by_label("with").select_option("1")
    page.get_by_role("button", name="Compare").click()
    compared = page.get_by_role("region", name="Attempts 1 and 3 compared")
    expect(compared.get_by_text("50 ms")).to_be_visible()
    expect(compared.locator(".diff-removed")).to_contain_text('"ok": false')
    expect(compared.locator(".diff-added")).to_contain_text('"ok": true')
    page.get_by_text("What changed since attempt 2").click()
    expect(page.locator("#attempt-3").get_by_text("no response")).to_be_visible()


def test_resend_delivers_and_the_page_says_so_without_a_reload(
    page: Page, engine: None, receiver: Receiver
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/")
    events.pause(webhook)
    delivery = make_delivery(webhook)
    Delivery.objects.filter(pk=delivery.pk).update(
        status=Status.PENDING,
        hold_reason="",
        next_attempt_at=timezone.now() + dt.timedelta(hours=5),
    )
    events.resume(webhook)
    page.goto(page_of(delivery))
    expect(page.get_by_text("Waiting for its first attempt.")).to_be_visible()
    page.get_by_role("button", name="Resend", exact=True).click()
    expect(page.get_by_text("Succeeded at the first attempt.", exact=True)).to_be_visible()
    expect(page.locator("pre[data-json]")).to_have_count(0)
    assert len(receiver.requests("/open/")) == 1


def test_an_edited_copy_loses_nothing_typed_and_is_marked(page: Page) -> None:
    delivery = settle(make_delivery(make_webhook(), caller="380441234567"))
    page.goto(page_of(delivery))
    page.get_by_role("link", name="Edit and resend").click()
    payload = page.get_by_label("Payload")
    payload.fill('{"call_id": "call-1", "caller": "1"')
    page.context.watch.expect("422")  # type: ignore[attr-defined]
    page.get_by_role("button", name="Send the copy").click()
    expect(page.get_by_text("JSON", exact=False).first).to_be_visible()
    expect(payload).to_have_value('{"call_id": "call-1", "caller": "1"')
    payload.fill('{"call_id": "call-1", "caller": "1"}')
    page.get_by_role("button", name="Send the copy").click()
    expect(page.get_by_text("An edited copy, sent by a person.")).to_be_visible()
    expect(page.get_by_role("link", name=delivery.event_id)).to_be_visible()


# The log


def test_the_log_narrows_as_a_filter_is_chosen_and_keeps_it_on_the_way(page: Page) -> None:
    webhook = make_webhook(name="CRM")
    failed = settle(make_delivery(webhook, call_id="call-failed"), status_code=404)
    settle(make_delivery(webhook, call_id="call-fine"), Status.SUCCEEDED, status_code=200)
    page.goto(LOG)
    expect(page.locator(".log-table tbody tr")).to_have_count(2)
    page.get_by_label("Status").select_option(label="Failed")
    expect(page.locator(".log-table tbody tr")).to_have_count(1)
    expect(page.get_by_label("Status")).to_have_value("failed")
    page.get_by_text("More filters").click()
    page.get_by_label("Response code").fill("4xx")
    page.get_by_label("Response code").press("Enter")
    expect(page.get_by_text("call-failed")).to_be_visible()
    page.get_by_role("link", name="call.incoming.after").click()
    assert page_of(failed) in page.url


def test_a_selection_is_sent_again_with_progress_that_survives_a_reload(page: Page) -> None:
    webhook = make_webhook(name="CRM")
    rows = [settle(make_delivery(webhook)) for _ in range(3)]
    page.goto(LOG)
    page.get_by_role("checkbox", name=f"Select {rows[0].pk}").check()
    page.get_by_role("checkbox", name=f"Select {rows[2].pk}").check()
    expect(page.get_by_text("Selected: 2")).to_be_visible()
    page.get_by_role("button", name="Resend", exact=True).click()
    expect(page.get_by_role("heading", name="Resend 2 deliveries?")).to_be_visible()
    page.get_by_label("Deliveries per second").fill("1")
    page.get_by_role("button", name="Resend 2 deliveries").click()
    expect(page.get_by_text("0 of 2 resent")).to_be_visible()
    resends.advance_all()
    # The page refreshes without an action.
    expect(page.get_by_text("1 of 2 resent")).to_be_visible()
    page.reload()
    expect(page.get_by_text("1 of 2 resent")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped", exact=True).first).to_be_visible()
    assert Resend.objects.get().status == ResendStatus.STOPPED
    assert Delivery.objects.filter(trigger=Trigger.BULK).count() == 1


def test_the_count_of_a_resend_follows_what_is_chosen(page: Page) -> None:
    webhook = make_webhook(name="CRM")
    settle(make_delivery(webhook))
    settle(make_delivery(webhook), Status.SUCCEEDED)
    page.goto(reverse("webhooks:resend_create", args=[webhook.pk]))
    expect(page.get_by_text("1 delivery", exact=True)).to_be_visible()
    expect(page.get_by_label("Since this time")).to_be_hidden()
    page.get_by_role("radio", name="Everything").check()
    expect(page.get_by_text("2 deliveries", exact=True)).to_be_visible()
    page.get_by_role("radio", name="Custom").check()
    page.get_by_label("Since this time").fill("2099-01-01T00:00")
    expect(page.get_by_text("Nothing to resend")).to_be_visible()
    page.get_by_role("radio", name="Last hour").check()
    expect(page.get_by_text("2 deliveries", exact=True)).to_be_visible()
    page.get_by_role("button", name="Resend", exact=True).click()
    expect(page.get_by_text("0 of 2 resent")).to_be_visible()


def test_a_resend_works_without_javascript(plain_page: Page) -> None:
    webhook = make_webhook(name="CRM")
    settle(make_delivery(webhook))
    settle(make_delivery(webhook), Status.SUCCEEDED)
    plain_page.goto(reverse("webhooks:resend_create", args=[webhook.pk]))
    plain_page.get_by_role("radio", name="Everything").check()
    plain_page.get_by_role("button", name="Count again").click()
    expect(plain_page.get_by_text("2 deliveries", exact=True)).to_be_visible()
    expect(plain_page.get_by_role("radio", name="Everything")).to_be_checked()
    plain_page.get_by_role("button", name="Resend", exact=True).click()
    expect(plain_page.get_by_text("0 of 2 resent")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_fit_a_phone(open_page: OpenPage, scheme: str) -> None:
    webhook = make_webhook(name="A name that is long: " + "x" * 70)
    delivery = settle(make_delivery(webhook, call_id="c" * 64), attempt_count=3)
    for number in (1, 2, 3):
        attempt_of(delivery, number, response_body=b"b" * 3000, response_headers="X: " + "h" * 900)
    resend = Resend.objects.create(webhook=webhook, scope="all", rate=1, total=9, done=2)
    page = open_page(viewport={"width": 360, "height": 780}, color_scheme=scheme)
    for address in (
        LOG,
        page_of(delivery),
        f"{page_of(delivery)}?attempt=3&against=1",
        reverse("webhooks:delivery_edit", args=[delivery.pk]),
        reverse("webhooks:resend_create", args=[webhook.pk]),
        f"{reverse('webhooks:resend_selected')}?delivery={delivery.pk}",
        reverse("webhooks:resend", args=[resend.pk]),
        reverse("admin:webhooks_delivery_change", args=[delivery.pk]),
    ):
        page.goto(address)
        for summary in page.locator("main summary, #content summary").all():
            if summary.is_visible():
                summary.click()
        assert overflow(page) == 0, address


def boxes(page: Page, *selectors: str) -> list[Any]:
    return [page.locator(one).bounding_box() for one in selectors]


def test_a_row_of_the_log_covers_nothing_on_a_phone(open_page: OpenPage) -> None:
    settle(make_delivery(make_webhook(name="Warehouse")), status_code=None, trigger=Trigger.BULK)
    Delivery.objects.update(outcome=Outcome.TIMEOUT)
    page = open_page(viewport={"width": 360, "height": 780})
    page.goto(LOG)
    trigger, when = boxes(page, ".log-status .tag", ".log-when")
    assert trigger["y"] + trigger["height"] <= when["y"]
    event, webhook, reason = boxes(page, ".log-event", ".log-webhook", ".log-response")
    assert reason["y"] == webhook["y"]
    assert event["x"] + event["width"] == reason["x"] + reason["width"]


def test_the_header_stays_where_it_is_on_a_wide_page(open_page: OpenPage) -> None:
    page = open_page(viewport={"width": 1920, "height": 900})
    found = []
    for address in (steps.LIST, LOG):
        page.goto(address)
        found.append(boxes(page, ".brand", ".shell-tools"))
    assert found[0] == found[1]


def test_three_actions_lead_from_a_number_to_the_reason(page: Page) -> None:
    only_sales = {"variable": "department", "operator": "equals", "value": "Sales"}
    make_webhook(name="Sales CRM", filter=only_sales)
    for department in ("Support", "Legal"):
        payload = {"caller": "+380671234567", "department": department}
        events.publish("call.incoming.after", payload)
    page.goto(steps.LIST)
    actions = 0

    page.keyboard.press("/")
    actions += 1
    page.keyboard.type("067 123 45 67")
    actions += 1
    found = page.get_by_role("dialog", name="Search").get_by_role("link", name="call.incoming")
    expect(found).to_have_count(2)
    found.first.click()
    actions += 1
    expect(page.get_by_text("Filtered out")).to_be_visible()
    expect(page.get_by_text("Legal", exact=True).first).to_be_visible()
    assert actions == 3


def test_the_palette_opens_by_keys_walks_by_arrows_and_works_in_admin(page: Page) -> None:
    make_webhook(name="Warehouse")
    page.goto("/admin/webhooks/delivery/")
    page.keyboard.press("Control+k")
    palette = page.get_by_role("dialog", name="Search")
    page.keyboard.type("wareh")
    expect(palette.get_by_role("link", name="Warehouse")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Warehouse")).to_be_visible()


def test_a_result_stays_selected_when_newer_results_arrive(page: Page) -> None:
    """As for somebody who is faster than the results."""
    make_webhook(name="Warehouse")
    page.goto(steps.LIST)
    page.keyboard.press("Control+k")
    palette = page.get_by_role("dialog", name="Search")
    words, result = palette.get_by_role("searchbox"), palette.get_by_role("link", name="Warehouse")

    def search(text: str) -> None:
        """Search for other words without moving the focus to them."""
        with page.expect_response(lambda response: response.url.endswith(f"q={text}")):
            words.evaluate(
                "(input, text) => { input.value = text; input.dispatchEvent(new Event('input')) }",
                text,
            )

    search("ware")
    expect(result).to_be_visible()
    page.keyboard.press("ArrowDown")
    expect(result).to_be_focused()
    first = result.element_handle()
    search("wareh")
    page.wait_for_function("link => !link.isConnected", arg=first)
    expect(result).to_be_focused()
    search("nothing-like-it")
    expect(words).to_be_focused()


def test_the_search_works_without_scripts(open_page: OpenPage) -> None:
    make_webhook(name="Warehouse")
    page = open_page(java_script_enabled=False)
    page.goto(steps.LIST)
    page.get_by_role("link", name="Search").click()
    page.get_by_role("searchbox").fill("wareh")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="Warehouse").click()
    expect(page.get_by_role("heading", name="Warehouse")).to_be_visible()


def test_new_rows_arrive_until_they_are_stopped(page: Page) -> None:
    webhook = make_webhook()
    make_delivery(webhook, call_id="first-call")
    page.goto(LOG)
    rows = page.locator(".log-row")
    expect(rows).to_have_count(1)
    make_delivery(webhook, call_id="second-call")
    expect(rows).to_have_count(2)
    live = page.get_by_role("button", name="Live", exact=True)
    live.click()
    expect(live).to_have_attribute("aria-pressed", "false")
    # A click anywhere in the row opens the delivery.
    rows.first.locator(".log-webhook").click(force=True)
    expect(page.get_by_role("heading", name="call.incoming.after")).to_be_visible()
