"""docs/events.md names every event type and variable of the catalogue, and its samples are real."""

import ast
import datetime as dt
import json
import re

import pytest

from tests.docs.events import PAGE, types_with
from webhooks import catalogue, events, filters
from webhooks.catalogue import EVENT_TYPES, VARIABLES
from webhooks.filters import Operator
from webhooks.models import Event
from webhooks.payloads import read_document
from webhooks.payloads.document import instant


def test_the_page_is_what_make_docs_writes() -> None:
    assert PAGE.text == PAGE.expected(), "run `make docs`"


def samples() -> dict[str, dict[str, object]]:
    found = re.findall(r"^#### `(\S+)`\n\n```json\n(.+?)\n```$", PAGE.text, re.M | re.S)
    return {key: json.loads(sample) for key, sample in found}


def test_every_type_has_its_sample() -> None:
    assert samples() == {key: catalogue.sample_event(key) for key in EVENT_TYPES}


def test_every_variable_has_one_row() -> None:
    generated = PAGE.text.partition("## Variables\n")[2]
    rows = re.findall(r"^\| `(\w+)` \|", generated, re.M)
    assert sorted(rows) == sorted(VARIABLES)


def test_every_link_to_a_type_leads_to_its_heading() -> None:
    links = re.findall(r"\[`([^`]+)`\]\(#([\w-]+)\)", PAGE.text)
    assert {key for key, _ in links} == set(EVENT_TYPES)
    assert all(anchor == key.replace(".", "") for key, anchor in links)


def test_a_variable_is_listed_under_the_events_that_carry_it() -> None:
    assert types_with("closed_at") == ("dialog.closed",)
    assert "### In `dialog.closed`\n\n| variable" in PAGE.text


def test_no_sample_is_wider_than_a_line() -> None:
    blocks = re.findall(r"```json\n(.+?)\n```", PAGE.text, re.S)
    assert [line for block in blocks for line in block.splitlines() if len(line) > 100] == []


def test_the_example_of_a_time_is_written_like_any_other() -> None:
    example = re.search(r"## The document\n.+?```json\n(.+?)\n```", PAGE.text, re.S)
    assert example is not None
    fraction = json.loads(example[1])["occurred_at"]
    whole = "2026-05-14T09:28:49Z"
    moments = [dt.datetime.fromisoformat(one) for one in (whole, fraction)]
    assert moments == sorted(moments)
    assert [instant(one) for one in moments] == [whole, fraction]
    # As the page says of sorting as text.
    assert fraction < whole


@pytest.mark.django_db
@pytest.mark.once
def test_the_python_example_publishes_an_event() -> None:
    example = re.search(r"## Publishing.+?```python\n(.+?)\n```", PAGE.text, re.S)
    assert example is not None
    exec(example[1], {})
    event = Event.objects.get(idempotency_key="form-90417")
    assert read_document(event.payload)["name"] == "Тарас"


@pytest.mark.django_db
@pytest.mark.once
def test_the_body_of_the_http_example_publishes_an_event() -> None:
    example = re.search(r"^  -d '(.+)'$", PAGE.text, re.M)
    assert example is not None
    body = json.loads(example[1])
    events.publish(body.pop("type"), body.pop("payload"), **body)
    assert Event.objects.get().type == "form.submitted"


def test_the_example_of_own_types_is_accepted() -> None:
    example = re.search(r"^EVENT_TYPES = (\{.+?^\})", PAGE.text, re.M | re.S)
    assert example is not None
    own = catalogue.host_types(ast.literal_eval(example[1]))
    assert list(own) == ["order.paid"]


def test_the_example_of_a_filter_is_accepted() -> None:
    example = re.search(r"## Filters\n\n```json\n(.+?)\n```", PAGE.text, re.S)
    assert example is not None
    filters.compile_filter(json.loads(example[1]))
    operators = re.search(r"Operators: `([a-z_ \n]+)`", PAGE.text)
    assert operators is not None
    assert operators[1].split() == [operator.value for operator in Operator]
