"""The SQLite database file is private to its owner from the moment it is created."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.environment import keep_private

ROOT = Path(__file__).resolve().parents[1]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_reading_the_settings_makes_the_file_private(tmp_path: Path) -> None:
    environment = os.environ | {
        "ENV_FILE": os.devnull,
        "DATA_DIR": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "config.settings",
    }
    environment.pop("DATABASE_URL", None)
    code = (
        "import django; django.setup(); from django.db import connection as c; "
        "c.cursor().execute('CREATE TABLE a (b)'); print(c.settings_dict['NAME'])"
    )
    subprocess.run(
        ["sh", "-c", f'umask 022; exec "{sys.executable}" -c "{code}"'],
        cwd=ROOT, env=environment, check=True, capture_output=True,
    )  # fmt: skip
    files = list(tmp_path.glob("webhooks.sqlite3*"))
    assert files
    assert {mode(one) for one in files} == {0o600}


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    for name in ("db", "db-wal", "db-shm"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o644)
    keep_private(str(tmp_path / "db"))
    assert {mode(one) for one in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory", "/no/such/folder/db"])
def test_what_is_no_file_here_is_left(name: str) -> None:
    keep_private(name)
    assert not Path(name).exists()
