"""Replays on pages: a count first, then progress that survives a reload and can be stopped."""

import datetime as dt
import re
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from webhooks import events
from webhooks.alerts import notifications
from webhooks.delivery import replays
from webhooks.models import (
    Action,
    AuditEntry,
    Delivery,
    Incident,
    IncidentKind,
    Replay,
    ReplayScope,
    ReplayStatus,
    Status,
    Trigger,
    Webhook,
    WebhookState,
    ids,
)

pytestmark = pytest.mark.django_db
# The product's pages ask for permissions alone: ann is no staff.
person = partial(logged_in, name="ann")

SELECTION = "/integrations/webhooks/replays/new/"
FOR_ALL = "/integrations/webhooks/replays/new/all/"
FAILED_DAY = {"scope": "failed", "since": "day", "rate": "10"}


@pytest.fixture
def browser() -> Client:
    return person(is_superuser=True)


def failed(webhook: Webhook, status: str = Status.FAILED) -> Delivery:
    delivery = make_delivery(webhook)
    Delivery.objects.filter(pk=delivery.pk).update(
        status=status, next_attempt_at=None, finished_at=timezone.now(), attempt_count=1
    )
    return delivery


def form_of(webhook: Webhook) -> str:
    return reverse("webhooks:replay_create", args=[webhook.pk])


def page_of(replay: Replay) -> str:
    return reverse("webhooks:replay", args=[replay.pk])


def entries() -> list[tuple[str, str, int | None]]:
    rows = AuditEntry.objects.order_by("pk")
    return [(row.action, row.object_id, row.webhook_id) for row in rows]


def running(webhook: Webhook, **fields: Any) -> Replay:
    given = {"scope": ReplayScope.FAILED, "rate": 10, "total": 200, "done": 50, **fields}
    return Replay.objects.create(webhook=webhook, **given)


# Of a webhook


def test_the_count_comes_first_and_starts_nothing(browser: Client) -> None:
    webhook = make_webhook()
    for _ in range(3):
        failed(webhook)
    failed(webhook, Status.SUCCEEDED)
    page = browser.get(form_of(webhook))
    assert page.context["count"] == 3
    assert "3 deliveries" in page.text
    everything = browser.get(form_of(webhook), {**FAILED_DAY, "scope": "all"})
    assert everything.context["count"] == 4
    recounted = browser.post(form_of(webhook), {**FAILED_DAY, "recount": "1"})
    assert recounted.context["count"] == 3
    assert not Replay.objects.exists()


def test_htmx_gets_the_count_alone(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    part = browser.get(form_of(webhook), FAILED_DAY, headers={"HX-Request": "true"})
    assert "1 delivery" in part.text
    assert "<html" not in part.text


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"rate": "5000000"}, "Deliveries per second: Ensure this value is less than or equal to"),
        ({"since": "custom", "since_at": ""}, "Since this time: Say since when."),
    ],
)
def test_the_live_count_names_the_field_that_is_wrong(
    browser: Client, wrong: dict[str, str], told: str
) -> None:
    part = browser.get(FOR_ALL, {**FAILED_DAY, **wrong}, headers={"HX-Request": "true"})
    assert told in part.text
    assert "Correct what is marked" not in part.text
    page = browser.get(FOR_ALL, {**FAILED_DAY, **wrong})
    assert "Correct what is marked" in page.text
    assert told not in page.text


def test_the_rate_has_its_limits_on_the_page(browser: Client) -> None:
    field = re.search(r'<input[^>]*name="rate"[^>]*>', browser.get(FOR_ALL).text)
    assert field is not None
    assert 'min="1"' in field[0]
    assert 'max="10000"' in field[0]


def test_a_replay_starts_at_the_chosen_rate_and_is_written_down(browser: Client) -> None:
    webhook = make_webhook()
    first, second = failed(webhook), failed(webhook)
    answer = browser.post(form_of(webhook), {**FAILED_DAY, "rate": "25"}, follow=True)
    replay = Replay.objects.get()
    assert answer.redirect_chain[-1][0] == page_of(replay)
    assert (replay.rate, replay.total, replay.status) == (25, 2, ReplayStatus.RUNNING)
    assert replay.created_by is not None
    assert replay.created_by.get_username() == "ann"
    assert replay.since_at is not None
    assert timezone.now() - replay.since_at > dt.timedelta(hours=23)
    assert entries() == [(Action.REPLAY_STARTED, str(replay.pk), webhook.pk)]
    assert "0 of 2 put into the queue" in answer.text
    replays.advance_all()
    made = Delivery.objects.filter(trigger=Trigger.REPLAY).order_by("pk")
    assert [one.event_id for one in made] == [first.event_id, second.event_id]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"rate": "0"}, "greater than or equal to 1"),
        ({"rate": "x"}, "Enter a whole number."),
        ({"since": "custom"}, "Say since when."),
        ({"since": "custom", "since_at": "soon"}, "Write a time like"),
        ({"scope": "selection"}, "Select a valid choice"),
    ],
)
def test_a_mistake_starts_nothing_and_loses_nothing(
    browser: Client, wrong: dict[str, str], sentence: str
) -> None:
    webhook = make_webhook()
    failed(webhook)
    page = browser.post(form_of(webhook), {**FAILED_DAY, "rate": "77", **wrong})
    assert page.status_code == 422
    assert sentence in page.text
    assert page.context["form"]["rate"].value() == wrong.get("rate", "77")
    assert not Replay.objects.exists()


def test_a_time_of_ones_own_is_in_the_persons_zone(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    data = {**FAILED_DAY, "since": "custom", "since_at": "2026-01-02T03:04"}
    browser.post(form_of(webhook), data)
    assert Replay.objects.get().since_at == dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)


def test_since_the_problem_began_is_offered_first(browser: Client) -> None:
    webhook = make_webhook()
    began = timezone.now() - dt.timedelta(days=3)
    Incident.objects.create(webhook=webhook, kind=IncidentKind.FAILING, opened_at=began)
    page = browser.get(form_of(webhook))
    assert page.context["form"]["since"].initial == "incident"
    failed(webhook)
    browser.post(form_of(webhook), {**FAILED_DAY, "since": "incident"})
    assert Replay.objects.get().since_at == began


def test_what_made_the_problem_is_sent_again_by_default(browser: Client) -> None:
    webhook = make_webhook(alert_after_failures=4)
    first, *_others = [failed(webhook) for _ in range(4)]
    now = timezone.now()
    WebhookState.objects.create(webhook=webhook, failing_since_at=now, failures_in_a_row=4)
    notifications.look(now + dt.timedelta(minutes=1))
    page = browser.get(form_of(webhook))
    assert page.context["form"]["since"].initial == "incident"
    assert page.context["count"] == 4
    browser.post(form_of(webhook), {**FAILED_DAY, "since": "incident"})
    assert Replay.objects.get().since_at == ids.moment(first.pk)


def test_what_failed_before_the_problem_is_no_part_of_it(browser: Client) -> None:
    webhook = make_webhook(alert_after_failures=1)
    old = Delivery.objects.filter(pk=failed(webhook).pk)
    old.update(finished_at=timezone.now() - dt.timedelta(hours=1))
    failed(webhook)
    now = timezone.now()
    WebhookState.objects.create(webhook=webhook, failing_since_at=now, failures_in_a_row=1)
    notifications.look(now)
    assert browser.get(form_of(webhook)).context["count"] == 1


def test_a_problem_began_when_its_webhook_began_to_fail(browser: Client) -> None:
    webhook = make_webhook()
    now = timezone.now()
    began = now - dt.timedelta(hours=2)
    WebhookState.objects.create(webhook=webhook, failing_since_at=began)
    Incident.objects.create(webhook=webhook, kind=IncidentKind.FAILING, opened_at=now)
    assert browser.get(form_of(webhook)).context["replay"].since_at == began


def test_a_token_that_ends_soon_is_no_problem_to_send_again_since(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    opened = {"kind": IncidentKind.TOKEN_ENDING, "opened_at": timezone.now()}
    Incident.objects.create(webhook=webhook, **opened)
    page = browser.get(form_of(webhook))
    assert (page.context["form"]["since"].initial, page.context["count"]) == ("day", 1)


def test_the_same_replay_twice_leads_to_the_one_under_way(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    browser.post(form_of(webhook), FAILED_DAY)
    answer = browser.post(form_of(webhook), FAILED_DAY, follow=True)
    assert "This replay was started before" in answer.text
    assert Replay.objects.count() == 1


def test_nothing_to_send_is_said(browser: Client) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    assert "Nothing to send again" in browser.get(form_of(webhook)).text


def test_earlier_replays_are_listed(browser: Client) -> None:
    webhook = make_webhook()
    replay = running(webhook)
    assert page_of(replay) in browser.get(form_of(webhook)).text


# Of a selection


def test_the_log_leads_to_what_failed_of_every_webhook(browser: Client) -> None:
    for name in ("CRM", "Shop"):
        failed(make_webhook(name=name))
    log = browser.get("/integrations/webhooks/deliveries/").content.decode()
    assert f'href="{FOR_ALL}"' in log
    page = browser.get(FOR_ALL).content.decode()
    assert "2 deliveries" in page
    assert "Every webhook that is there now takes part." in page
    assert re.findall(r'aria-current="page">([^<]+)</a>', page) == ["Delivery log"]
    answer = browser.post(FOR_ALL, FAILED_DAY)
    replay = Replay.objects.get()
    assert (replay.webhook, replay.total, replay.rate) == (None, 2, 10)
    assert answer.headers["Location"] == page_of(replay)
    assert "Sending again, every webhook" in browser.get(page_of(replay)).content.decode()
    log = browser.get("/integrations/webhooks/deliveries/").content.decode()
    assert "Deliveries of every webhook are being sent again." in log
    assert AuditEntry.objects.filter(action=Action.REPLAY_STARTED, object_id=replay.pk).exists()


def test_a_selection_is_confirmed_then_sent_again(browser: Client) -> None:
    webhook, other = make_webhook(), make_webhook(name="Other", event_types=["sms.*"])
    chosen = [failed(webhook).pk, failed(webhook, Status.SUCCEEDED).pk]
    Delivery.objects.filter(pk=chosen[1]).update(webhook=other)
    waiting = make_delivery(webhook).pk
    page = browser.post(SELECTION, {"delivery": [*chosen, waiting]})
    assert "Send 2 deliveries again?" in page.text
    assert "1 of what you selected is left out" in page.text
    assert not Replay.objects.exists()
    data = {"delivery": page.context["chosen"], "rate": "1000", "confirm": "1"}
    browser.post(SELECTION, data)
    replay = Replay.objects.get()
    assert (replay.webhook, replay.total) == (None, 2)
    replays.advance_all()
    made = Delivery.objects.filter(trigger=Trigger.REPLAY)
    assert {one.webhook_id for one in made} == {webhook.pk, other.pk}
    assert entries() == [(Action.REPLAY_STARTED, str(replay.pk), None)]
    assert "of 2 put into the queue" in browser.get(page_of(replay)).text


def test_a_selection_of_nothing_leads_back_to_the_log(browser: Client) -> None:
    for data in ({}, {"delivery": ["x", "dlv_\0", "dlv_" + "0" * 99]}):
        answer = browser.post(SELECTION, data, follow=True)
        assert "Select the deliveries to send again first." in answer.text
    assert not Replay.objects.exists()


def test_a_wrong_rate_of_a_selection_is_said(browser: Client) -> None:
    chosen = failed(make_webhook()).pk
    page = browser.post(SELECTION, {"delivery": chosen, "rate": "", "confirm": "1"})
    assert "This field is required." in page.text
    assert page.status_code == 422
    assert not Replay.objects.exists()


# Progress


def test_progress_is_on_a_page_of_its_own_and_asks_again_while_it_runs(browser: Client) -> None:
    replay = running(make_webhook())
    page = browser.get(page_of(replay))
    assert "50 of 200 put into the queue" in page.text
    assert "About 15 seconds left." in page.text
    assert f'hx-get="{page_of(replay)}"' in page.text
    Replay.objects.update(status=ReplayStatus.FINISHED, done=199, finished_at=timezone.now())
    part = browser.get(page_of(replay), headers={"HX-Request": "true"})
    assert "1 was left out" in part.text
    assert "hx-get" not in part.text
    assert "<html" not in part.text


def test_a_replay_that_is_still_counted_says_so(browser: Client) -> None:
    replay = running(make_webhook(), total=0, done=0)
    assert "Counting what is to be sent" in browser.get(page_of(replay)).text


def test_the_page_says_what_became_of_the_new_deliveries_and_leads_to_them(
    browser: Client,
) -> None:
    webhook = make_webhook()
    failed(webhook)
    browser.post(form_of(webhook), FAILED_DAY)
    replays.advance_all()
    made = Delivery.objects.get(trigger=Trigger.REPLAY)
    page = browser.get(page_of(Replay.objects.get()))
    assert page.context["results"] == [("pending", "Pending", 1)]
    log = browser.get(f"{reverse('webhooks:deliveries')}?{page.context['log_query']}")
    assert [row.pk for row in log.context["page"].rows] == [made.pk]


def test_a_replay_is_stopped_once(browser: Client) -> None:
    replay = running(make_webhook())
    address = reverse("webhooks:replay_stop", args=[replay.pk])
    assert browser.get(address).status_code == 405
    answer = browser.post(address, follow=True)
    assert "The replay is stopped." in answer.text
    replay.refresh_from_db()
    assert replay.status == ReplayStatus.STOPPED
    assert "The replay had ended already." in browser.post(address, follow=True).text
    assert entries() == [(Action.REPLAY_STOPPED, str(replay.pk), replay.webhook_id)]


def test_replays_need_the_permissions() -> None:
    webhook = make_webhook()
    replay = running(webhook)
    browser = person("view_delivery", "view_webhook")
    stop = reverse("webhooks:replay_stop", args=[replay.pk])
    assert browser.get(page_of(replay)).status_code == 200
    assert stop not in browser.get(page_of(replay)).text
    assert browser.post(stop).status_code == 403
    for address in (SELECTION, FOR_ALL, form_of(webhook)):
        assert browser.get(address).status_code == 403
        assert browser.post(address, FAILED_DAY).status_code == 403
    get_user_model().objects.get().user_permissions.add(
        Permission.objects.get(codename="test_webhook")
    )
    assert stop in browser.get(page_of(replay)).text
    assert browser.get(form_of(webhook)).status_code == 200


def test_a_deleted_webhook_has_no_replay_form_but_keeps_its_replays(browser: Client) -> None:
    webhook = make_webhook()
    replay = running(webhook)
    events.delete(webhook)
    assert browser.get(form_of(webhook)).status_code == 404
    assert browser.get(page_of(replay)).status_code == 200


def test_the_pages_of_replays_cost_few_queries(django_assert_max_num_queries: Any) -> None:
    browser = person("view_delivery", "view_webhook", "test_webhook")
    webhook = make_webhook(client_secret="secret-of-the-client")
    rows = [failed(webhook).pk for _ in range(20)]
    replay = running(webhook)
    with django_assert_max_num_queries(15) as queries:
        browser.get(form_of(webhook))
        assert len(queries) < 15
    with django_assert_max_num_queries(15):
        browser.get(page_of(replay))
    with django_assert_max_num_queries(15):
        browser.post(SELECTION, {"delivery": rows})
    assert not any("client_secret" in query["sql"] for query in queries)
