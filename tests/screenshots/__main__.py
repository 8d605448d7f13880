"""Take a screenshot of every screen: `python -m tests.screenshots`.

Light and dark, 1440 and 360 pixels wide, into build/screenshots; those that the documentation
shows, light and 1200 wide, into docs/screenshots. Ends as soon as a page reports an error.
"""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests import chromium
from tests.browser.page_errors import Watch
from tests.screenshots.product import ROOT, running_product
from tests.screenshots.scenes import tour

ALL = ROOT / "build" / "screenshots"
DOCS = ROOT / "docs" / "screenshots"
WIDTHS = (1440, 360)
DOCS_WIDTH = 1200
# The documentation shows only the top of a long form.
DOCS_HEIGHT = 900
_TALL = 12_000
_PATIENCE_MILLISECONDS = 20_000
# Two frames after a resize the whole page is redrawn, including blurred edges.
_PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


class Album:
    """Takes each screenshot of the current page in every theme and width."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.count = 0

    def photograph(self, name: str, *, part: Locator | None = None, docs: bool = False) -> None:
        """Take a screenshot of the page, or of a part of it, for each theme and width."""
        if problems := self._page.context.watch.problems():  # type: ignore[attr-defined]
            sys.exit("\n".join([f"Before the picture {name}:", *problems]))
        for theme in ("light", "dark"):
            self._page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            for width in WIDTHS:
                self._take(ALL / f"{name}-{theme}-{width}.png", width, part)
        self._page.emulate_media(color_scheme="light")
        if docs:
            self._take(
                DOCS / f"{name}.png",
                DOCS_WIDTH,
                part,
                max_height=DOCS_HEIGHT if part is None else _TALL,
            )
        self._page.set_viewport_size({"width": WIDTHS[0], "height": 900})

    def _take(self, path: Path, width: int, part: Locator | None, max_height: int = _TALL) -> None:
        """Make the window as high as the page, so that sticky elements cover nothing."""
        self._page.set_viewport_size({"width": width, "height": 600})
        height = self._page.evaluate("document.documentElement.scrollHeight")
        self._page.set_viewport_size({"width": width, "height": min(height, max_height)})
        self._page.evaluate(_PAINTED)
        # Hiding the caret leaves `style=""` on every input; htmx would copy it and violate the CSP.
        (part or self._page).screenshot(path=path, animations="disabled", caret="initial")
        self.count += 1


@contextmanager
def opened_page(url: str) -> Iterator[Page]:
    expect.set_options(timeout=_PATIENCE_MILLISECONDS)
    path = chromium.ensure()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=chromium.ARGUMENTS)
        context = browser.new_context(
            base_url=url, locale="en-US", viewport={"width": WIDTHS[0], "height": 900}
        )
        context.set_default_timeout(_PATIENCE_MILLISECONDS)
        context.watch = Watch(context, origin=url)  # type: ignore[attr-defined]
        yield context.new_page()
        browser.close()


def main() -> None:
    with running_product() as product, opened_page(product.url) as page:
        for directory in (ALL, DOCS):
            shutil.rmtree(directory, ignore_errors=True)
        album = Album(page)
        tour(page, product, album.photograph)
    print(f"{album.count} pictures in {ALL.relative_to(ROOT)} and {DOCS.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
