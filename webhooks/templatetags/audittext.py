"""What an entry of the audit trail says: words for its fields and for what it is about."""

from django import template
from django.core.exceptions import FieldDoesNotExist
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.models import AUTHORIZATION_FIELDS, AuditEntry, Credential, Webhook

register = template.Library()

KINDS = {
    "webhook": gettext_lazy("Webhook"),
    "connection": gettext_lazy("Connection"),
    "apikey": gettext_lazy("API key"),
    "delivery": gettext_lazy("Delivery"),
    "replay": gettext_lazy("Replay"),
    "user": gettext_lazy("Account"),
    "group": gettext_lazy("Group"),
}
# Fields without a label of their own, as people know them.
_LABELS = {
    "filter": gettext_lazy("Filter"),
    "connection": gettext_lazy("Connection"),
    "retry_schedule_seconds": gettext_lazy("Retry schedule"),
}


@register.filter
def field_labels(entry: AuditEntry) -> str:
    """Name the changed fields as the form does."""
    return ", ".join(_label(str(name)) for name in entry.fields)


@register.filter
def person(entry: AuditEntry) -> str:
    return entry.username or _("The system")


@register.filter
def kind(entry: AuditEntry) -> str:
    """Say what sort of thing an entry is about."""
    return str(KINDS.get(entry.object_type, entry.object_type))


def _label(name: str) -> str:
    if name in _LABELS:
        return str(_LABELS[name])
    model = Credential if name in AUTHORIZATION_FIELDS or name == "allowed_hosts" else Webhook
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return name
    return str(getattr(field, "verbose_name", name))
