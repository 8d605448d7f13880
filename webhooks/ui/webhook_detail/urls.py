"""Addresses of the page of one webhook."""

from django.urls import path

from webhooks.ui import trail
from webhooks.ui.webhook_detail import views

urlpatterns = [
    path("<int:pk>/", views.detail, name="detail"),
    path("<int:pk>/charts/", views.charts_part, name="charts"),
    path("<int:pk>/recent/", views.recent_part, name="recent"),
    path("<int:pk>/changes/", trail.of_webhook, name="audit"),
    path("<int:pk>/why-not-sent/", views.why_not_sent, name="why_not_sent"),
    path("<int:pk>/pause/", views.pause, name="pause"),
    path("<int:pk>/resume/", views.resume, name="resume"),
    path("<int:pk>/duplicate/", views.duplicate, name="duplicate"),
    path("<int:pk>/delete/", views.delete, name="delete"),
    path("<int:pk>/blocking/<str:delivery_id>/send/", views.send_blocking, name="send_blocking"),
    path(
        "<int:pk>/blocking/<str:delivery_id>/cancel/", views.cancel_blocking, name="cancel_blocking"
    ),
]
