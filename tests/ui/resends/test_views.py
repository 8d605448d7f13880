"""Resends on pages: a count first, then progress that survives a reload and can be stopped."""

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
from django.utils.html import escape

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from webhooks import events
from webhooks.alerts import notifications
from webhooks.delivery import resends
from webhooks.models import (
    Action,
    AuditEntry,
    Delivery,
    Incident,
    IncidentKind,
    Resend,
    ResendScope,
    ResendStatus,
    Status,
    Trigger,
    Webhook,
    WebhookState,
    ids,
)

pytestmark = pytest.mark.django_db
# The product's pages check permissions only, so ann need not be staff.
person = partial(logged_in, name="ann")

SELECTION = "/integrations/webhooks/resends/new/"
FOR_ALL = "/integrations/webhooks/resends/new/all/"
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
    return reverse("webhooks:resend_create", args=[webhook.pk])


def page_of(resend: Resend) -> str:
    return reverse("webhooks:resend", args=[resend.pk])


def entries() -> list[tuple[str, str, int | None]]:
    rows = AuditEntry.objects.order_by("pk")
    return [(row.action, row.object_id, row.webhook_id) for row in rows]


def running(webhook: Webhook, **fields: Any) -> Resend:
    given = {"scope": ResendScope.FAILED, "rate": 10, "total": 200, "done": 50, **fields}
    return Resend.objects.create(webhook=webhook, **given)


# For a webhook


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
    assert not Resend.objects.exists()


def test_a_resend_is_starting_until_the_first_delivery_is_resent(browser: Client) -> None:
    resend = running(make_webhook(name="CRM"), total=9, done=0)
    page = browser.get(page_of(resend)).text
    assert "Resending “CRM”" in page
    assert "Starting…" in page
    assert "Almost done." not in page
    Resend.objects.update(done=1)
    assert "Almost done." in browser.get(page_of(resend)).text


def test_both_pages_of_a_resend_belong_to_the_same_tab(browser: Client) -> None:
    webhook = make_webhook()
    tab = re.compile(r'<a\s+href="([^"]*)"\s+aria-current="page"')
    for address in (form_of(webhook), page_of(running(webhook))):
        assert tab.findall(browser.get(address).text) == [reverse("webhooks:list")]
    for_all = Resend.objects.create(scope=ResendScope.FAILED, rate=10, total=9, done=1)
    for address in (FOR_ALL, page_of(for_all)):
        assert tab.findall(browser.get(address).text) == [reverse("webhooks:deliveries")]


def test_htmx_gets_the_count_alone(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    part = browser.get(form_of(webhook), FAILED_DAY, headers={"HX-Request": "true"})
    assert "1 delivery" in part.text
    assert "<html" not in part.text


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        ({"rate": "5000000"}, "Deliveries per second: Enter a whole number from 1 to 10,000."),
        ({"since": "custom", "since_at": ""}, "Since this time: Choose a time."),
    ],
)
def test_the_live_count_names_the_field_that_is_wrong(
    browser: Client, wrong: dict[str, str], reported: str
) -> None:
    part = browser.get(FOR_ALL, {**FAILED_DAY, **wrong}, headers={"HX-Request": "true"})
    assert reported in part.text
    assert "Fix the marked fields" not in part.text
    page = browser.get(FOR_ALL, {**FAILED_DAY, **wrong})
    assert "Fix the marked fields" in page.text
    assert reported not in page.text


def test_the_rate_has_its_limits_on_the_page(browser: Client) -> None:
    field = re.search(r'<input[^>]*name="rate"[^>]*>', browser.get(FOR_ALL).text)
    assert field is not None
    assert 'min="1"' in field[0]
    assert 'max="10000"' in field[0]


def test_a_resend_starts_at_the_chosen_rate_and_is_written_down(browser: Client) -> None:
    webhook = make_webhook()
    first, second = failed(webhook), failed(webhook)
    answer = browser.post(form_of(webhook), {**FAILED_DAY, "rate": "25"}, follow=True)
    resend = Resend.objects.get()
    assert answer.redirect_chain[-1][0] == page_of(resend)
    assert (resend.rate, resend.total, resend.status) == (25, 2, ResendStatus.RUNNING)
    assert resend.created_by is not None
    assert resend.created_by.get_username() == "ann"
    assert resend.since_at is not None
    assert timezone.now() - resend.since_at > dt.timedelta(hours=23)
    assert entries() == [(Action.RESEND_STARTED, str(resend.pk), webhook.pk)]
    assert "0 of 2 resent" in answer.text
    resends.advance_all()
    made = Delivery.objects.filter(trigger=Trigger.BULK).order_by("pk")
    assert [one.event_id for one in made] == [first.event_id, second.event_id]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"rate": "0"}, "Enter a whole number from 1 to 10,000."),
        ({"rate": "x"}, "Enter a whole number from 1 to 10,000."),
        ({"since": "custom"}, "Choose a time."),
        ({"since": "custom", "since_at": "soon"}, "Enter a time like"),
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
    assert " autofocus" in page.text
    assert page.context["form"]["rate"].value() == wrong.get("rate", "77")
    assert not Resend.objects.exists()


def test_a_time_of_ones_own_is_in_the_persons_zone(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    data = {**FAILED_DAY, "since": "custom", "since_at": "2026-01-02T03:04"}
    browser.post(form_of(webhook), data)
    assert Resend.objects.get().since_at == dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)


def test_since_the_problem_began_is_offered_first(browser: Client) -> None:
    webhook = make_webhook()
    began = timezone.now() - dt.timedelta(days=3)
    Incident.objects.create(webhook=webhook, kind=IncidentKind.FAILING, opened_at=began)
    page = browser.get(form_of(webhook))
    assert page.context["form"]["since"].initial == "incident"
    failed(webhook)
    browser.post(form_of(webhook), {**FAILED_DAY, "since": "incident"})
    assert Resend.objects.get().since_at == began


def test_a_problem_that_ended_while_the_page_was_open_is_said(browser: Client) -> None:
    webhook = make_webhook()
    page = browser.post(form_of(webhook), {**FAILED_DAY, "since": "incident"})
    assert page.context["form"].errors["since"] == ["The problem is over. Choose a time."]
    assert not Resend.objects.exists()


def test_what_made_the_problem_is_sent_again_by_default(browser: Client) -> None:
    webhook = make_webhook(alert_after_failures=4)
    first, *_others = [failed(webhook) for _ in range(4)]
    now = timezone.now()
    WebhookState.objects.create(webhook=webhook, failing_since_at=now, failures_in_a_row=4)
    notifications.run(now + dt.timedelta(minutes=1))
    page = browser.get(form_of(webhook))
    assert page.context["form"]["since"].initial == "incident"
    assert page.context["count"] == 4
    browser.post(form_of(webhook), {**FAILED_DAY, "since": "incident"})
    assert Resend.objects.get().since_at == ids.moment(first.pk)


def test_what_failed_before_the_problem_is_no_part_of_it(browser: Client) -> None:
    webhook = make_webhook(alert_after_failures=1)
    old = Delivery.objects.filter(pk=failed(webhook).pk)
    old.update(finished_at=timezone.now() - dt.timedelta(hours=1))
    failed(webhook)
    now = timezone.now()
    WebhookState.objects.create(webhook=webhook, failing_since_at=now, failures_in_a_row=1)
    notifications.run(now)
    assert browser.get(form_of(webhook)).context["count"] == 1


def test_a_problem_began_when_its_webhook_began_to_fail(browser: Client) -> None:
    webhook = make_webhook()
    now = timezone.now()
    began = now - dt.timedelta(hours=2)
    WebhookState.objects.create(webhook=webhook, failing_since_at=began)
    Incident.objects.create(webhook=webhook, kind=IncidentKind.FAILING, opened_at=now)
    assert browser.get(form_of(webhook)).context["resend"].since_at == began


def test_a_token_that_ends_soon_is_no_problem_to_send_again_since(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    opened = {"kind": IncidentKind.TOKEN_ENDING, "opened_at": timezone.now()}
    Incident.objects.create(webhook=webhook, **opened)
    page = browser.get(form_of(webhook))
    assert (page.context["form"]["since"].initial, page.context["count"]) == ("day", 1)


def test_the_same_resend_twice_leads_to_the_one_under_way(browser: Client) -> None:
    webhook = make_webhook()
    failed(webhook)
    browser.post(form_of(webhook), FAILED_DAY)
    answer = browser.post(form_of(webhook), FAILED_DAY, follow=True)
    assert "This resend was already started" in answer.text
    assert Resend.objects.count() == 1


@pytest.mark.parametrize("changed", [{"scope": "all"}, {"since": "week"}, {"rate": "20"}])
def test_another_resend_is_not_called_started(browser: Client, changed: dict[str, str]) -> None:
    webhook = make_webhook()
    failed(webhook)
    browser.post(form_of(webhook), FAILED_DAY)
    answer = browser.post(form_of(webhook), {**FAILED_DAY, **changed}, follow=True)
    assert "Not started: this resend is still running." in answer.text
    assert Resend.objects.count() == 1


def test_nothing_to_send_is_said(browser: Client) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    assert "Nothing to resend" in browser.get(form_of(webhook)).text


def test_earlier_resends_are_listed(browser: Client) -> None:
    webhook = make_webhook()
    resend = running(webhook)
    assert page_of(resend) in browser.get(form_of(webhook)).text


# For a selection


def test_the_log_leads_to_what_failed_of_every_webhook(browser: Client) -> None:
    for name in ("CRM", "Shop"):
        failed(make_webhook(name=name))
    log = browser.get("/integrations/webhooks/deliveries/").content.decode()
    assert f'href="{FOR_ALL}"' in log
    page = browser.get(FOR_ALL).content.decode()
    assert "2 deliveries" in page
    assert "Applies to every webhook." in page
    assert re.findall(r'aria-current="page">([^<]+)</a>', page) == ["Delivery log"]
    answer = browser.post(FOR_ALL, FAILED_DAY)
    resend = Resend.objects.get()
    assert (resend.webhook, resend.total, resend.rate) == (None, 2, 10)
    assert answer.headers["Location"] == page_of(resend)
    assert "Resending, every webhook" in browser.get(page_of(resend)).content.decode()
    log = browser.get("/integrations/webhooks/deliveries/").content.decode()
    assert "Deliveries of every webhook are being resent." in log
    assert AuditEntry.objects.filter(action=Action.RESEND_STARTED, object_id=resend.pk).exists()


def test_a_selection_is_confirmed_then_sent_again(browser: Client) -> None:
    webhook, other = make_webhook(), make_webhook(name="Other", event_types=["sms.*"])
    chosen = [failed(webhook).pk, failed(webhook, Status.SUCCEEDED).pk]
    Delivery.objects.filter(pk=chosen[1]).update(webhook=other)
    waiting, held = make_delivery(webhook), make_delivery(webhook)
    later = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.filter(pk=waiting.pk).update(next_attempt_at=later)
    Delivery.objects.filter(pk=held.pk).update(
        status=Status.HELD, hold_reason="paused", next_attempt_at=None
    )
    page = browser.post(SELECTION, {"delivery": [*chosen, waiting.pk, held.pk]})
    assert "Resend 3 deliveries?" in page.text
    assert re.findall(r'aria-current="page">([^<]+)</a>', page.text) == ["Delivery log"]
    assert "1 selected delivery is skipped" in page.text
    assert not Resend.objects.exists()
    data = {"delivery": page.context["chosen"], "rate": "1000", "confirm": "1"}
    browser.post(SELECTION, data)
    resend = Resend.objects.get()
    assert (resend.webhook, resend.total) == (None, 2)
    resends.advance_all()
    made = Delivery.objects.filter(trigger=Trigger.BULK)
    assert {one.webhook_id for one in made} == {webhook.pk, other.pk}
    waiting.refresh_from_db()
    assert waiting.next_attempt_at is not None
    assert waiting.next_attempt_at < later
    assert set(entries()) == {
        (Action.RESEND_STARTED, str(resend.pk), None),
        (Action.RESENT, waiting.pk, webhook.pk),
    }
    assert "of 2 resent" in browser.get(page_of(resend)).text


def test_waiting_deliveries_alone_are_sent_at_once_without_a_rate(browser: Client) -> None:
    webhook = make_webhook()
    waiting = make_delivery(webhook)
    Delivery.objects.update(next_attempt_at=timezone.now() + dt.timedelta(hours=1))
    page = browser.post(SELECTION, {"delivery": waiting.pk})
    assert "Resend 1 delivery" in page.text
    assert 'name="rate"' not in page.text
    answer = browser.post(SELECTION, {"delivery": waiting.pk, "confirm": "1"}, follow=True)
    assert "1 delivery is sent now." in answer.text
    assert Delivery.objects.get().next_attempt_at <= timezone.now()
    assert not Resend.objects.exists()


def test_a_selection_that_is_on_hold_by_now_is_said_to_be_nothing(browser: Client) -> None:
    held = make_delivery(make_webhook())
    Delivery.objects.update(status=Status.HELD, hold_reason="paused", next_attempt_at=None)
    page = browser.post(SELECTION, {"delivery": held.pk, "confirm": "1"})
    assert "Nothing to resend" in page.text
    assert "1 selected delivery is skipped" in page.text


def test_a_selection_of_nothing_leads_back_to_the_log(browser: Client) -> None:
    for data in ({}, {"delivery": ["x", "dlv_\0", "dlv_" + "0" * 99]}):
        answer = browser.post(SELECTION, data, follow=True)
        assert "Select deliveries first." in answer.text
    assert not Resend.objects.exists()


def test_a_selection_leads_back_to_the_page_of_the_log_it_was_made_on(browser: Client) -> None:
    place = "/admin/webhooks/delivery/?status=pending&before=dlv_1"
    nothing = browser.post(SELECTION, {"next": place})
    assert nothing["Location"] == place
    chosen = {"delivery": make_delivery(make_webhook()).pk, "next": place}
    page = browser.post(SELECTION, chosen)
    assert page.text.count(f'="{escape(place)}"') == 2
    assert browser.post(SELECTION, {**chosen, "confirm": "1"})["Location"] == place
    outside = browser.post(SELECTION, {**chosen, "next": "https://evil.example/"})
    assert "evil.example" not in outside.text


def test_a_wrong_rate_of_a_selection_is_said(browser: Client) -> None:
    chosen = failed(make_webhook()).pk
    page = browser.post(SELECTION, {"delivery": chosen, "rate": "", "confirm": "1"})
    assert "Enter a whole number from 1 to 10,000." in page.text
    assert page.status_code == 422
    assert not Resend.objects.exists()


# Progress


def test_progress_is_on_a_page_of_its_own_and_asks_again_while_it_runs(browser: Client) -> None:
    resend = running(make_webhook())
    page = browser.get(page_of(resend))
    assert "50 of 200 resent" in page.text
    assert "About 15 s left." in page.text
    assert f'hx-get="{page_of(resend)}"' in page.text
    Resend.objects.update(status=ResendStatus.FINISHED, done=199, finished_at=timezone.now())
    part = browser.get(page_of(resend), headers={"HX-Request": "true"})
    assert "1 was skipped: someone else resent it, or its webhook was deleted." in part.text
    assert "hx-get" not in part.text
    assert "<html" not in part.text


def test_a_resend_that_is_still_counted_says_so(browser: Client) -> None:
    resend = running(make_webhook(), total=0, done=0)
    assert "Counting deliveries" in browser.get(page_of(resend)).text
    browser.post(reverse("webhooks:resend_stop", args=[resend.pk]))
    page = browser.get(page_of(resend)).text
    assert "Stopped." in page
    assert "There was nothing to resend." not in page


def test_the_page_says_what_became_of_the_new_deliveries_and_leads_to_them(
    browser: Client,
) -> None:
    webhook = make_webhook()
    failed(webhook)
    browser.post(form_of(webhook), FAILED_DAY)
    resends.advance_all()
    made = Delivery.objects.get(trigger=Trigger.BULK)
    page = browser.get(page_of(Resend.objects.get()))
    assert page.context["results"] == [("pending", "Waiting", 1)]
    log = browser.get(f"{reverse('webhooks:deliveries')}?{page.context['log_query']}")
    assert [row.pk for row in log.context["page"].rows] == [made.pk]
    # A later resend is not part of it.
    Resend.objects.update(
        status=ResendStatus.FINISHED, finished_at=timezone.now() - dt.timedelta(minutes=1)
    )
    page = browser.get(page_of(Resend.objects.get()))
    log = browser.get(f"{reverse('webhooks:deliveries')}?{page.context['log_query']}")
    assert not log.context["page"].rows


def test_a_resend_is_stopped_once(browser: Client) -> None:
    resend = running(make_webhook())
    address = reverse("webhooks:resend_stop", args=[resend.pk])
    answer = browser.post(address, follow=True)
    assert "Stopped." in answer.text
    resend.refresh_from_db()
    assert resend.status == ResendStatus.STOPPED
    assert "It had ended already." in browser.post(address, follow=True).text
    assert entries() == [(Action.RESEND_STOPPED, str(resend.pk), resend.webhook_id)]


def test_who_may_not_resend_has_no_button_to_stop() -> None:
    resend = running(make_webhook())
    browser = person("view_delivery", "view_webhook")
    stop = reverse("webhooks:resend_stop", args=[resend.pk])
    assert stop not in browser.get(page_of(resend)).text
    get_user_model().objects.get().user_permissions.add(
        Permission.objects.get(codename="test_webhook")
    )
    assert stop in browser.get(page_of(resend)).text


def test_a_deleted_webhook_has_no_resend_form_but_keeps_its_resends(browser: Client) -> None:
    webhook = make_webhook()
    resend = running(webhook)
    events.delete(webhook)
    assert browser.get(form_of(webhook)).status_code == 404
    assert browser.get(page_of(resend)).status_code == 200


def test_the_pages_of_resends_cost_few_queries(django_assert_max_num_queries: Any) -> None:
    browser = person("view_delivery", "view_webhook", "test_webhook")
    webhook = make_webhook(client_secret="secret-of-the-client")
    rows = [failed(webhook).pk for _ in range(20)]
    resend = running(webhook)
    with django_assert_max_num_queries(15) as queries:
        browser.get(form_of(webhook))
        assert len(queries) < 15
    with django_assert_max_num_queries(15):
        browser.get(page_of(resend))
    with django_assert_max_num_queries(15):
        browser.post(SELECTION, {"delivery": rows})
    assert not any("client_secret" in query["sql"] for query in queries)
