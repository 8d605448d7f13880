"""Claims by several drains at once, of rows that others change: each row has one holder."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.db import DatabaseError, connection

from tests.factories import make_delivery, make_webhook
from webhooks import events
from webhooks.delivery import queue
from webhooks.delivery.queue.rows import Claimed, ClaimQuota
from webhooks.models import Delivery

pytestmark = [pytest.mark.database("postgres"), pytest.mark.django_db(transaction=True)]

_SECONDS, _DRAINS = 1.5, 4
# Some waiting rows change their place without a reason for a claim to leave them.
_CHANGE = """
UPDATE webhooks_delivery SET failure_count = 0 WHERE id IN (
  SELECT id FROM webhooks_delivery WHERE status = 'pending'
  ORDER BY random() LIMIT 10 FOR UPDATE SKIP LOCKED)
"""
Claim = Callable[[list[int], dict[str, Any]], Sequence[Claimed]]


def _quotas(webhook_ids: list[int]) -> list[ClaimQuota]:
    count = random.randint(1, 16)
    return [ClaimQuota(pk, count) for pk in random.sample(webhook_ids, len(webhook_ids))]


_CLAIMS: dict[str, Claim] = {
    "claim": lambda ids, terms: queue.backend().claim(_quotas(ids), **terms),
    "oldest": lambda ids, terms: queue.backend().claim_oldest(ids, limit=20, **terms)[0],
    "few": lambda ids, terms: queue.backend().claim_few(ids, limit=20, **terms)[0],
    "heads": lambda ids, terms: queue.backend().claim_paced(_quotas(ids), **terms),
    "tests": lambda ids, terms: queue.backend().claim_tests(_quotas(ids), limit=20, **terms),
}


@pytest.mark.parametrize("name", _CLAIMS)
def test_drains_that_claim_changed_rows_at_once_share_them(name: str) -> None:
    """A claim that meets a row which was changed a moment before must not end PostgreSQL."""
    types = ["call.incoming.after", "call.outgoing.after"] * 3
    webhooks = [make_webhook(event_types=[one], is_ordered=name == "heads") for one in types]
    for number in range(60):
        webhook = webhooks[number % len(webhooks)]
        events.send_test(webhook) if name == "tests" else make_delivery(webhook)
    ids = [webhook.pk for webhook in webhooks]
    ends = time.monotonic() + _SECONDS
    held: set[str] = set()
    problems: list[str] = []
    counts = [0] * _DRAINS
    lock = threading.Lock()

    def drain(number: int) -> None:
        terms = {"lease": f"drain-{number}", "lease_seconds": 60.0}
        queue.backend().prepare_session()
        while time.monotonic() < ends:
            claimed = _CLAIMS[name](ids, terms)
            taken = {one.id for one in claimed}
            with lock:
                if both := held & taken:
                    problems.append(f"{both} were claimed twice")
                held.update(taken)
            counts[number] += len(taken)
            with lock:
                held.difference_update(taken)
            if claimed:
                queue.backend().hand_back(claimed, lease=terms["lease"])

    def change() -> None:
        while time.monotonic() < ends:
            with connection.cursor() as cursor:
                cursor.execute(_CHANGE)
            time.sleep(0.001)

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except DatabaseError as error:
            problems.append(str(error))
        finally:
            connection.close()

    works = [change, *(lambda number=number: drain(number) for number in range(_DRAINS))]
    threads = [threading.Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert all(counts)
    assert not Delivery.objects.exclude(status="pending", attempt_count=0).exists()
