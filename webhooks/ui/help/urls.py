"""Addresses of the help pages."""

from django.urls import path

from webhooks.ui.help import views

urlpatterns = [
    path("help/events/", views.events, name="help_events"),
    path("help/events/<str:event_type>/", views.event, name="help_event"),
    path("help/receivers/", views.receivers, name="help_receivers"),
]
