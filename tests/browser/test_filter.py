"""The condition builder and Why wasn't it sent? in real Chromium, with JavaScript and without."""

import pytest
from django.urls import reverse
from playwright.sync_api import Page, Route, expect

from tests.browser import steps
from tests.browser.steps import overflow
from tests.factories import make_webhook
from tests.polling import eventually
from webhooks import events
from webhooks.models import Event, Webhook

pytest_plugins = ["tests.browser.fixtures"]

BUSY = {"all": [{"variable": "disposition", "operator": "equals", "value": "BUSY"}]}
LONG = {"variable": "duration_seconds", "operator": "greater_than", "value": 90}


def publish(count: int, **values: object) -> list[str]:
    given = {"call_id": "call-1", "duration_seconds": 20, **values}
    return [events.publish("call.incoming.after", given).event_id for _ in range(count)]


def edit(page: Page, **fields: object) -> Webhook:
    """Open the form of a webhook for events after a call."""
    # htmx logs to the console when a newer request replaces one in flight.
    page.context.watch.expect("htmx:(sendAbort|afterRequest)")  # type: ignore[attr-defined]
    webhook = make_webhook(event_types=["call.incoming.after"], **fields)
    page.goto(reverse("webhooks:edit", args=[webhook.pk]))
    return webhook


def test_a_filter_is_built_by_clicks_and_says_at_once_what_it_matches(page: Page) -> None:
    publish(3, disposition="NO ANSWER")
    publish(2, disposition="BUSY")
    publish(4, disposition="ANSWERED", duration_seconds=200)
    webhook = edit(page)
    part = steps.unfold(page, "filter")
    expect(part.get_by_text("Matches 9 of the last 9 events")).to_be_visible()
    part.get_by_role("button", name="Missed calls").click()
    expect(part.get_by_text("Matches 3 of the last 9 events")).to_be_visible()
    part.get_by_role("button", name="Busy").click()
    expect(part.get_by_text("Matches 5 of the last 9 events")).to_be_visible()
    with page.expect_response("**/integrations/webhooks/filter/"):
        part.get_by_role("radio", name="any matches").first.check()
    # A click between two states of the builder is lost.
    page.wait_for_load_state("networkidle")
    part.get_by_role("button", name="Longer than …").click()
    value = part.get_by_label("Value, condition 2")
    expect(value).to_be_focused()
    value.fill("1:30")
    expect(part.get_by_text("Matches 9 of the last 9 events")).to_be_visible()
    value.fill("soon")
    expect(part.get_by_text("“soon” is not a duration")).to_be_visible()
    value.fill("5 min")
    expect(part.get_by_text("Matches 5 of the last 9 events")).to_be_visible()
    expect(part.get_by_text("“soon” is not a duration")).not_to_be_visible()
    part.get_by_role("radio", name="Not sent", exact=True).check()
    expect(part.get_by_role("list", name="Tried events").get_by_role("listitem")).to_have_count(4)
    expect(part.get_by_text("but here it is ANSWERED").first).to_be_visible()
    steps.save(page)
    expect(page.get_by_text("The changes were saved.")).to_be_visible()
    webhook.refresh_from_db()
    either = {"variable": "disposition", "operator": "one_of", "value": ["NO ANSWER", "BUSY"]}
    assert webhook.filter == {"any": [either, {**LONG, "value": 300}]}


@pytest.mark.once
def test_looking_at_what_matches_is_no_change(page: Page) -> None:
    publish(2, disposition="BUSY")
    edit(page)
    part = steps.unfold(page, "filter")
    part.get_by_role("radio", name="Sent", exact=True).check()
    expect(part.get_by_role("list", name="Tried events").get_by_role("listitem")).to_have_count(2)
    part.locator("> summary").click()
    expect(part.locator("[data-fold-summary]")).to_have_text("Every chosen event is sent")
    expect(page.get_by_text("Not saved yet")).to_be_hidden()


@pytest.mark.once
def test_a_condition_is_written_and_moved_with_the_keyboard(page: Page) -> None:
    edit(page, filter={"all": [LONG]})
    part = steps.unfold(page, "filter")
    part.get_by_role("button", name="Add condition").press("Enter")
    variable = part.get_by_label("What to look at, condition 2")
    expect(variable).to_be_focused()
    variable.select_option(label="Department")
    operator = part.get_by_label("How to compare, condition 2")
    expect(operator).to_have_value("equals")
    operator.select_option("starts_with")
    part.get_by_label("Value, condition 2").fill("Sales")
    expect(part.get_by_text("starts with “Sales”")).to_be_visible()
    part.get_by_role("button", name="Move up: condition 2").press("Enter")
    expect(part.get_by_label("Value, condition 1")).to_have_value("Sales")
    part.get_by_role("button", name="Remove: condition 1").press("Enter")
    expect(part.get_by_label("Value, condition 1")).to_have_value("1 min 30 s")
    expect(part.get_by_label("Value, condition 2")).to_have_count(0)


@pytest.mark.once
def test_what_is_typed_while_an_answer_is_on_its_way_stays(page: Page) -> None:
    edit(page, filter={"all": [{"variable": "department", "operator": "equals", "value": "A"}]})
    part = steps.unfold(page, "filter")
    expect(part.get_by_text("Of 1 sample")).to_be_visible()
    held: list[Route] = []
    for name in ("filter", "preview"):
        page.route(f"**/integrations/webhooks/{name}/", lambda route: held.append(route), times=1)
    part.get_by_label("How to compare, condition 1").select_option("starts_with")
    value = part.get_by_label("Value, condition 1")
    value.fill("Sales")
    # On a busy machine the preview may be requested before the value is typed.
    eventually(lambda: page.wait_for_timeout(50) or len(held) == 2)
    # Both responses at once, the preview's first.
    for route, answer in reversed([(route, route.fetch()) for route in held]):
        route.fulfill(response=answer)
    expect(part.get_by_text("department starts with “Sales”")).to_be_visible()
    expect(value).to_have_value("Sales")


TYPED_BEFORE_IT_SETTLED = """
(old) => document.addEventListener("htmx:afterSwap", function typed() {
  const field = document.getElementById(old.id);
  if (field === old) return;
  document.removeEventListener("htmx:afterSwap", typed);
  setTimeout(() => {
    field.value += "s";
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }, 1);
})
"""


@pytest.mark.once
def test_what_is_typed_before_an_answer_has_settled_stays(page: Page) -> None:
    edit(page, filter={"all": [{"variable": "department", "operator": "equals", "value": "A"}]})
    part = steps.unfold(page, "filter")
    expect(part.get_by_text("Of 1 sample")).to_be_visible()
    value = part.get_by_label("Value, condition 1")
    value.evaluate(TYPED_BEFORE_IT_SETTLED)
    held: list[Route] = []
    page.route("**/integrations/webhooks/filter/", lambda route: held.append(route), times=1)
    part.get_by_label("How to compare, condition 1").select_option("starts_with")
    value.fill("Sale")
    [route] = held
    route.continue_()
    expect(part.get_by_text("department starts with “Sales”")).to_be_visible()
    expect(value).to_have_value("Sales")


@pytest.mark.once
def test_the_builder_asks_with_its_own_fields_only(page: Page) -> None:
    edit(page)
    part = steps.unfold(page, "filter")
    with page.expect_request("**/integrations/webhooks/filter/") as asked:
        part.get_by_role("button", name="Missed calls").click()
    names = {pair.partition("=")[0] for pair in (asked.value.post_data or "").split("&")}
    assert "name" not in names
    assert "url" not in names
    assert {"action", "event_types", "filter-mode"} <= names


@pytest.mark.once
def test_a_changed_filter_is_an_unsaved_change(page: Page) -> None:
    edit(page)
    note = page.locator("[data-dirty-note]").first
    expect(note).to_be_hidden()
    steps.unfold(page, "filter").get_by_role("button", name="Busy").click()
    expect(note).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())


@pytest.mark.once
def test_json_is_edited_and_its_mistake_shown_where_it_is(page: Page) -> None:
    edit(page, filter=BUSY)
    part = steps.unfold(page, "filter")
    part.get_by_role("button", name="Edit as JSON").click()
    text = part.get_by_label("Filter as JSON")
    expect(text).to_be_focused()
    text.fill('{"all": []}')
    part.get_by_role("button", name="Back to conditions").click()
    expect(part.get_by_text("at least one condition")).to_be_visible()
    text = part.get_by_label("Filter as JSON")
    text.fill('{"any": [{"variable": "fields.city", "operator": "exists"}]}')
    part.get_by_role("button", name="Back to conditions").click()
    expect(part.get_by_label("Name of the field, condition 1")).to_have_value("fields.city")


@pytest.mark.once
def test_a_click_counts_while_what_was_tried_on_opening_arrives(page: Page) -> None:
    held: list[Route] = []
    page.route("**/filter/**", lambda route: held.append(route), times=1)
    edit(page, filter=BUSY)
    part = steps.unfold(page, "filter")
    part.get_by_role("button", name="Edit as JSON").hover()
    page.mouse.down()
    held[0].continue_()
    expect(part.get_by_text("No such event yet")).to_be_visible()
    page.mouse.up()
    expect(part.get_by_label("Filter as JSON")).to_be_focused()


@pytest.mark.once
def test_a_click_right_after_typing_counts_also_when_its_answer_is_slow(page: Page) -> None:
    edit(page, filter=BUSY)
    part = steps.unfold(page, "filter")
    part.get_by_role("button", name="Edit as JSON").click()
    text = part.get_by_label("Filter as JSON")
    expect(text).to_be_focused()
    held: list[Route] = []
    page.route("**/filter/**", lambda route: held.append(route), times=1)
    text.fill('{"any": [{"variable": "fields.city", "operator": "exists"}]}')
    part.get_by_role("button", name="Back to conditions").click()
    # Longer than the delay after which typed text is tried.
    page.wait_for_timeout(800)
    held[0].continue_()
    expect(part.get_by_label("Name of the field, condition 1")).to_have_value("fields.city")


def test_without_javascript_a_filter_is_built_tried_and_saved(plain_page: Page) -> None:
    page = plain_page
    publish(1, disposition="BUSY")
    publish(2, disposition="ANSWERED", department="Sales")
    webhook = edit(page)
    part = steps.unfold(page, "filter")
    part.get_by_role("button", name="Busy").click()
    expect(part.get_by_text("Matches 1 of the last 3 events")).to_be_visible()
    part.get_by_role("radio", name="any matches").first.check()
    part.get_by_role("button", name="Add condition").click()
    part.get_by_label("What to look at, condition 2").select_option("department")
    part.get_by_label("Value, condition 2").fill("Sales")
    part.get_by_role("radio", name="All", exact=True).check()
    part.get_by_role("button", name="Try it on the last events").click()
    expect(part.get_by_text("Matches 3 of the last 3 events")).to_be_visible()
    expect(part.get_by_role("list", name="Tried events").get_by_role("listitem")).to_have_count(3)
    steps.save(page)
    webhook.refresh_from_db()
    assert [child["variable"] for child in webhook.filter["any"]] == ["disposition", "department"]


def test_why_an_event_was_not_sent_is_two_clicks_from_the_webhook(page: Page) -> None:
    webhook = make_webhook(filter={"all": [*BUSY["all"], LONG]})
    publish(1, disposition="NO ANSWER", duration_seconds=120)
    page.goto(reverse("webhooks:detail", args=[webhook.pk]))
    page.get_by_role("link", name="Why wasn't it sent?").click()
    expect(page.get_by_text("Filtered out")).to_be_visible()
    page.get_by_role("table").get_by_role("link", name="call.incoming.after").click()
    expect(page.get_by_role("heading", name="1 condition was not met")).to_be_visible()
    conditions = page.get_by_role("region", name="Conditions")
    refused = conditions.get_by_role("listitem").filter(has_text="is BUSY").last
    expect(refused).to_contain_text("not met")
    expect(refused).to_contain_text("NO ANSWER")
    page.get_by_role("link", name="Change the filter").click()
    expect(page.get_by_label("Value, condition 2")).to_have_value("1 min 30 s")


@pytest.mark.once
def test_an_event_is_found_by_the_id_of_its_call(plain_page: Page) -> None:
    webhook = make_webhook(event_types=["form.submitted"])
    publish(1, call_id="call-77")
    page = plain_page
    page.goto(reverse("webhooks:why_not_sent", args=[webhook.pk]))
    page.get_by_label("Event id, call id or delivery id").fill("call-77")
    page.get_by_role("button", name="Find").click()
    expect(page.get_by_role("heading", name="does not receive events of this type")).to_be_visible()
    expect(page.get_by_text(Event.objects.get().pk).first).to_be_visible()


@pytest.mark.once
@pytest.mark.parametrize("width", [320, 360, 768])
def test_the_builder_and_the_explanation_fit_a_small_window(page: Page, width: int) -> None:
    [event] = publish(1, disposition="NO ANSWER", call_id="a-call-with-a-long-id-" * 5)
    page.set_viewport_size({"width": width, "height": 800})
    inner = {"any": [LONG, {"all": [LONG, {"any": [LONG, LONG]}]}]}
    webhook = edit(page, filter={"all": [*BUSY["all"], inner]})
    expect(page.get_by_text("of the last 1 event")).to_be_visible()
    page.get_by_role("radio", name="All", exact=True).check()
    expect(page.get_by_role("list", name="Tried events")).to_be_visible()
    assert overflow(page) <= 0
    address = reverse("webhooks:why_not_sent", args=[webhook.pk])
    for query in ("", f"?event={event}"):
        page.goto(address + query)
        assert overflow(page) <= 0


@pytest.mark.once
def test_a_quick_start_right_after_an_event_type_was_chosen_is_not_lost(page: Page) -> None:
    page.goto(reverse("webhooks:create"))
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "filter%3Apreset" in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/integrations/webhooks/filter/", hold)
    steps.choose_events(page, steps.AFTER_A_CALL)
    steps.unfold(page, "filter")
    page.get_by_role("button", name="Missed calls", exact=True).click()
    # The request for the new event types follows 200 ms after the choice.
    page.wait_for_timeout(500)
    [route] = held
    route.continue_()
    expect(page.get_by_label("What to look at, condition 1")).to_be_visible()
