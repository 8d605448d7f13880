"""Addresses of the webhooks app."""

from django.urls import path

from webhooks import api
from webhooks.views import (
    authorization,
    bulk,
    connections,
    filtering,
    form,
    heads,
    lifecycle,
    listing,
    oauth_tools,
    page,
    testing,
    trail,
    transfer,
)

app_name = "webhooks"
PAGES = "integrations/webhooks/"
urlpatterns = [
    path("api/v1/events", api.publish_event, name="api_events"),
    path(PAGES, listing.list_webhooks, name="list"),
    path(PAGES + "new/", form.create, name="create"),
    path(PAGES + "bulk/", bulk.act, name="bulk"),
    path(PAGES + "export/", transfer.export, name="export"),
    path(PAGES + "import/", transfer.import_webhooks, name="import"),
    path(PAGES + "connections/", connections.list_connections, name="connections"),
    path(PAGES + "connections/new/", connections.create, name="connection_create"),
    path(PAGES + "connections/panel/", connections.panel, name="connection_panel"),
    path(PAGES + "connections/<int:pk>/", connections.detail, name="connection"),
    path(PAGES + "connections/<int:pk>/edit/", connections.edit, name="connection_edit"),
    path(PAGES + "connections/<int:pk>/changes/", trail.of_connection, name="connection_audit"),
    path(PAGES + "connections/<int:pk>/delete/", connections.delete, name="connection_delete"),
    path(
        PAGES + "<int:pk>/save-as-connection/",
        connections.save_as_connection,
        name="save_as_connection",
    ),
    path(PAGES + "oauth/callback/", authorization.oauth_callback, name="oauth_callback"),
    path(PAGES + "<int:pk>/", page.detail, name="detail"),
    path(PAGES + "<int:pk>/charts/", page.charts_part, name="charts"),
    path(PAGES + "<int:pk>/recent/", page.recent_part, name="recent"),
    path(PAGES + "<int:pk>/changes/", trail.of_webhook, name="audit"),
    path(PAGES + "<int:pk>/edit/", form.edit, name="edit"),
    path(PAGES + "filter/", filtering.try_filter, name="try_filter"),
    path(PAGES + "<int:pk>/why-not-sent/", filtering.why_not_sent, name="why_not_sent"),
    path(PAGES + "<int:pk>/pause/", lifecycle.pause, name="pause"),
    path(PAGES + "<int:pk>/resume/", lifecycle.resume, name="resume"),
    path(PAGES + "<int:pk>/heads/<str:delivery_id>/send/", heads.send_now, name="send_head"),
    path(PAGES + "<int:pk>/heads/<str:delivery_id>/cancel/", heads.cancel, name="cancel_head"),
    path(PAGES + "<int:pk>/duplicate/", lifecycle.duplicate, name="duplicate"),
    path(PAGES + "<int:pk>/delete/", lifecycle.delete, name="delete"),
    path(PAGES + "<int:pk>/signing-secret/rotate/", form.rotate_secret, name="rotate_secret"),
    path(PAGES + "<int:pk>/alerts/test/", form.send_test_mail, name="send_test_mail"),
    path(PAGES + "<int:pk>/authorize/", authorization.authorize, name="authorize"),
    path(PAGES + "<int:pk>/token/refresh/", authorization.refresh_token, name="refresh_token"),
    path(PAGES + "<int:pk>/token/clear/", authorization.clear_token, name="clear_token"),
    path(PAGES + "oauth/endpoints/", oauth_tools.find_endpoints, name="find_endpoints"),
    path(PAGES + "<int:pk>/token/check/", oauth_tools.check, name="check_token"),
    path(
        PAGES + "<int:pk>/token/authentication/",
        oauth_tools.try_authentication,
        name="try_authentication",
    ),
    path(
        PAGES + "<int:pk>/token/authentication/switch/",
        oauth_tools.switch_authentication,
        name="switch_authentication",
    ),
    path(PAGES + "<int:pk>/tests/", testing.send_test, name="send_test"),
    path(PAGES + "<int:pk>/tests/<str:delivery_id>/", testing.test_result, name="test_result"),
]
