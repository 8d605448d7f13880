"""Parse the list's query string: words, filters and order, for the list, bulk actions and export.

Read-only; the cost of a query does not depend on the size of the log.
"""

import json
import operator
import re
from functools import reduce
from typing import Any

from django.db.models import Case, F, OrderBy, Q, QuerySet, TextField, When
from django.db.models.functions import Cast, Lower
from django.http import QueryDict
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from webhooks import catalogue
from webhooks.alerts import problems
from webhooks.models import (
    BLOCKED_STATES,
    BY_PERSON,
    CREDENTIAL_SECRETS,
    AuthorizationType,
    Credential,
    PauseReason,
    TokenState,
    Webhook,
    may_be_sent_to,
)
from webhooks.ui.requests import whole_number
from webhooks.ui.shared_credentials import known_origin

# Parameters that narrow the list; also sent by forms that act on all matches.
FILTERS = ("q", "status", "authorization", "event", "connection")
STATUS_CHOICES: dict[str, str | Promise] = {
    "active": _("Active"),
    "paused": _("Paused"),
    "attention": _("Needs attention"),
}
SORT_CHOICES: dict[str, str | Promise] = {
    "attention": _("Needs attention first"),
    "name": _("Name, A to Z"),
    "-name": _("Name, Z to A"),
    "-created": _("Newest first"),
    "-changed": _("Changed last"),
    "-sent": _("Sent last"),
    "-failures": _("Most failures in a row"),
}
DEFAULT_SORT = "attention"
# Length of a URL, the longest text that is searched.
_MAX_WORDS = 2048
_ORDERS: dict[str, F | Lower] = {
    "name": Lower("name"),
    "created": F("created_at"),
    "changed": F("updated_at"),
    "sent": F("state__last_attempt_at"),
    "failures": F("state__failures_in_a_row"),
}


def find(query: QueryDict) -> QuerySet[Webhook]:
    """Return the webhooks that match a query string, unordered. Invalid values are ignored."""
    found: QuerySet[Webhook] = Webhook.objects.present()
    if words := query.get("q", "").replace("\0", "").strip():
        found = named(words)
    if (authorization := query.get("authorization")) in AuthorizationType.values:
        found = found.filter(credential__authorization_type=authorization)
    if event_type := wanted_event(query):
        found = _wanting(found, event_type)
    if connection := wanted_connection(query):
        found = found.filter(credential=connection)
    match query.get("status"):
        case "active":
            found = found.filter(is_active=True)
        case "paused":
            found = found.filter(is_active=False)
        case "attention":
            found = found.filter(_needs_attention())
    return found


def named(words: str) -> QuerySet[Webhook]:
    """Return the webhooks whose name or URL contains the words, case-insensitively."""
    if len(words) > _MAX_WORDS:
        # PostgreSQL rejects long patterns.
        return Webhook.objects.none()
    # Not `icontains`: SQLite's LIKE ignores the case of ASCII letters only.
    pattern = re.escape(words)
    return Webhook.objects.present().filter(Q(name__iregex=pattern) | Q(url__iregex=pattern))


def chosen_ids(data: QueryDict) -> list[int]:
    """Return the ids of the selected webhooks, or of all that match the filters."""
    if data.get("is_all"):
        return list(find(data).order_by("name", "pk").values_list("pk", flat=True))
    typed = [*data.getlist("webhook"), *data.get("webhooks", "").split(",")]
    return list(dict.fromkeys(filter(None, map(whole_number, typed))))


def order(found: QuerySet[Webhook], sort: str) -> QuerySet[Webhook]:
    """Sort webhooks by one of `SORT_CHOICES`; ties by name, then by age."""
    if sort == DEFAULT_SORT:
        needs_none = Case(When(_needs_attention(), then=0), default=1)
        return found.order_by(needs_none, Lower("name"), "pk")
    column = _ORDERS[sort.lstrip("-")]
    first = OrderBy(column, descending=sort.startswith("-"), nulls_last=True)
    return found.order_by(first, Lower("name"), "pk")


def wanted_sort(query: QueryDict) -> str:
    sort = query.get("sort", "")
    return sort if sort in SORT_CHOICES else DEFAULT_SORT


def wanted_event(query: QueryDict) -> str:
    """Return the requested event type; empty unless webhooks can subscribe to it."""
    wanted = query.get("event", "")
    return wanted if catalogue.patterns_for(wanted) else ""


def wanted_connection(query: QueryDict) -> Credential | None:
    """Return the connection to filter by, if any."""
    wanted = whole_number(query.get("connection", ""))
    if not wanted:
        return None
    return Credential.objects.shared().defer(*CREDENTIAL_SECRETS).filter(pk=wanted).first()


def is_filtered(query: QueryDict) -> bool:
    return any(query.get(key) for key in FILTERS)


def choices(query: QueryDict) -> dict[str, Any]:
    """Return the options and values of the toolbar's selects."""
    return {
        "status_choices": STATUS_CHOICES.items(),
        "authorization_choices": AuthorizationType.choices,
        "event_groups": catalogue.groups(),
        "sort_choices": SORT_CHOICES.items(),
        "sort": wanted_sort(query),
        "connection": wanted_connection(query),
        "is_filtered": is_filtered(query),
        "filters": {key: query[key] for key in FILTERS if query.get(key)},
    }


def _wanting(found: QuerySet[Webhook], event_type: str) -> QuerySet[Webhook]:
    """Keep the webhooks that subscribe to an event type, by its name or by a wildcard."""
    patterns = catalogue.patterns_for(event_type)
    # Both databases cast the list to JSON text with quotes around each pattern.
    named = (Q(written__contains=json.dumps(pattern)) for pattern in patterns)
    written = found.alias(written=Cast("event_types", TextField()))
    return written.filter(reduce(operator.or_, named))


def _needs_attention() -> Q:
    """Match webhooks that `status_of` colours as held or danger."""
    is_failing = problems.are_failing(timezone.now())
    has_no_password = Q(credential__authorization_type=AuthorizationType.BASIC) & ~Q(
        ("credential__secret_origins__has_key", "basic_password")
    )
    is_unusable = has_no_password | _is_unauthorized() | Q(pk__in=_with_forbidden_connection())
    return Q(pause_reason__in=[PauseReason.GONE, PauseReason.FAILING]) | (
        Q(is_active=True) & (is_failing | is_unusable)
    )


def _with_forbidden_connection() -> list[int]:
    """Return the webhooks whose connection may not be sent to their receiver.

    The origin is part of the URL, so every URL is parsed; only of webhooks with a connection.
    """
    shared = Credential.objects.shared().defer(*CREDENTIAL_SECRETS).in_bulk()
    rows = Webhook.objects.active().filter(credential__in=shared)
    return [
        pk
        for pk, url, used in rows.values_list("pk", "url", "credential")
        if (origin := known_origin(url)) and not may_be_sent_to(shared[used], origin)
    ]


def _is_unauthorized() -> Q:
    """Match webhooks whose credential needs authorization by a person."""
    has_no_token = Q(credential__token=None) | Q(credential__token__state=TokenState.NONE)
    waits = has_no_token & Q(credential__grant_type__in=BY_PERSON)
    is_broken = Q(credential__token__state__in=BLOCKED_STATES)
    return Q(credential__authorization_type=AuthorizationType.OAUTH2) & (waits | is_broken)
