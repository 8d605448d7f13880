"""The tour: brings a page into one state after the other and has each photographed."""

import re
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.screenshots.product import Product

# Name of the picture, what to show; `part` alone when it is given.
Photograph = Callable[..., None]

CALL: dict[str, Any] = {
    "call_id": "c-20417",
    "call_started_at": "2026-03-02T09:14:05Z",
    "call_type": "incoming",
    "caller": "+380441234567",
    "disposition": "answered",
    "talk_seconds": 72,
}


def tour(page: Page, product: Product, photograph: Photograph) -> None:
    """Walk through the product as its first admin would."""
    page.goto("/")
    photograph("login")
    steps.log_in(page, "admin", product.password)
    key = _api_key(page, photograph)
    _form(page, product, photograph)
    _token(page, product, photograph)
    _deliveries(page, product, photograph, key)
    _pages(page, photograph)
    _nothing_left(page, photograph)


def _api_key(page: Page, photograph: Photograph) -> str:
    page.goto("/admin/webhooks/apikey/add/")
    page.get_by_label("Name").fill("Telephony")
    page.get_by_role("button", name="Save", exact=True).click()
    key = page.get_by_label("API key", exact=True).input_value()
    photograph("api-key")
    page.get_by_role("link", name="I have copied it").click()
    photograph("api-keys")
    return key


def _form(page: Page, product: Product, photograph: Photograph) -> None:
    page.goto(steps.NEW)
    photograph("form-new")
    steps.field(page, "URL").fill("http://10.0.0.1/hook")
    steps.fill_basic(page, login="with:colon")
    steps.save(page)
    expect(page.get_by_role("alert")).to_be_visible()
    photograph("form-mistakes")
    for name, path in (
        ("CRM: every call", "basic/crm"),
        ("Old CRM", "status/500"),
        ("Sheets export", "status/410"),
    ):
        page.goto(steps.NEW)
        steps.fill_request(page, name=name, url=f"{product.receiver.url}/{path}")
        page.get_by_role("checkbox", name="Outgoing calls", exact=False).first.check()
        steps.fill_basic(page)
        if path == "basic/crm":
            photograph("form-basic")
            part = page.get_by_role("region", name="Authorization", exact=True)
            photograph("authorization-basic", part=part, docs=True)
        steps.save(page)
        expect(page.get_by_text("was created.")).to_be_visible()
        if path == "basic/crm":
            photograph("form-secret-shown-once")
            page.reload()
            result = steps.send_test(page)
            photograph("test-result")
            photograph("test-result-panel", part=result, docs=True)


def _token(page: Page, product: Product, photograph: Photograph) -> None:
    page.goto(steps.LIST)
    page.get_by_role("link", name="Edit Sandbox: OAuth 2.0").click()
    photograph("form-oauth")
    part = page.get_by_role("region", name="Authorization", exact=True)
    photograph("authorization-oauth", part=part, docs=True)
    _get_token(page, "Deny", photograph)
    photograph("token-denied", part=steps.token_panel(page))
    page.reload()
    _get_token(page, "Approve", photograph)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    photograph("token-valid", part=steps.token_panel(page), docs=True)
    photograph("form-oauth-with-token")


def _get_token(page: Page, answer: str, photograph: Photograph) -> None:
    steps.get_token(page)
    if page.get_by_label("User name").is_visible():
        photograph("provider-login")
        steps.log_in_at_provider(page)
    expect(page.get_by_role("button", name=answer)).to_be_visible()
    if answer == "Approve":
        photograph("provider-consent")
    page.get_by_role("button", name=answer).click()


def _deliveries(page: Page, product: Product, photograph: Photograph, key: str) -> None:
    _publish(page, key, count=6)
    product.receiver.wait_for(6, path_prefix="/bearer/")
    product.provider.expire_tokens()
    product.provider.revoke_grants()
    _publish(page, key, count=3)
    page.goto(steps.LIST)
    _reload_until_quiet(page)
    photograph("list", docs=True)
    page.get_by_role("link", name="Sandbox: OAuth 2.0", exact=True).click()
    photograph("webhook-on-hold", docs=True)
    page.get_by_role("link", name="Manage authorization").click()
    photograph("token-lost", part=steps.token_panel(page))
    page.goto("/admin/webhooks/delivery/")
    photograph("log", docs=True)
    page.get_by_role("row").filter(has_text="Old CRM").first.get_by_role("rowheader").get_by_role(
        "link"
    ).click()
    photograph("log-delivery", docs=True)
    page.get_by_role("link", name="evt_").click()
    photograph("log-event")
    page.goto("/admin/webhooks/delivery/?q=nothing")
    photograph("log-nothing-found")
    page.goto("/admin/webhooks/event/")
    photograph("log-events")
    page.goto("/admin/webhooks/oauthexchange/")
    photograph("log-exchanges")


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
    """Wait until the grant is known to be lost and only the broken receiver has a delivery due."""
    for _ in range(50):
        is_lost = page.get_by_text("Needs re-authorization").is_visible()
        waiting = page.get_by_role("cell", name=re.compile("^(Pending|Sending)")).count()
        if is_lost and waiting <= 1:
            return
        page.wait_for_timeout(200)
        page.reload()
    raise AssertionError("The engine did not get there in time.")


def _pages(page: Page, photograph: Photograph) -> None:
    page.goto(steps.LIST)
    page.get_by_role("link", name="CRM: every call", exact=True).click()
    photograph("webhook")
    page.get_by_role("link", name="Delete").click()
    photograph("webhook-delete")
    page.goto(steps.LIST)
    page.get_by_role("link", name="Open the receiver").evaluate("a => a.removeAttribute('target')")
    page.get_by_role("link", name="Open the receiver").click()
    photograph("receiver")
    page.goto("/admin/")
    photograph("administration")
    page.context.watch.expect("404")  # type: ignore[attr-defined]
    page.goto("/integrations/webhooks/999999/")
    photograph("not-found")


def _nothing_left(page: Page, photograph: Photograph) -> None:
    page.goto(steps.LIST)
    while (link := page.get_by_role("link", name="Delete ").first).is_visible():
        link.click()
        page.get_by_role("button", name="Delete webhook").click()
        expect(page.get_by_text("is deleted.")).to_be_visible()
    page.reload()
    photograph("list-empty")
