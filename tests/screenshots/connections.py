"""Scenes of connections: none, a new one, one in use, and one that cannot be deleted."""

from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.screenshots.camera import Photograph
from tests.screenshots.product import RunningProduct

LIST = "/integrations/webhooks/connections/"


def tour(page: Page, product: RunningProduct, photograph: Photograph) -> None:
    page.goto(LIST)
    photograph("connections-empty")
    page.get_by_role("link", name="Create a connection").click()
    photograph("connection-new", docs=True)
    steps.field(page, "Hosts").fill("https://crm.example.com/hooks")
    steps.save(page)
    expect(page.get_by_role("alert").first).to_be_visible()
    photograph("connection-mistakes")
    page.goto(steps.LIST)
    page.get_by_role("link", name="Edit CRM: every call").click()
    page.get_by_role("button", name="Save as connection").click()
    expect(page.get_by_text("are now the connection")).to_be_visible()
    photograph("connection-edit")
    page.goto(LIST)
    photograph("connections", docs=True)
    page.get_by_role("table").get_by_role("link").first.click()
    photograph("connection", docs=True)
    page.get_by_role("link", name="Delete").click()
    photograph("connection-delete")
    page.goto(steps.LIST)
    page.get_by_role("link", name="Edit CRM: every call").click()
    photograph("form-with-connection")
