"""Filters of the read-only lists, each drawn as one control of the toolbar above the table."""

from collections.abc import Iterable
from typing import Any

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from webhooks.models import Webhook

# A longer list is no longer a menu; the search finds a webhook by its URL.
_MAX_WEBHOOKS = 500


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

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        return queryset.filter(webhook=_number(value))


def _number(value: str) -> int:
    """Return a small whole number; anything else is not a filter of ours."""
    if not value.isdecimal() or len(value) > 18:
        raise IncorrectLookupParameters(value)
    return int(value)
