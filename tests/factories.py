"""Rows for tests: plain functions with keyword overrides, and functions that run the engine."""

import datetime as dt
import time
from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from tests.polling import PATIENCE_SECONDS
from webhooks import catalogue, events
from webhooks.delivery.engine import DrainCache, Engine
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    CREDENTIAL_SECRETS,
    WEBHOOK_SECRETS,
    Attempt,
    Credential,
    Delivery,
    Status,
    Webhook,
    origin_of,
)

# The allowed host of credentials whose test names none; `make_webhook` adds more.
LOCAL = "http://127.0.0.1:9"
_SETTLED = (Status.SUCCEEDED, Status.FAILED, Status.HELD, Status.PARKED, Status.CANCELLED)


def make_webhook(**fields: Any) -> Webhook:
    """Save an active webhook for every call event; secrets are given as plain text.

    Authorization fields go into its own credential; `credential` is a shared one to use instead.
    """
    given = {"name": "CRM", "url": "http://127.0.0.1:9/hook", "event_types": ["call.*"], **fields}
    shared = given.pop("credential", None)
    own = {name: given.pop(name) for name in AUTHORIZATION_FIELDS if name in given}
    secrets = {name: given.pop(name) for name in WEBHOOK_SECRETS if name in given}
    webhook = Webhook(**given)
    for name, value in secrets.items():
        webhook.set_secret(name, value)
    fill(webhook.credential, **own)
    webhook.credential.deleted_at = webhook.deleted_at
    if shared is not None:
        _allow(shared, webhook.url)
        with transaction.atomic():
            webhook.credential.save()
            webhook.credential = shared
            webhook.save()
    else:
        webhook.save()
    return webhook


def make_credential(**fields: Any) -> Credential:
    """Save a named credential with a login, allowed for receivers of this machine.

    `make_webhook` adds the receivers it is used for, unless `allowed_hosts` was given.
    """
    values = {
        "name": "CRM login",
        "allowed_hosts": [LOCAL],
        "authorization_type": "basic",
        "basic_login": "shared",
        "basic_password": "hush-hush",
        **fields,
    }
    own = {name: values.pop(name) for name in AUTHORIZATION_FIELDS if name in values}
    credential = Credential(**values)
    fill(credential, **own)
    credential.save()
    return credential


def _allow(credential: Credential, url: str) -> None:
    """Allow a credential and its secrets to be sent to one more receiver of this machine."""
    origin = origin_of(url)
    if LOCAL in credential.allowed_hosts and origin not in credential.allowed_hosts:
        credential.allowed_hosts = [*credential.allowed_hosts, origin]
        credential.secret_origins = {
            name: [*origins, origin] for name, origins in credential.secret_origins.items()
        }
        credential.save(update_fields=["allowed_hosts", "secret_origins"])


def change(credential: Credential, **fields: Any) -> None:
    """Save new values of a credential's fields."""
    fill(credential, **fields)
    credential.save()


def fill(credential: Credential, **fields: Any) -> None:
    for name, value in fields.items():
        if name in CREDENTIAL_SECRETS:
            if value:
                credential.set_secret(name, value)
        else:
            setattr(credential, name, value)


def make_many_webhooks(rows: Iterable[Webhook]) -> list[Webhook]:
    """Save many webhooks with their own credentials in a handful of statements."""
    webhooks = list(rows)
    for one in webhooks:
        one.bind_secrets()
        one.credential.bind_secrets(one.url)
    with transaction.atomic():
        Credential.objects.bulk_create([one.credential for one in webhooks], batch_size=500)
        return Webhook.objects.bulk_create(webhooks, batch_size=500)


def make_delivery(webhook: Webhook, **payload: object) -> Delivery:
    """Publish an event that `webhook` is subscribed to; return its delivery, not yet sent."""
    first = webhook.event_types[0]
    event_type = first if first in catalogue.EVENT_TYPES else "call.incoming.after"
    published = events.publish(event_type, {"call_id": "call-1", **payload})
    return Delivery.objects.get(event_id=published.event_id, webhook=webhook)


def run_engine(
    until: Callable[[], bool],
    *,
    seconds: float = PATIENCE_SECONDS,
    cache: DrainCache | None = None,
) -> Engine:
    """Run a drain in this thread until `until()` is true; fail if that takes too long.

    `until()` should read all it needs in one query; it is not called again once it was true.
    """
    ends = time.monotonic() + seconds
    is_there = False

    def should_stop() -> bool:
        nonlocal is_there
        is_there = is_there or until()
        return is_there or time.monotonic() > ends

    engine = Engine(ProcessWakeup(), should_stop, cache)
    engine.run(seconds * 2)
    assert is_there, f"the engine did not get there in {seconds:.0f} s:\n{_described()}"
    return engine


def deliver_all(*, seconds: float = PATIENCE_SECONDS) -> Engine:
    """Run the engine until no delivery is due or in flight; new failures are not retried."""
    failures = dict(Delivery.objects.values_list("pk", "failure_count"))

    def is_settled() -> bool:
        soon = timezone.now() + dt.timedelta(seconds=3)
        unsettled = Delivery.objects.exclude(status__in=_SETTLED)
        return not any(
            status == Status.SENDING or (due_at <= soon and failures.get(pk, 0) == failure_count)
            for pk, status, due_at, failure_count in unsettled.values_list(
                "pk", "status", "next_attempt_at", "failure_count"
            )
        )

    return run_engine(is_settled, seconds=seconds)


def _described() -> str:
    """Describe every delivery and attempt, for the message of a failed test."""
    rows = [
        f"{row.pk} {row.status} {row.hold_reason} due {row.next_attempt_at}, "
        f"{row.attempt_count} attempts, {row.failure_count} failures, lease {row.lease!r}"
        for row in Delivery.objects.order_by("pk")[:40]
    ]
    rows += [
        f"{attempt.delivery_id} #{attempt.number} {attempt.outcome} {attempt.status_code} "
        f"{attempt.error}"
        for attempt in Attempt.objects.order_by("pk")[:40]
    ]
    return "\n".join([f"now {timezone.now()}", *rows])
