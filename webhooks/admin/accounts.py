"""Users and groups: Django's own pages, with permissions as checkboxes for keyboard users.

Django's double list is drawn by a script whose markup screen readers cannot follow. Only
superusers grant permissions or change another superuser. Others change or delete an account, or
set its password, only if they have all of its permissions: otherwise they could take it over.
"""

from typing import Any

from django.contrib.auth import admin as auth_admin
from django.contrib.auth.models import Permission
from django.db.models import Q, QuerySet
from django.forms import CheckboxSelectMultiple
from django.http import HttpRequest

from webhooks import audit
from webhooks.admin.readonly import ModelAdmin
from webhooks.models import Action
from webhooks.ui.fields import RowsField

_BOXES = ("permissions", "user_permissions", "groups")
# Fields that grant permissions.
_GRANTING_FIELDS = ("is_staff", "is_superuser", "groups", "user_permissions")


class _AccountAdmin(ModelAdmin):
    """Shows permissions as checkboxes, and records who changed which account or group."""

    filter_horizontal = ()

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name in _BOXES:
            kwargs |= {"widget": CheckboxSelectMultiple(), "form_class": RowsField}
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change:
            audit.record(Action.CREATED, form.instance, user=request.user)
        elif form.changed_data:
            fields = form.changed_data
            audit.record(Action.CHANGED, form.instance, user=request.user, fields=fields)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        audit.record(Action.DELETED, obj, user=request.user)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        audit.record_many(Action.DELETED, queryset, user=request.user)
        super().delete_queryset(request, queryset)


class UserAdmin(_AccountAdmin, auth_admin.UserAdmin):  # type: ignore[type-arg]
    # Written by the product only.
    readonly_fields = ("last_login", "date_joined")

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if request.resolver_match and "password" in request.resolver_match.route:
            audit.record(Action.CHANGED, obj, user=request.user, fields=["password"])
        return super().log_change(request, obj, message)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return (
            self.readonly_fields
            if _may_grant(request)
            else (*self.readonly_fields, *_GRANTING_FIELDS)
        )

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)


class GroupAdmin(_AccountAdmin, auth_admin.GroupAdmin):
    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if _may_grant(request) else ("permissions",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        may_delete = super().has_delete_permission(request, obj)
        return may_delete and (obj is None or _has_all(request, _named(obj.permissions.all())))


def _may_grant(request: HttpRequest) -> bool:
    return bool(request.user.is_superuser)


def _has_all(request: HttpRequest, permissions: set[str]) -> bool:
    return _may_grant(request) or permissions <= request.user.get_all_permissions()


def _may_touch(request: HttpRequest, user: Any) -> bool:
    """Return whether the logged-in user has every permission of an account."""
    if user is None or _may_grant(request):
        return True
    # Includes the permissions of an inactive account, which can be activated again.
    given = _named(Permission.objects.filter(Q(user=user) | Q(group__user=user)))
    return not user.is_superuser and _has_all(request, given | set(user.get_all_permissions()))


def _named(permissions: QuerySet[Permission]) -> set[str]:
    names = permissions.values_list("content_type__app_label", "codename")
    return {f"{app}.{name}" for app, name in names}
