"""How the figures of `make security` are collected."""

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
    monkeypatch: pytest.MonkeyPatch, security_figure: Callable[..., None]
) -> None:
    monkeypatch.delenv("SECURITY_FIGURES", raising=False)
    security_figure("urls", right=1, of=1)


@pytest.mark.parametrize(("name", "number"), [("url", "right"), ("urls", "found")])
def test_a_figure_that_the_line_does_not_have_is_refused(
    name: str, number: str, security_figure: Callable[..., None]
) -> None:
    with pytest.raises(ValueError, match="figure"):
        security_figure(name, **{number: 1})
