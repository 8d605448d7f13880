"""People and groups: Django's own pages, with permissions as boxes that a keyboard reaches.

Django's two lists side by side are drawn by a script whose markup a screen reader cannot follow.
Only superusers give permissions, or touch another superuser. An account is changed, deleted or gets
a new password only from somebody who has every right that it has: whoever may edit accounts could
otherwise become anybody.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangosUserAdmin
from django.contrib.auth.models import Group, Permission
from django.db.models import Q, QuerySet
from django.forms import CheckboxSelectMultiple
from django.http import HttpRequest

from webhooks import audit
from webhooks.admin.readonly import ModelAdmin
from webhooks.models import Action

if TYPE_CHECKING:
    UserAdmin = DjangosUserAdmin[Any]
else:
    # Django's class takes no type argument when it runs.
    UserAdmin = DjangosUserAdmin

_BOXES = ("permissions", "user_permissions", "groups")
# What makes somebody more than they are.
_GIVEN = ("is_staff", "is_superuser", "groups", "user_permissions")


class _WrittenDown(ModelAdmin):
    """Lets the audit trail say who changed which account or group."""

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)
        if not change:
            self._record(request, Action.CREATED, form.instance)
        elif form.changed_data:
            self._record(request, Action.CHANGED, form.instance, form.changed_data)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self._record(request, Action.DELETED, obj)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for obj in queryset:
            self._record(request, Action.DELETED, obj)
        super().delete_queryset(request, queryset)

    def _record(
        self, request: HttpRequest, action: Action, obj: Any, fields: Iterable[str] = ()
    ) -> None:
        audit.record(
            action,
            None,
            user=request.user,
            fields=fields,
            object_type=str(obj._meta.model_name),
            object_id=str(obj.pk),
            object_name=str(obj),
        )


class PersonAdmin(_WrittenDown, UserAdmin):
    filter_horizontal = ()
    # The product writes them.
    readonly_fields = ("last_login", "date_joined")

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if request.resolver_match and "password" in request.resolver_match.route:
            self._record(request, Action.CHANGED, obj, ["password"])
        return super().log_change(request, obj, message)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.readonly_fields if _gives(request) else (*self.readonly_fields, *_GIVEN)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_change_permission(request, obj) and _may_touch(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_delete_permission(request, obj) and _may_touch(request, obj)

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name in _BOXES:
            kwargs["widget"] = CheckboxSelectMultiple()
        return super().formfield_for_manytomany(db_field, request, **kwargs)


class TeamAdmin(_WrittenDown, GroupAdmin):
    filter_horizontal = ()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if _gives(request) else ("permissions",)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether a group may go: only with rights that the one who deletes it has."""
        may_delete = super().has_delete_permission(request, obj)
        if obj is None or _gives(request):
            return may_delete
        return may_delete and _rights_of_team(obj) <= request.user.get_all_permissions()

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name in _BOXES:
            kwargs["widget"] = CheckboxSelectMultiple()
        return super().formfield_for_manytomany(db_field, request, **kwargs)


def _gives(request: HttpRequest) -> bool:
    return bool(request.user.is_superuser)


def _may_touch(request: HttpRequest, person: Any) -> bool:
    """Return whether an account has no right that the one who is logged in has not."""
    if person is None or _gives(request):
        return True
    return not person.is_superuser and _rights_of(person) <= request.user.get_all_permissions()


def _rights_of(person: Any) -> set[str]:
    """Return the rights of an account, also while it is not active: it can be made active."""
    given = Permission.objects.filter(Q(user=person) | Q(group__user=person))
    names = given.values_list("content_type__app_label", "codename")
    return {f"{app}.{name}" for app, name in names} | set(person.get_all_permissions())


def _rights_of_team(team: Group) -> set[str]:
    names = team.permissions.values_list("content_type__app_label", "codename")
    return {f"{app}.{name}" for app, name in names}
