"""Rows are claimed while the last ones are prepared, and what comes too late goes back."""

import time

import pytest
from django.db import OperationalError

from tests.factories import make_delivery, make_webhook, run_engine
from tests.sandbox import Receiver
from tests.waiting import eventually
from webhooks.delivery import claimer, claims, queue
from webhooks.delivery.claimer import Taken
from webhooks.delivery.engine import Engine
from webhooks.delivery.wakeup import ProcessBell
from webhooks.models import Delivery, Status

pytestmark = pytest.mark.django_db(transaction=True)


def until_ready(engine: Engine) -> None:
    """Look until the webhook's plan is there; it is made in another thread."""

    def look() -> object:
        engine._look_at = 0.0
        return engine._look(time.monotonic())

    eventually(look)


def test_the_next_rows_are_claimed_while_the_last_are_prepared(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (claims, claimer):
        monkeypatch.setattr(module, "CLAIM_ROWS", 5)
    webhook = make_webhook(url=f"{receiver.url}/open/hook")
    for _ in range(20):
        make_delivery(webhook)
    asked_before: list[bool] = []
    submit = Engine._submit

    def watched(engine: Engine, taken: Taken) -> None:
        if taken.is_full:
            asked_before.append(engine._claimer.is_busy)
        submit(engine, taken)

    monkeypatch.setattr(Engine, "_submit", watched)
    run_engine(lambda: Delivery.objects.filter(status=Status.SUCCEEDED).count() == 20)
    assert asked_before
    assert asked_before[0]


def test_a_ring_while_rows_are_claimed_is_not_spun_on(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(ProcessBell(), lambda: False)
    waited: list[float] = []
    monkeypatch.setattr(engine._event, "wait", waited.append)
    engine._house.look_at = time.monotonic() + 30
    engine._claimer.is_busy = True
    engine._ring()
    engine._rest()
    assert waited == [1.0]
    engine._claimer._taken.append(Taken([], {}, 0.0))
    engine._rest()
    assert waited == [1.0]


def test_what_is_claimed_while_the_drain_ends_goes_back() -> None:
    delivery = make_delivery(make_webhook())
    engine = Engine(ProcessBell(), lambda: False)
    until_ready(engine)
    for part in (engine._sender, engine._claimer, engine._writer):
        part.start()
    engine._claimer.ask(engine._candidates, engine._ready)
    engine._finish()
    after = Delivery.objects.get(pk=delivery.pk)
    assert (after.status, after.attempt_count, after.lease) == (Status.PENDING, 0, "")
    assert engine._claims.count == 0


def test_a_claim_that_fails_brings_nothing_and_the_next_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_delivery(make_webhook())
    engine = Engine(ProcessBell(), lambda: False)
    until_ready(engine)
    monkeypatch.setattr("webhooks.delivery.db_session._BACKOFF_SECONDS", (0.05, 0.05))
    backend = queue.backend()
    claim = backend.claim
    failures = iter([True])

    def fails_once(*args: object, **terms: object) -> list[object]:
        if next(failures, False):
            raise OperationalError("the server closed the connection unexpectedly")
        return claim(*args, **terms)  # type: ignore[no-any-return]

    monkeypatch.setattr(backend, "claim", fails_once)
    for part in (engine._sender, engine._claimer, engine._writer):
        part.start()
    brought = []
    for _ in range(2):
        engine._claimer.ask(engine._candidates, engine._ready)
        taken = eventually(engine._claimer.taken)
        assert taken is not None
        assert not engine._claimer.is_busy
        brought.append(len(taken.claims))
        time.sleep(0.1)
    assert brought == [0, 1]
    engine._finish()
