"""Connections in real Chromium: chosen at once with JavaScript, by a form post without it."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.factories import make_webhook
from tests.ui.connections.test_views import make_connection, make_oauth_connection
from webhooks.models import Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/integrations/webhooks/connections/"


def test_a_connection_is_created_and_used_by_a_webhook(page: Page) -> None:
    page.goto(LIST)
    page.get_by_role("link", name="Create a connection").click()
    steps.field(page, "Name").fill("CRM login")
    steps.field(page, "Hosts").fill("http://127.0.0.1:9")
    steps.fill_basic(page)
    steps.save(page)
    expect(page.get_by_text("The connection “CRM login” was created.")).to_be_visible()
    webhook = make_webhook()
    page.goto(f"{steps.LIST}{webhook.pk}/edit/")
    page.evaluate("window.isSamePage = true")
    steps.field(page, "Credentials").select_option(
        label="CRM login (Basic authentication, only for http://127.0.0.1:9)"
    )
    expect(page.get_by_role("group", name="Authorization type")).to_be_hidden()
    panel = page.get_by_role("region", name="Connection")
    expect(panel.get_by_role("link", name="CRM login")).to_be_visible()
    assert page.evaluate("window.isSamePage")
    steps.save(page)
    expect(page.get_by_text("The changes were saved.")).to_be_visible()
    assert Webhook.objects.get(pk=webhook.pk).credential.name == "CRM login"
    page.goto(LIST)
    expect(page.get_by_role("link", name="1 webhook", exact=True)).to_be_visible()


def test_only_connections_for_the_typed_host_can_be_chosen(page: Page) -> None:
    connection = make_connection(allowed_hosts=["crm.example.com"])
    page.goto(steps.NEW)
    option = steps.field(page, "Credentials").locator(f"[value='{connection.pk}']")
    expect(option).to_be_enabled()
    steps.field(page, "URL").fill("https://other.example.com/hooks")
    expect(option).to_be_disabled()
    steps.field(page, "URL").fill("https://CRM.example.com/hooks")
    expect(option).to_be_enabled()
    page.on("dialog", lambda dialog: dialog.accept())


def test_without_javascript_a_button_shows_the_chosen_connection(plain_page: Page) -> None:
    connection = make_oauth_connection(allowed_hosts=["http://127.0.0.1:9"])
    plain_page.goto(f"{steps.LIST}{make_webhook().pk}/edit/")
    steps.field(plain_page, "Credentials").select_option(str(connection.pk))
    plain_page.get_by_role("button", name="Change credentials").click()
    panel = plain_page.get_by_role("region", name="Connection")
    expect(panel.get_by_text("No token")).to_be_visible()
    expect(plain_page.get_by_role("group", name="Authorization type")).to_be_hidden()


def test_a_webhooks_own_login_becomes_a_connection(page: Page) -> None:
    webhook = make_webhook(
        authorization_type="basic", basic_login="demo", basic_password="pass word"
    )
    page.goto(f"{steps.LIST}{webhook.pk}/edit/")
    page.get_by_role("button", name="Save as connection").click()
    expect(page.get_by_text("are now the connection “CRM”")).to_be_visible()
    expect(page.get_by_role("region", name="Used by").get_by_role("link")).to_have_text("CRM")
