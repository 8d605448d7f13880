"""The roll-up behind charts: how many attempts of a webhook came to what, and how fast, each hour.

The engine adds to it; charts and the list's bars read only it, never the log.
"""

from django.db import models
from django.utils.translation import gettext_lazy as _

from webhooks.models.log import Outcome
from webhooks.models.webhook import Webhook


class HourlyCount(models.Model):
    """Attempts of one webhook in one hour with one outcome and about one duration."""

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
