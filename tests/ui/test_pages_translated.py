"""Every page with a pseudo-translation: text that is not in brackets was never marked."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils.translation import trans_real

from tests.pages import PAGES
from tests.scenes import scene as make_scene
from tests.translations import catalog
from tests.translations.extraction import every_text

pytestmark = [pytest.mark.django_db, pytest.mark.once]

# Django translates its own pages itself.
_PAGES = [page for page in PAGES if not page.name.startswith("admin:auth")]
_SILENT = {"script", "style", "code", "kbd", "pre", "textarea", "samp"}
_SPOKEN = ("aria-label", "title", "placeholder", "alt")
_TRANSLATED = re.compile("⟦[^⟦⟧]*⟧")
_SENTENCE = re.compile(r"\b[A-Za-z]+ [a-z]+ [a-z]+")
# Data from the scene, the samples and the receivers; the last one is Django's own text.
_DATA = re.compile(
    "The receiver failed with 503|The grant was revoked|The receiver answered 503 to the last 12|"
    "curl -X POST.*|Change or view list link"
)


@pytest.fixture(scope="module")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a catalog that puts every text into brackets, as Ukrainian."""
    folder = tmp_path_factory.mktemp("locale")
    target = folder / "uk" / "LC_MESSAGES" / "django.mo"
    target.parent.mkdir(parents=True)
    found = catalog.update(every_text())
    for entry in found:
        if entry.msgid_plural:
            many = f"⟦{entry.msgid_plural}⟧"
            entry.msgstr_plural = {0: f"⟦{entry.msgid}⟧", 1: many, 2: many}
        else:
            entry.msgstr = f"⟦{entry.msgid}⟧"
    found.save_as_mofile(str(target))
    return folder


def _forget_translations() -> None:
    trans_real._translations = {}  # type: ignore[attr-defined]


@pytest.fixture
def browser(pretended: Path, settings: Any) -> Iterator[Client]:
    settings.LOCALE_PATHS = [pretended]
    _forget_translations()
    client = Client(headers={"Accept-Language": "uk"})
    client.force_login(User.objects.create_superuser("admin", password="p"))
    yield client
    _forget_translations()
    trans_real.deactivate()


class _PageReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self._silent = 0
        # An element marked as English, like the receiver's guide: its tag and its nesting depth.
        self._english, self._depth = "", 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        if self._depth:
            self._depth += tag == self._english
        elif ("lang", "en") in attrs:
            self._english, self._depth = tag, 1
        self.said += [value for name, value in attrs if name in _SPOKEN and value]

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in _SILENT
        if self._depth:
            self._depth -= tag == self._english

    def handle_data(self, data: str) -> None:
        if not self._silent and not self._depth:
            self.said.append(data)


def untranslated(html: str) -> list[str]:
    reader = _PageReader()
    reader.feed(html)
    # A translated text may contain tags.
    text, before = "|".join(reader.said), ""
    while before != text:
        before, text = text, _TRANSLATED.sub("|", text)
    return [
        " ".join(one.split()) for one in text.split("|") if _SENTENCE.search(_DATA.sub("", one))
    ]


@pytest.mark.slow
def test_every_sentence_of_every_page_is_marked(browser: Client) -> None:
    scene, found = make_scene(), {}
    for page in _PAGES:
        client = Client(headers={"Accept-Language": "uk"}) if page.name == "login" else browser
        answer = client.get(page.address(scene), headers=page.headers)
        assert answer.status_code == 200
        if not page.is_part:
            assert '<html lang="uk"' in answer.text
            assert "⟦" in answer.text
        if sentences := untranslated(answer.text):
            found[str(page)] = sentences
    assert found == {}
