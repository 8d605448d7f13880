"""docs/glossary.md has the words of every status, and the screens use no rejected word."""

import re

import pytest

from tests.docs.page import ROOT
from tests.translations.extraction import every_text
from webhooks.models import Status, TokenState

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
# The glossary gives a word to use instead of each of these.
REJECTED = re.compile(
    r"\b(held|parked|pending|queued|redeliver\w*|replay\w*|send again|drop)\b", re.I
)


def section(heading: str) -> str:
    return TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("status", Status)
def test_every_status_of_a_delivery_is_explained(status: Status) -> None:
    row = rf"^\| {re.escape(str(status.label))} \| .+ \| `{status.value}` \|$"
    assert re.search(row, section("How a delivery is doing"), re.M)


@pytest.mark.parametrize("state", TokenState)
def test_every_state_of_a_token_is_explained(state: TokenState) -> None:
    row = rf"^\| {re.escape(str(state.label))} \| .+ \|$"
    assert re.search(row, section("How an access token is doing"), re.M)


@pytest.mark.slow
def test_no_text_of_the_screens_has_a_word_that_is_not_used() -> None:
    texts = {text for found in every_text() for text in (found.text, found.plural)}
    assert texts
    assert sorted(text for text in texts if REJECTED.search(text)) == []
