from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0007_mute_alerts_for_a_while")]

    operations = [
        migrations.AlterField(
            model_name="webhook",
            name="requires_issuer",
            field=models.BooleanField(default=False, verbose_name="Answers name the issuer"),
        ),
    ]
