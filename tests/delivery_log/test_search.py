"""One search box: ids, calls, numbers in every spelling and parts of a URL, each by an index."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.factories import make_delivery, make_webhook
from webhooks import events
from webhooks.delivery_log import query as log_query
from webhooks.delivery_log import search
from webhooks.delivery_log.query import Conditions
from webhooks.models import Delivery, Status

pytestmark = pytest.mark.django_db

CLIENT = "+380 67 123-45-67"


def found_by(words: str) -> list[str]:
    return [row.pk for row in log_query.page(Conditions(words=words)).rows]


@pytest.mark.parametrize(
    "words",
    [
        "+380671234567", "380671234567", "+380 67 123-45-67", "(067) 123 45 67", "0671234567",
        "00380671234567", "8 067 123 45 67", "671234567", "123-45-67", "34567", "tel:+380671234567",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "stored", [CLIENT, "0671234567", "380671234567", 380671234567, "+380 (0) 67 123 45 67"]
)
def test_a_number_is_found_in_every_spelling(stored: Any, words: str) -> None:
    webhook = make_webhook()
    wanted = make_delivery(webhook, caller=stored, dst="+380441112233")
    make_delivery(webhook, caller="+380671234568", dst="+380441112233")
    assert found_by(words) == [wanted.pk]


@pytest.mark.parametrize("role", ["caller", "dst", "client_number", "company_number", "phone"])
def test_each_party_of_a_call_is_found(role: str) -> None:
    webhook = make_webhook()
    others = {"caller": "101", "dst": "+442071838750", "company_number": "+15550100"}
    wanted = make_delivery(webhook, **{**others, role: CLIENT})
    make_delivery(webhook, **others)
    assert found_by("0671234567") == [wanted.pk]


@pytest.mark.parametrize("words", ["1234", "99999999999999999999", "0000000", "a 67 1234567 b"])
def test_what_is_no_number_that_was_seen_finds_nothing(words: str) -> None:
    make_delivery(make_webhook(), caller=CLIENT)
    assert found_by(words) == []


def test_a_busy_number_is_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_EVENTS", 3)
    webhook = make_webhook()
    made = [make_delivery(webhook, dst=CLIENT, call_id=f"c{one}").pk for one in range(7)][::-1]
    assert list(walk("before", "older_than")) == made
    upward = list(walk("after", "newer_than", made[-1]))
    assert sorted(upward, reverse=True) == made[:-1]


def walk(name: str, link: str, key: str = "") -> Iterator[str]:
    """Yield the rows of all pages of a phone number, following the links."""
    while True:
        found = log_query.page(Conditions(words="0671234567"), **{name: key})
        yield from (row.pk for row in found.rows)
        if not (key := getattr(found, link)):
            return


def test_an_old_event_that_was_sent_again_is_among_what_is_newer() -> None:
    webhook = make_webhook()
    first, second, third = (make_delivery(webhook, caller=CLIENT) for _ in range(3))
    Delivery.objects.update(status=Status.SUCCEEDED, next_attempt_at=None)
    events.resend(Delivery.objects.filter(pk=first.pk))
    again = Delivery.objects.latest("pk")
    wanted = Conditions(words=CLIENT)
    rows = log_query.page(wanted, after=second.pk).rows
    assert [row.pk for row in rows] == [again.pk, third.pk]
    assert not log_query.page(wanted, after=again.pk).rows
    assert not log_query.page(wanted, before=first.pk).rows


def test_the_event_that_no_webhook_wanted_is_found() -> None:
    published = events.publish("call.incoming.after", {"caller": CLIENT, "call_id": "call-9"})
    assert search.find("067 123 45 67").events == search.find("call-9").events
    assert search.find("call-9").events == [published.event_id]


# What is read, and the index that has these rows, as a pattern.
PLANS: dict[str, tuple[Conditions, str]] = {
    "a call": (Conditions(words="call-1"), "event_call_id"),
    "a number": (Conditions(words="0671234567"), "event_caller_digits"),
    "failed": (Conditions(status="failed"), "delivery_exceptional"),
    "held": (Conditions(status="held"), "delivery_exceptional"),
    # Both hold the waiting rows and no others; releases of SQLite prefer one or the other.
    "waiting": (Conditions(status="pending"), "delivery_due|delivery_in_order"),
    "being sent": (Conditions(status="sending"), "delivery_leased"),
    "succeeded of a webhook": (Conditions(status="succeeded", webhook=1), "delivery_by_webhook"),
    "failed of a webhook": (Conditions(status="failed", webhook=1), "delivery_exceptional"),
    "a webhook": (Conditions(webhook=1), "delivery_by_webhook"),
    "a code": (Conditions(code="503"), "delivery_by_bad_code"),
    "a class of codes": (Conditions(code="5xx"), ""),
    "a trigger": (Conditions(trigger="test"), "delivery_by_trigger"),
    "an outcome": (Conditions(outcome="timeout"), ""),
    "a type": (Conditions(type="deal.created"), ""),
    "a delivery": (Conditions(words="dlv_1"), ""),
    "an event": (Conditions(words="evt_1"), ""),
    "everything": (Conditions(), ""),
}


@pytest.mark.parametrize("name", PLANS)
def test_no_filter_reads_a_table_without_an_index(name: str) -> None:
    """For PostgreSQL at size see `test_query`; it scans an empty table at once."""
    conditions, index = PLANS[name]
    with CaptureQueriesContext(connection) as queries:
        log_query.page(conditions)
    asked = [one["sql"] for one in queries if "webhooks_" in one["sql"]]
    prefix = "EXPLAIN"
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            prefix = "EXPLAIN QUERY PLAN"
        else:
            cursor.execute("SET LOCAL enable_seqscan = off")
        plans = [_plan(cursor, f"{prefix} {sql}") for sql in asked]
    for plan in plans:
        # "SCAN webhooks_delivery USING INDEX" reads in the order of an index.
        assert "SCAN webhooks_event\n" not in plan, plan
        assert "SCAN webhooks_delivery\n" not in plan, plan
        assert "Seq Scan on webhooks_event" not in plan, plan
        assert "Seq Scan on webhooks_delivery" not in plan, plan
        # Sorting is allowed only for the few deliveries of some events.
        is_handful = "(event_id=?)" in plan and conditions.words
        sorted_rows = re.search(r"webhooks_.*\nUSE TEMP B-TREE", plan)
        assert sorted_rows is None or is_handful, plan
    if connection.vendor == "sqlite":
        # Which of several indexes PostgreSQL uses depends on the other rows in the tables.
        assert re.search(index, "\n".join(plans)), plans


@pytest.mark.parametrize("status", [one for one in Status if one != Status.SUCCEEDED])
def test_each_status_but_success_has_an_index(status: Status) -> None:
    with CaptureQueriesContext(connection) as queries:
        list(Delivery.objects.in_status(status).order_by().values_list("pk")[:1])
        list(Delivery.objects.in_status(status, webhook=1).order_by().values_list("pk")[:1])
    prefix = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        if connection.vendor != "sqlite":
            cursor.execute("SET LOCAL enable_seqscan = off")
        plans = [_plan(cursor, f"{prefix} {query['sql']}") for query in queries]
    wrong = ("delivery_by_webhook", "Seq Scan")
    for plan in plans if connection.vendor == "sqlite" else plans[:1]:
        assert "delivery_" in plan, plan
        assert not any(word in plan for word in wrong), plan


@pytest.mark.database("sqlite")
def test_a_webhooks_deliveries_of_some_events_are_found_by_the_events() -> None:
    """PostgreSQL knows how many rows a webhook has; SQLite reads all of the busiest webhook's."""
    with CaptureQueriesContext(connection) as queries:
        list(Delivery.objects.of_events(["evt_1", "evt_2"], webhook=1))
    with connection.cursor() as cursor:
        plan = _plan(cursor, f"EXPLAIN QUERY PLAN {queries[0]['sql']}")
    assert "(event_id=?)" in plan
    assert "delivery_by_webhook" not in plan


def _plan(cursor: Any, sql: str) -> str:
    cursor.execute(sql)
    return "".join(f"{row[-1]}\n" for row in cursor.fetchall())
