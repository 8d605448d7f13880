"""Parts of pages: formats of the reader's language and zone, and what is used instead."""

import datetime as dt
import re

import pytest
from django.template.loader import render_to_string
from django.urls import resolve, reverse
from django.utils import timezone, translation

from webhooks.delivery_log.figures import milliseconds
from webhooks.templatetags import interface

FIRST = dt.datetime.min.replace(tzinfo=dt.UTC)
LAST = dt.datetime.max.replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("moment", "zone"), [(LAST, "Europe/Kyiv"), (FIRST, "America/New_York")], ids=["last", "first"]
)
@pytest.mark.parametrize("name", ["exact", "ago", "due", "minute", "day"])
def test_a_time_that_the_zone_cannot_hold_is_shown_in_utc(
    name: str, moment: dt.datetime, zone: str
) -> None:
    with timezone.override(zone):
        assert f'datetime="{moment.isoformat()}"' in getattr(interface, name)(moment)


@pytest.mark.parametrize(("value", "words"), [(1.44, "1,4 мс"), (34.4, "34 мс"), (2500, "2,50 с")])
def test_times_have_the_decimal_mark_of_the_reader(value: float, words: str) -> None:
    with translation.override("uk"):
        assert milliseconds(value) == words


@pytest.mark.parametrize(
    ("name", "tab"),
    [("trash", "webhooks"), ("search", ""), ("time_zone", ""), ("resend_selected", "deliveries")],
)
def test_a_page_has_the_tab_that_it_belongs_to(name: str, tab: str) -> None:
    assert interface.current_tab(resolve(reverse(f"webhooks:{name}"))) == tab


@pytest.mark.parametrize(("language", "fonts"), [("en", ["latin"]), ("uk", ["latin", "cyrillic"])])
def test_the_typeface_of_a_language_is_loaded_at_once(language: str, fonts: list[str]) -> None:
    with translation.override(language):
        head = render_to_string("webhooks/ui/_head.html")
    assert re.findall(r'rel="preload"\s+href="[^"]*inter-(\w+)[.\w]*\.woff2"', head) == fonts


def test_each_language_is_offered_by_its_own_name() -> None:
    with translation.override("uk"):
        offered = render_to_string("webhooks/ui/_languages.html")
    assert re.findall(r'lang="(\w+)"[^>]*>\s*(\S+)', offered) == [
        ("en", "English"),
        ("uk", "Українська"),
    ]


@pytest.mark.parametrize(
    ("address", "ends"),
    [
        ("https://a.example/calls", ("https://a.e", "xample/calls")),
        ("http://a.io", ("", "http://a.io")),
        (f"https://a.io/{'x' * 90}/calls-sent", (f"https://a.io/{'x' * 47}…", "x/calls-sent")),
    ],
)
def test_the_end_of_a_url_stays_when_its_middle_is_cut(address: str, ends: tuple[str, str]) -> None:
    assert interface.address_ends(address) == ends
