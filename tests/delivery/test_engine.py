"""The whole path: publish, claim, send, record; against a real receiver on a real database."""

import base64
import datetime as dt
import errno
import gzip
import json
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from urllib.parse import urlsplit

import psycopg
import pytest
from django.core.cache import cache
from django.db import ProgrammingError, connection
from django.db.models import Sum
from django.utils import timezone
from pytest_django import Settings
from standardwebhooks.webhooks import Webhook as Verifier

from tests.factories import deliver_all, make_delivery, make_webhook, run_engine
from tests.network.dns import name_server
from tests.oauth_fakes import ReceivedRequest, Reply, fake_provider
from tests.polling import PATIENCE_SECONDS, eventually
from tests.sandbox import Receiver
from tests.security.hostile import answering, asked
from webhooks import events, network
from webhooks.delivery import backlog, due, maintenance, outcomes, queue
from webhooks.delivery import engine as engine_module
from webhooks.delivery.engine import DrainCache, Engine
from webhooks.delivery.queue.rows import Candidate
from webhooks.delivery.recorder import Recorder
from webhooks.delivery.requests import KEPT_BODY_BYTES, Request, Response
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import (
    Attempt,
    Delivery,
    Drain,
    HoldReason,
    HourlyCount,
    Outcome,
    PauseReason,
    Status,
    Trigger,
    Webhook,
    WebhookState,
)
from webhooks.network import guard
from webhooks.ui.status import status_of

pytestmark = pytest.mark.django_db(transaction=True)


def reload(delivery: Delivery) -> Delivery:
    return Delivery.objects.get(pk=delivery.pk)


def test_a_basic_delivery_arrives_signed_and_authorized(receiver: Receiver) -> None:
    webhook = make_webhook(
        url=f"{receiver.url}/basic/hook",
        authorization_type="basic",
        basic_login="demo-login",
        basic_password="demo-password",
    )
    delivery = make_delivery(webhook)
    deliver_all()
    [request] = receiver.requests()
    expected = base64.b64encode(b"demo-login:demo-password").decode()
    assert request.header("Authorization") == f"Basic {expected}"
    assert request.header("webhook-id") == delivery.event_id
    assert Verifier(webhook.signing_secret).verify(
        request.body.decode(), {name.lower(): value for name, value in request.headers}
    )
    assert reload(delivery).status == Status.SUCCEEDED


def test_the_log_keeps_request_and_response(receiver: Receiver) -> None:
    delivery = make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
    deliver_all()
    attempt = Attempt.objects.get(delivery=delivery)
    assert attempt.number == 1
    assert attempt.request_line == f"POST {receiver.url}/open/hook"
    assert f"webhook-id: {delivery.event_id}" in attempt.request_headers
    assert attempt.status_code == 200
    assert attempt.response_headers.startswith("HTTP/1.1 200")
    assert attempt.remote_address == "127.0.0.1"
    assert attempt.total_ms is not None
    assert attempt.total_ms > 0


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("body_format", ["json", "form", "query"])
def test_each_method_carries_each_body_format(
    receiver: Receiver, method: str, body_format: str
) -> None:
    make_delivery(
        make_webhook(url=f"{receiver.url}/open/x", method=method, body_format=body_format)
    )
    deliver_all()
    [request] = receiver.requests()
    assert request.method == method
    if method == "GET" or body_format == "query":
        assert request.body == b""
        assert "call_id=call-1" in request.query
    elif body_format == "form":
        assert b"call_id=call-1" in request.body
    else:
        assert request.json()["call_id"] == "call-1"


def test_a_failing_receiver_is_tried_again_with_the_same_id_and_bytes(receiver: Receiver) -> None:
    delivery = make_delivery(make_webhook(url=f"{receiver.url}/status/503"))
    deliver_all()
    waiting = reload(delivery)
    assert (waiting.status, waiting.attempt_count, waiting.failure_count) == ("pending", 1, 1)
    assert waiting.next_attempt_at is not None
    answered = Attempt.objects.get()
    # 5 s plus or minus a fifth, counted from when the response was recorded.
    assert waiting.next_attempt_at > answered.started_at + dt.timedelta(seconds=4)
    assert waiting.next_attempt_at < timezone.now() + dt.timedelta(seconds=7)
    Delivery.objects.update(next_attempt_at=timezone.now())
    deliver_all()
    first, second = receiver.requests()
    assert first.header("webhook-id") == second.header("webhook-id")
    assert first.body == second.body
    assert [attempt.number for attempt in Attempt.objects.order_by("number")] == [1, 2]


@pytest.mark.parametrize("status", [408, 425, 429, 503])
@pytest.mark.slow
def test_a_receiver_says_when_it_wants_the_next_try(status: int) -> None:
    with fake_provider() as asking:
        asking.reply(Reply(status=status, headers={"Retry-After": "120"}))
        delivery = make_delivery(make_webhook(url=f"{asking.url}/hook"))
        deliver_all()
    due_at = reload(delivery).next_attempt_at
    assert due_at is not None
    assert 100 < (due_at - timezone.now()).total_seconds() < 145


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    delivery = make_delivery(make_webhook(url=f"{receiver.url}/redirect/302?to=/open/elsewhere"))
    deliver_all()
    assert [request.path for request in receiver.requests()] == ["/redirect/302"]
    assert Attempt.objects.get(delivery=delivery).outcome == Outcome.REDIRECT


def test_a_request_that_cannot_be_made_says_why_and_stops_no_one(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{receiver.url}/open/x"
    query = make_webhook(url=url, body_format="query")
    body = make_delivery(make_webhook(url=url), note="x" * 70_000)
    run_engine(lambda: Attempt.objects.count() == 2)
    attempt = Attempt.objects.get(delivery__webhook=query)
    assert attempt.outcome == Outcome.REFUSED
    assert "address" in outcomes.sentence(attempt.error)
    assert "MappingError" not in attempt.error
    assert reload(body).status == Status.SUCCEEDED
    # The attempt holds the reason; a log line for each could be thousands per second.
    assert "Traceback" not in caplog.text


def test_of_a_long_answer_little_more_than_what_is_stored_waits_for_the_database(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[int] = []
    handle = Engine.handle

    def watched(engine: Engine, request: Request, response: Response) -> None:
        kept.append(len(response.body))
        handle(engine, request, response)

    monkeypatch.setattr(Engine, "handle", watched)
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
    with answering({"/plain": long, "/judged": long}) as url:
        make_webhook(url=f"{url}/plain")
        judged = make_webhook(url=f"{url}/judged", success_codes=[200])
        delivery = make_delivery(judged)
        run_engine(lambda: Attempt.objects.count() == 2)
    assert sorted(kept) == [KEPT_BODY_BYTES, 60_000]
    for attempt in Attempt.objects.all():
        assert (len(attempt.response_body), attempt.response_size) == (20_000, 60_000)
    assert reload(delivery).status == Status.SUCCEEDED


def test_long_responses_wait_behind_all_others_and_their_webhooks_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(ProcessWakeup(), lambda: False)
    handled: list[int] = []

    def handle(request: Any, _response: object) -> None:
        handled.append(request.plan.webhook_id)
        time.sleep(0.03)

    def ended(webhook_id: int, body: bytes, headers: bytes = b"") -> Any:
        plan = SimpleNamespace(webhook_id=webhook_id)
        return SimpleNamespace(plan=plan), SimpleNamespace(body=body, headers=headers)

    monkeypatch.setattr(engine, "handle", handle)
    engine.sender.responses.extend([ended(1, bytes(60_000))] * 20)
    engine.sender.responses.extend([ended(2, bytes(100)), ended(3, bytes(60_000))])
    engine.sender.responses.append(ended(4, gzip.compress(b"x" * 20_000)))
    engine.sender.responses.append(ended(5, b"", bytes(3000)))
    engine.collect()
    assert handled == [2, 1]
    # The webhook gets no more claims until most of its responses are judged.
    assert set(engine.claims.slow_to_judge) == {1}
    for _ in range(4):
        engine.collect()
    assert handled == [2, 1, 3, 4, 5, 1]
    while len(engine.unjudged[1]) > 10:
        engine.collect()
    assert set(engine.claims.slow_to_judge) == set()
    engine.judge_long(math.inf)
    assert len(handled) == 24


def test_an_event_that_makes_too_large_a_body_is_refused_alone(
    receiver: Receiver, settings: Settings
) -> None:
    settings.WEBHOOKS_MAX_BODY_BYTES = 100_000
    url = f"{receiver.url}/open/x"
    rows = [{"name": f"n{number}", "variable": "note"} for number in range(9)]
    webhook = make_webhook(url=url, parameters=rows)
    large, small = make_delivery(webhook, note="x" * 20_000), make_delivery(webhook, note="x")
    run_engine(lambda: Attempt.objects.count() == 2)
    attempt = Attempt.objects.get(delivery=large)
    assert (attempt.outcome, bytes(attempt.request_body or b"")) == (Outcome.REFUSED, b"")
    assert "more than the 0.1 MB that are sent" in outcomes.sentence(attempt.error)
    assert reload(small).status == Status.SUCCEEDED


def test_settings_that_cannot_be_used_are_said_and_what_waits_goes_out_when_corrected(
    receiver: Receiver,
) -> None:
    # Written to the row directly, bypassing the form.
    broken = json.dumps([{"name": "X Key", "value": "v", "secret": False}])
    webhook = make_webhook(url=f"{receiver.url}/open/hook", headers_json=broken)
    delivery, test = make_delivery(webhook), events.send_test(webhook)
    run_engine(lambda: Attempt.objects.exists())
    attempt = Attempt.objects.get()
    assert (attempt.delivery_id, attempt.outcome) == (test.pk, Outcome.REFUSED)
    assert "“X Key” cannot be sent" in attempt.error
    assert reload(delivery).status == Status.PENDING
    status = status_of(Webhook.objects.get(pk=webhook.pk))
    assert status["kind"] == "warning"
    assert outcomes.sentence(attempt.error) in status["full_sentence"]
    assert receiver.requests() == []
    webhook.headers_json = ""
    webhook.save()
    deliver_all()
    assert reload(delivery).status == Status.SUCCEEDED
    assert status_of(Webhook.objects.get(pk=webhook.pk))["kind"] == "success"


@pytest.mark.parametrize(
    "written",
    [
        {"url": "ftp://example.com/"},
        {"url": "http://exa mple.com/"},
        {"url": ""},
        {"url": "http://127.0.0.1:99999/"},
        {"headers_json": "nonsense"},
        {"retry_schedule_seconds": ["soon"]},
        {"retry_schedule_seconds": [10**18]},
    ],
    ids=str,
)
def test_what_was_written_past_the_form_is_a_problem_of_its_webhook(
    written: dict[str, Any],
) -> None:
    webhook = make_webhook()
    delivery = make_delivery(webhook)
    for name, value in written.items():
        setattr(webhook, name, value)
    webhook.save()
    run_engine(lambda: status_of(Webhook.objects.get(pk=webhook.pk))["kind"] == "warning")
    assert reload(delivery).status == Status.PENDING
    assert status_of(Webhook.objects.get(pk=webhook.pk))["full_sentence"]


@pytest.mark.slow
def test_a_receiver_that_closes_without_saying_so_costs_no_attempt() -> None:
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    with answering({"/hook": ok}) as address:
        webhook = make_webhook(url=f"{address}/hook", timeout_seconds=60)
        for number in range(300):
            make_delivery(webhook, number=number)
        deliver_all(seconds=100)
    assert set(Attempt.objects.values_list("number", "outcome", "error")) == {(1, "succeeded", "")}
    assert Attempt.objects.count() == len(asked(address)) == 300


def test_while_the_database_is_away_a_wakeup_is_waited_for_and_not_spun_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine(ProcessWakeup(), lambda: False)
    waited: list[float] = []
    monkeypatch.setattr(engine.event, "wait", waited.append)
    engine.notify()
    engine.rest()
    assert waited == []
    engine.session.resume_at = time.monotonic() + 30
    engine.rest()
    assert waited == [1.0]


@pytest.mark.slow
def test_a_late_gone_of_an_old_address_does_not_pause_the_corrected_webhook() -> None:
    def correct_and_answer(asked: ReceivedRequest) -> Reply:
        if asked.path == "/old":
            changed = Webhook.objects.get(pk=webhook.pk)
            changed.url = f"{old.url}/new"
            changed.save()
            connection.close()
        return Reply(status=410 if asked.path == "/old" else 500)

    with fake_provider() as old:
        old.reply(correct_and_answer)
        webhook = make_webhook(url=f"{old.url}/old")
        delivery = make_delivery(webhook)
        deliver_all()
    assert [asked.path for asked in old.requests] == ["/old"]
    assert Webhook.objects.get(pk=webhook.pk).is_active
    assert Attempt.objects.get().status_code == 410
    assert reload(delivery).status == Status.PENDING


def test_a_rate_limit_holds_after_a_stall_of_the_receiver(receiver: Receiver) -> None:
    receiver.fail("/open/hook", status=204, times=10, delay_seconds=3.0)
    webhook = make_webhook(url=f"{receiver.url}/open/hook", rate_limit=10)
    for _ in range(40):
        make_delivery(webhook)
    deliver_all(seconds=60)
    times = sent_at()
    assert len(times) == 40
    # A burst of ten, five more in half a second, and a margin of two.
    assert max(sum(start <= one < start + 0.5 for one in times) for start in times) <= 17


def sent_at() -> list[float]:
    """Return when the engine sent each request; the receiver may read it later."""
    started = Attempt.objects.order_by("started_at").values_list("started_at", flat=True)
    return [one.timestamp() for one in started]


@pytest.mark.slow
def test_an_address_behind_the_guard_is_recorded_as_blocked() -> None:
    delivery = make_delivery(make_webhook(url="http://10.1.2.3/hook"))
    deliver_all()
    attempt = Attempt.objects.get(delivery=delivery)
    assert attempt.outcome == Outcome.BLOCKED
    assert "10.1.2.3" in attempt.error


@pytest.mark.slow
def test_thousands_of_requests_that_cannot_be_made_do_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> NoReturn:
        raise KeyError("as nobody expected")

    monkeypatch.setattr("webhooks.delivery.engine.prepare", fail)
    monkeypatch.setattr("webhooks.delivery.engine.LOG_SECONDS", 3600.0)
    webhook = make_webhook()
    for _ in range(20):
        make_delivery(webhook)
    deliver_all()
    assert Attempt.objects.filter(outcome=Outcome.REFUSED).count() == 20
    assert caplog.text.count("request_not_made") == 1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOBUFS, errno.ENOMEM])
def test_what_this_machine_lacks_is_charged_to_no_receiver(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, caplog: Any, number: int
) -> None:
    opened = network.SocketOpener.open
    faults = iter(range(3))

    def lacking(*args: Any) -> Any:
        if next(faults, None) is not None:
            raise OSError(number, "none left")
        return opened(*args)

    monkeypatch.setattr(network.SocketOpener, "open", lacking)
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    for _ in range(5):
        make_delivery(webhook)
    deliver_all()
    assert set(Attempt.objects.values_list("number", "outcome")) == {(1, "succeeded")}
    assert Attempt.objects.count() == 5
    assert caplog.text.count("machine_lacks") == 1
    assert cache.get(backlog.MACHINE_LACKS) == os.strerror(number)


def test_a_machine_without_its_certificate_authorities_charges_no_receiver(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guard, "ca_bundle", lambda: str(tmp_path / "gone.pem"))
    cache.delete(backlog.MACHINE_LACKS)
    make_delivery(make_webhook(url=receiver.url.replace("http:", "https:")))
    run_engine(lambda: cache.get(backlog.MACHINE_LACKS) is not None)
    assert not Attempt.objects.exists()
    assert "authorities" in cache.get(backlog.MACHINE_LACKS)
    cache.delete(backlog.MACHINE_LACKS)


@pytest.mark.database("postgres")
def test_a_database_that_takes_no_attempt_is_reported_by_readyz(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    record = queue.backend().record

    def refuse(*args: Any, **options: Any) -> Any:
        if may_write.is_set():
            return record(*args, **options)
        raise ProgrammingError("permission denied for table webhooks_attempt")

    def is_reported() -> bool:
        if cache.get(backlog.MACHINE_LACKS):
            may_write.set()
        return Attempt.objects.exists()

    cache.delete(backlog.MACHINE_LACKS)
    monkeypatch.setattr(queue.backend(), "record", refuse)
    make_delivery(make_webhook(url=receiver.url))
    run_engine(is_reported)
    assert "database_fault" in cache.get(backlog.MACHINE_LACKS)
    cache.delete(backlog.MACHINE_LACKS)


@pytest.mark.parametrize(
    ("address", "outcome"), [("127.0.0.1", Outcome.SUCCEEDED), ("10.1.2.3", Outcome.BLOCKED)]
)
def test_what_a_name_server_says_is_judged_and_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, address: str, outcome: Outcome
) -> None:
    port = urlsplit(receiver.url).port
    delivery = make_delivery(make_webhook(url=f"http://crm.example.com:{port}/open/hook"))
    with name_server(address) as dns_port:
        options = {"servers": ["127.0.0.1"], "udp_port": dns_port}
        monkeypatch.setattr("webhooks.network.resolver.DNS_OPTIONS", options)
        deliver_all()
    assert Attempt.objects.get(delivery=delivery).outcome == outcome


def test_gone_pauses_the_webhook_and_holds_its_deliveries(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/gone")
    delivery = make_delivery(webhook)
    deliver_all()
    webhook.refresh_from_db()
    assert (webhook.is_active, webhook.pause_reason) == (False, PauseReason.GONE)
    assert reload(delivery).hold_reason == HoldReason.PAUSED


@pytest.mark.slow
def test_all_that_is_in_flight_when_gone_pauses_a_webhook_waits_as_well() -> None:
    """Even a delivery that has no retries left."""
    arrived: list[object] = []

    def answer(_asked: ReceivedRequest) -> Reply:
        arrived.append(None)
        if len(arrived) == 2:
            time.sleep(0.5)
        return Reply(status=410)

    with fake_provider() as server:
        server.reply(answer)
        webhook = make_webhook(url=server.url)
        # A receiver that answered gets several requests at a time.
        now = timezone.now()
        WebhookState.objects.create(webhook=webhook, last_attempt_at=now, last_status_code=200)
        for _ in range(2):
            make_delivery(webhook)
        Delivery.objects.update(failure_count=3)
        deliver_all()
    found = Delivery.objects.values_list("status", "outcome", "hold_reason")
    assert list(found) == [(Status.HELD, Outcome.GONE, HoldReason.PAUSED)] * 2


def test_held_deliveries_go_out_in_order_after_resuming(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook", is_ordered=True)
    events.pause(webhook)
    made = [make_delivery(webhook, number=number) for number in range(5)]
    deliver_all()
    assert receiver.requests() == []
    assert events.resume(webhook) == 5
    deliver_all()
    assert [request.json()["number"] for request in receiver.requests()] == [0, 1, 2, 3, 4]
    assert {reload(delivery).status for delivery in made} == {Status.SUCCEEDED}


def test_held_deliveries_can_be_dropped_on_resume(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    events.pause(webhook)
    delivery = make_delivery(webhook)
    assert events.resume(webhook, cancels_held=True) == 1
    deliver_all()
    assert reload(delivery).status == Status.CANCELLED
    assert receiver.requests() == []


def test_a_test_goes_out_while_the_webhook_is_paused_and_is_tried_once(
    receiver: Receiver,
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/status/500")
    events.pause(webhook)
    delivery = events.send_test(webhook)
    assert delivery.trigger == Trigger.TEST
    deliver_all()
    assert reload(delivery).status == Status.FAILED
    assert len(receiver.requests()) == 1


def test_a_test_that_cannot_go_yet_costs_others_no_plan_and_no_claim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One waits for its DNS name; another worker uses all concurrency slots of the other."""
    full = make_webhook(concurrency_limit=1)
    in_an_hour = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.filter(pk=make_delivery(full).pk).update(
        status="sending", lease="of another worker", next_attempt_at=in_an_hour, attempt_count=1
    )
    make_delivery(full)
    tested = make_webhook(url="http://crm.example.com/hook", event_types=["deal.*"])
    events.send_test(tested)
    backend = queue.backend()
    found = {one.webhook_id: one.has_tests for one in backend.page().candidates}
    assert found == {full.pk: False, tested.pk: True}
    looks, claimed = Counter[str](), Counter[str]()

    def count(name: str, counted: Counter[str]) -> None:
        original = getattr(backend, name)

        def counting(*args: Any, **terms: Any) -> Any:
            counted[name] += 1
            return original(*args, **terms)

        monkeypatch.setattr(backend, name, counting)

    count("page", looks)
    count("claim_tests", claimed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        options = {"servers": ["127.0.0.1"], "udp_port": silent.getsockname()[1]}
        monkeypatch.setattr("webhooks.network.resolver.DNS_OPTIONS", options)
        run_engine(lambda: looks["page"] >= 5)
    assert not claimed


@pytest.mark.parametrize("path", ["/status/500", "/status/410"])
def test_a_failed_test_says_nothing_about_its_webhook(receiver: Receiver, path: str) -> None:
    webhook = make_webhook(url=f"{receiver.url}{path}", alert_failure_percent=1)
    test = events.send_test(webhook)
    deliver_all()
    assert reload(test).status == Status.FAILED
    assert Webhook.objects.get(pk=webhook.pk).is_active
    assert not WebhookState.objects.filter(webhook=webhook).exists()
    assert not HourlyCount.objects.exists()


def test_a_test_that_cannot_be_made_says_nothing_about_its_webhook() -> None:
    webhook = make_webhook(url="http://192.0.2.1/never")
    Webhook.objects.filter(pk=webhook.pk).update(url="ftp://wrong/")
    test = events.send_test(webhook)
    deliver_all()
    assert reload(test).status == Status.FAILED
    assert not WebhookState.objects.exists()


def test_a_failing_head_blocks_an_ordered_webhook(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook", is_ordered=True)
    receiver.fail("/open/hook", 503, 1)
    for number in range(3):
        make_delivery(webhook, number=number)
    deliver_all_but_blocked(receiver)
    Delivery.objects.filter(attempt_count=1).update(next_attempt_at=timezone.now())
    deliver_all()
    assert [request.json()["number"] for request in receiver.requests()] == [0, 0, 1, 2]


def deliver_all_but_blocked(receiver: Receiver) -> None:
    run_engine(lambda: Delivery.objects.filter(attempt_count=1, status="pending").exists())
    assert len(receiver.requests()) == 1


def test_a_concurrency_limit_holds_across_claims(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/slow/0.2", concurrency_limit=2)
    for _ in range(6):
        make_delivery(webhook)
    seen: list[int] = []

    def is_done() -> bool:
        seen.append(Delivery.objects.filter(status=Status.SENDING).count())
        return Delivery.objects.filter(status=Status.SUCCEEDED).count() == 6

    run_engine(is_done)
    assert max(seen) <= 2
    ran = [
        (start, start + dt.timedelta(milliseconds=milliseconds))
        for start, milliseconds in Attempt.objects.values_list("started_at", "total_ms")
    ]
    assert max(sum(start <= at < end for start, end in ran) for at, _ in ran) == 2


def test_a_rate_limit_spaces_requests(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook", rate_limit=5, rate_limit_seconds=1)
    for _ in range(12):
        make_delivery(webhook)
    began = timezone.now().timestamp()
    deliver_all()
    times = sent_at()
    assert len(times) == 12
    # A burst of five, then one every 0.2 s.
    assert times[-1] - began >= 1.3


def test_an_event_for_a_deleted_webhook_is_never_sent(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    delivery = make_delivery(webhook)
    events.delete(webhook)
    deliver_all()
    assert receiver.requests() == []
    assert reload(delivery).status == Status.CANCELLED


def test_an_edited_url_is_used_by_the_next_attempt(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/status/500")
    make_delivery(webhook)
    deliver_all()
    webhook = Webhook.objects.get(pk=webhook.pk)
    webhook.url = f"{receiver.url}/open/new"
    webhook.save()
    Delivery.objects.update(next_attempt_at=timezone.now())
    deliver_all()
    assert [request.path for request in receiver.requests()] == ["/status/500", "/open/new"]


def test_an_unreadable_secret_sends_nothing_and_changes_nothing(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    delivery = make_delivery(webhook)
    # Another row's ciphertext is as unreadable as one made with a wrong key.
    other = make_webhook(event_types=["deal.*"])
    stored = Webhook.objects.filter(pk=other.pk).values_list("signing_secret", flat=True).get()
    Webhook.objects.filter(pk=webhook.pk).update(signing_secret=stored)
    ends = timezone.now() + dt.timedelta(seconds=1)
    run_engine(lambda: timezone.now() > ends)
    assert receiver.requests() == []
    assert reload(delivery).attempt_count == 0
    assert reload(delivery).status == Status.PENDING


def test_a_webhook_failing_for_five_days_is_paused(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/status/500")
    long_ago = timezone.now() - dt.timedelta(days=6)
    WebhookState.objects.create(webhook=webhook, failing_since_at=long_ago)
    make_delivery(webhook)
    deliver_all()
    webhook.refresh_from_db()
    assert webhook.pause_reason == PauseReason.FAILING


def test_a_success_ends_a_failing_spell(receiver: Receiver) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    WebhookState.objects.create(webhook=webhook, failing_since_at=timezone.now())
    make_delivery(webhook)
    deliver_all()
    state = WebhookState.objects.get(webhook=webhook)
    assert state.failing_since_at is None
    assert state.last_success_at is not None


def test_a_dead_receiver_does_not_delay_the_others(receiver: Receiver, settings: Any) -> None:
    # Do not wait for requests in flight to the dead receiver at the end.
    settings.WEBHOOKS_GRACE_SECONDS = 0
    dead = make_webhook(url=f"{receiver.url}/slow/20", event_types=["deal.created"])
    alive = make_webhook(url=f"{receiver.url}/open/hook")
    for _ in range(20):
        events.publish("deal.created", {"deal_id": "1"})
    for number in range(50):
        make_delivery(alive, number=number)
    done = Delivery.objects.filter(webhook=alive, status=Status.SUCCEEDED)
    run_engine(lambda: done.count() == 50)
    assert not Attempt.objects.filter(delivery__webhook=dead).exists()


@pytest.mark.usefixtures("calm")
def test_quick_receivers_that_begin_to_hang_leave_memory_to_the_others(
    receiver: Receiver, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.WEBHOOKS_GRACE_SECONDS = 0
    for name in ("engine", "claims"):
        monkeypatch.setattr(f"webhooks.delivery.{name}.ROWS", 200)
    for number in range(6):
        make_webhook(url=f"{receiver.url}/slow/20?{number}", event_types=["deal.created"])
    quick = make_webhook(url=f"{receiver.url}/open/hook")
    now = timezone.now()
    for webhook in Webhook.objects.all():
        WebhookState.objects.create(webhook=webhook, last_attempt_at=now, last_status_code=200)
    for number in range(50):
        events.publish("deal.created", {"deal_id": str(number)})
    sending = Delivery.objects.filter(status=Status.SENDING)
    made: list[Delivery] = []

    def is_sent() -> bool:
        if not made and sending.count() >= 150:
            made.append(make_delivery(quick))
        return bool(made) and reload(made[0]).status == Status.SUCCEEDED

    run_engine(is_sent)
    after = reload(made[0])
    assert after.finished_at is not None
    assert (after.finished_at - after.created_at).total_seconds() < 5


def test_a_lease_that_ran_out_is_sent_again_and_noted_as_unknown(receiver: Receiver) -> None:
    delivery = make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
    past = timezone.now() - dt.timedelta(seconds=1)
    Delivery.objects.update(status="sending", lease="dead", next_attempt_at=past, attempt_count=1)
    run_engine(lambda: reload(delivery).status == Status.SUCCEEDED)
    outcomes = list(Attempt.objects.order_by("number").values_list("outcome", flat=True))
    assert outcomes == [Outcome.UNKNOWN, Outcome.SUCCEEDED]


@pytest.mark.usefixtures("calm")
def test_leases_that_run_out_later_are_found_by_the_same_engine(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "EXPIRE_SECONDS", 1.0)
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    rows = [make_delivery(webhook) for _ in range(3)]
    for seconds, row in zip((-1, 1, 3), rows, strict=True):
        ends_at = timezone.now() + dt.timedelta(seconds=seconds)
        Delivery.objects.filter(pk=row.pk).update(
            status="sending", lease="dead", next_attempt_at=ends_at, attempt_count=1
        )
    done = Delivery.objects.filter(status=Status.SUCCEEDED)
    run_engine(lambda: done.count() == 3)


@pytest.mark.usefixtures("calm")
@pytest.mark.slow
def test_leases_that_ended_are_taken_back_some_at_a_time_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance, "EXPIRE_SECONDS", 3600.0)
    monkeypatch.setattr(maintenance, "EXPIRED_AT_ONCE", 20)
    make_webhook(is_active=False, pause_reason="person")
    events.publish_many([events.NewEvent("call.incoming.after", {})] * 80)
    past = timezone.now() - dt.timedelta(seconds=1)
    sending = {"status": "sending", "hold_reason": "", "lease": "dead", "attempt_count": 1}
    Delivery.objects.update(next_attempt_at=past, **sending)
    run_engine(lambda: not Delivery.objects.filter(status=Status.SENDING).exists())


@pytest.mark.usefixtures("calm")
def test_a_lease_that_a_step_of_the_databases_clock_ends_is_not_taken_back(
    receiver: Receiver,
) -> None:
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    taken, due = make_delivery(webhook), make_delivery(webhook)
    past = timezone.now() - dt.timedelta(minutes=1)
    Delivery.objects.filter(pk=taken.pk).update(
        status="sending", lease="alive", next_attempt_at=past, attempt_count=1
    )
    drain_cache = DrainCache()
    drain_cache.clock.compare((timezone.now() - dt.timedelta(hours=1)).timestamp())
    run_engine(lambda: reload(due).status == Status.SUCCEEDED, cache=drain_cache)
    assert reload(taken).status == Status.SENDING
    drain_cache.close()


@pytest.mark.database("postgres")
def test_health_that_somebody_keeps_locked_keeps_nothing_else_waiting(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.WEBHOOKS_SHARDS = 2
    monkeypatch.setattr(maintenance, "UNWRITTEN_SECONDS", 3.0)
    locked, other = (make_webhook(url=f"{receiver.url}/open/{name}") for name in ("a", "b"))
    WebhookState.objects.create(webhook=locked)
    make_delivery(locked)
    started_at = time.monotonic()
    done = Delivery.objects.filter(status=Status.SUCCEEDED)
    written = WebhookState.objects.filter(webhook=other, last_success_at__isnull=False)

    def are_done() -> bool:
        if Delivery.objects.count() == done.count() == 2 and time.monotonic() - started_at > 2:
            make_delivery(locked)
        return done.count() == 4 and written.exists()

    with psycopg.connect(**connection.get_connection_params()) as own:
        own.execute("SELECT FROM webhooks_webhookstate FOR UPDATE")
        # An engine that waits for the lock would wait forever.
        release = threading.Timer(15, own.rollback)
        release.start()
        run_engine(are_done)
        release.cancel()
        assert time.monotonic() - started_at < 15
        assert sum(HourlyCount.objects.values_list("count", flat=True)) == 4
        # Other drains have taken over.
        assert not Drain.objects.exists()


@pytest.mark.database("postgres")
@pytest.mark.parametrize("count", [2, 40])
def test_a_delivery_that_somebody_keeps_locked_keeps_no_other_from_being_recorded(
    receiver: Receiver, count: int
) -> None:
    """Few results are written in another way than many."""
    done = Delivery.objects.filter(status=Status.SUCCEEDED)
    with (
        fake_provider() as slow,
        psycopg.connect(**connection.get_connection_params()) as own,
    ):

        def lock(asked: ReceivedRequest) -> Reply:
            if not released:
                own.execute("SELECT FROM webhooks_delivery WHERE id = %s FOR UPDATE", [locked.pk])
            return Reply()

        slow.reply(lock)
        locked = make_delivery(make_webhook(url=f"{slow.url}/hook"))
        others = [make_webhook(url=f"{receiver.url}/open/{number}") for number in range(count)]
        released: list[float] = []

        def is_done() -> bool:
            if slow.requests and Delivery.objects.count() == 1:
                # One for each webhook.
                make_delivery(others[0])
            if not released and done.count() == count + 1:
                assert not done.filter(pk=locked.pk).exists()
                released.append(time.monotonic())
                own.rollback()
            return done.count() == count + 2

        run_engine(is_done)
    assert len(slow.requests) == 2
    assert Attempt.objects.filter(delivery=locked).count() == 1
    assert WebhookState.objects.filter(last_status_code=200).count() == count + 1


@pytest.mark.database("postgres")
def test_health_and_counts_that_take_long_are_written_beside_the_next_drain(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "SHORT_REST", -1)
    make_delivery(make_webhook(url=f"{receiver.url}/open/hook"))
    drain_cache = DrainCache()
    with psycopg.connect(**connection.get_connection_params()) as own:
        # Until the drain has ended, which does not wait for it.
        own.execute("LOCK TABLE webhooks_hourlycount")
        Engine(ProcessWakeup(), lambda: False, drain_cache).run(0.5)
        assert Delivery.objects.get().status == Status.SUCCEEDED
        own.rollback()
        drain_cache.wait_for_rest(60)
    drain_cache.close()
    assert HourlyCount.objects.get().count == 1
    assert WebhookState.objects.get().last_success_at


@pytest.mark.database("postgres")
def test_a_drain_does_not_wait_for_the_health_and_counts_of_the_one_before(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    waited: list[bool] = []

    def write_late(self: Recorder) -> bool:
        waited.append(may_write.wait(20))
        return write_rest(self)

    write_rest = Recorder.write_rest
    monkeypatch.setattr(Recorder, "write_rest", write_late)
    # Left to the end of the drain.
    monkeypatch.setattr(Recorder, "due_counts", lambda *_: Counter())
    # Even of a second drain that leaves little.
    monkeypatch.setattr(engine_module, "FINISH_SECONDS", 600.0)
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    drain_cache = DrainCache()
    for most in (-1, 2000):
        monkeypatch.setattr(engine_module, "SHORT_REST", most)
        make_delivery(webhook)
        Engine(ProcessWakeup(), lambda: False, drain_cache).run(0.5)
        assert not may_write.is_set()
    # The second one's counts are for the next drain.
    assert drain_cache.has_rest()
    may_write.set()
    drain_cache.wait_for_rest(60)
    Engine(ProcessWakeup(), lambda: False, drain_cache).run(0.5)
    drain_cache.close()
    assert waited == [True] * 3
    assert HourlyCount.objects.aggregate(total=Sum("count"))["total"] == 2
    assert WebhookState.objects.get().last_success_at


@pytest.mark.database("postgres")
def test_a_drain_does_not_wait_for_a_delivery_that_somebody_keeps_locked() -> None:
    drain_cache = DrainCache()
    with (
        fake_provider() as slow,
        psycopg.connect(**connection.get_connection_params()) as own,
    ):

        def lock(asked: ReceivedRequest) -> Reply:
            own.execute("SELECT FROM webhooks_delivery FOR UPDATE")
            return Reply()

        slow.reply(lock)
        delivery = make_delivery(make_webhook(url=f"{slow.url}/hook"))
        started_at = time.monotonic()
        Engine(ProcessWakeup(), lambda: False, drain_cache).run(1.0)
        assert time.monotonic() - started_at < 8
        assert reload(delivery).status == Status.SENDING
        own.rollback()
        eventually(lambda: reload(delivery).status == Status.SUCCEEDED)
    drain_cache.close()
    writer = [one for one in threading.enumerate() if one.name == "writer"]
    eventually(lambda: not any(one.is_alive() for one in writer))


@pytest.mark.database("postgres")
def test_a_claim_that_a_crash_of_the_server_lost_is_made_again_and_nothing_sent_twice() -> None:
    def lose_claim(asked: ReceivedRequest) -> Reply:
        Delivery.objects.update(
            status="pending", lease="", attempt_count=0, next_attempt_at=timezone.now()
        )
        eventually(lambda: reload(delivery).status == Status.SENDING)
        connection.close()
        return Reply()

    with fake_provider() as slow:
        slow.reply(lose_claim)
        delivery = make_delivery(make_webhook(url=f"{slow.url}/hook"))
        drain_cache = DrainCache()
        # Allow more than one row in flight.
        drain_cache.limiters.begin(delivery.webhook_id, failures=0)
        run_engine(lambda: reload(delivery).status == Status.SUCCEEDED, cache=drain_cache)
        drain_cache.close()
    assert len(slow.requests) == 1
    assert Attempt.objects.get().number == reload(delivery).attempt_count == 1


@pytest.mark.usefixtures("calm")
@pytest.mark.slow
def test_a_row_that_was_in_flight_at_three_crashes_is_parked() -> None:
    delivery = make_delivery(make_webhook())
    past = timezone.now() - dt.timedelta(seconds=1)
    Delivery.objects.update(
        status="sending", lease="dead", next_attempt_at=past, attempt_count=3, unknown_count=2
    )
    run_engine(lambda: reload(delivery).status == Status.PARKED)
    assert events.resend(Delivery.objects.all()) == 1
    assert reload(delivery).unknown_count == 0


@pytest.mark.database("postgres")
def test_very_many_webhooks_are_served_in_turn_and_those_that_must_wait_do(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due, "PAGE", 3)
    monkeypatch.setattr(due, "WINDOW", 4)
    monkeypatch.setattr(due, "MIN_WINDOW", 2)
    webhooks = [make_webhook(url=f"{receiver.url}/open/{number}") for number in range(9)]
    ordered = make_webhook(url=f"{receiver.url}/open/ordered", is_ordered=True)
    # These alone fill more than a page, however many of the others are done.
    later = [make_webhook() for _ in range(4)]
    for _ in range(4):
        make_delivery(webhooks[0])
    in_an_hour = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.filter(webhook__in=later).update(next_attempt_at=in_an_hour)
    blocked = Delivery.objects.filter(webhook=ordered).order_by("id")
    head = blocked[0].pk
    blocked.filter(pk=head).update(next_attempt_at=in_an_hour)
    left = Delivery.objects.exclude(status=Status.SUCCEEDED).exclude(webhook__in=later)
    engine = run_engine(lambda: not left.exclude(webhook=ordered).exists())
    assert left.count() == 4
    # No plan is prepared for a webhook that has to wait.
    assert not {ordered.pk} & {*engine.plans.before, *engine.plans.entries}
    blocked.filter(pk=head).update(next_attempt_at=timezone.now())
    run_engine(lambda: not left.exists())
    sent = Attempt.objects.filter(delivery__webhook=ordered).order_by("id")
    in_order = sorted(blocked.values_list("pk", flat=True))
    assert list(sent.values_list("delivery", flat=True)) == in_order


@pytest.mark.database("postgres")
def test_thousands_that_have_to_wait_are_walked_through_without_a_pause(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """As after a start: whether a webhook may be sent to is known once it was looked at."""
    monkeypatch.setattr(due, "PAGE", 5)
    monkeypatch.setattr(due, "WINDOW", 4)
    monkeypatch.setattr(due, "MIN_WINDOW", 2)
    # Longer than the test waits.
    settings.WEBHOOKS_POLL_SECONDS = 3600.0
    full = [make_webhook(concurrency_limit=1) for _ in range(40)]
    for webhook in full:
        make_delivery(webhook)
    in_an_hour = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.update(
        status="sending", lease="of another worker", next_attempt_at=in_an_hour, attempt_count=1
    )
    for webhook in full:
        make_delivery(webhook)
    last = make_delivery(make_webhook(url=f"{receiver.url}/open/last"))
    # Rows that became due just now would come first.
    waiting = Delivery.objects.filter(status=Status.PENDING)
    waiting.update(next_attempt_at=timezone.now() - dt.timedelta(hours=1))
    run_engine(lambda: reload(last).status == Status.SUCCEEDED)
    assert not Attempt.objects.exclude(delivery=last).exists()


@pytest.mark.database("postgres")
def test_one_of_very_many_webhooks_goes_as_soon_as_its_name_is_known(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long webhooks whose wait is unknown are left out."""
    monkeypatch.setattr(due, "PAGE", 3)
    monkeypatch.setattr(due, "WAIT_SECONDS", (3600.0, 3600.0))
    later = timezone.now() + dt.timedelta(hours=1)
    for _ in range(4):
        Delivery.objects.filter(pk=make_delivery(make_webhook()).pk).update(next_attempt_at=later)
    port = urlsplit(receiver.url).port
    delivery = make_delivery(make_webhook(url=f"http://crm.example.com:{port}/open/hook"))
    with name_server("127.0.0.1") as dns_port:
        options = {"servers": ["127.0.0.1"], "udp_port": dns_port}
        monkeypatch.setattr("webhooks.network.resolver.DNS_OPTIONS", options)
        run_engine(lambda: reload(delivery).status == Status.SUCCEEDED)


@pytest.mark.database("postgres")
def test_settings_of_very_many_webhooks_are_tried_again_in_time(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long webhooks whose wait is unknown are left out."""
    monkeypatch.setattr(due, "PAGE", 3)
    # Of these webhooks one is looked at once, and then none.
    monkeypatch.setattr(due, "MIN_WINDOW", 1)
    monkeypatch.setattr("webhooks.delivery.plans.RETRY_SECONDS", 0.2)
    webhooks = [make_webhook(url=f"{receiver.url}/open/{number}") for number in range(4)]
    for webhook in webhooks:
        make_delivery(webhook)
    Webhook.objects.update(url="https://[x]/")
    drain_cache = DrainCache()

    def are_sent() -> bool:
        entries = drain_cache.plans.entries.values()
        if len(entries) == 4 and all(entry.retry_seconds > 0.2 for entry in entries):
            # All were tried more than once. Unlike an edit, `update` keeps the version.
            for webhook in webhooks:
                Webhook.objects.filter(pk=webhook.pk).update(url=webhook.url)
        return not Delivery.objects.exclude(status=Status.SUCCEEDED).exists()

    run_engine(are_sent, cache=drain_cache)
    drain_cache.close()


@pytest.mark.database("postgres")
def test_one_with_all_it_may_have_is_looked_at_when_something_of_it_came_back(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """Thousands of hanging webhooks with more rows take no turns from those that can be sent to."""
    monkeypatch.setattr(due, "PAGE", 3)
    monkeypatch.setattr(due, "WAIT_SECONDS", (3600.0, 3600.0))
    # Do not wait for the hanging requests at the end.
    settings.WEBHOOKS_GRACE_SECONDS = 0
    hanging = [make_webhook(url=f"{receiver.url}/slow/20") for _ in range(6)]
    healthy = [make_webhook(url=f"{receiver.url}/open/{number}") for number in range(2)]
    for _ in range(120):
        events.publish("call.incoming.after", {"call_id": "1"})
    looked_at: Counter[int] = Counter()
    backend = queue.backend()
    candidates = backend.candidates

    def counted(webhook_ids: Sequence[int], **terms: Any) -> list[Candidate]:
        looked_at.update(webhook_ids)
        return candidates(webhook_ids, **terms)

    monkeypatch.setattr(backend, "candidates", counted)
    left = Delivery.objects.filter(webhook__in=healthy).exclude(status=Status.SUCCEEDED)
    run_engine(lambda: not left.exists())
    # For its plan, for a row, and when that row was on its way.
    assert max(looked_at[webhook.pk] for webhook in hanging) <= 4


@pytest.mark.database("postgres")
def test_very_many_webhooks_that_may_be_sent_to_are_walked_through_without_a_pause(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """All rows of the webhooks looked at are claimed, and other webhooks have more."""
    drain_cache = DrainCache()
    later = [make_webhook() for _ in range(4)]
    events.publish("call.incoming.after", {"call_id": "1"})
    in_an_hour = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.update(next_attempt_at=in_an_hour)
    for number in range(20):
        make_webhook(url=f"{receiver.url}/open/{number}")
    left = Delivery.objects.exclude(status=Status.SUCCEEDED).exclude(webhook__in=later)
    for is_first in (True, False):
        if not is_first:
            monkeypatch.setattr(due, "PAGE", 3)
            monkeypatch.setattr(due, "WINDOW", 4)
            monkeypatch.setattr(due, "MIN_WINDOW", 2)
            # Longer than the test waits.
            monkeypatch.setattr("webhooks.delivery.engine.BLOCKED_SCAN_SECONDS", 3600.0)
            settings.WEBHOOKS_POLL_SECONDS = 3600.0
        events.publish("call.incoming.after", {"call_id": "1"})
        Delivery.objects.filter(webhook__in=later).update(next_attempt_at=in_an_hour)
        run_engine(lambda: not left.exists(), cache=drain_cache)
    drain_cache.close()


@pytest.mark.database("postgres")
def test_suspects_of_very_many_webhooks_go_one_after_another(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were in flight at a crash stay for longer than one look."""
    monkeypatch.setattr(due, "PAGE", 3)
    # No second walk during the test.
    monkeypatch.setattr(due, "WALK_PART", 1e-6)
    later = [make_webhook() for _ in range(4)]
    for number in range(3):
        make_webhook(url=f"{receiver.url}/open/{number}")
    for _ in range(3):
        events.publish("call.incoming.after", {"call_id": "1"})
    in_an_hour = timezone.now() + dt.timedelta(hours=1)
    Delivery.objects.filter(webhook__in=later).update(next_attempt_at=in_an_hour)
    left = Delivery.objects.exclude(status=Status.SUCCEEDED).exclude(webhook__in=later)
    # Due for an hour: rows that became due just now would come first.
    left.update(unknown_count=2, next_attempt_at=timezone.now() - dt.timedelta(hours=1))
    run_engine(lambda: not left.exists())


@pytest.mark.parametrize(
    "missing",
    [
        "sender",
        pytest.param("claimer", marks=pytest.mark.database("postgres")),
        pytest.param("writer", marks=pytest.mark.database("postgres")),
    ],
)
def test_a_drain_that_gets_not_all_its_threads_leaves_none_behind(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leftover listener would take the wakeups of drains that work."""
    start, started = threading.Thread.start, []

    def start_unless_full(self: threading.Thread) -> None:
        if self.name == missing:
            raise RuntimeError("can't start new thread")
        start(self)
        started.append(self)

    monkeypatch.setattr(threading.Thread, "start", start_unless_full)
    with pytest.raises(RuntimeError, match="can't start"):
        Engine(ProcessWakeup(), lambda: False).run(1.0)
    eventually(lambda: not any(thread.is_alive() for thread in started))


def test_a_quick_receiver_that_hangs_as_a_drain_ends_is_not_cut_off(
    receiver: Receiver, settings: Settings
) -> None:
    settings.WEBHOOKS_GRACE_SECONDS = 0.5
    quick = make_webhook(url=f"{receiver.url}/open/hook")
    hanging = make_webhook(url=f"{receiver.url}/slow/5", event_types=["deal.created"])
    now = timezone.now()
    for webhook in (quick, hanging):
        WebhookState.objects.create(webhook=webhook, last_attempt_at=now, last_status_code=200)
    events.publish("deal.created", {"deal_id": "1"})
    ended = threading.Event()

    def publish_steadily() -> None:
        while not ended.wait(0.1):
            make_delivery(quick)
        connection.close()

    publisher = threading.Thread(target=publish_steadily)
    publisher.start()
    try:
        Engine(ProcessWakeup(), lambda: False).run(1.0)
    finally:
        ended.set()
        publisher.join()
    assert Delivery.objects.get(webhook=hanging).status == Status.SUCCEEDED
    sent = Attempt.objects.filter(delivery__webhook=quick).select_related("delivery")
    waited = [(one.started_at - one.delivery.created_at).total_seconds() for one in sent]
    # The others continue.
    assert len(waited) > 25
    assert max(waited) < 2.5


def test_a_wakeup_while_a_drain_ends_is_left_to_the_next_one() -> None:
    wakeup = ProcessWakeup()
    Engine(wakeup, lambda: True).run(1.0)
    # The listener of the ended drain still waits for up to a second when an event is published.
    wakeup.wait(0.0)
    wakeup.notify()
    eventually(lambda: not any(thread.name == "wakeup" for thread in threading.enumerate()))
    assert wakeup.wait(0.0)


@pytest.mark.parametrize(
    "written",
    [
        {"rate_limit": 5, "rate_limit_seconds": 0},
        {"retry_schedule_seconds": [10**18]},
        {"retry_schedule_seconds": [-(10**18)]},
        {"concurrency_limit": 0},
        {"body_format": "xyz"},
        {"parameters": 5},
        {"response_rule": "succeeds", "response_operator": "nonsense"},
    ],
    ids=str,
)
def test_what_was_written_past_the_form_stops_no_other_webhook(
    written: dict[str, Any], receiver: Receiver
) -> None:
    wrong = make_webhook(url=f"{receiver.url}/status/500")
    Webhook.objects.filter(pk=wrong.pk).update(**written)
    good = make_webhook(url=f"{receiver.url}/open/hook")
    for _ in range(3):
        make_delivery(good)
    done = Delivery.objects.filter(webhook=good, status=Status.SUCCEEDED)
    run_engine(lambda: done.count() == 3)


class DeafWakeup(ProcessWakeup):
    """Ends the thread that listens."""

    def wait(self, timeout_seconds: float) -> bool:
        raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_drain_that_cannot_hear_wakeups_any_more_ends() -> None:
    """The next one has a new thread; this one would find rows only by polling."""
    with pytest.raises(RuntimeError, match="listens for wakeups"):
        Engine(DeafWakeup(), lambda: False).run(PATIENCE_SECONDS)
