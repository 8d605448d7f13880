"""The Parameters section: what is posted, where errors are shown, and what saving stores."""

import json
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.factories import make_webhook
from tests.ui.webhook_form.test_forms import bound, multi_value, saved
from webhooks import catalogue, events
from webhooks.models import Event, Webhook
from webhooks.ui.webhook_form.mapping import MappingSection

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def fields(*rows: dict[str, str], mode: str = "rows", **more: Any) -> dict[str, Any]:
    """Return what a browser posts for the section."""
    data: dict[str, Any] = {"parameters_mode": mode, "parameter": []}
    for key, row in enumerate(rows):
        data["parameter"].append(str(key))
        for name, value in {"source": "variable", **row}.items():
            data[f"parameter-{key}-{name}"] = value
    return {**data, **more}


def section(
    webhook: Webhook | None = None, /, *rows: dict[str, str], **more: Any
) -> MappingSection:
    data = {"event_types": ["call.incoming.after"], **fields(*rows, **more)}
    return MappingSection(webhook or Webhook(), multi_value(data))


def names(mapping: MappingSection) -> list[str]:
    return [row.value("name") for row in mapping.rows]


def sentence(*rows: dict[str, str], method: str = "POST", body_format: str = "json") -> str:
    """Return the only error of these rows."""
    (problem,) = section(None, *rows).check(method=method, body_format=body_format)
    return problem.sentence


PHONE = {"name": "client.phone", "content": "client_number"}
SOURCE = {"name": "source", "source": "text", "content": "telephony"}


def test_rows_are_saved_in_their_order_with_what_was_set() -> None:
    dated = {
        "name": "at",
        "content": "call_started_at",
        "format": "sql",
        "time_zone": "Europe/Kyiv",
        "default": "never",
        "is_omitted": "on",
    }
    webhook = saved(**fields(PHONE, SOURCE, dated))
    assert webhook.parameters == [
        {"name": "client.phone", "variable": "client_number"},
        {"name": "source", "value": "telephony", "type": "text"},
        {
            "name": "at",
            "variable": "call_started_at",
            "format": "sql",
            "time_zone": "Europe/Kyiv",
            "default": "never",
            "omit_if_empty": True,
        },
    ]
    again = MappingSection(webhook)
    assert again.mode == "rows"
    assert again.stored_rows() == webhook.parameters


@pytest.mark.parametrize("default", [0, 1.5, True, False, [1, "a"], {"a": None}, "0", " — "])
def test_a_default_that_is_not_changed_keeps_its_type(default: Any) -> None:
    parameter = {"name": "a", "variable": "fields.a", "default": default}
    webhook = Webhook(event_types=["call.incoming.after"], parameters=[parameter])
    (shown,) = MappingSection(webhook).rows
    posted = {name: shown.value(name) for name in ("name", "content", "default", "stored_default")}
    assert section(webhook, posted).write(webhook) == set()
    (row,) = section(webhook, posted | {"name": "b"}, SOURCE).stored_rows()[:1]
    assert row == parameter | {"name": "b"}
    assert type(row["default"]) is type(default)
    (row,) = section(webhook, posted | {"default": "12"}).stored_rows()
    assert row["default"] == "12"


def test_a_page_posts_the_default_as_it_was_stored(browser: Client) -> None:
    webhook = make_webhook(parameters=[{"name": "a", "variable": "fields.a", "default": ["<"]}])
    page = browser.get(reverse("webhooks:edit", args=[webhook.pk])).text
    assert 'name="parameter-0-stored_default" value="[&quot;&lt;&quot;]"' in page


def test_a_stored_default_that_is_no_json_is_text() -> None:
    (row,) = section(None, PHONE | {"default": "{", "stored_default": "{"}).stored_rows()
    assert row["default"] == "{"


def test_blanks_around_a_default_are_sent() -> None:
    row = PHONE | {"format": " sql ", "time_zone": " UTC ", "default": " — "}
    (stored,) = section(None, row).stored_rows()
    assert (stored["format"], stored["time_zone"], stored["default"]) == ("sql", "UTC", " — ")


def test_the_order_of_the_page_is_the_order_of_the_rows() -> None:
    data = fields(PHONE, SOURCE)
    data["parameter"] = ["1", "0"]
    assert [row["name"] for row in saved(**data).parameters] == ["source", "client.phone"]


def test_a_mistake_is_at_its_row_and_in_the_summary_and_nothing_is_lost() -> None:
    form = bound(**fields(PHONE, {}, {"name": "x", "content": "client_numbr"}))
    assert not form.is_valid()
    (problem,) = form.problems()
    assert problem["target"] == "id_parameter-2-content"
    assert problem["label"] == "Parameters, row 3"
    assert "Did you mean “client_number”" in problem["sentence"]
    assert [bool(row.problems) for row in form.mapping.rows] == [False, False, True]
    assert form.mapping.rows[2].value("content") == "client_numbr"


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([PHONE, PHONE], "is the name of row 1 already"),
        # The page counts blank rows.
        ([{}, PHONE, {}, PHONE], "is the name of row 2 already"),
        (
            [{"name": "a", "content": "caller"}, {"name": "a.b", "content": "dst"}],
            "holds the value",
        ),
        ([{"name": "a", "source": "number", "content": "1,5"}], "with a dot, or choose Text"),
        ([{"name": "a", "source": "json", "content": "{"}], "Line 1, column"),
        ([{"name": "a", "content": "caller", "time_zone": "Kyiv"}], "Europe/Kyiv"),
        ([{"name": "", "content": "caller"}], "Give this row a name"),
        ([{"name": "a", "content": ""}], "Choose a variable"),
        ([], "Add a parameter"),
        ([{"name": f"n{n}", "content": "caller"} for n in range(101)], "at most 100 rows"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_what_to_do(
    rows: list[dict[str, str]], words: str
) -> None:
    assert words in sentence(*rows)


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (PHONE | {"name": "pho\0ne"}, "name", "invisible characters"),
        (PHONE | {"content": "client\0number"}, "content", "client\0number"),
        (SOURCE | {"content": "tele\0phony"}, "content", "Null characters are not allowed."),
        (SOURCE | {"source": "te\0xt"}, "source", "The type is one of"),
        (PHONE | {"default": "\0"}, "default", "Null characters are not allowed."),
        (PHONE | {"format": "sql\0"}, "format", "is not a format"),
        (PHONE | {"time_zone": "Europe/\0"}, "time_zone", "time zone"),
    ],
)
def test_a_null_character_is_named_at_its_row_and_kept(
    row: dict[str, str], field: str, words: str
) -> None:
    mapping = section(None, row)
    [problem] = mapping.check(method="POST", body_format="json")
    assert (problem.field, words in problem.sentence) == (field, True)
    assert mapping.rows[0].value(field) == row[field]


def test_the_same_name_twice_is_fine_in_a_form_and_a_query() -> None:
    assert section(None, PHONE, PHONE).check(method="POST", body_format="form") == []
    assert section(None, PHONE, PHONE).check(method="GET", body_format="json") == []


def test_a_json_body_says_the_line_and_the_column_of_a_mistake() -> None:
    form = bound(**fields(mode="template", body_template='{\r\n  "a": {{ caller }}\r\n}'))
    assert not form.is_valid()
    (problem,) = form.problems()
    assert problem["target"] == "id_body_template"
    assert problem["sentence"].startswith("Line 2, column 8: Put double quotes around {{ caller }}")


def test_a_json_body_needs_a_json_request() -> None:
    body = {"mode": "template", "body_template": "{}"}
    form = bound(**fields(**body), method="GET")
    assert not form.is_valid()
    assert "A JSON body needs the body format JSON" in form.problems()[0]["sentence"]
    assert saved(**fields(**body)).body_template == "{}"


def test_what_an_event_of_the_host_carries_is_a_variable_too() -> None:
    row = {"name": "a", "content": "loyalty_level"}
    assert "no variable" in sentence(row)
    events.publish("call.incoming.after", {"loyalty_level": 3})
    assert section(None, row).check(method="POST", body_format="json") == []


def test_choosing_every_variable_again_removes_the_rows_and_says_so_before() -> None:
    webhook = make_webhook(parameters=[{"name": "a", "variable": "caller"}])
    shown = section(webhook, PHONE, mode="all")
    assert "removes the rest" in shown.removal_warning
    assert saved(webhook, **fields(PHONE, mode="all")).parameters == []


def test_saving_what_is_stored_changes_nothing() -> None:
    stored = [{"name": "a", "value": 5}, {"name": "b", "value": None}, {"name": "c", "value": [1]}]
    webhook = make_webhook(parameters=stored)
    rows = [
        {name: row.value(name) for name in ("name", "source", "content")}
        for row in MappingSection(webhook).rows
    ]
    assert section(webhook, *rows).write(webhook) == set()
    assert webhook.parameters == stored


def test_a_form_without_the_section_keeps_what_is_stored() -> None:
    webhook = make_webhook(parameters=[{"name": "a", "variable": "caller"}])
    assert saved(webhook, parameters_mode=None).parameters == webhook.parameters


@pytest.mark.parametrize(
    ("action", "expected", "focus"),
    [
        ("add", ["client.phone", "source", ""], "id_parameter-2-name"),
        ("up:1", ["source", "client.phone"], "parameter-1-up"),
        ("down:0", ["source", "client.phone"], "parameter-0-down"),
        ("up:0", ["client.phone", "source"], "parameter-0-up"),
        ("down:1", ["client.phone", "source"], "parameter-1-down"),
        ("remove:0", ["source"], "parameter-add"),
        ("remove:7", ["client.phone", "source"], ""),
    ],
)
def test_the_buttons_change_the_rows(action: str, expected: list[str], focus: str) -> None:
    changed = section(None, PHONE, SOURCE, action=f"parameter:{action}")
    assert (names(changed), changed.focus) == (expected, focus)


def test_older_names_are_given_on_request() -> None:
    every = section(None, action="parameter:every", parameters_older="on")
    assert {"name": "billsec", "variable": "talk_seconds"} in every.stored_rows()


def test_every_variable_of_the_chosen_events_is_added_once() -> None:
    every = section(None, PHONE, action="parameter:every")
    contents = [row.value("content") for row in every.rows]
    assert len(contents) == len(set(contents))
    assert {"talk_seconds", "utm_source"} <= set(contents)
    assert "deal_id" not in contents


def test_a_field_of_a_host_project_with_a_dot_in_its_name_is_added_under_that_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample = {"order": "A-17", "order.total": 5}
    types = catalogue.host_types({"order.paid": {"label": "Order paid", "sample": sample}})
    monkeypatch.setitem(catalogue.EVENT_TYPES, "order.paid", types["order.paid"])
    monkeypatch.setattr(MappingSection, "offered", list(sample))
    asked = {"action": "parameter:every", "method": "POST"}
    in_json = section(None, **asked, body_format="json")
    in_form = section(None, **asked, body_format="form")
    assert {"name": "order\\.total", "variable": "order.total"} in in_json.stored_rows()
    assert in_json.check(method="POST", body_format="json") == []
    assert {"name": "order.total", "variable": "order.total"} in in_form.stored_rows()


def test_rows_above_the_limit_stay_on_the_page() -> None:
    rows = [{"name": f"n{n}", "content": "caller"} for n in range(90)]
    every = section(None, *rows, action="parameter:every")
    assert len(every.rows) > 101
    again = section(None, *({"name": row.value("name"), "content": row.path} for row in every.rows))
    assert again.stored_rows() == every.stored_rows()
    (problem,) = again.check(method="POST", body_format="json")
    assert "at most 100 rows" in problem.sentence


def test_rows_become_a_json_body_with_the_same_meaning() -> None:
    rows = (PHONE, {"name": "n", "source": "number", "content": "5"}, {**SOURCE, "content": "{{x"})
    body = section(None, *rows, action="parameter:body")
    assert body.mode == "template"
    assert body.template == (
        '{\n  "client": {\n    "phone": "{{ client_number }}"\n  },\n  "n": 5,\n'
        '  "source": "{{ \'{{\' }}x"\n}'
    )
    assert body.check(method="POST", body_format="json") == []


def test_a_row_of_all_other_variables_becomes_each_of_them() -> None:
    rows = ({"name": "event", "source": "text", "content": "call"}, {"name": "*", "content": "*"})
    body = json.loads(section(None, *rows, action="parameter:body").template)
    assert body["event"] == "call"
    assert {"talk_seconds", "utm_source"} <= body.keys()


def test_a_json_body_of_every_variable_has_older_names_on_request() -> None:
    body = section(None, mode="all", action="parameter:body", parameters_older="on")
    assert json.loads(body.template)["billsec"] == "{{ talk_seconds }}"


def test_a_picked_variable_is_added_to_the_json_body() -> None:
    pick = {"mode": "template", "action": "parameter:pick", "parameter_variable": "dst"}
    picked = section(None, **pick, body_template='{"a": 1}')
    assert picked.template == '{\n  "a": 1,\n  "dst": "{{ dst }}"\n}'
    broken = section(None, **pick, body_template="{")
    assert broken.template == "{"


def test_a_json_body_that_was_typed_is_not_written_over() -> None:
    assert section(None, PHONE, body_template="{", action="parameter:body").template == "{"


def test_a_row_says_what_its_folded_options_are() -> None:
    set_ = {"format": "sql", "time_zone": "Europe/Kyiv", "default": "x", "is_omitted": "on"}
    (row,) = section(None, {**PHONE, **set_}).rows
    assert row.options == [
        "Date as YYYY-MM-DD HH:MM:SS",
        "Europe/Kyiv",
        "or “x”",
        "omitted when empty",
    ]
    (row,) = section(None, {**SOURCE, **set_}).rows
    assert row.options == ["omitted when empty"]


def test_a_variable_is_chosen_by_its_label_with_a_sample_beside_it() -> None:
    chosen = {"name": "phone", "source": "=client_number", "content": "typed before"}
    mapping = section(None, chosen, {"name": "city", "content": "fields.city"})
    assert mapping.stored_rows() == [
        {"name": "phone", "variable": "client_number"},
        {"name": "city", "variable": "fields.city"},
    ]
    labelled, typed = mapping.shown_rows
    assert (labelled.chosen, labelled.text, labelled.path) == (
        "=client_number",
        "",
        "client_number",
    )
    assert (typed.chosen, typed.text) == ("variable", "fields.city")
    assert '=client_number" selected>Client&#x27;s number · 380671234567<' in labelled.options_html
    (empty,) = section(None).shown_rows
    assert empty.chosen == ""
    assert "selected" not in empty.options_html


def test_a_variable_that_is_sent_stays_one_when_the_newest_event_lacks_it() -> None:
    events.publish("call.outgoing.after", {"budget": 5})
    row = {"name": "b", "content": "budget"}
    webhook = saved(event_types=["call.*"], **fields(row))
    events.send_test(webhook, "call.outgoing.after")
    Event.objects.exclude(source="test").delete()
    assert not section(webhook, row).check(method="POST", body_format="json")
    assert not MappingSection(webhook).check(method="POST", body_format="json")
    assert section(webhook, {**row, "content": "budgets"}).check(method="POST", body_format="json")


def test_a_variable_of_a_json_body_stays_one_too() -> None:
    webhook = Webhook(body_template='{"b": "{{ budget.sum | text }}"}')
    assert not MappingSection(webhook).check(method="POST", body_format="json")


def test_a_field_is_a_variable_though_not_every_event_has_it() -> None:
    webhook = Webhook(event_types=["call.*"])
    row = {"name": "b", "content": "budget"}
    assert section(webhook, row).check(method="POST", body_format="json")
    events.publish("call.outgoing.after", {"budget": 5})
    events.publish("call.outgoing.after", {"call_id": "1"})
    found = section(webhook, row, event_types=["call.*"])
    assert not found.check(method="POST", body_format="json")
