"""Detect tables that the current migrations did not make."""

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.recorder import MigrationRecorder


def older_tables(using: str = DEFAULT_DB_ALIAS) -> str:
    """Return a sentence if a version before the first release made the tables, else ""."""
    connection = connections[using]
    tables = set(connection.introspection.table_names())
    is_ours = "webhooks_webhook" in tables or any(
        app == "webhooks" for app, _name in MigrationRecorder(connection).applied_migrations()
    )
    if not is_ours or "webhooks_credential" in tables:
        return ""
    return (
        "This database was made by a version from before the first release, which cannot be "
        "upgraded. Set DATABASE_URL to an empty database, or move the old one away, and run "
        "migrate again."
    )
