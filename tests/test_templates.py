"""Templates: their line width, and the comment at the start of a partial."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MAX_WIDTH = 120
TEMPLATES = sorted(
    path for place in ("templates", "tests/sandbox") for path in (ROOT / place).rglob("*.html")
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_no_line_is_wider_than_a_screen() -> None:
    lines = [(name(path), line) for path in TEMPLATES for line in path.read_text().splitlines()]
    assert TEMPLATES
    assert [(where, line) for where, line in lines if len(line) > MAX_WIDTH] == []


def test_a_partial_begins_with_a_comment_that_names_its_context() -> None:
    for path in [one for one in TEMPLATES if one.name[0] == "_"]:
        comment = path.read_text().partition("{% ")[0].partition("<")[0]
        assert comment.startswith("{# "), path
        assert "Context: " in comment, path
