"""The trash: recently deleted webhooks, until their secrets are erased."""

from datetime import timedelta

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _

from webhooks import audit, catalogue, events
from webhooks.delivery import trash
from webhooks.models import WEBHOOK_SECRETS, Action, Webhook
from webhooks.ui import event_limit
from webhooks.ui.requests import button, page, redirect_back
from webhooks.ui.status import SECRETS_OF_WEBHOOK

_PER_PAGE = 50


class EventLimitError(ValueError):
    """An event type has no room for one more webhook; str() is a sentence that says so."""


@page("webhooks.view_webhook")
def list_trash(request: HttpRequest) -> HttpResponse:
    found = Webhook.objects.trashed().defer(*WEBHOOK_SECRETS).order_by("-deleted_at", "pk")
    shown = Paginator(found, _PER_PAGE).get_page(request.GET.get("page"))
    rows = [(one, one.deleted_at + timedelta(days=trash.KEPT_DAYS)) for one in shown]  # type: ignore[operator]
    context = {"rows": rows, "page": shown, "kept_days": trash.KEPT_DAYS}
    return render(request, "webhooks/trash/list.html", context)


@button("webhooks.delete_webhook")
def restore(request: HttpRequest, pk: int) -> HttpResponse:
    try:
        webhook = restored(request, pk)
    except EventLimitError as error:
        messages.error(request, str(error))
        return redirect("webhooks:trash")
    if webhook is None:
        raise Http404
    if webhook.is_active:
        messages.success(request, _("“%s” is restored and active.") % webhook)
    else:
        messages.success(request, _("“%s” is restored. It is paused.") % webhook)
    return redirect_back(request, "webhooks:detail", pk)


def restored(request: HttpRequest, pk: int) -> Webhook | None:
    """Restore a webhook; return None if it is not in the trash. Raises EventLimitError."""
    trashed = Webhook.objects.trashed().select_related("credential").defer(*SECRETS_OF_WEBHOOK)
    before = trashed.filter(pk=pk).first()
    if before is None:
        return None
    types = catalogue.types_for(before.event_types)
    if full := event_limit.exceeded(types, event_limit.count_webhooks()):
        sentence = _(
            "Not restored: %(types)s already has %(limit)d webhooks, the limit for one event "
            "type. Delete one first."
        )
        raise EventLimitError(sentence % full)
    webhook = events.restore(pk)
    if webhook is None:
        return None
    audit.record(Action.RESTORED, webhook, user=request.user)
    if webhook.credential_id != before.credential_id:
        sentence = _(
            "The connection “%(connection)s” was deleted. Choose other credentials for "
            "“%(webhook)s” before you resume it."
        )
        names = {"connection": before.credential.name, "webhook": webhook.name}
        messages.warning(request, sentence % names)
    return webhook


@button("webhooks.delete_webhook")
def purge(request: HttpRequest, pk: int) -> HttpResponse:
    webhook = get_object_or_404(Webhook.objects.trashed(), pk=pk)
    if not events.purge(webhook):
        raise Http404
    audit.record(Action.PURGED, webhook, user=request.user)
    messages.success(request, _("“%s” was permanently deleted.") % webhook)
    return redirect("webhooks:trash")
