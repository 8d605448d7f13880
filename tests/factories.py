"""Rows for tests: plain functions with keyword overrides, and one that lets the engine run."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from django.utils import timezone

from webhooks import events
from webhooks.delivery.engine import Engine
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import Delivery, Status, Webhook

_SECRETS = ("basic_password", "client_secret", "headers_json", "signing_secret")
_SETTLED = (Status.SUCCEEDED, Status.FAILED, Status.HELD, Status.PARKED, Status.CANCELLED)


def make_webhook(**fields: Any) -> Webhook:
    """Save an active webhook for every call event; secrets are given as plain text."""
    given = {"name": "CRM", "url": "http://127.0.0.1:9/hook", "event_types": ["call.*"], **fields}
    secrets = {name: given.pop(name) for name in _SECRETS if name in given}
    webhook = Webhook(**given)
    for name, value in secrets.items():
        webhook.set_secret(name, value)
    webhook.save()
    return webhook


def make_delivery(webhook: Webhook, **payload: object) -> Delivery:
    """Publish one event that `webhook` wants and return its delivery, not yet sent."""
    published = events.publish("call.incoming.after", {"call_id": "call-1", **payload})
    return Delivery.objects.get(event_id=published.event_id, webhook=webhook)


def run_engine(until: Callable[[], bool], *, seconds: float = 15.0) -> Engine:
    """Run a drain in this thread until `until()`; fail if that takes too long."""
    ends = time.monotonic() + seconds
    engine = Engine(ProcessWakeup(), lambda: until() or time.monotonic() > ends)
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
