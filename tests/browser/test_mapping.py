"""The request builder in real Chromium: mapping, preview and pasting as a person would do it."""

import json
import re

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.browser import steps
from tests.browser.steps import OpenPage, overflow
from tests.browser.test_accessibility import violations_in_both_themes
from tests.browser.test_delivery import edit
from tests.factories import make_delivery, make_webhook
from tests.polling import eventually
from tests.sandbox import Receiver
from webhooks import events
from webhooks.models import Webhook

pytest_plugins = ["tests.browser.fixtures"]
pytestmark = pytest.mark.once


def value(page: Page, number: int) -> Locator:
    """Return the select that says what a parameter sends."""
    return steps.field(page, f"Value, parameter {number}")


def preview(page: Page) -> str:
    return page.get_by_label("Body", exact=True).inner_text()


def test_parameters_are_picked_renamed_moved_and_arrive_as_previewed(
    page: Page, engine: None, receiver: Receiver
) -> None:
    receiver.clear()
    webhook = make_webhook(url=f"{receiver.url}/open/", event_types=["call.incoming.after"])
    make_delivery(webhook, talk_seconds=77)
    page.goto(edit(webhook))
    steps.unfold(page, "parameters")
    page.get_by_role("radio", name="Chosen parameters").check()
    value(page, 1).select_option("=talk_seconds")
    # The variable's own name is shown below, and becomes the parameter's name.
    expect(page.get_by_label("Name, parameter 1")).to_have_value("talk_seconds")
    expect(page.locator(".parameter-path").first).to_have_text("talk_seconds")
    page.get_by_role("button", name="Add parameter").click()
    page.get_by_label("Name, parameter 2").fill("client.phone")
    value(page, 2).select_option(label="Client's number · 380671234567")
    page.get_by_role("button", name="Move up: parameter 2").click()
    expect(page.get_by_label("Name, parameter 1")).to_have_value("client.phone")
    expect(page.get_by_label("Body", exact=True)).to_contain_text('"phone": "380671234567"')
    page.get_by_label("Event to show").select_option("Last real event")
    expect(page.get_by_label("Body", exact=True)).to_contain_text('"talk_seconds": 77')
    page.get_by_label("Event to show").select_option("Incoming call: after the call")
    expect(page.get_by_label("Body", exact=True)).to_contain_text('"talk_seconds": 121')
    shown = json.loads(preview(page))
    steps.save(page)
    expect(page.get_by_text("The changes were saved.")).to_be_visible()
    steps.send_test(page)
    received = receiver.requests("/open/")[-1]
    assert list(received.json().items()) == list(shown.items())


def test_the_sample_of_send_test_follows_the_preview(page: Page) -> None:
    webhook = make_webhook(event_types=["call.incoming.after", "call.outgoing.after"])
    page.goto(edit(webhook))
    expect(page.get_by_label("Sample")).to_have_value("call.incoming.after")
    page.get_by_label("Event to show").select_option("call.outgoing.after")
    expect(page.get_by_label("Sample")).to_have_value("call.outgoing.after")


def test_an_event_that_is_picked_while_a_preview_is_on_its_way_is_kept(page: Page) -> None:
    webhook = make_webhook(event_types=["call.incoming.after", "call.outgoing.after"])
    page.goto(edit(webhook))
    page.wait_for_load_state("networkidle")
    held: list[Route] = []
    page.route("**/preview/", lambda route: held.append(route), times=1)
    page.get_by_label("Name", exact=True).fill("Another")
    eventually(lambda: page.wait_for_timeout(50) or held)
    page.get_by_label("Event to show").select_option("call.outgoing.after")
    held[0].continue_()
    expect(page.get_by_label("Sample")).to_have_value("call.outgoing.after")
    expect(page.get_by_label("Event to show")).to_have_value("call.outgoing.after")


def test_a_filtered_mapped_protected_webhook_from_nothing_to_its_first_delivery(
    page: Page, engine: None, receiver: Receiver
) -> None:
    receiver.clear()
    page.goto(steps.NEW)
    steps.fill_request(page, name="Missed calls", url=f"{receiver.url}/basic/")
    steps.unfold(page, "filter")
    page.get_by_role("button", name="Missed calls", exact=True).click()
    steps.unfold(page, "preview-card")
    expect(page.get_by_text("The filter excludes this event")).to_be_visible()
    steps.unfold(page, "parameters")
    page.get_by_role("radio", name="Chosen parameters").check()
    page.get_by_label("Name, parameter 1").fill("lead.phone")
    value(page, 1).select_option("=client_number")
    steps.fill_basic(page)
    expect(page.get_by_label("Body", exact=True)).to_contain_text('"lead"')
    steps.save(page)
    expect(page.get_by_text("“Missed calls” was created.")).to_be_visible()
    for disposition, number in (("ANSWERED", "380000000001"), ("NO ANSWER", "380000000002")):
        events.publish("call.incoming.after", {"disposition": disposition, "client_number": number})
    [received] = receiver.wait_for(1, path_prefix="/basic/")
    assert received.json() == {"lead": {"phone": "380000000002"}}
    assert received.status == 200


def test_what_is_typed_while_a_row_is_added_stays(page: Page) -> None:
    webhook = make_webhook(event_types=["call.incoming.after"])
    webhook.parameters = [{"name": "a", "variable": "caller"}]
    webhook.save(update_fields=["parameters"])
    page.goto(edit(webhook))
    held: list[Route] = []
    page.route("**/integrations/webhooks/parameters/", lambda route: held.append(route), times=1)
    with page.expect_request("**/integrations/webhooks/parameters/"):
        page.get_by_role("button", name="Add parameter").click()
    page.get_by_label("Name, parameter 1").fill("lead.phone")
    held[0].continue_()
    expect(page.get_by_label("Name, parameter 2")).to_have_value("")
    expect(page.get_by_label("Name, parameter 1")).to_have_value("lead.phone")
    expect(page.get_by_label("Body", exact=True)).to_contain_text('"lead"')


def test_the_rows_of_a_stored_webhook_are_read_with_its_variables(page: Page) -> None:
    webhook = make_webhook(parameters=[{"name": "b", "variable": "budget"}])
    page.goto(edit(webhook))
    with page.expect_request("**/integrations/webhooks/parameters/") as asked:
        page.get_by_role("button", name="Add parameter").click()
    assert f"webhook={webhook.pk}&" in f"{asked.value.post_data}&"
    expect(page.get_by_label("Name, parameter 2")).to_have_value("")


def test_an_answer_about_a_parameter_that_was_removed_since_breaks_nothing(page: Page) -> None:
    both = [{"name": "a", "variable": "caller"}, {"name": "b", "variable": "client_number"}]
    page.goto(edit(make_webhook(parameters=both)))
    held: list[Route] = []
    page.route("**/integrations/webhooks/preview/", lambda route: held.append(route), times=1)
    with page.expect_request("**/integrations/webhooks/preview/"):
        page.get_by_label("Name, parameter 1").fill("changed")
    page.get_by_role("button", name="Remove: parameter 1").click()
    expect(page.get_by_label("Name, parameter 2")).to_have_count(0)
    held[0].continue_()
    expect(page.get_by_label("Body", exact=True)).to_have_text('{ "b": "380671234567" }')


def test_a_preview_that_was_lost_on_its_way_is_asked_for_again(page: Page) -> None:
    page.goto(edit(make_webhook(parameters=[{"name": "a", "variable": "caller"}])))
    lost: list[Route] = []

    def lose(route: Route) -> None:
        lost.append(route)
        route.abort("connectionreset")

    page.route("**/integrations/webhooks/preview/", lose, times=1)
    page.get_by_label("Name, parameter 1").fill("changed")
    expect(page.get_by_label("Body", exact=True)).to_contain_text('"changed"')
    assert lost
    page.context.watch.expect("/preview/|htmx:(afterRequest|sendError)")  # type: ignore[attr-defined]


def test_a_mistake_appears_at_its_row_while_typing_and_goes_again(page: Page) -> None:
    webhook = make_webhook(parameters=[{"name": "a", "variable": "caller"}])
    page.goto(edit(webhook))
    value(page, 1).select_option(label="Another field…")
    typed = steps.field(page, "Typed value, parameter 1")
    typed.fill("client_numbr")
    expect(page.get_by_text("Did you mean “client_number”")).to_be_visible()
    expect(typed).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Every parameter has an error")).to_be_visible()
    typed.fill("client_number")
    expect(page.get_by_text("Did you mean")).to_be_hidden()
    expect(typed).not_to_have_attribute("aria-invalid", "true")
    expect(typed).to_be_focused()


def test_choosing_another_way_says_what_saving_would_remove(page: Page) -> None:
    page.goto(edit(make_webhook(parameters=[{"name": "a", "variable": "caller"}])))
    page.get_by_role("radio", name="All variables").check()
    expect(page.get_by_text("Saving keeps what is chosen here")).to_be_visible()
    page.get_by_role("radio", name="Chosen parameters").check()
    expect(page.get_by_text("Saving keeps what is chosen here")).to_be_hidden()
    expect(value(page, 1)).to_have_value("=caller")


def test_a_variable_goes_where_the_cursor_is_in_the_json_body(page: Page) -> None:
    webhook = make_webhook(body_template='{"a": }', event_types=["call.incoming.after"])
    page.goto(edit(webhook))
    expect(page.get_by_text("Line 1, column 7")).to_be_visible()
    page.get_by_label("JSON body", exact=True).and_(page.locator("textarea")).focus()
    page.evaluate("document.getElementById('id_body_template').setSelectionRange(6, 6)")
    page.get_by_label("Variable to insert").select_option("talk_seconds")
    page.get_by_role("button", name="Insert variable").click()
    expect(page.locator("#id_body_template")).to_have_value('{"a": "{{ talk_seconds }}"}')
    expect(page.get_by_label("Body", exact=True)).to_contain_text('"a": 121')
    expect(page.get_by_text("Line 1, column 7")).to_be_hidden()


def test_typed_secrets_never_leave_the_browser_for_the_preview(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    page.goto(steps.NEW)
    steps.fill_basic(page, password="typed-p4ss")
    steps.unfold(page, "headers")
    steps.field(page, "Header name").fill("X-Key")
    page.get_by_role("checkbox", name="Secret").check()
    steps.field(page, "Header value").fill("typed-k3y")
    steps.field(page, "Name").fill("CRM")
    head = page.get_by_label("Request line and headers")
    expect(head).to_contain_text("X-Key: ********")
    expect(head).to_contain_text("Authorization: Basic ********")
    assert any("preview_event" in data for data in sent)
    assert not any("typed-" in data for data in sent)


@pytest.mark.parametrize("has_javascript", [True, False])
def test_a_pasted_command_becomes_a_saved_webhook(
    open_page: OpenPage, receiver: Receiver, has_javascript: bool
) -> None:
    page = open_page(java_script_enabled=has_javascript)
    page.goto(steps.NEW)
    steps.field(page, "Name").fill("From the docs")
    steps.choose_events(page, steps.AFTER_A_CALL)
    page.get_by_text("Paste a cURL command").click()
    steps.field(page, "cURL command").fill("wget https://example.com/")
    page.get_by_role("button", name="Fill in the form").click()
    expect(page.get_by_text("A command begins with “curl”.")).to_be_visible()
    expect(steps.field(page, "cURL command")).to_be_focused()
    command = f"""curl -X PUT '{receiver.url}/basic/' -u demo:typed \\\n -H 'X-Team: sales' \\\n"""
    steps.field(page, "cURL command").fill(command + """ -d '{"phone": "380", "dst": "1"}' | jq""")
    page.get_by_role("button", name="Fill in the form").click()
    expect(page.get_by_role("status").filter(has_text="Filled in from the command")).to_be_focused()
    expect(page.get_by_text("Filled in from the command: method, URL")).to_be_visible()
    expect(page.get_by_text("What follows the command was left out: | jq")).to_be_visible()
    expect(steps.field(page, "Name")).to_have_value("From the docs")
    expect(value(page, 2)).to_have_value("=dst")
    page.get_by_role("button", name="Remove: parameter 1").click()
    expect(page.get_by_label("Name, parameter 1")).to_have_value("dst")
    expect(page.get_by_label("Body", exact=True)).to_have_text('{ "dst": "380443339912" }')
    steps.save(page)
    expect(page.get_by_text("“From the docs” was created.")).to_be_visible()
    webhook = Webhook.objects.get()
    assert (webhook.method, webhook.credential.basic_login, webhook.credential.basic_password) == (
        "PUT",
        "demo",
        "typed",
    )
    assert webhook.parameters == [{"name": "dst", "variable": "dst"}]


@pytest.mark.parametrize(
    ("way", "sentence"),
    [
        ("Chosen parameters", "Add a parameter, or choose All"),
        ("JSON body", "Write a JSON document"),
    ],
)
def test_that_nothing_was_chosen_stays_said_beside_it(page: Page, way: str, sentence: str) -> None:
    page.context.watch.expect("422")  # type: ignore[attr-defined]
    page.goto(edit(make_webhook()))
    section = steps.unfold(page, "parameters")
    section.get_by_role("radio", name=way).check()
    steps.save(page)
    expect(page.get_by_role("alert").first).to_contain_text("Not saved.")
    with page.expect_response(re.compile("/preview/")) as preview:
        steps.field(page, "Name").fill("Changed")
    preview.value.finished()
    page.wait_for_timeout(100)
    expect(section.get_by_text(sentence)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_builder_fits(open_page: OpenPage, scheme: str, width: int) -> None:
    options = {"default": "x" * 300, "format": "sql", "time_zone": "Europe/Kyiv"}
    rows = [{"name": "a." + "long" * 40, "variable": "caller", **options}] * 2
    webhook = make_webhook(parameters=rows, url="https://crm.test/" + "long/" * 60)
    page = open_page(viewport={"width": width, "height": 780}, color_scheme=scheme)
    page.goto(edit(webhook))
    assert overflow(page) == 0
    page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true; })")
    assert overflow(page) == 0


@pytest.mark.parametrize(
    "content",
    [
        {"parameters": [{"name": "a", "variable": "nobody"}, {"name": "b", "value": "two\nlines"}]},
        {"body_template": '{"a": }'},
    ],
    ids=["rows", "JSON body"],
)
def test_axe_finds_nothing_in_the_builder(page: Page, content: dict[str, object]) -> None:
    webhook = make_webhook(**content)
    page.goto(edit(webhook))
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    steps.field(page, "Name").fill("Changed")
    expect(page.locator("#preview-spinner")).to_be_hidden()
    assert violations_in_both_themes(page) == []
