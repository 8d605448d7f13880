"""Notes of the audit trail: codes with parameters, shown as sentences in the reader's language."""

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import translation

from tests.admin.test_admin import staff
from tests.factories import make_webhook
from tests.ui.test_trail import url_of
from webhooks import audit
from webhooks.models import Action, AuditEntry, PauseReason, ResendScope, TokenState

TRAIL = "/admin/webhooks/auditentry/"
# A code, its parameters, and its sentence in English and in Ukrainian.
NOTES: list[tuple[str, dict[str, str | int], str, str]] = [
    ("deliveries", {"count": 1}, "1 delivery", "1 доставка"),
    ("deliveries", {"count": 22}, "22 deliveries", "22 доставки"),
    ("deliveries", {"count": 29}, "29 deliveries", "29 доставок"),
    ("resend_scope", {"value": ResendScope.FAILED}, "What failed", "Усе невдале"),
    ("pause_reason", {"value": PauseReason.GONE}, "The receiver answered 410 Gone", ""),
    ("token_state", {"value": TokenState.NEEDS_REAUTHORIZATION}, "", ""),
    ("resumed", {"name": "CRM"}, "“CRM” is active again.", "«CRM» знову активний."),
    ("resumed_and_sent", {"name": "CRM", "count": 2}, "2 deliveries on hold are sent now.", ""),
    ("resumed_and_cancelled", {"name": "CRM", "count": 1}, "1 delivery on hold was cancelled.", ""),
    ("resumed_and_sent_many", {"name": "CRM", "count": 2000}, "At least 2000 deliveries", ""),
    ("resumed_and_cancelled_many", {"name": "CRM", "count": 2000}, "were cancelled.", ""),
    ("held_dropped", {}, "Deliveries on hold were cancelled.", "Затримані доставки скасовано."),
    ("copy_of", {"name": "Active"}, "Copy of “Active”", "Копія «Active»"),
    ("from_credentials_of", {"name": "CRM"}, "From the credentials of “CRM”", ""),
    ("test_mail", {}, "Test email to recipients", "Тестовий лист отримувачам"),
    ("csv_with_payloads", {}, "CSV with payloads", ""),
]
# The same in every language.
NAMES = {"csv"}


def said_in(language: str, note: str) -> str:
    with translation.override(language):
        return audit.sentence(note)


@pytest.mark.parametrize(("code", "params", "english", "ukrainian"), NOTES)
def test_a_note_is_shown_in_both_languages(
    code: str, params: dict[str, str | int], english: str, ukrainian: str
) -> None:
    note = audit.note(code, **params)
    reported = {language: said_in(language, note) for language in ("en", "uk")}
    assert english in reported["en"]
    assert ukrainian in reported["uk"]
    assert reported["en"] != reported["uk"]
    assert not {code, ""} & set(reported.values())


def test_every_code_is_tried() -> None:
    assert {code for code, *_ in NOTES} | NAMES == set(audit.SENTENCES)


@pytest.mark.parametrize("value", [PauseReason, TokenState, ResendScope])
def test_a_choice_of_an_earlier_version_is_shown_as_its_code(value: type) -> None:
    code = {PauseReason: "pause_reason", TokenState: "token_state", ResendScope: "resend_scope"}
    assert audit.sentence(audit.note(code[value], value="of_an_earlier_version")) == code[value]


@pytest.mark.parametrize(
    "text", ["", "evt_01JH", "call.finished", "29 deliveries", "<b>Mystery & co.</b>"]
)
def test_a_note_without_a_code_is_shown_as_it_is(text: str) -> None:
    assert said_in("uk", text) == said_in("en", text) == text


@pytest.mark.django_db
def test_a_note_that_is_too_long_for_its_column_is_still_a_sentence() -> None:
    note = audit.note("resumed_and_sent", name='"' * 400, count=3)
    audit.record(Action.RESUMED, make_webhook(), user=None, note=note)
    kept = AuditEntry.objects.get().note
    assert 200 < len(kept) <= 300
    assert audit.sentence(kept).endswith("” is active again. 3 deliveries on hold are sent now.")


@pytest.fixture
def browser() -> Client:
    client = staff(is_superuser=True)
    client.cookies["django_language"] = "uk"
    return client


@pytest.mark.django_db
def test_the_trail_shows_notes_on_its_pages_and_in_the_admin(browser: Client) -> None:
    webhook = make_webhook()
    audit.record(Action.CANCELLED, webhook, user=None, note=audit.note("deliveries", count=29))
    detail = reverse("webhooks:detail", args=[webhook.pk])
    for address in (url_of(webhook), detail, TRAIL):
        page = browser.get(address).text
        assert "29 доставок" in page, address
        assert "29 deliveries" not in page, address
        assert "&quot;code&quot;" not in page, address


@pytest.mark.django_db
def test_values_inside_a_note_are_escaped(browser: Client) -> None:
    webhook = make_webhook()
    note = audit.note("copy_of", name="<script>x</script>")
    audit.record(Action.CREATED, webhook, user=None, note=note)
    for address in (url_of(webhook), TRAIL):
        page = browser.get(address).text
        assert "Копія «&lt;script&gt;x" in page, address
        assert "<script>x" not in page, address
