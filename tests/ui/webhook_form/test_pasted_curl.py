"""A pasted cURL command fills the form: fields, rows and secrets; typed values are kept."""

import json
from typing import Any

import pytest
from django.http import QueryDict

from tests.ui.webhook_form.test_forms import header_fields, multi_value, posted
from tests.ui.webhook_form.test_mapping import fields
from webhooks.models import Webhook
from webhooks.ui.webhook_form import pasted_curl
from webhooks.ui.webhook_form.mapping import MappingSection
from webhooks.ui.webhook_form.pasted_curl import Pasted

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def paste(command: str, **typed: Any) -> tuple[QueryDict, Pasted]:
    data = multi_value(posted(**{"curl": command, "url": "", **typed}))
    return data, pasted_curl.fill_in(data)


def rows(data: QueryDict) -> list[dict[str, Any]]:
    return MappingSection(Webhook(), data).stored_rows()


def row(name: str, value: str, kind: str = "text") -> dict[str, Any]:
    return {"name": name, "value": value, "type": kind}


def test_the_request_line_and_the_credentials_are_filled_in() -> None:
    data, pasted = paste("curl -X PUT https://crm.test/in?a=1 -u demo:p4ss -m 20")
    assert (data["method"], data["url"]) == ("PUT", "https://crm.test/in?a=1")
    assert (data["authorization_type"], data["basic_login"]) == ("basic", "demo")
    assert data["basic_password"] == "p4ss"
    assert data["timeout_seconds"] == "20"
    assert data["curl"] == ""
    assert pasted.filled == ("method", "URL", "login", "password", "timeout")
    assert data["name"] == "CRM"


def test_a_login_takes_the_place_of_a_chosen_connection() -> None:
    data, _pasted = paste("curl https://crm.test/in -u demo:p4ss", connection="7")
    assert data["connection"] == ""
    data, _pasted = paste("curl https://crm.test/in", connection="7")
    assert data["connection"] == "7"


def test_a_header_writes_over_none_of_more_rows_than_can_be_saved() -> None:
    typed = header_fields(*[{"name": f"X-{number}", "value": "1"} for number in range(53)])
    data, _pasted = paste("curl https://crm.test/in -H 'X-New: 2'", **typed)
    assert data["headers-TOTAL_FORMS"] == "54"
    assert (data["headers-50-name"], data["headers-53-name"]) == ("X-50", "X-New")


def test_text_that_is_no_pair_is_said_to_be_sent_as_one() -> None:
    data, pasted = paste("curl https://crm.test/in -d 'hello+there&a=&b'")
    assert rows(data) == [row("hello there", ""), row("a", ""), row("b", "")]
    said = [note for note in pasted.notes if "cannot be sent exactly" in note]
    assert [note.partition("”")[0] for note in said] == ["“hello there", "“b"]


def test_placeholders_of_a_header_are_named() -> None:
    _data, pasted = paste("curl https://crm.test/ -H 'X-A: {{b}}' -H 'X-C: d'")
    named = [note.partition(" is sent with its braces")[0] for note in pasted.notes]
    assert named == ["“X-A”"]


def test_a_json_body_becomes_rows_with_types_and_variables() -> None:
    body = """{"client_number": "380", "billsec": 5, "a.b": true, "n": null, "price": 1.5,
    "client": {"name": "Олена"}, "tags": ["x", {"id": 7}], "none": [], "here": {}}"""
    data, pasted = paste(f"curl https://crm.test/in -d '{body}'")
    assert data["body_format"] == "json"
    assert rows(data) == [
        {"name": "client_number", "variable": "client_number"},
        {"name": "billsec", "variable": "talk_seconds"},
        row("a\\.b", "true", "boolean"),
        row("n", "", "null"),
        row("price", "1.5", "number"),
        row("client.name", "Олена"),
        row("tags[0]", "x"),
        row("tags[1].id", "7", "number"),
        row("none", "[]", "json"),
        row("here", "{}", "json"),
    ]
    mapping = MappingSection(Webhook(), data)
    assert mapping.check(method="POST", body_format="json") == []
    assert any("client_number, billsec" in note for note in pasted.notes)


def test_a_list_or_a_document_with_too_many_values_becomes_a_json_body() -> None:
    data, _pasted = paste("curl https://crm.test/in --json '[1, 2]'")
    assert (data["parameters_mode"], data["body_template"]) == ("template", "[\n  1,\n  2\n]")
    many = ", ".join(f'"k{n}": 1' for n in range(101))
    data, _pasted = paste(f"curl https://crm.test/in -d '{{{many}}}'")
    assert data["parameters_mode"] == "template"


def test_a_body_that_says_it_is_json_and_is_not_is_kept_to_be_corrected() -> None:
    data, _pasted = paste("curl https://crm.test/in -H 'Content-Type: application/json' -d '{a}'")
    assert data["body_template"] == "{a}"
    (problem,) = MappingSection(Webhook(), data).check(method="POST", body_format="json")
    assert problem.sentence.startswith("Line 1, column 2")


def test_a_body_whose_quotes_an_editor_changed_becomes_a_json_body_that_says_so() -> None:
    data, _pasted = paste("\ufeffcurl https://crm.test/in -d '{\n “a”: 1}'")
    assert (data["parameters_mode"], data["body_template"]) == ("template", "{\n “a”: 1}")
    (problem,) = MappingSection(Webhook(), data).check(method="POST", body_format="json")
    assert problem.sentence.startswith("Line 2, column 2: This quote (“) is curly.")


def test_a_value_that_is_one_known_place_becomes_a_variable() -> None:
    body = '{"phone": "{{ client_number }}", "spent": "{{ billsec }}", "source": "PBX"}'
    data, _pasted = paste(f"curl https://crm.test/in --json '{body}'")
    assert data["parameters_mode"] == "rows"
    assert rows(data) == [
        {"name": "phone", "variable": "client_number"},
        {"name": "spent", "variable": "talk_seconds"},
        row("source", "PBX"),
    ]
    assert MappingSection(Webhook(), data).check(method="POST", body_format="json") == []


@pytest.mark.parametrize(
    "body",
    [
        '{"text": "Call from {{ client_number }}"}',
        '{"client": {"phone": "{{ client_number }}"}}',
        '{"phones": ["{{ client_number }}"]}',
        '{"at": "{{ occurred_at | unix }}", "source": "PBX"}',
        """{"phone": "{{ client_number | default:'none' }}"}""",
    ],
)
def test_places_within_text_or_further_down_become_a_json_body(body: str) -> None:
    quoted = body.replace("'", "'\\''")
    data, pasted = paste(f"curl https://crm.test/in --json '{quoted}'")
    assert data["parameters_mode"] == "template"
    assert json.loads(data["body_template"]) == json.loads(body)
    assert "JSON body" in pasted.filled
    assert MappingSection(Webhook(), data).check(method="POST", body_format="json") == []


def test_a_place_that_no_event_fills_becomes_a_json_body_that_says_so() -> None:
    data, _pasted = paste("""curl https://crm.test/in --json '{"phone": "{{ fone_number }}"}'""")
    assert data["parameters_mode"] == "template"
    (problem,) = MappingSection(Webhook(), data).check(method="POST", body_format="json")
    assert "fone_number" in problem.sentence


def test_a_place_without_quotes_becomes_a_json_body_to_be_corrected() -> None:
    data, _pasted = paste("""curl https://crm.test/in -d '{"phone": {{ client_number }}}'""")
    assert (data["body_format"], data["parameters_mode"]) == ("json", "template")
    (problem,) = MappingSection(Webhook(), data).check(method="POST", body_format="json")
    assert "double quotes around {{ client_number }}" in problem.sentence


def test_places_of_a_form_become_variables_or_are_reported() -> None:
    command = "curl https://crm.test/in -d 'a={{ client_number }}' -d 'b=from {{ client_number }}'"
    data, pasted = paste(command)
    assert rows(data) == [
        {"name": "a", "variable": "client_number"},
        row("b", "from {{ client_number }}"),
    ]
    assert any("“b” is sent with its braces" in note for note in pasted.notes)


def test_a_form_and_a_query_become_rows_of_texts() -> None:
    data, _pasted = paste("curl https://crm.test/in -d 'a=1&b=%D0%9A+x&a=2&c='")
    assert data["body_format"] == "form"
    assert rows(data) == [row("a", "1"), row("b", "К x"), row("a", "2"), row("c", "")]
    data, _pasted = paste("curl -G https://crm.test/in -d a=1")
    assert (data["method"], rows(data)) == ("GET", [row("a", "1")])


def test_rows_that_were_typed_stay_and_those_of_the_same_name_are_filled() -> None:
    typed = fields({"name": "mine", "content": "caller"}, {"name": "a", "content": "dst"})
    data, _pasted = paste("curl https://crm.test/in -d 'a=1&b=2'", **typed)
    assert rows(data) == [
        {"name": "mine", "variable": "caller"},
        row("a", "1"),
        row("b", "2"),
    ]


def test_headers_fill_rows_and_secrets_are_marked() -> None:
    typed = header_fields({"name": "x-team", "value": "old"}, {"name": "", "value": ""})
    command = "curl https://crm.test/in -H 'X-Team: new' -H 'X-Api-Key: k' -H 'Accept: */*'"
    data, pasted = paste(f"{command} -H 'Host: h' -H 'Cookie: a=b'", **typed)
    assert data["headers-TOTAL_FORMS"] == "2"
    assert (data["headers-0-name"], data["headers-0-value"]) == ("X-Team", "new")
    assert (data["headers-1-name"], data["headers-1-value"]) == ("X-Api-Key", "k")
    assert "headers-0-is_secret" not in data
    assert data["headers-1-is_secret"] == "on"
    assert any("so left out: Host" in note for note in pasted.notes)
    assert any("Cookies expire" in note for note in pasted.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-H 'Authorization: Bearer abc'", "Bearer token was left out"),
        ("--oauth2-bearer abc", "Bearer token was left out"),
        ("-H 'Authorization: Hawk id=1'", "“Hawk” cannot be sent"),
        ("-H $'Authorization: Token\\tabc'", "“Token” cannot be sent"),
        ("-H 'Authorization: abc'", "“…” cannot be sent"),
        ("--ntlm -u a:abc", "“NTLM” cannot be sent"),
        ("-H 'Content-Type: text/xml' -d '<a/>'", "The body is text/xml"),
        ("-X PURGE", "The method PURGE cannot be chosen"),
        ("-m 600", "The timeout is from 1 to 60 seconds"),
        ("-m nan", "its value is not a number of seconds"),
        ("-m 1e999", "its value is not a number of seconds"),
        ("-d a=b", "Replace values"),
    ],
)
def test_what_is_left_out_is_named(options: str, words: str) -> None:
    data, pasted = paste(f"curl https://crm.test/in {options}")
    assert any(words in note for note in pasted.notes)
    assert "abc" not in data.urlencode()
    assert not any("abc" in note for note in pasted.notes)


JSON_API = "application/vnd.api+json"


@pytest.mark.parametrize(
    ("declared", "body", "kind"),
    [
        (JSON_API, '{"a": 1}', "json"),
        ("text/json; charset=utf-8", "[1]", "json"),
        ("application/x-www-form-urlencoded", '{"a": 1}', "json"),
        ("text/plain", '{"a": 1}', "json"),
        (JSON_API, "", "json"),
    ],
)
def test_a_type_that_is_not_sent_is_named(declared: str, body: str, kind: str) -> None:
    options = f"-X POST -H 'Content-Type: {declared}' -d '{body}'"
    data, pasted = paste(f"curl https://crm.test/in {options}")
    assert data["body_format"] == kind
    name = declared.partition(";")[0]
    assert f"Set automatically, so left out: Content-Type ({name})." in pasted.notes


@pytest.mark.parametrize(
    ("declared", "body"),
    [("application/json; charset=utf-8", "{}"), ("application/x-www-form-urlencoded", "a=1")],
)
def test_a_type_that_is_sent_is_not_named(declared: str, body: str) -> None:
    _data, pasted = paste(f"curl https://crm.test/ -H 'Content-Type: {declared}' -d '{body}'")
    assert not any("Content-Type" in note for note in pasted.notes)


def test_lines_of_json_are_no_json() -> None:
    options = """-H 'Content-Type: application/x-ndjson' -d $'{"a": 1}\\n{"a": 2}'"""
    data, pasted = paste(f"curl https://crm.test/in {options}")
    assert "body_template" not in data
    assert any("The body is application/x-ndjson" in note for note in pasted.notes)


def test_blanks_around_a_placeholder_are_sent() -> None:
    data, _pasted = paste("""curl https://crm.test/in --json '{"a": " {{ duration_seconds }} "}'""")
    assert json.loads(data["body_template"]) == {"a": " {{ duration_seconds }} "}


def test_more_parameters_than_the_form_holds_are_left_out_in_one_sentence() -> None:
    data, pasted = paste("curl https://crm.test/in -d '" + "&".join(["a={{ b"] * 14_000) + "'")
    assert rows(data) == []
    left_out = "There are 14000 parameters, but at most 100 can be set, so they were left out."
    assert pasted.notes == (left_out,)


def test_more_headers_than_the_form_holds_are_left_out_in_one_sentence() -> None:
    names = " ".join(f"-H 'X-{number}: {{{{ a }}}}'" for number in range(6_000))
    data, pasted = paste(f"curl https://crm.test/in {names} -d a=1")
    assert "X-" not in data.urlencode()
    left_out = "There are 6000 headers, but at most 50 can be set, so they were left out."
    assert left_out in pasted.notes


def test_the_first_notes_are_shown_and_the_others_counted() -> None:
    names = "&".join(f"a{number}" for number in range(90))
    _data, pasted = paste(f"curl https://crm.test/in -d '{names}'")
    assert len(pasted.notes) == 21
    assert pasted.notes[-1] == "71 more"


def test_a_refused_command_changes_nothing_and_stays() -> None:
    command = "curl https://crm.test/in -F a=b"
    before = multi_value(posted(curl=command, url="")).urlencode()
    data, pasted = paste(command)
    assert "multipart" in pasted.problem
    assert data.urlencode() == before


def test_a_password_that_a_shell_fills_in_is_not_taken_for_one() -> None:
    data, _pasted = paste('curl https://crm.test/in -u demo:"$PASSWORD"')
    assert data["basic_login"] == "demo"
    assert "basic_password" not in data


@pytest.mark.parametrize("said", ["many", "300000000", "-1", ""])
def test_a_number_of_header_rows_that_means_nothing_harms_no_one(said: str) -> None:
    typed = {"headers-TOTAL_FORMS": said}
    data, _pasted = paste("curl https://crm.test/ -H 'X-Team: sales'", **typed)
    assert "X-Team" in [data[name] for name in data if name.endswith("-name")]


def test_headers_above_the_limit_stay_on_the_page() -> None:
    names = [f"X-{number}" for number in range(60)]
    data, _pasted = paste("curl https://crm.test/ " + " ".join(f"-H '{one}: a'" for one in names))
    assert [data[f"headers-{row}-name"] for row in range(60)] == names
    assert data["headers-TOTAL_FORMS"] == "60"


def test_a_password_that_begins_with_a_dollar_is_one() -> None:
    data, _pasted = paste("curl https://crm.test/ -u 'admin:$ecret'")
    assert data["basic_password"] == "$ecret"


def body_kept(body: str, options: str = "-d") -> Any:
    """Return the JSON body that a command fills in, or None if it fills rows."""
    data, _pasted = paste(f"curl https://crm.test/in {options} '{body}'")
    assert data["body_format"] == "json"
    return data["body_template"] if data["parameters_mode"] == "template" else None


@pytest.mark.parametrize(
    "body",
    [
        '{"a":1e400}',
        '{"a":[1e400]}',
        "[1e400]",
        '{"a":12345678901234567890.12345}',
        '{"a":1e-99999999999999999999}',
        '{"a":"x\\u0000y"}',
        '{"a":"l1\\r\\nl2"}',
        '{"a":"l1\\rl2"}',
        '{" a ":1}',
        '{"a":"\\ud800"}',
        '["\\ud800"]',
        '{"%s":1}' % ("k" * 201),
        '{"a":"%s"}' % ("v" * 8193),
    ],
)
def test_what_a_row_would_change_is_kept_as_typed_in_the_json_body(body: str) -> None:
    assert body_kept(body) == body
    assert body_kept(body, "--json") == body


@pytest.mark.parametrize("number", ["1.5", "10.00", "1e3", "-0.0", "12345678901234567890"])
def test_numbers_that_stay_the_same_are_rows(number: str) -> None:
    assert body_kept(f'{{"a":{number}}}') is None


@pytest.mark.parametrize("body", ['{"a":1e400}', '{"a":12345678901234567890.12345}'])
def test_a_json_body_sends_numbers_as_they_are_typed(body: str) -> None:
    data, _pasted = paste(f"curl https://crm.test/in -d '{body}'")
    webhook = Webhook(body_template=data["body_template"])
    assert MappingSection(webhook, data).check(method="POST", body_format="json") == []


@pytest.mark.parametrize("body", ["a=%FF", "a=x%00", "a=1%0D%0A2", "+a+=1", "%FF=1"])
def test_what_a_row_of_a_form_would_change_is_shown(body: str) -> None:
    data, pasted = paste(f"curl https://crm.test/in -d '{body}&b=2'")
    (note,) = [note for note in pasted.notes if "exactly as it was pasted" in note]
    assert "“b”" not in note
    assert data.urlencode()


def test_a_body_of_a_get_is_left_out_and_named() -> None:
    command = """curl -X GET -d '{"a":1}' https://crm.test/in"""
    data, pasted = paste(command)
    assert rows(data) == []
    assert any("GET has no body here" in note for note in pasted.notes)
    data, _pasted = paste("curl -X POST -G -d a=1 https://crm.test/in")
    assert (data["method"], data["body_format"], rows(data)) == ("POST", "query", [row("a", "1")])


@pytest.mark.parametrize("options", ["-d ''", "--json ''", "-X DELETE"])
def test_an_empty_body_is_described_as_every_variable_would_be_sent(options: str) -> None:
    data, pasted = paste(f"curl {options} https://crm.test/in")
    assert any("sends every variable" in note for note in pasted.notes)
    assert "parameters_mode" not in data
    typed = fields({"name": "mine", "content": "caller"})
    data, pasted = paste(f"curl {options} https://crm.test/in", **typed)
    assert pasted.notes == ()


def test_headers_of_one_name_become_a_list() -> None:
    command = "curl https://crm.test/in -H 'X-Tag: a' -H 'X-Team: t' -H 'x-tag: b'"
    data, _pasted = paste(f"{command} -H 'Cookie: a=b' -H 'cookie: c=d'")
    assert data["headers-TOTAL_FORMS"] == "2"
    assert (data["headers-0-name"], data["headers-0-value"]) == ("X-Tag", "a, b")
    assert (data["headers-1-name"], data["headers-1-value"]) == ("X-Team", "t")


def test_a_header_without_a_value_is_named() -> None:
    data, pasted = paste("curl https://crm.test/in -H 'X-Empty;' -H X-NoColon")
    assert pasted.notes == ("The header X-Empty has no value.",)
    assert "X-" not in data.urlencode()


def test_credentials_of_the_address_become_basic_ones() -> None:
    data, _pasted = paste("curl https://user:p%40ss@crm.test/in")
    assert (data["url"], data["authorization_type"]) == ("https://crm.test/in", "basic")
    assert (data["basic_login"], data["basic_password"]) == ("user", "p@ss")


def test_a_bearer_header_counts_before_a_login() -> None:
    data, pasted = paste("curl https://crm.test/in -u a:b -H 'Authorization: Bearer z'")
    assert "basic_password" not in data
    assert any("Bearer token was left out" in note for note in pasted.notes)
