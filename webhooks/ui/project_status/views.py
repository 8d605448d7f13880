"""The status page: what waits and since when, slow receivers, expiring grants.

Every query is an index lookup or bounded, whatever the size of the log.
"""

from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, OuterRef, Q, Subquery, Sum, When
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render

from webhooks.delivery import backlog, holds, queue
from webhooks.delivery.histogram import percentile_ms
from webhooks.delivery_log.charts import hour_of
from webhooks.models import (
    BLOCKED_STATES,
    TOKEN_SECRETS,
    WEBHOOK_SECRETS,
    AuthorizationType,
    Credential,
    Delivery,
    HourlyCount,
    OAuthToken,
    Status,
    TokenState,
    Webhook,
    ids,
)
from webhooks.ui import webhook_query
from webhooks.ui.requests import page

_SHOWN = 10
# At most this many webhooks, and this many parked deliveries, are compared.
_LOOKED_AT = 200
_SLOW_MS = 1000
_LEAST_ATTEMPTS = 5
_ENDS_WITHIN = timedelta(days=30)


@page("webhooks.view_webhook")
def status(request: HttpRequest) -> HttpResponse:
    now = queue.now()
    needs_attention = webhook_query.find(QueryDict("status=attention")).order_by()
    context = {
        "backlog": backlog.report(now),
        "attention_count": len(needs_attention.values_list("pk")[: backlog.MAX_COUNT]),
        "waiting": _waiting(now),
        "slow": _slow(now),
        "tokens": _tokens(now),
    }
    return render(request, "webhooks/project_status/status.html", context)


def _waiting(now: datetime) -> list[dict[str, Any]]:
    """Return the webhooks whose deliveries have waited longest, with the status of those."""
    pending, held = (
        Delivery.objects.in_status(one).filter(webhook=OuterRef("pk"))
        for one in (Status.PENDING, Status.HELD)
    )
    oldest = {
        Status.PENDING: pending.filter(next_attempt_at__lte=now).order_by("next_attempt_at"),
        Status.HELD: held.order_by("id"),
    }
    found: dict[tuple[int, str], tuple[str, Status]] = {}
    for kind, rows in oldest.items():
        webhooks = Webhook.objects.present().filter(pk__in=holds.webhooks_with(kind)[:_LOOKED_AT])
        first = webhooks.annotate(first=Subquery(rows.values("pk")[:1])).exclude(first=None)
        for pk, name, delivery_id in first.order_by().values_list("pk", "name", "first"):
            found[pk, name] = min(found.get((pk, name), (delivery_id, kind)), (delivery_id, kind))
    parked = Delivery.objects.in_status(Status.PARKED).filter(webhook__deleted_at=None)
    parked = parked.order_by("id")
    for pk, name, delivery_id in parked.values_list("webhook", "webhook__name", "pk")[:_LOOKED_AT]:
        found.setdefault((pk, name), (delivery_id, Status.PARKED))
    longest = sorted(found.items(), key=lambda item: item[1])[:_SHOWN]
    return [
        {"pk": pk, "name": name, "status": kind, "since": ids.moment(delivery_id)}
        for (pk, name), (delivery_id, kind) in longest
    ]


def _slow(now: datetime) -> list[dict[str, Any]]:
    """Return the receivers with the highest p95 in the current and the previous hour."""
    hour = hour_of(now)
    counts: dict[int, dict[int, int]] = defaultdict(dict)
    # The hours are listed, since SQLite would read all rows for a range.
    rows = HourlyCount.objects.filter(hour__in=(hour - timedelta(hours=1), hour)).order_by()
    for pk, step, count in rows.values_list("webhook", "duration_step").annotate(Sum("count")):
        counts[pk][step] = count
    found = [
        (percentile_ms(steps, 0.95) or 0.0, pk)
        for pk, steps in counts.items()
        if sum(steps.values()) >= _LEAST_ATTEMPTS
    ]
    slowest = sorted((one for one in found if one[0] >= _SLOW_MS), reverse=True)[:_SHOWN]
    present = Webhook.objects.present().defer(*WEBHOOK_SECRETS)
    webhooks = present.in_bulk([pk for _p95, pk in slowest])
    return [
        {"webhook": webhooks[pk], "p95": p95, "p50": percentile_ms(counts[pk], 0.5)}
        for p95, pk in slowest
        if pk in webhooks
    ]


def _tokens(now: datetime) -> list[dict[str, Any]]:
    """Return lost grants, and those that end within 30 days and that no refresh extends."""
    credentials = Credential.objects.in_use().filter(authorization_type=AuthorizationType.OAUTH2)
    tokens = OAuthToken.objects.filter(credential__in=credentials)
    tokens = tokens.select_related("credential__webhook").defer(*TOKEN_SECRETS)
    ends = Q(refresh_token_expires_at__lte=now + _ENDS_WITHIN, refresh_end_moves=False)
    is_lost = Q(state__in=BLOCKED_STATES)
    found = tokens.filter(is_lost | ends & ~Q(state=TokenState.NONE))
    # The databases order missing ends differently, so lost grants are put first.
    lost_first = Case(When(is_lost, then=0), default=1)
    return [
        {
            "token": one,
            "subject": one.credential.subject,
            "can_renew": not one.credential.is_machine and one.state != TokenState.MISCONFIGURED,
        }
        for one in found.order_by(lost_first, "refresh_token_expires_at", "pk")[:_SHOWN]
    ]
