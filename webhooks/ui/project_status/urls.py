"""Address of the status page."""

from django.urls import path

from webhooks.ui.project_status import views

urlpatterns = [path("status/", views.status, name="status")]
