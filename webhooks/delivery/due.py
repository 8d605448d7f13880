"""The webhooks with due rows: listed by one query while they are few, tracked once they are many.

While all webhooks with waiting rows fit on one page, a single query lists them. Once they do not,
nothing queries all of them any more: `DueWebhooks` asks for the webhooks that became due since the
last query, walks through the rest page by page to find missed ones, and reads the details of only
the few hundred whose turn it is. Webhooks that just became due come first; webhooks that have to
wait are left out until their wait is over. So the work grows with what is sent, not with how many
webhooks have due rows or wait. Used by the engine thread only.
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

# How many webhooks are read in detail at a time: at most and at least.
WINDOW, MIN_WINDOW = 500, 100
# Webhooks on a page, and the share of time for the walk: usually, and while webhooks wait for it to
# find them (on the first walk, and while it finds many unknown webhooks with due rows).
PAGE, WALK_PART, _FINDING_PART = 1000, 0.03, 0.3
# The most rows expected per webhook and turn: to read a webhook costs as much as a row.
_DEPTH = 4
# How far queries for newly due rows look back, for transactions that commit late: usually, and now
# and then, in about this share of the time. The walk finds rows that are committed even later.
_OVERLAP_SECONDS, _LONG_OVERLAP_SECONDS, _OVERLAP_PART = 0.1, 2.0, 0.02
ASK_AGAIN_SECONDS = 0.2
# How long a webhook with an unknown wait is left out, at first and at most. A known wait up to the
# second constant is timed exactly.
WAIT_SECONDS = (0.1, 10.0)
_LONGEST_TIMED_SECONDS = 60.0
# A query that takes longer than this leaves out earlier rows, but for this share of the time, and
# for at most so long. They are of transactions that were open for longer than the margin.
CHEAP_SECONDS, _COMPLETE_PART, _LONGEST_SECONDS, _MARGIN_SECONDS = 0.005, 0.02, 10.0, 10.0


class Watermark:
    """The time from which on an expensive query reads the index, but for a complete one at times.

    While a transaction stays open that began before, such as a dump, PostgreSQL keeps the entries
    of all rows that were finished since: a query that begins at the oldest reads hundreds of
    thousands.
    """

    def __init__(self) -> None:
        # Unix time, by the database's clock: of the query under way or the last one, and of the
        # next one. 0 is for a complete query.
        self.since = self._next = 0.0
        # Monotonic seconds: when the next query is a complete one.
        self.complete_at = 0.0

    def begin(self, now: float) -> float:
        """Return from which time on to read; `now` is monotonic."""
        self.since = 0.0 if now >= self.complete_at else self._next
        return self.since

    def end(self, began_at: float, oldest: float) -> None:
        """Note that no row is older than the Unix time `oldest`, and what the query took."""
        self._next = oldest - _MARGIN_SECONDS
        if not self.since:
            ended_at = time.monotonic()
            seconds = ended_at - began_at
            pause = min(_LONGEST_SECONDS, seconds / _COMPLETE_PART)
            self.complete_at = ended_at + pause if seconds > CHEAP_SECONDS else 0.0

    def forget(self) -> None:
        """Let the next query be a complete one."""
        self.complete_at = 0.0


class DueWebhooks:
    def __init__(self, session: DatabaseSession, queue: ModuleType, shards: Shards) -> None:
        self._session = session
        self._queue = queue
        self._shards = shards
        self._begin()

    def _begin(self) -> None:
        # Whether the webhooks exceed one page, and the seconds until its next row is due.
        self.are_many = False
        self.next_due_seconds: float | None = None
        self._after = self._walked_pages = 0
        self._walk_at = 0.0
        self._watermark = Watermark()
        # Whether the first full walk has not ended yet, and the shards that it covers.
        self._is_first_walk = True
        self._own = self._shards.own
        # Unix time, by the database's clock, of the last query for newly due rows.
        self._since = 0.0
        self._ask_again_at = 0.0
        # Rows expected per webhook and turn, and how many webhooks are read at a time.
        self._depth = 1.0
        self._window = WINDOW
        # In the order of turns: newly due webhooks, webhooks with rows left after a claim, and the
        # others, which may have to wait.
        self._new: dict[int, None] = {}
        self._served: dict[int, None] = {}
        self._known: dict[int, None] = {}
        # Webhooks that got no place in a claim, and waiting webhooks with new rows: these may be a
        # test, which does not wait, or a released head.
        self._deferred: dict[int, None] = {}
        # When waiting webhooks are read again: those with a known wait, and the others.
        self._timed: list[tuple[float, int]] = []
        self._untimed: list[tuple[float, int]] = []
        # Webhooks without a usable plan, and when their plans are made again.
        self._plan_retries: list[tuple[float, int]] = []
        # By webhook: the length of its wait, when the wait ends, and when to read it before that.
        self._waits: dict[int, tuple[float, float, float]] = {}
        # Webhooks with an unknown wait: how many to retry, the last ones, and how many could go.
        self._retries = MIN_WINDOW
        self._retried: set[int] = set()
        self._retried_ready = 0

    @property
    def has_others(self) -> bool:
        """Return whether some webhooks may have due rows but were not read yet."""
        return bool(self._known) or (self.are_many and self._is_first_walk)

    @property
    def has_more(self) -> bool:
        """Return whether some webhooks have due rows and were not read, or have rows left."""
        return self.has_others or bool(self._new or self._served)

    def look(self, room: int = WINDOW) -> list[Candidate] | None:
        """Return the webhooks with due rows whose turn it is; None on a database fault.

        `room` is how many rows can be claimed.
        """
        if not self.are_many:
            page = self._ask_page()
            if page is None:
                return None
            if page.last is None:
                return page.candidates
            self.are_many, self._after = True, page.last
            self._known = dict.fromkeys(one.webhook_id for one in page.candidates)
            self._walked_pages = 1
            self._since = self._session.clock.wall()
        if self._own != self._shards.own:
            # The webhooks of added shards became due before.
            self._own, self._is_first_walk = self._shards.own, True
            self._after, self._walked_pages, self._walk_at = 0, 0, 0.0
        now = time.monotonic()
        if not self._ask_changes(now) or (now >= self._walk_at and not self._walk(now)):
            return None
        if not self.are_many:
            # The walk found that they fit on one page again.
            return self.look(room)
        chosen = self._choose(now, max(MIN_WINDOW, min(self._window, int(room / self._depth))))
        ask = partial(self._queue.candidates, chosen, **self._shards.own)
        found: list[Candidate] | None = self._session.run(ask)
        if found is None:
            # First in line again, not behind thousands of unknown webhooks.
            self._new |= dict.fromkeys(reversed(chosen))
            return None
        # To the end of the line; `note_claimed` removes webhooks that have nothing left.
        due = dict.fromkeys(one.webhook_id for one in found)
        self._known |= due
        for webhook_id in chosen:
            if webhook_id not in due:
                self._waits.pop(webhook_id, None)
        return found

    @property
    def since(self) -> float:
        """Return from which Unix time on rows are to be claimed; 0 for all."""
        return 0.0 if self.are_many else self._watermark.since

    @property
    def is_cheap(self) -> bool:
        """Return whether a query of rows that became due since then takes little time."""
        return bool(self.since) or not self._watermark.complete_at

    def _ask_page(self) -> Page | None:
        watermark, own = self._watermark, self._shards.own
        if own != self._own:
            # The rows of added shards may have been due before.
            self._own = own
            watermark.forget()
        # Before the query, which may wait.
        began_at, asked_at = time.monotonic(), self._session.clock.wall()
        since = watermark.begin(began_at)
        page: Page | None = self._session.run(
            partial(self._queue.page, limit=PAGE, since=since, **own)
        )
        if page is None:
            # A failover can bring rows back.
            watermark.forget()
            return None
        seconds = self.next_due_seconds = page.next_due_seconds
        if since:
            # Then older rows may be found.
            until = max(0.0, watermark.complete_at - time.monotonic())
            self.next_due_seconds = until if seconds is None else min(until, seconds)
        if page.last is None:
            watermark.end(began_at, asked_at + min(0.0, seconds or 0.0))
        return page

    def _ask_changes(self, now: float) -> bool:
        asked_at = self._session.clock.wall()
        is_again = now >= self._ask_again_at
        overlap = _LONG_OVERLAP_SECONDS if is_again else _OVERLAP_SECONDS
        ask = partial(self._queue.became_due, self._since - overlap, **self._shards.own)
        changed: dict[int, float] | None = self._session.run(ask)
        if changed is None:
            return False
        # A listed webhook with older rows already has a turn or a reason to wait.
        since, is_listed = self._since, self._is_listed
        unknown = [pk for pk, at in changed.items() if at > since or not is_listed(pk)]
        for webhook_id in reversed(unknown):
            if webhook_id in self._waits or webhook_id in self._deferred:
                self._deferred[webhook_id] = None
            else:
                self._new.pop(webhook_id, None)
                self._new[webhook_id] = None
        self._since = asked_at
        if is_again:
            ended = time.monotonic()
            # Soon enough that each moment is covered by two queries.
            pause = min(_LONG_OVERLAP_SECONDS / 2, (ended - now) / _OVERLAP_PART)
            self._ask_again_at = ended + max(ASK_AGAIN_SECONDS, pause)
        return True

    def _is_listed(self, webhook_id: int) -> bool:
        """Return whether a webhook is in line for a turn or has to wait."""
        return (
            webhook_id in self._known
            or webhook_id in self._new
            or webhook_id in self._served
            or webhook_id in self._waits
            or webhook_id in self._deferred
        )

    def _walk(self, now: float) -> bool:
        """Read the next page of the walk, and start over after the last one."""
        ask = partial(self._queue.walk, after=self._after, limit=PAGE, **self._shards.own)
        found: tuple[list[int], int | None] | None = self._session.run(ask)
        if found is None:
            return False
        due, last = found
        known = len(self._known)
        for webhook_id in due:
            if not self._is_listed(webhook_id):
                self._known[webhook_id] = None
        self._walked_pages += 1
        self._after = last or 0
        if last is None:
            if self._walked_pages == 1:
                self._begin()
            self._walked_pages, self._is_first_walk = 0, False
        is_finding = self._is_first_walk or len(self._known) - known >= MIN_WINDOW
        ended = time.monotonic()
        self._walk_at = ended + (ended - now) / (_FINDING_PART if is_finding else WALK_PART)
        return True

    def _choose(self, now: float, window: int) -> list[int]:
        # Each group gets a share of the window, so that a large one takes no turns of the others.
        # The newest come first: thousands that became due at once must not delay a single one.
        chosen = list(islice(reversed(self._new), window // 4))
        chosen += self._waited(self._timed, now, window // 4)
        chosen += self._waited(self._plan_retries, now, window // 8)
        if self._retried:
            # Retry more while most of them can go, else fewer: blocked ones must not take turns.
            is_worth = 2 * self._retried_ready > len(self._retried)
            changed = 2 * self._retries if is_worth else self._retries // 2
            self._retries = max(MIN_WINDOW // 2, min(WINDOW // 2, changed))
        retried = self._waited(self._untimed, now, min(self._retries, (window - len(chosen)) // 2))
        self._retried, self._retried_ready = set(retried), 0
        chosen += retried
        new, served = iter(self._new), iter(self._served)
        known, deferred = iter(self._known), iter(self._deferred)
        # Webhooks that can be sent to must not wait behind thousands that may have to wait.
        parts = ((new, 2), (reversed(self._deferred), 8), (deferred, 8), (served, 2), (known, 1))
        for turn, part in (*parts, (served, 1), (new, 1), (deferred, 1)):
            chosen += islice(turn, max(0, window - len(chosen)) // part)
        chosen += self._waited(self._timed, now, window - len(chosen))
        for webhook_id in chosen:
            for among in (self._new, self._deferred, self._served, self._known):
                among.pop(webhook_id, None)
        return list(dict.fromkeys(chosen))

    def _waited(self, queue: list[tuple[float, int]], now: float, most: int) -> list[int]:
        """Remove and return the webhooks whose wait is over, the longest overdue first."""
        found: list[int] = []
        while queue and queue[0][0] <= now and len(found) < most:
            ends, webhook_id = heapq.heappop(queue)
            # Skip a webhook that was read since: it has another wait, or none.
            if ends in self._waits.get(webhook_id, ())[1:]:
                found.append(webhook_id)
        return found

    def wait(self, webhook_id: int, seconds: float | None) -> None:
        """Leave a webhook out for `seconds`; None for an unknown time, which doubles each call."""
        if not self.are_many:
            return
        shortest, longest = WAIT_SECONDS
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

    def look_no_later_than(self, webhook_id: int, at: float) -> None:
        """Read a waiting webhook at this monotonic time at the latest."""
        if webhook_id not in self._waits or at > time.monotonic() + _LONGEST_TIMED_SECONDS:
            return
        before, _, look_at = self._waits[webhook_id]
        self._waits[webhook_id] = before, at, look_at
        heapq.heappush(self._plan_retries, (at, webhook_id))

    def clear_wait(self, webhook_id: int) -> None:
        """Note that a webhook does not have to wait."""
        self._waits.pop(webhook_id, None)
        self._retried_ready += webhook_id in self._retried

    def note_claimed(
        self,
        served: Collection[int],
        exhausted: Collection[int],
        left_out: Iterable[int],
        count: int,
    ) -> None:
        """Note which webhooks got rows, which have no due rows left, and which got no place."""
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
            self._deferred[webhook_id] = None
        # Receivers that have not answered yet get few places: do not read many that get none.
        is_too_many = len(kept) > len(served)
        self._window = max(MIN_WINDOW, 2 * len(served)) if is_too_many else WINDOW
        if served:
            # While most webhooks have rows left, read fewer, which get more rows each.
            have_more = 2 * len(exhausted) < len(served)
            depth = 2 * self._depth if have_more else count / len(served)
            self._depth = max(1.0, min(_DEPTH, depth))

    def note_fault(self, webhook_ids: Iterable[int]) -> None:
        """Put webhooks whose claim failed first in line, not behind thousands that may wait."""
        known = [webhook_id for webhook_id in webhook_ids if webhook_id in self._known]
        for webhook_id in reversed(known):
            del self._known[webhook_id]
            self._new[webhook_id] = None

    def wake(self, webhook_ids: Iterable[int]) -> None:
        """Read waiting webhooks again: what they waited for may be over."""
        for webhook_id in self._waits.keys() & set(webhook_ids) if self._waits else ():
            del self._waits[webhook_id]
            self._new[webhook_id] = None
