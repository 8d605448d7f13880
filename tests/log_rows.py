"""Deliveries that ended in several ways, for tests of the log."""

from typing import Any

from tests.factories import make_delivery, make_webhook
from webhooks import events
from webhooks.models import Delivery, Status, Trigger


def settle(delivery: Delivery, status: str = Status.FAILED, **fields: Any) -> Delivery:
    """End a delivery without sending anything."""
    Delivery.objects.filter(pk=delivery.pk).update(status=status, next_attempt_at=None, **fields)
    delivery.refresh_from_db()
    return delivery


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
