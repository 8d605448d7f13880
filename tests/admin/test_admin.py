"""Django admin: delivery log, events, exchanges and API keys; what is shown and what never is."""

import datetime as dt
import logging
import re
import shlex
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape

from tests.factories import make_delivery, make_webhook
from tests.log_rows import make_attempt, mixed_log, settle
from tests.people import logged_in
from webhooks import events
from webhooks.admin.readonly import ReadOnlyAdmin
from webhooks.delivery_log import search as log_search
from webhooks.delivery_log.decoded_body import indent_json
from webhooks.models import (
    ApiKey,
    Delivery,
    Event,
    ExchangeKind,
    OAuthExchange,
    OAuthToken,
    Outcome,
    Status,
    Trigger,
    WebhookState,
)
from webhooks.templatetags import logtext

pytestmark = pytest.mark.django_db
staff = partial(logged_in, is_staff=True)

LOG = "/admin/webhooks/delivery/"
SELECTED = "/integrations/webhooks/deliveries/cancel/"
KEYS = "/admin/webhooks/apikey/"


@pytest.fixture
def browser() -> Client:
    return staff(is_superuser=True)


def page_of(delivery: Delivery) -> str:
    return reverse("admin:webhooks_delivery_change", args=[delivery.pk])


def step_url(delivery: Delivery, step: str) -> str:
    return reverse(f"admin:webhooks_delivery_{step}", args=[delivery.pk])


# The list


@pytest.mark.parametrize("address", [LOG, "/admin/webhooks/event/"])
def test_a_row_links_to_its_page(browser: Client, address: str) -> None:
    make_delivery(make_webhook())
    link = re.search(rf'href="({address}[^"]+/change/)"', browser.get(address).text)
    assert link is not None
    page = browser.get(link[1])
    assert page.status_code == 200
    assert "call.incoming.after" in page.text


def test_the_log_costs_few_queries_and_counts_nothing(
    browser: Client, django_assert_max_num_queries: Any
) -> None:
    webhook = make_webhook(client_secret="secret-of-the-client")
    for _ in range(12):
        make_delivery(webhook)
    with django_assert_max_num_queries(14) as queries:
        browser.get(LOG)
    for query in queries:
        assert "COUNT(" not in query["sql"]
        assert "OFFSET" not in query["sql"]
        assert "payload" not in query["sql"]
        assert "client_secret" not in query["sql"]


def test_the_log_is_the_one_of_integrations(browser: Client) -> None:
    """The same filters, rows, columns and buttons; only the URLs are the admin's."""
    mixed_log()
    for query in ({}, {"status": "failed"}, {"q": "call-b", "code": "5xx"}, {"q": "shop.example"}):
        texts = []
        for address in (LOG, reverse("webhooks:deliveries")):
            page = browser.get(address, query)
            pattern = r'<section class="card" aria-label="Deliveries".*?</section>'
            card = re.search(pattern, page.text, re.S)
            assert card is not None
            text = re.sub(r'name="(csrfmiddlewaretoken|opened_by)" value="[^"]+"', "", card[0])
            text = text.replace("/change/", "/").replace(LOG, reverse("webhooks:deliveries"))
            texts.append(text)
        assert texts[0] == texts[1]


@pytest.mark.parametrize("query", [{"nonsense": "1"}, {"before": "\0"}])
def test_what_is_no_filter_shows_the_whole_log(browser: Client, query: dict[str, str]) -> None:
    delivery = make_delivery(make_webhook())
    page = browser.get(LOG, query)
    assert [row.pk for row in page.context["page"].rows] == [delivery.pk]


def test_every_event_of_a_number_is_reached_page_by_page(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = make_webhook()
    made = [make_delivery(webhook, caller="380671234567").event_id for _ in range(7)]
    monkeypatch.setattr(log_search, "MAX_EVENTS", 3)
    monkeypatch.setattr(ReadOnlyAdmin, "list_per_page", 2)
    link, found = "?q=0671234567", []
    while link:
        page = browser.get(f"/admin/webhooks/event/{link}").context["cl"]
        found += [row.pk for row in page.result_list]
        link = page.older_link
    assert found == made[::-1]
    newer = browser.get(f"/admin/webhooks/event/{page.newer_link}").context["cl"]
    assert [row.pk for row in newer.result_list] == found[4:6]


def test_a_page_of_an_event_links_to_no_log_that_its_reader_may_not_open() -> None:
    delivery = make_delivery(make_webhook())
    Event.objects.update(copy_of=delivery.event_id)
    event = f"/admin/webhooks/event/{delivery.event_id}/change/"
    main = staff("view_event").get(event).text.partition("<main")[2]
    assert "call-1" in main
    assert not re.findall(r'href="(/(?:integrations|admin/webhooks/delivery)/[^"]*)"', main)
    both = staff("view_event", "view_delivery", name="both").get(event).text
    assert "Open the delivery" in both
    assert f"{LOG}{delivery.pk}/change/" in both


# One delivery


def test_secrets_are_masked_even_when_the_log_holds_them(browser: Client) -> None:
    webhook = make_webhook(
        authorization_type="basic", basic_login="user", basic_password="pass-word"
    )
    delivery = settle(make_delivery(webhook))
    make_attempt(
        delivery,
        request_headers="Host: crm.example\nAuthorization: Basic dXNlcjpwYXNz\nX-Shop: 7",
        response_headers="Content-Type: text/html\nSet-Cookie: session=abcdef",
    )
    text = browser.get(page_of(delivery)).text
    for secret in ("dXNlcjpwYXNz", "session=abcdef", "pass-word", webhook.signing_secret):
        assert secret not in text
    assert "Basic ********" in text
    assert "<i>X-Shop:</i> 7" in text


def test_an_unchanged_body_is_the_payload_shown_once_to_read_and_once_raw(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook(), caller="380441234567"))
    make_attempt(delivery, request_line="POST /hook HTTP/1.1")
    text = browser.get(page_of(delivery)).text
    assert "the payload of the event, unchanged" in text
    assert text.count("380441234567") == 2


def test_a_long_body_is_cut(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook(), note="n" * 90_000))
    make_attempt(delivery, response_body=b"r" * 20_000, response_size=5_000_000)
    text = browser.get(page_of(delivery)).text
    assert "First 65,536 bytes of 8" in text
    assert "First 20,000 bytes of 4.8" in text
    assert text.count("n" * 1000) < 66


def test_a_waiting_delivery_says_when_it_is_tried_again(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    Delivery.objects.filter(pk=delivery.pk).update(
        attempt_count=2, next_attempt_at=timezone.now() + dt.timedelta(minutes=30, seconds=9)
    )
    text = browser.get(page_of(delivery)).text
    assert "Waiting for its next attempt." in text
    assert "in 30\xa0minutes" in text


def test_an_unknown_delivery_is_not_found(browser: Client) -> None:
    assert browser.get(LOG + "dlv_0/change/").status_code == 404
    assert browser.get("/admin/webhooks/event/evt_0/change/").status_code == 404
    for zero in (LOG + "%00/change/", "/admin/webhooks/event/%00/change/"):
        assert browser.get(zero).status_code == 404
    assert browser.get(LOG + "%00/history/").status_code == 302
    assert browser.get(LOG + "%00/delete/").status_code == 403


# Actions


def test_resend_makes_a_new_delivery_and_shows_it(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    answer = browser.post(step_url(delivery, "resend"), follow=True)
    new = Delivery.objects.exclude(pk=delivery.pk).get()
    assert (new.event_id, new.trigger) == (delivery.event_id, Trigger.RESENT)
    assert answer.redirect_chain[-1][0] == page_of(new)
    assert "This is the new delivery" in answer.text


@pytest.mark.parametrize("log", ["webhooks:deliveries", "admin:webhooks_delivery_changelist"])
def test_selected_rows_are_cancelled(browser: Client, log: str) -> None:
    webhook = make_webhook()
    selected = [make_delivery(webhook).pk for _ in range(2)]
    other = make_delivery(webhook)
    Delivery.objects.update(status=Status.PARKED, next_attempt_at=None)
    back = reverse(log) + "?status=parked"
    # "Cancel" alone would look like cancelling the selection.
    assert "Cancel deliveries" in browser.get(back).text
    answer = browser.post(SELECTED, {"delivery": selected, "next": back})
    assert answer["Location"] == back
    assert "2 deliveries are cancelled." in browser.get(back).text
    assert set(Delivery.objects.filter(pk__in=selected).values_list("status", flat=True)) == {
        Status.CANCELLED
    }
    other.refresh_from_db()
    assert other.status == Status.PARKED


def test_what_is_selected_leads_nowhere_else(browser: Client) -> None:
    make_delivery(make_webhook())
    answer = browser.post(SELECTED, {"next": "https://elsewhere.example/"})
    assert answer["Location"] == reverse("webhooks:deliveries")
    assert "Select deliveries first." in browser.get(LOG).text


@pytest.mark.parametrize("step", ["resend", "cancel"])
def test_steps_are_offered_by_permission_and_posted_with_a_csrf_token(step: str) -> None:
    delivery = make_delivery(make_webhook())
    reader = staff("view_delivery")
    assert step_url(delivery, step) not in reader.get(page_of(delivery)).text
    assert SELECTED not in reader.get(LOG).text
    root = Client(enforce_csrf_checks=True)
    root.force_login(get_user_model().objects.create_superuser("root"))
    assert root.post(step_url(delivery, step)).status_code == 403
    assert list(Delivery.objects.values_list("status", flat=True)) == [Status.PENDING]


def test_the_log_cannot_be_edited(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    browser.post(page_of(delivery), {"status": "succeeded"})
    delivery.refresh_from_db()
    assert delivery.status == Status.FAILED
    chosen = {"action": "delete_selected", "_selected_action": [delivery.pk]}
    browser.post(LOG, chosen)
    assert Delivery.objects.count() == 1


# Events, exchanges, webhooks


def test_an_event_shows_its_payload_and_deliveries(browser: Client) -> None:
    delivery = make_delivery(make_webhook(name="CRM"), caller="380441234567")
    address = reverse("admin:webhooks_event_change", args=[delivery.event_id])
    text = browser.get(address).text
    for shown_text in ("CRM", "380441234567", "call-1", page_of(delivery)):
        assert shown_text in text
    browser.post(address, {"type": "x"})
    assert Event.objects.get().type == "call.incoming.after"


@pytest.mark.parametrize("query", [{"q": "call-1"}, {"q": "key-1"}, {"type": "recording.ready"}])
def test_events_are_found(browser: Client, query: dict[str, str]) -> None:
    make_delivery(make_webhook(), call_id="call-2")
    events.publish("recording.ready", {"call_id": "call-1"}, idempotency_key="key-1")
    page = browser.get("/admin/webhooks/event/", query)
    assert [event.type for event in page.context["cl"].result_list] == ["recording.ready"]


@pytest.mark.parametrize(
    "address",
    [
        "webhooks/event/?payload__regex=call",
        "webhooks/event/?caller_digits__startswith=7",
        "webhooks/apikey/?key_hash__startswith=",
        "auth/user/?email__startswith=a",
    ],
)
def test_an_address_asks_by_no_column_but_those_of_the_filters(
    browser: Client, address: str
) -> None:
    assert browser.get(f"/admin/{address}").status_code == 400


@pytest.mark.parametrize(
    "query", ["is_staff__exact=1", "groups__id__exact=1", "groups__isnull=True"]
)
def test_an_address_asks_by_the_filters(browser: Client, query: str) -> None:
    assert browser.get(f"/admin/auth/user/?{query}").status_code == 200


def test_an_exchange_is_shown_as_text(browser: Client) -> None:
    webhook = make_webhook(name="CRM")
    exchange = OAuthExchange.objects.create(
        credential=webhook.credential, kind=ExchangeKind.TOKEN, started_at=timezone.now(), url="https://p/token",
        result="ok", status_code=200, duration_ms=12.5, request="grant_type=…",
        response="<script>alert(1)</script>\x1b",
    )  # fmt: skip
    found = browser.get("/admin/webhooks/oauthexchange/", {"q": "cr"}).text
    assert "CRM" in found
    assert 'is-success">Good</span>' in found
    text = browser.get(f"/admin/webhooks/oauthexchange/{exchange.pk}/change/").text
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "\\x1b" in text


def test_a_webhook_leads_to_its_screen_and_shows_no_secret(browser: Client) -> None:
    webhook = make_webhook(name="CRM", client_secret="secret-of-the-client")
    page = browser.get("/admin/webhooks/webhook/", {"q": "crm"})
    assert "CRM" in page.text
    assert "secret-of-the-client" not in page.text
    answer = browser.get(f"/admin/webhooks/webhook/{webhook.pk}/change/")
    assert answer["Location"] == reverse("webhooks:detail", args=[webhook.pk])
    assert browser.get("/admin/webhooks/webhook/x/change/").status_code == 404


def test_webhooks_have_the_status_that_their_screens_show(browser: Client) -> None:
    since = timezone.now() - dt.timedelta(hours=1)
    WebhookState.objects.create(
        webhook=make_webhook(name="CRM"), failing_since_at=since, last_error="It is <closed>."
    )
    make_webhook(name="ERP", is_active=False, pause_reason="person")
    text = browser.get("/admin/webhooks/webhook/").text
    assert "It is &lt;closed&gt;. No success since " in text
    assert [text.count(f">{label}</span>") for label in ("Failing", "Paused", "Active")] == [
        1,
        1,
        0,
    ]


def test_tokens_have_no_page(browser: Client) -> None:
    webhook = make_webhook()
    OAuthToken.objects.create(credential=webhook.credential, access_token="access-token-text")
    assert browser.get("/admin/webhooks/oauthtoken/").status_code == 404
    assert "oauthtoken" not in browser.get("/admin/").text


def test_the_index_has_the_same_navigation_and_leads_back(browser: Client) -> None:
    text = browser.get("/admin/").text
    for address in ("/integrations/webhooks/", LOG, KEYS):
        assert f'href="{address}"' in text


@pytest.mark.parametrize(
    "address", ["/admin/", LOG, "/admin/auth/user/", "/admin/auth/user/add/", KEYS + "add/"]
)
def test_admin_has_no_inline_script_or_style(browser: Client, address: str) -> None:
    text = browser.get(address).text
    assert "<style" not in text
    assert "style=" not in text
    assert "onclick" not in text
    assert "<script>" not in text


# API keys


def test_a_key_is_shown_once_and_stored_as_a_hash(
    browser: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = browser.post(KEYS + "add/", {"name": "Billing", "scopes": ["events:write"]})
    key = ApiKey.objects.get()
    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    plain = answer.context["plain"]
    assert plain in answer.text
    assert ApiKey.objects.verify(plain) == key
    assert key.created_by == get_user_model().objects.get()
    assert key.key_hash != plain
    assert plain not in str(dict(browser.session.items()))
    assert plain not in str(browser.cookies)
    assert plain not in caplog.text
    for address in (KEYS, f"{KEYS}{key.pk}/change/", f"{KEYS}{key.pk}/history/", "/admin/"):
        text = browser.get(address).text
        assert plain not in text
        assert key.key_hash not in text


def test_who_may_only_create_keys_is_led_to_a_page_that_they_may_open() -> None:
    browser = staff("add_apikey")
    posted = {"name": "PBX", "scopes": ["events:write"], "form_id": "once"}
    page = browser.post(KEYS + "add/", posted)
    assert KEYS + '"' not in page.text
    again = browser.post(KEYS + "add/", posted, follow=True)
    assert again.redirect_chain == [("/admin/", 302)]
    assert "The key was created and is not shown again." in again.text


def test_a_key_that_may_not_publish_comes_without_that_command(browser: Client) -> None:
    page = browser.post(KEYS + "add/", {"name": "Monitoring", "scopes": ["health:read"]})
    assert page.context["plain"] in page.text
    assert "Try it in a shell" not in page.text
    assert "/api/v1/events" not in page.text


def test_the_page_of_a_new_key_has_a_command_that_publishes(browser: Client, settings: Any) -> None:
    page = browser.post(KEYS + "add/", {"name": "PBX", "scopes": ["events:write"]})
    words = shlex.split(page.context["command"])
    assert words[:2] == ["curl", f"{settings.PUBLIC_URL}/api/v1/events"]
    assert escape(page.context["command"]) in page.text
    answer = Client().post(
        words[1],
        words[words.index("-d") + 1],
        content_type="application/json",
        headers=dict(word.split(": ", 1) for word in words if word.startswith("Authorization")),
    )
    assert answer.status_code == 202


def test_the_page_of_a_new_key_that_is_reloaded_makes_no_second_one(browser: Client) -> None:
    form = browser.get(KEYS + "add/").context["adminform"].form
    posted = {
        "name": "PBX",
        "scopes": ["events:write"],
        "form_id": form["form_id"].value(),
    }
    assert "whapi_" in browser.post(KEYS + "add/", posted).text
    again = browser.post(KEYS + "add/", posted, follow=True)
    assert "The key was created and is not shown again." in again.text
    assert ApiKey.objects.count() == 1


def test_a_key_without_a_name_or_scope_is_not_made(browser: Client) -> None:
    assert "Choose what the key may do." in browser.post(KEYS + "add/", {"name": "A"}).text
    answer = browser.post(KEYS + "add/", {"name": "", "scopes": ["events:write"]})
    assert "This field is required." in answer.text
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("way", ["page", "action"])
def test_a_revoked_key_opens_nothing(browser: Client, way: str) -> None:
    key, plain = ApiKey.objects.issue("Billing")
    page = browser.get(f"{KEYS}{key.pk}/change/")
    assert f'action="{KEYS}{key.pk}/revoke/"' in page.text
    if way == "page":
        browser.post(f"{KEYS}{key.pk}/revoke/")
    else:
        browser.post(KEYS, {"action": "revoke_chosen", "_selected_action": [key.pk]})
    assert ApiKey.objects.verify(plain) is None
    assert "Revoked" in browser.get(KEYS).text
    assert "/revoke/" not in browser.get(f"{KEYS}{key.pk}/change/").text


@pytest.mark.parametrize("key", ["x", "9" * 30, "9" * 5000, "1.5", "-1", "\0"])
@pytest.mark.parametrize(
    ("page", "action"), [(KEYS, "revoke_chosen"), ("/admin/auth/user/", "delete_selected")]
)
def test_an_action_for_rows_that_cannot_be_ends_in_a_message(
    browser: Client, page: str, action: str, key: str
) -> None:
    for more in ({}, {"post": "yes"}, {"index": "0"}, {"index": "x", "select_across": "0"}):
        posted = {"action": action, "_selected_action": key, **more}
        answer = browser.post(page, posted, follow=True)
        assert answer.status_code == 200
        assert "Items must be selected in order to perform actions on them." in answer.text


def test_an_action_that_is_not_there_ends_in_a_message(browser: Client) -> None:
    issued, _ = ApiKey.objects.issue("PBX")
    for action in ("nonsense", "\0", ""):
        posted = {"action": action, "_selected_action": issued.pk, "select_across": "1"}
        assert "No action selected." in browser.post(KEYS, posted, follow=True).text
    assert not ApiKey.objects.exclude(revoked_at=None).exists()


def test_an_action_is_done_for_the_rows_that_can_be(browser: Client) -> None:
    issued, _ = ApiKey.objects.issue("PBX")
    posted = {"action": "revoke_chosen", "_selected_action": ["9" * 30, str(issued.pk)]}
    assert "1 key is revoked." in browser.post(KEYS, posted, follow=True).text


def test_the_admin_says_in_ukrainian_who_made_a_key(browser: Client) -> None:
    ApiKey.objects.issue("CRM")
    browser.cookies["django_language"] = "uk"
    page = browser.get(KEYS).text
    assert "Хто створив" in page
    assert "Created by" not in page


# Text


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("plain\n\ttext é", "plain\n\ttext é"),
        ("a\r\nb", 'a<span class="escape">\\r</span>\nb'),
        ("\x00\x7f", '<span class="escape">\\x00\\x7f</span>'),
        ("a\u200bb", 'a<span class="escape">\\u200b</span>b'),
        ("\U000e0041", '<span class="escape">\\U000e0041</span>'),
        ("&<>\"'", "&amp;&lt;&gt;&quot;&#x27;"),
    ],
)
def test_hidden_characters_are_shown(raw: str, safe: str) -> None:
    assert logtext.visible(raw) == safe


def test_json_is_indented_without_changing_a_character_of_it() -> None:
    text = '{"a":[1.10,{"b":{}},[]],"a":"x\\"y, {z}","big":12345678901234567890}'
    indented = indent_json(text)
    assert indented.startswith('{\n  "a": [\n    1.10,')
    assert "".join(indented.replace(": ", ":").split("\n")).replace("  ", "") == text
    assert indent_json("not json") == ""
    assert indent_json('{"cut": ') == ""
    assert indent_json("[" * 5000 + "]" * 5000) == ""


def test_bodies_that_are_no_text_are_escaped() -> None:
    assert "89 50 4e 47 ff" in logtext.body(b"\x89PNG\xff")
    assert logtext.body(None) == ""


def test_the_status_line_of_a_response_is_no_header() -> None:
    response = "HTTP/1.1 503 Busy: try later\r\nRetry-After: 5\r\n"
    assert logtext.status_line(response) == "HTTP/1.1 503 Busy: try later"
    assert logtext.header_lines(response) == [("Retry-After", "5")]
    assert logtext.status_line("Host: crm.example") == ""
    assert logtext.header_lines("Host: crm.example") == [("Host", "crm.example")]


@pytest.mark.parametrize(
    ("line", "safe"),
    [
        ("GET /a?x=1&y=2 HTTP/1.1", "GET /a HTTP/1.1"),
        ("POST /a HTTP/1.1", "POST /a HTTP/1.1"),
        ("GET /a?x=1", "GET /a"),
    ],
)
def test_the_query_is_cut_for_who_may_not_see_payloads(line: str, safe: str) -> None:
    assert logtext.request_line(line, False) == safe
    assert logtext.request_line(line, True) == line


def test_django_finds_no_mistake_in_the_admin() -> None:
    call_command("check", "admin", fail_level="WARNING")


def test_a_delivery_compares_two_attempts_and_copies_one_as_curl(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()), outcome=Outcome.SERVER_ERROR)
    for number in (1, 2, 3):
        make_attempt(delivery, number, remote_address=f"203.0.113.{number}")
    page = browser.get(page_of(delivery), {"attempt": "3", "against": "1"})
    for text in ("Attempts 1 and 3 compared", "203.0.113.1", "Copy as cURL", "Edit and resend"):
        assert text in page.text
    assert reverse("webhooks:delivery_edit", args=[delivery.pk]) in page.text
    assert reverse("admin:webhooks_event_change", args=[delivery.event_id]) in page.text


@pytest.mark.parametrize(
    ("address", "posted"),
    [
        ("auth/group/add/", {"name": "Operators", "permissions": ["9" * 30]}),
        ("auth/user/%d/change/", {"username": "olena", "groups": ["9" * 30]}),
        ("auth/user/%d/change/", {"username": "olena", "user_permissions": ["9" * 30]}),
    ],
)
def test_a_group_or_permission_that_no_row_can_have_is_a_mistake_of_the_form(
    browser: Client, address: str, posted: dict[str, Any]
) -> None:
    user = get_user_model().objects.create_user("olena")
    page = browser.post(f"/admin/{address % user.pk if '%' in address else address}", posted)
    assert page.status_code == 200
    assert f"Select a valid choice. {'9' * 30} is not one of the available choices." in page.text
    assert not user.groups.exists()


_SEARCHED = ["auth/user", "auth/group", "webhooks/apikey", "webhooks/webhook"]


@pytest.mark.parametrize("model", _SEARCHED)
def test_a_search_for_more_words_than_a_name_has_finds_nothing(browser: Client, model: str) -> None:
    page = browser.get(f"/admin/{model}/", {"q": "a " * 1500})
    assert page.status_code == 200
    assert len(page.context["cl"].result_list) == 0
