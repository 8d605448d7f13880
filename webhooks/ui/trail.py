"""The audit trail on pages: newest entries, all entries, and edit conflicts.

A form carries the id of the newest entry that its values include; changes that others saved since
are shown before they are overwritten.
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
# Pausing is guarded by `initial-is_active`; other actions change nothing that the form writes.
_OVERWRITTEN = (Action.CHANGED, Action.IMPORTED, Action.REVERTED)
_MAX_CONFLICTS = 10


def audit_trail(subject: Webhook | Credential) -> dict[str, Any]:
    """Return the context of `ui/_audit_trail.html`: the newest entries and the URL of all entries.

    The view has checked that the user may see the webhook or connection.
    """
    name = "webhooks:audit" if isinstance(subject, Webhook) else "webhooks:connection_audit"
    return {
        "audit_entries": audit.trail_of(type(subject), subject.pk)[:SHOWN],
        "audit_url": reverse(name, args=[subject.pk]),
    }


# Labels of settings that no model field provides.
_LABELS = {
    "connection": gettext_lazy("Connection"),
    "filter": gettext_lazy("Filter"),
    "headers": gettext_lazy("Custom headers"),
    "retry_schedule_seconds": gettext_lazy("Retry schedule"),
}


def field_label(name: str) -> str:
    """Return the form's label of a setting of a webhook, its credential or a connection."""
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
    """Show a page of entries, newest first; the next page starts below the last id shown."""
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
        # The newest version is the current state of the webhook.
        "newest_version": max((one.pk for one in shown if hasattr(one, "version")), default=0)
        if not before
        else 0,
        "is_first_page": not before,
        "older_than": shown[-1].pk if len(found) > len(shown) else None,
    }
    return render(request, "webhooks/ui/audit.html", context)


# ---- Edit conflicts ----------------------------------------------------------------------------


def newest_entry(model: type[Webhook | Credential], pk: int) -> str:
    """Return the id of the newest entry, for the form to carry; call it before reading the row."""
    return str(audit.trail_of(model, pk).values_list("pk", flat=True).first() or 0)


def seen_entry(request: HttpRequest) -> str:
    """Return the entry id that a posted form carried, or "" if it is missing or malformed."""
    posted = request.POST.get("seen", "")
    return posted if re.fullmatch(RowIdConverter.regex, posted) else ""


def edit_conflicts(row: Webhook | Credential, seen: str) -> list[AuditEntry]:
    """Return the conflicting changes since entry `seen`, newest first; call with the row locked."""
    if not seen:
        return []
    since = audit.trail_of(type(row), row.pk).filter(pk__gt=seen, action__in=_OVERWRITTEN)
    return list(since[:_MAX_CONFLICTS])
