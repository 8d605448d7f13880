"""The live preview over HTTP: masked, never stored, and with errors at their rows."""

import socket
from typing import Any, NoReturn

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import make_credential, make_delivery, make_webhook
from tests.ui.webhook_form.test_forms import BASIC, OAUTH, header_fields, posted
from tests.ui.webhook_form.test_mapping import fields
from tests.ui.webhook_form.test_views import CREATE, draft_of, edit_url, logged_in
from webhooks import events
from webhooks.models import Webhook
from webhooks.security.masker import MASK

pytestmark = [pytest.mark.django_db, pytest.mark.once]

PREVIEW = reverse("webhooks:preview")
ROWS = reverse("webhooks:edit_parameters")
TEMPLATE = {"mode": "template"}


def preview(browser: Client, webhook: Webhook | None = None, **typed: Any) -> Any:
    pk = str(webhook.pk) if webhook else ""
    return browser.post(PREVIEW, posted(webhook=pk, **typed), headers={"HX-Request": "true"})


@pytest.mark.parametrize("path", ["/a/../b", "/a?", "//a", "/%2f?b=%7e"])
def test_the_address_is_shown_as_it_goes_out(browser: Client, path: str) -> None:
    shown = preview(browser, url=f"https://crm.test{path}").context["preview"]
    assert shown.request_line == f"POST {path} HTTP/1.1"


def test_no_host_that_is_typed_is_looked_up(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def look_up(host: str, *_: object, **__: object) -> NoReturn:
        asked.append(host)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    urls = {name: f"https://{name}.example/x" for name in ("auth_url", "token_url", "refresh_url")}
    hosts = {"url": "https://crm.example/hook", **urls, "revocation_url": "https://gone.example"}
    shown = preview(browser, **{**OAUTH, **hosts}).context["preview"]
    assert (shown.request_line, asked) == ("POST /hook HTTP/1.1", [])


def test_the_request_of_what_is_typed_is_shown_and_nothing_is_stored(browser: Client) -> None:
    webhook = make_webhook()
    rows = fields({"name": "client.phone", "content": "client_number"})
    answer = preview(browser, webhook, method="PUT", url="https://crm.test/a?b=1", **rows)
    shown = answer.context["preview"]
    assert shown.request_line == "PUT /a?b=1 HTTP/1.1"
    assert shown.body == b'{"client":{"phone":"380671234567"}}'
    assert "PUT /a?b=1 HTTP/1.1" in answer.text
    assert "no-store" in answer["Cache-Control"]
    stored = Webhook.objects.get()
    assert (stored.url, stored.method, stored.version) == (webhook.url, "POST", webhook.version)


def test_the_length_of_a_body_that_is_stored_in_part_is_shown_once(
    browser: Client, settings: Any
) -> None:
    settings.WEBHOOKS_STORED_BODY_BYTES = 10
    shown = preview(browser, url="https://crm.test/a").context["preview"]
    assert [name for name, _value in shown.headers].count("Content-Length") == 1


def test_secrets_typed_now_are_masked_and_not_even_kept_in_the_session(browser: Client) -> None:
    secret_row = header_fields({"name": "X-Key", "value": "k3y-0123", "is_secret": "on"})
    before = dict(browser.session)
    answer = preview(browser, **BASIC, **secret_row)
    assert dict(browser.session) == before
    assert "k3y-0123" not in answer.text
    assert BASIC["basic_password"] not in answer.text
    headers = dict(answer.context["preview"].headers)
    assert headers["Authorization"] == f"Basic {MASK}"
    assert headers["X-Key"] == MASK


def test_stored_secrets_are_masked_too(browser: Client) -> None:
    webhook = make_webhook(
        **{**BASIC, "headers_json": '[{"name": "X-Key", "value": "k3y-0123", "secret": true}]'}
    )
    page = browser.get(edit_url(webhook))
    assert dict(page.context["preview"].headers)["X-Key"] == MASK
    assert "k3y-0123" not in page.text
    assert BASIC["basic_password"] not in page.text


def test_the_credentials_of_a_connection_are_masked_and_bound_to_its_hosts(browser: Client) -> None:
    connection = make_credential(**BASIC, allowed_hosts=["crm.test"])
    answer = preview(browser, url="https://crm.test/in", connection=str(connection.pk))
    assert dict(answer.context["preview"].headers)["Authorization"] == f"Basic {MASK}"
    assert BASIC["basic_password"] not in answer.text
    answer = preview(browser, url="https://other.test/in", connection=str(connection.pk))
    assert "other.test" in " ".join(answer.context["preview_problems"])


def test_a_mistake_is_said_at_its_row_and_the_rest_is_shown(browser: Client) -> None:
    rows = fields({"name": "a", "content": "caller"}, {"name": "a.b", "content": "dst"})
    answer = preview(browser, **rows)
    assert answer.context["preview"].body == b'{"a":"+38 (067) 123-45-67"}'
    assert "1 parameter has an error and is left out." in answer.text
    assert "Not saved." not in answer.text
    assert (
        'id="parameter-1-errors" hx-swap-oob="true" data-errors="parameter-1-name "' in answer.text
    )
    assert "holds the value of row 1" in answer.text
    assert 'id="parameter-0-errors" hx-swap-oob="true" data-errors=""' in answer.text


def test_a_mistake_in_the_json_body_is_said_below_it(browser: Client) -> None:
    answer = preview(browser, **fields(**TEMPLATE, body_template='{"a": {{ dst }}}'))
    said = answer.text.partition('id="body-template-errors"')[2]
    assert "Line 1, column 7" in said
    assert "so there is no request to show" in answer.text
    assert answer.context["preview"] is None


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (fields({"name": "a", "content": "no_such"}), "Every parameter has an error"),
        ({"method": "GET", **fields(mode="template", body_template="{}")}, "A JSON body needs"),
    ],
    ids=["one broken row", "a JSON body of a GET"],
)
def test_what_could_not_be_sent_is_not_shown_and_the_reason_is(
    browser: Client, typed: dict[str, Any], words: str
) -> None:
    answer = preview(browser, **typed)
    assert answer.context["preview"] is None
    (problem,) = answer.context["preview_problems"]
    assert words in problem


@pytest.mark.parametrize(
    ("mode", "words"), [("rows", "Fill in the first"), ("template", "Enter the JSON")]
)
def test_another_way_that_was_just_chosen_is_no_mistake_yet(
    browser: Client, mode: str, words: str
) -> None:
    answer = preview(browser, **fields(mode=mode))
    assert answer.context["preview_hint"].startswith(words)
    assert answer.context["preview_problems"] == []
    assert answer.context["form"].mapping.problems == []
    refused = browser.post(CREATE, posted(**fields(mode=mode)))
    assert refused.context["form"].mapping.problems


@pytest.mark.parametrize(
    ("method", "row", "words"),
    [
        ("POST", {}, "Null is sent"),
        ("GET", {}, "An empty text is sent"),
        ("POST", {"is_omitted": "on"}, "It is left out"),
        ("POST", {"default": "x"}, "The value set under Options is sent"),
    ],
)
def test_a_variable_that_the_event_does_not_have_is_noted(
    browser: Client, method: str, row: dict[str, str], words: str
) -> None:
    answer = preview(browser, method=method, **fields({"name": "a", "content": "deal_id", **row}))
    assert "This event has no “deal_id”" in answer.text
    assert words in answer.text


def test_an_address_that_is_refused_is_said_one_that_is_missing_is_not(browser: Client) -> None:
    for url, words in (("", ""), ("ftp://crm.test/", "http")):
        answer = preview(browser, url=url)
        problems = " ".join(answer.context["preview_problems"])
        assert words in problems
        assert bool(problems) is bool(words)
        assert answer.context["preview"].body.startswith(b'{"event":')


def test_a_header_that_cannot_be_sent_is_left_out_and_named(browser: Client) -> None:
    answer = preview(browser, **header_fields({"name": "Host", "value": "a"}))
    assert "Host is set automatically" in answer.text
    assert len([name for name, _v in answer.context["preview"].headers if name == "Host"]) == 1


def test_a_query_that_is_too_long_is_warned_about(browser: Client) -> None:
    row = {"name": "a", "source": "text", "content": "x" * 8100}
    answer = preview(browser, method="GET", **fields(row))
    assert "many servers reject more than" in answer.text


def test_the_last_real_event_is_shown_to_who_may_see_payloads() -> None:
    webhook = make_webhook()
    make_delivery(webhook, client_number="380000000001")
    typed = {"preview_event": "real", **fields({"name": "a", "content": "client_number"})}
    blind = logged_in("change_webhook")
    answer = preview(blind, webhook, **typed)
    assert b"380000000001" not in answer.context["preview"].body
    assert "Last real event" not in answer.text
    assert dict(answer.context["preview"].headers)["webhook-signature"] == MASK


def test_the_last_real_event_is_the_newest_of_the_chosen_types(browser: Client) -> None:
    webhook = make_webhook()
    make_delivery(webhook, client_number="380000000001")
    events.publish("deal.created", {"client_number": "380000000002"})
    typed = {"preview_event": "real", **fields({"name": "a", "content": "client_number"})}
    answer = preview(browser, webhook, **typed)
    assert answer.context["preview"].body == b'{"a":"380000000001"}'
    none = preview(browser, webhook, event_types=["dialog.opened"], preview_event="real")
    assert "No such event yet" in none.text


def test_a_form_with_as_much_as_it_may_hold_is_not_too_much(browser: Client) -> None:
    options = {"format": "sql", "time_zone": "Europe/Kyiv", "default": "x", "is_omitted": "on"}
    rows = [{"name": f"n{n}", "content": "caller", **options} for n in range(100)]
    row = {"value": "v", "stored_name": "", "is_secret": "on"}
    headers = [{"name": f"X-{n}", **row} for n in range(50)]
    answer = preview(browser, **fields(*rows), **header_fields(*headers))
    assert answer.status_code == 200
    assert answer.context["preview"].body.count(b'"n') == 100


def test_a_filter_that_refuses_the_event_is_noted(browser: Client) -> None:
    condition = {
        "filter-mode": "json",
        "filter-json": '{"variable": "disposition", "operator": "equals", "value": "BUSY"}',
    }
    assert "The filter excludes this event" in preview(browser, **condition).text
    assert "The filter excludes this event" not in preview(browser).text


def test_a_preview_costs_few_queries(browser: Client, django_assert_max_num_queries: Any) -> None:
    webhook = make_webhook()
    make_delivery(webhook)
    with django_assert_max_num_queries(12):
        preview(browser, webhook, preview_event="real", event_types=["call.*"])


def test_what_became_wrong_since_is_said_and_no_save_is_blamed(browser: Client) -> None:
    webhook = make_webhook(body_template='{"a": }')
    page = browser.get(edit_url(webhook)).text
    assert "Line 1, column 7" in page
    assert "Not saved." not in page
    page = browser.post(edit_url(webhook), posted(**fields(**TEMPLATE, body_template="{"))).text
    assert "Not saved." in page


# ---- Without JavaScript ------------------------------------------------------------------------


def test_a_button_changes_the_rows_and_judges_nothing_else(browser: Client) -> None:
    typed = fields({"name": "a", "content": "caller"}, action="parameter:add")
    page = browser.post(CREATE, posted(name="", **typed))
    assert [row["name"].value() for row in page.context["form"].mapping.rows] == ["a", None]
    assert "Enter a name" not in page.text
    assert page.context["preview"].body == b'{"a":"+38 (067) 123-45-67"}'
    assert not Webhook.objects.exists()


def test_a_success_rule_that_is_not_complete_is_named_and_the_request_is_shown(
    browser: Client,
) -> None:
    answer = preview(
        browser, response_rule="fails", response_operator="equals", response_value="true"
    )
    assert answer.context["preview_problems"] == [
        "Success rule: Enter a response field, like “error”."
    ]
    assert answer.context["preview"].body.startswith(b'{"event":')


def test_the_preview_has_a_button_of_its_own(browser: Client) -> None:
    page = browser.post(CREATE, posted(url="https://crm.test/typed", action="preview"))
    assert page.context["preview"].request_line == "POST /typed HTTP/1.1"
    assert not Webhook.objects.exists()


def test_a_pasted_command_fills_the_page_and_keeps_its_password_hidden(browser: Client) -> None:
    command = """curl -X PUT http://127.0.0.1:9/in -u demo:p4ss-w0rd -d '{"a": 5}'"""
    page = browser.post(CREATE, posted(url="", curl=command, action="paste_curl"))
    assert "Filled in from the command: method, URL, parameters (1), login, password" in page.text
    assert "p4ss-w0rd" not in page.text
    assert page.context["preview"].body == b'{"a":5}'
    rows = fields({"name": "a", "source": "number", "content": "5"})
    typed = {"authorization_type": "basic", "basic_login": "demo", "draft": draft_of(page)}
    saved = browser.post(CREATE, posted(**typed, **rows))
    assert saved.status_code == 302, saved.context["form"].problems()
    assert Webhook.objects.get().credential.basic_password == "p4ss-w0rd"


@pytest.mark.parametrize("body", ['{"a":1e400}', '{"a":[1e400]}', "[1e400]"])
def test_a_number_that_no_float_holds_is_kept_as_it_was_pasted(browser: Client, body: str) -> None:
    command = f"curl -d '{body}' https://crm.test/"
    page = browser.post(CREATE, posted(curl=command, action="paste_curl"))
    assert page.status_code == 200
    assert body.replace('"', "&quot;") in page.text
    typed = {"parameters_mode": "template", "body_template": body}
    shown = preview(browser, **typed).context["preview"]
    assert shown.body == body.encode()


def test_a_refused_command_stays_in_its_field(browser: Client) -> None:
    page = browser.post(CREATE, posted(curl="curl -F a=b https://crm.test", action="paste_curl"))
    assert "multipart form" in page.text
    assert "curl -F a=b https://crm.test</textarea>" in page.text


def test_rows_come_alone_for_htmx(browser: Client) -> None:
    typed = fields({"name": "a", "content": "cal"}, action="parameter:add")
    answer = browser.post(ROWS, {**typed, "method": "POST", "body_format": "json"})
    assert answer.text.count('class="parameter-row"') == 2
    assert "Did you mean" in answer.text
    assert "<html" not in answer.text
    # The buttons in this fragment work like those of the page.
    assert answer.text.count(f'hx-post="{ROWS}"') == answer.text.count("hx-post=") == 8


def test_the_rows_of_a_stored_webhook_may_send_what_no_event_has(browser: Client) -> None:
    webhook = make_webhook(parameters=[{"name": "b", "variable": "budget"}])
    typed = fields({"name": "b", "content": "budget"}, action="parameter:add")
    for pk, count in ((str(webhook.pk), 0), ("", 1)):
        answer = browser.post(ROWS, posted(webhook=pk, **typed), headers={"HX-Request": "true"})
        assert answer.text.count("There is no variable") == count
    given = f'"webhook": "{webhook.pk}"'
    assert browser.get(edit_url(webhook)).text.count(given) == 2
