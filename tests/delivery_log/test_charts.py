"""Charts: what the hourly roll-up shows for one webhook and for many."""

import datetime as dt
from typing import Any

import pytest
from django.utils import timezone

from tests.factories import make_webhook
from webhooks.delivery.histogram import step_of
from webhooks.delivery_log import charts
from webhooks.delivery_log.charts import Period, ResultKind
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


# ---- One webhook -----------------------------------------------------------------------------


def test_a_day_has_an_hour_for_each_bucket_and_ends_with_the_one_that_runs() -> None:
    webhook = make_webhook()
    count(webhook, count=3)
    count(webhook, count=1, outcome=Outcome.SERVER_ERROR)
    count(webhook, hours_ago=23, count=7, outcome=Outcome.TIMEOUT)
    count(webhook, hours_ago=24, count=100)
    chart = charts.read(webhook.pk, Period.DAY, NOW)
    assert len(chart.buckets) == 24
    assert (chart.buckets[-1].begins_at, chart.buckets[-1].ends_at) == (
        charts.hour_of(NOW),
        charts.hour_of(NOW) + dt.timedelta(hours=1),
    )
    assert chart.buckets[-1].counts == {ResultKind.SUCCEEDED: 3, ResultKind.FAILED: 1}
    assert chart.buckets[0].counts == {ResultKind.UNANSWERED: 7}
    assert chart.whole.total == 11


def test_a_week_is_shown_in_quarters_of_a_day() -> None:
    webhook = make_webhook()
    count(webhook, hours_ago=3.6, count=2)
    count(webhook, hours_ago=3.8, count=4)
    chart = charts.read(webhook.pk, Period.WEEK, NOW)
    assert len(chart.buckets) == 28
    assert chart.buckets[-1].begins_at == NOW.replace(hour=12, minute=0)
    assert [bucket.total for bucket in chart.buckets[-2:]] == [4, 2]


def test_a_month_is_shown_in_days_of_the_readers_zone() -> None:
    webhook = make_webhook()
    # 22:00 and 21:00 UTC are midnight and an hour before it in Kyiv.
    count(webhook, hours_ago=17, count=2)
    count(webhook, hours_ago=18, count=5)
    with timezone.override("Europe/Kyiv"):
        chart = charts.read(webhook.pk, Period.MONTH, NOW)
    assert len(chart.buckets) == 30
    assert [bucket.begins_at.hour for bucket in chart.buckets] == [0] * 30
    assert [bucket.total for bucket in chart.buckets[-2:]] == [5, 2]


def test_no_hour_is_lost_or_doubled_when_clocks_change() -> None:
    webhook = make_webhook()
    after = dt.datetime(2026, 10, 26, 12, 30, tzinfo=dt.UTC)
    for hours in range(24 * 8):
        hour = charts.hour_of(after) - dt.timedelta(hours=hours)
        HourlyCount.objects.create(
            webhook=webhook, hour=hour, outcome="succeeded", duration_step=9, count=1
        )
    with timezone.override("Europe/Kyiv"):
        day, week, month = (charts.read(webhook.pk, period, after) for period in Period)
    assert [bucket.total for bucket in day.buckets] == [1] * 24
    # The night when clocks go back is an hour longer.
    assert sorted({bucket.total for bucket in week.buckets[:-1]}) == [6, 7]
    assert 25 in [bucket.total for bucket in month.buckets]


@pytest.mark.parametrize("period", list(Period))
def test_a_chart_is_one_query_and_shows_one_webhook(
    period: Period, django_assert_num_queries: Any
) -> None:
    webhook, other = make_webhook(), make_webhook()
    count(webhook, count=1)
    count(other, count=9)
    with django_assert_num_queries(1):
        chart = charts.read(webhook.pk, period, NOW)
    assert chart.whole.total == 1


def test_latency_is_of_answers_and_of_timeouts() -> None:
    webhook = make_webhook()
    count(webhook, count=50, duration_step=step_of(100.0))
    count(webhook, count=40, duration_step=step_of(5000.0), outcome=Outcome.TIMEOUT)
    count(webhook, count=900, duration_step=step_of(0.2), outcome=Outcome.NETWORK)
    chart = charts.read(webhook.pk, Period.DAY, NOW)
    assert chart.whole.p50_ms == pytest.approx(100, rel=0.26)
    assert chart.whole.p95_ms == pytest.approx(5000, rel=0.26)
    assert chart.buckets[0].p50_ms is None


def test_every_outcome_has_a_kind() -> None:
    assert set(charts.KIND_OF) == set(Outcome)
