"""User-visible texts are marked, translated into Ukrainian, and compiled from their sources."""

import re
from collections.abc import Iterable
from pathlib import Path

import polib
import pytest

from tests.translations import catalog, unmarked
from tests.translations.extraction import (
    ROOT,
    MarkedText,
    every_text,
    python_files,
    template_files,
)

# Names, examples and values that are the same in every language.
_UNTRANSLATED = re.compile(
    r"""is-\w+|\w+-list|log-detail|JSON|TLS|null|curl\ .*|\{.*\}   # words of machines
      |[a-z_]+\.[a-z_]+|[a-z]+_[a-z_]+|(dlv|evt)_….*            # keys and ids
      |Google|Microsoft|GitHub|Slack|Salesforce|HubSpot|Zoho|Bitrix24|Kommo.*
      |DocuSign|OpenID\ Connect""",
    re.VERBOSE | re.DOTALL,
)
_PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]|%\.\d+f|\{\w+\}|%%")


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def ukrainian() -> polib.POFile:
    return catalog.read()


def test_no_template_has_a_text_that_is_not_marked() -> None:
    assert (
        _unmarked({path: unmarked.in_template(path.read_text()) for path in template_files()}) == {}
    )


@pytest.mark.slow
def test_no_module_gives_people_a_text_that_is_not_marked() -> None:
    assert _unmarked({path: unmarked.in_python(path) for path in python_files()}) == {}


def _unmarked(found: dict[Path, Iterable[str]]) -> dict[str, list[str]]:
    return {
        place(path): wrong
        for path, texts in found.items()
        if (wrong := [text for text in texts if not _UNTRANSLATED.fullmatch(text)])
    }


def test_unmarked_words_are_found_in_texts_attributes_and_calls(tmp_path: Path) -> None:
    template = (
        '{% load i18n %}<p title="Said">{% translate "Marked" %} Not <b>marked</b> {{ value }}</p>'
        "{% blocktranslate %}Marked too{% endblocktranslate %}<code>is_code</code><i>5</i>"
    )
    assert list(unmarked.in_template(template)) == ["Said", "Not", "marked"]
    module = tmp_path / "module.py"
    module.write_text(
        "field(label='Name', help_text=_('Marked'), widget='key')\n"
        "raise ValidationError(f'It is {wrong}.')\nmessages.success(request, 'It is saved.')\n"
    )
    found = sorted(unmarked.in_python(module))
    assert found == ["It is .", "It is saved.", "Name"]


def test_every_marked_text_is_found() -> None:
    texts = {(text.text, text.plural) for text in every_text()}
    # One text each from a template's tag, a plural block, an attribute, and Python.
    assert ("Recent deliveries", "") in texts
    assert ("request", "requests") in texts
    assert ("Breadcrumbs", "") in texts
    assert ("%d key is revoked.", "%d keys are revoked.") in texts


def test_the_catalog_holds_every_text_and_no_other(ukrainian: polib.POFile) -> None:
    known = {entry.msgid for entry in ukrainian}
    wanted = {text.text for text in every_text()}
    advice = "run: python -m tests.translations"
    assert (wanted - known, known - wanted) == (set(), set()), advice


def test_every_text_is_translated(ukrainian: polib.POFile) -> None:
    missing = [entry.msgid for entry in ukrainian if not catalog.is_translated(entry)]
    assert missing == []


def test_translations_keep_the_places_of_values(ukrainian: polib.POFile) -> None:
    wrong = []
    for entry in ukrainian:
        texts = list(entry.msgstr_plural.values()) if entry.msgid_plural else [entry.msgstr]
        wanted = set(_PLACEHOLDER.findall(entry.msgid_plural or entry.msgid))
        # A singular text may omit the number.
        may_lack = wanted - set(_PLACEHOLDER.findall(entry.msgid))
        for text in filter(None, texts):
            found = set(_PLACEHOLDER.findall(text))
            if not wanted - may_lack <= found <= wanted:
                wrong.append((entry.msgid, text))
    assert wrong == []


def test_the_compiled_catalog_is_that_of_the_text(ukrainian: polib.POFile) -> None:
    compiled = polib.mofile(str(catalog.MO))
    written = {entry.msgid: entry for entry in ukrainian if catalog.is_translated(entry)}
    read = {entry.msgid: entry for entry in compiled}
    assert set(read) == set(written), "run: python -m tests.translations"
    for text, entry in written.items():
        if entry.msgid_plural:
            assert dict(read[text].msgstr_plural) == dict(entry.msgstr_plural)
        else:
            assert read[text].msgstr == entry.msgstr


def test_parts_for_several_people_come_back_whole(tmp_path: Path) -> None:
    texts = [MarkedText(f"Text {number}", "", "place.py") for number in range(5)]
    texts.append(MarkedText("%d row", "%d rows", "place.py"))
    whole = catalog.update(texts)
    catalog.split(whole, tmp_path, 3)
    assert len(list(tmp_path.iterdir())) == 3
    for path in tmp_path.iterdir():
        part = polib.pofile(str(path))
        for entry in part:
            if entry.msgid_plural:
                entry.msgstr_plural = {0: "%d рядок", 1: "%d рядки", 2: "%d рядків"}
            else:
                entry.msgstr = f"Текст {entry.msgid}"
        part.save()
    catalog.merge(whole, tmp_path)
    assert all(catalog.is_translated(entry) for entry in whole)
