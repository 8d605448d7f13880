"""Read-only logs: events, deliveries, OAuth exchanges and the audit trail.

Also the list of webhooks, whose rows lead to their screens.
"""

from collections.abc import Iterable
from typing import Any, cast

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from webhooks import audit, catalogue, oauth
from webhooks.admin.readonly import AFTER, BEFORE, LogFilter, ReadOnlyAdmin, key_of
from webhooks.delivery_log import event_detail
from webhooks.delivery_log import search as log_search
from webhooks.models import (
    CREDENTIAL_SECRETS,
    WEBHOOK_SECRETS,
    Action,
    AuditEntry,
    Credential,
    Event,
    IdempotencyKey,
    OAuthExchange,
    Webhook,
)
from webhooks.templatetags import logtext
from webhooks.templatetags.interface import ago, code_badge, exact, sentence
from webhooks.templatetags.logtext import visible
from webhooks.ui.deliveries import search, views
from webhooks.ui.deliveries.forms import webhook_choices
from webhooks.ui.requests import HtmxRequest, whole_number
from webhooks.ui.status import SECRETS_OF_WEBHOOK, status_of


class EventTypeFilter(LogFilter):
    title = _("Event type")
    parameter_name = "type"
    column = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, Any]]:
        return [(key, key) for key in catalogue.EVENT_TYPES]


class EventAdmin(ReadOnlyAdmin):
    list_display = ("created", "event_type", "event_id", "call_id", "origin", "filtered_out")
    list_display_links = ("created",)
    list_filter = (EventTypeFilter,)
    search_fields = ("id",)
    search_help_text = _("Phone number, event or call id, or idempotency key")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Event]:
        return super().get_queryset(request).defer("payload")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Event], search_term: str
    ) -> tuple[QuerySet[Event], bool]:
        words = search_term.strip()
        if not words:
            return queryset, False
        may_see = request.user.has_perm("webhooks.view_payload")
        # Of many events only those nearest to the page.
        before, after = (request.GET.get(name, "").replace("\0", "") for name in (BEFORE, AFTER))
        near = log_search.find(words, before=before, after=after, may_see_numbers=may_see)
        found = list(near.events)
        found += IdempotencyKey.objects.filter(pk=words).values_list("event", flat=True)
        return queryset.filter(pk__in=found), False

    @admin.display(description=_("Created"))
    def created(self, event: Event) -> SafeString | str:
        return ago(event.created_at)

    @admin.display(description=_("Event type"))
    def event_type(self, event: Event) -> SafeString:
        return format_html('<span class="mono small">{}</span>', event.type)

    @admin.display(description=_("Source"), empty_value="–")
    def origin(self, event: Event) -> str:
        return sentence(event.source)

    @admin.display(description=_("Filtered out"))
    def filtered_out(self, event: Event) -> int:
        return event.filtered_count

    @admin.display(description=_("Event id"))
    def event_id(self, event: Event) -> SafeString:
        return format_html('<span class="mono small">{}</span>', event.pk)

    def change_view(
        self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        event = event_detail.get(key_of(object_id))
        if event is None:
            raise Http404
        context = search.event_context(request, event)
        template = "admin/webhooks/event/change_form.html"
        return self.show(request, template, _("Event"), context)


_STEPS = {"resend": views.resend, "cancel": views.cancel}


class DeliveryAdmin(ReadOnlyAdmin):
    def get_urls(self) -> list[URLPattern]:
        steps = [
            path(
                f"<str:delivery_id>/{step}/",
                self.admin_site.admin_view(view),
                name=f"webhooks_delivery_{step}",
            )
            for step, view in _STEPS.items()
        ]
        return steps + super().get_urls()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        template = "admin/webhooks/delivery/change_list.html"
        if self.has_view_permission(request) and (
            part := views.show_log(cast(HtmxRequest, request))
        ):
            return part
        return self.show(request, template, _("Delivery log"), views.log_context(request))

    def change_view(
        self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context = views.detail_context(request, views.get_delivery(key_of(object_id)))
        template = "admin/webhooks/delivery/change_form.html"
        return self.show(request, template, _("Delivery"), context)


class WebhookAdmin(ReadOnlyAdmin):
    """Lists webhooks; a row leads to the webhook's own screen, where it is edited."""

    list_display = ("name", "status", "authorization", "address")
    search_fields = ("name", "url")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Webhook]:
        return (
            super()
            .get_queryset(request)
            .filter(deleted_at=None)
            .select_related("state", "credential__token")
            .defer(*SECRETS_OF_WEBHOOK)
        )

    @admin.display(description=_("URL"))
    def address(self, webhook: Webhook) -> SafeString:
        return format_html('<span class="mono small break">{}</span>', webhook.url)

    @admin.display(description=_("Authorization type"))
    def authorization(self, webhook: Webhook) -> str:
        return webhook.credential.get_authorization_type_display()

    @admin.display(description=_("Status"))
    def status(self, webhook: Webhook) -> SafeString:
        status = status_of(webhook)
        return format_html(
            '<span class="badge has-dot is-{}" title="{}">{}</span>',
            status["kind"],
            status["full_sentence"],
            status["label"],
        )

    def change_view(
        self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        pk = whole_number(object_id)
        webhook = get_object_or_404(self.get_queryset(request), pk=pk)
        return redirect("webhooks:detail", webhook.pk)


class OAuthExchangeAdmin(ReadOnlyAdmin):
    """Every exchange with an authorization server, redacted when it was written."""

    list_display = ("started", "outcome", "webhook_name", "kind", "response_code", "took", "said")
    list_display_links = ("started",)
    list_select_related = ("credential__webhook",)
    search_fields = ("id",)
    search_help_text = _("Part of the webhook's name")
    fields = (
        "webhook_name", "kind", "started", "took", "outcome", "said", "url", "response_code",
        "request_text", "response_text",
    )  # fmt: skip
    readonly_fields = fields

    def get_queryset(self, request: HttpRequest) -> QuerySet[OAuthExchange]:
        secrets = [f"credential__{name}" for name in CREDENTIAL_SECRETS]
        secrets += [f"credential__webhook__{name}" for name in WEBHOOK_SECRETS]
        found = super().get_queryset(request).select_related("credential__webhook")
        return found.defer(*secrets)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[OAuthExchange], search_term: str
    ) -> tuple[QuerySet[OAuthExchange], bool]:
        words = search_term.strip()
        named = Credential.objects.filter(
            Q(name__icontains=words) | Q(webhook__name__icontains=words)
        )
        return (queryset.filter(credential__in=named) if words else queryset), False

    @admin.display(description=_("Time"))
    def started(self, exchange: OAuthExchange) -> SafeString | str:
        return ago(exchange.started_at)

    @admin.display(description=_("Webhook"))
    def webhook_name(self, exchange: OAuthExchange) -> str:
        return str(exchange.credential.subject.name)

    @admin.display(description=_("Response"), empty_value="–")
    def response_code(self, exchange: OAuthExchange) -> SafeString | str:
        return code_badge(exchange.status_code)

    @admin.display(description=_("Result"), empty_value="–")
    def outcome(self, exchange: OAuthExchange) -> SafeString | str:
        return logtext.result_badge(exchange)

    @admin.display(description=_("Duration"))
    def took(self, exchange: OAuthExchange) -> str:
        return logtext.took(exchange)

    @admin.display(description=_("Message"), empty_value="–")
    def said(self, exchange: OAuthExchange) -> str:
        return oauth.sentence(exchange.message)

    @admin.display(description=_("Request"), empty_value="–")
    def request_text(self, exchange: OAuthExchange) -> SafeString:
        return format_html('<pre class="code">{}</pre>', visible(exchange.request))

    @admin.display(description=_("Response"), empty_value="–")
    def response_text(self, exchange: OAuthExchange) -> SafeString:
        return format_html('<pre class="code">{}</pre>', visible(exchange.response))


class WebhookFilter(LogFilter):
    title = _("Webhook")
    parameter_name = "webhook"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return webhook_choices(request.GET.get(self.parameter_name, ""))

    def narrow(self, queryset: QuerySet[AuditEntry], value: str) -> QuerySet[AuditEntry]:
        if not (webhook_id := whole_number(value)):
            raise IncorrectLookupParameters(value)
        return queryset.filter(webhook=webhook_id)


class ActionFilter(LogFilter):
    title = _("Action")
    parameter_name = "action"
    column = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return Action.choices


class KindFilter(LogFilter):
    title = _("Kind")
    parameter_name = "kind"
    column = "object_type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return logtext.KINDS.items()


class ActorFilter(LogFilter):
    title = _("Done by")
    parameter_name = "by"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return [("people", _("People")), ("system", _("The system"))]

    def narrow(self, queryset: QuerySet[AuditEntry], value: str) -> QuerySet[AuditEntry]:
        return queryset.filter(username="") if value == "system" else queryset.exclude(username="")


class AuditEntryAdmin(ReadOnlyAdmin):
    empty_value_display = "–"
    list_display = ("time", "what", "object_name", "kind", "who", "field_names", "said")
    list_display_links = ("time",)
    list_filter = (ActionFilter, KindFilter, WebhookFilter, ActorFilter)
    search_fields = ("id",)
    search_help_text = _("Login, name, or id of a webhook, delivery or key")
    fields = (
        "time", "who", "what", "kind", "object_name", "object_id", "field_names", "said",
    )  # fmt: skip
    readonly_fields = fields

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[AuditEntry], search_term: str
    ) -> tuple[QuerySet[AuditEntry], bool]:
        """Search for a whole login, name or id; the newest page is read through the primary key."""
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
