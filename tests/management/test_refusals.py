"""A command that cannot begin says why in one sentence, without a traceback."""

import os
import subprocess
import sys

import pytest
from django.conf import settings

_GONE = {"DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env={**os.environ, **environment},
        input="{}",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "arguments", "sentence"),
    [
        (_GONE, ("publish", "form.submitted", "--payload=-"), "The database cannot be used: "),
        (_GONE, ("rotate_keys",), "The database cannot be used: "),
        (
            {"WEBHOOKS_ALLOWED_NETWORKS": "nonsense"},
            ("check_url", "https://example.com/"),
            "WEBHOOKS_ALLOWED_NETWORKS cannot be read: “nonsense” is not a network",
        ),
    ],
)
def test_what_a_command_lacks_is_said(
    environment: dict[str, str], arguments: tuple[str, ...], sentence: str
) -> None:
    done = run(environment, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(f"CommandError: {sentence}")
    assert "Traceback" not in done.stderr


def test_an_address_of_no_database_is_named() -> None:
    done = run({"DATABASE_URL": "nonsense"}, "check")
    assert done.returncode == 1
    assert "DATABASE_URL is no address of a database" in done.stderr.splitlines()[-1]
