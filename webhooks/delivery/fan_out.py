"""Turns an event into rows: whether it is accepted, which webhooks want it, a delivery for each.

Writes in the caller's transaction; `webhooks.events` notifies the engine.
"""

import datetime as dt
import json
import logging
import operator
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from functools import cached_property, lru_cache, reduce
from typing import Any, NamedTuple

from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Exists, OuterRef, Q, TextField
from django.db.models.functions import Cast
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue, filters, payloads
from webhooks.catalogue import phones
from webhooks.delivery import queue
from webhooks.delivery.queue.rows import NewDelivery, NewEventRow
from webhooks.models import (
    Event,
    HoldReason,
    IdempotencyKey,
    Status,
    Trigger,
    Webhook,
    ids,
    origin_of,
)

logger = logging.getLogger(__name__)

_MAX_KEY_LENGTH = 255
# Every time zone can show these years, and times counted from 1970 are not negative.
_FIRST_YEAR, _LAST_YEAR = 1970, 9998
# With more patterns than this, from more than a few types, reading every webhook is as fast.
_MAX_PATTERNS = 12
_BATCH = 2000
# About 10 MB, even if a thousand events go to a thousand webhooks each.
_MAX_ROWS_IN_MEMORY = 20_000
_EVENT = Trigger.EVENT.value
# Not for longer: after a failover to a database without the last commits a version may come again.
REMEMBERED_SECONDS = 60.0
# About 20 ms, for which the other requests of an event loop wait.
_MAX_ROWS_ON_LOOP, _MAX_JUDGED_ON_LOOP = 4000, 1000


class DeliveryError(Exception):
    """The base of the exceptions of this package."""

    permanent = True


class InvalidEventError(DeliveryError, ValueError):
    """An event that cannot be accepted; the text says why in one sentence."""

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
    # Webhooks that want the type but whose filter rejected this event.
    filtered: int
    is_duplicate: bool


class _Subscriber(NamedTuple):
    """A webhook and the first status of its deliveries."""

    id: int
    patterns: frozenset[str]
    # None: it has no conditions, or they cannot be read, so that its deliveries are held.
    filter: filters.Filter | None
    status: str
    hold_reason: str


def check(item: NewEvent) -> None:
    if not catalogue.is_known(item.type):
        raise InvalidEventError(
            _("There is no event type “%(type)s”.") % {"type": str(item.type)[:100]},
            code="unknown_type",
            field="type",
        )
    if not catalogue.EVENT_TYPES[item.type].is_publishable:
        raise InvalidEventError(
            _("Events of the type “%(type)s” are made by this product only.") % {"type": item.type},
            code="reserved_type",
            field="type",
        )
    key = item.idempotency_key
    if key is not None and not (
        isinstance(key, str) and 0 < len(key) <= _MAX_KEY_LENGTH and key.isprintable()
    ):
        raise InvalidEventError(
            _("An idempotency key must be 1 to 255 printable characters."),
            code="invalid_key",
            field="idempotency_key",
        )
    if item.occurred_at is not None and not _FIRST_YEAR <= item.occurred_at.year <= _LAST_YEAR:
        raise InvalidEventError(
            _("An event happens in the years %(first)d to %(last)d.")
            % {"first": _FIRST_YEAR, "last": _LAST_YEAR},
            code="invalid_time",
            field="occurred_at",
        )


def accept(items: Sequence[NewEvent]) -> list[Published]:
    """Insert events and their deliveries in the caller's transaction; the caller notifies.

    Each event was checked. Raises InvalidEventError if a payload or an idempotency key still cannot
    be accepted; then nothing is inserted.
    """
    with transaction.atomic():
        return _whole(_accept_each(items, is_whole=True))


def accept_each(
    items: Sequence[NewEvent], *, lock_timeout_ms: int = 0
) -> list[Published | InvalidEventError]:
    """Insert as `accept` does; the result of an event that cannot be accepted is its error."""
    with transaction.atomic():
        return _accept_each(items, lock_timeout_ms=lock_timeout_ms)


def _accept_each(
    items: Sequence[NewEvent], *, lock_timeout_ms: int = 0, is_whole: bool = False
) -> list[Published | InvalidEventError]:
    if not queue.backend().ACCEPTS_AT_ONCE:
        return accept_any(items)
    accepted = accept_at_once(items, lock_timeout_ms=lock_timeout_ms, is_whole=is_whole)
    left = [item for item, result in zip(items, accepted, strict=True) if result is None]
    others = iter(accept_any(left) if left else ())
    return [result or next(others) for result in accepted]


def _whole(results: Iterable[Published | InvalidEventError | None]) -> list[Published]:
    """Return the results of the accepted events; raise the first error, if any."""
    accepted: list[Published] = []
    for result in results:
        if isinstance(result, InvalidEventError):
            raise result
        if result is not None:
            accepted.append(result)
    return accepted


def accept_at_once(
    items: Sequence[NewEvent], *, lock_timeout_ms: int = 0, is_whole: bool = False
) -> list[Published | InvalidEventError | None]:
    """Insert events with one statement; the result is None for each that it leaves out.

    That is one whose idempotency key is in use, or that exceeds the memory limit: `accept_any`
    takes it. With `is_whole`, an error is raised before anything is inserted. Only where
    `queue.backend().ACCEPTS_AT_ONCE`.
    """
    types = {item.type for item in items}
    for is_again in (False, True):
        prepared = _prepared(items, _subscriptions_of(types, is_again=is_again))
        if is_whole:
            _whole(prepared.results)
        if not prepared.events:
            return prepared.results
        results = prepared.results_of(
            *queue.backend().enqueue_at_once(
                prepared.events,
                prepared.deliveries,
                prepared.version,
                lock_timeout_ms=lock_timeout_ms,
            )
        )
        if results is not None:
            return results
    return [None] * len(items)


class Prepared(NamedTuple):
    """What one statement inserts, based on a version of the subscriptions."""

    # The result of each event if it is new; None beyond the memory limit.
    results: list[Published | InvalidEventError | None]
    events: list[NewEventRow]
    deliveries: list[NewDelivery]
    version: int

    def results_of(
        self, version: int, written: Set[str]
    ) -> list[Published | InvalidEventError | None] | None:
        """Return the results after the statement; None if it found that webhooks changed."""
        if version != self.version:
            if version >= 0:
                _known.clear()
            return None
        return [
            None if isinstance(one, Published) and one.event_id not in written else one
            for one in self.results
        ]


def prepare_at_once(items: Sequence[NewEvent]) -> Prepared | None:
    """Prepare what `accept_at_once` inserts, without a query.

    None if the webhooks for one of these types are not known, or if it would take too long.
    """
    known = _fresh_subscriptions()
    if known is None or any(item.type not in known.by_type for item in items):
        return None
    wanting = [known.by_type[item.type] for item in items]
    rows = sum(map(len, wanting))
    judged = sum(one.filter is not None for subscribers in wanting for one in subscribers)
    if rows > _MAX_ROWS_ON_LOOP or judged > _MAX_JUDGED_ON_LOOP:
        return None
    return _prepared(items, known)


def _prepared(items: Sequence[NewEvent], known: "_Subscriptions") -> Prepared:
    return Prepared(*_fanned_out(items, known.by_type), known.version)


def _fanned_out(
    items: Sequence[NewEvent], by_type: Mapping[str, Sequence["_Subscriber"]]
) -> tuple[list[Published | InvalidEventError | None], list[NewEventRow], list[NewDelivery]]:
    """Return the result of each event if it is new (None beyond the memory limit), and the rows."""
    results: list[Published | InvalidEventError | None] = []
    events: list[NewEventRow] = []
    receivers: list[tuple[str, _Subscriber]] = []
    now = timezone.now()
    for item, event_id in zip(items, ids.new_ids("evt", len(items)), strict=True):
        if len(receivers) > _MAX_ROWS_IN_MEMORY:
            results.append(None)
            continue
        try:
            fingerprint = _fingerprint(item) if item.idempotency_key else ""
            event, chosen = _apply_filters(item, fingerprint, by_type[item.type], event_id, now)
        except InvalidEventError as error:
            results.append(error)
            continue
        events.append(event)
        receivers += [(event_id, one) for one in chosen]
        results.append(Published(event_id, len(chosen), event.filtered_count, False))
    return results, events, _deliveries(receivers)


class _Subscriptions(NamedTuple):
    """Which webhooks want which type, for one version of the table of webhooks."""

    version: int
    # Monotonic seconds.
    read_at: float
    by_type: dict[str, list[_Subscriber]]


# The newest one, if any.
_known: deque[_Subscriptions] = deque(maxlen=1)


def _fresh_subscriptions() -> _Subscriptions | None:
    known = next(iter(_known.copy()), None)
    if known is None or time.monotonic() - known.read_at > REMEMBERED_SECONDS:
        return None
    return known


def _subscriptions_of(types: Set[str], *, is_again: bool = False) -> _Subscriptions:
    """Return the webhooks that want these types; their version tells later if that still holds.

    With `is_again`, they are not those that are remembered.
    """
    known = None if is_again else _fresh_subscriptions()
    if known is None:
        version = queue.backend().subscriptions_version()
        known = _Subscriptions(version, time.monotonic(), {})
    elif types <= known.by_type.keys():
        return known
    elif (version := queue.backend().subscriptions_version()) != known.version:
        known = _Subscriptions(version, time.monotonic(), {})
    # Read after the version: a change in between is included, and only causes another read.
    missing = types - known.by_type.keys()
    # Empty if no event is left to accept, or if another thread has just read them.
    subscribers = _subscribers(missing) if missing else []
    for type in missing:
        known.by_type[type] = _subscribed_to(subscribers, type)
    if known.version >= 0:
        # Not what this transaction has changed and may still roll back.
        _known.append(known)
    return known


def accept_any(items: Sequence[NewEvent]) -> list[Published | InvalidEventError]:
    """Accept any events, even with idempotency keys in use or too many for one statement."""
    known = _known_events(items)
    while True:
        try:
            with transaction.atomic():
                batch = _Batch(items, known)
                results = [batch.result_of(item) for item in items]
                batch.write()
            return results
        except IntegrityError:
            # Another process just used one of the keys, or the event of one was deleted.
            before, known = known, _known_events(items)
            if known == before and not _free_keys(items):
                raise


def _free_keys(items: Sequence[NewEvent]) -> bool:
    """Delete keys whose events were deleted without them, as by hand; return whether any were."""
    event = Event.objects.filter(pk=OuterRef("event_id"))
    used = IdempotencyKey.objects.filter(key__in=_keys_of(items))
    return used.exclude(Exists(event)).delete()[0] > 0


class _KnownEvent(NamedTuple):
    event_id: str
    fingerprint: str


def _known_events(items: Sequence[NewEvent]) -> dict[str, _KnownEvent]:
    keys = _keys_of(items)
    if not keys:
        return {}
    rows = IdempotencyKey.objects.filter(key__in=keys)
    return {
        str(key): _KnownEvent(event_id, fingerprint)
        for key, event_id, fingerprint in rows.values_list("key", "event", "event__fingerprint")
    }


def _keys_of(items: Sequence[NewEvent]) -> set[str]:
    return {item.idempotency_key for item in items if item.idempotency_key}


class _Batch:
    """Events that are inserted together; rows are written whenever there are many."""

    def __init__(self, items: Sequence[NewEvent], known: Mapping[str, _KnownEvent]) -> None:
        self._seen = dict(known)
        self._made: dict[str, Published] = {}
        self._types = {item.type for item in items}
        self._by_type: dict[str, list[_Subscriber]] = {}
        self._events: list[NewEventRow] = []
        self._deliveries: list[NewDelivery] = []

    @cached_property
    def _subscribers(self) -> list[_Subscriber]:
        return _subscribers(self._types)

    def result_of(self, item: NewEvent) -> Published | InvalidEventError:
        try:
            return self.add(item)
        except InvalidEventError as error:
            return error

    def add(self, item: NewEvent) -> Published:
        key = item.idempotency_key
        fingerprint = _fingerprint(item) if key else ""
        if key and (before := self._seen.get(key)):
            return _repeated(before, fingerprint, self._made.get(before.event_id))
        if item.type not in self._by_type:
            self._by_type[item.type] = _subscribed_to(self._subscribers, item.type)
        event, rows = fan_out(item, fingerprint, self._by_type[item.type])
        self._events.append(event)
        self._deliveries.extend(rows)
        if key:
            self._seen[key] = _KnownEvent(event.id, fingerprint)
        self._made[event.id] = Published(event.id, len(rows), event.filtered_count, False)
        if len(self._deliveries) > _MAX_ROWS_IN_MEMORY:
            self.write()
        return self._made[event.id]

    def write(self) -> None:
        queue.backend().enqueue(self._events, self._deliveries)
        self._events, self._deliveries = [], []


def _repeated(before: _KnownEvent, fingerprint: str, made: Published | None) -> Published:
    """Return the result of the first call; `made` is that result if it is in the same batch."""
    if before.fingerprint != fingerprint:
        raise InvalidEventError(
            _("This idempotency key was used for an event with other content."),
            code="key_reused",
            field="idempotency_key",
        )
    if made is not None:
        return made._replace(is_duplicate=True)
    sent = Q(deliveries__trigger=Trigger.EVENT)
    counted = Event.objects.filter(pk=before.event_id).annotate(sent=Count("deliveries", sent))
    found = counted.values_list("sent", "filtered_count").first() or (0, 0)
    return Published(before.event_id, *found, True)


def _fingerprint(item: NewEvent) -> str:
    try:
        return payloads.fingerprint(item.type, item.payload)
    except payloads.DocumentError as error:
        raise refusal(error) from error


def _subscribers(types: Collection[str]) -> list[_Subscriber]:
    """Return the webhooks that may want one of these types; `_subscribed_to` checks exactly."""
    # As the JSON text that both databases store, so that this process parses equal texts once.
    webhooks = Webhook.objects.present().annotate(
        listed=Cast("event_types", TextField()), conditions=Cast("filter", TextField())
    )
    patterns = {pattern for type in types for pattern in catalogue.patterns_for(type)}
    if len(patterns) <= _MAX_PATTERNS:
        # Only returned rows cost this process time.
        named = (Q(listed__contains=json.dumps(pattern)) for pattern in patterns)
        webhooks = webhooks.filter(reduce(operator.or_, named))
    rows = webhooks.values_list("pk", "listed", "conditions", "is_active")
    return [
        _subscriber(pk, _patterns(listed), filter_of(pk, conditions), is_active)
        for pk, listed, conditions, is_active in rows
    ]


def _subscriber(
    webhook_id: int, patterns: frozenset[str], filter: filters.Filter | None, is_active: bool
) -> _Subscriber:
    held = Status.HELD.value
    if filter is None:
        # Until a person has corrected the filter.
        return _Subscriber(webhook_id, patterns, None, held, HoldReason.MISCONFIGURED.value)
    wanted = None if filter.is_empty else filter
    if not is_active:
        return _Subscriber(webhook_id, patterns, wanted, held, HoldReason.PAUSED.value)
    return _Subscriber(webhook_id, patterns, wanted, Status.PENDING.value, "")


@lru_cache(maxsize=4096)
def _patterns(listed: str) -> frozenset[str]:
    return frozenset(json.loads(listed))


# Cached also so that an unreadable filter is logged once and not with each event.
@lru_cache(maxsize=4096)
def filter_of(webhook_id: int, conditions: str) -> filters.Filter | None:
    """Return the filter of a webhook; None if the stored one cannot be read."""
    try:
        return _compiled(conditions)
    except filters.FilterError as error:
        logger.error("filter_unreadable webhook=%d reason=%s", webhook_id, error)
        return None


@lru_cache(maxsize=4096)
def _compiled(conditions: str) -> filters.Filter:
    return filters.compile_filter(json.loads(conditions))


def is_readable(tree: object) -> bool:
    """Return whether a stored filter can be read; otherwise it is unknown which events it wants."""
    try:
        filters.compile_filter(tree)
    except filters.FilterError:
        return False
    return True


def _subscribed_to(subscribers: Sequence[_Subscriber], type: str) -> list[_Subscriber]:
    patterns = set(catalogue.patterns_for(type))
    return [
        subscriber for subscriber in subscribers if not patterns.isdisjoint(subscriber.patterns)
    ]


def fan_out(
    item: NewEvent, fingerprint: str, subscribers: Sequence[_Subscriber]
) -> tuple[NewEventRow, list[NewDelivery]]:
    event, chosen = _apply_filters(item, fingerprint, subscribers, ids.event_id(), timezone.now())
    return event, _deliveries([(event.id, one) for one in chosen])


def _apply_filters(
    item: NewEvent,
    fingerprint: str,
    subscribers: Sequence[_Subscriber],
    event_id: str,
    now: dt.datetime,
) -> tuple[NewEventRow, Sequence[_Subscriber]]:
    """Make the row of an event; return it with the webhooks whose filters accept it."""
    occurred_at = item.occurred_at or now
    if occurred_at.tzinfo is None:
        # In the same time zone as in its document.
        occurred_at = timezone.make_aware(occurred_at, timezone.get_default_timezone())
    document = _document(item, event_id, occurred_at)
    values: filters.Folded | None = None
    chosen: list[_Subscriber] = []
    for subscriber in subscribers:
        if subscriber.filter is not None:
            values = values or filters.Folded(json.loads(document))
            if not subscriber.filter.matches(values):
                continue
        chosen.append(subscriber)
    event = NewEventRow(
        event_id,
        item.type,
        document,
        occurred_at,
        len(subscribers) - len(chosen),
        item.idempotency_key,
        fingerprint,
        item.source[:100],
        _call_id(item.payload),
        *phones.numbers_of(item.payload),
    )
    return event, chosen


def _deliveries(receivers: Sequence[tuple[str, _Subscriber]]) -> list[NewDelivery]:
    """Make the deliveries of events, given by their ids, for their webhooks."""
    return [
        NewDelivery(delivery_id, event_id, one.id, one.status, _EVENT, one.hold_reason)
        for delivery_id, (event_id, one) in zip(
            ids.new_ids("dlv", len(receivers)), receivers, strict=True
        )
    ]


def sample_payload(webhook: Webhook, event_type: str) -> dict[str, Any]:
    """Return the sample values of an event type; those about a webhook are about this one."""
    sample = catalogue.sample_event(event_type)
    own = {
        "webhook_id": webhook.uid,
        "webhook_name": webhook.name,
        "webhook_url": origin_of(webhook.url),
    }
    return {**sample, **{key: own[key] for key in own.keys() & sample.keys()}}


def _document(item: NewEvent, event_id: str, occurred_at: dt.datetime) -> bytes:
    try:
        return payloads.build_document(
            item.type, event_id, occurred_at, settings.WEBHOOKS_PROJECT_ID, item.payload
        )
    except payloads.DocumentError as error:
        raise refusal(error) from error


def refusal(error: payloads.DocumentError) -> InvalidEventError:
    code = "too_large" if error.code == "too_large" else "invalid_payload"
    return InvalidEventError(error, code=code, field="payload")


def _call_id(payload: Mapping[str, object]) -> str | None:
    value = payload.get("call_id") or payload.get("uniqueid") or ""
    return str(value)[:128].replace("\0", "") or None


def new_delivery(
    event_id: str, webhook_id: int, *, is_active: bool, trigger: Trigger
) -> NewDelivery:
    return NewDelivery(
        ids.delivery_id(),
        event_id,
        webhook_id,
        (Status.PENDING if is_active else Status.HELD).value,
        trigger.value,
        "" if is_active else HoldReason.PAUSED.value,
    )


def deliver_again(pairs: Sequence[tuple[str, int]], *, trigger: Trigger) -> int:
    """Queue each (event id, webhook id) once more; return how many deliveries were made.

    Leaves out deleted events and webhooks; the others are locked until the caller's transaction
    ends.
    """
    active = present_webhooks({webhook_id for _, webhook_id in pairs})
    made = 0
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        present = _present_events({event_id for event_id, _ in batch})
        rows = [
            new_delivery(event_id, webhook_id, is_active=active[webhook_id], trigger=trigger)
            for event_id, webhook_id in batch
            if webhook_id in active and event_id in present
        ]
        queue.backend().enqueue([], rows)
        made += len(rows)
    return made


# Both lock no more than needed: neither publishing nor resending waits. SQLite has one writer at a
# time anyway.


def present_webhooks(webhook_ids: Collection[int]) -> dict[int, bool]:
    """Return which of these exist, and whether active, locked until the transaction ends."""
    rows = Webhook.objects.present().filter(pk__in=webhook_ids)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM webhooks_webhook WHERE id = ANY(%s) ORDER BY id FOR SHARE",
                [list(webhook_ids)],
            )
    return dict(rows.values_list("pk", "is_active"))


def _present_events(event_ids: Collection[str]) -> set[str]:
    """Return which of these exist, locked until the transaction ends."""
    if connection.vendor != "postgresql":
        return set(Event.objects.filter(pk__in=event_ids).values_list("pk", flat=True))
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id FROM webhooks_event WHERE id = ANY(%s) FOR KEY SHARE", [list(event_ids)]
        )
        return {row[0] for row in cursor.fetchall()}
