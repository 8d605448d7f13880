"""F35 on: webhooks that starve all others: by requests, names, tokens, limits, bodies or locks."""

import asyncio
import os
import resource
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import psycopg
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Min
from django.utils import timezone

from tests.faults.catalogue import BOTH, fault
from tests.faults.certificates import Authority
from tests.faults.processes import Process
from tests.faults.receiver import read_request
from tests.faults.world import World, check, fresh_connection
from tests.network.dns import name_server
from tests.oauth_fakes import fake_provider, token
from webhooks import events, network
from webhooks.events import NewEvent
from webhooks.models import Attempt, Delivery, HourlyCount, Webhook
from webhooks.tasks import send_alerts

# Maximum time of a healthy delivery from publishing to arrival, whatever other webhooks do, on a
# machine with a load of at most twice its cores; it grows with a higher load.
_LONGEST_SECONDS = 2.0
_HEALTHY = "/healthy"
_WARM_SECONDS = 4.0
# Drains of a few seconds, so that each run has several handovers; few requests in flight.
_SHORT_DRAINS = {"WEBHOOKS_DRAIN_SECONDS": "4", "WEBHOOKS_MAX_IN_FLIGHT": "64"}


def silent_url(world: World) -> str:
    """Return the URL of a server that reads requests and sends nothing."""

    async def say_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            pass

    return f"http://127.0.0.1:{world.loop.serve(say_nothing)}"


def healthy(world: World, count: int, *, urls: Iterable[str] = ()) -> None:
    given = iter(urls)
    for number in range(count):
        path = f"{_HEALTHY}/{number}"
        world.webhook(path, url=next(given, world.receiver.url(path)))


def load_factor() -> float:
    """Return 1, or more if more than twice as many processes want to run as there are cores."""
    return max(1.0, os.getloadavg()[0] / 2 / len(os.sched_getaffinity(0)))


def longest_seconds(world: World) -> float:
    """Return the maximum seconds of a healthy delivery under this machine's current load.

    On SQLite the process that publishes here sends no wakeup: the next poll finds the rows.
    """
    poll = settings.WEBHOOKS_POLL_SECONDS if world.database == "sqlite" else 0.0
    return poll + _LONGEST_SECONDS * load_factor()


def publish_steadily(world: World, seconds: float, *, each: float = 0.25) -> dict[str, float]:
    """Publish events at a steady rate; return the publishing time of each."""
    published: dict[str, float] = {}
    ends = time.monotonic() + seconds
    while (now := time.monotonic()) < ends:
        for event_id in world.publish(1):
            published[event_id] = now
        time.sleep(max(0.0, now + each - time.monotonic()))
    return published


def check_healthy(world: World, published: dict[str, float], count: int) -> None:
    """Check that every healthy webhook got every event, once and soon enough."""

    def arrived() -> list[tuple[float, str]]:
        return [
            (arrival.started_at - published[arrival.event_id], arrival.path)
            for arrival in world.receiver.arrivals
            if arrival.path.startswith(_HEALTHY) and arrival.event_id in published
        ]

    wanted = count * len(published)
    world.wait(lambda: len(arrived()) >= wanted, 30, f"{wanted} healthy arrivals")
    number = max(range(len(arrived())), key=lambda index: arrived()[index][0])
    slowest = arrived()[number][1]
    waits = sorted(wait for wait, _path in arrived())
    note = f"healthy p50 {waits[len(waits) // 2]:.2f} s, slowest {waits[-1]:.2f} s"
    note += f" ({slowest}, number {number} of {len(waits)}), load {os.getloadavg()[0]:.0f}"
    world.notes.append(note)
    check(len(waits) == wanted, f"{len(waits)} arrivals instead of {wanted}")
    check(waits[-1] < longest_seconds(world), note)
    with fresh_connection():
        failed = Attempt.objects.filter(delivery__webhook__name__startswith=_HEALTHY)
        count = failed.exclude(outcome="succeeded").count()
    check(count == 0, f"{count} healthy attempts failed")


def warm_up(world: World) -> None:
    """Wait until the worker delivers, so that its start does not affect the measurement."""
    world.webhook("/first", event_types=["form.submitted"])
    world.accept(lambda: [events.publish("form.submitted", {"form_id": "f", "page_url": "p"})])
    world.wait(lambda: len(world.receiver.arrivals) == 1, 60, "The first delivery")


@contextmanager
def ending(world: World) -> Iterator[None]:
    """Delete the webhooks that can never receive, so that no delivery stays due."""
    try:
        yield
    finally:
        _delete_others()


def _delete_others() -> None:
    with fresh_connection():
        for webhook in Webhook.objects.exclude(name__startswith=_HEALTHY):
            events.delete(webhook)


def note_alone(world: World, published: Mapping[str, float], count: int) -> None:
    """Note the p99 of healthy deliveries beside the others, and when the others are gone.

    Without the first seconds, in which plans are made and pool processes begin; and for as long, so
    that as many drains end.
    """
    begins, ends = min(published.values()) + _WARM_SECONDS, max(published.values())
    published = {event_id: at for event_id, at in published.items() if at >= begins}
    alone = publish_steadily(world, ends - begins)
    world.wait(lambda: len(healthy_waits(world, alone)) >= count * len(alone), 30, "Arriving alone")
    waits = [healthy_waits(world, one) for one in (published, alone)]
    p99 = [1000 * one[int(len(one) * 0.99)] for one in waits]
    world.notes.append(f"p99 {p99[0]:.0f} ms, {p99[1]:.0f} ms without the others")


@fault("F35", "40 receivers hang, over several drains", databases=BOTH)
def hanging_receivers(world: World) -> None:
    with ending(world):
        world.any_worker(_SHORT_DRAINS)
        warm_up(world)
        url = silent_url(world)
        for number in range(40):
            world.webhook(f"/silent/{number}", url=f"{url}/{number}", timeout_seconds=3)
        healthy(world, 6)
        published = publish_steadily(world, 14)
        check_healthy(world, published, 6)
    note_alone(world, published, 6)


@fault("F36", "100 names whose server does not answer", databases=BOTH)
def silent_names(world: World) -> None:
    _publish_beside_names(world, [f"dead{number}" for number in range(100)], seconds=14)


@fault("F56", "40 names whose answers cannot be read", databases=BOTH)
def garbled_names(world: World) -> None:
    _publish_beside_names(world, [f"garbled{number}" for number in range(40)], seconds=8)


def _publish_beside_names(world: World, names: Iterable[str], *, seconds: float) -> None:
    """Deliver to ten resolvable host names, beside webhooks with the given names."""
    with name_server("127.0.0.1") as port, ending(world):
        world.any_worker({"FAULT_DNS_PORT": str(port), **_SHORT_DRAINS})
        warm_up(world)
        for name in names:
            world.webhook(f"/{name}", url=f"http://{name}.example.com:8080/")
        there = f"example.com:{world.receiver.port}{_HEALTHY}"
        healthy(world, 10, urls=(f"http://live{number}.{there}/{number}" for number in range(10)))
        published = publish_steadily(world, seconds, each=0.5)
        check_healthy(world, published, 10)
        # With the same name server.
        _delete_others()
        note_alone(world, published, 10)


@fault("F37", "60 authorization servers hang, another one gives short tokens", databases=BOTH)
def hanging_authorization_servers(world: World) -> None:
    with fake_provider() as provider, ending(world):
        provider.reply(token(expires_in=3))
        world.any_worker(_SHORT_DRAINS)
        warm_up(world)
        healthy(world, 5)
        for number in range(5, 10):
            _with_token(world, f"{_HEALTHY}/{number}", provider.token_url)
        world.publish(1)
        world.wait_for_arrivals(11)
        for number in range(60):
            _with_token(world, f"/token/{number}", f"{silent_url(world)}/token")
        published = publish_steadily(world, 14, each=0.5)
        check_healthy(world, published, 10)
        check(len(provider.requests) > 10, "the healthy webhooks needed no new tokens")
        _delete_others()
        note_alone(world, published, 10)


def _with_token(world: World, path: str, token_url: str) -> None:
    world.webhook(
        path,
        authorization_type="oauth2",
        grant_type="client_credentials",
        token_url=token_url,
        client_id="client",
        client_secret="secret",
    )


@fault("F38", "a drain ends while receivers take long", databases=BOTH)
def slow_receivers_at_the_end(world: World) -> None:
    with ending(world):
        environment = {**_SHORT_DRAINS, "WEBHOOKS_LEASE_SECONDS": "20"}
        world.any_worker({**environment, "WEBHOOKS_DRAIN_SECONDS": "3"})
        warm_up(world)
        for number in range(4):
            path = f"/slow/{number}"
            world.receiver.delays[path] = 8.0
            world.webhook(path, timeout_seconds=12)
        healthy(world, 6)
        published = publish_steadily(world, 25)
        check_healthy(world, published, 6)
        with fresh_connection():
            slow = Attempt.objects.filter(delivery__webhook__name__startswith="/slow")
            check(slow.filter(outcome="succeeded").exists(), "no slow receiver got anything")
            check(not slow.exclude(outcome="succeeded").exists(), "a slow receiver was cut off")
    note_alone(world, published, 6)


@fault("F40", "a worker may open few files", databases=BOTH)
def few_files(world: World) -> None:
    worker = _busy_worker(world, {"FAULT_FILES": "80"})
    world.publish(30)
    _check_lack(world, worker, "too_few_descriptors")


def _busy_worker(world: World, environment: Mapping[str, str] | None = None) -> Process:
    """Start a worker that sends to twenty webhooks at once."""
    worker = world.any_worker(environment)
    warm_up(world)
    world.receiver.delays[""] = 0.05
    for number in range(20):
        world.webhook(f"{_HEALTHY}/{number}")
    return worker


def _check_lack(world: World, worker: Process, line: str) -> None:
    """Check that a worker logged what it lacked, and that no attempt failed because of it."""
    world.settle()
    world.verify()
    with fresh_connection():
        failed = Attempt.objects.exclude(outcome="succeeded").count()
    check(failed == 0, f"{failed} attempts failed for what the worker lacked")
    check(line in worker.log, "the worker had enough of them")


@fault("F54", "a worker that has connections may open no more files", databases=BOTH)
def no_more_files(world: World) -> None:
    worker = _busy_worker(world)
    world.publish(2)
    world.settle()
    for pid in (worker.pid, *worker.children):
        most = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 6
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))
    world.publish(20)
    _check_lack(world, worker, "machine_lacks")


@fault("F60", "the file of certificate authorities is gone for a while", databases=BOTH)
def no_authorities(world: World) -> None:
    authority = Authority(world.directory)
    port = world.receiver.listen(world.loop, authority.context("good"))
    # libcurl reads the file at the first request of each drain.
    short = {"WEBHOOKS_DRAIN_SECONDS": "2", "FAULT_CA": str(authority.path)}
    worker = _busy_worker(world, short)
    world.webhook("/secure", url=f"https://127.0.0.1:{port}/secure")
    gone = authority.path.rename(world.directory / "gone.pem")
    publish_steadily(world, 8)
    gone.rename(authority.path)
    _check_lack(world, worker, "machine_lacks")


@fault("F41", "300 ordered webhooks whose heads wait for a retry", databases=BOTH)
def blocked_orders(world: World) -> None:
    with ending(world):
        world.any_worker(_SHORT_DRAINS)
        warm_up(world)
        for number in range(300):
            world.webhook(f"/ordered/{number}", is_ordered=True, event_types=["form.submitted"])
        form = {"form_id": "f", "page_url": "p"}
        with transaction.atomic():
            world.accept(lambda: events.publish_many([NewEvent("form.submitted", form)] * 3))
            heads = Delivery.objects.filter(webhook__is_ordered=True).values("webhook")
            firsts = heads.annotate(head=Min("id")).values_list("head", flat=True)
            later = timezone.now() + timedelta(hours=1)
            Delivery.objects.filter(pk__in=list(firsts)).update(next_attempt_at=later)
        healthy(world, 6)
        before = _transactions(world)
        published = publish_steadily(world, 10)
        check_healthy(world, published, 6)
        world.notes.append(f"{(_transactions(world) - before) / 10:.0f} transactions a second")
        arrived = sum(one.path.startswith("/ordered") for one in world.receiver.arrivals)
        check(arrived == 0, f"{arrived} deliveries passed the head of their webhook")
    note_alone(world, published, 6)


@fault("F62", "300 receivers hang, and new webhooks come", databases=BOTH)
def new_beside_hanging(world: World) -> None:
    with ending(world):
        world.any_worker()
        warm_up(world)
        url = silent_url(world)
        for number in range(300):
            world.webhook(f"/silent/{number}", url=f"{url}/{number}", timeout_seconds=3)
        # Until each was tried once; before that, they are as promising as a new webhook.
        publish_steadily(world, 10)
        published: dict[str, float] = {}
        for number in range(6):
            world.webhook(f"{_HEALTHY}/{number}", event_types=["form.submitted"])
            [event_id] = _publish_form(world)
            published[event_id] = time.monotonic()
            publish_steadily(world, 2)
        # The first webhook got six events, the last one got one.
        world.wait(lambda: len(healthy_waits(world, published)) == 21, 30, "21 healthy arrivals")
        slowest = healthy_waits(world, published)[-1]
        world.notes.append(f"slowest {slowest:.2f} s, load {os.getloadavg()[0]:.0f}")
        check(slowest < longest_seconds(world), f"slowest {slowest:.2f} s")


@fault("F65", "400 quick receivers hang, all at once", databases=BOTH)
def sudden_silence(world: World) -> None:
    with ending(world):
        world.any_worker({"WEBHOOKS_LEASE_SECONDS": "20"})
        warm_up(world)
        _begin_to_hang(world, 400, timeout_seconds=8)
        check_healthy(world, publish_steadily(world, 10), 6)


def _begin_to_hang(world: World, count: int, *, timeout_seconds: int) -> list[str]:
    """Make webhooks, and six healthy ones after them; let their quick receivers begin to hang."""
    paths = [f"/sudden/{number}" for number in range(count)]
    for path in paths:
        world.webhook(path, timeout_seconds=timeout_seconds)
    healthy(world, 6)
    # Several rounds, after which each receiver is known to be quick.
    for _ in range(4):
        world.publish(3)
        world.settle()
    # A response after the timeout is none.
    world.receiver.statuses.update(dict.fromkeys(paths, 500))
    world.receiver.delays.update(dict.fromkeys(paths, 30.0))
    return paths


_LOCK_DELIVERY = """
SELECT FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id
WHERE w.name = '/locked' AND d.status = 'sending' FOR UPDATE OF d
"""
_LOCK_HEALTH = """
SELECT FROM webhooks_webhookstate s JOIN webhooks_webhook w ON w.id = s.webhook_id
WHERE w.name = '/locked' FOR UPDATE OF s
"""


@fault("F66", "a delivery in flight and its webhook's health are kept locked")
def forgotten_transaction(world: World) -> None:
    with ending(world):
        world.any_worker({"WEBHOOKS_LEASE_SECONDS": "40"})
        warm_up(world)
        world.webhook("/locked")
        healthy(world, 6)
        world.publish(1)
        world.settle()
        world.receiver.delays["/locked"] = 3.0
        world.publish(1)
        with psycopg.connect(**connection.get_connection_params()) as own:
            for name, statement in (("in flight", _LOCK_DELIVERY), ("with health", _LOCK_HEALTH)):
                world.wait(lambda sql=statement: own.execute(sql).rowcount == 1, 10, f"One {name}")
            published = publish_steadily(world, 20)
            world.wait(lambda: _are_recorded(published), 10, "Recording what is not locked")
            own.rollback()
        check_healthy(world, published, 6)


_LOCK_ROWS = (
    "SELECT FROM webhooks_webhook w {where} FOR UPDATE OF w",
    "SELECT FROM webhooks_credential c JOIN webhooks_webhook w ON w.credential_id = c.id"
    " {where} FOR UPDATE OF c",
    "SELECT FROM webhooks_oauthtoken t JOIN webhooks_webhook w USING (credential_id)"
    " {where} FOR UPDATE OF t",
    "SELECT FROM webhooks_webhookstate s JOIN webhooks_webhook w ON w.id = s.webhook_id"
    " {where} FOR UPDATE OF s",
    "SELECT FROM webhooks_hourlycount h JOIN webhooks_webhook w ON w.id = h.webhook_id"
    " {where} FOR UPDATE OF h",
    "SELECT FROM webhooks_delivery d JOIN webhooks_webhook w ON w.id = d.webhook_id"
    " {where} AND d.status = 'pending' FOR UPDATE OF d",
)


@fault("F67", "every row of some webhooks is kept locked, while they have all kinds of trouble")
def forgotten_rows(world: World) -> None:
    with fake_provider() as provider, ending(world):
        provider.reply(token(expires_in=3600))
        world.any_worker(_SHORT_DRAINS)
        warm_up(world)
        world.webhook("/locked/plain")
        world.webhook("/locked/ordered", is_ordered=True)
        world.webhook("/locked/limited", rate_limit=5, rate_limit_seconds=1)
        world.webhook("/locked/gone")
        world.webhook("/locked/failing")
        _with_token(world, "/locked/refused", provider.token_url)
        healthy(world, 6)
        world.publish(1)
        world.settle()
        world.wait(lambda: HourlyCount.objects.count() >= 13, 10, "Counting")
        # Each gets a row that waits for a retry.
        paths = [f"/locked/{name}" for name in ("plain", "ordered", "limited", "gone", "failing")]
        world.receiver.statuses.update(dict.fromkeys(paths, 503))
        world.publish(1)
        world.wait(lambda: _retrying() == len(paths), 10, "Waiting for a retry")
        world.receiver.statuses.update({"/locked/gone": 410, "/locked/refused": 401})
        with psycopg.connect(**connection.get_connection_params()) as own:
            for statement in _LOCK_ROWS:
                found = own.execute(statement.format(where="WHERE w.name LIKE '/locked/%'"))
                check(found.rowcount > 0, f"nothing to lock: {statement}")
            world.receiver.statuses.update(dict.fromkeys(paths[:3], 200))
            published = publish_steadily(world, 24)
            world.wait(lambda: _are_recorded(published), 10, "Recording what is not locked")
            own.rollback()
        world.receiver.statuses.clear()
        check_healthy(world, published, 6)


def _retrying() -> int:
    rows = Delivery.objects.filter(status="pending", attempt_count__gte=1)
    return rows.filter(webhook__name__startswith="/locked/").count()


def _are_recorded(published: Mapping[str, float]) -> bool:
    sent = Delivery.objects.filter(event_id__in=published, webhook__name__startswith=_HEALTHY)
    return not sent.exclude(status="succeeded").exists()


def _publish_form(world: World, page_url: str = "p") -> list[str]:
    form = {"form_id": "f", "page_url": page_url}
    return world.accept(lambda: [events.publish("form.submitted", form)])


def healthy_waits(world: World, published: Mapping[str, float]) -> list[float]:
    return sorted(
        arrival.started_at - published[arrival.event_id]
        for arrival in world.receiver.arrivals
        if arrival.path.startswith(_HEALTHY) and arrival.event_id in published
    )


@fault("F63", "bodies of 10 MB are made for ten webhooks", databases=BOTH)
def large_bodies(world: World) -> None:
    with ending(world):
        worker = world.any_worker()
        warm_up(world)
        healthy(world, 6)
        template = ",".join(f'"{number}": "{{{{ page_url }}}}"' for number in range(10))
        for number in range(10):
            world.webhook(
                f"/large/{number}",
                event_types=["form.submitted"],
                body_template=f"{{{template}}}",
                timeout_seconds=3,
            )
        # Receivers known to be quick get many rows claimed at a time.
        _publish_form(world)
        world.publish(1)
        world.wait_for_arrivals(1 + 11 + 6)
        before = worker.rss_bytes
        for _ in range(8):
            _publish_form(world, "x" * 1_000_000)
        published = publish_steadily(world, 10)
        grown = (worker.rss_bytes - before) / 2**20
        world.notes.append(f"the worker grew by {grown:.0f} MiB")
        check(grown < 300, f"the worker grew by {grown:.0f} MiB")
        check_healthy(world, published, 6)


@fault("F64", "twenty receivers whose answers take long to judge or mask", databases=BOTH)
def answers_to_judge(world: World) -> None:
    secret = "whsec_" + "RmVpbmRsaWNoZXIgRW1wZmFlbmdlcg" * 2
    begun = b"".join(secret[6:15].encode() + code for code in (b"%25", b"\\u0025", b"&amp;")) * 600
    to_mask = (
        b"HTTP/1.1 500 No\r\nX: " + begun[:16_000] + b"\r\nContent-Length: 20000\r\n\r\n"
    ) + begun[:20_000]

    async def say_commas(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"," * 70_000)
            await writer.drain()

    async def say_secret(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            await read_request(reader)
            writer.write(to_mask)
            await writer.drain()

    with ending(world):
        world.any_worker()
        warm_up(world)
        healthy(world, 6)
        url = f"http://127.0.0.1:{world.loop.serve(say_commas)}"
        for number in range(10):
            world.webhook(
                f"/commas/{number}",
                url=f"{url}/{number}",
                event_types=["form.submitted"],
                response_rule="succeeds",
                response_variable="ok",
                response_operator="equals",
                response_value="true",
            )
        url = f"http://127.0.0.1:{world.loop.serve(say_secret)}"
        for number in range(10):
            world.webhook(
                f"/secret/{number}",
                url=f"{url}/{number}",
                event_types=["form.submitted"],
                signing_secret=secret,
            )
        for _ in range(200):
            _publish_form(world)
        check_healthy(world, publish_steadily(world, 12), 6)


def _transactions(world: World) -> int:
    if world.postgres is None:
        return 0
    with fresh_connection(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        )
        return int(cursor.fetchone()[0])


@fault(
    "F68", "a receiver that closes each connection used up the ports to its address", databases=BOTH
)
def used_up_ports(world: World) -> None:
    with ending(world):
        port = world.receiver.listen(world.loop, closes=True)
        worker = world.any_worker({"FAULT_FEW_PORTS": str(port)})
        warm_up(world)
        for number in range(3):
            path = f"/closing/{number}"
            world.receiver.delays[path] = 0.2
            world.webhook(path, url=f"http://127.0.0.1:{port}{path}")
        healthy(world, 6)
        world.publish(60)
        check_healthy(world, publish_steadily(world, 12), 6)
        check(network.NO_PORTS in worker.log, "the worker had enough ports")
        with fresh_connection():
            wrong = Attempt.objects.exclude(outcome="succeeded")
            check(not wrong.exists(), "an attempt failed for lack of a port")
            there = Delivery.objects.filter(
                webhook__name__startswith="/closing", status="succeeded"
            )
            check(there.count() > 5, "the ports that were free were not used")


@fault(
    "F69", "rows of receivers that hang were in flight at two crashes, among others", databases=BOTH
)
def suspects_of_hanging(world: World) -> None:
    patience = {"WEBHOOKS_LEASE_SECONDS": "20"}
    with ending(world):
        worker = world.any_worker(patience)
        warm_up(world)
        paths = _begin_to_hang(world, 3, timeout_seconds=4)
        world.receiver.delays[""] = 1.2
        world.publish(12)
        for crashes in (0, 1):
            world.wait(lambda count=crashes: _sending(count) >= 40, 60, "Sending again")
            world.kill(worker)
            worker = world.any_worker(patience)
        suspects = Delivery.objects.filter(unknown_count=2)
        world.wait(lambda: suspects.count() >= 40, 60, "The end of their leases")
        world.receiver.delays[""] = 0.0
        hung = _timed_out()
        with fresh_connection():
            of = Counter(suspects.values_list("webhook__name", flat=True))
        world.notes.append(f"{of.total()} suspects of {len(of)} webhooks")
        check(of.keys() >= set(paths), f"too few suspects: {of}")
        world.wait(_are_healthy_done, 60, "Sending the healthy suspects")
        # A busy machine makes receivers that answer slow as well.
        came_first = _timed_out() - hung
        check(came_first <= 6 * load_factor(), f"{came_first} rows that timed out came first")


def _sending(crashes: int) -> int:
    return Delivery.objects.filter(status="sending", unknown_count=crashes).count()


def _timed_out() -> int:
    """Return how many rows timed out; a row that did so is no suspect when it is sent again."""
    with fresh_connection():
        return Attempt.objects.filter(outcome="timeout").values("delivery").distinct().count()


def _are_healthy_done() -> bool:
    rows = Delivery.objects.filter(webhook__name__startswith=_HEALTHY)
    return not rows.exclude(status="succeeded").exists()


@fault("F73", "a mail server whose greeting never ends")
def endless_greeting(world: World) -> None:
    """Each run for alerts would take one of the worker's threads forever."""

    opened: list[asyncio.StreamWriter] = []

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        while not reader.at_eof():
            writer.write(b"220-wait\r\n")
            await writer.drain()
            await asyncio.sleep(1)

    with ending(world):
        url = f"smtp://127.0.0.1:{world.loop.serve(drip)}"
        worker = world.own(
            Process(["manage.py", "worker"], world.directory / "mail.log", {"EMAIL_URL": url})
        )
        warm_up(world)
        healthy(world, 6)
        for number in range(6):
            world.webhook(f"/gone/{number}", alert_recipients=["ops@example.com"])
        pause = {"is_active": False, "pause_reason": "gone", "paused_at": timezone.now()}
        Webhook.objects.filter(name__startswith="/gone").update(**pause)
        for _ in range(6):
            # Each run takes the mail of another webhook.
            send_alerts.delay()
            time.sleep(0.5)
        check_healthy(world, publish_steadily(world, 12), 6)
        world.wait(lambda: "alert_not_sent" in worker.log, 40, "The deadline of the mail")
        send_alerts.delay()
        world.wait(lambda: len(opened) > 1, 40, "The next run")
        world.notes.append(f"SIGTERM took {worker.terminate(40):.0f} s")
