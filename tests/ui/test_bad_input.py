"""Bad input through the views: a clear sentence, nothing lost, never a server error."""

from html import unescape
from typing import Any

import pytest
from django.test import Client

from tests.pages import HTMX
from tests.scenes import scene
from tests.ui.webhook_form.test_forms import OAUTH, header_fields, posted
from webhooks.models import AlertChannel, Credential, Webhook

pytestmark = pytest.mark.django_db

ROOT = "/integrations/webhooks/"
HUGE = "9" * 5000
NULL = "Null characters are not allowed."
RULE = {
    "response_rule": "fails",
    "response_variable": "error",
    "response_operator": "exists",
    "response_error": "error",
}


def row(content: str, source: str = "json") -> dict[str, str]:
    fields = {"name": "a", "source": source, "content": content}
    return {
        "parameters_mode": "rows",
        "parameter": "0",
        **{f"parameter-0-{name}": value for name, value in fields.items()},
    }


def condition(path: str) -> dict[str, str]:
    return {
        "filter-mode": "rows",
        "filter-node": "row-1",
        "filter-1-variable": ".",
        "filter-1-path": path,
        "filter-1-was": path,
        "filter-1-operator": "exists",
    }


def body(text: str) -> dict[str, str]:
    return {"parameters_mode": "template", "body_template": text}


def json_filter(text: str) -> dict[str, str]:
    return {"filter-mode": "json", "filter-json": text}


# Rows with a NUL run on both databases: PostgreSQL stores none.
WITH_NULL: list[tuple[dict[str, str], str]] = [
    ({"name": "a\0b"}, NULL),
    ({"alert_recipients": "ops\0@example.com"}, NULL),
    (RULE | {"expired_token_errors": "token\0expired"}, NULL),
    (OAUTH | {"reauthorization_words": "revoked\0"}, NULL),
    (OAUTH | {"token_parameters": "a=\0"}, "Enter one per line"),
    (header_fields({"name": "X-A\0", "value": "v"}), NULL),
]
WRONG: list[tuple[dict[str, str], str]] = [
    ({"name": "\u200b\u2060"}, "Enter a name, for example"),
    ({"name": "x" * 10_000}, "at most 100 characters (it has 10000)"),
    ({"url": "\ufeffhttps://example.com/"}, "a space or an invisible character in it"),
    ({"url": "https://[::8.8.8.8]/"}, "Write the IP address as 8.8.8.8."),
    ({"url": "https://[::127.0.0.1]/"}, "is not on the public internet"),
    ({"url": "https://[::FFFF:10.0.0.1]/"}, "is not on the public internet"),
    ({"url": "https://example.com:" + HUGE}, "at most 2048 characters"),
    ({"timeout_seconds": HUGE}, "Enter a whole number from 1 to 60."),
    ({"rate_limit": "1e3"}, "Enter a whole number from 1 to 100,000"),
    ({"retry_schedule_seconds": "%(typed)s"}, "“%(typed)s” is not a waiting time."),
    ({"retry_schedule_seconds": HUGE}, "is not a waiting time."),
    ({"success_codes": "²00"}, "Enter status codes from 200 to 599"),
    (RULE | {"response_variable": "tags[]"}, "write its number"),
    (RULE | {"response_variable": "a" + ".a" * 150}, "at most 200 characters"),
    (OAUTH | {"scope": "читання"}, "A scope is ASCII words"),
    (header_fields({"name": "X-A", "value": "“v”"}), "one line of plain ASCII"),
    (condition("fields..city"), "There is nothing between two dots"),
    (condition("x" * 3000), "A name has at most 1000 characters."),
    (json_filter('{"all": [' + " " * 250_000), "The filter has at most 200000 characters."),
    (json_filter("{“all”: []}"), "Line 1, column 2: This quote (“) is curly."),
    (body('{"a": „b“}'), "Line 1, column 7: This quote („) is curly."),
    (body(f'{{"a": {HUGE}}}'), "Line 1, column 7: A number has too many digits."),
    (row("{“a”: 1}"), "Line 1, column 2: This quote (“) is curly."),
    (row("1e999", "number"), "Write a number like 42 or 0.5"),
]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [*WITH_NULL, *(pytest.param(*one, marks=pytest.mark.once) for one in WRONG)],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_the_form_says_what_is_wrong_and_keeps_it(
    browser: Client, fields: dict[str, str], sentence: str
) -> None:
    page = browser.post(f"{ROOT}new/", posted(**fields))
    assert page.status_code == 200
    text = unescape(page.text)
    assert sentence in text
    # Secrets are not shown again.
    typed = [value for name, value in fields.items() if "secret" not in name]
    assert [value[:60] for value in typed if value not in text] == []
    assert not Webhook.objects.exists()


@pytest.mark.parametrize(
    ("address", "fields", "sentence"),
    [
        ("connections/new/", {"name": "\u200b"}, "Enter a name."),
        ("connections/new/", {"name": "a", "allowed_hosts": "x.com\0"}, NULL),
        ("alerts/add/slack/", {"name": "\u200b"}, "Enter a name."),
        ("alerts/add/slack/", {"name": "a", "secret": "https://[::8.8.8.8]/"}, "as 8.8.8.8."),
        ("alerts/add/email/", {"recipient": "a@b.test", "webhooks": HUGE}, "is not a valid value"),
        ("import/", {"text": "{“version”: 1}"}, "This quote (“) is curly."),
        ("import/", {"text": '{"version": 1, "webhooks": [1e999]}'}, "a number that is too large"),
        ("import/", {"text": "\ufeff[]"}, "The file must be an object with a list"),
        ("import/", {"plan": "\0"}, "This preview has expired."),
        ("time-zone/", {"time_zone": "../\0"}, "Select a valid choice."),
    ],
)
def test_other_screens_say_what_is_wrong(
    browser: Client, address: str, fields: dict[str, str], sentence: str
) -> None:
    page = browser.post(f"{ROOT}{address}", fields)
    assert page.status_code in (200, 422)
    assert sentence in unescape(page.text)
    assert not AlertChannel.objects.exists()
    assert not Credential.objects.exists()


@pytest.mark.parametrize("payload", ["{“a”: 1}", '{"a": 1e999}', "[" * 5000, '{"a": "\\ud800"}'])
def test_an_edited_payload_is_kept_with_what_is_wrong(browser: Client, payload: str) -> None:
    page = browser.post(f"{ROOT}deliveries/{scene().delivery}/edit/", {"payload": payload})
    assert page.status_code == 422
    assert page.context["form"].errors["payload"]
    assert payload in unescape(page.text)


@pytest.mark.parametrize(
    ("address", "fields"),
    [
        ("bulk/", {"action": "pause", "ids": ["9" * 30, "\0", "-1", "١"]}),
        ("bulk/", {"action": "delete", "all": "on", "q": "x" * 70_000}),
        ("export/", {"ids": ["9" * 30, "\0"], "q": "\0"}),
        ("deliveries/cancel/", {"delivery": ["dlv_" + "x" * 5000, "\0"]}),
        ("deliveries/views/", {"name": "a", "query": "webhook=" + "9" * 30}),
        ("connections/grants/combine/", {"credential": ["9" * 30, "\0"], "name": "\0"}),
        ("preview/", posted(**{"headers-TOTAL_FORMS": HUGE, "webhook": "\0"})),
        ("parameters/", posted(parameter=["9" * 30, "٣"], action="parameter:up:" + HUGE)),
        ("filter/", posted(**condition("a\0"), event_types=["\0"])),
        ("new/", posted(**{"filter-node": ["open-1"] * 500, "action": "filter:add:" + HUGE})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_only_a_forged_request_has_is_answered(
    browser: Client, address: str, fields: dict[str, Any]
) -> None:
    before = scene().webhook
    answer = browser.post(f"{ROOT}{address}", fields, headers=HTMX)
    assert answer.status_code < 500
    assert Webhook.objects.present().filter(pk=before).exists()


@pytest.mark.parametrize("address", ["new/", "import/", "alerts/add/slack/", "preview/"])
@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b'{"name": "a"}'),
        ("text/plain", b"name=a"),
        ("multipart/form-data", b"name=a"),
        ("multipart/form-data; boundary=x", b"--x\r\nbroken"),
        ("application/x-www-form-urlencoded", b"name=%zz&&=&%00=1"),
        ("application/x-www-form-urlencoded; charset=utf-16", b"name=a"),
    ],
)
def test_another_content_type_changes_nothing(
    browser: Client, address: str, content_type: str, content: bytes
) -> None:
    answer = browser.generic("POST", f"{ROOT}{address}", content, content_type=content_type)
    assert answer.status_code < 500
    assert not Webhook.objects.exists()
    assert not AlertChannel.objects.exists()
