"""The help pages: events and their variables, and the receiver's guide as in the document."""

import json
import re

import pytest
from django.test import Client
from django.urls import reverse

from tests.docs.page import ROOT
from tests.people import logged_in
from webhooks import catalogue
from webhooks.ui.help import markdown

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture
def browser() -> Client:
    return logged_in()


@pytest.mark.parametrize(
    ("words", "found", "left_out"),
    [
        ("", "call.incoming.after", "nothing"),
        ("form.submitted", "form.submitted", "call.incoming.after"),
        ("recording_url", "call.incoming.after", "form.submitted"),
    ],
)
def test_events_are_found_by_name_and_by_variable(
    browser: Client, words: str, found: str, left_out: str
) -> None:
    page = browser.get(reverse("webhooks:help_events"), {"q": words}).text
    assert reverse("webhooks:help_event", args=[found]) in page
    assert reverse("webhooks:help_event", args=[left_out]) not in page
    assert "No event matches" in browser.get(reverse("webhooks:help_events"), {"q": "zzz"}).text


@pytest.mark.parametrize("event_type", list(catalogue.EVENT_TYPES))
def test_a_sample_has_what_its_schema_says(browser: Client, event_type: str) -> None:
    page = browser.get(reverse("webhooks:help_event", args=[event_type])).text
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "object": dict}
    schema, sample = catalogue.schema(event_type), catalogue.sample_event(event_type)
    assert set(schema["required"]) <= sample.keys() <= schema["properties"].keys()
    for name, value in sample.items():
        assert f"<code>{name}</code>" in page
        said = schema["properties"][name]
        if "type" in said and value not in (None, ""):
            assert isinstance(value, kinds[said["type"]]), name
        assert "enum" not in said or value in ("", *said["enum"]), name
    json.dumps(schema)


@pytest.mark.parametrize(("language", "name"), [("en", "receivers.md"), ("uk", "receivers.uk.md")])
def test_the_guide_is_the_document_in_the_language_of_its_reader(
    browser: Client, language: str, name: str
) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    url = reverse("webhooks:help_receivers")
    page = browser.get(url, headers={"Accept-Language": language}).text
    assert f'<article class="card card-body help-text" lang="{language}">' in page
    for heading in re.findall("^##+ (.+)$", text, re.M):
        assert heading.replace("'", "&#x27;") in page
    for runtime in ("Python", "JavaScript", "PHP", "Go", "Ruby", "Java", "C#", "curl"):
        assert f"<summary><h3>{runtime}</h3></summary>" in page
    assert page.count('<pre class="code"') == text.count("```") / 2 + 2
    assert f'href="{reverse("webhooks:help_events")}"' in page
    # Links to a section of the guide work in each language.
    assert 'id="check-the-signature"' in page
    assert page.count('href="#check-the-signature"') == 2


def test_what_a_document_says_is_escaped() -> None:
    text = "# T\n\n<b> `<i>` **<u>** [<s>](x)\n\n| <p> |\n|---|\n| <q> |\n\n```\n<script>\n```\n"
    body = markdown.read(text, pages={}).body
    assert not re.findall("<(b|i|u|s|q|script)>", body)
