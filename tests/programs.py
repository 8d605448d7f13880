"""Programs that tests need, their packages, and what a test does without one.

`python -m tests.programs` finds the servers and the browser that `make test` cannot do without; it
installs a browser if there is none, and names everything that is missing at once. With `--all` it
also installs, as root on Debian, the programs without which some tests are skipped.
"""

import argparse
import os
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from tests import chromium, debian, services
from tests.services import ServiceUnavailableError

# The package of Debian that brings a program.
PACKAGES = {
    "bash": "bash",
    "curl": "curl",
    "debootstrap": "debootstrap",
    "go": "golang-go",
    "java": "default-jdk-headless",
    "javac": "default-jdk-headless",
    "mcs": "mono-mcs",
    "mono": "mono-mcs",
    "node": "nodejs",
    "od": "coreutils",
    "openssl": "openssl",
    "php": "php-cli",
    "ruby": "ruby",
    "strace": "strace",
}
# Set by .ci/run: a test that lacks a program fails there.
_MUST_HAVE = "TESTS_MUST_HAVE_PROGRAMS"
_REASON = "not installed: "


def need(*names: str) -> None:
    """Skip the running test unless all programs are on PATH; fail it if nothing may be missing."""
    if missing := [name for name in names if shutil.which(name) is None]:
        reason = _REASON + ", ".join(missing)
        if os.environ.get(_MUST_HAVE):
            pytest.fail(reason)
        pytest.skip(reason)


def summary(reasons: Iterable[str]) -> list[str]:
    """Return lines that say how many tests lacked which programs, and what installs those."""
    lacking = [one.rpartition(_REASON)[2].split(", ") for one in reasons if _REASON in one]
    if not lacking:
        return []
    names = sorted({name for names in lacking for name in names})
    return [
        f"{len(lacking)} skipped tests need programs that are missing: {', '.join(names)}.",
        f"On Debian, install them with: {debian.advice([PACKAGES[name] for name in names])}",
    ]


def find_required() -> None:
    """Print what `make test` will use; ServiceUnavailableError names everything missing."""
    chromium.prefer_the_shell()
    missing, packages = [], []
    for find, name, needed in (
        (_postgres, "PostgreSQL", ["postgresql"]),
        (services.redis_binary, "Redis", ["redis-server"]),
        (chromium.ensure, "Chromium", chromium.PACKAGES),
    ):
        try:
            binary = find()
        except ServiceUnavailableError:
            missing.append(name)
            packages += needed
        else:
            print(f"{name}: {_version(binary)}  ({binary})", flush=True)
    if missing:
        raise ServiceUnavailableError(
            f"Missing: {', '.join(missing)}. On Debian, install them with\n"
            f"    {debian.advice(packages)}\n"
            "Elsewhere, put them on PATH, or set TEST_DATABASE_URL, TEST_REDIS_URL and CHROMIUM."
        )


def _postgres() -> Path:
    return services.postgres_binaries() / "postgres"


def _version(binary: Path | str) -> str:
    command = [str(binary), "--version"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def install_optional(*names: str) -> None:
    """Install programs that some tests are skipped without, as root on Debian, and list them."""
    missing = {PACKAGES[name] for name in names if shutil.which(name) is None}
    if missing and debian.is_debian() and debian.is_root():
        # A failure is not fatal here: the tests will name what they lack.
        with suppress(debian.PackagesUnavailableError):
            debian.install(sorted(missing))
    for name in names:
        print(f"{name}  ({shutil.which(name) or f'missing: {PACKAGES[name]}'})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="install optional programs too")
    if parser.parse_args().all:
        install_optional(*PACKAGES)
    try:
        find_required()
    except ServiceUnavailableError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
