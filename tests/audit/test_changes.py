"""Actions of people and the engine leave an audit entry: names of fields, counts, and no values.

`test_permissions` checks that every URL which changes something leaves one.
"""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from tests.admin.test_admin import KEYS, settle, step_url
from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from tests.sandbox import Provider
from tests.ui.connections.test_views import fields, make_connection, page_url
from tests.ui.webhook_form.test_forms import posted
from tests.ui.webhook_form.test_token_views import authorized
from tests.ui.webhook_form.test_views import CREATE, created, edit_url
from webhooks import audit
from webhooks.delivery.recorder import pause
from webhooks.models import Action, ApiKey, AuditEntry, Delivery, PauseReason, Webhook
from webhooks.oauth import default_callback_url

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser() -> Client:
    return logged_in(name="olena", is_staff=True, is_superuser=True)


def entries(**wanted: Any) -> list[AuditEntry]:
    return list(AuditEntry.objects.filter(**wanted).order_by("pk"))


def only(action: Action) -> AuditEntry:
    (entry,) = entries(action=action)
    return entry


def edit(browser: Client, webhook: Webhook, **overrides: Any) -> None:
    answer = browser.post(edit_url(webhook), posted(**overrides))
    assert answer.status_code == 302, answer.context["form"].errors


def test_a_new_webhook_leaves_who_made_it(browser: Client) -> None:
    webhook = created(browser, name="Billing")
    entry = only(Action.CREATED)
    assert (entry.username, entry.object_name, entry.webhook_id) == ("olena", "Billing", webhook.pk)


@pytest.mark.slow
def test_a_save_that_changes_nothing_leaves_no_entry(browser: Client) -> None:
    basic = {"authorization_type": "basic", "basic_login": "demo", "basic_password": "hush-hush"}
    webhook = make_webhook(**basic)
    shown = browser.get(edit_url(webhook)).context["form"]["callback_url"].value()
    assert shown == default_callback_url()
    fields = {"name": webhook.name, "url": webhook.url, "event_types": webhook.event_types}
    edit(browser, webhook, **fields, **{**basic, "basic_login": " demo ", "basic_password": ""},
         callback_url=shown)  # fmt: skip
    webhook.refresh_from_db()
    assert webhook.credential.callback_url == ""
    assert entries(action=Action.CHANGED) == []


def test_an_edit_names_the_fields_and_no_value(browser: Client) -> None:
    webhook = created(browser)
    edit(browser, webhook, name="Renamed", authorization_type="basic",
         basic_login="canary-login", basic_password="canary-password")  # fmt: skip
    entry = only(Action.CHANGED)
    assert entry.fields == ["authorization_type", "basic_login", "basic_password", "name"]
    assert "canary" not in str(entry.__dict__)


def test_a_password_that_stays_is_not_named(browser: Client) -> None:
    basic = {"authorization_type": "basic", "basic_login": "demo", "basic_password": "hush-hush"}
    webhook = created(browser, **basic)
    edit(browser, webhook, **{**basic, "basic_password": "", "name": "Renamed"})
    assert only(Action.CHANGED).fields == ["name"]


def test_a_form_with_an_error_leaves_nothing(browser: Client) -> None:
    browser.post(CREATE, posted(name=""))
    assert not entries()


def test_unticking_active_is_a_pause_and_no_change_of_fields(browser: Client) -> None:
    webhook = created(browser)
    edit(browser, webhook, is_active=None)
    assert only(Action.PAUSED).username == "olena"
    assert not entries(action=Action.CHANGED)


def test_alert_settings_are_named(browser: Client) -> None:
    webhook = created(browser)
    edit(browser, webhook, alert_recipients="ops@example.com")
    assert only(Action.CHANGED).fields == ["alert_recipients"]


def test_resuming_says_what_became_of_the_held_deliveries(browser: Client) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    browser.post(reverse("webhooks:pause", args=[webhook.pk]))
    browser.post(reverse("webhooks:resume", args=[webhook.pk]), {"held": "cancel"})
    assert "1 delivery on hold was cancelled" in audit.sentence(only(Action.RESUMED).note)


def test_a_second_press_of_pause_leaves_no_second_entry(browser: Client) -> None:
    webhook = make_webhook()
    for _ in range(2):
        browser.post(reverse("webhooks:pause", args=[webhook.pk]))
    assert only(Action.PAUSED).webhook_id == webhook.pk


def test_a_copy_says_of_what(browser: Client) -> None:
    webhook = make_webhook(name="CRM")
    browser.post(reverse("webhooks:duplicate", args=[webhook.pk]))
    entry = only(Action.CREATED)
    assert (entry.object_name, entry.note) == ("CRM (copy)", audit.note("copy_of", name="CRM"))


def test_rotating_names_the_secret_and_holds_none(browser: Client) -> None:
    webhook = make_webhook()
    browser.post(reverse("webhooks:rotate_secret", args=[webhook.pk]))
    entry = only(Action.SECRET_ROTATED)
    webhook.refresh_from_db()
    assert entry.fields == ["signing_secret"]
    assert webhook.signing_secret not in str(entry.__dict__)


def test_getting_and_clearing_a_token_is_written_down(browser: Client, provider: Provider) -> None:
    webhook = authorized(browser, provider)
    browser.post(reverse("webhooks:refresh_token", args=[webhook.credential_id]))
    browser.post(reverse("webhooks:clear_token", args=[webhook.credential_id]))
    actions = [entry.action for entry in entries(webhook=webhook)]
    assert actions[-3:] == ["authorized", "token_refreshed", "token_cleared"]


def test_an_answer_that_brings_no_token_is_none(browser: Client) -> None:
    browser.get(reverse("webhooks:oauth_callback"), {"state": "unknown", "code": "x"})
    assert not entries()


def test_a_connection_s_changes_are_its_own(browser: Client) -> None:
    connection = make_connection(callback_url=default_callback_url())
    browser.post(page_url(connection), fields(name="Renamed", basic_password=""))
    entry = only(Action.CHANGED)
    assert (entry.object_type, entry.object_id) == ("connection", str(connection.pk))
    assert entry.fields == ["name"]


def test_saving_as_a_connection_is_shown_on_both_pages(browser: Client) -> None:
    webhook = make_webhook(
        authorization_type="basic", basic_login="demo", basic_password="canary", name="CRM"
    )
    browser.post(reverse("webhooks:save_as_connection", args=[webhook.pk]))
    assert only(Action.CREATED).object_type == "connection"
    changed = only(Action.CHANGED)
    assert changed.webhook_id == webhook.pk
    assert {"connection", "basic_password"} <= set(changed.fields)


def test_deleting_a_connection_in_use_leaves_nothing(browser: Client) -> None:
    connection = make_connection()
    make_webhook(credential=connection)
    browser.post(reverse("webhooks:connection_delete", args=[connection.pk]))
    assert not entries()


def test_one_delivery_is_named_and_many_are_counted_by_webhook(browser: Client) -> None:
    webhook = make_webhook()
    other = make_webhook(name="Other", event_types=["call.outgoing.*"])
    one = make_delivery(webhook)
    browser.post(step_url(one, "resend"))
    assert only(Action.RESENT).object_id == one.pk
    make_delivery(webhook)
    chosen = list(Delivery.objects.values_list("pk", flat=True))
    browser.post(reverse("webhooks:deliveries_cancel"), {"delivery": chosen})
    entry = only(Action.CANCELLED)
    assert (entry.webhook_id, entry.note) == (webhook.pk, audit.note("deliveries", count=2))
    assert not entries(webhook=other)


def test_what_concerned_no_delivery_leaves_nothing(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    browser.post(step_url(delivery, "cancel"))
    assert not entries()


def test_keys_are_written_down_without_the_key(browser: Client) -> None:
    plain = browser.post(KEYS + "add/", {"name": "PBX", "scopes": ["events:write"]}).context[
        "plain"
    ]
    browser.post(f"{KEYS}{ApiKey.objects.get().pk}/revoke/")
    browser.post(f"{KEYS}{ApiKey.objects.get().pk}/revoke/")
    assert [entry.action for entry in entries()] == ["key_issued", "key_revoked"]
    assert plain not in str([entry.__dict__ for entry in entries()])


def test_the_engine_says_itself_why_it_paused() -> None:
    webhook, paused = make_webhook(), make_webhook(name="Paused")
    pause([paused.pk], PauseReason.GONE)
    pause([webhook.pk, paused.pk], PauseReason.FAILING)
    (first, second) = entries(action=Action.PAUSED)
    assert (first.username, first.webhook_id) == ("", paused.pk)
    assert second.webhook_id == webhook.pk
    assert audit.sentence(second.note) == "No delivery succeeded for days"


# ---- In the admin -----------------------------------------------------------------------------

TRAIL = "/admin/webhooks/auditentry/"


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("action=paused", {"by the engine"}),
        ("by=system", {"by the engine"}),
        ("by=people", {"by olena"}),
        ("kind=webhook", {"by the engine", "by olena"}),
        ("kind=apikey", set()),
        ("q=olena", {"by olena"}),
        ("q=CRM", {"by the engine", "by olena"}),
        ("q=nobody", set()),
    ],
)
def test_the_admin_finds_entries(browser: Client, query: str, shown: set[str]) -> None:
    webhook = make_webhook(name="CRM")
    user = get_user_model().objects.get()
    AuditEntry.objects.create(action="paused", object_type="webhook", object_id=webhook.pk,
                              object_name="CRM", note="by the engine", webhook=webhook)  # fmt: skip
    AuditEntry.objects.create(action="changed", object_type="webhook", object_id=webhook.pk,
                              object_name="CRM", note="by olena", username="olena", user=user,
                              webhook=webhook)  # fmt: skip
    page = browser.get(f"{TRAIL}?{query}")
    assert {row.note for row in page.context["cl"].result_list} == shown


def test_no_one_changes_or_deletes_entries_in_the_admin(browser: Client) -> None:
    entry = AuditEntry.objects.create(action="paused", object_type="webhook", object_id="1")
    browser.post(f"{TRAIL}{entry.pk}/change/", {"note": "forged"})
    browser.post(TRAIL, {"action": "delete_selected", "_selected_action": [entry.pk]})
    assert AuditEntry.objects.get().note == ""


def test_the_admin_page_counts_nothing(browser: Client, django_assert_max_num_queries: Any) -> None:
    for number in range(60):
        AuditEntry.objects.create(action="paused", object_type="webhook", object_id=str(number))
    with django_assert_max_num_queries(6) as queries:
        page = browser.get(TRAIL)
    assert len(page.context["cl"].result_list) == 50
    assert not [one for one in queries.captured_queries if "COUNT(" in one["sql"].upper()]
