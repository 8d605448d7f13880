"""The documentation: links lead to existing files, and the tour takes all of its pictures."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PICTURES = ROOT / "docs" / "screenshots"
SCENES = ROOT / "tests" / "screenshots"
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
# Limit for all pictures together, for readers with slow connections.
MAX_BYTES = 6 * 1024 * 1024


def links(page: Path) -> list[str]:
    found = _LINK.findall(page.read_text())
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


def test_the_pages_of_the_screens_are_all_in_their_table() -> None:
    screens = ROOT / "docs" / "screens"
    listed = {link for link in links(screens / "README.md") if "/" not in link}
    assert listed == {page.name for page in screens.glob("*.md")} - {"README.md"}


def test_every_picture_is_taken_by_the_tour_and_shown_on_a_page() -> None:
    shown = {Path(link).name for page in PAGES for link in links(page) if link.endswith(".png")}
    assert shown == {picture.name for picture in PICTURES.glob("*.png")}
    scenes = "".join(scene.read_text() for scene in SCENES.glob("*.py"))
    assert [name for name in sorted(shown) if f'"{Path(name).stem}"' not in scenes] == []


def test_the_pictures_are_small() -> None:
    assert sum(picture.stat().st_size for picture in PICTURES.glob("*.png")) < MAX_BYTES
