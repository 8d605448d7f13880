"""The delivery log, the page of a delivery, and the actions on it."""

import datetime as dt
import re
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.log_rows import make_attempt, mixed_log, settle
from tests.people import logged_in
from webhooks import audit, events
from webhooks.delivery_log import query as log_query
from webhooks.delivery_log.charts import ResultKind
from webhooks.models import (
    Action,
    Attempt,
    AuditEntry,
    Delivery,
    Event,
    Outcome,
    Resend,
    ResendScope,
    Status,
    Trigger,
    Webhook,
    ids,
)
from webhooks.ui.webhook_detail.charts import chart_link

pytestmark = pytest.mark.django_db
# The product's pages check permissions only, so ann need not be staff.
person = partial(logged_in, name="ann")

LOG = "/integrations/webhooks/deliveries/"


@pytest.fixture
def browser() -> Client:
    return person(is_superuser=True)


def page_of(delivery: Delivery, name: str = "delivery") -> str:
    return reverse(f"webhooks:{name}", args=[delivery.pk])


def shown(page: Any) -> list[str]:
    return [row.pk for row in page.context["page"].rows]


def entries() -> list[tuple[str, str, str]]:
    rows = AuditEntry.objects.order_by("pk")
    return [(row.action, row.object_id, row.username) for row in rows]


# The log


def test_the_log_lists_deliveries_of_every_webhook_newest_first(browser: Client) -> None:
    crm, shop = make_webhook(name="CRM"), make_webhook(name="Shop", event_types=["recording.*"])
    older = make_delivery(crm, call_id="call-7")
    event = events.publish("recording.ready", {"call_id": "call-8"})
    newer = Delivery.objects.get(event_id=event.event_id, webhook=shop)
    page = browser.get(LOG)
    assert shown(page) == [newer.pk, older.pk]
    for text in ("CRM", "Shop", "recording.ready", "call-7", "Waiting", page_of(older)):
        assert text in page.text


def test_the_name_of_an_event_breaks_after_its_dots(browser: Client) -> None:
    make_delivery(make_webhook())
    assert "call.<wbr>incoming.<wbr>after</a>" in browser.get(LOG).text


def test_a_page_of_the_log_costs_few_queries_and_counts_nothing(
    django_assert_max_num_queries: Any,
) -> None:
    browser = person("view_delivery", "view_webhook", "test_webhook")
    webhook = make_webhook(client_secret="secret-of-the-client")
    for _ in range(12):
        make_delivery(webhook)
    query = {"webhook": webhook.pk, "status": "pending", "type": "call.incoming.after"}
    for filters in ({}, query):
        with django_assert_max_num_queries(17) as queries:
            browser.get(LOG, filters)
        for one in queries:
            assert "COUNT(" not in one["sql"]
            assert "OFFSET" not in one["sql"].replace("OFFSET 20000", "")
            assert '"payload"' not in one["sql"]
            assert "client_secret" not in one["sql"]


def test_the_log_is_paged_by_key_in_both_directions(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = make_webhook()
    newest_first = [make_delivery(webhook).pk for _ in range(7)][::-1]
    monkeypatch.setattr(log_query, "PAGE_ROWS", 3)
    first = browser.get(LOG, {"status": "pending"})
    assert shown(first) == newest_first[:3]
    assert (first.context["newer_link"], first.context["newest_link"]) == ("", "")
    second = browser.get(LOG + first.context["older_link"])
    assert shown(second) == newest_first[3:6]
    assert "status=pending" in second.context["older_link"]
    third = browser.get(LOG + second.context["older_link"])
    assert shown(third) == newest_first[6:]
    assert third.context["older_link"] == ""
    assert shown(browser.get(LOG + third.context["newer_link"])) == newest_first[3:6]
    assert shown(browser.get(LOG + second.context["newer_link"])) == newest_first[:3]
    assert shown(browser.get(LOG + third.context["newest_link"])) == newest_first[:3]


def test_no_row_is_skipped_on_the_way_back_from_an_empty_page(browser: Client) -> None:
    webhook = make_webhook()
    newest_first = [make_delivery(webhook).pk for _ in range(3)][::-1]
    empty = browser.get(LOG, {"after": newest_first[0]})
    assert shown(empty) == []
    assert shown(browser.get(LOG + empty.context["older_link"])) == newest_first


def test_a_search_for_newer_rows_says_how_far_up_it_came(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = make_webhook()
    oldest_first = [make_delivery(webhook).pk for _ in range(4)]
    monkeypatch.setattr(log_query, "STRETCH", 1)
    monkeypatch.setattr(log_query, "SEARCH_SECONDS", 0.0)
    older = browser.get(LOG, {"outcome": "timeout"})
    assert "The log was searched back to" in older.text
    assert "Look further back" in older.text
    newer = browser.get(LOG, {"outcome": "timeout", "after": oldest_first[0]})
    assert "The log was searched up to" in newer.text
    assert "Look further back" not in newer.text
    Delivery.objects.filter(pk=oldest_first[1]).update(outcome="timeout")
    found = browser.get(LOG, {"outcome": "timeout", "after": oldest_first[0]})
    assert shown(found) == [oldest_first[1]]
    assert "Searched up to" in found.text


EVERYTHING = {"ok", "missing", "broken", "silent", "sms"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"status": "failed"}, {"missing", "broken", "silent"}),
        ({"status": "succeeded"}, {"ok"}),
        ({"status": "pending"}, {"sms"}),
        ({"outcome": "failure"}, {"missing", "broken", "silent"}),
        ({"outcome": "timeout"}, {"silent"}),
        ({"type": "recording.ready"}, {"sms"}),
        ({"code": "404"}, {"missing"}),
        ({"code": "5XX"}, {"broken"}),
        ({"code": "4xx", "status": "failed"}, {"missing"}),
        ({"code": "none"}, {"silent"}),
        ({"trigger": "resent"}, {"broken"}),
        ({"trigger": "resent", "status": "succeeded"}, set()),
        ({"period": "hour"}, EVERYTHING),
        ({"until": "2020-01-01T10:00"}, set()),
        ({"since": "2999-01-01T10:00"}, set()),
        ({"since": "2020-01-01T10:00:00+02:00", "until": "2999-01-01T10:00"}, EVERYTHING),
        ({"status": "", "code": "", "q": " "}, EVERYTHING),
        ({"q": "call-b"}, {"missing", "broken"}),
        ({"q": "shop.example"}, {"sms"}),
        ({"q": "call-b", "code": "503"}, {"broken"}),
        ({"q": "nothing"}, set()),
    ],
)
def test_the_log_is_filtered_and_searched(
    browser: Client, query: dict[str, str], found: set[str]
) -> None:
    log = mixed_log()
    page = browser.get(LOG, query)
    assert {name for name in log if log[name].pk in shown(page)} == found
    assert len(shown(page)) == len(found)


def test_the_log_finds_a_delivery_and_an_event_by_id(browser: Client) -> None:
    log = mixed_log()
    assert shown(browser.get(LOG, {"q": log["ok"].pk})) == [log["ok"].pk]
    assert shown(browser.get(LOG, {"q": f" {log['sms'].event_id} "})) == [log["sms"].pk]


def test_a_hold_for_a_missing_password_is_not_called_one_of_oauth(browser: Client) -> None:
    delivery = make_delivery(make_webhook(authorization_type="basic"))
    Delivery.objects.update(status=Status.HELD, hold_reason="misconfigured", next_attempt_at=None)
    for page in (LOG, page_of(delivery)):
        text = browser.get(page).text
        assert "Misconfigured" in text
        assert "OAuth misconfigured" not in text


def test_a_search_reaches_what_the_first_stretches_do_not_hold(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = mixed_log()
    monkeypatch.setattr(log_query, "STRETCH", 1)
    assert shown(browser.get(LOG, {"outcome": "succeeded"})) == [log["ok"].pk]


def test_a_look_that_takes_long_says_how_far_it_came_and_goes_on(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = mixed_log()
    monkeypatch.setattr(log_query, "STRETCH", 1)
    monkeypatch.setattr(log_query, "SEARCH_SECONDS", -1)
    page = browser.get(LOG, {"outcome": "succeeded"})
    assert shown(page) == []
    assert "Nothing found so far" in page.text
    for _ in range(len(log)):
        if shown(page):
            break
        page = browser.get(LOG + page.context["older_link"])
    assert shown(page) == [log["ok"].pk]


def test_a_deleted_webhook_keeps_its_log(browser: Client) -> None:
    log = mixed_log()
    shop = Webhook.objects.get(name="Shop")
    assert f'<option value="{shop.pk}"' in browser.get(LOG).text
    events.delete(shop)
    assert f'<option value="{shop.pk}"' not in browser.get(LOG).text
    page = browser.get(LOG, {"webhook": shop.pk})
    assert shown(page) == [log["sms"].pk]
    assert f'<option value="{shop.pk}" selected' in page.text


def test_a_period_is_a_range_of_ids(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    old = ids.floor("dlv", (timezone.now() - dt.timedelta(hours=5)).timestamp())
    Delivery.objects.filter(pk=delivery.pk).update(id=old)
    assert shown(browser.get(LOG, {"period": "hour"})) == []
    assert shown(browser.get(LOG, {"period": "day"})) == [old]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"code": "abc"}, "Enter a code such as 404"),
        ({"code": "xxx"}, "Enter a code such as 404"),
        ({"until": "yesterday"}, "Enter a time like"),
        ({"until": "2020-13-40T10:00"}, "Enter a time like"),
        ({"webhook": "x"}, "Select a valid choice"),
        ({"period": "year"}, "Select a valid choice"),
        ({"type": "\0"}, "Select a valid choice"),
        ({"q": "a\0"}, "Null characters are not allowed."),
    ],
)
def test_a_filter_that_means_nothing_says_why_and_keeps_what_was_typed(
    browser: Client, query: dict[str, str], sentence: str
) -> None:
    make_delivery(make_webhook())
    page = browser.get(LOG, query)
    assert page.status_code == 200
    assert sentence in page.text
    assert "This search is not possible" in page.text
    described = re.findall(r'aria-invalid="true"[^>]* aria-describedby="([^"]+)"', page.text)
    described += re.findall(r'aria-describedby="([^"]+)"[^>]* aria-invalid="true"', page.text)
    assert described
    assert all(f'id="{one}"' in page.text for one in described)
    assert shown(page) == []


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (None, EVERYTHING - {"sms"}),
        (ResultKind.SUCCEEDED, {"ok"}),
        (ResultKind.REFUSED, {"missing"}),
        (ResultKind.FAILED, {"broken"}),
        (ResultKind.UNANSWERED, {"silent"}),
    ],
)
def test_a_bar_of_a_chart_leads_to_the_deliveries_it_counts(
    browser: Client, kind: ResultKind | None, found: set[str]
) -> None:
    log = mixed_log()
    user = get_user_model().objects.get()
    hour = dt.timedelta(hours=1)
    end = timezone.now().replace(minute=0, second=0, microsecond=0) + hour
    link = chart_link(Webhook.objects.get(name="CRM").pk, user)
    page = browser.get(link(end - 2 * hour, end, kind, 5))
    assert {name for name in log if log[name].pk in shown(page)} == found
    page = browser.get(link(end - 3 * hour, end - 2 * hour, kind, 5))
    assert shown(page) == []


def test_the_log_behind_a_number_of_a_chart_says_what_was_counted(browser: Client) -> None:
    mixed_log()
    user = get_user_model().objects.get()
    end = timezone.now() + dt.timedelta(hours=1)
    link = chart_link(Webhook.objects.get(name="CRM").pk, user)
    page = browser.get(link(end - dt.timedelta(days=1), end, ResultKind.FAILED, 1071))
    assert "The chart counted 1,071 requests. The log lists deliveries" in page.text
    assert "The chart counted" not in browser.get(LOG).text


@pytest.mark.parametrize("counted", ["-1", "x", "²", "9" * 5000, "0", "1\0"])
def test_a_count_that_is_none_is_not_repeated(browser: Client, counted: str) -> None:
    page = browser.get(LOG, {"counted": counted})
    assert page.status_code == 200
    assert "The chart counted" not in page.text


def test_an_empty_log_says_what_to_do(browser: Client) -> None:
    assert "Nothing was sent yet" in browser.get(LOG).text
    assert "Nothing matches" in browser.get(LOG, {"status": "held"}).text


def test_the_head_of_the_log_says_how_far_behind_the_engine_is(browser: Client) -> None:
    webhook = make_webhook()
    settle(make_delivery(webhook), Status.PARKED)
    assert "1 stuck" in browser.get(LOG).text


@pytest.mark.parametrize(
    ("since", "kind", "value"),
    [
        ("2026-10-25T03:30:00+03:00", "datetime-local", "2026-10-25T03:30:00"),
        ("2026-10-25T03:30:00+02:00", "text", "2026-10-25T03:30:00+02:00"),
        ("2026-10-25T04:30:00+02:00", "datetime-local", "2026-10-25T04:30:00"),
        ("2026-03-29T03:30:00", "datetime-local", "2026-03-29T03:30:00"),
        ("", "datetime-local", ""),
        ("soon", "text", "soon"),
    ],
)
def test_a_time_stays_the_same_when_the_form_is_sent_again(
    browser: Client, since: str, kind: str, value: str
) -> None:
    browser.cookies["time_zone"] = "Europe/Kyiv"
    page = browser.get(LOG, {"since": since})
    field = re.search(r'<input [^>]*name="since"[^>]*>', page.text)
    assert field is not None
    assert f'type="{kind}"' in field[0]
    assert (f'value="{value}"' in field[0]) or not value
    if page.context["form"].is_valid():
        again = browser.get(LOG, {"since": value})
        # Not `==`: in this hour times of two zones are never equal (PEP 495).
        moments = [one.context["form"].cleaned_data["since"] for one in (page, again)]
        assert len({one and one.timestamp() for one in moments}) == 1


@pytest.mark.parametrize(
    ("permissions", "hint"),
    [
        (["test_webhook", "change_webhook"], "Select deliveries to resend or cancel them."),
        (["test_webhook"], "Select deliveries to resend them."),
        (["change_webhook"], "Select deliveries to cancel them."),
    ],
)
def test_rows_are_selected_for_what_the_reader_may_do(permissions: list[str], hint: str) -> None:
    make_delivery(make_webhook())
    assert hint in person("view_delivery", *permissions).get(LOG).text


@pytest.mark.parametrize(
    ("status", "reason"),
    [(Status.FAILED, ""), (Status.HELD, "paused"), (Status.HELD, "misconfigured")],
)
@pytest.mark.slow
def test_no_page_of_the_log_links_to_what_its_reader_may_not_open(
    status: Status, reason: str
) -> None:
    reader = person("view_delivery", "test_webhook")
    links = links_of(reader.get(LOG))
    delivery = settle(make_delivery(webhook := make_webhook()), status, hold_reason=reason)
    resend = Resend.objects.create(webhook=webhook, scope=ResendScope.FAILED)
    links |= links_of(reader.get(page_of(delivery)))
    links |= links_of(reader.get(reverse("webhooks:event", args=[delivery.event_id])))
    links |= links_of(reader.get(reverse("webhooks:resend_create", args=[webhook.pk])))
    links |= links_of(reader.get(reverse("webhooks:resend", args=[resend.pk])))
    links = {link for link in links if "export.csv" not in link}
    assert not {link for link in links if reader.get(link).status_code == 403}


def links_of(page: Any) -> set[str]:
    main = page.text.partition("<main")[2]
    return {unescape(link) for link in re.findall(r'href="(/integrations/[^"#]*)', main)}


# One delivery


def test_a_delivery_shows_its_attempts_with_request_response_and_timing(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook(name="CRM")), outcome=Outcome.SERVER_ERROR)
    make_attempt(delivery)
    make_attempt(delivery, 2, status_code=None, outcome=Outcome.TIMEOUT, error="No answer.")
    text = browser.get(page_of(delivery)).text
    for part in (
        "Attempt 1", "Attempt 2", "number=380441234567", "crm.example", "203.0.113.7",
        "The receiver answered 503.", "No answer.", "Timed out", "Given up", "Name lookup 1.0 ms",
        "Waiting for the first byte 34 ms", "Reading 10 ms", delivery.event_id, "call-1",
        "Copy as cURL", "What changed since attempt 1", "HTTP/1.1 503 Busy",
    ):  # fmt: skip
        assert part in text, part
    assert '<rect class="timing-wait" x="12.00" y="0" width="68.00"' in text


def test_a_delivery_costs_few_queries_however_many_attempts_it_had(
    django_assert_max_num_queries: Any,
) -> None:
    browser = person("view_delivery", "view_payload", "test_webhook")
    delivery = settle(make_delivery(make_webhook(client_secret="secret-of-the-client")))
    for number in range(1, 30):
        make_attempt(delivery, number)
    with django_assert_max_num_queries(15) as queries:
        page = browser.get(page_of(delivery), {"attempt": "3", "against": "1"})
    assert "Attempts 1 and 3 compared" in page.text
    assert not any("client_secret" in query["sql"] for query in queries)


def test_a_reason_phrase_is_for_those_who_may_see_payloads() -> None:
    delivery = settle(make_delivery(make_webhook()))
    make_attempt(delivery, status_code=422, response_headers="HTTP/1.1 422 Not 380441234567")
    without = person("view_delivery").get(page_of(delivery)).text
    all_seeing = logged_in("view_delivery", "view_payload", name="petro")
    with_payload = all_seeing.get(page_of(delivery)).text
    assert "HTTP/1.1 422<" in without
    assert "Not 380441234567" not in without
    assert "HTTP/1.1 422 Not 380441234567<" in with_payload


def test_an_attempt_says_whether_it_reused_a_connection(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    connected = 'Connected to <span class="mono">203.0.113.7</span>'
    make_attempt(delivery)
    assert f"{connected}." in browser.get(page_of(delivery)).text
    Attempt.objects.update(connect_ms=None)
    assert f"{connected}, reusing an open connection." in browser.get(page_of(delivery)).text


def test_foreign_text_is_only_ever_text(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook(name="<b>n</b>"), note="<img src=x>"))
    hostile = b"<script>alert(1)</script>\x1b[31mred\xe2\x80\xae\0"
    make_attempt(
        delivery,
        error="<i>bad</i>",
        response_headers="X-<u>: <s>\x1b[2J",
        response_body=hostile[:-1],
    )
    make_attempt(delivery, 2, response_body=hostile, remote_address="<tt>")
    text = browser.get(page_of(delivery)).text
    markup = "<script>alert", "<img src", "<i>bad", "<u>", "<s>", "<b>n", "\x1b", "\u202e", "\0"
    for one in (*markup, "<tt>"):
        assert one not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert '<span class="escape">\\x1b</span>' in text
    assert '<span class="escape">\\u202e</span>' in text


def test_a_body_is_only_ever_downloaded(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    attempt = make_attempt(delivery, response_body=b"<script>alert(1)</script>")
    args = [delivery.pk, attempt.pk, "response"]
    answer = browser.get(reverse("webhooks:delivery_body", args=args))
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Content-Disposition"].startswith("attachment;")
    assert answer["X-Content-Type-Options"] == "nosniff"
    request = browser.get(reverse("webhooks:delivery_body", args=[*args[:2], "request"]))
    assert request.content == bytes(delivery.event.payload)


@pytest.mark.parametrize(
    ("status", "fields", "sentence"),
    [
        (Status.SUCCEEDED, {"attempt_count": 1}, "Succeeded at the first attempt."),
        (Status.SUCCEEDED, {"attempt_count": 3}, "Succeeded after 3 attempts."),
        (Status.HELD, {"hold_reason": "no_token"}, "No access token yet"),
        (Status.PARKED, {}, "Resend it or cancel it"),
        (Status.CANCELLED, {"finished_at": dt.datetime.now(dt.UTC)}, "Cancelled before it"),
        (Status.FAILED, {"outcome": "gone"}, "Given up: Gone."),
    ],
)
def test_a_sentence_says_what_became_of_a_delivery(
    browser: Client, status: str, fields: dict[str, Any], sentence: str
) -> None:
    delivery = settle(make_delivery(make_webhook()), status, **fields)
    assert sentence in browser.get(page_of(delivery)).text


@pytest.mark.parametrize(
    "query",
    [
        {"before": "\0"},
        {"after": "zzz' OR 1=1"},
        {"before": "dlv_", "after": "dlv_"},
        {"webhook": "9" * 18},
        {"webhook": "9" * 30},
        {"period": "year"},
        {"since": "9999-12-31T23:59:59"},
        {"since": "0001-01-01T00:00:00"},
        {"until": "1970-06-01T00:00:00"},
        {"q": "dlv_" + "x" * 150},
        {"q": "\ud800"},
        {"code": "²²²"},
        {"type": "\0"},
    ],
)
def test_whatever_stands_in_the_logs_address_it_answers(
    browser: Client, query: dict[str, str]
) -> None:
    make_delivery(make_webhook())
    escaped = {name: value.encode("utf-8", "surrogatepass") for name, value in query.items()}
    assert browser.get(f"{LOG}?{urlencode(escaped)}").status_code == 200


def test_whatever_stands_in_a_deliverys_address_it_answers(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    make_attempt(delivery)
    for number in ("0", "-1", "99999999999999999999", "\0", "²", "x"):
        assert (
            browser.get(page_of(delivery), {"attempt": number, "against": "1"}).status_code == 200
        )
    huge = "9" * 30
    for address in (
        f"{page_of(delivery)}attempts/{huge}/request.bin",
        f"{LOG[:-11]}resends/{huge}/",
    ):
        assert browser.get(address).status_code == 404, address


def test_a_page_that_saw_the_newest_state_gets_nothing_new(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    page = browser.get(page_of(delivery))
    address = re.findall(r'hx-get="([^"]+)"', page.text)[0]
    part = browser.get(address, headers={"HX-Request": "true"})
    assert part.status_code == 204
    settle(delivery, Status.SUCCEEDED, attempt_count=1)
    part = browser.get(address, headers={"HX-Request": "true"})
    assert "Succeeded at the first attempt." in part.text
    assert "<html" not in part.text
    assert "hx-get" not in part.text


# Actions on a delivery


def test_resend_makes_a_new_delivery_and_shows_it(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    answer = browser.post(page_of(delivery, "delivery_resend"), follow=True)
    new = Delivery.objects.exclude(pk=delivery.pk).get()
    assert (new.event_id, new.trigger) == (delivery.event_id, Trigger.RESENT)
    assert answer.redirect_chain[-1][0] == page_of(new)
    assert entries() == [(Action.RESENT, delivery.pk, "ann")]


@pytest.mark.parametrize(("minutes", "words"), [(-1, "due now"), (9, "next")])
def test_a_retry_whose_time_has_come_is_due(browser: Client, minutes: int, words: str) -> None:
    at = timezone.now() + dt.timedelta(minutes=minutes)
    delivery = make_delivery(make_webhook())
    Delivery.objects.update(attempt_count=1, next_attempt_at=at)
    log = browser.get(reverse("webhooks:deliveries")).text
    row = log.partition('<td class="small log-attempts')[2].partition("</td>")[0]
    assert [word for word in ("due now", "next") if word in row] == [words]
    assert (">due now</" in browser.get(page_of(delivery)).text) == (minutes < 0)


def test_resend_and_cancel_move_a_waiting_delivery(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    later = timezone.now() + dt.timedelta(hours=9)
    Delivery.objects.filter(pk=delivery.pk).update(next_attempt_at=later)
    browser.post(page_of(delivery, "delivery_resend"))
    delivery.refresh_from_db()
    assert delivery.next_attempt_at is not None
    assert delivery.next_attempt_at < later - dt.timedelta(hours=8)
    browser.post(page_of(delivery, "delivery_cancel"))
    delivery.refresh_from_db()
    assert delivery.status == Status.CANCELLED
    assert [action for action, *_ in entries()] == [Action.RESENT, Action.CANCELLED]
    # It was not sent twice.
    assert Delivery.objects.count() == 1
    answer = browser.post(page_of(delivery, "delivery_cancel"), follow=True)
    assert "This delivery is no longer waiting." in answer.text
    assert len(entries()) == 2


def test_a_refresh_of_a_delivery_keeps_the_attempts_that_were_chosen(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    for number in (1, 2, 3):
        make_attempt(delivery, number)
    page = browser.get(page_of(delivery), {"attempt": "3", "against": "1"})
    found = re.search(r'id="delivery"[^>]*hx-get="([^"]*)"', page.text)
    assert found is not None
    Delivery.objects.update(attempt_count=3)
    part = browser.get(found[1].replace("&amp;", "&"), headers={"HX-Request": "true"})
    assert "Attempts 1 and 3 compared" in part.text


def test_the_audit_trail_counts_only_what_was_changed(browser: Client) -> None:
    crm, shop = make_webhook(), make_webhook(name="Shop")
    waiting = [make_delivery(crm) for _ in range(2)]
    done = settle(make_delivery(crm), Status.SUCCEEDED)
    other = settle(make_delivery(shop), Status.SUCCEEDED)
    chosen = [row.pk for row in (*waiting, done, other)]
    browser.post(reverse("webhooks:deliveries_cancel"), {"delivery": chosen})
    entry = AuditEntry.objects.get()
    assert (entry.webhook_id, audit.sentence(entry.note)) == (crm.pk, "2 deliveries")


def test_cancelling_on_an_older_page_returns_to_it(browser: Client) -> None:
    webhook = make_webhook()
    older, newer = make_delivery(webhook), make_delivery(webhook)
    page = browser.get(LOG, {"status": "pending", "before": newer.pk})
    assert shown(page) == [older.pk]
    here = page.context["address"]
    assert f'name="next" value="{here.replace("&", "&amp;")}"' in page.text
    data = {"delivery": older.pk, "next": here}
    answer = browser.post(reverse("webhooks:deliveries_cancel"), data)
    assert answer["Location"] == f"{LOG}?status=pending&before={newer.pk}"


def test_nothing_to_cancel_is_no_success(browser: Client) -> None:
    finished = settle(make_delivery(make_webhook()))
    page = browser.post(
        reverse("webhooks:deliveries_cancel"), {"delivery": finished.pk}, follow=True
    )
    [message] = page.context["messages"]
    assert message.level_tag == "warning"
    assert str(message) == "Nothing was cancelled: none of them is waiting any more."
    assert not entries()


@pytest.mark.parametrize("filters", [{}, {"status": "failed"}])
def test_the_log_offers_no_resend_to_a_deleted_webhook(
    browser: Client, filters: dict[str, str]
) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    query = {"webhook": webhook.pk, **filters}
    assert "Resend since…" in browser.get(LOG, query).text
    events.delete(webhook)
    assert "Resend since…" not in browser.get(LOG, query).text
    assert "Resend since…" in browser.get(LOG).text


def test_a_page_has_no_button_that_its_reader_may_not_press() -> None:
    delivery = make_delivery(make_webhook())
    page = person("view_delivery", "view_webhook").get(page_of(delivery)).text
    for name in ("delivery_resend", "delivery_cancel", "delivery_edit"):
        assert page_of(delivery, name) not in page
    assert "You have no permission to see payloads" in page


@pytest.mark.parametrize(
    ("reason", "sentence", "button", "target"),
    [
        ("paused", "Sent after the webhook is resumed.", "Resume webhook", "detail"),
        ("reauthorization", "Sent after the webhook is authorized again.",
         "Get new access token", "authorize"),
        ("no_token", "Sent after the webhook is authorized.", "Get new access token", "authorize"),
        ("misconfigured", "Sent after the settings are corrected.", "Correct the settings", "edit"),
    ],
)  # fmt: skip
def test_a_delivery_on_hold_says_what_releases_it_and_has_the_button(
    browser: Client, reason: str, sentence: str, button: str, target: str
) -> None:
    webhook = make_webhook()
    delivery = settle(make_delivery(webhook), Status.HELD, hold_reason=reason)
    key = webhook.credential_id if target == "authorize" else webhook.pk
    link = reverse(f"webhooks:{target}", args=[key])
    actions = browser.get(page_of(delivery)).text.partition("page-actions")[2]
    assert sentence in actions
    actions = actions.partition("<section")[0]
    assert button in actions
    assert link in actions
    reader = person("view_delivery", name="bob").get(page_of(delivery)).text
    assert sentence in reader
    assert button not in reader
    assert "What releases it" not in reader
    Webhook.objects.update(is_active=False, pause_reason="person", deleted_at=timezone.now())
    assert button not in browser.get(page_of(delivery)).text.partition("page-actions")[2]


def test_nothing_is_sent_to_a_deleted_webhook(browser: Client) -> None:
    webhook = make_webhook()
    delivery = settle(make_delivery(webhook))
    events.delete(webhook)
    page = browser.get(page_of(delivery))
    for name in ("delivery_resend", "delivery_edit"):
        assert page_of(delivery, name) not in page.text
    answer = browser.post(page_of(delivery, "delivery_resend"), follow=True)
    assert "its webhook was deleted" in answer.text
    answer = browser.get(page_of(delivery, "delivery_edit"), follow=True)
    assert "The webhook was deleted" in answer.text
    assert Delivery.objects.count() == 1


# Edit and resend


def test_the_edited_copy_is_a_new_event_marked_so(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook(), caller="380441234567"))
    address = page_of(delivery, "delivery_edit")
    page = browser.get(address)
    assert "380441234567" in page.text
    answer = browser.post(address, {"payload": '{"call_id": "call-1", "caller": "1"}'}, follow=True)
    copy = Delivery.objects.exclude(pk=delivery.pk).get()
    assert answer.redirect_chain[-1][0] == page_of(copy)
    assert copy.trigger == Trigger.EDITED
    assert copy.event.copy_of == delivery.event_id
    assert b'"caller":"1"' in bytes(copy.event.payload).replace(b": ", b":")
    for text in ("Edited and resent", "An edited copy", delivery.event_id):
        assert text in answer.text
    assert entries() == [(Action.EDITED_AND_RESENT, copy.pk, "ann")]
    assert Event.objects.get(pk=delivery.event_id).copy_of == ""


@pytest.mark.parametrize(
    ("source", "is_shown"), [("edited", False), ("test", False), ("pbx", True)]
)
def test_a_source_that_repeats_the_trigger_is_not_shown(
    browser: Client, source: str, is_shown: bool
) -> None:
    delivery = make_delivery(make_webhook())
    Event.objects.update(source=source)
    text = browser.get(page_of(delivery)).text
    assert ("<dt>Source</dt>" in text) is is_shown
    assert (f"<dd>{source}</dd>" in text) is is_shown
    assert f'data-copy="{delivery.pk}"' in text


def test_the_page_of_a_copy_says_that_no_filter_is_asked(browser: Client) -> None:
    sentence = "Copies skip the filter."
    address = page_of(make_delivery(make_webhook()), "delivery_edit")
    assert sentence not in browser.get(address).text
    condition = {"variable": "disposition", "operator": "equals", "value": "BUSY"}
    Webhook.objects.update(filter={"all": [condition]})
    assert sentence in browser.get(address).text


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ('{"caller": "1",}', "JSON"),
        ("[1]", "The payload is not a JSON object."),
        ('{"a": NaN}', "JSON"),
        ("", "This field is required."),
    ],
)
def test_a_payload_that_is_no_json_loses_nothing_typed(
    browser: Client, typed: str, sentence: str
) -> None:
    delivery = settle(make_delivery(make_webhook()))
    page = browser.post(page_of(delivery, "delivery_edit"), {"payload": typed})
    assert page.status_code == 422
    assert " autofocus" in page.text
    assert sentence in page.text
    assert page.context["form"]["payload"].value() == typed
    assert Delivery.objects.count() == 1


def test_a_request_that_was_kept_in_part_says_how_long_it_was(browser: Client) -> None:
    delivery = make_delivery(make_webhook(name="CRM"))
    headers = "Host: crm.example\nContent-Length: 3000000"
    make_attempt(delivery, request_headers=headers, request_body=b"n=" + b"a" * 2000)
    page = browser.get(page_of(delivery))
    assert "First 2,002 bytes of 2.9\xa0MB." in " ".join(page.text.split(" "))


@pytest.mark.database("postgres")
def test_a_page_of_what_is_due_asks_also_where_the_clock_is_behind_the_databases(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery, real = make_delivery(make_webhook()), timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() - dt.timedelta(minutes=5))
    assert 'hx-trigger="every 2s"' in browser.get(page_of(delivery)).text


def test_an_address_that_is_cut_makes_no_command() -> None:
    delivery = make_delivery(make_webhook())
    address = reverse("webhooks:delivery", args=[delivery.pk])
    browser = person("view_delivery", "view_payload")
    make_attempt(delivery, request_line="GET https://crm.example/?n=" + "n" * 4000)
    assert "curl --globoff" in browser.get(address).text
    make_attempt(delivery, 2, request_line=f"GET https://crm.example/?n={'n' * 4068}…")
    text = browser.get(address).text
    assert "Only the beginning of the address is stored" in text
    assert text.count("curl --globoff") == 1
