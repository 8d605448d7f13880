"""How the figures of `make security` are collected."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security import figures


def test_numbers_of_one_name_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security_figure: Callable[..., None]
) -> None:
    path = tmp_path / "figures"
    monkeypatch.setenv("SECURITY_FIGURES", str(path))
    security_figure("urls", right=2, of=3)
    security_figure("urls", right=1, of=1)
    security_figure("secrets", found=0, sinks=4)
    assert figures.add_up(path) == {
        "urls": {"right": 3, "of": 4},
        "secrets": {"found": 0, "sinks": 4},
    }


def test_nothing_is_written_when_no_run_collects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security_figure: Callable[..., None]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SECURITY_FIGURES", raising=False)
    security_figure("urls", right=1, of=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "number"), [("url", "right"), ("urls", "found")])
def test_a_figure_that_the_line_does_not_have_is_refused(
    name: str, number: str, security_figure: Callable[..., None]
) -> None:
    with pytest.raises(ValueError, match="figure"):
        security_figure(name, **{number: 1})


GOOD = {
    "urls": {"right": 203, "of": 203},
    "encryption": {"right": 9, "of": 9},
    "permissions": {"right": 500, "of": 500},
    "injection": {"executed": 0, "of": 200},
    "secrets": {"found": 0, "sinks": 14},
    "connects": {"denied": 0, "seen": 100},
    "fuzz": {"cases": 1_000_000, "crashes": 0},
    "linear": {"right": 200, "of": 200},
    "exfiltration": {"refused": 40, "of": 40},
}


def test_the_line_has_the_figures_that_were_asked_for() -> None:
    line = figures.as_line(GOOD)
    assert json.dumps(line) == (
        '{"urls": {"right": 203, "of": 203}, "connects_to_denied": 0, "secrets_found": 0, '
        '"sinks": 14, "encryption": {"right": 9, "of": 9}, '
        '"injection": {"executed": 0, "of": 200}, "permissions": {"right": 500, "of": 500}, '
        '"linear": {"right": 200, "of": 200}, '
        '"fuzz_cases": 1000000, "crashes": 0, "exfiltration": {"refused": 40, "of": 40}}'
    )
    assert figures.problems(line, GOOD, fuzz_cases=1_000_000) == []


@pytest.mark.parametrize(
    ("name", "number", "value"),
    [
        ("urls", "right", 202),
        ("urls", "of", 202),
        ("encryption", "right", 8),
        ("permissions", "right", 499),
        ("injection", "executed", 1),
        ("injection", "of", 199),
        ("secrets", "found", 1),
        ("secrets", "sinks", 0),
        ("connects", "denied", 1),
        ("fuzz", "cases", 999_999),
        ("fuzz", "crashes", 1),
        ("linear", "right", 199),
        ("linear", "of", 199),
        ("exfiltration", "refused", 39),
        ("exfiltration", "of", 39),
    ],
)
def test_a_figure_that_is_wrong_or_too_small_is_a_problem(
    name: str, number: str, value: int
) -> None:
    sums = GOOD | {name: GOOD[name] | {number: value}}
    assert figures.problems(figures.as_line(sums), sums, fuzz_cases=1_000_000)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_that_nothing_reported_is_a_problem(name: str) -> None:
    sums = {key: value for key, value in GOOD.items() if key != name}
    found = figures.problems(figures.as_line(sums), sums, fuzz_cases=0)
    assert f"nothing reported the figure {name}" in found
