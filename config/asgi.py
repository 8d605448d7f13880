"""ASGI entry point: events are accepted on the event loop, everything else is config/wsgi.py's."""

from config.wsgi import application as _site

# After that, which loads the settings.
from webhooks.api.asgi import EventLoopSite

application = EventLoopSite(_site)
