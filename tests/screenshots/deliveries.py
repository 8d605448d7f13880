"""Scenes of deliveries: the webhook's page, the log, one delivery, resends, and Django admin."""

import re
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.screenshots.camera import Photograph
from tests.screenshots.product import RunningProduct

LOG = "/integrations/webhooks/deliveries/"
CALL: dict[str, Any] = {
    "call_id": "c-20417",
    "call_started_at": "2026-03-02T09:14:05Z",
    "call_type": "incoming",
    "caller": "+380441234567",
    "disposition": "answered",
    "talk_seconds": 72,
}


def tour(page: Page, product: RunningProduct, photograph: Photograph, key: str) -> None:
    page.context.watch.expect("422")  # type: ignore[attr-defined]
    page.goto(LOG)
    photograph("deliveries-few")
    _publish(page, key, count=6)
    product.receiver.wait_for(6, path_prefix="/bearer/")
    product.provider.expire_tokens()
    product.provider.revoke_grants()
    _publish(page, key, count=3)
    page.goto(steps.LIST)
    _reload_until_quiet(page)
    photograph("list", docs=True)
    page.get_by_role("link", name="Sandbox: OAuth 2.0", exact=True).click()
    _reload_until_shown(page)
    photograph("webhook-on-hold", docs=True)
    page.get_by_role("link", name="Manage authorization").click()
    photograph("token-lost", part=steps.token_panel(page), docs=True)
    page.goto("/integrations/webhooks/connections/grants/")
    photograph("grants")
    page.goto("/integrations/webhooks/status/")
    photograph("status")
    _webhook_pages(page, photograph)
    _log(page, photograph)
    _resend(page, photograph)
    _admin(page, photograph)


def _webhook_pages(page: Page, photograph: Photograph) -> None:
    for name, picture in (
        ("CRM: every call", "webhook"),
        ("Old CRM", "webhook-failing"),
        ("Sheets export", "webhook-paused"),
    ):
        page.goto(steps.LIST)
        page.get_by_role("link", name=name, exact=True).click()
        photograph(picture, docs=picture == "webhook")
    page.goto(steps.LIST)
    page.get_by_role("link", name="CRM: every call", exact=True).click()
    address = page.url
    page.goto(f"{address}why-not-sent/")
    photograph("why-not-sent", docs=True)
    page.goto(f"{address}changes/")
    photograph("changes")
    page.get_by_role("link", name="Restore this version").last.click()
    photograph("revert")
    page.goto(f"{address}signing-secret/")
    photograph("signing-secret")
    page.goto(address)
    page.get_by_role("link", name="Delete").click()
    photograph("webhook-delete")


def _log(page: Page, photograph: Photograph) -> None:
    page.goto(LOG)
    photograph("deliveries", docs=True)
    page.get_by_text("More filters").click()
    photograph("deliveries-more-filters")
    page.goto(f"{LOG}?q=nothing-like-this")
    photograph("deliveries-nothing-found")
    page.goto(LOG)
    _open(page, "Old CRM")
    photograph("delivery", docs=True)
    page.get_by_role("link", name="Edit and resend").click()
    photograph("delivery-edit", docs=True)
    page.get_by_label("Payload").fill("{not JSON")
    page.get_by_role("button", name="Send the copy").click()
    photograph("delivery-edit-mistake")
    page.goto(LOG)
    _open(page, "CRM: every call")
    photograph("delivery-succeeded")
    page.locator(".fact-strip").get_by_role("link", name=re.compile("^evt_")).click()
    expect(page.get_by_text("What each webhook did with this event")).to_be_visible()
    photograph("event")
    page.goto(f"{steps.LIST}search/?q=044 123 45 67")
    photograph("search")
    page.keyboard.press("Control+k")
    palette = page.get_by_role("dialog", name="Search")
    expect(palette.get_by_role("link", name="New webhook")).to_be_visible()
    photograph("search-palette", part=palette)
    page.goto(LOG)
    _open(page, "Sandbox: OAuth 2.0")
    photograph("delivery-held")


def _open(page: Page, webhook: str) -> None:
    row = page.get_by_role("row").filter(has_text=webhook).first
    row.get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Attempts")).to_be_visible()


def _resend(page: Page, photograph: Photograph) -> None:
    page.goto(steps.LIST)
    page.get_by_role("link", name="CRM: every call", exact=True).click()
    page.get_by_role("link", name="Resend since…").click()
    page.get_by_role("radio", name="Everything").check()
    page.wait_for_load_state("networkidle")
    photograph("resend-new", docs=True)
    page.get_by_role("button", name="Resend", exact=True).click()
    expect(page.get_by_role("heading", name=re.compile("^Resending"))).to_be_visible()
    photograph("resend", docs=True)


def _admin(page: Page, photograph: Photograph) -> None:
    page.goto("/admin/webhooks/delivery/")
    photograph("admin-log", docs=True)
    _open(page, "Old CRM")
    photograph("admin-delivery", docs=True)
    page.goto("/admin/webhooks/delivery/?q=nothing")
    photograph("admin-log-nothing-found")
    page.goto("/admin/webhooks/event/")
    photograph("admin-events")
    page.get_by_role("rowheader").first.get_by_role("link").click()
    photograph("admin-event")
    page.goto("/admin/webhooks/oauthexchange/")
    photograph("admin-exchanges")
    page.goto("/admin/webhooks/webhook/")
    photograph("admin-webhooks")


def _publish(page: Page, key: str, *, count: int) -> None:
    for number in range(count):
        event = {
            "type": "call.outgoing.after" if number % 3 else "call.incoming.after",
            "payload": {**CALL, "call_id": f"c-{20417 + number}"},
        }
        headers = {"Authorization": f"Bearer {key}"}
        answer = page.request.post("/api/v1/events", data=event, headers=headers)
        assert answer.status == 202, answer.text()


def _reload_until_quiet(page: Page) -> None:
    """Wait until the grant is lost and only the failing receiver has a delivery due."""
    for _ in range(50):
        cells = page.get_by_role("cell")
        is_lost = cells.filter(has_text="Needs re-authorization").count()
        waiting = cells.filter(has_text=re.compile("Waiting|Sending")).count()
        if is_lost and waiting <= 1:
            return
        page.wait_for_timeout(200)
        page.reload()
    raise AssertionError("The engine did not get there in time.")


def _reload_until_shown(page: Page) -> None:
    """Wait until the check for incidents, every 15 seconds, has found the lost grant."""
    for _ in range(40):
        if page.locator(".notice").count():
            return
        page.wait_for_timeout(1000)
        page.reload()
    raise AssertionError("No incident was opened in time.")
