"""CONTRIBUTING.md names only files and commands that exist."""

import re

from tests.docs.page import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROOTS = ("webhooks/", "templates/", "static/", "tests/", "config/", ".ci/", "compose.yaml", ".env")


def test_every_file_is_there() -> None:
    named = {name for name in re.findall(r"`([^`\s]+)`", TEXT) if name.startswith(ROOTS)}
    assert len(named) > 10
    # <screen> stands for any screen.
    wanted = {name.replace("<screen>", "webhook_list") for name in named}
    assert [name for name in sorted(wanted) if not (ROOT / name).exists()] == []


def test_every_command_is_a_verb_of_make() -> None:
    verbs = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", TEXT)) <= verbs


def test_every_package_is_named() -> None:
    packages = {path.parent.name for path in (ROOT / "webhooks").glob("*/__init__.py")}
    table = TEXT.partition("## Where things are")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)/`", table))
    assert packages - named == {"migrations", "management", "templatetags"}
