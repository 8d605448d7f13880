"""The audit trail on pages: the newest entries, all of them, and edit conflicts found by it.

A form carries the id of the newest entry that its values include; what others saved since is shown
before it is overwritten.
"""

import re
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy

from webhooks import audit
from webhooks.models import AUTHORIZATION_FIELDS, Action, AuditEntry, Credential, Webhook
from webhooks.ui.requests import RowIdConverter, page, whole_number

SHOWN = 20
ENTRIES_PER_PAGE = 50
# Pausing has its own guard, initial-is_active; the rest changes nothing that the form writes.
_OVERWRITTEN = (Action.CHANGED, Action.IMPORTED, Action.REVERTED)
_MAX_CONFLICTS = 10


def audit_trail(subject: Webhook | Credential) -> dict[str, Any]:
    """Return the context of `ui/_audit_trail.html`: the newest entries and the rest's page.

    For a webhook or a connection; the view has asked whether the person may look at it.
    """
    name = "webhooks:audit" if isinstance(subject, Webhook) else "webhooks:connection_audit"
    return {
        "audit_entries": audit.trail_of(type(subject), subject.pk)[:SHOWN],
        "audit_url": reverse(name, args=[subject.pk]),
    }


# Settings without a label of their own, as people know them.
_LABELS = {
    "connection": gettext_lazy("Connection"),
    "filter": gettext_lazy("Filter"),
    "headers": gettext_lazy("Custom headers"),
    "retry_schedule_seconds": gettext_lazy("Retry schedule"),
}


def field_label(name: str) -> str:
    """Return what the form calls a setting of a webhook, of its credential or of a connection."""
    if name in _LABELS:
        return str(_LABELS[name])
    model = Credential if name in AUTHORIZATION_FIELDS or name == "allowed_hosts" else Webhook
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return name
    return capfirst(str(getattr(field, "verbose_name", name)))


@page("webhooks.view_webhook")
def of_webhook(request: HttpRequest, pk: int) -> HttpResponse:
    return _show(request, get_object_or_404(Webhook.objects.present(), pk=pk))


@page("webhooks.view_connection")
def of_connection(request: HttpRequest, pk: int) -> HttpResponse:
    return _show(request, get_object_or_404(Credential.objects.shared(), pk=pk))


def _show(request: HttpRequest, subject: Webhook | Credential) -> HttpResponse:
    """Show a page of entries, newest first; the next one begins below the last id shown."""
    entries = audit.trail_of(type(subject), subject.pk)
    entries = entries.select_related("version").defer("version__settings")
    if before := whole_number(request.GET.get("before", "")):
        entries = entries.filter(pk__lt=before)
    found = list(entries[: ENTRIES_PER_PAGE + 1])
    shown = found[:ENTRIES_PER_PAGE]
    context = {
        "subject": subject,
        "is_connection": isinstance(subject, Credential),
        "entries": shown,
        # The newest is how the webhook is now.
        "newest_version": max((one.pk for one in shown if hasattr(one, "version")), default=0)
        if not before
        else 0,
        "is_first_page": not before,
        "older_than": shown[-1].pk if len(found) > len(shown) else None,
    }
    return render(request, "webhooks/ui/audit.html", context)


# ---- Edit conflicts ----------------------------------------------------------------------------


def newest_entry(model: type[Webhook | Credential], pk: int) -> str:
    """Return what the form of a webhook or connection carries; ask before its row is read."""
    return str(audit.trail_of(model, pk).values_list("pk", flat=True).first() or 0)


def seen_entry(request: HttpRequest) -> str:
    """Return what a posted form carried, or an empty text when it carried nothing sensible."""
    posted = request.POST.get("seen", "")
    return posted if re.fullmatch(RowIdConverter.regex, posted) else ""


def edit_conflicts(row: Webhook | Credential, seen: str) -> list[AuditEntry]:
    """Return what was changed since, newest first; call it with the row locked."""
    if not seen:
        return []
    since = audit.trail_of(type(row), row.pk).filter(pk__gt=seen, action__in=_OVERWRITTEN)
    return list(since[:_MAX_CONFLICTS])
