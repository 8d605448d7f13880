"""The audit trail on the pages of webhooks and connections, and the connection's own page."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from tests.factories import make_delivery, make_webhook
from tests.ui.connections.test_views import make_connection, make_oauth_connection, token_for
from tests.ui.webhook_form.test_views import logged_in
from webhooks import audit
from webhooks.models import Action, Webhook
from webhooks.ui.trail import ENTRIES_PER_PAGE, SHOWN, audit_trail

pytestmark = pytest.mark.django_db


def url_of(webhook: Webhook) -> str:
    return str(audit_trail(webhook)["audit_url"])


def test_the_page_says_who_changed_which_fields_by_the_names_of_the_form(browser: Client) -> None:
    webhook = make_webhook()
    user = User.objects.create_user("olena")
    audit.record(Action.CHANGED, webhook, user=user, fields=["rate_limit", "url"], note="a note")
    page = browser.get(url_of(webhook)).text
    for text in ("olena", "Changed", "Rate limit, URL", "a note"):
        assert text in page


def test_the_page_names_the_system_where_no_person_acted(browser: Client) -> None:
    webhook = make_webhook()
    audit.record(Action.PAUSED, webhook, user=None)
    assert "The system" in browser.get(url_of(webhook)).text


def test_the_page_holds_what_was_done_to_the_webhook_s_deliveries(browser: Client) -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    audit.record(Action.RESENT, delivery, user=None)
    assert delivery.pk in browser.get(url_of(webhook)).text


def test_no_trail_holds_another_webhook_s_entries(browser: Client) -> None:
    webhook, other = make_webhook(), make_webhook(name="Other")
    audit.record(Action.CHANGED, other, user=None, note="of the other")
    assert "of the other" not in browser.get(url_of(webhook)).text
    assert "of the other" in browser.get(url_of(other)).text


def test_names_and_notes_are_text_and_not_markup(browser: Client) -> None:
    webhook = make_webhook(name="<script>alert(1)</script>")
    user = User.objects.create_user("<img src=x>")
    audit.record(Action.CHANGED, webhook, user=user, fields=["<b>"], note="<i>")
    page = browser.get(url_of(webhook)).text
    for markup in ("<script>alert", "<img src=x>", "<b>", "<i>"):
        assert markup not in page


def test_pages_go_on_below_the_last_entry_shown(browser: Client) -> None:
    webhook = make_webhook()
    for number in range(ENTRIES_PER_PAGE + 3):
        audit.record(Action.CHANGED, webhook, user=None, note=f"entry {number}.")
    first = browser.get(url_of(webhook))
    older = browser.get(url_of(webhook), {"before": first.context["older_than"]})
    assert "entry 3." in first.text
    assert "entry 2." not in first.text
    assert [entry.note for entry in older.context["entries"]] == [
        "entry 2.",
        "entry 1.",
        "entry 0.",
    ]
    assert older.context["older_than"] is None


@pytest.mark.parametrize("before", ["x", "-1", "9" * 40, "\0", "1 OR 1=1"])
def test_a_page_address_that_no_one_made_shows_the_newest(browser: Client, before: str) -> None:
    webhook = make_webhook()
    audit.record(Action.CHANGED, webhook, user=None, note="the newest")
    assert "the newest" in browser.get(url_of(webhook), {"before": before}).text


def test_the_partial_is_given_the_newest_entries_and_the_address_of_all() -> None:
    webhook = make_webhook()
    for number in range(SHOWN + 1):
        audit.record(Action.CHANGED, webhook, user=None, note=str(number))
    context = audit_trail(webhook)
    assert [entry.note for entry in context["audit_entries"]][:: SHOWN - 1] == ["20", "1"]
    assert context["audit_url"] == reverse("webhooks:audit", args=[webhook.pk])


# ---- The page of a connection -----------------------------------------------------------------


def test_people_who_may_only_look_read_a_connection_without_its_secrets() -> None:
    connection = make_oauth_connection(client_secret="canary-secret", client_id="the-client")
    token_for(connection, access_token="canary-token")
    make_webhook(name="Its user", credential=connection)
    audit.record(Action.CHANGED, connection, user=None, fields=["client_secret"])
    page = logged_in("view_connection").get(reverse("webhooks:connection", args=[connection.pk]))
    for text in ("CRM token", "the-client", "127.0.0.1", "Its user", "Client secret", "Changes"):
        assert text in page.text
    assert "canary" not in page.text
    for name in ("connection_edit", "connection_delete"):
        assert reverse(f"webhooks:{name}", args=[connection.pk]) not in page.text


def test_the_page_of_a_connection_offers_what_its_reader_may_do(browser: Client) -> None:
    connection = make_connection()
    page = browser.get(reverse("webhooks:connection", args=[connection.pk])).text
    for name in ("connection_edit", "connection_delete"):
        assert reverse(f"webhooks:{name}", args=[connection.pk]) in page
