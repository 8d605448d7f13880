"""Send test over HTTP: the delivery that is made, and how the page shows it."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from tests.factories import change
from tests.ui.webhook_form.test_views import logged_in
from webhooks.models import Attempt, Delivery, Outcome, Status, Trigger, Webhook

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture
def webhook() -> Webhook:
    return Webhook.objects.create(name="CRM", url="http://127.0.0.1:9/hook")


def send_url(webhook: Webhook) -> str:
    return reverse("webhooks:send_test", args=[webhook.pk])


def result_url(delivery: Delivery) -> str:
    return reverse("webhooks:test_result", args=[delivery.webhook_id, delivery.pk])


def sent(browser: Client, webhook: Webhook, **data: str) -> Delivery:
    browser.post(send_url(webhook), data)
    return Delivery.objects.latest("id")


def finish(delivery: Delivery, **overrides: Any) -> Attempt:
    """Record an attempt as the engine does."""
    values = {
        "number": 1,
        "started_at": timezone.now(),
        "total_ms": 12.5,
        "request_line": "POST http://127.0.0.1:9/hook",
        "request_headers": "Host: 127.0.0.1:9\nAuthorization: Basic ********",
        "status_code": 200,
        "response_headers": "HTTP/1.1 200 OK\nServer: test",
        "response_body": b'{"ok":true}',
        "outcome": Outcome.SUCCEEDED,
        **overrides,
    }
    is_success = values["outcome"] == Outcome.SUCCEEDED
    delivery.status = Status.SUCCEEDED if is_success else Status.FAILED
    delivery.next_attempt_at = None
    delivery.save()
    return Attempt.objects.create(delivery=delivery, **values)


def test_a_test_of_a_filtered_webhook_says_that_the_filter_is_not_asked(
    browser: Client, webhook: Webhook
) -> None:
    form = reverse("webhooks:edit", args=[webhook.pk])
    result = result_url(sent(browser, webhook))
    sentence = "Tests skip the filter."
    for address in (form, result):
        assert sentence not in browser.get(address).text
    condition = {"variable": "disposition", "operator": "equals", "value": "BUSY"}
    Webhook.objects.update(filter={"all": [condition]})
    for address in (form, result):
        assert browser.get(address).text.count(sentence) == 1


def test_a_test_of_a_webhook_without_event_types_is_the_test_event(
    browser: Client, webhook: Webhook
) -> None:
    answer = browser.post(send_url(webhook))
    delivery = Delivery.objects.get()
    assert (delivery.trigger, delivery.event.type) == (Trigger.TEST, "webhook.test")
    assert answer["Location"] == result_url(delivery)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["form.submitted", "call.outgoing.after"], "call.outgoing.after"),
        (["form.*"], "form.submitted"),
    ],
)
def test_a_test_is_the_sample_of_the_first_event_type_of_the_webhook(
    browser: Client, webhook: Webhook, patterns: list[str], expected: str
) -> None:
    Webhook.objects.update(event_types=patterns)
    assert sent(browser, webhook).event.type == expected


def test_the_form_offers_the_sample_that_its_preview_shows(
    browser: Client, webhook: Webhook
) -> None:
    Webhook.objects.update(event_types=["form.submitted"])
    page = browser.get(reverse("webhooks:edit", args=[webhook.pk])).text
    assert '<option value="form.submitted" selected>' in page.partition('id="test-event"')[2]


def test_a_test_can_be_the_sample_of_an_event_type(browser: Client, webhook: Webhook) -> None:
    delivery = sent(browser, webhook, test_event_type="call.incoming.after")
    assert delivery.event.type == "call.incoming.after"
    assert browser.post(send_url(webhook), {"test_event_type": "no.such"}).status_code == 400


def test_htmx_gets_a_panel_that_asks_until_there_is_a_result(
    browser: Client, webhook: Webhook
) -> None:
    panel = browser.post(send_url(webhook), headers={"HX-Request": "true"})
    delivery = Delivery.objects.get()
    assert f'hx-get="{result_url(delivery)}" hx-trigger="every 300ms"' in panel.text
    assert browser.get(result_url(delivery), headers={"HX-Request": "true"}).status_code == 204
    finish(delivery)
    panel = browser.get(result_url(delivery), headers={"HX-Request": "true"})
    assert "hx-get" not in panel.text
    assert "<html" not in panel.text
    assert "Succeeded" in panel.text


def test_after_fifteen_seconds_the_panel_stops_asking(browser: Client, webhook: Webhook) -> None:
    delivery = sent(browser, webhook)
    Delivery.objects.update(created_at=timezone.now() - timedelta(seconds=16))
    panel = browser.get(result_url(delivery), headers={"HX-Request": "true"})
    assert "hx-get" not in panel.text
    assert "Check again" in panel.text


@pytest.mark.database("postgres")
def test_the_panel_asks_also_where_the_clock_is_ahead_of_the_databases(
    browser: Client, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery, real = sent(browser, webhook), timezone.now
    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(minutes=2))
    panel = browser.get(result_url(delivery), headers={"HX-Request": "true"})
    assert panel.status_code == 204


def test_without_javascript_the_page_reloads_itself_until_the_result(
    browser: Client, webhook: Webhook
) -> None:
    delivery = sent(browser, webhook)
    assert '<noscript><meta http-equiv="refresh"' in browser.get(result_url(delivery)).text
    finish(delivery)
    page = browser.get(result_url(delivery)).text
    assert "http-equiv" not in page
    assert "POST http://127.0.0.1:9/hook" in page
    assert "<i>Authorization:</i> Basic ********" in page
    assert "webhook.test" in page
    assert "HTTP/1.1 200 OK" in page


def test_what_a_receiver_answers_is_text(browser: Client, webhook: Webhook) -> None:
    delivery = sent(browser, webhook)
    finish(
        delivery,
        response_headers="HTTP/1.1 500 No\nX: <script>alert(1)</script>",
        response_body=b"<img src=x onerror=alert(2)>\x1b[31m\xff\xe2\x80\xae",
        outcome=Outcome.SERVER_ERROR,
        status_code=500,
        error="The receiver answered <b>500</b>.",
    )
    page = browser.get(result_url(delivery)).text
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>500" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page


def test_screen_readers_hear_the_verdict_and_not_every_header(
    browser: Client, webhook: Webhook
) -> None:
    delivery = sent(browser, webhook)
    finish(delivery)
    page = browser.get(result_url(delivery), headers={"HX-Request": "true"})
    verdict, _silent, exchange = page.text.partition('aria-live="off"')
    assert "Succeeded" in verdict
    assert "Server" not in verdict
    assert "Server" in exchange


def test_payloads_are_for_those_who_may_see_them(webhook: Webhook) -> None:
    browser = logged_in("test_webhook", "view_webhook")
    delivery = sent(browser, webhook)
    finish(delivery)
    page = browser.get(result_url(delivery)).text
    assert "HTTP/1.1 200" in page
    assert "HTTP/1.1 200 OK" not in page
    assert "&quot;ok&quot;" not in page
    assert "You have no permission to see payloads." in page


def test_a_webhook_without_a_token_says_so_instead_of_waiting(
    browser: Client, webhook: Webhook
) -> None:
    change(webhook.credential, authorization_type="oauth2")
    panel = browser.post(send_url(webhook), headers={"HX-Request": "true"})
    assert "Press Get new access token first." in panel.text
    answer = browser.post(send_url(webhook))
    assert answer["Location"] == reverse("webhooks:edit", args=[webhook.pk]) + "#token"
    assert "Press Get new access token first." in browser.get(answer["Location"]).text
    assert not Delivery.objects.exists()


def test_client_credentials_need_no_token_before_a_test(browser: Client, webhook: Webhook) -> None:
    change(webhook.credential, authorization_type="oauth2", grant_type="client_credentials")
    browser.post(send_url(webhook))
    assert Delivery.objects.get().trigger == Trigger.TEST


def test_who_may_send_no_tests_has_no_button(webhook: Webhook) -> None:
    browser = logged_in("view_webhook", "change_webhook")
    assert send_url(webhook) not in browser.get(reverse("webhooks:edit", args=[webhook.pk])).text


@pytest.mark.parametrize(("sandbox_url", "is_offered"), [("http://127.0.0.1:9", True), ("", False)])
def test_a_test_that_went_to_the_sandbox_leads_to_its_receiver(
    browser: Client, webhook: Webhook, settings: Settings, sandbox_url: str, is_offered: bool
) -> None:
    settings.WEBHOOKS_SANDBOX_URL = sandbox_url
    delivery = sent(browser, webhook)
    finish(delivery)
    assert ("Open the receiver" in browser.get(result_url(delivery)).text) is is_offered
    Webhook.objects.update(url="https://crm.example.com/hook")
    assert "Open the receiver" not in browser.get(result_url(delivery)).text
