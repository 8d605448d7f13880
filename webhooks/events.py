"""The public door: publish events, send tests, deliver again, pause, resume and delete webhooks.

Rows are written in the caller's transaction and the bell rings after the commit. Knows no HTTP.
"""

import datetime as dt
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, filters, ids, payloads, queue, signing, tasks
from webhooks.models import (
    Delivery,
    Event,
    HoldReason,
    OAuthToken,
    PauseReason,
    Status,
    Trigger,
    Webhook,
)
from webhooks.queue import NewDelivery, NewEventRow

# How long a rotated signing secret still signs.
_ROTATION_HOURS = 24
_TOKEN_HOLDS = (HoldReason.REAUTHORIZATION, HoldReason.MISCONFIGURED, HoldReason.NO_TOKEN)
_OPEN = (Status.PENDING, Status.HELD, Status.PARKED)
_BATCH = 2000
_MAX_KEY_LENGTH = 255


class InvalidEvent(ValueError):
    """An event that cannot be accepted; the text says why in one sentence."""

    permanent = True

    def __init__(self, message: object, *, code: str, field: str) -> None:
        super().__init__(str(message))
        self.code = code
        self.field = field


class NewEvent(NamedTuple):
    type: str
    payload: Mapping[str, object]
    idempotency_key: str | None = None
    # When it happened; now by default.
    occurred_at: dt.datetime | None = None
    # Who published it, for the log.
    source: str = ""


class Published(NamedTuple):
    event_id: str
    deliveries: int
    # Webhooks that want the type but whose filter refused this event.
    filtered: int
    is_duplicate: bool


class _Subscriber(NamedTuple):
    id: int
    patterns: frozenset[str]
    filter: filters.Filter
    is_active: bool


def publish(
    type: str,
    payload: Mapping[str, object],
    *,
    idempotency_key: str | None = None,
    occurred_at: dt.datetime | None = None,
    source: str = "",
) -> Published:
    """Accept one event and make a delivery for each webhook that wants it.

    Runs in the caller's transaction: nothing is sent if that rolls back. The same
    `idempotency_key` with the same content is the same event. Raises InvalidEvent.
    """
    return publish_many([NewEvent(type, payload, idempotency_key, occurred_at, source)])[0]


def publish_many(items: Iterable[NewEvent]) -> list[Published]:
    """Accept many events with a handful of statements; all or none. Raises InvalidEvent."""
    wanted = list(items)
    for item in wanted:
        _check(item)
    return _accept(wanted)


def publish_operational(type: str, payload: Mapping[str, object]) -> Published:
    """Publish an event about webhooks themselves (`webhook.failing` and the like)."""
    return _accept([NewEvent(type, payload, source="webhooks")])[0]


def _check(item: NewEvent) -> None:
    if not catalogue.is_known(item.type):
        raise InvalidEvent(
            _("There is no event type “%(type)s”.") % {"type": str(item.type)[:100]},
            code="unknown_type",
            field="type",
        )
    if not catalogue.EVENT_TYPES[item.type].is_publishable:
        raise InvalidEvent(
            _("Events of the type “%(type)s” are made by this product only.") % {"type": item.type},
            code="reserved_type",
            field="type",
        )
    key = item.idempotency_key
    if key is not None and not (
        isinstance(key, str) and 0 < len(key) <= _MAX_KEY_LENGTH and key.isprintable()
    ):
        raise InvalidEvent(
            _("An idempotency key is 1 to 255 printable characters."),
            code="invalid_key",
            field="idempotency_key",
        )


def _accept(items: Sequence[NewEvent]) -> list[Published]:
    known = _known_events(items)
    try:
        with transaction.atomic():
            return _insert(items, known)
    except IntegrityError:
        # Another process used the same idempotency key a moment ago.
        again = _known_events(items)
        if again == known:
            raise
        with transaction.atomic():
            return _insert(items, again)


class _Known(NamedTuple):
    event_id: str
    fingerprint: str


def _known_events(items: Sequence[NewEvent]) -> dict[str, _Known]:
    keys = {item.idempotency_key for item in items if item.idempotency_key}
    if not keys:
        return {}
    rows = Event.objects.filter(idempotency_key__in=keys)
    return {
        str(key): _Known(event_id, fingerprint)
        for key, event_id, fingerprint in rows.values_list("idempotency_key", "id", "fingerprint")
    }


def _insert(items: Sequence[NewEvent], known: Mapping[str, _Known]) -> list[Published]:
    seen = dict(known)
    subscribers = _subscribers()
    by_type: dict[str, list[_Subscriber]] = {}
    published: list[Published] = []
    events: list[NewEventRow] = []
    deliveries: list[NewDelivery] = []
    for item in items:
        fingerprint = _fingerprint(item) if item.idempotency_key else ""
        if item.idempotency_key and (before := seen.get(item.idempotency_key)):
            published.append(_repeated(before, fingerprint))
            continue
        if item.type not in by_type:
            by_type[item.type] = _wanting(subscribers, item.type)
        event, rows = _fan_out(item, fingerprint, by_type[item.type])
        events.append(event)
        deliveries.extend(rows)
        if item.idempotency_key:
            seen[item.idempotency_key] = _Known(event.id, fingerprint)
        published.append(Published(event.id, len(rows), event.filtered_count, False))
    queue.backend().enqueue(events, deliveries)
    if deliveries:
        transaction.on_commit(tasks.ring)
    return published


def _repeated(before: _Known, fingerprint: str) -> Published:
    if before.fingerprint != fingerprint:
        raise InvalidEvent(
            _("This idempotency key was used for an event with other content."),
            code="key_reused",
            field="idempotency_key",
        )
    sent = Delivery.objects.filter(event_id=before.event_id, trigger=Trigger.EVENT).count()
    filtered = Event.objects.values_list("filtered_count", flat=True).filter(pk=before.event_id)
    return Published(before.event_id, sent, next(iter(filtered), 0), True)


def _fingerprint(item: NewEvent) -> str:
    try:
        return payloads.fingerprint(item.type, item.payload)
    except payloads.InvalidPayload as error:
        raise _refusal(error) from error


def _subscribers() -> list[_Subscriber]:
    rows = Webhook.objects.present().values_list("pk", "event_types", "filter", "is_active")
    return [
        _Subscriber(pk, frozenset(types), _compiled(json.dumps(tree)), is_active)
        for pk, types, tree, is_active in rows
    ]


@lru_cache(maxsize=4096)
def _compiled(tree: str) -> filters.Filter:
    return filters.compile_filter(json.loads(tree))


def _wanting(subscribers: Sequence[_Subscriber], type: str) -> list[_Subscriber]:
    patterns = set(catalogue.patterns_for(type))
    return [
        subscriber for subscriber in subscribers if not patterns.isdisjoint(subscriber.patterns)
    ]


def _fan_out(
    item: NewEvent, fingerprint: str, wanting: Sequence[_Subscriber]
) -> tuple[NewEventRow, list[NewDelivery]]:
    event_id = ids.event_id()
    occurred_at = item.occurred_at or timezone.now()
    document = _document(item, event_id, occurred_at)
    values: Mapping[str, Any] | None = None
    deliveries: list[NewDelivery] = []
    for subscriber in wanting:
        if not subscriber.filter.is_empty:
            values = values or json.loads(document)
            if not subscriber.filter.matches(values):
                continue
        deliveries.append(_new_delivery(event_id, subscriber.id, is_active=subscriber.is_active))
    event = NewEventRow(
        id=event_id,
        type=item.type,
        payload=document,
        occurred_at=occurred_at,
        filtered_count=len(wanting) - len(deliveries),
        idempotency_key=item.idempotency_key,
        fingerprint=fingerprint,
        source=item.source[:100],
        call_id=_call_id(item.payload),
    )
    return event, deliveries


def _document(item: NewEvent, event_id: str, occurred_at: dt.datetime) -> bytes:
    try:
        return payloads.build_document(
            item.type, event_id, occurred_at, settings.WEBHOOKS_PROJECT_ID, item.payload
        )
    except payloads.InvalidPayload as error:
        raise _refusal(error) from error


def _refusal(error: payloads.InvalidPayload) -> InvalidEvent:
    code = "too_large" if error.code == "too_large" else "invalid_payload"
    return InvalidEvent(error, code=code, field="payload")


def _call_id(payload: Mapping[str, object]) -> str:
    value = payload.get("call_id") or payload.get("uniqueid") or ""
    return str(value)[:128].replace("\0", "")


def _new_delivery(
    event_id: str, webhook_id: int, *, is_active: bool, trigger: Trigger = Trigger.EVENT
) -> NewDelivery:
    return NewDelivery(
        ids.delivery_id(),
        event_id,
        webhook_id,
        (Status.PENDING if is_active else Status.HELD).value,
        trigger.value,
        "" if is_active else HoldReason.PAUSED.value,
    )


def send_test(webhook: Webhook, event_type: str | None = None) -> Delivery:
    """Send a sample through the real path, once and even while the webhook is paused."""
    item = NewEvent(
        event_type or "webhook.test", catalogue.sample_event(event_type or "webhook.test")
    )
    with transaction.atomic():
        event, _deliveries = _fan_out(item, "", [])
        delivery = _new_delivery(event.id, webhook.pk, is_active=True, trigger=Trigger.TEST)
        queue.backend().enqueue([event._replace(source="test")], [delivery])
        transaction.on_commit(tasks.ring)
    return Delivery.objects.get(pk=delivery.id)


def redeliver(deliveries: QuerySet[Delivery], *, trigger: Trigger = Trigger.REDELIVERY) -> int:
    """Send the same events again to the same webhooks, as new deliveries; return how many."""
    rows = deliveries.filter(webhook__deleted_at=None).order_by("id")
    copies = [
        _new_delivery(event_id, webhook_id, is_active=is_active, trigger=trigger)
        for event_id, webhook_id, is_active in rows.values_list(
            "event_id", "webhook_id", "webhook__is_active"
        )
    ]
    with transaction.atomic():
        for start in range(0, len(copies), _BATCH):
            queue.backend().enqueue([], copies[start : start + _BATCH])
        transaction.on_commit(tasks.ring)
    return len(copies)


def cancel(deliveries: QuerySet[Delivery]) -> int:
    """Give up deliveries that wait; one that is being sent is not stopped."""
    return deliveries.filter(status__in=_OPEN).update(
        status=Status.CANCELLED, next_attempt_at=None, hold_reason="", finished_at=Now()
    )


def send_now(deliveries: QuerySet[Delivery]) -> int:
    """Make waiting and parked deliveries due at once."""
    with transaction.atomic():
        moved = deliveries.filter(status__in=(Status.PENDING, Status.PARKED)).update(
            status=Status.PENDING, next_attempt_at=Now(), unknown_count=0
        )
        transaction.on_commit(tasks.ring)
    return moved


def pause(webhook: Webhook, reason: PauseReason = PauseReason.PERSON) -> None:
    """Stop sending; what waits and what comes is held until resumed."""
    webhook.pause(reason)
    webhook.save(update_fields=["is_active", "pause_reason", "paused_at"])
    waiting = Delivery.objects.filter(webhook=webhook, status=Status.PENDING)
    waiting.exclude(trigger=Trigger.TEST).update(
        status=Status.HELD, hold_reason=HoldReason.PAUSED, next_attempt_at=None
    )


def resume(webhook: Webhook, drop_held: bool = False) -> int:
    """Send again, oldest first; return how many held deliveries were released or dropped."""
    webhook.resume()
    webhook.save(update_fields=["is_active", "pause_reason", "paused_at"])
    held = Delivery.objects.filter(
        webhook=webhook, status=Status.HELD, hold_reason=HoldReason.PAUSED
    )
    return cancel(held) if drop_held else _release(held)


def release_held(webhook: Webhook) -> int:
    """Release what waited for a token, oldest first; return how many."""
    held = Delivery.objects.filter(webhook=webhook, status=Status.HELD)
    return _release(held.filter(hold_reason__in=_TOKEN_HOLDS))


def _release(held: QuerySet[Delivery]) -> int:
    released = 0
    while batch := list(held.order_by("id").values_list("pk", flat=True)[:_BATCH]):
        released += Delivery.objects.filter(pk__in=batch, status=Status.HELD).update(
            status=Status.PENDING, hold_reason="", next_attempt_at=Now()
        )
    transaction.on_commit(tasks.ring)
    return released


def delete(webhook: Webhook) -> None:
    """Delete a webhook: cancel what waits, erase its secrets and token, keep its log."""
    with transaction.atomic():
        webhook.deleted_at = timezone.now()
        webhook.pause(PauseReason.PERSON)
        for field in ("basic_password", "client_secret", "headers_json"):
            webhook.set_secret(field, "")
        webhook.signing_secret = webhook.previous_signing_secret = ""
        webhook.save()
        OAuthToken.objects.filter(webhook=webhook).delete()
        cancel(Delivery.objects.filter(webhook=webhook))


def rotate_signing_secret(webhook: Webhook) -> str:
    """Give a new signing secret and return it; the old one signs along for 24 hours."""
    webhook.previous_signing_secret = webhook.signing_secret
    webhook.previous_signing_secret_until = timezone.now() + dt.timedelta(hours=_ROTATION_HOURS)
    secret = signing.new_secret()
    webhook.set_secret("signing_secret", secret)
    webhook.save(
        update_fields=[
            "signing_secret",
            "previous_signing_secret",
            "previous_signing_secret_until",
            "secrets_changed_at",
        ]
    )
    return secret
