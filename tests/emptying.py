"""Empty the database after a test that commits: of what it wrote, in a hundredth of a second.

Django's own flush truncates every table with all its partitions and indexes, and then writes the
permissions again, which takes longer than most tests.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper
from django.test import TransactionTestCase

# What `migrate` wrote is the same for every test. The canary, which tests change, is written back.
_KEPT = ("auth_permission", "django_content_type")
_CANARY = "webhooks_encryptioncanary"
# A trigger forbids to delete its entries.
_AUDIT_TRAIL = "webhooks_auditentry"
# A large partition, or one that was analyzed, would mislead plans and who asks for its size.
_LARGE_BYTES = 1 << 20
# A table without a page has no row.
_WRITTEN = """
    SELECT oid::regclass::text,
      relispartition AND (pg_relation_size(oid) > %s OR reltuples >= 0)
    FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND pg_relation_size(oid) > 0
      AND (relispartition OR relname = ANY(%s))
"""


@contextmanager
def of_what_was_written() -> Iterator[None]:
    """Empty the database this way after each test that commits."""
    not_deleted = {*_KEPT, _CANARY, _AUDIT_TRAIL}
    tables = sorted({*connection.introspection.django_table_names()} - not_deleted)
    with connection.cursor() as cursor:
        kept = _kept(cursor)
        cursor.execute(f"SELECT id, canary FROM {_CANARY}")
        canary = cursor.fetchall()

    def empty(case: TransactionTestCase) -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                _empty_postgres(cursor, tables)
            else:
                for table in (*tables, _AUDIT_TRAIL):
                    cursor.execute(f"DELETE FROM {table}")
            cursor.execute(f"DELETE FROM {_CANARY}")
            cursor.executemany(f"INSERT INTO {_CANARY} (id, canary) VALUES (%s, %s)", canary)
            assert _kept(cursor) == kept, "A test changed rows that `migrate` wrote."

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", empty)
        yield


def _kept(cursor: CursorWrapper) -> list[Any]:
    """Return how many rows there are in each table that is kept, and which is the last."""
    cursor.execute(" UNION ALL ".join(f"SELECT count(*), max(id) FROM {table}" for table in _KEPT))
    return cursor.fetchall()


def _empty_postgres(cursor: CursorWrapper, tables: list[str]) -> None:
    # Waits for what still writes, such as a thread that outlives its test.
    cursor.execute(f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE")
    cursor.execute(_WRITTEN, [_LARGE_BYTES, tables])
    written = cursor.fetchall()
    for table, is_truncated in written:
        cursor.execute(f"TRUNCATE {table}" if is_truncated else f"DELETE FROM {table}")
    cursor.execute("SET LOCAL session_replication_role = replica")
    cursor.execute(f"DELETE FROM {_AUDIT_TRAIL}")
    cursor.execute("SET LOCAL session_replication_role = origin")
