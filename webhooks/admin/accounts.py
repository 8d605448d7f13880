"""People and groups: Django's own pages, with permissions as boxes that a keyboard reaches.

Django's two lists side by side are drawn by a script whose markup a screen reader cannot follow.
Only superusers give permissions, or touch another superuser: whoever may edit accounts could
otherwise make themselves anything.
"""

from typing import TYPE_CHECKING, Any

from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangosUserAdmin
from django.forms import CheckboxSelectMultiple
from django.http import HttpRequest

if TYPE_CHECKING:
    UserAdmin = DjangosUserAdmin[Any]
else:
    # Django's class takes no type argument when it runs.
    UserAdmin = DjangosUserAdmin

_BOXES = ("permissions", "user_permissions", "groups")
# What makes somebody more than they are.
_GIVEN = ("is_staff", "is_superuser", "groups", "user_permissions")


class PersonAdmin(UserAdmin):
    filter_horizontal = ()
    # The product writes them.
    readonly_fields = ("last_login", "date_joined")

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


class TeamAdmin(GroupAdmin):
    filter_horizontal = ()

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if _gives(request) else ("permissions",)

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name in _BOXES:
            kwargs["widget"] = CheckboxSelectMultiple()
        return super().formfield_for_manytomany(db_field, request, **kwargs)


def _gives(request: HttpRequest) -> bool:
    return bool(request.user.is_superuser)


def _may_touch(request: HttpRequest, person: Any) -> bool:
    return person is None or not person.is_superuser or _gives(request)
