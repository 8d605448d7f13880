"""The one table of every code that a row may store, and the filter that shows them on pages."""

from collections.abc import Mapping

import pytest
from django.template import Context, Template
from django.urls import reverse
from django.utils import translation

from tests.admin.test_admin import staff
from tests.factories import make_delivery, make_webhook
from webhooks import audit, network, oauth
from webhooks.alerts import problems
from webhooks.api import events as api
from webhooks.delivery import outcomes
from webhooks.models import Event
from webhooks.models.messages import Sentence, dump
from webhooks.templatetags.interface import SENTENCES

TABLES: dict[str, Mapping[str, Sentence]] = {
    "network": network.SENTENCES,
    "oauth": oauth.SENTENCES,
    "delivery": outcomes.SENTENCES,
    "alerts": problems.SENTENCES,
    "audit": audit.SENTENCES,
    "api": api.SENTENCES,
}


@pytest.mark.parametrize("package", TABLES)
def test_no_package_has_a_code_of_another(package: str) -> None:
    """A code in two tables would be shown with the sentence of one of them."""
    hidden = [code for code, said in TABLES[package].items() if SENTENCES[code] is not said]
    assert hidden == []


def test_the_table_holds_every_code_of_the_packages_and_no_other() -> None:
    assert set(SENTENCES) == {code for table in TABLES.values() for code in table}


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (dump("url_empty"), "URL порожній."),
        (dump("no_token_yet"), "Токена доступу ще немає."),
        (dump("process_died"), "Процес, який це надсилав"),
        (dump("attempts_failed", count=3), "Поспіль невдалі 3 спроби."),
        (dump("deliveries", count=29), "29 доставок"),
        (dump("api_key", prefix="whapi_a1b2c3"), "Ключ API whapi_a1b2c3"),
        (f"{dump('deliveries', count=1)}\n{dump('test_mail')}", "1 доставка Тестовий лист"),
        ("manage.py publish", "manage.py publish"),
        ("", ""),
    ],
)
def test_one_filter_shows_the_messages_of_every_package(stored: str, shown: str) -> None:
    template = Template("{% load interface %}{{ stored|sentence }}")
    with translation.override("uk"):
        assert template.render(Context({"stored": stored})).startswith(shown)


def test_the_filter_trusts_nothing() -> None:
    template = Template("{% load interface %}{{ stored|sentence }}")
    for stored in ("<b>", dump("copy_of", name="<b>"), dump("<b>")):
        shown = template.render(Context({"stored": stored}))
        assert "&lt;b&gt;" in shown
        assert "<b>" not in shown


@pytest.mark.django_db
def test_the_source_of_an_event_is_shown_on_its_pages_and_in_the_admin() -> None:
    delivery = make_delivery(make_webhook())
    Event.objects.update(source=dump("api_key", prefix="whapi_a1b2c3"))
    browser = staff(is_superuser=True)
    browser.cookies["django_language"] = "uk"
    for address in (
        reverse("webhooks:delivery", args=[delivery.pk]),
        "/admin/webhooks/event/",
        f"/admin/webhooks/event/{delivery.event_id}/change/",
    ):
        page = browser.get(address).text
        assert "Ключ API whapi_a1b2c3" in page, address
        assert "&quot;code&quot;" not in page, address
