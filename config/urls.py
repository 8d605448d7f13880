"""URLs of the site. Every view requires a login unless it is marked `login_not_required`."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_not_required
from django.urls import include, path
from django.views.i18n import set_language

from webhooks.api import health
from webhooks.ui.account.login import LoginForm
from webhooks.ui.deliveries import search

handler400 = "webhooks.api.events.bad_request"
handler500 = "webhooks.ui.unavailable.server_error"
urlpatterns = [
    path("healthz", login_not_required(health.healthz), name="healthz"),
    path("readyz", login_not_required(health.readyz), name="readyz"),
    path("", search.home, name="home"),
    path("login/", auth_views.LoginView.as_view(authentication_form=LoginForm), name="login"),
    path("logout/", login_not_required(auth_views.LogoutView.as_view()), name="logout"),
    path("language/", login_not_required(set_language), name="set_language"),
    path("", include("webhooks.urls")),
    path("admin/", admin.site.urls),
]
