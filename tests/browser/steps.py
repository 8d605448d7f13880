"""What a person does on the pages, by labels and roles: the words that people see."""

from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.sandbox import AUTHORIZATION_CLIENT, Provider
from tests.sandbox.clients import BASIC_LOGIN, BASIC_PASSWORD, SandboxClient

# The fixture `open_page`.
OpenPage = Callable[..., Page]

NEW = "/integrations/webhooks/new/"
LIST = "/integrations/webhooks/"
AFTER_A_CALL = "Incoming call: after the call Everything"

# Controls to press or fill in, without links to other parts of the page or other pages.
CONTROLS = """
[...document.querySelectorAll("main :is(input, select, textarea, button, summary, a[href])")]
  .filter((one) => !one.closest("nav") && one.checkVisibility({visibilityProperty: true}))
  .filter((one) => one.offsetWidth > 1).length
"""
WORDS = "document.querySelector('main').innerText.split(/\\s+/).filter(Boolean).length"


def log_in(page: Page, login: str, password: str) -> None:
    page.get_by_label("Login").fill(login)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


def field(page: Page, label: str) -> Locator:
    """Return the control with exactly this label: “Name” does not match “Token name”."""
    return page.get_by_label(label, exact=True)


def fill_request(page: Page, *, name: str, url: str) -> None:
    field(page, "Name").fill(name)
    field(page, "URL").fill(url)
    choose_events(page, AFTER_A_CALL)


def choose_events(page: Page, *labels: str) -> None:
    """Tick events in the picker, and close it."""
    picker = page.locator("#id_event_types_picker")
    picker.click()
    for label in labels:
        page.get_by_role("checkbox", name=label).check()
    picker.click()


def unfold(page: Page, section_id: str) -> Locator:
    """Open a section of the form if it is closed, and return it."""
    section = page.locator(f"#{section_id}")
    if section.get_attribute("open") is None:
        section.locator("> summary").click()
    return section


def choose_authorization(page: Page, label: str) -> None:
    page.get_by_role("radio", name=label, exact=True).check()
    # Shown only without JavaScript.
    if (button := page.get_by_role("button", name="Change type")).is_visible():
        button.click()


def fill_basic(page: Page, login: str = BASIC_LOGIN, password: str = BASIC_PASSWORD) -> None:
    choose_authorization(page, "Basic authentication")
    field(page, "Login").fill(login)
    field(page, "Password").fill(password)


def fill_oauth(
    page: Page,
    provider: Provider,
    *,
    client: SandboxClient = AUTHORIZATION_CLIENT,
    send_as: str = "Basic Auth header",
) -> None:
    choose_authorization(page, "OAuth 2.0")
    field(page, "Token name").fill("Sandbox token")
    field(page, "Auth URL").fill(provider.auth_url)
    field(page, "Access token URL").fill(provider.token_url)
    field(page, "Client ID").fill(client.client_id)
    field(page, "Client secret").fill(client.client_secret)
    field(page, "Scope").fill("events:write offline_access")
    page.get_by_role("radio", name=send_as).check()


def save(page: Page) -> None:
    # It is in the page's head and in the bar at the bottom.
    page.get_by_role("button", name="Save", exact=True).first.click()


def read_signing_secret(page: Page) -> str:
    """Return the secret from the only page that shows it."""
    return page.get_by_role("region", name="Signing secret").locator("code").inner_text()


def send_test(page: Page) -> Locator:
    """Press Send test and return the panel with its result, once there is one."""
    panel = page.get_by_role("region", name="Test")
    panel.get_by_role("button", name="Send test").click()
    expect(panel.get_by_text("Request", exact=True)).to_be_visible()
    return panel


def get_token(page: Page) -> None:
    # A webhook's page has the button at the top and beside the token's details.
    page.get_by_role("button", name="Get new access token").first.click()


def answer_provider(page: Page, *, answer: str = "Approve") -> None:
    """Log in at the sandbox provider if it asks for that, then approve or deny."""
    button = page.get_by_role("button", name=answer)
    expect(button.or_(page.get_by_label("User name"))).to_be_visible()
    if not button.is_visible():
        log_in_at_provider(page)
    button.click()


def log_in_at_provider(page: Page) -> None:
    page.get_by_label("User name").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()


def token_panel(page: Page) -> Locator:
    return page.get_by_role("region", name="Access token")


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than its window."""
    pixels: int = page.evaluate(
        "document.scrollingElement.scrollWidth - document.documentElement.clientWidth"
    )
    return pixels
