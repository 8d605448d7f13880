"""Keep what a refresh takes of the provider's response in the browser."""

from django.db import migrations

from webhooks.security.encryption import SecretField


class Migration(migrations.Migration):
    dependencies = [("webhooks", "0005_name_every_webhook_that_was_refused")]
    operations = [
        migrations.AddField(
            model_name="oauthtoken", name="answered", field=SecretField(default="", blank=True)
        ),
    ]
