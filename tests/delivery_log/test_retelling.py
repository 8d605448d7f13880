"""Sentences stored in one language are told in the reader's, on the screens and by themselves."""

import time

import pytest
from django.test import Client
from django.utils import translation

from tests.admin.test_admin import staff
from tests.factories import make_webhook
from tests.ui.test_trail import url_of
from webhooks import audit
from webhooks.delivery_log.retelling import retell
from webhooks.models import (
    Action,
    ApiKey,
    PauseReason,
    TokenState,
)
from webhooks.ui.figures import milliseconds

REFUSED = "The receiver refused the request with 404."
IN_UKRAINIAN = "Отримувач відхилив запит: 404."


def told(sentence: str, language: str = "uk") -> str:
    with translation.override(language):
        return retell(sentence)


@pytest.mark.parametrize(
    ("stored", "ukrainian"),
    [
        ("29 deliveries", "29 доставок"),
        ("1 delivery", "1 доставка"),
        ("22 deliveries", "22 доставки"),
        ("Test mail to recipients", "Тестовий лист отримувачам"),
        ("Copy of “Active”", "Копія «Active»"),
        ("API key whapi_a1b2c3", "whapi_a1b2c3"),
        (str(PauseReason.FAILING.label), ""),
        (str(TokenState.NEEDS_REAUTHORIZATION.label), ""),
        (
            f"3 attempts in a row failed. Last error: {REFUSED}",
            f"Поспіль невдалі 3 спроби. Остання помилка: {IN_UKRAINIAN}",
        ),
        (
            f"Every attempt has failed since 2026-11-25 10:00 UTC. Last error: {REFUSED}",
            f"Усі спроби невдалі від 2026-11-25 10:00 UTC. Остання помилка: {IN_UKRAINIAN}",
        ),
        (
            "80 % of the attempts since the last full hour failed: 8 of 10.",
            "Від початку останньої повної години невдалі 80 % спроб: 8 із 10.",
        ),
    ],
)
def test_sentences_of_incidents_and_trail_are_told(stored: str, ukrainian: str) -> None:
    found = told(stored)
    assert found != stored
    assert ukrainian in found
    assert told(stored, "en") == stored


@pytest.mark.parametrize(
    "text", ["", "evt_01JH", "call.finished", "<b>Mystery & co.</b>", "nobody said this 404"]
)
def test_a_sentence_of_nobody_s_stays_as_it_is(text: str) -> None:
    assert told(text) == told(text, "en") == text


def test_a_known_sentence_beside_an_unknown_one_is_told() -> None:
    assert told(f"{REFUSED} Xyzzy plugh.") == f"{IN_UKRAINIAN} Xyzzy plugh."


def test_a_long_hostile_text_takes_no_time() -> None:
    texts = ["The connection to " + " broke: " * 200, "a. " * 600, "%(x)s" * 300, "{" * 1900]
    began = time.thread_time()
    for text in texts:
        told(text)
    assert time.thread_time() - began < 2


@pytest.fixture
def browser() -> Client:
    client = staff(is_superuser=True)
    client.cookies["django_language"] = "uk"
    return client


@pytest.mark.django_db
def test_the_trail_tells_notes_on_its_page_and_in_the_admin(browser: Client) -> None:
    webhook = make_webhook()
    audit.record(Action.CANCELLED, webhook, user=None, note="29 deliveries")
    for address in (url_of(webhook), "/admin/webhooks/auditentry/"):
        page = browser.get(address)
        assert "29 доставок" in page.text, address
        assert "29 deliveries" not in page.text, address


@pytest.mark.django_db
def test_values_inside_a_told_sentence_are_still_escaped(browser: Client) -> None:
    webhook = make_webhook()
    audit.record(Action.CREATED, webhook, user=None, note="Copy of “<script>x</script>”")
    page = browser.get(url_of(webhook)).text
    assert "Копія «&lt;script&gt;x" in page
    assert "<script>x" not in page


@pytest.mark.django_db
def test_the_admin_says_in_ukrainian_who_made_a_key(browser: Client) -> None:
    ApiKey.objects.issue("CRM")
    page = browser.get("/admin/webhooks/apikey/").text
    assert "Хто створив" in page
    assert "Created by" not in page


@pytest.mark.parametrize(("value", "words"), [(1.44, "1,4 мс"), (34.4, "34 мс"), (2500, "2,50 с")])
def test_times_have_the_decimal_mark_of_the_reader(value: float, words: str) -> None:
    with translation.override("uk"):
        assert milliseconds(value) == words
