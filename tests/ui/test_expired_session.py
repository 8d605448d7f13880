"""A form sent after its session ended: stored encrypted until the same user has logged in."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from tests.factories import make_delivery, make_webhook
from tests.log_rows import settle
from tests.people import logged_in
from tests.ui.webhook_form.test_forms import BASIC, posted
from tests.ui.webhook_form.test_views import CREATE, draft_of, edit_url
from webhooks import events
from webhooks.models import AlertChannel, Delivery, Resend, Status, Webhook
from webhooks.security.browser_sessions import SessionStore

pytestmark = [pytest.mark.django_db, pytest.mark.once]

LIST = "/integrations/webhooks/"
BULK = f"{LIST}bulk/"
SESSION = f"{LIST}session/"


def opened(browser: Client, url: str) -> str:
    """Open a form, and let its session end; return the form's `opened_by`."""
    mark = str(browser.get(url).context["opened_by"])
    browser.cookies.pop("sessionid")
    return mark


def log_in(browser: Client, url: str, username: str = "admin") -> Any:
    """Log in through the form, and follow the redirect."""
    fields = {"username": username, "password": "p", "next": url}
    return browser.post("/login/", fields, follow=True)


def test_a_new_webhook_comes_back_after_the_login_and_is_saved(browser: Client) -> None:
    mark = opened(browser, CREATE)
    typed = posted(**{**BASIC, "name": "Typed"}, opened_by=mark)
    answer = browser.post(CREATE, typed)
    assert answer["Location"] == f"/login/?next={CREATE}"
    page = log_in(browser, CREATE)
    assert 'value="Typed"' in page.text
    assert "Not saved" in page.text
    assert BASIC["basic_password"] not in page.text
    assert not Webhook.objects.exists()
    again = {**typed, "basic_password": "", "draft": draft_of(page)}
    assert browser.post(CREATE, again).status_code == 302
    assert Webhook.objects.get().credential.basic_password == BASIC["basic_password"]


def test_changes_to_a_webhook_come_back_once(browser: Client) -> None:
    webhook = make_webhook(name="CRM")
    mark = opened(browser, edit_url(webhook))
    browser.post(edit_url(webhook), posted(name="Typed", opened_by=mark))
    page = log_in(browser, edit_url(webhook))
    assert 'value="Typed"' in page.text
    assert 'value="Typed"' not in browser.get(edit_url(webhook)).text
    webhook.refresh_from_db()
    assert webhook.name == "CRM"


@pytest.mark.parametrize("name", ["authorize", "send_test_mail"])
def test_a_form_sent_by_another_button_comes_back_too(browser: Client, name: str) -> None:
    webhook = make_webhook(name="CRM")
    row = webhook.credential if name == "authorize" else webhook
    url = reverse(f"webhooks:{name}", args=[row.pk])
    mark = opened(browser, edit_url(webhook))
    answer = browser.post(url, posted(name="Typed", opened_by=mark, action=name))
    assert answer["Location"] == f"/login/?next={edit_url(webhook)}"
    page = log_in(browser, edit_url(webhook))
    assert 'value="Typed"' in page.text
    assert "Not saved" in page.text
    assert Webhook.objects.get().name == "CRM"
    # Without a form, it leads to the login as any other button does.
    assert Client().post(url)["Location"] == f"/login/?next={url}"


def test_changes_to_a_webhook_that_was_deleted_come_back_after_it_is_restored(
    browser: Client,
) -> None:
    webhook = make_webhook(name="CRM")
    mark = str(browser.get(edit_url(webhook)).context["opened_by"])
    events.delete(webhook)
    typed = posted(**{**BASIC, "name": "Typed"}, opened_by=mark)
    page = browser.post(edit_url(webhook), typed)
    assert page.status_code == 404
    assert "“CRM” was deleted" in page.text
    assert "What you entered is back in the form once the webhook is restored." in page.text
    restore = reverse("webhooks:restore", args=[webhook.pk])
    assert f'action="{restore}"' in page.text
    page = browser.post(restore, {"next": edit_url(webhook)}, follow=True)
    assert 'value="Typed"' in page.text
    assert "the webhook had been deleted" in page.text
    again = {**typed, "basic_password": "", "draft": draft_of(page)}
    assert browser.post(edit_url(webhook), again).status_code == 302
    webhook.refresh_from_db()
    assert webhook.name == "Typed"
    assert Webhook.objects.get().credential.basic_password == BASIC["basic_password"]


def test_who_may_not_restore_a_deleted_webhook_learns_who_may() -> None:
    webhook = make_webhook(name="CRM")
    events.delete(webhook)
    page = logged_in("change_webhook", "view_webhook").get(edit_url(webhook))
    assert page.status_code == 404
    assert "ask somebody who may delete webhooks" in page.text
    assert reverse("webhooks:restore", args=[webhook.pk]) not in page.text
    events.purge(webhook)
    assert "Page not found" in logged_in("change_webhook", name="b").get(edit_url(webhook)).text


def test_a_connection_comes_back(browser: Client) -> None:
    url = reverse("webhooks:connection_create")
    mark = opened(browser, url)
    browser.post(url, {"name": "Typed", "allowed_hosts": "crm.example.com", "opened_by": mark})
    page = log_in(browser, url)
    assert 'value="Typed"' in page.text
    assert "crm.example.com" in page.text


def test_an_alert_channel_comes_back_and_is_not_saved(browser: Client) -> None:
    url = reverse("webhooks:alert_add", args=["telegram"])
    mark = opened(browser, url)
    browser.post(url, {"name": "Typed", "recipient": "@duty", "opened_by": mark})
    page = log_in(browser, url)
    assert 'value="Typed"' in page.text
    assert 'value="@duty"' in page.text
    assert not AlertChannel.objects.exists()


def test_a_changed_payload_comes_back_and_is_not_sent(browser: Client) -> None:
    delivery = make_delivery(make_webhook(), talk_seconds=7)
    url = reverse("webhooks:delivery_edit", args=[delivery.pk])
    mark = opened(browser, url)
    browser.post(url, {"payload": '{"talk_seconds": 8}', "opened_by": mark})
    page = log_in(browser, url)
    assert "{&quot;talk_seconds&quot;: 8}" in page.text
    assert Delivery.objects.get() == delivery


def test_a_file_has_to_be_chosen_again(browser: Client) -> None:
    url = reverse("webhooks:import")
    mark = opened(browser, url)
    file = SimpleUploadedFile("webhooks.json", b"{}")
    browser.post(url, {"text": "", "file": file, "opened_by": mark})
    assert "What you entered is back" not in log_in(browser, url).text


def test_a_pasted_import_comes_back_and_is_not_read(browser: Client) -> None:
    url = reverse("webhooks:import")
    mark = opened(browser, url)
    browser.post(url, {"text": '{"version": 1}', "opened_by": mark})
    page = log_in(browser, url)
    assert page.status_code == 200
    assert "{&quot;version&quot;: 1}</textarea>" in page.text
    assert "What you entered is back" in page.text
    assert not page.context["is_paused"]


@pytest.mark.parametrize("name", ["webhooks:resend_create", "webhooks:resend_create_for_all"])
def test_a_resend_comes_back_and_is_not_started(browser: Client, name: str) -> None:
    webhook = make_webhook()
    url = reverse(name, args=[webhook.pk] if name.endswith("create") else [])
    mark = opened(browser, url)
    browser.post(url, {"scope": "all", "since": "week", "rate": "17", "opened_by": mark})
    page = log_in(browser, url)
    assert page.context["form"].data["scope"] == "all"
    assert 'value="17"' in page.text
    assert not Resend.objects.exists()


def test_a_resend_of_a_selection_comes_back_and_is_not_started(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    url = reverse("webhooks:resend_selected")
    mark = opened(browser, f"{url}?delivery={delivery.pk}")
    fields = {"delivery": delivery.pk, "confirm": "1", "rate": "17", "opened_by": mark}
    browser.post(url, fields)
    page = log_in(browser, url)
    assert page.context["chosen"] == [delivery.pk]
    assert 'value="17"' in page.text
    assert not Resend.objects.exists()


def test_chosen_webhooks_come_back_and_are_left_as_they_are(browser: Client) -> None:
    chosen = [make_webhook(name=name) for name in ("One", "Two")]
    make_webhook(name="Three")
    found = f"{LIST}?q=o"
    fields = {"action": "pause", "webhook": [one.pk for one in chosen], "next": found}
    browser.post(BULK, {**fields, "opened_by": opened(browser, found)})
    page = log_in(browser, BULK)
    assert "Your selection is back" in page.text
    assert "Pause 2 webhooks?" in page.text
    assert "Deliveries go on hold until you resume." in page.text
    assert f'href="{found}"' in page.text
    assert Webhook.objects.active().count() == 3
    confirmed = {"action": "pause", "webhooks": page.context["ids"], "next": found}
    assert browser.post(BULK, {**confirmed, "is_confirmed": "1"})["Location"] == found
    assert list(Webhook.objects.active().values_list("name", flat=True)) == ["Three"]


def test_a_confirmed_deletion_comes_back_and_is_not_done(browser: Client) -> None:
    webhook = make_webhook(name="One")
    fields = {"action": "delete", "webhooks": str(webhook.pk), "is_confirmed": "1"}
    browser.post(BULK, {**fields, "opened_by": opened(browser, LIST)})
    assert "Delete 1 webhook?" in log_in(browser, BULK).text
    assert Webhook.objects.present().exists()


def test_deliveries_chosen_to_be_resent_come_back(browser: Client) -> None:
    delivery = settle(make_delivery(make_webhook()))
    url = reverse("webhooks:resend_selected")
    mark = opened(browser, reverse("webhooks:deliveries"))
    browser.post(url, {"delivery": delivery.pk, "opened_by": mark})
    page = log_in(browser, url)
    assert page.context["chosen"] == [delivery.pk]
    assert "Your selection is back" in page.text


@pytest.mark.parametrize(
    ("name", "back"), [("deliveries_cancel", "deliveries"), ("export", "list")]
)
def test_a_button_for_chosen_rows_leads_back_to_where_they_were_chosen(
    browser: Client, name: str, back: str
) -> None:
    delivery = make_delivery(make_webhook())
    found = reverse(f"webhooks:{back}") + "?q=crm"
    fields = {"delivery": delivery.pk, "webhook": delivery.webhook_id, "next": found}
    url = reverse(f"webhooks:{name}")
    browser.post(url, {**fields, "opened_by": opened(browser, found)})
    page = log_in(browser, url)
    assert page.redirect_chain[-1][0] == found
    assert "Make your selection again" in page.text
    delivery.refresh_from_db()
    assert delivery.status == Status.PENDING


def test_a_time_zone_comes_back_and_is_chosen_then(browser: Client) -> None:
    url = reverse("webhooks:time_zone")
    mark = opened(browser, url)
    typed = {"time_zone": "Asia/Tokyo", "next": "/integrations/webhooks/trash/"}
    browser.post(url, {**typed, "opened_by": mark})
    page = log_in(browser, url)
    assert "time_zone" not in browser.cookies
    assert page.context["form"]["time_zone"].value() == "Asia/Tokyo"
    assert browser.post(url, {**typed, "next": page.context["next"]})["Location"] == typed["next"]
    assert browser.cookies["time_zone"].value == "Asia/Tokyo"


def test_another_person_gets_nothing_of_it(browser: Client) -> None:
    get_user_model().objects.create_superuser("olena", password="p")
    mark = opened(browser, CREATE)
    browser.post(CREATE, posted(name="Of another", opened_by=mark))
    page = log_in(browser, CREATE, username="olena")
    assert page.status_code == 200
    assert "Of another" not in page.text


@pytest.mark.parametrize("mark", ["", "1", "1:made:up"])
def test_what_no_one_logged_in_had_opened_takes_no_room(client: Client, mark: str) -> None:
    client.post(CREATE, posted(name="Typed", opened_by=mark))
    assert not Session.objects.exists()


def test_what_a_closed_account_had_opened_takes_no_room(browser: Client) -> None:
    mark = opened(browser, CREATE)
    get_user_model().objects.update(is_active=False)
    before = Session.objects.count()
    browser.post(CREATE, posted(name="Typed", opened_by=mark))
    assert Session.objects.count() == before


def test_nothing_typed_is_readable_in_the_session(browser: Client) -> None:
    mark = opened(browser, CREATE)
    browser.post(CREATE, posted(**{**BASIC, "name": "Typed"}, opened_by=mark))
    kept = str(dict(SessionStore(browser.cookies["sessionid"].value)))
    assert "webhook_typed" in kept
    assert "Typed" not in kept
    assert BASIC["basic_password"] not in kept


def test_a_live_session_hands_out_a_token_that_saves(browser: Client) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.cookies = browser.cookies
    token = strict.get(SESSION).json()["csrf"]
    answer = strict.post(CREATE, posted(csrfmiddlewaretoken=token))
    assert answer.status_code == 302
    assert strict.post(CREATE, posted(csrfmiddlewaretoken="x" * 32)).status_code == 403


def test_a_session_that_ended_leads_to_the_login(client: Client) -> None:
    assert client.get(SESSION)["Location"].startswith("/login/")
