"""Two people edit one form: the other change is shown, and overwritten only on purpose."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from tests.people import logged_in
from tests.ui.webhook_form.test_forms import OAUTH, posted
from tests.ui.webhook_form.test_views import draft_of, edit_url
from webhooks.models import AuditEntry, Credential, Webhook

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture
def colleague() -> Client:
    return logged_in(name="olena", is_superuser=True)


@pytest.fixture
def webhook() -> Webhook:
    return make_webhook(name="CRM", url="http://127.0.0.1:9/hook", event_types=["test"])


def seen_on(page: Any) -> str:
    return str(page.context["form"].seen)


def test_the_second_save_shows_who_changed_what_and_saves_nothing(
    browser: Client, colleague: Client, webhook: Webhook
) -> None:
    seen = seen_on(browser.get(edit_url(webhook)))
    colleague.post(edit_url(webhook), posted(url="http://127.0.0.1:9/theirs"))
    page = browser.post(edit_url(webhook), posted(name="Mine", seen=seen))
    assert page.status_code == 200
    assert [(one.username, "url" in one.fields) for one in page.context["form"].conflicts] == [
        ("olena", True)
    ]
    assert "this changed while you were editing" in page.text
    assert "<strong>olena</strong>" in page.text
    webhook.refresh_from_db()
    assert (webhook.name, webhook.url) == ("CRM", "http://127.0.0.1:9/theirs")


@pytest.mark.slow
def test_saving_again_overwrites_with_everything_that_was_typed(
    browser: Client, colleague: Client, webhook: Webhook
) -> None:
    seen = seen_on(browser.get(edit_url(webhook)))
    colleague.post(edit_url(webhook), posted(url="http://127.0.0.1:9/theirs"))
    mine = {**posted(**{**OAUTH, "name": "Mine"}), "seen": seen}
    page = browser.post(edit_url(webhook), mine)
    assert 'value="Mine"' in page.text
    again = {**mine, "client_secret": "", "draft": draft_of(page), "seen": seen_on(page)}
    assert browser.post(edit_url(webhook), again).status_code == 302
    webhook.refresh_from_db()
    assert (webhook.name, webhook.url) == ("Mine", "http://127.0.0.1:9/hook")
    assert webhook.credential.client_secret == OAUTH["client_secret"]
    assert AuditEntry.objects.filter(username="admin", action="changed").count() == 1


@pytest.mark.slow
def test_a_third_change_is_reported_too(
    browser: Client, colleague: Client, webhook: Webhook
) -> None:
    seen = seen_on(browser.get(edit_url(webhook)))
    colleague.post(edit_url(webhook), posted(url="http://127.0.0.1:9/theirs"))
    reported = seen_on(browser.post(edit_url(webhook), posted(name="Mine", seen=seen)))
    colleague.post(edit_url(webhook), posted(url="http://127.0.0.1:9/newest"))
    page = browser.post(edit_url(webhook), posted(name="Mine", seen=reported))
    assert len(page.context["form"].conflicts) == 1


def test_what_was_changed_before_the_form_was_opened_is_no_conflict(
    browser: Client, colleague: Client, webhook: Webhook
) -> None:
    colleague.post(edit_url(webhook), posted(url="http://127.0.0.1:9/theirs"))
    seen = seen_on(browser.get(edit_url(webhook)))
    answer = browser.post(edit_url(webhook), posted(name="Mine", seen=seen))
    assert answer.status_code == 302


def test_a_concurrent_pause_is_no_conflict_and_stays(
    browser: Client, colleague: Client, webhook: Webhook
) -> None:
    seen = seen_on(browser.get(edit_url(webhook)))
    colleague.post(reverse("webhooks:pause", args=[webhook.pk]))
    answer = browser.post(edit_url(webhook), posted(name="Mine", seen=seen))
    assert answer.status_code == 302
    webhook.refresh_from_db()
    assert (webhook.name, webhook.is_active) == ("Mine", False)


@pytest.mark.slow
def test_a_rejected_form_still_knows_what_it_was_opened_with(
    browser: Client, colleague: Client, webhook: Webhook
) -> None:
    seen = seen_on(browser.get(edit_url(webhook)))
    page = browser.post(edit_url(webhook), posted(url="", seen=seen))
    colleague.post(edit_url(webhook), posted(url="http://127.0.0.1:9/theirs"))
    page = browser.post(edit_url(webhook), posted(name="Mine", seen=seen_on(page)))
    assert page.context["form"].conflicts


@pytest.mark.parametrize("seen", ["x", "-1", "9" * 40])
def test_a_made_up_mark_breaks_nothing(browser: Client, webhook: Webhook, seen: str) -> None:
    answer = browser.post(edit_url(webhook), posted(name="Mine", seen=seen))
    assert answer.status_code == 302


def test_a_connection_reports_it_too(browser: Client, colleague: Client) -> None:
    fields = {
        "name": "Login",
        "allowed_hosts": "http://127.0.0.1:9",
        "authorization_type": "basic",
        "basic_login": "shared",
        "basic_password": "hush-hush",
    }
    browser.post(reverse("webhooks:connection_create"), fields)
    connection = Credential.objects.shared().get()
    url = reverse("webhooks:connection_edit", args=[connection.pk])
    seen = seen_on(browser.get(url))
    colleague.post(url, {**fields, "basic_login": "theirs"})
    page = browser.post(url, {**fields, "name": "Mine", "seen": seen})
    assert "<strong>olena</strong>" in page.text
    connection.refresh_from_db()
    assert (connection.name, connection.basic_login) == ("Login", "theirs")
    answer = browser.post(url, {**fields, "name": "Mine", "seen": seen_on(page)})
    assert answer.status_code == 302
    connection.refresh_from_db()
    assert (connection.name, connection.basic_login) == ("Mine", "shared")
