"""What 100,000 deliveries per second take, on paper: a queueing model with a fake clock.

`python -m tests.bench.simulation` prints one line per layout; docs/scaling.md explains them. No
real time passes and nothing is random: the output is the same everywhere. The costs below are
measured (docs/performance.md). Layouts with several databases are not built; the model shows where
each layout reaches its limit.

A drain queue is served by its own workers, which claim only webhooks of their shard. A worker's
round claims up to 500 rows, prepares and judges them in Python while the next claim and the last
record run in PostgreSQL, and ends when the slowest of the three does. PostgreSQL gets slower as it
gets busier, as any queue does.
"""

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

# Microseconds of CPU per delivery, and bytes of write-ahead log.
WORKER_US = 55.0
PUBLISH_US, CLAIM_US, RECORD_US = 16.0, 16.0, 20.0
WAL_BYTES = 4_100
STORED_BYTES = 2_900
# Each further worker on the same queue also reads rows that the others hold.
CONTENTION = 0.04
# Fixed cost of a round: finding the webhooks with due rows, round trips, one commit.
ROUND_SECONDS = 0.004
CLAIM_ROWS = 500
# The throughput of one log device, or of one PostgreSQL's log insertion on any device.
WAL_BYTES_PER_SECOND = 600e6
# Index bytes per delivery, and the memory that should hold the newest partition's indexes:
# claims, records and vacuum touch them everywhere.
INDEX_BYTES = 710
MEMORY_BYTES = 128e9

_TICK_SECONDS = 0.01
_RUN_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    name: str
    rate: float
    databases: int = 1
    cores: int = 16
    # Drain queues in total; each database has an equal share of them.
    queues: int = 1
    workers: int = 1
    receiver_seconds: float = 0.1
    in_flight: int = 256
    partition_seconds: float = 600.0


class SimulatedClock:
    """A fake clock: time jumps to the next scheduled action."""

    def __init__(self) -> None:
        self.now = 0.0
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._asked = 0

    def at(self, moment: float, action: Callable[[], None]) -> None:
        self._asked += 1
        heapq.heappush(self._waiting, (moment, self._asked, action))

    def run(self, until: float) -> None:
        while self._waiting and self._waiting[0][0] <= until:
            self.now, _, action = heapq.heappop(self._waiting)
            action()


@dataclass(slots=True)
class Database:
    """CPU and log of one PostgreSQL over a sliding second."""

    cores: int
    spent: deque[tuple[float, float, float]] = field(default_factory=deque)
    cpu_seconds: float = 0.0
    log_bytes: float = 0.0

    def spend(self, now: float, cpu_seconds: float, log_bytes: float) -> None:
        self.spent.append((now, cpu_seconds, log_bytes))
        self.cpu_seconds += cpu_seconds
        self.log_bytes += log_bytes
        while self.spent[0][0] < now - 1.0:
            _, seconds, size = self.spent.popleft()
            self.cpu_seconds -= seconds
            self.log_bytes -= size

    def load(self) -> float:
        """Return the load of the busier of processor and log; 1.0 is full, more is overload."""
        return max(self.cpu_seconds / self.cores, self.log_bytes / WAL_BYTES_PER_SECOND)

    def slowdown(self) -> float:
        return 1.0 / (1.0 - min(self.load(), 0.98))


@dataclass(slots=True)
class Queue:
    database: Database
    workers: int
    # (time published, number of rows), oldest first.
    due: deque[tuple[float, int]] = field(default_factory=deque)
    busy_seconds: float = 0.0

    def take(self, rows: int) -> list[tuple[float, int]]:
        taken: list[tuple[float, int]] = []
        while self.due and rows > 0:
            moment, count = self.due.popleft()
            if count > rows:
                self.due.appendleft((moment, count - rows))
                count = rows
            taken.append((moment, count))
            rows -= count
        return taken


@dataclass(slots=True)
class SimulatedOutcome:
    layout: Layout
    delivered_per_second: float
    p50_ms: float
    p99_ms: float
    worker_load: float

    def breaks(self) -> str:
        """Return the limit that this layout is closest to, with its load."""
        layout = self.layout
        each = layout.rate / layout.databases
        limits = {
            "workers' Python": self.worker_load,
            "requests in flight": layout.rate * layout.receiver_seconds
            / (layout.workers * layout.in_flight),
            "PostgreSQL's processors": each
            * (PUBLISH_US + CLAIM_US + RECORD_US) / 1e6 / layout.cores,
            "PostgreSQL's log": each * WAL_BYTES / WAL_BYTES_PER_SECOND,
            "memory for the newest indexes": each * layout.partition_seconds * INDEX_BYTES
            / MEMORY_BYTES,
        }  # fmt: skip
        name = max(limits, key=lambda key: limits[key])
        return f"{name} at {limits[name]:.0%}"


class Simulation:
    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._clock = SimulatedClock()
        self._databases = [Database(layout.cores) for _ in range(layout.databases)]
        self._queues = [
            Queue(self._databases[number % layout.databases], layout.workers // layout.queues)
            for number in range(layout.queues)
        ]
        # (seconds from publish to request, number of rows).
        self._delays: list[tuple[float, int]] = []

    def run(self) -> SimulatedOutcome:
        self._clock.at(0.0, self._publish)
        for queue in self._queues:
            for number in range(queue.workers):
                self._clock.at(number * 0.001, self._round_of(queue))
        self._clock.run(_RUN_SECONDS)
        delivered = sum(rows for _, rows in self._delays)
        worked = sum(queue.busy_seconds for queue in self._queues)
        return SimulatedOutcome(
            self._layout,
            delivered / _RUN_SECONDS,
            self._percentile(0.5) * 1000,
            self._percentile(0.99) * 1000,
            worked / (self._layout.workers * _RUN_SECONDS),
        )

    def _publish(self) -> None:
        now = self._clock.now
        rows = int(self._layout.rate * _TICK_SECONDS / self._layout.queues)
        for queue in self._queues:
            queue.due.append((now, rows))
            queue.database.spend(now, rows * PUBLISH_US / 1e6, rows * WAL_BYTES * 0.55)
        self._clock.at(now + _TICK_SECONDS, self._publish)

    def _round_of(self, queue: Queue) -> Callable[[], None]:
        def turn() -> None:
            now = self._clock.now
            taken = queue.take(CLAIM_ROWS)
            rows = sum(count for _, count in taken)
            if not rows:
                self._clock.at(now + _TICK_SECONDS, turn)
                return
            database = queue.database
            crowd = 1 + CONTENTION * (queue.workers - 1)
            claim = rows * CLAIM_US / 1e6 * crowd
            record = rows * RECORD_US / 1e6
            slowdown = database.slowdown()
            python = rows * WORKER_US / 1e6
            in_flight = rows / self._layout.in_flight * self._layout.receiver_seconds
            lasts = max(python, (ROUND_SECONDS + claim) * slowdown, record * slowdown, in_flight)
            database.spend(now, claim + record, rows * WAL_BYTES * 0.45)
            queue.busy_seconds += python
            sent = now + (ROUND_SECONDS + claim) * slowdown + python / 2
            self._delays += [(sent - published, count) for published, count in taken]
            self._clock.at(now + lasts, turn)

        return turn

    def _percentile(self, share: float) -> float:
        left = sum(rows for _, rows in self._delays) * share
        for delay, rows in sorted(self._delays):
            left -= rows
            if left <= 0:
                return delay
        return float("inf")


LAYOUTS = (
    Layout(name="one worker, as measured", rate=10_000, cores=2, workers=1, receiver_seconds=0.001),
    Layout(name="one queue, 8 workers", rate=50_000, workers=8, in_flight=1024),
    Layout(name="one queue, 16 workers", rate=100_000, workers=16, in_flight=1024),
    Layout(name="8 queues, 16 workers", rate=100_000, queues=8, workers=16, in_flight=1024),
    Layout(name="the same, partitions of an hour", rate=100_000, queues=8, workers=16,
           in_flight=1024, partition_seconds=3600),
    Layout(name="the same, receivers take 300 ms", rate=100_000, queues=8, workers=16,
           in_flight=1024, receiver_seconds=0.3),
    Layout(name="2 databases, 8 queues, 16 workers", rate=100_000, databases=2, queues=8,
           workers=16, in_flight=1024),
    Layout(name="4 databases, 16 queues, 32 workers", rate=200_000, databases=4, queues=16,
           workers=32, in_flight=1024),
)  # fmt: skip


def main() -> None:
    print(f"{'layout':36}{'rate/s':>9}{'sent/s':>9}{'p50 ms':>8}{'p99 ms':>8}  fullest")
    for layout in LAYOUTS:
        found = Simulation(layout).run()
        print(
            f"{layout.name:36}{layout.rate:>9,.0f}{found.delivered_per_second:>9,.0f}"
            f"{found.p50_ms:>8,.0f}{found.p99_ms:>8,.0f}  {found.breaks()}"
        )
    day = 100_000 * STORED_BYTES * 86_400
    log = 100_000 * WAL_BYTES
    print(f"\n100,000/s write {log / 1e6:.0f} MB/s of log and {day / 1e12:.0f} TB of rows a day.")


if __name__ == "__main__":
    main()
