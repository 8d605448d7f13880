"""Charts: what the hourly roll-up says about one webhook and about many."""

import datetime as dt
from typing import Any

import pytest

from tests.factories import make_webhook
from webhooks import charts
from webhooks.durations import step_of
from webhooks.models import HourlyCount, Outcome, Webhook

pytestmark = pytest.mark.django_db

NOW = dt.datetime(2026, 3, 4, 15, 40, tzinfo=dt.UTC)


def count(webhook: Webhook, *, hours_ago: float = 0, **fields: Any) -> HourlyCount:
    hour = charts.hour_of(NOW - dt.timedelta(hours=hours_ago))
    given = {"outcome": Outcome.SUCCEEDED, "duration_step": step_of(40.0), "count": 1, **fields}
    return HourlyCount.objects.create(webhook=webhook, hour=hour, **given)


def test_the_last_day_has_an_entry_for_each_hour_oldest_first() -> None:
    webhook = make_webhook()
    count(webhook, hours_ago=23, count=3)
    count(webhook, count=5)
    count(webhook, count=2, outcome=Outcome.TIMEOUT)
    day = charts.last_day([webhook.pk], NOW)[webhook.pk]
    assert len(day) == 24
    assert day[0] == (3, 0)
    assert day[23] == (5, 2)
    assert day[1:23] == [(0, 0)] * 22


def test_the_last_day_leaves_out_what_is_older() -> None:
    webhook = make_webhook()
    count(webhook, hours_ago=24)
    assert charts.last_day([webhook.pk], NOW)[webhook.pk] == [(0, 0)] * 24


def test_the_last_day_of_many_webhooks_is_one_query(django_assert_num_queries: Any) -> None:
    first, second, other = make_webhook(), make_webhook(), make_webhook()
    count(first, count=1)
    count(second, count=2, outcome=Outcome.REFUSED)
    count(other, count=4)
    with django_assert_num_queries(1):
        days = charts.last_day([first.pk, second.pk], NOW)
    assert {pk: day[-1] for pk, day in days.items()} == {first.pk: (1, 0), second.pk: (0, 2)}
