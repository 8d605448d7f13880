"""Deliveries with OAuth: fresh tokens, refreshes, lost grants, and no delivery lost."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.db.models import Count, F, Q
from django.utils import timezone
from pytest_django import Settings

from tests import oauth_rows
from tests.delivery.test_claims import until_ready
from tests.factories import deliver_all, make_delivery, make_webhook, run_engine
from tests.oauth_fakes import FakeProvider, ReceivedRequest, Reply
from tests.oauth_rows import connect
from tests.polling import eventually
from tests.sandbox import MACHINE_CLIENT, Provider, Receiver
from webhooks import events, oauth
from webhooks.delivery import holds
from webhooks.delivery.engine import DrainCache, Engine
from webhooks.delivery.outcomes import sentence
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import (
    Attempt,
    Delivery,
    HoldReason,
    OAuthToken,
    Outcome,
    Status,
    Webhook,
    WebhookState,
)

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def receiver(receiver: Receiver) -> Iterator[Receiver]:
    yield receiver
    receiver.recover()


def oauth_webhook(receiver: Receiver, provider: Provider, **fields: object) -> Webhook:
    values = {"url": f"{receiver.url}/bearer/hook", "event_types": ["call.*"], **fields}
    return oauth_rows.make_webhook(provider, **values)


def outcomes() -> list[str]:
    return list(Attempt.objects.order_by("id").values_list("outcome", flat=True))


def test_a_bearer_token_is_sent(receiver: Receiver, provider: Provider) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    delivery = make_delivery(webhook)
    deliver_all()
    [request] = receiver.requests()
    token = OAuthToken.objects.get(credential=webhook.credential).access_token
    assert request.header("Authorization") == f"Bearer {token}"
    assert Delivery.objects.get(pk=delivery.pk).status == Status.SUCCEEDED
    assert token not in Attempt.objects.get().request_headers


def test_without_a_token_nothing_is_sent_and_everything_is_held(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider)
    make_delivery(webhook)
    deliver_all()
    held = Delivery.objects.get()
    assert (held.status, held.hold_reason) == (Status.HELD, HoldReason.NO_TOKEN)
    assert held.attempt_count == 0
    connect(webhook.credential)
    assert events.release_held(webhook.credential) == 1
    deliver_all()
    assert outcomes() == [Outcome.SUCCEEDED]


def test_a_test_without_a_token_fails_at_once_and_says_why(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider)
    delivery = events.send_test(webhook)
    deliver_all()
    assert Delivery.objects.get(pk=delivery.pk).status == Status.FAILED
    assert Attempt.objects.get(delivery=delivery).error
    assert receiver.requests() == []


def test_a_test_whose_token_is_refused_and_lost_counts_both_attempts(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    provider.revoke_grants()
    delivery = events.send_test(webhook)
    deliver_all()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempt_count) == (Status.FAILED, 2)
    # The 401 is the first attempt's; the second was not sent.
    assert delivery.status_code is None
    tried = Attempt.objects.filter(delivery=delivery).values_list("number", "status_code")
    assert list(tried) == [(1, 401), (2, None)]


def test_an_expired_token_is_refreshed_before_it_is_sent(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    OAuthToken.objects.update(expires_at=timezone.now())
    make_delivery(webhook)
    deliver_all()
    assert outcomes() == [Outcome.SUCCEEDED]
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants == ["authorization_code", "refresh_token"]


def test_a_401_refreshes_once_and_uses_up_no_retry(receiver: Receiver, provider: Provider) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    provider.expire_tokens()
    for _ in range(20):
        make_delivery(webhook)
    deliver_all()
    assert {d.status for d in Delivery.objects.all()} == {Status.SUCCEEDED}
    assert {d.failure_count for d in Delivery.objects.all()} == {0}
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants == ["authorization_code", "refresh_token"]


def test_a_refused_token_is_not_sent_with_all_that_waits(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    cache = DrainCache()
    # The first hundred show that the receiver is quick.
    for number in (100, 200):
        for _ in range(number):
            make_delivery(webhook)
        run_engine(
            lambda: not Delivery.objects.exclude(status=Status.SUCCEEDED).exists(), cache=cache
        )
        provider.expire_tokens()
    refused = [request for request in receiver.requests() if request.status == 401]
    # Only requests that were already in flight.
    assert 1 <= len(refused) < 100
    # On a starved machine a request may time out, which counts.
    unanswered = Attempt.objects.filter(status_code=None).count()
    assert sum(Delivery.objects.values_list("failure_count", flat=True)) == unanswered


def test_a_token_that_was_cleared_is_not_sent_with_what_waits(
    receiver: Receiver, provider: Provider, settings: Settings
) -> None:
    settings.WEBHOOKS_MAX_IN_FLIGHT_PER_WEBHOOK = 1
    receiver.fail("/bearer/hook", status=204, times=20, delay_seconds=2.5)
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    # Of a quick receiver, several rows wait in memory.
    now = timezone.now()
    WebhookState.objects.create(webhook=webhook, last_attempt_at=now, last_status_code=200)
    for _ in range(4):
        make_delivery(webhook)
    sending = Delivery.objects.filter(status=Status.SENDING)
    cleared: list[bool] = []

    def is_done() -> bool:
        if not cleared and sending.count() == 4:
            cleared.append(oauth.clear_token(webhook.credential))
        return bool(cleared) and not sending.exists()

    run_engine(is_done)
    assert len(receiver.requests()) == 1
    left = Delivery.objects.filter(status=Status.HELD, attempt_count=0)
    assert left.count() == 3


@pytest.mark.parametrize(
    "is_oldest", [False, pytest.param(True, marks=pytest.mark.database("postgres"))]
)
def test_what_was_claimed_while_a_token_was_refused_waits_for_the_fresh_one(
    receiver: Receiver, provider: Provider, is_oldest: bool
) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    delivery = make_delivery(webhook)
    engine = Engine(ProcessWakeup(), lambda: False)
    until_ready(engine)
    for part in (engine.sender, engine.claimer, engine.writer):
        part.start()
    if is_oldest:
        limiter = engine.limiters.get(webhook.pk)
        limiter.limit, limiter.mean_seconds = 64, 0.0
        assert engine.claim_oldest()
    else:
        engine.claimer.request(engine.candidates, engine.ready)
    batch = eventually(engine.claimer.batch)
    assert batch is not None
    # The response to an earlier request.
    answered: Any = SimpleNamespace(plan=engine.ready[webhook.pk])
    assert engine.after_refused_token(answered)
    assert not engine.sendable
    engine.note_claimed(batch)
    engine.submit(batch)
    engine.finish()
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempt_count) == (Status.PENDING, 0)
    assert receiver.requests() == []
    deliver_all()
    assert [request.status for request in receiver.requests()] == [200]


@pytest.mark.parametrize("status", [400, 403])
def test_a_challenge_that_names_the_token_refreshes_it_whatever_the_status(
    fake: FakeProvider, provider: Provider, status: int
) -> None:
    webhook = oauth_rows.make_webhook(provider, url=f"{fake.url}/hook", event_types=["call.*"])
    connect(webhook.credential)
    refused = f"Bearer {OAuthToken.objects.get().access_token}"

    def answer(asked: ReceivedRequest) -> Reply:
        challenge = {"WWW-Authenticate": 'Bearer realm="x", error="invalid_token"'}
        is_refused = asked.headers["authorization"] == refused
        return Reply(status=status, headers=challenge) if is_refused else Reply()

    fake.reply(answer)
    make_delivery(webhook)
    deliver_all()

    assert outcomes()[-1] == Outcome.SUCCEEDED
    assert Delivery.objects.get().failure_count == 0
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants == ["authorization_code", "refresh_token"]


def test_a_scope_that_is_missing_is_named_and_refreshes_nothing(
    fake: FakeProvider, provider: Provider
) -> None:
    webhook = oauth_rows.make_webhook(provider, url=f"{fake.url}/hook", event_types=["call.*"])
    connect(webhook.credential)
    challenge = {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="calls:write"'}
    fake.reply(Reply(status=403, headers=challenge))
    make_delivery(webhook)
    deliver_all()

    attempt = Attempt.objects.get()
    assert attempt.outcome == Outcome.UNAUTHORIZED
    assert "lacks a scope" in sentence(attempt.error)
    assert len(provider.token_requests()) == 1


def test_a_receiver_that_always_says_401_does_not_make_a_refresh_storm(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider, url=f"{receiver.url}/status/401")
    connect(webhook.credential)
    for _ in range(10):
        make_delivery(webhook)
    deliver_all()
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants.count("refresh_token") == 1
    assert {d.failure_count for d in Delivery.objects.all()} == {1}


def test_each_token_that_dies_costs_no_delivery_a_retry(
    receiver: Receiver, provider: Provider
) -> None:
    """Every retry with a new token is free, however often tokens die."""
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    for _ in range(3):
        provider.expire_tokens()
        for _ in range(5):
            make_delivery(webhook)
        deliver_all()

    assert {d.status for d in Delivery.objects.all()} == {Status.SUCCEEDED}
    assert {d.failure_count for d in Delivery.objects.all()} == {0}
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants.count("refresh_token") == 3


@pytest.mark.database("postgres")
def test_two_workers_use_up_no_retry_for_tokens_that_die(
    receiver: Receiver, provider: Provider
) -> None:
    """The free retry of one worker's 401 is often claimed by the other."""
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)

    def are_done() -> bool:
        return not Delivery.objects.exclude(status=Status.SUCCEEDED).exists()

    def work() -> None:
        try:
            run_engine(are_done, seconds=60)
        finally:
            connection.close()

    for _ in range(4):
        for _ in range(60):
            make_delivery(webhook)
        provider.expire_tokens()
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work) for _ in range(2)]:
                done.result()

    # On a busy machine the receiver may fail for other reasons, and those count.
    others = Q(attempts__outcome__in=[Outcome.SUCCEEDED, Outcome.UNAUTHORIZED])
    counted = Delivery.objects.annotate(reasons=Count("attempts", filter=~others))
    assert not counted.exclude(failure_count=F("reasons")).exists()
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants.count("refresh_token") == 4


def test_a_refused_token_is_in_its_row_before_the_retry_can_be_claimed(
    receiver: Receiver, provider: Provider
) -> None:
    """Another worker that takes the retry must not send the dead token again."""
    webhook = oauth_webhook(receiver, provider, url=f"{receiver.url}/status/401")
    connect(webhook.credential)
    make_delivery(webhook)
    seen: list[tuple[int, int]] = []

    def is_released() -> bool:
        pending = Delivery.objects.filter(status=Status.PENDING, attempt_count=1)
        if pending.exists():
            token = OAuthToken.objects.get()
            seen.append((token.refused_version, token.version))
        return Attempt.objects.exists()

    run_engine(is_released, seconds=20)

    token = OAuthToken.objects.get()
    assert token.refused_version >= 1
    assert token.refused_by == [webhook.pk]
    assert all(refused >= 1 for refused, _ in seen)


def test_a_worker_does_not_send_a_token_that_another_saw_refused(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    make_delivery(webhook)
    deliver_all()
    dead = OAuthToken.objects.get().access_token
    receiver.clear()
    oauth.record_refusal(webhook.credential_id, 1, webhook_id=webhook.pk)
    make_delivery(webhook)
    deliver_all()

    sent = [request.header("Authorization") for request in receiver.requests()]
    assert sent == [f"Bearer {OAuthToken.objects.get().access_token}"]
    assert f"Bearer {dead}" not in sent
    # The new token worked, so the next refusal is believed at once.
    assert OAuthToken.objects.get().refused_version == 0


def test_a_receiver_that_always_refuses_costs_the_others_of_a_connection_nothing(
    receiver: Receiver, provider: Provider
) -> None:
    refusing = oauth_webhook(receiver, provider, url=f"{receiver.url}/status/401")
    connect(refusing.credential)
    good = make_webhook(url=f"{receiver.url}/bearer/hook")
    Webhook.objects.filter(pk=good.pk).update(credential=refusing.credential)
    for _ in range(5):
        make_delivery(refusing)
        make_delivery(good)
        deliver_all()

    assert {d.status for d in Delivery.objects.filter(webhook=good)} == {Status.SUCCEEDED}
    assert {d.failure_count for d in Delivery.objects.filter(webhook=good)} == {0}
    grants = [request.grant_type for request in provider.token_requests()]
    assert grants.count("refresh_token") == 1


def webhook_without_refresh(receiver: Receiver, provider: Provider, path: str) -> Webhook:
    """Return a webhook whose token cannot be refreshed."""
    webhook = oauth_webhook(receiver, provider, url=f"{receiver.url}{path}")
    connect(webhook.credential)
    OAuthToken.objects.update(refresh_token="")
    return webhook


def sharing(webhook: Webhook) -> Webhook:
    """Return another webhook with the same token, whose receiver accepts it while it is valid."""
    other = make_webhook(url=webhook.url.replace("/status/401", "/bearer/hook"))
    Webhook.objects.filter(pk=other.pk).update(credential=webhook.credential)
    return other


def publish_and_deliver(webhook: Webhook) -> None:
    make_delivery(webhook)
    deliver_all()


def rows(webhook: Webhook) -> list[tuple[str, str, int]]:
    found = Delivery.objects.filter(webhook=webhook).order_by("id")
    return list(found.values_list("status", "hold_reason", "failure_count"))


HELD = (Status.HELD, HoldReason.REAUTHORIZATION, 0)
DONE = (Status.SUCCEEDED, "", 0)


def test_one_receiver_that_refuses_a_shared_token_stops_only_its_own_webhook(
    receiver: Receiver, provider: Provider
) -> None:
    refusing = webhook_without_refresh(receiver, provider, "/status/401")
    publish_and_deliver(refusing)
    # No other webhook has tried the token, so it counts as refused.
    assert rows(refusing) == [HELD]
    assert OAuthToken.objects.get().state == "needs_reauthorization"

    good = sharing(refusing)
    publish_and_deliver(good)
    assert rows(good) == [DONE]
    assert OAuthToken.objects.get().state == "valid"

    # From now on the refusals are failed attempts of a receiver in trouble.
    assert holds.release_overlooked() >= 1
    for _ in range(3):
        publish_and_deliver(good)
    assert rows(good) == [DONE] * 4
    assert len(rows(refusing)) == 5
    assert {(status, reason) for status, reason, _ in rows(refusing)} == {(Status.PENDING, "")}
    assert all(failures for _, _, failures in rows(refusing))
    assert OAuthToken.objects.get().state == "valid"


def test_a_shared_token_that_died_is_tried_once_by_each_webhook_and_holds_all(
    receiver: Receiver, provider: Provider
) -> None:
    first = webhook_without_refresh(receiver, provider, "/bearer/first")
    second = sharing(first)
    publish_and_deliver(first)
    assert rows(first) == rows(second) == [DONE]

    provider.expire_tokens()
    receiver.clear()
    for _ in range(3):
        publish_and_deliver(first)
    assert rows(first) == rows(second) == [DONE, HELD, HELD, HELD]
    assert len(receiver.requests()) <= 4

    connect(first.credential)
    assert events.release_held(first.credential) == 6
    deliver_all()
    assert rows(first) == rows(second) == [DONE] * 4


def test_a_token_that_dies_after_one_receiver_refused_it_holds_all(
    receiver: Receiver, provider: Provider
) -> None:
    refusing = webhook_without_refresh(receiver, provider, "/status/401")
    good = sharing(refusing)
    for _ in range(2):
        publish_and_deliver(good)
    assert OAuthToken.objects.get().state == "valid"

    provider.expire_tokens()
    for _ in range(2):
        publish_and_deliver(good)
        assert holds.release_overlooked() == 0
    assert rows(good) == [DONE, DONE, HELD, HELD]
    assert OAuthToken.objects.get().state == "needs_reauthorization"


def test_a_receiver_that_takes_a_shared_token_again_is_believed_the_next_time(
    receiver: Receiver, provider: Provider
) -> None:
    refusing = webhook_without_refresh(receiver, provider, "/status/401")
    good = sharing(refusing)
    publish_and_deliver(good)
    publish_and_deliver(good)
    assert OAuthToken.objects.get().refused_by == [refusing.pk]

    Webhook.objects.filter(pk=refusing.pk).update(url=good.url, version=F("version") + 1)
    publish_and_deliver(good)
    assert OAuthToken.objects.get().refused_by == []


def test_a_receiver_that_took_a_shared_token_again_is_believed_by_the_worker_that_saw_it(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = webhook_without_refresh(receiver, provider, "/bearer/hook")
    OAuthToken.objects.update(refused_by=[webhook.pk])
    cache = DrainCache()
    make_delivery(webhook)
    run_engine(lambda: rows(webhook) == [DONE], cache=cache)
    assert OAuthToken.objects.get().refused_by == []

    provider.expire_tokens()
    make_delivery(webhook)
    run_engine(lambda: Attempt.objects.filter(status_code=401).exists(), cache=cache)
    cache.close()
    deliver_all()
    assert rows(webhook) == [DONE, HELD]


def test_a_lost_grant_holds_everything_and_the_next_token_releases_it_in_order(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider, is_ordered=True)
    connect(webhook.credential)
    provider.revoke_grants()
    provider.expire_tokens()
    for number in range(5):
        make_delivery(webhook, number=number)
    deliver_all()
    assert {d.hold_reason for d in Delivery.objects.all()} == {HoldReason.REAUTHORIZATION}
    assert {d.failure_count for d in Delivery.objects.all()} == {0}
    receiver.clear()
    connect(webhook.credential)
    assert events.release_held(webhook.credential) == 5
    deliver_all()
    numbers = [request.json()["number"] for request in receiver.requests()]
    assert numbers == [0, 1, 2, 3, 4]


def test_a_provider_that_is_down_makes_deliveries_wait_without_failing(
    receiver: Receiver, provider: Provider
) -> None:
    webhook = oauth_webhook(receiver, provider)
    connect(webhook.credential)
    OAuthToken.objects.update(expires_at=timezone.now())
    provider.fault(status=503, times=1)
    make_delivery(webhook)
    run_engine(lambda: Delivery.objects.filter(status=Status.SUCCEEDED).exists(), seconds=40)
    assert outcomes() == [Outcome.SUCCEEDED]
    assert Delivery.objects.get().failure_count == 0


def test_a_wrong_client_secret_holds_as_misconfigured(
    receiver: Receiver, provider: Provider
) -> None:
    client_id, _ = MACHINE_CLIENT
    webhook = oauth_webhook(
        receiver,
        provider,
        grant_type="client_credentials",
        client_id=client_id,
        client_secret="wrong",
    )
    make_delivery(webhook)
    deliver_all()
    assert Delivery.objects.get().hold_reason == HoldReason.MISCONFIGURED
    assert receiver.requests() == []


def test_client_credentials_fetch_their_token_by_themselves(
    receiver: Receiver, provider: Provider
) -> None:
    client_id, client_secret = MACHINE_CLIENT
    webhook = oauth_webhook(
        receiver,
        provider,
        grant_type="client_credentials",
        client_id=client_id,
        client_secret=client_secret,
    )
    make_delivery(webhook)
    deliver_all()
    assert outcomes() == [Outcome.SUCCEEDED]
