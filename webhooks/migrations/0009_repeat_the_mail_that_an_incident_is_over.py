"""Note which mails about closed incidents no mail server has accepted yet."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0008_notify_channels_apart_from_mail")]
    operations = [
        migrations.AddField(
            model_name="incident",
            name="owes_mail",
            field=models.BooleanField(default=False),
        ),
        migrations.AddIndex(
            model_name="incident",
            index=models.Index(
                condition=models.Q(("owes_mail", True)),
                fields=["closed_at"],
                name="incident_owing_mail",
            ),
        ),
    ]
