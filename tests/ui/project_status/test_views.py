"""The status page: the backlog and its age, slow receivers, ending tokens; bounded queries."""

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_credential, make_delivery, make_webhook
from tests.people import logged_in
from webhooks.alerts import problems
from webhooks.delivery.histogram import step_of
from webhooks.models import Delivery, HourlyCount, OAuthToken, Outcome

pytestmark = pytest.mark.django_db

STATUS = reverse("webhooks:status")


def test_a_quiet_site_says_so(browser: Client) -> None:
    page = browser.get(STATUS).text
    for sentence in ("No webhook needs attention.", "Nothing is waiting.", "None within 30 days.",
                     "Nothing overdue", "No slow receivers."):  # fmt: skip
        assert sentence in page


def test_it_counts_the_webhooks_that_need_attention(browser: Client) -> None:
    make_webhook(is_active=False, pause_reason="gone")
    assert "1 webhook needs attention." in browser.get(STATUS).text


def test_it_names_what_waits_who_is_slow_and_which_token_ends(browser: Client) -> None:
    held = make_webhook(name="Held one")
    make_delivery(held)
    Delivery.objects.update(status="held", next_attempt_at=None, hold_reason="paused")
    slow, fast = make_webhook(name="Slow one"), make_webhook(name="Fast one")
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for webhook, milliseconds in ((slow, 4000), (fast, 40)):
        HourlyCount.objects.create(
            webhook=webhook,
            hour=hour,
            outcome=Outcome.SUCCEEDED,
            duration_step=step_of(milliseconds),
            count=10,
        )
    ending = make_webhook(name="Ending one", authorization_type="oauth2")
    OAuthToken.objects.create(
        credential=ending.credential,
        state="valid",
        refresh_token_expires_at=timezone.now() + dt.timedelta(days=3),
    )
    page = browser.get(STATUS)
    assert [row["name"] for row in page.context["waiting"]] == ["Held one"]
    assert [row["webhook"].name for row in page.context["slow"]] == ["Slow one"]
    assert [row["subject"].name for row in page.context["tokens"]] == ["Ending one"]
    for name in ("What has waited longest", "Held one", "Slow one", "Ending one"):
        assert name in page.text


def test_lost_grants_come_before_those_that_end(browser: Client) -> None:
    soon = timezone.now() + dt.timedelta(days=3)
    for number in range(10):
        ending = make_webhook(name=f"Ending {number}", authorization_type="oauth2")
        OAuthToken.objects.create(
            credential=ending.credential, state="valid", refresh_token_expires_at=soon
        )
    later = timezone.now() + dt.timedelta(days=90)
    for name, ends_at in (("Lost", None), ("Lost early", later)):
        lost = make_webhook(name=name, authorization_type="oauth2")
        OAuthToken.objects.create(
            credential=lost.credential,
            state="needs_reauthorization",
            refresh_token_expires_at=ends_at,
        )
    shown = [row["subject"].name for row in browser.get(STATUS).context["tokens"]]
    assert {*shown[:2]} == {"Lost", "Lost early"}


@pytest.mark.parametrize(
    ("state", "grant", "words", "has_button"),
    [
        ("needs_reauthorization", "authorization_code", "Ended", True),
        ("valid", "authorization_code", "in 2\xa0days", True),
        ("misconfigured", "authorization_code", "Misconfigured", False),
        ("misconfigured", "client_credentials", "Misconfigured", False),
    ],
)
def test_a_grant_that_needs_renewal_has_the_button(
    browser: Client, state: str, grant: str, words: str, *, has_button: bool
) -> None:
    webhook = make_webhook(authorization_type="oauth2", grant_type=grant)
    ends_at = timezone.now() + dt.timedelta(days=3)
    OAuthToken.objects.create(
        credential=webhook.credential, state=state, refresh_token_expires_at=ends_at
    )
    table = browser.get(STATUS).text.partition('id="tokens"')[2]
    assert words in table
    action = reverse("webhooks:authorize", args=[webhook.credential_id])
    assert (action in table) is has_button
    assert action not in logged_in("view_webhook", name="looker").get(STATUS).text


def test_a_lost_grant_links_its_connection_for_who_may_open_it() -> None:
    connection = make_credential(name="Shared", authorization_type="oauth2")
    make_webhook(credential=connection)
    OAuthToken.objects.create(credential=connection, state="needs_reauthorization")
    link = reverse("webhooks:credential", args=[connection.pk])
    looker = logged_in("view_webhook", "authorize_webhook")
    for page in (STATUS, reverse("webhooks:grants")):
        text = looker.get(page).text
        assert "Shared" in text
        assert link not in text.replace(f"{link}authorize/", "")
    opener = logged_in("view_webhook", "view_connection", name="opener")
    assert link in opener.get(STATUS).text


def test_an_own_grant_is_no_problem_while_a_connection_is_used(browser: Client) -> None:
    webhook = make_webhook(authorization_type="oauth2")
    OAuthToken.objects.create(credential=webhook.credential, state="needs_reauthorization")
    now = timezone.now()
    assert len(browser.get(STATUS).context["tokens"]) == len(problems.find(now)) == 1
    webhook.credential = make_credential()
    webhook.save()
    assert not browser.get(STATUS).context["tokens"]
    assert not problems.find(now)


@pytest.mark.database("sqlite")
def test_sqlite_reads_neither_the_log_nor_the_counts_from_end_to_end(browser: Client) -> None:
    make_delivery(make_webhook())
    with CaptureQueriesContext(connection) as queries:
        browser.get(STATUS)
    with connection.cursor() as cursor:
        for query in queries:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            plan = [str(row[-1]) for row in cursor.fetchall()]
            grown = ("SCAN webhooks_delivery", "SCAN webhooks_hourlycount", "SCAN webhooks_event")
            # Scanning a partial index is fine, as it has few rows.
            read = [step for step in plan if step.startswith(grown)]
            assert not [step for step in read if " USING INDEX delivery_" not in step], plan


def test_its_queries_do_not_grow_with_the_log(
    browser: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(15):
        webhook = make_webhook(name=f"Hook {number}")
        for _ in range(3):
            make_delivery(webhook)
    Delivery.objects.update(status="held", next_attempt_at=None, hold_reason="paused")
    with django_assert_max_num_queries(20):
        assert len(browser.get(STATUS).context["waiting"]) == 10
