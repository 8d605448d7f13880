"""The public functions: publish events, send tests, resend, pause, resume and delete webhooks.

Rows are written in the caller's transaction, and the engine is notified after the commit.
"""

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from django.db import Error as DatabaseError
from django.db import OperationalError, connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from webhooks import catalogue, tasks
from webhooks.delivery import holds, queue, resends, trash
from webhooks.delivery.fan_out import (
    InvalidEventError,
    NewEvent,
    Published,
    accept,
    accept_any,
    accept_at_once,
    accept_each,
    check,
    deliver_again,
    fan_out,
    new_delivery,
    prepare_at_once,
    present_webhooks,
    sample_payload,
)
from webhooks.delivery.group_commit import AsyncGroupCommit, GroupCommit, Throttle
from webhooks.delivery.queue.async_postgres import AsyncInserts
from webhooks.delivery.trash import delete, erase, purge
from webhooks.models import (
    FINAL_STATUSES,
    Credential,
    Delivery,
    DeliveryQuerySet,
    Event,
    HoldReason,
    Incident,
    IncidentKind,
    PauseReason,
    Resend,
    Status,
    Trigger,
    Webhook,
    WebhookState,
)
from webhooks.models.webhook import bump_version
from webhooks.security import signatures

logger = logging.getLogger(__name__)

__all__ = [
    "AsyncPublisher",
    "InvalidEventError",
    "NewEvent",
    "Published",
    "cancel",
    "delete",
    "erase",
    "is_wakeup_to_come",
    "pause",
    "publish",
    "publish_each",
    "publish_many",
    "publish_together",
    "purge",
    "release_held",
    "resend",
    "resend_edited",
    "restore",
    "resume",
    "rotate_signing_secret",
    "send_test",
    "start_resend",
    "wake_drains",
]

# How long requests are also signed with the previous signing secrets, and with how many: several
# rotations within that time do not invalidate the secret that the receiver still has.
_ROTATION_HOURS, _PREVIOUS_SECRETS = 24, 5
# How long a group waits for another transaction with one of its idempotency keys, which is longer
# than a commit takes, and how long a single event or a batch does.
LOCK_TIMEOUT_MS = 50
LOCK_TIMEOUT_ALONE_MS = 10_000
# Idempotency keys of events that threads are publishing alone, because another transaction may hold
# the key. A further event with such a key joins no group, and its thread waits only briefly.
published_alone: list[str] = []


def publish(
    type: str,
    payload: Mapping[str, object],
    *,
    idempotency_key: str | None = None,
    occurred_at: dt.datetime | None = None,
    source: str = "",
) -> Published:
    """Accept one event and create a delivery for each webhook whose types and filter match.

    Runs in the caller's transaction: nothing is sent if it rolls back. The same
    `idempotency_key` with the same content is the same event. Raises InvalidEventError.
    """
    return publish_many([NewEvent(type, payload, idempotency_key, occurred_at, source)])[0]


def publish_many(items: Iterable[NewEvent]) -> list[Published]:
    """Accept many events with one statement or a few; all or none. Raises InvalidEventError."""
    wanted = list(items)
    for item in wanted:
        check(item)
    published = [_accept_alone(wanted[0])] if len(wanted) == 1 else accept(wanted)
    _notify_of(published)
    return published


def _accept_alone(item: NewEvent, *, lock_timeout_ms: int = 0) -> Published:
    """Accept an event with one statement in autocommit mode, without BEGIN and COMMIT."""
    if not (queue.backend().ACCEPTS_AT_ONCE and connection.get_autocommit()):
        return accept([item])[0]
    [result] = accept_at_once([item], lock_timeout_ms=lock_timeout_ms)
    result = result or accept_any([item])[0]
    if isinstance(result, InvalidEventError):
        raise result
    return result


def publish_each(items: Sequence[NewEvent]) -> list[Published | InvalidEventError]:
    """Accept the valid ones of many events; the result of each other event is its error.

    All in one transaction: the caller's, if there is one.
    """
    errors = [_error_of(item) for item in items]
    wanted = [item for item, error in zip(items, errors, strict=True) if not error]
    is_alone = not connection.in_atomic_block
    accepted = accept_each(wanted, lock_timeout_ms=LOCK_TIMEOUT_ALONE_MS if is_alone else 0)
    _notify_of(one for one in accepted if isinstance(one, Published))
    results = iter(accepted)
    return [error or next(results) for error in errors]


def publish_together(item: NewEvent) -> Published:
    """Accept one event as `publish` does, in one transaction with events of other threads.

    An event that cannot be written with the group is published alone, so that neither makes the
    other fail, and errors are in the language of their own thread.
    The caller calls `wake_drains` once its client has the response, so the client does not wait
    for it.
    """
    check(item)
    is_grouped = not connection.in_atomic_block and item.idempotency_key not in published_alone
    published = _together.submit(item) if is_grouped else None
    if published is None:
        published = _publish_alone(item)
        _notify_of([published])
    return published


def _publish_alone(item: NewEvent) -> Published:
    key = item.idempotency_key
    timeout_ms = LOCK_TIMEOUT_MS if key in published_alone else LOCK_TIMEOUT_ALONE_MS
    if key is None:
        return _accept_alone(item, lock_timeout_ms=timeout_ms)
    published_alone.append(key)
    try:
        return _accept_alone(item, lock_timeout_ms=timeout_ms)
    finally:
        published_alone.remove(key)


def _publish_group(items: Sequence[NewEvent]) -> list[Published | None]:
    """Accept a group; return None for each event that must be published alone."""
    accepted: Sequence[Published | InvalidEventError | None]
    try:
        if queue.backend().ACCEPTS_AT_ONCE:
            accepted = accept_at_once(items, lock_timeout_ms=LOCK_TIMEOUT_MS)
        else:
            accepted = accept_each(items)
    except Exception as error:
        if isinstance(error, DatabaseError) and not connection.is_usable():
            # Whether the transaction was committed is unknown.
            raise
        if isinstance(error, OperationalError) and not queue.backend().WRITES_IN_PARALLEL:
            # SQLite's file is locked or full for every event; each alone would wait once more.
            raise
        _log_failed(items, error)
        return [None] * len(items)
    return [one if isinstance(one, Published) else None for one in accepted]


def _log_failed(items: Sequence[NewEvent], error: Exception) -> None:
    # The error of a single event is reported when it is published alone.
    level = logging.WARNING if len(items) > 1 else logging.DEBUG
    # Not the message: PostgreSQL's messages quote the values to be written.
    kind = type(error.__cause__ or error).__name__
    logger.log(level, "group_failed events=%d error=%s", len(items), kind)


# Above 20 events per second one wakeup covers several events, which halves the cost of each.
_wakeup_throttle = Throttle(tasks.notify, every_seconds=0.05, burst=10)


def wake_drains() -> None:
    """Tell the drains that rows were committed, at once or within 50 ms. Never raises."""
    _wakeup_throttle.call()


def is_wakeup_to_come() -> bool:
    """Return whether `wake_drains` would do nothing, because a wakeup is due within 50 ms."""
    return _wakeup_throttle.is_to_come


# Events of one process that may share a commit; each may have a megabyte.
_AT_MOST = 32
_together = GroupCommit(_publish_group, at_most=_AT_MOST)


class AsyncPublisher:
    """Publishes events as `publish_together` does, from the tasks of one event loop."""

    def __init__(self) -> None:
        # Read once: each task of the event loop would open a Django connection for it.
        self._is_possible = bool(queue.backend().ACCEPTS_AT_ONCE)
        self._inserts = AsyncInserts()
        self._together = AsyncGroupCommit(self._write, at_most=_AT_MOST)

    def is_ready(self) -> bool:
        """Return whether events can be published; if not, start connecting to the database."""
        return self._is_possible and self._inserts.is_ready()

    async def close(self) -> None:
        await self._inserts.close()

    async def publish(self, item: NewEvent) -> Published | None:
        """Publish one event; None if nothing was written and a thread has to publish it.

        Raises InvalidEventError, and OperationalError if it is unknown whether it was committed.
        """
        check(item)
        if item.idempotency_key in published_alone or not self.is_ready():
            return None
        return await self._together.submit(item)

    async def _write(self, items: Sequence[NewEvent]) -> Sequence[Published | None]:
        """Write a group; return None for each event that a thread has to publish."""
        results: Sequence[Published | InvalidEventError | None] | None = None
        try:
            if self.is_ready() and (prepared := prepare_at_once(items)):
                results = prepared.results
                if prepared.events:
                    written = await self._inserts.insert(
                        prepared.events,
                        prepared.deliveries,
                        prepared.version,
                        lock_timeout_ms=LOCK_TIMEOUT_MS,
                    )
                    results = prepared.results_of(*written)
        except Exception as error:
            if isinstance(error, OperationalError) and not self._inserts.is_connected:
                # Whether the transaction was committed is unknown.
                raise
            _log_failed(items, error)
            results = None
        return [
            one if isinstance(one, Published) else None for one in results or [None] * len(items)
        ]


def _notify_of(published: Iterable[Published]) -> None:
    if any(one.deliveries for one in published):
        transaction.on_commit(tasks.notify)


def _error_of(item: NewEvent) -> InvalidEventError | None:
    try:
        check(item)
    except InvalidEventError as error:
        return error
    return None


def send_test(webhook: Webhook, event_type: str | None = None) -> Delivery:
    """Send a sample event through the engine, once and even while the webhook is paused.

    The default type is the first one that the webhook subscribes to.
    """
    kind = event_type or catalogue.first_type(webhook.event_types)
    item = NewEvent(kind, sample_payload(webhook, kind))
    with transaction.atomic():
        event, _deliveries = fan_out(item, "", [])
        delivery = new_delivery(event.id, webhook.pk, is_active=True, trigger=Trigger.TEST)
        queue.backend().enqueue([event._replace(source="test")], [delivery])
        transaction.on_commit(tasks.notify)
    return Delivery.objects.get(pk=delivery.id)


def resend(deliveries: QuerySet[Delivery]) -> int:
    """Resend finished deliveries as new ones; make pending and parked ones due at once.

    Return the number of both. Deliveries that are held or being sent, and those of a deleted
    webhook that have finished, are left out.
    """
    with transaction.atomic():
        moved = deliveries.filter(status__in=(Status.PENDING, Status.PARKED)).update(
            status=Status.PENDING, next_attempt_at=Now(), unknown_count=0
        )
        ended = deliveries.filter(status__in=FINAL_STATUSES, webhook__deleted_at=None).order_by(
            "id"
        )
        pairs = list(ended.values_list("event_id", "webhook_id"))
        made = deliver_again(pairs, trigger=Trigger.RESENT)
        transaction.on_commit(tasks.notify)
    return moved + made


def cancel(deliveries: DeliveryQuerySet) -> int:
    """Cancel waiting deliveries; return how many."""
    return deliveries.cancel()


def start_resend(resend: Resend) -> Resend:
    """Save a resend as running and start it after the commit.

    Raises AlreadyRunningError if the same resend is running.
    """
    resends.start(resend)
    transaction.on_commit(partial(tasks.advance_soon, resend.pk))
    return resend


def resend_edited(delivery: Delivery, payload: Mapping[str, object]) -> Delivery:
    """Send an edited copy of a delivery's event to the same webhook only; return its delivery.

    The copy keeps the event's time and refers to the event. Raises InvalidEventError.
    """
    old, webhook = delivery.event, delivery.webhook
    event, _ = fan_out(NewEvent(old.type, payload, occurred_at=old.occurred_at), "", [])
    with transaction.atomic():
        is_active = present_webhooks([webhook.pk]).get(webhook.pk, False)
        copy = new_delivery(event.id, webhook.pk, is_active=is_active, trigger=Trigger.EDITED)
        queue.backend().enqueue([event._replace(source="edited")], [copy])
        Event.objects.filter(pk=event.id).update(copy_of=old.pk)
        transaction.on_commit(tasks.notify)
    return Delivery.objects.get(pk=copy.id)


def pause(webhook: Webhook, reason: PauseReason = PauseReason.PERSON) -> None:
    """Stop sending; waiting and new deliveries are held until the webhook is resumed.

    The first rows are held at once, the rest by the sweep; the engine sends none of them.
    """
    webhook.pause(reason)
    webhook.save(update_fields=["is_active", "pause_reason", "paused_at"])
    holds.stop(webhook.pk, holds.ROWS_AT_ONCE)


def resume(webhook: Webhook, cancels_held: bool = False) -> int:
    """Resume sending, oldest first; return how many held deliveries were released or cancelled.

    At most 2,000 at once; the sweep releases or cancels the rest.
    """
    webhook.resume()
    with transaction.atomic():
        if cancels_held:
            # SQLite's clock has only milliseconds: deliveries of the same one would be left out.
            now = timezone.now() if connection.vendor == "sqlite" else Now()
            # Set first, so that waiting deliveries are not sent in between.
            Webhook.objects.filter(pk=webhook.pk).update(cancels_before=now, **bump_version())
        webhook.save(update_fields=["is_active", "pause_reason", "paused_at"])
        _forget_failures(webhook)
    if cancels_held:
        return holds.cancel_paused(webhook.pk, holds.ROWS_AT_ONCE)
    held = Delivery.objects.filter(
        webhook=webhook, status=Status.HELD, hold_reason=HoldReason.PAUSED
    )
    # What an earlier resume cancels stays cancelled, even if the sweep has not reached it yet.
    cancelling = Webhook.objects.filter(pk=webhook.pk, cancels_before__isnull=False)
    for before in cancelling.values_list("cancels_before", flat=True):
        held = held.filter(created_at__gte=before)
    return _release(held, at_most=holds.ROWS_AT_ONCE)


def restore(pk: int) -> Webhook | None:
    """Restore a webhook from the trash; see `trash.restore`."""
    with transaction.atomic():
        webhook = trash.restore(pk)
        if webhook is not None and webhook.is_active:
            _forget_failures(webhook)
    return webhook


def _forget_failures(webhook: Webhook) -> None:
    """Reset the failure state: failures before a pause or a deletion do not pause the webhook.

    Being active again does not mean that the webhook works again, so no recovery alert is sent.
    """
    WebhookState.objects.filter(webhook=webhook).update(failing_since_at=None, failures_in_a_row=0)
    failing = Incident.objects.filter(webhook=webhook, kind=IncidentKind.FAILING, closed_at=None)
    failing.update(closed_at=timezone.now())


def release_held(credential: Credential) -> int:
    """Release deliveries held for a credential, of every webhook that uses it; return how many.

    At most 2,000 at once; the sweep releases the rest.
    """
    return _release(holds.waiting_for(credential), at_most=holds.ROWS_AT_ONCE)


def _release(held: QuerySet[Delivery], *, at_most: int) -> int:
    released = holds.release(held, at_most=at_most)
    transaction.on_commit(tasks.notify)
    return released


def rotate_signing_secret(webhook: Webhook) -> str:
    """Set and return a new signing secret; those that are valid now stay valid for 24 hours."""
    secret = signatures.new_secret()
    columns = [
        "signing_secret",
        "previous_signing_secrets",
        "previous_signing_secrets_until",
        "secrets_changed_at",
    ]
    with transaction.atomic():
        # A double click rotates twice at the same time.
        webhook.refresh_from_db(fields=columns, from_queryset=Webhook.objects.select_for_update())
        valid = [webhook.signing_secret]
        if webhook.rotation_ends_at:
            valid += webhook.previous_signing_secrets.split()
        webhook.previous_signing_secrets = " ".join(valid[:_PREVIOUS_SECRETS])
        ends_at = timezone.now() + dt.timedelta(hours=_ROTATION_HOURS)
        webhook.previous_signing_secrets_until = ends_at
        webhook.set_secret("signing_secret", secret)
        webhook.save(update_fields=columns)
    return secret
