"""The log as CSV: the rows that the filters show, streamed, and harmless in a spreadsheet."""

import csv
import gc
import io
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from webhooks import audit
from webhooks.delivery_log import query as log_query
from webhooks.models import Action, AuditEntry, Delivery, Status
from webhooks.ui.deliveries import export as delivery_export
from webhooks.ui.deliveries.export import COLUMNS, MAX_AT_ONCE, cell

pytestmark = pytest.mark.django_db
# The product's pages check permissions only, so ann need not be staff.
person = partial(logged_in, name="ann")

EXPORT = "/integrations/webhooks/deliveries/export.csv"


def text_of(answer: Any) -> str:
    return b"".join(answer.streaming_content).decode()


def rows_of(answer: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text_of(answer).removeprefix("\ufeff"))))


def test_the_export_holds_what_the_filters_show_newest_first() -> None:
    webhook = make_webhook(name="CRM")
    first, second = make_delivery(webhook), make_delivery(webhook, call_id="call-2")
    cancelled = make_delivery(webhook)
    Delivery.objects.filter(pk=cancelled.pk).update(status=Status.CANCELLED, next_attempt_at=None)
    answer = person("view_delivery").get(EXPORT, {"status": "pending"})
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"].startswith('attachment; filename="deliveries-')
    rows = rows_of(answer)
    assert [row["delivery"] for row in rows] == [second.pk, first.pk]
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["call_id"] == "call-2"
    assert rows[0]["webhook"] == "CRM"
    assert rows[0]["created_at"] == second.created_at.isoformat(timespec="milliseconds")


def test_the_export_begins_with_a_mark_that_says_it_is_utf_8() -> None:
    make_webhook(name="Кол-центр")
    assert text_of(person("view_delivery").get(EXPORT)).startswith("\ufeff")


def test_payloads_are_exported_only_with_the_permission() -> None:
    make_delivery(make_webhook(), caller="380441234567")
    query = {"payload": "1"}
    browser = person("view_delivery")
    assert "380441234567" not in text_of(browser.get(EXPORT, query))
    get_user_model().objects.get().user_permissions.add(
        Permission.objects.get(codename="view_payload")
    )
    assert "380441234567" in text_of(browser.get(EXPORT, query))
    assert "380441234567" not in text_of(browser.get(EXPORT))


def test_an_export_is_written_down() -> None:
    text_of(person("view_delivery", "view_payload").get(EXPORT, {"payload": "1"}))
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.object_type, entry.username) == (Action.EXPORTED, "delivery", "ann")
    assert audit.sentence(entry.note) == "CSV with payloads"


def test_a_filter_that_means_nothing_leads_to_the_log_that_says_so() -> None:
    answer = person("view_delivery").get(EXPORT, {"code": "abc"})
    assert answer["Location"] == "/integrations/webhooks/deliveries/?code=abc"
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("=1+1", "'=1+1"),
        ("+380441234567", "'+380441234567"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "\\u0009=1"),
        ("＝1+1", "'＝1+1"),
        ("|calc", "'|calc"),
        ("a\r\nb", "a\\u000d\\u000ab"),
        ("\u202eevil", "\\u202eevil"),
        ("\U000e0067", "\\udb40\\udc67"),
        ('plain, "text"', 'plain, "text"'),
        ("a; b", "a; b"),
        ("c;=1+1;-2", "c;'=1+1;'-2"),
        (None, ""),
        (200, "200"),
        ("x" * 40_000, "x" * 32_000),
    ],
)
def test_a_cell_is_no_formula_and_hides_nothing(value: object, written: str) -> None:
    assert cell(value) == written


def test_a_formula_in_a_payload_or_a_name_is_defused_in_the_file() -> None:
    make_delivery(make_webhook(name='=HYPERLINK("http://evil")'))
    rows = rows_of(person("view_delivery").get(EXPORT))
    assert rows[0]["webhook"] == '\'=HYPERLINK("http://evil")'


def test_a_file_that_is_read_with_semicolons_has_no_formula() -> None:
    webhook = make_webhook(name='CRM;"=1+1')
    make_delivery(webhook, call_id=";+1", note='a;=cmd|A1;b;"@SUM(A1)')
    answer = person("view_delivery", "view_payload").get(EXPORT, {"payload": "1"})
    rows = csv.reader(io.StringIO(text_of(answer)), delimiter=";")
    cells = [text for row in rows for text in row]
    assert len(cells) > 5
    assert not [text for text in cells if text.startswith(("=", "+", "-", "@", "|", "%"))]


def test_the_export_reads_in_pieces_and_ends_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = make_webhook()
    rows = [make_delivery(webhook).pk for _ in range(9)]
    monkeypatch.setattr(delivery_export, "CHUNK", 2)
    browser = person("view_delivery")
    assert [row["delivery"] for row in rows_of(browser.get(EXPORT))] == rows[::-1]
    monkeypatch.setattr(delivery_export, "MAX_ROWS", 4)
    assert [row["delivery"] for row in rows_of(browser.get(EXPORT))][:-1] == rows[:-5:-1]
    monkeypatch.setattr(delivery_export, "MAX_ROWS", 9)
    assert [row["delivery"] for row in rows_of(browser.get(EXPORT))] == rows[::-1]


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_ROWS", 2), ("_MAX_SECONDS", 1e-9), ("_MAX_TOTAL_SECONDS", -1.0)]
)
def test_an_export_that_ends_early_says_so_and_how_to_continue(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    webhook = make_webhook()
    rows = [make_delivery(webhook).pk for _ in range(5)]
    monkeypatch.setattr(log_query, "EXPORT_ROWS", 2)
    browser = person("view_delivery")
    with monkeypatch.context() as patched:
        patched.setattr(delivery_export, limit, value)
        *found, last = [row["delivery"] for row in rows_of(browser.get(EXPORT))]
    assert found == rows[:2:-1]
    assert last.startswith("Not complete: older deliveries are missing.")
    until = last.removesuffix(".").rpartition(" ")[2]
    following = rows_of(browser.get(EXPORT, {"until": until}))
    assert {row["delivery"] for row in following} >= set(rows[:3])


def test_the_time_of_a_slow_client_does_not_end_an_export(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook()
    rows = [make_delivery(webhook).pk for _ in range(5)]
    monkeypatch.setattr(log_query, "EXPORT_ROWS", 2)
    clock = [0.0]
    monkeypatch.setattr(log_query.time, "monotonic", lambda: clock[0])
    found = []
    for page in log_query.pages(log_query.Conditions(), limit=9, seconds=60):
        found += [row.pk for row in page.rows]
        clock[0] += 100
    assert found == rows[::-1]


def test_some_exports_run_at_once_and_leave_room_for_pages() -> None:
    make_delivery(make_webhook())
    browser = person("view_delivery")
    running: list[Any] = [browser.get(EXPORT) for _ in range(MAX_AT_ONCE)]
    refused = browser.get(EXPORT, {"status": "pending"}, follow=True)
    assert refused.redirect_chain == [("/integrations/webhooks/deliveries/?status=pending", 302)]
    assert "Other exports are running. Try again in a minute." in refused.text
    assert rows_of(running[0])
    assert rows_of(browser.get(EXPORT))
    # An export whose response is never sent.
    del running
    gc.collect()
    again = [browser.get(EXPORT) for _ in range(MAX_AT_ONCE)]
    assert [one.status_code for one in again] == [200] * MAX_AT_ONCE
    # The next test needs free slots, and garbage collection may come late.
    for one in again:
        one.close()


def test_a_refused_export_is_shown_and_not_saved_as_a_file() -> None:
    # A link with this attribute saves whatever the response is, a page as well.
    page = person("view_delivery", "view_payload").get(EXPORT.removesuffix("export.csv"))
    links = [tag for tag in page.text.split("<a")[1:] if "export.csv" in tag.partition(">")[0]]
    assert len(links) == 2
    assert not [tag for tag in links if " download" in tag.partition(">")[0]]


def test_pieces_follow_each_other_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    webhook = make_webhook()
    rows = [make_delivery(webhook).pk for _ in range(7)]
    monkeypatch.setattr(log_query, "EXPORT_ROWS", 2)
    pages = log_query.pages(log_query.Conditions(), limit=5, seconds=60)
    assert [row.pk for page in pages for row in page.rows] == rows[:1:-1]
