"""Which webhooks a drain serves: those of its shards, `webhook_id % WEBHOOKS_SHARDS`.

Drains register in the database and divide the shards by their order among those that work with the
same number of shards. So each shard has a drain, whichever drains start, end or hang, and while the
number is being changed each group serves all webhooks. Two drains on one webhook do no harm: claims
are exclusive, and the database enforces order and limits. It only costs time.
"""

import secrets
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from webhooks.delivery.db_session import DatabaseSession
from webhooks.models import Drain

# How often a drain renews its registration, and how long after the last renewal others take over.
_HEARTBEAT_SECONDS, _EXPIRY = 1.0, timedelta(seconds=5)
# When the row is deleted that a dead process left.
_DELETE_AFTER = timedelta(hours=1)


class Shards:
    """The shards of one drain. Used by the engine thread alone."""

    def __init__(self, session: DatabaseSession) -> None:
        self._session = session
        self.count: int = settings.WEBHOOKS_SHARDS
        self.numbers = list(range(self.count))
        self._member = secrets.randbits(62)
        self._look_at = 0.0

    @property
    def own(self) -> dict[str, Any]:
        """Return the arguments for the queue's functions."""
        return {"shards": self.count, "numbers": self.numbers}

    @property
    def are_all(self) -> bool:
        """Return whether this drain serves all webhooks."""
        return len(self.numbers) == self.count

    def look(self, now: float) -> None:
        """Renew the registration and learn which shards are its own; `now` is monotonic."""
        if self.count == 1 or now < self._look_at:
            return
        self._look_at = now + _HEARTBEAT_SECONDS
        members = self._session.run(self._members)
        if members and self._member in members:
            index = members.index(self._member) % self.count
            self.numbers = list(range(self.count))[index :: len(members)]

    def _members(self) -> list[int]:
        with transaction.atomic():
            seen = {"shards": self.count, "seen_at": Now()}
            own = Drain.objects.filter(pk=self._member)
            if own.exists():
                _free(own).update(**seen)
            else:
                # Of the future, if the database's clock was set back since.
                kept = (Now() - _DELETE_AFTER, Now() + _DELETE_AFTER)
                _free(Drain.objects.exclude(seen_at__range=kept)).delete()
                Drain.objects.create(pk=self._member, **seen)
        present = Drain.objects.filter(
            shards=self.count, seen_at__range=(Now() - _EXPIRY, Now() + _EXPIRY)
        )
        return list(present.order_by("pk").values_list("pk", flat=True))

    def leave(self) -> None:
        """Let the other drains take over at once."""
        if self.count > 1:
            self._session.run(self._delete)

    @transaction.atomic
    def _delete(self) -> None:
        _free(Drain.objects.filter(pk=self._member)).delete()


def _free(drains: QuerySet[Drain]) -> QuerySet[Drain]:
    """Lock these rows until the transaction ends, without those that another transaction locked.

    Each wait for a lock would delay all webhooks.
    """
    free = drains.select_for_update(skip_locked=True).values_list("pk", flat=True)
    return Drain.objects.filter(pk__in=list(free))
