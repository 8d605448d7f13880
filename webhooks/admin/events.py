"""Events: what happened, whatever became of it. Read only."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue
from webhooks.admin.readonly import LogFilter, ReadOnlyAdmin, key_of
from webhooks.delivery_log.detail import PAYLOAD_BYTES
from webhooks.models import Event
from webhooks.templatetags.interface import ago, sentence

# An event sent to more webhooks than this is looked up in the delivery log.
_MAX_DELIVERIES = 50


class EventTypeFilter(LogFilter):
    title = _("Event type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(key, key) for key in catalogue.EVENT_TYPES]

    def narrow(self, queryset: QuerySet[Event], value: str) -> QuerySet[Event]:
        return queryset.filter(type=value)


class EventAdmin(ReadOnlyAdmin):
    list_display = ("created", "event_type", "event_id", "call_id", "origin", "filtered_count")
    list_display_links = ("created",)
    list_filter = (EventTypeFilter,)
    search_fields = ("id",)
    search_help_text = _("Event id, call id or idempotency key")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return super().get_queryset(request).defer("payload")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        words = search_term.strip()
        if not words:
            return queryset, False
        if words.startswith("evt_"):
            return queryset.filter(pk=words), False
        return queryset.filter(call_id=words) | queryset.filter(idempotency_key=words), False

    @admin.display(description=_("Created"))
    def created(self, event: Event) -> SafeString | str:
        return ago(event.created_at)

    @admin.display(description=_("Event type"))
    def event_type(self, event: Event) -> SafeString:
        return format_html('<span class="mono small">{}</span>', event.type)

    @admin.display(description=_("Source"), empty_value="–")
    def origin(self, event: Event) -> str:
        return sentence(event.source)

    @admin.display(description=_("Event id"))
    def event_id(self, event: Event) -> SafeString:
        return format_html('<span class="mono small">{}</span>', event.pk)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        event = Event.objects.filter(pk=key_of(object_id)).first()
        if event is None:
            raise Http404
        newest = event.deliveries.select_related("webhook").only(
            "id", "event_id", "status", "trigger", "status_code", "outcome", "hold_reason",
            "attempt_count", "created_at", "webhook__name",
        )  # fmt: skip
        context = {
            "event": event,
            "deliveries": newest.order_by("-id")[:_MAX_DELIVERIES],
            "payload_bytes": PAYLOAD_BYTES,
            "may_see_payload": request.user.has_perm("webhooks.view_payload"),
        }
        template = "admin/webhooks/event/change_form.html"
        return self.show(request, template, str(_("Event")), context)
