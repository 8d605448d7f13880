"""A connection is deleted at the moment when a webhook begins to use it."""

import threading
from collections.abc import Callable

import pytest
from django.db import connection as database
from django.db import transaction
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from tests.ui.connections.test_views import fields, make_connection
from tests.ui.webhook_form.test_forms import bound, posted
from tests.ui.webhook_form.test_views import CREATE, logged_in
from webhooks import events
from webhooks.models import AuditEntry, Credential, Webhook
from webhooks.ui import shared_credentials
from webhooks.ui.connections.forms import ConnectionForm
from webhooks.ui.webhook_form.forms import WebhookForm


def in_thread(work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            database.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.django_db(transaction=True)
def test_deleting_waits_for_those_who_begin_to_use_it_and_is_then_refused() -> None:
    connection = make_connection()
    is_held = threading.Event()
    outcomes: list[str] = []

    def use() -> None:
        with transaction.atomic():
            shared_credentials.lock_connection(connection.pk)
            is_held.set()
            # Give the other thread time to start deleting.
            threading.Event().wait(0.5)
            make_webhook(credential=connection)
            outcomes.append("used")

    thread = in_thread(use)
    assert is_held.wait(10)
    with pytest.raises(shared_credentials.ConnectionUnavailableError, match="is used by webhooks"):
        shared_credentials.delete(Credential.objects.get(pk=connection.pk))
    outcomes.append("refused")
    thread.join()
    assert outcomes == ["used", "refused"]
    assert Credential.objects.shared().filter(pk=connection.pk).exists()


@pytest.mark.django_db(transaction=True)
def test_a_restore_waits_for_a_deletion_and_uses_the_connection_no_more() -> None:
    connection = make_connection()
    webhook = make_webhook(credential=connection)
    events.delete(webhook)
    is_deleting = threading.Event()

    def delete() -> None:
        with transaction.atomic():
            row = Credential.objects.select_for_update().get(pk=connection.pk)
            events.erase(row)
            is_deleting.set()
            # Give the other thread time to start restoring.
            threading.Event().wait(0.5)

    thread = in_thread(delete)
    assert is_deleting.wait(10)
    restored = events.restore(webhook.pk)
    thread.join()
    assert restored
    assert (restored.credential.is_shared, restored.is_active) == (False, False)


@pytest.mark.django_db
def test_a_form_that_was_right_is_not_saved_with_a_connection_deleted_since() -> None:
    connection = make_connection()
    form = bound(connection=str(connection.pk))
    assert form.is_valid(), form.errors
    shared_credentials.delete(Credential.objects.get(pk=connection.pk))
    with pytest.raises(
        shared_credentials.ConnectionUnavailableError, match="deleted in the meantime"
    ):
        form.save()
    assert not Webhook.objects.present().exists()


@pytest.fixture
def _deleted_after_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete every connection right after a form was found valid."""
    judge = WebhookForm.is_valid

    def judge_and_delete(form: WebhookForm) -> bool:
        is_valid = judge(form)
        Credential.objects.shared().update(deleted_at="2026-01-01T00:00Z")
        return is_valid

    monkeypatch.setattr(WebhookForm, "is_valid", judge_and_delete)


@pytest.mark.django_db
@pytest.mark.usefixtures("_deleted_after_the_check")
def test_the_page_says_so_and_keeps_what_was_typed() -> None:
    browser = logged_in(is_superuser=True)
    page = browser.post(CREATE, posted(connection=make_connection().pk, name="Typed"))
    assert "The connection was deleted in the meantime." in page.text
    assert 'value="Typed"' in page.text
    assert not Webhook.objects.present().exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db
def test_a_webhook_deleted_while_its_form_is_validated_is_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = make_webhook()
    browser: Client = logged_in(is_superuser=True)
    page = reverse("webhooks:edit", args=[webhook.pk])
    mark = str(browser.get(page).context["opened_by"])
    judge = WebhookForm.is_valid

    def judge_and_delete(form: WebhookForm) -> bool:
        is_valid = judge(form)
        events.delete(Webhook.objects.get(pk=webhook.pk))
        return is_valid

    monkeypatch.setattr(WebhookForm, "is_valid", judge_and_delete)
    answer = browser.post(page, posted(name="Typed", opened_by=mark))
    assert answer.status_code == 404
    assert "is back in the form once the webhook is restored" in answer.text
    assert not Webhook.objects.filter(name="Typed").exists()


@pytest.mark.django_db
def test_a_connection_deleted_while_its_form_is_validated_gets_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = make_connection()
    browser: Client = logged_in(is_superuser=True)
    judge = ConnectionForm.is_valid

    def judge_and_delete(form: ConnectionForm) -> bool:
        is_valid = judge(form)
        shared_credentials.delete(Credential.objects.get(pk=connection.pk))
        return is_valid

    monkeypatch.setattr(ConnectionForm, "is_valid", judge_and_delete)
    page = reverse("webhooks:connection_edit", args=[connection.pk])
    assert browser.post(page, fields(name=connection.name)).status_code == 404
    assert not Credential.objects.get(pk=connection.pk).has_secret("basic_password")


@pytest.mark.django_db
def test_a_copy_is_not_made_of_a_webhook_whose_connection_was_deleted() -> None:
    connection = make_connection()
    webhook = make_webhook(credential=connection)
    Credential.objects.shared().update(deleted_at="2026-01-01T00:00Z")
    browser: Client = logged_in(is_superuser=True)
    url = reverse("webhooks:duplicate", args=[webhook.pk])
    assert "deleted in the meantime" in browser.post(url, follow=True).text
    assert Webhook.objects.present().count() == 1
