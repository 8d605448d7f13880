"""Addresses of resends."""

from django.urls import path

from webhooks.ui.resends import views

urlpatterns = [
    path("resends/new/", views.create, name="resend_create"),
    path("resends/new/all/", views.create_for_all, name="resend_create_for_all"),
    path("<int:pk>/resends/new/", views.create, name="resend_create"),
    path("resends/<int:pk>/", views.detail, name="resend"),
    path("resends/<int:pk>/stop/", views.stop, name="resend_stop"),
]
