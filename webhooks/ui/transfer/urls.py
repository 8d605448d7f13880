"""Addresses of export and import."""

from django.urls import path

from webhooks.ui.transfer import views

urlpatterns = [
    path("export/", views.export, name="export"),
    path("<int:pk>/versions/<int:entry>/", views.revert, name="revert"),
    path("import/", views.import_webhooks, name="import"),
]
