"""Forms of the log's pages: filters, resends, and an edited payload."""

import datetime as dt
import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webhooks import catalogue, payloads
from webhooks.delivery_log.figures import minute
from webhooks.delivery_log.query import Conditions
from webhooks.models import Outcome, ResendScope, Status, Trigger, Webhook
from webhooks.ui.requests import whole_number

# Options of the webhook filter.
_MAX_WEBHOOKS = 500
_ANY = ("", gettext_lazy("Any"))
PERIODS: dict[str, tuple[str | Promise, dt.timedelta]] = {
    "hour": (gettext_lazy("Last hour"), dt.timedelta(hours=1)),
    "day": (gettext_lazy("Last 24 hours"), dt.timedelta(days=1)),
    "week": (gettext_lazy("Last 7 days"), dt.timedelta(days=7)),
    "month": (gettext_lazy("Last 30 days"), dt.timedelta(days=30)),
}
MIN_RATE, MAX_RATE = 1, 10_000


class _MomentInput(forms.TextInput):
    """Shows a local time as `datetime-local`; any other text, which that would drop, as text."""

    def get_context(self, name: str, value: Any, attrs: dict[str, Any] | None) -> dict[str, Any]:
        context = super().get_context(name, value, attrs)
        if not value or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", value):
            context["widget"]["type"] = "datetime-local"
        return context


class MomentField(forms.CharField):
    """A time in ISO 8601 from a link, or from `datetime-local` in the user's time zone."""

    def __init__(self, **kwargs: Any) -> None:
        # An unencoded "+" in a query string arrives as a space, which `to_moment` accepts.
        widget = _MomentInput(attrs={"step": "1"})
        super().__init__(required=False, max_length=40, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        try:
            moment = value if isinstance(value, dt.datetime) else self.to_moment(value or "")
        except ValidationError:
            return value
        if moment is None:
            return ""
        local = timezone.localtime(moment).replace(microsecond=0)
        # In the second of two hours that look the same, when clocks go back, with its offset.
        return local.isoformat() if local.fold else local.replace(tzinfo=None).isoformat()

    def clean(self, value: Any) -> dt.datetime | None:
        return self.to_moment(super().clean(value))

    def to_moment(self, text: str) -> dt.datetime | None:
        if not text:
            return None
        try:
            moment = parse_datetime(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
            if moment is not None and timezone.is_naive(moment):
                moment = timezone.make_aware(moment)
            # Ids can represent the years 1970 to 10889.
            if moment is None or not 1970 < moment.year < 9999:
                raise ValueError
        except (ValueError, OverflowError) as error:
            raise ValidationError(
                _("Enter a time like 2026-05-14T09:30:00."), code="invalid"
            ) from error
        return moment


class LogForm(forms.Form):
    """The filters above the log, all optional, from the query string."""

    q = forms.CharField(
        label=gettext_lazy("Phone number, id, or part of the URL"),
        required=False,
        max_length=200,
    )
    webhook = forms.ChoiceField(label=gettext_lazy("Webhook"), required=False)
    status = forms.ChoiceField(
        label=gettext_lazy("Status"), required=False, choices=[_ANY, *Status.choices]
    )
    period = forms.ChoiceField(
        label=gettext_lazy("Time"),
        required=False,
        choices=[_ANY, *((key, label) for key, (label, _length) in PERIODS.items())],
    )
    outcome = forms.ChoiceField(
        label=gettext_lazy("Outcome"),
        required=False,
        choices=[_ANY, ("failure", gettext_lazy("Anything but success")), *Outcome.choices],
    )
    code = forms.CharField(
        label=gettext_lazy("Response code"),
        required=False,
        max_length=4,
        widget=forms.TextInput(attrs={"placeholder": "404, 5xx, none", "list": "codes"}),
    )
    type = forms.ChoiceField(label=gettext_lazy("Event type"), required=False)
    trigger = forms.ChoiceField(
        label=gettext_lazy("Trigger"), required=False, choices=[_ANY, *Trigger.choices]
    )
    since = MomentField(label=gettext_lazy("From"))
    until = MomentField(label=gettext_lazy("Before"))

    # Behind “More filters”.
    MORE = ("outcome", "code", "type", "trigger", "since", "until")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"auto_id": "filter-%s", **kwargs})
        webhook: Any = self.fields["webhook"]
        webhook.choices = [_ANY, *webhook_choices(self.data.get("webhook", ""))]
        kind: Any = self.fields["type"]
        kind.choices = [_ANY, *((key, key) for key in catalogue.EVENT_TYPES)]
        for name in ("webhook", "status", "period"):
            self.fields[name].widget.attrs["data-submits"] = True

    def clean_code(self) -> str:
        code: str = self.cleaned_data["code"].strip().lower()
        if code and not re.fullmatch("[1-9][0-9]{2}|[1-9]xx|none", code):
            raise ValidationError(
                _("Enter a code such as 404, a class such as 5xx, or none."), code="invalid"
            )
        return code

    def conditions(self, *, may_see_numbers: bool) -> Conditions:
        """Return the filters of a valid form."""
        asked = self.cleaned_data
        since = asked["since"]
        if asked["period"]:
            begins = timezone.now() - PERIODS[asked["period"]][1]
            since = max(since, begins) if since else begins
        return Conditions(
            words=asked["q"].strip(),
            may_see_numbers=may_see_numbers,
            webhook=int(asked["webhook"]) if asked["webhook"] else None,
            status=asked["status"],
            outcome=asked["outcome"],
            code=asked["code"],
            type=asked["type"],
            trigger=asked["trigger"],
            since=since,
            until=asked["until"],
        )

    @property
    def has_more(self) -> bool:
        """Return whether a filter behind “More filters” is in use."""
        return any(self.data.get(name) for name in self.MORE)

    @property
    def is_used(self) -> bool:
        return any(self.data.get(name) for name in self.fields)


def webhook_choices(chosen: str) -> list[tuple[str, str]]:
    """Return the webhooks to filter a log by, including the chosen one."""
    names = Webhook.objects.present().order_by("name", "pk").values_list("pk", "name")
    choices = [(str(pk), name) for pk, name in names[:_MAX_WEBHOOKS]]
    if whole_number(chosen) and chosen not in dict(choices):
        # A deleted webhook still has a log, which is linked from its deliveries.
        others = Webhook.objects.filter(pk=chosen).values_list("pk", "name")
        choices += [(str(pk), name) for pk, name in others]
    return choices


class RateForm(forms.Form):
    """How fast past deliveries are resent."""

    rate = forms.IntegerField(
        label=gettext_lazy("Deliveries per second"),
        min_value=MIN_RATE,
        max_value=MAX_RATE,
        initial=10,
        help_text=gettext_lazy("The webhook's own limits apply too."),
        error_messages=dict.fromkeys(
            ("required", "invalid", "min_value", "max_value"),
            gettext_lazy("Enter a whole number from 1 to 10,000."),
        ),
    )


class ResendForm(RateForm):
    """Which deliveries are resent, since when, and how fast."""

    scope = forms.ChoiceField(
        label=gettext_lazy("What to resend"),
        choices=[
            (ResendScope.FAILED.value, ResendScope.FAILED.label),
            (ResendScope.ALL.value, ResendScope.ALL.label),
        ],
        initial=ResendScope.FAILED,
        widget=forms.RadioSelect,
    )
    since = forms.ChoiceField(label=gettext_lazy("Since"), initial="day", widget=forms.RadioSelect)
    since_at = MomentField(label=gettext_lazy("Since this time"))

    field_order = ("scope", "since", "since_at", "rate")

    def __init__(self, *args: Any, incident_at: dt.datetime | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._incident_at = incident_at
        choices = [(key, PERIODS[key][0]) for key in ("hour", "day", "week", "month")]
        if incident_at:
            label = _("The problem began (%s)") % minute(incident_at)
            choices.insert(0, ("incident", label))
        choices.append(("custom", _("Custom")))
        since: Any = self.fields["since"]
        since.choices = choices
        if incident_at:
            since.initial = "incident"
        elif self.data.get("since") == "incident":
            # It ended while the page was open.
            since.error_messages["invalid_choice"] = _("The problem is over. Choose a time.")

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        is_missing = cleaned.get("since") == "custom" and not cleaned.get("since_at")
        if is_missing and "since_at" not in self.errors:
            self.add_error("since_at", _("Choose a time."))
        return cleaned

    def begins_at(self) -> dt.datetime | None:
        """Return the chosen start time of a valid form."""
        choice = self.cleaned_data["since"]
        if choice == "custom":
            moment: dt.datetime | None = self.cleaned_data["since_at"]
            return moment
        if choice == "incident":
            return self._incident_at
        return timezone.now() - PERIODS[choice][1]


class EditedPayloadForm(forms.Form):
    """The edited payload of an event; cleans to a JSON object."""

    payload = forms.CharField(
        label=gettext_lazy("Payload"),
        strip=False,
        widget=forms.Textarea(attrs={"class": "mono", "rows": 18, "spellcheck": "false"}),
        help_text=gettext_lazy(
            "One JSON object. The event's type, time and project do not change."
        ),
    )

    def clean_payload(self) -> dict[str, Any]:
        try:
            payload = payloads.load_json(self.cleaned_data["payload"].encode())
        except payloads.DocumentError as error:
            raise ValidationError(str(error), code=error.code) from error
        except UnicodeEncodeError as error:
            message = _("The text holds half of a surrogate pair.")
            raise ValidationError(message, code="invalid_text") from error
        if not isinstance(payload, dict):
            raise ValidationError(_("The payload is not a JSON object."), code="not_object")
        return payload
