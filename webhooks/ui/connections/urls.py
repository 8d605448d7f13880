"""Addresses of connections."""

from django.urls import path

from webhooks.ui import trail
from webhooks.ui.connections import views

urlpatterns = [
    path("connections/", views.list_connections, name="connections"),
    path("connections/new/", views.create, name="connection_create"),
    path("connections/grants/", views.grants, name="grants"),
    path("connections/grants/unite/", views.unite_grants, name="unite_grants"),
    path("connections/panel/", views.panel, name="connection_panel"),
    path("connections/<int:pk>/", views.detail, name="connection"),
    path("connections/<int:pk>/edit/", views.edit, name="connection_edit"),
    path("connections/<int:pk>/changes/", trail.of_connection, name="connection_audit"),
    path("connections/<int:pk>/delete/", views.delete, name="connection_delete"),
    path("<int:pk>/save-as-connection/", views.save_as_connection, name="save_as_connection"),
]
