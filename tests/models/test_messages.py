"""Stored messages: codes with parameters, shown as sentences."""

from functools import partial

import pytest
from django.utils import translation
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy

from tests.cpu_time import LINEAR, Work, growth
from webhooks.models import messages

SENTENCES: dict[str, messages.Sentence] = {
    "timeout": "No answer within %(seconds)s s.",
    "percent": "80 %% failed.",
    "save": gettext_lazy("Save"),
    "failed": lambda count: ngettext("%(n)s delivery", "%(n)s deliveries", count) % {"n": count},
    "counted": ngettext_lazy("%(count)d delivery", "%(count)d deliveries", "count"),
    "nested": lambda error: f"Last error: {messages.render(error, SENTENCES)}",
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
        ('{"code":"a","code":[1]}', '{"code":"a","code":[1]}'),
        ("", ""),
        (messages.dump("of_a_later_version", n=1), "of_a_later_version"),
        (messages.dump("timeout", minutes=1), "timeout"),
        (messages.dump("failed", number=1), "failed"),
        (messages.dump("counted", count=1), "1 delivery"),
        (messages.dump("counted", count=2), "2 deliveries"),
        (messages.dump("counted", number=2), "counted"),
        (
            messages.dump("nested", error=messages.dump("timeout", seconds=15)),
            "Last error: No answer within 15 s.",
        ),
        (messages.dump("nested", error="It fell over."), "Last error: It fell over."),
        (f"{messages.dump('save')}\n{messages.dump('failed', count=1)}", "Save 1 delivery"),
        (messages.dump("nested", error="one\u2028line"), "Last error: one\u2028line"),
        ("Two\nlines.", "Two\nlines."),
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
        assert messages.render(messages.dump("counted", count=5), SENTENCES) == "5 deliveries"


@pytest.mark.parametrize("character", ["x", '"', "\\", "ї", "\n"])
@pytest.mark.parametrize("max_length", [100, 300])
def test_a_message_that_is_too_long_stays_a_message(character: str, max_length: int) -> None:
    def stored(parts: int) -> str:
        error = messages.dump("nested", error=character * 500 * parts)
        return messages.dump("nested", error=error, count=7)

    def prepare(parts: int) -> Work:
        return partial(messages.cut, stored(parts), max_length)

    assert growth(prepare, limit=LINEAR) < LINEAR
    kept = messages.cut(stored(1), max_length)
    assert max_length / 2 < len(kept) <= max_length
    outer = messages.load(kept)
    assert outer
    assert outer.params["count"] == 7
    inner = messages.load(str(outer.params["error"]))
    assert inner
    assert set(str(inner.params["error"])) == {character}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("short", "short"),
        ("A sentence of an earlier version.", "A sentence of an ear"),
        (f"{messages.dump('a')}\n{messages.dump('b')}", messages.dump("a")),
        (messages.dump("a_code_of_numbers", first=1), ""),
    ],
)
def test_a_text_is_cut_to_what_a_row_has_room_for(text: str, kept: str) -> None:
    assert messages.cut(text, 20) == kept
