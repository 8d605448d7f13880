"""Give what publishing remembers of webhooks a version that every change of them moves.

The row is written when a transaction commits, so that it is locked last and for a moment only: two
transactions that each change several webhooks never wait for each other. A row that was lost, as by
a restore of some tables, comes back with the next change. Does nothing on SQLite, where every group
of events reads the webhooks.
"""

from django.db import migrations

FORWARD = [
    """
    CREATE TABLE webhooks_subscriptions (
      is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row), version bigint NOT NULL)
    """,
    "INSERT INTO webhooks_subscriptions (version) VALUES (0)",
    """
    CREATE FUNCTION webhooks_subscriptions_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO webhooks_subscriptions AS s (version)
      VALUES (pg_current_xact_id()::text::bigint)
      ON CONFLICT (is_only_row) DO UPDATE SET version = EXCLUDED.version
      WHERE s.version <> EXCLUDED.version;
      RETURN NULL;
    END $$
    """,
    """
    CREATE CONSTRAINT TRIGGER webhooks_subscriptions_changed
    AFTER INSERT OR DELETE OR UPDATE OF event_types, filter, is_active, deleted_at
    ON webhooks_webhook DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION webhooks_subscriptions_changed()
    """,
    """
    CREATE TRIGGER webhooks_subscriptions_emptied AFTER TRUNCATE ON webhooks_webhook
    FOR EACH STATEMENT EXECUTE FUNCTION webhooks_subscriptions_changed()
    """,
]
BACKWARD = [
    "DROP TRIGGER webhooks_subscriptions_emptied ON webhooks_webhook",
    "DROP TRIGGER webhooks_subscriptions_changed ON webhooks_webhook",
    "DROP FUNCTION webhooks_subscriptions_changed()",
    "DROP TABLE webhooks_subscriptions",
]


def _run(statements):
    def run(apps, schema_editor):
        if schema_editor.connection.vendor == "postgresql":
            for statement in statements:
                # Without parameters: a "%" of its own would be read as one.
                schema_editor.execute(statement, params=None)

    return run


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0003_keep_entries_of_the_audit_trail")]
    operations = [migrations.RunPython(_run(FORWARD), _run(BACKWARD))]
