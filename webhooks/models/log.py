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

from webhooks.catalogue.phones import PhoneNumbers, written
from webhooks.models import ids
from webhooks.models.webhook import Webhook


class Event(models.Model):
    """What happened. `payload` holds the frozen bytes of the whole event document as JSON."""

    id = models.CharField(primary_key=True, max_length=30, default=ids.event_id, editable=False)
    type = models.CharField(_("Type"), max_length=100)
    payload = models.BinaryField(_("Payload"))
    occurred_at = models.DateTimeField(_("Occurred at"))
    # How many webhooks wanted the type but refused the event by their filter.
    filtered_count = models.PositiveIntegerField(default=0)
    # As the publisher gave it; `IdempotencyKey` sees that it is used once.
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001
    # sha256 of type and payload, to tell a repeated call from a reused key.
    fingerprint = models.CharField(max_length=64, blank=True, default="")
    source = models.CharField(_("Source"), max_length=100, blank=True, default="")
    # The event this one is an edited copy of.
    copy_of = models.CharField(max_length=30, blank=True, default="", db_default="")
    # Copied from the payload so that the log can be searched; None is in no index.
    call_id = models.CharField(_("Call id"), max_length=128, null=True, blank=True)  # noqa: DJ001
    # Digits from the last to the first (`catalogue.phones`); a number that is there twice, once.
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
            # A comparison implies `IS NOT NULL`, for SQLite too. The newest events are read.
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
        """Return the phone numbers for people, the caller's first."""
        stored = (getattr(self, column) for column in PhoneNumbers._fields)
        return [written(number) for number in stored if number]


class IdempotencyKey(models.Model):
    """Which event a key is of. A table of its own: no index is unique over partitions of events."""

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


# Nothing more comes of these unless a person resends them; the others keep their rows.
FINAL_STATUSES = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
OPEN_STATUSES = (Status.PENDING, Status.SENDING, Status.HELD, Status.PARKED)


class HoldReason(models.TextChoices):
    PAUSED = "paused", _("Webhook paused")
    REAUTHORIZATION = "reauthorization", _("Needs re-authorization")
    MISCONFIGURED = "misconfigured", _("OAuth misconfigured")
    NO_TOKEN = "no_token", _("No access token yet")


class Trigger(models.TextChoices):
    EVENT = "event", _("Event")
    TEST = "test", _("Test")
    # One or a few by hand, and many at a rate.
    RESENT = "resent", _("Resent")
    BULK = "bulk", _("Resent in bulk")
    EDITED = "edited", _("Edited and resent")


class Outcome(models.TextChoices):
    """What an attempt came to; `delivery.requests.next_step` says what each one leads to."""

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


# Before any delivery: names the index `delivery_due_by_time`.
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def by_index(self, name: str) -> "DeliveryQuerySet":
        """Say that these rows are all in a partial index, so that SQLite uses it.

        Its planner compares texts: a parameter proves nothing to it.
        """
        if connections[self.db].vendor != "sqlite":
            return self
        # The text of our own index.
        own = RawSQL(_condition_of(name), [], models.BooleanField())  # noqa: S611
        return self.filter(own)

    def in_status(self, status: str, *, webhook: int | None = None) -> "DeliveryQuerySet":
        """Return the rows of a status, also of one webhook, by the partial indexes that have it."""
        rows = self
        for name in _INDEXES_OF.get(status, ()):
            rows = rows.by_index(name)
        rows = rows.filter(status=status)
        if webhook is None:
            return rows
        if status in _BY_STATUS_ALONE:
            return rows.of_webhook(webhook)
        return rows.filter(webhook=webhook)

    def cancel(self) -> int:
        """Give up those that wait; one that is being sent is not stopped. Return how many."""
        waiting = self.filter(status__in=(Status.PENDING, Status.HELD, Status.PARKED))
        return waiting.update(
            status=Status.CANCELLED, next_attempt_at=None, hold_reason="", finished_at=Now()
        )

    def count_to(self, limit: int) -> int:
        """Count up to one more than a limit: a webhook may hold millions."""
        # In the order of ids SQLite would read everything of the webhook.
        return self.order_by()[: limit + 1].count()

    def of_events(self, events: Collection[str], *, webhook: int) -> "DeliveryQuerySet":
        """Return a webhook's rows of some events, newest first, by the index of the events."""
        return self.filter(event__in=events).of_webhook(webhook).order_by("-id")

    def of_webhook(self, webhook: int) -> "DeliveryQuerySet":
        """Filter what another index finds; SQLite would read everything of the webhook."""
        if connections[self.db].vendor != "sqlite":
            return self.filter(webhook=webhook)
        # A sum has no index.
        return self.alias(of=F("webhook_id") + 0).filter(of=webhook)


# Their index does not name the webhook, but they are rare.
_BY_STATUS_ALONE = (Status.FAILED, Status.PARKED, Status.CANCELLED)
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
    """Return the condition of an index as it stands in the database, values and all."""
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
    # Failures that count against the retry schedule; a dead process or token does not.
    failure_count = models.PositiveSmallIntegerField(default=0)
    # How often a process died with it; after three it is parked.
    unknown_count = models.PositiveSmallIntegerField(default=0)
    # Names the claim that owns the row while it is sending.
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
            # The head of an ordered webhook, however many wait behind it.
            models.Index(
                fields=["webhook", "id"], name="delivery_in_order", condition=Q(status="pending")
            ),
            # What became due of late, whatever the webhook. Only a query that names this time may
            # use it: while nothing is due, statistics make it look as good to a planner as
            # `delivery_due`, and each look at one webhook would read the rows of all.
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
            # The head of an ordered webhook may be held, and held rows are looked for and released.
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
            # The rare ones, for the log's filters; a plain success is in neither.
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


# The address of a GET may have 65,536 characters.
MAX_REQUEST_LINE = 4096


class Attempt(models.Model):
    """One HTTP request of a delivery, as it was sent (secrets redacted) and answered."""

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
    # The method and the address; a longer one ends in "…" where it is cut.
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
        """Return the body of the request; `payload` is the event's, which may be all of it."""
        return bytes(payload if self.request_body is None else self.request_body)


class SavedView(models.Model):
    """Filters of the log that a person keeps under a name."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views"
    )
    name = models.CharField(_("Name"), max_length=40)
    # The query of the log's address.
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
    """Attempts of one webhook in one hour with one outcome and about one duration.

    The engine adds to it; charts and the bars of the list read only it, never the log.
    """

    id = models.BigAutoField(primary_key=True)
    # No constraint: written by the engine beside the hot rows.
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
    # Which step of `webhooks.delivery.histogram` the total time falls into.
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
    """A running drain, while there are shards to divide: see `webhooks.delivery.shards`."""

    # Drawn by the drain.
    member = models.PositiveBigIntegerField(primary_key=True)
    # With how many shards it works.
    shards = models.PositiveSmallIntegerField()
    seen_at = models.DateTimeField()

    class Meta:
        verbose_name = _("drain")

    def __str__(self) -> str:
        return f"{self.member} of {self.shards} shards"
