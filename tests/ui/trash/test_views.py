"""The trash: what a restored webhook keeps, and what is deleted after a month."""

import datetime as dt
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_credential, make_webhook
from webhooks import events
from webhooks.delivery.retention import delete_old_rows
from webhooks.models import Action, AuditEntry, OAuthToken, Webhook, WebhookState

pytestmark = pytest.mark.django_db

TRASH = reverse("webhooks:trash")


def deleted(**fields: object) -> Webhook:
    webhook = make_webhook(name="CRM", **fields)
    events.delete(webhook)
    return webhook


def test_a_deleted_webhook_comes_back_active_with_its_secrets_and_its_token(
    browser: Client,
) -> None:
    webhook = deleted(authorization_type="oauth2", client_secret="hush")
    OAuthToken.objects.create(credential=webhook.credential, access_token="token", state="valid")
    assert "CRM" in browser.get(TRASH).text
    answer = browser.post(reverse("webhooks:restore", args=[webhook.pk]), follow=True)
    assert "“CRM” is restored and active." in answer.text
    back = Webhook.objects.active().get(pk=webhook.pk)
    assert back.credential.client_secret == "hush"
    assert back.credential.deleted_at is None
    assert back.credential.token.access_token == "token"
    assert AuditEntry.objects.filter(action=Action.RESTORED, webhook=back).exists()
    assert "The trash is empty" in browser.get(TRASH).text


def test_the_trash_names_the_day_on_which_secrets_are_erased(
    browser: Client, settings: Any
) -> None:
    settings.TIME_ZONE = "UTC"
    webhook = deleted()
    deleted_at = dt.datetime(2026, 3, 2, 9, 14, tzinfo=dt.UTC)
    Webhook.objects.filter(pk=webhook.pk).update(deleted_at=deleted_at)
    page = browser.get(TRASH).text
    assert "Erased on" in page
    assert "1 April 2026" in page


def test_what_was_paused_comes_back_paused(browser: Client) -> None:
    webhook = make_webhook()
    events.pause(webhook)
    events.delete(webhook)
    browser.post(reverse("webhooks:restore", args=[webhook.pk]))
    assert not Webhook.objects.present().get(pk=webhook.pk).is_active


def test_the_time_in_the_trash_does_not_count_as_failing(browser: Client) -> None:
    webhook = make_webhook()
    since = timezone.now() - dt.timedelta(days=6)
    WebhookState.objects.create(webhook=webhook, failing_since_at=since, failures_in_a_row=7)
    events.delete(webhook)
    browser.post(reverse("webhooks:restore", args=[webhook.pk]))
    # The next failure would otherwise pause it: the limit is five days.
    state = WebhookState.objects.get()
    assert (state.failing_since_at, state.failures_in_a_row) == (None, 0)


def test_a_restore_keeps_to_the_limit_of_an_event_type(browser: Client, settings: Any) -> None:
    settings.WEBHOOKS_MAX_PER_EVENT_TYPE = 1
    webhook = deleted(event_types=["form.*", "deal.created"])
    other = make_webhook(event_types=["form.submitted"])
    for url, data in (
        (reverse("webhooks:restore", args=[webhook.pk]), {}),
        (reverse("webhooks:bulk"), {"undo": f"restore:{webhook.pk}"}),
    ):
        page = browser.post(url, data, follow=True)
        assert page.redirect_chain[-1][0] == TRASH
        sentence = "already has 1 webhooks, the limit for one event type. Delete one first."
        assert sentence in page.text
        assert "Deal" not in page.text.partition("Not restored:")[2].partition("already has")[0]
        assert "Nothing changed" not in page.text
    assert list(Webhook.objects.present()) == [other]
    events.delete(other)
    browser.post(reverse("webhooks:restore", args=[webhook.pk]))
    assert list(Webhook.objects.present()) == [webhook]


def test_a_connection_that_was_deleted_since_is_not_used_again(browser: Client) -> None:
    connection = make_credential(name="CRM", authorization_type="basic", basic_password="hush")
    webhook = make_webhook(credential=connection)
    events.delete(webhook)
    events.erase(connection)
    page = browser.post(reverse("webhooks:restore", args=[webhook.pk]), follow=True)
    back = Webhook.objects.present().get(pk=webhook.pk)
    assert not back.credential.is_shared
    assert not back.is_active
    # Otherwise a resume would send requests without authorization.
    assert "The connection “CRM” was deleted. Choose other credentials" in page.text


def test_deleting_for_good_takes_a_second_press(browser: Client) -> None:
    webhook = make_webhook()
    events.delete(webhook)
    page = browser.get(reverse("webhooks:trash")).text.partition("<tbody>")[2]
    menu = page[page.index("<details") : page.index("</details>")]
    assert "This cannot be undone." in menu
    purge = f'action="{reverse("webhooks:purge", args=[webhook.pk])}"'
    assert purge in menu
    assert page.count(purge) == 1


def test_deleting_for_good_leaves_nothing_to_restore(browser: Client) -> None:
    webhook = deleted(authorization_type="basic", basic_password="hush")
    browser.post(reverse("webhooks:purge", args=[webhook.pk]))
    gone = Webhook.objects.get(pk=webhook.pk)
    assert not gone.credential.has_secret("basic_password")
    assert not gone.has_secret("signing_secret")
    assert browser.post(reverse("webhooks:restore", args=[webhook.pk])).status_code == 404
    assert not Webhook.objects.present().exists()


def test_what_was_restored_a_moment_ago_keeps_its_secrets() -> None:
    webhook = deleted(authorization_type="basic", basic_password="hush")
    events.restore(webhook.pk)
    assert not events.purge(webhook)
    [kept] = Webhook.objects.present()
    assert kept.credential.has_secret("basic_password")


def test_the_secrets_of_what_lies_there_for_a_month_are_erased() -> None:
    old, new = deleted(), deleted()
    month_ago = timezone.now() - dt.timedelta(days=31)
    Webhook.objects.filter(pk=old.pk).update(deleted_at=month_ago)
    delete_old_rows()
    assert list(Webhook.objects.trashed()) == [new]
    assert not Webhook.objects.get(pk=old.pk).has_secret("signing_secret")
    assert Webhook.objects.get(pk=new.pk).has_secret("signing_secret")
