"""Read-only admin pages for tables of any size: pages by key, no COUNT, no OFFSET.

Filters are drawn as selects in the toolbar above the table.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.utils import unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from webhooks.ui.requests import whole_number

BEFORE = "before"
AFTER = "after"
# More words than a name or URL has. Each word is a condition, and SQLite allows a thousand.
_MAX_WORDS = 100

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    # At run time Django's class takes no type argument.
    _ModelAdmin = admin.ModelAdmin


class ModelAdmin(_ModelAdmin):
    """Rows with a numeric key that can be selected for an action."""

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Allow only the lookups of the page's filters in a query string.

        Django allows lookups on any column, so a user who may not see payloads could guess them
        piece by piece.
        """
        names = {getattr(one, "parameter_name", one) for one in self.get_list_filter(request)}
        return lookup.partition("__")[0] in names and super().lookup_allowed(lookup, value, request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if len(search_term.split()) > _MAX_WORDS:
            return queryset.none(), False
        return super().get_search_results(request, queryset, search_term)

    def response_action(
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponse | None:
        """Run the chosen action without keys that no row can have: those would fail in a query."""
        data = request.POST.copy()
        chosen = [key for key in data.getlist(ACTION_CHECKBOX_NAME) if whole_number(str(key))]
        data.setlist(ACTION_CHECKBOX_NAME, chosen)
        request.POST = data  # type: ignore[assignment]
        return super().response_action(request, *args, **kwargs)


class KeysetChangeList(ChangeList):
    """Shows the rows before or after a key, newest first, from an index at any depth.

    Reads one row more than a page holds to know whether there is another page.
    """

    newer_link = ""
    older_link = ""

    @property
    def is_narrowed(self) -> bool:
        """Return whether a search or a filter leaves rows out."""
        return bool(self.query) or any(
            spec.value() for spec in self.filter_specs if isinstance(spec, admin.SimpleListFilter)
        )

    @property
    def is_first_page(self) -> bool:
        return BEFORE not in self.params and AFTER not in self.params

    def get_filters_params(self, params: Any = None) -> dict[str, Any]:
        kept: dict[str, Any] = super().get_filters_params(params)
        return {name: value for name, value in kept.items() if name not in (BEFORE, AFTER)}

    def get_query_string(
        self, new_params: dict[str, Any] | None = None, remove: Iterable[str] | None = None
    ) -> str:
        # A link that changes the filters returns to the first page.
        return super().get_query_string(new_params, [*(remove or []), BEFORE, AFTER])

    def get_results(self, request: HttpRequest) -> None:
        size = self.list_per_page
        if any("\0" in self.params.get(name, "") for name in (BEFORE, AFTER)):
            raise IncorrectLookupParameters
        try:
            if after := self.params.get(AFTER):
                found = list(self.queryset.filter(pk__gt=after).order_by("pk")[: size + 1])
                rows, has_newer, has_older = found[:size][::-1], len(found) > size, True
            else:
                before = self.params.get(BEFORE)
                older = self.queryset.filter(pk__lt=before) if before else self.queryset
                found = list(older.order_by("-pk")[: size + 1])
                rows, has_newer, has_older = found[:size], bool(before), len(found) > size
        except (ValueError, ValidationError) as error:
            raise IncorrectLookupParameters(error) from error
        if rows and has_newer:
            self.newer_link = self.get_query_string({AFTER: rows[0].pk})
        if rows and has_older:
            self.older_link = self.get_query_string({BEFORE: rows[-1].pk})
        self._show(rows)

    def _show(self, rows: list[Any]) -> None:
        """Set the attributes that the templates and actions of Django's change list read."""
        self.result_list = rows
        self.result_count = len(rows)
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = True
        self.can_show_all = False
        self.multi_page = False
        self.paginator = Paginator(rows, self.list_per_page)


def key_of(object_id: str) -> str:
    """Return the key in a URL, plain or as quoted in Django's own links ("dlv_5F01...").

    NUL characters are removed: PostgreSQL raises an error where other databases find nothing.
    """
    plain = unquote(object_id) if "_5F" in object_id else object_id
    return plain.replace("\0", "")


class LogFilter(admin.SimpleListFilter):
    """Filters a log by a column; raises IncorrectLookupParameters for an invalid value."""

    column = ""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = (self.value() or "").strip()
        if "\0" in value:
            raise IncorrectLookupParameters(value)
        return self.narrow(queryset, value) if value else queryset

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(**{self.column: value})


class ReadOnlyAdmin(ModelAdmin):
    """Rows that can be viewed but not added, edited or deleted."""

    list_per_page = 50
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions: Any = None
    ordering = ("-pk",)
    sortable_by = ()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        return super().get_object(request, object_id.replace("\0", ""), from_field)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeysetChangeList

    def show(
        self, request: HttpRequest, template: str, title: Any, context: dict[str, Any]
    ) -> HttpResponse:
        """Render a page of the product within the admin. Raises PermissionDenied."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        site = {**self.admin_site.each_context(request), "opts": self.opts, "title": title}
        return TemplateResponse(request, template, {**site, **context})
