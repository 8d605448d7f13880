"""What the scenes call to have a picture taken."""

from typing import Protocol

from playwright.sync_api import Locator


class Photograph(Protocol):
    """Take the page as it is, or a part of it; `docs` puts it into the documentation too."""

    def __call__(self, name: str, *, part: Locator | None = None, docs: bool = False) -> None: ...
