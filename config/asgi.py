"""ASGI entry point: accepts events on the event loop; config/wsgi.py serves everything else."""

from config.wsgi import application as _site

# Imported after config.wsgi, which loads the settings.
from webhooks.api.asgi import EventLoopSite

application = EventLoopSite(_site)
