"""Rows for tests: plain functions with keyword overrides, and one that lets the engine run."""

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from django.utils import timezone

from tests.waiting import PATIENCE_SECONDS
from webhooks import events
from webhooks.delivery.engine import Engine
from webhooks.delivery.wakeup import ProcessWakeup
from webhooks.models import Attempt, Delivery, Status, Webhook

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


def run_engine(until: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> Engine:
    """Run a drain in this thread until `until()`; fail if that takes too long.

    `until()` reads what it needs in one query, and is not asked again once it held.
    """
    ends = time.monotonic() + seconds
    is_there = False

    def should_stop() -> bool:
        nonlocal is_there
        is_there = is_there or until()
        return is_there or time.monotonic() > ends

    engine = Engine(ProcessWakeup(), should_stop)
    engine.run(seconds * 2)
    assert is_there, f"the engine did not get there in {seconds:.0f} s:\n{_standing()}"
    return engine


def deliver_all(*, seconds: float = PATIENCE_SECONDS) -> Engine:
    """Run the engine until no delivery is due or being sent; what fails now is not tried again."""
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


def _standing() -> str:
    """Describe every delivery and attempt, for a test that failed."""
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
