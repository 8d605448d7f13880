"""Stored messages: codes with parameters, sentences when they are shown."""

import pytest
from django.utils import translation
from django.utils.translation import gettext_lazy, ngettext

from webhooks.models import messages

SENTENCES: dict[str, messages.Sentence] = {
    "timeout": "No answer within %(seconds)s s.",
    "percent": "80 %% failed.",
    "save": gettext_lazy("Save"),
    "failed": lambda count: ngettext("%(n)s delivery", "%(n)s deliveries", count) % {"n": count},
}


def test_a_message_is_kept_as_compact_json() -> None:
    assert messages.dump("timeout", seconds=15) == '{"code":"timeout","seconds":15}'
    assert messages.load('{"code":"timeout","seconds":15}') == ("timeout", {"seconds": 15})


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (messages.dump("timeout", seconds=15), "No answer within 15 s."),
        (messages.dump("percent"), "80 % failed."),
        (messages.dump("failed", count=1), "1 delivery"),
        (messages.dump("failed", count=2), "2 deliveries"),
        ("Stored before codes existed.", "Stored before codes existed."),
        ('{"error":"invalid_grant"}', '{"error":"invalid_grant"}'),
        ('{"code":"cut in mid', '{"code":"cut in mid'),
        ("", ""),
        (messages.dump("of_a_later_version", n=1), "of_a_later_version"),
        (messages.dump("timeout", minutes=1), "timeout"),
        (messages.dump("failed", number=1), "failed"),
    ],
)
def test_a_message_is_shown_as_its_sentence(stored: str, shown: str) -> None:
    assert messages.render(stored, SENTENCES) == shown


def test_the_reader_chooses_the_language() -> None:
    stored = messages.dump("save")
    with translation.override("uk"):
        assert messages.render(stored, SENTENCES) == "Зберегти"
    with translation.override("en"):
        assert messages.render(stored, SENTENCES) == "Save"
