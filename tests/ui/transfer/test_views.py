"""Export and import on pages: the file, the preview, the import, and the permissions."""

import json
import random
import re
from base64 import b64encode
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from tests.ui.transfer.test_transfer import SECRETS, make_full, minimal
from tests.ui.webhook_list.test_views import LIST, logged_in
from webhooks.models import Action, AuditEntry, Webhook
from webhooks.ui.transfer import document
from webhooks.ui.transfer.plans import Change

pytestmark = pytest.mark.django_db

EXPORT = reverse("webhooks:export")
IMPORT = reverse("webhooks:import")


def text_of(*entries: Any) -> str:
    return json.dumps({"version": 1, "webhooks": entries})


def look(browser: Client, *entries: Any, **more: Any) -> Any:
    """Upload a file of these entries; return the preview."""
    file = SimpleUploadedFile("webhooks.json", text_of(*entries).encode())
    return browser.post(IMPORT, {"file": file, **more})


def bring_in(browser: Client, preview: Any, *numbers: int) -> Any:
    data = {"plan": preview.context["signed"], "entry": numbers}
    return browser.post(IMPORT, data, follow=True)


def test_an_export_is_a_file_of_the_ticked_webhooks_without_secrets(browser: Client) -> None:
    webhook = make_full()
    make_webhook(name="Other")
    answer = browser.post(EXPORT, {"webhook": webhook.pk})
    assert answer["Content-Type"] == "application/json"
    assert answer["Content-Disposition"].startswith('attachment; filename="webhooks-20')
    assert "no-store" in answer["Cache-Control"]
    document = answer.json()
    assert [entry["name"] for entry in document["webhooks"]] == ["CRM: missed calls"]
    text = answer.content.decode()
    assert not [one for one in (*SECRETS, webhook.signing_secret) if one in text]
    entry = AuditEntry.objects.get(action=Action.EXPORTED)
    assert (entry.object_name, entry.username) == ("CRM: missed calls", "admin")


@pytest.mark.parametrize(("field", "other"), [("file", "text"), ("text", "file")])
def test_a_mistake_stands_at_its_field_which_has_the_focus(
    browser: Client, field: str, other: str
) -> None:
    file = SimpleUploadedFile("webhooks.json", b"{")
    page = browser.post(IMPORT, {"file": file} if field == "file" else {"text": "{"})
    control = re.search(rf'<(?:input|textarea)[^>]* id="{field}".*?>', page.text, re.DOTALL)
    assert control is not None
    assert 'aria-invalid="true" autofocus' in control[0]
    assert f'{field}-error"' in control[0]
    assert f'<p class="field-errors" id="{field}-error">The text is not JSON.' in page.text
    assert f"{other}-error" not in page.text
    assert page.text.count("The text is not JSON.") == 1


def test_everything_that_matches_is_exported(browser: Client) -> None:
    for number in range(60):
        make_webhook(name=f"CRM {number}")
    make_webhook(name="Other")
    document = browser.post(EXPORT, {"is_all": "1", "q": "crm"}).json()
    assert len(document["webhooks"]) == 60


@pytest.mark.parametrize("limit", ["MAX_WEBHOOKS", "MAX_BYTES"])
def test_more_than_an_import_reads_is_not_exported(
    browser: Client, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(document, limit, 1)
    for name in ("CRM", "Shop"):
        make_webhook(name=name)
    page = browser.post(EXPORT, {"is_all": "1"}, follow=True)
    assert "Nothing was exported: an import reads at most" in page.text
    assert not AuditEntry.objects.filter(action=Action.EXPORTED).exists()


def test_headers_of_another_key_refuse_their_entry_alone(browser: Client) -> None:
    webhook = make_webhook(name="CRM")
    # Another row's ciphertext is as unreadable as one made with another key.
    other = make_webhook(name="Other", headers_json='[{"name": "X-Key", "value": "k"}]')
    stored = Webhook.objects.values_list("headers_json", flat=True).get(pk=other.pk)
    Webhook.objects.filter(pk=webhook.pk).update(headers_json=stored)
    preview = look(browser, minimal(name="CRM"), minimal(name="Shop"))
    assert [item.kind for item in preview.context["plan"].items] == [Change.REFUSED, Change.CREATE]
    assert "Its headers are encrypted with another key." in preview.text


def test_without_a_choice_nothing_is_exported(browser: Client) -> None:
    make_webhook()
    page = browser.post(EXPORT, follow=True)
    assert "Select webhooks first" in page.text


def test_a_look_shows_what_would_happen_and_writes_nothing(browser: Client) -> None:
    old = make_webhook(name="Old")
    page = look(
        browser,
        minimal(name="New"),
        {"name": "Old", "timeout_seconds": 30},
        {"name": "Old", "uid": make_webhook(name="Same").uid},
        minimal(name="Bad", url="ftp://example.com/"),
    )
    assert [dict(page.context["counts"])[kind] for kind in ("create", "change", "refused")] == [
        *(1, 2, 1)
    ]
    for text in ("Changes: Timeout (seconds).", "Nothing is saved yet", "Error"):
        assert text in page.text
    assert Webhook.objects.present().count() == 2
    old.refresh_from_db()
    assert old.timeout_seconds == 15
    assert not AuditEntry.objects.exists()


def test_a_file_that_changes_nothing_is_not_to_be_corrected(browser: Client) -> None:
    same = {"name": "Old", "uid": make_webhook(name="Old").uid}
    page = look(browser, same).text
    assert "Fix the file" not in page
    assert "Choose another file" in page
    assert "Fix the file" in look(browser, minimal(name="Bad", url="ftp://a.test/")).text


def test_the_ticked_are_imported_and_written_down(browser: Client) -> None:
    page = look(browser, minimal(name="One"), minimal(name="Two"), is_paused="1")
    done = bring_in(browser, page, 1)
    [webhook] = Webhook.objects.all()
    assert (webhook.name, webhook.is_active) == ("Two", False)
    assert webhook.created_by == get_user_model().objects.get()
    assert "1 webhook was created." in done.text
    assert "Paused. Review it" in done.text
    entry = AuditEntry.objects.get(action=Action.IMPORTED)
    assert (entry.object_name, entry.webhook_id) == ("Two", webhook.pk)


def test_without_the_tick_new_webhooks_start_as_the_file_says(browser: Client) -> None:
    bring_in(browser, look(browser, minimal()), 0)
    assert Webhook.objects.get().is_active


def test_the_page_after_says_which_secrets_to_enter_and_says_it_once(browser: Client) -> None:
    entry = minimal(authorization_type="basic", basic_login="demo")
    preview = look(browser, entry)
    assert "After the import, enter the password." in preview.text
    done = bring_in(browser, preview, 0)
    assert "Enter the password: secrets are not in the file." in done.text
    edit = reverse("webhooks:edit", args=[Webhook.objects.get().pk])
    assert f'href="{edit}"' in done.text
    assert f'href="{edit}#authorization">Enter the password' in done.text
    assert "secrets are not in the file" not in browser.get(IMPORT).text


def test_a_missing_header_is_entered_in_its_section() -> None:
    assert document.section_of(["the value of the header X-Key"]) == "headers"
    assert document.section_of(["the client secret", "the value of the header X-Key"]) == (
        "authorization"
    )


def test_the_page_after_says_what_was_skipped_and_why(browser: Client) -> None:
    kept = make_webhook(name="Kept")
    [same] = browser.post(EXPORT, {"webhook": kept.pk}).json()["webhooks"]
    preview = look(
        browser, minimal(name="One"), minimal(name="Two"), same, minimal(name="Bad", url="no")
    )
    done = bring_in(browser, preview, 0)
    assert "Import finished</h1>" in done.text
    assert [one["name"] for one in done.context["result"]["done"]] == ["One"]
    skipped = done.context["result"]["skipped"]
    assert [one["name"] for one in skipped] == ["Two", "Kept", "Bad"]
    assert "Two</span><p>Not selected." in done.text
    assert "Kept</span><p>No changes." in done.text
    assert skipped[2]["errors"][0] in done.text
    assert "Import another file" in done.text
    assert 'type="file"' not in done.text
    assert 'type="file"' in browser.get(IMPORT).text


def test_an_export_comes_back_through_the_screens(browser: Client) -> None:
    make_full()
    content = browser.post(EXPORT, {"is_all": "1"}).content
    Webhook.objects.all().delete()
    page = browser.post(IMPORT, {"text": content.decode()})
    bring_in(browser, page, 0)
    assert Webhook.objects.get().filter == {
        "all": [{"variable": "disposition", "operator": "equals", "value": "x"}]
    }


def test_all_or_nothing_is_written(browser: Client) -> None:
    page = look(browser, minimal(name="One"), minimal(name="Two"))
    make_webhook(name="Two")
    make_webhook(name="Two")
    answer = bring_in(browser, page, 0, 1)
    assert answer.status_code == 409
    assert "Something changed in the meantime." in answer.text
    assert not Webhook.objects.filter(name="One").exists()


def test_what_a_file_leaves_as_it_is_is_folded_and_costs_no_query_of_its_own(
    browser: Client, django_assert_max_num_queries: Any
) -> None:
    make_full()
    for number in range(20):
        make_webhook(name=f"Kept {number}")
    everything = list(Webhook.objects.values_list("pk", flat=True))
    entries = browser.post(EXPORT, {"webhook": everything}).json()["webhooks"]
    # The active state is not taken from a file.
    entries[0]["is_active"] = not entries[0]["is_active"]
    with django_assert_max_num_queries(6):
        page = look(browser, *entries)
    assert page.context["shown"] == []
    assert len(page.context["unchanged"]) == 21
    folded = page.text[page.text.index("<details") :]
    assert "Kept 7" in folded
    entries[-1]["timeout_seconds"] += 1
    page = look(browser, *entries)
    assert [item.kind for item in page.context["shown"]] == [Change.CHANGE]
    assert len(page.context["unchanged"]) == 20


@pytest.mark.parametrize("value", [True, 1.0, "1"], ids=repr)
def test_a_value_of_another_type_is_not_taken_for_unchanged(browser: Client, value: object) -> None:
    webhook = make_webhook(timeout_seconds=1)
    [entry] = browser.post(EXPORT, {"webhook": webhook.pk}).json()["webhooks"]
    page = look(browser, {**entry, "timeout_seconds": value})
    assert [item.kind for item in page.context["shown"]] == [Change.REFUSED]


def test_nothing_ticked_imports_nothing(browser: Client) -> None:
    answer = bring_in(browser, look(browser, minimal()))
    assert answer.status_code == 409
    assert "Select at least one webhook." in answer.text


def boxes(page: Any) -> dict[str, bool]:
    found = re.findall(r'<input[^>]* name="entry"[^>]*>', page.text)
    return {re.findall(r'value="(\d+)"', box)[0]: " checked" in box for box in found}


def test_what_was_deselected_stays_so_when_the_import_is_refused(browser: Client) -> None:
    preview = look(browser, minimal(name="One"), minimal(name="Two"), minimal(name="Three"))
    assert boxes(preview) == {"0": True, "1": True, "2": True}
    make_webhook(**minimal(name="One"))
    refused = bring_in(browser, preview, 0, 2)
    assert refused.status_code == 409
    assert boxes(refused) == {"1": False, "2": True}


def test_a_preview_is_back_after_the_login_with_what_was_selected(browser: Client) -> None:
    preview = look(browser, minimal(name="One"), minimal(name="Two"))
    data = {"plan": preview.context["signed"], "entry": "1"}
    data["opened_by"] = str(preview.context["opened_by"])
    browser.cookies.pop("sessionid")
    browser.post(IMPORT, data)
    login = {"username": get_user_model().objects.get().username, "password": "p"}
    page = browser.post("/login/", {**login, "next": IMPORT}, follow=True)
    assert "you had been logged out" in page.text
    assert boxes(page) == {"0": False, "1": True}
    assert not Webhook.objects.exists()


def test_a_changed_plan_is_refused(browser: Client) -> None:
    page = look(browser, minimal())
    signed = page.context["signed"]
    answer = browser.post(IMPORT, {"plan": signed[:-2] + "xx", "entry": 0})
    assert answer.status_code == 422
    assert "Choose the file again." in answer.text
    assert not Webhook.objects.exists()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "Choose a file or paste its content."),
        ({"text": "  "}, "Choose a file or paste its content."),
        ({"text": '{"version": 1,\n "webhooks": ['}, "The text is not JSON. Line 2, column 15"),
        ({"file": SimpleUploadedFile("x.json", b"\x89PNG\xff")}, "not UTF-8"),
        ({"file": SimpleUploadedFile("x.json", b" " * 2_100_000)}, "larger than 2 MB"),
    ],
)
def test_a_bad_file_is_answered_with_a_sentence(
    browser: Client, data: dict[str, Any], sentence: str
) -> None:
    answer = browser.post(IMPORT, data)
    assert answer.status_code == 422
    assert sentence in answer.text


def test_what_was_pasted_stays_when_it_is_wrong(browser: Client) -> None:
    answer = browser.post(IMPORT, {"text": '{"nearly": "right"'})
    assert "{&quot;nearly&quot;: &quot;right&quot;" in answer.text


def test_a_long_text_and_the_tick_taken_away_stay_when_it_is_wrong(browser: Client) -> None:
    text = '{"version": 1, "webhooks": ["' + "x" * 150_000
    page = browser.post(IMPORT, {"text": text})
    assert page.status_code == 422
    assert page.context["text"] == text
    assert "x" * 150_000 in page.text
    assert 'name="is_paused" value="1">' in page.text
    again = browser.post(IMPORT, {"text": "{", "is_paused": "1"})
    assert 'name="is_paused" value="1" checked>' in again.text


def test_names_in_a_file_are_escaped(browser: Client) -> None:
    page = look(browser, minimal(name="<script>x"), {"name": "<img src=x>", "<b>": 1})
    assert "<script>x" not in page.text
    assert "<img src=x>" not in page.text
    assert "<b>" not in page.text


@pytest.mark.parametrize("permission", ["add_webhook", "change_webhook"])
def test_who_may_only_create_or_only_change_imports_just_that(permission: str) -> None:
    make_webhook(name="Old")
    browser = logged_in("view_webhook", permission)
    page = look(browser, minimal(name="New"), {"name": "Old", "timeout_seconds": 30})
    allowed = "New" if permission == "add_webhook" else "Old"
    assert [item.name for item in page.context["plan"].doable] == [allowed]


def test_the_page_after_leads_to_a_page_that_its_reader_may_open() -> None:
    browser = logged_in("view_webhook", "add_webhook")
    done = bring_in(browser, look(browser, minimal(name="New")), 0)
    [link] = re.findall(r'class="webhook-name" href="([^"]+)"', done.text)
    assert browser.get(link).status_code == 200


@pytest.mark.slow
def test_a_file_that_compresses_badly_is_imported_after_its_preview(browser: Client) -> None:
    made = random.Random(1)
    bodies = [b64encode(made.randbytes(45_000)).decode() for _ in range(30)]
    entries = [minimal(name=body[:9], body_template=f'{{"key": "{body}"}}') for body in bodies]
    bring_in(browser, look(browser, *entries), 0)
    assert Webhook.objects.count() == 1


def test_who_may_only_look_has_no_way_to_import() -> None:
    assert IMPORT not in logged_in("view_webhook").get(LIST).text


def test_the_plan_in_the_page_holds_no_secret_header(browser: Client) -> None:
    header = {"name": "X-Key", "value": "canary-of-the-file", "secret": True}
    page = look(browser, minimal(name="New", headers=[header]))
    assert "canary" not in page.text
    # Data that is only signed would be Base64 of compressed JSON, which anyone can read.
    with pytest.raises(signing.BadSignature):
        signing.loads(page.context["signed"], salt="webhooks.import")
    bring_in(browser, page, 0)
    (row,) = Webhook.objects.get(name="New").read_headers()
    assert (row.name, row.value, row.is_secret) == ("X-Key", "canary-of-the-file", True)
