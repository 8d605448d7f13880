"""The list of webhooks: search words, filters, order, and the cost with a thousand webhooks."""

import datetime as dt
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone

from tests.factories import make_credential, make_delivery, make_many_webhooks, make_webhook
from tests.ui.webhook_list.test_views import LIST, SECRETS, names, token_for
from webhooks.delivery.histogram import step_of
from webhooks.models import (
    Credential,
    Delivery,
    HourlyCount,
    OAuthToken,
    Outcome,
    TokenState,
    Webhook,
    WebhookState,
)
from webhooks.ui.webhook_list.context import day_bars

pytestmark = pytest.mark.django_db

HTMX = {"HX-Request": "true", "HX-Target": "list-results"}


@pytest.mark.parametrize("words", ["дзвінки", "ДЗВІНКИ", "Дзвінки з Києва", "києва"])
def test_words_match_whatever_the_case_in_any_alphabet(browser: Client, words: str) -> None:
    with connection.cursor() as cursor:
        # PostgreSQL with the locale C knows upper and lower case of ASCII letters only.
        if connection.vendor == "postgresql":
            cursor.execute("SELECT lower('Д') = 'д'")
            if not cursor.fetchone()[0]:
                pytest.skip("this server's locale has no case in other alphabets")
    make_webhook(name="Дзвінки з Києва")
    make_webhook(name="Calls")
    assert names(browser.get(LIST, {"q": words})) == ["Дзвінки з Києва"]
    # The search in the page header works the same.
    found = browser.get("/integrations/webhooks/search/", {"q": words})
    assert [one.name for one in found.context["webhooks"]] == ["Дзвінки з Києва"]


@pytest.mark.parametrize("words", ["a.b", "50%", "a_b", "(x", "x+y", "***", "\\d"])
def test_signs_in_words_stand_for_themselves(browser: Client, words: str) -> None:
    make_webhook(name="axb 500 acb x xxy 1")
    make_webhook(name=f"<{words}>")
    assert names(browser.get(LIST, {"q": words})) == [f"<{words}>"]


@pytest.mark.parametrize("words", ["[" * 2048, "д" * 2048, "x" * 70_000])
def test_words_that_no_webhook_can_have_find_none(browser: Client, words: str) -> None:
    make_webhook(name="CRM")
    assert names(browser.get(LIST, {"q": words})) == []


def test_an_event_finds_who_names_it_and_who_takes_its_group(browser: Client) -> None:
    make_webhook(name="One", event_types=["call.incoming.after"])
    make_webhook(name="Group", event_types=["call.incoming.*"])
    make_webhook(name="All calls", event_types=["call.*"])
    make_webhook(name="Other", event_types=["call.outgoing.after", "form.submitted"])
    found = names(browser.get(LIST, {"event": "call.incoming.after"}))
    assert found == ["All calls", "Group", "One"]


def test_nonsense_in_the_address_asks_for_nothing(browser: Client) -> None:
    make_webhook(name="CRM")
    nonsense = {
        "event": "no.such",
        "connection": "x",
        "sort": "secret",
        "page": "-7",
        "status": "?",
    }
    page = browser.get(LIST, nonsense)
    assert names(page) == ["CRM"]
    assert page.context["sort"] == "attention"


@pytest.mark.parametrize(
    ("sort", "found"),
    [
        ("name", ["alpha", "Beta", "gamma"]),
        ("-name", ["gamma", "Beta", "alpha"]),
        ("-created", ["Beta", "gamma", "alpha"]),
        ("-sent", ["gamma", "alpha", "Beta"]),
        ("-failures", ["alpha", "gamma", "Beta"]),
        ("-changed", ["alpha", "Beta", "gamma"]),
    ],
)
def test_the_list_is_put_in_order(browser: Client, sort: str, found: list[str]) -> None:
    now = timezone.now()
    alpha, gamma, beta = (make_webhook(name=name) for name in ("alpha", "gamma", "Beta"))
    for hours, webhook in enumerate((gamma, beta, alpha)):
        at = now + dt.timedelta(hours=hours)
        Webhook.objects.filter(pk=webhook.pk).update(updated_at=at)
    for hours, (webhook, failures) in enumerate(((alpha, 7), (gamma, 2))):
        WebhookState.objects.create(
            webhook=webhook,
            last_attempt_at=now + dt.timedelta(hours=hours),
            failures_in_a_row=failures,
        )
    assert names(browser.get(LIST, {"sort": sort})) == found


def test_a_login_without_a_password_needs_attention(browser: Client) -> None:
    # An import brings no passwords.
    make_webhook(name="Imported", authorization_type="basic", basic_login="shop")
    make_webhook(
        name="Complete", authorization_type="basic", basic_login="shop", basic_password="x"
    )
    page = browser.get(LIST, {"status": "attention"})
    assert names(page) == ["Imported"]
    assert [row["status"]["label"] for row in page.context["rows"]] == ["On hold"]


def test_a_filter_that_cannot_be_read_holds_its_webhook(browser: Client) -> None:
    make_webhook(filter={"variable": "call_id", "operator": "resembles"})
    assert [row["status"]["label"] for row in browser.get(LIST).context["rows"]] == ["On hold"]


def test_what_needs_attention_comes_first(browser: Client) -> None:
    make_webhook(name="Alpha")
    make_webhook(name="Omega", authorization_type="oauth2")
    assert names(browser.get(LIST)) == ["Omega", "Alpha"]


def test_the_next_page_keeps_words_filters_and_order(browser: Client) -> None:
    for number in range(53):
        make_webhook(name=f"Hook {number:02}")
    page = browser.get(LIST, {"q": "hook", "status": "active", "sort": "-name"})
    assert 'href="?q=hook&amp;status=active&amp;sort=-name&amp;page=2"' in page.text
    assert "53 webhooks match" in page.text
    last = browser.get(LIST, {"q": "hook", "sort": "-name", "page": 2})
    assert names(last) == ["Hook 02", "Hook 01", "Hook 00"]


def test_searching_offers_no_first_steps(browser: Client) -> None:
    make_webhook(name="CRM")
    assert browser.get(LIST).context["first_steps"]
    assert not browser.get(LIST, {"q": "nothing"}).context["first_steps"]


def test_the_bars_of_a_row_count_its_last_day(browser: Client) -> None:
    webhook, other = make_webhook(name="CRM"), make_webhook(name="Other")
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for hours, outcome, count in (
        (1, Outcome.SUCCEEDED, 9),
        (1, Outcome.SERVER_ERROR, 2),
        (30, Outcome.SUCCEEDED, 100),
    ):
        HourlyCount.objects.create(
            webhook=webhook,
            hour=hour - dt.timedelta(hours=hours),
            outcome=outcome,
            duration_step=step_of(20),
            count=count,
        )
    page = browser.get(LIST)
    assert "Last 24 hours: 11 attempts, 2 failed." in page.text
    assert page.text.count("Nothing sent in the last 24 hours.") == 2, other


def _boxes(path: str) -> dict[str, tuple[float, float]]:
    """Return the top and the height of each box of an SVG path, by its x coordinate."""
    boxes = re.findall(r"M(\d+) ([\d.]+)h3v([\d.]+)h-3z", path)
    return {x: (float(top), float(height)) for x, top, height in boxes}


def test_bars_stay_inside_their_picture() -> None:
    drawn = day_bars([(0, 0), (1, 100_000), (100_000, 1), (5, 0), (0, 5)])
    good, bad = _boxes(drawn["good_path"]), _boxes(drawn["bad_path"])
    assert (len(good), len(bad), len(good | bad)) == (2, 3, 4)
    for x in good | bad:
        good_top, good_height = good.get(x, (drawn["height"], 0.0))
        top, bad_height = bad.get(x, (good_top, 0.0))
        assert top >= 0
        assert good_top + good_height <= drawn["height"] + 0.1
        assert top + bad_height <= good_top + 0.1


@pytest.mark.slow
def test_a_thousand_webhooks_cost_at_most_twenty_queries(
    browser: Client, django_assert_max_num_queries: Any
) -> None:
    shared = make_credential(authorization_type="oauth2")
    first = make_webhook(name="Hook 000", authorization_type="oauth2", **SECRETS)
    token_for(first)
    made = make_many_webhooks(
        Webhook(
            name=f"Hook {number:03}", url=f"http://127.0.0.1:9/{number}", event_types=["call.*"]
        )
        for number in range(1, 1000)
    )
    of_shared = [one.pk for number, one in enumerate(made, start=1) if number % 3 == 0]
    own_oauth = [one.credential_id for number, one in enumerate(made, start=1) if number % 3 == 1]
    Webhook.objects.filter(pk__in=of_shared).update(credential=shared)
    Credential.objects.filter(pk__in=own_oauth).update(authorization_type="oauth2")
    rows = list(Webhook.objects.present())
    long_ago = timezone.now() - dt.timedelta(hours=1)
    failing = {"failing_since_at": long_ago, "failures_in_a_row": 1}
    WebhookState.objects.bulk_create(WebhookState(webhook=row, **failing) for row in rows)
    OAuthToken.objects.bulk_create(
        OAuthToken(credential=one, state=TokenState.VALID)
        for one in Credential.objects.exclude(pk=first.credential_id)
    )
    event = make_delivery(first).event_id
    Delivery.objects.bulk_create(
        Delivery(event_id=event, webhook=row, next_attempt_at=timezone.now()) for row in rows
    )
    asked: list[tuple[dict[str, Any], int]] = [
        ({}, 50),
        ({"q": "hook", "page": 20}, 50),
        ({"status": "attention", "sort": "-failures"}, 50),
        ({"event": "call.incoming.after", "authorization": "oauth2", "sort": "-sent"}, 50),
        ({"connection": shared.pk}, 50),
    ]
    for query, shown in asked:
        with django_assert_max_num_queries(20):
            assert len(names(browser.get(LIST, query))) == shown


def test_asking_by_htmx_gives_the_same_rows(browser: Client) -> None:
    make_webhook(name="CRM")
    make_webhook(name="Other")
    page = browser.get(LIST, {"q": "crm"}, headers=HTMX)
    assert names(page) == ["CRM"]
    assert 'id="list-results"' in page.text
    assert 'id="list-count"' in page.text
