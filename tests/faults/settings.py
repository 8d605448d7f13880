"""The product's settings for processes that a fault run starts."""

from config.settings import *  # noqa: F403 - all settings of the product.
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.hooks.Hooks"]
# A lease of seconds, so that a fault takes seconds: the run's webhook timeouts are shorter still.
SILENCED_SYSTEM_CHECKS = ["webhooks.E008"]
