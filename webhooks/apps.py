"""The app's configuration and its start-up registrations."""

from django.apps import AppConfig
from django.db import connection
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _


class WebhooksConfig(AppConfig):
    name = "webhooks"
    verbose_name = _("Integrations")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from webhooks import checks  # noqa: F401 - importing registers the checks.
        from webhooks.security import key_check
        from webhooks.security.encryption import before_sealing

        if key_check.require not in before_sealing:
            before_sealing.append(key_check.require)

        if connection.vendor == "postgresql":
            from webhooks.delivery.queue import partitions, postgres

            connection_created.connect(postgres.on_connection_created)
            post_migrate.connect(partitions.on_post_migrate, sender=self)
        # Django's hook for rows that belong to the schema, as it does for content types.
        post_migrate.connect(key_check.plant, sender=self)
