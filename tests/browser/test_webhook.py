"""The pages in real Chromium, against the real site, engine and receiver.

After each test every page is checked for console errors, exceptions, violations of the content
security policy and failed requests; see tests/browser/fixtures.py. OAuth: test_oauth.py.
"""

import base64
import datetime as dt
import re

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect
from pytest_django.live_server_helper import LiveServer
from standardwebhooks import Webhook as Verifier

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.factories import make_delivery, make_webhook
from tests.polling import eventually
from tests.sandbox import Received, Receiver
from webhooks import catalogue
from webhooks.delivery import resends
from webhooks.models import ApiKey, Delivery, Status, Webhook

pytest_plugins = ["tests.browser.fixtures"]

BASIC_HEADER = "Basic " + base64.b64encode(b"demo-login:demo-password").decode()


def verify(received: Received, secret: str) -> None:
    """Check the signature as a receiver does; raise if it is wrong."""
    Verifier(secret).verify(received.body, dict(received.headers))


def make_basic(receiver: Receiver, **fields: object) -> Webhook:
    return make_webhook(
        **{
            "url": f"{receiver.url}/basic/",
            "authorization_type": "basic",
            "basic_login": "demo-login",
            "basic_password": "demo-password",
            **fields,
        }
    )


@pytest.mark.once
def test_a_time_counts_on_and_stays_in_the_words_of_the_page(page: Page) -> None:
    now = timezone.now()
    webhook = make_webhook()
    Webhook.objects.update(
        created_at=now - dt.timedelta(days=40),
        updated_at=now - dt.timedelta(minutes=59, seconds=40),
    )
    page.clock.install()
    page.goto(f"{steps.LIST}{webhook.pk}/")
    expect(page.get_by_text("59 minutes ago")).to_be_visible()
    page.clock.run_for(31_000)
    expect(page.get_by_text("1 hour ago")).to_be_visible()
    expect(page.get_by_text("1 month ago")).to_be_visible()


@pytest.mark.once
def test_a_time_to_come_is_soon_and_then_past(page: Page) -> None:
    webhook = make_webhook()
    soon = timezone.now() + dt.timedelta(seconds=110)
    Webhook.objects.update(previous_signing_secrets_until=soon)
    page.clock.install()
    page.goto(f"{steps.LIST}{webhook.pk}/")
    time = page.locator(f'time[datetime^="{soon:%Y-%m-%dT%H:%M:%S}"]')
    expect(time).to_have_text("in 1 minute")
    page.clock.run_for(60_000)
    expect(time).to_have_text("in a moment")
    page.clock.run_for(60_000)
    expect(time).to_have_text("just now")


@pytest.mark.once
def test_the_number_of_events_counts_those_of_every_pattern(page: Page) -> None:
    webhook = make_webhook(event_types=["call.*"])
    page.goto(f"{steps.LIST}{webhook.pk}/edit/")
    count = page.locator("[data-picker-count]")
    expect(count).to_have_text(str(len(catalogue.types_for(["call.*"]))))
    steps.choose_events(page, "Deal created")
    expect(count).to_have_text(str(len(catalogue.types_for(["call.*"])) + 1))


def test_a_person_logs_in_and_out(open_page: OpenPage, admin: User) -> None:
    page = open_page(user=None)
    page.goto("/")
    steps.log_in(page, "admin", "a wrong password")
    expect(page.get_by_role("alert")).to_contain_text("Wrong login or password")
    steps.log_in(page, "admin", "a password")
    expect(page).to_have_url(re.compile(re.escape(steps.LIST) + "$"))
    expect(page.get_by_role("heading", name="Webhooks 2.0")).to_be_visible()
    expect(page.get_by_role("link", name="Create a webhook")).to_be_visible()
    page.get_by_role("banner").get_by_text("admin", exact=True).click()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    page.goto(steps.LIST)
    expect(page.get_by_role("button", name="Log in")).to_be_visible()


def test_a_basic_webhook_is_created_and_its_test_seen_without_a_reload(
    page: Page, engine: None, receiver: Receiver
) -> None:
    page.goto(steps.LIST)
    page.get_by_role("link", name="Create a webhook").click()
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/basic/calls")
    steps.fill_basic(page)
    steps.save(page)
    expect(page.get_by_role("status").get_by_text("“CRM” was created.")).to_be_visible()
    secret = steps.read_signing_secret(page)
    page.evaluate("window.isSamePage = true")
    result = steps.send_test(page)
    expect(result.get_by_text("Succeeded")).to_be_visible()
    expect(result.get_by_text(f"POST {receiver.url}/basic/calls")).to_be_visible()
    expect(result.get_by_text('"received": true').first).to_be_visible()
    assert "demo-password" not in page.content()
    assert page.evaluate("window.isSamePage")
    [received] = receiver.requests("/basic/")
    assert (received.method, received.status) == ("POST", 200)
    assert received.header("authorization") == BASIC_HEADER
    assert received.json()["event"] == "call.incoming.after"
    verify(received, secret)
    page.reload()
    assert secret not in page.content()


@pytest.mark.once
def test_a_webhook_is_edited_paused_resumed_duplicated_and_deleted(
    page: Page, engine: None, receiver: Receiver
) -> None:
    webhook = make_basic(receiver, name="CRM")
    page.goto(steps.LIST)
    page.get_by_role("button", name="Pause CRM").click()
    expect(page.get_by_text("“CRM” is paused.")).to_be_visible()
    delivery = make_delivery(webhook)
    page.get_by_role("link", name="CRM", exact=True).click()
    expect(page.get_by_text("Nothing is sent. Deliveries are on hold")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    said = page.get_by_text("“CRM” is active again. 1 delivery on hold is sent now.").first
    expect(said).to_be_visible()
    [received] = receiver.wait_for(1, path_prefix="/basic/")
    assert received.header("webhook-id") == delivery.event_id

    page.get_by_role("link", name="Edit").click()
    steps.field(page, "Name").fill("CRM, Kyiv")
    steps.field(page, "Method").select_option("PUT")
    steps.save(page)
    expect(page.get_by_text("The changes were saved.")).to_be_visible()
    expect(steps.send_test(page).get_by_text(f"PUT {receiver.url}/basic/")).to_be_visible()
    assert receiver.requests("/basic/")[-1].header("authorization") == BASIC_HEADER

    page.goto(steps.LIST)
    page.get_by_role("button", name="Duplicate CRM, Kyiv").click()
    expect(page.get_by_role("heading", name="CRM, Kyiv (copy)")).to_be_visible()
    expect(steps.field(page, "Active")).not_to_be_checked()
    page.goto(steps.LIST)
    page.get_by_role("link", name="Delete CRM, Kyiv (copy)").click()
    expect(page.get_by_text("It can be restored for 30 days.")).to_be_visible()
    page.get_by_role("button", name="Delete webhook").click()
    expect(page.get_by_text("“CRM, Kyiv (copy)” is deleted.")).to_be_visible()
    assert page.get_by_role("link", name=re.compile("^Edit ")).count() == 1
    assert [one.name for one in Webhook.objects.present()] == ["CRM, Kyiv"]


@pytest.mark.once
@pytest.mark.parametrize("has_javascript", [True, False])
def test_mistakes_are_named_and_nothing_typed_is_lost(
    open_page: OpenPage, receiver: Receiver, has_javascript: bool
) -> None:
    page = open_page(java_script_enabled=has_javascript)
    page.goto(steps.NEW)
    steps.fill_basic(page, login="with:colon", password="typed once")
    steps.field(page, "Name").fill("CRM")
    steps.field(page, "URL").fill("ftp://example.com/")
    steps.unfold(page, "headers")
    steps.field(page, "Header name").fill("X-Api-Key")
    steps.field(page, "Header value").fill("key")
    steps.save(page)
    summary = page.get_by_role("alert")
    for label in ("URL", "Events", "Login"):
        expect(summary.get_by_role("link", name=label, exact=True)).to_be_visible()
    expect(page.get_by_text("Entered, not saved yet")).to_be_visible()
    summary.get_by_role("link", name="Login", exact=True).click()
    steps.field(page, "Login").fill("demo-login")
    steps.field(page, "URL").fill(f"{receiver.url}/basic/")
    steps.choose_events(page, steps.AFTER_A_CALL)
    steps.save(page)
    expect(page.get_by_text("“CRM” was created.")).to_be_visible()
    webhook = Webhook.objects.get()
    assert webhook.credential.basic_password == "typed once"
    assert '"X-Api-Key"' in webhook.headers_json


@pytest.mark.once
def test_a_number_that_is_none_is_named_and_kept(page: Page) -> None:
    webhook = make_webhook(rate_limit=20)
    page.goto(reverse("webhooks:edit", args=[webhook.pk]))
    steps.unfold(page, "delivery")
    limit = steps.field(page, "Rate limit")
    limit.fill("")
    limit.press_sequentially("1-5")
    page.context.watch.expect("422")  # type: ignore[attr-defined]
    steps.save(page)
    mistake = page.get_by_text("Enter a whole number from 1 to 100,000")
    expect(mistake).to_be_visible()
    expect(limit).to_have_value("1-5")
    # On two lines, not on the five it would take in the narrow column of the number.
    lines = "(one) => one.offsetHeight / parseFloat(getComputedStyle(one).lineHeight)"
    assert mistake.evaluate(lines) < 3


@pytest.mark.once
@pytest.mark.parametrize("has_javascript", [True, False])
def test_switching_the_authorization_type_keeps_everything_typed(
    open_page: OpenPage, provider: object, has_javascript: bool
) -> None:
    page = open_page(java_script_enabled=has_javascript)
    page.goto(steps.NEW)
    steps.fill_request(page, name="CRM", url="http://127.0.0.1:9/hook")
    steps.fill_basic(page, password="typed once")
    steps.fill_oauth(page, provider, send_as="Client credentials in body")
    expect(steps.field(page, "Login")).to_be_hidden()
    steps.choose_authorization(page, "None")
    expect(steps.field(page, "Client ID")).to_be_hidden()
    steps.choose_authorization(page, "OAuth 2.0")
    expect(steps.field(page, "Client ID")).to_have_value("sandbox-client")
    expect(steps.field(page, "Scope")).to_have_value("events:write offline_access")
    expect(page.get_by_role("radio", name="Client credentials in body")).to_be_checked()
    steps.choose_authorization(page, "Basic authentication")
    expect(steps.field(page, "Login")).to_have_value("demo-login")
    expect(page.get_by_text("Incoming calls: after the call")).to_be_visible()
    steps.save(page)
    expect(page.get_by_text("“CRM” was created.")).to_be_visible()
    webhook = Webhook.objects.get()
    assert webhook.credential.authorization_type == "basic"
    assert webhook.credential.basic_password == "typed once"
    assert webhook.credential.client_secret == "sandbox-secret"


@pytest.mark.once
def test_everything_up_to_the_test_works_without_javascript(
    plain_page: Page, engine: None, receiver: Receiver
) -> None:
    page = plain_page
    page.goto(steps.LIST)
    page.get_by_role("link", name="Create a webhook").click()
    steps.fill_request(page, name="CRM", url=f"{receiver.url}/basic/")
    steps.unfold(page, "headers")
    page.get_by_role("button", name="Add header").click()
    expect(steps.field(page, "Header name")).to_have_count(2)
    steps.field(page, "Header name").first.fill("X-Api-Key")
    steps.field(page, "Header value").first.fill("a-key")
    steps.fill_basic(page)
    steps.save(page)
    secret = steps.read_signing_secret(page)
    page.get_by_role("button", name="Send test").first.click()
    expect(page.get_by_text("Succeeded")).to_be_visible()
    expect(page.get_by_text('"received": true').first).to_be_visible()
    [received] = receiver.requests("/basic/")
    assert received.header("authorization") == BASIC_HEADER
    assert received.header("x-api-key") == "a-key"
    verify(received, secret)
    page.get_by_role("link", name="CRM").click()
    expect(page.get_by_role("cell", name="call.incoming.after")).to_be_visible()


@pytest.mark.once
def test_the_keyboard_alone_creates_a_webhook(page: Page, receiver: Receiver) -> None:
    page.goto(steps.LIST)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_role("link", name="Create a webhook"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New webhook")).to_be_visible()
    _tab_to(page, "Name")
    page.keyboard.type("CRM")
    _tab_to(page, "URL")
    page.keyboard.type(f"{receiver.url}/basic/")
    _tab_to(page, page.locator("#id_event_types_picker"))
    page.keyboard.press("Enter")
    expect(steps.field(page, "Search events")).to_be_focused()
    page.keyboard.type("rating menu")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(page.locator("#id_event_types_picker")).to_be_focused()
    expect(page.locator("#id_event_types_picker")).to_contain_text("Incoming calls: after the")
    _tab_to(page, "None")
    page.keyboard.press("ArrowRight")
    _tab_to(page, "Login")
    page.keyboard.type("demo-login")
    _tab_to(page, "Password")
    page.keyboard.type("demo-password")
    page.keyboard.press("Enter")
    expect(page.get_by_text("“CRM” was created.")).to_be_visible()
    webhook = Webhook.objects.get()
    assert webhook.event_types == ["call.incoming.rated"]
    assert (webhook.credential.basic_login, webhook.credential.basic_password) == (
        "demo-login",
        "demo-password",
    )


def _tab_to(page: Page, wanted: Locator | str) -> None:
    """Press Tab until the control, or the one with this label, has the focus; 40 times at most."""
    control = steps.field(page, wanted) if isinstance(wanted, str) else wanted
    for _ in range(40):
        page.keyboard.press("Tab")
        if control.evaluate("control => control === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


@pytest.mark.once
def test_the_log_shows_a_delivery_and_sends_it_again(
    page: Page, engine: None, receiver: Receiver
) -> None:
    # No automatic retry before the person resends.
    webhook = make_basic(receiver, name="CRM", retry_schedule_seconds=[3600])
    receiver.fail("/basic/", 503, times=1, body="<script>alert(1)</script>")
    delivery = make_delivery(webhook, call_id="call-503")
    eventually(lambda: delivery.attempts.exists())
    page.goto(reverse("admin:webhooks_delivery_changelist"))
    page.get_by_label("Status", exact=True).select_option(label="Waiting")
    expect(page).to_have_url(re.compile("status=pending"))
    page.get_by_label("Phone number, id, or part").fill("call-503")
    page.get_by_role("button", name="Search").click()
    row = page.get_by_role("row").filter(has_text="call.incoming.after")
    expect(row).to_contain_text("503")
    row.get_by_role("link", name="call.incoming.after").click()
    expect(page.get_by_role("heading", name="call.incoming.after")).to_be_visible()
    expect(page.get_by_text("<script>alert(1)</script>")).to_be_visible()
    expect(page.get_by_text("Waiting for its next attempt.")).to_be_visible()
    assert "demo-password" not in page.content()
    assert BASIC_HEADER not in page.content()

    page.get_by_role("button", name="Resend", exact=True).click()
    expect(page.get_by_text("The next attempt starts now.")).to_be_visible()
    receiver.wait_for(2, path_prefix="/basic/")
    eventually(lambda: Delivery.objects.get().status == Status.SUCCEEDED)
    page.reload()
    expect(page.get_by_text("Succeeded after 2 attempts.")).to_be_visible()
    page.get_by_role("button", name="Resend", exact=True).click()
    expect(page.get_by_text("Resent. This is the new delivery.")).to_be_visible()
    received = receiver.wait_for(3, path_prefix="/basic/")
    assert [one.status for one in received] == [503, 200, 200]
    assert {one.body for one in received} == {bytes(delivery.event.payload)}
    assert {one.header("webhook-id") for one in received} == {delivery.event_id}


@pytest.mark.once
def test_many_deliveries_are_sent_again_from_the_log(
    page: Page, engine: None, receiver: Receiver
) -> None:
    webhook = make_basic(receiver, name="CRM")
    for number in range(3):
        make_delivery(webhook, call_id=f"call-{number}")
    receiver.wait_for(3, path_prefix="/basic/")
    page.goto(reverse("admin:webhooks_delivery_changelist"))
    page.get_by_label("Select deliveries to resend").check()
    expect(page.get_by_text("Selected: 3")).to_be_visible()
    page.get_by_role("button", name="Resend", exact=True).click()
    page.get_by_role("button", name="Resend 3 deliveries").click()
    resends.advance_all()
    received = receiver.wait_for(6, path_prefix="/basic/")
    assert len({one.header("webhook-id") for one in received}) == 3


@pytest.mark.once
def test_an_api_key_is_shown_once_used_and_revoked(
    page: Page, engine: None, receiver: Receiver, live_server: LiveServer
) -> None:
    webhook = make_basic(receiver)
    page.goto(steps.LIST)
    page.get_by_role("link", name="API keys").click()
    page.get_by_role("link", name="Add API key").click()
    page.get_by_label("Name").fill("Telephony")
    page.get_by_role("button", name="Save", exact=True).click()
    key = page.get_by_label("API key", exact=True).input_value()
    event = {"type": "call.incoming.after", "payload": {"call_id": "call-1"}}
    headers = {"Authorization": f"Bearer {key}"}

    answer = page.request.post("/api/v1/events", data=event, headers=headers)
    assert answer.status == 202
    assert answer.json()["deliveries"] == 1
    [received] = receiver.wait_for(1, path_prefix="/basic/")
    assert received.header("webhook-id") == answer.json()["event_id"]
    verify(received, webhook.signing_secret)

    page.get_by_role("link", name="Done").click()
    assert key not in page.content()
    page.get_by_role("link", name="Telephony").click()
    assert key not in page.content()
    page.get_by_role("button", name="Revoke this key").click()
    expect(page.get_by_text("1 key is revoked.")).to_be_visible()
    assert ApiKey.objects.get().revoked_at
    # Every process notices within a second.
    eventually(
        lambda: page.request.post("/api/v1/events", data=event, headers=headers).status == 401
    )


@pytest.mark.once
def test_the_dark_theme_is_chosen_once_for_all_pages(page: Page) -> None:
    page.goto(steps.LIST)
    light = _background(page)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    dark = _background(page)
    assert sum(dark) < 150 < sum(light)
    for address in (steps.NEW, reverse("admin:webhooks_delivery_changelist"), "/admin/"):
        page.goto(address)
        assert _background(page) == dark, address


def _background(page: Page) -> list[int]:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", colour)[:3]]


@pytest.mark.once
def test_no_screen_scrolls_sideways_on_a_phone(
    open_page: OpenPage, engine: None, receiver: Receiver
) -> None:
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True)
    webhook = make_basic(receiver, name="A name that is long: " + "x" * 70)
    delivery = make_delivery(webhook, call_id="c" * 64)
    receiver.wait_for(1)
    ApiKey.objects.issue("Telephony", created_by=None)
    page.goto(reverse("webhooks:edit", args=[webhook.pk]))
    steps.send_test(page)
    assert overflow(page) == 0
    for address in (
        steps.LIST,
        steps.NEW,
        reverse("webhooks:detail", args=[webhook.pk]),
        reverse("webhooks:delete", args=[webhook.pk]),
        reverse("admin:index"),
        reverse("admin:webhooks_delivery_changelist"),
        reverse("admin:webhooks_delivery_change", args=[delivery.pk]),
        reverse("admin:webhooks_event_change", args=[delivery.event_id]),
        reverse("admin:webhooks_apikey_changelist"),
        reverse("admin:webhooks_apikey_add"),
        "/login/",
    ):
        page.goto(address)
        assert overflow(page) == 0, address
