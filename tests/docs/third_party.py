"""docs/third-party.md: every package of requirements.txt with its license."""

import re
from email.message import Message
from importlib.metadata import PackageNotFoundError, metadata

from tests.docs.page import ROOT, GeneratedPage, table

REQUIREMENTS = ROOT / "requirements.txt"
_REQUIREMENT = re.compile(r"^([a-z0-9][a-z0-9-]*)==", re.MULTILINE)
# SPDX identifiers for license names in older metadata. Each was checked against the license file
# of the packages that use it; a name in neither list has to be checked the same way.
_SPDX = {
    "Apache 2": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "New BSD": "BSD-3-Clause",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
    "MIT License": "MIT",
    "ZPL 2.1": "ZPL-2.1",
}
_KNOWN = {"Apache-2.0", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0"}
# Installed only on other Pythons or systems, so their metadata may be missing here.
_ELSEWHERE = {"async-timeout": ("Apache-2.0", "https://github.com/aio-libs/async-timeout")}
_HOME_LABELS = ("homepage", "home", "source", "source code", "repository", "github", "code")


class LicenseUnknownError(ValueError):
    """The metadata of a package names no known license."""


def required() -> list[str]:
    """Return the names of every package that production installs."""
    return _REQUIREMENT.findall(REQUIREMENTS.read_text(encoding="utf-8"))


def license_and_home(name: str) -> tuple[str, str]:
    try:
        found = metadata(name)
    except PackageNotFoundError:
        return _ELSEWHERE[name]
    return license_of(found), _home(found)


def license_of(found: Message) -> str:
    """Return the SPDX expression of an installed package's license."""
    if expression := found.get("License-Expression"):
        return str(expression)
    classifiers = [str(line) for line in found.get_all("Classifier", [])]
    prefix = "License :: OSI Approved :: "
    said = found.get("License") or " or ".join(
        line.removeprefix(prefix) for line in classifiers if line.startswith(prefix)
    )
    spdx = _SPDX.get(said, said)
    if spdx not in {*_KNOWN, *_SPDX.values()}:
        raise LicenseUnknownError(f"{found['Name']} says {said!r}: compare its license file.")
    return spdx


def _home(found: Message) -> str:
    urls: dict[str, str] = {}
    for entry in found.get_all("Project-URL", []):
        label, _, url = str(entry).partition(", ")
        urls.setdefault(label.lower(), url)
    named = (urls[label] for label in _HOME_LABELS if label in urls)
    return str(found.get("Home-page") or next(named, f"https://pypi.org/project/{found['Name']}/"))


def _generate() -> str:
    rows = []
    for name in required():
        spdx, home = license_and_home(name)
        rows.append([f"[{name}]({home})", spdx])
    return table(["package", "license"], rows)


PAGE = GeneratedPage(ROOT / "docs" / "third-party.md", _generate)
