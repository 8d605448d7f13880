"""How large a body may become: estimated when it is saved, and limited when it is made."""

import json
import tracemalloc
from typing import Any

import pytest
from pytest_django import Settings

from webhooks import payloads
from webhooks.models import Webhook
from webhooks.payloads import BodyTooLargeError

URL = "https://crm.test/in"
LIMIT = 100_000


@pytest.fixture(autouse=True)
def small(settings: Settings) -> None:
    settings.WEBHOOKS_MAX_PAYLOAD_BYTES = 30_000
    settings.WEBHOOKS_MAX_BODY_BYTES = LIMIT


def body(value: object, **changes: Any) -> bytes:
    render = payloads.compile_request(Webhook(**changes), URL)
    assert render is not None
    return render(json.dumps({"event": "x", "userfield": value}).encode(), 1).body


def rows(count: int, **row: Any) -> list[dict[str, Any]]:
    return [{"name": f"n{n}", "variable": "userfield", **row} for n in range(count)]


def template(place: str, count: int) -> str:
    return json.dumps([place] * count)


def rows_sentences(stored: list[dict[str, Any]], body_format: str = "json") -> list[str]:
    known = payloads.known_names()
    found = payloads.rows_problems(stored, body_format=body_format, known=known)
    return [problem.sentence for problem in found]


def template_sentences(text: str) -> list[str]:
    return [one.sentence for one in payloads.template_problems(text, payloads.known_names())]


WAYS = {
    "rows": {"parameters": rows(90)},
    "the whole event in rows": {"parameters": rows(90, variable="*")},
    "rows of a form": {"parameters": rows(90), "body_format": "form"},
    "places": {"body_template": template("{{ userfield }}", 90)},
    "places within text": {"body_template": template("a {{ userfield }}", 90)},
    "every variable of a form": {"body_format": "form"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_body_that_is_too_large_is_not_made(way: str) -> None:
    large = "Ї" * (20_000 if way == "every variable of a form" else 2_000)
    assert 90 < len(body("Ї" * 90, **WAYS[way])) <= LIMIT
    with pytest.raises(BodyTooLargeError, match=r"more than the 0\.1 MB"):
        body(large, **WAYS[way])


@pytest.mark.parametrize("way", [way for way in WAYS if way != "every variable of a form"])
def test_a_body_that_is_too_large_takes_no_more_memory_than_one_that_is_not(way: str) -> None:
    large = "Ї" * 1_000_000
    render = payloads.compile_request(Webhook(**WAYS[way]), URL)
    assert render is not None
    document = json.dumps({"event": "x", "userfield": large}, ensure_ascii=False).encode()
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            render(document, 1)
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The event decoded once, at two bytes per character, and one or two values made from it.
    assert peak < 30_000_000


def test_the_last_byte_that_is_allowed_is_sent(settings: Settings) -> None:
    sent = body("x" * 1000, parameters=rows(3))
    settings.WEBHOOKS_MAX_BODY_BYTES = len(sent)
    assert body("x" * 1000, parameters=rows(3)) == sent
    settings.WEBHOOKS_MAX_BODY_BYTES -= 1
    with pytest.raises(BodyTooLargeError):
        body("x" * 1000, parameters=rows(3))


@pytest.mark.parametrize(
    ("stored", "body_format", "is_refused"),
    [
        (rows(3), "json", False),
        (rows(4), "json", True),
        # An object as text has a backslash before each quote.
        (rows(1, format="text"), "json", False),
        (rows(2, format="text"), "json", True),
        (rows(1), "form", False),
        (rows(2), "form", True),
        (rows(9), "query", False),
        # Together they are never larger than the event.
        (
            [{"name": n, "variable": n} for n in sorted(payloads.known_names() - {"*"})],
            "json",
            False,
        ),
        # Both names of one variable, and a part of it.
        (
            [
                {"name": f"n{n}", "variable": v}
                for n, v in enumerate(("duration", "duration_seconds") * 2)
            ],
            "json",
            True,
        ),
        ([{"name": f"n{n}", "variable": f"fields.f{n}"} for n in range(4)], "json", True),
        ([*rows(3), {"name": "all", "variable": "*"}], "json", True),
        ([{"name": f"n{n}", "variable": "event_id"} for n in range(50)], "form", False),
        ([{"name": f"n{n}", "value": "x" * 8000} for n in range(13)], "json", True),
    ],
)
def test_rows_that_could_make_too_large_a_body_are_refused(
    stored: list[dict[str, Any]], body_format: str, is_refused: bool
) -> None:
    stored = stored[: payloads.MAX_ROWS]
    sentences = rows_sentences(stored, body_format)
    assert bool(sentences) is is_refused
    assert all("The largest event would make a body of" in one for one in sentences)


@pytest.mark.parametrize(
    ("text", "is_refused"),
    [
        (template("{{ userfield }}", 3), False),
        (template("{{ userfield }}", 4), True),
        (template("a {{ userfield }}", 1), False),
        (template("a {{ userfield }}", 2), True),
        (template("{{ userfield | text }}", 2), True),
        (template("{{ '{{' }} {{ event_id }}", 90), False),
    ],
)
def test_a_json_body_that_could_be_too_large_is_refused(text: str, is_refused: bool) -> None:
    sentences = template_sentences(text)
    assert bool(sentences) is is_refused
    assert all("Use “userfield” fewer times." in one for one in sentences)


def test_what_is_allowed_at_save_can_be_sent_with_the_largest_event() -> None:
    for name, changes in {
        "rows": {"parameters": rows(3)},
        "rows of a form": {"parameters": rows(1), "body_format": "form"},
        "places within text": {"body_template": template("a {{ userfield }}", 1)},
    }.items():
        assert len(body('"' * 14_900, **changes)) <= LIMIT, name
