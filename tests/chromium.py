"""The Chromium that browser tests and screenshots drive: found, or installed if possible.

`python -m tests.chromium` installs one if none is found and prints its path.
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.services import ServiceUnavailableError, install_debian_package, is_debian_root

# The headless shell renders the same pages with less than half of the CPU time, because it has no
# browser window.
_SHELLS = ("chromium-headless-shell", "chrome-headless-shell")
_NAMES = (*_SHELLS, "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
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
    # Chromium's sandbox refuses to run as root.
    *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
]


def find() -> str | None:
    """Return the path of an installed Chromium: from CHROMIUM, PATH, or playwright's own."""
    if named := os.environ.get("CHROMIUM"):
        return named
    for name in _NAMES:
        if path := shutil.which(name):
            return path
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


def install() -> None:
    """Install Chromium: Debian's package as root, playwright's download elsewhere."""
    if is_debian_root():
        # Ubuntu has these packages only as a snap.
        for package in ("chromium-headless-shell", "chromium"):
            with suppress(subprocess.CalledProcessError):
                install_debian_package(package)
                return
    dependencies = ["--with-deps"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "playwright", "install", *dependencies, "chromium"]
    subprocess.run(command, check=True)


def ensure() -> str:
    """Return the path of a Chromium, after installing one if there was none."""
    if path := find():
        return path
    with suppress(subprocess.CalledProcessError):
        install()
    path = find()
    if path is None:
        raise ServiceUnavailableError("No Chromium. Install it, or set CHROMIUM to its path.")
    return path


def _prefer_the_shell() -> None:
    """Install the headless shell if it is Debian's package; without it tests run, but slower."""
    if "CHROMIUM" in os.environ or any(map(shutil.which, _SHELLS)) or not is_debian_root():
        return
    with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired):
        install_debian_package(_SHELLS[0], timeout_seconds=_SHELL_SECONDS)


def main() -> None:
    _prefer_the_shell()
    try:
        print(f"Chromium  ({ensure()})")
    except ServiceUnavailableError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
