"""The worst filter and mapping allowed take little time for the largest event."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tests.cpu_time import relative_cost
from webhooks import payloads
from webhooks.filters import MAX_CONDITIONS, MAX_VALUES, compile_filter
from webhooks.models import Webhook

# The default of WEBHOOKS_MAX_PAYLOAD_BYTES, less some room for the names.
SIZE = (1 << 20) - 2_000
# Folding the event again for each value costs some 150, normalizing all combining marks at once
# some 2,500.
FILTER_LIMIT = 20.0

pytestmark = pytest.mark.security


def condition(variable: str, operator: str, value: object = None) -> dict[str, Any]:
    return {"variable": variable, "operator": operator, "value": value}


def nested(levels: int, inside: object) -> Any:
    return {"a": nested(levels - 1, inside)} if levels else inside


def spread(total: int, lists: int) -> list[list[str]]:
    """Return different values, divided among some lists."""
    return [[f"нема {n} {part}" for n in range(total // lists)] for part in range(lists)]


LISTS = spread(MAX_VALUES, 5)
MANY = spread(MAX_VALUES, MAX_CONDITIONS - 1)
LATIN, CYRILLIC = "x" * SIZE, "Ї" * (SIZE // 2)
# Two classes of combining marks, which normalization sorts.
MARKS = "a" + "\u0301\u0316" * (SIZE // 4)
NUMBERS = list(range(SIZE // 7))
NAMES = [f"items.{'0' * n}" for n in range(1, MAX_CONDITIONS)]
FILTERS: dict[str, tuple[list[dict[str, Any]], object]] = {
    "lists on a long text": ([condition("v", "not_one_of", one) for one in LISTS], LATIN),
    "lists on a long foreign text": (
        [condition("v", "not_one_of", one) for one in LISTS],
        CYRILLIC,
    ),
    "lists on combining marks": ([condition("v", "not_one_of", one) for one in LISTS], MARKS),
    "every condition with a list": ([condition("v", "not_one_of", one) for one in MANY], CYRILLIC),
    "texts within a long text": (
        [condition("v", "not_contains", "Ї" * n + "z") for n in range(800, 999)],
        CYRILLIC,
    ),
    "texts within a list of numbers": (
        [condition("v", "not_contains", f"n{n}") for n in range(199)],
        NUMBERS,
    ),
    "numbers within a list of texts": (
        [condition("v", "not_contains", -n - 1) for n in range(199)],
        [str(n) for n in range(SIZE // 10)],
    ),
    "one value under many names": (
        [condition(name, "not_contains", "z") for name in NAMES],
        CYRILLIC,
    ),
    "objects within each other": (
        [condition("v" + ".a" * n, "not_contains", "z") for n in range(28)],
        nested(28, MARKS),
    ),
    "lists within each other": (
        [condition("v" + ".0" * n, "not_contains", "z") for n in range(28)],
        json.loads("[" * 28 + json.dumps(MARKS) + "]" * 28),
    ),
}


@pytest.mark.parametrize("name", FILTERS)
def test_the_worst_filter_is_quick(name: str, security_figure: Callable[..., None]) -> None:
    conditions, value = FILTERS[name]
    key = "items" if name == "one value under many names" else "v"
    compiled = compile_filter({"all": conditions})
    event = {key: [value] if key == "items" else value}

    def match() -> None:
        assert compiled.matches(event)

    cost = relative_cost(match, limit=FILTER_LIMIT)
    security_figure("linear", right=int(cost < FILTER_LIMIT), of=1)
    assert cost < FILTER_LIMIT


# For a body of WEBHOOKS_MAX_BODY_BYTES, 16 MiB by default. A million dates in another
# format are the slowest; without that limit 200 placeholders take twelve times as long.
MAPPING_LIMIT = 100.0
ROWS = [{"name": f"n{n}", "variable": "v"} for n in range(payloads.MAX_ROWS)]
DATES = ["2026-05-14T09:26:31Z"] * (SIZE // 23)
MAPPINGS: dict[str, tuple[dict[str, Any], object]] = {
    "rows of a large value": ({"parameters": ROWS}, CYRILLIC),
    "rows of a form": ({"parameters": ROWS, "body_format": "form"}, CYRILLIC),
    "rows of the whole event": ({"parameters": [row | {"variable": "*"} for row in ROWS]}, NUMBERS),
    "places": ({"body_template": json.dumps(["{{ v }}"] * 200)}, CYRILLIC),
    "places within text": ({"body_template": json.dumps(["a {{ v }}"] * 200)}, NUMBERS),
    "rows of dates": ({"parameters": ROWS, "time_zone": "Europe/Kyiv"}, DATES),
    "places of dates": (
        {"body_template": json.dumps(["{{ v }}"] * 200), "date_format": "sql"},
        DATES,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MAPPINGS)
def test_the_worst_mapping_is_quick(name: str, security_figure: Callable[..., None]) -> None:
    changes, value = MAPPINGS[name]
    render = payloads.compile_request(Webhook(**changes), "https://crm.test/in")
    assert render is not None
    document = json.dumps({"v": value}, ensure_ascii=False).encode()

    def draw() -> None:
        with suppress(payloads.BodyTooLargeError):
            render(document, 1)

    cost = relative_cost(draw, limit=MAPPING_LIMIT)
    security_figure("linear", right=int(cost < MAPPING_LIMIT), of=1)
    assert cost < MAPPING_LIMIT


READINGS: dict[str, Callable[[], object]] = {
    "a key that occurs twice": lambda: payloads.load_json(
        ("{" + ",".join(f'"{n}":0' for n in range(SIZE // 12)) + ',"a":0,"a":0}').encode()
    ),
    "a JSON body of mistakes": lambda: payloads.template_problems(
        json.dumps(["{{ wrong }}"] * 4000), payloads.known_names()
    ),
    "a JSON body of objects": lambda: payloads.template_problems(
        "[" + "{}," * 20_000 + "{}]", payloads.known_names()
    ),
}


@pytest.mark.parametrize("name", READINGS)
def test_the_worst_text_is_read_quickly(name: str, security_figure: Callable[..., None]) -> None:
    def read() -> None:
        with suppress(payloads.DocumentError):
            READINGS[name]()

    cost = relative_cost(read, limit=FILTER_LIMIT)
    security_figure("linear", right=int(cost < FILTER_LIMIT), of=1)
    assert cost < FILTER_LIMIT
