"""The alerts page: channels of each kind, their tests, and what is never shown."""

import re

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from tests.people import logged_in
from tests.sandbox import Receiver
from webhooks import events, network
from webhooks.alerts import channels
from webhooks.models import AlertChannel, AuditEntry

pytestmark = pytest.mark.django_db

ALERTS = reverse("webhooks:alerts")


def add(browser: Client, kind: str, **fields: str) -> AlertChannel:
    answer = browser.post(reverse("webhooks:alert_add", args=[kind]), fields)
    assert answer.status_code == 302, answer.text
    return AlertChannel.objects.get()


def test_an_address_is_added_tested_and_removed(browser: Client) -> None:
    channel = add(browser, "email", recipient="ops@example.com")
    answer = browser.post(reverse("webhooks:alert_test", args=[channel.pk]), follow=True)
    assert "The test for “ops@example.com” was accepted." in answer.text
    assert mail.outbox[0].to == ["ops@example.com"]
    delete = reverse("webhooks:alert_delete", args=[channel.pk])
    assert f'href="{delete}"' in browser.get(ALERTS).text
    assert "Delete “ops@example.com”?" in browser.get(delete).text
    assert AlertChannel.objects.filter(pk=channel.pk).exists()
    answer = browser.post(delete, follow=True)
    assert "“ops@example.com” gets no more alerts." in answer.text
    assert "No alert destinations yet" in answer.text
    actions = AuditEntry.objects.filter(object_type="alertchannel").order_by("pk")
    assert list(actions.values_list("action", flat=True)) == ["created", "tested", "deleted"]


def test_a_url_is_kept_sealed_and_never_shown(browser: Client, receiver: Receiver) -> None:
    channel = add(browser, "slack", name="Ops", secret=f"{receiver.url}/services/T0KEN")
    edit = reverse("webhooks:alert_edit", args=[channel.pk])
    for page in (ALERTS, edit):
        assert "T0KEN" not in browser.get(page).text
    assert f"{receiver.url}/••••" in browser.get(ALERTS).text
    browser.post(edit, {"name": "Night shift", "secret": ""})
    channel.refresh_from_db()
    assert (channel.name, channel.secret) == ("Night shift", f"{receiver.url}/services/T0KEN")
    browser.post(reverse("webhooks:alert_test", args=[channel.pk]))
    [request] = receiver.requests()
    assert b"Test: alerts arrive here" in request.body


def test_a_url_can_be_shown_while_it_is_typed(browser: Client) -> None:
    page = browser.get(reverse("webhooks:alert_add", args=["webhook"])).text
    assert "New alert destination: Webhook URL</h1>" in page
    assert "data-reveal" in page
    assert "webhook_form/secret.js" in page


def test_a_stored_url_cannot_be_cleared(browser: Client, receiver: Receiver) -> None:
    channel = add(browser, "slack", name="Ops", secret=f"{receiver.url}/services/T0KEN")
    edit = reverse("webhooks:alert_edit", args=[channel.pk])
    assert "secret-clear" not in browser.get(edit).text
    browser.post(edit, {"name": "Ops", "secret": "", "secret-clear": "on"})
    channel.refresh_from_db()
    assert channel.secret == f"{receiver.url}/services/T0KEN"


def test_only_who_may_add_a_destination_sees_the_menu(browser: Client) -> None:
    menu = reverse("webhooks:alert_add", args=["slack"])
    assert browser.get(ALERTS).text.count(menu) == 1
    add(browser, "email", recipient="ops@example.com")
    assert browser.get(ALERTS).text.count(menu) == 1
    AlertChannel.objects.all().delete()
    assert menu not in logged_in("view_webhook", name="reader").get(ALERTS).text


def test_a_test_that_is_refused_says_why(browser: Client, receiver: Receiver) -> None:
    channel = add(browser, "webhook", name="Ops", secret=f"{receiver.url}/status/404")
    answer = browser.post(reverse("webhooks:alert_test", args=[channel.pk]), follow=True)
    assert "refused the request with 404" in answer.text


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("email", {"recipient": "nobody"}),
        ("slack", {"name": "Ops", "secret": "http://169.254.169.254/"}),
        ("webhook", {"name": "Ops", "secret": ""}),
        ("telegram", {"name": "Ops", "secret": "not a token", "recipient": "-1001"}),
        ("telegram", {"name": "Ops", "secret": "1234567:" + "a" * 35, "recipient": "a chat"}),
    ],
)
def test_what_can_reach_no_one_is_refused(
    browser: Client, kind: str, fields: dict[str, str]
) -> None:
    answer = browser.post(reverse("webhooks:alert_add", args=[kind]), fields)
    assert answer.status_code == 422
    assert not AlertChannel.objects.exists()


def test_a_mistyped_recipient_is_explained_in_our_words(browser: Client) -> None:
    answer = browser.post(reverse("webhooks:alert_add", args=["email"]), {"recipient": "nobody"})
    assert "Enter an email address, like ops@example.com." in answer.text


PLAIN = "http://chat.example.com/hooks/T0KEN"


@pytest.mark.parametrize("kind", ["slack", "teams", "webhook"])
def test_a_url_over_plain_http_needs_a_tick(
    browser: Client, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "check_url", lambda url, **_: network.parse_url(url))
    form = {"name": "Ops", "secret": PLAIN}
    address = reverse("webhooks:alert_add", args=[kind])
    assert "accepts_plain_http" not in browser.get(address).text
    answer = browser.post(address, form)
    [sentence] = answer.context["form"].errors["accepts_plain_http"]
    assert sentence.startswith("http://chat.example.com is not encrypted")
    assert not AlertChannel.objects.exists()

    channel = add(browser, kind, **form, accepts_plain_http="on")

    assert channel.accepts_plain_http
    edit = reverse("webhooks:alert_edit", args=[channel.pk])
    assert "accepts_plain_http" in browser.get(edit).text
    assert browser.post(edit, {"name": "Night shift", "secret": ""}).status_code == 422
    browser.post(edit, {"name": "Night shift", "secret": PLAIN.replace("http", "https", 1)})
    channel.refresh_from_db()
    assert not channel.accepts_plain_http
    assert "accepts_plain_http" not in browser.get(edit).text


def test_the_first_wrong_field_has_the_focus(browser: Client) -> None:
    page = browser.post(reverse("webhooks:alert_add", args=["slack"]), {"name": "Ops"})
    [focused] = re.findall(r"<input[^>]*autofocus[^>]*>", page.text)
    assert 'name="secret"' in focused


def test_my_own_address_is_filled_in(browser: Client) -> None:
    from django.contrib.auth import get_user_model

    get_user_model().objects.update(email="me@example.com")
    address = f"{reverse('webhooks:alert_add', args=['email'])}?mine=1"
    assert address in browser.get(ALERTS).text
    assert 'value="me@example.com"' in browser.get(address).text


def test_a_deleted_webhook_stays_chosen_when_its_channel_is_saved(browser: Client) -> None:
    kept, gone = make_webhook(name="Kept"), make_webhook(name="Gone")
    channel = add(browser, "email", recipient="ops@example.com", webhooks=str(gone.pk))
    events.delete(gone)
    edit = reverse("webhooks:alert_edit", args=[channel.pk])
    page = browser.get(edit)
    assert "Gone (deleted)" in page.text
    chosen = [str(one) for one in page.context["form"]["webhooks"].value()]
    browser.post(edit, {"recipient": "night@example.com", "webhooks": chosen})
    # Without a webhook it would be a channel of all.
    assert list(channel.webhooks.all()) == [gone]
    assert not channels.covering([kept.pk]).exists()
    assert "Gone (deleted)" not in browser.get(reverse("webhooks:alert_add", args=["email"])).text


def test_the_audit_trail_names_a_channel_and_can_be_filtered_by_it(browser: Client) -> None:
    add(browser, "email", recipient="ops@example.com")
    admin = logged_in(name="operator", is_staff=True, is_superuser=True)
    trail = reverse("admin:webhooks_auditentry_changelist")
    page = admin.get(trail, {"kind": "alertchannel"}).text
    assert '<td class="field-kind">Alert channel</td>' in page
    assert "ops@example.com" in page
    assert "ops@example.com" not in admin.get(trail, {"kind": "webhook"}).text


def test_channels_are_listed_by_name(browser: Client) -> None:
    for address in ("night@example.com", "all@example.com", "ops@example.com"):
        AlertChannel.objects.create(kind="email", name=address, recipient=address)
    listed = [one.name for one in browser.get(ALERTS).context["channels"]]
    assert listed == ["all@example.com", "night@example.com", "ops@example.com"]


def test_another_chat_does_not_inherit_the_error_of_the_earlier_one(browser: Client) -> None:
    token = "123456789:AAE-abcdefghijklmnopqrstuvwxyz"
    channel = add(browser, "telegram", name="Ops", secret=token, recipient="@ops")
    AlertChannel.objects.update(last_error="http_refused status=400")
    edit = reverse("webhooks:alert_edit", args=[channel.pk])
    browser.post(edit, {"name": "Operators", "recipient": "@ops"})
    assert "Not delivered" in browser.get(ALERTS).text
    browser.post(edit, {"name": "Operators", "recipient": "@operators"})
    assert "Not delivered" not in browser.get(ALERTS).text
