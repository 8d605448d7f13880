"""Addresses of a person's own preferences and session."""

from django.urls import path

from webhooks.ui import expired_session
from webhooks.ui.account import views

urlpatterns = [
    path("time-zone/", views.time_zone, name="time_zone"),
    path("session/", expired_session.session, name="session"),
]
