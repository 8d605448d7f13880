"""The size of each part: the whole measurement, a quick one, and one small enough for a test."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    # Every compared figure is the median of this many alternating runs.
    rounds: int
    # MiB of write-ahead log written before the measurements: more than any round writes.
    wal_mib: int
    engine_rows: int
    naive_rows: int
    bare_requests: int
    two_workers_rows: int
    # Rows of 100 webhooks, ten of which never respond.
    isolation_rows: int
    dead_timeout_seconds: int
    idle_publishes: int
    paced_seconds: float
    # Idle, without an event: first until each periodic task has run once, then while measuring.
    idle_start_seconds: float
    idle_seconds: float
    # Finished deliveries (one attempt each) behind the due ones; the last count is compared with
    # the first.
    history_rows: tuple[int, ...]
    growth_batches: int
    # Number of webhooks that have due rows or wait beside others; and that get one event.
    many_webhooks: tuple[int, ...]
    many_rounds: int
    many_rows: int
    wide_webhooks: int
    publish_events: int
    posts: int
    sqlite_rows: int


FULL = Scale(
    rounds=5,
    wal_mib=1024,
    engine_rows=60_000,
    naive_rows=1_000,
    bare_requests=80_000,
    two_workers_rows=60_000,
    isolation_rows=200_000,
    dead_timeout_seconds=5,
    idle_publishes=300,
    paced_seconds=18.0,
    idle_start_seconds=36.0,
    idle_seconds=60.0,
    history_rows=(10_000, 1_000_000, 10_000_000),
    growth_batches=40,
    many_webhooks=(10_000, 100_000),
    many_rounds=3,
    many_rows=60_000,
    wide_webhooks=20_000,
    publish_events=20_000,
    posts=6_000,
    sqlite_rows=10_000,
)
QUICK = Scale(
    rounds=3,
    wal_mib=1024,
    engine_rows=50_000,
    naive_rows=200,
    bare_requests=30_000,
    two_workers_rows=20_000,
    isolation_rows=40_000,
    dead_timeout_seconds=1,
    idle_publishes=60,
    paced_seconds=4.0,
    idle_start_seconds=12.0,
    idle_seconds=10.0,
    history_rows=(10_000, 1_000_000),
    growth_batches=20,
    many_webhooks=(10_000,),
    many_rounds=3,
    many_rows=20_000,
    wide_webhooks=5_000,
    publish_events=5_000,
    posts=3_000,
    sqlite_rows=3_000,
)
SMOKE = Scale(
    rounds=1,
    wal_mib=16,
    engine_rows=2_000,
    naive_rows=20,
    bare_requests=2_000,
    two_workers_rows=1_000,
    isolation_rows=2_000,
    dead_timeout_seconds=1,
    idle_publishes=5,
    paced_seconds=0.5,
    idle_start_seconds=3.0,
    idle_seconds=1.0,
    history_rows=(100, 1_000),
    growth_batches=2,
    many_webhooks=(2_000,),
    many_rounds=1,
    many_rows=2_000,
    wide_webhooks=500,
    publish_events=500,
    posts=80,
    sqlite_rows=300,
)


def chosen() -> Scale:
    """Return the scale that `QUICK=1` or `SMOKE=1` in the environment asks for."""
    if os.environ.get("SMOKE") == "1":
        return SMOKE
    return QUICK if os.environ.get("QUICK") == "1" else FULL
