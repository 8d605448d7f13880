"""Empties the database after a test that commits, except for rows that `migrate` writes."""

from django.core.management.color import no_style
from django.db import connection, transaction
from django.test import TransactionTestCase

from webhooks.delivery.queue import partitions
from webhooks.security import key_check

# `migrate` writes their rows, which take longer than all else, and the product only reads them.
_KEPT = {"django_content_type", "auth_permission"}
# Deleted rows occupy PostgreSQL's files until a vacuum; larger tables are truncated.
_DELETE_BYTES = 1 << 20
_IS_LARGE = f"""
SELECT EXISTS (SELECT FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
AND relname LIKE 'webhooks_%' AND pg_relation_size(oid) > {_DELETE_BYTES})
"""
# The audit trail refuses to delete rows, but the tests let it be truncated.
_AUDIT = "webhooks_auditentry"


def empty_database(_: TransactionTestCase) -> None:
    """Do what Django's `flush` does, but keep content types and permissions."""
    tables = connection.introspection.django_table_names(only_existing=True, include_views=False)
    emptied = sorted(set(tables) - _KEPT)
    if connection.vendor == "postgresql":
        _empty_postgres(emptied)
    else:
        _flush(emptied)
    # What the product does after `migrate`.
    key_check.plant()
    partitions.on_post_migrate(using=connection.alias)


def _flush(tables: list[str]) -> None:
    connection.ops.execute_sql_flush(connection.ops.sql_flush(no_style(), tables))


def _empty_postgres(tables: list[str]) -> None:
    """Delete the rows if they are few: truncating makes a file for each table and index."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_IS_LARGE)
        if cursor.fetchone() == (True,):
            _flush(tables)
            return
        cursor.execute(f"SELECT EXISTS (SELECT FROM {_AUDIT})")
        if cursor.fetchone() == (True,):
            cursor.execute(f"TRUNCATE {_AUDIT} CASCADE")
        cursor.execute(";".join(f"DELETE FROM {one}" for one in tables if one != _AUDIT))
