"""Addresses of the list of webhooks."""

from django.urls import path

from webhooks.ui.webhook_list import views

urlpatterns = [
    path("", views.list_webhooks, name="list"),
    path("bulk/", views.bulk_action, name="bulk"),
]
