"""Browsers of people with permissions."""

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client


def logged_in(
    *permissions: str, name: str = "admin", is_staff: bool = False, is_superuser: bool = False
) -> Client:
    """Return the browser of a new person with these permissions."""
    user = get_user_model().objects.create_user(
        name, password="p", is_staff=is_staff, is_superuser=is_superuser
    )
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client
