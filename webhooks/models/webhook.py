"""Webhook: what people edit; WebhookState: what workers write about it."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.models import ids
from webhooks.models.credential import Credential
from webhooks.models.edited import EditedRow
from webhooks.models.origins import origin_of
from webhooks.security import signatures
from webhooks.security.encryption import SecretField


class Method(models.TextChoices):
    GET = "GET", "GET"
    POST = "POST", "POST"
    PUT = "PUT", "PUT"
    PATCH = "PATCH", "PATCH"
    DELETE = "DELETE", "DELETE"


class BodyFormat(models.TextChoices):
    JSON = "json", _("JSON")
    FORM = "form", _("Form")
    QUERY = "query", _("Query string")


class DateFormat(models.TextChoices):
    ISO8601 = "iso8601", _("ISO 8601")
    SQL = "sql", _("YYYY-MM-DD HH:MM:SS")
    UNIX = "unix", _("Unix seconds")


class PauseReason(models.TextChoices):
    """Why a webhook does not send; empty while it is active."""

    PERSON = "person", _("Paused by a person")
    GONE = "gone", _("The receiver answered 410 Gone")
    FAILING = "failing", _("No delivery succeeded for days")


class ResponseRule(models.TextChoices):
    """What the condition on the response decides; empty: the status code alone counts."""

    SUCCEEDS = "succeeds", _("succeeds when")
    FAILS = "fails", _("fails when")


class Header(NamedTuple):
    """A custom header. The value of a secret one is never shown."""

    name: str
    value: str
    is_secret: bool = False


def headers_as_json(headers: Iterable[Header]) -> str:
    """Return the value of `Webhook.headers_json`, empty without headers."""
    rows = [{"name": row.name, "value": row.value, "secret": row.is_secret} for row in headers]
    return json.dumps(rows) if rows else ""


class WebhookQuerySet(models.QuerySet["Webhook"]):
    def present(self) -> "WebhookQuerySet":
        """Leave out deleted webhooks, which stay only as names in the log."""
        return self.filter(deleted_at=None)

    def trashed(self) -> "WebhookQuerySet":
        """Return deleted webhooks that can be restored: their secrets are still there."""
        return self.filter(deleted_at__isnull=False, purged_at=None)

    def active(self) -> "WebhookQuerySet":
        return self.present().filter(is_active=True)


class Webhook(EditedRow):
    """Where events go, how the request looks, and which credential authorizes it."""

    uid = models.CharField(max_length=30, unique=True, default=ids.webhook_uid, editable=False)
    name = models.CharField(_("Name"), max_length=100)
    # The credential in use: the webhook's own or a shared one. Its own is kept beside a shared one.
    credential = models.ForeignKey(
        Credential,
        # Not PROTECT: a webhook and its own credential reference each other and are deleted
        # together.
        on_delete=models.RESTRICT,
        related_name="users",
        verbose_name=_("Connection"),
    )
    is_active = models.BooleanField(_("Active"), default=True)
    pause_reason = models.CharField(
        max_length=16, choices=PauseReason.choices, blank=True, default=""
    )
    paused_at = models.DateTimeField(null=True, blank=True)
    # A resume cancels the deliveries made before this; nothing is sent until the sweep has ended.
    cancels_before = models.DateTimeField(null=True, blank=True)
    url = models.CharField(_("URL"), max_length=2048)
    # Without it no form saves a URL with a secret in its query string.
    accepts_secret_in_url = models.BooleanField(_("Send a secret in the URL"), default=False)
    method = models.CharField(
        _("Method"), max_length=6, choices=Method.choices, default=Method.POST
    )
    body_format = models.CharField(
        _("Body format"), max_length=5, choices=BodyFormat.choices, default=BodyFormat.JSON
    )
    date_format = models.CharField(
        _("Date format"), max_length=8, choices=DateFormat.choices, default=DateFormat.ISO8601
    )
    time_zone = models.CharField(_("Time zone"), max_length=64, default="UTC")
    uses_older_names = models.BooleanField(_("Send the older variable names"), default=False)
    # When an incident opens: at this many failures in a row, or this share within the window.
    alert_after_failures = models.PositiveIntegerField(
        _("Alert after failures in a row"), null=True, blank=True
    )
    alert_failure_percent = models.PositiveSmallIntegerField(
        _("Alert at a share of failures (%)"),
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
    )
    # A list of event type keys and group wildcards such as "call.incoming.*".
    event_types = models.JSONField(_("Event types"), default=list)
    # A condition tree for webhooks.filters; {} lets every event through.
    filter = models.JSONField(_("Filter"), default=dict, blank=True)
    # What the body or query string is built from, in order: {"name", "variable" | "value",
    # "format"}. The name is a path with dots and [] for nested JSON; an empty list sends every
    # variable by its name.
    parameters = models.JSONField(_("Parameters"), default=list, blank=True)
    # A JSON document with {{ variable }} placeholders; used instead of the parameters if not empty.
    body_template = models.TextField(_("JSON body"), blank=True, default="")
    # Written by `headers_as_json`; encrypted because values are often keys.
    headers_json = SecretField(_("Custom headers"))
    timeout_seconds = models.PositiveSmallIntegerField(
        _("Timeout (seconds)"),
        default=15,
        validators=[MinValueValidator(1), MaxValueValidator(60)],
    )
    rate_limit = models.PositiveIntegerField(_("Rate limit"), null=True, blank=True)
    rate_limit_seconds = models.PositiveSmallIntegerField(_("Per"), default=1)
    concurrency_limit = models.PositiveIntegerField(_("Concurrency limit"), null=True, blank=True)
    is_ordered = models.BooleanField(_("Ordered delivery"), default=False)
    # Delays in seconds before each retry; [] means the default schedule.
    retry_schedule_seconds = models.JSONField(_("Retry schedule"), default=list, blank=True)
    # The success rule, see `delivery.success`. [] means every 2xx.
    success_codes = models.JSONField(_("Successful status codes"), default=list, blank=True)
    response_rule = models.CharField(
        _("Response condition"),
        max_length=8,
        choices=ResponseRule.choices,
        blank=True,
        default="",
    )
    # A condition of `webhooks.filters` on the JSON of the response.
    response_variable = models.CharField(
        _("Response field"), max_length=200, blank=True, default=""
    )
    response_operator = models.CharField(_("Compare"), max_length=16, blank=True, default="exists")
    response_value = models.CharField(_("Value"), max_length=500, blank=True, default="")
    # Path of the error in the response, and the errors that mean an expired access token.
    response_error = models.CharField(_("Error field"), max_length=200, blank=True, default="")
    expired_token_errors = models.JSONField(_("Expired-token errors"), default=list, blank=True)
    retries_rejected = models.BooleanField(_("Retry rejected responses"), default=True)
    signing_secret = SecretField(_("Signing secret"))
    # Those that were replaced, separated by spaces, newest first, and when all of them expire.
    previous_signing_secrets = SecretField()
    previous_signing_secrets_until = models.DateTimeField(null=True, blank=True)
    # When the secrets of a deleted webhook were erased; since then it is only a name in the log.
    purged_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = WebhookQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering = ["name", "pk"]
        permissions = [
            ("view_payload", _("Can see payloads")),
            ("test_webhook", _("Can send tests and resend")),
            ("authorize_webhook", _("Can get, refresh and clear access tokens")),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(timeout_seconds__gte=1, timeout_seconds__lte=60),
                name="webhook_timeout_range",
                violation_error_message=_("The timeout is between 1 and 60 seconds."),
            ),
            models.CheckConstraint(
                condition=Q(is_active=True, pause_reason="")
                | ~Q(pause_reason="") & Q(is_active=False),
                name="webhook_paused_has_reason",
                violation_error_message=_("A paused webhook has a reason and an active one none."),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Django passes the columns of stored rows by position; a new webhook gets its own
        # credential.
        if not args and self.credential_id is None and "credential" not in kwargs:
            self.credential = Credential(webhook_id=self.uid)

    @property
    def private_credential(self) -> Credential:
        """Return the webhook's own credential, even while it uses a shared one."""
        if not self.credential.is_shared:
            return self.credential
        return Credential(webhook_id=self.uid) if self._state.adding else self.own_credential

    @property
    def version_sent(self) -> int:
        """Return a number that changes with every change to this row or its credential."""
        return sent_version(self.version, self.credential.version, self.credential.pk)

    @property
    def rotation_ends_at(self) -> datetime | None:
        """Return when the previous signing secrets cease to sign requests, None if none does."""
        until = self.previous_signing_secrets_until
        return until if until and until > timezone.now() else None

    @property
    def known_state(self) -> "WebhookState | None":
        """Return the engine's state, None before the first request. Use with select_related."""
        return getattr(self, "state", None)

    @property
    def has_success_rule(self) -> bool:
        """Return whether a custom rule instead of the usual 2xx decides about success."""
        return bool(self.success_codes or self.response_rule or self.expired_token_errors)

    def read_headers(self) -> list[Header]:
        """Decrypt and return the custom headers. Errors: SecretUnreadableError."""
        rows = json.loads(self.headers_json or "[]")
        return [Header(row["name"], row["value"], bool(row.get("secret", True))) for row in rows]

    def secret_binding(self) -> str:
        return self.uid

    def secret_destinations(self, field: str, receiver_url: str = "") -> set[str]:
        return {origin_of(self.url)} if field == "headers_json" else set()

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            super().save(*args, **kwargs)
            return
        if not self.signing_secret:
            self.set_secret("signing_secret", signatures.new_secret())
        # The rows reference each other; the database checks both foreign keys at commit.
        with transaction.atomic():
            if self.credential.is_shared:
                Credential.objects.get_or_create(webhook_id=self.uid)
            elif self.credential._state.adding:
                self.credential.bind_secrets(self.url)
                self.credential.save()
            super().save(*args, **kwargs)

    def pause(self, reason: PauseReason) -> None:
        self.is_active = False
        self.pause_reason = reason
        self.paused_at = timezone.now()

    def resume(self) -> None:
        self.is_active = True
        self.pause_reason = ""
        self.paused_at = None


# The encrypted columns of a webhook, which lists do not load.
WEBHOOK_SECRETS = tuple(one.name for one in Webhook._meta.fields if isinstance(one, SecretField))


class WebhookState(models.Model):
    """What the engine knows about a webhook: pacing and health. Written by workers and a resume."""

    # No foreign key constraint: it would wait for a webhook that another transaction locked.
    webhook = models.OneToOneField(
        Webhook,
        primary_key=True,
        on_delete=models.CASCADE,
        related_name="state",
        db_constraint=False,
    )
    # Theoretical arrival time of the next request (GCRA), for the rate limit.
    next_send_at = models.DateTimeField(null=True, blank=True)
    last_attempt_at = models.DateTimeField(null=True, blank=True)
    last_success_at = models.DateTimeField(null=True, blank=True)
    last_status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    # Start of the current series of failed attempts; empty while the webhook works.
    failing_since_at = models.DateTimeField(null=True, blank=True)
    # Failed attempts since the last success, as far as they were recorded.
    failures_in_a_row = models.PositiveIntegerField(default=0, db_default=0)
    last_error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        verbose_name = _("webhook state")

    def __str__(self) -> str:
        return f"State of webhook {self.webhook_id}"


def sent_version(version: int, credential_version: int, credential_id: int | None) -> int:
    """Return `Webhook.version_sent`; the credential's primary key tells credentials apart."""
    return version + credential_version + (credential_id or 0) * 2**32


def bump_version() -> dict[str, Any]:
    """Return the columns that every queryset `update()` of webhooks must also write."""
    return {"version": F("version") + 1, "updated_at": Now()}
