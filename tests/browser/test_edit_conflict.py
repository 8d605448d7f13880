"""Two people edit one form, in real Chromium."""

import pytest
from playwright.sync_api import expect

from tests.browser import steps
from tests.browser.steps import OpenPage
from tests.factories import make_webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def test_the_second_of_two_people_is_warned_and_overwrites_by_saving_again(
    open_page: OpenPage,
) -> None:
    webhook = make_webhook(name="CRM", url="http://127.0.0.1:9/hook")
    address = f"/integrations/webhooks/{webhook.pk}/edit/"
    first, second = open_page(), open_page()
    first.goto(address)
    second.goto(address)
    steps.field(first, "Name").fill("Theirs")
    steps.save(first)
    expect(first.get_by_text("The changes were saved.")).to_be_visible()
    steps.field(second, "URL").fill("http://127.0.0.1:9/mine")
    steps.save(second)
    reported = second.get_by_role("alert").filter(has_text="changed while you were editing")
    expect(reported).to_contain_text("Name")
    expect(steps.field(second, "URL")).to_have_value("http://127.0.0.1:9/mine")
    steps.save(second)
    expect(second.get_by_text("The changes were saved.")).to_be_visible()
    webhook.refresh_from_db()
    assert (webhook.name, webhook.url) == ("CRM", "http://127.0.0.1:9/mine")
