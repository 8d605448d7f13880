"""Run every part; print a table and, on the last line, JSON. `QUICK=1` runs smaller samples.

Options: `--plans FILE` writes the plans of the hot statements there; `--only PART` runs one part.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pprint import pprint
from typing import TypeVar

from tests.bench import (
    embedded,
    front_door,
    growth,
    isolation,
    lone,
    machine,
    many,
    publish_rate,
    report,
    throughput,
)
from tests.bench.scale import Scale, chosen
from tests.bench.stage import Stage

_T = TypeVar("_T")
# The delivery rate that latency is measured at when throughput was not measured before.
_ASSUMED_RATE = 10_000.0
_PARTS: dict[str, Callable[[Stage, Scale], object]] = {
    "throughput": throughput.compare,
    "workers": throughput.compare_workers,
    "isolation": isolation.measure_rates,
    "latency": lambda stage, scale: isolation.measure_latency(stage, scale, _ASSUMED_RATE),
    "lone": lone.measure,
    "publish": publish_rate.measure,
    "http": front_door.measure,
    "sqlite": embedded.measure,
    "many": many.measure,
    "growth": growth.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--plans", type=Path, help="write the plans of the hot statements here")
    parser.add_argument("--only", choices=_PARTS, help="run one part and print what it found")
    options = parser.parse_args()
    # Exit normally on SIGTERM, so that the servers are stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with Stage() as stage:
        _print_machine(stage)
        stage.fill_wal(chosen().wal_mib)
        if options.only:
            part = _PARTS[options.only](stage, chosen())
            pprint(part)
            _write_plans(options.plans, part)
            return
        found = _measure(stage, chosen())
    _write_plans(options.plans, found.growth)
    print(f"\n{report.table(found)}\n\nTook {time.monotonic() - began:.0f} s.")
    print(report.json_line(found))


def _measure(stage: Stage, scale: Scale) -> report.Findings:
    rates = _timed(stage, "throughput", partial(throughput.compare, stage, scale))
    pairs = _timed(stage, "two workers", partial(throughput.compare_workers, stage, scale))
    isolated = _timed(stage, "isolation", partial(isolation.measure_rates, stage, scale))
    full = sorted(rates.engine)[len(rates.engine) // 2]
    latency = _timed(stage, "latency", partial(isolation.measure_latency, stage, scale, full))
    alone = _timed(stage, "lone", partial(lone.measure, stage, scale))
    published = _timed(stage, "publish", partial(publish_rate.measure, stage, scale))
    http = _timed(stage, "http", partial(front_door.measure, stage, scale))
    sqlite = _timed(stage, "sqlite", partial(embedded.measure, stage, scale))
    many_found = _timed(stage, "many webhooks", partial(many.measure, stage, scale))
    # Last, because it leaves a large database behind.
    grown = _timed(stage, "growth", partial(growth.measure, stage, scale))
    return report.Findings(
        rates=rates,
        pairs=pairs,
        isolation=isolated,
        latency=latency,
        lone=alone,
        growth=grown,
        many=many_found,
        publishing=published,
        http=http,
        sqlite=sqlite,
    )


def _write_plans(file: Path | None, part: object) -> None:
    if file is not None and isinstance(part, growth.Growth):
        plans = (f"{name}\n{plan}" for name, plan in part.plans.items())
        file.write_text("\n\n".join(plans) + "\n")


def _timed(stage: Stage, name: str, measure: Callable[[], _T]) -> _T:
    print(f"{name} ...", end="", file=sys.stderr, flush=True)
    began = time.monotonic()
    result = measure()
    stage.clear()
    print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return result


def _print_machine(stage: Stage) -> None:
    version = stage.query("SHOW server_version")[0][0]
    durable = [stage.query(f"SHOW {name}")[0][0] for name in ("fsync", "synchronous_commit")]
    postgres = f"{version}, fsync {durable[0]}, synchronous_commit {durable[1]}"
    for name, value in machine.describe(postgres, stage.receiver.description):
        print(f"{name:10}  {value}")


if __name__ == "__main__":
    main()
