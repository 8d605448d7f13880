"""Settings and entry points. Importing the Celery app here makes it the default for tasks."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
