"""Addresses of replays."""

from django.urls import path

from webhooks.ui.replays import views

urlpatterns = [
    path("replays/new/", views.create, name="replay_create"),
    path("replays/new/all/", views.create_for_all, name="replay_create_for_all"),
    path("<int:pk>/replays/new/", views.create, name="replay_create"),
    path("replays/<int:pk>/", views.detail, name="replay"),
    path("replays/<int:pk>/stop/", views.stop, name="replay_stop"),
]
