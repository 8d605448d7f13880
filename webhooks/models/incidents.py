"""Incidents: what is wrong with a webhook or connection, until it is over."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from webhooks.models.credential import Credential
from webhooks.models.webhook import Webhook


class IncidentKind(models.TextChoices):
    REAUTHORIZATION = "reauthorization", _("needs re-authorization")
    MISCONFIGURED = "misconfigured", _("has a misconfigured OAuth client")
    FAILING = "failing", _("is failing")
    PAUSED = "paused", _("was paused")
    TOKEN_ENDING = "token_ending", _("needs re-authorization soon")


class Incident(models.Model):
    """One spell of one problem. People get one message, a reminder a day, and an all-clear."""

    # Exactly one of the two; what is wrong with a webhook's own credential is its webhook's.
    webhook = models.ForeignKey(
        Webhook, null=True, blank=True, on_delete=models.CASCADE, related_name="incidents"
    )
    credential = models.ForeignKey(
        Credential, null=True, blank=True, on_delete=models.CASCADE, related_name="incidents"
    )
    kind = models.CharField(max_length=16, choices=IncidentKind.choices)
    # Plain words: what happened and what to change.
    message = models.CharField(max_length=1000, blank=True, default="")
    opened_at = models.DateTimeField()
    # When people were last notified; None until the first message is out.
    notified_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("incident")
        ordering = ["-id"]
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
