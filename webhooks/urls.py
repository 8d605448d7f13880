"""Addresses of the app: the event API, and those of each screen."""

from django.contrib.auth.decorators import login_not_required
from django.urls import include, path

from webhooks.api import events as api

app_name = "webhooks"
_SCREENS = (
    "account",
    "alerts",
    "connections",
    "deliveries",
    "help",
    "project_status",
    "resends",
    "transfer",
    "trash",
    "webhook_detail",
    "webhook_form",
    "webhook_list",
)
urlpatterns = [
    path("api/v1/events", login_not_required(api.publish_event), name="api_events"),
    path(
        "api/v1/events/batch",
        login_not_required(api.publish_batch),
        name="api_events_batch",
    ),
    path(
        "integrations/webhooks/",
        include([path("", include(f"webhooks.ui.{screen}.urls")) for screen in _SCREENS]),
    ),
]
