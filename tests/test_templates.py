"""Templates: their width, and the comment that a partial begins with."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_WIDTH = 120
TEMPLATES = sorted(
    path for place in ("templates", "tests/sandbox") for path in (ROOT / place).rglob("*.html")
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", TEMPLATES, ids=name)
def test_no_line_is_wider_than_a_screen(path: Path) -> None:
    lines = enumerate(path.read_text().splitlines(), 1)
    assert [number for number, line in lines if len(line) > MAX_WIDTH] == []


@pytest.mark.parametrize("path", [one for one in TEMPLATES if one.name[0] == "_"], ids=name)
def test_a_partial_begins_with_a_comment_that_names_its_context(path: Path) -> None:
    comment = path.read_text().partition("{% ")[0].partition("<")[0]
    assert comment.startswith("{# ")
    assert "Context: " in comment
