"""The tour: brings a page into one state after the other and has each one photographed.

The order is that of an admin's first days: log in, a key, forms, a token, deliveries, repairs.
"""

import re

from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.screenshots import connections, deliveries, forms, lists
from tests.screenshots.camera import Photograph
from tests.screenshots.product import RunningProduct


def tour(page: Page, product: RunningProduct, photograph: Photograph) -> None:
    """Walk through the product as its first admin would."""
    _login(page, product, photograph)
    key = _api_key(page, photograph)
    forms.tour(page, product, photograph)
    forms.token(page, product, photograph)
    connections.tour(page, product, photograph)
    deliveries.tour(page, product, photograph, key)
    lists.tour(page, photograph)
    _alert_channels(page, product, photograph)
    _help(page, photograph)
    _around(page, photograph)
    lists.nothing_left(page, photograph)


def _login(page: Page, product: RunningProduct, photograph: Photograph) -> None:
    page.goto("/")
    photograph("login")
    steps.log_in(page, "admin", "not the password")
    expect(page.get_by_role("alert")).to_be_visible()
    photograph("login-refused")
    steps.log_in(page, "admin", product.password)
    expect(page.get_by_role("heading", name="Webhooks 2.0")).to_be_visible()
    photograph("list-sandbox")


def _api_key(page: Page, photograph: Photograph) -> str:
    page.goto("/admin/webhooks/apikey/add/")
    page.get_by_label("Name").fill("Telephony")
    page.get_by_role("button", name="Save", exact=True).click()
    key = page.get_by_label("API key", exact=True).input_value()
    photograph("api-key", docs=True)
    page.get_by_role("link", name="Done").click()
    photograph("api-keys")
    return key


def _alert_channels(page: Page, product: RunningProduct, photograph: Photograph) -> None:
    page.goto(f"{steps.LIST}alerts/")
    photograph("alert-channels-none")
    page.goto(f"{steps.LIST}alerts/add/webhook/")
    steps.field(page, "Name").fill("On call")
    steps.field(page, "URL").fill(f"{product.receiver.url}/open/")
    page.get_by_text("Only some webhooks").click()
    photograph("alert-channel-new")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Send test: On call").click()
    expect(page.get_by_text("was accepted.")).to_be_visible()
    photograph("alert-channels")
    page.get_by_role("link", name="Delete On call").click()
    photograph("alert-channel-delete")


def _help(page: Page, photograph: Photograph) -> None:
    for name in ("events", "events/call.incoming.after", "receivers"):
        page.goto(f"{steps.LIST}help/{name}/")
        photograph(f"help-{name.replace('/', '-')}")


def _around(page: Page, photograph: Photograph) -> None:
    """Photograph what is not part of a webhook."""
    page.goto(steps.LIST)
    page.get_by_role("button", name="Keyboard shortcuts").click()
    photograph("shortcuts", part=page.get_by_role("dialog"))
    page.keyboard.press("Escape")
    page.get_by_role("banner").locator("summary").click()
    photograph("user-menu")
    page.goto(f"{steps.LIST}time-zone/?next={steps.LIST}")
    photograph("time-zone")
    page.goto(steps.LIST)
    page.get_by_role("link", name="Open the receiver").evaluate("a => a.removeAttribute('target')")
    page.get_by_role("link", name="Open the receiver").click()
    photograph("receiver")
    page.goto("/admin/")
    photograph("administration")
    page.goto("/admin/webhooks/auditentry/")
    photograph("admin-audit", docs=True)
    page.context.watch.expect("404")  # type: ignore[attr-defined]
    page.goto("/integrations/webhooks/999999/")
    expect(page.get_by_role("heading")).to_have_text(re.compile("."))
    photograph("not-found")
