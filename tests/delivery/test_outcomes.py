"""A failed attempt stores a code; the sentence is made in the reader's language."""

import json
from functools import partial

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation

from tests.admin.test_admin import staff
from tests.cpu_time import LINEAR, Work, growth
from tests.delivery.test_requests import a_plan, a_webhook, an_answer, attempt_of
from tests.factories import make_delivery, make_webhook
from webhooks import network, oauth
from webhooks.delivery import outcomes
from webhooks.delivery.auth import BasicAuthorization
from webhooks.delivery.queue.rows import DIED
from webhooks.delivery.requests import make_plan, no_response
from webhooks.models import Attempt, Incident, IncidentKind, Outcome, WebhookState
from webhooks.models.messages import Message, cut, dump, load

REFUSED = outcomes.of_status("refused", 404)
IN_ENGLISH = "The receiver refused the request with 404."
IN_UKRAINIAN = "Отримувач відхилив запит: 404."


def said_in(language: str, stored: str) -> str:
    with translation.override(language):
        return outcomes.sentence(stored)


@pytest.mark.parametrize(
    "code",
    sorted(
        outcomes.SENTENCES.keys() - network.SENTENCES.keys() - oauth.SENTENCES.keys() - {"said"}
    ),
)
def test_every_code_has_a_sentence_in_both_languages(code: str) -> None:
    params: dict[str, str | int] = {"status": 503, "error": "KeyError", "megabytes": "16"}
    stored = outcomes.stored(Message(code, {**params, "reason": "NO_LEAD"}))
    english, ukrainian = said_in("en", stored), said_in("uk", stored)
    assert english.endswith(".")
    assert ukrainian.endswith(".")
    assert english != ukrainian
    assert "%" not in english + ukrainian


@pytest.mark.parametrize(
    ("status", "stored"),
    [
        (500, '{"code":"http_server_error","status":500}'),
        (429, '{"code":"http_throttled","status":429}'),
        (403, '{"code":"http_unauthorized","status":403}'),
        (404, '{"code":"http_refused","status":404}'),
        (302, '{"code":"http_redirect","status":302}'),
        (410, '{"code":"http_gone","status":410}'),
        (199, '{"code":"http_protocol","status":199}'),
        (204, ""),
    ],
)
def test_an_attempt_keeps_the_code_and_the_status(status: int, stored: str) -> None:
    assert attempt_of(an_answer(status), a_plan())["error"] == stored


def test_what_the_status_does_not_say_is_kept_instead() -> None:
    late = no_response(Outcome.TIMEOUT, Message("interim_answers", {"limit": 16}))
    stored = attempt_of(late, a_plan())["error"]
    assert stored == '{"code":"interim_answers","limit":16}'
    assert said_in("uk", str(stored)) == "Отримувач надіслав понад 16 проміжних відповідей."


def test_secrets_and_control_characters_leave_the_texts_of_a_message() -> None:
    plan = make_plan(a_webhook(), BasicAuthorization("demo", "code-is-my-secret"))
    broken = Message("not_sent", {"error": "said code-is-my-secret\x1b[31m \u202e"})
    stored = str(attempt_of(no_response(Outcome.REFUSED, broken), plan)["error"])
    assert "code-is-my-secret" not in stored
    message = load(stored)
    assert message is not None
    assert message.code == "not_sent"
    assert str(message.params["error"]).endswith("\\x1b[31m \\x202e")


@pytest.mark.parametrize("character", ["x", '"', "\\", "ї"])
def test_a_long_text_is_cut_so_that_the_whole_stays_readable(character: str) -> None:
    def prepare(parts: int) -> Work:
        message = Message("not_sent", {"error": character * 5000 * parts})
        return partial(outcomes.stored, message)

    assert growth(prepare, limit=LINEAR) < LINEAR
    stored = outcomes.stored(Message("not_sent", {"error": character * 5000}))
    assert 400 < len(stored) <= outcomes.MAX_STORED
    assert set(json.loads(stored)["error"]) == {character}


def test_the_guard_s_reason_is_shown_in_the_reader_s_language() -> None:
    with pytest.raises(network.UnsafeURLError) as caught:
        network.parse_url("ftp://crm.test/")
    stored = outcomes.stored(outcomes.of_error(caught.value))
    assert said_in("en", stored) == "The URL must start with http:// or https://."
    assert said_in("uk", stored) != said_in("en", stored)


def test_no_code_has_two_sentences() -> None:
    tables = [outcomes.SENTENCES, network.SENTENCES, oauth.SENTENCES]
    for table in tables:
        assert all(outcomes.SENTENCES[code] is sentence for code, sentence in table.items())
    assert not network.SENTENCES.keys() & oauth.SENTENCES.keys()


def test_an_error_without_a_code_is_kept_as_its_sentence() -> None:
    stored = outcomes.stored(outcomes.of_error(ValueError("50% is “too much”")))
    assert said_in("uk", stored) == said_in("en", stored) == "50% is “too much”"


def test_a_longer_text_of_another_package_fits_and_stays_readable() -> None:
    first = dump("not_sent", error="x" * 600)
    kept = cut(f"{first}\n{dump('process_died')}", outcomes.MAX_STORED)
    assert len(kept) <= outcomes.MAX_STORED
    assert said_in("en", kept).startswith("The request could not be sent: xxx")
    assert cut("y" * 600, outcomes.MAX_STORED) == "y" * outcomes.MAX_STORED


def test_several_messages_are_shown_one_after_the_other() -> None:
    stored = f"{REFUSED}\n{DIED}"
    assert said_in("en", stored).startswith(f"{IN_ENGLISH} The process that was sending this died")


@pytest.mark.parametrize("text", ["", "It fell over.", "{broken", '{"code":"of another version"}'])
def test_a_text_without_a_known_code_is_shown(text: str) -> None:
    assert said_in("uk", text) in (text, "of another version")


def test_the_end_of_a_process_is_shown_in_ukrainian() -> None:
    assert said_in("uk", DIED).startswith("Процес, який це надсилав, аварійно")


@pytest.mark.django_db
def test_the_screens_say_the_last_error_in_the_reader_s_language() -> None:
    webhook = make_webhook()
    WebhookState.objects.update_or_create(
        webhook=webhook,
        defaults={"last_error": REFUSED, "failing_since_at": timezone.now()},
    )
    Incident.objects.create(
        webhook=webhook, kind=IncidentKind.FAILING, message=IN_ENGLISH, opened_at=timezone.now()
    )
    sent = make_delivery(webhook)
    Attempt.objects.create(
        delivery=sent,
        number=1,
        started_at=timezone.now(),
        request_line="POST https://crm.test/",
        outcome=Outcome.REFUSED,
        error=REFUSED,
    )
    browser: Client = staff(is_superuser=True)
    for language, sentence in (("uk", IN_UKRAINIAN), ("en", IN_ENGLISH)):
        browser.cookies["django_language"] = language
        for address in (
            reverse("webhooks:list"),
            reverse("webhooks:detail", args=[webhook.pk]),
            reverse("webhooks:delivery", args=[sent.pk]),
        ):
            page = browser.get(address)
            assert page.status_code == 200, address
            assert sentence in page.text, address
            assert "&quot;code&quot;" not in page.text, address
            assert '"code":"http_refused"' not in page.text, address


def test_a_token_that_is_not_there_is_shown_in_both_languages() -> None:
    stored = dump("no_token_yet")
    assert said_in("en", stored).startswith("There is no access token yet.")
    assert said_in("uk", stored) != said_in("en", stored)
