"""The webhook's page over HTTP: its charts, their table, links from numbers, refreshing."""

import datetime as dt
import re
from html import unescape
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.ui.webhook_form.test_views import logged_in
from webhooks import events
from webhooks.alerts import notifications
from webhooks.delivery.histogram import step_of
from webhooks.delivery_log import charts
from webhooks.delivery_log.charts import Bucket, Period
from webhooks.models import Delivery, HourlyCount, Status, Webhook, WebhookState
from webhooks.ui.deliveries.forms import LogForm
from webhooks.ui.webhook_detail import charts as chart_drawing

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true"}


@pytest.fixture
def browser() -> Client:
    client = logged_in(is_superuser=True)
    get_user_model().objects.update(is_staff=True)
    return client


@pytest.fixture
def looker() -> Client:
    return logged_in("view_webhook")


def count(webhook: Webhook, number: int, *, hours_ago: int = 0, **fields: Any) -> None:
    hour = charts.hour_of(timezone.now()) - dt.timedelta(hours=hours_ago)
    given = {"outcome": "succeeded", "duration_step": step_of(40.0), "count": number, **fields}
    HourlyCount.objects.create(webhook=webhook, hour=hour, **given)


def address(name: str, webhook: Webhook) -> str:
    return reverse(f"webhooks:{name}", args=[webhook.pk])


def page_of(webhook: Webhook, browser: Client, **query: str) -> Any:
    return browser.get(address("detail", webhook), query)


def part_of(name: str, webhook: Webhook, browser: Client, **query: str) -> Any:
    return browser.get(address(name, webhook), query, headers=HTMX)


def table_of(page: Any) -> list[list[str]]:
    """Return the cells of the table behind the charts, row by row."""
    table = re.search(r'<table class="table is-compact chart-table">.*?</table>', page.text, re.S)
    assert table
    rows = re.findall(r"<tr>.*?</tr>", table[0], re.S)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in rows]
    return [[unescape(re.sub("<[^>]+>", "", cell)) for cell in row] for row in cells]


def seen_in(page: Any, name: str) -> str:
    found = re.search(rf"/{name}/\?(?:period=\w+&amp;)?seen=([^\"]+)", page.text)
    assert found
    return unescape(found[1])


# ---- Charts ----------------------------------------------------------------------------------


def test_the_table_says_what_the_charts_show(browser: Client) -> None:
    webhook = make_webhook()
    count(webhook, 90)
    count(webhook, 7, outcome="server_error", duration_step=step_of(4000.0))
    count(webhook, 3, hours_ago=5, outcome="network", duration_step=0)
    head, newest, older = table_of(page_of(webhook, browser))
    assert head == ["Time", "Succeeded", "Receiver failed", "No response", "All", "p50", "p95"]
    assert newest[1:5] == ["90", "7", "0", "97"]
    assert newest[6].endswith(" s")
    assert older[1:] == ["0", "0", "3", "3", "–", "–"]


def test_the_figures_add_up_the_period(browser: Client) -> None:
    webhook = make_webhook()
    count(webhook, 999)
    count(webhook, 1, outcome="timeout")
    count(webhook, 5000, hours_ago=30)
    drawing = page_of(webhook, browser).context["chart"]
    assert (drawing["total"], drawing["success_rate"]) == ("1,000", "99.9%")
    week = page_of(webhook, browser, period="7d").context["chart"]
    assert week["total"] == "6,000"


@pytest.mark.parametrize(("period", "bars"), [("24h", 24), ("7d", 28), ("30d", 30)])
def test_each_period_is_drawn_on_the_server(browser: Client, period: str, bars: int) -> None:
    webhook = make_webhook()
    count(webhook, 3)
    page = page_of(webhook, browser, period=period)
    assert len(page.context["chart"]["columns"]) == bars
    assert page.text.count('<rect class="chart-bar') == 2  # The bar and its legend.
    assert f'id="period-{period}"' in page.text
    current = re.search(r'<a id="period-(\w+)"[^>]*aria-current="true"', page.text)
    assert current
    assert current[1] == period


def test_a_period_that_is_none_is_a_day(browser: Client) -> None:
    assert page_of(make_webhook(), browser, period="century").context["chart"]["period"] == "24h"


def test_no_bar_is_higher_than_its_chart(browser: Client) -> None:
    webhook = make_webhook()
    count(webhook, 100_000)
    for outcome in ("server_error", "timeout", "refused"):
        count(webhook, 1, outcome=outcome)
    for column in page_of(webhook, browser).context["chart"]["columns"]:
        heights = [float(share["height"]) for share in column["shares"]]
        assert all(height > 0 for height in heights)
        assert sum(heights) <= 100.01
        assert all(float(share["y"]) >= 0 for share in column["shares"])


def test_an_empty_period_says_so_without_a_chart(browser: Client) -> None:
    page = page_of(make_webhook(), browser)
    assert "Nothing was sent in this period." in page.text
    assert "chart-table" not in page.text


# ---- Links from numbers ----------------------------------------------------------------------


def test_a_share_leads_to_the_log_of_its_kind_webhook_and_hour(browser: Client) -> None:
    webhook = make_webhook()
    count(webhook, 4, hours_ago=2, outcome="server_error")
    [column] = page_of(webhook, browser).context["chart"]["filled"]
    [share] = column["shares"]
    query = parse_qs(urlsplit(share["url"]).query)
    begin = charts.hour_of(timezone.now()) - dt.timedelta(hours=2)
    assert query["webhook"] == [str(webhook.pk)]
    assert query["code"] == ["5xx"]
    assert query["since"] == [begin.isoformat(timespec="minutes")]
    assert query["until"] == [(begin + dt.timedelta(hours=1)).isoformat(timespec="minutes")]


@pytest.mark.parametrize(
    ("zone", "now"),
    [
        ("Europe/Kyiv", "2026-10-25T09:30Z"),
        ("Europe/Kyiv", "2026-03-29T09:30Z"),
        ("America/New_York", "2026-11-01T09:30Z"),
        ("Australia/Lord_Howe", "2026-04-04T20:10Z"),
        ("Africa/Cairo", "2026-10-29T23:30Z"),
        ("Asia/Kathmandu", "2026-12-31T20:10Z"),
    ],
)
@pytest.mark.parametrize("period", Period)
def test_a_bar_leads_to_its_own_span_of_the_log_when_clocks_change(
    zone: str, now: str, period: Period
) -> None:
    with timezone.override(zone):
        chart = charts.read(1, period, dt.datetime.fromisoformat(now))
        for bucket in chart.buckets:
            link = chart_drawing.log_url(1, since=bucket.begins_at, until=bucket.ends_at)
            filters = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
            form = LogForm({"since": filters["since"], "until": filters["until"]})
            assert form.is_valid()
            asked = form.conditions(may_see_numbers=True)
            assert asked.since
            assert asked.until
            # Timestamps, as Python compares datetimes of one zone by their wall-clock time.
            span = (asked.since.timestamp(), asked.until.timestamp())
            assert span == (bucket.begins_at.timestamp(), bucket.ends_at.timestamp())


def test_every_number_of_the_head_leads_to_what_it_counts(browser: Client) -> None:
    webhook = make_webhook()
    for status in (Status.PENDING, Status.HELD, Status.PARKED):
        row = Delivery.objects.filter(pk=make_delivery(webhook).pk)
        when = timezone.now() if status == Status.PENDING else None
        row.update(status=status, next_attempt_at=when)
    page = page_of(webhook, browser)
    for status in (Status.PENDING, Status.HELD, Status.PARKED):
        link = page.context[f"{status}_url"]
        assert f"status={status}" in link
        assert f'href="{link.replace("&", "&amp;")}">1</a>' in page.text
        assert browser.get(link).status_code == 200


def test_who_may_not_read_the_log_gets_numbers_without_links(looker: Client) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    count(webhook, 4)
    page = page_of(webhook, looker)
    assert page.context["chart"]["total"] == "4"
    assert "status=pending" not in page.text
    assert "since=" not in page.text


# ---- Refreshing ------------------------------------------------------------------------------


def test_nothing_new_is_answered_without_a_body(browser: Client) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    count(webhook, 1)
    page = page_of(webhook, browser)
    for name in ("recent", "charts"):
        answer = part_of(name, webhook, browser, seen=seen_in(page, name), period="24h")
        assert (answer.status_code, answer.content) == (204, b"")


def test_the_charts_are_asked_for_again_each_half_a_minute(browser: Client) -> None:
    webhook = make_webhook()
    count(webhook, 1)
    page = page_of(webhook, browser)
    assert 'id="charts" aria-labelledby="charts-title" data-refreshes="30"' in page.text
    count(webhook, 41, outcome="refused")
    answer = part_of("charts", webhook, browser, seen=seen_in(page, "charts"), period="24h")
    assert answer.context["chart"]["total"] == "42"


def test_a_new_delivery_comes_with_the_numbers_that_changed(browser: Client) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    seen = seen_in(page_of(webhook, browser), "recent")
    new = make_delivery(webhook)
    answer = part_of("recent", webhook, browser, seen=seen)
    assert answer.status_code == 200
    assert answer.context["new_ids"] == {new.pk}
    assert 'id="now" hx-swap-oob="true"' in answer.text
    assert 'id="status-line" hx-swap-oob="true"' in answer.text
    assert "<html" not in answer.text


def test_the_problem_names_the_newest_error_after_a_refresh(browser: Client) -> None:
    webhook = make_webhook(alert_after_failures=1)
    make_delivery(webhook)
    state = WebhookState.objects.create(
        webhook=webhook, failing_since_at=timezone.now(), failures_in_a_row=1, last_error="It fell."
    )
    notifications.run()
    seen = seen_in(page_of(webhook, browser), "recent")
    state.last_error = "It is slow."
    state.save()
    answer = part_of("recent", webhook, browser, seen=seen)
    assert 'id="problems" hx-swap-oob="true"' in answer.text
    assert answer.text.count("It is slow.") == 1
    assert "It fell." not in answer.text


def test_a_changed_delivery_is_reported_but_is_not_new(browser: Client) -> None:
    webhook = make_webhook()
    row = make_delivery(webhook)
    seen = seen_in(page_of(webhook, browser), "recent")
    finished = {"status": "succeeded", "status_code": 200, "next_attempt_at": None}
    Delivery.objects.filter(pk=row.pk).update(**finished)
    answer = part_of("recent", webhook, browser, seen=seen)
    assert answer.status_code == 200
    assert answer.context["new_ids"] == set()
    assert "Newest delivery: call.incoming.after, Succeeded." in answer.text


def test_new_attempts_refresh_the_charts(browser: Client) -> None:
    webhook = make_webhook()
    seen = seen_in(page_of(webhook, browser), "charts")
    count(webhook, 5)
    answer = part_of("charts", webhook, browser, seen=seen, period="7d")
    assert answer.status_code == 200
    assert answer.context["chart"]["period"] == "7d"


@pytest.mark.parametrize("name", ["recent", "charts"])
def test_a_part_opened_by_a_person_leads_to_the_page(browser: Client, name: str) -> None:
    webhook = make_webhook()
    assert browser.get(address(name, webhook))["Location"] == address("detail", webhook)


def test_a_paused_webhook_with_nothing_on_its_way_does_not_ask_again(browser: Client) -> None:
    webhook = make_webhook()
    events.pause(webhook)
    assert "Updates automatically" not in page_of(webhook, browser).text
    events.resume(webhook)
    assert "Updates automatically" in page_of(webhook, browser).text


def test_the_hour_in_which_a_clock_is_set_back_says_which_is_which() -> None:
    begins_at = dt.datetime(2026, 10, 25, 0, tzinfo=dt.UTC)
    hour = dt.timedelta(hours=1)
    spans = [
        Bucket(begins_at=begins_at + n * hour, ends_at=begins_at + (n + 1) * hour) for n in (0, 1)
    ]
    with timezone.override("Europe/Kyiv"):
        labels = [chart_drawing.bucket_label(Period.DAY, span).partition(", ")[2] for span in spans]
    assert labels == ["03:00 EEST–03:00 EET", "03:00–04:00"]


def test_an_axis_of_durations_holds_what_is_below_a_millisecond() -> None:
    buckets = [SimpleNamespace(p50_ms=p50, p95_ms=p95) for p50, p95 in [(0.6, 3.0), (None, None)]]
    axis = chart_drawing.duration_axis(buckets)  # type: ignore[arg-type]
    assert axis[-1] <= 0.6
    assert axis[0] >= 3.0
    assert [chart_drawing.axis_duration(one) for one in axis][-1] == "0.5 ms"
