"""The Ukrainian catalog: a .po that people edit, and the .mo that Django reads."""

from collections.abc import Iterable
from pathlib import Path

import polib

from tests.translations.extraction import ROOT, MarkedText

PO = ROOT / "webhooks" / "locale" / "uk" / "LC_MESSAGES" / "django.po"
MO = PO.with_suffix(".mo")
_WIDTH = 100
# Example numbers per form: 1, 21 | 2, 3, 4, 22 | 0, 5, 11, 12: дзвінок, дзвінки, дзвінків.
PLURAL_FORMS = 3
_METADATA = {
    "Project-Id-Version": "webhooks 2.0",
    "Language": "uk",
    "MIME-Version": "1.0",
    "Content-Type": "text/plain; charset=UTF-8",
    "Content-Transfer-Encoding": "8bit",
    "Plural-Forms": (
        f"nplurals={PLURAL_FORMS}; plural=(n%10==1 && n%100!=11 ? 0 : "
        "n%10>=2 && n%10<=4 && (n%100<10 || n%100>=20) ? 1 : 2);"
    ),
}


def read() -> polib.POFile:
    return polib.pofile(str(PO), wrapwidth=_WIDTH) if PO.exists() else polib.POFile()


def update(texts: Iterable[MarkedText]) -> polib.POFile:
    """Return the updated catalog: new texts are untranslated, and removed texts are left out."""
    texts = list(texts)
    old = {(entry.msgid, entry.msgid_plural): entry for entry in read()}
    # A text that is also used without a plural shares the same entry.
    plurals = {text.text: text.plural for text in texts if text.plural}
    catalog = polib.POFile(wrapwidth=_WIDTH)
    catalog.metadata = dict(_METADATA)
    entries: dict[str, polib.POEntry] = {}
    for text in texts:
        if text.text not in entries:
            plural = plurals.get(text.text, "")
            entries[text.text] = _entry(text.text, plural, old.get((text.text, plural)))
            catalog.append(entries[text.text])
        places = entries[text.text].occurrences
        if (text.place, "") not in places:
            places.append((text.place, ""))
    return catalog


def _entry(text: str, plural: str, old: polib.POEntry | None) -> polib.POEntry:
    entry = polib.POEntry(msgid=text)
    if plural:
        entry.msgid_plural = plural
        entry.msgstr_plural = (old and old.msgstr_plural) or dict.fromkeys(range(PLURAL_FORMS), "")
    elif old:
        entry.msgstr = old.msgstr
    if old:
        entry.tcomment = old.tcomment
    if any(mark in text for mark in ("%(", "%s", "%d")):
        entry.flags = ["python-format"]
    return entry


def write(catalog: polib.POFile) -> None:
    PO.parent.mkdir(parents=True, exist_ok=True)
    catalog.save(str(PO))
    catalog.save_as_mofile(str(MO))


def is_translated(entry: polib.POEntry) -> bool:
    if "fuzzy" in entry.flags:
        return False
    if entry.msgid_plural:
        forms = entry.msgstr_plural
        return len(forms) == PLURAL_FORMS and all(forms.values())
    return bool(entry.msgstr)


def split(catalog: polib.POFile, directory: Path, parts: int) -> None:
    """Write the untranslated texts into files that several people can work on at once."""
    directory.mkdir(parents=True, exist_ok=True)
    missing = [entry for entry in catalog if not is_translated(entry)]
    size = -(-len(missing) // parts) or 1
    for number, first in enumerate(range(0, len(missing), size), start=1):
        part = polib.POFile(wrapwidth=_WIDTH)
        part.metadata = dict(_METADATA)
        part.extend(missing[first : first + size])
        part.save(str(directory / f"part-{number}.po"))


def merge(catalog: polib.POFile, directory: Path) -> None:
    """Copy translations from such files; texts that are not in the catalog are ignored."""
    known = {(entry.msgid, entry.msgid_plural): entry for entry in catalog}
    for path in sorted(directory.glob("*.po")):
        for given in polib.pofile(str(path)):
            entry = known.get((given.msgid, given.msgid_plural))
            if entry is not None and is_translated(given):
                entry.msgstr, entry.msgstr_plural = given.msgstr, given.msgstr_plural
