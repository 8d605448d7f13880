"""Invisible characters are shown as escapes on every page, and kept where they are typed."""

import pytest
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import RequestFactory

from tests.factories import make_webhook
from tests.ui.webhook_form.test_views import logged_in
from webhooks.middleware import escape_invisibles, escaped_invisibles, has_invisibles

TRICKS = {
    "\x00": "\\x00",
    "\x1b": "\\x1b",
    "\x7f": "\\x7f",
    "\x85": "\\x85",
    "\x9b": "\\x9b",
    "\u061c": "\\u061c",
    "\u200e": "\\u200e",
    "\u200f": "\\u200f",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
    "\u202a": "\\u202a",
    "\u202e": "\\u202e",
    "\u2066": "\\u2066",
    "\u2069": "\\u2069",
}


def page(content: str, **options: object) -> HttpResponse:
    response = HttpResponse(content, **options)  # type: ignore[arg-type]
    answered = escaped_invisibles(lambda request: response)(RequestFactory().get("/"))
    assert isinstance(answered, HttpResponse)
    return answered


@pytest.mark.parametrize(("trick", "escape"), TRICKS.items(), ids=TRICKS.values())
def test_a_trick_is_shown_as_its_escape(trick: str, escape: str) -> None:
    assert page(f"<p title='a{trick}'>a{trick}b</p>").text == f"<p title='a{escape}'>a{escape}b</p>"


def test_everything_that_can_be_seen_stays() -> None:
    text = "\t\r\n aé–“”…Київ 中文 \u00a0\u200d👨‍👩‍👧 \u2027\u2030\u2065\u206a Ø\u061b"
    assert page(f"<p>{text}</p>").text == f"<p>{text}</p>"


def test_what_is_edited_stays_as_it_was_typed() -> None:
    html = '<input value="a\u202e"><textarea rows="3">\x1b\n</textarea><option value="\u200f">'
    assert page(html).text == html
    mixed = '<input value="\u202e" title="\u202e"><b>\u202e</b>'
    assert page(mixed).text == '<input value="\u202e" title="\\u202e"><b>\\u202e</b>'


def test_the_length_follows() -> None:
    answer = page("<p>\x1b</p>", headers={"Content-Length": "8"})
    assert answer["Content-Length"] == str(len(answer.content)) == "11"


def test_only_pages_are_rewritten() -> None:
    assert page("\x1b", content_type="text/csv").text == "\x1b"
    for response in (JsonResponse({"a": "\u202e"}), StreamingHttpResponse(["\x1b"])):
        respond = escaped_invisibles(lambda request, one=response: one)  # type: ignore[misc]
        assert respond(RequestFactory().get("/")) is response


def test_a_page_has_invisible_characters_where_one_would_be_escaped() -> None:
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x110000, 7)]):
        html = f"a{character}b".encode()
        assert has_invisibles(html) is (escape_invisibles(html) != html), repr(character)


def test_bytes_that_are_no_text_break_nothing() -> None:
    assert escape_invisibles(b"<p>\xff\xc2\xe2\x80\x1b</p>") == b"<p>\xff\xc2\xe2\x80\\x1b</p>"


@pytest.mark.django_db
def test_the_site_does_it_on_its_pages() -> None:
    make_webhook(name="a\u202eb\x1bc")
    text = logged_in(is_superuser=True).get("/integrations/webhooks/").text
    assert "a\\u202eb\\x1bc" in text
    assert "\u202e" not in text
