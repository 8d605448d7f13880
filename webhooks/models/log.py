"""The log and the queue in one: events, their deliveries, and each HTTP attempt.

Delivery rows are the queue (docs/engine.md): `delivery.queue` claims and finishes them with plain
SQL. Each row is updated twice per delivery, so indexes are few and partial.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from functools import cache

from django.conf import settings
from django.db import connections, models
from django.db.models import F, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from webhooks.catalogue.phones import PhoneNumbers, display_number
from webhooks.models import ids
from webhooks.models.webhook import Webhook


class Event(models.Model):
    """What happened. `payload` holds the frozen bytes of the whole event document as JSON."""

    id = models.CharField(primary_key=True, max_length=30, default=ids.event_id, editable=False)
    type = models.CharField(_("Type"), max_length=100)
    payload = models.BinaryField(_("Payload"))
    occurred_at = models.DateTimeField(_("Occurred at"))
    # Number of webhooks subscribed to the type whose filter refused the event.
    filtered_count = models.PositiveIntegerField(default=0)
    # As given by the publisher; `IdempotencyKey` ensures that it is used once.
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001
    # SHA-256 of type and payload, to tell a repeated call from a reused key.
    fingerprint = models.CharField(max_length=64, blank=True, default="")
    source = models.CharField(_("Source"), max_length=100, blank=True, default="")
    # The event this one is an edited copy of.
    copy_of = models.CharField(max_length=30, blank=True, default="", db_default="")
    # Copied from the payload so that the log can be searched; the index leaves out None.
    call_id = models.CharField(_("Call id"), max_length=128, null=True, blank=True)  # noqa: DJ001
    # Reversed digits (`catalogue.phones`); a number that occurs twice is stored once.
    caller_digits = models.CharField(max_length=20, null=True, blank=True)  # noqa: DJ001
    callee_digits = models.CharField(max_length=20, null=True, blank=True)  # noqa: DJ001
    client_digits = models.CharField(max_length=20, null=True, blank=True)  # noqa: DJ001
    company_digits = models.CharField(max_length=20, null=True, blank=True)  # noqa: DJ001
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("events")
        indexes = [
            models.Index(fields=["type", "-id"], name="event_by_type"),
            # Partial: a comparison implies `IS NOT NULL`, also for SQLite. Descending: the newest
            # events are read first.
            *(
                models.Index(
                    fields=[column, "-id"],
                    name=f"event_{column}",
                    condition=Q((f"{column}__isnull", False)),
                )
                for column in ("call_id", *PhoneNumbers._fields)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"

    @property
    def numbers(self) -> list[str]:
        """Return the phone numbers for display, the caller's first."""
        stored = (getattr(self, column) for column in PhoneNumbers._fields)
        return [display_number(number) for number in stored if number]


class IdempotencyKey(models.Model):
    """The event of an idempotency key. A separate table: no unique index spans partitions."""

    key = models.CharField(primary_key=True, max_length=255)
    event = models.ForeignKey(
        Event, on_delete=models.CASCADE, related_name="+", db_constraint=False
    )

    class Meta:
        verbose_name = _("idempotency key")

    def __str__(self) -> str:
        return self.key


class Status(models.TextChoices):
    PENDING = "pending", _("Waiting")
    SENDING = "sending", _("Sending")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    HELD = "held", _("On hold")
    PARKED = "parked", _("Stuck")
    CANCELLED = "cancelled", _("Cancelled")


# Final unless a person resends the delivery. Retention keeps rows in the other statuses.
FINAL_STATUSES = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
OPEN_STATUSES = (Status.PENDING, Status.SENDING, Status.HELD, Status.PARKED)


class HoldReason(models.TextChoices):
    PAUSED = "paused", _("Webhook paused")
    REAUTHORIZATION = "reauthorization", _("Needs re-authorization")
    MISCONFIGURED = "misconfigured", _("Misconfigured")
    NO_TOKEN = "no_token", _("No access token yet")


class Trigger(models.TextChoices):
    EVENT = "event", _("Event")
    TEST = "test", _("Test")
    # RESENT: one or a few by hand; BULK: many, at a chosen rate.
    RESENT = "resent", _("Resent")
    BULK = "bulk", _("Resent in bulk")
    EDITED = "edited", _("Edited and resent")


class Outcome(models.TextChoices):
    """The result of an attempt; `delivery.requests.next_step` decides what follows."""

    SUCCEEDED = "succeeded", _("Succeeded")
    SERVER_ERROR = "server_error", _("Server error")
    THROTTLED = "throttled", _("Asked to slow down")
    TIMEOUT = "timeout", _("Timed out")
    NETWORK = "network", _("Network error")
    TLS = "tls", _("TLS error")
    PROTOCOL = "protocol", _("Invalid response")
    UNAUTHORIZED = "unauthorized", _("Authorization refused")
    REFUSED = "refused", _("Refused")
    REJECTED = "rejected", _("Rejected by the success rule")
    REDIRECT = "redirect", _("Redirect, not followed")
    GONE = "gone", _("Gone")
    BLOCKED = "blocked", _("Blocked by the network guard")
    UNKNOWN = "unknown", _("Unknown: the process died")


# Earlier than any delivery; a query that names it can use the index `delivery_due_by_time`.
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def by_index(self, name: str) -> "DeliveryQuerySet":
        """Repeat the condition of a partial index that has all these rows, so that SQLite uses it.

        SQLite's planner needs the literal SQL; a bound parameter proves nothing to it.
        """
        if connections[self.db].vendor != "sqlite":
            return self
        # The SQL comes from our own model.
        own = RawSQL(_condition_of(name), [], models.BooleanField())  # noqa: S611
        return self.filter(own)

    def in_status(self, status: str, *, webhook: int | None = None) -> "DeliveryQuerySet":
        """Return the rows in a status, or only one webhook's, through the partial indexes."""
        rows = self
        for name in _INDEXES_OF.get(status, ()):
            rows = rows.by_index(name)
        rows = rows.filter(status=status)
        if webhook is None:
            return rows
        if status in _STATUS_ONLY_INDEX:
            return rows.of_webhook(webhook)
        return rows.filter(webhook=webhook)

    def cancel(self) -> int:
        """Cancel waiting deliveries, but not those being sent. Return how many."""
        waiting = self.filter(status__in=(Status.PENDING, Status.HELD, Status.PARKED))
        return waiting.update(
            status=Status.CANCELLED, next_attempt_at=None, hold_reason="", finished_at=Now()
        )

    def count_to(self, limit: int) -> int:
        """Count rows, at most `limit + 1`, because a webhook may have millions."""
        # Ordered by id, SQLite would read all rows of the webhook.
        return self.order_by()[: limit + 1].count()

    def of_events(self, events: Collection[str], *, webhook: int) -> "DeliveryQuerySet":
        """Return a webhook's rows for some events, newest first, through the index of events."""
        return self.filter(event__in=events).of_webhook(webhook).order_by("-id")

    def of_webhook(self, webhook: int) -> "DeliveryQuerySet":
        """Filter by webhook without its index, with which SQLite would read all of its rows."""
        if connections[self.db].vendor != "sqlite":
            return self.filter(webhook=webhook)
        # An expression has no index.
        return self.alias(of=F("webhook_id") + 0).filter(of=webhook)


# Statuses whose index has no webhook; their rows are rare.
_STATUS_ONLY_INDEX = (Status.FAILED, Status.PARKED, Status.CANCELLED)
_INDEXES_OF: dict[str, tuple[str, ...]] = {
    Status.PENDING: ("delivery_due",),
    Status.SENDING: ("delivery_leased",),
    Status.HELD: ("delivery_held", "delivery_exceptional"),
    Status.FAILED: ("delivery_exceptional",),
    Status.PARKED: ("delivery_exceptional",),
    Status.CANCELLED: ("delivery_exceptional",),
}


@cache
def _condition_of(name: str) -> str:
    """Return the condition of an index as SQL, with its values inline."""
    index = next(one for one in Delivery._meta.indexes if one.name == name)
    editor = connections["default"].schema_editor()
    return index._get_condition_sql(Delivery, editor)  # type: ignore[no-any-return]


class Delivery(models.Model):
    """One event for one webhook: a row of the queue and of the log."""

    id = models.CharField(primary_key=True, max_length=30, default=ids.delivery_id, editable=False)
    # No foreign key triggers on the hot rows: docs/decisions/0002-no-hot-foreign-keys.md.
    event = models.ForeignKey(
        Event, on_delete=models.CASCADE, related_name="deliveries", db_constraint=False
    )
    webhook = models.ForeignKey(
        Webhook,
        on_delete=models.CASCADE,
        related_name="deliveries",
        db_index=False,
        db_constraint=False,
    )
    status = models.CharField(
        _("Status"), max_length=10, choices=Status.choices, default=Status.PENDING
    )
    trigger = models.CharField(
        _("Trigger"), max_length=10, choices=Trigger.choices, default=Trigger.EVENT
    )
    hold_reason = models.CharField(
        max_length=16, choices=HoldReason.choices, blank=True, default=""
    )
    # Pending: when it may be sent. Sending: when the lease ends. None in every other status.
    next_attempt_at = models.DateTimeField(_("Next attempt"), null=True, blank=True)
    attempt_count = models.PositiveSmallIntegerField(_("Attempts"), default=0)
    # Failures that count against the retry schedule; those of a dead process or token do not.
    failure_count = models.PositiveSmallIntegerField(default=0)
    # Times that a process died while sending it; after three it is parked.
    unknown_count = models.PositiveSmallIntegerField(default=0)
    # The claim that owns the row while it is being sent.
    lease = models.CharField(max_length=32, blank=True, default="")
    outcome = models.CharField(max_length=16, choices=Outcome.choices, blank=True, default="")
    status_code = models.PositiveSmallIntegerField(_("Response code"), null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("delivery log")
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["webhook", "next_attempt_at"],
                name="delivery_due",
                condition=Q(status="pending"),
            ),
            # The head of an ordered webhook, whatever its backlog.
            models.Index(
                fields=["webhook", "id"], name="delivery_in_order", condition=Q(status="pending")
            ),
            # Rows that became due recently, of any webhook. Only a query that names LONG_AGO may
            # use it: while nothing is due, statistics make it look as good to a planner as
            # `delivery_due`, and each query for one webhook would read the rows of all.
            models.Index(
                fields=["next_attempt_at"],
                name="delivery_due_by_time",
                condition=Q(status="pending", next_attempt_at__gt=LONG_AGO),
            ),
            models.Index(
                fields=["webhook", "next_attempt_at"],
                name="delivery_leased",
                condition=Q(status="sending"),
            ),
            # The head of an ordered webhook may be held; also used to find and release held rows.
            models.Index(
                fields=["webhook", "id"], name="delivery_held", condition=Q(status="held")
            ),
            models.Index(
                fields=["next_attempt_at"],
                name="delivery_tests",
                condition=Q(status="pending", trigger="test"),
            ),
            models.Index(
                fields=["webhook", "next_attempt_at"],
                name="delivery_quarantined",
                condition=Q(status="pending", unknown_count__gte=2),
            ),
            models.Index(
                fields=["status", "-id"],
                name="delivery_exceptional",
                condition=Q(status__in=["failed", "held", "parked", "cancelled"]),
            ),
            models.Index(fields=["webhook", "-id"], name="delivery_by_webhook"),
            # Rare values, for the log's filters; an ordinary success is in neither index.
            models.Index(
                fields=["status_code", "-id"],
                name="delivery_by_bad_code",
                condition=Q(status_code__lt=200) | Q(status_code__gte=300),
            ),
            models.Index(
                fields=["trigger", "-id"],
                name="delivery_by_trigger",
                condition=Q(trigger__in=["test", "resent", "bulk", "edited"]),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=["pending", "sending"], next_attempt_at__isnull=False)
                | ~Q(status__in=["pending", "sending"]) & Q(next_attempt_at__isnull=True),
                name="delivery_due_when_open",
                violation_error_message=_("Only a delivery that waits or is sent has a due time."),
            ),
        ]

    def __str__(self) -> str:
        return self.id


# The URL of a GET may have 65,536 characters.
MAX_REQUEST_LINE = 4096


class Attempt(models.Model):
    """One HTTP request of a delivery (secrets redacted) and its response."""

    id = models.BigAutoField(primary_key=True)
    delivery = models.ForeignKey(
        Delivery, on_delete=models.CASCADE, related_name="attempts", db_constraint=False
    )
    number = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField()
    dns_ms = models.FloatField(null=True, blank=True)
    connect_ms = models.FloatField(null=True, blank=True)
    tls_ms = models.FloatField(null=True, blank=True)
    first_byte_ms = models.FloatField(null=True, blank=True)
    total_ms = models.FloatField(null=True, blank=True)
    remote_address = models.CharField(max_length=64, blank=True, default="")
    # The method and the URL; ends in "…" if it was cut.
    request_line = models.CharField(max_length=MAX_REQUEST_LINE)
    # Header lines joined by "\n"; the values of secrets are masked.
    request_headers = models.TextField(blank=True, default="")
    # None: the event's payload bytes, unchanged.
    request_body = models.BinaryField(null=True, blank=True)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    response_headers = models.TextField(blank=True, default="")
    # The first 20,000 bytes.
    response_body = models.BinaryField(default=b"")
    response_size = models.BigIntegerField(default=0)
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        verbose_name = _("attempt")
        ordering = ["number", "id"]

    def __str__(self) -> str:
        return f"{self.delivery_id} #{self.number}"

    @property
    def is_address_cut(self) -> bool:
        return len(self.request_line) >= MAX_REQUEST_LINE

    def body_sent(self, payload: bytes | memoryview) -> bytes:
        """Return the request body: the event's `payload` unless the attempt has its own body."""
        return bytes(payload if self.request_body is None else self.request_body)


class SavedView(models.Model):
    """Filters of the log that a user saved under a name."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views"
    )
    name = models.CharField(_("Name"), max_length=40)
    # The query string of the log page.
    query = models.CharField(max_length=1000)

    class Meta:
        verbose_name = _("saved view")
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["user", "name"],
                name="saved_view_once",
                violation_error_message=_("You have a view of this name."),
            )
        ]

    def __str__(self) -> str:
        return self.name


class HourlyCount(models.Model):
    """Number of attempts of one webhook in one hour, by outcome and step of duration.

    The engine writes it; charts and the bars in the list read only this table, never the log.
    """

    id = models.BigAutoField(primary_key=True)
    # No foreign key constraint: the engine writes it together with the hot rows.
    webhook = models.ForeignKey(
        Webhook,
        on_delete=models.CASCADE,
        related_name="hourly_counts",
        db_index=False,
        db_constraint=False,
    )
    # The beginning of the hour, UTC.
    hour = models.DateTimeField()
    outcome = models.CharField(max_length=16, choices=Outcome.choices)
    # The step of `webhooks.delivery.histogram` that the total time falls into.
    duration_step = models.PositiveSmallIntegerField()
    count = models.PositiveBigIntegerField(default=0)

    class Meta:
        verbose_name = _("hourly count")
        constraints = [
            models.UniqueConstraint(
                fields=["webhook", "hour", "outcome", "duration_step"],
                name="hourly_count_once",
                violation_error_message=_("This hour is counted already."),
            )
        ]
        indexes = [models.Index(fields=["hour"], name="hourly_count_by_hour")]

    def __str__(self) -> str:
        return f"{self.webhook_id} {self.hour:%Y-%m-%d %H} {self.outcome}"


class Drain(models.Model):
    """A running drain, while there are shards to share: see `webhooks.delivery.shards`."""

    # A random number chosen by the drain.
    member = models.PositiveBigIntegerField(primary_key=True)
    # The number of shards it works with.
    shards = models.PositiveSmallIntegerField()
    seen_at = models.DateTimeField()

    class Meta:
        verbose_name = _("drain")

    def __str__(self) -> str:
        return f"{self.member} of {self.shards} shards"
