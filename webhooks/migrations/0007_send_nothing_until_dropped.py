"""Keep at the webhook itself that a resume dropped what waited: the engine sends nothing till then."""

from typing import Any

from django.db import migrations, models


def move(apps: Any, schema_editor: Any) -> None:
    webhooks = apps.get_model("webhooks", "Webhook").objects.using(schema_editor.connection.alias)
    states = apps.get_model("webhooks", "WebhookState").objects.filter(pk=models.OuterRef("pk"))
    dropping = webhooks.filter(state__drops_before__isnull=False)
    dropping.update(drops_before=models.Subquery(states.values("drops_before")))


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0006_keep_what_the_provider_sent_back")]
    operations = [
        migrations.AddField(
            model_name="webhook",
            name="drops_before",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.RunPython(move, migrations.RunPython.noop),
        migrations.RemoveField(model_name="webhookstate", name="drops_before"),
    ]
