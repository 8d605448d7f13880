"""The audit trail in the admin: every entry, to read and to search, of deleted webhooks too."""

import re
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from webhooks import audit
from webhooks.admin.readonly import LogFilter, ReadOnlyAdmin
from webhooks.models import Action, AuditEntry
from webhooks.templatetags import logtext
from webhooks.templatetags.interface import exact
from webhooks.ui.deliveries.forms import webhook_choices


class WebhookFilter(LogFilter):
    title = _("Webhook")
    parameter_name = "webhook"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return webhook_choices(request.GET.get(self.parameter_name, ""))

    def narrow(self, queryset: QuerySet[AuditEntry], value: str) -> QuerySet[AuditEntry]:
        if not re.fullmatch("[0-9]{1,18}", value):
            raise IncorrectLookupParameters(value)
        return queryset.filter(webhook=int(value))


class ActionFilter(LogFilter):
    title = _("Action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return Action.choices

    def narrow(self, queryset: QuerySet[AuditEntry], value: str) -> QuerySet[AuditEntry]:
        return queryset.filter(action=value)


class KindFilter(LogFilter):
    title = _("Kind")
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return logtext.KINDS.items()

    def narrow(self, queryset: QuerySet[AuditEntry], value: str) -> QuerySet[AuditEntry]:
        return queryset.filter(object_type=value)


class ActorFilter(LogFilter):
    title = _("Done by")
    parameter_name = "by"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return [("people", _("People")), ("system", _("The system"))]

    def narrow(self, queryset: QuerySet[AuditEntry], value: str) -> QuerySet[AuditEntry]:
        return queryset.filter(username="") if value == "system" else queryset.exclude(username="")


class AuditEntryAdmin(ReadOnlyAdmin):
    empty_value_display = "–"
    list_display = ("time", "who", "what", "kind", "object_name", "field_names", "said")
    list_display_links = ("time",)
    list_filter = (ActionFilter, KindFilter, WebhookFilter, ActorFilter)
    search_fields = ("id",)
    search_help_text = _("Login, name, or id of a webhook, delivery or key")
    fields = (
        "time", "who", "what", "kind", "object_name", "object_id", "field_names", "said",
    )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.fields

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        """Find by whole login, name or id: the newest page comes from the primary key."""
        words = search_term.strip().replace("\0", "")
        if not words:
            return queryset, False
        by_object = Q(object_type__in=list(logtext.KINDS), object_id=words[:40])
        return queryset.filter(Q(username=words) | Q(object_name=words) | by_object), False

    @admin.display(description=_("Time"))
    def time(self, entry: AuditEntry) -> SafeString | str:
        return exact(entry.at)

    @admin.display(description=_("Person"))
    def who(self, entry: AuditEntry) -> SafeString | str:
        css_class = "" if entry.username else "muted"
        return format_html('<span class="{}">{}</span>', css_class, logtext.person(entry))

    @admin.display(description=_("Action"))
    def what(self, entry: AuditEntry) -> str:
        return entry.get_action_display()

    @admin.display(description=_("Kind"))
    def kind(self, entry: AuditEntry) -> str:
        return logtext.kind(entry)

    @admin.display(description=_("Fields"), empty_value="–")
    def field_names(self, entry: AuditEntry) -> str:
        return logtext.field_labels(entry)

    @admin.display(description=_("Note"), empty_value="–")
    def said(self, entry: AuditEntry) -> str:
        return audit.sentence(entry.note)
