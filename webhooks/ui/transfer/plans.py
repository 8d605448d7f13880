"""Plan what an import would do for each webhook, and carry it out completely or not at all.

Every entry goes through the form that people use, so a file can set only what a person could.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from webhooks import catalogue, network
from webhooks.models import Webhook
from webhooks.security.encryption import SecretUnreadableError
from webhooks.ui.trail import field_label
from webhooks.ui.transfer.document import FileError, key_errors, listed_secrets, missing_secrets
from webhooks.ui.transfer.forms import URL_FIELDS, ImportForm, equals_export, values_of

# Limit for resolving all host names of a file.
LOOKUP_SECONDS = 10.0


class Change(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    SAME = "same"
    REFUSED = "refused"


@dataclass(slots=True, kw_only=True)
class PlannedEntry:
    """The plan for one entry; `number` is its position in the file, from 0."""

    number: int
    name: str
    kind: Change
    url: str = ""
    # The row to change; None for a new webhook.
    webhook: Webhook | None = None
    # Labels of the settings that change.
    changes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    # Secrets that the webhook had according to the file.
    secrets: frozenset[str] = frozenset()
    form: ImportForm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    items: list[PlannedEntry]

    def of(self, kind: Change) -> list[PlannedEntry]:
        return [item for item in self.items if item.kind == kind]

    @property
    def doable(self) -> list[PlannedEntry]:
        return [item for item in self.items if item.kind in (Change.CREATE, Change.CHANGE)]

    @property
    def has_mistakes(self) -> bool:
        return bool(self.of(Change.REFUSED))


class _EntryError(FileError):
    """An entry cannot be imported; the arguments are sentences with the reasons."""


def make_plan(entries: Sequence[Any], *, may: Callable[[str], bool], is_paused: bool) -> ImportPlan:
    """Validate every entry without writing. `may` checks a permission; with `is_paused` new
    webhooks start paused.
    """
    planner = _Planner(may=may, is_paused=is_paused)
    with network.looked_up(_addresses(entries), seconds=LOOKUP_SECONDS):
        return ImportPlan(items=planner.plan(entries))


def _addresses(entries: Sequence[Any]) -> list[str]:
    """Return every URL whose host the form of an entry resolves."""
    rows = [entry for entry in entries if isinstance(entry, dict)]
    found = [row.get(name) for row in rows for name in URL_FIELDS]
    return [one for one in found if isinstance(one, str)]


def carry_out(
    plan: ImportPlan, numbers: Collection[int], *, created_by_id: int | None
) -> list[PlannedEntry]:
    """Write the chosen entries in one transaction; return them with their rows."""
    done = [item for item in plan.doable if item.number in numbers]
    with transaction.atomic():
        for item in done:
            assert item.form is not None
            if item.kind == Change.CREATE:
                item.form.instance.created_by_id = created_by_id
            item.webhook = item.form.save()
            item.missing = missing_secrets(item.webhook, item.secrets)
    return done


class _Planner:
    """Validates entries against the webhooks of this site and the preceding entries."""

    def __init__(self, *, may: Callable[[str], bool], is_paused: bool) -> None:
        self._may = may
        self._is_paused = is_paused
        # How many webhooks subscribe to each event type.
        self._counts: Counter[str] = Counter()
        self._by_uid: dict[str, int] = {}
        self._by_name: dict[str, list[int]] = {}
        self._seen: set[int | str] = set()
        rows = Webhook.objects.present().values_list("pk", "uid", "name", "event_types")
        for pk, uid, name, patterns in rows:
            self._counts.update(catalogue.types_for(patterns))
            self._by_uid[uid] = pk
            self._by_name.setdefault(name.strip().lower(), []).append(pk)

    def plan(self, entries: Sequence[Any]) -> list[PlannedEntry]:
        found = [self._row_or_error(entry) for entry in entries]
        stored = Webhook.objects.present().select_related("credential")
        rows = stored.in_bulk([one for one in found if isinstance(one, int)])
        return [
            self._planned(number, entry, one, rows)
            for number, (entry, one) in enumerate(zip(entries, found, strict=True))
        ]

    def _row_or_error(self, entry: Any) -> int | _EntryError | None:
        try:
            return self._row(entry)
        except _EntryError as error:
            return error

    def _planned(
        self, number: int, entry: Any, found: int | _EntryError | None, rows: Mapping[int, Webhook]
    ) -> PlannedEntry:
        try:
            if isinstance(found, _EntryError):
                raise found
            return self._judged(number, entry, None if found is None else rows[found])
        except _EntryError as error:
            name = str(entry.get("name") or "")[:100] if isinstance(entry, dict) else ""
            return PlannedEntry(
                number=number,
                name=name or _("Entry %d") % (number + 1),
                kind=Change.REFUSED,
                errors=list(error.args),
            )

    def _row(self, entry: Any) -> int | None:
        """Return the key of the row that an entry changes, None if new. Raises _EntryError."""
        if not isinstance(entry, dict):
            raise _EntryError(_("This is a single value, not a webhook."))
        if errors := key_errors(entry):
            raise _EntryError(*errors)
        pk = self._find(entry)
        # New webhooks may have one name, but then they have uids.
        new_key: str = entry.get("uid") or entry["name"].strip().lower()
        key: int | str = new_key if pk is None else pk
        if key in self._seen:
            raise _EntryError(_("An entry above is the same webhook. Keep one of them."))
        self._seen.add(key)
        if pk is None and not self._may("webhooks.add_webhook"):
            raise _EntryError(_("You have no permission to create webhooks."))
        if pk is not None and not self._may("webhooks.change_webhook"):
            raise _EntryError(_("You have no permission to change it."))
        return pk

    def _find(self, entry: Mapping[str, Any]) -> int | None:
        """Return the key of an entry's row: by uid, else by its name if only one webhook has it."""
        if (pk := self._by_uid.get(entry.get("uid", ""))) is not None:
            return pk
        named = self._by_name.get(entry["name"].strip().lower(), [])
        if len(named) > 1:
            raise _EntryError(
                _("%d webhooks have this name here. Add the “uid” of the right one.") % len(named)
            )
        return named[0] if named else None

    def _judged(self, number: int, entry: dict[str, Any], row: Webhook | None) -> PlannedEntry:
        webhook = row or Webhook(**_free_uid(entry))
        try:
            before = values_of(webhook)
        except SecretUnreadableError as error:
            sentence = _(
                "Its headers are encrypted with another key. Enter them again in its form."
            )
            raise _EntryError(sentence) from error
        if row and equals_export(entry, row, before):
            # Most entries in a file of a whole site; validating each would take too long.
            return PlannedEntry(
                number=number, name=row.name, url=row.url, kind=Change.SAME, webhook=row
            )
        may_connect = self._may("webhooks.view_connection")
        form = ImportForm(entry, webhook=webhook, counts=self._counts, may_connect=may_connect)
        if row is None and self._is_paused:
            form.start_paused()
        if errors := form.sentences():
            raise _EntryError(*errors)
        self._counts.update(form.gained_types(webhook.event_types))
        after = values_of(webhook) if row else before
        changes = [field_label(key) for key, value in after.items() if before[key] != value]
        # Secrets that would go to another URL than they were entered for are missing too.
        secrets = listed_secrets(entry) | form.dropped
        return PlannedEntry(
            number=number,
            name=webhook.name or entry["name"],
            url=webhook.url,
            kind=Change.CREATE if row is None else Change.CHANGE if changes else Change.SAME,
            webhook=row,
            changes=changes,
            missing=missing_secrets(webhook, secrets),
            secrets=secrets,
            form=form,
        )


def _free_uid(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the entry's uid unless a deleted webhook of this site has it."""
    uid = entry.get("uid")
    is_free = uid and not Webhook.objects.filter(uid=uid).exists()
    return {"uid": uid} if uid and is_free else {}
