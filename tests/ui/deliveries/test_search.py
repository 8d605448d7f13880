"""From a number to the reason: the search page, and the page of an event."""

import re
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from webhooks import audit, events
from webhooks.models import Action, Attempt, Delivery, SavedView, Status, Webhook

pytestmark = pytest.mark.django_db

ROOT = "/integrations/webhooks/"
EVENTS = "/admin/webhooks/event/"
FILTER = {"variable": "department", "operator": "equals", "value": "Sales"}


@pytest.fixture
def browser() -> Client:
    return logged_in(is_staff=True, is_superuser=True)


def text_of(page: bytes) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page.decode()))


@pytest.mark.parametrize(
    "path", [f"{ROOT}search/", f"{ROOT}deliveries/", f"{ROOT}deliveries/export.csv", EVENTS]
)
def test_a_number_that_one_may_not_see_is_not_found_digit_by_digit(path: str) -> None:
    user = User.objects.create_user("a", is_staff=True)
    rights = ["view_delivery", "view_event"]
    user.user_permissions.set(Permission.objects.filter(codename__in=rights))
    client = Client()
    client.force_login(user)
    delivery = make_delivery(make_webhook(), caller="+380 67 123 45 67")

    def finds(words: str) -> bool:
        answer = client.get(path, {"q": words})
        assert answer.status_code in (200, 302)
        reported = answer.headers.get("Location", "") + text(answer)
        return delivery.pk in reported or delivery.event_id in reported

    assert not finds("34567")
    assert not finds("1234567")
    assert finds("0671234567")
    assert finds("+380671234567")
    user.user_permissions.add(Permission.objects.get(codename="view_payload"))
    assert finds("34567")


def text(answer: object) -> str:
    pieces = getattr(answer, "streaming_content", None) or [getattr(answer, "content", b"")]
    return b"".join(pieces).decode()


def test_a_number_leads_to_the_one_event_and_its_reasons(browser: Client) -> None:
    make_webhook(name="Sales CRM", filter=FILTER)
    make_webhook(name="Deals only", event_types=["deal.created"])
    paused = make_webhook(name="On holiday")
    events.pause(paused)
    make_webhook(name="Takes all")
    deleted = make_webhook(name="Was deleted")
    deleted.deleted_at = timezone.now()
    deleted.save()
    payload = {"caller": "+380 67 123 45 67", "department": "Support"}
    published = events.publish("call.incoming.after", payload)
    make_webhook(name="Came later")

    answer = browser.get(f"{ROOT}search/", {"q": "(067) 123-45-67"})
    assert answer.headers["Location"] == f"{ROOT}events/{published.event_id}/"
    page = text_of(browser.get(answer.headers["Location"]).content)
    assert "+380671234567" in page
    assert re.search(r"Sales CRM Filtered out The filter did not match", page)
    assert re.search(r"Deals only Type not chosen", page)
    assert re.search(r"On holiday \w+( \w+)? On hold: Webhook paused", page)
    assert re.search(r"Takes all \w+ Waiting for its first attempt", page)
    assert re.search(r"Came later Created later", page)
    assert "Was deleted" not in page
    assert "Based on today" not in page


def test_a_cancelled_delivery_is_a_line_of_its_own(browser: Client) -> None:
    make_webhook(name="Takes all")
    make_webhook(name="Deals only", event_types=["deal.created"])
    published = events.publish("call.incoming.after", {"caller": "0671234567"})
    events.cancel(Delivery.objects.all())
    page = text_of(browser.get(f"{ROOT}events/{published.event_id}/").content)
    sent, fold, others = page.partition(" 1 webhook that was created later")
    assert fold
    assert "Takes all Cancelled" in sent
    assert "Takes all" not in others
    assert "Deals only" in others


def test_a_changed_filter_is_said_to_be_todays(browser: Client) -> None:
    webhook = make_webhook(filter=FILTER)
    published = events.publish("call.incoming.after", {"department": "Support"})
    webhook.save()
    audit.record(Action.CHANGED, webhook, user=None, fields=["filter"])
    page = text_of(browser.get(f"{ROOT}events/{published.event_id}/").content)
    assert "Based on today's settings" in page.replace("&#x27;", "'")


def test_an_event_that_no_one_wanted_is_found_among_others(browser: Client) -> None:
    for call in ("call-1", "call-2"):
        events.publish("call.incoming.after", {"caller": "0671234567", "call_id": call})
    page = text_of(browser.get(f"{ROOT}search/", {"q": "0671234567"}).content)
    assert page.count("Not sent") == 2


def test_an_event_shows_troubled_deliveries_first_and_how_many_more(browser: Client) -> None:
    statuses = [
        Status.SUCCEEDED,
        Status.CANCELLED,
        Status.PENDING,
        Status.HELD,
        Status.PARKED,
        Status.FAILED,
    ]
    for status in statuses:
        make_webhook(name=f"To be {status}")
    for call in ("call-1", "call-2"):
        events.publish("call.incoming.after", {"caller": "0671234567", "call_id": call})
    for status in statuses:
        due_at = timezone.now() if status == Status.PENDING else None
        chosen = Delivery.objects.filter(webhook__name=f"To be {status}")
        chosen.update(status=status, next_attempt_at=due_at)
    page = text_of(browser.get(f"{ROOT}search/", {"q": "0671234567"}).content)
    shown = "To be failed: Failed To be parked: Stuck To be held: On hold +3 more"
    assert page.count(shown) == 2
    assert "To be succeeded" not in page
    assert re.search(r"call\.incoming\.after 0671234567 call-2 · .*call-1 · ", page)


def test_a_retried_delivery_has_the_colour_that_it_has_in_the_log(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    Delivery.objects.filter(pk=delivery.pk).update(attempt_count=2)
    badge = re.compile(r'badge has-dot (is-\w+)"\s*>\s*Waiting')
    for address in (f"{ROOT}deliveries/", f"{ROOT}events/{delivery.event_id}/"):
        assert badge.findall(browser.get(address).text) == ["is-info"], address


def test_a_delivery_of_an_event_is_linked_once(browser: Client) -> None:
    delivery = make_delivery(make_webhook())
    page = browser.get(f"{ROOT}events/{delivery.event_id}/").text
    links = re.findall(rf'<a href="{ROOT}deliveries/{delivery.pk}/">([^<]*)</a>', page)
    assert links == ["Open the delivery"]


def test_the_log_offers_to_search_events_that_were_not_sent(browser: Client) -> None:
    page = text_of(browser.get(f"{ROOT}deliveries/", {"q": "0671234567"}).content)
    assert "Search all events for “0671234567”, including those not sent" in page


def test_the_search_finds_webhooks_by_url_and_pages_by_name(browser: Client) -> None:
    make_webhook(name="CRM", url="https://crm.example.com/hooks/7")
    page = text_of(browser.get(f"{ROOT}search/", {"q": "crm.example"}).content)
    assert "https://crm.example.com/hooks/7" in page
    assert "Audit trail" in text_of(browser.get(f"{ROOT}search/", {"q": "audit"}).content)


def test_the_search_shows_what_a_person_may_open_and_nothing_else() -> None:
    delivery = make_delivery(make_webhook(name="Secret CRM"), caller="0671234567")
    client = logged_in(name="reader")
    for words in ("Secret", "0671234567", delivery.pk, delivery.event_id):
        page = text_of(client.get(f"{ROOT}search/", {"q": words}).content)
        assert "No results" in page
    assert client.get(f"{ROOT}events/{delivery.event_id}/").status_code == 403
    person = User.objects.get()
    person.user_permissions.add(Permission.objects.get(codename="view_delivery"))
    page = text_of(client.get(f"{ROOT}events/{delivery.event_id}/").content)
    assert "You have no permission to see payloads" in page


def test_the_search_names_a_page_only_to_who_has_all_its_permissions() -> None:
    client = logged_in("test_webhook", name="sender")
    address = f"{ROOT}resends/new/all/"
    assert client.get(address).status_code == 403
    assert address not in client.get(f"{ROOT}search/", {"q": "resend"}).content.decode()
    User.objects.get().user_permissions.add(Permission.objects.get(codename="view_delivery"))
    assert client.get(address).status_code == 200
    assert address in client.get(f"{ROOT}search/", {"q": "resend"}).content.decode()


@pytest.mark.parametrize(
    ("permissions", "address"),
    [
        (["view_webhook", "view_delivery"], ROOT),
        (["view_delivery"], f"{ROOT}deliveries/"),
        (["view_connection"], f"{ROOT}connections/"),
        (["add_webhook"], f"{ROOT}new/"),
        (["view_apikey"], "/admin/webhooks/apikey/"),
        ([], "/admin/"),
    ],
)
def test_the_start_page_is_the_first_that_one_may_open(
    permissions: list[str], address: str
) -> None:
    person = logged_in(*permissions, is_staff=address.startswith("/admin/"))
    page = person.get("/", follow=True)
    assert (page.status_code, page.request["PATH_INFO"]) == (200, address)
    assert (f'href="{ROOT}"' in page.text) == ("view_webhook" in permissions)


def test_who_may_open_nothing_is_informed() -> None:
    page = logged_in().get("/", follow=True)
    assert "Your account has no permissions yet." in page.text
    assert f'href="{ROOT}"' not in page.text


def test_a_page_of_an_event_takes_no_query_for_each_webhook(
    browser: Client, django_assert_max_num_queries: object
) -> None:
    for number in range(30):
        make_webhook(name=f"CRM {number}", filter=FILTER if number % 2 else {})
    published = events.publish("call.incoming.after", {"department": "Support"})
    with django_assert_max_num_queries(12):  # type: ignore[operator]
        browser.get(f"{ROOT}events/{published.event_id}/")
    assert Webhook.objects.count() == 30


LOG = f"{ROOT}deliveries/"


def test_filters_are_kept_as_a_view_of_ones_own_and_deleted(browser: Client) -> None:
    browser.post(f"{LOG}views/", {"name": "CRM errors", "query": "code=5xx&status=failed&x=1"})
    browser.post(f"{LOG}views/", {"name": "Nothing", "query": "x=1"})
    address = f"{LOG}?status=failed&amp;code=5xx"
    page = browser.get(address.replace("&amp;", "&")).content.decode()
    assert re.search(rf'<a\s+href="{re.escape(address)}"\s+aria-current="page"\s*>CRM errors', page)
    other = logged_in(name="other", is_superuser=True)
    assert "CRM errors" not in other.get(LOG).content.decode()
    [kept] = SavedView.objects.all()
    other.post(f"{LOG}views/{kept.pk}/delete/")
    assert SavedView.objects.exists()
    browser.post(f"{LOG}views/{kept.pk}/delete/")
    assert not SavedView.objects.exists()


@pytest.mark.parametrize("name", ["", " ", "\u200b\u200b", "\u202e", "\u2060 \0"])
def test_a_view_has_a_name_that_can_be_seen(browser: Client, name: str) -> None:
    data = {"name": name, "query": "status=failed"}
    page = browser.post(f"{LOG}views/", data, follow=True)
    assert "Choose filters and enter a name first." in text_of(page.content)
    assert not SavedView.objects.exists()


def test_a_view_is_saved_whole_or_not_at_all(browser: Client) -> None:
    for letters, is_saved in ((150, True), (167, False)):
        SavedView.objects.all().delete()
        query = urlencode({"q": "ї" * letters, "status": "failed"})
        page = browser.post(f"{LOG}views/", {"name": "Mine", "query": query}, follow=True)
        assert list(SavedView.objects.values_list("query", flat=True)) == [query] * is_saved
        assert ("These filters are too long to save." in text_of(page.content)) is not is_saved


@pytest.mark.parametrize("log", [LOG, "/admin/webhooks/delivery/"])
def test_a_watched_log_gets_rows_only_when_there_is_something_new(
    browser: Client, log: str
) -> None:
    webhook = make_webhook()
    make_delivery(webhook, call_id="first-call")
    page = browser.get(log).content.decode()
    [address] = re.findall(r'hx-get="([^"]*)"\s+hx-trigger="refresh"', page)
    address = address.replace("&amp;", "&")
    assert browser.get(address, headers={"HX-Request": "true"}).status_code == 204
    make_delivery(webhook, call_id="second-call")
    part = browser.get(address, headers={"HX-Request": "true"}).content.decode()
    assert part.lstrip().startswith("<div")
    assert "second-call" in part
    assert part.count("is-new") == 1


def test_a_row_says_who_called_how_long_it_took_and_what_is_next(browser: Client) -> None:
    row = make_delivery(make_webhook(), caller="+380671234567")
    Attempt.objects.create(
        delivery=row, number=1, started_at=timezone.now(), total_ms=412, outcome="server_error"
    )
    Delivery.objects.update(
        attempt_count=1, status_code=503, next_attempt_at=timezone.now() + timedelta(minutes=5)
    )
    page = text_of(browser.get(LOG).content)
    assert re.search(r"\+380671234567 call-1 CRM Waiting 503 412 ms 1 next in \d+ minutes", page)
