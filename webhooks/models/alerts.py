"""Incidents, the channels that are notified, and the messages waiting for a channel."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webhooks.models import ids
from webhooks.models.credential import Credential
from webhooks.models.webhook import Webhook
from webhooks.security.encryption import SecretField


class ChannelKind(models.TextChoices):
    EMAIL = "email", _("Email")
    SLACK = "slack", "Slack"
    TEAMS = "teams", "Microsoft Teams"
    TELEGRAM = "telegram", "Telegram"
    WEBHOOK = "webhook", _("Webhook URL")


class AlertChannel(models.Model):
    """One destination of alerts about every webhook or some of them."""

    uid = models.CharField(max_length=30, unique=True, default=ids.channel_uid, editable=False)
    kind = models.CharField(_("Kind"), max_length=8, choices=ChannelKind.choices)
    name = models.CharField(_("Name"), max_length=100)
    # An email address or the id of a Telegram chat.
    recipient = models.CharField(_("Address"), max_length=254, blank=True, default="")
    # A URL, or the token of a Telegram bot: anyone who knows it can post there.
    secret = SecretField(_("URL"))
    # Without it the form saves no plain http URL, which anyone on the network path could read and
    # use.
    accepts_plain_http = models.BooleanField(_("Send secrets over plain http"), default=False)
    # Empty: every webhook.
    webhooks = models.ManyToManyField(
        Webhook, blank=True, related_name="alert_channels", verbose_name=_("Webhooks")
    )
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    # The last message: when it was sent, and why it was not, as a code.
    sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.CharField(max_length=500, blank=True, default="", editable=False)

    class Meta:
        verbose_name = _("alert channel")
        ordering = ["name", "pk"]
        # The permission to change webhooks includes their alert channels.
        default_permissions = ()

    def __str__(self) -> str:
        return self.name

    def secret_binding(self) -> str:
        return self.uid


class AlertMessage(models.Model):
    """A message that a channel has not accepted yet. Unsent email is tracked on its incident."""

    channel = models.ForeignKey(AlertChannel, on_delete=models.CASCADE, related_name="messages")
    # Made by `alerts.notifications`: texts for people, data for programs.
    content = models.JSONField()
    attempt_count = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        verbose_name = _("alert message")
        default_permissions = ()

    def __str__(self) -> str:
        return f"Alert for {self.channel_id}"


class IncidentKind(models.TextChoices):
    REAUTHORIZATION = "reauthorization", _("needs re-authorization")
    MISCONFIGURED = "misconfigured", _("has a misconfigured OAuth client")
    FAILING = "failing", _("is failing")
    PAUSED = "paused", _("was paused")
    TOKEN_ENDING = "token_ending", _("needs re-authorization soon")


class Incident(models.Model):
    """One occurrence of a problem. People get one message, a daily reminder, and an all-clear."""

    # Exactly one is set; a problem of a webhook's own credential belongs to the webhook.
    # No foreign key constraints: alerts about others do not wait for a webhook that is locked.
    webhook = models.ForeignKey(
        Webhook,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="incidents",
        db_constraint=False,
    )
    credential = models.ForeignKey(
        Credential,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="incidents",
        db_constraint=False,
    )
    kind = models.CharField(max_length=16, choices=IncidentKind.choices)
    # A code of `alerts.problems.SENTENCES` with its parameters, or a token's error unchanged.
    message = models.CharField(max_length=1000, blank=True, default="")
    opened_at = models.DateTimeField()
    # When people were last notified; None until the first message was sent.
    notified_at = models.DateTimeField(null=True, blank=True)
    # When channels and operational events were last notified. While no mail server accepts mail,
    # that is later than `notified_at`.
    channels_notified_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)
    # No mail server has accepted the email that it is over yet.
    owes_email = models.BooleanField(default=False)

    class Meta:
        verbose_name = _("incident")
        ordering = ["-id"]
        indexes = [
            models.Index(
                fields=["closed_at"], name="incident_owing_email", condition=Q(owes_email=True)
            )
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["webhook", "kind"],
                condition=Q(closed_at=None),
                name="incident_open_once",
                violation_error_message=_("This webhook has an open incident of this kind."),
            ),
            models.UniqueConstraint(
                fields=["credential", "kind"],
                condition=Q(closed_at=None),
                name="incident_of_credential_open_once",
                violation_error_message=_("This connection has an open incident of this kind."),
            ),
            models.CheckConstraint(
                condition=Q(webhook=None, credential__isnull=False)
                | Q(webhook__isnull=False, credential=None),
                name="incident_of_one",
                violation_error_message=_("An incident is about a webhook or a connection."),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.subject}"

    @property
    def subject(self) -> Webhook | Credential:
        subject = self.webhook or self.credential
        assert subject is not None
        return subject
