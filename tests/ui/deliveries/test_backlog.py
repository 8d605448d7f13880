"""The line with the engine's backlog: on the list of webhooks and in the delivery log."""

import datetime as dt
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from webhooks.delivery import backlog
from webhooks.models import Attempt, Delivery, Status, Webhook

pytestmark = pytest.mark.django_db

LIST = "/integrations/webhooks/"
LOG = "/admin/webhooks/delivery/"


@pytest.fixture
def browser() -> Client:
    return logged_in(is_staff=True, is_superuser=True)


def line(browser: Client, address: str = LIST) -> str:
    """Return the line as text after its class: " is-late" when it is amber."""
    page = browser.get(address).text
    found = re.search(r'<p class="backlog([^"]*)"[^>]*>(.*?)</p>', page, re.DOTALL)
    assert found is not None
    words = re.findall(r'<span\s+class="backlog-part"\s*>(.*?)</span>', found[2], re.DOTALL)
    return f"{found[1]}: " + " · ".join(words) + _question(found[2])


def _question(text: str) -> str:
    return " Is a worker running?" if "Is a worker running?" in text else ""


def due_since(delivery: Delivery, seconds: float) -> None:
    at = timezone.now() - dt.timedelta(seconds=seconds)
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=at)


def sent(delivery: Delivery, seconds_ago: float = 5.0) -> None:
    at = timezone.now() - dt.timedelta(seconds=seconds_ago)
    Attempt.objects.create(delivery=delivery, number=1, started_at=at, request_line="")


def late_ordered(*, is_head_failing: bool = True) -> Webhook:
    """Return an ordered webhook with a delivery that has been due for an hour behind its head."""
    webhook = make_webhook(is_ordered=True)
    head = make_delivery(webhook)
    if is_head_failing:
        later = timezone.now() + dt.timedelta(hours=1)
        Delivery.objects.filter(pk=head.pk).update(next_attempt_at=later, failure_count=3)
    due_since(make_delivery(webhook), 3600)
    return webhook


@pytest.mark.parametrize("address", [LIST, LOG])
def test_a_calm_engine_has_nothing_overdue(browser: Client, address: str) -> None:
    make_webhook()
    assert line(browser, address) == ": Nothing overdue"


@pytest.mark.parametrize("address", [LIST, LOG])
def test_everything_that_waits_is_in_the_line(browser: Client, address: str) -> None:
    webhook = make_webhook()
    rows = [make_delivery(webhook) for _ in range(5)]
    for row, status in zip(rows, ["sending", "held", "parked"], strict=False):
        is_open = status == "sending"
        at = timezone.now() if is_open else None
        Delivery.objects.filter(pk=row.pk).update(status=status, next_attempt_at=at)
    due_since(rows[3], 12.5)
    due_since(rows[4], 3)
    sent(rows[0], 2)
    # One digit is open: a slow machine adds a second.
    expected = (
        r": 2 due, the oldest for 1\d s · 1 being sent · 1 on hold · 1 stuck · "
        r"0\.\d sent per second"
    )
    assert re.fullmatch(expected, line(browser, address))


@pytest.mark.parametrize("address", [LIST, LOG])
def test_old_due_rows_are_amber_and_ask_for_the_worker(browser: Client, address: str) -> None:
    due_since(make_delivery(make_webhook()), 130)
    # One digit is open: a slow machine adds a second.
    expected = (
        r" is-late: 1 due, for 2 min 1\d s · nothing sent in the last minute "
        r"Is a worker running\?"
    )
    assert re.fullmatch(expected, line(browser, address))


def test_a_busy_engine_that_is_behind_is_amber_without_the_question(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    due_since(delivery, 7500)
    sent(delivery, 2)
    assert re.fullmatch(r" is-late: 1 due, for 2 h 5 min · 0\.\d sent per second", line(browser))


def test_what_waits_behind_a_failing_head_asks_for_no_worker(browser: Client) -> None:
    late_ordered()
    found = backlog.report()
    assert (found.is_late, found.waits_for_order, found.seems_stopped) == (True, True, False)
    assert "all behind failed deliveries of ordered webhooks" in line(browser)


def test_an_ordered_webhook_whose_head_is_due_excuses_nothing() -> None:
    late_ordered(is_head_failing=False)
    assert backlog.report().seems_stopped


def test_another_late_webhook_beside_a_blocked_one_excuses_nothing() -> None:
    late_ordered()
    other = make_webhook(event_types=["deal.*"])
    row = Delivery.objects.filter(webhook__is_ordered=True).latest("pk")
    at = timezone.now() - dt.timedelta(hours=1)
    Delivery.objects.create(event_id=row.event_id, webhook=other, next_attempt_at=at)
    assert backlog.report().seems_stopped


def test_a_deep_queue_is_not_counted_to_its_end(browser: Client, monkeypatch: Any) -> None:
    monkeypatch.setattr(backlog, "MAX_COUNT", 3)
    monkeypatch.setattr("webhooks.templatetags.interface.MAX_COUNT", 3)
    webhook = make_webhook()
    for _ in range(5):
        make_delivery(webhook)
    assert "3+ due" in line(browser)


def test_an_action_on_the_log_still_shows_a_page(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    Delivery.objects.filter(pk=delivery.pk).update(status=Status.PARKED, next_attempt_at=None)
    data = {"delivery": [delivery.pk], "next": LOG}
    page = browser.post(reverse("webhooks:deliveries_cancel"), data, follow=True)
    assert "1 delivery is cancelled." in page.text


@pytest.mark.parametrize("address", [LIST, LOG])
def test_a_late_page_has_few_queries(
    browser: Client, django_assert_max_num_queries: Any, address: str
) -> None:
    late_ordered()
    with django_assert_max_num_queries(15):
        browser.get(address)
