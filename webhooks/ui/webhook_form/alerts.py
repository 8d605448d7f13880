"""The form's Alerts section: who is notified when the webhook has a problem."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks.models.edited import EditedRow
from webhooks.ui.fields import limit_field

FIELDS = ("alert_recipients", "alerts_are_muted", "alerts_muted_until")
# Of webhooks alone: a connection sends nothing that could fail.
THRESHOLDS = ("alert_after_failures", "alert_failure_percent")
_MUTE_HOURS: list[tuple[str, Any]] = [
    ("", gettext_lazy("until it is unticked")),
    ("1", gettext_lazy("1 hour")),
    ("8", gettext_lazy("8 hours")),
    ("24", gettext_lazy("1 day")),
    ("168", gettext_lazy("7 days")),
]
_MOST_FAILURES = 10_000
MAX_RECIPIENTS = 20
# RFC 5321 section 4.5.3.1.3.
_MAX_ADDRESS = 254


class RecipientsField(forms.Field):
    """E-mail addresses, one a line or with commas between; cleans to a list without repeats."""

    widget = forms.Textarea

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[str]:
        if isinstance(value, list | tuple):
            return list(value)
        typed = [part for part in re.split(r"[\s,;]+", str(value or "")) if part]
        # The first spelling of an address stays.
        addresses = list({part.lower(): part for part in reversed(typed)}.values())[::-1]
        if bad := next((part for part in addresses if not _is_address(part)), None):
            raise ValidationError(
                _("“%(typed)s” is not an e-mail address. Write one a line, like ops@example.com."),
                code="invalid",
                params={"typed": bad[:80]},
            )
        if len(addresses) > MAX_RECIPIENTS:
            raise ValidationError(
                _(
                    "These are %(count)d addresses; at most %(limit)d are allowed. A mailing list "
                    "reaches more people."
                ),
                code="too_many",
                params={"count": len(addresses), "limit": MAX_RECIPIENTS},
            )
        return addresses


def _is_address(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= _MAX_ADDRESS


class MutedUntilField(forms.Field):
    """How long alerts stay muted, in hours from now; the time that is stored already is offered."""

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
        stored = [(until.isoformat(), shown_time(until))] if until else []
        select.choices = [*_MUTE_HOURS, *stored]


def _parsed(text: Any) -> datetime | None:
    try:
        found = parse_datetime(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found and timezone.is_aware(found) else None


def shown_time(moment: datetime) -> str:
    return _("until %(time)s") % {"time": f"{timezone.localtime(moment):%Y-%m-%d %H:%M}"}


class AlertFields(forms.Form):
    """The fields, and what the folded section says about them."""

    alert_recipients = RecipientsField(
        label=gettext_lazy("Recipients"),
        widget=forms.Textarea(
            {"rows": 3, "autocomplete": "off", "spellcheck": "false", "inputmode": "email"}
        ),
        help_text=gettext_lazy(
            "E-mail addresses, one a line. They are told once when deliveries keep failing, the "
            "webhook is paused or needs a new access token, reminded once a day, and told when it "
            "works again."
        ),
    )
    alerts_are_muted = forms.BooleanField(
        label=gettext_lazy("Mute alerts"),
        required=False,
        help_text=gettext_lazy("The addresses stay, and nobody of them is told."),
    )
    alerts_muted_until = MutedUntilField(label=gettext_lazy("Muted for"))
    alert_after_failures = limit_field(
        gettext_lazy("Failures in a row"),
        _MOST_FAILURES,
        gettext_lazy("This is a whole number from 1 to 10,000, or empty."),
        gettext_lazy("For example 5: tell after five failed attempts without a success between."),
    )
    alert_failure_percent = limit_field(
        gettext_lazy("Share of failures (%)"),
        100,
        gettext_lazy("This is a whole number from 1 to 100, or empty."),
        gettext_lazy(
            "For example 20: tell when a fifth of the attempts of the last hour failed. Ten "
            "attempts at least are looked at."
        ),
    )

    def clean_alerts_muted_until(self) -> datetime | None:
        """Forget the time with the tick."""
        until: datetime | None = self.cleaned_data["alerts_muted_until"]
        return until if self.cleaned_data.get("alerts_are_muted") else None

    @property
    def alert_minutes(self) -> int:
        """Return after how many minutes people are notified when nothing else is asked for."""
        return int(settings.WEBHOOKS_ALERT_AFTER_MINUTES)

    @property
    def has_alerts_open(self) -> bool:
        names = {*FIELDS, *THRESHOLDS} & self.fields.keys()
        return any(self[field].errors for field in names)

    @property
    def alerts_summary(self) -> str:
        """Return one line about what the fields hold now, typed or stored."""
        try:
            addresses = self.fields["alert_recipients"].clean(self["alert_recipients"].value())
        except ValidationError:
            addresses = []
        is_muted = bool(self["alerts_are_muted"].value())
        try:
            until = self.fields["alerts_muted_until"].clean(self["alerts_muted_until"].value())
        except ValidationError:
            until = None
        return summary(
            alert_recipients=addresses, alerts_are_muted=is_muted, alerts_muted_until=until
        )

    @property
    def everywhere_count(self) -> int:
        """Count the people who are notified of every webhook."""
        return len(settings.WEBHOOKS_ALERT_RECIPIENTS)


def mute_shown(row: EditedRow) -> dict[str, Any]:
    """Return what the form begins with: a mute that has ended is none."""
    is_muted = row.mutes_alerts(timezone.now())
    until = row.alerts_muted_until if is_muted else None
    return {"alerts_are_muted": is_muted, "alerts_muted_until": until}


def summary(
    *,
    alert_recipients: Sequence[str],
    alerts_are_muted: bool,
    alerts_muted_until: datetime | None = None,
) -> str:
    """Return one line about who is notified of a webhook's problems."""
    count = len(alert_recipients)
    if not count:
        return _("nobody of this webhook is told")
    if alerts_are_muted and alerts_muted_until is None:
        return _("muted")
    if alerts_are_muted and alerts_muted_until and alerts_muted_until > timezone.now():
        return _("muted until %(time)s") % {
            "time": f"{timezone.localtime(alerts_muted_until):%Y-%m-%d %H:%M}"
        }
    return ngettext("%d recipient", "%d recipients", count) % count
