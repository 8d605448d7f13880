"""The form's Success section: a rule is saved, filled in for known APIs, and tried out."""

import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from tests.people import logged_in
from tests.ui.webhook_form.test_forms import bound, error, posted, saved
from webhooks.delivery.success import PRESETS
from webhooks.models import Attempt, Outcome, Webhook
from webhooks.ui.webhook_form import success

pytestmark = [pytest.mark.django_db, pytest.mark.once]

RULE = {
    "response_rule": "fails",
    "response_variable": "error",
    "response_operator": "exists",
    "response_error": "error",
}


def answered(webhook: Webhook, body: bytes, status: int = 200, **fields: Any) -> Attempt:
    values: dict[str, Any] = {
        "started_at": timezone.now(),
        "status_code": status,
        "response_body": body,
        "response_size": len(body),
        "outcome": Outcome.SUCCEEDED,
        **fields,
    }
    return Attempt.objects.create(delivery=make_delivery(webhook), number=1, **values)


def test_a_rule_is_saved_and_shown_again() -> None:
    webhook = saved(
        success_codes="200, 409 201",
        **RULE,
        expired_token_errors="token_expired\nexpired",
        retries_rejected="on",
    )
    assert webhook.success_codes == [200, 409, 201]
    assert webhook.expired_token_errors == ["token_expired", "expired"]
    assert (webhook.response_rule, webhook.retries_rejected) == ("fails", True)
    form = bound(webhook, **RULE, success_codes="200, 409, 201", retries_rejected="on")
    assert "success_codes" not in form.changed_data
    assert form.success_summary == "200, 409, 201; fails when error has a value"


def test_without_a_rule_the_status_counts() -> None:
    webhook = saved(response_operator="")
    assert (webhook.success_codes, webhook.response_rule) == ([], "")
    assert webhook.response_operator == "exists"
    assert bound(webhook).success_summary == "Every 2xx"
    assert not bound(webhook).has_success_open


@pytest.mark.parametrize(
    ("field", "typed", "words"),
    [
        ("success_codes", {"success_codes": "ok"}, "200 to 599"),
        ("success_codes", {"success_codes": "199"}, "200 to 599"),
        ("success_codes", {"success_codes": " ".join(map(str, range(200, 221)))}, "200 to 599"),
        ("response_variable", {"response_rule": "fails"}, "Enter a response field"),
        ("response_variable", RULE | {"response_variable": "a..b"}, "between two dots"),
        ("response_variable", RULE | {"response_variable": "data[]"}, "write its number"),
        ("response_value", RULE | {"response_operator": "equals"}, "Give a value"),
        (
            "response_value",
            RULE | {"response_operator": "one_of", "response_value": " , "},
            "Give a value",
        ),
        ("response_error", {"expired_token_errors": "expired"}, "the field of the error"),
        ("response_rule", {"response_rule": "sometimes"}, "Select a valid choice"),
        ("response_operator", RULE | {"response_operator": "matches"}, "Select a valid choice"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(field: str, typed: dict[str, str], words: str) -> None:
    assert words in error(field, **typed)


@pytest.mark.parametrize("key", PRESETS)
def test_a_known_api_fills_in_its_rule(browser: Client, key: str) -> None:
    typed = posted(action="use_success_preset", success_preset=key, success_codes="200")
    page = browser.post(reverse("webhooks:create"), typed)
    form = page.context["form"]
    preset = PRESETS[key].fields
    assert {name: form[name].value() for name in preset if name != "expired_token_errors"} == {
        name: value for name, value in preset.items() if name != "expired_token_errors"
    }
    assert form["success_codes"].value() == "200"
    menu = page.text.partition('name="success_preset"')[2].partition("</select>")[0]
    assert re.findall(r'value="(\w+)"\s+selected', menu) == [key]
    assert form["name"].value() == "CRM"
    assert not Webhook.objects.exists()
    assert saved(**{name: form[name].value() for name in preset}).response_rule


def tried(browser: Client, webhook: Webhook, **typed: str) -> dict[str, Any]:
    data = posted(action="try_success_rule", **{**RULE, **typed})
    page = browser.post(reverse("webhooks:edit", args=[webhook.pk]), data)
    found: dict[str, Any] = page.context["success_preview"]
    assert found["sentence"] in page.text
    return found


@pytest.mark.slow
def test_a_rule_is_tried_on_the_last_answer(browser: Client) -> None:
    webhook = make_webhook()
    assert "No response yet" in tried(browser, webhook)["sentence"]
    answered(webhook, b'{"error": "INVALID_CREDENTIALS"}')
    found = tried(browser, webhook)
    assert (found["kind"], "says “INVALID_CREDENTIALS”" in found["sentence"]) == ("danger", True)
    answered(webhook, b'{"result": 1}')
    assert tried(browser, webhook)["kind"] == "success"
    answered(webhook, b"", 500)
    assert "failed with 500" in tried(browser, webhook)["sentence"]
    answered(webhook, b"x" * 20_000, response_size=50_000)
    assert "Only the beginning" in tried(browser, webhook)["sentence"]
    assert "Fix the rule" in tried(browser, webhook, response_variable="")["sentence"]
    assert not Webhook.objects.get(pk=webhook.pk).response_rule


@pytest.mark.slow
def test_the_last_answer_is_looked_for_in_the_newest_deliveries_only(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(success, "DELIVERIES_LOOKED_AT", 2)
    webhook = make_webhook()
    answered(webhook, b"{}")
    make_delivery(webhook)
    assert tried(browser, webhook)["kind"] == "success"
    make_delivery(webhook)
    assert "No response yet" in tried(browser, webhook)["sentence"]


def test_an_answer_is_tried_by_who_may_see_payloads(browser: Client) -> None:
    webhook = make_webhook()
    answered(webhook, b'{"error": "SECRET"}')
    found = tried(logged_in("view_webhook", "change_webhook", name="editor"), webhook)
    assert "SECRET" not in found["sentence"]
    assert "no permission to see payloads" in found["sentence"]
