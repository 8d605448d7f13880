"""The Chromium that browser tests and screenshots drive: found, or installed as the machine allows.

`python -m tests.chromium` makes sure there is one and prints its path.
"""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.services import ServiceUnavailable, install_debian_package, is_debian_root

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The browser looks up nothing and asks nobody: only the pages under test use the network.
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
    # Asked in a process of its own: inside pytest another playwright may be running.
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
        # Ubuntu has it as a snap only.
        with suppress(subprocess.CalledProcessError):
            install_debian_package("chromium")
            return
    dependencies = ["--with-deps"] if os.geteuid() == 0 else []
    command = [sys.executable, "-m", "playwright", "install", *dependencies, "chromium"]
    subprocess.run(command, check=True)


def ensure() -> str:
    """Return the path of a Chromium, installed now if there was none."""
    if path := find():
        return path
    with suppress(subprocess.CalledProcessError):
        install()
    path = find()
    if path is None:
        raise ServiceUnavailable("No Chromium. Install it, or set CHROMIUM to its path.")
    return path


def main() -> None:
    try:
        print(f"Chromium  ({ensure()})")
    except ServiceUnavailable as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
