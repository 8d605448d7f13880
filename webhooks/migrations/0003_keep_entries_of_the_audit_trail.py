"""Let the database refuse to change or delete an entry of the audit trail.

The model refuses it too; this holds for raw statements, other programs and a shell. The owner
of the table can drop the triggers: SECURITY.md.
"""

from django.db import migrations

MESSAGE = "Entries of the audit trail are never changed or deleted."
TABLE = "webhooks_auditentry"
FORWARD = {
    "postgresql": [
        f"""
        CREATE FUNCTION webhooks_keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '{MESSAGE}' USING ERRCODE = 'restrict_violation';
        END $$
        """,
        f"CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON {TABLE} "
        "FOR EACH ROW EXECUTE FUNCTION webhooks_keep_audit()",
        f"CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON {TABLE} "
        "FOR EACH ROW EXECUTE FUNCTION webhooks_keep_audit()",
        f"CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON {TABLE} "
        "FOR EACH STATEMENT EXECUTE FUNCTION webhooks_keep_audit()",
    ],
    "sqlite": [
        f"CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON {TABLE} "
        f"BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END",
        f"CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON {TABLE} "
        f"BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END",
    ],
}
BACKWARD = {
    "postgresql": ["DROP FUNCTION webhooks_keep_audit() CASCADE"],
    "sqlite": ["DROP TRIGGER audit_is_not_changed", "DROP TRIGGER audit_is_not_deleted"],
}


def _run(statements):
    def run(apps, schema_editor):
        for statement in statements.get(schema_editor.connection.vendor, []):
            schema_editor.execute(statement)

    return run


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0002_partition_log_on_postgresql")]
    operations = [migrations.RunPython(_run(FORWARD), _run(BACKWARD))]
