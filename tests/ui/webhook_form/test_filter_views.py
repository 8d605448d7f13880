"""Trying a filter on past events, saving it, and showing why an event was not sent."""

import datetime as dt
import json
import re
from typing import Any

import pytest
from django.db.models import QuerySet
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from tests import factories
from tests.ui.webhook_detail.test_views import words
from tests.ui.webhook_form.test_forms import posted
from tests.ui.webhook_form.test_views import created, edit_url, logged_in
from webhooks import audit, events
from webhooks.delivery_log import filter_preview
from webhooks.models import Action, AuditEntry, Delivery, Event, Status, Webhook

pytestmark = pytest.mark.django_db

TRY = "/integrations/webhooks/filter/"
AFTER = "call.incoming.after"
MISSED = {"all": [{"variable": "disposition", "operator": "equals", "value": "NO ANSWER"}]}
ROW = {
    "filter-mode": "rows",
    "filter-node": "row-1",
    "filter-0-kind": "all",
    "filter-1-variable": "disposition",
    "filter-1-was": "disposition",
    "filter-1-operator": "equals",
    "filter-1-value": "NO ANSWER",
}


def make_webhook(**fields: Any) -> Webhook:
    """Save a webhook that was made an hour ago.

    PostgreSQL's clock stands still within a test's transaction, and events get that time.
    """
    webhook = factories.make_webhook(**fields)
    _age(Webhook.objects.filter(pk=webhook.pk), "created_at", "updated_at")
    return webhook


def _age(rows: QuerySet[Any], *columns: str) -> None:
    rows.update(**dict.fromkeys(columns, timezone.now() - dt.timedelta(hours=1)))


def publish(count: int = 1, kind: str = AFTER, **values: Any) -> list[Event]:
    """Publish events and return them, oldest first."""
    found = [events.publish(kind, {"call_id": "call-1", **values}) for _ in range(count)]
    return [Event.objects.get(pk=one.event_id) for one in found]


def tried(browser: Client, **fields: Any) -> Any:
    return browser.post(TRY, {"event_types": [AFTER], **ROW, **fields})


def why(webhook: Webhook, browser: Client, **query: str) -> Any:
    return browser.get(reverse("webhooks:why_not_sent", args=[webhook.pk]), query)


def verdict(webhook: Webhook, event: Event, browser: Client) -> Any:
    return why(webhook, browser, event=event.pk).context["verdict"]


# ---- Trying ----------------------------------------------------------------------------------


def test_a_button_that_moved_a_condition_keeps_the_focus(browser: Client) -> None:
    typed = {"filter-node": ["row-1", "row-2"], "action": "filter:down:1"}
    [button] = re.findall("<button[^>]* autofocus", tried(browser, **typed).text)
    assert 'id="filter-1-down"' in button


def test_a_filter_is_tried_on_the_last_events(browser: Client) -> None:
    publish(3, disposition="NO ANSWER")
    publish(2, disposition="ANSWERED")
    page = tried(browser)
    assert "Matches 3 of the last 5 events" in words(page)
    assert "Sent when " in page.text
    assert "no-store" in page["Cache-Control"]


def test_only_chosen_events_are_counted_and_tests_never(browser: Client) -> None:
    webhook = make_webhook()
    publish(2, disposition="NO ANSWER")
    publish(1, "form.submitted", disposition="NO ANSWER")
    events.send_test(webhook)
    assert "Matches 2 of the last 2 events" in words(tried(browser))
    both = tried(browser, event_types=[AFTER, "form.submitted", "webhook.test"])
    assert "Matches 3 of the last 3 events" in words(both)


@pytest.mark.slow
def test_at_most_two_hundred_events_are_read(browser: Client) -> None:
    publish(5, disposition="ANSWERED")
    publish(200, disposition="NO ANSWER")
    assert "Matches 200 of the last 200 events" in words(tried(browser))


def test_an_edited_copy_is_not_among_the_events() -> None:
    make_webhook()
    [event] = publish()
    events.resend_edited(Delivery.objects.get(), {"call_id": "call-2"})
    assert filter_preview.recent_events([AFTER]) == [event]
    assert filter_preview.newest_event([AFTER]) == event


def test_few_bytes_of_huge_events_are_read() -> None:
    [event] = publish()
    Event.objects.filter(pk=event.pk).update(payload=b'{"x": "' + b"y" * 3_000_000 + b'"}')
    Event.objects.create(type=AFTER, payload=b'{"x": "' + b"y" * 3_000_000 + b'"}', **_times())
    assert len(filter_preview.recent_events([AFTER])) == 1


def _times() -> dict[str, Any]:
    return {"occurred_at": timezone.now()}


def test_before_any_event_the_samples_are_tried(browser: Client) -> None:
    assert "No such event yet. 0 of 1 sample matches." in words(tried(browser))


def test_without_chosen_events_it_asks_for_them(browser: Client) -> None:
    publish(disposition="NO ANSWER")
    assert "Choose events above" in tried(browser, event_types=[]).text


def test_the_tried_events_are_listed_with_their_reasons(browser: Client) -> None:
    publish(disposition="NO ANSWER", call_id="went-through")
    publish(disposition="BUSY", call_id="was-stopped")
    everything = tried(browser, **{"filter-shown": "all"})
    assert "went-through" in everything.text
    assert "is NO ANSWER, but here it is BUSY" in everything.text
    refused = tried(browser, **{"filter-shown": "refused"})
    assert "was-stopped" in refused.text
    assert "went-through" not in refused.text
    assert "was-stopped" not in tried(browser, **{"filter-shown": "passed"}).text


def test_tricky_values_of_events_are_shown_as_escapes(browser: Client) -> None:
    publish(disposition="<b>\x1b[31m\u202eNO")
    page = tried(browser, **{"filter-shown": "all"})
    assert "\x1b" not in page.text
    assert "\u202e" not in page.text
    assert "<b>\\x1b" not in page.text
    assert "\\x1b" in page.text


def test_who_may_not_see_payloads_tries_samples() -> None:
    """The number of real events that match would let them guess a value piece by piece."""
    publish(disposition="NO ANSWER", call_id="went-through")
    page = tried(logged_in("change_webhook"), **{"filter-shown": "all"})
    assert "0 of 1 sample matches. Real events are tried only for users" in words(page)
    assert "Matches" not in page.text
    assert "No such event yet" not in page.text
    assert "went-through" not in page.text


def test_a_button_answers_with_the_whole_section(browser: Client) -> None:
    page = tried(browser, action="filter:add:0")
    assert page.text.count('name="filter-node"') == 2
    assert 'id="filter"' in page.text
    assert 'id="filter"' not in tried(browser).text


def test_a_mistake_is_reported_while_typing(browser: Client) -> None:
    page = tried(
        browser,
        **{
            "filter-1-variable": "duration_seconds",
            "filter-1-was": "duration_seconds",
            "filter-1-operator": "less_than",
            "filter-1-value": "soon",
        },
    )
    assert "“soon” is not a duration" in page.text
    assert "1 incomplete condition" in page.text


@pytest.mark.parametrize(
    ("written", "words_of_it"),
    [
        ('{"all": [{"variable": "disposition", "operator": "eq", "value": "X"}]}', "operator"),
        ('{"all": [', "The text is not JSON. Line 1, column 10: The text ends here"),
        ("{“all”: []}", "This quote (“) is curly."),
        ('{"all": [], "all": []}', "“all” is in this object already."),
        ('{"variable": "a", "operator": "exists", "value": 1e999}', "This is not JSON."),
        (
            '{"variable": "a", "operator": "exists", "value": "\\u0000"}',
            "Null characters are not allowed.",
        ),
        ("[]", "filter"),
    ],
)
def test_a_wrong_json_filter_is_reported_while_typing_and_counts_nothing(
    browser: Client, written: str, words_of_it: str
) -> None:
    publish(3, disposition="NO ANSWER")
    page = tried(browser, **{"filter-mode": "json", "filter-json": written})
    reported = page.text.partition('<p class="field-errors">')[2].partition("</p>")[0]
    assert words_of_it in reported
    assert "Matches" not in page.text
    assert "Every chosen event is sent" not in page.text
    assert "Fix the filter to see how many events match." in page.text
    assert 'id="filter-json-error" hx-swap-oob="true"></p>' in page.text


def test_a_right_json_filter_is_counted(browser: Client) -> None:
    publish(3, disposition="NO ANSWER")
    page = tried(browser, **{"filter-mode": "json", "filter-json": json.dumps(MISSED)})
    assert "Matches 3 of the last 3 events" in words(page)
    assert "Fix the filter" not in page.text


@pytest.mark.parametrize("value", ["abc", "-5", ""])
def test_nothing_is_counted_while_a_condition_is_wrong(browser: Client, value: str) -> None:
    publish(3, disposition="NO ANSWER")
    duration = {"variable": "duration_seconds", "was": "duration_seconds", "value": value}
    second = {f"filter-2-{name}": text for name, text in duration.items()}
    nodes = ["row-1", "row-2"]
    page = tried(browser, **{**second, "filter-2-operator": "greater_than", "filter-node": nodes})
    assert "Matches" not in page.text
    assert "Fix the filter to see how many events match." in page.text


def test_a_condition_that_was_only_added_does_not_stop_the_count(browser: Client) -> None:
    publish(3, disposition="NO ANSWER")
    page = tried(browser, **{"filter-node": ["row-1", "row-2"]})
    assert "Matches 3 of the last 3 events" in words(page)


def test_trying_takes_few_queries(
    browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    publish(30, disposition="BUSY")
    with django_assert_max_num_queries(8):
        tried(browser, event_types=["*"], **{"filter-shown": "all"})


# ---- On the form -----------------------------------------------------------------------------


def test_a_filter_is_saved_with_the_form_and_drawn_again(browser: Client) -> None:
    webhook = created(browser, **ROW)
    assert webhook.filter == MISSED
    page = browser.get(edit_url(webhook))
    assert 'value="row-1"' in page.text
    assert "Sent when " in page.text
    browser.post(edit_url(webhook), posted(**{**ROW, "filter-node": []}))
    webhook.refresh_from_db()
    assert webhook.filter == {}


def test_the_form_posts_which_values_are_numbers(browser: Client) -> None:
    condition = {"variable": "fields.windows", "operator": "one_of", "value": [3, "4", True]}
    webhook = make_webhook(filter={"all": [condition]})
    page = browser.get(edit_url(webhook))
    assert '<input type="hidden" name="filter-1-typed" value="3 true">' in page.text


def test_a_variable_that_no_chosen_event_has_is_marked_on_the_form(browser: Client) -> None:
    webhook = make_webhook(event_types=["form.submitted"], filter=MISSED)
    assert "filter-note field-hint is-warning" in browser.get(edit_url(webhook)).text


def test_a_change_of_the_filter_is_in_the_audit_trail(browser: Client) -> None:
    webhook = created(browser)
    browser.post(edit_url(webhook), posted(**ROW))
    entry = AuditEntry.objects.filter(object_id=str(webhook.pk)).latest("pk")
    assert entry.fields == ["filter"]


def test_a_mistake_in_the_filter_stops_the_save_and_is_in_the_summary(browser: Client) -> None:
    page = browser.post("/integrations/webhooks/new/", posted(**{**ROW, "filter-1-value": ""}))
    assert page.status_code == 200
    assert 'href="#filter-1-value"' in page.text
    assert not Webhook.objects.exists()


def test_without_javascript_each_button_is_a_round_trip_that_saves_nothing(
    browser: Client,
) -> None:
    publish(2, disposition="NO ANSWER")
    page = browser.post("/integrations/webhooks/new/", posted(**{**ROW, "action": "filter:add:0"}))
    assert page.status_code == 200
    assert page.text.count('name="filter-node"') == 2
    assert "Matches 2 of the last 2 events" in words(page)
    assert not Webhook.objects.exists()


# ---- Why wasn't it sent? -------------------------------------------------------------------------


def test_the_condition_that_refused_is_read_on_the_page(browser: Client) -> None:
    webhook = make_webhook(name="CRM", filter=MISSED)
    [event] = publish(disposition="BUSY")
    page = why(webhook, browser, event=event.pk)
    assert "The filter did not match: 1 condition was not met." in page.text
    assert "is NO ANSWER" in page.text
    assert "BUSY" in page.text
    assert "#filter" in page.text


def test_values_are_for_those_who_may_see_payloads() -> None:
    webhook = make_webhook(filter=MISSED)
    [event] = publish(disposition="BUSY")
    page = why(webhook, logged_in("view_webhook"), event=event.pk)
    assert "is NO ANSWER" in page.text
    assert "BUSY" not in page.text
    assert "You have no permission to see payloads" in page.text


def test_a_type_that_is_not_chosen_is_said(browser: Client) -> None:
    webhook = make_webhook(event_types=["form.submitted"])
    [event] = publish()
    assert verdict(webhook, event, browser)["is_type_unwanted"]


def test_an_event_before_the_webhook_is_said(browser: Client) -> None:
    [event] = publish()
    younger = factories.make_webhook()
    assert "before this webhook was created" in verdict(younger, event, browser)["sentence"]


def test_an_event_after_the_deletion_is_said(browser: Client) -> None:
    webhook = make_webhook()
    _age(Webhook.objects.all(), "deleted_at")
    [event] = publish()
    assert "deleted before" in verdict(webhook, event, browser)["sentence"]


def test_a_paused_webhook_says_that_it_holds_the_event(browser: Client) -> None:
    webhook = make_webhook(is_active=False, pause_reason="person", paused_at=timezone.now())
    [event] = publish()
    found = verdict(webhook, event, browser)
    assert found["sentence"] == "On hold: Webhook paused."
    assert len(found["deliveries"]) == 1


def test_a_test_of_another_webhook_is_said(browser: Client) -> None:
    webhook, other = make_webhook(event_types=["*"]), make_webhook()
    delivery = events.send_test(other)
    assert "test of another webhook" in verdict(webhook, delivery.event, browser)["sentence"]


@pytest.mark.parametrize("status", [status for status in Status if status != Status.HELD])
def test_a_delivery_says_how_it_stands(status: Status, browser: Client) -> None:
    webhook = make_webhook()
    [event] = publish()
    is_open = status in (Status.PENDING, Status.SENDING)
    Delivery.objects.update(
        status=status, attempt_count=2, next_attempt_at=timezone.now() if is_open else None
    )
    found = verdict(webhook, event, browser)
    assert found["label"] == status.label
    assert str(found["sentence"]).endswith(".")


@pytest.mark.parametrize("reason", ["paused", "reauthorization", "misconfigured", "no_token"])
def test_a_held_delivery_says_what_it_waits_for(reason: str, browser: Client) -> None:
    webhook = make_webhook()
    [event] = publish()
    Delivery.objects.update(status=Status.HELD, hold_reason=reason, next_attempt_at=None)
    assert str(verdict(webhook, event, browser)["sentence"]).startswith("On hold: ")


def test_a_filter_that_was_changed_since_is_pointed_out(browser: Client) -> None:
    webhook = make_webhook(filter=MISSED)
    [event] = publish(disposition="NO ANSWER")
    Delivery.objects.all().delete()
    audit.record(Action.CHANGED, webhook, user=None, fields=["filter"])
    found = verdict(webhook, event, browser)
    assert found["changed_since"] is not None
    assert "would be sent now" in found["sentence"]


def test_a_change_of_something_else_is_not(browser: Client) -> None:
    webhook = make_webhook(filter=MISSED)
    audit.record(Action.CHANGED, webhook, user=None, fields=["filter"])
    [event] = publish(disposition="BUSY")
    Event.objects.update(created_at=timezone.now())
    audit.record(Action.CHANGED, webhook, user=None, fields=["name"])
    assert verdict(webhook, event, browser)["changed_since"] is None


def test_events_are_listed_with_their_verdicts_page_by_page(browser: Client) -> None:
    webhook = make_webhook(filter=MISSED)
    publish(20, disposition="BUSY")
    publish(20, disposition="NO ANSWER")
    first = why(webhook, browser)
    assert [found["label"] for _event, found in first.context["rows"]] == (
        ["Waiting"] * 20 + ["Filtered out"] * 10
    )
    second = why(webhook, browser, before=first.context["older"])
    assert len(second.context["rows"]) == 10
    assert not second.context["older"]


def test_an_event_is_found_by_its_id_a_call_or_a_delivery(browser: Client) -> None:
    webhook = make_webhook()
    [event] = publish(call_id="call-7")
    target = f"?event={event.pk}"
    for text in (event.pk, "call-7", Delivery.objects.get().pk):
        assert why(webhook, browser, q=f" {text} ")["Location"].endswith(target)
    publish(call_id="call-7")
    assert len(why(webhook, browser, q="call-7").context["rows"]) == 2
    assert "Event not found" in why(webhook, browser, q="nothing").text


@pytest.mark.parametrize("text", ["\0", "\0x", "evt_' OR 1=1 --", "\ud800", "x" * 5000, "evt_%"])
def test_a_hostile_search_finds_nothing_and_breaks_nothing(text: str, browser: Client) -> None:
    publish()
    webhook = make_webhook()
    query = {"q": text.encode("utf-8", "surrogatepass")}
    url = reverse("webhooks:why_not_sent", args=[webhook.pk])
    assert browser.get(url, query).status_code == 200
    for name in ("event", "before"):
        assert browser.get(url, {name: query["q"]}).status_code == 200


def test_the_pages_take_few_queries(
    browser: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    webhook = make_webhook(filter=MISSED)
    [event] = publish(disposition="BUSY")
    publish(35, disposition="NO ANSWER")
    with django_assert_max_num_queries(15):
        why(webhook, browser)
    with django_assert_max_num_queries(15):
        why(webhook, browser, event=event.pk)


def test_the_webhooks_page_leads_there_and_says_its_filter(browser: Client) -> None:
    webhook = make_webhook(filter=MISSED)
    page = browser.get(reverse("webhooks:detail", args=[webhook.pk]))
    assert reverse("webhooks:why_not_sent", args=[webhook.pk]) in page.text
    assert "is NO ANSWER</" in page.text


def test_a_filter_that_cannot_be_read_is_not_taken_for_none(browser: Client) -> None:
    webhook = make_webhook()
    [event] = publish()
    Delivery.objects.filter(event=event).delete()
    Webhook.objects.filter(pk=webhook.pk).update(filter={"operator": "no such"})
    assert "cannot be read" in words(why(webhook, browser, event=event.pk))
