"""What an engine holds: bounded in rows and bytes, patient with limits, one suspect at a time."""

from typing import Any

import pytest

from tests.factories import make_delivery, make_webhook
from webhooks.delivery import claims as module
from webhooks.delivery import queue
from webhooks.delivery.claims import Claims
from webhooks.delivery.limiter import Lane
from webhooks.delivery.queue import Claimed
from webhooks.models import Delivery, Webhook

pytestmark = pytest.mark.django_db(transaction=True)


def engines_claims() -> Claims:
    lanes: dict[int, Lane] = {}
    return Claims(queue.backend(), "here", lambda pk: lanes.setdefault(pk, Lane(64)))


def take(claims: Claims) -> list[Claimed]:
    taken: list[Claimed] = []
    if (ready := queue.backend().candidates()) and claims.has_room:
        claims.take(ready, taken)
    for claim in taken:
        claims.add(claim)
    return taken


def release(claims: Claims, taken: list[Claimed]) -> None:
    claims.release((claim.id, claim.webhook_id) for claim in taken)


def fill(webhook: Webhook, count: int, **payload: Any) -> None:
    for _ in range(count):
        make_delivery(webhook, **payload)


def test_large_events_are_claimed_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLAIMED_BYTES", 1_000_000)
    monkeypatch.setattr(module, "_FIRST_MEAN_BYTES", 100_000)
    fill(make_webhook(), 30, note="x" * 100_000)
    claims = engines_claims()
    first = take(claims)
    assert 1 <= len(first) <= 10
    while taken := take(claims):
        assert len(taken) <= 10
    assert not claims.has_room
    assert claims.count < 20
    release(claims, first)
    assert claims.has_room
    assert take(claims)


def test_small_events_fill_the_whole_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIM_ROWS", 50)
    webhooks = [make_webhook(name=name) for name in "ABCDEFG"]
    for webhook in webhooks:
        fill(webhook, 10)
    assert len(take(engines_claims())) == 50


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []
    backend = queue.backend()
    claim_paced = backend.claim_paced

    def counted(webhook_id: int, **terms: Any) -> Any:
        asked.append(webhook_id)
        return claim_paced(webhook_id, **terms)

    monkeypatch.setattr(backend, "claim_paced", counted)
    return asked


def test_what_comes_back_while_a_webhook_is_asked_ends_its_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0)
    fill(make_webhook(is_ordered=True), 2)
    claims = engines_claims()
    head = take(claims)
    backend = queue.backend()
    claim_paced = backend.claim_paced

    def overtaken(webhook_id: int, **terms: Any) -> Any:
        found = claim_paced(webhook_id, **terms)
        # The keeper's thread, while this one waits for the database.
        release(claims, head)
        Delivery.objects.filter(pk=head[0].id).update(status="succeeded", next_attempt_at=None)
        return found

    monkeypatch.setattr(backend, "claim_paced", overtaken)
    assert take(claims) == []
    monkeypatch.setattr(backend, "claim_paced", claim_paced)
    assert len(take(claims)) == 1


def test_a_blocked_webhook_is_asked_less_and_less_often_until_something_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    asked = counting(monkeypatch)
    fill(make_webhook(is_ordered=True), 2)
    claims = engines_claims()
    head = take(claims)
    for _ in range(100):
        assert take(claims) == []
        now += 0.01
    assert len(asked) < 12
    before = len(asked)
    release(claims, head)
    take(claims)
    assert len(asked) == before + 1


@pytest.mark.parametrize("limit", [{"concurrency_limit": 1}, {"rate_limit": 1}])
def test_a_suspect_keeps_to_the_limit_of_its_webhook(limit: dict[str, int]) -> None:
    webhook = make_webhook(rate_limit_seconds=60, **limit)
    fill(webhook, 3)
    suspect = Delivery.objects.order_by("-id")[0]
    Delivery.objects.filter(pk=suspect.pk).update(unknown_count=2)
    assert len(take(engines_claims())) == 1


def test_a_suspect_does_not_pass_the_head_of_an_ordered_webhook() -> None:
    webhook = make_webhook(is_ordered=True)
    fill(webhook, 3)
    Delivery.objects.update(unknown_count=2)
    claims = engines_claims()
    head = Delivery.objects.order_by("id")[0]
    assert [claim.id for claim in take(claims)] == [head.pk]
    assert take(claims) == []


def test_one_suspect_is_in_hand_at_a_time_whatever_limits_its_webhook() -> None:
    free, limited = make_webhook(), make_webhook(name="Limited", concurrency_limit=5)
    fill(free, 2)
    Delivery.objects.update(unknown_count=2)
    claims = engines_claims()
    first = take(claims)
    assert len(first) == 1
    assert take(claims) == []
    seen = [*first]
    while len(seen) < 4:
        release(claims, seen[-1:])
        [one] = take(claims)
        seen.append(one)
    assert {claim.webhook_id for claim in seen} == {free.pk, limited.pk}
