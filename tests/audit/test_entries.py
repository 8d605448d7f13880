"""The audit trail: what an entry says, and that no one can change or delete it."""

import datetime as dt
from importlib import import_module

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.db import IntegrityError, connection, transaction

from tests.factories import make_credential, make_delivery, make_webhook
from webhooks import audit
from webhooks.models import Action, ApiKey, AuditEntry, Credential, Resend, ResendScope, Webhook
from webhooks.models.audit import AppendOnlyError

pytestmark = pytest.mark.django_db
TRIGGERS = import_module("webhooks.migrations.0003_keep_entries_of_the_audit_trail").FORWARD


def only_entry() -> AuditEntry:
    return AuditEntry.objects.get()


def test_an_entry_says_who_did_what_to_which_webhook() -> None:
    user = User.objects.create_user("olena")
    webhook = make_webhook(name="CRM")
    audit.record(Action.CHANGED, webhook, user=user, fields=["url", "name", "url"])
    entry = only_entry()
    assert (entry.user_id, entry.username, entry.action) == (user.pk, "olena", "changed")
    assert (entry.object_type, entry.object_id) == ("webhook", str(webhook.pk))
    assert (entry.object_name, entry.webhook_id) == ("CRM", webhook.pk)
    assert entry.fields == ["name", "url"]


@pytest.mark.parametrize("user", [None, AnonymousUser()])
def test_without_a_person_it_is_the_product_itself(user: AnonymousUser | None) -> None:
    audit.record(Action.PAUSED, make_webhook(), user=user, note="410 Gone")
    assert (only_entry().user_id, only_entry().username) == (None, "")


def test_a_shared_credential_is_called_a_connection_and_has_a_trail_of_its_own() -> None:
    connection = make_credential()
    audit.record(Action.CHANGED, connection, user=None)
    entry = only_entry()
    assert (entry.object_type, entry.object_name) == ("connection", "CRM login")
    assert entry.webhook_id is None
    assert list(audit.trail_of(Credential, connection.pk)) == [entry]


def test_an_entry_about_a_webhook_s_own_credential_is_about_the_webhook() -> None:
    webhook = make_webhook(name="CRM")
    make_credential()
    audit.record(Action.AUTHORIZED, webhook.credential, user=None)
    entry = only_entry()
    assert (entry.object_type, entry.object_name) == ("webhook", "CRM")
    assert list(audit.trail_of(Webhook, webhook.pk)) == [entry]


def test_an_entry_about_a_delivery_belongs_to_its_webhook_too() -> None:
    webhook = make_webhook(name="CRM")
    delivery = make_delivery(webhook)
    audit.record(Action.RESENT, delivery, user=None)
    entry = only_entry()
    assert (entry.object_type, entry.object_id) == ("delivery", delivery.pk)
    assert (entry.webhook_id, entry.object_name) == (webhook.pk, "CRM")


def test_an_entry_about_a_resend_of_every_webhook_belongs_to_none() -> None:
    resend = Resend.objects.create(scope=ResendScope.SELECTION)
    audit.record(Action.RESEND_STARTED, resend, user=None, note="3 deliveries")
    entry = only_entry()
    assert (entry.object_type, entry.object_id) == ("resend", str(resend.pk))
    assert (entry.webhook_id, entry.note) == (None, "3 deliveries")


def test_an_entry_about_a_key_holds_its_name_alone() -> None:
    key, plain = ApiKey.objects.issue("PBX")
    audit.record(Action.KEY_ISSUED, key, user=None)
    entry = only_entry()
    assert (entry.object_type, entry.object_name) == ("apikey", "PBX")
    assert plain not in str(entry.__dict__)


def test_without_an_object_a_text_says_what_it_is_about() -> None:
    audit.record(Action.EXPORTED, None, user=None, object_type="webhook")
    assert (only_entry().object_type, only_entry().object_name) == ("webhook", "")


def test_texts_longer_than_their_columns_are_cut() -> None:
    webhook = make_webhook()
    webhook.name = "o" * 999
    audit.record(Action.CHANGED, webhook, user=None, note="n" * 999)
    assert (len(only_entry().note), len(only_entry().object_name)) == (300, 100)


def test_an_entry_disappears_with_the_change_that_was_rolled_back() -> None:
    webhook = make_webhook()

    def change_and_fail() -> None:
        with transaction.atomic():
            audit.record(Action.CHANGED, webhook, user=None)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()
    assert not AuditEntry.objects.exists()


def test_entries_for_many_are_one_statement(django_assert_num_queries: object) -> None:
    webhooks = [make_webhook(name=f"Webhook {number}") for number in range(3)]
    with django_assert_num_queries(1):  # type: ignore[operator]
        audit.record_many(Action.PAUSED, webhooks, user=None)
    assert AuditEntry.objects.count() == 3


def test_an_entry_is_never_changed() -> None:
    audit.record(Action.CHANGED, make_webhook(), user=None)
    entry = only_entry()
    entry.note = "something else"
    with pytest.raises(AppendOnlyError):
        entry.save()
    with pytest.raises(AppendOnlyError):
        AuditEntry.objects.update(note="something else")
    assert only_entry().note == ""


def test_an_entry_is_never_deleted() -> None:
    audit.record(Action.CHANGED, make_webhook(), user=None)
    with pytest.raises(AppendOnlyError):
        only_entry().delete()
    with pytest.raises(AppendOnlyError):
        AuditEntry.objects.all().delete()
    assert AuditEntry.objects.count() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE webhooks_auditentry SET note = 'something else'",
        "UPDATE webhooks_auditentry SET username = 'another' WHERE id > 0",
        "DELETE FROM webhooks_auditentry",
        "DELETE FROM webhooks_auditentry WHERE id > 0",
        pytest.param(
            "SET CONSTRAINTS ALL IMMEDIATE; TRUNCATE webhooks_auditentry CASCADE",
            marks=pytest.mark.database("postgres"),
        ),
    ],
)
def test_the_database_itself_refuses_to_change_or_delete_an_entry(statement: str) -> None:
    audit.record(Action.CHANGED, make_webhook(), user=None, note="as it was")
    with connection.cursor() as cursor:
        # The trigger that tests/conftest.py removes; the others are as `migrate` made them.
        missing = {"sqlite": "is_not_deleted", "postgresql": "is_not_emptied"}[connection.vendor]
        cursor.execute(next(one for one in TRIGGERS[connection.vendor] if missing in one))
        with pytest.raises(IntegrityError, match="never changed"), transaction.atomic():
            cursor.execute(statement)
    assert only_entry().note == "as it was"


def test_entries_stay_when_the_person_s_account_is_deleted() -> None:
    user = User.objects.create_user("olena")
    audit.record(Action.CHANGED, make_webhook(), user=user)
    user.delete()
    assert only_entry().username == "olena"


def test_changed_fields_are_named_and_secrets_hold_no_value() -> None:
    webhook = Webhook.objects.get(pk=make_webhook(basic_password="before").pk)
    before = audit.snapshot(webhook)
    webhook.name = "Another"
    webhook.rate_limit = 5
    webhook.credential.set_secret("basic_password", "canary-of-the-test")
    assert audit.changed_fields(before, webhook) == ["basic_password", "name", "rate_limit"]
    assert "canary-of-the-test" not in str(audit.snapshot(webhook))


def test_nothing_is_named_when_nothing_changed() -> None:
    webhook = Webhook.objects.get(pk=make_webhook(basic_password="before").pk)
    before = audit.snapshot(webhook)
    webhook.save()
    webhook = Webhook.objects.get(pk=webhook.pk)
    webhook.updated_at += dt.timedelta(seconds=1)
    assert audit.changed_fields(before, webhook) == []
