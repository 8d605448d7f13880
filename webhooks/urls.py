"""Addresses of the webhooks app."""

from django.urls import path

from webhooks.api import events as api
from webhooks.ui import expired_session as logged_out
from webhooks.ui import trail
from webhooks.ui.account import views as preferences
from webhooks.ui.connections import views as connections
from webhooks.ui.deliveries import export as delivery_export
from webhooks.ui.deliveries import views as deliveries
from webhooks.ui.replays import views as replays
from webhooks.ui.transfer import views as transfer
from webhooks.ui.webhook_detail import blocking as heads
from webhooks.ui.webhook_detail import lifecycle
from webhooks.ui.webhook_detail import views as page
from webhooks.ui.webhook_form import filter_views as filtering
from webhooks.ui.webhook_form import oauth_views as oauth_tools
from webhooks.ui.webhook_form import preview as previewing
from webhooks.ui.webhook_form import test_delivery as testing
from webhooks.ui.webhook_form import token_views as authorization
from webhooks.ui.webhook_form import views as form
from webhooks.ui.webhook_list import bulk
from webhooks.ui.webhook_list import views as listing

app_name = "webhooks"
PAGES = "integrations/webhooks/"
urlpatterns = [
    path("api/v1/events", api.publish_event, name="api_events"),
    path(PAGES, listing.list_webhooks, name="list"),
    path(PAGES + "time-zone/", preferences.time_zone, name="time_zone"),
    path(PAGES + "session/", logged_out.session, name="session"),
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
    path(PAGES + "preview/", previewing.preview, name="preview"),
    path(PAGES + "parameters/", previewing.edit_parameters, name="edit_parameters"),
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
    path(PAGES + "deliveries/", deliveries.log, name="deliveries"),
    path(PAGES + "deliveries/selected/", deliveries.act_on_selected, name="deliveries_selected"),
    path(PAGES + "deliveries/export.csv", delivery_export.export, name="deliveries_export"),
    path(PAGES + "deliveries/<str:delivery_id>/", deliveries.detail, name="delivery"),
    path(
        PAGES + "deliveries/<str:delivery_id>/send-now/",
        deliveries.send_now,
        name="delivery_send_now",
    ),
    path(PAGES + "deliveries/<str:delivery_id>/cancel/", deliveries.cancel, name="delivery_cancel"),
    path(
        PAGES + "deliveries/<str:delivery_id>/redeliver/",
        deliveries.redeliver,
        name="delivery_redeliver",
    ),
    path(PAGES + "deliveries/<str:delivery_id>/edit/", deliveries.edit, name="delivery_edit"),
    path(
        PAGES + "deliveries/<str:delivery_id>/attempts/<int:attempt_id>/<str:part>.bin",
        deliveries.body,
        name="delivery_body",
    ),
    path(PAGES + "replays/new/", replays.create, name="replay_create"),
    path(PAGES + "replays/new/all/", replays.create_for_all, name="replay_create_for_all"),
    path(PAGES + "<int:pk>/replays/new/", replays.create, name="replay_create"),
    path(PAGES + "replays/<int:pk>/", replays.detail, name="replay"),
    path(PAGES + "replays/<int:pk>/stop/", replays.stop, name="replay_stop"),
    path(PAGES + "<int:pk>/tests/", testing.send_test, name="send_test"),
    path(PAGES + "<int:pk>/tests/<str:delivery_id>/", testing.test_result, name="test_result"),
]
