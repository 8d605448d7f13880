"""What others saved while somebody had the form open: told, and overwritten only knowingly.

A form carries the id of the newest entry of the audit trail that its values include.
"""

import re

from django.http import HttpRequest

from webhooks import audit
from webhooks.models import Action, AuditEntry, Credential, Webhook

# Pausing has its own guard, initial-is_active; the rest changes nothing that the form writes.
_OVERWRITTEN = (Action.CHANGED, Action.IMPORTED)
MAX_TOLD = 10


def newest(model: type[Webhook | Credential], pk: int) -> str:
    """Return what the form of a webhook or connection carries; ask before its row is read."""
    return str(audit.trail_of(model, pk).values_list("pk", flat=True).first() or 0)


def seen_by(request: HttpRequest) -> str:
    """Return what a posted form carried, or an empty text when it carried nothing sensible."""
    posted = request.POST.get("seen", "")
    return posted if re.fullmatch("[0-9]{1,18}", posted) else ""


def changes(row: Webhook | Credential, seen: str) -> list[AuditEntry]:
    """Return what was changed since, newest first; call it with the row locked."""
    if not seen:
        return []
    since = audit.trail_of(type(row), row.pk).filter(pk__gt=seen, action__in=_OVERWRITTEN)
    return list(since[:MAX_TOLD])
