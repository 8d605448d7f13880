"""The worst filter and mapping allowed take little time for the largest event."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.cpu_time import CONSTANT, LINEAR, TIMES, Work, growth
from webhooks import payloads
from webhooks.filters import MAX_CONDITIONS, MAX_VALUES, compile_filter
from webhooks.models import Webhook

# The default of WEBHOOKS_MAX_PAYLOAD_BYTES, less some room for the names.
SIZE = (1 << 20) - 2_000
Filter = tuple[list[dict[str, Any]], object]

pytestmark = pytest.mark.security


def condition(variable: str, operator: str, value: object = None) -> dict[str, Any]:
    return {"variable": variable, "operator": operator, "value": value}


def nested(levels: int, inside: object) -> Any:
    return {"a": nested(levels - 1, inside)} if levels else inside


def spread(total: int, lists: int) -> list[list[str]]:
    """Return different values, divided among some lists."""
    return [[f"нема {n} {part}" for n in range(total // lists)] for part in range(lists)]


def texts(what: str, parts: int) -> object:
    """Return a value of an event that is as large as allowed when there are `TIMES` parts."""
    size = SIZE * parts // TIMES
    return {
        "latin": "x" * size,
        "cyrillic": "Ї" * (size // 2),
        # Two classes of combining marks, which normalization sorts.
        "marks": "a" + "\u0301\u0316" * (size // 4),
        "numbers": list(range(size // 7)),
        "texts": [str(n) for n in range(size // 10)],
        "dates": ["2026-05-14T09:26:31Z"] * (size // 23),
    }[what]


def share(whole: int, parts: int) -> int:
    return whole * parts // TIMES


def not_one_of(parts: int, lists: int) -> list[dict[str, Any]]:
    return [
        condition("v", "not_one_of", values) for values in spread(share(MAX_VALUES, parts), lists)
    ]


def within_objects(path: str, inside: Callable[[object], object]) -> Callable[[int, int], Filter]:
    def made(parts: int, size: int) -> Filter:
        depths = range(3 * parts + 4)
        conditions = [condition("v" + path * n, "not_contains", "z") for n in depths]
        return conditions, inside(texts("marks", size))

    return made


# A filter and a value that both grow with the number of parts; and the growth that is allowed. An
# event is folded once, whatever the filter asks; a text is looked for as often as it is given.
FILTERS: dict[str, tuple[Callable[[int, int], Filter], float]] = {
    "lists on a long text": (
        lambda parts, size: (not_one_of(parts, 5), texts("latin", size)),
        CONSTANT,
    ),
    "lists on a long foreign text": (
        lambda parts, size: (not_one_of(parts, 5), texts("cyrillic", size)),
        CONSTANT,
    ),
    "lists on combining marks": (
        lambda parts, size: (not_one_of(parts, 5), texts("marks", size)),
        CONSTANT,
    ),
    "every condition with a list": (
        lambda parts, size: (not_one_of(parts, share(200, parts) - 1), texts("cyrillic", size)),
        CONSTANT,
    ),
    "texts within a long text": (
        lambda parts, size: (
            [condition("v", "not_contains", "Ї" * (800 + n) + "z") for n in range(25 * parts - 1)],
            texts("cyrillic", size),
        ),
        LINEAR,
    ),
    "texts within a list of numbers": (
        lambda parts, size: (
            [condition("v", "not_contains", f"n{n}") for n in range(25 * parts - 1)],
            texts("numbers", size),
        ),
        LINEAR,
    ),
    "numbers within a list of texts": (
        lambda parts, size: (
            [condition("v", "not_contains", -n - 1) for n in range(25 * parts - 1)],
            texts("texts", size),
        ),
        LINEAR,
    ),
    "one value under many names": (
        lambda parts, size: (
            [
                condition(f"v.{'0' * n}", "not_contains", "z")
                for n in range(1, share(MAX_CONDITIONS, parts))
            ],
            [texts("cyrillic", size)],
        ),
        LINEAR,
    ),
    "objects within each other": (within_objects(".a", lambda value: nested(28, value)), LINEAR),
    "lists within each other": (
        within_objects(".0", lambda value: json.loads("[" * 28 + json.dumps(value) + "]" * 28)),
        LINEAR,
    ),
}


def matching(conditions: list[dict[str, Any]], value: object) -> Work:
    compiled = compile_filter({"all": conditions})
    event = {"v": value}

    def match() -> None:
        assert compiled.matches(event)

    return match


@pytest.mark.parametrize("name", FILTERS)
def test_the_worst_filter_takes_linear_time_for_an_event(
    name: str, security_figure: Callable[..., None]
) -> None:
    made = FILTERS[name][0]
    found = growth(lambda size: matching(*made(TIMES, size)), limit=LINEAR)
    security_figure("linear", right=int(found < LINEAR), of=1)
    assert found < LINEAR


@pytest.mark.parametrize("name", FILTERS)
def test_a_larger_filter_folds_the_largest_event_no_more_often(
    name: str, security_figure: Callable[..., None]
) -> None:
    made, limit = FILTERS[name]
    found = growth(lambda parts: matching(*made(parts, TIMES)), limit=limit)
    security_figure("linear", right=int(found < limit), of=1)
    assert found < limit


# At most a body of WEBHOOKS_MAX_BODY_BYTES, 16 MiB by default, is written.
ROWS = [{"name": f"n{n}", "variable": "v"} for n in range(payloads.MAX_ROWS)]
MAPPINGS: dict[str, tuple[dict[str, Any], str]] = {
    "rows of a large value": ({"parameters": ROWS}, "cyrillic"),
    "rows of a form": ({"parameters": ROWS, "body_format": "form"}, "cyrillic"),
    "rows of the whole event": (
        {"parameters": [row | {"variable": "*"} for row in ROWS]},
        "numbers",
    ),
    "places": ({"body_template": json.dumps(["{{ v }}"] * 200)}, "cyrillic"),
    "places within text": ({"body_template": json.dumps(["a {{ v }}"] * 200)}, "numbers"),
    "rows of dates": ({"parameters": ROWS, "time_zone": "Europe/Kyiv"}, "dates"),
    "places of dates": (
        {"body_template": json.dumps(["{{ v }}"] * 200), "date_format": "sql"},
        "dates",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPPINGS)
def test_the_worst_mapping_takes_linear_time(
    name: str, security_figure: Callable[..., None]
) -> None:
    changes, what = MAPPINGS[name]
    render = payloads.compile_request(Webhook(**changes), "https://crm.test/in")
    assert render is not None

    def prepare(size: int) -> Work:
        document = json.dumps({"v": texts(what, size)}, ensure_ascii=False).encode()

        def draw() -> None:
            with suppress(payloads.BodyTooLargeError):
                render(document, 1)

        return draw

    found = growth(prepare, limit=LINEAR)
    security_figure("linear", right=int(found < LINEAR), of=1)
    assert found < LINEAR


READINGS: dict[str, Callable[[int], object]] = {
    "a key that occurs twice": lambda parts: payloads.load_json(
        (
            "{" + ",".join(f'"{n}":0' for n in range(share(SIZE // 12, parts))) + ',"a":0,"a":0}'
        ).encode()
    ),
    "a JSON body of mistakes": lambda parts: payloads.template_problems(
        json.dumps(["{{ wrong }}"] * 500 * parts), payloads.known_names()
    ),
    "a JSON body of objects": lambda parts: payloads.template_problems(
        "[" + "{}," * 2_500 * parts + "{}]", payloads.known_names()
    ),
}


@pytest.mark.parametrize("name", READINGS)
def test_the_worst_text_is_read_in_linear_time(
    name: str, security_figure: Callable[..., None]
) -> None:
    def prepare(parts: int) -> Work:
        def read() -> None:
            with suppress(payloads.DocumentError):
                READINGS[name](parts)

        return read

    found = growth(prepare, limit=LINEAR)
    security_figure("linear", right=int(found < LINEAR), of=1)
    assert found < LINEAR
