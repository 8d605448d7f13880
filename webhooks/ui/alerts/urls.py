"""Addresses of the alert channels."""

from django.urls import path

from webhooks.ui.alerts import views

urlpatterns = [
    path("alerts/", views.list_channels, name="alerts"),
    path("alerts/add/<str:kind>/", views.add, name="alert_add"),
    path("alerts/<int:pk>/", views.edit, name="alert_edit"),
    path("alerts/<int:pk>/test/", views.test, name="alert_test"),
    path("alerts/<int:pk>/delete/", views.delete, name="alert_delete"),
]
