"""What an incident stores: codes with parameters, shown as sentences in the reader's language."""

import datetime as dt
import json
from typing import Any

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from tests.admin.test_admin import staff
from tests.alerts.test_notifications import NOW, PEOPLE, failing
from tests.factories import make_webhook
from webhooks import events
from webhooks.alerts import notifications, problems
from webhooks.delivery import outcomes
from webhooks.models import Event, Incident, IncidentKind, OAuthToken, PauseReason, WebhookState
from webhooks.models.messages import dump, load

REFUSED = outcomes.of_status("refused", 404)
REFUSED_IN_ENGLISH = "The receiver refused the request with 404."
REFUSED_IN_UKRAINIAN = "Отримувач відхилив запит: 404."
CLIENT = dump("invalid_client", said="no such client")
COUNT = dump("attempts_failed", count=3)
# The stored code, and its sentence in English and in Ukrainian.
MESSAGES = [
    (COUNT, "3 attempts in a row failed.", "Поспіль невдалі 3 спроби."),
    (
        dump("failing_since", time="2026-11-25 10:00"),
        "No success since 2026-11-25 10:00 UTC.",
        "Жодного успіху від 2026-11-25 10:00 UTC.",
    ),
    (
        dump("share_failed", percent=80, failed=8, all=10),
        "80% of the attempts in this hour and the one before failed: 8 of 10.",
        "За цю й попередню години невдалі 80 % спроб: 8 із 10.",
    ),
    (
        dump("paused", reason="gone"),
        "The receiver answered 410 Gone.",
        "Отримувач відповів 410 Gone.",
    ),
    (dump("refresh_token_ends", date="2026-12-01"), "The refresh token ends on 2026-12-01.", ""),
    (
        dump("with_last_error", message=COUNT, error=REFUSED),
        f"3 attempts in a row failed. Last error: {REFUSED_IN_ENGLISH}",
        f"Поспіль невдалі 3 спроби. Остання помилка: {REFUSED_IN_UKRAINIAN}",
    ),
    (
        dump("with_last_error", message=COUNT, error=CLIENT),
        "The provider says: “no such client”",
        "Провайдер не приймає ідентифікатор клієнта",
    ),
]


def said_in(language: str, message: str) -> str:
    with translation.override(language):
        return problems.sentence(message)


@pytest.mark.parametrize(("message", "english", "ukrainian"), MESSAGES)
def test_a_message_is_shown_in_both_languages(message: str, english: str, ukrainian: str) -> None:
    assert english in said_in("en", message)
    assert ukrainian in said_in("uk", message)
    assert said_in("en", message) != said_in("uk", message)


def test_every_code_is_tried() -> None:
    tried = [load(message) for message, *_ in MESSAGES]
    assert {message.code for message in tried if message} == set(problems.SENTENCES)


def test_what_was_stored_before_codes_existed_is_shown_as_it_is() -> None:
    text = f"3 attempts in a row failed. Last error: {REFUSED_IN_ENGLISH}"
    assert said_in("uk", text) == said_in("en", text) == text


@pytest.mark.django_db
def test_an_incident_keeps_codes_and_its_page_says_them_in_the_reader_s_language() -> None:
    webhook = failing(alert_after_failures=1)
    WebhookState.objects.update(last_error=REFUSED)
    notifications.run(NOW)
    kept = Incident.objects.get().message
    assert kept == dump("with_last_error", message=COUNT, error=REFUSED)
    browser: Client = staff(is_superuser=True)
    for language, said in (("uk", REFUSED_IN_UKRAINIAN), ("en", REFUSED_IN_ENGLISH)):
        browser.cookies["django_language"] = language
        page = browser.get(reverse("webhooks:detail", args=[webhook.pk])).text
        assert said in page
        assert "&quot;code&quot;" not in page


@pytest.mark.django_db
def test_mails_and_operational_events_are_in_the_language_of_the_site() -> None:
    failing(alert_after_failures=1)
    WebhookState.objects.update(last_error=REFUSED)
    with translation.override("uk"):
        notifications.run(NOW)
    assert f"Остання помилка: {REFUSED_IN_UKRAINIAN}" in mail.outbox[0].body
    event = json.loads(bytes(Event.objects.get(type="webhook.failing").payload))
    assert event["message"] == (
        f"Поспіль невдалі 3 спроби. Остання помилка: {REFUSED_IN_UKRAINIAN}"
    )


@pytest.mark.django_db
@pytest.mark.parametrize("kind", [IncidentKind.REAUTHORIZATION, IncidentKind.MISCONFIGURED])
def test_an_incident_of_a_token_keeps_the_token_s_error(kind: IncidentKind) -> None:
    state = {"reauthorization": "needs_reauthorization", "misconfigured": "misconfigured"}[kind]
    webhook = make_webhook(authorization_type="oauth2", alert_recipients=PEOPLE)
    OAuthToken.objects.create(credential=webhook.credential, state=state, last_error=CLIENT)
    notifications.run(NOW)
    assert Incident.objects.get().message == CLIENT
    assert "The provider says: “no such client”" in mail.outbox[0].body
    assert '"code"' not in mail.outbox[0].body


@pytest.mark.django_db
def test_a_pause_by_the_engine_says_why_and_the_last_error() -> None:
    webhook = failing(alert_after_failures=1)
    WebhookState.objects.update(last_error=REFUSED)
    events.pause(webhook, PauseReason.FAILING)
    notifications.run(NOW)
    said = f"No delivery succeeded for days. Last error: {REFUSED_IN_ENGLISH}"
    assert said in mail.outbox[0].body


@pytest.mark.django_db
@pytest.mark.parametrize("character", ["x", '"', "\\", "ї"])
def test_the_longest_last_error_fits_into_an_incident(character: str) -> None:
    failing(alert_after_failures=1)
    longest = outcomes.stored(outcomes.Message("said", {"reason": character * 500}))
    WebhookState.objects.update(last_error=longest)
    notifications.run(NOW)
    kept = Incident.objects.get().message
    assert len(kept) <= 1000
    said = problems.sentence(kept)
    assert said.startswith(f"3 attempts in a row failed. Last error: {character * 50}")
    assert "code" not in said


@pytest.mark.django_db
def test_what_an_open_incident_is_by_now_comes_before_what_was_stored() -> None:
    webhook = failing(failures=7)
    stored = dump("attempts_failed", count=1)
    facts: dict[str, Any] = {"message": stored, "opened_at": timezone.now()}
    incident = Incident.objects.create(webhook=webhook, kind=IncidentKind.FAILING, **facts)
    assert problems.sentence_now(incident, webhook, NOW).startswith("7 attempts in a row failed.")
    WebhookState.objects.update(failing_since_at=None)
    webhook.refresh_from_db()
    later = NOW + dt.timedelta(minutes=1)
    assert problems.sentence_now(incident, webhook, later) == "1 attempt in a row failed."
