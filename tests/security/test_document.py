"""Each sentence of SECURITY.md names a test that exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
CHECKS = re.findall(r"`([\w/]*test_\w+\.py)\s+-k\s+(\w+)`", TEXT)


@pytest.mark.parametrize(("file", "word"), sorted(set(CHECKS)))
def test_every_check_is_there(file: str, word: str) -> None:
    path = ROOT / "tests" / file
    assert path.is_file()
    names = [
        f"{file}::{node.name}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test")
    ]
    # The name of the file would select all of its tests.
    assert word not in file
    assert [name for name in names if word.lower() in name.lower()]


def test_every_row_says_how_it_is_shown() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"`[\w/]*test_\w+\.py -k \w+` *\|$", row)] == []


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", TEXT)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
