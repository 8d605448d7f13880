"""Key rotation: encrypt every stored secret again with the first key.

Can be interrupted and restarted at any time: secrets under the first key are skipped, each batch is
one transaction, and a secret is replaced only if its old ciphertext is still there, so that
concurrent changes are not overwritten. Secrets that no key reads are reported and kept.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from django.apps import apps
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connections, models, transaction
from django.utils import timezone

from webhooks.security import drafts
from webhooks.security.encryption import Bound, Sealed, SecretField, SecretUnreadableError

# Tries for a row that changes concurrently, before it is left for the next run.
_TRIES = 3
DRAFTS = "django_session (typed, not yet saved)"


@dataclass(slots=True)
class Count:
    """Numbers of secrets in one column."""

    renewed: int = 0
    current: int = 0
    # Changed concurrently at every try.
    changed: int = 0
    # Places of secrets that none of the keys reads.
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """One run over a database; `counts` has the results so far, by column."""

    using: str
    batch_size: int
    writes: bool = True
    counts: dict[str, Count] = field(default_factory=dict)

    def run(self) -> Iterator[str]:
        """Re-encrypt everything; yield the progress of each batch after its commit."""
        for model in secret_models():
            rows = model._base_manager.using(self.using).order_by("pk")
            yield from self._batches(rows, self._renew_row)
        sessions = Session.objects.using(self.using).filter(expire_date__gt=timezone.now())
        sessions = sessions.order_by("pk")
        yield from self._batches(sessions, self._renew_drafts)

    @property
    def unreadable(self) -> list[str]:
        """Return the stored secrets that no key reads; unreadable drafts count as never typed."""
        stored = [count for column, count in self.counts.items() if column != DRAFTS]
        return [where for count in stored for where in count.unreadable]

    @property
    def changed(self) -> int:
        return sum(count.changed for count in self.counts.values())

    def _batches(self, rows: "models.QuerySet[Any]", renew: Callable[[Any], None]) -> Iterator[str]:
        table, done = rows.model._meta.db_table, 0
        batch = list(rows[: self.batch_size])
        while batch:
            with transaction.atomic(using=self.using):
                for row in batch:
                    renew(row)
            done += len(batch)
            yield f"{table}: {done} rows"
            batch = list(rows.filter(pk__gt=batch[-1].pk)[: self.batch_size])

    def _renew_row(self, row: models.Model) -> None:
        for secret in _secret_fields(type(row)):
            self._renew_secret(row, secret)

    def _renew_secret(self, row: models.Model, secret: SecretField) -> None:
        place = secret.place(cast(Bound, row))
        count = self._count(place.partition(":")[0])
        found: models.Model | None = row
        for _ in range(_TRIES):
            old = found.__dict__[secret.attname] if found else None
            if not old:
                return
            try:
                # Opened first: a secret of another place must be reported, not renewed.
                old.open(place)
                new = old.renewed()
            except SecretUnreadableError:
                count.unreadable.append(f"{place.partition(':')[0]} of row {row.pk}")
                return
            if new is old:
                count.current += 1
                return
            if not self.writes or self._replace(secret, row.pk, old, new):
                count.renewed += 1
                return
            found = type(row)._base_manager.using(self.using).filter(pk=row.pk).first()
        count.changed += 1

    def _replace(self, secret: SecretField, pk: Any, old: Sealed, new: Sealed) -> bool:
        """Replace one ciphertext; return False if the old one is no longer there."""
        connection, meta = connections[self.using], secret.model._meta
        table, column, key = (
            connection.ops.quote_name(name)
            for name in (meta.db_table, secret.column, meta.pk.column)
        )
        # Raw SQL, because the field allows no comparison of ciphertext. The names are the models'
        # own, quoted.
        sql = f"UPDATE {table} SET {column} = %s WHERE {key} = %s AND {column} = %s"  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute(sql, [new.ciphertext, pk, old.ciphertext])
            return bool(cursor.rowcount)

    def _renew_drafts(self, row: Session) -> None:
        """Re-encrypt the secrets typed into forms that are still open."""
        count, found = self._count(DRAFTS), row
        for _ in range(_TRIES):
            session = found.get_decoded()
            renewed, current, unreadable = drafts.renew(session)
            if not renewed:
                break
            rows = Session.objects.using(self.using).filter(pk=row.pk)
            same = rows.filter(session_data=found.session_data)
            if not self.writes or same.update(session_data=SessionStore().encode(session)):
                break
            if (again := rows.first()) is None:
                return
            found = again
        else:
            count.changed += 1
            return
        count.renewed += renewed
        count.current += current
        count.unreadable += unreadable

    def _count(self, column: str) -> Count:
        return self.counts.setdefault(column, Count())


def secret_models() -> Iterable[type[models.Model]]:
    """Return every model of every app that has secrets and its own table."""
    return [
        model
        for model in apps.get_models(include_auto_created=True)
        if not model._meta.proxy and model._meta.managed and any(_secret_fields(model))
    ]


def _secret_fields(model: type[models.Model]) -> list[SecretField]:
    fields = model._meta.local_concrete_fields
    return [one for one in fields if isinstance(one, SecretField)]
