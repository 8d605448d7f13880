"""People and groups: Django's own pages, with permissions as boxes that a keyboard reaches.

Django's two lists side by side are drawn by a script whose markup a screen reader cannot follow.
"""

from typing import TYPE_CHECKING, Any

from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangosUserAdmin
from django.forms import CheckboxSelectMultiple

if TYPE_CHECKING:
    UserAdmin = DjangosUserAdmin[Any]
else:
    # Django's class takes no type argument when it runs.
    UserAdmin = DjangosUserAdmin

_BOXES = ("permissions", "user_permissions", "groups")


class PersonAdmin(UserAdmin):
    filter_horizontal = ()
    # The product writes them.
    readonly_fields = ("last_login", "date_joined")

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name in _BOXES:
            kwargs["widget"] = CheckboxSelectMultiple()
        return super().formfield_for_manytomany(db_field, request, **kwargs)


class TeamAdmin(GroupAdmin):
    filter_horizontal = ()

    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        if db_field.name in _BOXES:
            kwargs["widget"] = CheckboxSelectMultiple()
        return super().formfield_for_manytomany(db_field, request, **kwargs)
