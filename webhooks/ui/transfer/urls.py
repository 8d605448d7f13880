"""Addresses of export and import."""

from django.urls import path

from webhooks.ui.transfer import views

urlpatterns = [
    path("export/", views.export, name="export"),
    path("import/", views.import_webhooks, name="import"),
]
