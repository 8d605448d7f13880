"""The form's Delivery section: pace, order and retries of one webhook."""

import re
from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from webhooks.delivery.requests import RETRY_SCHEDULE_SECONDS
from webhooks.ui.fields import limit_field

FIELDS = (
    "rate_limit",
    "rate_limit_seconds",
    "concurrency_limit",
    "is_ordered",
    "retry_schedule_seconds",
)
MAX_STEPS = 15
# A week: longer waits outlive the retention of the log.
MAX_STEP_SECONDS = 7 * 86400
# Beyond these a limit limits nothing.
_MAX_RATE, _MAX_CONCURRENCY = 100_000, 1000
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_UNIT_TEXTS = {
    "d": gettext_lazy("%d d"),
    "h": gettext_lazy("%d h"),
    "m": gettext_lazy("%d min"),
    "s": gettext_lazy("%d s"),
}
_STEP = re.compile(r"([0-9]{1,9})\s*([^\W\d_]*)")
# English and Ukrainian, because the product speaks both and people type what they read.
_UNIT_NAMES = {
    **dict.fromkeys(("s", "sec", "second", "seconds", "с", "сек"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes", "хв"), 60),
    **dict.fromkeys(("h", "hour", "hours", "год", "г"), 3600),
    **dict.fromkeys(("d", "day", "days", "д", "дн"), 86400),
}


def duration_text(seconds: int) -> str:
    """Write whole seconds in the largest unit that needs no fraction: 300 as "5m"."""
    unit = next(name for name, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"


def schedule_text(seconds: Sequence[int]) -> str:
    return ", ".join(map(duration_text, seconds))


class RetryScheduleField(forms.Field):
    """Waiting times typed as "5s, 5m, 2h"; cleans to seconds, and to [] for the default."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return schedule_text(value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> list[int]:
        if isinstance(value, list | tuple):
            return list(value)
        steps = [_seconds(part) for part in re.split(r"[,;\n]+", str(value or "")) if part.strip()]
        if len(steps) > MAX_STEPS:
            raise ValidationError(
                _("These are %(count)d waiting times; at most %(limit)d are allowed."),
                code="too_many",
                params={"count": len(steps), "limit": MAX_STEPS},
            )
        return steps


def _seconds(part: str) -> int:
    """Return the seconds of one step such as "5m"; raise ValidationError."""
    typed = part.strip()
    step = _STEP.fullmatch(typed.lower())
    size = _UNIT_NAMES.get(step[2]) if step else None
    if step and not step[2]:
        raise ValidationError(
            _("“%(typed)s” has no unit: write %(typed)ss, %(typed)sm, %(typed)sh or %(typed)sd."),
            code="no_unit",
            params={"typed": typed[:20]},
        )
    if step is None or size is None:
        raise ValidationError(
            _("“%(typed)s” is not a waiting time. Write for example “5s, 5m, 2h”, with commas."),
            code="invalid",
            params={"typed": typed[:20]},
        )
    seconds = int(step[1]) * size
    if not 1 <= seconds <= MAX_STEP_SECONDS:
        raise ValidationError(
            _("“%(typed)s” is out of range: each waiting time is from 1 second to 7 days."),
            code="out_of_range",
            params={"typed": typed[:20]},
        )
    return seconds


class PerField(forms.ChoiceField):
    """The second half of “10 per minute”, in seconds; left out, it is a second."""

    def __init__(self, **kwargs: Any) -> None:
        choices = [(1, gettext_lazy("second")), (60, gettext_lazy("minute"))]
        super().__init__(required=False, choices=choices, **kwargs)

    def clean(self, value: Any) -> int:
        return int(super().clean(value) or 1)


class DeliveryFields(forms.Form):
    """The fields, and what the folded section says about them."""

    rate_limit = limit_field(
        gettext_lazy("Rate limit"),
        _MAX_RATE,
        gettext_lazy("The rate limit is a whole number from 1 to 100,000, or empty for none."),
        gettext_lazy("Requests. Empty: no limit."),
    )
    rate_limit_seconds = PerField(
        label=gettext_lazy("In each"), initial=1, error_messages={
            "invalid_choice": gettext_lazy("Choose second or minute.")
        }
    )  # fmt: skip
    concurrency_limit = limit_field(
        gettext_lazy("Requests at the same time"),
        _MAX_CONCURRENCY,
        gettext_lazy(
            "The number of requests at the same time is a whole number from 1 to 1,000, or empty "
            "for no limit of its own."
        ),
        gettext_lazy("For example 2. Empty: as many as the receiver answers well."),
    )
    is_ordered = forms.BooleanField(
        label=gettext_lazy("Ordered delivery"),
        required=False,
        help_text=gettext_lazy(
            "Strictly one at a time, in the order of the events. While one fails, all behind it "
            "wait until it succeeds, is given up, or is cancelled by you. Tests do not wait."
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
        return any(self[field].errors for field in ("timeout_seconds", *FIELDS))

    @property
    def delivery_summary(self) -> str:
        """Return one line about what the fields hold now, typed or stored."""
        return summary(**{name: self._current(name) for name in FIELDS})

    def _current(self, name: str) -> Any:
        """Return the field's value, or None when that is not usable."""
        try:
            return self.fields[name].clean(self[name].value())
        except ValidationError:
            return None


def summary(
    *,
    rate_limit: int | None,
    rate_limit_seconds: int | None,
    concurrency_limit: int | None,
    is_ordered: bool | None,
    retry_schedule_seconds: Sequence[int] | None,
) -> str:
    """Return one line about how a webhook is delivered."""
    parts = []
    if rate_limit:
        is_minute = rate_limit_seconds == 60
        rate = _("at most %d per minute") if is_minute else _("at most %d per second")
        parts.append(rate % rate_limit)
    if is_ordered:
        parts.append(_("in order, one at a time"))
    elif concurrency_limit:
        most = ngettext("%d request at a time", "%d requests at a time", concurrency_limit)
        parts.append(most % concurrency_limit)
    if steps := retry_schedule_seconds:
        text = ngettext(
            "%(count)d retry within %(time)s", "%(count)d retries within %(time)s", len(steps)
        )
        parts.append(text % {"count": len(steps), "time": rough_duration(sum(steps))})
    return ", ".join(parts) or _("no limits, default retries")


def default_schedule_help() -> str:
    """Tell the default schedule where an own one is typed."""
    text = _(
        "How long to wait after each failure, with s, m, h or d; up to %(limit)d times. Then the "
        "delivery is given up. Empty: the default, “%(schedule)s”, about %(total)s in all."
    )
    return text % {
        "limit": MAX_STEPS,
        "schedule": schedule_text(RETRY_SCHEDULE_SECONDS),
        "total": rough_duration(sum(RETRY_SCHEDULE_SECONDS)),
    }


def rough_duration(seconds: int) -> str:
    """Write a sum of waiting times with at most two units: "3 d 4 h"."""
    parts = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(str(_UNIT_TEXTS[unit]) % count)
    return " ".join(parts[:2])
