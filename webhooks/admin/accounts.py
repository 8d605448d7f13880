"""People and groups: Django's own pages, with permissions as boxes that a keyboard reaches.

Django's two lists side by side are drawn by a script whose markup a screen reader cannot follow.
"""

from typing import Any

from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.forms import CheckboxSelectMultiple

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
