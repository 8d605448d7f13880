"""Webhooks as a list that leads to their screen, and the flight recorder of OAuth exchanges."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import oauth
from webhooks.admin.readonly import ReadOnlyAdmin
from webhooks.models import CREDENTIAL_SECRETS, WEBHOOK_SECRETS, Credential, OAuthExchange, Webhook
from webhooks.templatetags.interface import ago, code_badge
from webhooks.templatetags.logtext import visible
from webhooks.ui.figures import milliseconds


class WebhookAdmin(ReadOnlyAdmin):
    """Nothing is edited here: the row leads to the webhook's own screen."""

    list_display = ("name", "address", "authorization", "status")
    search_fields = ("name", "url")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Webhook]:
        return (
            super()
            .get_queryset(request)
            .filter(deleted_at=None)
            .select_related("credential")
            .defer(*WEBHOOK_SECRETS, *(f"credential__{name}" for name in CREDENTIAL_SECRETS))
        )

    @admin.display(description=gettext_lazy("URL"))
    def address(self, webhook: Webhook) -> SafeString:
        return format_html('<span class="mono small break">{}</span>', webhook.url)

    @admin.display(description=gettext_lazy("Authorization type"))
    def authorization(self, webhook: Webhook) -> str:
        return webhook.credential.get_authorization_type_display()

    @admin.display(description=gettext_lazy("Status"))
    def status(self, webhook: Webhook) -> SafeString:
        css_class, label = (
            ("is-success", _("Active")) if webhook.is_active else ("is-neutral", _("Paused"))
        )
        return format_html('<span class="badge has-dot {}">{}</span>', css_class, label)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        pk = int(object_id) if object_id.isdecimal() else 0
        webhook = get_object_or_404(self.get_queryset(request), pk=pk)
        return redirect("webhooks:detail", webhook.pk)


class OAuthExchangeAdmin(ReadOnlyAdmin):
    """Every exchange with an authorization server, redacted when it was written."""

    list_display = ("started", "webhook_name", "kind", "result", "response_code", "took", "said")
    list_display_links = ("started",)
    list_select_related = ("credential__webhook",)
    search_fields = ("id",)
    search_help_text = gettext_lazy("Part of the webhook's name")
    fields = (
        "webhook_name", "kind", "started", "took", "result", "said", "url", "response_code",
        "request_text", "response_text",
    )  # fmt: skip

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return self.fields

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

    @admin.display(description=gettext_lazy("Time"))
    def started(self, exchange: OAuthExchange) -> SafeString | str:
        return ago(exchange.started_at)

    @admin.display(description=gettext_lazy("Webhook"))
    def webhook_name(self, exchange: OAuthExchange) -> str:
        return str(exchange.credential.subject.name)

    @admin.display(description=gettext_lazy("Response"), empty_value="–")
    def response_code(self, exchange: OAuthExchange) -> SafeString | str:
        return code_badge(exchange.status_code)

    @admin.display(description=gettext_lazy("Duration"))
    def took(self, exchange: OAuthExchange) -> str:
        return milliseconds(exchange.duration_ms)

    @admin.display(description=gettext_lazy("Message"), empty_value="–")
    def said(self, exchange: OAuthExchange) -> str:
        return oauth.sentence(exchange.message)

    @admin.display(description=gettext_lazy("Request"), empty_value="–")
    def request_text(self, exchange: OAuthExchange) -> SafeString:
        return format_html('<pre class="code">{}</pre>', visible(exchange.request))

    @admin.display(description=gettext_lazy("Response"), empty_value="–")
    def response_text(self, exchange: OAuthExchange) -> SafeString:
        return format_html('<pre class="code">{}</pre>', visible(exchange.response))
