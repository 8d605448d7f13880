"""A database that other migrations made, or not all of them, is rejected with one sentence."""

import os
from collections.abc import Callable

import pytest
from django.db import ConnectionHandler
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder
from environ import Env
from pytest_django import DjangoDbBlocker

from tests.commands import manage
from tests.services import free_port

SENTENCE = "made by a version from before the first release, which cannot be upgraded"


def make_old_tables(database: BaseDatabaseWrapper) -> None:
    with database.cursor() as cursor:
        cursor.execute("CREATE TABLE webhooks_webhook (id integer)")


def make_newer_old_tables(database: BaseDatabaseWrapper) -> None:
    """As the eleven migrations before the last squash left them: other columns, the same names."""
    MigrationRecorder(database).ensure_schema()
    applied = "('webhooks', '0001_initial', CURRENT_TIMESTAMP)"
    with database.cursor() as cursor:
        cursor.execute("CREATE TABLE webhooks_credential (id integer)")
        cursor.execute("CREATE TABLE webhooks_webhook (id integer, answer_rule varchar(8))")
        cursor.execute(f"INSERT INTO django_migrations (app, name, applied) VALUES {applied}")


def make_old_history(database: BaseDatabaseWrapper) -> None:
    """Its tables were dropped by hand, so only the migration history shows its age."""
    MigrationRecorder(database).ensure_schema()
    applied = "('webhooks', '0003_connections', CURRENT_TIMESTAMP)"
    with database.cursor() as cursor:
        cursor.execute(f"INSERT INTO django_migrations (app, name, applied) VALUES {applied}")


def on(database_url: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": database_url}


@pytest.mark.parametrize(
    ("made_by", "command"),
    [
        (make_old_tables, ("migrate", "--skip-checks")),
        (make_old_history, ("migrate",)),
        (make_newer_old_tables, ("migrate",)),
        # These commands check in the same way on every database.
        pytest.param(make_old_tables, ("migrate",), marks=pytest.mark.once),
        pytest.param(make_old_tables, ("rotate_keys",), marks=pytest.mark.once),
        pytest.param(
            make_old_tables, ("run", "--no-sandbox", "--port={port}"), marks=pytest.mark.once
        ),
        pytest.param(
            make_old_history, ("run", "--no-sandbox", "--port={port}"), marks=pytest.mark.once
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_ends_with_a_sentence_and_no_traceback(
    database_url: str,
    django_db_blocker: DjangoDbBlocker,
    made_by: Callable[[BaseDatabaseWrapper], None],
    command: tuple[str, ...],
) -> None:
    handler = ConnectionHandler({"default": Env.db_url_config(database_url)})
    with django_db_blocker.unblock():
        made_by(handler["default"])
    handler.close_all()
    ended = manage(*(one.format(port=free_port()) for one in command), environment=on(database_url))
    assert ended.returncode == 1
    assert SENTENCE in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_empty_database_is_not_old(database_url: str) -> None:
    ended = manage("migrate", "--verbosity=0", environment=on(database_url))
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.once
@pytest.mark.parametrize(
    "command",
    [
        ("publish", "form.submitted", "--payload=-"),
        ("rotate_keys",),
        ("changepassword", "admin"),
        ("axes_reset",),
        ("check", "--deploy", "--database=default"),
    ],
    ids=" ".join,
)
def test_a_command_on_an_empty_database_asks_for_migrate(
    database_url: str, command: tuple[str, ...]
) -> None:
    ended = manage(*command, environment=on(database_url), given="{}")
    assert ended.returncode == 1
    assert "lacks tables or columns of this version: run “manage.py migrate”" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.database("postgres")
def test_what_a_database_refuses_is_said_in_a_sentence(database_url: str) -> None:
    read_only = f"{database_url}?options=-c%20default_transaction_read_only%3Don"
    ended = manage("migrate", environment=on(read_only))
    assert ended.returncode == 1
    assert ended.stderr.startswith("The database cannot be used: Unable to create the django_migr")
    assert "Traceback" not in ended.stderr
