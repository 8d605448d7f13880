"""Addresses of the webhook form, its parts and its token."""

from django.urls import path

from webhooks.ui.webhook_form import signing_secret, views

urlpatterns = [
    path("new/", views.create, name="create"),
    path("<int:pk>/signing-secret/", signing_secret.reveal, name="reveal_secret"),
    path("<int:pk>/edit/", views.edit, name="edit"),
    path("preview/", views.preview, name="preview"),
    path("parameters/", views.edit_parameters, name="edit_parameters"),
    path("filter/", views.try_filter, name="try_filter"),
    path("<int:pk>/signing-secret/rotate/", views.rotate_secret, name="rotate_secret"),
    path("<int:pk>/alerts/test/", views.send_test_mail, name="send_test_mail"),
    path("<int:pk>/tests/", views.send_test, name="send_test"),
    path("<int:pk>/tests/<str:delivery_id>/", views.test_result, name="test_result"),
    path("oauth/callback/", views.oauth_callback, name="oauth_callback"),
    path("oauth/keys/<str:uid>.<str:form>", views.public_key, name="public_key"),
    path("oauth/endpoints/", views.find_endpoints, name="find_endpoints"),
    path("credentials/<int:pk>/", views.credential_page, name="credential"),
    path("credentials/<int:pk>/authorize/", views.authorize, name="authorize"),
    path("credentials/<int:pk>/device/", views.device, name="device"),
    path("credentials/<int:pk>/token/paste/", views.paste_token, name="paste_token"),
    path("credentials/<int:pk>/token/refresh/", views.refresh_token, name="refresh_token"),
    path("credentials/<int:pk>/token/clear/", views.clear_token, name="clear_token"),
    path("credentials/<int:pk>/secret/restore/", views.restore_secret, name="restore_secret"),
    path("credentials/<int:pk>/token/check/", views.check, name="check_token"),
    path(
        "credentials/<int:pk>/token/authentication/",
        views.try_authentication,
        name="try_authentication",
    ),
    path(
        "credentials/<int:pk>/token/authentication/switch/",
        views.switch_authentication,
        name="switch_authentication",
    ),
]
