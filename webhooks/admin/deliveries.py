"""The delivery log: a row per delivery, a page with its attempts, what can be done with it."""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST

from webhooks import audit, events
from webhooks.admin import filters
from webhooks.admin.readonly import ReadOnlyAdmin, key_of
from webhooks.delivery import backlog
from webhooks.delivery_log import detail
from webhooks.delivery_log import query as log_query
from webhooks.models import Action, Delivery, Status, Webhook
from webhooks.templatetags.interface import ago, code_badge, status_badge

# How many events of one call a search follows.
# More than one page cannot be chosen; a forged request cannot choose the whole log.
_MAX_CHOSEN = 1000


class DeliveryAdmin(ReadOnlyAdmin):
    list_display = ("created", "state", "webhook_name", "type", "response", "attempts", "next")
    list_display_links = ("created",)
    list_filter = (
        filters.StatusFilter,
        filters.WebhookFilter,
        filters.TypeFilter,
        filters.CodeFilter,
        filters.TriggerFilter,
        filters.PeriodFilter,
        filters.UntilFilter,
    )
    list_select_related = ("event", "webhook")
    search_fields = ("id",)
    search_help_text = gettext_lazy("Event, delivery or call id, or part of the webhook's URL")
    actions = ("redeliver_chosen", "send_chosen_now", "cancel_chosen")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        # No payload and no ciphertext travels for a list.
        return super().get_queryset(request).defer(*log_query.LEFT_OUT)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Delivery], search_term: str
    ) -> tuple[QuerySet[Delivery], bool]:
        """Find by whole id, which an index answers, or by the URL of the few webhooks."""
        words = search_term.strip()
        if not words:
            return queryset, False
        found = log_query.search(queryset, words)
        if words.startswith(("dlv_", "evt_")):
            return found, False
        webhooks = list(Webhook.objects.filter(url__icontains=words).values_list("pk", flat=True))
        return found | queryset.filter(webhook__in=webhooks), False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"backlog": backlog.report()} if request.method == "GET" else {}
        return super().changelist_view(request, {**context, **(extra_context or {})})

    # Columns

    @admin.display(description=gettext_lazy("Created"))
    def created(self, delivery: Delivery) -> SafeString | str:
        return ago(delivery.created_at)

    @admin.display(description=gettext_lazy("Status"))
    def state(self, delivery: Delivery) -> SafeString:
        if delivery.trigger == "event":
            return status_badge(delivery)
        return format_html(
            '{} <span class="faint small nowrap">{}</span>',
            status_badge(delivery),
            delivery.get_trigger_display(),
        )

    @admin.display(description=gettext_lazy("Webhook"))
    def webhook_name(self, delivery: Delivery) -> str:
        return delivery.webhook.name

    @admin.display(description=gettext_lazy("Event type"))
    def type(self, delivery: Delivery) -> SafeString:
        return format_html('<span class="mono small">{}</span>', delivery.event.type)

    @admin.display(description=gettext_lazy("Response"), empty_value="–")
    def response(self, delivery: Delivery) -> SafeString | str:
        if delivery.status_code:
            return code_badge(delivery.status_code)
        reason = delivery.get_outcome_display() or delivery.get_hold_reason_display()
        return format_html('<span class="muted small">{}</span>', reason) if reason else ""

    @admin.display(description=gettext_lazy("Attempts"))
    def attempts(self, delivery: Delivery) -> int:
        return delivery.attempt_count

    @admin.display(description=gettext_lazy("Next attempt"), empty_value="–")
    def next(self, delivery: Delivery) -> SafeString | str:
        return ago(delivery.next_attempt_at) if delivery.status == Status.PENDING else ""

    # The page of one delivery

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        delivery = self._get(object_id)
        may_see = request.user.has_perm("webhooks.view_payload")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": _("Delivery"),
            **detail.context_of(
                delivery,
                may_see_payload=may_see,
                wanted=request.GET.get("attempt", ""),
                against=request.GET.get("against", ""),
            ),
            **self._links(request, delivery, may_see_payload=may_see),
        }
        return TemplateResponse(request, "admin/webhooks/delivery/change_form.html", context)

    def _links(
        self, request: HttpRequest, delivery: Delivery, *, may_see_payload: bool
    ) -> dict[str, str]:
        """Return where the page's buttons lead; empty for those this person does not have."""

        def of(step: str) -> str:
            return reverse(f"admin:webhooks_delivery_{step}", args=[delivery.pk])

        may_send = self.has_send_permission(request) and delivery.webhook.deleted_at is None
        own = reverse("webhooks:delivery_edit", args=[delivery.pk])
        event = reverse("admin:webhooks_event_change", args=[delivery.event_id])
        return {
            "log_url": reverse("admin:webhooks_delivery_changelist"),
            "page_url": of("change"),
            "event_url": event if request.user.has_perm("webhooks.view_event") else "",
            "redeliver_url": of("redeliver") if may_send else "",
            "send_now_url": of("send_now") if may_send else "",
            "edit_url": own if may_send and may_see_payload else "",
            "cancel_url": of("cancel") if self.has_cancel_permission(request) else "",
            "bodies_url": of("change") if may_see_payload else "",
        }

    def _get(self, object_id: str) -> Delivery:
        delivery = log_query.get(key_of(object_id))
        if delivery is None:
            raise Http404
        return delivery

    # What can be done

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.test_webhook")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("webhooks.change_webhook")

    def get_urls(self) -> list[URLPattern]:
        steps: dict[str, Callable[..., HttpResponse]] = {
            "redeliver": self.redeliver_view,
            "send-now": self.send_now_view,
            "cancel": self.cancel_view,
        }
        own = [
            path(
                f"<path:object_id>/{step}/",
                self.admin_site.admin_view(require_POST(view)),
                name=f"webhooks_delivery_{step.replace('-', '_')}",
            )
            for step, view in steps.items()
        ]
        return own + super().get_urls()

    def redeliver_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        delivery = self._allowed(request, object_id, self.has_send_permission(request))
        if self._act(request, Action.REDELIVERED, events.redeliver, [delivery]):
            messages.success(request, _("The event is sent again; this is the new delivery."))
            same = Delivery.objects.filter(event=delivery.event_id, webhook=delivery.webhook_id)
            delivery = same.order_by("-id")[0]
        else:
            messages.error(request, _("The webhook was deleted, so nothing can be sent to it."))
        return redirect(_page_of(delivery))

    def send_now_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        delivery = self._allowed(request, object_id, self.has_send_permission(request))
        if self._act(request, Action.SENT_NOW, events.send_now, [delivery]):
            messages.success(request, _("The next attempt starts now."))
        else:
            messages.warning(request, _("This delivery no longer waits."))
        return redirect(_page_of(delivery))

    def cancel_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        delivery = self._allowed(request, object_id, self.has_cancel_permission(request))
        if self._act(request, Action.CANCELLED, events.cancel, [delivery]):
            messages.success(request, _("The delivery is cancelled."))
        else:
            messages.warning(request, _("This delivery no longer waits."))
        return redirect(_page_of(delivery))

    def _allowed(self, request: HttpRequest, object_id: str, may_act: bool) -> Delivery:
        if not may_act or not self.has_view_permission(request):
            raise PermissionDenied
        return self._get(object_id)

    @admin.action(description=gettext_lazy("Redeliver"), permissions=["send"])
    def redeliver_chosen(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> None:
        count = self._act(request, Action.REDELIVERED, events.redeliver, _plain(chosen))
        text = ngettext("%d event is sent again.", "%d events are sent again.", count)
        messages.success(request, text % count)

    @admin.action(description=gettext_lazy("Send now"), permissions=["send"])
    def send_chosen_now(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> None:
        count = self._act(request, Action.SENT_NOW, events.send_now, _plain(chosen))
        text = ngettext("%d delivery is sent now.", "%d deliveries are sent now.", count)
        messages.success(request, text % count)

    @admin.action(description=gettext_lazy("Cancel"), permissions=["cancel"])
    def cancel_chosen(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> None:
        count = self._act(request, Action.CANCELLED, events.cancel, _plain(chosen))
        text = ngettext("%d delivery is cancelled.", "%d deliveries are cancelled.", count)
        messages.success(request, text % count)

    def _act(
        self,
        request: HttpRequest,
        action: Action,
        act: Callable[[QuerySet[Delivery]], int],
        chosen: Iterable[Delivery],
    ) -> int:
        """Do something with deliveries and write down who did; return how many it concerned."""
        rows = list(chosen)
        with transaction.atomic():
            count = act(Delivery.objects.filter(pk__in=[row.pk for row in rows]))
            if count:
                audit.record_deliveries(action, rows, user=request.user)
        return count


def _plain(chosen: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Return the chosen rows without the joins and deferred columns of the list."""
    return Delivery.objects.filter(pk__in=list(chosen.values_list("pk", flat=True)[:_MAX_CHOSEN]))


def _page_of(delivery: Delivery) -> str:
    return reverse("admin:webhooks_delivery_change", args=[delivery.pk])
