"""Note when channels were notified: they do not wait until a mail server accepts the mail."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0007_send_nothing_until_dropped")]
    operations = [
        migrations.AddField(
            model_name="incident",
            name="channels_notified_at",
            field=models.DateTimeField(blank=True, null=True),
        )
    ]
