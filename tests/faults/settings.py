"""The product's settings for processes that a fault run starts."""

from config.settings import *  # noqa: F403 - the whole point.
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.faults.hooks.Hooks"]
# A lease of seconds, so that each fault takes seconds: timeouts of the run's webhooks are shorter.
SILENCED_SYSTEM_CHECKS = ["webhooks.E008"]
