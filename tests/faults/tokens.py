"""F29-F32: tokens with concurrent refreshes, lost, unavailable, and restored with rows held."""

import os
import time
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta

from django.contrib.auth import get_user_model
from django.utils import timezone

from tests.factories import change
from tests.faults.catalogue import BOTH, fault
from tests.faults.world import World, check, fresh_connection
from tests.oauth_fakes import ReceivedRequest, Reply, fake_provider, token
from tests.oauth_rows import query_of
from tests.sandbox import (
    AUTHORIZATION_CLIENT,
    Provider,
    answer_consent,
    running_provider,
    running_receiver,
)
from tests.services import HOST, free_port
from webhooks import events, oauth
from webhooks.models import (
    Delivery,
    HoldReason,
    OAuthToken,
    Status,
    TokenState,
    Webhook,
)

_PERSON, _SESSION = "fault", "the-session-of-the-faults"
_PROCESSES = 8
ROUNDS = int(os.environ.get("OAUTH_ROUNDS", "200"))
# Slow enough for the rate limit to be what delays the sends, even on a busy machine.
_HELD, _RATE = 500, 25
# A process that died during a refresh keeps its lease for 30 s.
_LEASE_SECONDS = 60.0


def _webhook(world: World, provider: Provider | None, path: str, **fields: object) -> Webhook:
    """Save a webhook that needs a token, from `provider` if given."""
    webhook = world.webhook(
        path,
        authorization_type="oauth2",
        callback_url=oauth.default_callback_url(),
        client_id=AUTHORIZATION_CLIENT.client_id,
        scope="events:write",
        **{
            "auth_url": provider.auth_url if provider else f"http://{HOST}/authorize",
            "token_url": provider.token_url if provider else "",
            **fields,
        },
    )
    change(webhook.credential, client_secret=AUTHORIZATION_CLIENT.client_secret)
    return webhook


def _connect(webhook: Webhook) -> int:
    """Get a new access token with consent as a person does; return the number of released rows."""
    person, _ = get_user_model().objects.get_or_create(username=_PERSON)
    address = oauth.begin_authorization(webhook.credential, user=person, session_key=_SESSION)
    query = query_of(answer_consent(address))
    oauth.finish_authorization(query, user=person, session_key=_SESSION)
    return events.release_held(webhook.credential)


def _expire() -> None:
    """Let every stored token expire, so that the next send has to refresh it."""
    OAuthToken.objects.update(expires_at=timezone.now() - timedelta(minutes=1))


def _token(webhook: Webhook) -> OAuthToken:
    with fresh_connection():
        return OAuthToken.objects.get(credential=webhook.credential)


def _held(webhook: Webhook) -> int:
    held = Delivery.objects.filter(webhook=webhook, status=Status.HELD)
    return held.filter(hold_reason=HoldReason.REAUTHORIZATION).count()


def _check_untouched(world: World) -> None:
    with fresh_connection():
        tried = Delivery.objects.exclude(attempt_count=0, failure_count=0).count()
    check(tried == 0, f"{tried} rows count an attempt that never was")
    check(not world.receiver.arrivals, f"{len(world.receiver.arrivals)} left without a token")


@fault("F29", "401 storm and a refresh race", databases=BOTH)
def race(world: World) -> None:
    from tests.oauth.test_processes import running_workers

    get_user_model().objects.all().delete()
    with ExitStack() as stack:
        provider = stack.enter_context(running_provider([oauth.default_callback_url()]))
        receiver = stack.enter_context(running_receiver(provider=provider))
        workers = stack.enter_context(running_workers(os.environ, _PROCESSES))
        url = f"{receiver.url}/bearer/"
        fields = {
            "url": url,
            "auth_url": provider.auth_url,
            "token_url": provider.token_url,
            "client_id": AUTHORIZATION_CLIENT.client_id,
            "scope": "events:write",
        }
        secret = AUTHORIZATION_CLIENT.client_secret
        begun = workers[0].ask("begin", fields=fields, secret=secret)
        query = query_of(answer_consent(begun["url"]))
        version = workers[0].ask("finish", query=query)["version"]
        provider.clear_requests()
        outcomes: Counter[tuple[int, int]] = Counter()
        for number in range(ROUNDS):
            provider.expire_tokens()
            # Alternate between a 401 and an expiry that is known in advance.
            if number % 2:
                workers[0].ask("expire")
            for worker in workers:
                worker.tell("use", url=url, dead_version=None if number % 2 else version)
            version += 1
            for answer in [worker.hear() for worker in workers]:
                outcomes[answer["version"] - version, answer["status"]] += 1
        errors = Counter(request.error for request in provider.token_requests())
    check(errors == {"": ROUNDS}, f"not {ROUNDS} good refreshes: {dict(errors)}")
    check(outcomes == {(0, 200): ROUNDS * _PROCESSES}, f"dead tokens were sent: {outcomes}")
    world.notes.append(f"{ROUNDS} refreshes in {ROUNDS} rounds of {_PROCESSES} processes")


@fault("F30", "crash after the provider rotated the token", databases=BOTH)
def crash_after_rotation(world: World) -> None:
    with running_provider([oauth.default_callback_url()]) as provider:
        webhook = _webhook(world, provider, "/rotated")
        _connect(webhook)
        _expire()
        provider.clear_requests()
        # The provider rotates at once, and its response is delayed until after the process dies.
        provider.fault(status=200, body="{}", delay_seconds=6, after=True)
        worker = world.any_worker()
        world.publish(100)
        refreshing = lambda: _token(webhook).state == TokenState.REFRESHING  # noqa: E731
        world.wait(refreshing, 30, "A refresh")
        # Time for the provider to rotate the token; the response takes longer.
        time.sleep(2)
        world.kill(worker)
        provider.clear_fault()
        world.any_worker()
        seconds = world.wait(lambda: _held(webhook) == 100, _LEASE_SECONDS, "Holding")
        errors = [request.error for request in provider.token_requests()]
        check("invalid_grant" in errors, f"the provider did not rotate: {errors}")
        state = _token(webhook).state
        check(state == TokenState.NEEDS_REAUTHORIZATION, f"the token is {state}")
        _check_untouched(world)
        check(_connect(webhook) == 100, f"not all released: {world.described()}")
        world.settle()
    world.notes.append(f"held {seconds:.0f} s after the crash")
    world.verify()


_HTML = b"<!doctype html><title>Maintenance</title><p>Back soon"
_TROUBLES = {
    "/500": Reply(status=500, body=b"Oops"),
    "/html": Reply(status=503, body=_HTML, headers={"Content-Type": "text/html"}),
    "/hanging": Reply(delay_seconds=30),
}


@fault("F31", "authorization server down, 500, HTML or hanging", databases=BOTH)
def provider_trouble(world: World) -> None:
    is_back = False

    def answer(asked: ReceivedRequest) -> Reply:
        return token(expires_in=3600) if is_back else _TROUBLES[asked.path]

    port_of_down = free_port()
    with ExitStack() as servers:
        fake = servers.enter_context(fake_provider())
        fake.reply(answer)
        urls = {path: f"{fake.url}{path}" for path in _TROUBLES}
        urls["/down"] = f"http://{HOST}:{port_of_down}/token"
        webhooks = [_webhook(world, None, path, token_url=url) for path, url in urls.items()]
        for webhook in webhooks:
            _store_expired(webhook)
        world.any_worker()
        world.publish(50)
        failed = OAuthToken.objects.filter(refresh_failures__gte=1)
        world.wait(lambda: failed.count() == len(webhooks), 40, "A failure of each provider")
        time.sleep(2)
        pending = world.statuses()[Status.PENDING]
        check(pending == world.accepted, f"not all wait: {world.described()}")
        _check_untouched(world)
        for webhook in webhooks:
            row = _token(webhook)
            check(row.refresh_token == "the-refresh-token", f"{webhook.name} lost its grant")
            check(row.state not in _BLOCKED, f"{webhook.name} is {row.state}")
        is_back = True
        servers.enter_context(fake_provider(port_of_down)).reply(answer)
        seconds = world.settle(90)
    world.notes.append(f"all delivered {seconds:.0f} s after it came back")
    world.verify()


_BLOCKED = (TokenState.NEEDS_REAUTHORIZATION, TokenState.MISCONFIGURED)


def _store_expired(webhook: Webhook) -> None:
    now = timezone.now()
    OAuthToken.objects.create(
        credential=webhook.credential,
        state=TokenState.VALID,
        access_token="the-access-token",
        refresh_token="the-refresh-token",
        token_type="Bearer",
        obtained_at=now - timedelta(hours=1),
        expires_at=now - timedelta(minutes=1),
        version=1,
    )


@fault("F32", "re-authorization with 500 held deliveries", databases=BOTH)
def release_held(world: World) -> None:
    with running_provider([oauth.default_callback_url()]) as provider:
        webhook = _webhook(world, provider, "/held", is_ordered=True, rate_limit=_RATE)
        _connect(webhook)
        provider.revoke_grants()
        _expire()
        world.any_worker()
        ids = world.publish(_HELD)
        world.wait(lambda: _held(webhook) == _HELD, 30, "Holding")
        _check_untouched(world)
        check(_connect(webhook) == _HELD, f"not all released: {world.described()}")
        world.settle()
    came = world.receiver.arrivals
    check([arrival.event_id for arrival in came] == ids, "not each once and in order")
    took = came[-1].started_at - came[0].started_at
    check(took >= (_HELD - _RATE) / _RATE * 0.95, f"{_HELD} in {took:.1f} s is above the rate")
    world.notes.append(f"{_HELD} in {took:.1f} s at {_RATE}/s")
    world.verify()
