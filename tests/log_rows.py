"""Finished deliveries with various results, for tests of the log."""

from typing import Any

from django.utils import timezone

from tests.factories import make_delivery, make_webhook
from webhooks import events
from webhooks.models import Attempt, Delivery, Outcome, Status, Trigger


def settle(delivery: Delivery, status: str = Status.FAILED, **fields: Any) -> Delivery:
    """Finish a delivery without sending it."""
    Delivery.objects.filter(pk=delivery.pk).update(status=status, next_attempt_at=None, **fields)
    delivery.refresh_from_db()
    return delivery


def make_attempt(delivery: Delivery, number: int = 1, **fields: Any) -> Attempt:
    """Save an attempt with a 503 response after 50 ms."""
    given: dict[str, Any] = {
        "started_at": timezone.now(),
        "dns_ms": 1.0,
        "connect_ms": 2.0,
        "tls_ms": 3.0,
        "first_byte_ms": 40.0,
        "total_ms": 50.0,
        "remote_address": "203.0.113.7",
        "request_line": "POST https://crm.example/hook?number=380441234567",
        "request_headers": "Host: crm.example\nAuthorization: Basic ********\nX-Shop: 7",
        "status_code": 503,
        "response_headers": "HTTP/1.1 503 Busy\nContent-Type: text/plain",
        "response_body": b"busy",
        "response_size": 4,
        "outcome": Outcome.SERVER_ERROR,
        "error": "The receiver answered 503.",
        **fields,
    }
    return Attempt.objects.create(delivery=delivery, number=number, **given)


def mixed_log() -> dict[str, Delivery]:
    """Return five deliveries of two webhooks: delivered, refused, broken, silent, and waiting."""
    crm = make_webhook(name="CRM", url="https://crm.example.com/hook")
    shop = make_webhook(
        name="Shop", url="https://shop.example.com/", event_types=["recording.ready"]
    )
    sms = events.publish("recording.ready", {"text": "hi"})
    log = {
        "ok": make_delivery(crm, call_id="call-a"),
        "missing": make_delivery(crm, call_id="call-b"),
        "broken": make_delivery(crm, call_id="call-b"),
        "silent": make_delivery(crm, call_id="call-c"),
        "sms": Delivery.objects.get(event_id=sms.event_id, webhook=shop),
    }
    settle(log["ok"], Status.SUCCEEDED, status_code=200, attempt_count=1, outcome="succeeded")
    settle(log["missing"], status_code=404, attempt_count=1, outcome="refused")
    broken = {"status_code": 503, "attempt_count": 1, "outcome": "server_error"}
    settle(log["broken"], trigger=Trigger.RESENT, **broken)
    settle(log["silent"], attempt_count=1, outcome="timeout")
    return log
