"""Paths of the sandbox provider; the endpoints have the names that the toolkit's metadata uses."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from oauth2_provider import views as toolkit

from tests.sandbox.provider import views

endpoints = [
    path("authorize/", views.AuthorizationView.as_view(), name="authorize"),
    path("token/", views.TokenView.as_view(), name="token"),
    path("revoke/", toolkit.RevokeTokenView.as_view(), name="revoke-token"),
    path("introspect/", toolkit.IntrospectTokenView.as_view(), name="introspect"),
    path(
        ".well-known/oauth-authorization-server",
        toolkit.OAuthServerMetadataView.as_view(),
        name="oauth-server-metadata",
    ),
    # The same document at the path that OpenID clients use; there are no ID tokens here.
    path(".well-known/openid-configuration", toolkit.OAuthServerMetadataView.as_view()),
]

urlpatterns = [
    path("", views.home, name="home"),
    path("", include((endpoints, "oauth2_provider"))),
    path("login/", LoginView.as_view(), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("_control", views.control),
    path("_token_requests", views.token_requests),
    path("_revocation_requests", views.revocation_requests),
]
