"""Addresses of the delivery log."""

from django.urls import path

from webhooks.ui.deliveries import export, search, views

urlpatterns = [
    path("search/", search.search, name="search"),
    path("events/<str:event_id>/", search.event, name="event"),
    path("deliveries/", views.log, name="deliveries"),
    path("deliveries/cancel/", views.cancel_selected, name="deliveries_cancel"),
    path("deliveries/views/", views.save_view, name="deliveries_save_view"),
    path("deliveries/views/<int:pk>/delete/", views.delete_view, name="deliveries_delete_view"),
    path("deliveries/export.csv", export.export, name="deliveries_export"),
    path("deliveries/<str:delivery_id>/", views.detail, name="delivery"),
    path("deliveries/<str:delivery_id>/cancel/", views.cancel, name="delivery_cancel"),
    path("deliveries/<str:delivery_id>/resend/", views.resend, name="delivery_resend"),
    path("deliveries/<str:delivery_id>/edit/", views.edit, name="delivery_edit"),
    path(
        "deliveries/<str:delivery_id>/attempts/<int:attempt_id>/<str:part>.bin",
        views.body,
        name="delivery_body",
    ),
]
