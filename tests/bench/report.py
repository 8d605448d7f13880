"""The table for people and the line of JSON for programs."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.front_door import FrontDoor
from tests.bench.growth import Growth
from tests.bench.isolation import Isolation, Latency
from tests.bench.lone import Lone
from tests.bench.many import Many
from tests.bench.publish_rate import Publishing
from tests.bench.steady_rate import Times
from tests.bench.throughput import Pairs, Rates, growth_mib

Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    rates: Rates
    pairs: Pairs
    isolation: Isolation
    latency: Latency
    lone: Lone
    growth: Growth
    many: Many
    publishing: Publishing
    http: FrontDoor
    sqlite: list[float]

    def ratio(self) -> float:
        return _median(self.rates.engine) / _median(self.rates.naive)

    def of_bare_client(self) -> float:
        return _median(self.rates.engine) / _median(self.rates.bare)

    def two_workers_cpu_ratio(self) -> float:
        return _median(self.pairs.two_us) / _median(self.pairs.one_us)

    def isolation_rate(self) -> float:
        return _median(_ratios(self.isolation.beside, self.isolation.alone))

    def isolation_p99_ratio(self) -> float:
        beside = [times.percentile(99) for times in self.latency.half_beside]
        alone = [times.percentile(99) for times in self.latency.half]
        return _median(_ratios(beside, alone))


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return the ratio of each round, whose two halves ran one after the other."""
    return [value / other for value, other in zip(values, others, strict=True)]


def _percentile(rounds: Sequence[Times], percent: float) -> float:
    return _median([times.percentile(percent) for times in rounds])


def json_line(found: Findings) -> str:
    latency = {
        name: {f"p{percent}": round(_percentile(rounds, percent), 1) for percent in (50, 99)}
        for name, rounds in (("idle", found.latency.idle), ("half", found.latency.half))
    }
    return json.dumps(
        {
            "engine_per_core": round(_median(found.rates.engine)),
            "naive_per_core": round(_median(found.rates.naive), 1),
            "ratio": round(found.ratio(), 1),
            "bare_client_per_core": round(_median(found.rates.bare)),
            "of_bare_client": round(found.of_bare_client(), 3),
            "two_workers_rate": round(_median(found.pairs.two_rate)),
            "two_workers_cpu_ratio": round(found.two_workers_cpu_ratio(), 3),
            "isolation_rate": round(found.isolation_rate(), 3),
            "isolation_p99_ratio": round(found.isolation_p99_ratio(), 2),
            "latency_idle_ms": latency["idle"],
            "latency_half_ms": latency["half"],
            "statements_per_event": round(found.lone.statements_per_event, 1),
            "idle_cpu_percent": round(found.lone.idle_cpu_percent, 2),
            "growth": {
                "claim_10m_over_10k": round(found.growth.claim_ratio, 2),
                "record_10m_over_10k": round(found.growth.record_ratio, 2),
            },
            "growth_webhooks": found.many.growth("cost_us"),
            "growth_webhooks_p99": found.many.growth("p99_ms"),
            "wide_event_slower": round(found.many.wide_ratio, 2),
            "publish_per_core": round(_median(found.publishing.per_second)),
            "http_publish_per_cpu_s": round(_median(found.http.single)),
            "http_batch_per_cpu_s": round(_median(found.http.batch)),
            "http_publish_ms": {
                f"p{percent}": round(found.http.idle_percentile(percent), 1) for percent in (50, 99)
            },
            "end_to_end_per_cpu_s": round(_median(found.http.end_to_end)),
            "set_pss_mib": round(found.http.pss_mib),
            "sqlite_per_s": round(_median(found.sqlite)),
            "worker_rss_mib": round(_median(found.rates.memory), 1),
        }
    )


def table(found: Findings) -> str:
    """Return one line per figure: its name, its median, and the value of each round."""
    rows = [*_rate_rows(found), *_isolation_rows(found), *_growth_rows(found), *_other_rows(found)]
    name, median = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{row[0]:{name}}  {row[1]:>{median}}  {row[2]}".rstrip() for row in rows)


def _row(name: str, values: Sequence[float], shown: str = "{:,.0f}") -> Row:
    return name, shown.format(_median(values)), " ".join(shown.format(value) for value in values)


def _rate_rows(found: Findings) -> list[Row]:
    rates, pairs = found.rates, found.pairs
    return [
        ("", "median", "rounds"),
        _row("engine, one worker on one core (/s)", rates.engine),
        _row("one task per delivery (/s)", rates.naive),
        _row("bare libcurl loop (/s)", rates.bare),
        ("engine over one task per delivery", f"{found.ratio():.1f}", "at least 100"),
        ("engine over bare libcurl", f"{found.of_bare_client():.3f}", "at least 0.333"),
        _row("CPU per delivery: worker (us)", rates.worker_us),
        _row("CPU per delivery: PostgreSQL (us)", rates.postgres_us),
        _row("CPU per delivery: receiver (us)", rates.receiver_us),
        _row("memory of the worker (MiB)", rates.memory),
        (
            "  grown after the first round (MiB)",
            f"{growth_mib(rates.memory):.1f}",
            "under 150, flat",
        ),
        _row("one worker, nothing pinned (/s)", pairs.one_rate),
        _row("two workers, nothing pinned (/s)", pairs.two_rate),
        _row("  CPU per delivery, one (us)", pairs.one_us),
        _row("  CPU per delivery, two (us)", pairs.two_us),
        ("  two over one", f"{found.two_workers_cpu_ratio():.3f}", "at most 1.2"),
    ]


def _isolation_rows(found: Findings) -> list[Row]:
    isolation, latency = found.isolation, found.latency
    rows = [
        _row("healthy rate alone (/s)", isolation.alone),
        _row("healthy rate beside 10 % dead (/s)", isolation.beside),
        _row("  seconds that took", isolation.seconds, "{:.1f}"),
        ("  beside over alone", f"{found.isolation_rate():.3f}", "at least 0.9"),
    ]
    bars = {"idle": "p50 at most 6, p99 at most 20", "half rate": "p99 at most 60"}
    for name, rounds in (
        ("idle", latency.idle),
        ("half rate", latency.half),
        ("half rate beside dead", latency.half_beside),
    ):
        for percent in (50, 99):
            values = [times.percentile(percent) for times in rounds]
            rows.append(_row(f"latency {name}, p{percent} (ms)", values, "{:.1f}"))
        if name in bars:
            rows[-1] = (*rows[-1][:2], f"{rows[-1][2]}  ({bars[name]})")
            for percent in (50, 99):
                values = [times.percentile_from_call(percent) for times in rounds]
                rows.append(_row(f"  from the call, p{percent} (ms)", values, "{:.1f}"))
    rows.append(_row("  published steadily (/s)", [times.rate for times in latency.half]))
    stolen = [100 * times.stolen for times in latency.half]
    rows.append(_row("  taken by other machines of the host (% of CPU)", stolen, "{:.1f}"))
    rows.append(("  p99 beside over alone", f"{found.isolation_p99_ratio():.2f}", "under 2"))
    return rows


def _growth_rows(found: Findings) -> list[Row]:
    rows = []
    for cost in found.growth.costs:
        shown = f"claim {cost.claim_ms:.2f} ms, record {cost.record_ms:.2f} ms"
        rows.append((f"500 rows behind {cost.history:,} finished", "", shown))
    ratios = f"claim {found.growth.claim_ratio:.2f}, record {found.growth.record_ratio:.2f}"
    rows.append(("  last over first", "", f"{ratios}  (at most 1.3)"))
    for name, loads in (("due", found.many.due), ("waiting", found.many.waiting)):
        for count, rounds in loads.items():
            for load in rounds:
                p99 = f"healthy p99 {load.p99_ms:.0f} ms"
                shown = f"{load.cost_us:.0f} us, {load.rate:,.0f}/s, {p99}"
                rows.append((f"{count:,} webhooks {name}", "", shown))
    rows.append(("  cost over 100 webhooks", "", f"{found.many.growth('cost_us')}  (at most 1.3)"))
    rows.append(("  p99 over 100 webhooks", "", f"{found.many.growth('p99_ms')}  (at most 2)"))
    rates, wide = zip(*found.many.wide, strict=True)
    rows.append(_row("one event to many webhooks (/s)", wide))
    rows.append(_row("  as many deliveries of 100 webhooks (/s)", rates))
    slower = f"{found.many.wide_ratio:.2f}  (at most 1.3)"
    rows.append(("  engine over one event to many webhooks", "", slower))
    forgotten = f"{found.growth.retention_seconds:.1f} s"
    rows.append(("  retention of all finished deliveries", "", forgotten))
    flipped = ", ".join(found.growth.flipped) or "none"
    rows.append(("  plans that flipped after ANALYZE of nothing due", "", flipped))
    return rows


def _other_rows(found: Findings) -> list[Row]:
    publishing = found.publishing
    wide = f"{publishing.wide_ms:.1f} ms"
    statements = f"{found.lone.statements_per_event:.1f}"
    return [
        ("statements for one event to one webhook", statements, "at most 7"),
        (
            "worker, PostgreSQL and Redis without work (% of a core)",
            f"{found.lone.idle_cpu_percent:.2f}",
            "under 1",
        ),
        _row("publish_many, one core (events/s)", publishing.per_second),
        ("statements for an event to 1,000 webhooks", str(publishing.statements), wide),
        *_http_rows(found.http),
        _row("SQLite, one process (/s)", found.sqlite),
    ]


def _http_rows(http: FrontDoor) -> list[Row]:
    parts = ", ".join(f"{name} {used:.0f}" for name, used in http.single_us.items())
    bars = ("under 3", "under 8")
    return [
        _row("events for each CPU second, POST to result", http.single),
        ("  CPU of each event (us)", f"{sum(http.single_us.values()):.0f}", parts),
        _row("  POSTs a second, 8 clients", http.single_rate),
        _row("events for each CPU second, in batches of 500", http.batch),
        _row("deliveries for each CPU second, fan-out 100", http.end_to_end),
        *(
            (f"idle POST, p{percent} (ms)", f"{http.idle_percentile(percent):.1f}", bar)
            for percent, bar in zip((50, 99), bars, strict=True)
        ),
        ("memory of the set, PSS under load (MiB)", f"{http.pss_mib:.0f}", "at most 350"),
    ]
