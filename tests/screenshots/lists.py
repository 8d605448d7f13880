"""Scenes of the list: with search, selection, export and import, and empty at the end."""

import json

from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.screenshots.camera import Photograph

IMPORT = f"{steps.LIST}import/"
FILE = {
    "version": 1,
    "webhooks": [
        {
            "name": "Missed calls to the duty officer",
            "url": "https://example.com/hooks/missed",
            "event_types": ["call.incoming.after"],
            "authorization_type": "basic",
            "basic_login": "pbx",
        },
        {"name": "CRM: every call", "timeout_seconds": 30},
        {"name": "Typing mistake", "url": "ftp://example.com/", "event_types": ["call.*"]},
    ],
}


def tour(page: Page, photograph: Photograph) -> None:
    page.goto(steps.LIST)
    page.get_by_label("Select CRM: every call").check()
    page.get_by_label("Select Old CRM").check()
    photograph("list-chosen", docs=True)
    page.get_by_role("form", name="Selected webhooks").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Delete 2 webhooks?")).to_be_visible()
    photograph("bulk-delete")
    page.goto(f"{steps.LIST}?q=nothing-like-this")
    photograph("list-nothing-found")
    page.goto(steps.LIST)
    page.locator("details.words > summary").click()
    photograph("list-words")
    _import(page, photograph)


def _import(page: Page, photograph: Photograph) -> None:
    page.goto(IMPORT)
    photograph("import")
    page.locator("summary", has_text="Or paste").click()
    page.get_by_label("JSON").fill('{"version": 1, "webhooks": [')
    page.get_by_role("button", name="Preview import").click()
    expect(page.get_by_text("The text is not JSON.")).to_be_visible()
    photograph("import-mistake")
    page.get_by_label("JSON").fill(json.dumps(FILE))
    page.get_by_role("button", name="Preview import").click()
    expect(page.get_by_text("Nothing is saved yet.")).to_be_visible()
    photograph("import-preview", docs=True)
    page.get_by_role("button", name="Import selected webhooks").click()
    expect(page.get_by_role("heading", name="Import finished")).to_be_visible()
    photograph("import-done")


def nothing_left(page: Page, photograph: Photograph) -> None:
    """Delete everything, because the empty list is the first page of a new site."""
    page.goto(steps.LIST)
    page.get_by_label("Select all on this page").check()
    page.get_by_role("form", name="Selected webhooks").get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete ", exact=False).last.click()
    expect(page.get_by_text("were deleted.")).to_be_visible()
    photograph("list-deleted")
    page.goto(f"{steps.LIST}trash/")
    photograph("trash")
    page.goto(steps.LIST)
    photograph("list-empty", docs=True)
