"""The app's name and its start-up registrations."""

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class WebhooksConfig(AppConfig):
    name = "webhooks"
    verbose_name = _("Integrations")
    default_auto_field = "django.db.models.BigAutoField"
