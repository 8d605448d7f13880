"""Drains divide the webhooks among themselves, and each webhook belongs to one at any time."""

import itertools
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from pytest_django import Settings

from tests.factories import make_delivery, make_webhook
from webhooks.delivery import queue
from webhooks.delivery.db_session import DatabaseSession
from webhooks.delivery.shards import Shards
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


def test_only_webhooks_of_the_own_shards_are_candidates() -> None:
    webhooks = [make_webhook() for _ in range(4)]
    make_delivery(webhooks[0])
    found = queue.backend().page(shards=3, numbers=[0, 2]).candidates
    expected = {webhook.pk for webhook in webhooks if webhook.pk % 3 in (0, 2)}
    assert {one.webhook_id for one in found} == expected
