"""R1-R40: every misbehaviour at once against one real worker, with healthy receivers beside it.

All at once is harder than one after the other: no receiver may affect another.
"""

import datetime as dt
import ssl
import threading
import time
import warnings
from collections import defaultdict
from dataclasses import dataclass, field

from django.db import connection

from tests.faults.cases import Case, cases
from tests.faults.certificates import Authority
from tests.faults.misbehaviour import Blackhole, Refusing, Seen
from tests.faults.processes import Process
from tests.faults.world import EVENT, World, fresh_connection
from tests.services import HOST
from webhooks import events
from webhooks.models import Attempt, Delivery, Outcome, Status, Webhook

TIMEOUT_SECONDS = 2
# An attempt must be recorded within the timeout plus this.
SLACK_SECONDS = 1.0
MEMORY_BYTES = 32 * 2**20
# Healthy deliveries beside the faults arrive within this time, even on a busy machine.
HEALTHY_SECONDS = 2.0
SECOND_EVENT = "call.incoming.before"
LARGE_EVENT = "form.submitted"
_HEALTHY_EVENT = "deal.created"
_LARGE_BYTES = 600_000


@dataclass(slots=True)
class Running:
    """A case, its webhook, and the problems found in its records."""

    case: Case
    webhook: Webhook
    problems: list[str] = field(default_factory=list)


class Sampler:
    """Samples the worker's memory and the logged attempts every 50 ms."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stop = threading.Event()
        self.first_bytes = process.rss_bytes
        self.most_bytes = self.first_bytes
        # (delivery id, attempt number): Unix time at which the attempt was first seen.
        self.seen_at: dict[tuple[str, int], float] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def growth_bytes(self) -> int:
        return self.most_bytes - self.first_bytes

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.wait(0.05)
            self.most_bytes = max(self.most_bytes, self._process.rss_bytes)
            now = time.time()
            for key in Attempt.objects.values_list("delivery_id", "number"):
                self.seen_at.setdefault(key, now)
        connection.close()


def run(world: World) -> dict[str, list[str]]:
    """Run every case once; return the problems found, by id."""
    authority = Authority(world.directory)
    seen = Seen()
    sockets: list[Refusing | Blackhole] = []
    redirect_port = world.loop.serve(seen.target)
    running = [
        _start(case, world, authority, sockets) for case in cases(seen, redirect_port=redirect_port)
    ]
    world.webhook("/healthy", event_types=["deal.*"])
    worker = world.any_worker({"FAULT_CA": str(authority.path)})
    try:
        _warm_up(world)
        sampler = Sampler(worker)
        try:
            slowest = _misbehave(world, running)
        finally:
            sampler.stop()
    finally:
        for held in sockets:
            held.close()
    for item in running:
        _judge(item, sampler)
    problems: dict[str, list[str]] = defaultdict(list)
    for item in running:
        problems[item.case.id] += [f"{item.case.title}: {text}" for text in item.problems]
    if seen.cookies:
        problems["R35"].append("a cookie was sent back")
    if seen.redirected:
        problems["R24"].append("the redirect was followed")
    together = _together(world, sampler, slowest)
    world.notes += [
        f"memory +{sampler.growth_bytes / 2**20:.1f} MiB",
        f"slowest healthy {slowest:.2f} s",
    ]
    # Problems of the whole run are added to every case.
    return {id: [*found, *together] for id, found in problems.items()}


def _start(
    case: Case, world: World, authority: Authority, sockets: list[Refusing | Blackhole]
) -> Running:
    if case.handler is not None:
        context = None
        if case.tls not in ("", "none"):
            context = _context(authority, case.tls)
        port = world.loop.serve(case.handler, tls=context)
    else:
        item = Refusing() if case.id == "R1" else Blackhole()
        sockets.append(item)
        port = item.port
    types = [EVENT, SECOND_EVENT] if case.events == 2 else [EVENT]
    fields = {"event_types": types, "retry_schedule_seconds": [], **case.fields}
    webhook = world.webhook(f"{case.id} {case.title}", timeout_seconds=TIMEOUT_SECONDS, **fields)
    scheme = "https" if case.tls else "http"
    Webhook.objects.filter(pk=webhook.pk).update(url=f"{scheme}://{HOST}:{port}/")
    return Running(case, webhook)


def _context(authority: Authority, kind: str) -> ssl.SSLContext:
    if kind == "expired":
        return authority.context(kind, days=-1)
    if kind == "self-signed":
        return authority.context(kind, is_self_signed=True)
    if kind == "wrong-name":
        return authority.context(kind, address="127.0.0.99")
    context = authority.context(kind)
    if kind == "old-protocol":
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def _warm_up(world: World) -> None:
    """Let the worker start and open its first connections before its memory is measured."""
    for _ in range(3):
        _publish(world, _HEALTHY_EVENT)
    world.settle()


def _publish(world: World, type: str, **payload: object) -> None:
    world.accept(lambda: [events.publish(type, {"call_id": "c", **payload})])


def _misbehave(world: World, running: list[Running]) -> float:
    """Publish to every case, and steadily to the healthy webhook; return its slowest seconds."""
    began_at = dt.datetime.now(dt.UTC)
    _publish(world, LARGE_EVENT, padding="x" * _LARGE_BYTES)
    _publish(world, EVENT)
    ends = time.monotonic() + TIMEOUT_SECONDS + SLACK_SECONDS + 1
    while time.monotonic() < ends:
        _publish(world, _HEALTHY_EVENT)
        time.sleep(0.1)
    _publish(world, SECOND_EVENT)
    _publish(world, _HEALTHY_EVENT)
    ids = [item.webhook.pk for item in running]
    deliveries = Delivery.objects.filter(webhook__in=ids)
    world.wait(
        lambda: (
            not deliveries.filter(attempt_count=0).exists()
            and not Delivery.objects.filter(status=Status.SENDING).exists()
        ),
        20,
        "A first attempt at every receiver",
    )
    healthy = Delivery.objects.filter(webhook__name="/healthy")
    world.wait(lambda: not healthy.exclude(status=Status.SUCCEEDED).exists(), 20, "Healthy ones")
    times = healthy.filter(created_at__gte=began_at).values_list("created_at", "finished_at")
    return max((finished - created).total_seconds() for created, finished in times if finished)


def _judge(item: Running, sampler: Sampler) -> None:
    """Compare the recorded first attempts of a case with what they must be."""
    case = item.case
    with fresh_connection():
        attempts = list(Attempt.objects.filter(delivery__webhook=item.webhook).order_by("id"))
        firsts = [attempt for attempt in attempts if attempt.number == 1]
        if len(firsts) != case.events:
            item.problems.append(f"{len(firsts)} first attempts, not {case.events}")
        for attempt in firsts:
            _judge_attempt(item, attempt, sampler)
        if case.delay_seconds is not None:
            _judge_delay(item, case.delay_seconds)
        if Outcome.GONE in case.outcomes:
            item.webhook.refresh_from_db()
            if item.webhook.is_active:
                item.problems.append("the webhook was not paused")


def _judge_attempt(item: Running, attempt: Attempt, sampler: Sampler) -> None:
    if attempt.outcome not in item.case.outcomes.split():
        item.problems.append(f"recorded as {attempt.outcome}: {attempt.error}")
    if attempt.outcome != Outcome.SUCCEEDED and not attempt.error:
        item.problems.append("no sentence says what went wrong")
    seen_at = sampler.seen_at.get((attempt.delivery_id, attempt.number))
    if seen_at is None:
        item.problems.append("was not recorded in time")
        return
    seconds = seen_at - attempt.started_at.timestamp()
    if seconds > TIMEOUT_SECONDS + SLACK_SECONDS:
        item.problems.append(f"took {seconds:.2f} s")
    if len(attempt.response_body) > 65_536:
        item.problems.append(f"{len(attempt.response_body)} bytes of body stored")
    if any(character in attempt.response_headers + attempt.error for character in "\0\x1b"):
        item.problems.append("control characters stored")


def _judge_delay(item: Running, bounds: tuple[float, float]) -> None:
    delivery = Delivery.objects.get(webhook=item.webhook)
    if delivery.next_attempt_at is None:
        item.problems.append(f"is {delivery.status} and not retried")
        return
    attempt = Attempt.objects.filter(delivery=delivery).latest("id")
    seconds = (delivery.next_attempt_at - attempt.started_at).total_seconds()
    if delivery.attempt_count == 1 and not bounds[0] <= seconds <= bounds[1] + SLACK_SECONDS:
        item.problems.append(f"retried after {seconds:.0f} s, not {bounds[0]} to {bounds[1]} s")


def _together(world: World, sampler: Sampler, slowest: float) -> list[str]:
    found = []
    if sampler.growth_bytes > MEMORY_BYTES:
        found.append(f"memory grew by {sampler.growth_bytes / 2**20:.0f} MiB")
    if slowest > HEALTHY_SECONDS:
        found.append(f"a healthy delivery took {slowest:.1f} s")
    return found
