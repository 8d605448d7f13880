"""Addresses of the trash."""

from django.urls import path

from webhooks.ui.trash import views

urlpatterns = [
    path("trash/", views.list_trash, name="trash"),
    path("trash/<int:pk>/restore/", views.restore, name="restore"),
    path("trash/<int:pk>/purge/", views.purge, name="purge"),
]
