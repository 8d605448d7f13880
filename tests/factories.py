"""Rows for tests: plain functions with keyword overrides, and one that lets the engine run."""

import datetime as dt
import time
from collections.abc import Callable, Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from webhooks import events
from webhooks.delivery.engine import Engine
from webhooks.delivery.wakeup import ProcessBell
from webhooks.models import (
    AUTHORIZATION_FIELDS,
    CREDENTIAL_SECRETS,
    WEBHOOK_SECRETS,
    Credential,
    Delivery,
    Status,
    Webhook,
)

_SETTLED = (Status.SUCCEEDED, Status.FAILED, Status.HELD, Status.PARKED, Status.CANCELLED)


def make_webhook(**fields: Any) -> Webhook:
    """Save an active webhook for every call event; secrets are given as plain text.

    Fields of the authorization go into its own credential; `credential` is a shared one to use.
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
        with transaction.atomic():
            webhook.credential.save()
            webhook.credential = shared
            webhook.save()
    else:
        webhook.save()
    return webhook


def make_credential(**fields: Any) -> Credential:
    """Save a credential under a name, with a login, for the local receiver."""
    values = {
        "name": "CRM login",
        "allowed_hosts": ["127.0.0.1"],
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


def change(credential: Credential, **fields: Any) -> None:
    """Save other values of a credential's fields."""
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
    with transaction.atomic():
        Credential.objects.bulk_create([one.credential for one in webhooks], batch_size=500)
        return Webhook.objects.bulk_create(webhooks, batch_size=500)


def make_delivery(webhook: Webhook, **payload: object) -> Delivery:
    """Publish one event that `webhook` wants and return its delivery, not yet sent."""
    published = events.publish("call.incoming.after", {"call_id": "call-1", **payload})
    return Delivery.objects.get(event_id=published.event_id, webhook=webhook)


def run_engine(until: Callable[[], bool], *, seconds: float = 15.0) -> Engine:
    """Run a drain in this thread until `until()`; fail if that takes too long."""
    ends = time.monotonic() + seconds
    engine = Engine(ProcessBell(), lambda: until() or time.monotonic() > ends)
    engine.run(seconds * 2)
    assert until(), "the engine did not get there in time"
    return engine


def deliver_all(*, seconds: float = 15.0) -> Engine:
    """Run the engine until no delivery is due or being sent."""

    def is_settled() -> bool:
        # A retry waits five seconds and more; a lease is longer still.
        soon = timezone.now() + dt.timedelta(seconds=3)
        unsettled = Delivery.objects.exclude(status__in=_SETTLED)
        is_sending = unsettled.filter(status=Status.SENDING).exists()
        return not is_sending and not unsettled.filter(next_attempt_at__lte=soon).exists()

    return run_engine(is_settled, seconds=seconds)
