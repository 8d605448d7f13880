"""The delivery log's filters, each drawn as one control of the toolbar above the table.

Times are turned into ranges of ids, which sort by creation, so that the primary key answers.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue
from webhooks.models import Delivery, Status, Trigger, Webhook, ids

# A longer list is no longer a menu; the search finds a webhook by its URL.
_MAX_WEBHOOKS = 500

_PERIODS = {
    "hour": (_("Last hour"), dt.timedelta(hours=1)),
    "day": (_("Last 24 hours"), dt.timedelta(days=1)),
    "week": (_("Last 7 days"), dt.timedelta(days=7)),
    "month": (_("Last 30 days"), dt.timedelta(days=30)),
}


class LogFilter(admin.SimpleListFilter):
    """A filter that is a select, or with another `control` an input of that type."""

    control = "select"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        # Django hides a filter without lookups; an input has none to offer.
        return [("", "")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = (self.value() or "").strip()
        if "\0" in value:
            raise IncorrectLookupParameters(value)
        return self.narrow(queryset, value) if value else queryset

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        raise NotImplementedError


class StatusFilter(LogFilter):
    title = _("Status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return Status.choices

    def narrow(self, queryset: QuerySet[Delivery], value: str) -> QuerySet[Delivery]:
        return queryset.filter(status=value)


class WebhookFilter(LogFilter):
    title = _("Webhook")
    parameter_name = "webhook"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        names = Webhook.objects.present().order_by("name", "pk").values_list("pk", "name")
        choices = [(str(pk), name) for pk, name in names[:_MAX_WEBHOOKS]]
        chosen = request.GET.get(self.parameter_name, "")
        if chosen.isdecimal() and chosen not in dict(choices):
            # A deleted webhook has a log too; it is reached from a delivery.
            others = Webhook.objects.filter(pk=chosen).values_list("pk", "name")
            choices += [(str(pk), name) for pk, name in others]
        return choices

    def narrow(self, queryset: QuerySet[Delivery], value: str) -> QuerySet[Delivery]:
        return queryset.filter(webhook=_number(value))


class TypeFilter(LogFilter):
    title = _("Event type")
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return [(key, key) for key in catalogue.EVENT_TYPES]

    def narrow(self, queryset: QuerySet[Delivery], value: str) -> QuerySet[Delivery]:
        return queryset.filter(event__type=value)


class CodeFilter(LogFilter):
    """An exact response code such as 404, a class such as 5xx, or "none" for no answer."""

    title = _("Response code")
    parameter_name = "code"
    control = "code"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return [
            ("2xx", _("Success")),
            ("3xx", _("Redirect")),
            ("4xx", _("Refused")),
            ("5xx", _("Server error")),
            ("none", _("No answer")),
        ]

    def narrow(self, queryset: QuerySet[Delivery], value: str) -> QuerySet[Delivery]:
        code = value.lower()
        if code == "none":
            return queryset.filter(status_code=None, attempt_count__gt=0)
        if len(code) == 3 and code.endswith("xx"):
            first = _number(code[0]) * 100
            return queryset.filter(status_code__gte=first, status_code__lt=first + 100)
        return queryset.filter(status_code=_number(code))


class TriggerFilter(LogFilter):
    title = _("Trigger")
    parameter_name = "trigger"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return Trigger.choices

    def narrow(self, queryset: QuerySet[Delivery], value: str) -> QuerySet[Delivery]:
        return queryset.filter(trigger=value)


class PeriodFilter(LogFilter):
    title = _("Time")
    parameter_name = "period"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[Any, Any]]:
        return [(key, label) for key, (label, _length) in _PERIODS.items()]

    def narrow(self, queryset: QuerySet[Delivery], value: str) -> QuerySet[Delivery]:
        if value not in _PERIODS:
            raise IncorrectLookupParameters(value)
        return queryset.filter(pk__gte=_first_id(timezone.now() - _PERIODS[value][1]))


class UntilFilter(LogFilter):
    """Only what was created up to a minute, in the site's time zone: jumps into the past."""

    title = _("Not after")
    parameter_name = "until"
    control = "datetime-local"

    def narrow(self, queryset: QuerySet[Delivery], value: str) -> QuerySet[Delivery]:
        try:
            moment = parse_datetime(value)
        except ValueError as error:
            raise IncorrectLookupParameters(error) from error
        if moment is None:
            raise IncorrectLookupParameters(value)
        if timezone.is_naive(moment):
            moment = timezone.make_aware(moment)
        return queryset.filter(pk__lt=_first_id(moment + dt.timedelta(minutes=1)))


def _first_id(moment: dt.datetime) -> str:
    return ids.floor("dlv", max(moment.timestamp(), 0))


def _number(value: str) -> int:
    """Return a small whole number; anything else is not a filter of ours."""
    if not value.isdecimal() or len(value) > 18:
        raise IncorrectLookupParameters(value)
    return int(value)
