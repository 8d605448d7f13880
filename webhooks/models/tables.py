"""Detect tables that the current migrations did not make, or have not made yet."""

from pkgutil import iter_modules

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from webhooks import migrations


def older_tables(using: str = DEFAULT_DB_ALIAS) -> str:
    """Return a sentence if a version before the first release made the tables, else ""."""
    connection = connections[using]
    tables = set(connection.introspection.table_names())
    is_ours = "webhooks_webhook" in tables or any(
        app == "webhooks" for app, _name in MigrationRecorder(connection).applied_migrations()
    )
    # The last column that was renamed before the release.
    if not is_ours or _has_column(connection, "webhooks_webhook", "response_rule", tables):
        return ""
    return (
        "This database was made by a version from before the first release, which cannot be "
        "upgraded. Set DATABASE_URL to an empty database, or move the old one away, and run "
        "migrate again."
    )


def _has_column(connection: BaseDatabaseWrapper, table: str, column: str, tables: set[str]) -> bool:
    if table not in tables:
        return False
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, table)
    return column in {one.name for one in columns}


def missing_migrations(using: str = DEFAULT_DB_ALIAS) -> str:
    """Return a sentence if `migrate` has not made every table and column, else ""."""
    applied = MigrationRecorder(connections[using]).applied_migrations()
    names = (module.name for module in iter_modules(migrations.__path__))
    if all(("webhooks", name) in applied for name in names):
        return ""
    return "The database lacks tables or columns of this version: run “manage.py migrate”."
