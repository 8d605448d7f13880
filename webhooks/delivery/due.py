"""Which webhooks have due rows: asked for while they are few, remembered once they are many.

One question lists the webhooks of a page. When all webhooks with waiting rows fit on it, that is
the answer. When they do not, nothing asks for all of them any more: `DueWebhooks` asks who became
due since the last time, walks on by a page now and then for what was missed, and looks closely only
at the few hundred whose turn it is. Those that became due just now come before the others; those
that have to wait are left out until they may go. So work grows with what is sent, and not with how
many webhooks have due rows or wait. Used by the engine thread alone.
"""

import heapq
import time
from collections.abc import Collection, Iterable
from functools import partial
from itertools import islice
from types import ModuleType

from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.queue.rows import Candidate, Page
from webhooks.delivery.shards import Shards

# Webhooks that are looked at closely at a time, at most and at least.
WINDOW, LEAST = 500, 100
# Webhooks on a page, and how much of the time walking on may take; the first time, and while it
# finds many with due rows that were not known, others wait for it.
PAGE, _WALK_PART, _FINDING_PART = 1000, 0.03, 0.3
# Rows that a webhook gets at a time while it has more: to look at it costs as much as a row.
_DEPTH = 4
# A transaction that takes longer to commit than the first is found by asking again, in the third as
# a part of the time; one that takes longer than the second by walking on.
_OVERLAP_SECONDS, _LONG_OVERLAP_SECONDS, _OVERLAP_PART = 0.1, 2.0, 0.02
_ASK_AGAIN_SECONDS = 0.2
# How long one that has to wait for something else is left out, at first and at most; one that says
# for how long, up to this, is also looked at then.
_WAIT_SECONDS = (0.1, 10.0)
_LONGEST_TIMED_SECONDS = 60.0


class DueWebhooks:
    def __init__(self, session: DatabaseSession, queue: ModuleType, shards: Shards) -> None:
        self._session = session
        self._queue = queue
        self._shards = shards
        self._begin()

    def _begin(self) -> None:
        # Whether they did not fit on a page, and how long it was then until one on it is due.
        self.are_many = False
        self.next_due_seconds: float | None = None
        self._after = self._walked = 0
        self._walk_at = 0.0
        # Whether the first walk by all of them is still to end, and for which shards it is.
        self._is_first_walk = True
        self._own = self._shards.own
        # The database's Unix time up to which it was asked who became due.
        self._since = 0.0
        self._ask_again_at = 0.0
        # Rows that a webhook gets at a time, and how many webhooks are looked at.
        self._depth = 1.0
        self._window = WINDOW
        # In turn: those that became due of late, those of which rows were claimed and that have
        # more, and the others, which may have to wait.
        self._new: dict[int, None] = {}
        self._served: dict[int, None] = {}
        self._known: dict[int, None] = {}
        # Those that got no place; and of those that have to wait the ones with new rows: a test
        # among them does not wait, nor does a head that was set free.
        self._doubtful: dict[int, None] = {}
        # When those that have to wait are looked at again: those that said when, and the others.
        self._timed: list[tuple[float, int]] = []
        self._untimed: list[tuple[float, int]] = []
        # Of the others those whose plan is made again without them, at the latest then.
        self._planless: list[tuple[float, int]] = []
        # For how long each waits, until when, and when it is looked at before that.
        self._waits: dict[int, tuple[float, float, float]] = {}
        # How many of the others are looked at, those that were, and how many need not wait.
        self._retries = LEAST
        self._retried: set[int] = set()
        self._went = 0

    @property
    def has_others(self) -> bool:
        """Return whether some may have due rows of which nothing is known yet."""
        return bool(self._known) or (self.are_many and self._is_first_walk)

    @property
    def has_more(self) -> bool:
        """Return whether some have due rows that were not looked at, or not all claimed."""
        return self.has_others or bool(self._new or self._served)

    def look(self, room: int = WINDOW) -> list[Candidate] | None:
        """Return webhooks with due rows, those whose turn it is; None on a database fault.

        `room` is how many rows can be claimed.
        """
        if not self.are_many:
            ask_page = partial(self._queue.page, limit=PAGE, **self._shards.own)
            page: Page | None = self._session.run(ask_page)
            if page is None:
                return None
            self.next_due_seconds = page.next_due_seconds
            if page.last is None:
                return page.candidates
            self.are_many, self._after = True, page.last
            self._known = dict.fromkeys(one.webhook_id for one in page.candidates)
            self._walked = 1
            self._since = self._session.wall()
        if self._own != self._shards.own:
            # What the others of them have was due before.
            self._own, self._is_first_walk = self._shards.own, True
            self._after, self._walked, self._walk_at = 0, 0, 0.0
        now = time.monotonic()
        if not self._ask_changes(now) or (now >= self._walk_at and not self._walk(now)):
            return None
        chosen = self._choose(now, max(LEAST, min(self._window, int(room / self._depth))))
        ask = partial(self._queue.candidates, chosen, **self._shards.own)
        found: list[Candidate] | None = self._session.run(ask)
        if found is None:
            # Not behind thousands of which nothing is known.
            self._new |= dict.fromkeys(reversed(chosen))
            return None
        # Behind the others; `note_claimed` says which have nothing left.
        due = dict.fromkeys(one.webhook_id for one in found)
        self._known |= due
        for webhook_id in chosen:
            if webhook_id not in due:
                self._waits.pop(webhook_id, None)
        return found

    def _ask_changes(self, now: float) -> bool:
        asked_at = self._session.wall()
        is_again = now >= self._ask_again_at
        overlap = _LONG_OVERLAP_SECONDS if is_again else _OVERLAP_SECONDS
        ask = partial(self._queue.became_due, self._since - overlap, **self._shards.own)
        changed: dict[int, float] | None = self._session.run(ask)
        if changed is None:
            return False
        # What was there before waits for its turn, or for something else.
        since, is_listed = self._since, self._is_listed
        unknown = [pk for pk, at in changed.items() if at > since or not is_listed(pk)]
        for webhook_id in reversed(unknown):
            if webhook_id in self._waits or webhook_id in self._doubtful:
                self._doubtful[webhook_id] = None
            else:
                self._new.pop(webhook_id, None)
                self._new[webhook_id] = None
        self._since = asked_at
        if is_again:
            ended = time.monotonic()
            # So soon that each moment is asked for twice.
            pause = min(_LONG_OVERLAP_SECONDS / 2, (ended - now) / _OVERLAP_PART)
            self._ask_again_at = ended + max(_ASK_AGAIN_SECONDS, pause)
        return True

    def _is_listed(self, webhook_id: int) -> bool:
        """Return whether a webhook has or waits for its turn."""
        return (
            webhook_id in self._known
            or webhook_id in self._new
            or webhook_id in self._served
            or webhook_id in self._waits
            or webhook_id in self._doubtful
        )

    def _walk(self, now: float) -> bool:
        """Look at the next page, and begin again after the last one."""
        ask = partial(self._queue.walk, after=self._after, limit=PAGE, **self._shards.own)
        found: tuple[list[int], int | None] | None = self._session.run(ask)
        if found is None:
            return False
        due, last = found
        known = len(self._known)
        for webhook_id in due:
            if not self._is_listed(webhook_id):
                self._known[webhook_id] = None
        self._walked += 1
        self._after = last or 0
        if last is None:
            if self._walked == 1:
                self._begin()
            self._walked, self._is_first_walk = 0, False
        is_finding = self._is_first_walk or len(self._known) - known >= LEAST
        ended = time.monotonic()
        self._walk_at = ended + (ended - now) / (_FINDING_PART if is_finding else _WALK_PART)
        return True

    def _choose(self, now: float, window: int) -> list[int]:
        # A part for each, so that none of them takes the turns of the others, however many there
        # are. First the newest: thousands that became due at once keep no single one waiting.
        chosen = list(islice(reversed(self._new), window // 4))
        chosen += self._waited(self._timed, now, window // 4)
        chosen += self._waited(self._planless, now, window // 8)
        if self._retried:
            # As many as need not wait any more, so that those that never may take no others' turn.
            is_worth = 2 * self._went > len(self._retried)
            changed = 2 * self._retries if is_worth else self._retries // 2
            self._retries = max(LEAST // 2, min(WINDOW // 2, changed))
        retried = self._waited(self._untimed, now, min(self._retries, (window - len(chosen)) // 2))
        self._retried, self._went = set(retried), 0
        chosen += retried
        new, served = iter(self._new), iter(self._served)
        known, doubtful = iter(self._known), iter(self._doubtful)
        # Those that can be sent to do not go behind thousands that may have to wait.
        parts = ((new, 2), (reversed(self._doubtful), 8), (doubtful, 8), (served, 2), (known, 1))
        for turn, part in (*parts, (served, 1), (new, 1), (doubtful, 1)):
            chosen += islice(turn, max(0, window - len(chosen)) // part)
        chosen += self._waited(self._timed, now, window - len(chosen))
        for webhook_id in chosen:
            for among in (self._new, self._doubtful, self._served, self._known):
                among.pop(webhook_id, None)
        return list(dict.fromkeys(chosen))

    def _waited(self, queue: list[tuple[float, int]], now: float, most: int) -> list[int]:
        """Take out those whose wait is over, the longest first."""
        found: list[int] = []
        while queue and queue[0][0] <= now and len(found) < most:
            ends, webhook_id = heapq.heappop(queue)
            # Not one that was looked at since: it waits for another time, or not at all.
            if ends in self._waits.get(webhook_id, ())[1:]:
                found.append(webhook_id)
        return found

    def wait(self, webhook_id: int, seconds: float | None) -> None:
        """Leave a webhook out for `seconds`; None for as long as it takes, more each time."""
        if not self.are_many:
            return
        shortest, longest = _WAIT_SECONDS
        is_timed = seconds is not None and seconds <= _LONGEST_TIMED_SECONDS
        if seconds is None:
            seconds = 2 * self._waits[webhook_id][0] if webhook_id in self._waits else shortest
        seconds = max(shortest, seconds)
        now, before = time.monotonic(), min(longest, seconds)
        ends = now + (seconds if is_timed else before)
        self._waits[webhook_id] = before, ends, now + before
        self._known.pop(webhook_id, None)
        if is_timed:
            heapq.heappush(self._timed, (ends, webhook_id))
        if not is_timed or seconds > longest:
            heapq.heappush(self._untimed, (now + before, webhook_id))

    def look_by(self, webhook_id: int, at: float) -> None:
        """Look at one that waits at this time on the monotonic clock, if nothing does it before."""
        if webhook_id not in self._waits or at > time.monotonic() + _LONGEST_TIMED_SECONDS:
            return
        before, _, look_at = self._waits[webhook_id]
        self._waits[webhook_id] = before, at, look_at
        heapq.heappush(self._planless, (at, webhook_id))

    def go(self, webhook_id: int) -> None:
        """Note that a webhook need not wait."""
        self._waits.pop(webhook_id, None)
        self._went += webhook_id in self._retried

    def note_claimed(
        self,
        served: Collection[int],
        exhausted: Collection[int],
        left_out: Iterable[int],
        count: int,
    ) -> None:
        """Note who got rows, of whom all due ones were claimed, and who got no turn after all."""
        if not self.are_many:
            return
        for webhook_id in exhausted:
            self._known.pop(webhook_id, None)
        for webhook_id in served:
            if webhook_id in self._known:
                del self._known[webhook_id]
                self._served[webhook_id] = None
        kept = [webhook_id for webhook_id in left_out if webhook_id in self._known]
        for webhook_id in kept:
            del self._known[webhook_id]
            self._doubtful[webhook_id] = None
        # Receivers that did not answer yet get few places: those without one are looked at again.
        is_too_many = len(kept) > len(served)
        self._window = max(LEAST, 2 * len(served)) if is_too_many else WINDOW
        if served:
            # While most have more, fewer get more each.
            have_more = 2 * len(exhausted) < len(served)
            depth = 2 * self._depth if have_more else count / len(served)
            self._depth = max(1.0, min(_DEPTH, depth))

    def note_fault(self, webhook_ids: Iterable[int]) -> None:
        """Let those come first whose claim failed, not behind thousands that may have to wait."""
        known = [webhook_id for webhook_id in webhook_ids if webhook_id in self._known]
        for webhook_id in reversed(known):
            del self._known[webhook_id]
            self._new[webhook_id] = None

    def came_back(self, webhook_ids: Iterable[int]) -> None:
        """Look at webhooks again: what they waited for may be over."""
        for webhook_id in self._waits.keys() & set(webhook_ids) if self._waits else ():
            del self._waits[webhook_id]
            self._new[webhook_id] = None
