"""The corpus of injection strings, and how each of them may appear on a page.

`tests/data/injections.json` holds them by kind, one per line. They call `alert`, `confirm` or
`import`, or request something from port 9; `tests.security.page_inspection` notices both.
"""

import html
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from webhooks.templatetags.logtext import visible

FILE = Path(__file__).parent.parent / "data" / "injections.json"
KINDS: dict[str, list[str]] = json.loads(FILE.read_text(encoding="utf-8"))
CORPUS = [text for texts in KINDS.values() for text in texts]
# PostgreSQL stores no NUL in a text.
STORABLE = [text for text in CORPUS if "\0" not in text]
_TAG = re.compile(r"<[^>]*>")


def packed(limit: int, texts: list[str] = STORABLE) -> list[str]:
    """Return texts of at most `limit` characters that together hold every string, in order."""
    packs = [""]
    for text in texts:
        if packs[-1] and len(packs[-1]) + len(text) + 1 > limit:
            packs.append("")
        packs[-1] = f"{packs[-1]} {text}" if packs[-1] else text[:limit]
    return packs


def chunks(size: int, texts: list[str] = STORABLE) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def find(text: str) -> set[int]:
    """Return the indexes of the strings that a page's text shows, verbatim or escaped."""
    # A long form repeats its lists; without repeated lines the search takes a tenth of the time.
    text = "\n".join(dict.fromkeys(text.split("\n")))
    return {number for number, forms in enumerate(_forms()) if any(one in text for one in forms)}


@lru_cache(maxsize=1)
def _forms() -> list[set[str]]:
    return [_forms_of(text) for text in CORPUS]


def _forms_of(text: str) -> set[str]:
    """Return a string as it is and in JSON, and both with invisible characters as escapes."""
    written = {text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]}
    written |= {one.strip() for one in written}
    return written | {html.unescape(_TAG.sub("", visible(one))) for one in written}
