"""Keep every webhook whose receiver refused a token, so that the others can go on with it.

Which webhook that was until now is forgotten: the next refusal says so again.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0004_count_changes_of_subscriptions")]
    operations = [
        migrations.RemoveField(model_name="oauthtoken", name="refused_by"),
        migrations.AddField(
            model_name="oauthtoken",
            name="refused_by",
            field=models.JSONField(blank=True, default=list),
        ),
    ]
