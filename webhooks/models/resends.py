"""Resend: sending many past deliveries again, at a chosen rate, until done or stopped."""

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from webhooks.models.webhook import Webhook


class ResendScope(models.TextChoices):
    FAILED = "failed", _("What failed")
    ALL = "all", _("Everything")
    SELECTION = "selection", _("What was selected")


class ResendStatus(models.TextChoices):
    RUNNING = "running", _("Running")
    FINISHED = "finished", _("Finished")
    STOPPED = "stopped", _("Stopped")


class Resend(models.Model):
    """One resend and its progress; workers advance it, people stop it."""

    id = models.BigAutoField(primary_key=True)
    # None: deliveries of every webhook (a selection in the log).
    webhook = models.ForeignKey(
        Webhook, null=True, blank=True, on_delete=models.CASCADE, related_name="resends"
    )
    scope = models.CharField(_("What"), max_length=10, choices=ResendScope.choices)
    # Deliveries created in [since_at, until_at); empty for a selection.
    since_at = models.DateTimeField(_("Since"), null=True, blank=True)
    until_at = models.DateTimeField(_("Until"), null=True, blank=True)
    # Ids of deliveries, for a selection only.
    delivery_ids = models.JSONField(default=list, blank=True)
    # Deliveries queued per second.
    rate = models.PositiveIntegerField(
        _("Deliveries per second"),
        default=10,
        validators=[MinValueValidator(1), MaxValueValidator(10_000)],
    )
    status = models.CharField(
        max_length=10, choices=ResendStatus.choices, default=ResendStatus.RUNNING
    )
    # Counted at the start, but at least `done`; deliveries added later are not resent.
    total = models.PositiveIntegerField(default=0)
    done = models.PositiveIntegerField(default=0)
    # The last delivery that was queued again; ids sort by time.
    cursor = models.CharField(max_length=30, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    advanced_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = _("resend")
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["id"], name="resend_running", condition=Q(status="running"))
        ]

    def __str__(self) -> str:
        return f"Resend {self.pk}"
