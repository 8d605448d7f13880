"""Drains divide the webhooks among themselves, and each webhook belongs to one at any time."""

import itertools
import time
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from tests.factories import make_delivery, make_webhook
from tests.polling import PATIENCE_SECONDS
from webhooks.delivery import engine as engine_module
from webhooks.delivery import queue
from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.engine import Engine
from webhooks.delivery.shards import Shards
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import Drain

pytestmark = pytest.mark.django_db(transaction=True)


_CLOCK = itertools.count(10.0, 10.0)


def look(*members: Shards) -> list[list[int]]:
    """Let each drain look twice: in the first round it does not see those that look after it."""
    for _ in range(2):
        now = next(_CLOCK)
        for one in members:
            one.look(now)
    return sorted(one.numbers for one in members)


def test_drains_divide_the_shards_and_take_over_those_of_one_that_ended(
    settings: Settings,
) -> None:
    settings.WEBHOOKS_SHARDS = 5
    session = DatabaseSession(queue.backend())
    drains = [Shards(session) for _ in range(2)]
    assert look(*drains) == [[0, 2, 4], [1, 3]]
    drains[0].leave()
    assert look(drains[1]) == [[0, 1, 2, 3, 4]]
    # Drains with another number of shards form a separate group, which serves everything as well.
    settings.WEBHOOKS_SHARDS = 2
    third = Shards(session)
    assert look(third) == [[0, 1]]
    # A drain that has stalled.
    Drain.objects.filter(shards=5).update(seen_at=Now() - timedelta(seconds=6))
    settings.WEBHOOKS_SHARDS = 5
    assert look(Shards(session)) == [[0, 1, 2, 3, 4]]
    # More drains than shards share them.
    settings.WEBHOOKS_SHARDS = 2
    drains = [third, Shards(session), Shards(session)]
    assert look(*drains) in ([[0], [0], [1]], [[0], [1], [1]])


def test_a_drain_seen_in_the_future_has_no_shards(settings: Settings) -> None:
    """It died before the database's clock was set back."""
    settings.WEBHOOKS_SHARDS = 2
    session = DatabaseSession(queue.backend())
    Drain.objects.create(pk=1, shards=2, seen_at=Now() + timedelta(minutes=30))
    Drain.objects.create(pk=2, shards=2, seen_at=Now() + timedelta(hours=2))
    assert look(Shards(session)) == [[0, 1]]
    assert list(Drain.objects.filter(pk__lte=2).values_list("pk", flat=True)) == [1]


def test_a_drain_whose_machine_cannot_send_leaves_its_shards_to_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it can: then they are divided again."""
    monkeypatch.setattr(engine_module, "LACKED_SECONDS", 0.1)
    settings.WEBHOOKS_SHARDS = 2
    other = Shards(DatabaseSession(queue.backend()))
    seen: list[int] = []

    def is_done() -> bool:
        other.look(time.monotonic())
        if [len(other.numbers)] != seen[-1:]:
            seen.append(len(other.numbers))
        if seen[-2:] == [2, 1] and len(seen) < 4:
            engine.sender.report_lack("no descriptor is left")
        return seen[-3:] == [1, 2, 1] or time.monotonic() > ends

    ends = time.monotonic() + PATIENCE_SECONDS
    engine = Engine(ProcessWakeup(), is_done)
    engine.run(PATIENCE_SECONDS)
    assert seen == [2, 1, 2, 1]


def test_only_webhooks_of_the_own_shards_are_candidates() -> None:
    webhooks = [make_webhook() for _ in range(4)]
    make_delivery(webhooks[0])
    found = queue.backend().page(shards=3, numbers=[0, 2]).candidates
    expected = {webhook.pk for webhook in webhooks if webhook.pk % 3 in (0, 2)}
    assert {one.webhook_id for one in found} == expected
