"""The page of a webhook: its problems, its backlog, and how to solve both."""

import datetime as dt
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_credential, make_delivery, make_webhook
from tests.ui.webhook_form.test_views import logged_in
from tests.ui.webhook_list.test_bulk import statuses
from webhooks import events
from webhooks.alerts import notifications
from webhooks.delivery import holds
from webhooks.delivery_log import figures
from webhooks.models import (
    AlertChannel,
    AuditEntry,
    Credential,
    Delivery,
    HourlyCount,
    Incident,
    OAuthToken,
    PauseReason,
    Status,
    Trigger,
    Webhook,
    WebhookState,
)
from webhooks.models.messages import dump
from webhooks.ui import status
from webhooks.ui.webhook_detail import views

pytestmark = pytest.mark.django_db


@pytest.fixture
def looker() -> Client:
    return logged_in("view_webhook")


def url(name: str, webhook: Webhook, *more: str) -> str:
    return reverse(f"webhooks:{name}", args=[webhook.pk, *more])


def page_of(webhook: Webhook, browser: Client) -> Any:
    return browser.get(url("detail", webhook))


def words(page: Any) -> str:
    """Return the text of a page with whitespace collapsed."""
    return " ".join(page.text.split())


def lost_grant(**fields: Any) -> Webhook:
    webhook = make_webhook(authorization_type="oauth2", **fields)
    OAuthToken.objects.create(
        credential=webhook.credential,
        state="needs_reauthorization",
        last_error="The grant was revoked.",
    )
    return webhook


def failing(**fields: Any) -> Webhook:
    webhook = make_webhook(**fields)
    WebhookState.objects.create(
        webhook=webhook,
        failing_since_at=timezone.now() - dt.timedelta(hours=2),
        last_error="The receiver failed with 500.",
    )
    return webhook


def hold(webhook: Webhook, reason: str, count: int = 1) -> None:
    for _ in range(count):
        row = Delivery.objects.filter(pk=make_delivery(webhook).pk)
        row.update(status=Status.HELD, hold_reason=reason, next_attempt_at=None)


def test_a_pause_is_counted_behind_many_that_wait_for_a_token(
    looker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_COUNTED", 3)
    webhook = make_webhook()
    hold(webhook, "reauthorization", 6)
    events.pause(webhook)
    hold(webhook, "paused", 2)
    context = page_of(webhook, looker).context
    assert (context["held_by_pause_text"], context["asks_before_resume"]) == ("2", True)
    assert context["held"] == "3+"


# ---- Incidents -------------------------------------------------------------------------------


def test_a_lost_grant_is_reported_in_plain_words_with_its_button(browser: Client) -> None:
    webhook = lost_grant(alert_recipients=["ops@example.com"])
    notifications.run()
    page = page_of(webhook, browser)
    [notice] = page.context["notices"]
    assert (notice["kind"], notice["action"]) == ("danger", "authorize")
    assert "Needs re-authorization since" in page.text
    assert "The grant was revoked." in page.text
    assert "Recipients were notified" in page.text
    assert f'action="{reverse("webhooks:authorize", args=[webhook.credential_id])}"' in page.text


def test_a_lost_grant_of_a_connection_is_shown_on_each_of_its_webhooks(browser: Client) -> None:
    shared = make_credential(authorization_type="oauth2")
    OAuthToken.objects.create(credential=shared, state="needs_reauthorization", last_error="Lost.")
    webhook = make_webhook(credential=shared)
    notifications.run()
    page = page_of(webhook, browser)
    assert [notice["action"] for notice in page.context["notices"]] == ["authorize"]
    assert f'action="{reverse("webhooks:authorize", args=[shared.pk])}"' in page.text
    assert page_of(make_webhook(), browser).context["notices"] == []


def test_a_failing_webhook_says_the_error_and_since_when(browser: Client) -> None:
    webhook = failing()
    notifications.run()
    page = page_of(webhook, browser)
    state = WebhookState.objects.get()
    assert state.failing_since_at is not None
    since = figures.time_or_day(state.failing_since_at)
    assert f"Failing since {since}" in page.text
    assert f"No success since {since}." in page.text
    assert ">(<time" in words(page)
    assert "The receiver failed with 500." in page.text
    assert "No alerts" in page.text
    assert url("edit", webhook) + "#id_alert_recipients" in page.text


def test_a_webhook_that_fails_too_little_for_an_alert_says_it_too(browser: Client) -> None:
    webhook = failing()
    tried, waiting = make_delivery(webhook), make_delivery(webhook)
    soon = timezone.now() + dt.timedelta(minutes=5, seconds=30)
    Delivery.objects.update(next_attempt_at=soon + dt.timedelta(hours=1))
    Delivery.objects.filter(pk=tried.pk).update(attempt_count=1, next_attempt_at=soon)
    page = page_of(webhook, browser)
    [notice] = page.context["notices"]
    state = WebhookState.objects.get()
    assert (notice["since"], notice["tried"]) == (state.failing_since_at, tried.pk)
    assert "Last error: The receiver failed with 500." in page.text
    assert "Next attempt: <time" in words(page)
    panel = page.text.partition('id="problems"')[2].partition("</dl>")[0]
    assert reverse("webhooks:delivery", args=[tried.pk]) in panel
    assert waiting.pk not in panel
    assert url("edit", webhook) in panel
    reader = page_of(webhook, logged_in("view_webhook", name="reader")).text
    assert "Open the last delivery" not in reader


def test_a_webhook_on_hold_is_not_called_failing_too(browser: Client) -> None:
    webhook = lost_grant()
    WebhookState.objects.create(webhook=webhook, failing_since_at=timezone.now())
    assert page_of(webhook, browser).context["notices"] == []


def test_the_banner_of_a_failing_webhook_says_how_it_is_by_now(browser: Client) -> None:
    webhook = failing(alert_after_failures=3)
    state = WebhookState.objects.filter(webhook=webhook)
    state.update(failures_in_a_row=3)
    notifications.run()
    state.update(failures_in_a_row=71, last_error="The receiver took too long.")
    [notice] = page_of(webhook, browser).context["notices"]
    assert notice["sentence"] == (
        "71 attempts in a row failed. Last error: The receiver took too long."
    )
    assert notice["since"] == state.get().failing_since_at


def test_the_banner_is_in_the_readers_language(browser: Client) -> None:
    webhook = failing(alert_after_failures=1)
    error = dump("not_connected", host="127.0.0.1", reason="Connection refused")
    WebhookState.objects.update(failures_in_a_row=8, last_error=error)
    notifications.run()
    page = browser.get(url("detail", webhook), headers={"Accept-Language": "uk"})
    [notice] = page.context["notices"]
    assert notice["sentence"].startswith("Поспіль невдалі 8 спроб. Остання помилка: Не вдалося")
    assert notice["sentence"].endswith("127.0.0.1: Connection refused.")


def test_the_banner_of_a_share_of_failures_counts_them_from_zero(browser: Client) -> None:
    webhook = make_webhook(alert_failure_percent=20)
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    count = {"webhook": webhook, "hour": hour, "duration_step": 1}
    HourlyCount.objects.create(outcome="server_error", count=30, **count)
    notifications.run()
    HourlyCount.objects.create(outcome="succeeded", count=30, **count)
    [notice] = page_of(webhook, browser).context["notices"]
    sentence = "50% of the attempts in this hour and the one before failed: 30 of 60."
    assert sentence in notice["sentence"]


def test_the_banner_of_a_lost_grant_says_what_the_provider_answered_last(browser: Client) -> None:
    webhook = lost_grant()
    notifications.run()
    OAuthToken.objects.update(last_error="The client was removed.")
    [notice] = page_of(webhook, browser).context["notices"]
    assert notice["sentence"] == "The client was removed."


def test_muted_alerts_are_said_to_be_muted(browser: Client) -> None:
    webhook = failing(alert_recipients=["ops@example.com"], alerts_are_muted=True)
    notifications.run()
    assert "Its alerts are muted." in page_of(webhook, browser).text


def test_a_mute_of_a_webhook_does_not_mute_its_channels(browser: Client) -> None:
    AlertChannel.objects.create(kind="email", name="Ops", recipient="night@example.com")
    webhook = failing(alert_recipients=["ops@example.com"], alerts_are_muted=True)
    notifications.run()
    text = page_of(webhook, browser).text
    assert "Recipients were notified" in text
    assert "Its alerts are muted." not in text


def test_the_recipients_of_a_connection_are_those_of_its_lost_grant(browser: Client) -> None:
    connection = make_credential(
        authorization_type="oauth2", alert_recipients=["ops@example.com"], alerts_are_muted=True
    )
    webhook = make_webhook(credential=connection)
    OAuthToken.objects.create(credential=connection, state="needs_reauthorization")
    notifications.run()
    assert "Its alerts are muted." in page_of(webhook, browser).text
    Credential.objects.update(alerts_are_muted=False)
    Incident.objects.update(notified_at=None)
    notifications.run()
    text = page_of(webhook, browser).text
    assert "Recipients were notified" in text
    assert "No alerts: the webhook has no recipients." not in text


def test_what_is_over_is_not_shown_until_the_incident_closes(browser: Client) -> None:
    webhook = lost_grant()
    notifications.run()
    OAuthToken.objects.update(state="valid", last_error="")
    assert page_of(webhook, browser).context["notices"] == []


def test_a_closed_incident_is_not_shown(browser: Client) -> None:
    webhook = lost_grant()
    notifications.run()
    Incident.objects.update(closed_at=timezone.now())
    assert page_of(webhook, browser).context["notices"] == []


def test_an_error_of_outside_is_escaped(browser: Client) -> None:
    webhook = failing()
    WebhookState.objects.update(last_error="<script>x\u202e")
    notifications.run()
    page = page_of(webhook, browser)
    assert "<script>x" not in page.text
    assert "\u202e" not in page.text


def test_who_may_only_look_sees_the_problem_and_no_button(looker: Client) -> None:
    webhook = lost_grant()
    notifications.run()
    page = page_of(webhook, looker)
    assert "Needs re-authorization since" in page.text
    assert reverse("webhooks:authorize", args=[webhook.credential_id]) not in page.text


# ---- Order -----------------------------------------------------------------------------------


def blocked(behind: int = 3) -> tuple[Webhook, Delivery]:
    """Return an ordered webhook whose head waits for its next attempt."""
    webhook = make_webhook(is_ordered=True)
    head = make_delivery(webhook)
    later = timezone.now() + dt.timedelta(minutes=5)
    Delivery.objects.filter(pk=head.pk).update(
        next_attempt_at=later,
        attempt_count=2,
        failure_count=2,
        outcome="server_error",
        status_code=503,
    )
    for _ in range(behind):
        make_delivery(webhook)
    head.refresh_from_db()
    return webhook, head


def test_a_failing_head_says_what_it_blocks_and_until_when(browser: Client) -> None:
    webhook, head = blocked()
    text = words(page_of(webhook, browser))
    assert f"Delivery {head.pk} blocks the 3 behind it." in text
    assert "It was tried 2 times, last: Server error (503)." in text
    assert f"{head.next_attempt_at:%Y-%m-%d %H:%M:%S}" in text
    assert url("send_blocking", webhook, head.pk) in text
    assert url("cancel_blocking", webhook, head.pk) in text


def test_a_head_that_is_being_tried_offers_no_button(browser: Client) -> None:
    webhook, head = blocked()
    Delivery.objects.filter(pk=head.pk).update(status=Status.SENDING, lease="l")
    text = words(page_of(webhook, browser))
    assert "It is being sent right now." in text
    assert url("send_blocking", webhook, head.pk) not in text


@pytest.mark.parametrize("is_ordered", [True, False])
def test_nothing_is_said_to_be_blocked_when_nothing_is(browser: Client, is_ordered: bool) -> None:
    webhook, _head = blocked(behind=0 if is_ordered else 3)
    Webhook.objects.update(is_ordered=is_ordered)
    assert page_of(webhook, browser).context["blocking"] is None


def test_a_waiting_queue_without_a_failure_is_no_block(browser: Client) -> None:
    webhook = make_webhook(is_ordered=True)
    for _ in range(3):
        make_delivery(webhook)
    assert page_of(webhook, browser).context["blocking"] is None


def test_the_head_is_sent_now(browser: Client) -> None:
    webhook, head = blocked()
    page = browser.post(url("send_blocking", webhook, head.pk), follow=True)
    head.refresh_from_db()
    assert head.next_attempt_at is not None
    assert head.next_attempt_at <= timezone.now()
    assert f"The next attempt of {head.pk} starts now." in page.text


def test_the_head_is_cancelled_and_the_next_is_free(browser: Client) -> None:
    webhook, head = blocked()
    page = browser.post(url("cancel_blocking", webhook, head.pk), follow=True)
    head.refresh_from_db()
    assert head.status == Status.CANCELLED
    assert page.context["blocking"] is None
    again = browser.post(url("cancel_blocking", webhook, head.pk), follow=True)
    assert "no longer waiting" in again.text


def test_a_head_has_no_button_that_its_reader_may_not_press(looker: Client) -> None:
    webhook, head = blocked()
    for name in ("send_blocking", "cancel_blocking"):
        assert url(name, webhook, head.pk) not in page_of(webhook, looker).text


# ---- Held and parked -------------------------------------------------------------------------


def test_held_deliveries_are_counted_by_reason_with_what_releases_them(browser: Client) -> None:
    webhook = make_webhook(authorization_type="oauth2")
    hold(webhook, "no_token", 2)
    hold(webhook, "reauthorization", 1)
    page = page_of(webhook, browser)
    groups = {str(group["label"]): group["count"] for group in page.context["waiting_groups"]}
    assert groups == {
        "Needs re-authorization": "1",
        "No access token yet": "2",
    }
    assert page.context["held"] == "3"
    assert "Press Get new access token to send them in order." in page.text


def test_what_is_held_without_a_token_problem_is_not_blamed_on_oauth(browser: Client) -> None:
    webhook = make_webhook()
    hold(webhook, "misconfigured", 1)
    Webhook.objects.filter(pk=webhook.pk).update(filter={"nonsense": 1})
    [group] = page_of(webhook, browser).context["waiting_groups"]
    said = (group["label"], group["release"])
    assert said == ("Misconfigured", "Correct the settings to send them in order.")


def test_parked_deliveries_lead_to_the_log(browser: Client) -> None:
    webhook = make_webhook()
    row = make_delivery(webhook)
    Delivery.objects.filter(pk=row.pk).update(status=Status.PARKED, next_attempt_at=None)
    page = page_of(webhook, browser)
    assert page.context["parked"] == "1"
    log = f"{reverse('webhooks:deliveries')}?webhook={webhook.pk}&amp;status=parked"
    assert log in page.text
    found = browser.get(log.replace("&amp;", "&"))
    assert [one.pk for one in found.context["page"].rows] == [row.pk]


def test_the_admin_shows_parked_deliveries_to_staff_with_resend() -> None:
    staff = logged_in(is_superuser=True)
    user = staff.get(reverse("webhooks:list")).context["user"]
    user.is_staff = True
    user.save()
    webhook = make_webhook()
    row = make_delivery(webhook)
    Delivery.objects.filter(pk=row.pk).update(status=Status.PARKED, next_attempt_at=None)
    page = staff.get(reverse("admin:webhooks_delivery_change", args=[row.pk]))
    assert reverse("admin:webhooks_delivery_resend", args=[row.pk]) in page.text


# ---- Pause and resume ------------------------------------------------------------------------


def paused(reason: PauseReason = PauseReason.PERSON, held: int = 2) -> Webhook:
    webhook = make_webhook()
    for _ in range(held):
        make_delivery(webhook)
    events.pause(webhook, reason)
    return webhook


def test_resuming_asks_what_happens_to_what_is_held(browser: Client) -> None:
    webhook = paused()
    page = page_of(webhook, browser)
    text = words(page)
    assert "2 deliveries are on hold because of the pause." in text
    assert "Resume and send the 2 in order" in text
    assert "Cancel the 2 and resume" in text
    # Only in this question: there is no second Resume at the head of the page.
    assert text.count(f'action="{url("resume", webhook)}"') == 2


def test_a_resume_that_does_not_say_what_is_sent_back_to_the_question(browser: Client) -> None:
    webhook = paused()
    answer = browser.post(url("resume", webhook))
    assert answer["Location"] == url("detail", webhook) + "#resume"
    webhook.refresh_from_db()
    assert not webhook.is_active
    assert statuses() == {"held"}


@pytest.mark.parametrize("step", ["pause", "resume"])
def test_a_button_of_a_page_that_is_out_of_date_says_that_nothing_changed(
    browser: Client, step: str
) -> None:
    webhook = make_webhook() if step == "resume" else paused()
    answer = browser.post(url(step, webhook), follow=True)
    state = "active" if step == "resume" else "paused"
    assert f"Nothing changed: “{webhook}” is {state} already." in answer.text
    assert not AuditEntry.objects.exists()


def test_held_deliveries_are_sent_on_resume(browser: Client) -> None:
    webhook = paused()
    page = browser.post(url("resume", webhook), {"held": "send"}, follow=True)
    assert "2 deliveries on hold are sent now" in page.text
    assert statuses() == {"pending"}


def test_held_deliveries_are_dropped_on_resume(browser: Client) -> None:
    webhook = paused()
    page = browser.post(url("resume", webhook), {"held": "cancel"}, follow=True)
    assert "2 deliveries on hold were cancelled" in page.text
    assert statuses() == {"cancelled"}
    webhook.refresh_from_db()
    assert webhook.is_active


def test_what_waits_for_a_token_is_neither_sent_nor_dropped_by_a_resume(browser: Client) -> None:
    webhook = paused(held=0)
    hold(webhook, "reauthorization")
    browser.post(url("resume", webhook), {"held": "cancel"})
    assert statuses() == {"held"}


def test_with_nothing_held_resume_is_one_click(browser: Client) -> None:
    webhook = paused(held=0)
    page = page_of(webhook, browser)
    assert 'id="resume"' not in page.text
    answer = browser.post(url("resume", webhook), follow=True)
    assert "is active again." in answer.text


@pytest.mark.parametrize("reason", [PauseReason.GONE, PauseReason.FAILING])
def test_after_a_pause_by_the_engine_a_test_comes_first(
    browser: Client, reason: PauseReason
) -> None:
    webhook = paused(reason)
    notifications.run()
    page = page_of(webhook, browser)
    text = words(page)
    assert "Test, then resume" in text
    assert "Tests are sent while the webhook is paused." in text
    assert text.count(f'action="{url("send_test", webhook)}"') == 1
    assert 'class="btn is-primary" type="submit" name="held"' not in text
    # The incident is explained here, and not in a second banner.
    assert page.context["notices"] == []
    assert "No alerts: the webhook has no recipients." in text


def test_a_test_that_succeeded_leads_to_resume(browser: Client) -> None:
    webhook = paused(PauseReason.GONE)
    probe = events.send_test(webhook)
    assert "A test is on its way." in words(page_of(webhook, browser))
    finished = {"next_attempt_at": None, "finished_at": timezone.now()}
    row = Delivery.objects.filter(pk=probe.pk, trigger=Trigger.TEST)
    row.update(status="failed", outcome="gone", status_code=410, **finished)
    assert "The receiver did not accept a test" in words(page_of(webhook, browser))
    row.update(status="succeeded", outcome="succeeded", status_code=200)
    text = words(page_of(webhook, browser))
    assert "The receiver accepted a test" in text
    assert 'class="btn is-primary" type="submit" name="held"' in text


def test_a_test_before_the_pause_proves_nothing(browser: Client) -> None:
    webhook = make_webhook()
    events.send_test(webhook)
    Webhook.objects.update(
        is_active=False,
        pause_reason=PauseReason.GONE,
        paused_at=timezone.now() + dt.timedelta(seconds=2),
    )
    webhook.refresh_from_db()
    page = page_of(webhook, browser)
    assert page.context["needs_test"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "All variables"),
        ({"parameters": [{"name": "a", "variable": "talk_seconds"}]}, "Chosen parameters"),
        ({"body_template": '{"a": 1}'}, "JSON body"),
    ],
)
def test_the_facts_say_what_is_sent(browser: Client, fields: dict[str, Any], expected: str) -> None:
    page = words(page_of(make_webhook(**fields), browser))
    assert f"<dt>What is sent</dt><dd>{expected}" in page


def test_the_facts_name_limits_and_recipients(browser: Client) -> None:
    webhook = make_webhook(rate_limit=10, alert_recipients=["ops@example.com"])
    page = page_of(webhook, browser)
    assert "At most 10 per second" in page.text
    assert "1 recipient" in page.text


def test_the_page_of_the_worst_webhook_has_few_queries(
    browser: Client, django_assert_max_num_queries: Any
) -> None:
    webhook, _head = blocked()
    OAuthToken.objects.create(
        credential=webhook.credential, state="needs_reauthorization", last_error="x"
    )
    WebhookState.objects.create(webhook=webhook, failing_since_at=timezone.now())
    Credential.objects.update(authorization_type="oauth2")
    Webhook.objects.update(pause_reason="", is_active=True)
    hold(webhook, "paused")
    notifications.run()
    page_of(webhook, browser)
    with django_assert_max_num_queries(16):
        assert page_of(webhook, browser).context["blocking"]


def test_a_reason_links_deliveries_for_readers_of_the_log_only(looker: Client) -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    address = url("why_not_sent", webhook)
    link = f'href="{reverse("webhooks:delivery", args=[delivery.pk])}"'
    page = looker.get(address, {"event": delivery.event_id}).text
    assert delivery.pk in page
    assert link not in page
    get_user_model().objects.get().user_permissions.add(
        Permission.objects.get(codename="view_delivery")
    )
    assert link in looker.get(address, {"event": delivery.event_id}).text


def test_a_webhook_without_recipients_of_its_own_may_have_channels(browser: Client) -> None:
    webhook = make_webhook()
    assert "No recipients" in page_of(webhook, browser).text
    AlertChannel.objects.create(kind="email", name="Ops", recipient="ops@example.com")
    page = page_of(webhook, browser).text
    assert "No recipients" not in page
    assert "Only the channels on the Alerts page" in page


@pytest.mark.parametrize(
    ("grant", "sentence"),
    [
        ("authorization_code", "No access token yet. Press Get new access token."),
        ("client_credentials", "No access token yet. The next delivery gets one."),
    ],
)
def test_a_missing_token_is_obtained_by_a_person_or_by_the_engine(
    browser: Client, grant: str, sentence: str
) -> None:
    webhook = make_webhook(authorization_type="oauth2", grant_type=grant)
    page = page_of(webhook, browser).text
    assert sentence in page
    assert ("Get new access token" in page) == (grant == "authorization_code")


def test_an_earlier_signing_secret_is_named_while_it_is_valid(browser: Client) -> None:
    webhook = make_webhook()
    events.rotate_signing_secret(webhook)
    sentence = "the previous one is valid until"
    assert sentence in words(page_of(webhook, browser))
    ended = timezone.now() - dt.timedelta(seconds=1)
    Webhook.objects.update(previous_signing_secrets_until=ended)
    assert sentence not in words(page_of(webhook, browser))


def test_a_login_without_a_password_is_not_called_oauth(browser: Client) -> None:
    webhook = make_webhook(authorization_type="basic", basic_login="pbx")
    make_delivery(webhook)
    Delivery.objects.update(status="held", hold_reason="misconfigured", next_attempt_at=None)
    [group] = page_of(webhook, browser).context["waiting_groups"]
    assert group["label"] == "Misconfigured"
    assert group["release"].startswith("There is no password or client secret")


def test_older_events_are_offered_only_if_there_are_any(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "EVENTS_PER_PAGE", 2)
    webhook = make_webhook()
    address = url("why_not_sent", webhook)
    made = [make_delivery(webhook).event_id for _ in range(4)]
    first = browser.get(address).context
    assert [event.pk for event, _verdict in first["rows"]] == made[:1:-1]
    second = browser.get(address, {"before": first["older"]}).context
    assert [event.pk for event, _verdict in second["rows"]] == made[1::-1]
    assert not second["older"]


@pytest.mark.parametrize(("held", "ending"), [("send", "sent now"), ("cancel", "cancelled")])
def test_a_resume_counts_no_deliveries_that_it_leaves_to_the_sweep(
    browser: Client, monkeypatch: pytest.MonkeyPatch, held: str, ending: str
) -> None:
    monkeypatch.setattr(holds, "ROWS_AT_ONCE", 2)
    webhook = make_webhook()
    events.pause(webhook)
    for _ in range(3):
        make_delivery(webhook)
    page = browser.post(url("resume", webhook), {"held": held}, follow=True)
    assert "At least 2 deliveries on hold" in page.text
    assert f"{ending}." in page.text.partition("At least 2 deliveries on hold")[2][:20]


# ---- One rule for Failing: the badge, the list, its filter, the page and the alerts ------------

_SHORT, _LONG = dt.timedelta(minutes=2), dt.timedelta(minutes=20)


@pytest.mark.parametrize(
    ("since", "fields", "failures", "is_failing"),
    [
        (_SHORT, {}, 1, False),
        (_SHORT, {}, 500, False),
        (_LONG, {}, 1, True),
        (_LONG, {"alert_after_failures": 5}, 4, False),
        (_SHORT, {"alert_after_failures": 5}, 5, True),
        (_LONG, {"alert_failure_percent": 50}, 3, False),
    ],
)
def test_a_webhook_is_called_failing_when_alerts_call_it_so(
    browser: Client, since: dt.timedelta, fields: dict[str, Any], failures: int, is_failing: bool
) -> None:
    webhook = make_webhook(name="CRM", alert_recipients=["ops@example.com"], **fields)
    WebhookState.objects.create(
        webhook=webhook,
        failing_since_at=timezone.now() - since,
        failures_in_a_row=failures,
        last_error="It answered 503.",
    )
    expected = ("danger", "Failing") if is_failing else ("warning", "Retrying")
    # Before and after the check that opens the incident.
    for _ in range(2):
        [row] = browser.get(reverse("webhooks:list")).context["rows"]
        assert (row["status"]["kind"], row["status"]["label"]) == expected
        page = page_of(webhook, browser)
        assert (page.context["status"]["kind"], page.context["status"]["label"]) == expected
        assert [notice["kind"] for notice in page.context["notices"]] == [expected[0]]
        attention = browser.get(reverse("webhooks:list"), {"status": "attention"})
        assert len(attention.context["rows"]) == is_failing
        notifications.run(timezone.now())
        assert Incident.objects.exists() == is_failing


def test_a_webhook_whose_share_of_failures_opened_an_incident_is_failing(browser: Client) -> None:
    webhook = make_webhook(alert_failure_percent=50)
    WebhookState.objects.create(webhook=webhook)
    moment = timezone.now()
    Incident.objects.create(webhook=webhook, kind="failing", opened_at=moment, message="Half fail.")
    judged = page_of(webhook, browser).context["status"]
    assert (judged["label"], judged["sentence"]) == ("Failing", "Too many attempts fail.")
    Incident.objects.update(closed_at=moment)
    assert page_of(webhook, browser).context["status"]["label"] == "Active"


def test_one_failed_attempt_of_a_webhook_that_works_is_retried(browser: Client) -> None:
    webhook = make_webhook()
    WebhookState.objects.create(
        webhook=webhook, failing_since_at=timezone.now(), last_error="It answered 503."
    )
    page = page_of(webhook, browser)
    [notice] = page.context["notices"]
    assert notice["headline"] == "The last attempt failed"
    assert notice["sentence"] == "It answered 503."
    assert "Failing" not in page.text.partition("<main")[2].partition('id="recent"')[0]
