"""Remember until when a webhook's alerts are muted; empty: until somebody unmutes them."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0006_keep_entries_of_the_audit_trail")]
    operations = [
        migrations.AddField(
            model_name="webhook",
            name="alerts_muted_until",
            field=models.DateTimeField(blank=True, null=True, verbose_name="Muted until"),
        ),
    ]
