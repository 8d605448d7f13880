"""The threads in which plans wait for tokens, shared so that no authorization server fills them."""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial

from webhooks import network
from webhooks.delivery.queue.rows import Candidate

logger = logging.getLogger(__name__)

# An exchange that takes longer counts as hanging.
_QUICK_SECONDS = 1.0
# Exchanges at a time with servers that gave a token last time: in all, and with one of them.
_MAX_GOOD, _MAX_PER_GOOD_SERVER = 8, 2
# Exchanges with other servers, one for each. Those that hung before leave room for new ones.
_MAX_OTHERS, _MAX_HANGING = 96, 32
_THREADS = _MAX_GOOD + _MAX_OTHERS + _MAX_GOOD
# How many of these start at once. The next ones start when these wait for their servers: until then
# each costs 15 ms of Python, several times as much on a busy machine, and the good ones and the
# engine need Python as well. An exchange that waits for something else delays others for a second.
# Also the time between looks while exchanges wait, which also notice that a good server hangs.
_MAX_STARTING, _LOOK_SECONDS, STARTING_SECONDS = 2, 0.1, 1.0


class TokenPool:
    """Runs work that waits for an authorization server, in turn, each in a thread of its own.

    `work` returns whether a new token was obtained. Servers are judged by that, and at first by
    what their tokens' rows say.
    """

    def __init__(self, work: Callable[[Candidate], bool]) -> None:
        self._work = work
        self._changed = threading.Condition()
        self._is_closed = False
        self._waiting: dict[str, deque[Candidate]] = {}
        # By server, when its exchanges under way began, on the monotonic clock.
        self._began: defaultdict[str, list[float]] = defaultdict(list)
        # Servers with an exchange under way that were not good and have not been asked yet.
        self._starting: set[str] = set()
        # Whether a server gave a token last time; a quick refusal changes nothing.
        self._gave_token: dict[str, bool] = {}
        self._threads: set[threading.Thread] = set()
        # Whether the machine had no thread left for the last one.
        self._lacks_thread = False
        self._dispatcher = threading.Thread(target=self._dispatch, name="tokens", daemon=True)

    def submit(self, server: str, candidate: Candidate, *, is_good: bool | None = None) -> None:
        """Fetch a token in turn; `is_good` is what is stored about the last exchange."""
        with self._changed:
            if is_good is not None:
                self._gave_token.setdefault(server, is_good)
            self._waiting.setdefault(server, deque()).append(candidate)
            if not self._dispatcher.ident:
                self._dispatcher.start()
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._changed.notify()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    # Called in other threads.

    def _dispatch(self) -> None:
        with self._changed:
            while not self._is_closed:
                try:
                    # A process that ends only waits for exchanges that have begun.
                    while self._lives() and (chosen := self._may_begin(time.monotonic())):
                        for server in chosen:
                            self._begin(server)
                except RuntimeError as error:
                    # Waiting exchanges begin once there are threads again.
                    if not self._lacks_thread:
                        logger.error("token_thread_missing error=%s", error)
                    self._lacks_thread = True
                self._changed.wait(_LOOK_SECONDS if self._waiting else None)

    @staticmethod
    def _lives() -> bool:
        return threading.main_thread().is_alive()

    def _may_begin(self, now: float) -> list[str]:
        """Return the servers with which one more exchange may begin."""
        good = others = starting = 0
        for server, began in self._began.items():
            if self._is_good(server, now):
                good += len(began)
            else:
                others += len(began)
                patience = STARTING_SECONDS if server in self._starting else _LOOK_SECONDS
                starting += sum(now - at < patience for at in began)
        chosen: list[str] = []
        for server in self._waiting:
            if len(self._threads) + len(chosen) >= _THREADS:
                break
            under_way = len(self._began[server]) if server in self._began else 0
            if self._is_good(server, now):
                if good < _MAX_GOOD and under_way < _MAX_PER_GOOD_SERVER:
                    good += 1
                    chosen.append(server)
            elif (
                not under_way and starting < _MAX_STARTING and others < self._max_exchanges(server)
            ):
                others, starting = others + 1, starting + 1
                chosen.append(server)
        return chosen

    def _max_exchanges(self, server: str) -> int:
        return _MAX_HANGING if server in self._gave_token else _MAX_OTHERS

    def _is_good(self, server: str, now: float) -> bool:
        began = self._began.get(server)
        is_late = bool(began) and now - min(began or [now]) > _QUICK_SECONDS
        return self._gave_token.get(server, False) and not is_late

    def _begin(self, server: str) -> None:
        began, waiting = time.monotonic(), self._waiting[server]
        # Not a daemon: an exchange that changes a token at its server has to be recorded.
        thread = threading.Thread(
            target=self._run, args=(server, waiting[0], began), name="token", daemon=False
        )
        thread.start()
        self._lacks_thread = False
        self._threads.add(thread)
        waiting.popleft()
        del self._waiting[server]
        if waiting:
            # Behind the other servers.
            self._waiting[server] = waiting
        if not self._is_good(server, began):
            self._starting.add(server)
        self._began[server].append(began)

    def _run(self, server: str, candidate: Candidate, began: float) -> None:
        has_token = False
        network.before_waiting.set(partial(self._note_asked, server))
        try:
            has_token = self._work(candidate)
        except Exception:
            logger.exception("token_failed webhook=%d", candidate.webhook_id)
        finally:
            with self._changed:
                if has_token or time.monotonic() - began > _QUICK_SECONDS:
                    self._gave_token[server] = has_token
                self._starting.discard(server)
                self._began[server].remove(began)
                if not self._began[server]:
                    del self._began[server]
                self._threads.discard(threading.current_thread())
                self._changed.notify()

    def _note_asked(self, server: str) -> None:
        with self._changed:
            if server in self._starting:
                self._starting.remove(server)
                self._changed.notify()
