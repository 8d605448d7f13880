"""URLs of the app: the event API and the screens."""

from django.contrib.auth.decorators import login_not_required
from django.urls import include, path, re_path

from webhooks.api import events as api
from webhooks.ui import expired_session, trail
from webhooks.ui.account import views as account
from webhooks.ui.alerts import views as alerts
from webhooks.ui.connections import views as connections
from webhooks.ui.deliveries import export, search
from webhooks.ui.deliveries import views as deliveries
from webhooks.ui.help import views as help_pages
from webhooks.ui.project_status import views as project_status
from webhooks.ui.resends import views as resends
from webhooks.ui.transfer import views as transfer
from webhooks.ui.trash import views as trash
from webhooks.ui.webhook_detail import views as detail
from webhooks.ui.webhook_form import token_views as token
from webhooks.ui.webhook_form import views as form
from webhooks.ui.webhook_list import views as webhook_list

app_name = "webhooks"
_screens = [
    # A person's own preferences and session.
    path("time-zone/", account.time_zone, name="time_zone"),
    path("session/", expired_session.session, name="session"),
    # Alert channels.
    path("alerts/", alerts.list_channels, name="alerts"),
    path("alerts/add/<str:kind>/", alerts.add, name="alert_add"),
    path("alerts/<row:pk>/", alerts.edit, name="alert_edit"),
    path("alerts/<row:pk>/test/", alerts.test, name="alert_test"),
    path("alerts/<row:pk>/delete/", alerts.delete, name="alert_delete"),
    # Connections.
    path("connections/", connections.list_connections, name="connections"),
    path("connections/new/", connections.create, name="connection_create"),
    path("connections/grants/", connections.grants, name="grants"),
    path("connections/grants/combine/", connections.combine_grants, name="combine_grants"),
    path("connections/panel/", connections.panel, name="connection_panel"),
    path("connections/<row:pk>/", connections.detail, name="connection"),
    path("connections/<row:pk>/edit/", connections.edit, name="connection_edit"),
    path("connections/<row:pk>/changes/", trail.of_connection, name="connection_audit"),
    path("connections/<row:pk>/delete/", connections.delete, name="connection_delete"),
    path("<row:pk>/save-as-connection/", connections.save_as_connection, name="save_as_connection"),
    # The delivery log.
    path("search/", search.search, name="search"),
    path("events/<str:event_id>/", search.event, name="event"),
    path("deliveries/", deliveries.log, name="deliveries"),
    path("deliveries/cancel/", deliveries.cancel_selected, name="deliveries_cancel"),
    path("deliveries/views/", deliveries.save_view, name="deliveries_save_view"),
    path(
        "deliveries/views/<row:pk>/delete/",
        deliveries.delete_view,
        name="deliveries_delete_view",
    ),
    path("deliveries/export.csv", export.export, name="deliveries_export"),
    path("deliveries/<str:delivery_id>/", deliveries.detail, name="delivery"),
    path("deliveries/<str:delivery_id>/cancel/", deliveries.cancel, name="delivery_cancel"),
    path("deliveries/<str:delivery_id>/resend/", deliveries.resend, name="delivery_resend"),
    path("deliveries/<str:delivery_id>/edit/", deliveries.edit, name="delivery_edit"),
    path(
        "deliveries/<str:delivery_id>/attempts/<row:attempt_id>/<str:part>.bin",
        deliveries.body,
        name="delivery_body",
    ),
    # Help.
    path("help/events/", help_pages.events, name="help_events"),
    path("help/events/<str:event_type>/", help_pages.event, name="help_event"),
    path("help/receivers/", help_pages.receivers, name="help_receivers"),
    # The status page.
    path("status/", project_status.status, name="status"),
    # Resends.
    path("resends/new/", resends.create, name="resend_selected"),
    path("resends/new/all/", resends.create_for_all, name="resend_create_for_all"),
    path("<row:pk>/resends/new/", resends.create, name="resend_create"),
    path("resends/<row:pk>/", resends.detail, name="resend"),
    path("resends/<row:pk>/stop/", resends.stop, name="resend_stop"),
    # Export and import.
    path("export/", transfer.export, name="export"),
    path("<row:pk>/versions/<row:entry>/", transfer.revert, name="revert"),
    path("import/", transfer.import_webhooks, name="import"),
    # The trash.
    path("trash/", trash.list_trash, name="trash"),
    path("trash/<row:pk>/restore/", trash.restore, name="restore"),
    path("trash/<row:pk>/purge/", trash.purge, name="purge"),
    # The page of one webhook.
    path("<row:pk>/", detail.detail, name="detail"),
    path("<row:pk>/charts/", detail.charts_part, name="charts"),
    path("<row:pk>/recent/", detail.recent_part, name="recent"),
    path("<row:pk>/changes/", trail.of_webhook, name="audit"),
    path("<row:pk>/why-not-sent/", detail.why_not_sent, name="why_not_sent"),
    path("<row:pk>/pause/", detail.pause, name="pause"),
    path("<row:pk>/resume/", detail.resume, name="resume"),
    path("<row:pk>/duplicate/", detail.duplicate, name="duplicate"),
    path("<row:pk>/delete/", detail.delete, name="delete"),
    path("<row:pk>/blocking/<str:delivery_id>/send/", detail.send_blocking, name="send_blocking"),
    path(
        "<row:pk>/blocking/<str:delivery_id>/cancel/",
        detail.cancel_blocking,
        name="cancel_blocking",
    ),
    # The form, its parts and its token.
    path("new/", form.create, name="create"),
    path("<row:pk>/signing-secret/", form.reveal_secret, name="reveal_secret"),
    path("<row:pk>/edit/", form.edit, name="edit"),
    path("preview/", form.preview, name="preview"),
    path("parameters/", form.edit_parameters, name="edit_parameters"),
    path("filter/", form.try_filter, name="try_filter"),
    path("<row:pk>/signing-secret/rotate/", form.rotate_secret, name="rotate_secret"),
    path("<row:pk>/alerts/test/", form.send_test_mail, name="send_test_mail"),
    path("<row:pk>/tests/", form.send_test, name="send_test"),
    path("<row:pk>/tests/<str:delivery_id>/", form.test_result, name="test_result"),
    path("oauth/callback/", token.oauth_callback, name="oauth_callback"),
    path("oauth/keys/<slug:uid>.<slug:form>", token.public_key, name="public_key"),
    path("oauth/endpoints/", token.find_endpoints, name="find_endpoints"),
    path("credentials/<row:pk>/", token.credential_page, name="credential"),
    path("credentials/<row:pk>/authorize/", token.authorize, name="authorize"),
    path("credentials/<row:pk>/device/", token.device, name="device"),
    path("credentials/<row:pk>/token/paste/", token.paste_token, name="paste_token"),
    path("credentials/<row:pk>/token/refresh/", token.refresh_token, name="refresh_token"),
    path("credentials/<row:pk>/token/clear/", token.clear_token, name="clear_token"),
    path("credentials/<row:pk>/secret/restore/", token.restore_secret, name="restore_secret"),
    path("credentials/<row:pk>/token/check/", token.check, name="check_token"),
    path(
        "credentials/<row:pk>/token/authentication/",
        token.try_authentication,
        name="try_authentication",
    ),
    path(
        "credentials/<row:pk>/token/authentication/switch/",
        token.switch_authentication,
        name="switch_authentication",
    ),
    # The list of webhooks.
    path("", webhook_list.list_webhooks, name="list"),
    path("bulk/", webhook_list.bulk_action, name="bulk"),
]
urlpatterns = [
    path("api/v1/events", login_not_required(api.as_view(api.publish_event)), name="api_events"),
    path(
        "api/v1/events/batch",
        login_not_required(api.as_view(api.publish_batch)),
        name="api_events_batch",
    ),
    re_path("^[/]*api(?![^/])", login_not_required(api.not_found), name="api_not_found"),
    path("integrations/webhooks/", include(_screens)),
]
