"""What people set for themselves: language and time zone, and that every page follows."""

import datetime as dt
import re
import zoneinfo
from pathlib import Path

import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone, translation

from tests.factories import make_delivery, make_webhook
from tests.people import without_layout
from webhooks.middleware import reader_time_zone
from webhooks.models import Delivery
from webhooks.templatetags import interface
from webhooks.ui.account import time_zone

pytestmark = [pytest.mark.django_db, pytest.mark.once]

PAGE = "/integrations/webhooks/time-zone/"


def zone_of(cookies: dict[str, str]) -> str:
    """Return the time zone active in a view when a browser sends these cookies."""
    seen = []

    def view(request: HttpRequest) -> HttpResponse:
        seen.append(timezone.get_current_timezone_name())
        return HttpResponse()

    request = RequestFactory().get("/")
    request.COOKIES = cookies
    reader_time_zone(view)(request)
    return seen[0]


# ---- Time zone -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookies", "zone"),
    [
        ({}, "UTC"),
        ({time_zone.BROWSER_COOKIE: "Europe/Kyiv"}, "Europe/Kyiv"),
        (
            {time_zone.CHOSEN_COOKIE: "Asia/Tokyo", time_zone.BROWSER_COOKIE: "Europe/Kyiv"},
            "Asia/Tokyo",
        ),
        (
            {time_zone.CHOSEN_COOKIE: "Nowhere/At_all", time_zone.BROWSER_COOKIE: "Asia/Tokyo"},
            "Asia/Tokyo",
        ),
        ({time_zone.BROWSER_COOKIE: "Europe/Kiev"}, "Europe/Kyiv"),
        ({time_zone.CHOSEN_COOKIE: "Asia/Calcutta"}, "Asia/Kolkata"),
        ({time_zone.BROWSER_COOKIE: "../../etc/passwd"}, "UTC"),
        ({time_zone.BROWSER_COOKIE: "Europe/Kyiv\0"}, "UTC"),
        ({time_zone.CHOSEN_COOKIE: "x" * 5000}, "UTC"),
    ],
)
def test_the_chosen_zone_goes_before_the_browsers_and_nonsense_is_none(
    cookies: dict[str, str], zone: str
) -> None:
    assert zone_of(cookies) == zone


def test_no_zone_is_the_machines_own_which_a_database_does_not_know() -> None:
    assert "localtime" not in time_zone.names()


def test_the_zone_of_one_request_is_not_that_of_the_next() -> None:
    assert zone_of({time_zone.CHOSEN_COOKIE: "Asia/Tokyo"}) == "Asia/Tokyo"
    assert timezone.get_current_timezone_name() == "UTC"
    assert zone_of({}) == "UTC"


def test_a_streamed_file_is_written_in_the_persons_zone() -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(timezone.get_current_timezone_name() for _ in range(1))

    request = RequestFactory().get("/")
    request.COOKIES = {time_zone.CHOSEN_COOKIE: "Asia/Tokyo"}
    answer = reader_time_zone(view)(request)
    assert b"".join(answer) == b"Asia/Tokyo"  # type: ignore[arg-type]
    timezone.deactivate()


def test_a_chosen_zone_is_kept_and_can_be_given_back(browser: Client) -> None:
    answer = browser.post(PAGE, {"time_zone": "Asia/Tokyo", "next": "/integrations/webhooks/"})
    assert answer["Location"] == "/integrations/webhooks/"
    cookie = answer.cookies[time_zone.CHOSEN_COOKIE]
    assert (cookie.value, cookie["httponly"], cookie["samesite"]) == ("Asia/Tokyo", True, "Lax")
    assert "Times are shown in Asia/Tokyo." in browser.get(PAGE).text
    browser.post(PAGE, {"time_zone": ""})
    assert "Times are shown in UTC." in browser.get(PAGE).text


def test_the_page_names_the_browsers_zone(browser: Client) -> None:
    browser.cookies[time_zone.BROWSER_COOKIE] = "Europe/Kyiv"
    assert "Same as browser (Europe/Kyiv)" in browser.get(PAGE).text


@pytest.mark.parametrize("wrong", ["Nowhere/At_all", "../UTC", "europe/kyiv"])
def test_a_zone_that_does_not_exist_is_refused(browser: Client, wrong: str) -> None:
    answer = browser.post(PAGE, {"time_zone": wrong})
    assert answer.status_code == 422
    assert time_zone.CHOSEN_COOKIE not in answer.cookies


@pytest.mark.parametrize(
    "place", ["https://evil.example/", "//evil.example", "javascript:alert(1)"]
)
def test_a_choice_leads_to_no_other_site(browser: Client, place: str) -> None:
    answer = browser.post(PAGE, {"time_zone": "UTC", "next": place})
    assert answer["Location"] == reverse("home")


def test_every_zone_that_is_offered_exists(browser: Client) -> None:
    offered = [key for key, _label in browser.get(PAGE).context["form"]["time_zone"].field.choices]
    assert len(offered) > 300
    assert all(zoneinfo.ZoneInfo(key) for key in offered if key)


def test_times_on_a_page_are_in_the_persons_zone_with_the_exact_one_on_hover(
    browser: Client,
) -> None:
    webhook = make_webhook()
    row = make_delivery(webhook)
    moment = dt.datetime(2026, 3, 4, 22, 30, tzinfo=dt.UTC)
    Delivery.objects.filter(pk=row.pk).update(created_at=moment)
    browser.cookies[time_zone.CHOSEN_COOKIE] = "Europe/Kyiv"
    text = browser.get(reverse("webhooks:detail", args=[webhook.pk])).text
    assert 'datetime="2026-03-05T00:30:00+02:00" title="2026-03-05 00:30:00 EET"' in text


# ---- Language --------------------------------------------------------------------------------


def test_a_language_is_chosen_and_kept(browser: Client) -> None:
    answer = browser.post(reverse("set_language"), {"language": "uk", "next": PAGE})
    assert answer["Location"] == PAGE
    cookie = answer.cookies[settings.LANGUAGE_COOKIE_NAME]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
    assert '<html lang="uk">' in browser.get(PAGE).text


def test_the_language_of_the_browser_is_used_until_one_is_chosen() -> None:
    login = reverse("login")
    assert '<html lang="uk">' in Client().get(login, headers={"Accept-Language": "uk"}).text
    client = Client()
    client.post(reverse("set_language"), {"language": "en"})
    assert '<html lang="en">' in client.get(login, headers={"Accept-Language": "uk"}).text


def test_the_login_page_offers_the_languages() -> None:
    text = without_layout(Client().get(reverse("login")).text)
    for code, name in settings.LANGUAGES:
        assert f'name="language" value="{code}" lang="{code}"' in text
        assert name in text


# ---- Times -----------------------------------------------------------------------------------


def test_templates_write_times_only_through_the_filters_that_keep_the_exact_one() -> None:
    root = Path(settings.BASE_DIR) / "templates"
    loose = re.compile(r"\|\s*(date|time|timesince|timeuntil)\b|<time\b")
    found = [path.name for path in root.rglob("*.html") if loose.search(path.read_text())]
    assert found == []


def test_each_way_to_write_a_time_keeps_the_exact_one() -> None:
    moment = dt.datetime(2026, 3, 4, 22, 30, 5, 123_000, tzinfo=dt.UTC)
    with timezone.override("Europe/Kyiv"):
        ways = (interface.ago, interface.minute, interface.exact, interface.day)
        shown = [write(moment) for write in ways]
    for html in shown:
        assert 'datetime="2026-03-05T00:30:05.123000+02:00"' in html
        assert "2026-03-05 00:30:05" in html
        assert "EET" in html
    assert ">5 March 2026, 00:30<" in shown[1]
    assert ">5 March 2026<" in shown[3]


def test_a_month_is_written_in_the_language_of_the_page() -> None:
    with translation.override("uk"):
        assert ">5 березня 2026, 00:30<" in interface.minute(
            dt.datetime(2026, 3, 5, 0, 30, tzinfo=dt.UTC)
        )
