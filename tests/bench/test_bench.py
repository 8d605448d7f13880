"""The bench runs, counts what it should count, and prints the line that programs read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import report, simulation
from tests.bench.front_door import FrontDoor
from tests.bench.growth import Cost, Growth
from tests.bench.isolation import Isolation, Latency
from tests.bench.lone import Lone
from tests.bench.many import Load, Many
from tests.bench.publish_rate import Publishing
from tests.bench.steady_rate import Times
from tests.bench.throughput import Pairs, Rates

ROOT = Path(__file__).resolve().parents[2]
KEYS = [
    "engine_per_core",
    "naive_per_core",
    "ratio",
    "bare_client_per_core",
    "of_bare_client",
    "two_workers_rate",
    "two_workers_cpu_ratio",
    "isolation_rate",
    "isolation_p99_ratio",
    "latency_idle_ms",
    "latency_half_ms",
    "statements_per_event",
    "idle_cpu_percent",
    "growth",
    "growth_webhooks",
    "growth_webhooks_p99",
    "wide_event_slower",
    "publish_per_core",
    "http_publish_per_cpu_s",
    "http_batch_per_cpu_s",
    "http_publish_ms",
    "end_to_end_per_cpu_s",
    "set_pss_mib",
    "sqlite_per_s",
    "worker_rss_mib",
]


def some_findings() -> report.Findings:
    values = [float(value) for value in range(1, 101)]
    times = Times(values, values, 5000.0)
    return report.Findings(
        rates=Rates(
            engine=[15_000.0, 15_200.0, 10_000.0],
            naive=[120.0, 125.0, 130.0],
            bare=[30_000.0, 31_000.0, 29_000.0],
            memory=[100.0, 101.0, 101.0],
            worker_us=[55.0] * 3,
            postgres_us=[45.0] * 3,
            receiver_us=[10.0] * 3,
        ),
        pairs=Pairs(one_rate=[9e3], two_rate=[12e3], one_us=[100.0], two_us=[110.0]),
        isolation=Isolation(alone=[10e3], beside=[9.5e3], seconds=[20.0]),
        latency=Latency(idle=[times], half=[times], half_beside=[times]),
        lone=Lone(statements_per_event=7.0, idle_cpu_percent=0.5),
        many=Many(
            due={
                100: [Load(100.0, 50.0, 1e4), Load(50.0, 50.0, 2e4), Load(100.0, 50.0, 1e4)],
                10_000: [Load(120.0, 60.0, 9e3), Load(61.0, 60.0, 2e4), Load(115.0, 60.0, 9e3)],
            },
            waiting={100: [Load(100.0, 20.0, 1e4)], 100_000: [Load(130.0, 30.0, 9e3)]},
            wide=[(1e4, 8e3), (9e3, 8e3), (8e3, 6e3)],
        ),
        growth=Growth(costs=[Cost(10_000, 8.0, 9.0), Cost(10_000_000, 9.0, 9.0)]),
        publishing=Publishing(per_second=[6000.0], statements=5, wide_ms=20.0),
        http=FrontDoor(
            single=[800.0],
            single_rate=[500.0],
            batch=[5e3],
            idle_ms=values,
            end_to_end=[6e3],
            pss_mib=350.0,
            single_us={"web": 700.0, "postgres": 400.0},
        ),
        sqlite=[2000.0],
    )


def test_the_last_line_has_exactly_the_agreed_keys() -> None:
    line = json.loads(report.json_line(some_findings()))
    assert list(line) == KEYS
    assert line["ratio"] == 120.0
    assert line["of_bare_client"] == 0.5
    assert line["latency_idle_ms"] == {"p50": 51.0, "p99": 100.0}
    assert line["growth_webhooks"] == {"due_10k": 1.2, "waiting_100k": 1.3}
    assert line["wide_event_slower"] == 1.25
    assert line["growth"] == {"claim_10m_over_10k": 1.12, "record_10m_over_10k": 1.0}


def test_the_table_shows_every_round() -> None:
    assert "15,000 15,200 10,000" in report.table(some_findings())


@pytest.mark.once
# Servers and workers start within seconds, unless the machine is busy with other tests.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("part", "found"), [("throughput", "Rates(engine=["), ("growth", "flipped=[]")]
)
def test_a_part_runs_with_real_workers_and_servers(part: str, found: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", "--only", part],
        env={**os.environ, "SMOKE": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert found in done.stdout


def test_the_simulation_delivers_100_000_a_second_and_says_what_is_fullest() -> None:
    layouts = {layout.name: layout for layout in simulation.LAYOUTS}
    good = simulation.Simulation(layouts["2 databases, 8 queues, 16 workers"]).run()
    assert good.delivered_per_second > 99_000
    slow = simulation.Simulation(layouts["the same, receivers take 300 ms"]).run()
    assert slow.breaks().startswith("requests in flight")
