"""Claims rows on a connection of its own, so that the next ones come while the last are prepared.

On PostgreSQL a claim takes about as long as sending what it brings: one after the other they leave
the network idle a third of the time. On SQLite, where one transaction writes at a time anyway, the
keeper claims on its own connection and thread. `claims` decides which rows.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import NamedTuple

from webhooks.delivery.claims import CLAIM_ROWS, Claims
from webhooks.delivery.db_session import Session, SessionThread
from webhooks.delivery.queue import Candidate, Claimed
from webhooks.delivery.requests import Plan


class Taken(NamedTuple):
    """What one claim brought; nothing when no row was free or the database had a fault."""

    claims: list[Claimed]
    # By webhook id, as they were when the claim was asked for.
    plans: Mapping[int, Plan]
    # Monotonic seconds before the claim: the leases run from then on or later.
    asked_at: float

    @property
    def is_full(self) -> bool:
        return len(self.claims) >= CLAIM_ROWS


class _Wish(NamedTuple):
    ready: list[Candidate]
    plans: Mapping[int, Plan]
    asked_at: float


class Claimer(SessionThread):
    """The thread, where there is one. One claim at a time: `ask`, then `taken` until it is there.

    All methods are the keeper's; `on_taken` is called by the thread.
    """

    def __init__(
        self,
        claims: Claims,
        queue: ModuleType,
        keepers_session: Session,
        on_taken: Callable[[], None],
    ) -> None:
        super().__init__("claimer", queue, keepers_session)
        self._claims = claims
        self._on_taken = on_taken
        self._wishes: deque[_Wish] = deque()
        self._taken: deque[Taken] = deque()
        self.is_busy = False

    @property
    def has_taken(self) -> bool:
        return bool(self._taken)

    def ask(self, ready: list[Candidate], plans: Mapping[int, Plan]) -> None:
        """Claim rows of these webhooks; not while `is_busy`."""
        self.is_busy = True
        self._wishes.append(_Wish(ready, plans, time.monotonic()))
        if self._in_parallel:
            self._event.set()
        else:
            self._claim()

    def taken(self) -> Taken | None:
        """Return what the claim brought, once; None while it is not there."""
        if not self._taken:
            return None
        self.is_busy = False
        return self._taken.popleft()

    def finish(self, ends: float) -> Taken | None:
        """End the thread and return what it still claimed.

        A database that does not answer is waited for until `ends` on the monotonic clock; what it
        claims later is due again when its lease ends.
        """
        if self._in_parallel:
            self._end(ends)
        return self.taken()

    def _claim(self) -> None:
        wish = self._wishes.popleft()
        claims: list[Claimed] = []
        self._session.run(lambda: self._claims.take(wish.ready, claims))
        self._taken.append(Taken(claims, wish.plans, wish.asked_at))
        self._on_taken()

    # The thread.

    def _has_work(self) -> bool:
        return bool(self._wishes)

    def _turn(self) -> None:
        if self._wishes:
            self._claim()
        else:
            self._event.wait()
            self._event.clear()
