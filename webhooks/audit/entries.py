"""Writes the audit trail: who changed what and when. Names of fields, never their values.

The note of an entry is a code with parameters (`note`), or a plain value such as an id; `sentence`
renders it in the reader's language. `webhooks.models.audit` has the rows and makes them
append-only. The caller has checked the permission.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext_lazy

from webhooks.audit import versions
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    Action,
    AuditEntry,
    Credential,
    Delivery,
    PauseReason,
    Resend,
    ResendScope,
    TokenState,
    Webhook,
    messages,
)
from webhooks.security.encryption import Sealed, SecretField

logger = logging.getLogger(__name__)

Person = AbstractBaseUser | AnonymousUser | None

# Columns that a save sets itself; they are not settings.
_NOT_SETTINGS = {
    "id",
    "version",
    "created_at",
    "updated_at",
    "secrets_changed_at",
    "secret_origins",
}
# Actions that change a webhook's settings, so that a version is stored.
_KEPT = (Action.CREATED, Action.CHANGED, Action.IMPORTED, Action.REVERTED)
# Lengths of the columns.
_MAX_NAME, _MAX_NOTE, _MAX_USERNAME = 100, 300, 150


def _label(choices: type[models.TextChoices]) -> Callable[..., str]:
    return lambda value: str(choices(value).label)


SENTENCES: Mapping[str, messages.Sentence] = {
    "deliveries": ngettext_lazy("%(count)d delivery", "%(count)d deliveries", "count"),
    "resend_scope": _label(ResendScope),
    # Why the product paused a webhook, and the new state of its token.
    "pause_reason": _label(PauseReason),
    "token_state": _label(TokenState),
    # How a webhook was resumed, and what happened to its deliveries on hold.
    "resumed": _("“%(name)s” is active again."),
    "resumed_and_sent": ngettext_lazy(
        "“%(name)s” is active again. %(count)d delivery on hold is sent now.",
        "“%(name)s” is active again. %(count)d deliveries on hold are sent now.",
        "count",
    ),
    "resumed_and_cancelled": ngettext_lazy(
        "“%(name)s” is active again. %(count)d delivery on hold was cancelled.",
        "“%(name)s” is active again. %(count)d deliveries on hold were cancelled.",
        "count",
    ),
    # The sweep moves those that a request does not: their number is not known.
    "resumed_and_sent_many": _(
        "“%(name)s” is active again. At least %(count)d deliveries on hold are sent now."
    ),
    "resumed_and_cancelled_many": _(
        "“%(name)s” is active again. At least %(count)d deliveries on hold were cancelled."
    ),
    "held_dropped": _("Deliveries on hold were cancelled."),
    # What a new row was created from.
    "copy_of": _("Copy of “%(name)s”"),
    "from_credentials_of": _("From the credentials of “%(name)s”"),
    "test_mail": _("Test email to recipients"),
    # The format of an export of deliveries.
    "csv": "CSV",
    "csv_with_payloads": _("CSV with payloads"),
}


def note(code: str, /, **params: str | int) -> str:
    """Return a note as it is stored: a code of SENTENCES with its parameters."""
    return messages.dump(code, **params)


def sentence(note: str) -> str:
    """Return the note of an entry in the active language."""
    return messages.render(note, SENTENCES)


def record(
    action: Action,
    obj: models.Model | None,
    *,
    user: Person,
    fields: Iterable[str] = (),
    note: str = "",
    object_type: str = "",
) -> None:
    """Add one entry in the current transaction. `user` is None for a change by the product.

    An entry about a delivery, a resend or a webhook's own credential belongs to the webhook's
    trail. `object_type` names the subject of an entry without a row.
    """
    entry = _entry(action, obj, user=user, fields=fields, note=note)
    entry.object_type = object_type or entry.object_type
    entry.save(force_insert=True)
    if action in _KEPT and isinstance(obj, Webhook):
        versions.store_versions([entry], [obj])
    _log(entry)


def record_many(
    action: Action,
    subjects: Iterable[models.Model],
    *,
    user: Person,
    note: str = "",
) -> None:
    """Add the same entry for each of many rows, with one statement per 500."""
    found = list(subjects)
    entries = [_entry(action, obj, user=user, fields=(), note=note) for obj in found]
    AuditEntry.objects.bulk_create(entries, batch_size=500)
    if action in _KEPT:
        versions.store_versions(entries, [obj for obj in found if isinstance(obj, Webhook)])
    for entry in entries:
        _log(entry)


def record_deliveries(action: Action, deliveries: Iterable[Delivery], *, user: Person) -> None:
    """Add one entry for a single delivery; for several, one per webhook with their number."""
    rows = list(deliveries)
    if len(rows) == 1:
        record(action, rows[0], user=user)
        return
    counts = Counter(row.webhook_id for row in rows)
    for webhook in Webhook.objects.filter(pk__in=counts).order_by("pk"):
        record(action, webhook, user=user, note=note("deliveries", count=counts[webhook.pk]))


def trail_of(model: type[models.Model], pk: int) -> "models.QuerySet[AuditEntry]":
    """Return the entries on the page of a webhook or of a connection, newest first."""
    if model is Webhook:
        found = AuditEntry.objects.filter(webhook=pk)
    else:
        found = AuditEntry.objects.filter(object_type="connection", object_id=str(pk))
    return found.order_by("-pk")


def snapshot(row: models.Model) -> dict[str, Any]:
    """Return the values of a row, to compare after a change; never the plain text of a secret.

    For a webhook also the values of its own credential, and the connection that it uses.
    """
    kept = _columns(row)
    if isinstance(row, Webhook):
        own = _columns(row.private_credential)
        kept |= {name: own[name] for name in AUTHORIZATION_FIELDS}
        del kept["credential"]
        kept["connection"] = row.credential_id if row.credential.is_shared else None
    return kept


def _columns(row: models.Model) -> dict[str, Any]:
    kept = {}
    for field in row._meta.concrete_fields:
        value = row.__dict__.get(field.attname)
        if isinstance(field, SecretField) and not isinstance(value, Sealed):
            # A plain-text secret that was set after the row was read.
            value = bool(value)
        if field.name not in _NOT_SETTINGS:
            kept[field.name] = value
    return kept


def changed_fields(before: dict[str, Any], row: models.Model) -> list[str]:
    """Return the sorted names of the fields that differ from a snapshot."""
    after = snapshot(row)
    return sorted(name for name, value in after.items() if before.get(name) != value)


def _entry(
    action: Action, obj: models.Model | None, *, user: Person, fields: Iterable[str], note: str
) -> AuditEntry:
    if isinstance(obj, Credential):
        obj = obj.subject
    # The row that gives the entry its name and shows it on its page.
    about = obj.webhook if isinstance(obj, Delivery | Resend) else obj
    kind = "" if obj is None else str(obj._meta.model_name)
    person = user if isinstance(user, AbstractBaseUser) and user.pk is not None else None
    return AuditEntry(
        user_id=person.pk if person else None,
        username=person.get_username()[:_MAX_USERNAME] if person else "",
        action=action,
        object_type="connection" if isinstance(obj, Credential) else kind,
        object_id=str(obj.pk) if obj is not None else "",
        object_name=str(about or "")[:_MAX_NAME],
        webhook_id=about.pk if isinstance(about, Webhook) else None,
        fields=sorted(set(fields)),
        note=messages.cut(note, _MAX_NOTE),
    )


def _log(entry: AuditEntry) -> None:
    """Write the entry to the log, without names that people chose."""
    logger.info(
        "audit action=%s object=%s/%s user=%s",
        entry.action,
        entry.object_type,
        entry.object_id,
        entry.user_id or "-",
    )
