"""A database whose tables were made before the first release: one sentence, and nothing done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SENTENCE = "made by a version from before the first release, which cannot be upgraded"
OLD_TABLES = (
    "from django.db import connection\n"
    "connection.cursor().execute('CREATE TABLE webhooks_webhook (id integer)')\n"
)
OLD_HISTORY = (
    "from django.db import connection\n"
    "from django.db.migrations.recorder import MigrationRecorder\n"
    "MigrationRecorder(connection).record_applied('webhooks', '0003_connections')\n"
)


def manage(database_url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("made_by", "command"),
    [
        (OLD_TABLES, ("migrate",)),
        (OLD_TABLES, ("migrate", "--skip-checks")),
        (OLD_TABLES, ("rotate_keys",)),
        (OLD_TABLES, ("run", "--port=0")),
        # Its tables were dropped by hand, which the check of the history tells.
        (OLD_HISTORY, ("migrate",)),
        (OLD_HISTORY, ("run", "--port=0")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_ends_with_a_sentence_and_no_traceback(
    database_url: str, made_by: str, command: tuple[str, ...]
) -> None:
    manage(database_url, "shell", "--command", made_by).check_returncode()
    ended = manage(database_url, *command)
    assert ended.returncode == 1
    assert SENTENCE in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_empty_database_is_not_old(database_url: str) -> None:
    ended = manage(database_url, "migrate", "--verbosity=0")
    assert (ended.returncode, ended.stderr) == (0, "")
