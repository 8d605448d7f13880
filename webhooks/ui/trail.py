"""The audit trail on pages: the newest entries, all of them, and edit conflicts found by it.

A form carries the id of the newest entry that its values include; what others saved since is shown
before it is overwritten.
"""

import re
from typing import Any

from django.contrib.auth.decorators import permission_required
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from webhooks.models import Action, AuditEntry, Webhook

SHOWN = 20
ENTRIES_PER_PAGE = 50
# Pausing has its own guard, initial-is_active; the rest changes nothing that the form writes.
_OVERWRITTEN = (Action.CHANGED, Action.IMPORTED)
_MAX_CONFLICTS = 10


def audit_trail(webhook: Webhook) -> dict[str, Any]:
    """Return the context of `ui/_audit_trail.html`: the newest entries and the rest's page.

    For a webhook or a connection; the view has asked whether the person may look at it.
    """
    name = "webhooks:connection_audit" if webhook.is_connection else "webhooks:audit"
    return {
        "audit_entries": _entries(webhook)[:SHOWN],
        "audit_url": reverse(name, args=[webhook.pk]),
    }


@require_safe
@never_cache
@permission_required("webhooks.view_webhook", raise_exception=True)
def of_webhook(request: HttpRequest, pk: int) -> HttpResponse:
    return _show(request, get_object_or_404(Webhook.objects.present(), pk=pk))


@require_safe
@never_cache
@permission_required("webhooks.view_connection", raise_exception=True)
def of_connection(request: HttpRequest, pk: int) -> HttpResponse:
    return _show(request, get_object_or_404(Webhook.objects.connections(), pk=pk))


def _show(request: HttpRequest, webhook: Webhook) -> HttpResponse:
    """Show a page of entries, newest first; the next one begins below the last id shown."""
    entries = _entries(webhook)
    before = request.GET.get("before", "")
    if re.fullmatch("[0-9]{1,18}", before):
        entries = entries.filter(pk__lt=before)
    found = list(entries[: ENTRIES_PER_PAGE + 1])
    shown = found[:ENTRIES_PER_PAGE]
    context = {
        "webhook": webhook,
        "entries": shown,
        "is_first_page": not before,
        "older_than": shown[-1].pk if len(found) > len(shown) else None,
    }
    return render(request, "webhooks/ui/audit.html", context)


def _entries(webhook: Webhook) -> QuerySet[AuditEntry]:
    return AuditEntry.objects.filter(webhook=webhook.pk).order_by("-pk")


# ---- Edit conflicts ----------------------------------------------------------------------------


def newest_entry(pk: int) -> str:
    """Return what the form of a webhook or connection carries; ask before its row is read."""
    entries = AuditEntry.objects.filter(webhook=pk).order_by("-pk")
    return str(entries.values_list("pk", flat=True).first() or 0)


def seen_entry(request: HttpRequest) -> str:
    """Return what a posted form carried, or an empty text when it carried nothing sensible."""
    posted = request.POST.get("seen", "")
    return posted if re.fullmatch("[0-9]{1,18}", posted) else ""


def edit_conflicts(webhook: Webhook, seen: str) -> list[AuditEntry]:
    """Return what was changed since, newest first; call it with the row locked."""
    if not seen:
        return []
    since = AuditEntry.objects.filter(webhook=webhook.pk, pk__gt=seen, action__in=_OVERWRITTEN)
    return list(since.order_by("-pk")[:_MAX_CONFLICTS])
