"""The function that scenes call to take a screenshot."""

from typing import Protocol

from playwright.sync_api import Locator


class Photograph(Protocol):
    """Photograph the page, or a part of it; `docs` adds the picture to the documentation too."""

    def __call__(self, name: str, *, part: Locator | None = None, docs: bool = False) -> None: ...
