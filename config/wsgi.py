"""WSGI entry point."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
_site = get_wsgi_application()

# Imported after get_wsgi_application(), which loads the settings.
from webhooks.api.wsgi import events_first, with_limited_waits  # noqa: E402
from webhooks.delivery import queue  # noqa: E402

queue.postgres.limit_lock_waits()
application = with_limited_waits(events_first(_site))
