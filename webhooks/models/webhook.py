"""Webhook: what people edit; WebhookState: what workers write about it."""

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.models import ids
from webhooks.models.authorization import AuthorizationFields, AuthorizationType
from webhooks.security import signatures
from webhooks.security.encryption import SecretField

__all__ = [
    "AuthorizationType",
    "BodyFormat",
    "Connection",
    "DateFormat",
    "Method",
    "PauseReason",
    "Webhook",
]


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
    FAILING = "failing", _("No delivery succeeded for 5 days")


class WebhookQuerySet(models.QuerySet["Webhook"]):
    def present(self) -> "WebhookQuerySet":
        """Leave out connections and deleted webhooks, which stay only as names in the log."""
        return self.filter(deleted_at=None, is_connection=False)

    def connections(self) -> "WebhookQuerySet":
        return self.filter(deleted_at=None, is_connection=True)

    def owners(self) -> "WebhookQuerySet":
        """Keep whatever can own a token: webhooks and connections that were not deleted."""
        return self.filter(deleted_at=None)

    def active(self) -> "WebhookQuerySet":
        return self.present().filter(is_active=True)


class Webhook(AuthorizationFields):
    """Where events go, how the request looks, and how it is authorized."""

    uid = models.CharField(max_length=30, unique=True, default=ids.webhook_uid, editable=False)
    name = models.CharField(_("Name"), max_length=100)
    # Authorization saved under a name and used by many: docs/decisions/0005-connections.md.
    is_connection = models.BooleanField(default=False, editable=False)
    connection = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="users",
        verbose_name=_("Connection"),
    )
    # Of a connection: the host names its credentials may be sent to.
    allowed_hosts = models.JSONField(_("Hosts"), default=list, blank=True)
    is_active = models.BooleanField(_("Active"), default=True)
    pause_reason = models.CharField(
        max_length=16, choices=PauseReason.choices, blank=True, default=""
    )
    paused_at = models.DateTimeField(null=True, blank=True)
    url = models.CharField(_("URL"), max_length=2048)
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
    # E-mail addresses told about failures; muting keeps them.
    alert_recipients = models.JSONField(_("Alert recipients"), default=list, blank=True)
    alerts_are_muted = models.BooleanField(_("Mute alerts"), default=False)
    # When muted: until then; None until somebody unmutes.
    alerts_muted_until = models.DateTimeField(_("Muted until"), null=True, blank=True)
    # When people are told: after so many failures in a row, or such a share within the window.
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
    # What the body or query is built from, in order: {"name", "variable" | "value", "format"}.
    # The name is a path with dots and [] for nested JSON; [] sends every variable by its name.
    parameters = models.JSONField(_("Parameters"), default=list, blank=True)
    # A JSON document with {{ variable }} places; used instead of the parameters when not empty.
    body_template = models.TextField(_("JSON body"), blank=True, default="")
    # A JSON list of {"name", "value", "secret"}, encrypted because values are often keys.
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
    signing_secret = SecretField(_("Signing secret"))
    previous_signing_secret = SecretField()
    previous_signing_secret_until = models.DateTimeField(null=True, blank=True)
    # {field name: ISO time} of the last change of each secret, for "set, changed on ...".
    secrets_changed_at = models.JSONField(default=dict, blank=True, editable=False)

    # Counts up with each change; workers cache decrypted settings by (id, version).
    version = models.PositiveIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        get_user_model(), null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = WebhookQuerySet.as_manager()

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")
        ordering = ["name", "pk"]
        permissions = [
            ("view_payload", _("Can see payloads")),
            ("test_webhook", _("Can send tests and redeliver")),
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

    @property
    def credentials(self) -> "Webhook":
        """Return the row whose login, client and token authorize this webhook's requests."""
        return self.connection or self

    @property
    def version_sent(self) -> int:
        """Return what changes whenever a request would: this row's version and its connection's.

        The connection's key sets it apart from every other connection, and from none.
        """
        owner = self.connection
        return self.version + (owner.version + owner.pk * 2**32 if owner else 0)

    def secret_binding(self) -> str:
        return self.uid

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            # Counted by the database: two saves at once never give the same number.
            self.version = F("version") + 1
        if (fields := kwargs.get("update_fields")) is not None:
            kwargs["update_fields"] = {*fields, "version", "updated_at"}
        if self._state.adding and not self.signing_secret:
            self.set_secret("signing_secret", signatures.new_secret())
        super().save(*args, **kwargs)
        self.refresh_from_db(fields=["version"])

    def mutes_alerts(self, now: datetime) -> bool:
        """Say whether the webhook's own recipients are not to be told."""
        until = self.alerts_muted_until
        return self.alerts_are_muted and (until is None or until > now)

    def set_secret(self, field: str, value: str) -> None:
        """Set or, with an empty value, clear a secret and remember when."""
        setattr(self, field, value)
        changed = {**self.secrets_changed_at, field: timezone.now().isoformat()}
        if not value:
            del changed[field]
        self.secrets_changed_at = changed

    def has_secret(self, field: str) -> bool:
        secret = self._meta.get_field(field)
        assert isinstance(secret, SecretField)
        return secret.is_set(self)

    def pause(self, reason: PauseReason) -> None:
        self.is_active = False
        self.pause_reason = reason
        self.paused_at = timezone.now()

    def resume(self) -> None:
        self.is_active = True
        self.pause_reason = ""
        self.paused_at = None


class Connection(Webhook):
    """A Basic or OAuth 2.0 credential under a name, bound to hosts, used by many webhooks."""

    class Meta:
        proxy = True
        verbose_name = _("connection")
        verbose_name_plural = _("connections")

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.is_connection = True
        super().save(*args, **kwargs)

    def may_be_sent_to(self, host: str) -> bool:
        return host.lower() in self.allowed_hosts


# The columns of a webhook or connection that hold sealed secrets, which no list opens.
WEBHOOK_SECRETS = tuple(one.name for one in Webhook._meta.fields if isinstance(one, SecretField))


class WebhookState(models.Model):
    """What the engine knows about a webhook: pacing and health. Written by workers and a resume."""

    webhook = models.OneToOneField(
        Webhook, primary_key=True, on_delete=models.CASCADE, related_name="state"
    )
    # Theoretical arrival time of the next request (GCRA), for the rate limit.
    next_send_at = models.DateTimeField(null=True, blank=True)
    last_attempt_at = models.DateTimeField(null=True, blank=True)
    last_success_at = models.DateTimeField(null=True, blank=True)
    last_status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    # Since when every attempt failed; empty while the webhook works.
    failing_since_at = models.DateTimeField(null=True, blank=True)
    # Failed attempts since the last success, as far as they were written down.
    failures_in_a_row = models.PositiveIntegerField(default=0, db_default=0)
    last_error = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        verbose_name = _("webhook state")

    def __str__(self) -> str:
        return f"State of webhook {self.webhook_id}"


def bump_version() -> dict[str, Any]:
    """Return the columns every queryset `update()` of webhooks writes besides its own."""
    return {"version": F("version") + 1, "updated_at": Now()}
