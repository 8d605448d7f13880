"""The sections Delivery (rate, order, retries) and Alerts (recipients, thresholds) of the forms.

Each has its fields, and a one-line summary of their values for the closed section.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.http import QueryDict
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks.delivery.requests import MAX_STEP_SECONDS, RETRY_SCHEDULE_SECONDS
from webhooks.delivery_log.figures import minute, rough_duration
from webhooks.filters import durations
from webhooks.models import AlertChannel
from webhooks.models.edited import EditedRow
from webhooks.ui import status
from webhooks.ui.fields import ListField, limit_field

DELIVERY_FIELDS = (
    "rate_limit",
    "rate_limit_seconds",
    "concurrency_limit",
    "is_ordered",
    "retry_schedule_seconds",
)
# Units of other fields; they mean nothing on their own.
_UNIT_FIELDS = ("rate_limit_seconds",)
MAX_STEPS = 15
# A higher limit would have no effect.
_MAX_RATE, _MAX_CONCURRENCY = 100_000, 1000
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_STEP = re.compile(r"([0-9]{1,9})\s*([^\W\d_]*)")


def _short_duration(seconds: int) -> str:
    """Write whole seconds in the largest unit that needs no fraction: 300 as "5m"."""
    unit = next(name for name, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def schedule_text(seconds: Sequence[int]) -> str:
    return ", ".join(map(_short_duration, seconds))


class RetryScheduleField(ListField):
    """Waiting times typed as "5s, 5m, 2h"; cleans to seconds, and to [] for the default."""

    separators = r"[,;\n]+"
    limit = MAX_STEPS
    too_many = gettext_lazy("%(count)d waiting times are too many; the limit is %(limit)d.")

    def write(self, values: Sequence[int]) -> str:
        return schedule_text(values)

    def read(self, typed: list[str]) -> list[int]:
        return list(map(_seconds, typed))


def _seconds(typed: str) -> int:
    """Return the seconds of one step such as "5m"; raise ValidationError."""
    step = _STEP.fullmatch(typed.lower())
    size = durations.UNITS.get(step[2]) if step else None
    if step and not step[2]:
        raise ValidationError(
            _("“%(typed)s” has no unit. Enter %(typed)ss, %(typed)sm, %(typed)sh or %(typed)sd."),
            code="no_unit",
            params={"typed": typed[:20]},
        )
    if step is None or size is None:
        raise ValidationError(
            _("“%(typed)s” is not a waiting time. Enter for example “5s, 5m, 2h”."),
            code="invalid",
            params={"typed": typed[:20]},
        )
    seconds = int(step[1]) * size
    if not 1 <= seconds <= MAX_STEP_SECONDS:
        raise ValidationError(
            _("“%(typed)s” is out of range. Each waiting time is from 1 second to 7 days."),
            code="out_of_range",
            params={"typed": typed[:20]},
        )
    return seconds


class PerField(forms.ChoiceField):
    """The unit in “10 per minute”, in seconds; one second when it is not posted."""

    def __init__(self, **kwargs: Any) -> None:
        choices = [(1, gettext_lazy("second")), (60, gettext_lazy("minute"))]
        super().__init__(required=False, choices=choices, **kwargs)

    def clean(self, value: Any) -> int:
        return int(super().clean(value) or 1)


class DeliveryFields(forms.Form):
    """The fields of the Delivery section, and the summary of the closed section."""

    rate_limit = limit_field(
        gettext_lazy("Rate limit"),
        _MAX_RATE,
        gettext_lazy("Enter a whole number from 1 to 100,000, or leave it empty."),
        gettext_lazy("Leave empty for no limit."),
    )
    rate_limit_seconds = PerField(
        label=gettext_lazy("Per"), initial=1, error_messages={
            "invalid_choice": gettext_lazy("Choose second or minute.")
        }
    )  # fmt: skip
    concurrency_limit = limit_field(
        gettext_lazy("Requests at the same time"),
        _MAX_CONCURRENCY,
        gettext_lazy("Enter a whole number from 1 to 1,000, or leave it empty."),
        gettext_lazy("For example 2. Leave empty to adapt to the receiver."),
    )
    is_ordered = forms.BooleanField(
        label=gettext_lazy("Ordered delivery"),
        required=False,
        help_text=gettext_lazy(
            "One at a time, in the order of the events. If one fails, the others wait."
        ),
    )
    retry_schedule_seconds = RetryScheduleField(
        label=gettext_lazy("Retry schedule"),
        widget=forms.TextInput(
            {
                "class": "mono",
                "autocomplete": "off",
                "spellcheck": "false",
                "placeholder": schedule_text(RETRY_SCHEDULE_SECONDS),
            }
        ),
    )

    @property
    def has_delivery_open(self) -> bool:
        """Return whether a field is set or has an error."""
        values = {name: _valid_value(self, name) for name in DELIVERY_FIELDS}
        is_wrong = any(self[field].errors for field in ("timeout_seconds", *DELIVERY_FIELDS))
        return is_wrong or any(values[name] for name in DELIVERY_FIELDS if name not in _UNIT_FIELDS)

    @property
    def delivery_summary(self) -> str:
        """Return one line about what the fields hold now, typed or stored."""
        return status.delivery_summary({name: _valid_value(self, name) for name in DELIVERY_FIELDS})


def _valid_value(form: forms.Form, name: str) -> Any:
    """Return the value of a field, typed or stored, or None when it is invalid."""
    try:
        return form.fields[name].clean(form[name].value())
    except ValidationError:
        return None


def default_schedule_help() -> str:
    """Return the help text of the retry schedule, which names the default."""
    text = _(
        "The wait after each failure, up to %(limit)d times. Default: “%(schedule)s”, "
        "about %(total)s."
    )
    return text % {
        "limit": MAX_STEPS,
        "schedule": schedule_text(RETRY_SCHEDULE_SECONDS),
        "total": rough_duration(sum(RETRY_SCHEDULE_SECONDS)),
    }


# ---- Alerts -----------------------------------------------------------------------------------

# The button that adds the email address of the user who edits the form.
USE_MY_ADDRESS = "use_my_address"
ALERT_FIELDS = ("alert_recipients", "alerts_are_muted", "alerts_muted_until")
# Only webhooks have these: a connection sends no deliveries that could fail.
ALERT_THRESHOLDS = ("alert_after_failures", "alert_failure_percent")
_MUTE_HOURS: list[tuple[str, Any]] = [
    ("", gettext_lazy("until you turn it off")),
    ("1", gettext_lazy("1 hour")),
    ("8", gettext_lazy("8 hours")),
    ("24", gettext_lazy("1 day")),
    ("168", gettext_lazy("7 days")),
]
_MAX_FAILURES = 10_000
MAX_RECIPIENTS = 20
# RFC 5321 section 4.5.3.1.3.
_MAX_ADDRESS = 254


class RecipientsField(ListField):
    """Email addresses, one per line or comma-separated; cleans to a list without duplicates."""

    limit = MAX_RECIPIENTS
    too_many = gettext_lazy(
        "%(count)d addresses are too many; the limit is %(limit)d. Use a mailing list for "
        "more people."
    )

    def read(self, typed: list[str]) -> list[str]:
        # The first spelling of an address is kept.
        addresses = list({part.lower(): part for part in reversed(typed)}.values())[::-1]
        if bad := next((part for part in addresses if not _is_address(part)), None):
            raise ValidationError(
                _("“%(typed)s” is not an email address. Enter one per line, like ops@example.com."),
                code="invalid",
                params={"typed": bad[:80]},
            )
        return addresses


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= _MAX_ADDRESS


class MutedUntilField(forms.Field):
    """How long alerts stay muted, in hours from now; the stored end is offered as well."""

    widget = forms.Select

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)
        self._offer(None)

    def prepare_value(self, value: Any) -> Any:
        typed = value if isinstance(value, datetime) else _parsed(value)
        if typed is None:
            return value
        self._offer(typed)
        return typed.isoformat()

    def to_python(self, value: Any) -> datetime | None:
        if isinstance(value, datetime):
            return value
        if not value:
            return None
        if value in dict(_MUTE_HOURS):
            return timezone.now() + timedelta(hours=int(value))
        if (found := _parsed(value)) is None:
            raise ValidationError(_("Choose how long alerts are muted."), code="invalid")
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        return (self.prepare_value(initial) or "") != (data or "")

    def _offer(self, until: datetime | None) -> None:
        select: Any = self.widget
        stored = (
            [(until.isoformat(), _("until %(time)s") % {"time": minute(until)})] if until else []
        )
        select.choices = [*_MUTE_HOURS, *stored]


def _parsed(text: Any) -> datetime | None:
    try:
        found = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None
    # Near the first and last year of datetime, converting to another time zone overflows.
    is_usable = found is not None and timezone.is_aware(found) and 1970 < found.year < 9999
    return found if is_usable else None


class AlertFields(forms.Form):
    """The fields of the Alerts section, and the summary of the closed section."""

    alert_recipients = RecipientsField(
        label=gettext_lazy("Recipients"),
        widget=forms.Textarea(
            {"rows": 3, "autocomplete": "off", "spellcheck": "false", "inputmode": "email"}
        ),
        help_text=gettext_lazy(
            "One email address per line. They are notified when the webhook is failing, "
            "paused or needs a new access token, and when it works again."
        ),
    )
    alerts_are_muted = forms.BooleanField(
        label=gettext_lazy("Mute alerts"),
        required=False,
        help_text=gettext_lazy("Keeps the recipients, sends nothing."),
    )
    alerts_muted_until = MutedUntilField(label=gettext_lazy("Muted for"))
    alert_after_failures = limit_field(
        gettext_lazy("Failures in a row"),
        _MAX_FAILURES,
        gettext_lazy("Enter a whole number from 1 to 10,000, or leave it empty."),
        gettext_lazy("For example 5: five failed attempts in a row."),
    )
    alert_failure_percent = limit_field(
        gettext_lazy("Share of failures (%)"),
        100,
        gettext_lazy("Enter a whole number from 1 to 100, or leave it empty."),
        gettext_lazy("For example 20: 20% of the last hour's attempts, out of at least ten."),
    )

    def clean_alerts_muted_until(self) -> datetime | None:
        """Drop the end of the mute when alerts are not muted."""
        until: datetime | None = self.cleaned_data["alerts_muted_until"]
        return until if self.cleaned_data.get("alerts_are_muted") else None

    @property
    def alert_minutes(self) -> int:
        """Return after how many minutes recipients are notified when no threshold is set."""
        return int(settings.WEBHOOKS_ALERT_AFTER_MINUTES)

    @property
    def has_alerts_open(self) -> bool:
        """Return whether a field is set or has an error."""
        names = {*ALERT_FIELDS, *ALERT_THRESHOLDS} & self.fields.keys()
        return any(self[field].errors or _valid_value(self, field) for field in names)

    @property
    def alerts_summary(self) -> str:
        """Return one line about what the fields hold now, typed or stored."""
        return status.alerts_summary({name: _valid_value(self, name) for name in ALERT_FIELDS})

    @property
    def everywhere_count(self) -> int:
        """Count the channels that are notified of every webhook."""
        return AlertChannel.objects.filter(webhooks=None).count()


def add_recipient(data: QueryDict, address: str) -> None:
    """Append an address to the posted recipients unless it is already there."""
    typed = data.get("alert_recipients", "").split()
    if address and address not in typed:
        data["alert_recipients"] = "\n".join([*typed, address])


def mute_shown(row: EditedRow) -> dict[str, Any]:
    """Return the initial values of the mute fields; a mute that has ended is not shown."""
    is_muted = row.mutes_alerts(timezone.now())
    until = row.alerts_muted_until if is_muted else None
    return {"alerts_are_muted": is_muted, "alerts_muted_until": until}
