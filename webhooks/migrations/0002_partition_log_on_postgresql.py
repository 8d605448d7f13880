"""Divide the log into partitions of time on PostgreSQL, its ids in the order of their bytes.

Ids are ASCII and begin with the time, so in that order a range of them is a span of time. The
tables are empty and created again; `webhooks.delivery.queue.partitions` makes what comes. Does nothing on
SQLite.
"""

from django.db import migrations
from django.utils import timezone

from webhooks.delivery.queue import partitions

IN_BYTE_ORDER = {
    "webhooks_event": ["id"],
    "webhooks_delivery": ["id", "event_id"],
    "webhooks_attempt": ["delivery_id"],
    "webhooks_idempotencykey": ["event_id"],
}
# A key has to contain what divides the table; the one of attempts finds those of a delivery too.
KEYS = {
    "webhooks_event": ["id"],
    "webhooks_delivery": ["id"],
    "webhooks_attempt": ["delivery_id", "id"],
}
# Django's second index on each text key serves LIKE in other collations; in "C" the first one does.
# Two of them cost a fifth of every claim and record.
# A table is the one that the search path leads to: another schema may hold another installation.
LIKE_INDEXES = r"""
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE indrelid = %s::regclass AND c.relname LIKE '%%\_like'
"""
INDEXES = r"""
SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class c ON c.oid = indexrelid
WHERE indrelid = %s::regclass AND NOT c.relname LIKE 'webhooks\_attempt\_delivery\_id\_%%'
  AND NOT EXISTS (SELECT FROM pg_constraint
                  WHERE conindid = indexrelid AND conrelid = indrelid AND contype <> 'f')
"""


def divide(apps, schema_editor):
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT relkind FROM pg_class WHERE oid = 'webhooks_event'::regclass")
        if cursor.fetchone()[0] == "p":
            # Migrated back and forth: going back leaves them divided.
            return
        for table, columns in IN_BYTE_ORDER.items():
            cursor.execute(LIKE_INDEXES, [table])
            for (index,) in cursor.fetchall():
                cursor.execute(f"DROP INDEX {index}")
            for column in columns:
                cursor.execute(
                    f'ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar(30) COLLATE "C"'
                )
        for table, key in KEYS.items():
            cursor.execute(INDEXES, [table])
            indexes = [row[0] for row in cursor.fetchall()]
            cursor.execute(f"ALTER TABLE {table} RENAME TO {table}_whole")
            cursor.execute(
                f"CREATE TABLE {table} (LIKE {table}_whole "
                f"INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE ({key[0]})"
            )
            cursor.execute(f"DROP TABLE {table}_whole")
            cursor.execute(f"ALTER TABLE {table} ADD PRIMARY KEY ({', '.join(key)})")
            for index in indexes:
                cursor.execute(index)
            cursor.execute(
                f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT "
                f"{partitions.STORAGE[table]}"
            )
        # The newest ones say how fast is sent.
        cursor.execute("CREATE INDEX attempt_by_id ON webhooks_attempt (id)")
        # Older versions of PostgreSQL give partitions no identity.
        cursor.execute("CREATE SEQUENCE webhooks_attempt_id_seq OWNED BY webhooks_attempt.id")
        cursor.execute(
            "ALTER TABLE webhooks_attempt "
            "ALTER COLUMN id SET DEFAULT nextval('webhooks_attempt_id_seq')"
        )
    partitions.make_ahead(timezone.now())


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0001_initial")]
    operations = [migrations.RunPython(divide, migrations.RunPython.noop)]
