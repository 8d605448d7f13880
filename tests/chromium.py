"""The Chromium that browser tests and screenshots drive: found, or installed if possible."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import playwright

from tests import debian
from tests.services import ServiceUnavailableError

# The headless shell renders the same pages with less than half of the CPU time, because it has no
# browser window. Playwright's own Node.js needs libatomic1, and pages need a font.
PACKAGES = ["chromium-headless-shell", "libatomic1", "fonts-dejavu-core"]
_SHELLS = ("chromium-headless-shell", "chrome-headless-shell")
_NAMES = (*_SHELLS, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SHELL = debian.UNPACKED / "usr" / "lib" / "chromium" / "chromium-headless-shell"
# Written last, so it exists only beside a complete browser.
_UNPACKED = debian.wrapper_path(_SHELL)
_NODE = Path(playwright.__file__).parent / "driver" / "node"
# More than the package needs on a slow line; the full browser works as well.
_SHELL_SECONDS = 120
# No background requests of the browser: only the pages under test use the network.
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    # Chromium's sandbox refuses root and needs user namespaces, which containers seldom have.
    "--no-sandbox",
]


def find() -> str | None:
    """Return the path of an installed Chromium: CHROMIUM, PATH, unpacked, or playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        return named
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    if _UNPACKED.exists():
        os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(debian.wrapper_path(_NODE))
        return str(_UNPACKED)
    # In its own process, because another playwright may be running inside pytest.
    own = subprocess.run(
        [sys.executable, "-c", _PRINT_PLAYWRIGHTS_OWN], capture_output=True, text=True, check=False
    ).stdout.strip()
    return own if own and Path(own).exists() else None


_PRINT_PLAYWRIGHTS_OWN = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


def ensure() -> str:
    """Return the path of a Chromium, after installing one if there was none."""
    path = find()
    if path is None:
        prefer_the_shell()
        path = find()
    if path is None:
        _install_playwrights_own()
        path = find()
    if path is None:
        raise ServiceUnavailableError("No Chromium. Install it, or set CHROMIUM to its path.")
    return path


def prefer_the_shell() -> None:
    """Get Debian's headless shell if it can be had; other browsers work too, but cost more."""
    if "CHROMIUM" in os.environ or any(map(shutil.which, _SHELLS)) or not debian.is_debian():
        return
    # Ubuntu has the package only as a snap.
    with suppress(debian.PackagesUnavailableError):
        if debian.is_root():
            debian.install(PACKAGES, timeout_seconds=_SHELL_SECONDS)
        elif find() is None:
            debian.unpack(PACKAGES)
            debian.wrap(_NODE)
            debian.wrap(_SHELL)


def _install_playwrights_own() -> None:
    dependencies = ["--with-deps"] if debian.is_root() else []
    command = [sys.executable, "-m", "playwright", "install", *dependencies, "chromium"]
    subprocess.run(command, check=False)
