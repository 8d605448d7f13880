"""Scenes of the webhook's form and of its access token."""

import re

from playwright.sync_api import Page, expect

from tests.browser import steps
from tests.screenshots.camera import Photograph
from tests.screenshots.product import RunningProduct

CURL = """curl -X PUT 'https://crm.example.com/api/calls?source=pbx' -u demo-login:demo-password \\
  -H 'X-Team: sales' -H 'Content-Type: application/json' -d '{"phone": "380441234567"}'"""


def tour(page: Page, product: RunningProduct, photograph: Photograph) -> None:
    _beginning(page, photograph)
    for name, path in (
        ("CRM: every call", "basic/crm"),
        ("Old CRM", "status/500"),
        ("Sheets export", "status/410"),
    ):
        page.goto(steps.NEW)
        steps.fill_request(page, name=name, url=f"{product.receiver.url}/{path}")
        steps.choose_events(page, "Outgoing calls all, also those added later")
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
            _sections(page, photograph)
    product.write_history()


def _beginning(page: Page, photograph: Photograph) -> None:
    page.goto(steps.NEW)
    photograph("form-new", docs=True)
    page.locator("#curl-paste > summary").click()
    page.get_by_label("cURL command").fill(CURL)
    page.get_by_role("button", name="Fill in the form").click()
    expect(page.get_by_text("Filled in from the command:")).to_be_visible()
    photograph("form-filled-by-curl")
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(steps.NEW)
    steps.field(page, "URL").fill("http://10.0.0.1/hook")
    steps.fill_basic(page, login="with:colon")
    steps.save(page)
    expect(page.get_by_role("alert").first).to_be_visible()
    photograph("form-mistakes", docs=True)


def _sections(page: Page, photograph: Photograph) -> None:
    """Photograph each card of the form with values in it."""
    conditions = steps.unfold(page, "filter")
    conditions.get_by_role("button", name="Missed calls").click()
    expect(conditions.get_by_label("Value, condition 1")).to_be_visible()
    conditions.get_by_role("button", name="Longer than …").click()
    expect(conditions.get_by_label("Value, condition 2")).to_be_visible()
    page.wait_for_load_state("networkidle")
    photograph("filter", part=conditions, docs=True)
    content = steps.unfold(page, "parameters")
    content.get_by_role("radio", name="Chosen parameters").check()
    photograph("form-parameters", part=content)
    content.get_by_role("radio", name="JSON body").check()
    page.get_by_label("JSON body").last.fill('{"phone": "{{ caller_e164 }}", "team": "sales"}')
    page.wait_for_load_state("networkidle")
    photograph("content", part=content, docs=True)
    photograph("preview", part=page.locator("#preview-card"), docs=True)
    for place, picture in (("delivery", "form-delivery"), ("alerts", "alerts")):
        part = steps.unfold(page, place)
        photograph(picture, part=part, docs=True)
    page.get_by_label("Recipients").fill("ops@example.com")
    page.get_by_role("button", name="Send test email").click()
    expect(page.locator("#test-mail .alert")).to_be_visible()
    photograph("alerts-test-mail", part=page.locator("details.card#alerts"))
    photograph("form-in-use")


def token(page: Page, product: RunningProduct, photograph: Photograph) -> None:
    page.goto(steps.NEW)
    steps.choose_authorization(page, "OAuth 2.0")
    steps.field(page, "Provider preset").select_option(index=2)
    page.wait_for_load_state("networkidle")
    photograph("form-oauth-preset")
    page.goto(steps.LIST)
    page.get_by_role("link", name="Edit Sandbox: OAuth 2.0").click()
    photograph("form-oauth")
    part = page.get_by_role("region", name="Authorization", exact=True)
    photograph("authorization-oauth", part=part, docs=True)
    _get(page, "Deny", photograph)
    photograph("token-denied", part=steps.token_panel(page), docs=True)
    page.reload()
    _get(page, "Approve", photograph)
    expect(page.get_by_text("The access token was stored.")).to_be_visible()
    photograph("token-valid", part=steps.token_panel(page), docs=True)
    photograph("form-oauth-with-token")
    page.get_by_role("button", name=re.compile("^Check")).first.click()
    page.wait_for_load_state("networkidle")
    photograph("token-check")


def _get(page: Page, answer: str, photograph: Photograph) -> None:
    steps.get_token(page)
    button = page.get_by_role("button", name=answer)
    expect(button.or_(page.get_by_label("User name"))).to_be_visible()
    if not button.is_visible():
        photograph("provider-login")
        steps.log_in_at_provider(page)
    expect(button).to_be_visible()
    if answer == "Approve":
        photograph("provider-consent")
    button.click()
